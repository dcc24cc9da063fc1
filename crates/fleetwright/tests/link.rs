//! The link between agent and server goes away and comes back.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::time::Duration;

use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A line of 9 bytes every hundredth of a second or slower, until told to end.
const PRINTS_UNTIL_TOLD: &str = "echo began >> began; n=10000000; \
    while [ ! -e go ]; do echo $n; n=$((n+1)); sleep 0.01; done; echo $n > last";

async fn fleet(args: &[&str]) -> (Fleet, Agent) {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.agent_with("web1", args).await;
    (fleet, web1)
}

/// Lines of 9 bytes, counting from `first` up to and without `last`.
fn counted(first: u64, last: u64) -> String {
    (first..last).map(|n| format!("{n}\n")).collect()
}

async fn assert_whole(fleet: &Fleet, id: &str) {
    let run = fleet.ended(id).await;
    assert_eq!(run["state"], "succeeded");
    assert_eq!(fleet.lines("began"), ["began"], "it ran once");
    let last = fleet.lines("last").first().and_then(|last| last.parse().ok());
    let expected = counted(10_000_000, last.expect("the command wrote its last number"));
    let raw = fleet.raw(id, "web1", "stdout").await.ok();
    assert!(raw.text() == expected, "{} of {} bytes", raw.stdout.len(), expected.len());
}

/// The link is cut for 20 s while a command prints. Not a line is missing or doubled.
#[tokio::test]
async fn a_link_cut_for_20_s_loses_nothing() {
    let (fleet, _web1) = fleet(&[]).await;
    let id = fleet.begin_shell("web1", &[], PRINTS_UNTIL_TOLD).await;
    let stored = |run: &serde_json::Value| run["tasks"][0]["stdout_bytes"].as_u64().unwrap_or(0);
    fleet.run_when(&id, "some stored output", |run| stored(run) > 0).await;
    fleet.proxy.cut();
    fleet.host_is("web1", "offline").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = stored(&fleet.runs_show(&id).await);
    assert_eq!(fleet.runs_show(&id).await["tasks"][0]["state"], "running", "absent is not lost");
    fleet.proxy.resume();
    fleet.online("web1").await;
    fleet.run_when(&id, "output from after the cut", |run| stored(run) > before).await;
    fleet.touch("go");
    assert_whole(&fleet, &id).await;
}

/// A link that moves no byte while neither side is told, as through a firewall that forgot it.
#[tokio::test]
async fn a_frozen_link_loses_nothing() {
    let (fleet, _web1) = fleet(&[]).await;
    let id = fleet.begin_shell("web1", &[], PRINTS_UNTIL_TOLD).await;
    fleet.task_is(&id, "running").await;
    fleet.proxy.freeze();
    tokio::time::sleep(Duration::from_secs(3)).await;
    fleet.touch("go");
    fleet.written("last").await;
    fleet.proxy.resume();
    assert_whole(&fleet, &id).await;
}

/// A link that flaps: every piece that got through before a cut is kept, and none twice.
#[tokio::test]
async fn a_flapping_link_loses_nothing() {
    let (fleet, _web1) = fleet(&[]).await;
    let id = fleet.begin_shell("web1", &[], PRINTS_UNTIL_TOLD).await;
    for _ in 0..5 {
        let before = fleet.runs_show(&id).await["tasks"][0]["stdout_bytes"].as_u64();
        fleet
            .run_when(&id, "more stored output", |run| {
                run["tasks"][0]["stdout_bytes"].as_u64() > before
            })
            .await;
        fleet.proxy.cut();
        fleet.host_is("web1", "offline").await;
        fleet.proxy.resume();
        fleet.online("web1").await;
    }
    fleet.touch("go");
    assert_whole(&fleet, &id).await;
}

/// A timeout is kept by the host, also while nobody can tell the server.
#[tokio::test]
async fn a_timeout_is_kept_without_a_link() {
    let (fleet, _web1) = fleet(&[]).await;
    let text = "echo $$ > pid; exec sleep 300";
    let id = fleet.begin_shell("web1", &["--timeout", "2s"], text).await;
    fleet.task_is(&id, "running").await;
    fleet.proxy.cut();
    fleet.host_is("web1", "offline").await;
    let pid = fleet.written("pid").await.concat();
    wait_for("the end of the command", PATIENCE, async || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    })
    .await;
    assert_eq!(fleet.runs_show(&id).await["tasks"][0]["state"], "running", "nobody was told");
    fleet.proxy.resume();
    let run = fleet.ended(&id).await;
    let task = &run["tasks"][0];
    assert_eq!((&run["state"], &task["state"]), (&"failed".into(), &"timed_out".into()));
    assert_eq!((&task["exit_code"], &task["signal"]), (&serde_json::Value::Null, &15.into()));
}

