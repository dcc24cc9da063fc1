//! Checks of changes.

use fw_core::change::{
    Act, Approve, Change, Event, Kind, Node, OnFailure, Origin, Part, Plan, Undo, UndoWhen, Way,
    Work,
};
use fw_core::plan;
use fw_core::run::Actor;
use fw_proto::api::{ActorKind, ChangeState, Offline, Role};
use fw_proto::{ChangeId, Span, Timestamp};
use uuid::Uuid;

use super::fixture::{Story, at, host_id, plan as run_plan, run_id};
use crate::{ChangeAppend, ChangeQuery, ChangeRow, Error, Retention, Store};

fn change_id(n: u128) -> ChangeId {
    ChangeId(Uuid::from_u128(0xc000 + n))
}

fn work() -> Work {
    let of = run_plan(2, None);
    Work {
        exec: of.exec,
        fill: None,
        selector: of.selector,
        hosts: of.hosts,
        parallel: Some(1),
        offline: Offline::Fail,
        start_within: plan::START_WITHIN,
        expect: None,
        retries: 0,
    }
}

/// An approval, then a command on two hosts that can be taken back.
fn planned(origin: Origin) -> Plan {
    let gate = Approve { by: Role::Operator, people: 1, expires: Some(Span::from_secs(60)) };
    let node = |id: &str, act, undo| Node {
        id: id.to_owned(),
        title: id.to_owned(),
        line: Some(3),
        group: None,
        act,
        undo,
    };
    let undo = Undo { work: Box::new(work()), when: UndoWhen::Begun };
    Plan {
        origin,
        title: "nginx".to_owned(),
        source: "rollout: nginx".to_owned(),
        inputs: std::collections::BTreeMap::new(),
        nodes: vec![
            node("ask", Act::Approve(gate), None),
            node("wave-1", Act::Exec(Box::new(work())), Some(undo)),
        ],
        max_failures: Some(1),
        on_failure: OnFailure::Undo,
        incarnation: run_plan(1, None).incarnation,
    }
}

/// A change and the events that were not appended yet.
struct Tale {
    change: Change,
    appended: u64,
    events: Vec<Event>,
}

impl Tale {
    fn begin(n: u128, origin: Origin, now: Timestamp) -> Self {
        Self::begun_by(Actor::User("ada".to_owned()), n, origin, now)
    }

    fn begun_by(by: Actor, n: u128, origin: Origin, now: Timestamp) -> Self {
        let event = Event { at: now, by, kind: Kind::Planned(Box::new(planned(origin))) };
        let change = Change::begin(change_id(n), &event).expect("the first event is the plan");
        Self { change, appended: 0, events: vec![event] }
    }

    fn then(mut self, now: Timestamp, kind: Kind) -> Self {
        let event = Event { at: now, by: Actor::Server, kind };
        self.change.step(&event);
        self.events.push(event);
        self
    }

    /// All of it is done on both hosts.
    fn done(self, now: Timestamp) -> Self {
        let hosts: Vec<_> = (0..2).map(host_id).collect();
        let parts = hosts.iter().map(|host| (*host, Part::Done)).collect();
        let (way, run) = (Way::Do, run_id(1));
        self.then(now, Kind::Opened { node: 0, until: Some(now + Span::from_secs(60)) })
            .then(now, Kind::Approved { node: 0 })
            .then(now, Kind::Began { node: 1, way, run, hosts })
            .then(now, Kind::Ended { node: 1, way, run, parts, cancelled: false })
    }

    fn append(&mut self) -> ChangeAppend {
        ChangeAppend {
            expected_seq: std::mem::replace(&mut self.appended, self.change.seq),
            events: std::mem::take(&mut self.events),
            row: ChangeRow::from(&self.change),
        }
    }
}

async fn unfinished(store: &Store) -> Vec<ChangeId> {
    let found = store.unfinished_changes().await.expect("read");
    found.into_iter().map(|one| one.change.id).collect()
}

pub(super) async fn a_change_is_what_its_events_add_up_to(store: Store) {
    let mut tale = Tale::begin(1, Origin::Rollout, at(0));
    store.commit_change(tale.append()).await.expect("a new change");
    tale = tale.then(at(1), Kind::Opened { node: 0, until: Some(at(61)) });
    store.commit_change(tale.append()).await.expect("the next event");
    let kept = store.change(change_id(1)).await.expect("read").expect("it is there");
    assert_eq!(kept.change, tale.change);
    assert_eq!(kept.incarnation, store.incarnation());
    assert_eq!(store.unfinished_changes().await.expect("read"), [kept]);
    let events = store.change_events(change_id(1)).await.expect("read");
    assert_eq!(events.len(), 2);
    assert_eq!(store.change(change_id(2)).await.expect("read"), None);
    assert_eq!(store.change_events(change_id(2)).await.expect("read"), []);
}

pub(super) async fn a_stale_append_conflicts_and_leaves_nothing(store: Store) {
    let mut tale = Tale::begin(1, Origin::Rollout, at(0));
    store.commit_change(tale.append()).await.expect("a new change");
    let mut stale = Tale::begin(1, Origin::Rollout, at(0));
    let again = store.commit_change(stale.append()).await;
    assert!(matches!(again, Err(Error::ChangeConflict { .. })), "{again:?}");
    tale = tale.then(at(1), Kind::PauseRequested);
    store.commit_change(tale.append()).await.expect("an event");
    stale = stale.then(at(1), Kind::AbortRequested);
    let refused = store.commit_change(stale.append()).await;
    assert!(matches!(refused, Err(Error::ChangeConflict { .. })), "{refused:?}");
    let kept = store.change(change_id(1)).await.expect("read").expect("it is there");
    assert_eq!(kept.change, tale.change);
}

