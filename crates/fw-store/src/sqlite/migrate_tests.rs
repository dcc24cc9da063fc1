//! Migrations that do not come to their end, and databases of other builds.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use fw_proto::Timestamp;
use fw_rt::Clock;
use rusqlite::Connection;

use super::again::{again, inside};
use super::{Schema, Unopened, migrate, open};
use crate::conformance::fixture::{Story, at, chunk, task};
use crate::lock::Lock;
use crate::{Error, LOGS, MAIN, Store};

/// Long enough to be killed in the middle.
const LONG: &str = "CREATE TABLE b AS SELECT n, text || text AS text FROM a ORDER BY text, n DESC;
    UPDATE a SET text = text || text || text; DELETE FROM a WHERE n % 2 = 0;
    CREATE INDEX b_text ON b (text, n);";

const FIRST: Schema = Schema { file: "x.db", steps: &[SERIES] };
const SECOND: Schema = Schema { file: "x.db", steps: &[SERIES, LONG] };

/// `generate_series` is no part of the bundled library.
const SERIES: &str = "CREATE TABLE a (n INTEGER PRIMARY KEY, text TEXT) STRICT;
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
    INSERT INTO a SELECT n, printf('%.200c', 'x') FROM numbers;";

fn migrated(dir: &Path, schema: &Schema) -> Result<Connection, Error> {
    let path = dir.join(schema.file);
    let mut db = open::writing(&path)?;
    migrate::migrate(&mut db, &path, schema, Timestamp::EPOCH)?;
    Ok(db)
}

