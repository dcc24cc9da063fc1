//! Maintenance: what is due meanwhile is skipped, what runs goes on, and people may all the same.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A job that is due each second, on all hosts.
const JOB: &str = "jobs:\n  tick: {schedule: '@every 1s', hosts: '*', run: 'echo tick'}\n";

/// The newest fires with this verdict and reason, when some are younger than those of `after`: what is
/// skipped in a row is one row, whose end moves.
async fn fire(fleet: &Fleet, verdict: &str, reason: &Value, after: &Value) -> Value {
    let what = format!("{verdict} ({reason})");
    wait_for(&what, PATIENCE, async || {
        let ledger = fleet.cli(&["jobs", "ledger", "tick", "-o", "json"]).await.ok().json();
        let newest = ledger.as_array()?.first()?.clone();
        let is_it = newest["verdict"] == verdict && newest["reason"] == *reason;
        (is_it && newest["to"].as_str() > after["to"].as_str()).then_some(newest)
    })
    .await
}

#[tokio::test]
async fn nothing_begins_by_itself_meanwhile() {
    let mut fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    drop(fleet.cli_with_input(&["jobs", "apply", "-"], JOB.as_bytes()).await.ok());
    let ran = fire(&fleet, "ran", &Value::Null, &Value::Null).await;
    let text = "echo began >> began; while ! [ -e go ]; do sleep 0.05; done";
    let running = fleet.begin_shell("web1", &[], text).await;
    let on = ["maintenance", "on", "--everything", "--reason", "new disks", "-o", "json"];
    let begun = fleet.cli(&on).await.ok().json();
    assert_eq!((&begun["id"], &begun["hosts"]), (&json!(1), &Value::Null));
    let skipped = fire(&fleet, "skipped", &json!("maintenance"), &ran).await;

    let host = fleet.cli(&["hosts", "list"]).await.ok().text();
    assert!(host.contains("online, in maintenance"), "{host}");
    let by_hand = fleet.cli(&["run", "web1", "--wait", "-o", "json", "--", "true"]).await.ok();
    assert_eq!(by_hand.json()["state"], "succeeded");
    assert!(by_hand.stderr.contains("web1 is in maintenance (1)"), "{}", by_hand.stderr);

    fleet.server.kill9().await;
    fleet.start_server().await;
    fleet.online("web1").await;
    let skipped = fire(&fleet, "skipped", &json!("maintenance"), &skipped).await;
    fleet.touch("go");
    assert_eq!(fleet.ended(&running).await["state"], "succeeded");
    let list = fleet.cli(&["maintenance", "list"]).await.ok().text();
    assert!(list.contains("new disks"), "{list}");
    let jobs = fleet.cli(&["jobs", "list"]).await.ok();
    let warning = "no job fires: maintenance 1 of everything is on (new disks)";
    assert!(jobs.stderr.contains(warning), "{}", jobs.stderr);
    let off = ["maintenance", "off", "--everything", "-o", "json"];
    let ended = fleet.cli(&off).await.ok().json();
    assert_eq!((&ended["ended_by"], &ended["ended_by_kind"]), (&"admin".into(), &"token".into()));
    drop(fleet.cli(&["maintenance", "off", "--everything"]).await.exits(5));
    drop(fleet.cli(&["maintenance", "off", "1"]).await.exits(6));
    fire(&fleet, "ran", &Value::Null, &skipped).await;
}

/// The job goes on elsewhere.
#[tokio::test]
async fn one_host_is_left_out() {
    let fleet = Fleet::start(BINARY).await;
    let _agents = (fleet.agent("web1").await, fleet.agent("web2").await);
    drop(fleet.cli(&["maintenance", "on", "web1", "--reason", "x", "--for", "1h"]).await.ok());
    drop(fleet.cli_with_input(&["jobs", "apply", "-"], JOB.as_bytes()).await.ok());
    let ran = fire(&fleet, "ran", &Value::Null, &Value::Null).await;
    let run = fleet.ended(ran["run_id"].as_str().expect("an id")).await;
    let hosts: Vec<_> =
        run["tasks"].as_array().expect("tasks").iter().map(|t| &t["host"]).collect();
    assert_eq!(hosts, ["web2"]);
    drop(fleet.cli(&["maintenance", "on", "web2", "--reason", "x"]).await.ok());
    fire(&fleet, "skipped", &json!("maintenance"), &ran).await;
}

