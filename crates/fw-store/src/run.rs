//! Runs: events while they go on, one row and a row per task once they have ended.

mod append;

use std::collections::BTreeMap;

use fw_core::plan::Plan;
use fw_core::run::{Event, Kind, Run};
use fw_proto::api::{self, Page, RunReport, RunState, RunSummary, TaskReason, TaskState};
use fw_proto::{ChangeId, HostId, HostName, JobName, RunId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::row::{self, CommandRow, Stored as _, Text, blob};
use crate::{Error, Store};

pub use self::append::Append;

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// Where the page begins: `next` of the page before.
    pub cursor: Option<String>,
    /// At most so many, from 1 to 1,000.
    pub limit: u32,
    /// Only of this job.
    pub job: Option<JobName>,
    /// Only in this state.
    pub state: Option<RunState>,
    /// Only with a task on this host.
    pub host: Option<HostName>,
}

/// A run's plan. It outlives the run's other events.
pub type StoredPlan = Plan;

/// The largest page of any list.
pub(crate) const MAX_PAGE: u32 = 1000;

impl Store {
    /// All runs that have not ended, oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn unfinished(&self) -> Result<Vec<Run>, Error> {
        self.main()
            .read(|db| {
                let mut statement = db.prepare_cached(
                    "SELECT n, id, seq FROM runs WHERE finished_at IS NULL ORDER BY n",
                )?;
                let found = statement.query_and_then([], |row| {
                    Ok((row.get(0)?, RunId(row::uuid(row, "id")?), row::count(row, "seq")?))
                })?;
                let found: Vec<_> = found.collect::<Result<_, Error>>()?;
                found.into_iter().map(|(n, id, seq)| fold(db, n, id, seq)).collect()
            })
            .await
    }

    /// The run and its tasks.
    ///
    /// # Errors
    /// What the database says.
    pub async fn run(&self, id: RunId) -> Result<Option<api::Run>, Error> {
        self.main().read(move |db| read_run(db, id)).await
    }

    /// The run's plan, whether it has ended or not.
    ///
    /// # Errors
    /// What the database says.
    pub async fn plan(&self, id: RunId) -> Result<Option<StoredPlan>, Error> {
        self.main()
            .read(move |db| {
                let sql = "SELECT n FROM runs WHERE id = ?1";
                let n = db.prepare_cached(sql)?.query_row([blob(&id.0)], |row| row.get(0));
                n.optional()?.map(|n| plan_of(db, n)).transpose()
            })
            .await
    }

    /// A page of runs, newest first.
    ///
    /// # Errors
    /// [`Error::BadCursor`], and what the database says.
    pub async fn runs(&self, query: RunQuery) -> Result<Page<RunSummary>, Error> {
        let before = match &query.cursor {
            None => i64::MAX,
            Some(cursor) => cursor.parse().map_err(|_| Error::BadCursor)?,
        };
        self.main().read(move |db| page(db, &query, before)).await
    }

    /// The task of a host in a run that has ended.
    ///
    /// # Errors
    /// What the database says.
    pub async fn task(&self, id: RunId, host: HostId) -> Result<Option<api::Task>, Error> {
        let Some(place) = self.place(id, host).await? else { return Ok(None) };
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT * FROM tasks WHERE run = (SELECT n FROM runs WHERE id = ?1) AND place = ?2",
                )?;
                let mut found = statement.query_and_then(params![blob(&id.0), place], read_task)?;
                found.next().transpose()
            })
            .await
    }

    /// The place of a host in a run's plan.
    async fn place(&self, id: RunId, host: HostId) -> Result<Option<i64>, Error> {
        let Some(plan) = self.plan(id).await? else { return Ok(None) };
        let place = plan.hosts.iter().position(|chosen| chosen.id == host);
        Ok(place.and_then(|place| i64::try_from(place).ok()))
    }

    /// The latest run of each of these jobs, as of its last event; jobs without a run are left out.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_runs(
        &self,
        jobs: Vec<JobName>,
    ) -> Result<BTreeMap<JobName, RunSummary>, Error> {
        self.main()
            .read(move |db| {
                let sql = "SELECT * FROM runs WHERE job = ?1 ORDER BY n DESC LIMIT 1";
                let mut statement = db.prepare_cached(sql)?;
                let mut last = BTreeMap::new();
                for job in jobs {
                    let found = statement.query_and_then([job.as_str()], read_summary)?.next();
                    last.extend(found.transpose()?.map(|run| (job, run)));
                }
                Ok(last)
            })
            .await
    }

    /// The runs of jobs that ended at `since` or later, in the order in which they ended.
    ///
    /// # Errors
    /// What the database says.
    pub async fn job_runs_ended(&self, since: Timestamp) -> Result<Vec<RunSummary>, Error> {
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT * FROM runs WHERE finished_at >= ?1 AND job IS NOT NULL
                     ORDER BY finished_at, n",
                )?;
                statement.query_and_then([since.as_millis()], read_summary)?.collect()
            })
            .await
    }

    /// Runs of jobs after this place, in the order in which they were begun; each with its place.
    ///
    /// # Errors
    /// What the database says.
    pub async fn job_runs_after(
        &self,
        place: u64,
        most: u32,
    ) -> Result<Vec<(u64, RunSummary)>, Error> {
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT * FROM runs WHERE n > ?1 AND job IS NOT NULL ORDER BY n LIMIT ?2",
                )?;
                let found = statement.query_and_then(params![row::int(place), most], |row| {
                    Ok((row::count(row, "n")?, read_summary(row)?))
                })?;
                found.collect()
            })
            .await
    }

    /// The place of the run that was begun last; 0 when there is none. Where all runs were deleted, and in a
    /// store that was restored, places begin anew.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_run_place(&self) -> Result<u64, Error> {
        self.main()
            .read(|db| {
                let sql = "SELECT coalesce(max(n), 0) AS n FROM runs";
                db.prepare_cached(sql)?
                    .query_and_then([], |row| row::count(row, "n"))?
                    .next()
                    .unwrap_or(Ok(0))
            })
            .await
    }

    /// Notes what a host said about its task after the run had ended. The verdict stands, and so
    /// does what was noted before. Says whether there is such a task.
    ///
    /// # Errors
    /// What the database says.
    pub async fn note_late(&self, id: RunId, host: HostId, late: String) -> Result<bool, Error> {
        let Some(place) = self.place(id, host).await? else { return Ok(false) };
        self.main()
            .write(move |db| {
                let sql = "UPDATE tasks SET late = coalesce(late, ?3)
                    WHERE run = (SELECT n FROM runs WHERE id = ?1) AND place = ?2";
                Ok(db.prepare_cached(sql)?.execute(params![blob(&id.0), place, late])? > 0)
            })
            .await
    }
}

