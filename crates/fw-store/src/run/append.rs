//! What runs gain: one commit of the hub.

use std::collections::BTreeMap;

use fw_core::run::Event;
use fw_proto::api::{self, RunSummary, TaskState};
use fw_proto::{JobName, RunId, Timestamp};
use fw_rt::Clock;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::fire::{self, NewFire};
use crate::retry::{self, Retry};
use crate::row::{self, CommandRow, Stored as _, Text, blob};
use crate::{Error, Store};

/// Events that a run gains, and what it is after them.
#[derive(Debug, Clone)]
pub struct Append {
    /// Which run.
    pub run: RunId,
    /// How many events it has so far; 0 makes a new run.
    pub expected_seq: u64,
    /// The events, in order.
    pub events: Vec<Event>,
    /// The run after the events. What it waits on is not kept.
    pub summary: RunSummary,
    /// The whole run, when these events end it: it is kept in place of its events.
    pub finished: Option<Box<api::Run>>,
    /// The fire that the run belongs to, decided in the same transaction.
    pub fire: Option<NewFire>,
    /// When these events end a run of a job that is to be tried again: when.
    pub retry_at: Option<Timestamp>,
}

impl Store {
    /// Appends to runs, all or nothing, but for new runs of a fire that has its verdict: of these nothing is
    /// written, and they are given back with [`Error::FireTaken`]. A fire that has a lag gets that of its write.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a run has not the expected number of events or has ended.
    pub async fn commit(&self, appends: Vec<Append>) -> Result<Vec<(RunId, Error)>, Error> {
        let mut ready: Vec<_> = appends.into_iter().map(Ready::from).collect();
        let clock = self.clock().clone();
        let write = move |db: &Connection| {
            let mut refused = Vec::new();
            for one in &mut ready {
                match append(db, one, &clock) {
                    Err(error @ Error::FireTaken { .. }) => refused.push((one.run, error)),
                    appended => appended?,
                }
            }
            Ok(refused)
        };
        self.main().write(write).await
    }
}

/// An append whose bodies are encoded already: the writer's time is everyone's.
struct Ready {
    run: RunId,
    expected_seq: i64,
    events: Vec<Vec<u8>>,
    counts: String,
    command: String,
    summary: RunSummary,
    finished: Option<Box<api::Run>>,
    fire: Option<NewFire>,
    retry: Option<Retry>,
}

impl From<Append> for Ready {
    fn from(append: Append) -> Self {
        let of = append.summary.job.clone().zip(append.retry_at);
        let retry = of.map(|(job, at)| Retry { run: append.run, job, at });
        Self {
            retry,
            run: append.run,
            expected_seq: row::int(append.expected_seq),
            events: append.events.iter().map(row::encode_event).collect(),
            counts: encode_counts(&append.summary.report.tasks),
            command: row::json(&CommandRow::from(&append.summary.command)),
            summary: append.summary,
            finished: append.finished,
            fire: append.fire,
        }
    }
}

/// When the fire has its verdict, that is said before anything is written.
fn append(db: &Connection, new: &mut Ready, clock: &Clock) -> Result<(), Error> {
    let claim = new.fire.as_ref().map(|fire| fire::claim(db, fire)).transpose()?;
    append_events(db, new)?;
    new.retry.iter().try_for_each(|retry| retry::note(db, retry))?;
    // A repetition that a person begins is no run of the job.
    if let (0, Some(of), Some(_)) = (new.expected_seq, new.summary.retry_of, &new.summary.job) {
        retry::forget(db, of)?;
    }
    let Some((fire, claim)) = new.fire.as_mut().zip(claim) else { return Ok(()) };
    if let Some(lag) = &mut fire.lag_ms {
        *lag = clock.now().since(fire.from).as_millis();
    }
    fire::write(db, fire, &claim)
}

fn append_events(db: &Connection, new: &Ready) -> Result<(), Error> {
    let n = if new.expected_seq == 0 { insert(db, new)? } else { advance(db, new)? };
    let n = n.ok_or(Error::Conflict { run: new.run })?;
    let mut add =
        db.prepare_cached("INSERT INTO events (run, seq, format, body) VALUES (?1, ?2, ?3, ?4)")?;
    for (seq, body) in (new.expected_seq + 1..).zip(&new.events) {
        // Of a run that has ended only the plan is kept.
        if new.finished.is_none() || seq == 1 {
            add.execute(params![n, seq, row::FORMAT, body])?;
        }
    }
    if let Some(run) = &new.finished {
        db.prepare_cached("DELETE FROM events WHERE run = ?1 AND seq > 1")?.execute([n])?;
        insert_tasks(db, n, &run.tasks)?;
    }
    Ok(())
}

