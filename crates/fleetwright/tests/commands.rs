//! Commands that behave badly, and what becomes of them.

use std::path::Path;

use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

async fn fleet() -> (Fleet, Agent) {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.agent("web1").await;
    (fleet, web1)
}

async fn gone(pid: &str) {
    wait_for(&format!("process {pid} to be gone"), PATIENCE, async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A dead one that nobody has waited for is gone enough.
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
}

fn seconds(task: &Value) -> f64 {
    let at = |key: &str| -> f64 {
        let text = task[key].as_str().expect("a time");
        let time = text.parse::<fw_proto::Timestamp>().expect("RFC 3339");
        time.as_millis() as f64 / 1000.0
    };
    at("finished_at") - at("started_at")
}

/// A command that ignores TERM is killed after `--kill-after`.
#[tokio::test]
async fn one_that_ignores_term_is_killed() {
    let (fleet, _web1) = fleet().await;
    let text = "trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done";
    let args = ["--timeout", "1s", "--kill-after", "1s"];
    let (_, run) = fleet.run_shell("web1", &args, text).await;
    let task = &run["tasks"][0];
    assert_eq!((&task["state"], &task["signal"]), (&"timed_out".into(), &9.into()));
    assert!((1.9..20.0).contains(&seconds(task)), "{}", seconds(task));
    gone(&fleet.written("pid").await.concat()).await;
}

/// A daemon that keeps stdout open hangs nothing, lives on, and is counted.
#[tokio::test]
async fn a_daemon_that_keeps_stdout_hangs_nothing() {
    let (fleet, _web1) = fleet().await;
    let text = "echo before; (sleep 300 & echo $! > pid); exit 0";
    let (id, run) = fleet.run_shell("web1", &[], text).await;
    let task = &run["tasks"][0];
    assert_eq!((&run["state"], &task["left_behind"]), (&"succeeded".into(), &1.into()));
    assert!(seconds(task) < 30.0, "the task ended with its main process");
    assert_eq!(fleet.raw(&id, "web1", "stdout").await.ok().text(), "before\n");
    let pid = fleet.written("pid").await.concat();
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "it stays");
}

/// A child in a session of its own is still of the task: a timeout ends it too.
#[tokio::test]
async fn one_that_calls_setsid_does_not_escape() {
    let (fleet, _web1) = fleet().await;
    let text = "setsid sh -c 'echo $$ > pid; exec sleep 300' & \
        setsid sh -c '(exec sleep 300) & echo $! > orphan'; wait";
    let (_, run) = fleet.run_shell("web1", &["--timeout", "1s"], text).await;
    assert_eq!(run["tasks"][0]["state"], "timed_out");
    gone(&fleet.written("pid").await.concat()).await;
    gone(&fleet.written("orphan").await.concat()).await;
}

/// A command that closes stdout and stderr is still waited for.
#[tokio::test]
async fn one_that_closes_stdout_runs_on() {
    let (fleet, _web1) = fleet().await;
    let text = "echo before; exec >&- 2>&-; sleep 1; echo done >> done; exit 7";
    let (id, run) = fleet.run_shell("web1", &[], text).await;
    let task = &run["tasks"][0];
    assert_eq!((&task["state"], &task["exit_code"]), (&"failed".into(), &7.into()));
    assert_eq!(fleet.lines("done"), ["done"]);
    assert_eq!(fleet.raw(&id, "web1", "stdout").await.ok().text(), "before\n");
}

/// A line of 10 MB is a line.
#[tokio::test]
async fn a_line_of_10_mb_arrives() {
    let (fleet, _web1) = fleet().await;
    let text = "head -c 10000000 /dev/zero | tr '\\0' x; echo";
    let (id, run) = fleet.run_shell("web1", &[], text).await;
    assert_eq!(run["tasks"][0]["stdout_bytes"], 10_000_001);
    let raw = fleet.raw(&id, "web1", "stdout").await.ok();
    assert!(raw.stdout.len() == 10_000_001 && raw.stdout.ends_with(b"xxx\n"));
    assert!(raw.stdout.iter().rev().skip(1).all(|byte| *byte == b'x'));
    let lines = fleet.cli(&["runs", "logs", &id, "--host", "web1"]).await.ok();
    assert_eq!(lines.stdout.len(), 10_000_001);
}

