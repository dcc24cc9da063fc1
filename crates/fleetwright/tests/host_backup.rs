//! `fleetwright host-backup` on real files and databases.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use fw_testkit::fleet::{PATIENCE, wait_for};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A directory with something to back up and a place for backups.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().expect("a directory") };
        fs::create_dir(bench.live()).expect("a new directory");
        bench
    }

    fn live(&self) -> PathBuf {
        self.dir.path().join("live")
    }

    fn backups(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.current_dir(self.dir.path()).args(args).output().expect("the binary starts")
    }

    /// Runs `host-backup`, which must exit so.
    #[track_caller]
    fn exits(&self, code: i32, args: &[&str]) -> Output {
        let output = self.run(&[&["host-backup"], args].concat());
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}\n{}{}",
            said(&output.stdout),
            said(&output.stderr)
        );
        output
    }

    /// Makes a backup with these arguments, and gives what it says.
    #[track_caller]
    fn create(&self, args: &[&str]) -> Value {
        let line = [&["create", "--to", "backups", "-o", "json"], args].concat();
        serde_json::from_slice(&self.exits(0, &line).stdout).expect("JSON")
    }

    #[track_caller]
    fn list(&self) -> Vec<Value> {
        let output = self.exits(0, &["list", "backups", "-o", "json"]);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The state of everything live, as text.
    fn state(&self) -> String {
        let output = self.run(&["state", "capture", "--file", "live", "-o", "json"]);
        assert!(output.status.success(), "{}", said(&output.stderr));
        said(&output.stdout)
    }

    /// A part of the newest backup.
    fn part(&self, name: &str) -> PathBuf {
        let newest = self.list().pop().expect("a backup");
        Path::new(newest["dir"].as_str().expect("a directory")).join(name)
    }

    /// What lies in the directory of backups and is none.
    fn rest(&self) -> Vec<String> {
        let names = fs::read_dir(self.backups()).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Everything that a tree can hold.
fn fill(live: &Path) {
    fs::write(live.join("a"), "one").expect("a new file");
    fs::write(live.join("tool"), "#!/bin/sh\n").expect("a new file");
    fs::set_permissions(live.join("tool"), Permissions::from_mode(0o4711)).expect("our file");
    fs::hard_link(live.join("a"), live.join("also-a")).expect("a new name");
    fs::create_dir_all(live.join("empty/within")).expect("new directories");
    symlink("a", live.join("link")).expect("a new symlink");
    symlink("/nowhere/at all", live.join("broken")).expect("a new symlink");
    fs::write(live.join(OsStr::from_bytes(b"no\xffutf8\\n")), "x").expect("a new file");
    let long = "a-name-of-fifty-characters-in-a-rather-deep-place-/".repeat(5);
    fs::create_dir_all(live.join(&long)).expect("new directories");
    fs::write(live.join(&long).join("deep"), "far below").expect("a new file");
    symlink(&long, live.join("long-link")).expect("a new symlink");
    let old = File::create(live.join("old")).expect("a new file");
    old.set_modified(UNIX_EPOCH + Duration::new(86_400, 123_456_789)).expect("our file");
    let fifo = Command::new("mkfifo").arg(live.join("fifo")).status().expect("mkfifo starts");
    assert!(fifo.success());
    if is_root() {
        chown(live.join("old"), Some(1234), Some(5678)).expect("root may");
        std::os::unix::fs::lchown(live.join("link"), Some(77), Some(88)).expect("root may");
    }
    fs::create_dir(live.join("closed")).expect("a new directory");
    fs::write(live.join("closed/in"), "in").expect("a new file");
    fs::set_permissions(live.join("closed"), Permissions::from_mode(0o500)).expect("our own");
}

/// Changes every kind of thing in it.
fn spoil(live: &Path) {
    fs::write(live.join("a"), "two, and more").expect("our file");
    fs::remove_file(live.join("also-a")).expect("our file");
    fs::set_permissions(live.join("tool"), Permissions::from_mode(0o644)).expect("our file");
    fs::remove_dir_all(live.join("empty")).expect("our own");
    fs::remove_file(live.join("link")).expect("our symlink");
    fs::write(live.join("link"), "a file now").expect("a new file");
    fs::remove_file(live.join("old")).expect("our file");
    fs::set_permissions(live.join("closed"), Permissions::from_mode(0o755)).expect("our own");
    fs::remove_file(live.join("closed/in")).expect("our file");
}

#[test]
fn files_come_back_as_they_were() {
    let bench = Bench::new();
    fill(&bench.live());
    let before = bench.state();
    let made = bench.create(&["--path", "live"]);
    assert_eq!(made["proof"], "restored", "{made}");
    let backup = made["dir"].as_str().expect("a directory");
    assert!(said(&bench.exits(0, &["verify", backup]).stdout).contains(": whole; "));
    spoil(&bench.live());
    assert_ne!(bench.state(), before);
    for _ in 0..2 {
        let _restored = bench.exits(0, &["restore", backup]);
        assert_eq!(bench.state(), before);
        let live = |name: &str| fs::symlink_metadata(bench.live().join(name)).expect("it is there");
        assert_eq!(live("a").ino(), live("also-a").ino(), "one file with two names");
        assert_eq!((live("old").mtime(), live("old").mtime_nsec()), (86_400, 123_456_789));
    }
    let root = bench.dir.path().join("elsewhere");
    fs::create_dir(&root).expect("a new directory");
    let _restored = bench.exits(0, &["restore", "backups", "--to-root", "elsewhere"]);
    let there = root.join(
        bench.live().canonicalize().expect("it is there").strip_prefix("/").expect("absolute"),
    );
    assert_eq!(fs::read_to_string(there.join("also-a")).expect("it is restored"), "one");
    assert_eq!(bench.rest(), Vec::<String>::new(), "nothing is left of the work");
    for dir in [bench.backups(), PathBuf::from(backup)] {
        let mode = fs::metadata(dir).expect("it is there").mode() & 0o777;
        assert_eq!(mode, 0o700, "for nobody else");
    }
}

/// Any system can open it.
#[test]
fn the_archive_is_an_ordinary_one() {
    let bench = Bench::new();
    fs::write(bench.live().join("a"), "one").expect("a new file");
    let _made = bench.create(&["--path", "live"]);
    let archive = fs::read(bench.part("files.tar.zst")).expect("a part");
    let tar = bench.dir.path().join("x.tar");
    fs::write(&tar, zstd::decode_all(&*archive).expect("zstd")).expect("a new file");
    let listed = Command::new("tar").arg("-tf").arg(&tar).output().expect("tar starts");
    assert!(
        said(&listed.stdout).lines().any(|line| line.ends_with("/live/a")),
        "{}",
        said(&listed.stderr)
    );
}

#[test]
fn what_is_damaged_is_refused_and_touches_nothing() {
    let bench = Bench::new();
    fill(&bench.live());
    let _made = bench.create(&["--path", "live"]);
    spoil(&bench.live());
    let spoiled = bench.state();
    for (name, damage) in [("files.tar.zst", 40), ("manifest.json", 60)] {
        let part = bench.part(name);
        let good = fs::read(&part).expect("a part");
        let mut bad = good.clone();
        bad[damage] ^= 1;
        fs::write(&part, bad).expect("our file");
        let dir = part.parent().expect("a directory").display().to_string();
        for line in [
            &["restore", &dir][..],
            &["verify", &dir],
            &["verify", "backups"],
            &["fresh", "backups", "--within", "1h"],
        ] {
            let refused = bench.exits(1, line);
            let told = said(&refused.stderr);
            assert!(
                told.contains("no whole backup") || told.contains("no proved backup"),
                "{line:?}: {told}"
            );
        }
        assert_eq!(bench.state(), spoiled, "nothing was touched");
        fs::write(&part, good).expect("our file");
    }
    let _whole = bench.exits(0, &["verify", "backups"]);
    let part = bench.part("files.tar.zst");
    fs::remove_file(part).expect("our file");
    assert!(said(&bench.exits(1, &["restore", "backups"]).stderr).contains("open files.tar.zst"));
    assert_eq!(bench.state(), spoiled, "nothing was touched");
}

#[test]
fn nothing_and_what_is_no_source_are_refused() {
    let bench = Bench::new();
    let told = |args: &[&str], code| said(&bench.exits(code, args).stderr);
    assert!(told(&["create", "--to", "backups"], 2).contains("say what to back up"));
    assert!(
        told(&["create", "--to", "backups", "--path", "none"], 1).contains("there is nothing at")
    );
    assert!(
        told(&["create", "--to", "backups", "--path", "live/*.conf"], 1)
            .contains("there is nothing at")
    );
    let secret = "postgresql://app:secret@localhost/app";
    assert!(told(&["create", "--to", "backups", "--postgres", secret], 2).contains("PGPASSWORD"));
    fs::write(bench.live().join("text"), "no database ".repeat(100)).expect("a new file");
    assert!(told(&["create", "--to", "backups", "--sqlite", "live/text"], 1).contains("damaged"));
    assert!(told(&["restore", "backups"], 1).contains("no proved backup"));
    assert_eq!(bench.list(), Vec::<Value>::new());
    assert_eq!(bench.rest(), Vec::<String>::new());
}

/// A state that there never was must not be proved: what grows the whole time is refused, or left out.
#[test]
fn what_changes_all_the_time_is_refused() {
    let bench = Bench::new();
    let log = bench.live().join("log");
    fs::write(&log, vec![b'x'; 8 * 1024 * 1024]).expect("a new file");
    fs::write(bench.live().join("a"), "one").expect("a new file");
    let over = AtomicBool::new(false);
    let (refused, left_out) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&log).expect("our file");
            while !over.load(Ordering::Relaxed) {
                file.write_all(b"x").expect("room");
            }
        });
        let refused = bench.run(&["host-backup", "create", "--to", "backups", "--path", "live"]);
        let exclude = ["--path", "live", "--exclude", "live/l*"];
        let left_out =
            bench.run(&[&["host-backup", "create", "--to", "backups"], &exclude[..]].concat());
        over.store(true, Ordering::Relaxed);
        (refused, left_out)
    });
    assert_eq!(refused.status.code(), Some(1));
    let told = said(&refused.stderr);
    assert!(told.contains("/live/log changes while it is read"), "{told}");
    assert!(left_out.status.success(), "{}", said(&left_out.stderr));
    assert_eq!(bench.list().len(), 1);
}

