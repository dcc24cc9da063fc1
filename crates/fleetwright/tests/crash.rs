//! Servers and agents are killed in the middle of things, and nothing is lost or done twice.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::time::Duration;

use fw_testkit::fleet::{Agent, Fleet};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Prints 50 MB of lines, each different; the second half when it is told to go on.
const PRINTS_50_MB: &str = "echo began >> began; seq 10000000 12777777; \
    while [ ! -e go ]; do sleep 0.05; done; \
    seq 12777778 15555555; echo done >> done";

const FIRST_HALF: u64 = 2_777_778 * 9;
const BOTH_HALVES: u64 = 5_555_556 * 9;

/// What the command prints, without asking a command.
fn expected_sha256() -> String {
    use std::io::Write as _;
    let mut text = Vec::with_capacity(BOTH_HALVES as usize);
    (10_000_000..=15_555_555).for_each(|n| writeln!(text, "{n}").expect("memory takes all"));
    sha256(&text)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stored(run: &Value) -> u64 {
    run["tasks"][0]["stdout_bytes"].as_u64().unwrap_or_default()
}

/// A run of which some of the output is stored, and more is still to be printed.
async fn begun(fleet: &Fleet) -> String {
    let id = fleet.begin_shell("web1", &[], PRINTS_50_MB).await;
    fleet.run_when(&id, "the first stored output", |run| stored(run) > 0).await;
    id
}

/// The run succeeded, its command began once, and every byte is there.
async fn assert_whole(fleet: &Fleet, id: &str) {
    let run = fleet.ended(id).await;
    let task = &run["tasks"][0];
    assert_eq!((&run["state"], &task["state"]), (&"succeeded".into(), &"succeeded".into()));
    assert_eq!(fleet.lines("began"), ["began"], "it ran once");
    assert_eq!(fleet.lines("done"), ["done"], "to its end");
    assert_eq!(stored(&run), BOTH_HALVES);
    let raw = fleet.raw(id, "web1", "stdout").await.ok();
    assert_eq!(sha256(&raw.stdout), expected_sha256());
    assert_eq!(task["stdout_sha256"], expected_sha256().as_str());
    assert_eq!((&task["attempt"], &task["stdout_dropped_bytes"]), (&1.into(), &0.into()));
}

async fn fleet() -> (Fleet, Agent) {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.agent("web1").await;
    (fleet, web1)
}

/// The server is killed while output streams in. The command goes on without it; the server
/// comes back and has every byte, and nothing ran twice.
#[tokio::test]
async fn a_killed_server_loses_nothing() {
    let (mut fleet, _web1) = fleet().await;
    let id = begun(&fleet).await;
    let before = stored(&fleet.runs_show(&id).await);
    fleet.server.kill9().await;
    assert!(before < BOTH_HALVES, "killed in the middle, not after the end");
    fleet.touch("go");
    fleet.written("done").await;
    fleet.start_server().await;
    assert_whole(&fleet, &id).await;
}

/// Nor does one that is killed again and again while it takes the output in.
#[tokio::test]
async fn a_server_killed_five_times_loses_nothing() {
    let (mut fleet, _web1) = fleet().await;
    let id = begun(&fleet).await;
    fleet.touch("go");
    for fifth in 1..=5 {
        let enough = BOTH_HALVES / 7 * fifth;
        fleet.run_when(&id, "more stored output", |run| stored(run) > enough).await;
        fleet.server.kill9().await;
        fleet.start_server().await;
    }
    assert_whole(&fleet, &id).await;
}

/// Prints 200 kB of lines.
const PRINTS_LINES: &str = "seq 1000000 1024999";

/// A server is killed two dozen times, while it takes runs, starts and output in from three
/// hosts: every run that was acknowledged ends well, ran once on each host, and has all its output.
#[tokio::test]
async fn a_server_killed_dozens_of_times_keeps_every_run() {
    const KILLS: usize = 24;
    let mut fleet = Fleet::start(BINARY).await;
    let mut agents = Vec::new();
    for name in ["web1", "web2", "web3"] {
        agents.push(fleet.agent(name).await);
    }
    let scratch = fleet.scratch().display().to_string();
    let mut ids = Vec::new();
    for kill in 0..KILLS {
        let text = format!("echo {kill} >> began; {PRINTS_LINES}");
        let patient = ["--offline", "wait=10m", "--start-within", "10m"];
        let line = [&["*", "--cwd", &scratch], &patient[..], &["--shell", &text]].concat();
        let id = fleet.begin(&line).await;
        // At once, mostly: hosts take their time to link again. When one has begun; when there is output.
        match kill % 6 {
            0..4 => {}
            4 => drop(fleet.run_when(&id, "a start", |run| run["state"] != "planned").await),
            _ => drop(fleet.run_when(&id, "some output", |run| stored(run) > 0).await),
        }
        ids.push(id);
        fleet.server.kill9().await;
        fleet.start_server().await;
    }
    let mut expected = Vec::new();
    (1_000_000..=1_024_999).for_each(|n| expected.extend(format!("{n}\n").into_bytes()));
    for id in &ids {
        let run = fleet.ended(id).await;
        assert_eq!(run["state"], "succeeded", "{run}");
        for task in run["tasks"].as_array().expect("three tasks") {
            assert_eq!(task["stdout_sha256"], sha256(&expected).as_str(), "{task}");
            let host = task["host"].as_str().expect("a name");
            assert!(fleet.raw(id, host, "stdout").await.ok().stdout == expected, "{task}");
        }
    }
    let mut began = fleet.lines("began");
    began.sort_by_key(|line| line.parse::<usize>().ok());
    let once: Vec<_> = (0..KILLS).flat_map(|kill| vec![kill.to_string(); 3]).collect();
    assert_eq!(began, once, "each ran once on each host");
}

/// The agent is killed. The command goes on and ends without it; the next agent ships what is
/// left and starts nothing.
#[tokio::test]
async fn a_killed_agent_loses_nothing() {
    let (fleet, mut web1) = fleet().await;
    let id = begun(&fleet).await;
    web1.kill9().await;
    assert!(stored(&fleet.runs_show(&id).await) <= FIRST_HALF);
    fleet.touch("go");
    fleet.written("done").await;
    let state = fleet.runs_show(&id).await["tasks"][0]["state"].clone();
    assert_eq!(state, "running", "the server cannot know yet");
    web1.start();
    assert_whole(&fleet, &id).await;
}

/// What forks its supervisors ends with it, and the next agent has one of its own; the command
/// and its supervisor live on.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_killed_agent_takes_its_fork_server_along() {
    let (fleet, mut web1) = fleet().await;
    let id = begun(&fleet).await;
    let first = fork_servers(&fleet);
    assert_eq!(first.len(), 1);
    web1.kill9().await;
    let gone = async {
        while !fork_servers(&fleet).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    web1.start();
    let other = fleet.begin_shell("web1", &[], "true").await;
    assert_eq!(fleet.ended(&other).await["state"], "succeeded");
    let second = fork_servers(&fleet);
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
    fleet.touch("go");
    assert_whole(&fleet, &id).await;
}

/// The processes that fork the supervisors of the fleet's agents.
#[cfg(target_os = "linux")]
fn fork_servers(fleet: &Fleet) -> Vec<String> {
    let dir = fleet.dir().display().to_string();
    let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    let is_it = |entry: &std::fs::DirEntry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        arguments.contains("--fork-server\0") && arguments.contains(&dir)
    };
    entries.filter(is_it).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Nor does one that is killed while its command prints, and comes back while it still does.
#[tokio::test]
async fn an_agent_killed_five_times_loses_nothing() {
    let (fleet, mut web1) = fleet().await;
    let id = begun(&fleet).await;
    fleet.touch("go");
    for fifth in 1..=5 {
        let enough = BOTH_HALVES / 7 * fifth;
        fleet.run_when(&id, "more stored output", |run| stored(run) > enough).await;
        web1.kill9().await;
        web1.start();
    }
    assert_whole(&fleet, &id).await;
}

/// Both are killed at once. The command alone goes on, and all of it is found afterwards.
#[tokio::test]
async fn killed_together_they_lose_nothing() {
    let (mut fleet, mut web1) = fleet().await;
    let id = begun(&fleet).await;
    fleet.server.kill9().await;
    web1.kill9().await;
    fleet.touch("go");
    fleet.written("done").await;
    fleet.start_server().await;
    web1.start();
    assert_whole(&fleet, &id).await;
}

/// A server that is told to end, as by an upgrade, is away and back without a trace in the run.
#[tokio::test]
async fn an_upgrade_of_both_leaves_no_trace() {
    let (mut fleet, mut web1) = fleet().await;
    let id = begun(&fleet).await;
    assert!(fleet.server.term().await.success());
    web1.term().await;
    fleet.start_server().await;
    web1.start();
    fleet.touch("go");
    assert_whole(&fleet, &id).await;
}

/// Runs that were begun moments before the kill, acknowledged and not yet started anywhere,
/// start once.
#[tokio::test]
async fn what_was_acknowledged_starts_after_the_kill() {
    let (mut fleet, _web1) = fleet().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(fleet.begin_shell("web1", &[], &format!("echo {n} >> began")).await);
    }
    fleet.server.kill9().await;
    fleet.start_server().await;
    for id in &ids {
        assert_eq!(fleet.ended(id).await["state"], "succeeded");
    }
    let mut began = fleet.lines("began");
    began.sort();
    assert_eq!(began, ["0", "1", "2", "3", "4"]);
}

/// Nothing of a fleet outlives its test.
#[tokio::test]
async fn a_fleet_leaves_no_process() {
    let (fleet, _web1) = fleet().await;
    let text = "(setsid sleep 300 > /dev/null 2>&1 &) ; sleep 300";
    let id = fleet.begin_shell("web1", &[], text).await;
    fleet.task_is(&id, "running").await;
    assert!(fleet.processes() >= 4, "server, agent, supervisor, commands");
    let dir = fleet.dir().to_owned();
    drop(fleet);
    assert!(!dir.exists());
    assert_eq!(fw_testkit::fleet::processes_of(&dir), 0);
}