/// Whoever drains hosts hears what is waited for, and when it is over; or that the time is.
#[tokio::test]
async fn a_drain_waits_until_nothing_runs() {
    let fleet = Fleet::start(BINARY).await;
    let _agents = (fleet.agent("web1").await, fleet.agent("web2").await);
    let text = "while ! [ -e go ]; do sleep 0.05; done";
    let runs =
        [fleet.begin_shell("web1", &[], text).await, fleet.begin_shell("web2", &[], text).await];
    for run in &runs {
        fleet.task_is(run, "running").await;
    }
    let on = ["maintenance", "on", "web*", "--reason", "new disks", "--drain"];
    let late = fleet.cli(&[&on[..], &["--timeout", "3s"]].concat()).await.exits(7);
    assert!(late.stderr.contains("waiting for 2 tasks on 2 hosts: web1, web2"), "{}", late.stderr);
    assert!(late.stderr.contains("maintenance 1 stays on"), "{}", late.stderr);
    let shown = fleet.cli(&["maintenance", "list", "-o", "json"]).await.ok().json();
    assert_eq!(shown[0]["running"], json!({"tasks": 2, "hosts": 2, "on": ["web1", "web2"]}));

    let args = ["maintenance", "wait", "1"];
    let waiting = fleet.cli_spawn(&args);
    fleet.touch("go");
    let done = fleet.finish(waiting, &args, b"").await.ok();
    assert!(
        done.stderr.contains("nothing runs there any more; maintenance 1 is on"),
        "{}",
        done.stderr
    );
    for run in &runs {
        assert_eq!(fleet.ended(run).await["state"], "succeeded", "a drain ends nothing");
    }
    drop(fleet.cli(&on).await.ok());
    drop(fleet.cli(&["maintenance", "off", "1"]).await.ok());
    drop(fleet.cli(&["maintenance", "wait", "1"]).await.exits(6));
}

#[tokio::test]
async fn what_runs_is_ended_where_that_is_asked_for() {
    let fleet = Fleet::start(BINARY).await;
    let _agents = (fleet.agent("db1").await, fleet.agent("web1").await);
    let run = fleet.begin_shell("*", &[], "while ! [ -e go ]; do sleep 0.05; done").await;
    wait_for("it runs on both", PATIENCE, async || {
        let tasks = fleet.runs_show(&run).await["tasks"].as_array()?.clone();
        tasks.iter().all(|task| task["state"] == "running").then_some(())
    })
    .await;
    let on = ["maintenance", "on", "web1", "--reason", "x", "--stop-running", "--drain"];
    drop(fleet.cli(&on).await.ok());
    let tasks = fleet.runs_show(&run).await["tasks"].as_array().expect("tasks").clone();
    let states: Vec<_> = tasks.iter().map(|task| (&task["host"], &task["state"])).collect();
    let state = |host: &str| states.iter().find(|(of, _)| **of == host).map(|(_, state)| *state);
    assert_eq!((state("web1"), state("db1")), (Some(&json!("cancelled")), Some(&json!("running"))));
    fleet.touch("go");
    fleet.ended(&run).await;
}

/// The hour began a minute ago, so the window is open; the other one opens in an hour.
#[tokio::test]
async fn a_window_that_recurs_holds_while_it_is_open() {
    let mut fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    drop(fleet.cli_with_input(&["jobs", "apply", "-"], JOB.as_bytes()).await.ok());
    let ran = fire(&fleet, "ran", &Value::Null, &Value::Null).await;
    let every = |at: fw_proto::Timestamp| {
        let at = at.to_string();
        format!("{} {} * * *", &at[14..16], &at[11..13])
    };
    let now = fw_rt::Clock::system().now();
    let (open, ahead) =
        (every(now - fw_proto::Span::from_secs(60)), every(now + fw_proto::Span::from_secs(3600)));
    let on =
        ["maintenance", "on", "--everything", "--reason", "patches", "--for", "30m", "--every"];
    let begun = fleet.cli(&[&on[..], &[&ahead, "--timezone", "UTC"]].concat()).await.ok().text();
    assert!(begun.contains("and so on by"), "{begun}");
    drop(fleet.cli(&[&on[..], &[&open]].concat()).await.ok());
    let skipped = fire(&fleet, "skipped", &json!("maintenance"), &ran).await;
    fleet.server.kill9().await;
    fleet.start_server().await;
    let skipped = fire(&fleet, "skipped", &json!("maintenance"), &skipped).await;
    let list = fleet.cli(&["maintenance", "list"]).await.ok().text();
    assert!(list.contains("next in 5") && list.contains("recurs"), "{list}");
    drop(fleet.cli(&["maintenance", "off", "2"]).await.ok());
    fire(&fleet, "ran", &Value::Null, &skipped).await;
}
