//! What boards show of many runs and fires at once: a query for each, however many hosts or jobs are shown.

use std::collections::BTreeMap;

use fw_proto::api::{Fire, RunState, TaskState, Verdict};
use fw_proto::{HostName, JobName, RunId, Timestamp};
use rusqlite::{Connection, params};

use crate::fire::read_fire;
use crate::row;
use crate::{Error, Store};

/// How a run ended, or where it stands, for a strip of its job's last ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Which run.
    pub run: RunId,
    /// Where it stands.
    pub state: RunState,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Fires of a job in the same quarter of an hour with the same fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarter {
    /// When the first of them was due.
    pub from: Timestamp,
    /// When the last of them was due.
    pub to: Timestamp,
    /// What became of them.
    pub verdict: Verdict,
    /// Where their runs stand.
    pub state: Option<RunState>,
    /// How many.
    pub count: u64,
}

impl Store {
    /// The last tasks of each of these hosts that have ended, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_tasks(
        &self,
        hosts: Vec<HostName>,
        most: u32,
    ) -> Result<BTreeMap<HostName, Vec<TaskState>>, Error> {
        let read = move |db: &Connection| {
            let sql = "SELECT state FROM tasks WHERE host = ?1 ORDER BY run DESC LIMIT ?2";
            let mut statement = db.prepare_cached(sql)?;
            let mut last = BTreeMap::new();
            for host in hosts {
                let states = statement.query_and_then(params![host.as_str(), most], |row| {
                    row::stored(row, "state")
                })?;
                last.insert(host, states.collect::<Result<_, Error>>()?);
            }
            Ok(last)
        };
        self.main().read(read).await
    }

    /// The last runs of each of these jobs, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn past_of_jobs(
        &self,
        jobs: Vec<JobName>,
        most: u32,
    ) -> Result<BTreeMap<JobName, Vec<Past>>, Error> {
        let read = move |db: &Connection| {
            let sql = "SELECT id, state, created_at, finished_at FROM runs WHERE job = ?1
                       ORDER BY n DESC LIMIT ?2";
            let mut statement = db.prepare_cached(sql)?;
            let mut past = BTreeMap::new();
            for job in jobs {
                let runs = statement.query_and_then(params![job.as_str(), most], |row| {
                    Ok(Past {
                        run: RunId(row::uuid(row, "id")?),
                        state: row::stored(row, "state")?,
                        created_at: row::at(row, "created_at")?,
                        finished_at: row::maybe_at(row, "finished_at")?,
                    })
                })?;
                past.insert(job, runs.collect::<Result<_, Error>>()?);
            }
            Ok(past)
        };
        self.main().read(read).await
    }

    /// How many runs ended at `since` or later, by how they ended.
    ///
    /// # Errors
    /// What the database says.
    pub async fn ended_since(&self, since: Timestamp) -> Result<BTreeMap<RunState, u64>, Error> {
        let read = move |db: &Connection| {
            // `+` keeps SQLite from walking all runs by their state (https://sqlite.org/optoverview.html).
            let sql = "SELECT state, count(*) AS count FROM runs WHERE finished_at >= ?1
                       GROUP BY +state";
            let mut statement = db.prepare_cached(sql)?;
            let counts = statement.query_and_then([since.as_millis()], |row| {
                Ok((row::stored(row, "state")?, row::count(row, "count")?))
            })?;
            counts.collect()
        };
        self.main().read(read).await
    }

    /// The last rows of all ledgers since then of fires that did not run, newest first, at most so many.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fires_not_run(
        &self,
        since: Timestamp,
        most: u32,
    ) -> Result<Vec<(JobName, Fire)>, Error> {
        let read = move |db: &Connection| {
            // The words of the index, or it is not used.
            let sql = "SELECT * FROM fires WHERE verdict IN ('missed', 'skipped') AND to_at >= ?1
                       ORDER BY to_at DESC LIMIT ?2";
            let mut statement = db.prepare_cached(sql)?;
            let fires = statement.query_and_then(params![since.as_millis(), most], |row| {
                Ok((row::name(row, "job")?, read_fire(row)?))
            })?;
            fires.collect()
        };
        self.main().read(read).await
    }

    /// A job's fires since then, by quarters of an hour, in their order.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fires_by_quarter(
        &self,
        job: &JobName,
        since: Timestamp,
    ) -> Result<Vec<Quarter>, Error> {
        let job = job.clone();
        let read = move |db: &Connection| {
            let sql = "SELECT min(fires.from_at) AS from_at, max(fires.to_at) AS to_at, verdict,
                           runs.state AS state, sum(count) AS count
                       FROM fires LEFT JOIN runs ON runs.id = fires.run
                       WHERE fires.job = ?1 AND from_at >= ?2
                       GROUP BY fires.from_at / 900000, verdict, runs.state
                       ORDER BY fires.from_at / 900000";
            let mut statement = db.prepare_cached(sql)?;
            let quarters =
                statement.query_and_then(params![job.as_str(), since.as_millis()], |row| {
                    Ok(Quarter {
                        from: row::at(row, "from_at")?,
                        to: row::at(row, "to_at")?,
                        verdict: row::stored(row, "verdict")?,
                        state: row::maybe_stored(row, "state")?,
                        count: row::count(row, "count")?,
                    })
                })?;
            quarters.collect()
        };
        self.main().read(read).await
    }
}
