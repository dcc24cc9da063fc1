//! What was changed, by whom: rows that are only ever added, each with the hash of the one before in its own.
//!
//! A handle from [`Store::noting`] writes its note in the transaction of the next change it makes, and only if
//! that changes something.

use fw_proto::Timestamp;
use fw_proto::api::{AuditCheck, AuditEntry, Page};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::row;
use crate::{Error, Store};

/// Something that is about to be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAudit {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// From where.
    pub address: Option<String>,
    /// What is done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// On which hosts.
    pub hosts: Vec<String>,
    /// What it was before.
    pub before: Option<serde_json::Value>,
    /// What it is after.
    pub after: Option<serde_json::Value>,
}

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Where the page begins: `next` of the one before.
    pub cursor: Option<String>,
    /// How many.
    pub limit: u32,
    /// Only by this one.
    pub by: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only to this.
    pub subject: Option<String>,
    /// Only on the host of this name.
    pub host: Option<String>,
}

/// Rows that are verified at a time.
const STEP: i64 = 1000;

impl Store {
    /// The same store; the next change through it is noted with it.
    #[must_use]
    pub fn noting(&self, note: NewAudit) -> Self {
        Self { inner: self.inner.clone(), note: Some(std::sync::Arc::new(note)) }
    }

    /// Notes something that is changed elsewhere.
    ///
    /// # Errors
    /// What the database says.
    pub async fn note(&self, note: NewAudit) -> Result<(), Error> {
        self.main().note(vec![note]).await
    }

    /// Follows the number of the newest entry; it is 0 until the first one since the store was opened.
    #[must_use]
    pub fn audited(&self) -> watch::Receiver<i64> {
        self.inner.noted.subscribe()
    }

    /// Notes several things at once.
    ///
    /// # Errors
    /// What the database says.
    pub async fn note_all(&self, notes: Vec<NewAudit>) -> Result<(), Error> {
        if notes.is_empty() {
            return Ok(());
        }
        self.main().note(notes).await
    }

    /// Entries, newest first.
    ///
    /// # Errors
    /// What the database says; the cursor is none.
    pub async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry>, Error> {
        let before = match &query.cursor {
            Some(cursor) => cursor.parse::<i64>().map_err(|_| Error::BadCursor)?,
            None => i64::MAX,
        };
        self.main()
            .read(move |db| {
                // One index leads; the rest is looked at row by row.
                let from = match &query {
                    AuditQuery { host: Some(_), .. } => {
                        "audit_hosts CROSS JOIN audit ON audit.n = audit_hosts.n
                         WHERE audit_hosts.host = ?6 AND audit_hosts.n < ?1"
                    }
                    AuditQuery { subject: Some(_), .. } => {
                        "audit INDEXED BY audit_subject WHERE audit.subject = ?5 AND audit.n < ?1"
                    }
                    AuditQuery { by: Some(_), .. } => {
                        "audit INDEXED BY audit_actor WHERE audit.actor = ?3 AND audit.n < ?1"
                    }
                    AuditQuery { action: Some(_), .. } => {
                        "audit INDEXED BY audit_action WHERE audit.action = ?4 AND audit.n < ?1"
                    }
                    AuditQuery { .. } => "audit WHERE audit.n < ?1",
                };
                let (order, rest) = match query.host {
                    Some(_) => ("audit_hosts.n", ""),
                    None => ("audit.n", "AND ?6 IS NULL"),
                };
                let sql = format!(
                    "SELECT audit.* FROM {from} {rest} AND (?3 IS NULL OR audit.actor = ?3)
                     AND (?4 IS NULL OR audit.action = ?4) AND (?5 IS NULL OR audit.subject = ?5)
                     ORDER BY {order} DESC LIMIT ?2"
                );
                let limit = query.limit;
                let values =
                    params![before, limit + 1, query.by, query.action, query.subject, query.host];
                let mut statement = db.prepare_cached(&sql)?;
                let entries = statement.query_and_then(values, read_entry)?;
                let mut items: Vec<_> = entries.collect::<Result<_, _>>()?;
                let more = items.len() > limit as usize;
                items.truncate(limit as usize);
                let next = items.last().filter(|_| more).map(|entry| entry.n.to_string());
                Ok(Page { items, next })
            })
            .await
    }

