//! What the hub keeps up must be what counting anew would give.

use std::collections::BTreeMap;

use fw_proto::api::{Command, Offline, OnFull, TaskReason, TaskState, WaitingOn};
use fw_proto::frame::{Applied, Report, Reported};
use fw_proto::{HostId, Incarnation, RunId, Span, TaskKey, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::{Effect, Hub};
use crate::plan::{Armed, Chosen, Exec, Limits, ONLY_NODE, Origin, Plan};
use crate::run::Actor;

const HOSTS: u128 = 4;
const RUN: RunId = RunId(Uuid::from_u128(1));

#[derive(Debug, Clone)]
enum Step {
    Linked(u128, Option<Reported>),
    Unlinked(u128),
    Said(u128, Reported),
    Gone(u128),
    Cancel,
    CancelHost(u128),
    Wait(u64),
}

fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(n))
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000) + Span::from_secs(secs)
}

fn report(state: Reported) -> Report {
    Report { key: TaskKey { run: RUN, node: ONLY_NODE, attempt: 1 }, state }
}

fn plan(parallel: Option<u32>) -> Plan {
    Plan {
        exec: Exec {
            command: Command::Shell("true".into()),
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
        selector: "*".into(),
        hosts: (0..HOSTS)
            .map(|n| Chosen { id: host(n), name: format!("h{n}").parse().expect("a name") })
            .collect(),
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
        incarnation: Incarnation(Uuid::from_u128(1)),
    }
}

fn said() -> impl Strategy<Value = Reported> {
    prop_oneof![
        Just(Reported::NotKnown),
        Just(Reported::Queued),
        Just(Reported::Started(at(0))),
        Just(Reported::Applied(Applied { started_at: at(0), at: at(1), until: at(61) })),
        Just(Reported::Unknown("power cut".into())),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0..HOSTS;
    prop_oneof![
        4 => (host.clone(), prop::option::of(said())).prop_map(|(host, said)| Step::Linked(host, said)),
        2 => host.clone().prop_map(Step::Unlinked),
        4 => (host.clone(), said()).prop_map(|(host, said)| Step::Said(host, said)),
        1 => host.clone().prop_map(Step::Gone),
        1 => host.prop_map(Step::CancelHost),
        1 => Just(Step::Cancel),
        2 => (1..300_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Also in a restored store, whose hosts are held back until they say what they remember.
    #[test]
    fn who_is_here_need_not_be_counted(
        parallel in prop::option::of(1..4_u32),
        restored in any::<bool>(),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let incarnation = Incarnation(Uuid::from_u128(1 + u128::from(restored)));
        let mut hub = Hub::new(incarnation, at(0), Span::from_secs(30));
        hub.begin(RUN, plan(parallel), Actor::Server, at(0));
        hub.decide(at(0));
        let mut secs = 0;
        for step in steps {
            match step {
                Step::Linked(n, said) => {
                    hub.unlinked(host(n), at(secs));
                    hub.linked(host(n), said.map(report).into_iter().collect(), at(secs));
                }
                Step::Unlinked(n) => hub.unlinked(host(n), at(secs)),
                Step::Said(n, said) => hub.reported(host(n), report(said)),
                Step::Gone(n) => hub.gone(host(n), at(secs)),
                Step::Cancel => drop(hub.cancel(RUN, Actor::Server, at(secs))),
                Step::CancelHost(n) => {
                    hub.cancel_hosts(RUN, &[host(n)], Actor::Server, at(secs));
                }
                Step::Wait(more) => secs += more,
            }
            hub.decide(at(secs));
            let Some(run) = hub.run(RUN) else { return Ok(()) };
            let here = run.undispatched.iter().filter(|(_, host)| hub.online().contains(host));
            let counted = run.waiting_on(here.count(), restored);
            prop_assert_eq!(hub.summary(run).report.waiting_on, counted);
        }
    }
}

fn spread_plan(parallel: Option<u32>, secs: u64) -> Plan {
    let mut plan = plan(parallel);
    plan.limits.spread = Some(Span::from_secs(secs));
    plan
}

proptest! {
    /// Nobody begins before its turn; and when it has come, whoever is here begins at once.
    #[test]
    fn a_run_that_is_spread_keeps_turns(
        parallel in prop::option::of(1..4_u32),
        spread in 1..200_u64,
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::from_secs(30));
        hub.begin(RUN, spread_plan(parallel, spread), Actor::Server, at(0));
        hub.decide(at(0));
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Linked(n, _) => hub.linked(host(n), Vec::new(), now),
                Step::Unlinked(n) => hub.unlinked(host(n), now),
                Step::Said(n, said) => hub.reported(host(n), report(said)),
                Step::Gone(n) => hub.gone(host(n), now),
                Step::Cancel => drop(hub.cancel(RUN, Actor::Server, now)),
                Step::CancelHost(n) => {
                    hub.cancel_hosts(RUN, &[host(n)], Actor::Server, now);
                }
                // To the next instant at which something is due, not past it.
                Step::Wait(more) => {
                    let wake = hub.next_wake().unwrap_or(now).max(now);
                    now = wake.min(now + Span::from_secs(more));
                }
            }
            hub.decide(now);
            let Some(run) = hub.run(RUN) else { return Ok(()) };
            for task in run.tasks.values() {
                prop_assert!(task.dispatched_at.is_none_or(|at| at >= run.turn_at(task.place)));
            }
            let mut here = run.undispatched.iter().filter(|(_, id)| hub.online().contains(id));
            if let Some((place, _)) = here.next().filter(|_| run.room() > 0) {
                let turn = run.turn_at(*place);
                prop_assert!(turn > now, "place {} waits", place);
                prop_assert!(hub.next_wake().is_some_and(|wake| wake <= turn));
            }
        }
    }
}

#[test]
fn turns_divide_the_spread_and_the_absent_are_waited_for_from_theirs() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::ZERO);
    let mut plan = spread_plan(None, 60);
    plan.limits.offline = Offline::Wait(Span::from_secs(10));
    hub.begin(RUN, plan, Actor::Server, at(0));
    hub.linked(host(1), Vec::new(), at(0));
    hub.linked(host(3), Vec::new(), at(0));
    hub.decide(at(0));
    let state = |hub: &Hub, n| hub.run(RUN).map(|run| run.tasks[&host(n)].state);
    let begun = |secs: u64, hub: &mut Hub| {
        hub.decide(at(secs));
        (0..HOSTS).map(|n| state(hub, n)).collect::<Vec<_>>()
    };
    let [queued, starting, failed] =
        [TaskState::Queued, TaskState::Starting, TaskState::Failed].map(Some);
    assert_eq!(begun(9, &mut hub), [queued; 4]);
    assert_eq!(hub.next_wake(), Some(at(10)));
    assert_eq!(begun(10, &mut hub), [failed, queued, queued, queued]);
    assert_eq!(begun(15, &mut hub), [failed, starting, queued, queued]);
    assert_eq!(hub.next_wake(), Some(at(30 + 10)));
    assert_eq!(begun(39, &mut hub), [failed, starting, queued, queued]);
    assert_eq!(begun(40, &mut hub), [failed, starting, failed, queued]);
    let waiting = hub.run(RUN).map(|run| hub.summary(run).report.waiting_on);
    let until = at(45);
    let starts = WaitingOn::Starting { hosts: 1 };
    assert_eq!(waiting, Some(vec![starts, WaitingOn::Spread { hosts: 1, until }]));
    assert_eq!(begun(45, &mut hub), [failed, starting, failed, starting]);
}

