//! Last night's backup: what has happened since is forgotten by the server, not by the hosts.

use fw_testkit::fleet::{Agent, Fleet};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

async fn fleet() -> (Fleet, Agent, String) {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.agent("web1").await;
    let file = fleet.dir().join("last-night.tar").display().to_string();
    (fleet, web1, file)
}

/// Puts the backup in the place of what the server knows, and starts it.
async fn restore(fleet: &mut Fleet, file: &str) {
    assert!(fleet.server.term().await.success());
    let data_dir = fleet.data_dir().display().to_string();
    let line = ["backup", "restore", file, "--data-dir", &data_dir];
    let refused = fleet.cli(&line).await.exits(2);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    drop(fleet.cli(&[&line[..], &["--yes"]].concat()).await.ok());
    fleet.start_server().await;
    fleet.online("web1").await;
}

/// A run was going on when the backup was made and has ended since. On the restored server it
/// ends too, by what the host remembers, and its command does not run again.
#[tokio::test]
async fn what_was_running_does_not_run_again() {
    let (mut fleet, _web1, file) = fleet().await;
    let text = "echo began >> began; while [ ! -e go ]; do sleep 0.05; done; echo done";
    let id = fleet.begin_shell("web1", &[], text).await;
    fleet.task_is(&id, "running").await;
    drop(fleet.cli(&["backup", "create", &file]).await.ok());
    drop(fleet.cli(&["backup", "verify", &file]).await.ok());
    fleet.touch("go");
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
    restore(&mut fleet, &file).await;
    let run = fleet.ended(&id).await;
    assert_eq!(fleet.lines("began"), ["began"], "it ran once");
    let state = run["tasks"][0]["state"].as_str().unwrap_or_default();
    assert!(["succeeded", "unknown"].contains(&state), "{run}");
}

/// It goes on: the restored server takes it up where it is.
#[tokio::test]
async fn what_still_runs_is_taken_up() {
    let (mut fleet, _web1, file) = fleet().await;
    let text = "echo began >> began; while [ ! -e go ]; do sleep 0.05; done; echo done";
    let id = fleet.begin_shell("web1", &[], text).await;
    fleet.task_is(&id, "running").await;
    drop(fleet.cli(&["backup", "create", &file]).await.ok());
    restore(&mut fleet, &file).await;
    fleet.touch("go");
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
    assert_eq!(fleet.lines("began"), ["began"], "it ran once");
    assert_eq!(fleet.raw(&id, "web1", "stdout").await.ok().text(), "done\n");
}

/// A start was due when the backup was made, and has been performed since. By the backup it is
/// due still; the host knows better.
#[tokio::test]
async fn what_was_due_and_is_done_does_not_run_again() {
    let (mut fleet, mut web1, file) = fleet().await;
    web1.term().await;
    fleet.host_is("web1", "offline").await;
    let wait = ["--offline", "wait=1h", "--start-within", "1h"];
    let id = fleet.begin_shell("web1", &wait, "echo began >> began").await;
    drop(fleet.cli(&["backup", "create", &file]).await.ok());
    web1.start();
    assert_eq!(fleet.ended(&id).await["state"], "succeeded");
    restore(&mut fleet, &file).await;
    let run = fleet.ended(&id).await;
    assert_eq!(fleet.lines("began"), ["began"], "it ran once: {run}");
}

/// A run that the backup knows nothing of is forgotten; its command is left alone, and the
/// restored server is of use at once.
#[tokio::test]
async fn what_the_backup_does_not_know_is_left_alone() {
    let (mut fleet, _web1, file) = fleet().await;
    drop(fleet.cli(&["backup", "create", &file]).await.ok());
    let text = "echo began >> began; while [ ! -e go ]; do sleep 0.05; done; echo done >> done";
    let id = fleet.begin_shell("web1", &[], text).await;
    fleet.task_is(&id, "running").await;
    restore(&mut fleet, &file).await;
    drop(fleet.cli(&["runs", "show", &id]).await.exits(5));
    let (_, run) = fleet.run_shell("web1", &[], "true").await;
    assert_eq!(run["state"], "succeeded");
    fleet.touch("go");
    assert_eq!(fleet.written("done").await, ["done"]);
    assert_eq!(fleet.lines("began"), ["began"]);
}
