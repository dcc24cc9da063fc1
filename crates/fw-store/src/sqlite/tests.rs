//! What is particular to `SQLite`: files, locks, migrations, group commit, full disks, backups.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fw_core::run::Kind;
use fw_proto::Timestamp;
use fw_proto::api::{FireReason, Verdict};
use fw_rt::Clock;
use tokio::task::JoinSet;

use super::{Schema, migrate, open};
use crate::conformance::conform;
use crate::conformance::fixture::{Story, at, chunk, fire, host_id, job, noise, run_id, task};
use crate::{Error, MAIN, NewFire, Store, restore_backup, verify_backup};

async fn opened(dir: &Path) -> Store {
    Store::open(dir, Clock::system()).await.expect("a store")
}

#[tokio::test]
async fn it_conforms() {
    let dirs = tempfile::tempdir().unwrap();
    conform(|| {
        let dir = tempfile::tempdir_in(dirs.path()).unwrap();
        async move { opened(&dir.keep()).await }
    })
    .await;
}

#[tokio::test]
async fn a_store_opened_again_is_the_same_in_a_later_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let store = Store::open(dir.path(), clock.clone()).await.unwrap();
    let (incarnation, epoch) = (store.incarnation(), store.epoch());
    assert!(epoch.0 >= 1_700_000_000, "{epoch:?} is not from the clock");
    let mut story = Story::begin(1, 2, None, at(0));
    store.commit(vec![story.append()]).await.unwrap();
    store.close().await;

    clock.shift(-3_600_000);
    let store = Store::open(dir.path(), clock).await.unwrap();
    assert_eq!(store.incarnation(), incarnation);
    assert!(store.epoch() > epoch);
    assert_eq!(store.unfinished().await.unwrap(), [story.run]);
}

#[tokio::test]
async fn a_directory_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path()).await;
    let second = Store::open(dir.path(), Clock::system()).await;
    assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    let clone = store.clone();
    store.close().await;
    assert!(matches!(clone.touch_alive(at(0)).await, Err(Error::Closed)));
    assert!(matches!(clone.last_alive().await, Err(Error::Closed)));
    opened(dir.path()).await;
}

#[tokio::test]
async fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("new/data");
    let store = opened(&data).await;
    store.touch_alive(at(0)).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["main.db", "main.db-wal", "logs.db"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}

#[test]
fn migrations_go_forward_and_keep_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let now = Timestamp::EPOCH;
    const ONE: &str = "CREATE TABLE a (n INTEGER) STRICT; INSERT INTO a VALUES (7);";
    let first = Schema { file: "x.db", steps: &[ONE] };
    let second = Schema { file: "x.db", steps: &[ONE, "ALTER TABLE a ADD COLUMN m INTEGER;"] };
    let broken = Schema { file: "x.db", steps: &[ONE, "CREATE TABLE b (n INTEGER); SELECT oops;"] };
    let changed = Schema { file: "x.db", steps: &["CREATE TABLE a (m INTEGER) STRICT;"] };

    let mut db = open::writing(&path).unwrap();
    migrate::migrate(&mut db, &path, &first, now).unwrap();
    assert!(!dir.path().join("x.db.before-1").exists());
    assert!(migrate::migrate(&mut db, &path, &broken, now).is_err());
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'b'";
    assert_eq!(db.query_row(tables, [], |row| row.get(0)), Ok(0), "half a migration is left");

    migrate::migrate(&mut db, &path, &second, now).unwrap();
    migrate::migrate(&mut db, &path, &second, now).unwrap();
    assert_eq!(db.query_row("SELECT n FROM a WHERE m IS NULL", [], |row| row.get(0)), Ok(7));
    let mut before = open::writing(&dir.path().join("x.db.before-2")).unwrap();
    assert_eq!(before.query_row("SELECT n FROM a", [], |row| row.get(0)), Ok(7));
    assert!(before.prepare("SELECT m FROM a").is_err());

    let older = migrate::migrate(&mut db, &path, &first, now);
    assert!(matches!(older, Err(Error::NewerSchema { found: 2, known: 1, .. })), "{older:?}");
    let other = migrate::migrate(&mut before, &path, &changed, now);
    assert!(matches!(other, Err(Error::ChangedMigration { number: 1, .. })), "{other:?}");
}

