//! Side by side: a server that only says what it would start, beside one that runs the same directory, and
//! the report that compares them.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use futures_util::{SinkExt as _, StreamExt as _};
use fw_rt::Tasks;
use fw_testkit::fleet::{Fleet, Output, PATIENCE, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A directory of Saltpeter with these jobs; its logs go below it.
fn directory(jobs: &str) -> TempDir {
    let dir = TempDir::with_prefix("saltpeter-test-").expect("a temporary directory");
    let logs = dir.path().join("logs");
    let config =
        format!("saltpeter_config: {{api_ws: true, api_ws_port: 0, logdir: {}}}\n", logs.display());
    std::fs::write(dir.path().join("config.yaml"), config).expect("a new file");
    std::fs::write(dir.path().join("jobs.yaml"), jobs).expect("a new file");
    dir
}

async fn shadow(dir: &TempDir) -> Fleet {
    let path = dir.path().display().to_string();
    Fleet::start_with(BINARY, &["--saltpeter", &path, "--saltpeter-shadow"]).await
}

async fn ledger(fleet: &Fleet, job: &str) -> Vec<Value> {
    let ledger = fleet.cli(&["jobs", "ledger", job, "-o", "json"]).await.ok().json();
    ledger.as_array().or_else(|| ledger["items"].as_array()).expect("a list").clone()
}

/// Waits until so many fires say where they would have run.
async fn shadowed(fleet: &Fleet, job: &str, most: usize) -> Vec<Value> {
    wait_for("fires of the shadow", PATIENCE, async || {
        let mut fires = ledger(fleet, job).await;
        fires.retain(|fire| fire["verdict"] == "shadow" && fire["hosts"] == json!(["web1"]));
        (fires.len() >= most).then_some(fires)
    })
    .await
}

async fn compare(fleet: &Fleet, with: &str, args: &[&str]) -> Output {
    let mut all = vec!["dialects", "compare", "saltpeter", "--with", with];
    all.extend(args);
    fleet.cli(&all).await
}

#[tokio::test]
async fn a_shadow_agrees_with_the_server_that_runs_the_same_directory() {
    let tick = "tick: {sec: '*/3', min: '*', hour: '*', dom: '*', mon: '*', dow: '*', targets: 'web*', target_type: glob, command: 'echo tick'}\n";
    let dir = directory(tick);
    let path = dir.path().display().to_string();
    let real = Fleet::start_with(BINARY, &["--saltpeter", &path]).await;
    let shadow = shadow(&dir).await;
    let (_there, _here) = (real.agent("web1").await, shadow.agent("web1").await);
    shadowed(&shadow, "tick", 3).await;

    // The shadow runs nothing, serves nothing and writes nothing.
    let runs = shadow.cli(&["runs", "list", "-o", "json"]).await.ok().json();
    assert!(runs.as_array().or_else(|| runs["items"].as_array()).expect("a list").is_empty());
    let log = shadow.server.log();
    assert!(!log.contains("saltpeter.api=") && log.contains("shadow mode"), "{log}");
    assert!(!shadow.data_dir().join("saltpeter").exists(), "no queue of records");
    let refused = shadow.cli(&["jobs", "run", "tick"]).await.exits(6);
    assert!(refused.stderr.contains("another scheduler runs it"), "{}", refused.stderr);
    let table = shadow.cli(&["jobs", "ledger", "tick", "--limit", "1"]).await.ok().text();
    assert!(table.contains("would run on web1"), "{table}");

    let log = real.server.log();
    let (_, rest) = log.rsplit_once("saltpeter.api=").expect("its API listens");
    let with = format!("http://{}", rest.split_whitespace().next().expect("an address"));
    // What was before both had their host is left out.
    let begun = shadowed(&shadow, "tick", 3).await;
    let oldest = begun.last().expect("three")["from"].as_str().expect("a time").to_owned();
    let since = since(&oldest);
    let args = ["--since", &since, "--tolerance", "2900ms", "-o", "json"];
    let agreed = compare(&shadow, &with, &args);
    let agreed = agreed.await.ok().json();
    assert!(agreed["same"].as_u64().expect("a number") >= 2, "{agreed}");
    assert_eq!((&agreed["different"], &agreed["timeline"]), (&json!(0), &json!(true)), "{agreed}");
    assert!(agreed["jobs"][0]["same_hosts"].as_u64().expect("a number") >= 1, "{agreed}");

    // Nobody is there, and that is no address.
    let nobody = compare(&shadow, "http://127.0.0.1:1", &[]).await.exits(1);
    assert!(nobody.stderr.contains("ws://127.0.0.1:1/ws"), "{}", nobody.stderr);
    let wrong = compare(&shadow, "127.0.0.1:1", &[]).await.exits(2);
    assert!(wrong.stderr.contains("http://HOST:8888"), "{}", wrong.stderr);
}

/// How long ago that was, and a little less.
fn since(then: &str) -> String {
    let then: fw_proto::Timestamp = then.parse().expect("a time");
    let now = fw_rt::Clock::system().now();
    format!("{}ms", now.since(then).as_millis() + 500)
}

/// Stands in for a Saltpeter without a search server, in the messages of the recorded one: it says what
/// `messages` says, then the last state again and again.
async fn standin(tasks: &Tasks, messages: Vec<Value>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn("stand-in", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a page");
            for message in &messages {
                socket.send(Message::text(message.to_string())).await.expect("it listens");
            }
            // As the original, it answers a subscription with its state and the details.
            while let Some(Ok(message)) = socket.next().await {
                let subscribes = message.to_text().is_ok_and(|text| text.contains("subscribe"));
                let twice = [&messages, &messages].into_iter().flatten().filter(|_| subscribes);
                for message in twice {
                    if socket.send(Message::text(message.to_string())).await.is_err() {
                        break;
                    }
                }
            }
        }
    });
    format!("http://{address}")
}

