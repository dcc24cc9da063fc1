//! Rules of a run under hostile histories.

use std::collections::BTreeMap;

use fw_proto::api::{Armed, Command, Offline, OnFull, RunState, TaskReason, TaskState};
use fw_proto::frame::{Applied, Cause, Ended, Fate, Refusal, RefusalReason, Reported};
use fw_proto::record::Offsets;
use fw_proto::{HostId, Incarnation, RunId, Span, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::{Actor, Effect, Event, Kind, News, Ruling, Run};
use crate::plan::{self, Chosen, Exec, Limits, Origin, Plan};

const HOSTS: u128 = 5;

fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(n))
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
}

fn plan() -> Plan {
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
            start_within: Span::from_secs(60),
            offline: Offline::Wait(Span::from_secs(60)),
            parallel: Some(2),
            max_failures: Some(2),
            spread: None,
            lost_after: Span::from_secs(600),
        },
        origin: Origin::default(),
        retries: None,
        incarnation: Incarnation(Uuid::from_u128(1)),
    }
}

fn event(kind: Kind, secs: i64) -> Event {
    Event { at: at(secs), by: Actor::Server, kind }
}

fn ended(code: i32) -> Reported {
    Reported::Ended(Ended {
        cause: Cause::Exited,
        exit_code: Some(code),
        signal: None,
        started_at: at(0),
        finished_at: at(1),
        output: Offsets::default(),
        stdout_sha256: None,
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    })
}

fn applied() -> Reported {
    Reported::Applied(Applied { started_at: at(0), at: at(1), until: at(61) })
}

fn with_fate(fate: Fate, cause: Cause) -> Reported {
    let Reported::Ended(ended) = ended(0) else { unreachable!("an end") };
    Reported::Ended(Ended { cause, armed: Some(fate), ..ended })
}

fn reported() -> impl Strategy<Value = Reported> {
    prop_oneof![
        Just(Reported::NotKnown),
        Just(Reported::Queued),
        Just(Reported::Started(at(0))),
        Just(applied()),
        (0..2).prop_map(ended),
        prop::sample::select(vec![Fate::Kept, Fate::Undone, Fate::UndoFailed])
            .prop_map(|fate| with_fate(fate, Cause::Exited)),
        Just(Reported::Refused(Refusal { reason: RefusalReason::Expired, message: "late".into() })),
        Just(Reported::Unknown("power cut".into())),
    ]
}

/// Any event at all, in any order, also about hosts that the run does not have.
fn kind() -> impl Strategy<Value = Kind> {
    let hosts = prop::collection::vec((0..HOSTS + 1).prop_map(host), 0..4);
    let ruling = prop_oneof![
        Just(Ruling::OfflineFailed),
        Just(Ruling::BudgetSpent),
        Just(Ruling::Lost),
        Just(Ruling::NoSecret)
    ];
    prop_oneof![
        hosts.clone().prop_map(|hosts| Kind::Dispatched { hosts, not_after: at(60) }),
        hosts.clone().prop_map(|hosts| Kind::Asked { hosts }),
        hosts.clone().prop_map(|hosts| Kind::HostsCancelRequested { hosts }),
        prop::collection::vec(((0..HOSTS + 1).prop_map(host), reported()), 0..4)
            .prop_map(|reports| Kind::Reported { reports }),
        (hosts, ruling).prop_map(|(hosts, ruling)| Kind::Ruled { hosts, ruling }),
        Just(Kind::CancelRequested),
        Just(Kind::Planned(Box::new(plan()))),
    ]
}

/// What the kept-up figures must equal at any time.
fn check_figures(run: &Run) {
    let mut counts: BTreeMap<TaskState, u32> = BTreeMap::new();
    for task in run.tasks.values() {
        *counts.entry(task.state).or_default() += 1;
    }
    assert_eq!(run.counts, counts);
    let open = run.tasks.values().filter(|task| !task.state.is_final()).count();
    assert_eq!(run.open as usize, open);
    assert_eq!(run.in_flight as usize, open - run.undispatched.len());
    assert_eq!(
        run.failures as usize,
        run.tasks.values().filter(|task| task.state.is_failure()).count()
    );
    assert_eq!(run.finished_at.is_some(), open == 0);
    assert_eq!(run.state().is_final(), open == 0);
}

