//! The first minute: one command makes a fleet of one host, another runs something on it.

use fw_testkit::fleet::Fleet;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// `up` prints the address and, once, the first token; then `run` works at once.
#[tokio::test]
async fn two_commands_are_enough() {
    let mut fleet = Fleet::up(BINARY, &["--name", "here"]).await;
    let token = std::fs::read_to_string(fleet.data_dir().join("admin.token")).expect("a token");
    let token = token.trim().to_owned();
    assert!(!token.is_empty() && fleet.server.log().contains(&token), "{}", fleet.server.log());
    assert!(fleet.data_dir().join("jobs/example.yaml").exists(), "an example to begin with");
    fleet.online("here").await;
    let ran = fleet.cli(&["run", "*", "--", "echo", "hello"]).await.ok();
    assert_eq!(ran.text(), "here | hello\n");

    // Stopped and started again, on whatever port the system gives: the same fleet, and no second token.
    let before = fleet.server.log().len();
    assert!(fleet.server.term().await.success());
    fleet.start_server().await;
    fleet.online("here").await;
    let log = fleet.server.log();
    assert!(!log.get(before..).unwrap_or_default().contains(&token), "{log}");
    let ran = fleet.cli(&["run", "*", "--", "echo", "again"]).await.ok();
    assert_eq!(ran.text(), "here | again\n");
    let hosts = fleet.cli(&["hosts", "list", "-o", "name"]).await.ok();
    assert_eq!(hosts.text(), "here\n");
}

/// Killed in the middle of a command, `up` takes it up again: server and agent died together.
#[tokio::test]
async fn a_killed_up_loses_nothing() {
    let mut fleet = Fleet::up(BINARY, &["--name", "here"]).await;
    fleet.online("here").await;
    let text = "echo began >> began; echo first; while [ ! -e go ]; do sleep 0.05; done; echo last";
    let id = fleet.begin_shell("here", &[], text).await;
    fleet.written("began").await;
    fleet.server.kill9().await;
    fleet.start_server().await;
    fleet.touch("go");
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
    assert_eq!(fleet.lines("began"), ["began"]);
    assert_eq!(fleet.raw(&id, "here", "stdout").await.ok().text(), "first\nlast\n");
}
