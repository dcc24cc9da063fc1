//! Who gets in, and how everyone else is refused.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::server::{TestServer, answer, problem};

#[tokio::test]
async fn only_tokens_open_the_api() {
    let server = TestServer::start().await;
    let url = format!("{}/api/v1/hosts", server.url);
    let bare = answer(server.client.get(&url)).await;
    insta::assert_snapshot!(problem(&bare), @r#"
    401 unauthenticated: no valid token
    send the header `Authorization: Bearer fwt_…` with a token that is known and not expired; the first one is in admin.token in the server's data directory
    "#);
    let wrong = fw_server::auth::generate();
    for bad in ["", "hello", "fwt_", wrong.as_str()] {
        assert_eq!(answer(server.client.get(&url).bearer_auth(bad)).await.0, 401, "{bad}");
    }
    assert_eq!(server.get("/hosts").await.0, 200);
}

#[tokio::test]
async fn an_address_that_guesses_is_slowed_down_and_good_tokens_still_work() {
    let server = TestServer::start().await;
    let url = format!("{}/api/v1/hosts", server.url);
    let mut last = (0, serde_json::Value::Null);
    for _ in 0..50 {
        last = answer(server.client.get(&url).bearer_auth("fwt_wrong")).await;
        if last.0 == 429 {
            break;
        }
        assert_eq!(last.0, 401);
    }
    insta::assert_snapshot!(problem(&last), @r#"
    429 rate_limited: too many wrong tokens
    this address sent many wrong tokens; wait a minute, then check the token
    "#);
    assert_eq!(server.get("/hosts").await.0, 200);
}

#[tokio::test]
async fn tokens_are_made_used_listed_and_deleted_at_once() {
    let server = TestServer::start().await;
    let (status, made) = server.post("/tokens", json!({ "name": "ci", "ttl": "1h" })).await;
    assert_eq!(status, 201);
    let token = made["token"].as_str().unwrap();
    let with = |token: &str| {
        answer(server.client.get(format!("{}/api/v1/tokens", server.url)).bearer_auth(token))
    };
    let (status, list) = with(token).await;
    assert_eq!(status, 200);
    let names: Vec<_> =
        list.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "ci"]);
    assert!(!list.to_string().contains(token));
    // It is in memory by now, and yet:
    assert_eq!(server.delete("/tokens/ci").await.0, 204);
    assert_eq!(with(token).await.0, 401);
    assert_eq!(server.delete("/tokens/ci").await.0, 404);
}

#[tokio::test]
async fn a_token_ends_when_it_says() {
    let server = TestServer::start().await;
    let (_, made) = server.post("/tokens", json!({ "name": "short", "ttl": "1m" })).await;
    let token = made["token"].as_str().unwrap();
    let list =
        || answer(server.client.get(format!("{}/api/v1/hosts", server.url)).bearer_auth(token));
    assert_eq!(list().await.0, 200);
    server.clock.shift(61_000);
    assert_eq!(list().await.0, 401);
}