/// What is cancelled while the host is away ends once it is back; until then nobody claims it has.
#[tokio::test]
async fn a_cancel_is_not_claimed_before_the_host_confirms() {
    let (fleet, _web1) = fleet(&[]).await;
    let id = fleet.begin_shell("web1", &[], "exec sleep 300").await;
    fleet.task_is(&id, "running").await;
    fleet.proxy.cut();
    fleet.host_is("web1", "offline").await;
    drop(fleet.cli(&["runs", "cancel", &id]).await.ok());
    assert_eq!(fleet.runs_show(&id).await["state"], "cancelling");
    fleet.proxy.resume();
    let run = fleet.ended(&id).await;
    assert_eq!(run["state"], "cancelled");
    assert_eq!(run["tasks"][0]["state"], "cancelled");
}

/// Prints 20 MB, more than any spool below may hold, once the link is cut.
const PRINTS_20_MB: &str = "echo began >> began; echo first; while [ ! -e go ]; do sleep 0.05; done; \
    seq 10000000 12222221; echo 12222222 > last";

/// A spool that is full, and the run whose command is about to fill it; the link is cut.
async fn full_spool(args: &[&str]) -> (Fleet, Agent, String) {
    let (fleet, web1) = fleet(&["--spool-bytes", "1MiB"]).await;
    let id = fleet.begin_shell("web1", args, PRINTS_20_MB).await;
    fleet.run_when(&id, "the first line", |run| run["tasks"][0]["stdout_bytes"] == 6).await;
    fleet.proxy.cut();
    fleet.host_is("web1", "offline").await;
    fleet.touch("go");
    (fleet, web1, id)
}

/// With `--on-full block` a command waits for room, and all that it prints arrives.
#[tokio::test]
async fn a_full_spool_blocks_the_command() {
    let (fleet, web1, id) = full_spool(&[]).await;
    let mut sizes = (0, 0);
    wait_for("a spool that grows no more", PATIENCE, async || {
        let now = size_of(&web1.state.join("spool"));
        sizes = if now == sizes.0 { (now, sizes.1 + 1) } else { (now, 0) };
        // For a second, forty looks, nothing is written.
        (sizes.1 >= 40 && now > 0).then_some(())
    })
    .await;
    assert!(sizes.0 < 2 * 1024 * 1024, "the spool holds {} bytes", sizes.0);
    assert!(fleet.lines("last").is_empty(), "the command waits");
    fleet.proxy.resume();
    let run = fleet.ended(&id).await;
    assert_eq!(run["state"], "succeeded");
    assert_eq!(run["tasks"][0]["stdout_dropped_bytes"], 0);
    let raw = fleet.raw(&id, "web1", "stdout").await.ok();
    assert!(raw.text() == format!("first\n{}", counted(10_000_000, 12_222_222)));
}

/// With `--on-full drop` it goes on, and what was not kept is said to the byte.
#[tokio::test]
async fn a_full_spool_drops_and_says_so() {
    let (fleet, _web1, id) = full_spool(&["--on-full", "drop"]).await;
    fleet.written("last").await;
    fleet.proxy.resume();
    let run = fleet.ended(&id).await;
    let task = &run["tasks"][0];
    assert_eq!(run["state"], "succeeded");
    let expected = format!("first\n{}", counted(10_000_000, 12_222_222));
    let (kept, dropped) = (task["stdout_bytes"].as_u64(), task["stdout_dropped_bytes"].as_u64());
    let (kept, dropped) = (kept.expect("a number"), dropped.expect("a number"));
    assert!(dropped > 0 && kept > 6, "kept {kept}, dropped {dropped}");
    assert_eq!(kept + dropped, expected.len() as u64);
    let raw = fleet.raw(&id, "web1", "stdout").await.exits(3);
    assert_eq!(raw.stdout.len() as u64, kept);
    assert!(raw.stderr.contains("gap"), "{}", raw.stderr);
    let begin =
        raw.text().lines().zip(expected.lines()).take_while(|(got, put)| got == put).count();
    assert!(begin > 1000, "what came before the gap is whole: {begin} lines");
    drop(fleet.cli(&["runs", "logs", &id]).await.ok());
}

/// Bytes on the disk below a directory.
fn size_of(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A peer that says nothing any more, and closes nothing, as when its machine hangs: the server gives it
/// up after three missed pings, a run does not wait for it, and it comes back by itself.
#[tokio::test]
async fn a_host_that_falls_silent_is_offline_within_a_minute() {
    use rustix::process::{Pid, Signal, kill_process};
    let (fleet, web1) = fleet(&[]).await;
    let pid = web1.process.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
    kill_process(pid, Signal::STOP).expect("it can be stopped");
    wait_for("the silent host to be offline", Duration::from_secs(70), async || {
        (fleet.get("/hosts/web1").await?["state"] == "offline").then_some(())
    })
    .await;
    drop(fleet.cli(&["run", "web1", "--offline", "skip", "--wait", "--", "true"]).await);
    kill_process(pid, Signal::CONT).expect("it can go on");
    fleet.online("web1").await;
    drop(fleet.cli(&["run", "web1", "--wait", "--", "true"]).await.ok());
}