/// A start is due twice when its host links just as the dispatch is committed.
#[test]
fn a_secret_that_goes_after_the_start_was_sent_changes_nothing() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::ZERO);
    hub.begin(RUN, plan(None), Actor::Server, at(0));
    hub.linked(host(0), Vec::new(), at(0));
    hub.linked(host(1), Vec::new(), at(0));
    hub.decide(at(0));
    hub.sent_secrets(host(0), RUN);
    hub.sent_secrets(host(1), RUN);
    hub.no_secret(host(0), RUN, at(1));
    // On a new link it is sent anew, and then it is true.
    hub.linked(host(1), Vec::new(), at(1));
    hub.no_secret(host(1), RUN, at(1));
    hub.decide(at(1));
    let state = |n| hub.run(RUN).map(|run| run.tasks[&host(n)].state);
    assert_eq!((state(0), state(1)), (Some(TaskState::Starting), Some(TaskState::Failed)));
}

/// A try that seemed to fail may have succeeded, and its repetition come with other news of the run.
#[test]
fn a_run_that_goes_on_is_not_begun_again() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::from_secs(30));
    assert!(hub.begin(RUN, plan(None), Actor::Server, at(0)));
    hub.linked(host(0), Vec::new(), at(0));
    hub.decide(at(0));
    assert!(hub.cancel(RUN, Actor::Server, at(1)));
    assert!(!hub.begin(RUN, plan(None), Actor::Server, at(1)));
    let decisions = hub.decide(at(1));
    let append = &decisions.appends[&RUN];
    assert!(append.expected_seq > 0);
    assert!(append.events.iter().all(|event| !matches!(event.kind, crate::run::Kind::Planned(_))));
    assert!(hub.cancel(RUN, Actor::Server, at(2)), "asking again changes nothing");
    assert_eq!(hub.decide(at(2)), crate::hub::Decisions::default());
}

