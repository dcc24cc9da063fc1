//! A server whose disk is full: it says so, loses nothing, and goes on by itself.

use std::io::Write as _;

use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Prints 5 MB of lines, each different; the second half when it is told to go on.
const PRINTS_5_MB: &str = "seq 1000000 1311110; while [ ! -e go ]; do sleep 0.05; done; \
    seq 1311111 1622220; echo done >> done";

/// What `/readyz` answers: whether the server is ready, and in which words.
async fn ready(fleet: &Fleet) -> Option<(bool, String)> {
    let answer = reqwest::get(format!("{}/readyz", fleet.url())).await.ok()?;
    Some((answer.status().is_success(), answer.text().await.ok()?))
}

/// The disk of the data directory fills while a command prints. The command goes on and ends, its
/// host keeps what it prints, `/readyz` and refusals say what to do; with room again the server
/// takes everything in, without a restart.
#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_lost() {
    let fleet = Fleet::start_on_a_small_disk(BINARY, "64m").await;
    let _web1 = fleet.agent("web1").await;
    let id = fleet.begin_shell("web1", &[], PRINTS_5_MB).await;
    let stored = |run: &serde_json::Value| run["tasks"][0]["stdout_bytes"].as_u64().unwrap_or(0);
    fleet.run_when(&id, "the first stored output", |run| stored(run) > 0).await;

    let fill = fleet.in_server(&fleet.data_dir().join("fill"));
    let mut file = std::fs::File::create(&fill).expect("a new file");
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    fleet.touch("go");
    fleet.written("done").await;
    let wrong = wait_for("a server that is not ready", PATIENCE, async || {
        ready(&fleet).await.filter(|(ready, _)| !ready)
    });
    let (_, wrong) = wrong.await;
    assert!(wrong.contains("main.db: the disk is full; make room on it"), "{wrong}");
    let refused = fleet.cli(&["run", "web1", "--detach", "--", "true"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("make room on it"), "{}", refused.stderr);
    // What was committed is read.
    assert_eq!(fleet.runs_show(&id).await["state"], "running");

    std::fs::remove_file(&fill).expect("it is there");
    let run = fleet.ended(&id).await;
    assert_eq!((&run["state"], stored(&run)), (&"succeeded".into(), 622_221 * 8), "{run}");
    let mut expected = Vec::new();
    (1_000_000..=1_622_220).for_each(|n| expected.extend(format!("{n}\n").into_bytes()));
    assert!(fleet.raw(&id, "web1", "stdout").await.ok().stdout == expected);
    let (_, run) = fleet.run_shell("web1", &[], "true").await;
    assert_eq!(run["state"], "succeeded");
    let ready_again = wait_for("a server that is ready", PATIENCE, async || {
        ready(&fleet).await.filter(|(ready, _)| *ready)
    });
    ready_again.await;
}
