//! Migrations: numbered, forward only, checksummed, all pending ones in one transaction.

use std::path::Path;

use fw_proto::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::scratch::Scratch;

/// What a database of this build looks like, step by step.
pub(crate) struct Schema {
    /// The file's name in the data directory.
    pub(crate) file: &'static str,
    /// The SQL of each migration; the first has number 1. Never edited, only added to.
    pub(crate) steps: &'static [&'static str],
}

impl Schema {
    /// The number of the last migration.
    pub(crate) fn version(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }
}

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS migrations (
    number     INTEGER PRIMARY KEY,
    sha256     BLOB    NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// How many migrations the database at `path` has; 0 when it is new. Leaves every byte as it is.
///
/// # Errors
/// As [`check_schema`].
pub(super) fn version(path: &Path, schema: &Schema) -> Result<u32, Error> {
    let len = bytes(path);
    if len == 0 {
        return Ok(0);
    }
    // SQLite takes a file shorter than a page for a new database, and reads zeros beyond the end.
    // After a crash its log may still put that right.
    let logs = ["db-wal", "db-journal"].map(|log| bytes(&path.with_extension(log)));
    if logs == [0, 0] && !len.is_multiple_of(super::open::PAGE) {
        return Err(Error::corrupt("it was cut short"));
    }
    check_schema(&looking(path)?, schema)
}

/// A connection that leaves every byte as it is.
pub(super) fn looking(path: &Path) -> Result<Connection, Error> {
    let connection = super::connect(path)?;
    // What a crash has left in the log would be written back at the end.
    let unclean = bytes(&path.with_extension("db-wal")) > 0;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, unclean)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// Brings the database up to this build. A database that holds something is copied to
/// `<file>.before-<number>` first.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    schema: &Schema,
    now: Timestamp,
) -> Result<(), Error> {
    let done = check_schema(connection, schema)?;
    if done == schema.version() {
        return Ok(());
    }
    if done > 0 {
        keep_copy(connection, &path.with_extension(format!("db.before-{}", done + 1)))?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(LEDGER)?;
    for (number, sql) in (1_u32..).zip(schema.steps).skip(done as usize) {
        transaction.execute_batch(sql)?;
        transaction.execute(
            "INSERT INTO migrations (number, sha256, applied_at) VALUES (?1, ?2, ?3)",
            params![number, checksum(sql), now.as_millis()],
        )?;
    }
    transaction.commit()?;
    Ok(())
}

/// Copies the database to `copy`, which is whole whenever it is there.
fn keep_copy(connection: &Connection, copy: &Path) -> Result<(), Error> {
    let scratch = Scratch::beside(copy.parent().unwrap_or_else(|| Path::new(".")))?;
    let part = scratch.path().join("copy.db");
    super::copy(connection, &part)?;
    // One of an attempt that did not end well is stale.
    std::fs::rename(&part, copy).map_err(Error::io(format!("write {}", copy.display())))
}

/// How many migrations the database has; 0 when it is new.
///
/// # Errors
/// It has more than this build knows, or other ones.
pub(crate) fn check_schema(connection: &Connection, schema: &Schema) -> Result<u32, Error> {
    let ledger = "SELECT 1 FROM sqlite_schema WHERE name = 'migrations'";
    if connection.query_row(ledger, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    let mut statement =
        connection.prepare("SELECT number, sha256 FROM migrations ORDER BY number")?;
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let applied: Vec<_> = rows.collect::<Result<_, _>>()?;
    let found = applied.last().map_or(0, |(number, _)| *number);
    if found > schema.version() {
        let known = schema.version();
        return Err(Error::NewerSchema { file: schema.file.to_owned(), found, known });
    }
    for ((number, sha256), sql) in applied.iter().zip(schema.steps) {
        if *sha256 != checksum(sql) {
            return Err(Error::ChangedMigration { file: schema.file.to_owned(), number: *number });
        }
    }
    Ok(found)
}

fn checksum(sql: &str) -> Vec<u8> {
    Sha256::digest(sql).to_vec()
}
