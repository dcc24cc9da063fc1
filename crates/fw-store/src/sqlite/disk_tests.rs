//! Real disks: full ones, ones that may only be read, and directories that are another user's.
//!
//! Each disk is mounted in a mount namespace that ends with the test (`mount_namespaces(7)`); who
//! is not root does so in a user namespace of its own. A machine that allows neither fails here,
//! it does not pass.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use fw_core::run::Kind;
use fw_rt::Clock;
use tokio::task::JoinSet;

use super::again::{again, held, holds, inside};
use crate::conformance::fixture::{Story, at, chunk, host_id, noise, run_id, task};
use crate::{Error, Store};

fn is_root() -> bool {
    // The owner of a process's entry is its user (proc(5)).
    fs::metadata("/proc/self").expect("a process has an entry").uid() == 0
}

/// Runs `work` on a disk of `size` that this test alone sees.
fn on_a_disk(test: &str, size: &str, work: impl AsyncFnOnce(&Path)) {
    let mount = format!("mount -t tmpfs -o size={size} tmpfs \"$1\" && shift && exec \"$@\"");
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let mut wrap = vec!["unshare"];
    if !is_root() {
        wrap.extend(["--user", "--map-root-user"]);
    }
    wrap.extend(["--mount", "--propagation", "private", "sh", "-c", &mount, "sh", &place]);
    in_a_child(test, dir.path(), &wrap, work);
}

fn in_a_child(test: &str, dir: &Path, wrap: &[&str], work: impl AsyncFnOnce(&Path)) {
    let Some(dir) = inside() else { return holds(again(test, dir, wrap)) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work(&dir));
    held();
}

fn sh(text: &str, argument: &Path) {
    let ended = Command::new("sh").args(["-ec", text, "sh"]).arg(argument).status().unwrap();
    assert!(ended.success(), "{text}: {ended}");
}

/// Fills the disk, but for so many KiB.
fn fill(disk: &Path, but: usize) {
    let file = disk.join("fill");
    let spare = disk.join("spare");
    fs::write(&spare, vec![1; but * 1024]).unwrap();
    let mut file = fs::File::create(file).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    fs::remove_file(spare).unwrap();
}

fn make_room(disk: &Path) {
    fs::remove_file(disk.join("fill")).unwrap();
}

async fn open(disk: &Path) -> Result<Store, Error> {
    Store::open(&disk.join("data"), Clock::system()).await
}

/// An error that says which file, what is wrong and what to do.
#[track_caller]
fn assert_full(error: &Error, file: &str) {
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(file) && text.ends_with("make room on it, then try again"), "{text}");
}

/// Writes from many sides until the disk is full; what was acknowledged, as (run, bytes).
async fn write_until_full(store: &Store, round: u128) -> Vec<(u128, u64)> {
    let mut writers = JoinSet::new();
    for writer in 0..8_u128 {
        let store = store.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for turn in 0..10_000 {
                let run = (round << 64) | (writer << 32) | turn;
                let committed = store.commit(vec![Story::begin(run, 40, None, at(0)).append()]);
                if let Err(error) = committed.await {
                    assert_full(&error, "data/main.db");
                    break;
                }
                acknowledged.push((run, 0));
                let text = noise(run as u64, 3000);
                match store.append_chunk(chunk(task(run), 0, &text)).await {
                    Ok(durable) => acknowledged.push((run, durable.stdout)),
                    Err(error) => {
                        assert_full(&error, "data/logs.db");
                        break;
                    }
                }
            }
            assert!(acknowledged.len() < 20_000, "the disk does not fill");
            acknowledged
        });
    }
    writers.join_all().await.concat()
}

async fn assert_kept(store: &Store, acknowledged: &[(u128, u64)]) {
    let runs: Vec<_> = store.unfinished().await.unwrap().into_iter().map(|run| run.id).collect();
    for (run, bytes) in acknowledged {
        assert!(runs.contains(&run_id(*run)), "run {run:x} is gone");
        let durable = store.durable(host_id(0), vec![task(*run)]).await.unwrap();
        assert!(durable[0].stdout >= *bytes, "output of run {run:x} is gone");
    }
}

/// Whatever the last bytes of the disk go to (the log, its index, the database), writes are
/// refused in clear words, reads go on, and with room again so do writes, without a restart.
#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let test = "sqlite::disk_tests::a_full_disk_refuses_writes_until_there_is_room";
    on_a_disk(test, "24m", async |disk| {
        let store = open(disk).await.unwrap();
        let mut acknowledged = Vec::new();
        for (round, spare) in [0, 4, 8, 20, 40, 100, 400, 1000, 3000].into_iter().enumerate() {
            fill(disk, spare);
            acknowledged.extend(write_until_full(&store, round as u128).await);
            let refused = store.touch_alive(at(1)).await;
            assert!(refused.is_ok() || matches!(refused, Err(Error::Full { .. })), "{refused:?}");
            assert_kept(&store, &acknowledged).await;
            make_room(disk);
            let run = u128::MAX - round as u128;
            store.commit(vec![Story::begin(run, 1, None, at(0)).append()]).await.unwrap();
            let durable = store.append_chunk(chunk(task(run), 0, b"room")).await.unwrap();
            acknowledged.push((run, durable.stdout));
        }
        assert_eq!(store.integrity().await.unwrap(), [""; 0]);
        store.close().await;
        let store = open(disk).await.unwrap();
        assert_kept(&store, &acknowledged).await;
        assert_eq!(store.integrity().await.unwrap(), [""; 0]);
    });
}

