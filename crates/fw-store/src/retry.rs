//! Runs of jobs that failed and wait to be tried again.

use fw_proto::{JobName, RunId, Timestamp};
use rusqlite::{Connection, params};

use crate::row::{self, blob};
use crate::{Error, Store};

/// A run that waits to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Which run failed.
    pub run: RunId,
    /// Of which job.
    pub job: JobName,
    /// When it is tried again.
    pub at: Timestamp,
}

impl Store {
    /// All runs that wait to be tried again.
    ///
    /// # Errors
    /// What the database says.
    pub async fn retries(&self) -> Result<Vec<Retry>, Error> {
        self.main()
            .read(|db| {
                let mut statement = db.prepare_cached("SELECT * FROM retries")?;
                let retries = statement.query_and_then([], |row| {
                    let (run, job) = (RunId(row::uuid(row, "run")?), row::name(row, "job")?);
                    Ok(Retry { run, job, at: row::at(row, "at")? })
                })?;
                retries.collect()
            })
            .await
    }

    /// Gives up trying a run again.
    ///
    /// # Errors
    /// What the database says.
    pub async fn give_up_retry(&self, run: RunId) -> Result<(), Error> {
        self.main().write(move |db| forget(db, run)).await
    }

    /// Whether a failed run of the job is not its last word: it waits to be tried again, or was.
    ///
    /// # Errors
    /// What the database says.
    pub async fn is_tried_again(&self, job: &JobName, run: RunId) -> Result<bool, Error> {
        let job = job.clone();
        self.main()
            .read(move |db| {
                let waits = "SELECT 1 FROM retries WHERE run = ?1";
                if db.prepare_cached(waits)?.exists([blob(&run.0)])? {
                    return Ok(true);
                }
                // Of the job's runs since that one, which are few.
                let next = "SELECT 1 FROM runs WHERE job = ?1 AND retry_of = ?2
                    AND n > (SELECT n FROM runs WHERE id = ?2)";
                Ok(db.prepare_cached(next)?.exists(params![job.as_str(), blob(&run.0)])?)
            })
            .await
    }
}

/// Notes inside the transaction that ends a run that it is tried again.
pub(crate) fn note(db: &Connection, retry: &Retry) -> Result<(), Error> {
    db.prepare_cached("INSERT OR REPLACE INTO retries (run, job, at) VALUES (?1, ?2, ?3)")?
        .execute(params![blob(&retry.run.0), retry.job.as_str(), retry.at.as_millis()])?;
    Ok(())
}

/// The run waits no longer: it is tried again in this transaction, or given up.
pub(crate) fn forget(db: &Connection, run: RunId) -> Result<(), Error> {
    db.prepare_cached("DELETE FROM retries WHERE run = ?1")?.execute([blob(&run.0)])?;
    Ok(())
}
