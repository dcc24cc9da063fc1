//! Hosts: found, changed, revoked, invited, followed.

use fw_proto::Join;
use serde_json::{Value, json};

use crate::server::{TestServer, problem};

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn hosts_come_in_pages_by_name() {
    let server = TestServer::start().await;
    for name in ["web2", "db1", "web1"] {
        server.host(name, &[]).await;
    }
    let (_, all) = server.get("/hosts").await;
    assert_eq!((names(&all), &all["next"]), (vec!["db1", "web1", "web2"], &Value::Null));
    let (_, first) = server.get("/hosts?limit=2").await;
    assert_eq!(names(&first), ["db1", "web1"]);
    let (_, second) =
        server.get(&format!("/hosts?limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!((names(&second), &second["next"]), (vec!["web2"], &Value::Null));
    let (_, web) = server.get("/hosts?selector=web*").await;
    assert_eq!(names(&web), ["web1", "web2"]);
}

#[tokio::test]
async fn a_host_is_found_by_name_and_id_and_shown_whole() {
    let server = TestServer::start().await;
    let id = server.host("web1", &[("stage", "canary")]).await;
    let (_, host) = server.get("/hosts/web1").await;
    assert_eq!(server.get(&format!("/hosts/{id}")).await.1, host);
    let keys: Vec<_> = host.as_object().unwrap().keys().map(String::as_str).collect();
    insta::assert_snapshot!(keys.join(" "), @"agent_version facts id joined_at labels last_seen maintenance name offline_since policy state");
    assert_eq!(
        (&host["state"], &host["labels"]),
        (&json!("offline"), &json!({ "stage": "canary" }))
    );
    insta::assert_snapshot!(problem(&server.get("/hosts/nope").await), @r#"
    404 not_found: no host "nope"
    `fleetwright hosts list` shows those that there are
    "#);
}

#[tokio::test]
async fn a_host_is_renamed_unless_the_name_is_taken_or_none() {
    let server = TestServer::start().await;
    let id = server.host("web1", &[]).await;
    server.host("web2", &[]).await;
    let (status, host) = server.send("PATCH", "/hosts/web1", json!({ "name": "www" })).await;
    assert_eq!((status, &host["id"], &host["name"]), (200, &json!(id), &json!("www")));
    let taken = server.send("PATCH", "/hosts/www", json!({ "name": "web2" })).await;
    let bad = server.send("PATCH", "/hosts/www", json!({ "name": "../etc" })).await;
    insta::assert_snapshot!([taken, bad].each_ref().map(problem).join("\n"), @r#"
    409 name_taken: the name web2 is taken
    choose another name, or first rename or remove the host that has it (`fleetwright hosts rename`, `fleetwright hosts remove`)
    400 invalid_request: invalid body
    name: "../etc" cannot be a name: use only letters, digits, '.', '_' and '-' at line 1 column 17
    "#);
}

#[tokio::test]
async fn labels_are_set_and_taken_off_within_bounds() {
    let server = TestServer::start().await;
    server.host("web1", &[("a", "1"), ("b", "2")]).await;
    let change = json!({ "set": { "c": "3" }, "remove": ["a"] });
    let (_, host) = server.send("PATCH", "/hosts/web1/labels", change).await;
    assert_eq!(host["labels"], json!({ "b": "2", "c": "3" }));
    let many: serde_json::Map<_, _> = (0..64).map(|n| (format!("k{n}"), json!(""))).collect();
    for bad in [
        json!({ "set": { "a b": "1" } }),
        json!({ "set": { "a": "\u{7}" } }),
        json!({ "set": many }),
    ] {
        assert_eq!(server.send("PATCH", "/hosts/web1/labels", bad).await.0, 400);
    }
}

#[tokio::test]
async fn a_selector_is_tried_and_an_error_has_a_caret() {
    let server = TestServer::start().await;
    server.host("web1", &[("stage", "canary")]).await;
    server.host("web2", &[]).await;
    let (_, picked) = server.get("/hosts/select?expr=web*%20and%20not%20label:stage=canary").await;
    assert_eq!(picked, json!({ "hosts": ["web2"] }));
    insta::assert_snapshot!(problem(&server.get("/hosts/select?expr=web*%20and%20(").await), @r#"
    400 invalid_selector: invalid selector
    the selector ends where hosts should follow
    web* and (
              ^
    "#);
}

#[tokio::test]
async fn a_revoked_host_is_shown_and_never_chosen_and_a_removed_one_is_gone() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let (status, host) = server.post("/hosts/web1/revoke", json!({})).await;
    assert_eq!((status, &host["state"]), (200, &json!("revoked")));
    assert_eq!(server.get("/hosts/select?expr=*").await.1, json!({ "hosts": [] }));
    assert_eq!(names(&server.get("/hosts").await.1), ["web1"]);
    assert_eq!(server.delete("/hosts/web1").await.0, 204);
    assert_eq!(server.get("/hosts/web1").await.0, 404);
}

#[tokio::test]
async fn revoking_a_host_settles_its_tasks() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let run = server.waiting_run("web1").await;
    server.post("/hosts/web1/revoke", json!({})).await;
    let ended = server.until(run, "failed").await;
    assert_eq!(ended["tasks"][0]["reason"], "revoked");
}

#[tokio::test]
async fn an_invitation_is_a_join_string_that_is_warned_of_on_loopback() {
    let server = TestServer::start().await;
    let (status, made) = server.post("/hosts/invite", json!({ "uses": 3, "ttl": "2h" })).await;
    assert_eq!((status, &made["uses"]), (200, &json!(3)));
    let join: Join = made["join"].as_str().unwrap().parse().unwrap();
    assert_eq!(join.url, server.url);
    assert_eq!(join.server_key, server.running.app.keys.newest());
    assert!(made["warning"].as_str().unwrap().contains("this machine only"));
    // Defaults need no body.
    let bare = crate::server::answer(server.request("POST", "/api/v1/hosts/invite")).await;
    assert_eq!((bare.0, &bare.1["uses"]), (200, &json!(1)));
    for bad in [
        json!({ "uses": 0 }),
        json!({ "ttl": "0s" }),
        json!({ "ttl": "400d" }),
        json!({ "labels": { "": "" } }),
    ] {
        assert_eq!(server.post("/hosts/invite", bad).await.0, 400);
    }
    let named =
        TestServer::with(|config| config.public_url = Some("https://fleet.example/".into())).await;
    let (_, made) = named.post("/hosts/invite", json!({})).await;
    let join: Join = made["join"].as_str().unwrap().parse().unwrap();
    assert_eq!((join.url.as_str(), &made["warning"]), ("https://fleet.example", &Value::Null));
    let local: Join = named.running.invite_local().await.unwrap().parse().unwrap();
    assert_eq!(local.url, format!("http://{}", named.running.addr));
}

#[tokio::test]
async fn changes_of_hosts_are_followed() {
    let server = TestServer::start().await;
    let id = server.host("web1", &[]).await;
    let mut events = server.events("/hosts/events", None).await;
    let begin = events.through("ready").await;
    let shown: Vec<_> = begin.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(shown, ["reset", "host", "ready"]);
    server.send("PATCH", "/hosts/web1", json!({ "name": "www" })).await;
    let renamed = events.next().await.unwrap();
    assert_eq!((renamed.name.as_str(), &renamed.data["name"]), ("host", &json!("www")));
    server.delete("/hosts/www").await;
    let removed = events.through("removed").await.pop().unwrap();
    assert_eq!(removed.data, json!({ "id": id }));
}
