//! Hosts that are away: at the start, for good in the middle, and back after the verdict.

use fw_testkit::fleet::{Agent, Fleet};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A server that loses patience soon, and one host beside the one that is away.
async fn fleet() -> (Fleet, Agent, Agent) {
    let args = ["--lost-after", "2s", "--reconnect-grace", "1s"];
    let fleet = Fleet::start_with(BINARY, &args).await;
    let here = fleet.agent("here").await;
    let away = fleet.join("away", &[]).await;
    (fleet, here, away)
}

fn task<'a>(run: &'a Value, host: &str) -> &'a Value {
    let tasks = run["tasks"].as_array().expect("tasks");
    tasks.iter().find(|task| task["host"] == host).expect("a task of this host")
}

fn outcome<'a>(run: &'a Value, host: &str) -> (&'a str, &'a str) {
    let text = |key: &str| task(run, host)[key].as_str().unwrap_or_default();
    (text("state"), text("reason"))
}

/// `--offline` says what becomes of a host that is away: it fails, is skipped or waited for; and
/// the exit code says what became of the run.
#[tokio::test]
async fn a_host_offline_at_the_start() {
    let (fleet, _here, mut away) = fleet().await;
    let run = async |selector: &str, offline: &str, code: i32| {
        let args = ["run", selector, "--offline", offline, "--wait", "-o", "json", "--", "true"];
        fleet.cli(&args).await.exits(code).json()
    };

    let failed = run("*", "fail", 3).await;
    assert_eq!(failed["state"], "failed");
    assert_eq!(outcome(&failed, "here"), ("succeeded", ""));
    assert_eq!(outcome(&failed, "away"), ("failed", "offline"));
    assert_eq!(outcome(&run("away", "fail", 100).await, "away"), ("failed", "offline"));

    let skipped = run("*", "skip", 0).await;
    assert_eq!(skipped["state"], "succeeded");
    assert_eq!(outcome(&skipped, "away"), ("skipped", "offline"));
    assert_eq!(run("away", "skip", 0).await["state"], "succeeded");

    assert_eq!(outcome(&run("away", "wait=1s", 100).await, "away"), ("failed", "offline"));

    let id = fleet.begin(&["*", "--offline", "wait=10m", "--", "true"]).await;
    let waits = fleet
        .run_when(&id, "a run that says what it waits for", |run| {
            run["report"]["waiting_on"][0]["on"] == "offline"
        })
        .await;
    assert_eq!(waits["report"]["waiting_on"][0]["hosts"], 1);
    assert_eq!(outcome(&waits, "away").0, "queued");
    away.start();
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
}

/// A host that vanishes in the middle and is not heard of again: its task is lost, the run ends,
/// and the others are not kept.
#[tokio::test]
async fn a_host_that_vanishes_for_good() {
    let (fleet, _here, mut away) = fleet().await;
    away.start();
    fleet.online("away").await;
    let text = "echo began >> began; while [ ! -e go ]; do sleep 0.05; done";
    let scratch = fleet.scratch().display().to_string();
    let args = ["run", "*", "--cwd", &scratch, "--wait", "-o", "json", "--shell", text];
    let running = fleet.cli_spawn(&args);
    fw_testkit::fleet::wait_for("both to begin", fw_testkit::fleet::PATIENCE, async || {
        (fleet.lines("began").len() == 2).then_some(())
    })
    .await;
    away.kill9().await;
    fleet.host_is("away", "offline").await;
    let runs = fleet.get("/runs").await.expect("a list");
    let id = runs["items"][0]["id"].as_str().expect("an id").to_owned();
    fleet.run_when(&id, "a lost task", |run| outcome(run, "away").0 == "lost").await;
    assert_eq!(fleet.runs_show(&id).await["state"], "running", "the other one is not kept");
    fleet.touch("go");
    let run = fleet.finish(running, &args, b"").await.exits(3).json();
    assert_eq!(run["state"], "failed");
    assert_eq!((outcome(&run, "here").0, outcome(&run, "away").0), ("succeeded", "lost"));
}

/// A host that comes back after its verdict: what it says is recorded, and the verdict stands.
#[tokio::test]
async fn a_host_that_comes_back_after_its_verdict() {
    let (fleet, _here, mut away) = fleet().await;
    away.start();
    fleet.online("away").await;
    let text = "echo began >> began; while [ ! -e go ]; do sleep 0.05; done; echo done >> done";
    let id = fleet.begin_shell("away", &[], text).await;
    fleet.written("began").await;
    fleet.task_is(&id, "running").await;
    away.kill9().await;
    let run = fleet.ended(&id).await;
    assert_eq!((run["state"].as_str(), outcome(&run, "away").0), (Some("failed"), "lost"));
    assert_eq!(task(&run, "away")["late"], Value::Null);
    fleet.touch("go");
    fleet.written("done").await;
    away.start();
    let run =
        fleet.run_when(&id, "the late word", |run| task(run, "away")["late"].is_string()).await;
    assert_eq!((run["state"].as_str(), outcome(&run, "away").0), (Some("failed"), "lost"));
    assert_eq!(fleet.lines("began"), ["began"], "it ran once");
    // The host is of use again.
    let (_, run) = fleet.run_shell("away", &[], "true").await;
    assert_eq!(run["state"], "succeeded");
}

/// A start that comes too late is refused by the host itself, whatever held it up.
#[tokio::test]
async fn a_start_that_comes_too_late_is_not_made() {
    let (fleet, _here, mut away) = fleet().await;
    away.start();
    fleet.online("away").await;
    fleet.proxy.freeze();
    let id = fleet.begin_shell("away", &["--start-within", "2s"], "echo began >> began").await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    fleet.proxy.resume();
    let run = fleet.ended(&id).await;
    assert_eq!(run["state"], "failed");
    assert!(fleet.lines("began").is_empty(), "{run}");
}