/// The wish comes again when the host links, and a host that never had the start will not get it.
#[test]
fn a_host_that_is_cancelled_alone_makes_room_for_the_next() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::from_secs(30));
    hub.begin(RUN, plan(Some(2)), Actor::Server, at(0));
    (0..HOSTS).for_each(|n| hub.linked(host(n), Vec::new(), at(0)));
    hub.decide(at(0));
    let key = TaskKey { run: RUN, node: ONLY_NODE, attempt: 1 };
    let cancel =
        |hub: &mut Hub, n, now| hub.cancel_hosts(RUN, &[host(n), host(9)], Actor::Server, at(now));
    assert_eq!(cancel(&mut hub, 0, 1), Some(1));
    assert_eq!(cancel(&mut hub, 9, 1), Some(0), "no host of the run");
    assert_eq!(hub.decide(at(1)).effects, [Effect::Cancel { host: host(0), key }]);
    assert!(hub.is_cancelled(RUN, host(0)) && !hub.is_cancelled(RUN, host(1)));
    assert_eq!(cancel(&mut hub, 0, 2), Some(1), "asking again changes nothing");
    assert_eq!(hub.decide(at(2)), crate::hub::Decisions::default());
    // It comes back, and knows the task; then it has lost it, and the next one's turn comes.
    hub.unlinked(host(0), at(3));
    hub.linked(host(0), vec![report(Reported::Queued)], at(3));
    assert_eq!(hub.decide(at(3)).effects, [Effect::Cancel { host: host(0), key }]);
    hub.unlinked(host(0), at(4));
    hub.linked(host(0), Vec::new(), at(4));
    let effects = hub.decide(at(4)).effects;
    assert!(matches!(effects[..], [Effect::Start { host: next, .. }] if next == host(2)));
    let state = |n| hub.run(RUN).map(|run| run.tasks[&host(n)].state);
    assert_eq!((state(0), state(3)), (Some(TaskState::Cancelled), Some(TaskState::Queued)));
}

/// Its store is older than its dispatch, and the host has lost what it held back.
#[test]
fn what_a_restored_run_heard_of_only_as_waiting_does_not_hang() {
    let queued = |hub: &mut Hub| {
        hub.begin(RUN, plan(None), Actor::Server, at(0));
        hub.reported(host(0), report(Reported::NotKnown));
        hub.decide(at(0));
        hub.reported(host(0), report(Reported::Queued));
        hub.decide(at(1));
    };
    let incarnation = Incarnation(Uuid::from_u128(2));
    let mut hub = Hub::new(incarnation, at(0), Span::from_secs(30));
    queued(&mut hub);
    hub.linked(host(0), Vec::new(), at(2));
    let key = TaskKey { run: RUN, node: ONLY_NODE, attempt: 1 };
    assert_eq!(hub.decide(at(2)).effects, [Effect::Query { host: host(0), key }]);
    // Or it never comes back: then it is lost in the end.
    let mut hub = Hub::new(incarnation, at(0), Span::from_secs(30));
    queued(&mut hub);
    hub.linked(host(0), vec![report(Reported::Queued)], at(2));
    hub.decide(at(2));
    hub.unlinked(host(0), at(3));
    hub.decide(at(3));
    hub.decide(at(3 + 700));
    let state = hub.run(RUN).map(|run| run.tasks[&host(0)].state);
    assert!(state.is_none_or(|state| state == TaskState::Lost), "{state:?}");
}

/// A restored store begins a run again under its id, and the host's last word on the one before was
/// under way.
#[test]
fn a_word_that_came_before_its_run_began_again_counts() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::from_secs(30));
    let settle =
        Effect::Settle { host: host(0), key: TaskKey { run: RUN, node: ONLY_NODE, attempt: 1 } };
    let word = report(Reported::Unknown("power cut".into()));
    assert_eq!(hub.recorded(host(0), word.clone()), Some(settle.clone()));
    hub.begin(RUN, plan(None), Actor::Server, at(0));
    hub.linked(host(0), Vec::new(), at(0));
    hub.decide(at(0));
    assert_eq!(hub.recorded(host(0), word.clone()), None);
    assert_eq!(hub.decide(at(1)).effects, vec![settle.clone()]);
    assert_eq!(hub.run(RUN).map(|run| run.tasks[&host(0)].state), Some(TaskState::Unknown));
    assert_eq!(hub.recorded(host(0), word), Some(settle));
}

