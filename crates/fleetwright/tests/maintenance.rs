//! Maintenance, with a real server, a real agent and a job of every second.

use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A job that is due every second.
async fn apply(fleet: &Fleet, name: &str, hosts: &str, text: &str) {
    let scratch = fleet.scratch().display().to_string();
    let job = json!({
        "schedule": "@every 1s", "hosts": hosts, "run": text, "cwd": scratch, "overlap": "skip",
    });
    // JSON is YAML.
    let file = json!({ "jobs": { (name): job } }).to_string();
    drop(fleet.cli_with_input(&["jobs", "apply", "-"], file.as_bytes()).await.ok());
}

/// Waits until the newest row of a job's ledger that is not about an overlap says this.
async fn newest_is(fleet: &Fleet, job: &str, verdict: &str, reason: Option<&str>) {
    wait_for(&format!("{job} to be {verdict} {reason:?}"), PATIENCE, async || {
        let page = fleet.get(&format!("/jobs/{job}/ledger")).await?;
        let mut rows = page.get("items")?.as_array()?.iter();
        let newest = rows.find(|row| row["reason"] != "overlap")?;
        (newest["verdict"] == verdict && newest["reason"] == json!(reason)).then_some(())
    })
    .await;
}

async fn on(fleet: &Fleet, args: &[&str]) -> Value {
    let line = [&["maintenance", "on", "--reason", "new disks", "-o", "json"], args].concat();
    fleet.cli(&line).await.ok().json()
}

#[tokio::test]
async fn no_job_fires_in_it_and_what_runs_goes_on() {
    let mut fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    apply(&fleet, "tick", "web1", "echo tick >> ticks").await;
    apply(&fleet, "long", "web1", "echo $$ >> began; while [ ! -e go ]; do sleep 0.05; done").await;
    fleet.written("ticks").await;
    fleet.written("began").await;

    let begun = on(&fleet, &["--everything", "--message", "back at noon"]).await;
    assert_eq!(
        (&begun["id"], &begun["covers"], &begun["by"]),
        (&1.into(), &1.into(), &"admin".into())
    );
    newest_is(&fleet, "tick", "skipped", Some("maintenance")).await;
    let listed = fleet.cli(&["jobs", "list"]).await.ok();
    assert!(listed.stderr.contains("no job fires: maintenance 1 of everything is on (new disks)"));
    fleet.touch("go");
    let long = fleet.cli(&["runs", "list", "--job", "long", "-o", "json"]).await.ok().json();
    let id = long[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
    let manual = fleet.cli(&["jobs", "run", "tick", "--wait", "-o", "json"]).await.ok();
    assert_eq!(manual.json()["state"], "succeeded");
    assert!(manual.stderr.contains("web1 is in maintenance"), "{}", manual.stderr);
    let command = fleet.cli(&["run", "web1", "--wait", "-o", "json", "--", "true"]).await.ok();
    assert_eq!(command.json()["state"], "succeeded");

    // It outlives the server.
    let ticks = fleet.lines("ticks").len();
    fleet.server.kill9().await;
    fleet.start_server().await;
    fleet.online("web1").await;
    newest_is(&fleet, "tick", "skipped", Some("maintenance")).await;
    assert_eq!(fleet.lines("ticks").len(), ticks, "nothing ran");
    let off = fleet.cli(&["maintenance", "off", "--everything"]).await.ok();
    assert_eq!(off.text(), "maintenance 1 is off\n");
    newest_is(&fleet, "tick", "ran", None).await;
    drop(fleet.cli(&["maintenance", "off", "--everything"]).await.exits(5));
    drop(fleet.cli(&["maintenance", "off", "1"]).await.exits(6));
}

#[tokio::test]
async fn its_hosts_are_left_out_until_it_ends() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    let _web2 = fleet.agent("web2").await;
    let begun = on(&fleet, &["web1", "--for", "1h"]).await;
    let id = begun["id"].to_string();
    apply(&fleet, "both", "*", "echo both >> both").await;
    newest_is(&fleet, "both", "ran", None).await;
    let hosts_of_the_last = async || {
        let runs = fleet.cli(&["runs", "list", "--job", "both", "-o", "json"]).await.ok().json();
        let run = fleet.ended(runs.get(0)?.get("id")?.as_str()?).await;
        run.get("tasks")?.as_array().map(Vec::len)
    };
    assert_eq!(hosts_of_the_last().await, Some(1));
    let hosts = fleet.cli(&["hosts", "list"]).await.ok().text();
    let held: Vec<_> = hosts.lines().filter(|line| line.contains("online (maintenance)")).collect();
    assert!(held.len() == 1 && held[0].starts_with("web1"), "{hosts}");
    let listed = fleet.cli(&["maintenance", "list", "-o", "name"]).await.ok();
    assert_eq!(listed.text(), format!("{id}\n"));
    drop(fleet.cli(&["maintenance", "off", &id]).await.ok());
    wait_for("both to run on two hosts", PATIENCE, async || {
        (hosts_of_the_last().await == Some(2)).then_some(())
    })
    .await;
    assert_eq!(fleet.cli(&["maintenance", "list", "-o", "json"]).await.ok().json(), json!([]));
    let all = fleet.cli(&["maintenance", "list", "--all", "-o", "json"]).await.ok().json();
    assert_eq!((&all[0]["ended_by"], &all[0]["reason"]), (&"admin".into(), &"new disks".into()));
}
