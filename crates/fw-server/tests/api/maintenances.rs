//! Maintenances: switched on, listed, switched off, and seen elsewhere.

use serde_json::{Value, json};

use crate::server::{TestServer, problem};

fn ids(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn one_is_switched_on_shown_and_switched_off() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    server.host("db1", &[]).await;
    let new =
        json!({ "hosts": "web*", "reason": "new disks", "message": "back at noon", "for": "2h" });
    let (status, web) = server.post("/maintenances", new).await;
    assert_eq!((status, &web["id"], &web["by"]), (201, &json!(1), &json!("admin")), "{web}");
    assert_eq!((&web["covers"], &web["in_force"]), (&json!(1), &json!(true)));
    assert_eq!((&web["message"], &web["ended_by"]), (&json!("back at noon"), &Value::Null));
    let (_, all) =
        server.post("/maintenances", json!({ "everything": true, "reason": "move" })).await;
    assert_eq!(
        (&all["hosts"], &all["covers"], &all["until"]),
        (&Value::Null, &json!(2), &Value::Null)
    );
    assert_eq!(ids(&server.get("/maintenances").await.1), [1, 2]);

    let (status, ended) = server.request_end(2).await;
    assert_eq!((status, &ended["in_force"], &ended["covers"]), (200, &json!(false), &Value::Null));
    assert_eq!((&ended["ended_by"], ended["until"].is_string()), (&json!("admin"), true));
    assert_eq!(ids(&server.get("/maintenances").await.1), [1]);
    assert_eq!(ids(&server.get("/maintenances?all=true").await.1), [1, 2]);
    server.clock.shift(2 * 60 * 60 * 1000);
    assert_eq!(ids(&server.get("/maintenances").await.1), [] as [u64; 0], "it ends by itself");
    assert_eq!(server.get("/maintenances?all=true").await.1[0]["ended_by"], Value::Null);
}

#[tokio::test]
async fn hosts_runs_and_metrics_say_it() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    server.host("web2", &[]).await;
    server.host("db1", &[]).await;
    let new = json!({ "hosts": "web*", "reason": "new disks" });
    assert_eq!(server.post("/maintenances", new).await.0, 201);
    assert_eq!(server.get("/hosts/web1").await.1["maintenance"], 1);
    let (_, page) = server.get("/hosts").await;
    let seen: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|host| &host["maintenance"]).collect();
    assert_eq!(seen, [&Value::Null, &json!(1), &json!(1)]);
    let begin = async |hosts: &str| {
        let body = json!({ "hosts": hosts, "command": { "argv": ["true"] } });
        server.post("/runs", body).await.1["warning"].clone()
    };
    assert_eq!(begin("db1").await, Value::Null);
    insta::assert_snapshot!(begin("*").await.as_str().unwrap(), @"web1 and 1 more are in maintenance (`fleetwright maintenance list`); what is begun by hand runs there all the same");
    insta::assert_snapshot!(begin("web2").await.as_str().unwrap(), @"web2 is in maintenance (`fleetwright maintenance list`); what is begun by hand runs there all the same");
    let job = "jobs:\n  a: {schedule: '@daily', hosts: 'web1', run: 'true'}\n";
    assert_eq!(server.post("/jobs/apply", json!({ "text": job })).await.0, 200);
    let (status, begun) = server.post("/jobs/a/run", json!({})).await;
    assert!(status == 201 && begun["warning"].as_str().unwrap().starts_with("web1 is"), "{begun}");
    let metrics = server.client.get(format!("{}/metrics", server.url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("\nfleetwright_maintenances 1\n"), "{metrics}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_to_do() {
    let server = TestServer::start().await;
    let new = async |more: Value| {
        let mut body = json!({ "reason": "x" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        problem(&server.post("/maintenances", body).await)
    };
    let bad = [
        new(json!({})).await,
        new(json!({ "hosts": "*", "everything": true })).await,
        new(json!({ "hosts": "web* and (" })).await,
        new(json!({ "hosts": "*", "reason": " " })).await,
        new(json!({ "hosts": "*", "reason": "x".repeat(201) })).await,
        new(json!({ "hosts": "*", "message": "x".repeat(2001) })).await,
        new(json!({ "hosts": "*", "for": "1h", "until": "2999-01-01T00:00:00Z" })).await,
        new(json!({ "hosts": "*", "for": "11y" })).await,
        new(json!({ "hosts": "*", "until": "2999-01-01T00:00:00Z" })).await,
        new(json!({ "hosts": "*", "colour": "red" })).await,
        problem(&server.request_end(7).await),
        problem(&server.post("/maintenances/x/end", json!({})).await),
    ];
    insta::assert_snapshot!(bad.join("\n"), @r#"
    400 invalid_request: invalid request
    give either `hosts`, a selector, or `everything: true`
    400 invalid_request: invalid request
    give either `hosts`, a selector, or `everything: true`
    400 invalid_selector: invalid selector
    the selector ends where hosts should follow
    web* and (
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
    for: it is longer than 10 years; leave it out for no end
    400 invalid_request: invalid request
    until: it is longer than 10 years; leave it out for no end
    400 invalid_request: invalid body
    colour: unknown field `colour`, expected one of `hosts`, `everything`, `reason`, `message`, `for`, `until` at line 1 column 9
    404 not_found: no maintenance 7
    `fleetwright maintenance list` shows those that are in force
    400 invalid_request: invalid path
    Invalid URL: Cannot parse `x` to a `u32`
    "#);
    let past = [
        json!({ "hosts": "*", "for": "0s" }),
        json!({ "hosts": "*", "until": "2001-01-01T00:00:00Z" }),
    ];
    for (key, past) in ["for", "until"].iter().zip(past) {
        let said = new(past).await;
        assert!(
            said.contains(&format!("{key}: it would end at once; on the server it is 2")),
            "{said}"
        );
    }
    assert_eq!(server.get("/maintenances?all=true").await.1, json!([]));
    assert_eq!(server.post("/maintenances", json!({ "hosts": "*", "reason": "x" })).await.0, 201);
    assert_eq!(server.request_end(1).await.0, 200);
    let again = problem(&server.request_end(1).await);
    assert!(again.starts_with("409 conflict: maintenance 1 is over since 2"), "{again}");
    assert!(again.contains(", by admin\nthere is nothing to switch off"), "{again}");
}

impl TestServer {
    async fn request_end(&self, id: u32) -> crate::server::Answer {
        crate::server::answer(self.request("POST", &format!("/api/v1/maintenances/{id}/end"))).await
    }
}
