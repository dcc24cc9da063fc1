//! Supervisors of armed changes, killed at their worst moments.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that finds something else than it expects has failed"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fw_agent::spool::{Found, Spool, Wake};
use fw_proto::frame::{Armed, Cause, Command, Ended, Fate, OnFull, Spec};
use fw_proto::record::{self, Body, MAX_CHUNK, Offsets, Stream};
use fw_proto::{NodeId, RunId, Span, TaskKey};
use rustix::process::{Pid, Signal, kill_process};

/// Far longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Longer than any test waits.
const LONG: Span = Span::from_secs(3600);

struct Bench {
    dir: tempfile::TempDir,
    spool: Spool,
    wake: Wake,
    key: TaskKey,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let spool = spool.with_supervisor(PathBuf::from(env!("CARGO_BIN_EXE_fw-supervise")));
        let wake = spool.wake().unwrap();
        let key = TaskKey { run: RunId(uuid::Uuid::from_u128(1)), node: NodeId(0), attempt: 1 };
        Self { dir, spool, wake, key }
    }

    /// Starts a change that is undone by `undo`.
    fn start(change: &str, undo: &str, probe: Option<&str>, within: Span) -> Self {
        let bench = Self::new();
        let shell = |text: &str| Command::Shell(text.to_owned());
        let armed = Armed { undo: shell(undo), within, probe: probe.map(shell) };
        let spec = Spec {
            command: shell(change),
            user: None,
            cwd: Some(bench.dir.path().display().to_string()),
            env: BTreeMap::new(),
            secrets: BTreeMap::from([("TOKEN".to_owned(), "hunter2hunter2".to_owned())]),
            timeout: None,
            kill_after: Span::from_secs(5),
            on_full: OnFull::Block,
            spool_bytes: 64 * 1024 * 1024,
            nice: None,
            umask: None,
            armed: Some(armed),
        };
        bench.spool.spawn(bench.key, &spec).unwrap();
        bench
    }

    fn file(&self, name: &str) -> PathBuf {
        self.spool.task_dir(self.key).join(name)
    }

    fn lines(&self, file: &str) -> usize {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default().lines().count()
    }

    async fn until<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(answer) = look(self) {
                    return answer;
                }
                let bell = tokio::time::timeout(Duration::from_millis(50), self.wake.next()).await;
                bell.map_or(Ok(()), |rung| rung.map(drop)).unwrap();
            }
        };
        let answer = tokio::time::timeout(DEADLINE, wait).await;
        answer.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn waiting(&mut self) {
        self.until("a change that waits", |bench| {
            matches!(bench.spool.state(bench.key).unwrap(), Found::Applied(_)).then_some(())
        })
        .await;
    }

    async fn ended(&mut self) -> Ended {
        self.until("the end", |bench| match bench.spool.state(bench.key).unwrap() {
            Found::Ended(ended) => Some(ended),
            Found::Missing
            | Found::NotStarted
            | Found::Starting
            | Found::Running { .. }
            | Found::Applied(_)
            | Found::Abandoned { .. }
            | Found::Refused(_)
            | Found::Dead { .. } => None,
        })
        .await
    }

    /// Kills the supervisor, and waits until that is seen.
    async fn kill(&mut self) {
        let started: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.file("started")).unwrap()).unwrap();
        let pid = started.get("supervisor").and_then(serde_json::Value::as_i64).unwrap();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        self.abandoned().await;
    }

    async fn abandoned(&mut self) {
        self.until("an abandoned change", |bench| {
            let found = bench.spool.state(bench.key).unwrap();
            matches!(found, Found::Abandoned { .. }).then_some(())
        })
        .await;
    }

    /// All output, in the order in which a server would get it.
    fn output(&self, ended: &Ended) -> String {
        let mut reader = self.spool.reader(self.key, Offsets::default());
        let (mut raw, mut at, mut text) = (Vec::new(), Offsets::default(), Vec::new());
        while let Some((from, to)) = reader.next(MAX_CHUNK, &mut raw).unwrap() {
            assert_eq!(from, at, "no byte twice, none left out");
            at = to;
            for record in record::records(&raw) {
                let record = record.unwrap();
                if let (Stream::Stdout | Stream::Stderr, Body::Bytes(bytes)) =
                    (record.stream, record.body)
                {
                    text.extend_from_slice(bytes);
                }
            }
        }
        assert_eq!(at, ended.output);
        String::from_utf8(text).unwrap()
    }
}

fn check(ended: &Ended, fate: Fate, exit_code: Option<i32>) {
    assert_eq!((ended.armed, ended.exit_code), (Some(fate), exit_code), "{ended:?}");
}

#[tokio::test]
async fn the_word_and_the_proof_keep_a_change() {
    let mut bench = Bench::start("echo made", "echo undo >> undone", Some("test -e good"), LONG);
    bench.waiting().await;
    assert!(bench.file("armed").exists(), "whoever is killed now, it can be undone");
    assert!(bench.spool.keep(bench.key).unwrap());
    std::fs::write(bench.dir.path().join("good"), "").unwrap();
    let ended = bench.ended().await;
    check(&ended, Fate::Kept, Some(0));
    assert_eq!(bench.lines("undone"), 0);
    assert!(bench.output(&ended).starts_with("made\n[fleetwright] "));
    assert!(ended.stderr_sha256.is_some());
    bench
        .until("no secret on the disk", |bench| (!bench.file("armed").exists()).then_some(()))
        .await;
}

