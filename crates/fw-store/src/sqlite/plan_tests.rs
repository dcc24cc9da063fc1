//! Every query that the server makes while it works finds its rows by an index: with a million
//! runs a scan would take a second of everyone's time.
//!
//! The statements are not listed here, where the list would grow old: the store does all it can
//! do (the conformance checks), and each statement that it prepared meanwhile is explained
//! (<https://sqlite.org/eqp.html>).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use fw_proto::api::RunState;
use fw_proto::{RunId, Span};
use fw_rt::Clock;
use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use crate::conformance::conform;
use crate::conformance::fixture::{Story, at, job, run_id};
use crate::{LOGS, MAIN, NewNotice, Retention, RunQuery, Store};

/// Tables that grow with use.
const LARGE: [&str; 12] = [
    "runs",
    "events",
    "tasks",
    "fires",
    "notices",
    "streams",
    "chunks",
    "facts",
    "audit",
    "audit_hosts",
    "changes",
    "change_events",
];

/// Indexes of a few rows each, whatever the table holds: what goes on, waits or is due.
const SMALL: [&str; 5] =
    ["runs_unfinished", "fires_pending", "notices_due", "notices_done", "changes_unfinished"];

/// Scans that are meant, as (statement, step). Each reads everything for a reason.
const MEANT: [(&str, &str); 2] = [
    // All hosts, and with them what each says of itself.
    ("SELECT hosts.*, facts.body FROM hosts LEFT JOIN facts", "SCAN facts"),
    // A migration, once.
    ("-- One index of the ledger in place of two.", "SCAN fires"),
];

static HEARD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The connection, with an ear on each statement that it runs.
pub(super) fn overheard(mut connection: Connection) -> Connection {
    let hear = |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(statement, _) = event {
            let sql = statement.sql().into_owned();
            HEARD.lock().unwrap_or_else(PoisonError::into_inner).insert(sql);
        }
    };
    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(hear)).unwrap();
    connection
}

/// The steps of a plan that read a large table, or an index of it, from end to end, or sort.
fn slow_steps(db: &Connection, sql: &str) -> Vec<String> {
    let Ok(mut statement) = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")) else {
        // Of the other database.
        return Vec::new();
    };
    let unbound = statement.parameter_count();
    for n in 1..=unbound {
        statement.raw_bind_parameter(n, rusqlite::types::Null).unwrap();
    }
    let mut rows = statement.raw_query();
    let mut slow = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let step: String = row.get("detail").unwrap();
        if is_slow(&step)
            && !MEANT.iter().any(|(of, meant)| sql.starts_with(of) && step.starts_with(meant))
        {
            slow.push(step);
        }
    }
    slow
}

fn is_slow(step: &str) -> bool {
    let Some(scanned) = step.strip_prefix("SCAN ") else { return false };
    let table = scanned.split(' ').next().unwrap_or_default();
    LARGE.contains(&table)
        && !SMALL.iter().any(|index| scanned.ends_with(&format!("INDEX {index}")))
}

/// What the checks leave out: jobs, filters, notices and boards.
async fn the_rest(store: &Store) {
    let mut story = Story::begin(1, 2, Some("backup"), at(0)).ended(at(1), 0);
    store.commit(vec![story.append()]).await.unwrap();
    let host = || Some("h1".parse().unwrap());
    for (of, state, host) in [
        (None, None, None),
        (Some(job("backup")), None, None),
        (None, Some(RunState::Failed), None),
        (Some(job("backup")), Some(RunState::Failed), None),
        (None, None, host()),
        (Some(job("backup")), None, host()),
        (None, Some(RunState::Failed), host()),
        (Some(job("backup")), Some(RunState::Failed), host()),
    ] {
        store.runs(RunQuery { cursor: None, limit: 50, job: of, state, host }).await.unwrap();
    }
    store.beside(run_id(1)).await.unwrap();
    let mut other = Story::begin(2, 2, None, at(0)).ended(at(1), 0);
    store.commit(vec![other.append()]).await.unwrap();
    store.beside(run_id(2)).await.unwrap();
    store.last_runs(vec![job("backup")]).await.unwrap();
    store.job_runs_ended(at(0)).await.unwrap();
    store.pending_fires().await.unwrap();
    store.last_fires().await.unwrap();
    store.jobs().await.unwrap();
    let hook = fw_proto::api::Hook::Webhook("http://localhost".to_owned());
    let (run, body) = (RunId(run_id(1).0), String::new());
    store
        .put_notice(NewNotice { run, job: job("backup"), hook, body, next_at: at(0) })
        .await
        .unwrap();
    for notice in store.due_notices(at(1)).await.unwrap() {
        store.notice_failed(notice.id, at(2)).await.unwrap();
        store.notice_done(notice.id).await.unwrap();
    }
    store.log_places(run_id(1), None, 0, 10).await.unwrap();
    store.last_tasks(vec!["h1".parse().unwrap()], 20).await.unwrap();
    store.past_of_jobs(vec![job("backup")], 20).await.unwrap();
    store.ended_since(at(0)).await.unwrap();
    store.fires_not_run(at(0), 100).await.unwrap();
    store.changes_to_look_at(at(0), 10).await.unwrap();
    store.fires_by_quarter(&job("backup"), at(0)).await.unwrap();
    let keep = Retention { age: Span::from_secs(1), bytes: 0 };
    store.sweep(keep).await.unwrap();
}

#[tokio::test]
async fn no_query_reads_a_large_table_from_end_to_end() {
    let dirs = tempfile::tempdir().unwrap();
    let fresh = || async {
        let dir = tempfile::tempdir_in(dirs.path()).unwrap();
        Store::open(&dir.keep(), Clock::system()).await.unwrap()
    };
    conform(fresh).await;
    let store = fresh().await;
    the_rest(&store).await;
    let heard = HEARD.lock().unwrap().clone();
    let mut slow = Vec::new();
    for schema in [&MAIN, &LOGS] {
        let db = Connection::open(store.dir().join(schema.file)).unwrap();
        let steps = heard.iter().map(|sql| (sql, slow_steps(&db, sql)));
        slow.extend(steps.filter(|(_, steps)| !steps.is_empty()));
    }
    assert!(slow.is_empty(), "{slow:#?}");
    let queries = heard.iter().filter(|sql| sql.starts_with("SELECT")).count();
    assert!(queries > 40, "only {queries} queries were heard");
}

#[test]
fn a_query_without_an_index_is_found() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(MAIN.steps[0]).unwrap();
    for sql in [
        "SELECT * FROM runs WHERE actor = ?1",
        "SELECT * FROM runs WHERE finished_at IS NULL AND job = ?1 UNION ALL SELECT * FROM runs",
        "DELETE FROM fires WHERE lag_ms > ?1",
        "SELECT count(*) FROM tasks",
    ] {
        assert!(!slow_steps(&db, sql).is_empty(), "{sql}");
    }
    assert!(slow_steps(&db, "SELECT n FROM runs WHERE finished_at IS NULL ORDER BY n").is_empty());
}
