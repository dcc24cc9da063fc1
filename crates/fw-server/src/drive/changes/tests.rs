//! Changes on a real store and a real hub, with hosts that answer as the test says.

use std::collections::BTreeMap;

use fw_core::change::{
    Act, Approve, Cause, Change, Event, Fill, Kind, Node, OnFailure, Origin, Plan, Request, Stand,
    Undo, UndoWhen, Way, Work,
};
use fw_core::plan::{Chosen, Exec, KILL_AFTER, START_WITHIN};
use fw_core::run::Actor;
use fw_proto::api::{ChangeState, Code, Command, Offline, OnFull, Role, TaskState};
use fw_proto::{ChangeId, HostId, RunId, Span};
use fw_store::{ChangeAppend, ChangeRow};

use crate::drive::world::{World, eventually};

fn ada() -> Actor {
    Actor::User("ada".to_owned())
}

fn work(command: &str, hosts: &[(HostId, &str)]) -> Work {
    Work {
        exec: Exec {
            command: Command::Shell(command.to_owned()),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: None,
            kill_after: KILL_AFTER,
            on_full: OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        },
        fill: None,
        selector: "h*".to_owned(),
        hosts: hosts
            .iter()
            .map(|(id, name)| Chosen { id: *id, name: name.parse().unwrap() })
            .collect(),
        parallel: None,
        offline: Offline::Fail,
        start_within: START_WITHIN,
        expect: None,
        retries: 0,
    }
}

fn node(id: &str, act: Act, undo: Option<Work>) -> Node {
    let undo = undo.map(|work| Undo { work: Box::new(work), when: UndoWhen::Begun });
    Node { id: id.to_owned(), title: id.to_owned(), line: None, group: None, act, undo }
}

fn exec(work: Work) -> Act {
    Act::Exec(Box::new(work))
}

fn plan(world: &World, nodes: Vec<Node>, on_failure: OnFailure) -> Plan {
    Plan {
        origin: Origin::Rollout,
        title: "nginx".to_owned(),
        source: String::new(),
        inputs: std::collections::BTreeMap::new(),
        nodes,
        max_failures: None,
        on_failure,
        incarnation: world.store.incarnation(),
    }
}

async fn start(world: &World, plan: Plan) -> ChangeId {
    let id = world.changes.new_id();
    world.changes.start(id, plan, ada(), world.store.clone()).await.unwrap();
    id
}

async fn ask(world: &World, id: ChangeId, request: Request) -> Result<(), Code> {
    let by = Actor::User("bob".to_owned());
    let asked = world.changes.ask(id, request, by, Role::Operator, world.store.clone()).await;
    asked.map_err(|problem| problem.code)
}

async fn when<T>(
    world: &World,
    id: ChangeId,
    what: &str,
    found: impl Fn(&Change) -> Option<T>,
) -> T {
    let look = async || found(&world.changes.get(id).await.unwrap().unwrap());
    eventually(what, look).await
}

async fn state_is(world: &World, id: ChangeId, state: ChangeState) {
    let look = |change: &Change| (change.state() == state).then_some(());
    when(world, id, state.as_str(), look).await;
}

/// The runs of a node, and whether each takes it back.
fn runs(change: &Change) -> Vec<(usize, Way, RunId)> {
    let all = change.nodes.iter().enumerate().flat_map(|(at, one)| {
        let done = one.tries.iter().map(move |run| (at, Way::Do, run.run));
        done.chain(one.undo_tries.iter().map(move |run| (at, Way::Undo, run.run)))
    });
    all.collect()
}

#[tokio::test]
async fn waves_follow_one_another_and_a_gate_waits_for_somebody() {
    let world = World::with(&[]).await;
    let (a, b) = (world.host("h1").await, world.host("h2").await);
    let gate = Approve { by: Role::Operator, people: 1, expires: None };
    let nodes = vec![
        node("wave-1", exec(work("one", &[(a, "h1")])), None),
        node("gate", Act::Approve(gate), None),
        node("soak", Act::Wait(Span::from_millis(20)), None),
        node("wave-2", exec(work("two", &[(b, "h2")])), None),
    ];
    let id = start(&world, plan(&world, nodes, OnFailure::Pause)).await;
    let first = world.end_next(a, 0).await;
    state_is(&world, id, ChangeState::AwaitingApproval).await;
    let run = world.store.run(first).await.unwrap().unwrap();
    assert_eq!((run.summary.change, run.summary.by.as_str()), (Some(id), "ada"));
    assert_eq!(ask(&world, id, Request::Resume).await, Err(Code::Conflict));
    assert_eq!(ask(&world, world.changes.new_id(), Request::Pause).await, Err(Code::NotFound));
    ask(&world, id, Request::Approve).await.unwrap();
    let second = world.end_next(b, 0).await;
    state_is(&world, id, ChangeState::Succeeded).await;
    let change = world.changes.get(id).await.unwrap().unwrap();
    assert_eq!(runs(&change), [(0, Way::Do, first), (3, Way::Do, second)]);
    assert_eq!(world.store.unfinished_changes().await.unwrap(), []);
    assert_eq!(ask(&world, id, Request::Pause).await, Err(Code::Conflict));
}

