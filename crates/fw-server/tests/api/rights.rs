//! Who may do what, on every way to it.

use fw_proto::Timestamp;
use serde_json::{Value, json};

use crate::server::{TestServer, answer, problem};
use crate::sign_in::{Browser, PASSWORD, first, open};

/// Adds someone, who signs in with their link.
pub(crate) async fn someone<'s>(admin: &Browser<'s>, name: &str, role: &str) -> Browser<'s> {
    let (status, made) = admin.send("POST", "/users", json!({ "name": name, "role": role })).await;
    assert_eq!(status, 201, "{made}");
    let link = made["link"]["link"].as_str().unwrap();
    let secret = link.split_once('#').unwrap().1;
    let body = json!({ "secret": secret, "password": PASSWORD });
    let (answer, browser) = open(admin.server, "/setup", body).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    browser
}

pub(super) fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_role_is_asked_for_whatever_way_one_comes() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let admin = first(&server, "alice").await;
    let viewer = someone(&admin, "vera", "viewer").await;
    let operator = someone(&admin, "otto", "operator").await;
    assert_eq!(viewer.get("/hosts").await.0, 200);
    let run = json!({ "hosts": "*", "command": { "shell": "true" } });
    let refused = viewer.send("POST", "/runs", run.clone()).await;
    insta::assert_snapshot!(problem(&refused), @r#"
    403 forbidden: this needs the role operator, and yours is viewer
    ask an admin (`fleetwright users role`)
    "#);
    assert_eq!(operator.send("POST", "/runs", run).await.0, 201);
    for (method, path) in [
        ("POST", "/hosts/web1/revoke"),
        ("DELETE", "/hosts/web1"),
        ("GET", "/users"),
        ("PUT", "/secrets/db"),
        ("POST", "/server/backup"),
    ] {
        let answer = operator.send(method, path, json!({ "value": "x" })).await;
        assert_eq!(code(&answer), (403, "forbidden"), "{method} {path}");
    }
    let change = json!({ "role": "viewer" });
    assert_eq!(admin.send("PATCH", "/users/otto", change).await.0, 200);
    assert_eq!(operator.send("POST", "/runs", json!({})).await.0, 403);
    assert_eq!(admin.send("PATCH", "/users/alice", json!({ "disabled": true })).await.0, 409);
    assert_eq!(admin.send("PATCH", "/users/vera", json!({ "disabled": true })).await.0, 200);
    assert_eq!(viewer.get("/hosts").await.0, 401);
}