fn read_run(db: &Connection, id: RunId) -> Result<Option<api::Run>, Error> {
    let mut statement = db.prepare_cached("SELECT * FROM runs WHERE id = ?1")?;
    let mut rows = statement.query([blob(&id.0)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let n = row.get("n")?;
    let summary = read_summary(row)?;
    if summary.finished_at.is_none() {
        let run = fold(db, n, id, row::count(row, "seq")?)?;
        return Ok(Some(run.view(Vec::new())));
    }
    let mut statement = db.prepare_cached("SELECT * FROM tasks WHERE run = ?1 ORDER BY place")?;
    let tasks = statement.query_and_then([n], read_task)?.collect::<Result<_, _>>()?;
    Ok(Some(api::Run { summary, tasks }))
}

fn fold(db: &Connection, n: i64, id: RunId, seq: u64) -> Result<Run, Error> {
    let sql = "SELECT format, body FROM events WHERE run = ?1 ORDER BY seq";
    let mut statement = db.prepare_cached(sql)?;
    let events = statement.query_and_then([n], read_event)?.collect::<Result<Vec<_>, _>>()?;
    let run =
        Run::fold(id, &events).map_err(|error| Error::corrupt(format!("run {id}: {error}")))?;
    if run.seq != seq {
        return Err(Error::corrupt(format!("run {id} has {} of {seq} events", run.seq)));
    }
    Ok(run)
}

fn plan_of(db: &Connection, n: i64) -> Result<Plan, Error> {
    let sql = "SELECT format, body FROM events WHERE run = ?1 AND seq = 1";
    let event = db.prepare_cached(sql)?.query_and_then([n], read_event)?.next();
    match event.transpose()?.map(|event| event.kind) {
        Some(Kind::Planned(plan)) => Ok(*plan),
        Some(
            Kind::Dispatched { .. }
            | Kind::Asked { .. }
            | Kind::Reported { .. }
            | Kind::Ruled { .. }
            | Kind::CancelRequested
            | Kind::HostsCancelRequested { .. },
        )
        | None => Err(Error::corrupt("a run without its plan")),
    }
}

fn read_event(row: &Row<'_>) -> Result<Event, Error> {
    row::decode_event(row.get(0)?, row.get_ref(1)?.as_blob().map_err(Error::corrupt)?)
}

/// The runs of a page come from where they are few: the table by number, an index by job or state;
/// with a host from that host's tasks and from what goes on there, both by number.
fn page(db: &Connection, query: &RunQuery, before: i64) -> Result<Page<RunSummary>, Error> {
    let limit = query.limit.clamp(1, MAX_PAGE);
    let Some(host) = &query.host else {
        let from = "FROM runs WHERE n < :before";
        let rows = listed(db, query, from, "n", &[(":before", &before)])?;
        return Ok(cut(rows, limit, |n| n.to_string()));
    };
    let going_on = going_on_at(db, host)?;
    let from = "FROM runs WHERE n < :before AND n IN (SELECT value FROM json_each(:going_on))";
    let values: Values<'_> = &[(":before", &before), (":going_on", &going_on)];
    let mut rows = listed(db, query, from, "n", values)?;
    let from = "FROM tasks CROSS JOIN runs ON n = run WHERE host = :host AND run < :before";
    rows.extend(listed(
        db,
        query,
        from,
        "run",
        &[(":before", &before), (":host", &host.as_str())],
    )?);
    // A run has tasks when it goes on no more, so none is there twice.
    rows.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    Ok(cut(rows, limit, |n| n.to_string()))
}

type Values<'a> = &'a [(&'a str, &'a dyn rusqlite::ToSql)];

/// Newest first by this column, and one more than the page takes.
fn listed(
    db: &Connection,
    query: &RunQuery,
    from: &str,
    newest: &str,
    values: Values<'_>,
) -> Result<Vec<(i64, RunSummary)>, Error> {
    let mut sql = format!("SELECT runs.* {from}");
    let mut values = values.to_vec();
    let job = query.job.as_ref().map(JobName::as_str);
    let state = query.state.map(|state| state.text());
    let most = i64::from(query.limit.clamp(1, MAX_PAGE)) + 1;
    if let Some(job) = &job {
        sql.push_str(" AND job = :job");
        values.push((":job", job));
    }
    if let Some(state) = &state {
        sql.push_str(" AND runs.state = :state");
        values.push((":state", state));
    }
    sql.push_str(" ORDER BY ");
    sql.push_str(newest);
    sql.push_str(" DESC LIMIT :limit");
    values.push((":limit", &most));
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement
        .query_and_then(values.as_slice(), |row| Ok((row.get("n")?, read_summary(row)?)))?;
    rows.collect()
}

/// Cuts the row that was read to see whether there is a next page.
pub(crate) fn cut<K, T>(
    mut rows: Vec<(K, T)>,
    limit: u32,
    cursor: impl Fn(&K) -> String,
) -> Page<T> {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|(key, _)| cursor(key));
    Page { items: rows.into_iter().map(|(_, item)| item).collect(), next }
}

/// The runs that go on with a task on this host. They have no task rows yet; there are few of them.
fn going_on_at(db: &Connection, host: &HostName) -> Result<String, Error> {
    let mut statement = db.prepare_cached("SELECT n FROM runs WHERE finished_at IS NULL")?;
    let unfinished: Vec<i64> =
        statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for n in unfinished {
        if plan_of(db, n)?.hosts.iter().any(|chosen| chosen.name == *host) {
            found.push(n);
        }
    }
    Ok(row::json(&found))
}

fn read_summary(row: &Row<'_>) -> Result<RunSummary, Error> {
    let (by, by_kind) = row::actor::read(row.get("actor")?);
    Ok(RunSummary {
        id: RunId(row::uuid(row, "id")?),
        state: row::stored(row, "state")?,
        report: RunReport {
            tasks: decode_counts(row)?,
            total: row.get("total")?,
            waiting_on: Vec::new(),
        },
        by,
        by_kind,
        job: row::maybe_name(row, "job")?,
        retry_of: row::maybe_uuid(row, "retry_of")?.map(RunId),
        change: row::maybe_uuid(row, "change")?.map(ChangeId),
        hosts: row.get("selector")?,
        command: row::from_json::<CommandRow>(row, "command")?.into(),
        created_at: row::at(row, "created_at")?,
        finished_at: row::maybe_at(row, "finished_at")?,
    })
}

fn read_task(row: &Row<'_>) -> Result<api::Task, Error> {
    let reason: Option<TaskReason> = row::maybe_stored(row, "reason")?;
    Ok(api::Task {
        host: row::name(row, "host")?,
        state: row::stored(row, "state")?,
        reason,
        message: row.get("message")?,
        attempt: row.get("attempt")?,
        exit_code: row.get("exit_code")?,
        signal: row.get("signal")?,
        started_at: row::maybe_at(row, "started_at")?,
        finished_at: row::maybe_at(row, "finished_at")?,
        stdout_bytes: row::count(row, "stdout")?,
        stderr_bytes: row::count(row, "stderr")?,
        stdout_sha256: row.get("stdout_sha256")?,
        stderr_sha256: row.get("stderr_sha256")?,
        stdout_dropped_bytes: row::count(row, "stdout_dropped")?,
        stderr_dropped_bytes: row::count(row, "stderr_dropped")?,
        left_behind: row.get("left_behind")?,
        late: row.get("late")?,
        armed: reason.and_then(TaskReason::armed),
    })
}

fn decode_counts(row: &Row<'_>) -> Result<BTreeMap<TaskState, u32>, Error> {
    let words: BTreeMap<Text<TaskState>, u32> = row::from_json(row, "counts")?;
    Ok(words.into_iter().map(|(state, count)| (state.0, count)).collect())
}
