//! `fleetwright probe`, as steps call it, and `$FLEETWRIGHT`, by which a step finds it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use fw_rt::Tasks;
use fw_testkit::fleet::Fleet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

async fn probe(args: &[&str]) -> Output {
    Command::new(BINARY).arg("probe").args(args).output().await.expect("the binary starts")
}

/// The exit code and the one line.
async fn told(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = probe(args).await;
    let line = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// A server that gives these answers, one a connection, and then the last for ever.
async fn server(tasks: &Tasks, addr: &str, answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind(addr).await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    tasks.spawn("answers", async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or_default();
            let asked =
                String::from_utf8_lossy(request.get(..read).unwrap_or_default()).into_owned();
            let answer = answers.get(n).or_else(|| answers.last()).copied().unwrap_or_default();
            let body = asked.lines().find(|line| line.starts_with("x-echo")).unwrap_or("ready v12");
            let text = format!(
                "HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(text.as_bytes()).await.ok();
        }
    });
    addr
}

#[tokio::test]
async fn an_answer_is_waited_for() {
    let tasks = Tasks::new();
    let slow = ["503 Service Unavailable", "503 Service Unavailable", "200 OK"];
    let slow: &'static [&'static str] = Box::leak(Box::new(slow));
    let url = format!("http://{}/healthz", server(&tasks, "127.0.0.1:0", slow).await);
    let (code, line) = told(&["http", &url]).await;
    assert_eq!((code, line), (Some(1), format!("{url}: 503 Service Unavailable")));
    let (code, line) = told(&["http", &url, "--expect", "200", "--within", "60s"]).await;
    assert_eq!(code, Some(0), "{line}");
    assert!(
        line.starts_with(&format!("{url}: 200 OK after ")) && line.ends_with(", 2 tries"),
        "{line}"
    );
    let (code, line) = told(&["http", &url, "--expect", "204", "--within", "300ms"]).await;
    assert!(
        code == Some(1) && line.contains("200 OK after ") && line.ends_with(" tries"),
        "{line}"
    );
    tasks.cancel();
}

#[tokio::test]
async fn bodies_headers_and_redirections_are_looked_at() {
    let tasks = Tasks::new();
    let url = format!("http://{}/", server(&tasks, "[::1]:0", &["200 OK"]).await);
    let check = async |args: &[&str], code: i32, said: &str| {
        let (found, line) = told(&[&["http", &url], args].concat()).await;
        assert!(found == Some(code) && line.contains(said), "{args:?}: {found:?} {line}");
    };
    check(&["--body", "v12"], 0, "200 OK with \"v12\"").await;
    check(
        &["--body", "~v1[3-9]"],
        1,
        "200 OK without ~v1[3-9]; the body begins with \"ready v12\"",
    )
    .await;
    check(&["--header", "X-Echo: hello", "--body", "hello"], 0, "200 OK").await;
    let away = format!("302 Found\r\nlocation: {url}");
    let away: &'static [&'static str] = Box::leak(Box::new([&*Box::leak(away.into_boxed_str())]));
    let moved = format!("http://{}/", server(&tasks, "127.0.0.1:0", away).await);
    assert_eq!(told(&["http", &moved, "--expect", "302"]).await.0, Some(0));
    assert_eq!(told(&["http", &moved]).await.0, Some(1));
    assert_eq!(told(&["http", &moved, "--follow-redirects"]).await.0, Some(0));
    tasks.cancel();
}

#[tokio::test]
async fn ports_and_files_are_probed() {
    let listener = TcpListener::bind("[::1]:0").await.expect("a free port");
    let open = listener.local_addr().expect("it is bound").to_string();
    assert_eq!(told(&["tcp", &open]).await, (Some(0), format!("{open}: it accepts connections")));
    drop(listener);
    let (code, line) = told(&["tcp", &open, "--within", "200ms"]).await;
    assert!(code == Some(1) && line.contains("refused") && line.contains("tries"), "{line}");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a").display().to_string();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(told(&["file", &path, "--sha256", empty]).await.0, Some(1), "it is not there");
    std::fs::write(&path, "").expect("a new file");
    assert_eq!(told(&["file", &path, "--sha256", empty]).await.0, Some(0));
    std::fs::write(&path, "x").expect("our file");
    let (code, line) = told(&["file", &path, "--sha256", empty]).await;
    assert!(code == Some(1) && line.ends_with("(1 bytes)"), "{line}");
}

#[tokio::test]
async fn what_is_no_probe_is_refused_as_such() {
    for line in [
        &["http", "ftp://x"][..],
        &["http", "http://x", "--body", "~("],
        &["http", "http://x", "--expect", "1000"],
        &["tcp", "x"],
        &["file", "x", "--sha256", "ab"],
        &["file", "x"],
        &[],
    ] {
        assert_eq!(told(line).await.0, Some(2), "{line:?}");
    }
}

/// Hosts that share a machine have nothing else by which a command could tell them apart.
#[tokio::test]
async fn a_command_knows_which_host_it_runs_on() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    let hosts = fleet.cli(&["hosts", "show", "web1", "-o", "json"]).await.ok().json();
    let host = hosts.get("id").and_then(|id| id.as_str()).expect("an id");
    let text = format!("test \"$FLEETWRIGHT_HOST_ID\" = {host}");
    let (_, run) = fleet.run_shell("web1", &[], &text).await;
    assert_eq!(run.get("state").and_then(|state| state.as_str()), Some("succeeded"), "{run}");
}

/// A step finds the binary of its own host, and the binary answers.
#[tokio::test]
async fn a_command_finds_the_binary_of_its_host() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    let text = "printf '%s\\n' \"$FLEETWRIGHT\" > path; \"${FLEETWRIGHT:?too old}\" probe file path --sha256 \"$(sha256sum path | cut -d' ' -f1)\"";
    let (id, run) = fleet.run_shell("web1", &[], text).await;
    assert_eq!(run.get("state").and_then(|state| state.as_str()), Some("succeeded"), "{run}");
    assert!(fleet.raw(&id, "web1", "stdout").await.ok().text().starts_with("path: sha256 "));
    let lines = fleet.lines("path");
    let found = lines.first().map(Path::new).expect("a line");
    assert!(found.is_absolute(), "{}", found.display());
    assert_eq!(found.canonicalize().ok(), Path::new(BINARY).canonicalize().ok());
    let (_, run) =
        fleet.run_shell("web1", &["--env", "FLEETWRIGHT=/mine"], "test $FLEETWRIGHT = /mine").await;
    assert_eq!(
        run.get("state").and_then(|state| state.as_str()),
        Some("succeeded"),
        "what a run sets counts"
    );
}