proptest! {
    #[test]
    fn whatever_happens_figures_are_true_verdicts_stay_and_the_end_comes_once(kinds in prop::collection::vec(kind(), 0..60)) {
        let mut run = Run::begin(RunId(Uuid::from_u128(9)), &event(Kind::Planned(Box::new(plan())), 0)).expect("planned");
        let mut history = vec![event(Kind::Planned(Box::new(plan())), 0)];
        let mut starts: BTreeMap<HostId, u32> = BTreeMap::new();
        let mut ends = 0;
        for (secs, kind) in (1..).zip(kinds) {
            let before = run.clone();
            let next = event(kind, secs);
            for effect in run.step(&next) {
                match effect {
                    Effect::Start(host) => *starts.entry(host).or_default() += 1,
                    Effect::Ended(_) => ends += 1,
                    Effect::Cancel(_) | Effect::Keep(_) | Effect::Settle(_) => {}
                }
            }
            check_figures(&run);
            for (host, task) in &before.tasks {
                if task.state.is_final() {
                    prop_assert_eq!(run.tasks[host].state, task.state);
                }
            }
            history.push(next);
        }
        prop_assert!(ends <= 1);
        prop_assert_eq!(ends == 1, run.finished_at.is_some());
        // A host is sent a start again only after it said that it does not know the task.
        for (host, count) in starts {
            let asked = history.iter().filter(|event| matches!(&event.kind, Kind::Asked { hosts } if hosts.contains(&host))).count();
            prop_assert!(count as usize <= 1 + asked);
        }
        prop_assert_eq!(Run::fold(run.id, &history).expect("planned"), run);
    }
}

#[test]
fn a_history_begins_with_its_plan() {
    assert!(Run::begin(RunId(Uuid::nil()), &event(Kind::CancelRequested, 0)).is_err());
    assert!(Run::fold(RunId(Uuid::nil()), []).is_err());
}

#[track_caller]
fn check(kinds: Vec<Kind>, expected: RunState) {
    let planned = std::iter::once(Kind::Planned(Box::new(plan())));
    let history: Vec<_> =
        (0..).zip(planned.chain(kinds)).map(|(secs, kind)| event(kind, secs)).collect();
    assert_eq!(Run::fold(RunId(Uuid::nil()), &history).expect("planned").state(), expected);
}

#[test]
fn a_run_says_where_it_stands() {
    let all: Vec<_> = (0..HOSTS).map(host).collect();
    let sent = Kind::Dispatched { hosts: all.clone(), not_after: at(60) };
    let say = |said: Reported| Kind::Reported {
        reports: all.iter().map(|host| (*host, said.clone())).collect(),
    };
    check(vec![], RunState::Planned);
    check(vec![sent.clone()], RunState::Running);
    check(vec![sent.clone(), Kind::CancelRequested], RunState::Cancelling);
    check(vec![Kind::CancelRequested], RunState::Cancelled);
    check(vec![sent.clone(), say(ended(0))], RunState::Succeeded);
    check(vec![sent.clone(), say(ended(1))], RunState::Failed);
    // It was too late to cancel: nothing was.
    check(vec![sent.clone(), Kind::CancelRequested, say(ended(0))], RunState::Succeeded);
    check(
        vec![sent, Kind::Ruled { hosts: all.clone(), ruling: Ruling::Lost }, say(ended(0))],
        RunState::Failed,
    );
    check(
        vec![Kind::Ruled { hosts: all.clone(), ruling: Ruling::OfflineSkipped }],
        RunState::Succeeded,
    );
    // On some hosts alone: the others go on, and decide whether it has failed.
    let some = Kind::HostsCancelRequested { hosts: vec![host(0), host(9)] };
    let rest: Vec<_> = all.iter().copied().filter(|of| *of != host(0)).collect();
    let send = Kind::Dispatched { hosts: all, not_after: at(60) };
    let rest_says =
        |code| Kind::Reported { reports: rest.iter().map(|of| (*of, ended(code))).collect() };
    check(vec![some.clone()], RunState::Running);
    check(vec![some.clone(), send.clone(), rest_says(0)], RunState::Cancelled);
    check(vec![some, send, rest_says(1)], RunState::Failed);
}

#[test]
fn a_host_that_is_cancelled_alone_leaves_room_and_no_failure() {
    let mut run = Run::begin(RunId(Uuid::nil()), &event(Kind::Planned(Box::new(plan())), 0))
        .expect("planned");
    let mut step = |kind, secs| run.step(&event(kind, secs));
    step(Kind::Dispatched { hosts: vec![host(0), host(1)], not_after: at(60) }, 1);
    let cancel = Kind::HostsCancelRequested { hosts: vec![host(0), host(2)] };
    assert_eq!(step(cancel.clone(), 2), [Effect::Cancel(host(0))]);
    // Told again, and also to a host that confirms its start only now.
    assert_eq!(step(cancel, 3), [Effect::Cancel(host(0))]);
    let started = |of| Kind::Reported { reports: vec![(host(of), Reported::Started(at(4)))] };
    assert_eq!(step(started(0), 4), [Effect::Cancel(host(0))]);
    assert_eq!(step(started(1), 4), []);
    let Reported::Ended(ended) = ended(143) else { unreachable!("an end") };
    let end = Reported::Ended(Ended { cause: Cause::Cancelled, ..ended });
    step(Kind::Reported { reports: vec![(host(0), end)] }, 5);
    let state = |of| run.tasks[&host(of)].state;
    assert_eq!((state(0), state(2)), (TaskState::Cancelled, TaskState::Cancelled));
    assert_eq!((state(1), state(3)), (TaskState::Running, TaskState::Queued));
    assert_eq!((run.failures, run.room(), run.state()), (0, 1, RunState::Running));
}

