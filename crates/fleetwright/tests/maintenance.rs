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
    assert_eq!(fleet.cli(&off).await.ok().json()["ended_by"], "admin");
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
