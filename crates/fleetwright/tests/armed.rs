//! Changes that their host undoes by itself: whoever is killed, gone or cut off.
//!
//! Each change writes another text into a file, and its undo puts the first one back. In the end the bytes
//! are compared: those of before, or those of the change.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::fs;

use fw_agent::identity::StateDir;
use fw_proto::frame::{FromAgent, FromServer};
use fw_rt::noise::Keypair;
use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use fw_testkit::intruder::{Intruder, hello};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// What the file holds at first, and after the change.
const BEFORE: &str = "listen 80;\n";
const AFTER: &str = "listen 8080;\n";

/// Makes the change once there is `go`.
const CHANGE: &str =
    "echo began >> began; while [ ! -e go ]; do sleep 0.05; done; echo 'listen 8080;' > conf";

/// May be repeated.
const UNDO: &str = "cp conf.before conf && echo undone >> undone";

/// The proof of a change that waits for as long as the test wants.
const PROBE: &str = "test -e good";

/// Longer than any test waits.
const LONG: &str = "10m";

async fn fleet() -> (Fleet, Agent) {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.agent("web1").await;
    for file in ["conf", "conf.before"] {
        fs::write(fleet.scratch().join(file), BEFORE).expect("a new file");
    }
    (fleet, web1)
}

fn conf(fleet: &Fleet) -> String {
    fs::read_to_string(fleet.scratch().join("conf")).expect("the file is always there")
}

/// A change that has begun and waits for `go`.
async fn begun(fleet: &Fleet, within: &str, undo: &str, probe: &[&str]) -> String {
    let undo = format!("cd {} && {{ {undo}; }}", fleet.scratch().display());
    let args = [&["--armed", within, "--undo", &undo], probe].concat();
    let id = fleet.begin_shell("web1", &args, CHANGE).await;
    fleet.written("began").await;
    id
}

/// A change that is made, has the word, and waits for its proof.
async fn waiting(fleet: &Fleet) -> String {
    let id = begun(fleet, LONG, UNDO, &["--probe", PROBE]).await;
    fleet.touch("go");
    fleet.run_when(&id, "a change that waits", |run| run["tasks"][0]["armed"] == "waiting").await;
    assert_eq!(conf(fleet), AFTER);
    id
}

/// The run has ended so, on the server as on the host.
async fn assert_ended(fleet: &Fleet, id: &str, state: &str, armed: &str) -> Value {
    let run = fleet.ended(id).await;
    let task = &run["tasks"][0];
    let said = (&task["state"], &task["armed"], &task["reason"]);
    assert_eq!(said, (&state.into(), &armed.into(), &armed.into()), "{task}");
    assert_eq!(fleet.lines("began"), ["began"], "the change was made once");
    let expected = if armed == "kept" { AFTER } else { BEFORE };
    assert_eq!(conf(fleet), expected, "{task}");
    assert_eq!(fleet.lines("undone").is_empty(), armed == "kept", "never kept and undone both");
    run
}