/// Bytes that are no UTF-8 are kept as they are, also NUL.
#[tokio::test]
async fn bytes_that_are_no_text_arrive() {
    let (fleet, _web1) = fleet().await;
    let all: Vec<u8> = (0..=255).collect();
    std::fs::write(fleet.scratch().join("bytes"), &all).expect("a new file");
    let (id, run) = fleet.run_shell("web1", &[], "cat bytes; cat bytes >&2").await;
    assert_eq!(run["state"], "succeeded");
    for stream in ["stdout", "stderr"] {
        assert_eq!(fleet.raw(&id, "web1", stream).await.ok().stdout, all);
    }
    // People get a mark in the place of what is no text.
    let lines = fleet.cli(&["runs", "logs", &id]).await.ok();
    assert!(lines.text().contains('\u{fffd}'), "{}", lines.text());
}

/// Both streams at once: each whole, and together in the order in which they were read.
#[tokio::test]
async fn both_streams_are_kept_apart() {
    let (fleet, _web1) = fleet().await;
    let text = "for n in $(seq 1000); do echo out $n; echo err $n >&2; done";
    let (id, _) = fleet.run_shell("web1", &[], text).await;
    for (stream, word) in [("stdout", "out"), ("stderr", "err")] {
        let expected: String = (1..=1000).map(|n| format!("{word} {n}\n")).collect();
        assert_eq!(fleet.raw(&id, "web1", stream).await.ok().text(), expected);
    }
}

/// A program that is not there fails, and the message names it.
#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let (fleet, _web1) = fleet().await;
    let ran =
        fleet.cli(&["run", "web1", "--wait", "-o", "json", "--", "/no/such"]).await.exits(100);
    let task = &ran.json()["tasks"][0];
    assert_eq!((&task["state"], &task["reason"]), (&"failed".into(), &"spawn".into()));
    assert!(task["message"].as_str().is_some_and(|text| text.contains("/no/such")), "{task}");
}

/// Environment, directory, umask and niceness are as asked; stdin is empty, the rest is clean.
#[tokio::test]
async fn a_command_gets_what_was_asked_and_nothing_else() {
    let (fleet, _web1) = fleet().await;
    let text = "pwd; echo $GREETING; umask; nice; cat; env | cut -d= -f1 | sort | tr '\\n' ' '";
    let args = ["--env", "GREETING=good day", "--umask", "027", "--nice", "5"];
    let (id, run) = fleet.run_shell("web1", &args, text).await;
    assert_eq!(run["state"], "succeeded");
    let text = fleet.raw(&id, "web1", "stdout").await.ok().text();
    let lines: Vec<_> = text.lines().collect();
    let scratch = fleet.scratch().canonicalize().expect("it is there").display().to_string();
    assert_eq!(lines.get(..4), Some([scratch.as_str(), "good day", "0027", "5"].as_slice()));
    let names = lines.get(4).copied().unwrap_or_default();
    assert!(names.contains("GREETING") && names.contains("PATH"), "{names}");
    for leaked in ["FLEETWRIGHT_TOKEN", "CARGO", "NEXTEST", "RUST"] {
        assert!(!names.contains(leaked), "{names}");
    }
}