pub(super) async fn a_change_that_ended_may_go_on(store: Store) {
    let mut tale = Tale::begin(1, Origin::Rollout, at(0)).done(at(1));
    store.commit_change(tale.append()).await.expect("a whole change");
    assert_eq!(tale.change.state(), ChangeState::Succeeded);
    assert_eq!(unfinished(&store).await, []);
    tale = tale.then(at(2), Kind::UndoRequested);
    store.commit_change(tale.append()).await.expect("its undo");
    assert_eq!(unfinished(&store).await, [change_id(1)]);
    let kept = store.change(change_id(1)).await.expect("read").expect("it is there");
    assert_eq!(kept.change, tale.change);
    assert_eq!(kept.change.state(), ChangeState::Undoing);
    assert!(!store.was_undone(&tale.change.plan.source).await.expect("read"));
    let (way, run) = (Way::Undo, run_id(2));
    let hosts: Vec<_> = (0..2).map(host_id).collect();
    let parts = hosts.iter().map(|host| (*host, Part::Done)).collect();
    tale = tale
        .then(at(3), Kind::Began { node: 1, way, run, hosts })
        .then(at(4), Kind::Ended { node: 1, way, run, parts, cancelled: false });
    store.commit_change(tale.append()).await.expect("its end");
    assert_eq!(tale.change.state(), ChangeState::Undone);
    assert!(store.was_undone(&tale.change.plan.source).await.expect("read"));
    assert!(!store.was_undone("something else").await.expect("read"));
}

pub(super) async fn changes_are_paged_newest_first(store: Store) {
    for n in 1..=5 {
        let origin = if n % 2 == 0 { Origin::Runbook } else { Origin::Rollout };
        let mut tale = Tale::begin(n, origin, at(0));
        store.commit_change(tale.append()).await.expect("a new change");
    }
    for (origin, expected) in [
        (None, vec![5, 4, 3, 2, 1]),
        (Some(Origin::Rollout), vec![5, 3, 1]),
        (Some(Origin::Runbook), vec![4, 2]),
    ] {
        let mut query = ChangeQuery { limit: 2, origin, cursor: None };
        let mut seen = Vec::new();
        loop {
            let page = store.changes(query.clone()).await.expect("a page");
            assert!(page.items.len() <= 2);
            seen.extend(page.items.iter().map(|row| row.id));
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected.into_iter().map(change_id).collect::<Vec<_>>());
    }
    let query = ChangeQuery { cursor: Some("elsewhere".to_owned()), ..ChangeQuery::default() };
    assert!(matches!(store.changes(query).await, Err(Error::BadCursor)));
}

pub(super) async fn who_began_a_change_is_kept_with_what_they_are(store: Store) {
    let who = [
        (1, Actor::Token("ada".to_owned()), ActorKind::Token),
        (2, Actor::User("ada".to_owned()), ActorKind::User),
    ];
    for (n, by, _) in who.clone() {
        let mut tale = Tale::begun_by(by, n, Origin::Runbook, at(0));
        store.commit_change(tale.append()).await.expect("a new change");
        tale = tale.then(at(1), Kind::PauseRequested);
        store.commit_change(tale.append()).await.expect("an event of the server");
    }
    let query = ChangeQuery { limit: 10, ..ChangeQuery::default() };
    let listed = store.changes(query).await.expect("a page").items;
    let waiting = store.changes_to_look_at(at(0), 10).await.expect("read");
    for rows in [listed, waiting] {
        let kept: Vec<_> =
            rows.into_iter().rev().map(|row| (row.id, row.by, row.by_kind)).collect();
        let begun =
            |(n, by, kind): &(u128, Actor, ActorKind)| (change_id(*n), by.to_string(), Some(*kind));
        assert_eq!(kept, who.iter().map(begun).collect::<Vec<_>>());
    }
}

pub(super) async fn a_run_knows_its_change(store: Store) {
    let mut story = Story::of_change(1, change_id(1), at(0));
    store.commit(vec![story.append()]).await.expect("a new run");
    story = story.ended(at(1), 0);
    store.commit(vec![story.append()]).await.expect("its end");
    let kept = store.run(run_id(1)).await.expect("read").expect("it is there");
    assert_eq!(kept.summary.change, Some(change_id(1)));
    let plan = store.plan(run_id(1)).await.expect("read").expect("it is there");
    assert_eq!(plan.origin.change, Some(change_id(1)));
}

pub(super) async fn old_changes_are_swept_and_runs_of_those_that_go_on_stay(store: Store) {
    let now = store.now();
    let old = now - Span::from_secs(2 * 24 * 3600);
    let mut ended = Tale::begin(1, Origin::Rollout, old).done(old);
    let mut going_on = Tale::begin(2, Origin::Runbook, old);
    for append in [ended.append(), going_on.append()] {
        store.commit_change(append).await.expect("a change");
    }
    for (n, of) in [(1, 1), (2, 2)] {
        let mut story = Story::of_change(n, change_id(of), old).ended(old, 0);
        store.commit(vec![story.append()]).await.expect("its run");
    }
    let keep = Retention { age: Span::from_secs(24 * 3600), bytes: u64::MAX };
    let swept = store.sweep(keep).await.expect("a sweep");
    assert_eq!((swept.runs, swept.rows), (1, 1));
    assert_eq!(store.change(change_id(1)).await.expect("read"), None);
    assert_eq!(store.change_events(change_id(1)).await.expect("read"), []);
    assert_eq!(unfinished(&store).await, [change_id(2)]);
    assert!(store.run(run_id(1)).await.expect("read").is_none());
    assert!(store.run(run_id(2)).await.expect("read").is_some());
}
