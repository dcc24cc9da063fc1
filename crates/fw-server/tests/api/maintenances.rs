//! Maintenances: switched on, listed, seen at a host, switched off.

use serde_json::{Value, json};

use crate::server::{TestServer, problem};

#[tokio::test]
async fn one_is_switched_on_and_off() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let (status, begun) = server
        .send(
            "POST",
            "/maintenances",
            json!({ "hosts": "web*", "reason": "new disks", "for": "2h" }),
        )
        .await;
    assert_eq!(status, 201, "{begun}");
    let keys: Vec<_> = begun.as_object().unwrap().keys().map(String::as_str).collect();
    insta::assert_snapshot!(keys.join(" "), @"by covers ended_by hosts id in_force message reason since until");
    assert_eq!((&begun["id"], &begun["covers"]), (&json!(1), &json!(1)));
    assert_eq!((&begun["by"], &begun["in_force"]), (&json!("admin"), &json!(true)));
    assert_eq!(server.get("/hosts/web1").await.1["maintenance"], 1);
    assert_eq!(server.get("/maintenances").await.1, json!([begun]));

    let (status, ended) = server.send("POST", "/maintenances/1/end", json!({})).await;
    assert_eq!((status, &ended["ended_by"]), (200, &json!("admin")));
    assert_eq!(server.get("/hosts/web1").await.1["maintenance"], Value::Null);
    assert_eq!(server.get("/maintenances").await.1, json!([]));
    assert_eq!(server.get("/maintenances?all=true").await.1, json!([ended]));
    let again = problem(&server.send("POST", "/maintenances/1/end", json!({})).await);
    assert!(again.starts_with("409 conflict: maintenance 1 is over since"), "{again}");
    insta::assert_snapshot!(problem(&server.send("POST", "/maintenances/7/end", json!({})).await), @r"
    404 not_found: no maintenance 7
    `fleetwright maintenance list` shows those that are in force
    ");
}

#[tokio::test]
async fn it_ends_by_itself_and_runs_and_metrics_say_it() {
    let server = TestServer::start().await;
    for host in ["web1", "web2", "db1"] {
        server.host(host, &[]).await;
    }
    let new = json!({ "hosts": "web*", "reason": "new disks", "for": "2h" });
    assert_eq!(server.post("/maintenances", new).await.0, 201);
    let begin = async |hosts: &str| {
        let body = json!({ "hosts": hosts, "command": { "argv": ["true"] } });
        server.post("/runs", body).await.1["warning"].clone()
    };
    let job = "jobs:\n  a: {schedule: '@daily', hosts: 'web1', run: 'true'}\n";
    assert_eq!(server.post("/jobs/apply", json!({ "text": job })).await.0, 200);
    let by_hand = server.post("/jobs/a/run", json!({})).await.1["warning"].clone();
    insta::assert_snapshot!(json!([begin("db1").await, begin("*").await, by_hand]), @r#"[null,"web1 and 1 more are in maintenance (1); what is begun by hand runs there all the same","web1 is in maintenance (1); what is begun by hand runs there all the same"]"#);
    let gauge = async || {
        let page = server.client.get(format!("{}/metrics", server.url)).send().await.unwrap();
        let page = page.text().await.unwrap();
        page.lines().find(|line| line.starts_with("fleetwright_maintenances ")).map(str::to_owned)
    };
    assert_eq!(gauge().await.as_deref(), Some("fleetwright_maintenances 1"));
    server.clock.shift(2 * 60 * 60 * 1000);
    assert_eq!(gauge().await.as_deref(), Some("fleetwright_maintenances 0"));
    assert_eq!(begin("*").await, Value::Null);
    assert_eq!(server.get("/maintenances").await.1, json!([]));
    let over = server.get("/maintenances?all=true").await.1[0].clone();
    assert_eq!((&over["in_force"], &over["ended_by"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = TestServer::start().await;
    let refused = async |new: Value| problem(&server.send("POST", "/maintenances", new).await);
    let mut said = Vec::new();
    for new in [
        json!({ "reason": "x" }),
        json!({ "reason": "x", "everything": true, "hosts": "web1" }),
        json!({ "reason": "x", "hosts": "web1 and (" }),
        json!({ "reason": " ", "everything": true }),
        json!({ "reason": "x".repeat(201), "everything": true }),
        json!({ "reason": "x", "message": "x".repeat(2001), "everything": true }),
        json!({ "reason": "x", "everything": true, "for": "1h", "until": "2126-01-01T00:00:00Z" }),
        json!({ "reason": "x", "everything": true, "until": "2126-01-01T00:00:00Z" }),
    ] {
        said.push(refused(new).await);
    }
    insta::assert_snapshot!(said.join("\n"), @r"
    400 invalid_request: invalid request
    give either `hosts`, a selector, or `everything: true`
    400 invalid_request: invalid request
    give either `hosts`, a selector, or `everything: true`
    400 invalid_selector: invalid selector
    the selector ends where hosts should follow
    web1 and (
              ^
    400 invalid_request: invalid request
    reason: use 1 to 200 bytes
    400 invalid_request: invalid request
    reason: use 1 to 200 bytes
    400 invalid_request: invalid request
    message: use at most 2000 bytes
    400 invalid_request: invalid request
    give either `for` or `until`
    400 invalid_request: invalid request
    until: it is longer than 10 years; leave it out for no end
    ");
    let past =
        refused(json!({ "reason": "x", "everything": true, "until": "2020-01-01T00:00:00Z" }));
    let past = past.await;
    assert!(past.contains("until: it would end at once"), "{past}");
    assert_eq!(server.get("/maintenances?all=true").await.1, json!([]));
}