#[test]
fn a_database_in_use_comes_back_row_by_row() {
    let bench = Bench::new();
    let path = bench.live().join("app.db");
    let rows = |db: &Connection| {
        db.query_row("SELECT group_concat(x) FROM a", [], |row| row.get::<_, Option<String>>(0))
            .expect("rows")
    };
    let db = Connection::open(&path).expect("a new database");
    db.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE a (x); INSERT INTO a VALUES (1), (2);",
    )
    .expect("SQL");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("our file");
    let made = bench.create(&["--path", "live", "--sqlite", "live/app.db"]);
    let manifest = fs::read_to_string(bench.part("manifest.json")).expect("a part");
    assert!(!manifest.contains("app.db-wal"), "its files are not taken as files");
    assert_eq!(made["proof"], "restored");
    db.execute_batch("DELETE FROM a WHERE x = 1; CREATE TABLE b (y);").expect("SQL");
    let busy = said(&bench.exits(1, &["restore", "backups"]).stderr);
    assert!(busy.contains("locked"), "it is in use: {busy}");
    assert_eq!(rows(&db).as_deref(), Some("2"), "nothing was touched");
    drop(db);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our file");
    for _ in 0..2 {
        let _restored = bench.exits(0, &["restore", "backups"]);
        let db = Connection::open(&path).expect("a database");
        assert_eq!(rows(&db).as_deref(), Some("1,2"));
        assert!(db.prepare("SELECT * FROM b").is_err(), "what came later is gone");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o640);
    }
    fs::remove_file(&path).expect("our file");
    let _restored = bench.exits(0, &["restore", "backups"]);
    assert_eq!(rows(&Connection::open(&path).expect("a database")).as_deref(), Some("1,2"));
}