/// Without `RETURNING`, for which `SQLite` keeps the pages as they were until the statement has ended.
fn insert(db: &Connection, new: &Ready) -> Result<Option<i64>, Error> {
    let summary = &new.summary;
    let mut statement = db.prepare_cached(
        "INSERT INTO runs (id, seq, state, counts, total, actor, job, retry_of, change, selector,
                           command, created_at, finished_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (id) DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        blob(&new.run.0),
        new.seq_after(),
        summary.state.text(),
        new.counts,
        summary.report.total,
        row::actor::column(&summary.by, summary.by_kind),
        summary.job.as_ref().map(JobName::as_str),
        summary.retry_of.as_ref().map(|run| blob(&run.0)),
        summary.change.as_ref().map(|change| blob(&change.0)),
        summary.hosts,
        new.command,
        summary.created_at.as_millis(),
        new.finished_at(),
    ])?;
    Ok((inserted > 0).then(|| db.last_insert_rowid()))
}

/// Most appends leave a run in the state in which it was: then no index is touched, which `SQLite`
/// would do for each column that is set, changed or not.
fn advance(db: &Connection, new: &Ready) -> Result<Option<i64>, Error> {
    let mut find = db.prepare_cached(
        "SELECT n, state = ?3 FROM runs WHERE id = ?1 AND seq = ?2 AND finished_at IS NULL",
    )?;
    let key = params![blob(&new.run.0), new.expected_seq, new.summary.state.text()];
    let found = find.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((n, same_state)): Option<(i64, bool)> = found else { return Ok(None) };
    if same_state && new.finished.is_none() {
        db.prepare_cached("UPDATE runs SET seq = ?2, counts = ?3 WHERE n = ?1")?
            .execute(params![n, new.seq_after(), new.counts])?;
    } else {
        db.prepare_cached(
            "UPDATE runs SET seq = ?2, counts = ?3, state = ?4, finished_at = ?5 WHERE n = ?1",
        )?
        .execute(params![
            n,
            new.seq_after(),
            new.counts,
            new.summary.state.text(),
            new.finished_at()
        ])?;
    }
    Ok(Some(n))
}

impl Ready {
    fn seq_after(&self) -> i64 {
        self.expected_seq.saturating_add_unsigned(self.events.len() as u64)
    }

    /// Whether a run has ended is said by `finished` alone: without its tasks it keeps its events.
    fn finished_at(&self) -> Option<i64> {
        let run = self.finished.as_ref()?;
        let at = run.summary.finished_at.or(self.summary.finished_at);
        Some(at.unwrap_or(self.summary.created_at).as_millis())
    }
}

fn insert_tasks(db: &Connection, n: i64, tasks: &[api::Task]) -> Result<(), Error> {
    let mut statement = db.prepare_cached(
        "INSERT INTO tasks (run, place, host, state, reason, message, attempt, exit_code, signal,
            started_at, finished_at, stdout, stderr, stdout_sha256, stderr_sha256, stdout_dropped,
            stderr_dropped, left_behind, late)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?;
    for (place, task) in (0_i64..).zip(tasks) {
        statement.execute(params![
            n,
            place,
            task.host.as_str(),
            task.state.text(),
            task.reason.map(|reason| reason.text()),
            task.message,
            task.attempt,
            task.exit_code,
            task.signal,
            task.started_at.map(|at| at.as_millis()),
            task.finished_at.map(|at| at.as_millis()),
            row::int(task.stdout_bytes),
            row::int(task.stderr_bytes),
            task.stdout_sha256,
            task.stderr_sha256,
            row::int(task.stdout_dropped_bytes),
            row::int(task.stderr_dropped_bytes),
            task.left_behind,
            task.late,
        ])?;
    }
    Ok(())
}

fn encode_counts(counts: &BTreeMap<TaskState, u32>) -> String {
    let words: BTreeMap<_, _> = counts.iter().map(|(state, count)| (Text(*state), count)).collect();
    row::json(&words)
}
