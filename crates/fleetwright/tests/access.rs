//! Who may do what, through the binary: people who sign in on the command line, and tokens with limits.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::os::unix::fs::PermissionsExt as _;

use fw_testkit::fleet::{Fleet, Output};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");
const PASSWORD: &str = "correct horse battery";

/// Adds somebody, who chooses a password with their link.
async fn someone(fleet: &Fleet, name: &str, role: &str) {
    let added = fleet.cli(&["users", "add", name, "--role", role, "-o", "json"]).await.ok().json();
    let link = added["link"]["link"].as_str().expect("a link");
    let (_, secret) = link.split_once('#').expect("a secret");
    let body = json!({ "secret": secret, "password": PASSWORD });
    let http = reqwest::Client::builder().no_proxy().build().expect("a client of plain HTTP");
    let answer = http.post(format!("{}/api/v1/setup", fleet.url())).json(&body).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}

async fn login(fleet: &Fleet, name: &str, password: &str) -> Output {
    let line = ["login", name, "--password-stdin", "--server", &fleet.url()];
    fleet.plain_with_input(&line, password.as_bytes()).await
}

/// The context file of whoever types the command lines.
fn contexts(fleet: &Fleet) -> std::path::PathBuf {
    fleet.dir().join("home/.config/fleetwright/contexts.toml")
}

