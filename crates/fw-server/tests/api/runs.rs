//! Runs: begun, followed, ended, repeated.

use fw_proto::record::Offsets;
use serde_json::{Value, json};

use crate::server::{TestServer, problem};

#[tokio::test]
async fn a_run_is_begun_shown_listed_and_cancelled() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    server.host("web2", &[]).await;
    let run = server.waiting_run("web*").await;
    let (_, shown) = server.get(&format!("/runs/{run}")).await;
    assert_eq!(
        (&shown["state"], &shown["by"], &shown["hosts"]),
        (&json!("planned"), &json!("admin"), &json!("web*"))
    );
    assert_eq!(shown["report"]["waiting_on"][0]["on"], "offline");
    let tasks: Vec<_> =
        shown["tasks"].as_array().unwrap().iter().map(|task| &task["host"]).collect();
    assert_eq!(tasks, ["web1", "web2"]);
    // The list knows what it waits on, too.
    let (_, list) = server.get("/runs?state=planned").await;
    assert_eq!(list["items"][0]["report"], shown["report"]);
    assert_eq!(server.get("/runs?host=db1").await.1["items"], json!([]));
    assert_eq!(server.post(&format!("/runs/{run}/cancel"), json!({})).await, (202, Value::Null));
    server.until(run, "cancelled").await;
    let metrics = server.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"fleetwright_tasks_total{result="cancelled"}"#), "{metrics}");
    assert!(metrics.contains("fleetwright_commits_total"), "{metrics}");
    let again = server.post(&format!("/runs/{run}/cancel"), json!({})).await;
    assert_eq!((again.0, &again.1["code"]), (409, &json!("conflict")));
}

#[tokio::test]
async fn a_run_is_cancelled_on_some_hosts_and_goes_on_at_the_others() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    server.host("web2", &[]).await;
    server.host("db1", &[]).await;
    let run = server.waiting_run("web*").await;
    let path = format!("/runs/{run}/cancel");
    let nowhere = server.post(&path, json!({"hosts": "db1"})).await;
    assert_eq!((nowhere.0, &nowhere.1["code"]), (422, &json!("no_hosts")));
    let wrong = server.post(&path, json!({"hosts": "web1 and"})).await;
    assert_eq!(wrong.1["code"], "invalid_selector");
    assert_eq!(server.post(&path, json!({"hosts": "web1,db1"})).await, (202, Value::Null));
    let (_, shown) = server.get(&format!("/runs/{run}")).await;
    let states: Vec<_> =
        shown["tasks"].as_array().unwrap().iter().map(|task| &task["state"]).collect();
    assert_eq!(states, ["cancelled", "queued"]);
    let again = server.post(&path, json!({"hosts": "web1"})).await;
    assert_eq!(again.0, 422, "it has ended there");
    assert_eq!(server.post(&path, json!({"hosts": "web2"})).await.0, 202);
    server.until(run, "cancelled").await;
    assert_eq!(server.post(&path, json!({"hosts": "web2"})).await.0, 409);
}