#[tokio::test]
async fn fires_of_older_builds_have_no_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let before = Schema { file: "main.db", steps: MAIN.steps.get(..3).unwrap() };
    let mut db = open::writing(&dir.path().join("main.db")).unwrap();
    migrate::migrate(&mut db, &dir.path().join("main.db"), &before, Timestamp::EPOCH).unwrap();
    let row = "INSERT INTO fires (job, verdict, from_at, to_at, count, manual) VALUES ('tick', 'skipped', 7, 7, 1, 0)";
    db.execute(row, []).unwrap();
    db.close().unwrap();
    let store = opened(dir.path()).await;
    let fires = store.ledger(&job("tick"), None, 10).await.unwrap().items;
    assert_eq!((fires.len(), fires[0].verdict, &fires[0].hosts), (1, Verdict::Skipped, &None));
    store.close().await;
    let mut db = open::writing(&dir.path().join("main.db")).unwrap();
    let older = migrate::migrate(&mut db, &dir.path().join("main.db"), &before, Timestamp::EPOCH);
    assert!(matches!(older, Err(Error::NewerSchema { known: 3, .. })), "{older:?}");
}

/// Older builds told what was begun by hand at one instant apart by its row alone.
#[tokio::test]
async fn fires_by_hand_of_older_builds_are_numbered() {
    let dir = tempfile::tempdir().unwrap();
    let before = Schema { file: "main.db", steps: MAIN.steps.get(..8).unwrap() };
    let mut db = open::writing(&dir.path().join("main.db")).unwrap();
    migrate::migrate(&mut db, &dir.path().join("main.db"), &before, Timestamp::EPOCH).unwrap();
    let rows = "INSERT INTO fires (job, verdict, reason, from_at, to_at, count, manual) VALUES
        ('tick', 'ran', 'manual', 7, 7, 1, 1), ('tick', 'ran', NULL, 7, 7, 1, 0),
        ('tick', 'ran', 'manual', 7, 7, 1, 1), ('tock', 'ran', 'manual', 7, 7, 1, 1)";
    db.execute(rows, []).unwrap();
    db.close().unwrap();
    let store = opened(dir.path()).await;
    let reasons = async || {
        let page = store.ledger(&job("tick"), None, 10).await.unwrap();
        page.items.iter().map(|fire| fire.reason).collect::<Vec<_>>()
    };
    let by_hand = Some(FireReason::Manual);
    assert_eq!(reasons().await, [by_hand, by_hand, None]);
    let now = Timestamp::from_millis(7);
    let next = NewFire { from: now, to: now, ..fire("tick", 0, Verdict::Ran, by_hand) };
    store.record_fires(vec![next]).await.unwrap();
    assert_eq!(reasons().await, [by_hand, by_hand, by_hand, None]);
    store.close().await;
}

#[tokio::test]
async fn one_failure_takes_only_itself_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path()).await;
    let mut commits = JoinSet::new();
    for n in 0..600_u32 {
        let store = store.clone();
        let mut append = Story::begin(u128::from(n), 1, None, at(0)).append();
        // Each third expects events that are not there, after its neighbour has written.
        let stale = n % 3 == 0;
        append.expected_seq = u64::from(stale) * 5;
        commits.spawn(async move { (stale, store.commit(vec![append]).await) });
    }
    while let Some(committed) = commits.join_next().await {
        let (stale, answer) = committed.unwrap();
        assert_eq!(matches!(answer, Err(Error::Conflict { .. })), stale, "{answer:?}");
        assert_eq!(answer.is_ok(), !stale);
    }
    assert_eq!(store.unfinished().await.unwrap().len(), 400);
}

