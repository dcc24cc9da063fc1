//! Retention, size and soundness.
//!
//! Deleted rows leave free pages, which new rows use: in a store that has reached its bound
//! the files stay as they are. Only when more than an eighth of a file is free are pages given
//! back to the file system, a few at a time.

use fw_proto::{RunId, Span, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::row::{self, blob};
use crate::sqlite::Database;
use crate::{Error, LOGS, MAIN, Store};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Runs that ended longer ago are deleted.
    pub age: Span,
    /// The oldest runs are deleted until the rest takes no more bytes than this.
    pub bytes: u64,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Runs deleted.
    pub runs: u64,
    /// Rows of the ledger, notices, maintenances, changes and invitations deleted.
    pub rows: u64,
    /// Bytes in use after it.
    pub used: u64,
}

/// The size of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Bytes of the file.
    pub on_disk: u64,
    /// Bytes of it that are in use.
    pub used: u64,
}

/// The sizes of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// What was decided and what became of it.
    pub main: Size,
    /// What commands wrote.
    pub logs: Size,
}

impl Sizes {
    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.main.used + self.logs.used
    }
}

/// Runs looked at in one round.
const ROUND: u32 = 64;

/// Task rows deleted in one transaction, unless one run alone has more. About 10 ms of the writer.
const TASKS: u64 = 2000;

/// Chunks deleted in one transaction: at most 64 MiB, mostly under 10.
const CHUNKS: u32 = 256;

/// Rows of other tables deleted in one transaction.
const ROWS: u32 = 1000;

/// Pages given back in one transaction.
const PAGES: u32 = 512;

/// What a run takes without its output; for choosing how many to delete, not for accounts.
const RUN_BYTES: u64 = 1024;

/// Likewise a task.
const TASK_BYTES: u64 = 128;

impl Store {
    /// Deletes what is older than `keep` says, or beyond its size; oldest first, and never what
    /// has not ended. In small transactions, so that others are not kept waiting.
    ///
    /// # Errors
    /// What the databases say. What was deleted before stays deleted.
    pub async fn sweep(&self, keep: Retention) -> Result<Swept, Error> {
        let now = self.now();
        let cutoff = now - keep.age;
        let mut swept = Swept::default();
        swept.runs += self.sweep_old(cutoff).await?;
        swept.runs += self.sweep_large(keep.bytes).await?;
        swept.rows += self.sweep_rows(now, cutoff).await?;
        self.sweep_orphans(cutoff).await?;
        give_back(self.main().db).await?;
        give_back(self.logs()).await?;
        swept.used = self.size().await?.used();
        Ok(swept)
    }

