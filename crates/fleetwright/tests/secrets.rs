//! Secrets reach the command that needs them, and nothing else.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");
const SECRET: &str = "correct-horse-battery-staple-7741";

/// A secret is in the command's environment; in what it prints it is masked, also in base64 and
/// across reads; and no file of server or agent holds it in plain, not even while it is used.
#[tokio::test]
async fn a_secret_stays_one() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    drop(fleet.cli_with_input(&["secrets", "set", "db"], SECRET.as_bytes()).await.ok());
    let text = "[ \"$PW\" = \"$(printf correct-horse; printf -- -battery-staple-7741)\" ] || exit 9; \
        echo \"plain $PW.\"; printf %s \"$PW\" | base64; printf 'x%s' \"$PW\" | base64; \
        printf correct-horse-bat; sleep 0.3; echo tery-staple-7741; echo \"$PW\" >&2; \
        echo began >> began; while [ ! -e go ]; do sleep 0.05; done";
    let id = fleet.begin_shell("web1", &["--secret", "PW=db"], text).await;
    fleet.written("began").await;
    fleet.run_when(&id, "output", |run| run["tasks"][0]["stdout_bytes"].as_u64() > Some(0)).await;
    assert_absent(fleet.dir());
    for words in command_lines() {
        assert!(!words.contains(SECRET), "in the process list: {words}");
    }
    fleet.touch("go");
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
    assert_absent(fleet.dir());
    for stream in ["stdout", "stderr"] {
        let text = fleet.raw(&id, "web1", stream).await.ok().text();
        assert!(text.contains("***") && !text.contains(SECRET), "{text}");
        assert!(!text.contains(&STANDARD.encode(SECRET)), "{text}");
        assert!(!text.contains("battery"), "{text}");
        let shifted = STANDARD.encode(format!("x{SECRET}"));
        let middle = shifted.get(4..shifted.len() - 4).unwrap_or(&shifted);
        assert!(!text.contains(middle), "{text}");
    }
    let list = fleet.cli(&["secrets", "list", "-o", "json"]).await.ok();
    assert_eq!(list.json()[0]["name"], "db");
    assert!(!list.text().contains(SECRET));
    let shown = fleet.cli(&["runs", "show", &id, "-o", "json"]).await.ok();
    assert!(!shown.text().contains(SECRET));
}

/// A secret that is gone refuses the run before anything starts.
#[tokio::test]
async fn a_secret_that_is_gone_starts_nothing() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    drop(fleet.cli_with_input(&["secrets", "set", "db"], b"value-of-it").await.ok());
    drop(fleet.cli(&["secrets", "remove", "db"]).await.ok());
    let scratch = fleet.scratch().display().to_string();
    let line =
        ["run", "web1", "--cwd", &scratch, "--secret", "PW=db", "--shell", "echo x >> began"];
    let refused = fleet.cli(&line).await;
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("secrets set"), "{}", refused.stderr);
    assert!(fleet.lines("began").is_empty());
    drop(fleet.cli(&["secrets", "remove", "db"]).await.exits(5));
    assert_ne!(fleet.cli_with_input(&["secrets", "set", "empty"], b"").await.code, 0);
}

/// Secrets outlive a kill of the server and come out of its own encryption again.
#[tokio::test]
async fn a_secret_outlives_the_server() {
    let mut fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    drop(fleet.cli_with_input(&["secrets", "set", "db"], SECRET.as_bytes()).await.ok());
    fleet.server.kill9().await;
    fleet.start_server().await;
    fleet.online("web1").await;
    let text = format!("[ \"$PW\" = {} ]", SECRET.replace('-', "\"-\""));
    let (_, run) = fleet.run_shell("web1", &["--secret", "PW=db"], &text).await;
    assert_eq!(run["state"], "succeeded");
    // A file may be written late: looked at until the agent has settled the task.
    wait_for("an empty spool", PATIENCE, async || {
        let spool = std::fs::read_dir(fleet.state_dir("web1").join("spool")).ok()?;
        spool.flatten().all(|entry| !entry.path().is_dir()).then_some(())
    })
    .await;
    assert_absent(fleet.dir());
}

/// No file below holds the secret, plain or in base64.
#[track_caller]
fn assert_absent(dir: &Path) {
    let base64 = STANDARD.encode(SECRET);
    let mut read = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                read += bytes.len();
                let text = String::from_utf8_lossy(&bytes);
                let path = entry.path();
                assert!(!text.contains(SECRET) && !text.contains(&base64), "{}", path.display());
            }
        }
    }
    assert!(read > 10_000, "the store alone is larger than {read} bytes");
}

/// The arguments of all processes.
fn command_lines() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}