/// The host spoke first, of the same run in an earlier life of the store, and has lost it since.
#[test]
fn what_a_host_held_back_unasked_and_lost_is_sent_anew() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::from_secs(30));
    hub.begin(RUN, plan(None), Actor::Server, at(0));
    hub.reported(host(0), report(Reported::Queued));
    hub.decide(at(0));
    hub.linked(host(0), Vec::new(), at(1));
    hub.decide(at(1));
    hub.reported(host(0), report(Reported::NotKnown));
    let effects = hub.decide(at(2)).effects;
    assert!(matches!(effects[..], [Effect::Start { .. }]), "{effects:?}");
}

/// Two links of a host come in before anything is decided: on the newer one it no longer knows what it held
/// back on the older.
#[test]
fn what_a_host_held_back_on_a_link_before_is_not_believed_on_the_next() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::from_secs(30));
    hub.begin(RUN, plan(None), Actor::Server, at(0));
    hub.decide(at(0));
    hub.linked(host(0), vec![report(Reported::Queued)], at(1));
    hub.unlinked(host(0), at(1));
    hub.linked(host(0), Vec::new(), at(1));
    let effects = hub.decide(at(1)).effects;
    assert!(matches!(effects[..], [Effect::Start { .. }]), "{effects:?}");
}

fn armed_plan(parallel: Option<u32>) -> Plan {
    let undo = Command::Shell("undo".into());
    let armed = Armed { undo, within: Span::from_secs(60), probe: None };
    let plan = plan(parallel);
    Plan { exec: Exec { armed: Some(armed), ..plan.exec }, ..plan }
}

/// An agent that would skip the undo is never sent the change, not even when it took the place of a newer
/// one after the dispatch.
#[test]
fn an_old_agent_never_gets_an_armed_change() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::ZERO);
    hub.begin(RUN, armed_plan(None), Actor::Server, at(0));
    hub.linked(host(0), Vec::new(), at(0));
    for new in [1, 2] {
        hub.can_arm(host(new));
        hub.linked(host(new), Vec::new(), at(0));
    }
    let started = |effects: &[Effect]| {
        let of = |effect: &Effect| {
            if let Effect::Start { host, .. } = effect { Some(*host) } else { None }
        };
        effects.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(started(&hub.decide(at(0)).effects), [host(1), host(2)]);
    let task = |hub: &Hub, n| {
        hub.run(RUN).map(|run| (run.tasks[&host(n)].state, run.tasks[&host(n)].reason))
    };
    let old = Some((TaskState::Failed, Some(TaskReason::AgentOld)));
    assert_eq!(task(&hub, 0), old);
    let key = report(Reported::Queued).key;
    assert!(hub.wants(host(1), key));
    hub.unlinked(host(1), at(1));
    assert!(!hub.wants(host(1), key), "nobody knows what it links with next");
    hub.linked(host(1), Vec::new(), at(2));
    assert_eq!(started(&hub.decide(at(2)).effects), []);
    assert_eq!(task(&hub, 1), old);
    hub.can_arm(host(2));
    hub.linked(host(2), Vec::new(), at(2));
    assert_eq!(started(&hub.decide(at(2)).effects), [host(2)], "the start is sent again");
}

/// The word is due with each link on which the host says that it waits for it.
#[test]
fn a_host_that_waits_hears_the_word_on_every_link() {
    let mut hub = Hub::new(Incarnation(Uuid::from_u128(1)), at(0), Span::ZERO);
    hub.begin(RUN, armed_plan(None), Actor::Server, at(0));
    let applied = Reported::Applied(Applied { started_at: at(0), at: at(1), until: at(61) });
    let key = report(applied.clone()).key;
    for secs in 0..3 {
        hub.can_arm(host(0));
        hub.linked(host(0), Vec::new(), at(secs));
        hub.decide(at(secs));
        hub.reported(host(0), report(applied.clone()));
        let decisions = hub.decide(at(secs));
        assert!(decisions.effects.contains(&Effect::Keep { host: host(0), key }), "{decisions:?}");
        hub.unlinked(host(0), at(secs));
    }
    hub.cancel(RUN, Actor::Server, at(4));
    hub.decide(at(4));
    hub.reported(host(0), report(applied));
    assert_eq!(hub.decide(at(5)).effects, [Effect::Cancel { host: host(0), key }]);
}