#[test]
fn old_backups_of_the_same_sources_go_and_others_stay() {
    let bench = Bench::new();
    fs::write(bench.live().join("a"), "one").expect("a new file");
    let other = bench.create(&["--path", "live/a"]);
    for _ in 0..4 {
        let _made = bench.create(&["--path", "live", "--keep", "2"]);
    }
    let left = bench.list();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(left[0]["dir"], other["dir"], "of other sources");
    let _made = bench.create(&["--path", "live", "--keep-for", "0"]);
    let left = bench.list();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(bench.rest(), Vec::<String>::new());
}

#[test]
fn a_gate_asks_for_a_fresh_one() {
    let bench = Bench::new();
    fs::write(bench.live().join("a"), "one").expect("a new file");
    let fresh = |args: &[&str], code| {
        let output = bench.exits(code, &[&["fresh", "backups"], args].concat());
        said(&[output.stdout, output.stderr].concat())
    };
    assert!(fresh(&["--within", "24h"], 1).contains("there is no proved backup"));
    let _made = bench.create(&["--path", "live/a"]);
    assert!(fresh(&["--within", "24h"], 0).contains("restored"));
    let _said = fresh(&["--within", "24h", "--path", "live/a"], 0);
    assert!(fresh(&["--within", "24h", "--path", "live"], 1).contains("there is no proved backup"));
    assert!(fresh(&["--within", "0"], 1).contains("wanted within 0s"));
    let _said = fresh(&[], 2);
}

