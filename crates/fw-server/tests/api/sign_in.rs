//! People: how they get in, stay in and get out.

use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use crate::rights::someone;
use crate::server::{Answer, TestServer, answer, problem};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// Someone with a cookie.
pub(crate) struct Browser<'s> {
    pub(crate) server: &'s TestServer,
    pub(crate) cookie: String,
}

impl Browser<'_> {
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api/v1{path}", self.server.url);
        self.server.client.request(method.parse().unwrap(), url).header(COOKIE, &self.cookie)
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        answer(self.request(method, path).json(&body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request("GET", path)).await
    }
}

/// Sends what needs no caller, and gives status, body and the cookie that was set.
pub(crate) async fn open<'s>(
    server: &'s TestServer,
    path: &str,
    body: Value,
) -> (Answer, Browser<'s>) {
    let post = server.client.post(format!("{}/api/v1{path}", server.url)).json(&body);
    let response = post.send().await.unwrap();
    let status = response.status().as_u16();
    let cookie = response.headers().get(SET_COOKIE).map(|value| value.to_str().unwrap());
    let cookie = cookie.and_then(|cookie| cookie.split(';').next()).unwrap_or_default().to_owned();
    let body = response.json().await.unwrap_or(Value::Null);
    ((status, body), Browser { server, cookie })
}

/// Makes the first user, who is an admin.
pub(crate) async fn first<'s>(server: &'s TestServer, name: &str) -> Browser<'s> {
    let link = std::fs::read_to_string(server.dir.path().join("setup.link")).unwrap();
    let secret = link.trim().split_once('#').unwrap().1;
    let body = json!({ "secret": secret, "name": name, "password": PASSWORD });
    let (answer, browser) = open(server, "/setup", body).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    browser
}

pub(crate) async fn sign_in<'s>(server: &'s TestServer, name: &str) -> Browser<'s> {
    let (answer, browser) =
        open(server, "/session", json!({ "name": name, "password": PASSWORD })).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    browser
}

#[tokio::test]
async fn the_first_link_makes_an_admin_once() {
    let server = TestServer::start().await;
    let url = format!("{}/api/v1/setup", server.url);
    assert_eq!(answer(server.client.get(&url)).await.1["needed"], true);
    let link = std::fs::read_to_string(server.dir.path().join("setup.link")).unwrap();
    assert_eq!(server.running.set_up_link.as_deref(), Some(link.trim()));
    let alice = first(&server, "alice").await;
    let (status, me) = alice.get("/session").await;
    assert_eq!((status, &me["name"], &me["role"]), (200, &json!("alice"), &json!("admin")));
    assert_eq!(answer(server.client.get(&url)).await.1["needed"], false);
    assert!(!server.dir.path().join("setup.link").exists());
    let secret = link.trim().split_once('#').unwrap().1;
    let again = json!({ "secret": secret, "name": "eve", "password": PASSWORD });
    assert_eq!(open(&server, "/setup", again).await.0.0, 404);
}

#[tokio::test]
async fn whoever_knows_the_password_signs_in_and_out() {
    let server = TestServer::start().await;
    drop(first(&server, "alice").await);
    let alice = sign_in(&server, "alice").await;
    assert_eq!(alice.get("/hosts").await.0, 200);
    let (status, sessions) = alice.get("/sessions").await;
    assert_eq!((status, sessions.as_array().unwrap().len()), (200, 2));
    assert_eq!(alice.send("DELETE", "/session", json!({})).await.0, 204);
    assert_eq!(alice.get("/hosts").await.0, 401);
}

#[tokio::test]
async fn an_unknown_name_is_answered_as_a_wrong_password() {
    let server = TestServer::start().await;
    drop(first(&server, "alice").await);
    let ask = |name: &str| json!({ "name": name, "password": "wrong horse battery" });
    let (wrong, _) = open(&server, "/session", ask("alice")).await;
    let (unknown, _) = open(&server, "/session", ask("nobody")).await;
    assert_eq!(problem(&wrong), problem(&unknown));
    insta::assert_snapshot!(problem(&wrong), @r#"
    401 unauthenticated: wrong name, password or code
    check them and try again; a one-time code counts once, so wait for the next one
    "#);
}

#[tokio::test]
async fn another_site_cannot_use_the_cookie() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let foreign = alice.request("DELETE", "/sessions").header(name, value);
        assert_eq!(answer(foreign).await.0, 403, "{name}");
    }
    let own = alice.request("DELETE", "/sessions").header("sec-fetch-site", "same-origin");
    assert_eq!(answer(own).await.0, 204);
}

#[tokio::test]
async fn a_session_ends_by_itself() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    server.clock.shift(8 * 60 * 60 * 1000 + 1000);
    assert_eq!(alice.get("/hosts").await.0, 401);
}

#[tokio::test]
async fn streams_end_with_their_session() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let (_, sessions) = alice.get("/sessions").await;
    let other = sign_in(&server, "alice").await;
    let mut stream = alice.request("GET", "/hosts/events").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let path = format!("/sessions/{}", sessions[0]["id"]);
    assert_eq!(other.send("DELETE", &path, json!({})).await.0, 204);
    while stream.chunk().await.unwrap().is_some() {}
}

#[tokio::test]
async fn streams_end_when_their_user_has_another_role() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let otto = someone(&alice, "otto", "operator").await;
    let (_, made) = otto.send("POST", "/tokens", json!({ "name": "ci" })).await;
    let url = format!("{}/api/v1/hosts/events", server.url);
    let with_token = server.client.get(url).bearer_auth(made["token"].as_str().unwrap());
    for stream in [otto.request("GET", "/events?topics=hosts"), with_token] {
        let mut stream = stream.send().await.unwrap();
        assert_eq!(stream.status(), 200);
        let role = if alice.get("/users").await.1.to_string().contains("operator") {
            "viewer"
        } else {
            "operator"
        };
        let change = json!({ "role": role });
        assert_eq!(alice.send("PATCH", "/users/otto", change).await.0, 200);
        // The client's deadline makes an error of a stream that goes on.
        while stream.chunk().await.unwrap().is_some() {}
    }
}

#[tokio::test]
async fn streams_end_when_their_session_is_not_used() {
    let server = TestServer::start().await;
    let alice = first(&server, "alice").await;
    let mut stream = alice.request("GET", "/hosts/events").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    server.clock.shift(8 * 60 * 60 * 1000 + 1000);
    while stream.chunk().await.unwrap().is_some() {}
}

#[tokio::test]
async fn the_stream_of_a_limited_token_ends_when_its_hosts_may_be_others() {
    let server = TestServer::start().await;
    server.host("web1", &[("stage", "canary")]).await;
    let run = server.waiting_run("web1").await;
    let limit = json!({ "name": "ci", "scopes": ["read"], "selector": "label:stage=canary" });
    let (_, made) = server.post("/tokens", limit).await;
    let ask = || {
        let url = format!("{}/api/v1/runs/{run}/events", server.url);
        server.client.get(url).bearer_auth(made["token"].as_str().unwrap()).send()
    };
    let mut stream = ask().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert!(stream.chunk().await.unwrap().is_some());
    let change = json!({ "set": {}, "remove": ["stage"] });
    assert_eq!(server.send("PATCH", "/hosts/web1/labels", change).await.0, 200);
    while stream.chunk().await.unwrap().is_some() {}
    assert_eq!(ask().await.unwrap().status(), 403);
}