/// A full disk at start is said, and so is one on which a backup finds no place.
#[test]
fn a_full_disk_is_said_at_start_and_by_a_backup() {
    let test = "sqlite::disk_tests::a_full_disk_is_said_at_start_and_by_a_backup";
    on_a_disk(test, "8m", async |disk| {
        let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
        fill(disk, 0);
        let refused = open(disk).await.unwrap_err();
        assert_full(&refused, "data/main.db");
        make_room(disk);
        let store = open(disk).await.unwrap();
        store.commit(vec![Story::begin(1, 1, None, at(0)).append()]).await.unwrap();
        store.close().await;
        fill(disk, 0);
        let refused = open(disk).await.unwrap_err();
        assert_full(&refused, "data/main.db");
        make_room(disk);

        let store = Store::open(elsewhere.path(), Clock::system()).await.unwrap();
        let backups = disk.join("backups");
        for spare in [0, 16, 60, 200] {
            fill(disk, spare);
            let refused = store.backup(&backups.join("one.tar")).await.unwrap_err();
            assert_full(&refused, "backups/");
            let left: Vec<_> =
                fs::read_dir(&backups).map(|dir| dir.flatten().collect()).unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
            make_room(disk);
        }
        store.backup(&backups.join("one.tar")).await.unwrap();
    });
}

/// A limit that `SQLite` knows nothing of: files may not grow (`RLIMIT_FSIZE`), and each write
/// beyond is an error of input or output.
#[test]
fn files_that_may_not_grow_refuse_writes_until_they_may() {
    let test = "sqlite::disk_tests::files_that_may_not_grow_refuse_writes_until_they_may";
    let dir = tempfile::tempdir().unwrap();
    // The signal would end the process; the shell's own settings outlive exec.
    let limit = "trap '' XFSZ; ulimit -S -f 4000; exec \"$@\"";
    in_a_child(test, dir.path(), &["sh", "-c", limit, "sh"], async |dir| {
        let store = open(dir).await.unwrap();
        let mut acknowledged = Vec::new();
        let error = loop {
            let run = 1 + acknowledged.len() as u128;
            assert!(run < 10_000, "the log may not grow beyond 4 MB");
            let text = noise(run as u64, 30_000);
            match store.append_chunk(chunk(task(run), 0, &text)).await {
                Ok(durable) => acknowledged.push((run, durable.stdout)),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("data/logs.db"), "{error}");
        assert!(!acknowledged.is_empty());
        let lift = format!("prlimit --pid {} --fsize=unlimited:unlimited", std::process::id());
        sh(&lift, dir);
        store.append_chunk(chunk(task(1_000_000), 0, b"room")).await.unwrap();
        for (run, bytes) in acknowledged {
            let durable = store.durable(host_id(0), vec![task(run)]).await.unwrap();
            assert_eq!(durable[0].stdout, bytes);
        }
        assert_eq!(store.integrity().await.unwrap(), [""; 0]);
    });
}

/// A disk that the kernel has made read-only is said at start; once it can be written, all is
/// as it was.
#[test]
fn a_read_only_disk_is_said_at_start() {
    let test = "sqlite::disk_tests::a_read_only_disk_is_said_at_start";
    on_a_disk(test, "24m", async |disk| {
        let store = open(disk).await.unwrap();
        store.commit(vec![Story::begin(1, 1, None, at(0)).append()]).await.unwrap();
        store.append_chunk(chunk(task(1), 0, b"kept")).await.unwrap();
        store.close().await;
        sh("mount -o remount,ro \"$1\"", disk);
        let refused = open(disk).await.unwrap_err();
        assert!(matches!(refused, Error::ReadOnly { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains(&disk.join("data").display().to_string()), "{text}");
        assert!(text.ends_with("remount it writable, then try again"), "{text}");
        sh("mount -o remount,rw \"$1\"", disk);
        let store = open(disk).await.unwrap();
        assert_kept(&store, &[(1, 4)]).await;
        assert_eq!(store.integrity().await.unwrap(), [""; 0]);
    });
}

/// A directory and files of another user. Root is refused nothing, so it gives its powers away.
#[test]
fn files_of_another_user_are_refused_in_clear_words() {
    let test = "sqlite::disk_tests::files_of_another_user_are_refused_in_clear_words";
    let dir = tempfile::tempdir().unwrap();
    let powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
    let wrap: &[&str] = if is_root() { &powerless } else { &[] };
    in_a_child(test, dir.path(), wrap, async |dir| {
        let data = dir.join("data");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = async |file: &str| {
            let refused = open(dir).await.unwrap_err();
            assert!(matches!(refused, Error::Denied { .. }), "{file}: {refused:?}");
            let text = refused.to_string();
            assert!(text.contains(file) && text.contains("run as the owner"), "{text}");
        };
        mode(dir, 0o500);
        refused("create ").await;
        mode(dir, 0o700);
        let store = open(dir).await.unwrap();
        store.commit(vec![Story::begin(1, 1, None, at(0)).append()]).await.unwrap();
        // A log that was not written back, as after a crash: another user's `sqlite3` left it so.
        let wal = fs::read(data.join("main.db-wal")).unwrap();
        store.close().await;
        fs::write(data.join("main.db-wal"), wal).unwrap();
        for file in ["lock", "main.db", "main.db-wal", "logs.db"] {
            mode(&data.join(file), 0o000);
            refused(file).await;
            mode(&data.join(file), 0o600);
        }
        mode(&data.join("main.db"), 0o400);
        refused("main.db").await;
        mode(&data.join("main.db"), 0o600);
        mode(&data, 0o500);
        // Either database: the log of one may be there already.
        refused(".db").await;
        mode(&data, 0o700);
        let store = open(dir).await.unwrap();
        let story = Story::begin(1, 1, None, at(0)).then(at(1), Kind::CancelRequested);
        assert_eq!(store.unfinished().await.unwrap()[0].plan, story.run.plan);
    });
}