#[test]
fn two_are_not_made_at_once() {
    let bench = Bench::new();
    fs::create_dir(bench.backups()).expect("a new directory");
    let lock = File::open(bench.backups()).expect("our own");
    lock.lock().expect("nobody has it");
    let told = said(&bench.exits(1, &["create", "--to", "backups", "--path", "live"]).stderr);
    assert!(told.contains("is being made"), "{told}");
    drop(lock);
    let _made = bench.create(&["--path", "live"]);
}

/// Killed on the way, there is no half a backup, and the next one clears what was left.
#[tokio::test]
async fn who_is_killed_leaves_no_half_backup() {
    let bench = Bench::new();
    fill(&bench.live());
    let path = bench.live().join("app.db");
    let db = Connection::open(&path).expect("a new database");
    // The backup waits for this, with its files in an archive already.
    db.execute_batch("CREATE TABLE a (x); BEGIN EXCLUSIVE;").expect("SQL");
    let args =
        ["host-backup", "create", "--to", "backups", "--path", "live", "--sqlite", "live/app.db"];
    let mut command = Command::new(BINARY);
    command.current_dir(bench.dir.path()).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary starts");
    let half = wait_for("half a backup", PATIENCE, async || {
        let mut entries = fs::read_dir(bench.backups()).ok()?.flatten().map(|entry| entry.path());
        entries.find(|path| path.join("files.tar.zst").exists())
    })
    .await;
    child.kill().expect("a child can be killed");
    let _status = child.wait().expect("a child can be waited for");
    assert!(half.exists(), "it was killed on the way");
    assert_eq!(bench.list(), Vec::<Value>::new());
    let _none = bench.exits(1, &["fresh", "backups", "--within", "1h"]);
    let _none = bench.exits(1, &["restore", "backups"]);
    db.execute_batch("ROLLBACK").expect("SQL");
    let _made = bench.exits(0, &args[1..]);
    assert_eq!((bench.list().len(), bench.rest()), (1, Vec::new()));
}