/// What a Saltpeter tells whose job last ran then, on these machines.
fn told(job: &str, last: &str, machines: &[&str]) -> Vec<Value> {
    let last = last.replace('Z', "+00:00");
    let seconds: fw_proto::Timestamp = last.replace("+00:00", "Z").parse().expect("a time");
    let began = last.replace('T', " ");
    let result =
        json!({"ret": "", "retcode": 0, "starttime": began, "endtime": began, "output_length": 0});
    let results: serde_json::Map<_, _> =
        machines.iter().map(|machine| ((*machine).to_owned(), result.clone())).collect();
    let serial = seconds.as_millis() / 1000 - 3600;
    let config = json!({"crons": {job: {"targets": "web*"}}, "maintenance": {"global": false, "machines": []}, "serial": serial});
    let state = json!({job: {"last_run": last, "result_ok": true}});
    vec![
        json!({"type": "config", "config": config, "sp_version": "0.9.31"}),
        json!({"type": "status", "running": {}, "last_state": state, "sp_version": "0.9.31"}),
        json!({"timeline": {}}),
        json!({"type": "details", "cron": job, "data": {"last_run": last, "overlap": false, "group": "jobs", "targets": machines, "results": results}}),
    ]
}

#[tokio::test]
async fn differences_from_a_saltpeter_are_told() {
    let tick = "tick: {sec: '*/3', min: '*', hour: '*', dom: '*', mon: '*', dow: '*', targets: 'web*', target_type: glob, command: 'echo tick'}\n";
    let dir = directory(tick);
    let (tasks, shadow) = (Tasks::new(), shadow(&dir).await);
    let _web1 = shadow.agent("web1").await;
    let fires = shadowed(&shadow, "tick", 3).await;
    let last = fires[0]["from"].as_str().expect("a time").to_owned();

    // The same instant, on the same host: what came since is too recent to tell.
    let with = standin(&tasks, told("tick", &last, &["web1"])).await;
    let recent = ["--tolerance", "20s", "--since", "60s"];
    let same = compare(&shadow, &with, &recent).await.ok().text();
    assert!(same.contains("tick: 1 the same (1 with their hosts), 0 different"), "{same}");
    assert!(same.contains("--follow sees more"), "{same}");

    let with = standin(&tasks, told("tick", &last, &["web1", "web9"])).await;
    let other = compare(&shadow, &with, &recent).await.exits(6).text();
    assert!(other.contains("other hosts; only there: web9"), "{other}");

    // It has not run since, though it was due.
    let with = standin(&tasks, told("tick", &last, &["web1"])).await;
    wait_for("a missing fire", PATIENCE, async || {
        let args = ["--tolerance", "1s", "--since", "60s", "-o", "json"];
        let found = compare(&shadow, &with, &args).await;
        let json = (found.code == 6).then(|| found.json())?;
        (json["jobs"][0]["differences"][0]["what"] == "missing").then_some(())
    })
    .await;

    let with = standin(&tasks, told("other", &last, &["web1"])).await;
    let found = compare(&shadow, &with, &recent).await.exits(6).text();
    assert!(found.contains("tick: this job is only here"), "{found}");
    assert!(found.contains("other: this job is only there"), "{found}");
}

#[tokio::test]
async fn a_shadow_takes_no_port_of_saltpeter() {
    let dir = directory("");
    let path = dir.path().display().to_string();
    let data = TempDir::new().expect("a temporary directory");
    let data = data.path().display().to_string();
    let fleet = Fleet::start(BINARY).await;
    for flag in ["--saltpeter-api", "--saltpeter-machines"] {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data, "--saltpeter", &path];
        let args = [&args[..], &["--saltpeter-shadow", flag, "127.0.0.1:0"]].concat();
        let refused = fleet.plain(&args).await.exits(1);
        assert!(refused.stderr.contains("is not served in shadow mode"), "{}", refused.stderr);
    }
}
