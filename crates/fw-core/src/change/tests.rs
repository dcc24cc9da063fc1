//! Rules of a change in single histories; `hostile` has those that hold in any.

mod hostile;

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::{ChangeState, Command, Offline, OnFull, Role};
use fw_proto::{ChangeId, HostId, Incarnation, RunId, Span, Timestamp};
use uuid::Uuid;

use super::*;
use crate::plan::{Chosen, Exec};
use crate::run::Actor;

const ID: ChangeId = ChangeId(Uuid::from_u128(7));

fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(n))
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
}

fn work(hosts: &BTreeSet<u128>, retries: u32) -> Box<Work> {
    let chosen = |n: &u128| Chosen { id: host(*n), name: format!("h{n}").parse().expect("a name") };
    Box::new(Work {
        exec: Exec {
            command: Command::Shell("true".into()),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: None,
            kill_after: Span::from_secs(10),
            on_full: OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        },
        fill: None,
        selector: "*".into(),
        hosts: hosts.iter().map(chosen).collect(),
        parallel: None,
        offline: Offline::Fail,
        start_within: Span::from_secs(60),
        expect: None,
        retries,
    })
}

fn node(n: usize, act: Act, undo: Option<UndoWhen>) -> Node {
    let undo = match &act {
        Act::Exec(work) => undo.map(|when| Undo { work: work.clone(), when }),
        Act::Wait(_) | Act::Approve(_) | Act::Window(_) | Act::Tick | Act::Confirm => None,
    };
    Node {
        id: format!("n{n}"),
        title: format!("step {n}"),
        line: None,
        group: u32::try_from(n / 3).ok(),
        act,
        undo,
    }
}

fn plan(nodes: Vec<Node>, max_failures: Option<u32>, on_failure: OnFailure) -> Plan {
    Plan {
        origin: Origin::Rollout,
        title: "test".into(),
        source: String::new(),
        inputs: std::collections::BTreeMap::new(),
        nodes,
        max_failures,
        on_failure,
        incarnation: Incarnation(Uuid::from_u128(1)),
    }
}

fn person(name: &str) -> Actor {
    Actor::User(name.to_owned())
}

fn two() -> BTreeSet<u128> {
    BTreeSet::from([0, 1])
}

fn began(node: u32, run: u128, hosts: &[u128]) -> Kind {
    let hosts = hosts.iter().copied().map(host).collect();
    Kind::Began { node, way: Way::Do, run: RunId(Uuid::from_u128(run)), hosts }
}

fn ended(node: u32, run: u128, parts: &[(u128, Part)]) -> Kind {
    let parts = parts.iter().map(|(n, part)| (host(*n), *part)).collect();
    let run = RunId(Uuid::from_u128(run));
    Kind::Ended { node, way: Way::Do, run, parts, cancelled: false }
}

fn after(plan: Plan, kinds: Vec<Kind>) -> Change {
    let first = std::iter::once(Kind::Planned(Box::new(plan)));
    let events = first.chain(kinds).map(|kind| Event { at: at(0), by: person("ada"), kind });
    Change::fold(ID, &events.collect::<Vec<_>>()).expect("planned")
}

#[test]
fn a_rehearsal_that_fails_ends_it_whatever_is_left() {
    let rehearsal = node(0, Act::Exec(work(&BTreeSet::from([0]), 0)), Some(UndoWhen::Failed));
    let wave = node(1, Act::Exec(work(&two(), 0)), Some(UndoWhen::Begun));
    let plan = plan(vec![rehearsal, wave], Some(5), OnFailure::Undo);
    let failed = vec![began(0, 1, &[0]), ended(0, 1, &[(0, Part::Failed)])];
    let change = after(plan.clone(), failed);
    let Next::Begin(begin) = change.next(at(1)) else { panic!("{:?}", change.next(at(1))) };
    assert_eq!((begin.node, begin.way, begin.hosts), (0, Way::Undo, vec![host(0)]));
    assert_eq!(change.why().as_deref(), Some("taking back step 0"));
    let good = after(plan, vec![began(0, 1, &[0]), ended(0, 1, &[(0, Part::Done)])]);
    let Next::Begin(begin) = good.next(at(1)) else { panic!("{:?}", good.next(at(1))) };
    assert_eq!((begin.node, begin.way), (1, Way::Do));
}

