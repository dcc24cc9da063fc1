//! The fire ledger: every fire ends in exactly one verdict.
//!
//! Rows of one job do not overlap. Fires begun by hand stand beside the schedule: they take
//! no instant from it, and [`Store::last_fires`] does not count them.

use std::collections::BTreeMap;

use fw_proto::api::{Fire, FireReason, Page, Verdict};
use fw_proto::{HostName, JobName, RunId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::row::{self, Stored as _, blob, int};
use crate::run::{MAX_PAGE, cut};
use crate::{Error, Store};

/// What became of one fire, or of neighbouring ones.
///
/// A pending row of the same job and `from` is replaced by it. Otherwise no instant from
/// `from` to `to` may have a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFire {
    /// Whose fires.
    pub job: JobName,
    /// What became of them.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<FireReason>,
    /// The first instant that was due.
    pub from: Timestamp,
    /// The last one; the first one again when there is one.
    pub to: Timestamp,
    /// How many.
    pub count: u64,
    /// The run it began.
    pub run: Option<RunId>,
    /// From the instant to the commit of the run, milliseconds.
    pub lag_ms: Option<u64>,
    /// Where it would have run, of [`Verdict::Shadow`].
    pub hosts: Option<Vec<HostName>>,
}

impl Store {
    /// Records verdicts, all or nothing. Neighbours with the same verdict and reason and no run
    /// become one row. A job's fires are to be recorded in the order of their instants: one that
    /// lies inside a row of several counts as recorded already.
    ///
    /// # Errors
    /// [`Error::FireTaken`] when one has its verdict already.
    pub async fn record_fires(&self, rows: Vec<NewFire>) -> Result<(), Error> {
        self.main().write(move |db| rows.iter().try_for_each(|fire| record(db, fire))).await
    }

    /// A page of a job's ledger, newest first.
    ///
    /// # Errors
    /// [`Error::BadCursor`], and what the database says.
    pub async fn ledger(
        &self,
        job: &JobName,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Fire>, Error> {
        let before = cursor.as_deref().map_or(Ok((i64::MAX, i64::MAX)), parse_cursor)?;
        let limit = limit.clamp(1, MAX_PAGE);
        let job = job.clone();
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT * FROM fires WHERE job = ?1 AND (from_at, manual) < (?2, ?3)
                     ORDER BY from_at DESC, manual DESC LIMIT ?4",
                )?;
                let rows = statement.query_and_then(
                    params![job.as_str(), before.0, before.1, i64::from(limit) + 1],
                    |row| Ok(((row.get("from_at")?, row.get("manual")?), read_fire(row)?)),
                )?;
                let rows = rows.collect::<Result<Vec<((i64, i64), _)>, Error>>()?;
                Ok(cut(rows, limit, |(from, manual)| format!("{from}.{manual}")))
            })
            .await
    }

    /// Fires that wait for their job's earlier run; for a server that starts.
    ///
    /// # Errors
    /// What the database says.
    pub async fn pending_fires(&self) -> Result<Vec<NewFire>, Error> {
        self.main()
            .read(|db| {
                // By itself SQLite would read the whole ledger to spare the sort of a few rows.
                let sql = "SELECT * FROM fires INDEXED BY fires_pending WHERE verdict = 'pending'
                    ORDER BY job, from_at";
                let mut statement = db.prepare_cached(sql)?;
                let pending = statement.query_and_then([], |row| {
                    let fire = read_fire(row)?;
                    Ok(NewFire {
                        job: row::name(row, "job")?,
                        verdict: fire.verdict,
                        reason: fire.reason,
                        from: fire.from,
                        to: fire.to,
                        count: fire.count,
                        run: fire.run_id,
                        lag_ms: fire.lag_ms,
                        hosts: fire.hosts,
                    })
                })?;
                pending.collect()
            })
            .await
    }

    /// For each job the last instant of its schedule that has a verdict.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_fires(&self) -> Result<BTreeMap<JobName, Timestamp>, Error> {
        self.main()
            .read(|db| {
                let mut statement = db.prepare_cached("SELECT job, at FROM last_fires")?;
                let last = statement
                    .query_and_then([], |row| Ok((row::name(row, "job")?, row::at(row, "at")?)))?;
                last.collect()
            })
            .await
    }
}