#[tokio::test]
async fn streams_end_with_their_token() {
    let server = TestServer::start().await;
    server.host("web1", &[]).await;
    let run = server.waiting_run("*").await;
    let paths = ["/hosts/events", &format!("/runs/{run}/events"), &format!("/runs/{run}/logs")];
    for expires in [false, true] {
        let (_, made) = server.post("/tokens", json!({ "name": "ci", "ttl": "1h" })).await;
        let mut streams = Vec::new();
        for path in paths {
            let get = server.client.get(format!("{}/api/v1{path}", server.url));
            let stream = get.bearer_auth(made["token"].as_str().unwrap()).send().await.unwrap();
            assert_eq!(stream.status(), 200, "{path}");
            streams.push(stream);
        }
        if expires {
            server.clock.shift(60 * 60 * 1000);
        } else {
            assert_eq!(server.delete("/tokens/ci").await.0, 204);
        }
        for mut stream in streams {
            // The client's deadline makes an error of a stream that goes on.
            while stream.chunk().await.unwrap().is_some() {}
        }
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_are_refused_with_what_to_do() {
    let server = TestServer::start().await;
    let bad = [
        server.post("/tokens", json!({ "name": "admin" })).await,
        server.post("/tokens", json!({ "name": "server" })).await,
        server.post("/tokens", json!({ "name": "a b" })).await,
        server.post("/tokens", json!({ "name": "x", "ttl": "soon" })).await,
        server.post("/tokens", json!({ "name": "x", "ttl": "11y" })).await,
        server.delete("/tokens/admin").await,
    ];
    insta::assert_snapshot!(bad.each_ref().map(problem).join("\n"), @r#"
    409 name_taken: there is a token admin already
    choose another name, or delete that one first (`fleetwright tokens remove`)
    400 invalid_request: invalid request
    name: "server" is what the server calls itself; choose another
    400 invalid_request: invalid request
    name: use 1 to 64 letters, digits, '.', '_', '-' and '@'
    400 invalid_request: invalid body
    ttl: "soon" is not a duration such as 90s, 5m or 1h30m at line 1 column 25
    400 invalid_request: invalid request
    ttl: it is longer than 10 years; leave it out for no end
    409 conflict: this is the last token
    without it nobody could use this API; make another one first (`fleetwright tokens create`)
    "#);
}

#[tokio::test]
async fn whatever_does_not_fit_is_a_problem_that_says_where() {
    let server = TestServer::start().await;
    let raw = |method: &'static str, path: &'static str, body: &'static str| {
        answer(server.request(method, path).body(body))
    };
    let bad = [
        raw("GET", "/nowhere", "").await,
        raw("GET", "/api/v1/nowhere", "").await,
        raw("PUT", "/api/v1/runs", "{}").await,
        raw("POST", "/api/v1/runs", r#"{"hosts":"*","command":{"argv":["a"]},"hurry":1}"#).await,
        raw(
            "POST",
            "/api/v1/runs",
            r#"{"hosts":"*","command":{"argv":["a"]},"env":{"A":{"value":1}}}"#,
        )
        .await,
        raw("POST", "/api/v1/runs", r#"{"hosts":"*""#).await,
        raw("POST", "/api/v1/runs", "").await,
        raw("GET", "/api/v1/runs?limit=0", "").await,
        raw("GET", "/api/v1/runs?state=odd", "").await,
        raw("GET", "/api/v1/runs?cursor=x", "").await,
        raw("GET", "/api/v1/hosts?cursor=%21", "").await,
        raw("POST", "/api/v1/tokens", r#"["x"]"#).await,
        raw("GET", "/api/v1/runs?x=1", "").await,
        raw("GET", "/api/v1/runs/17", "").await,
        raw("GET", "/api/v1/jobs/nope", "").await,
    ];
    insta::assert_snapshot!(bad.each_ref().map(problem).join("\n"), @r"
    404 not_found: nothing at /nowhere
    GET /api/v1/openapi.json lists what there is
    404 not_found: nothing at /api/v1/nowhere
    GET /api/v1/openapi.json lists what there is
    405 invalid_request: PUT is not possible here
    the header Allow says what is; GET /api/v1/openapi.json has it all
    400 invalid_request: invalid body
    hurry: unknown field `hurry`, expected one of `hosts`, `command`, `user`, `cwd`, `env`, `timeout`, `kill_after`, `start_within`, `offline`, `parallel`, `max_failures`, `spread`, `on_full`, `nice`, `umask`, `armed` at line 1 column 45
    400 invalid_request: invalid body
    env.A.value: invalid type: integer `1`, expected a string at line 1 column 59
    400 invalid_request: invalid body
    EOF while parsing an object at line 1 column 12
    400 invalid_request: invalid body
    missing field `hosts` at line 1 column 2
    400 invalid_request: invalid request
    limit: give 1 to 1000
    400 invalid_request: invalid query
    state: unknown variant `odd`, expected one of `planned`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`
    400 invalid_request: invalid request
    cursor: this is no cursor of this list; leave it out to begin at the first page
    400 invalid_request: invalid request
    cursor: this is no cursor of this list; leave it out to begin at the first page
    400 invalid_request: invalid body
    a JSON object should stand here; begin it with '{'
    400 invalid_request: invalid query
    x: unknown field `x`, expected one of `job`, `state`, `host`, `cursor`, `limit`
    400 invalid_request: invalid path
    Invalid URL: Cannot parse `id` with value `17`: UUID parsing failed: invalid length: found 2
    404 not_found: no job nope
    `fleetwright jobs list` shows those that there are
    ");
}

#[tokio::test]
async fn a_body_has_a_bound_and_a_job_text_a_larger_one() {
    let server = TestServer::start().await;
    let text = "x".repeat(2 * 1024 * 1024);
    let run = server.post("/runs", json!({ "hosts": "*", "command": { "shell": text } })).await;
    insta::assert_snapshot!(problem(&run), @r#"
    413 too_large: body is too large
    this body has at most 1 MiB; send less or in parts
    "#);
    assert_ne!(server.post("/jobs/check", json!({ "text": text })).await.0, 413);
    let text = "x".repeat(5 * 1024 * 1024);
    assert_eq!(server.post("/jobs/check", json!({ "text": text })).await.0, 413);
}

#[tokio::test]
async fn the_first_token_is_written_once_and_for_its_owner_only() {
    let server = TestServer::start().await;
    assert_eq!(server.running.first_token.as_deref(), Some(server.token.as_str()));
    let path = server.dir.path().join("admin.token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let TestServer { running, dir, token, .. } = server;
    running.stop().await;
    let again = TestServer::in_dir(dir, |_| {}).await;
    assert_eq!(again.running.first_token, None);
    assert_eq!(again.token, token);
    assert_eq!(again.get("/hosts").await.0, 200);
}

#[tokio::test]
async fn a_first_token_of_a_wrong_form_is_refused_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = fw_server::Config::new(dir.path().to_owned(), ([127, 0, 0, 1], 0).into());
    config.admin_token = Some("secret".to_owned());
    let refused = fw_server::start(config.clone(), fw_rt::Clock::system()).await.unwrap_err();
    let why = std::error::Error::source(&refused).unwrap();
    insta::assert_snapshot!(why, @"the first token that was given is none: write `fwt_` and 43 characters, which are 32 random bytes in base64url without padding (RFC 4648 §5), or give none, and one is made");
    assert!(!dir.path().join("admin.token").exists());
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_not_awaited() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = TestServer::start().await;
    let mut stream = tokio::net::TcpStream::connect(server.running.addr).await.unwrap();
    let head = format!(
        "POST /api/v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n",
        server.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer);
    tokio::time::timeout(crate::server::DEADLINE, read).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_server_is_not_exposed_by_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let config = fw_server::Config::new(dir.path().to_owned(), ([0, 0, 0, 0], 0).into());
    let refused = fw_server::start(config.clone(), fw_rt::Clock::system()).await.unwrap_err();
    insta::assert_snapshot!(refused, @"0.0.0.0:0 can be reached from other machines, and tokens would travel there in the clear: give --tls-cert and --tls-key, or --trusted-proxy when one ends TLS before this server, or --insecure-http if the network is yours");
    let config = fw_server::Config { insecure_http: true, ..config };
    fw_server::start(config, fw_rt::Clock::system()).await.unwrap().stop().await;
}

#[tokio::test]
async fn secrets_go_in_and_never_out() {
    let server = TestServer::start().await;
    let value = "correct horse battery staple";
    let (status, set) = server.send("PUT", "/secrets/db", json!({ "value": value })).await;
    assert_eq!((status, &set["name"]), (200, &json!("db")));
    let (_, list) = server.get("/secrets").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    let opened = server.running.app.secrets.get(&server.running.app.store, "db").await.unwrap();
    assert_eq!(opened.as_deref(), Some(value));
    for entry in walk(server.dir.path()) {
        let bytes = std::fs::read(&entry).unwrap();
        let found = bytes.windows(value.len()).any(|window| window == value.as_bytes());
        assert!(!found, "{} holds the secret", entry.display());
    }
    assert_eq!(server.delete("/secrets/db").await.0, 204);
    assert_eq!(server.delete("/secrets/db").await.0, 404);
    for bad in ["a%2Fb", ".hidden", "-x", "a..b"] {
        let path = format!("/secrets/{bad}");
        assert_eq!(server.send("PUT", &path, json!({ "value": "x" })).await.0, 400, "{bad}");
    }
    assert_eq!(server.send("PUT", "/secrets/a", json!({ "value": "" })).await.0, 400);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let server = TestServer::start().await;
    let text = |path: &str| {
        let request = server.client.get(format!("{}{path}", server.url));
        async { request.send().await.unwrap() }
    };
    assert_eq!(text("/healthz").await.text().await.unwrap(), "ok\n");
    assert_eq!(text("/readyz").await.text().await.unwrap(), r#"{"ready":true,"reasons":[]}"#);
    server.running.app.health.report("clock", "clock went back 93s");
    let unready = text("/readyz").await;
    assert_eq!(unready.status(), 503);
    assert!(unready.text().await.unwrap().contains("clock went back 93s"));
    server.running.app.health.clear("clock");
    assert_eq!(text("/readyz").await.status(), 200);
    server.get("/hosts").await;
    let page = text("/metrics").await.text().await.unwrap();
    for line in [
        "fleetwright_hosts_online 0",
        "fleetwright_runs_active 0",
        "# TYPE fleetwright_http_request_duration_seconds histogram",
        r#"path="/api/v1/hosts""#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn the_server_shows_itself_rotates_its_key_and_makes_backups() {
    let server = TestServer::start().await;
    let (_, info) = server.get("/server").await;
    let first = info["keys"][0].clone();
    let (status, rotated) = server.post("/server/keys/rotate", json!({})).await;
    assert_eq!((status, &rotated["told"]), (200, &json!(0)));
    assert_eq!(rotated["keys"][1], first);
    assert_eq!(server.get("/server").await.1["keys"], rotated["keys"]);
    let (status, made) = server.post("/server/backup", json!({})).await;
    assert_eq!(status, 200, "{made}");
    fw_store::verify_backup(made["file"].as_str().unwrap().as_ref()).unwrap();
}