#[test]
fn who_failed_and_is_offline_then_has_failed() {
    let waves = (0..2).map(|n| node(n, Act::Exec(work(&two(), 1)), Some(UndoWhen::Begun)));
    let plan = plan(waves.collect(), Some(3), OnFailure::Pause);
    let change = after(
        plan,
        vec![
            began(0, 1, &[0, 1]),
            ended(0, 1, &[(0, Part::Failed), (1, Part::Done)]),
            began(0, 2, &[0]),
            ended(0, 2, &[(0, Part::Skipped)]),
        ],
    );
    let Next::Begin(begin) = change.next(at(1)) else { panic!("{:?}", change.next(at(1))) };
    assert_eq!((begin.node, begin.hosts), (1, vec![host(1)]));
    assert_eq!(change.failures_left(), 2, "it was tried again once by itself, and counts once");
}

#[test]
fn who_was_left_out_takes_no_part_in_what_builds_on_it() {
    let nodes = (0..4).map(|n| node(n, Act::Exec(work(&two(), 0)), None));
    let plan = plan(nodes.collect(), Some(2), OnFailure::Pause);
    let skipped = ended(0, 1, &[(0, Part::Skipped), (1, Part::Done)]);
    let change = after(plan, vec![began(0, 1, &[0, 1]), skipped]);
    let remaining = |node| change.remaining(node);
    assert_eq!(remaining(1), vec![host(1)]);
    assert_eq!(remaining(2), vec![host(1)]);
    assert_eq!(remaining(3), vec![host(0), host(1)], "another group");
}

#[test]
fn a_host_of_which_nothing_was_said_is_unknown() {
    let wave = node(0, Act::Exec(work(&two(), 0)), Some(UndoWhen::Begun));
    let plan = plan(vec![wave], Some(1), OnFailure::Pause);
    let change = after(plan, vec![began(0, 1, &[0, 1]), ended(0, 1, &[(0, Part::Done)])]);
    assert_eq!(change.nodes[0].parts[&host(1)], Part::Unknown);
    assert_eq!(change.state(), ChangeState::Paused);
}

#[test]
fn a_gate_is_passed_by_approval_alone() {
    let gate = Approve { by: Role::Operator, people: 2, expires: None };
    let plan = plan(vec![node(0, Act::Approve(gate), None)], None, OnFailure::Pause);
    let opened = Kind::Opened { node: 0, until: None };
    let change = after(plan, vec![opened, Kind::Passed { node: 0, note: None }]);
    assert_eq!(change.state(), ChangeState::AwaitingApproval);
    let ask = |by: &Actor, role| change.ask(&Request::Approve, by, role);
    assert_eq!(ask(&person("ada"), Role::Admin), Err(Refused::OwnChange(2)));
    assert_eq!(ask(&person("bob"), Role::Viewer), Err(Refused::Role(Role::Operator)));
    assert_eq!(ask(&Actor::Token("ci".into()), Role::Admin), Err(Refused::NotAPerson(2)));
    assert_eq!(ask(&person("bob"), Role::Operator), Ok(Kind::Approved { node: 0 }));
    assert_eq!(
        change.ask(&Request::Undo, &person("bob"), Role::Admin),
        Err(Refused::NoUndo),
        "there is nothing to take back with"
    );
}

#[test]
fn what_comes_after_the_end_moves_nothing() {
    let wave = node(0, Act::Exec(work(&two(), 0)), Some(UndoWhen::Begun));
    let plan = plan(vec![wave], Some(1), OnFailure::Undo);
    let done = ended(0, 1, &[(0, Part::Done), (1, Part::Done)]);
    let not = Kind::NotBegun { node: 0, way: Way::Do, why: "late".into() };
    let kinds = vec![began(0, 1, &[0, 1]), Kind::AbortRequested, done, not];
    let change = after(plan, kinds);
    assert_eq!(change.course, Course::Failed);
    assert_eq!(change.why().as_deref(), Some("a person ended it before it was through"));
    assert_eq!(change.nodes[0].note, None);
}

