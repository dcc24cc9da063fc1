//! Checks of runs.

use fw_core::run::Kind;
use fw_proto::api::{RunState, TaskState};

use super::fixture::{Story, at, host_id, job, run_id};
use crate::{Error, RunQuery, Store};

pub(super) async fn a_run_is_what_its_events_add_up_to(store: Store) {
    let mut story = Story::begin(1, 3, None, at(0));
    store.commit(vec![story.append()]).await.expect("a new run");
    let hosts = vec![host_id(0), host_id(2)];
    story = story.then(at(1), Kind::Dispatched { hosts, not_after: at(60) });
    story = story.then(at(2), Kind::CancelRequested);
    store.commit(vec![story.append()]).await.expect("the next events");

    assert_eq!(store.unfinished().await.expect("read"), [story.run.clone()]);
    assert_eq!(store.run(run_id(1)).await.expect("read"), Some(story.run.view(Vec::new())));
    assert_eq!(store.plan(run_id(1)).await.expect("read"), Some(story.run.plan));
    assert_eq!(store.run(run_id(2)).await.expect("read"), None);
    assert_eq!(store.plan(run_id(2)).await.expect("read"), None);
}

pub(super) async fn an_ended_run_is_kept_as_its_report_and_its_plan(store: Store) {
    let mut story = Story::begin(1, 3, Some("backup"), at(0));
    store.commit(vec![story.append()]).await.expect("a new run");
    story = story.ended(at(5), 3);
    store.commit(vec![story.append()]).await.expect("its end");

    assert_eq!(store.unfinished().await.expect("read"), []);
    let kept = store.run(run_id(1)).await.expect("read").expect("it is there");
    assert_eq!(kept, story.run.view(Vec::new()));
    assert_eq!(kept.summary.state, RunState::Failed);
    assert_eq!(kept.summary.report.tasks[&TaskState::Failed], 3);
    assert_eq!(store.plan(run_id(1)).await.expect("read"), Some(story.run.plan));
}

pub(super) async fn a_run_may_begin_and_end_in_one_append(store: Store) {
    let mut story = Story::begin(1, 2, None, at(0)).ended(at(1), 0);
    store.commit(vec![story.append()]).await.expect("a whole run");
    assert_eq!(store.unfinished().await.expect("read"), []);
    assert_eq!(store.run(run_id(1)).await.expect("read"), Some(story.run.view(Vec::new())));
    assert_eq!(store.plan(run_id(1)).await.expect("read"), Some(story.run.plan));
}

pub(super) async fn a_stale_append_conflicts_and_leaves_nothing_of_its_neighbours(store: Store) {
    let mut first = Story::begin(1, 1, None, at(0));
    store.commit(vec![first.append()]).await.expect("a new run");
    let mut stale = first.clone().then(at(1), Kind::CancelRequested);
    first = first.then(at(1), Kind::Asked { hosts: vec![host_id(0)] });
    store.commit(vec![first.append()]).await.expect("an event");

    let mut other = Story::begin(2, 1, None, at(0));
    let refused = store.commit(vec![other.append(), stale.append()]).await;
    assert!(matches!(refused, Err(Error::Conflict { run }) if run == run_id(1)), "{refused:?}");
    let again = store.commit(vec![Story::begin(1, 1, None, at(0)).append()]).await;
    assert!(matches!(again, Err(Error::Conflict { .. })), "{again:?}");
    assert_eq!(store.unfinished().await.expect("read"), [first.run]);
}

pub(super) async fn an_ended_run_takes_no_events(store: Store) {
    let mut story = Story::begin(1, 1, None, at(0)).ended(at(1), 0);
    store.commit(vec![story.append()]).await.expect("a whole run");
    let mut late = story.clone().then(at(2), Kind::CancelRequested);
    let refused = store.commit(vec![late.append()]).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert_eq!(store.run(run_id(1)).await.expect("read"), Some(story.run.view(Vec::new())));
}

