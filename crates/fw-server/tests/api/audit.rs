//! What is written down, and as whose.

use serde_json::{Value, json};

use crate::server::{TestServer, answer};
use crate::sign_in::{PASSWORD, first, open, sign_in};

/// All entries, the oldest first.
async fn entries(server: &TestServer) -> Vec<Value> {
    let (status, page) = server.get("/audit?limit=1000").await;
    assert_eq!(status, 200, "{page}");
    let mut items = page["items"].as_array().unwrap().clone();
    items.reverse();
    items
}

fn line(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", text("by"), text("action"), text("subject"))
}

#[tokio::test]
async fn who_gets_in_and_who_does_not_is_written_down() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let ask = |name: &str, password: &str| json!({ "name": name, "password": password });
    assert_eq!(open(&server, "/session", ask("alice", "wrong horse battery")).await.0.0, 401);
    assert_eq!(open(&server, "/session", ask("typed-a-password-here", PASSWORD)).await.0.0, 401);
    let step_up = async |password: &str| {
        alice.send("POST", "/session/step-up", json!({ "password": password })).await.0
    };
    assert_eq!(step_up("wrong horse battery").await, 401);
    assert_eq!(step_up(PASSWORD).await, 200);
    let other = sign_in(&server, "alice").await;
    assert_eq!(other.send("DELETE", "/sessions", json!({})).await.0, 204);
    assert_eq!(other.send("DELETE", "/session", json!({})).await.0, 204);
    let entries = entries(&server).await;
    let lines: Vec<_> = entries.iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    alice user.set_up alice
    alice session.begin alice
    server session.refused alice
    server session.refused an unknown name
    alice session.step_up_refused alice
    alice session.step_up alice
    alice session.begin alice
    alice session.end_others alice
    alice session.end alice
    ");
    assert!(entries.iter().all(|entry| entry["address"] == "127.0.0.1"));
    let all = Value::Array(entries).to_string();
    let cookie = other.cookie.split_once('=').unwrap().1;
    for secret in [PASSWORD, "wrong horse", "typed-a-password", cookie] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
    assert_eq!(server.get("/audit/verify").await.1["broken"], Value::Null);
}

#[tokio::test]
async fn a_token_is_told_from_a_person_of_its_name() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let (_, made) = server.post("/tokens", json!({ "name": "alice" })).await;
    let with = |method: &str, path: &str| {
        let url = format!("{}/api/v1{path}", server.url);
        let request = server.client.request(method.parse().unwrap(), url);
        request.bearer_auth(made["token"].as_str().unwrap())
    };
    let new = |name: &str| json!({ "name": name, "scopes": ["read"] });
    assert_eq!(answer(with("POST", "/tokens").json(&new("a"))).await.0, 201);
    assert_eq!(alice.send("POST", "/tokens", new("b")).await.0, 201);
    assert_eq!(alice.send("DELETE", "/tokens/a", json!({})).await.0, 204);
    let by = async |by: &str| {
        let (_, page) = server.get(&format!("/audit?by={by}&action=token.create")).await;
        page["items"].as_array().unwrap().iter().map(line).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(by("alice").await, "alice token.create b");
    assert_eq!(by("token:alice").await, "token:alice token.create a");
    let (_, removed) = server.get("/audit?action=token.remove").await;
    assert_eq!(removed["items"][0]["before"]["scopes"], json!(["read"]));
}

#[tokio::test]
async fn jobs_and_runs_say_what_was_and_what_is() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let text = |command: &str| {
        format!(
            "jobs:\n  nightly:\n    schedule: '0 3 * * *'\n    hosts: web1\n    run: {command}\n    \
             env: {{KEY: hunter2}}\n"
        )
    };
    let apply = async |command: &str| {
        let (status, body) = server.post("/jobs/apply", json!({ "text": text(command) })).await;
        assert_eq!(status, 200, "{body}");
    };
    apply("backup").await;
    apply("backup --all").await;
    apply("backup --all").await;
    assert_ne!(server.post("/jobs/apply", json!({ "text": "jobs: {x: 1}" })).await.0, 200);
    assert_eq!(server.post("/jobs/nightly/pause", json!({})).await.0, 200);
    assert_eq!(server.delete("/jobs/nightly").await.0, 204);
    server.waiting_run("web1").await;
    let entries = entries(&server).await;
    let changes: Vec<_> = entries
        .iter()
        .map(|entry| format!("{} {} {}", line(entry), entry["before"], entry["after"]))
        .collect();
    let [new, changed, paused, deleted, begun] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(new.starts_with("token:admin job.apply nightly null {"), "{new}");
    assert!(new.contains(r#""schedule":"0 3 * * *""#) && new.contains(r#""env":["KEY"]"#), "{new}");
    assert_eq!(
        changed,
        r#"token:admin job.apply nightly {"command":"backup"} {"command":"backup --all"}"#
    );
    assert_eq!(paused, r#"token:admin job.pause nightly {"paused":false} {"paused":true}"#);
    assert!(deleted.contains(r#""command":"backup --all""#), "{deleted}");
    assert!(begun.ends_with(r#"null {"command":["true"],"hosts":"web1"}"#), "{begun}");
    assert!(!changes.concat().contains("hunter2"), "{changes:?}");
}

#[tokio::test]
async fn who_follows_hears_that_something_was_changed() {
    let server = TestServer::start().await;
    let mut events = server.events("/events?topics=touched", None).await;
    let first = events.through("snapshot").await.pop().unwrap();
    let before = first.data["rows"]["audit"]["n"].as_u64().unwrap();
    assert_eq!(server.post("/tokens", json!({ "name": "ci" })).await.0, 201);
    let told = events.through("delta").await.pop().unwrap();
    assert_eq!(told.data["rows"]["audit"]["n"], before + 1, "{}", told.data);
    assert_eq!(told.data["rows"]["runs"], Value::Null);
}