#[tokio::test]
async fn what_is_dangerous_asks_again() {
    let server = TestServer::with(|config| config.access.root_hosts = 1).await;
    for host in ["web1", "web2"] {
        server.host(host, &[]).await;
    }
    let admin = first(&server, "alice").await;
    server.clock.shift(5 * 60 * 1000);
    let asked = admin.send("POST", "/hosts/web1/revoke", json!({})).await;
    insta::assert_snapshot!(problem(&asked), @r#"
    403 step_up_required: this is dangerous: prove that it is you, with your password or a one-time code
    send it to POST /api/v1/session/step-up, then ask again within the next minutes
    "#);
    let run = |hosts: &str| json!({ "hosts": hosts, "command": { "shell": "true" } });
    assert_eq!(code(&admin.send("POST", "/runs", run("*")).await).1, "step_up_required");
    assert_eq!(admin.send("POST", "/runs", run("web1")).await.0, 201);
    let wrong = json!({ "password": "wrong horse battery" });
    assert_eq!(admin.send("POST", "/session/step-up", wrong).await.0, 401);
    assert_eq!(
        admin.send("POST", "/session/step-up", json!({ "password": PASSWORD })).await.0,
        200
    );
    assert_eq!(admin.send("POST", "/runs", run("*")).await.0, 201);
    assert_eq!(admin.send("POST", "/hosts/web1/revoke", json!({})).await.0, 200);
}

#[tokio::test]
async fn a_token_may_what_its_scopes_and_limit_say() {
    let server = TestServer::start().await;
    for host in ["web1", "db1"] {
        server.host(host, &[]).await;
    }
    let make = async |body: Value| {
        let (status, made) = server.post("/tokens", body).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    };
    let ask = async |token: &str, method: &str, path: &str, body: Value| {
        let url = format!("{}/api/v1{path}", server.url);
        answer(server.client.request(method.parse().unwrap(), url).bearer_auth(token).json(&body))
            .await
    };
    let admin = make(json!({ "name": "plain", "scopes": ["admin"] })).await;
    let asked = ask(&admin, "POST", "/hosts/web1/revoke", json!({})).await;
    assert_eq!(code(&asked), (403, "step_up_required"));
    let more = json!({ "name": "more", "scopes": ["admin", "dangerous"] });
    assert_eq!(code(&ask(&admin, "POST", "/tokens", more).await), (403, "step_up_required"));
    let read = make(json!({ "name": "read", "scopes": ["read"] })).await;
    let run = |hosts: &str| json!({ "hosts": hosts, "command": { "shell": "true" } });
    assert_eq!(code(&ask(&read, "POST", "/runs", run("web1")).await), (403, "forbidden"));
    let more = json!({ "name": "more", "scopes": ["run"] });
    assert_eq!(code(&ask(&read, "POST", "/tokens", more).await), (403, "forbidden"));

    let web = make(json!({ "name": "web", "scopes": ["run"], "selector": "web*" })).await;
    assert_eq!(ask(&web, "GET", "/hosts", json!({})).await.1["items"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&web, "GET", "/hosts/db1", json!({})).await.0, 403);
    let (status, made) = ask(&web, "POST", "/runs", run("web1")).await;
    assert_eq!(status, 201);
    let own = format!("/runs/{}", made["id"].as_str().unwrap());
    assert_eq!(ask(&web, "GET", &own, json!({})).await.0, 200);
    assert_eq!(code(&ask(&web, "POST", "/runs", run("*")).await), (403, "forbidden"));
    assert_eq!(
        ask(&web, "POST", "/maintenances", json!({ "everything": true, "reason": "x" })).await.0,
        403
    );
    // It is looked at with each use.
    assert_eq!(server.send("PATCH", "/hosts/web1", json!({ "name": "was1" })).await.0, 200);
    assert_eq!(ask(&web, "GET", &own, json!({})).await.0, 403);
    let facts = json!({ "name": "f", "selector": "os:Debian" });
    assert_eq!(code(&server.post("/tokens", facts).await), (400, "invalid_selector"));
}

/// The code of a secret now, as a phone makes it.
fn totp(secret: &str, now: Timestamp) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).with_account_name("a").build().unwrap();
    totp.generate(u64::try_from(now.as_millis() / 1000).unwrap()).to_string()
}

#[tokio::test]
async fn a_one_time_code_counts_once() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let (_, made) = alice.send("POST", "/session/totp", json!({})).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let now = totp(&secret, server.clock.now());
    let (status, codes) = alice.send("POST", "/session/totp/confirm", json!({ "code": now })).await;
    assert_eq!(status, 200, "{codes}");
    let sign_in = async |code: Option<&str>| {
        let body = json!({ "name": "alice", "password": PASSWORD, "totp": code });
        open(&server, "/session", body).await.0
    };
    assert_eq!(code(&sign_in(None).await), (401, "totp_required"));
    assert_eq!(
        code(&sign_in(Some(&now)).await),
        (401, "unauthenticated"),
        "it was used to confirm"
    );
    server.clock.shift(60 * 1000);
    let next = totp(&secret, server.clock.now());
    let (one, other) = tokio::join!(sign_in(Some(&next)), sign_in(Some(&next)));
    assert_eq!([one.0, other.0].iter().filter(|status| **status == 200).count(), 1);
    server.clock.shift(5 * 60 * 1000);
    let off = alice.send("DELETE", "/session/totp", json!({})).await;
    assert_eq!(code(&off), (403, "step_up_required"));
    let recovery = codes["codes"][0].as_str().unwrap();
    assert_eq!(sign_in(Some(recovery)).await.0, 200);
    assert_eq!(sign_in(Some(recovery)).await.0, 401);
}
