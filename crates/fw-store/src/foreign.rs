//! `SQLite` databases of other programs, while those use them: copied, compared and put back.
//!
//! They are here because all that speaks to `SQLite` is. Nothing is known of what they hold.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::sqlite::{connect, copy};
use crate::{Error, row};

/// What a database holds, so far that two that hold the same are told from two that do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Of all tables, indices, views and triggers.
    pub schema_sha256: String,
    /// What the program keeps in `user_version`.
    pub user_version: i64,
    /// By name, but for virtual ones, whose rows are in ordinary ones.
    pub tables: BTreeMap<String, Table>,
}

/// The rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// How many there are.
    pub rows: u64,
    /// The sum of the hashes of all rows, so that their order does not count.
    pub sum: String,
}

/// Copies a database that may be in use, as it is at one instant, to a new file, and says what it held
/// at that instant and in which journal mode it is. Blocks.
///
/// # Errors
/// It is no database, or cannot be read; or the copy cannot be written.
pub fn copy_database(from: &Path, to: &Path) -> Result<(Contents, String), Error> {
    let work = || {
        let db = connect(from)?;
        db.pragma_update(None, "query_only", true)?;
        let mode = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        // One read transaction around both: what is said is what is copied.
        db.execute_batch("BEGIN")?;
        let contents = read(&db)?;
        copy(&db, to)?;
        db.execute_batch("COMMIT")?;
        Ok((contents, mode))
    };
    work().map_err(|error: Error| error.in_file(from))
}

/// Checks that a database is sound, and says what it holds. Blocks.
///
/// # Errors
/// [`Error::Corrupt`] when it is not sound.
pub fn database_contents(path: &Path) -> Result<Contents, Error> {
    let work = || {
        let db = connect(path)?;
        db.pragma_update(None, "query_only", true)?;
        let wrong: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if wrong == "ok" { read(&db) } else { Err(Error::corrupt(wrong)) }
    };
    work().map_err(|error: Error| error.in_file(path))
}

/// Makes `target` hold what `copy` holds, in this journal mode. Blocks.
///
/// A database that is there is written in one transaction, so who has it open reads the one or the other;
/// what is no database is replaced by a new file. Whoever is cut short does it again.
///
/// # Errors
/// The database is in use right now, or a file cannot be written.
pub fn put_database(from: &Path, target: &Path, journal_mode: &str) -> Result<(), Error> {
    let source = connect(from).map_err(|error| error.in_file(from))?;
    let put = || {
        if !is_database(target)? {
            replace(&source, target)?;
        }
        let mut db = connect(target)?;
        // In WAL mode it would take no pages of another size. Fails while others use the log.
        db.pragma_update(None, "journal_mode", "DELETE")?;
        let step = Backup::new(&source, &mut db)?.step(-1)?;
        if step != StepResult::Done {
            return Err(Error::from(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                Some("database is locked".to_owned()),
            )));
        }
        db.pragma_update(None, "journal_mode", journal_mode)?;
        db.close().map_err(|(_, error)| Error::from(error))
    };
    put().map_err(|error| error.in_file(target))
}

/// Whether there is a database that can be written over as one.
fn is_database(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        there => {
            if there.map_err(Error::io(format!("read {}", path.display())))?.len() == 0 {
                return Ok(false);
            }
        }
    }
    let look = || {
        let db = connect(path)?;
        Ok(db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?)
    };
    match look() {
        Ok(_) => Ok(true),
        Err(Error::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts a new file in the place of what is there, without the files that `SQLite` keeps beside a database:
/// they belong to the old one, and would be played into the new one.
fn replace(source: &Connection, target: &Path) -> Result<(), Error> {
    let part = beside(target, ".fleetwright-restore");
    for old in
        [&part, &beside(target, "-wal"), &beside(target, "-shm"), &beside(target, "-journal")]
    {
        match fs::remove_file(old) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(Error::io(format!("remove {}", old.display())))?,
        }
    }
    copy(source, &part)?;
    fs::rename(&part, target).map_err(Error::io(format!("write {}", target.display())))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn read(db: &Connection) -> Result<Contents, Error> {
    let mut schema = Sha256::new();
    let mut names = Vec::new();
    let mut statement =
        db.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2, 3")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        schema.update(hash(row, 4)?);
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        let sql: Option<String> = row.get(3)?;
        let sql = sql.unwrap_or_default().to_ascii_uppercase();
        if kind == "table" && !sql.starts_with("CREATE VIRTUAL TABLE") {
            names.push(name);
        }
    }
    let tables = names.into_iter().map(|name| Ok((name.clone(), table(db, &name)?)));
    let tables = tables.collect::<Result<_, Error>>()?;
    let user_version = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(Contents { schema_sha256: row::hex(&schema.finalize()), user_version, tables })
}

fn table(db: &Connection, name: &str) -> Result<Table, Error> {
    let mut statement = db.prepare(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")))?;
    let columns = statement.column_count();
    let (mut count, mut sum) = (0_u64, [0_u64; 4]);
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        count += 1;
        let hash = hash(row, columns)?;
        for (lane, eight) in sum.iter_mut().zip(hash.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_be_bytes(*eight));
        }
    }
    let sum: Vec<u8> = sum.iter().flat_map(|lane| lane.to_be_bytes()).collect();
    Ok(Table { rows: count, sum: row::hex(&sum) })
}