/// What a fire that has no verdict yet finds in the ledger.
pub(crate) struct Claim {
    /// The row that waited for its verdict.
    waited: Option<i64>,
    /// Begun by hand, beside the schedule.
    manual: bool,
    /// The last instant of the job's schedule that has a verdict.
    last: Option<i64>,
}

/// Looks whether a fire has its verdict, and writes nothing.
///
/// # Errors
/// [`Error::FireTaken`] when it has; [`Error::Conflict`] when that is the verdict with its own run.
pub(crate) fn claim(db: &Connection, fire: &NewFire) -> Result<Claim, Error> {
    let by_hand = fire.reason == Some(FireReason::Manual);
    let waiting = waiting(db, fire, by_hand)?;
    let manual = waiting.map_or(by_hand, |(_, manual)| manual);
    let mut claim = Claim { waited: waiting.map(|(id, _)| id), manual, last: None };
    if manual {
        return Ok(claim);
    }
    let mut last = db.prepare_cached("SELECT at FROM last_fires WHERE job = ?1")?;
    claim.last = last.query_row([fire.job.as_str()], |row| row.get(0)).optional()?;
    // Nearly all come after all others of their job, and the ledger is large.
    if claim.last.is_none_or(|last| last >= fire.from.as_millis()) {
        refuse_taken(db, fire, claim.waited)?;
    }
    Ok(claim)
}

/// Records one verdict inside a transaction.
pub(crate) fn record(db: &Connection, fire: &NewFire) -> Result<(), Error> {
    write(db, fire, &claim(db, fire)?)
}

/// Likewise, of a fire of which nothing was written since it was claimed.
pub(crate) fn write(db: &Connection, fire: &NewFire, claim: &Claim) -> Result<(), Error> {
    if let Some(id) = claim.waited {
        db.prepare_cached("DELETE FROM fires WHERE id = ?1")?.execute([id])?;
    }
    if !claim.manual {
        remember_last(db, fire, claim.last)?;
    }
    // Fires of a shadow each have hosts of their own.
    let alone = match fire.verdict {
        Verdict::Pending | Verdict::Shadow => true,
        Verdict::Ran
        | Verdict::Skipped
        | Verdict::Coalesced
        | Verdict::CaughtUp
        | Verdict::Missed => claim.manual || fire.run.is_some(),
    };
    if alone || !merge(db, fire)? {
        insert(db, fire, claim.manual)?;
    }
    Ok(())
}