/// A person has a session, which is kept for its owner alone, shown nowhere, and ended on the server.
#[tokio::test]
async fn a_person_signs_in_and_out() {
    let fleet = Fleet::start(BINARY).await;
    someone(&fleet, "vera", "viewer").await;
    let alone = fleet.plain(&["login", "vera", "--server", &fleet.url()]).await.exits(2);
    assert!(alone.stderr.contains("--password-stdin"), "{}", alone.stderr);
    let wrong = login(&fleet, "vera", "wrong horse battery").await.exits(4);
    assert!(wrong.stderr.contains("wrong name, password or code"), "{}", wrong.stderr);
    let signed_in = login(&fleet, "vera", PASSWORD).await.ok();
    assert!(signed_in.stderr.contains("signed in as vera, viewer"), "{}", signed_in.stderr);
    let kept = std::fs::read_to_string(contexts(&fleet)).expect("the context file");
    let mode = std::fs::metadata(contexts(&fleet)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (_, secret) = kept.split_once("fleetwright=").expect("a session is kept");
    let secret = secret.split('"').next().expect("it ends");
    let shown = fleet.plain(&["context", "list", "-o", "json"]).await.ok();
    assert_eq!(shown.json()[0]["token"], "session");
    for text in [signed_in.text(), signed_in.stderr.clone(), shown.text()] {
        assert!(!text.contains(secret), "{text}");
    }
    drop(fleet.plain(&["hosts", "list"]).await.ok());
    let sessions = fleet.get("/sessions").await.expect("an answer");
    assert!(sessions.to_string().contains("vera"), "{sessions}");
    drop(fleet.plain(&["logout"]).await.ok());
    let sessions = fleet.get("/sessions").await.expect("an answer");
    assert!(!sessions[0]["agent"].to_string().contains("fleetwright/"), "{sessions}");
    drop(fleet.plain(&["hosts", "list"]).await.exits(4));
    assert!(!std::fs::read_to_string(contexts(&fleet)).expect("it stays").contains(secret));
    let audit = fleet.cli(&["audit", "list", "--by", "vera", "-o", "json"]).await.ok().json();
    let actions: Vec<_> = audit.as_array().expect("a list").iter().map(action).collect();
    assert_eq!(actions, ["session.end", "session.begin", "session.begin", "user.set_up"]);
}

fn action(entry: &Value) -> &str {
    entry["action"].as_str().expect("an action")
}

/// Begins `login --browser`, with a browser that writes down where it is sent. Gives what waits, and that address.
async fn login_by_browser(fleet: &Fleet) -> (tokio::process::Child, String) {
    let (script, opened) = (fleet.scratch().join("browser"), fleet.scratch().join("opened"));
    if opened.exists() {
        std::fs::remove_file(&opened).expect("the one before is removed");
    }
    let text = format!("echo \"$1\" > {0}.new && mv {0}.new {0}", opened.display());
    std::fs::write(&script, text).expect("a script");
    let browser = format!("sh {} %s", script.display());
    let server = format!("http://{}", fleet.proxy.addr());
    let line = ["login", "--browser", "--server", &server];
    let child = fleet.plain_spawn(&line, &[("BROWSER", &browser)]);
    let address = fleet.written("opened").await.concat();
    (child, address)
}

/// Somebody who has signed in in a browser says this of a code.
async fn say(fleet: &Fleet, name: &str, verb: &str, code: &str) -> reqwest::StatusCode {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client of plain HTTP");
    let ask = |path: &str| http.post(format!("{}/api/v1/session{path}", fleet.url()));
    let who = json!({ "name": name, "password": PASSWORD });
    let answer = ask("").json(&who).send().await.expect("an answer");
    let cookie = answer.headers().get("Set-Cookie").expect("a session").clone();
    let request = ask(&format!("/device/{verb}")).header("Cookie", cookie);
    let answer = request.json(&json!({ "code": code })).send().await;
    answer.expect("an answer").status()
}

/// The browser may be anywhere: the command line prints where to go and a code, waits, and says what came of it.
#[tokio::test]
async fn a_person_signs_in_with_a_browser() {
    let mut fleet = Fleet::start(BINARY).await;
    someone(&fleet, "vera", "viewer").await;
    let line = ["login", "--browser"];
    let (child, address) = login_by_browser(&fleet).await;
    let (page, code) = address.split_once("/device?code=").expect("a page with a code");
    assert_eq!(page, format!("http://{}", fleet.proxy.addr()), "the server's public address");
    assert_eq!(say(&fleet, "vera", "approve", code).await, 204);
    let signed_in = fleet.finish(child, &line, b"").await.ok();
    for told in [&address, &format!("its code is {code}"), "signed in as vera, viewer"] {
        assert!(signed_in.stderr.contains(told), "{}", signed_in.stderr);
    }
    drop(fleet.plain(&["hosts", "list"]).await.ok());
    let sessions = fleet.get("/sessions").await.expect("an answer").to_string();
    assert!(sessions.contains("fleetwright/") && sessions.contains(" on "), "{sessions}");

    let (child, address) = login_by_browser(&fleet).await;
    let (_, code) = address.split_once("?code=").expect("a code");
    assert_eq!(say(&fleet, "vera", "refuse", code).await, 204);
    let refused = fleet.finish(child, &line, b"").await.exits(4);
    assert!(refused.stderr.contains("refused in the browser"), "{}", refused.stderr);
    drop(fleet.plain(&["hosts", "list"]).await.ok());

    let (child, _) = login_by_browser(&fleet).await;
    fleet.server.kill9().await;
    fleet.start_server().await;
    let over = fleet.finish(child, &line, b"").await.exits(4);
    assert!(over.stderr.contains("the server was started again"), "{}", over.stderr);
}

/// What a role, a limit or a proof is missing for is refused with exit code 4 and says what to do.
#[tokio::test]
async fn who_may_not_is_told_why() {
    let fleet = Fleet::start_with(BINARY, &["--dangerous-hosts", "0"]).await;
    let _web1 = fleet.agent("web1").await;
    let _db1 = fleet.agent("db1").await;
    someone(&fleet, "vera", "viewer").await;
    drop(login(&fleet, "vera", PASSWORD).await.ok());
    let refused = fleet.plain(&["run", "web1", "--", "true"]).await.exits(4);
    assert!(refused.stderr.contains("role operator, and yours is viewer"), "{}", refused.stderr);
    let url = fleet.url();
    let token = async |line: &[&str]| {
        let line = [&["tokens", "create"], line, &["-o", "json"]].concat();
        let made = fleet.cli(&line).await.ok().json();
        made["token"].as_str().expect("a token").to_owned()
    };
    let user = ["run", "--user", "nobody", "--timeout", "1m"];
    let with = async |token: &str, line: &[&str]| {
        let line = [line, &["--server", &url, "--token", token]].concat();
        fleet.plain(&line).await
    };
    let web = token(&["web", "--scope", "run", "--hosts", "web*"]).await;
    let beyond = with(&web, &["hosts", "show", "db1"]).await.exits(4);
    assert!(beyond.stderr.contains("db1 is not one of them"), "{}", beyond.stderr);
    drop(with(&web, &["hosts", "show", "web1"]).await.ok());
    // On more hosts than none, as root, and without a proof.
    let root = with(&web, &["run", "web1", "--detach", "--shell", "true"]).await.exits(4);
    assert!(root.stderr.contains("scope dangerous"), "{}", root.stderr);
    let plain = with(&web, &[&user[..], &["web1", "--detach", "--shell", "true"]].concat()).await;
    assert!(!plain.stderr.contains("dangerous"), "{}", plain.stderr);
    let admin = token(&["boss", "--scope", "admin"]).await;
    let revoke = with(&admin, &["hosts", "revoke", "db1", "--yes"]).await.exits(4);
    assert!(revoke.stderr.contains("tokens create --scope dangerous"), "{}", revoke.stderr);
    let explained = fleet.plain(&["explain", "E_STEP_UP_REQUIRED"]).await.ok();
    assert!(explained.text().contains("HTTP 403"), "{}", explained.text());
    drop(fleet.cli(&["tokens", "revoke", "boss"]).await.ok());
    drop(with(&admin, &["hosts", "list"]).await.exits(4));
}