fn count(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn assert_sound(db: &Connection) {
    assert_eq!(crate::upkeep::check(db).unwrap(), [""; 0]);
}

/// A database as the older build left it: all rows, nothing of the later build.
fn assert_old(db: &Connection) {
    assert_sound(db);
    assert_eq!(count(db, "SELECT count(*) FROM a WHERE length(text) = 200"), 20000);
    assert_eq!(count(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'b'"), 0);
}

fn assert_new(db: &Connection) {
    assert_sound(db);
    assert_eq!(count(db, "SELECT count(*) FROM a WHERE length(text) = 600"), 10000);
    assert_eq!(count(db, "SELECT count(*) FROM b WHERE length(text) = 400"), 20000);
}

#[test]
fn a_migration_that_fails_leaves_the_database_to_the_older_build() {
    let dir = tempfile::tempdir().unwrap();
    const BROKEN: Schema = Schema { file: "x.db", steps: &[SERIES, LONG, "SELECT oops;"] };
    migrated(dir.path(), &FIRST).unwrap().close().unwrap();
    for _ in 0..2 {
        let failed = migrated(dir.path(), &BROKEN).unwrap_err();
        assert!(matches!(failed, Error::Sqlite { .. }), "{failed:?}");
        assert_old(&migrated(dir.path(), &FIRST).unwrap());
        assert_old(&Connection::open(dir.path().join("x.db.before-2")).unwrap());
    }
    // The later build, put right.
    assert_new(&migrated(dir.path(), &SECOND).unwrap());
    assert_old(&Connection::open(dir.path().join("x.db.before-2")).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "something else is left");
}

#[test]
fn a_migration_that_is_killed_leaves_the_old_database_or_the_new() {
    let test =
        "sqlite::migrate_tests::a_migration_that_is_killed_leaves_the_old_database_or_the_new";
    if let Some(dir) = inside() {
        println!("\nbegun");
        drop(migrated(&dir, &SECOND).unwrap());
        println!("\ndone");
        // Killed here too.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let dirs = tempfile::tempdir().unwrap();
    let old = dirs.path().join("old");
    std::fs::create_dir(&old).unwrap();
    migrated(&old, &FIRST).unwrap().close().unwrap();
    let (mut killed_before, mut killed_after) = (0, 0);
    for round in 0..16_u32 {
        let dir = dirs.path().join(round.to_string());
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(old.join("x.db"), dir.join("x.db")).unwrap();
        let mut child = again(test, &dir, &[]);
        child.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // At the first traces of copy, log and end, and a little later each time.
        let sign = ["x.db-wal", "x.db.before-2", "x.db-wal", "none"][round as usize % 4];
        let mut looks = round / 4 * 20;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if sign == "none" {
            assert!(lines.any(|line| line.unwrap() == "done"), "round {round}");
        } else {
            while looks > 0 && child.try_wait().unwrap().is_none() {
                looks -= u32::from(dir.join(sign).exists());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        match migrated(&dir, &FIRST) {
            Ok(db) => {
                killed_before += 1;
                assert_old(&db);
            }
            Err(Error::NewerSchema { found: 2, known: 1, .. }) => {
                killed_after += 1;
                assert_new(&migrated(&dir, &SECOND).unwrap());
            }
            Err(error) => panic!("round {round}: {error:?}"),
        }
        let copy = dir.join("x.db.before-2");
        if copy.exists() {
            assert_old(&Connection::open(copy).unwrap());
        }
        assert_new(&migrated(&dir, &SECOND).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert!(killed_before > 0 && killed_after > 0, "{killed_before} before, {killed_after} after");
}

/// Everything that lies in a data directory, but for the lock and the index of a log, which
/// hold nothing of their own.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().flatten();
    let files = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
    let files = files.filter(|(name, _)| name != "lock" && !name.ends_with("-shm"));
    files.map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

/// Puts the directory in the state in which a later build has left it: closed, killed, or just
/// restored from a backup.
fn make_newer(dir: &Path, file: &str, how: &str) {
    let from = tempfile::tempdir().unwrap();
    let db = Connection::open(dir.join(file)).unwrap();
    db.execute("INSERT INTO migrations VALUES (99, x'00', 0)", []).unwrap();
    match how {
        "closed" => {}
        "killed" => {
            for name in [file.to_owned(), format!("{file}-wal")] {
                std::fs::copy(dir.join(&name), from.path().join(&name)).unwrap();
            }
        }
        "restored" => db.pragma_update(None, "journal_mode", "DELETE").unwrap(),
        other => panic!("{other}"),
    }
    db.close().unwrap();
    for copy in std::fs::read_dir(from.path()).unwrap().flatten() {
        std::fs::copy(copy.path(), dir.join(copy.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_byte_for_byte() {
    for (file, known) in [("main.db", MAIN.version()), ("logs.db", LOGS.version())] {
        for how in ["closed", "killed", "restored"] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path(), Clock::system()).await.unwrap();
            store.commit(vec![Story::begin(1, 1, None, at(0)).append()]).await.unwrap();
            store.append_chunk(chunk(task(1), 0, b"kept")).await.unwrap();
            store.close().await;
            make_newer(dir.path(), file, how);
            let before = contents(dir.path());
            for _ in 0..2 {
                let refused = Store::open(dir.path(), Clock::system()).await.unwrap_err();
                let expected =
                    format!("{file} has schema 99, this build knows {known}; use the newer build");
                assert_eq!(refused.to_string(), expected);
                let after = contents(dir.path());
                assert!(
                    before == after,
                    "{file}, {how}: {:?} became {:?}",
                    before.keys(),
                    after.keys()
                );
            }
        }
    }
}

/// A later build may have changed only one of them: the other is not migrated then.
#[test]
fn nothing_is_migrated_beside_a_newer_schema() {
    let dir = tempfile::tempdir().unwrap();
    const OTHER: Schema = Schema { file: "y.db", steps: &["CREATE TABLE c (n INTEGER) STRICT;"] };
    migrated(dir.path(), &FIRST).unwrap().close().unwrap();
    migrated(dir.path(), &OTHER).unwrap().close().unwrap();
    make_newer(dir.path(), "y.db", "closed");
    let before = contents(dir.path());
    let lock = Arc::new(Lock::take(dir.path()).unwrap());
    let checked = Unopened::check(dir.path(), &SECOND).unwrap();
    assert!(matches!(Unopened::check(dir.path(), &OTHER), Err(Error::NewerSchema { .. })));
    drop(checked);
    assert!(before == contents(dir.path()));
    let database = Unopened::check(dir.path(), &SECOND).unwrap().open(1, lock, Timestamp::EPOCH);
    drop(database.unwrap());
    assert_new(&Connection::open(dir.path().join("x.db")).unwrap());
}