/// The pending row of the same fire, and whether it was begun by hand. Few rows are pending.
fn waiting(db: &Connection, fire: &NewFire, by_hand: bool) -> Result<Option<(i64, bool)>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id, manual > 0 FROM fires INDEXED BY fires_pending
         WHERE job = ?1 AND from_at = ?2 AND verdict = 'pending'
         ORDER BY (manual > 0) = ?3 DESC LIMIT 1",
    )?;
    let key = params![fire.job.as_str(), fire.from.as_millis(), by_hand];
    Ok(statement.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// Rows do not overlap, so the one that begins last before the end of this tells.
fn refuse_taken(db: &Connection, fire: &NewFire, waited: Option<i64>) -> Result<(), Error> {
    let mut statement = db.prepare_cached(
        "SELECT to_at, run FROM fires
         WHERE job = ?1 AND from_at <= ?2 AND manual = 0 AND id IS NOT ?3
         ORDER BY from_at DESC LIMIT 1",
    )?;
    let key = params![fire.job.as_str(), fire.to.as_millis(), waited];
    let mut rows = statement.query(key)?;
    let Some(row) = rows.next()? else { return Ok(()) };
    if row.get::<_, i64>(0)? < fire.from.as_millis() {
        return Ok(());
    }
    let theirs = row::maybe_uuid(row, "run")?.map(RunId);
    match fire.run.filter(|run| theirs == Some(*run)) {
        Some(run) => Err(Error::Conflict { run }),
        None => Err(Error::FireTaken { job: fire.job.clone(), nominal: fire.from }),
    }
}

fn remember_last(db: &Connection, fire: &NewFire, last: Option<i64>) -> Result<(), Error> {
    let to = fire.to.as_millis();
    let sql = match last {
        Some(last) if last >= to => return Ok(()),
        Some(_) => "UPDATE last_fires SET at = ?2 WHERE job = ?1",
        None => "INSERT INTO last_fires (job, at) VALUES (?1, ?2)",
    };
    db.prepare_cached(sql)?.execute(params![fire.job.as_str(), to])?;
    Ok(())
}

/// Makes the fire part of the row before it, of the one after it, or of both.
fn merge(db: &Connection, fire: &NewFire) -> Result<bool, Error> {
    let before = neighbour(
        db,
        fire,
        "SELECT * FROM fires WHERE job = ?1 AND from_at <= ?2
         ORDER BY from_at DESC, manual DESC LIMIT 1",
        fire.from,
    )?;
    let after = neighbour(
        db,
        fire,
        "SELECT * FROM fires WHERE job = ?1 AND from_at >= ?2 ORDER BY from_at, manual LIMIT 1",
        fire.to,
    )?;
    let (id, from, to, count) = match (&before, &after) {
        (None, None) => return Ok(false),
        (Some(before), None) => (before.id, before.from, fire.to, before.count + fire.count),
        (None, Some(after)) => (after.id, fire.from, after.to, fire.count + after.count),
        (Some(before), Some(after)) => {
            db.prepare_cached("DELETE FROM fires WHERE id = ?1")?.execute([after.id])?;
            (before.id, before.from, after.to, before.count + fire.count + after.count)
        }
    };
    db.prepare_cached(
        "UPDATE fires SET from_at = ?2, to_at = ?3, count = ?4, lag_ms = NULL WHERE id = ?1",
    )?
    .execute(params![id, from.as_millis(), to.as_millis(), int(count)])?;
    Ok(true)
}

struct Neighbour {
    id: i64,
    from: Timestamp,
    to: Timestamp,
    count: u64,
}

fn neighbour(
    db: &Connection,
    fire: &NewFire,
    sql: &str,
    at: Timestamp,
) -> Result<Option<Neighbour>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![fire.job.as_str(), at.as_millis()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let there = read_fire(row)?;
    let alike = there.verdict == fire.verdict && there.reason == fire.reason;
    if !alike || there.run_id.is_some() || row.get("manual")? {
        return Ok(None);
    }
    Ok(Some(Neighbour { id: row.get("id")?, from: there.from, to: there.to, count: there.count }))
}

/// `manual` numbers what was begun by hand at one instant, from 1; it is 0 for the schedule's own.
fn insert(db: &Connection, fire: &NewFire, manual: bool) -> Result<(), Error> {
    let values = "INSERT INTO fires
         (job, verdict, reason, from_at, to_at, count, run, lag_ms, hosts, manual)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0)";
    let numbered = "INSERT INTO fires
         (job, verdict, reason, from_at, to_at, count, run, lag_ms, hosts, manual)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, coalesce(max(manual), 0) + 1
         FROM fires WHERE job = ?1 AND from_at = ?4";
    let mut statement = db.prepare_cached(if manual { numbered } else { values })?;
    statement.execute(params![
        fire.job.as_str(),
        fire.verdict.text(),
        fire.reason.map(|reason| reason.text()),
        fire.from.as_millis(),
        fire.to.as_millis(),
        int(fire.count),
        fire.run.as_ref().map(|run| blob(&run.0)),
        fire.lag_ms.map(int),
        fire.hosts.as_ref().map(row::json),
    ])?;
    Ok(())
}

/// Where a fire of a shadow would have run.
fn read_hosts(row: &Row<'_>) -> Result<Option<Vec<HostName>>, Error> {
    let text: Option<String> = row.get("hosts")?;
    let read = |text: String| {
        serde_json::from_str(&text).map_err(|error| Error::corrupt(format!("hosts: {error}")))
    };
    text.map(read).transpose()
}

pub(crate) fn read_fire(row: &Row<'_>) -> Result<Fire, Error> {
    let (from, count) = (row::at(row, "from_at")?, row::count(row, "count")?);
    let lag_ms: Option<i64> = row.get("lag_ms")?;
    Ok(Fire {
        verdict: row::stored(row, "verdict")?,
        reason: row::maybe_stored(row, "reason")?,
        nominal: (count == 1).then_some(from),
        from,
        to: row::at(row, "to_at")?,
        count,
        run_id: row::maybe_uuid(row, "run")?.map(RunId),
        lag_ms: lag_ms.and_then(|ms| u64::try_from(ms).ok()),
        hosts: read_hosts(row)?,
    })
}

fn parse_cursor(cursor: &str) -> Result<(i64, i64), Error> {
    let parse = || {
        let (from, id) = cursor.split_once('.')?;
        Some((from.parse().ok()?, id.parse().ok()?))
    };
    parse().ok_or(Error::BadCursor)
}
