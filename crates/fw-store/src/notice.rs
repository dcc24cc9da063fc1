//! The outbox of notices: what is to be told to the world about runs, until it was told.

use fw_proto::api::Hook;
use fw_proto::{JobName, RunId, Timestamp};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::row::{self, blob, int};
use crate::{Error, Store};

/// A notice to be sent. One run tells one hook once, however often it is put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNotice {
    /// About which run.
    pub run: RunId,
    /// Of which job.
    pub job: JobName,
    /// Where to.
    pub hook: Hook,
    /// What to say.
    pub body: String,
    /// Not before this.
    pub next_at: Timestamp,
}

/// A notice that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which notice.
    pub id: u64,
    /// About which run.
    pub run: RunId,
    /// Of which job.
    pub job: JobName,
    /// Where to.
    pub hook: Hook,
    /// What to say.
    pub body: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Since when it is due.
    pub next_at: Timestamp,
}

/// Due notices that are read at a time; the others are read when these are done.
const AT_ONCE: u32 = 100;

/// A hook in a row.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HookRow {
    Webhook(String),
    Command(Vec<String>),
}

impl Store {
    /// Puts a notice into the outbox, unless it is or was there.
    ///
    /// # Errors
    /// What the database says.
    pub async fn put_notice(&self, notice: NewNotice) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                db.prepare_cached(
                    "INSERT INTO notices (run, job, hook, body, attempts, next_at, done)
                     VALUES (?1, ?2, ?3, ?4, 0, ?5, 0) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    blob(&notice.run.0),
                    notice.job.as_str(),
                    row::json(&HookRow::from(notice.hook)),
                    notice.body,
                    notice.next_at.as_millis(),
                ])?;
                Ok(())
            })
            .await
    }

    /// Notices that are due, the longest due first, at most 100.
    ///
    /// # Errors
    /// What the database says.
    pub async fn due_notices(&self, now: Timestamp) -> Result<Vec<Notice>, Error> {
        self.main()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT * FROM notices WHERE done = 0 AND next_at <= ?1
                     ORDER BY next_at, id LIMIT ?2",
                )?;
                statement.query_and_then(params![now.as_millis(), AT_ONCE], read_notice)?.collect()
            })
            .await
    }

    /// The notice was sent, or will never be.
    ///
    /// # Errors
    /// What the database says.
    pub async fn notice_done(&self, id: u64) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                let sql = "UPDATE notices SET done = 1, attempts = attempts + 1 WHERE id = ?1";
                db.prepare_cached(sql)?.execute([int(id)])?;
                Ok(())
            })
            .await
    }

    /// The notice could not be sent; it is to be tried again at `next_at`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn notice_failed(&self, id: u64, next_at: Timestamp) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                let sql = "UPDATE notices SET attempts = attempts + 1, next_at = ?2 WHERE id = ?1";
                db.prepare_cached(sql)?.execute(params![int(id), next_at.as_millis()])?;
                Ok(())
            })
            .await
    }
}

fn read_notice(row: &Row<'_>) -> Result<Notice, Error> {
    Ok(Notice {
        id: row::count(row, "id")?,
        run: RunId(row::uuid(row, "run")?),
        job: row::name(row, "job")?,
        hook: row::from_json::<HookRow>(row, "hook")?.into(),
        body: row.get("body")?,
        attempts: row.get("attempts")?,
        next_at: row::at(row, "next_at")?,
    })
}

impl From<Hook> for HookRow {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::Webhook(url) => Self::Webhook(url),
            Hook::Command(argv) => Self::Command(argv),
        }
    }
}

impl From<HookRow> for Hook {
    fn from(row: HookRow) -> Self {
        match row {
            HookRow::Webhook(url) => Self::Webhook(url),
            HookRow::Command(argv) => Self::Command(argv),
        }
    }
}