#[test]
fn what_it_says_of_itself_names_hosts_and_times() {
    let says = |plan: Plan, kinds: Vec<Kind>| after(plan, kinds).why();
    let hosts: BTreeSet<u128> = (0..5).collect();
    let wave = || node(0, Act::Exec(work(&hosts, 0)), Some(UndoWhen::Begun));
    let with = |max, on_failure| plan(vec![wave()], Some(max), on_failure);
    let begun = || began(0, 1, &[0, 1, 2, 3, 4]);
    let end = |failed: &[u128]| {
        let part = |n| if failed.contains(&n) { Part::Failed } else { Part::Done };
        ended(0, 1, &hosts.iter().map(|n| (*n, part(*n))).collect::<Vec<_>>())
    };
    let back = |failed: &[u128]| {
        let part = |n: &u128| if failed.contains(n) { Part::Failed } else { Part::Done };
        let parts = hosts.iter().map(|n| (host(*n), part(n))).collect();
        let (run, hosts) = (RunId(Uuid::from_u128(2)), hosts.iter().copied().map(host).collect());
        let began = Kind::Began { node: 0, way: Way::Undo, run, hosts };
        [began, Kind::Ended { node: 0, way: Way::Undo, run, parts, cancelled: false }]
    };
    let one = says(with(2, OnFailure::Pause), vec![begun(), end(&[3])]);
    assert_eq!(one.as_deref(), Some("it failed on h3, and so many may"));
    let paused = says(with(2, OnFailure::Pause), vec![begun(), end(&[1, 3])]);
    let told = "step 0 failed on h1 and h3; resume tries it again, undo takes all back";
    assert_eq!(paused.as_deref(), Some(told));
    let stopped = says(with(1, OnFailure::Stop), vec![begun(), end(&[0, 1, 2, 3, 4])]);
    assert_eq!(stopped.as_deref(), Some("step 0 failed on h0, h1, h2 and 2 more"));
    let [undo, undone] = back(&[]);
    let undone = says(with(1, OnFailure::Undo), vec![begun(), end(&[3]), undo, undone]);
    assert_eq!(undone.as_deref(), Some("step 0 failed on h3"), "why it was taken back");
    let [undo, undone] = back(&[]);
    let asked = vec![begun(), end(&[]), Kind::UndoRequested, undo, undone];
    assert_eq!(says(with(1, OnFailure::Undo), asked), None);
    let [undo, undone] = back(&[]);
    let ended = vec![begun(), Kind::AbortRequested, end(&[3]), Kind::UndoRequested, undo, undone];
    assert_eq!(says(with(1, OnFailure::Undo), ended), None, "what a person ended did not fail");
    let [undo, stuck] = back(&[2]);
    let stuck = says(with(1, OnFailure::Undo), vec![begun(), end(&[3]), undo, stuck]);
    assert_eq!(stuck.as_deref(), Some("it could not be taken back on h2; look at it now"));

    let gate = Approve { by: Role::Operator, people: 2, expires: Some(Span::from_secs(60)) };
    let gated = || plan(vec![node(0, Act::Approve(gate.clone()), None)], None, OnFailure::Pause);
    let opened = || Kind::Opened { node: 0, until: Some(at(60)) };
    let asked = says(gated(), vec![opened(), Kind::Approved { node: 0 }]);
    let told = format!("step 0: 1 of 2 approvals by role operator, until {}", at(60));
    assert_eq!(asked, Some(told));
    let late = says(gated(), vec![opened(), Kind::Approved { node: 0 }, Kind::Expired { node: 0 }]);
    assert_eq!(late.as_deref(), Some("step 0: not approved in time; resume asks again"));
}

#[test]
fn hours_that_are_waited_for_say_when_they_come() {
    // It is a Friday at 08:00 UTC.
    let hours = Windows { windows: vec!["Mon 06:00-07:00".into()], timezone: "UTC".into() };
    let plan = plan(vec![node(0, Act::Window(hours), None)], None, OnFailure::Pause);
    let mut change = after(plan, Vec::new());
    let Next::Record(opened) = change.next(at(0)) else { panic!("{:?}", change.next(at(0))) };
    change.step(&Event { at: at(0), by: Actor::Server, kind: opened });
    let told = "step 0: waits for its hours, Mon 06:00-07:00 UTC, until 2027-01-18T06:00:00.000Z";
    assert_eq!(change.why().as_deref(), Some(told));
}

#[test]
fn a_step_that_is_skipped_before_it_was_let_run_never_runs() {
    let of = |id: &str, act| Node { id: id.into(), ..node(0, act, Some(UndoWhen::Begun)) };
    let run = || Act::Exec(work(&two(), 0));
    for asks in [Act::Confirm, Act::Tick] {
        let nodes = vec![of("a", asks), of("a", run()), of("b", run())];
        let opened = Kind::Opened { node: 0, until: None };
        let skipped = Kind::Skipped { node: 0, note: Some("no need".into()) };
        let plan = plan(nodes, None, OnFailure::Pause);
        let change = after(plan, vec![opened, skipped]);
        let Next::Begin(begin) = change.next(at(1)) else { panic!("{:?}", change.next(at(1))) };
        assert_eq!(begin.node, 2, "what was to be asked about is left out as well");
        let stands: Vec<_> = change.nodes.iter().map(|one| one.stand).collect();
        assert_eq!(stands, [Stand::Skipped, Stand::Skipped, Stand::Ahead]);
    }
}