#[tokio::test]
async fn what_failed_is_taken_back_where_it_was_begun() {
    let world = World::with(&[]).await;
    let (a, b) = (world.host("h1").await, world.host("h2").await);
    let undo = |host| Some(work("back", &[host]));
    let nodes = vec![
        node("wave-1", exec(work("one", &[(a, "h1")])), undo((a, "h1"))),
        node("wave-2", exec(work("two", &[(b, "h2")])), undo((b, "h2"))),
    ];
    let id = start(&world, plan(&world, nodes, OnFailure::Undo)).await;
    let first = world.end_next(a, 0).await;
    let second = world.end_next(b, 1).await;
    let third = world.end_next(b, 0).await;
    let fourth = world.end_next(a, 0).await;
    state_is(&world, id, ChangeState::Undone).await;
    let change = world.changes.get(id).await.unwrap().unwrap();
    let expected =
        [(0, Way::Do, first), (0, Way::Undo, fourth), (1, Way::Do, second), (1, Way::Undo, third)];
    assert_eq!(runs(&change), expected);
    assert_eq!(ask(&world, id, Request::Undo).await, Err(Code::Conflict));
}

#[tokio::test]
async fn what_succeeded_can_be_taken_back_later_even_by_another_server() {
    let world = World::with(&[]).await;
    let a = world.host("h1").await;
    let nodes =
        vec![node("one", exec(work("one", &[(a, "h1")])), Some(work("back", &[(a, "h1")])))];
    let id = start(&world, plan(&world, nodes, OnFailure::Pause)).await;
    world.end_next(a, 0).await;
    state_is(&world, id, ChangeState::Succeeded).await;
    let world = world.stop().await.start().await;
    world.link(a).await;
    ask(&world, id, Request::Undo).await.unwrap();
    world.end_next(a, 0).await;
    state_is(&world, id, ChangeState::Undone).await;
}

/// As a server leaves it that dies right after it has announced a run.
#[tokio::test]
async fn a_run_that_was_announced_is_begun_under_its_id() {
    let world = World::with(&[]).await;
    let (a, b) = (world.host("h1").await, world.host("h2").await);
    let nodes = vec![
        node("one", exec(work("one", &[(a, "h1")])), None),
        node("two", exec(work("two", &[(b, "h2")])), None),
    ];
    let plan = plan(&world, nodes, OnFailure::Pause);
    let (id, run, at) = (world.changes.new_id(), RunId(uuid::Uuid::now_v7()), world.clock.now());
    let event = |kind| Event { at, by: ada(), kind };
    let began = Kind::Began { node: 0, way: Way::Do, run, hosts: vec![a] };
    let events = vec![event(Kind::Planned(Box::new(plan))), event(began)];
    let row = ChangeRow::from(&Change::fold(id, &events).unwrap());
    let stopped = world.stop().await;
    let store = stopped.store().await;
    store.commit_change(ChangeAppend { expected_seq: 0, events, row }).await.unwrap();
    store.close().await;
    let world = stopped.start().await;
    world.link(a).await;
    world.link(b).await;
    assert_eq!(world.end_next(a, 0).await, run);
    world.end_next(b, 0).await;
    state_is(&world, id, ChangeState::Succeeded).await;
}

#[tokio::test]
async fn a_pause_lets_what_was_sent_end_and_cancels_the_rest() {
    let world = World::with(&[]).await;
    let (a, b) = (world.host("h1").await, world.host("h2").await);
    let both = [(a, "h1"), (b, "h2")];
    let one = Work { parallel: Some(1), ..work("one", &both) };
    let id =
        start(&world, plan(&world, vec![node("one", exec(one), None)], OnFailure::Pause)).await;
    let open = |change: &Change| change.open_try().map(|(_, _, one)| one.run);
    let run = when(&world, id, "its run", open).await;
    world.begun(run, "h1").await;
    ask(&world, id, Request::Pause).await.unwrap();
    assert_eq!(world.end_next(a, 0).await, run);
    let over = |change: &Change| change.open_try().is_none().then_some(());
    when(&world, id, "the run has ended", over).await;
    state_is(&world, id, ChangeState::Paused).await;
    let report = world.store.run(run).await.unwrap().unwrap();
    let states: Vec<_> = report.tasks.iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Succeeded, TaskState::Cancelled]);
    ask(&world, id, Request::Resume).await.unwrap();
    assert_ne!(world.end_next(b, 0).await, run);
    state_is(&world, id, ChangeState::Succeeded).await;
}