#[tokio::test]
async fn the_list_is_paged_newest_first() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.insert(0, server.waiting_run("web1").await.to_string());
    }
    let ids = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, first) = server.get("/runs?limit=2").await;
    let (_, second) =
        server.get(&format!("/runs?limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!([ids(&first), ids(&second)].concat(), runs);
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn a_run_that_cannot_be_is_refused_with_what_to_do() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let with = |hosts: &str, more: Value| {
        let mut body = json!({ "hosts": hosts, "command": { "argv": ["true"] } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let bad = [
        server.post("/runs", with("web* and", json!({}))).await,
        server.post("/runs", with("db*", json!({}))).await,
        server.post("/runs", with("web1", json!({ "parallel": 0 }))).await,
        server.post("/runs", with("web1", json!({ "env": { "1A": { "value": "" } } }))).await,
        server.post("/runs", with("web1", json!({ "env": { "A": { "secret": "db" } } }))).await,
    ];
    insta::assert_snapshot!(bad.each_ref().map(problem).join("\n"), @r#"
    400 invalid_selector: invalid selector
    the selector ends where hosts should follow
    web* and
            ^
    422 no_hosts: the selector matched no host
    `fleetwright hosts select` shows what a selector picks; revoked hosts are never picked
    400 invalid_request: invalid request
    parallel: with 0 nothing would start; give at least 1, or leave it out for no limit
    400 invalid_request: invalid request
    env: "1A" cannot be a variable's name; use letters, digits and '_', and begin with no digit
    422 no_secret: there is no secret "db"
    set it with `fleetwright secrets set`
    "#);
    assert_eq!(server.get("/runs").await.1["items"], json!([]));
}

#[tokio::test]
async fn what_failed_is_run_again_and_knows_what_it_repeats() {
    let server = TestServer::start().await;
    let (web1, web2) = (server.host("web1", &[]).await, server.host("web2", &[]).await);
    let run = server.waiting_run("web*").await;
    assert_eq!(server.post(&format!("/runs/{run}/retry"), json!({})).await.0, 409);
    server.ended(run, web1, 0, Offsets::default()).await;
    server.ended(run, web2, 7, Offsets::default()).await;
    server.until(run, "failed").await;
    server.send("PATCH", "/hosts/web2", json!({ "name": "www" })).await;
    let (status, made) =
        server.post(&format!("/runs/{run}/retry"), json!({ "failed": true })).await;
    assert_eq!(status, 201);
    let (_, again) = server.get(&format!("/runs/{}", made["id"].as_str().unwrap())).await;
    assert_eq!((&again["retry_of"], &again["tasks"][0]["host"]), (&json!(run), &json!("www")));
    assert_eq!(again["report"]["total"], 1);
    let (_, all) = server.post(&format!("/runs/{run}/retry"), json!({})).await;
    let (_, all) = server.get(&format!("/runs/{}", all["id"].as_str().unwrap())).await;
    assert_eq!(all["report"]["total"], 2);
    server.post("/hosts/www/revoke", json!({})).await;
    let none = server.post(&format!("/runs/{run}/retry"), json!({ "failed": true })).await;
    assert_eq!((none.0, &none.1["code"]), (422, &json!("no_hosts")));
}

#[tokio::test]
async fn a_run_is_followed_from_how_it_stands_to_its_end() {
    let server = TestServer::start().await;
    let (web1, web2) = (server.host("web1", &[]).await, server.host("web2", &[]).await);
    let run = server.waiting_run("web*").await;
    let mut events = server.events(&format!("/runs/{run}/events"), None).await;
    let mut names = Vec::new();
    for _ in 0..3 {
        let event = events.next().await.unwrap();
        names.push((event.name, event.data["host"].clone()));
    }
    assert_eq!(names[0], ("run".into(), Value::Null));
    assert_eq!(names[1..], [("task".into(), json!("web1")), ("task".into(), json!("web2"))]);
    server.ended(run, web1, 0, Offsets::default()).await;
    let task = events.through("task").await.pop().unwrap();
    assert_eq!((&task.data["host"], &task.data["state"]), (&json!("web1"), &json!("succeeded")));
    assert_eq!(task.data["kind"], "task");
    server.ended(run, web2, 1, Offsets::default()).await;
    let end = events.through("end").await.pop().unwrap();
    assert_eq!((&end.data["kind"], &end.data["state"]), (&json!("run"), &json!("failed")));
    assert_eq!(events.next().await, None);
    // Who comes late, or again, sees how it ended.
    let mut late = server.events(&format!("/runs/{run}/events"), end.id.as_deref()).await;
    let late = late.through("end").await;
    assert_eq!(late.last().unwrap().data, end.data);
}

#[tokio::test]
async fn who_comes_back_to_a_run_misses_nothing() {
    let server = TestServer::start().await;
    let (web1, web2) = (server.host("web1", &[]).await, server.host("web2", &[]).await);
    let run = server.waiting_run("web*").await;
    let path = format!("/runs/{run}/events");
    let mut events = server.events(&path, None).await;
    server.ended(run, web1, 0, Offsets::default()).await;
    let seen = loop {
        let event = events.next().await.unwrap();
        if event.data["state"] == "succeeded" {
            break event.id.unwrap();
        }
    };
    assert!(seen.starts_with(&format!("{run}/")), "{seen}");
    drop(events);
    let mut back = server.events(&path, Some(&seen)).await;
    server.ended(run, web2, 0, Offsets::default()).await;
    let rest = back.through("end").await;
    assert!(
        rest.iter().any(|event| event.data["host"] == "web2" && event.data["state"] == "succeeded")
    );
    let bad = server.request("GET", &format!("/api/v1{path}")).header("last-event-id", "x/1");
    assert_eq!(crate::server::answer(bad).await.0, 400);
    let nowhere = server.get("/runs/00000000-0000-0000-0000-000000000000/events").await;
    assert_eq!(nowhere.0, 404);
}

#[tokio::test]
async fn a_server_stops_though_someone_follows() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let run = server.waiting_run("web1").await;
    let mut events = server.events(&format!("/runs/{run}/events"), None).await;
    events.next().await.unwrap();
    let TestServer { running, dir, .. } = server;
    let begun = tokio::time::Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    while events.next().await.is_some() {}
    // The run goes on in the next life.
    let again = TestServer::in_dir(dir, |_| {}).await;
    assert_eq!(again.get(&format!("/runs/{run}")).await.1["state"], "planned");
}