/// Output has no savepoint of its own. What fails before it has written takes nothing else back; what
/// fails after that takes all of its commit back, and all hear of it.
#[tokio::test]
async fn output_that_is_half_written_is_taken_back_with_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path()).await;
    for half in [false, true] {
        let (first, second) = (task(1 + 2 * u128::from(half)), task(2 + 2 * u128::from(half)));
        let (go, wait) = std::sync::mpsc::channel();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let mut held = JoinSet::new();
        let holding = store.clone();
        held.spawn(async move {
            let hold = move |_: &rusqlite::Connection| {
                begun.send(()).unwrap();
                wait.recv().unwrap();
                Ok(())
            };
            holding.logs().write(hold).await
        });
        // While the writer is held, the others come together.
        has_begun.await.unwrap();
        let before = store.append_chunk(chunk(first, 0, b"before"));
        let failing = store.logs().write_checked(move |db| -> Result<(), Error> {
            if half {
                assert_ne!(db.execute("UPDATE streams SET chunks = 7", [])?, 0);
            }
            Err(Error::corrupt("so it is"))
        });
        let after = store.append_chunk(chunk(second, 0, b"after"));
        let release = async { go.send(()).unwrap() };
        let (before, failed, after, ()) = tokio::join!(before, failing, after, release);
        held.join_all().await.into_iter().for_each(|held| held.unwrap());
        assert!(failed.is_err(), "it was told to fail");
        assert_eq!((before.is_ok(), after.is_ok()), (!half, !half), "{before:?} {after:?}");
        let durable = store.durable(host_id(0), vec![first, second]).await.unwrap();
        let kept = [6, 5].map(|bytes| if half { 0 } else { bytes });
        assert_eq!(durable.iter().map(|durable| durable.stdout).collect::<Vec<_>>(), kept);
    }
    store.append_chunk(chunk(task(3), 0, b"again")).await.unwrap();
}

/// Both databases refuse to grow, as on a full disk; then there is space again.
#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path()).await;
    let mut kept = Story::begin(1, 1, None, at(0));
    store.commit(vec![kept.append()]).await.unwrap();
    let full = |db: &rusqlite::Connection| -> Result<(), Error> {
        db.query_row("PRAGMA max_page_count = 1", [], |_| Ok(()))?;
        Ok(())
    };
    store.main().write(full).await.unwrap();
    store.logs().write(full).await.unwrap();

    let mut acknowledged = 1;
    let error = loop {
        acknowledged += 1;
        let mut story = Story::begin(acknowledged, 50, None, at(0));
        if let Err(error) = store.commit(vec![story.append()]).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    let text = noise(1, 60_000);
    let mut durable = 0;
    let error = loop {
        match store.append_chunk(chunk(task(1), durable, &text)).await {
            Ok(now) => durable = now.stdout,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(store.unfinished().await.unwrap().len() as u128, acknowledged - 1);
    assert_eq!(store.run(run_id(1)).await.unwrap(), Some(kept.run.view(Vec::new())));

    let space = |db: &rusqlite::Connection| -> Result<(), Error> {
        db.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))?;
        Ok(())
    };
    store.main().write(space).await.unwrap();
    store.logs().write(space).await.unwrap();
    kept = kept.ended(at(1), 0);
    store.commit(vec![kept.append()]).await.unwrap();
    store.append_chunk(chunk(task(1), durable, &text)).await.unwrap();
    assert_eq!(store.integrity().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_read_only_database_refuses_writes_and_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path()).await;
    store.touch_alive(at(1)).await.unwrap();
    let read_only = |db: &rusqlite::Connection| -> Result<(), Error> {
        db.pragma_update(None, "query_only", true)?;
        Ok(())
    };
    store.main().write(read_only).await.unwrap();
    for _ in 0..3 {
        let refused = store.touch_alive(at(2)).await;
        assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
        assert_eq!(store.last_alive().await.unwrap(), Some(at(1)));
    }
}

/// A store with an ended run, an unfinished one, output and keys.
async fn inhabited(dir: &Path) -> Store {
    let store = opened(dir).await;
    let mut ended = Story::begin(1, 3, None, at(0)).ended(at(1), 0);
    let mut going_on = Story::begin(2, 3, None, at(0));
    going_on = going_on.then(at(1), Kind::Dispatched { hosts: vec![host_id(0)], not_after: at(9) });
    store.commit(vec![ended.append(), going_on.append()]).await.unwrap();
    store.append_chunk(chunk(task(1), 0, b"output")).await.unwrap();
    std::fs::create_dir(dir.join("keys")).unwrap();
    std::fs::write(dir.join("keys/server-1.key"), b"a key").unwrap();
    std::fs::write(dir.join("admin.token"), b"a token").unwrap();
    store
}

