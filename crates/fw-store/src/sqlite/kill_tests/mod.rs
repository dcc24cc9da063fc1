//! kill -9 at any moment: a child process works on a store and says what was acknowledged, each
//! time after it was. Whenever it is killed, all of that must be there, nothing may be there by
//! half, and both databases must be sound.
//!
//! What the child writes follows from its number alone ([`script`]), so [`model`] can compare all
//! of it, to the byte, with what is found.

mod child;
mod model;
mod script;

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fw_rt::Clock;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::again::again;
use crate::{Retention, Store};
use model::Model;

/// What the child does beside the writes of [`script`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// Nothing.
    Write,
    /// Deletes what is old, again and again.
    Sweep,
    /// Makes backups, one after the other.
    Backup,
    /// Closes the store and opens it again.
    Reopen,
}

const SCENES: [Scene; 4] = [Scene::Write, Scene::Sweep, Scene::Backup, Scene::Reopen];

/// Directories that are written to at the same time; each by one child after the other.
const DIRECTORIES: u64 = 4;

/// Lives of each directory's children. Every fifth is preceded by two that are killed while they
/// read back the log of the one before, so that 256 are killed in all.
const LIVES: u64 = 46;

/// Stores that are killed while they are made.
const MADE: u64 = 40;

/// The longest that a child may work before it is killed.
const WORKS: Duration = Duration::from_millis(70);

/// A child that opens a store and does not say so by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers that look like chance and are the same each time (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64((self.next() % 10_000) as f64 / 10_000.0)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.next()).unwrap() % from.len()]
    }
}

/// A child at work.
struct Life {
    child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
}

impl Life {
    async fn begin(dir: &Path, scene: Scene, life: u64) -> Self {
        let command = again("sqlite::kill_tests::child::the_child", dir, &[]);
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let scene = SCENES.iter().position(|one| *one == scene).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{scene} {life}\n").as_bytes()).await.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, said: Vec::new() }
    }

    /// Until the child has opened the store.
    async fn opened(&mut self) {
        while !self.said.iter().any(|line| line.starts_with("epoch ")) {
            let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it opens in time");
            self.hear(line.unwrap());
        }
    }

    /// Until the time is up and the child has said so much more.
    async fn works(&mut self, time: Duration, lines: usize) {
        let enough = self.said.len() + lines;
        let until = Instant::now() + time;
        while let Ok(line) = timeout_at(until, self.lines.next_line()).await {
            self.hear(line.unwrap());
        }
        while self.said.len() < enough {
            let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it goes on");
            self.hear(line.unwrap());
        }
    }

    /// What the child said before it was killed.
    async fn kill(mut self) -> Vec<String> {
        self.child.start_kill().unwrap();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.hear(Some(line));
        }
        let ended = self.child.wait().await.unwrap();
        assert_eq!(ended.signal(), Some(9), "it ended by itself: {ended}");
        self.said
    }

    /// Lines of the test harness are passed over, and so is one cut off by the kill. A child
    /// works until it is killed.
    fn hear(&mut self, line: Option<String>) {
        let Some(line) = line else { panic!("it ended by itself, after {:?}", self.said.last()) };
        let whole = line.strip_prefix("ack ").and_then(|line| line.strip_suffix(" ."));
        self.said.extend(whole.map(str::to_owned));
    }
}

async fn lives(dir: PathBuf, seed: u64) -> (u64, usize) {
    let mut chance = Chance(seed);
    let mut model = Model::default();
    for life in 0..LIVES {
        let scene = chance.pick(&SCENES);
        let mut child = Life::begin(&dir, scene, model.lives).await;
        child.opened().await;
        let lines = chance.pick(&[0, 1, 10, 30]);
        child.works(chance.up_to(WORKS), lines).await;
        model.hear(child.kill().await);
        for _ in 0..if life % 5 == 4 { 2 } else { 0 } {
            // Nobody has written the log back since the last kill: this one reads it.
            let mut child = Life::begin(&dir, Scene::Write, model.lives).await;
            child.works(chance.up_to(Duration::from_millis(30)), 0).await;
            model.hear(child.kill().await);
        }
        let what = format!("seed {seed}, life {}, {scene:?}", model.lives);
        let store = Store::open(&dir, Clock::system()).await.expect(&what);
        assert_eq!(store.integrity().await.unwrap(), [""; 0], "{what}");
        model.check(&store, &what).await;
        model.check_backup(&store, &what).await;
        if scene == Scene::Sweep {
            let keep = Retention { age: script::AGE, bytes: u64::MAX };
            store.sweep(keep).await.expect(&what);
            model::assert_no_old(&store, &what).await;
        }
        store.close().await;
    }
    let store = Store::open(&dir, Clock::system()).await.unwrap();
    model.check_all(&store, &format!("seed {seed}, at the end")).await;
    store.close().await;
    (model.lives, model.acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dirs = tempfile::tempdir().unwrap();
    let mut all = JoinSet::new();
    for seed in 0..DIRECTORIES {
        all.spawn(lives(dirs.path().join(seed.to_string()), seed));
    }
    let (mut kills, mut acknowledged) = (0, 0);
    while let Some(lived) = all.join_next().await {
        let (more, heard) = lived.unwrap();
        kills += more;
        acknowledged += heard;
    }
    println!("{kills} kills, {acknowledged} acknowledgments");
    assert!(kills >= 250 && acknowledged > 1500, "{kills} kills, {acknowledged} heard");
}

/// Whether the kill comes before the first file, between two of them, or in the middle of the
/// first migration: the next start makes a whole store of it.
#[tokio::test]
async fn a_store_killed_while_it_is_made_is_made_by_the_next() {
    let dirs = tempfile::tempdir().unwrap();
    let mut chance = Chance(1000);
    for made in 0..MADE {
        let dir = dirs.path().join(made.to_string());
        let mut model = Model::default();
        let mut child = Life::begin(&dir, Scene::Write, 0).await;
        child.works(chance.up_to(Duration::from_millis(40)), 0).await;
        model.hear(child.kill().await);
        let what = format!("store {made}");
        let store = Store::open(&dir, Clock::system()).await.expect(&what);
        assert_eq!(store.integrity().await.unwrap(), [""; 0], "{what}");
        model.check(&store, &what).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_until_its_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Life::begin(dir.path(), Scene::Write, 0).await;
    child.opened().await;
    let pid = child.child.id().unwrap();
    let refused = Store::open(dir.path(), Clock::system()).await.unwrap_err();
    let expected = format!(
        "{} is in use by another server (process {pid}); stop it first",
        dir.path().display()
    );
    assert_eq!(refused.to_string(), expected);
    child.works(Duration::ZERO, 5).await;
    child.kill().await;
    Store::open(dir.path(), Clock::system()).await.unwrap();
}