/// Run as another user: that user, and nothing of ours. An agent that is not root says that it cannot.
#[tokio::test]
async fn a_command_runs_as_another_user() {
    let (fleet, web1) = fleet().await;
    if !is_root() {
        let args = ["run", "web1", "--wait", "-o", "json", "--user", "nobody", "--", "true"];
        let task = &fleet.cli(&args).await.exits(100).json()["tasks"][0];
        assert_eq!((&task["state"], &task["reason"]), (&"refused".into(), &"user".into()));
        return;
    }
    let spool = web1.state.join("spool").display().to_string();
    let spool =
        format!("id -un; id -Gn; ls {spool} 2>&1 >/dev/null && echo seen; echo $HOME $USER");
    let args = ["run", "web1", "--user", "nobody", "--cwd", "/", "--shell", &spool];
    let ran = fleet.cli(&args).await.ok();
    let text = ran.text();
    assert!(text.contains("nobody\n") && !text.contains("root"), "{text}");
    assert!(text.contains("Permission denied") && !text.contains("seen"), "{text}");
    let args = ["run", "web1", "--wait", "-o", "json", "--user", "no-such-user", "--", "true"];
    let ran = fleet.cli(&args).await.exits(100);
    let task = &ran.json()["tasks"][0];
    assert_eq!((&task["state"], &task["reason"]), (&"refused".into(), &"user".into()));
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A host whose state directory is a disk of its own, of 4 MB. The disk exists for the agent and
/// its commands only, in a mount namespace that ends with them.
async fn fleet_with_a_small_disk() -> (Fleet, Agent) {
    let fleet = Fleet::start(BINARY).await;
    drop(fleet.join("web1", &[]).await);
    let small = "state=$5; mount -t tmpfs -o size=4m tmpfs \"$state.disk\" \
        && cp -a \"$state/.\" \"$state.disk\" && mount --bind \"$state.disk\" \"$state\" && exec \"$@\"";
    std::fs::create_dir(fleet.state_dir("web1").with_extension("disk")).expect("a new directory");
    // Who is not root may mount in a user namespace of its own (user_namespaces(7)).
    let user: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
    let wrap = ["--mount", "--propagation", "private", "sh", "-c", small, "sh"];
    let wrap = [&["unshare"], user, &wrap].concat();
    let mut web1 = fleet.agent_of("web1", &wrap, &[]);
    web1.start();
    fleet.online("web1").await;
    (fleet, web1)
}

/// A disk that is full drops output and says so; the command, its result and the agent live on.
#[tokio::test]
async fn a_full_disk_loses_output_only() {
    let (fleet, _web1) = fleet_with_a_small_disk().await;
    let text = "while [ ! -e go ]; do sleep 0.05; done; \
        echo began >> began; seq 10000000 15555555; echo done >> done";
    let id = fleet.begin_shell("web1", &[], text).await;
    fleet.task_is(&id, "running").await;
    fleet.proxy.cut();
    fleet.host_is("web1", "offline").await;
    fleet.touch("go");
    fleet.written("done").await;
    fleet.proxy.resume();
    let run = fleet.ended(&id).await;
    let task = &run["tasks"][0];
    assert_eq!((&task["state"], &task["exit_code"]), (&"succeeded".into(), &0.into()));
    let (kept, dropped) = (task["stdout_bytes"].as_u64(), task["stdout_dropped_bytes"].as_u64());
    let (kept, dropped) = (kept.expect("a number"), dropped.expect("a number"));
    assert!(kept > 0 && dropped > 0, "kept {kept}, dropped {dropped}");
    assert_eq!(kept + dropped, 5_555_556 * 9);
    assert_eq!(fleet.raw(&id, "web1", "stdout").await.exits(3).stdout.len() as u64, kept);
    assert_eq!(fleet.lines("began"), ["began"]);

    // And the host goes on.
    let (_, run) = fleet.run_shell("web1", &[], "true").await;
    assert_eq!(run["state"], "succeeded");
}

/// What cannot be remembered is not started: the refusal says which disk, and with room again
/// the host goes on.
#[tokio::test]
async fn a_full_disk_refuses_a_start() {
    let (fleet, web1) = fleet_with_a_small_disk().await;
    // The agent's own view of its state directory.
    let root = format!("/proc/{}/root", web1.process.pid().expect("it runs"));
    let fill = Path::new(&root).join(web1.state.strip_prefix("/").expect("absolute")).join("fill");
    std::fs::write(&fill, vec![1; 8 * 1024 * 1024]).expect_err("the disk holds 4 MB");
    let (_, run) = fleet.run_shell("web1", &[], "echo began >> began").await;
    let task = &run["tasks"][0];
    assert_eq!((&task["state"], &task["reason"]), (&"refused".into(), &"disk".into()), "{task}");
    assert!(task["message"].as_str().is_some_and(|text| text.contains("state directory")));
    assert!(fleet.lines("began").is_empty());
    std::fs::remove_file(&fill).expect("it is there");
    let (_, run) = fleet.run_shell("web1", &[], "echo began >> began").await;
    assert_eq!((&run["state"], fleet.lines("began").len()), (&"succeeded".into(), 1));
}