    async fn sweep_old(&self, cutoff: Timestamp) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let old = self.oldest(cutoff).await?;
            if old.is_empty() {
                return Ok(deleted);
            }
            deleted += old.len() as u64;
            self.delete(old).await?;
        }
    }

    async fn sweep_large(&self, bytes: u64) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let excess = self.size().await?.used().saturating_sub(bytes);
            let mut oldest = if excess > 0 { self.oldest(LAST).await? } else { Vec::new() };
            if oldest.is_empty() {
                return Ok(deleted);
            }
            let enough = self.enough(&oldest, excess).await?;
            oldest.truncate(enough);
            deleted += oldest.len() as u64;
            self.delete(oldest).await?;
        }
    }

    /// How many of these runs must go for so many bytes; at least one.
    async fn enough(&self, oldest: &[Old], excess: u64) -> Result<usize, Error> {
        let ids: Vec<_> = oldest.iter().map(|old| old.id).collect();
        let output = self.logs().read(move |db| ids.iter().map(|id| bytes_of(db, *id)).collect());
        let output: Vec<u64> = output.await?;
        let mut gained = 0_u64;
        let needed = oldest.iter().zip(output).take_while(|(old, output)| {
            let more = gained < excess;
            gained += output + RUN_BYTES + old.tasks * TASK_BYTES;
            more
        });
        Ok(needed.count().max(1))
    }

    /// The runs that ended first, of those that ended before `cutoff`.
    async fn oldest(&self, cutoff: Timestamp) -> Result<Vec<Old>, Error> {
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    // What a change goes on with may need what its earlier runs printed.
                    "SELECT id, total FROM runs WHERE finished_at IS NOT NULL AND finished_at < ?1
                     AND (change IS NULL
                          OR change NOT IN (SELECT id FROM changes WHERE finished_at IS NULL))
                     ORDER BY finished_at LIMIT ?2",
                )?;
                let old = statement.query_and_then(params![cutoff.as_millis(), ROUND], |row| {
                    Ok(Old { id: RunId(row::uuid(row, "id")?), tasks: row::count(row, "total")? })
                })?;
                old.collect()
            })
            .await
    }

    /// Output first: a run that is half deleted is found and deleted again.
    async fn delete(&self, runs: Vec<Old>) -> Result<(), Error> {
        for old in &runs {
            self.delete_output(old.id).await?;
        }
        let mut runs = runs.into_iter().peekable();
        while let Some(first) = runs.next() {
            let mut tasks = first.tasks;
            let mut together = vec![first.id];
            while let Some(next) = runs.next_if(|next| tasks + next.tasks <= TASKS) {
                tasks += next.tasks;
                together.push(next.id);
            }
            self.main()
                .write(move |db| {
                    let sql = "DELETE FROM runs WHERE id = ?1 AND finished_at IS NOT NULL";
                    let mut statement = db.prepare_cached(sql)?;
                    together.iter().try_for_each(|id| {
                        statement.execute([blob(&id.0)]).map(drop).map_err(Error::from)
                    })
                })
                .await?;
        }
        Ok(())
    }

    async fn delete_output(&self, run: RunId) -> Result<(), Error> {
        let any = self.logs().read(move |db| {
            let sql = "SELECT 1 FROM streams WHERE run = ?1 LIMIT 1";
            Ok(db.prepare_cached(sql)?.exists([blob(&run.0)])?)
        });
        if !any.await? {
            return Ok(());
        }
        while !self.logs().write(move |db| delete_chunks(db, run)).await? {}
        Ok(())
    }

    /// Output whose run is gone: it came after its run was deleted.
    async fn sweep_orphans(&self, cutoff: Timestamp) -> Result<(), Error> {
        let mut after = (Timestamp::EPOCH, 0);
        loop {
            let streams = self.logs().read(move |db| old_streams(db, cutoff, after)).await?;
            let Some(last) = streams.last() else { return Ok(()) };
            after = (last.begun_at, last.id);
            let orphans = self.main().db.read(move |db| {
                let mut known = db.prepare_cached("SELECT 1 FROM runs WHERE id = ?1")?;
                let mut orphans = Vec::new();
                for stream in streams {
                    if !known.exists([blob(&stream.run.0)])? {
                        orphans.push(stream.run);
                    }
                }
                orphans.dedup();
                Ok(orphans)
            });
            for run in orphans.await? {
                self.delete_output(run).await?;
            }
        }
    }

    async fn sweep_rows(&self, now: Timestamp, cutoff: Timestamp) -> Result<u64, Error> {
        let now = now.as_millis();
        let cutoff = cutoff.as_millis();
        let mut deleted = 0;
        for (sql, before) in [
            (
                "DELETE FROM fires WHERE id IN (SELECT id FROM fires WHERE to_at < ?1 AND verdict <> 'pending' LIMIT ?2)",
                cutoff,
            ),
            (
                "DELETE FROM notices WHERE id IN (SELECT id FROM notices WHERE done = 1 AND next_at < ?1 LIMIT ?2)",
                cutoff,
            ),
            (
                "DELETE FROM maintenances WHERE id IN (SELECT id FROM maintenances WHERE until < ?1 LIMIT ?2)",
                cutoff,
            ),
            (
                "DELETE FROM changes WHERE n IN (SELECT n FROM changes WHERE finished_at < ?1 LIMIT ?2)",
                cutoff,
            ),
            (
                "DELETE FROM invitations WHERE secret_sha256 IN (SELECT secret_sha256 FROM invitations WHERE expires_at < ?1 LIMIT ?2)",
                now,
            ),
        ] {
            loop {
                let delete = move |db: &Connection| {
                    Ok(db.prepare_cached(sql)?.execute(params![before, ROWS])? as u64)
                };
                let some = self.main().write(delete).await?;
                deleted += some;
                if some < u64::from(ROWS) {
                    break;
                }
            }
        }
        Ok(deleted)
    }

    /// Whether the databases are sound: what is wrong with them, in words; nothing when all is well.
    /// Reads everything.
    ///
    /// # Errors
    /// What the databases say.
    pub async fn integrity(&self) -> Result<Vec<String>, Error> {
        let mut wrong = Vec::new();
        for (database, file) in [(self.main().db, MAIN.file), (self.logs(), LOGS.file)] {
            let found = database.read(check).await?;
            wrong.extend(found.into_iter().map(|what| format!("{file}: {what}")));
        }
        Ok(wrong)
    }

    /// How large the databases are.
    ///
    /// # Errors
    /// What the databases say.
    pub async fn size(&self) -> Result<Sizes, Error> {
        Ok(Sizes { main: self.main().read(size).await?, logs: self.logs().read(size).await? })
    }
}