#[tokio::test]
async fn a_backup_is_restored_as_a_new_life() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backups/one.tar"));
    let store = inhabited(&data).await;
    let made = store.backup(&file).await.unwrap();
    assert_eq!(made.incarnation, store.incarnation());
    assert_eq!(verify_backup(&file).unwrap(), made);
    let parts: Vec<_> = made.parts.keys().map(String::as_str).collect();
    assert_eq!(parts, ["admin.token", "keys/server-1.key", "logs.db", "main.db"]);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("backups")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    for private in [&data, &dir.path().join("backups")] {
        let mode = std::fs::metadata(private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", private.display());
    }

    let elsewhere = dir.path().join("elsewhere");
    restore_backup(&file, &elsewhere, false, at(0)).unwrap();
    let restored = opened(&elsewhere).await;
    assert_ne!(restored.incarnation(), store.incarnation());
    assert!(restored.epoch() > store.epoch());
    assert_eq!(restored.unfinished().await.unwrap(), store.unfinished().await.unwrap());
    assert_eq!(restored.run(run_id(1)).await.unwrap(), store.run(run_id(1)).await.unwrap());
    let output = restored.log_chunks(run_id(1), host_id(0), 1, 0, 9).await.unwrap();
    assert_eq!(output, store.log_chunks(run_id(1), host_id(0), 1, 0, 9).await.unwrap());
    assert_eq!(std::fs::read(elsewhere.join("keys/server-1.key")).unwrap(), b"a key");
    assert_eq!(std::fs::read(elsewhere.join("admin.token")).unwrap(), b"a token");
}

#[tokio::test]
async fn a_restore_spares_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("one.tar"));
    let store = inhabited(&data).await;
    store.backup(&file).await.unwrap();
    let in_use = restore_backup(&file, &data, true, at(0));
    assert!(matches!(in_use, Err(Error::InUse { .. })), "{in_use:?}");

    let mut later = Story::begin(3, 1, None, at(2));
    store.commit(vec![later.append()]).await.unwrap();
    store.close().await;
    std::fs::write(data.join("main.db-wal"), b"stale").unwrap();
    let others = ["agent/identity.key", "jobs/a.yaml", "backups/one.backup"];
    for other in others {
        std::fs::create_dir(data.join(other).parent().unwrap()).unwrap();
        std::fs::write(data.join(other), b"kept").unwrap();
    }
    let refused = restore_backup(&file, &data, false, at(0));
    assert!(matches!(refused, Err(Error::NotEmpty { .. })), "{refused:?}");
    restore_backup(&file, &data, true, at(0)).unwrap();
    assert!(!data.join("main.db-wal").exists());
    let aside = data.join(format!("before-restore-{}", at(0).as_millis()));
    assert_eq!(std::fs::read(aside.join("main.db-wal")).unwrap(), b"stale");
    assert!(aside.join("keys/server-1.key").exists());
    for other in others {
        assert_eq!(std::fs::read(data.join(other)).unwrap(), b"kept", "{other} is in no backup");
    }
    let restored = opened(&data).await;
    assert_eq!(restored.run(run_id(3)).await.unwrap(), None);
    assert!(restored.run(run_id(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("one.tar"));
    let store = inhabited(&data).await;
    store.backup(&file).await.unwrap();
    store.close().await;
    let good = std::fs::read(&file).unwrap();
    let damage = |what: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        what(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
        let refused = restore_backup(&file, &data, true, at(0));
        assert!(matches!(refused, Err(Error::BadBackup { .. })), "{refused:?}");
    };
    let half = good.len() / 2;
    damage(&|bytes| bytes.truncate(half));
    damage(&|bytes| bytes.truncate(0));
    damage(&|bytes| bytes[half] ^= 1);
    damage(&|bytes| bytes[600] ^= 1);
    damage(&|bytes| bytes.fill(7));
    let kept = opened(&data).await;
    assert!(kept.run(run_id(2)).await.unwrap().is_some());
}