/// A word that comes before the change is made says nothing about it.
#[tokio::test]
async fn an_early_word_keeps_nothing() {
    let change = "echo begun > begun; while [ ! -e go ]; do sleep 0.02; done";
    let mut bench = Bench::start(change, "echo undo >> undone", None, Span::from_secs(1));
    bench.until("its begin", |bench| (bench.lines("begun") > 0).then_some(())).await;
    assert!(bench.spool.keep(bench.key).unwrap());
    std::fs::write(bench.dir.path().join("go"), "").unwrap();
    check(&bench.ended().await, Fate::Undone, Some(0));
    assert_eq!(bench.lines("undone"), 1);
}

/// Killed after `kept` was written and before anybody was told: it stays kept.
#[tokio::test]
async fn what_was_kept_stays_kept_whoever_is_killed() {
    let mut bench = Bench::start("echo made", "echo undo >> undone", None, LONG);
    bench.waiting().await;
    bench.kill().await;
    std::fs::write(bench.file("kept"), "\"2027-01-15T08:00:00.000Z\"").unwrap();
    bench.spool.remove(bench.key).unwrap_err();
    bench.spool.undo(bench.key).unwrap();
    check(&bench.ended().await, Fate::Kept, Some(0));
    assert_eq!(bench.lines("undone"), 0);
}

/// Without `kept` it is undone at once, its output goes on where it was, and secrets stay masked.
#[tokio::test]
async fn a_change_without_its_supervisor_is_undone_by_the_next() {
    let undo = "echo \"by $TOKEN\"; echo undo >> undone";
    let mut bench = Bench::start("echo made; echo beside >&2", undo, None, LONG);
    bench.waiting().await;
    bench.kill().await;
    bench.spool.undo(bench.key).unwrap();
    let ended = bench.ended().await;
    check(&ended, Fate::Undone, Some(0));
    assert_eq!(bench.lines("undone"), 1);
    let output = bench.output(&ended);
    assert!(output.contains("made\n") && output.contains("beside\n"), "{output}");
    assert!(output.contains("by ***\n"), "{output}");
    assert_eq!(ended.stdout_sha256, None, "nobody has read all of it");
    assert!(!bench.file("armed").exists());
}

/// Tries count over crashes: the fifth is the last, whoever makes it.
#[tokio::test]
async fn tries_of_an_undo_count_over_crashes() {
    let undo = "echo try >> tries; kill -9 $PPID; sleep 60";
    let mut bench = Bench::start("exit 7", undo, None, LONG);
    for tries in 1..=5 {
        bench.abandoned().await;
        assert_eq!(bench.lines("tries"), tries);
        bench.spool.undo(bench.key).unwrap();
        if tries < 5 {
            bench.until("another try", |bench| (bench.lines("tries") > tries).then_some(())).await;
        }
    }
    check(&bench.ended().await, Fate::UndoFailed, Some(7));
    assert_eq!(bench.lines("tries"), 5);
}

/// Whoever holds the lock decides: where a supervisor lives, another is not started, and does nothing.
#[tokio::test]
async fn nobody_undoes_a_change_whose_supervisor_lives() {
    let mut bench = Bench::start("echo made", "echo undo >> undone", None, LONG);
    bench.waiting().await;
    bench.spool.undo(bench.key).unwrap();
    assert!(bench.spool.keep(bench.key).unwrap());
    check(&bench.ended().await, Fate::Kept, Some(0));
    assert_eq!(bench.lines("undone"), 0);
}

/// Killed in the middle of the change: what it does beside is ended before it is undone.
#[tokio::test]
async fn a_half_made_change_is_ended_and_undone() {
    let change = "echo begun > begun; while [ ! -e go ]; do sleep 0.02; done; echo late > late";
    let mut bench = Bench::start(change, "echo undo >> undone", None, LONG);
    bench.until("its begin", |bench| (bench.lines("begun") > 0).then_some(())).await;
    let main = std::fs::read_to_string(bench.file("pid")).unwrap();
    bench.kill().await;
    bench.spool.undo(bench.key).unwrap();
    check(&bench.ended().await, Fate::Undone, None);
    let proc = format!("/proc/{main}/stat");
    bench
        .until("the end of the change itself", |_| {
            let stat = std::fs::read_to_string(&proc).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_change_that_is_cancelled_is_undone_and_says_so() {
    let mut bench = Bench::start("echo made", "echo undo >> undone", None, LONG);
    bench.waiting().await;
    assert!(bench.spool.cancel(bench.key).unwrap());
    let ended = bench.ended().await;
    check(&ended, Fate::Undone, Some(0));
    assert_eq!((ended.cause, bench.lines("undone")), (Cause::Cancelled, 1));
}