#[test]
fn a_restored_run_gets_no_new_time() {
    let run = Run::begin(RunId(Uuid::nil()), &event(Kind::Planned(Box::new(plan())), 0))
        .expect("planned");
    let later = at(3600);
    assert_eq!(run.not_after(later, run.plan.incarnation), later + Span::from_secs(60));
    assert_eq!(run.not_after(later, Incarnation(Uuid::from_u128(2))), at(60));
}

#[test]
fn a_late_word_is_noted_and_changes_nothing() {
    let lost = Kind::Ruled { hosts: vec![host(0)], ruling: Ruling::Lost };
    let sent = Kind::Dispatched { hosts: vec![host(0)], not_after: at(60) };
    let mut run = Run::begin(RunId(Uuid::nil()), &event(Kind::Planned(Box::new(plan())), 0))
        .expect("planned");
    run.step(&event(sent, 1));
    run.step(&event(lost, 2));
    let effects = run.step(&event(Kind::Reported { reports: vec![(host(0), ended(0))] }, 3));
    assert_eq!(effects, [Effect::Settle(host(0))]);
    let task = &run.tasks[&host(0)];
    assert_eq!(task.state, TaskState::Lost);
    assert_eq!(task.late.as_deref(), Some("ended at 2027-01-15T08:00:01.000Z with exit code 0"));
}

fn armed_plan() -> Plan {
    let armed = plan::Armed {
        undo: Command::Shell("undo".into()),
        within: Span::from_secs(60),
        probe: None,
    };
    Plan { exec: Exec { armed: Some(armed), ..plan().exec }, ..plan() }
}

fn armed_run() -> Run {
    let planned = event(Kind::Planned(Box::new(armed_plan())), 0);
    let mut run = Run::begin(RunId(Uuid::nil()), &planned).expect("planned");
    run.step(&event(Kind::Dispatched { hosts: vec![host(0), host(1)], not_after: at(60) }, 1));
    run
}

fn say(of: u128, said: Reported) -> Kind {
    Kind::Reported { reports: vec![(host(of), said)] }
}

#[test]
fn a_change_that_waits_gets_the_word_unless_its_end_was_asked_for() {
    let mut run = armed_run();
    assert_eq!(run.step(&event(say(0, applied()), 2)), [Effect::Keep(host(0))]);
    let task = &run.tasks[&host(0)];
    assert_eq!((task.state, task.view().armed), (TaskState::Running, Some(Armed::Waiting)));
    assert_eq!(run.news(host(0), &applied()), News::Waits, "told again on the next link");
    assert_eq!(run.word(host(0)), Effect::Keep(host(0)));
    run.step(&event(Kind::HostsCancelRequested { hosts: vec![host(1)] }, 3));
    assert_eq!(run.step(&event(say(1, applied()), 4)), [Effect::Cancel(host(1))]);
    run.step(&event(Kind::Ruled { hosts: vec![host(0)], ruling: Ruling::Lost }, 5));
    assert_eq!(run.tasks[&host(0)].view().armed, None, "a wait that is over is none");
    assert_eq!(run.news(host(0), &applied()), News::None);
}

#[test]
fn the_fate_of_a_change_is_its_verdict() {
    let check = |said: Reported, state, reason: Option<TaskReason>| {
        let mut run = armed_run();
        run.step(&event(say(0, applied()), 2));
        run.step(&event(say(0, said), 3));
        let task = &run.tasks[&host(0)];
        assert_eq!((task.state, task.reason), (state, reason));
        assert_eq!(task.view().armed, reason.and_then(TaskReason::armed));
    };
    let exited = |fate| with_fate(fate, Cause::Exited);
    check(exited(Fate::Kept), TaskState::Succeeded, Some(TaskReason::Kept));
    check(exited(Fate::Undone), TaskState::Failed, Some(TaskReason::Undone));
    check(exited(Fate::UndoFailed), TaskState::Failed, Some(TaskReason::UndoFailed));
    let undone = Some(TaskReason::Undone);
    check(with_fate(Fate::Undone, Cause::TimedOut), TaskState::TimedOut, undone);
    check(with_fate(Fate::Undone, Cause::Cancelled), TaskState::Cancelled, undone);
    let failed = Some(TaskReason::UndoFailed);
    check(with_fate(Fate::UndoFailed, Cause::Cancelled), TaskState::Failed, failed);
    check(ended(0), TaskState::Unknown, None);
}

#[test]
fn a_silent_host_has_time_to_undo_its_change() {
    let (plain, armed) = (plan(), armed_run());
    let plain = Run::begin(armed.id, &event(Kind::Planned(Box::new(plain)), 0)).expect("planned");
    let task = &armed.tasks[&host(0)];
    let more = armed.lost_at(task, at(0)).since(plain.lost_at(task, at(0)));
    let tries = u64::from(plan::UNDO_TRIES) * plan::UNDO_TIMEOUT.as_millis();
    assert!(more.as_millis() > 60_000 + tries, "{more}");
}