#[tokio::test]
async fn an_abort_cancels_what_runs() {
    let world = World::with(&[]).await;
    let a = world.host("h1").await;
    let nodes = vec![node("one", exec(work("one", &[(a, "h1")])), None)];
    let id = start(&world, plan(&world, nodes, OnFailure::Pause)).await;
    let open = |change: &Change| change.open_try().map(|(_, _, one)| one.run);
    let run = when(&world, id, "its run", open).await;
    world.begun(run, "h1").await;
    ask(&world, id, Request::Abort).await.unwrap();
    assert_eq!(world.cancel_next(a).await, run);
    state_is(&world, id, ChangeState::Failed).await;
}

#[tokio::test]
async fn a_run_that_somebody_else_cancels_pauses_it() {
    let world = World::with(&[]).await;
    let a = world.host("h1").await;
    let nodes = vec![node("one", exec(work("one", &[(a, "h1")])), None)];
    let id = start(&world, plan(&world, nodes, OnFailure::Stop)).await;
    let open = |change: &Change| change.open_try().map(|(_, _, one)| one.run);
    let run = when(&world, id, "its run", open).await;
    world.begun(run, "h1").await;
    world.hub.cancel(run, ada()).await.unwrap();
    world.cancel_next(a).await;
    let paused = |change: &Change| change.pause.as_ref().map(|pause| pause.cause);
    assert_eq!(when(&world, id, "a pause", paused).await, Cause::Cancelled(0));
}

#[tokio::test]
async fn a_command_without_its_values_is_not_begun() {
    let world = World::with(&[]).await;
    let a = world.host("h1").await;
    let template = "echo {{ steps.other.stdout }}";
    let fill = Some(Fill { template: template.to_owned(), inputs: BTreeMap::new() });
    let one = Work { fill, ..work(template, &[(a, "h1")]) };
    let nodes = vec![node("one", exec(one), None)];
    let id = start(&world, plan(&world, nodes, OnFailure::Pause)).await;
    state_is(&world, id, ChangeState::Paused).await;
    let change = world.changes.get(id).await.unwrap().unwrap();
    assert_eq!(runs(&change), []);
    assert_eq!(change.nodes[0].stand, Stand::Failed);
    assert!(change.nodes[0].note.is_some());
}

#[tokio::test]
async fn a_restored_store_waits_for_a_person() {
    let world = World::with(&[]).await;
    let gate = Approve { by: Role::Operator, people: 1, expires: None };
    let nodes = vec![node("gate", Act::Approve(gate), None)];
    let id = start(&world, plan(&world, nodes, OnFailure::Pause)).await;
    state_is(&world, id, ChangeState::AwaitingApproval).await;
    let world = world.stop().await.restored().await;
    state_is(&world, id, ChangeState::Paused).await;
    ask(&world, id, Request::Resume).await.unwrap();
    let world = world.stop().await.start().await;
    state_is(&world, id, ChangeState::AwaitingApproval).await;
    ask(&world, id, Request::Approve).await.unwrap();
    state_is(&world, id, ChangeState::Succeeded).await;
}

/// Whoever began it hears that it could not be written; then it does not lie there until the server is
/// started again.
#[tokio::test]
async fn one_that_was_written_after_all_goes_on() {
    let world = World::with(&[]).await;
    let host = world.host("h1").await;
    let nodes = vec![node("wave-1", exec(work("one", &[(host, "h1")])), None)];
    let plan = plan(&world, nodes, OnFailure::Pause);
    let id = world.changes.new_id();
    let kind = Kind::Planned(Box::new(plan.clone()));
    let event = Event { at: world.clock.now(), by: ada(), kind };
    let row = ChangeRow::from(&Change::begin(id, &event).unwrap());
    world
        .store
        .commit_change(ChangeAppend { expected_seq: 0, events: vec![event], row })
        .await
        .unwrap();
    let told = world.changes.start(id, plan, ada(), world.store.clone()).await;
    assert!(told.is_err(), "its first event is there already");
    world.end_next(host, 0).await;
    state_is(&world, id, ChangeState::Succeeded).await;
}
