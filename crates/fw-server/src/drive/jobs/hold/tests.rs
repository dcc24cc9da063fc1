//! Maintenance on a real store and a real hub; time moves when a test says so.

use futures_util::future::join_all;
use fw_core::maintenance::Windows;
use fw_core::run::Actor;
use fw_core::schedule::Schedule;
use fw_proto::api::{ActorKind, Code, RunState, TaskState};
use fw_proto::{HostId, MaintenanceId, RunId, Span, Timestamp};
use fw_store::NewMaintenance;

use super::super::tests::one;
use super::{By, MOST, Said, Wanted};
use crate::drive::world::{MINUTE, World, eventually, name};

fn admin() -> By {
    By::Caller(Actor::Token("admin".to_owned()))
}

async fn on(world: &World, hosts: Option<&str>, until: Option<Timestamp>) -> MaintenanceId {
    let (hosts, reason) = (hosts.map(str::to_owned), "new disks".to_owned());
    let wanted = Wanted { hosts, reason, message: None, until, windows: None };
    world.jobs.begin_maintenance(wanted, admin()).await.unwrap().id
}

async fn off(world: &World, id: MaintenanceId) {
    world.jobs.end_maintenance(id, admin()).await.unwrap();
}

/// The hosts of a run.
async fn hosts_of(world: &World, run: RunId) -> Vec<HostId> {
    let plan = world.store.plan(run).await.unwrap().unwrap();
    plan.hosts.iter().map(|host| host.id).collect()
}

#[tokio::test]
async fn while_everything_is_in_maintenance_nothing_begins_by_itself() {
    let world = World::with(&[("a.yaml", &one("a", ""))]).await;
    let host = world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    let id = on(&world, None, None).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Maintenance 1", "Ran 1"]).await;
    let run = world.end_next(host, 0).await;
    let ended = world.store.run(run).await.unwrap().unwrap();
    assert_eq!(ended.summary.state, RunState::Succeeded, "what ran went on");
    let manual = world.jobs.run_now(&name("a"), Actor::Server).await.unwrap();
    assert_eq!(world.end_next(host, 0).await, manual);

    let world = world.stop().await.start().await;
    world.link(host).await;
    world.clock.shift(MINUTE);
    let (skipped, by_hand) = ("Skipped Maintenance 1", "Ran Manual 1");
    world.ledger_is("a", &[skipped, by_hand, skipped, "Ran 1"]).await;
    off(&world, id).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1", skipped, by_hand, skipped, "Ran 1"]).await;
}

#[tokio::test]
async fn hosts_in_maintenance_are_left_out() {
    let world = World::with(&[("a.yaml", &one("a", "overlap: allow"))]).await;
    let (web1, web2) = (world.host("web1").await, world.host("web2").await);
    on(&world, Some("web1"), None).await;
    world.clock.shift(MINUTE);
    let run = world.end_next(web2, 0).await;
    assert_eq!(hosts_of(&world, run).await, [web2]);
    let id = on(&world, Some("web*"), None).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Maintenance 1", "Ran 1"]).await;
    let manual = world.jobs.run_now(&name("a"), Actor::Server).await.unwrap();
    assert_eq!(hosts_of(&world, manual).await, [web1, web2]);
    off(&world, id).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1", "Ran Manual 1", "Skipped Maintenance 1", "Ran 1"]).await;
    let run = world.fires("a").await[0].run_id.unwrap();
    assert_eq!(hosts_of(&world, run).await, [web2]);
}

