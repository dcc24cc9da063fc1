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
    insta::assert_snapshot!(keys.join(" "), @"by by_kind covers ended_by hosts id in_force message reason running since source until windows");
    assert_eq!((&begun["id"], &begun["covers"]), (&json!(1), &json!(1)));
    assert_eq!((&begun["by"], &begun["in_force"]), (&json!("admin"), &json!(true)));
    assert_eq!(server.get("/hosts/web1").await.1["maintenance"], 1);
    assert_eq!(server.get("/maintenances").await.1, json!([begun]));
    assert_eq!(server.get("/maintenances/1").await.1, begun);
    assert_eq!(begun["running"], json!({ "tasks": 0, "hosts": 0, "on": [] }));
    let told = &server.get("/server").await.1["maintenance"];
    insta::assert_snapshot!(told[0].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" "), @"hosts id message reason source until");
    assert_eq!((&told[0]["hosts"], told.as_array().unwrap().len()), (&json!("web*"), 1));
    assert_eq!(header(&server).await.as_deref(), Some("1"));

    let (status, ended) = server.send("POST", "/maintenances/1/end", json!({})).await;
    assert_eq!((status, &ended["ended_by"]), (200, &json!("admin")));
    assert_eq!((&begun["by_kind"], &ended["ended_by_kind"]), (&json!("token"), &json!("token")));
    assert_eq!(server.get("/hosts/web1").await.1["maintenance"], Value::Null);
    assert_eq!(server.get("/server").await.1["maintenance"], json!([]));
    assert_eq!(header(&server).await, None);
    assert_eq!(
        problem(&server.get("/maintenances/7").await),
        "404 not_found: no maintenance 7\n`fleetwright maintenance list --all` shows those that are known"
    );
    assert_eq!(server.get("/maintenances").await.1, json!([]));
    assert_eq!(server.get("/maintenances?all=true").await.1, json!([ended]));
    let again = problem(&server.send("POST", "/maintenances/1/end", json!({})).await);
    assert!(again.starts_with("409 conflict: maintenance 1 is over since"), "{again}");
    insta::assert_snapshot!(problem(&server.send("POST", "/maintenances/7/end", json!({})).await), @r"
    404 not_found: no maintenance 7
    `fleetwright maintenance list` shows those that are in force
    ");
}

/// What any answer says of maintenances; strangers learn nothing.
async fn header(server: &TestServer) -> Option<String> {
    let read = |answer: reqwest::Response| {
        let header = answer.headers().get("fleetwright-maintenance");
        header.map(|value| value.to_str().unwrap().to_owned())
    };
    let stranger = server.client.get(format!("{}/api/v1/hosts", server.url)).send().await.unwrap();
    assert_eq!((stranger.status().as_u16(), read(stranger)), (401, None));
    read(server.request("GET", "/api/v1/hosts").send().await.unwrap())
}