    /// Looks at each entry's hash, in order, and at the end that was noted apart.
    ///
    /// # Errors
    /// What the database says.
    pub async fn verify_audit(&self) -> Result<AuditCheck, Error> {
        let (mut last, mut before) = (0, Vec::new());
        loop {
            let from = last;
            // Together: entries may be added meanwhile.
            let read = self.main().db.read(move |db| Ok((following(db, from)?, head(db)?)));
            let (page, end) = read.await?;
            let more = page.len() >= usize::try_from(STEP).unwrap_or(usize::MAX);
            for row in page {
                if let Some(broken) = broken(last, &before, &row) {
                    return Ok(AuditCheck { entries: last, broken: Some(broken), head: None });
                }
                (last, before) = (row.n, row.sha256);
            }
            if more {
                continue;
            }
            let there = (last > 0).then_some((last, before));
            let cut = end != there;
            let newest = end.map_or(0, |(n, _)| n);
            let broken =
                cut.then(|| format!("entries after {last} are missing: the newest was {newest}"));
            let head = there.map(|(_, sha256)| row::hex(&sha256));
            return Ok(AuditCheck { entries: last, broken, head });
        }
    }
}

/// What is wrong with the row after this one.
fn broken(last: i64, before: &[u8], row: &Noted) -> Option<String> {
    let expected = last + 1;
    if row.n != expected {
        return Some(format!("entry {expected} is missing"));
    }
    let right = chained(before, row.n, &row.note) == row.sha256;
    (!right).then(|| format!("entry {expected} is not what it was when it was written"))
}

struct Noted {
    n: i64,
    note: NewAudit,
    sha256: Vec<u8>,
}

/// Adds a row, in whatever transaction this is; gives its number.
pub(crate) fn append(db: &Connection, note: &NewAudit) -> Result<i64, Error> {
    let (n, before) = head(db)?.unwrap_or_default();
    let n = n + 1;
    let sha256 = chained(&before, n, note);
    let (hosts, text) = (row::json(&note.hosts), |value: &Option<_>| value.as_ref().map(row::json));
    let sql =
        "INSERT INTO audit (n, at, actor, address, action, subject, hosts, before, after, sha256)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    db.prepare_cached(sql)?.execute(params![
        n,
        note.at.as_millis(),
        note.by,
        note.address,
        note.action,
        note.subject,
        hosts,
        text(&note.before),
        text(&note.after),
        sha256
    ])?;
    let mut put =
        db.prepare_cached("INSERT OR IGNORE INTO audit_hosts (host, n) VALUES (?1, ?2)")?;
    for host in &note.hosts {
        put.execute(params![host, n])?;
    }
    let sql = "INSERT INTO audit_head (one, n, sha256) VALUES (1, ?1, ?2)
               ON CONFLICT (one) DO UPDATE SET n = excluded.n, sha256 = excluded.sha256";
    db.prepare_cached(sql)?.execute(params![n, sha256])?;
    Ok(n)
}

/// The hash of a row and all before it: of the hash before, and of the row as a JSON array, in which nothing can
/// be moved from one field to the next.
fn chained(before: &[u8], n: i64, note: &NewAudit) -> Vec<u8> {
    let NewAudit { at, by, address, action, subject, hosts, before: was, after } = note;
    let fields = (n, at.as_millis(), by, address, action, subject, hosts, was, after);
    let mut digest = Sha256::new();
    digest.update(before);
    digest.update(row::json(&fields));
    digest.finalize().to_vec()
}

fn head(db: &Connection) -> Result<Option<(i64, Vec<u8>)>, Error> {
    let mut statement = db.prepare_cached("SELECT n, sha256 FROM audit_head")?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn following(db: &Connection, after: i64) -> Result<Vec<Noted>, Error> {
    let sql = "SELECT * FROM audit WHERE n > ?1 ORDER BY n LIMIT ?2";
    db.prepare_cached(sql)?.query_and_then([after, STEP], read_noted)?.collect()
}

fn read_noted(row: &Row<'_>) -> Result<Noted, Error> {
    let json = |column: &str| -> Result<Option<serde_json::Value>, Error> {
        let text: Option<String> = row.get(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(Error::corrupt)).transpose()
    };
    let note = NewAudit {
        at: row::at(row, "at")?,
        by: row.get("actor")?,
        address: row.get("address")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        hosts: row::from_json(row, "hosts")?,
        before: json("before")?,
        after: json("after")?,
    };
    Ok(Noted { n: row.get("n")?, note, sha256: row.get("sha256")? })
}

fn read_entry(row: &Row<'_>) -> Result<AuditEntry, Error> {
    let Noted { n, note, sha256 } = read_noted(row)?;
    let NewAudit { at, by, address, action, subject, hosts, before, after } = note;
    let sha256 = row::hex(&sha256);
    Ok(AuditEntry { n, at, by, address, action, subject, hosts, before, after, sha256 })
}
