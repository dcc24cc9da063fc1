//! A run on 10,000 hosts, from its plan to its end.

use std::collections::BTreeMap;
use std::hint::black_box;

use fw_core::hub::{Decisions, Effect, GRACE, Hub};
use fw_core::plan::{Chosen, Exec, Limits, ONLY_NODE, Origin, Plan};
use fw_core::run::{Actor, Event, Kind, Run};
use fw_proto::api::{Command, Offline, OnFull};
use fw_proto::frame::{Cause, Ended, Report, Reported};
use fw_proto::record::Offsets;
use fw_proto::{Incarnation, RunId, Span, TaskKey};
use uuid::Uuid;

use super::{HOSTS, at, host, name};
use crate::scenario::{Scenario, Size};

const RUN: RunId = RunId(Uuid::from_u128(1));
const STORE: Incarnation = Incarnation(Uuid::from_u128(2));

/// Reports that come in one frame, or are taken up together.
const BATCH: usize = 256;

/// Hosts in flight of a run that goes round in turns.
const PARALLEL: u32 = 100;

pub(super) fn all() -> Vec<Scenario> {
    let (each, twice) = (Size::Items(u64::from(HOSTS)), Size::Items(2 * u64::from(HOSTS)));
    vec![
        Scenario::once("run-step-10000", each, steps),
        Scenario::once("hub-begin-10000", each, || {
            let mut hub = linked();
            move || {
                hub.begin(RUN, plan(None), Actor::Server, at(0));
                (commit(&mut hub), hub)
            }
        }),
        Scenario::once("hub-reports-by-one", twice, || life(1)),
        Scenario::once("hub-reports-by-256", twice, || life(BATCH)),
        Scenario::once("hub-turns-10000", each, turns),
        Scenario::again("hub-decide-idle", Size::Items(1), || {
            let mut hub = begun(None);
            move || hub.decide(black_box(at(2)))
        }),
        Scenario::once("hub-link-10000", each, links),
        Scenario::once("hub-relink-10000", each, relinks),
        Scenario::again("hub-summary-waiting", Size::Items(1), || {
            let hub = begun(Some(PARALLEL));
            move || hub.summary(hub.run(RUN).expect("it has begun"))
        }),
        Scenario::again("hub-view-10000", each, || {
            let hub = begun(Some(PARALLEL));
            move || hub.view(hub.run(RUN).expect("it has begun"))
        }),
    ]
}

/// Events of one host each, on a run alone.
fn steps() -> impl FnOnce() -> Run {
    let planned = Event { at: at(0), by: Actor::Server, kind: Kind::Planned(Box::new(plan(None))) };
    let mut run = Run::begin(RUN, &planned).expect("it is a plan");
    let hosts = (0..HOSTS).map(host).collect();
    let sent = Kind::Dispatched { hosts, not_after: at(60) };
    run.step(&Event { at: at(0), by: Actor::Server, kind: sent });
    let reports = (0..HOSTS).map(|n| vec![(host(n), ended())]);
    let events: Vec<Event> = reports
        .map(|reports| Event { at: at(1), by: Actor::Server, kind: Kind::Reported { reports } })
        .collect();
    move || {
        for event in &events {
            black_box(run.step(black_box(event)));
        }
        assert!(run.finished_at.is_some(), "all have ended");
        run
    }
}

/// All hosts say that they started, then that they ended; so many reports are taken up at once.
fn life(batch: usize) -> impl FnOnce() -> Hub {
    let mut hub = begun(None);
    let all =
        |said: &Reported| (0..HOSTS).map(|n| (host(n), report(said.clone()))).collect::<Vec<_>>();
    let reports = [all(&Reported::Started(at(1))), all(&ended())].concat();
    move || {
        for batch in reports.chunks(batch) {
            for (host, report) in batch {
                hub.reported(*host, report.clone());
            }
            black_box(commit(&mut hub));
        }
        assert!(hub.run(RUN).is_none(), "the run has ended");
        hub
    }
}

/// Each host that ends lets the next one begin.
fn turns() -> impl FnOnce() -> Hub {
    let mut hub = linked();
    hub.begin(RUN, plan(Some(PARALLEL)), Actor::Server, at(0));
    let mut due = commit(&mut hub).effects;
    move || {
        while let Some(effect) = due.pop() {
            if let Effect::Start { host, .. } = effect {
                hub.reported(host, report(ended()));
                due.extend(commit(&mut hub).effects);
            }
        }
        assert!(hub.run(RUN).is_none(), "the run has ended");
        hub
    }
}

/// Hosts that a run waits for come one by one.
fn links() -> impl FnOnce() -> Hub {
    let mut hub = Hub::new(STORE, at(0), GRACE);
    hub.begin(RUN, plan(None), Actor::Server, at(0));
    commit(&mut hub);
    move || {
        for n in 0..HOSTS {
            hub.linked(host(n), Vec::new(), at(1));
            black_box(commit(&mut hub));
        }
        hub
    }
}

/// All links break, and the hosts come back one by one with what they run.
fn relinks() -> impl FnOnce() -> Hub {
    let mut hub = begun(None);
    let started = Reported::Started(at(1));
    (0..HOSTS).for_each(|n| hub.reported(host(n), report(started.clone())));
    commit(&mut hub);
    move || {
        (0..HOSTS).for_each(|n| hub.unlinked(host(n), at(2)));
        black_box(commit(&mut hub));
        for n in 0..HOSTS {
            hub.linked(host(n), vec![report(started.clone())], at(3));
            black_box(commit(&mut hub));
        }
        hub
    }
}

/// What the server asks of the hub for one commit.
fn commit(hub: &mut Hub) -> Decisions {
    let decisions = hub.decide(at(1));
    for (id, append) in &decisions.appends {
        if let Some(run) = append.finished.as_deref().or_else(|| hub.run(*id)) {
            black_box(hub.summary(run));
        }
    }
    decisions
}

/// A hub to which all hosts are linked.
fn linked() -> Hub {
    let mut hub = Hub::new(STORE, at(0), GRACE);
    (0..HOSTS).for_each(|n| hub.linked(host(n), Vec::new(), at(0)));
    hub
}

/// The same after it began the run.
fn begun(parallel: Option<u32>) -> Hub {
    let mut hub = linked();
    hub.begin(RUN, plan(parallel), Actor::Server, at(0));
    commit(&mut hub);
    hub
}

fn plan(parallel: Option<u32>) -> Plan {
    Plan {
        exec: Exec {
            command: Command::Shell("systemctl restart nginx".to_owned()),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: Some(Span::from_secs(60)),
            kill_after: Span::from_secs(10),
            on_full: OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        },
        selector: "*".to_owned(),
        hosts: (0..HOSTS).map(|n| Chosen { id: host(n), name: name(n) }).collect(),
        limits: Limits {
            start_within: Span::from_secs(600),
            offline: Offline::Wait(Span::from_secs(600)),
            parallel,
            max_failures: None,
            spread: None,
            lost_after: Span::from_secs(600),
        },
        origin: Origin::default(),
        retries: None,
        incarnation: STORE,
    }
}

fn report(state: Reported) -> Report {
    Report { key: TaskKey { run: RUN, node: ONLY_NODE, attempt: 1 }, state }
}

fn ended() -> Reported {
    Reported::Ended(Ended {
        cause: Cause::Exited,
        exit_code: Some(0),
        signal: None,
        started_at: at(0),
        finished_at: at(1),
        output: Offsets { stdout: 100, ..Offsets::default() },
        stdout_sha256: Some([9; 32]),
        stderr_sha256: Some([8; 32]),
        left_behind: 0,
        armed: None,
    })
}