#[tokio::test]
async fn what_still_runs_is_counted_and_can_be_ended() {
    let server = TestServer::start().await;
    for host in ["db1", "web1", "web2"] {
        server.host(host, &[]).await;
    }
    let (both, one) = (server.waiting_run("*").await, server.waiting_run("web2").await);
    let begin = async |more: Value| {
        let mut body = json!({ "hosts": "web*", "reason": "new disks" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/maintenances", body).await.1
    };
    let begun = begin(json!({})).await;
    assert_eq!(begun["running"], json!({ "tasks": 3, "hosts": 2, "on": ["web1", "web2"] }));
    let begun = begin(json!({ "stop_running": true })).await;
    assert_eq!(begun["running"], json!({ "tasks": 0, "hosts": 0, "on": [] }));
    server.until(one, "cancelled").await;
    let run = server.get(&format!("/runs/{both}")).await.1;
    let states: Vec<_> = run["tasks"].as_array().unwrap().iter().map(|t| &t["state"]).collect();
    assert_eq!(states[1..], ["cancelled", "cancelled"], "{states:?}");
    assert_ne!(states[0], "cancelled", "db1 is not covered");
    let audit = server.get("/audit?limit=10").await.1["items"].clone();
    let actions = audit.as_array().unwrap().iter().map(|row| (&row["action"], &row["subject"]));
    let cancels: Vec<_> = actions.filter(|(action, _)| **action == "run.cancel").collect();
    assert_eq!(cancels.len(), 2, "{audit}");
}

#[tokio::test]
async fn one_recurs_and_is_on_between_its_windows() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let begin = (server.clock.now() + fw_proto::Span::from_secs(3600)).to_string();
    let every = format!("{} {} * * *", &begin[14..16], &begin[11..13]);
    let new = json!({ "hosts": "web*", "reason": "patches", "every": every, "for": "90m" });
    let (status, begun) = server.post("/maintenances", new).await;
    assert_eq!((status, &begun["in_force"]), (201, &json!(false)), "{begun}");
    assert_eq!((&begun["running"], &begun["until"]), (&Value::Null, &Value::Null));
    let windows = &begun["windows"];
    assert_eq!((&windows["every"], &windows["timezone"]), (&json!(every), &json!("UTC")));
    assert_eq!(
        (&windows["for"], &windows["next"]["from"].as_str().unwrap()[..16]),
        (&json!("1h 30m"), &begin[..16])
    );
    assert_eq!(
        (header(&server).await, server.get("/hosts/web1").await.1["maintenance"].clone()),
        (None, Value::Null)
    );
    server.clock.shift(3_600_000);
    let on = server.get("/maintenances").await.1[0].clone();
    assert_eq!((&on["in_force"], &on["running"]["tasks"]), (&json!(true), &json!(0)));
    assert_eq!(header(&server).await.as_deref(), Some("1"));
    let told = &server.get("/server").await.1["maintenance"][0];
    assert_eq!(told["until"], on["windows"]["next"]["until"]);
    server.clock.shift(5_400_000);
    let on = server.get("/maintenances").await.1[0].clone();
    assert_eq!((&on["in_force"], header(&server).await), (&json!(false), None));
    assert_eq!(server.post("/maintenances/1/end", json!({})).await.0, 200);
    assert_eq!(server.get("/maintenances").await.1, json!([]));
}

#[tokio::test]
async fn windows_that_make_no_sense_are_refused() {
    let server = TestServer::start().await;
    for (new, why) in [
        (json!({ "every": "0 2 * * sun" }), "for: say how long each window lasts"),
        (
            json!({ "every": "0 2 * * *", "for": "2h", "until": "2126-01-01T00:00:00Z" }),
            "until: one that recurs ends when it is switched off",
        ),
        (
            json!({ "every": "0 2 * * *", "for": "2h", "stop_running": true }),
            "stop_running: one that recurs ends nothing",
        ),
        (json!({ "every": "0 2 * * *", "for": "59s" }), "for: a window lasts from 1m to 31d"),
        (json!({ "every": "0 2 * * *", "for": "32d" }), "for: a window lasts from 1m to 31d"),
        (json!({ "every": "0 25 * * *", "for": "2h" }), "every: "),
        (
            json!({ "every": "0 2 * * *", "for": "2h", "timezone": "Europe/Athen" }),
            "did you mean Europe/Athens?",
        ),
        (json!({ "every": "0 * * * *", "for": "1h" }), "for: the next window begins before"),
        (json!({ "every": "0 0 0 1 1 * 2001", "for": "2h" }), "every: no window is ahead"),
        (json!({ "timezone": "Europe/Athens" }), "timezone: it goes with `every`"),
    ] {
        let mut body = json!({ "everything": true, "reason": "x" });
        body.as_object_mut().unwrap().extend(new.as_object().unwrap().clone());
        let said = problem(&server.post("/maintenances", body).await);
        assert!(said.starts_with("400 invalid_request") && said.contains(why), "{new}: {said}");
    }
    assert_eq!(server.get("/maintenances?all=true").await.1, json!([]));
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