/// The process that supervises the only task of the host.
fn supervisor(web1: &Agent) -> Pid {
    let spools = fs::read_dir(web1.state.join("spool")).expect("a spool").flatten();
    let started = spools.filter_map(|task| fs::read(task.path().join("started")).ok()).next();
    let started: Value =
        serde_json::from_slice(&started.expect("a task that was started")).expect("JSON");
    let pid = started["supervisor"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("a process")
}

async fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).expect("it lives");
    let proc = format!("/proc/{}/stat", pid.as_raw_pid());
    wait_for("the end of the supervisor", PATIENCE, async || {
        let stat = fs::read_to_string(&proc).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
}

/// The server's word and the host's proof are there: the change is kept.
#[tokio::test]
async fn a_change_that_is_confirmed_is_kept() {
    let (fleet, _web1) = fleet().await;
    let id = waiting(&fleet).await;
    fleet.touch("good");
    let run = assert_ended(&fleet, &id, "succeeded", "kept").await;
    assert_eq!(run["tasks"][0]["exit_code"], 0);
    let said = fleet.raw(&id, "web1", "stderr").await.ok().text();
    assert!(said.contains("[fleetwright] is the change good? The probe:"), "{said}");
}

/// Without a probe the server's word is enough.
#[tokio::test]
async fn a_change_without_a_probe_is_kept_by_the_word_alone() {
    let (fleet, _web1) = fleet().await;
    let id = begun(&fleet, LONG, UNDO, &[]).await;
    fleet.touch("go");
    assert_ended(&fleet, &id, "succeeded", "kept").await;
    let shown = fleet.cli(&["runs", "show", &id]).await.ok().text();
    assert!(shown.contains("kept"), "{shown}");
}

/// The word alone does not keep it.
#[tokio::test]
async fn a_change_whose_proof_does_not_hold_is_undone() {
    let (fleet, _web1) = fleet().await;
    let id = begun(&fleet, "1s", UNDO, &["--probe", PROBE]).await;
    fleet.touch("go");
    assert_ended(&fleet, &id, "failed", "undone").await;
}

/// One that fails by itself is undone at once, though there is much time left.
#[tokio::test]
async fn a_change_that_fails_is_undone_at_once() {
    let (fleet, _web1) = fleet().await;
    let undo = format!("cd {} && {UNDO}", fleet.scratch().display());
    let text = format!("echo began >> began; echo broken > conf; exit 3; {CHANGE}");
    let args = ["--armed", LONG, "--undo", &undo];
    let (id, _) = fleet.run_shell("web1", &args, &text).await;
    let run = assert_ended(&fleet, &id, "failed", "undone").await;
    assert_eq!(run["tasks"][0]["exit_code"], 3);
}

/// Whoever cancels a change that waits wants it undone.
#[tokio::test]
async fn a_change_that_is_cancelled_while_it_waits_is_undone() {
    let (fleet, _web1) = fleet().await;
    let id = waiting(&fleet).await;
    drop(fleet.cli(&["runs", "cancel", &id]).await.ok());
    assert_ended(&fleet, &id, "cancelled", "undone").await;
}

/// The link is cut: no word comes, the host undoes the change by itself, and the server hears of it later.
#[tokio::test]
async fn a_change_whose_link_is_cut_is_undone_by_its_host() {
    let (fleet, _web1) = fleet().await;
    let id = begun(&fleet, "1s", UNDO, &[]).await;
    fleet.proxy.cut();
    fleet.touch("go");
    fleet.written("undone").await;
    assert_eq!(conf(&fleet), BEFORE);
    fleet.proxy.resume();
    assert_ended(&fleet, &id, "failed", "undone").await;
}

/// The agent is killed: the supervisor needs it for nothing.
#[tokio::test]
async fn a_change_whose_agent_is_killed_is_undone_in_time() {
    let (fleet, mut web1) = fleet().await;
    let id = begun(&fleet, "1s", UNDO, &[]).await;
    web1.kill9().await;
    fleet.touch("go");
    fleet.written("undone").await;
    assert_eq!(conf(&fleet), BEFORE);
    web1.start();
    assert_ended(&fleet, &id, "failed", "undone").await;
}

/// The server is gone.
#[tokio::test]
async fn a_change_whose_server_is_gone_is_undone_by_its_host() {
    let (mut fleet, _web1) = fleet().await;
    let id = begun(&fleet, "1s", UNDO, &[]).await;
    fleet.server.kill9().await;
    fleet.touch("go");
    fleet.written("undone").await;
    assert_eq!(conf(&fleet), BEFORE);
    fleet.start_server().await;
    assert_ended(&fleet, &id, "failed", "undone").await;
}

/// A server that comes back in time says its word again, and the change is kept.
#[tokio::test]
async fn a_change_is_kept_by_a_server_that_was_away() {
    let (mut fleet, mut web1) = fleet().await;
    let id = begun(&fleet, LONG, UNDO, &[]).await;
    fleet.server.kill9().await;
    web1.kill9().await;
    fleet.touch("go");
    wait_for("the change", PATIENCE, async || (conf(&fleet) == AFTER).then_some(())).await;
    web1.start();
    fleet.start_server().await;
    assert_ended(&fleet, &id, "succeeded", "kept").await;
}

/// The supervisor is killed while the change waits: the agent has it undone at once, long before its
/// time is over.
#[tokio::test]
async fn a_change_whose_supervisor_is_killed_is_undone_at_once() {
    let (fleet, web1) = fleet().await;
    let id = waiting(&fleet).await;
    kill(supervisor(&web1)).await;
    let run = assert_ended(&fleet, &id, "failed", "undone").await;
    assert_eq!(run["tasks"][0]["exit_code"], 0, "of the change itself");
    let said = fleet.raw(&id, "web1", "stderr").await.ok().text();
    assert!(said.contains("undoing the change, try 1 of 5"), "{said}");
}

/// Likewise when both were killed and only the agent comes back.
#[tokio::test]
async fn a_restarted_agent_undoes_what_a_killed_supervisor_left() {
    let (fleet, mut web1) = fleet().await;
    let id = waiting(&fleet).await;
    web1.kill9().await;
    kill(supervisor(&web1)).await;
    assert_eq!(conf(&fleet), AFTER, "nobody is there to undo it");
    web1.start();
    assert_ended(&fleet, &id, "failed", "undone").await;
}

/// The supervisor is killed in the middle of the change.
#[tokio::test]
async fn a_half_made_change_is_undone() {
    let (fleet, mut web1) = fleet().await;
    let id = begun(&fleet, LONG, UNDO, &[]).await;
    fs::write(fleet.scratch().join("conf"), "half").expect("a file");
    web1.kill9().await;
    kill(supervisor(&web1)).await;
    web1.start();
    assert_ended(&fleet, &id, "failed", "undone").await;
}

/// The host restarts: everybody is gone, and the boot is another one. No link is needed to undo.
#[tokio::test]
async fn a_change_is_undone_after_the_host_restarts() {
    let (fleet, mut web1) = fleet().await;
    let id = waiting(&fleet).await;
    let supervisor = supervisor(&web1);
    web1.kill9().await;
    kill(supervisor).await;
    fleet.proxy.cut();
    let other_boot = ["env", "FLEETWRIGHT_TEST_BOOT_ID=another-boot"];
    let mut web1 = fleet.agent_of("web1", &other_boot, &[]);
    web1.start();
    fleet.written("undone").await;
    assert_eq!(conf(&fleet), BEFORE);
    fleet.proxy.resume();
    assert_ended(&fleet, &id, "failed", "undone").await;
}

/// An undo that does not succeed is tried five times, and then somebody is told loudly.
#[tokio::test]
async fn an_undo_that_fails_five_times_is_shouted() {
    let (fleet, _web1) = fleet().await;
    let undo = "echo try >> tries; false";
    let id = begun(&fleet, "1s", undo, &["--probe", PROBE]).await;
    fleet.touch("go");
    let run = fleet.ended(&id).await;
    let task = &run["tasks"][0];
    assert_eq!((&task["state"], &task["armed"]), (&"failed".into(), &"undo_failed".into()));
    assert_eq!(fleet.lines("tries").len(), 5);
    assert_eq!(conf(&fleet), AFTER);
    let shown = fleet.cli(&["runs", "show", &id]).await.ok().text();
    assert!(shown.contains("THE UNDO FAILED"), "{shown}");
}

/// What undoes a change has the change's secrets, also after its supervisor was killed; and nothing of
/// them stays on the disk, nor shows in the output.
#[tokio::test]
async fn secrets_reach_the_undo_and_leave_the_disk_with_it() {
    let (fleet, mut web1) = fleet().await;
    let set = ["secrets", "set", "PLACE"];
    drop(fleet.cli_with_input(&set, b"conf.before").await.ok());
    let undo = format!(
        "cd {} && cp \"$PLACE\" conf && echo \"$PLACE\" >> undone",
        fleet.scratch().display()
    );
    let args = ["--armed", LONG, "--undo", &undo, "--probe", PROBE, "--secret", "PLACE=PLACE"];
    let id = fleet.begin_shell("web1", &args, CHANGE).await;
    fleet.touch("go");
    fleet.run_when(&id, "a change that waits", |run| run["tasks"][0]["armed"] == "waiting").await;
    web1.kill9().await;
    kill(supervisor(&web1)).await;
    web1.start();
    assert_ended(&fleet, &id, "failed", "undone").await;
    assert_eq!(fleet.lines("undone"), ["conf.before"]);
    let said = fleet.raw(&id, "web1", "stderr").await.ok().text();
    assert!(!said.contains("conf.before"), "{said}");
    wait_for("an empty spool", PATIENCE, async || {
        let spools = fs::read_dir(web1.state.join("spool")).expect("a spool").flatten();
        (spools.filter(|entry| entry.path().is_dir()).count() == 0).then_some(())
    })
    .await;
}

/// An agent of the release before is linked and takes other work, but is never sent an armed change.
#[tokio::test]
async fn an_old_agent_is_not_sent_an_armed_change() {
    let fleet = Fleet::start(BINARY).await;
    let old = fleet.join("web1", &[]).await;
    let dir = StateDir::open(&old.state).expect("a state directory");
    let own = Keypair::from_private(dir.key().expect("readable").expect("a key"));
    let server = dir.identity().expect("readable").expect("it has joined").server_keys[0];
    let address = fleet.url().trim_start_matches("http://").parse().expect("an address");
    let knocking = Intruder::knock(address, "Fleetwright-Protocol: 1-1\r\n").await.expect("a door");
    let prologue = b"fleetwright agent link 1-1";
    let mut link = knocking.handshake(&own, &server, prologue).await.expect("a link");
    link.speak(&FromAgent::Hello(hello((1, 1)))).await.expect("a server that hears");
    fleet.online("web1").await;
    let armed = ["--armed", "60s", "--undo", "true"];
    let (_, run) = fleet.run_shell("web1", &armed, "true").await;
    assert_eq!(run["tasks"][0]["reason"], "agent_old", "{run}");
    fleet.begin_shell("web1", &[], "echo plain").await;
    loop {
        match link.next().await {
            Some(FromServer::Start(starts)) => {
                let armed = starts.iter().any(|start| start.spec.armed.is_some());
                assert!(!armed && starts.len() == 1, "{starts:?}");
                break;
            }
            Some(_) => {}
            None => panic!("the link is over"),
        }
    }
}