struct Old {
    id: RunId,
    tasks: u64,
}

/// Later than every run.
const LAST: Timestamp = Timestamp::from_millis(i64::MAX);

struct OldStream {
    id: i64,
    run: RunId,
    begun_at: Timestamp,
}

fn old_streams(
    db: &Connection,
    cutoff: Timestamp,
    (at, id): (Timestamp, i64),
) -> Result<Vec<OldStream>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id, run, begun_at FROM streams WHERE begun_at < ?1 AND (begun_at, id) > (?2, ?3)
         ORDER BY begun_at, id LIMIT ?4",
    )?;
    let key = params![cutoff.as_millis(), at.as_millis(), id, ROWS];
    let streams = statement.query_and_then(key, |row| {
        Ok(OldStream {
            id: row.get("id")?,
            run: RunId(row::uuid(row, "run")?),
            begun_at: row::at(row, "begun_at")?,
        })
    })?;
    streams.collect()
}

fn bytes_of(db: &Connection, run: RunId) -> Result<u64, Error> {
    let sql = "SELECT coalesce(sum(bytes), 0) AS bytes FROM streams WHERE run = ?1";
    let bytes = db.prepare_cached(sql)?.query_row([blob(&run.0)], |row| row.get::<_, i64>(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Deletes some chunks of a run, and the streams when none is left; says whether that is so.
fn delete_chunks(db: &Connection, run: RunId) -> Result<bool, Error> {
    let deleted = db
        .prepare_cached(
            "DELETE FROM chunks WHERE rowid IN (
                 SELECT chunks.rowid FROM streams JOIN chunks ON chunks.stream = streams.id
                 WHERE streams.run = ?1 LIMIT ?2)",
        )?
        .execute(params![blob(&run.0), CHUNKS])?;
    if deleted as u64 >= u64::from(CHUNKS) {
        return Ok(false);
    }
    db.prepare_cached("DELETE FROM streams WHERE run = ?1")?.execute([blob(&run.0)])?;
    Ok(true)
}

/// Gives pages back while more than an eighth of the file is free.
async fn give_back(database: &Database) -> Result<(), Error> {
    loop {
        let Size { on_disk, used } = database.read(size).await?;
        if on_disk - used <= on_disk / 8 {
            return Ok(());
        }
        let given = database.write(|db| {
            // The pragma gives back one page per step.
            let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            drop(rows);
            let free: i64 = db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            Ok(free)
        });
        if given.await? == 0 {
            return Ok(());
        }
    }
}

fn size(db: &Connection) -> Result<Size, Error> {
    let pragma = |name: &str| -> Result<u64, Error> {
        let value: i64 = db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
        Ok(u64::try_from(value).unwrap_or(0))
    };
    let (page, pages, free) =
        (pragma("page_size")?, pragma("page_count")?, pragma("freelist_count")?);
    Ok(Size { on_disk: page * pages, used: page * pages.saturating_sub(free) })
}

/// What `PRAGMA integrity_check` and `foreign_key_check` find.
pub(crate) fn check(db: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = db.prepare("PRAGMA integrity_check")?;
    let found = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut wrong = found.collect::<Result<Vec<_>, _>>()?;
    wrong.retain(|line| line != "ok");
    let foreign: Option<String> =
        db.query_row("PRAGMA foreign_key_check", [], |row| row.get(0)).optional()?;
    wrong.extend(foreign.map(|table| format!("rows of {table} belong to nothing")));
    Ok(wrong)
}
