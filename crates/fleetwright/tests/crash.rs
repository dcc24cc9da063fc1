//! Servers and agents are killed in the middle of things, and nothing is lost or done twice.

use fw_testkit::fleet::Fleet;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// The two commands of the first minute, with a server and an agent of their own.
#[tokio::test]
async fn a_command_runs_on_a_host() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    let ran = fleet.cli(&["run", "web1", "--", "echo", "hello"]).await.ok();
    assert!(ran.text().contains("hello"), "{}", ran.text());
}