/// The hash of a row: of each value its type, its length and its bytes.
fn hash(row: &Row<'_>, columns: usize) -> Result<[u8; 32], Error> {
    let mut hash = Sha256::new();
    for column in 0..columns {
        let number;
        let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(value) => {
                number = value.to_be_bytes();
                (1, &number)
            }
            ValueRef::Real(value) => {
                number = value.to_bits().to_be_bytes();
                (2, &number)
            }
            ValueRef::Text(bytes) => (3, bytes),
            ValueRef::Blob(bytes) => (4, bytes),
        };
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(path: &Path, sql: &str) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch(sql).unwrap();
        db
    }

    const USED: &str = "PRAGMA journal_mode = WAL; CREATE TABLE \"a \"\"b\" (x, y TEXT, z BLOB);
        CREATE INDEX by_y ON \"a \"\"b\" (y); CREATE VIRTUAL TABLE words USING fts5(text);
        INSERT INTO words VALUES ('one two'); PRAGMA user_version = 7;
        INSERT INTO \"a \"\"b\" VALUES (1, 'one', x'00ff'), (NULL, 'two', NULL), (2.5, '', x'');";

    #[test]
    fn what_is_copied_while_it_is_in_use_is_what_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (used, copied) = (dir.path().join("used.db"), dir.path().join("copy.db"));
        let db = database(&used, USED);
        let (held, mode) = copy_database(&used, &copied).unwrap();
        assert_eq!((mode.as_str(), held.user_version), ("wal", 7));
        assert_eq!(held.tables["a \"b"].rows, 3);
        assert_eq!(database_contents(&copied).unwrap(), held);
        db.execute_batch("DELETE FROM \"a \"\"b\" WHERE x = 1; CREATE TABLE more (x);").unwrap();
        assert_ne!(database_contents(&used).unwrap(), held);
        drop(db);
        put_database(&copied, &used, &mode).unwrap();
        put_database(&copied, &used, &mode).unwrap();
        assert_eq!(database_contents(&used).unwrap(), held);
        let (_, mode) = copy_database(&used, &dir.path().join("again.db")).unwrap();
        assert_eq!(mode, "wal", "it is as it was");
    }

    #[test]
    fn a_database_of_other_pages_a_missing_one_and_a_broken_one_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source.db");
        drop(database(&source, "CREATE TABLE a (x); INSERT INTO a VALUES (1);"));
        let held = database_contents(&source).unwrap();
        let check = |name: &str, prepare: &dyn Fn(&Path)| {
            let target = dir.path().join(name);
            prepare(&target);
            put_database(&source, &target, "delete").unwrap();
            assert_eq!(database_contents(&target).unwrap(), held, "{name}");
        };
        check("missing.db", &|_| {});
        check("empty.db", &|path| fs::write(path, "").unwrap());
        check("broken.db", &|path| {
            fs::write(path, "no database, long enough to be looked at ".repeat(40)).unwrap();
            fs::write(beside(path, "-wal"), "what was beside it").unwrap();
        });
        check("pages.db", &|path| {
            let pages = "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; CREATE TABLE b (y);";
            drop(database(path, pages));
        });
    }

    #[test]
    fn what_is_in_use_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source.db"), dir.path().join("target.db"));
        drop(database(&source, "CREATE TABLE a (x);"));
        let db = database(&target, "CREATE TABLE b (y); BEGIN EXCLUSIVE;");
        assert!(put_database(&source, &target, "delete").is_err());
        db.execute_batch("ROLLBACK").unwrap();
        assert!(database_contents(&target).unwrap().tables.contains_key("b"));
    }

    #[test]
    fn each_value_counts_and_the_order_of_rows_does_not() {
        let sum = |values: &str| {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch(&format!("CREATE TABLE a (x, y); INSERT INTO a VALUES {values}"))
                .unwrap();
            table(&db, "a").unwrap()
        };
        assert_eq!(sum("(1, 2), (3, 4)"), sum("(3, 4), (1, 2)"));
        let all = [
            "(1, 2)",
            "(1, '2')",
            "(1, x'32')",
            "(1, 2.0)",
            "(12, '')",
            "(1, NULL)",
            "(1, 2), (1, 2)",
        ];
        for (n, a) in all.iter().enumerate() {
            for b in all.iter().skip(n + 1) {
                assert_ne!(sum(a), sum(b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "no database, long enough to be looked at ".repeat(40)).unwrap();
        let error = copy_database(&path, &dir.path().join("y")).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