/// Whoever looks late finds it over: the instant of the fire decides.
#[tokio::test]
async fn a_fire_within_is_skipped_though_it_is_looked_at_afterwards() {
    let world = World::with(&[("a.yaml", &one("a", ""))]).await;
    world.host("web1").await;
    let fire = world.jobs.show(&name("a")).await.unwrap().next_fire.unwrap();
    on(&world, Some("web1"), Some(fire + Span::from_secs(1))).await;
    world.clock.shift(MINUTE);
    assert!(world.jobs.maintenances().await.unwrap().is_empty(), "it is over");
    world.ledger_is("a", &["Skipped Maintenance 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1", "Skipped Maintenance 1"]).await;
    world.clock.shift(11 * MINUTE);
    eventually("it is forgotten", async || {
        (world.jobs.held().get(MaintenanceId(1)).is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_fire_that_waited_is_skipped_when_its_turn_comes_within() {
    for everything in [true, false] {
        let world = World::with(&[("a.yaml", &one("a", "overlap: queue"))]).await;
        let host = world.host("web1").await;
        world.clock.shift(2 * MINUTE);
        world.ledger_is("a", &["Pending Overlap 1", "Ran 1"]).await;
        on(&world, (!everything).then_some("web1"), None).await;
        world.end_next(host, 0).await;
        world.ledger_is("a", &["Skipped Maintenance 1", "Ran 1"]).await;
    }
}

#[tokio::test]
async fn nothing_takes_the_place_of_a_run_whose_hosts_are_in_maintenance() {
    let world = World::with(&[("a.yaml", &one("a", "overlap: replace"))]).await;
    let host = world.host("web1").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    on(&world, Some("web1"), None).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Pending Overlap 1", "Ran 1"]).await;
    // A start that takes up the fire that waits asks again.
    let world = world.stop().await.start().await;
    world.link(host).await;
    let run = world.end_next(host, 0).await;
    world.ledger_is("a", &["Skipped Maintenance 1", "Ran 1"]).await;
    let run = world.store.run(run).await.unwrap().unwrap();
    assert_eq!(run.summary.state, RunState::Succeeded);
}

#[tokio::test]
async fn what_failed_is_tried_again_on_free_hosts_only() {
    let world = World::with(&[("a.yaml", &one("a", "retries: 3, retry_backoff: 5s"))]).await;
    let host = world.host("web1").await;
    let dead = world.host("web2").await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    let first = world.fires("a").await[0].run_id.unwrap();
    world.fail(first, &[host, dead]).await;
    on(&world, Some("web2"), None).await;
    world.clock.shift(5000);
    let second = fw_core::fires::retry_id(first);
    eventually("it is tried again", async || world.store.run(second).await.unwrap()).await;
    assert_eq!(hosts_of(&world, second).await, [host]);
    world.fail(second, &[host]).await;
    on(&world, None, None).await;
    world.clock.shift(10_000);
    eventually("it is given up", async || {
        (!world.store.is_tried_again(&name("a"), second).await.unwrap()).then_some(())
    })
    .await;
    eventually("nothing waits", async || {
        world.jobs.show(&name("a")).await?.waiting.is_empty().then_some(())
    })
    .await;
    let run = world.store.run(second).await.unwrap().unwrap();
    assert_eq!(run.tasks[0].state, TaskState::Failed);
    assert!(world.store.run(fw_core::fires::retry_id(second)).await.unwrap().is_none());
}

#[tokio::test]
async fn what_fell_into_downtime_is_told_apart() {
    let world = World::with(&[("a.yaml", &one("a", ""))]).await;
    on(&world, None, Some(world.clock.now() + Span::from_secs(20 * 60))).await;
    let stopped = world.stop().await;
    stopped.clock.shift(60 * MINUTE);
    let world = stopped.start().await;
    world.ledger_is("a", &["Missed Downtime 40", "Skipped Maintenance 20"]).await;
}

#[tokio::test]
async fn each_is_known_by_who_began_it_and_ends_once() {
    let world = World::with(&[("a.yaml", "jobs: {}")]).await;
    let first = on(&world, None, None).await;
    let [begun] = world.jobs.maintenances().await.unwrap().try_into().unwrap();
    assert_eq!((begun.said.by.as_str(), begun.said.by_kind), ("admin", Some(ActorKind::Token)));
    let wanted = Wanted {
        hosts: Some("web1,web2".to_owned()),
        reason: "saltpeter_maintenance".to_owned(),
        message: Some("back at noon".to_owned()),
        until: None,
        windows: None,
    };
    let (by, before) = (By::Dialect("saltpeter"), world.clock.now());
    let second = world.jobs.begin_maintenance(wanted.clone(), by.clone()).await.unwrap();
    assert_eq!((second.said.by.as_str(), second.said.by_kind), ("dialect:saltpeter", None));
    assert!((before..=world.clock.now()).contains(&second.said.since));
    let own = async || {
        let all = world.jobs.maintenances().await.unwrap().into_iter();
        let own: Vec<_> = all.filter(|one| one.said.by == by.to_string()).collect();
        own
    };
    assert_eq!(own().await, std::slice::from_ref(&second));
    let ended = world.jobs.end_maintenance(second.id, by.clone()).await.unwrap();
    assert_eq!(ended.ended_by.as_deref(), Some("dialect:saltpeter"));
    assert_eq!(own().await, []);
    let again = world.jobs.end_maintenance(second.id, admin()).await.unwrap_err();
    assert_eq!(again.code, Code::Conflict);
    assert!(again.title.contains("by dialect:saltpeter"), "{}", again.title);
    let unknown = world.jobs.end_maintenance(MaintenanceId(9), admin()).await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
    let bad = Wanted { hosts: Some("web1 and (".to_owned()), ..wanted };
    let refused = world.jobs.begin_maintenance(bad, admin()).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidSelector);
    let left = world.jobs.maintenances().await.unwrap();
    assert_eq!(left.iter().map(|one| one.id).collect::<Vec<_>>(), [first]);
    let ended = world.jobs.end_maintenance(first, admin()).await.unwrap();
    assert_eq!(ended.ended_by_kind, Some(ActorKind::Token));
    let again = world.jobs.end_maintenance(first, admin()).await.unwrap_err();
    assert!(again.title.ends_with(", by token:admin"), "{}", again.title);
}

#[tokio::test]
async fn there_is_a_most_of_them() {
    let stopped = World::with(&[("a.yaml", "jobs: {}")]).await.stop().await;
    let store = stopped.store().await;
    let new = || NewMaintenance {
        selector: Some("web1".to_owned()),
        reason: "x".to_owned(),
        message: None,
        by: "admin".to_owned(),
        by_kind: None,
        since: stopped.clock.now(),
        until: None,
        windows: None,
        source: None,
    };
    let begun = join_all((0..MOST).map(|_| store.begin_maintenance(new()))).await;
    let last = begun.into_iter().last().unwrap().unwrap();
    store.close().await;
    let world = stopped.start().await;
    let (hosts, reason) = (None, "x".to_owned());
    let wanted = Wanted { hosts, reason, message: None, until: None, windows: None };
    let refused = world.jobs.begin_maintenance(wanted, admin()).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    off(&world, last).await;
    on(&world, None, None).await;
}

/// A job of another program's files, which ask for these maintenances: of everything, or of hosts.
fn files(said: &[Option<&str>]) -> super::super::Given {
    let jobs = super::super::text::read("x.yaml", &one("b", "overlap: allow")).jobs;
    let said = said
        .iter()
        .map(|hosts| Said { hosts: hosts.map(str::to_owned), reason: "said there".to_owned() });
    super::super::Given {
        jobs: jobs.into_iter().map(|def| ("x.yaml".to_owned(), def)).collect(),
        maintenance: said.collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn files_of_a_dialect_hold_their_own_jobs_and_no_others() {
    let world = World::with(&[("a.yaml", &one("a", "overlap: allow"))]).await;
    let (web1, web2) = (world.host("web1").await, world.host("web2").await);
    world.jobs.serve(files(&[None])).await.unwrap();
    world.clock.shift(MINUTE);
    world.ledger_is("b", &["Skipped Maintenance 1"]).await;
    world.ledger_is("a", &["Ran 1"]).await;
    let refused = world.jobs.run_now(&name("b"), Actor::Server).await.unwrap_err();
    assert_eq!(refused.code, Code::NoHosts, "the files say it of all runs: {refused}");
    assert!(world.jobs.held().everything(world.clock.now()).is_none());

    // The same files say it again: it is the same one.
    world.jobs.serve(files(&[None])).await.unwrap();
    let [on] = world.jobs.maintenances().await.unwrap().try_into().unwrap();
    assert_eq!((on.said.by.as_str(), on.said.source.as_deref()), ("dialect:other", Some("other")));
    let refused = world.jobs.end_maintenance(on.id, admin()).await.unwrap_err();
    assert_eq!(refused.code, Code::OwnedByFile);

    world.jobs.serve(files(&[Some("web1")])).await.unwrap();
    world.clock.shift(MINUTE);
    world.ledger_is("b", &["Ran 1", "Skipped Maintenance 1"]).await;
    let run = world.fires("b").await[0].run_id.unwrap();
    assert_eq!(hosts_of(&world, run).await, [web2]);
    let by_hand = world.jobs.run_now(&name("b"), Actor::Server).await.unwrap();
    assert_eq!(hosts_of(&world, by_hand).await, [web2]);
    let run = world.fires("a").await[0].run_id.unwrap();
    assert_eq!(hosts_of(&world, run).await, [web1, web2]);

    // A file that cannot be read ends nothing.
    let doubt = super::super::Given { doubtful_maintenance: true, ..files(&[]) };
    world.jobs.serve(doubt).await.unwrap();
    assert_eq!(world.jobs.in_force().len(), 1);
    world.jobs.serve(files(&[])).await.unwrap();
    assert_eq!(world.jobs.in_force(), []);
    world.clock.shift(MINUTE);
    world.ledger_is("b", &["Ran 1", "Ran Manual 1", "Ran 1", "Skipped Maintenance 1"]).await;
    let run = world.fires("b").await[0].run_id.unwrap();
    assert_eq!(hosts_of(&world, run).await, [web1, web2]);
}

/// Whoever starts without the dialect has none of its jobs, and nothing that held them.
#[tokio::test]
async fn what_a_dialect_said_ends_with_it() {
    let world = World::with(&[("a.yaml", &one("a", ""))]).await;
    world.jobs.serve(files(&[None, Some("web1")])).await.unwrap();
    assert_eq!(world.jobs.in_force().len(), 2);
    let world = world.stop().await.start().await;
    assert_eq!(world.jobs.in_force(), []);
    let ended = world.store.maintenances().await.unwrap();
    assert!(ended.iter().all(|one| one.ended_by.as_deref() == Some("dialect:other")));
}

/// A window of 90 seconds from the minute after next on, each day.
#[tokio::test]
async fn one_that_recurs_holds_within_its_windows_also_those_of_a_downtime() {
    let world = World::with(&[("a.yaml", &one("a", "overlap: allow"))]).await;
    world.host("web1").await;
    let begin = (world.clock.now() + Span::from_secs(120)).to_string();
    let every = format!("{} {} * * *", &begin[14..16], &begin[11..13]);
    let every = Schedule::parse(&every, "").unwrap();
    let windows = Windows { every, lasts: Span::from_secs(90) };
    let (hosts, reason) = (None, "patches".to_owned());
    let wanted = Wanted { hosts, reason, message: None, until: None, windows: Some(windows) };
    let id = world.jobs.begin_maintenance(wanted, admin()).await.unwrap().id;
    assert_eq!(world.jobs.in_force(), [], "no window is open");
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Maintenance 1", "Ran 1"]).await;
    let [open] = world.jobs.in_force().try_into().unwrap();
    let left = open.until.unwrap().since(world.clock.now());
    assert!(left <= Span::from_secs(85), "the window ends in {left}");
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Skipped Maintenance 2", "Ran 1"]).await;
    world.clock.shift(MINUTE);
    world.ledger_is("a", &["Ran 1", "Skipped Maintenance 2", "Ran 1"]).await;

    let stopped = world.stop().await;
    stopped.clock.shift(24 * 60 * MINUTE);
    let world = stopped.start().await;
    let day = ["Missed Downtime 1", "Skipped Maintenance 2", "Missed Downtime 1437"];
    let before = ["Ran 1", "Skipped Maintenance 2", "Ran 1"];
    world.ledger_is("a", &[day, before].concat()).await;
    assert_eq!(
        world.jobs.maintenances().await.unwrap().len(),
        1,
        "it ends when it is switched off"
    );
    off(&world, id).await;
    assert_eq!(world.jobs.maintenances().await.unwrap(), []);
}