pub(super) async fn runs_are_paged_newest_first(store: Store) {
    for n in 1..=5 {
        let mut story = Story::begin(n, 1, None, at(0));
        store.commit(vec![story.append()]).await.expect("a new run");
    }
    let mut query = RunQuery { limit: 2, ..RunQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.runs(query.clone()).await.expect("a page");
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|run| run.id));
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1].map(run_id));
    query.cursor = Some("elsewhere".to_owned());
    assert!(matches!(store.runs(query).await, Err(Error::BadCursor)));
}

pub(super) async fn runs_are_filtered_by_job_state_and_host(store: Store) {
    let mut good = Story::begin(1, 1, Some("backup"), at(0)).ended(at(1), 0);
    let mut bad = Story::begin(2, 2, Some("backup"), at(0)).ended(at(1), 1);
    let mut going_on = Story::begin(3, 2, None, at(0));
    let all = vec![good.append(), bad.append(), going_on.append()];
    store.commit(all).await.expect("three runs");

    let any = RunQuery { limit: 10, ..RunQuery::default() };
    let found = async |query: RunQuery| {
        let page = store.runs(query).await.expect("a page");
        page.items.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    let backup = RunQuery { job: Some(job("backup")), ..any.clone() };
    assert_eq!(found(backup.clone()).await, [2, 1].map(run_id));
    let failed = RunQuery { state: Some(RunState::Failed), ..any.clone() };
    assert_eq!(found(failed).await, [run_id(2)]);
    let on_h1 = RunQuery { host: Some("h1".parse().expect("a name")), ..any.clone() };
    assert_eq!(found(on_h1).await, [3, 2].map(run_id));
    let none = RunQuery { state: Some(RunState::Cancelled), ..backup };
    assert_eq!(found(none).await, []);
}

pub(super) async fn runs_of_jobs_are_followed_in_the_order_in_which_they_began(store: Store) {
    assert_eq!(store.last_run_place().await.expect("read"), 0);
    for (n, job) in [(1, Some("backup")), (2, None), (3, Some("backup")), (4, Some("sweep"))] {
        let mut story = Story::begin(n, 1, job, at(0));
        store.commit(vec![story.append()]).await.expect("a new run");
    }
    let (mut seen, mut place) = (Vec::new(), 0);
    loop {
        let found = store.job_runs_after(place, 2).await.expect("runs");
        let Some((last, _)) = found.last() else { break };
        place = *last;
        seen.extend(found.into_iter().map(|(_, run)| run.id));
    }
    assert_eq!(seen, [1, 3, 4].map(run_id));
    assert_eq!(store.last_run_place().await.expect("read"), place);
}

pub(super) async fn late_words_are_noted_once_and_change_no_verdict(store: Store) {
    let mut story = Story::begin(1, 2, None, at(0)).ended(at(1), 1);
    store.commit(vec![story.append()]).await.expect("a whole run");
    for words in ["ended by itself", "something else"] {
        assert!(store.note_late(run_id(1), host_id(1), words.to_owned()).await.expect("note"));
    }
    assert!(!store.note_late(run_id(1), host_id(9), "who?".to_owned()).await.expect("note"));
    assert!(!store.note_late(run_id(9), host_id(1), "which?".to_owned()).await.expect("note"));
    let one = store.task(run_id(1), host_id(1)).await.expect("read").expect("it is there");
    assert_eq!(one.late.as_deref(), Some("ended by itself"));
    assert_eq!(store.task(run_id(1), host_id(9)).await.expect("read"), None);
    assert_eq!(store.task(run_id(9), host_id(1)).await.expect("read"), None);
    let kept = store.run(run_id(1)).await.expect("read").expect("it is there");
    let late: Vec<_> = kept.tasks.iter().map(|task| (task.late.as_deref(), task.state)).collect();
    assert_eq!(late, [(None, TaskState::Failed), (Some("ended by itself"), TaskState::Failed)]);
}
