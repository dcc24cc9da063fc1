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
