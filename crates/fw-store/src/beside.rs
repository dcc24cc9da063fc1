//! The runs before and after one, to go from page to page.

use fw_proto::RunId;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::row;
use crate::{Error, Store};

/// The neighbours of a run: those of its job, or of all runs when it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beside {
    /// The one that began before it.
    pub earlier: Option<RunId>,
    /// The one that began after it.
    pub later: Option<RunId>,
}

impl Store {
    /// The runs before and after one; none of a run that is no more.
    ///
    /// # Errors
    /// What the database says.
    pub async fn beside(&self, id: RunId) -> Result<Beside, Error> {
        self.main().read(move |db| beside(db, id)).await
    }
}

fn beside(db: &Connection, id: RunId) -> Result<Beside, Error> {
    let place = db
        .prepare_cached("SELECT n, job FROM runs WHERE id = ?1")?
        .query_row([id.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((n, job)): Option<(i64, Option<String>)> = place else {
        return Ok(Beside::default());
    };
    let (earlier, later) = match job {
        Some(_) => (
            "SELECT id FROM runs WHERE job = ?2 AND n < ?1 ORDER BY n DESC LIMIT 1",
            "SELECT id FROM runs WHERE job = ?2 AND n > ?1 ORDER BY n LIMIT 1",
        ),
        None => (
            "SELECT id FROM runs WHERE n < ?1 AND ?2 IS NULL ORDER BY n DESC LIMIT 1",
            "SELECT id FROM runs WHERE n > ?1 AND ?2 IS NULL ORDER BY n LIMIT 1",
        ),
    };
    let one = |sql| -> Result<Option<RunId>, Error> {
        let mut statement = db.prepare_cached(sql)?;
        let found = statement.query_and_then(params![n, job], |row| row::uuid(row, "id"))?.next();
        Ok(found.transpose()?.map(RunId))
    };
    Ok(Beside { earlier: one(earlier)?, later: one(later)? })
}
