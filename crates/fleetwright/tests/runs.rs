//! Runs on several hosts: their order, their limits, their ends, and what scripts read of them.

use fw_testkit::fleet::{Agent, Fleet, Output, PATIENCE, wait_for};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

async fn fleet<const N: usize>() -> (Fleet, Vec<Agent>) {
    let fleet = Fleet::start(BINARY).await;
    let mut agents = Vec::new();
    for n in 1..=N {
        agents.push(fleet.agent(&format!("web{n}")).await);
    }
    (fleet, agents)
}

/// `run` with these arguments, a shell text in the scratch directory, and `--wait -o json`.
async fn run(fleet: &Fleet, selector: &str, args: &[&str], text: &str) -> Output {
    let scratch = fleet.scratch().display().to_string();
    let line = ["run", selector, "--cwd", &scratch, "--wait", "-o", "json"];
    fleet.cli(&[&line[..], args, &["--shell", text]].concat()).await
}

fn states(run: &Value) -> Vec<&str> {
    let tasks = run["tasks"].as_array().expect("tasks");
    let mut states: Vec<_> = tasks.iter().filter_map(|task| task["state"].as_str()).collect();
    states.sort_unstable();
    states
}

/// The exit code of `run` says how it ended: 0, 3 for some, 100 for none.
#[tokio::test]
async fn exit_codes_say_how_a_run_ended() {
    let (fleet, _agents) = fleet::<2>().await;
    drop(run(&fleet, "*", &[], "true").await.exits(0));
    // Whoever makes the directory first succeeds.
    let some = run(&fleet, "*", &[], "mkdir first").await.exits(3).json();
    assert_eq!((&some["state"], states(&some)), (&"failed".into(), vec!["failed", "succeeded"]));
    drop(run(&fleet, "*", &[], "mkdir first").await.exits(100));
    let code = fleet.cli(&["run", "web1", "--propagate", "--shell", "exit 42"]).await;
    drop(code.exits(42));
    let killed = run(&fleet, "web1", &[], "kill -9 $$").await.exits(100).json();
    assert_eq!(killed["tasks"][0]["signal"], 9);
    assert_eq!(killed["tasks"][0]["exit_code"], Value::Null);
}

/// Waiting that ends first has code 7, and the run goes on; other refusals have theirs.
#[tokio::test]
async fn exit_codes_say_what_was_refused() {
    let (fleet, _agents) = fleet::<1>().await;
    let line = ["run", "web1", "--wait=1s", "-o", "json", "--", "sleep", "300"];
    let waited = fleet.cli(&line).await.exits(7);
    let id = waited.json()["id"].as_str().expect("an id").to_owned();
    assert!(waited.stderr.contains(&format!("runs cancel {id}")), "{}", waited.stderr);
    assert_eq!(fleet.runs_show(&id).await["state"], "running");
    drop(fleet.cli(&["runs", "cancel", &id]).await.ok());
    fleet.ended(&id).await;
    let gone = "01a1fa08-5dd8-77fa-8d3a-d2e365842fd2";
    drop(fleet.cli(&["runs", "show", gone]).await.exits(5));
    drop(fleet.cli(&["hosts", "show", "nobody"]).await.exits(5));
    drop(fleet.cli(&["hosts", "list", "--token", "wrong"]).await.exits(4));
    drop(fleet.cli(&["hosts", "list", "--no-such-flag"]).await.exits(2));
    drop(fleet.cli(&["hosts", "list", "--server", "http://127.0.0.1:1"]).await.exits(1));
    let no_secret = ["run", "web1", "--secret", "A=none", "--", "true"];
    assert_ne!(fleet.cli(&no_secret).await.code, 0);
}

/// `--parallel 1` is one host at a time.
#[tokio::test]
async fn one_host_at_a_time() {
    let (fleet, _agents) = fleet::<4>().await;
    let text = "echo begin >> log; sleep 0.1; echo end >> log";
    let ended = run(&fleet, "*", &["--parallel", "1"], text).await.ok().json();
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(fleet.lines("log"), ["begin", "end"].repeat(4));
}

/// Over three hours, so that the first of three hosts runs at once and the others do not.
#[tokio::test]
async fn hosts_begin_one_after_the_other() {
    let (fleet, _agents) = fleet::<3>().await;
    let begun = ["run", "*", "--detach", "-o", "json", "--spread", "3h", "--", "true"];
    let id = fleet.cli(&begun).await.ok().json()["id"].as_str().expect("an id").to_owned();
    let show = async || fleet.cli(&["runs", "show", &id, "-o", "json"]).await.ok().json();
    wait_for("the first host to end", PATIENCE, async || {
        states(&show().await).contains(&"succeeded").then_some(())
    })
    .await;
    let run = show().await;
    assert_eq!(states(&run), ["queued", "queued", "succeeded"]);
    let waiting = &run["report"]["waiting_on"][0];
    assert_eq!((&waiting["on"], &waiting["hosts"]), (&"spread".into(), &2.into()), "{run}");
    drop(fleet.cli(&["runs", "cancel", &id]).await.ok());
    assert_eq!(states(&fleet.ended(&id).await), ["cancelled", "cancelled", "succeeded"]);
}

/// After so many failures no further host begins, and the rest say why.
#[tokio::test]
async fn failures_have_a_budget() {
    let (fleet, _agents) = fleet::<4>().await;
    // Never more in flight than failures left, whatever may run in parallel.
    let ended = run(&fleet, "*", &["--max-failures", "1"], "echo x >> log; exit 1").await;
    let ended = ended.exits(100).json();
    assert_eq!(states(&ended), ["failed", "skipped", "skipped", "skipped"]);
    assert_eq!(fleet.lines("log").len(), 1);
    let tasks = ended["tasks"].as_array().expect("tasks");
    assert!(
        tasks
            .iter()
            .filter(|task| task["state"] == "skipped")
            .all(|task| task["reason"] == "budget")
    );
    assert_eq!(ended["state"], "failed");
}

/// `retry --failed` makes a new run of the hosts that did not succeed, and says whose it is.
#[tokio::test]
async fn what_failed_is_tried_again() {
    let (fleet, _agents) = fleet::<3>().await;
    let first = run(&fleet, "*", &[], "mkdir first").await.exits(3).json();
    let id = first["id"].as_str().expect("an id").to_owned();
    std::fs::remove_dir(fleet.scratch().join("first")).expect("one has made it");
    let line = ["runs", "retry", &id, "--failed", "--wait", "-o", "json"];
    let second = fleet.cli(&line).await.exits(3).json();
    assert_eq!(second["retry_of"], id.as_str());
    assert_eq!(second["report"]["total"], 2);
    let failed = |run: &Value| -> Vec<Value> {
        let tasks = run["tasks"].as_array().expect("tasks").iter();
        tasks.filter(|task| task["state"] == "failed").map(|task| task["host"].clone()).collect()
    };
    let hosts: Vec<_> = second["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .map(|task| task["host"].clone())
        .collect();
    assert_eq!(hosts, failed(&first));
    assert_eq!(first, fleet.runs_show(&id).await, "the first stays as it was");
    // Nothing failed, nothing to do.
    let good = run(&fleet, "*", &[], "true").await.ok().json();
    let refused =
        fleet.cli(&["runs", "retry", good["id"].as_str().expect("an id"), "--failed"]).await;
    assert_ne!(refused.code, 0, "{}", refused.stderr);
}

/// What is cancelled on one host ends there, and the others go on to their own end.
#[tokio::test]
async fn a_run_that_is_cancelled_on_one_host_goes_on_at_the_other() {
    let (fleet, _agents) = fleet::<2>().await;
    let text = "echo began >> began; while ! test -e go; do sleep 0.05; done";
    let id = fleet.begin_shell("*", &[], text).await;
    wait_for("both to begin", PATIENCE, async || (fleet.lines("began").len() == 2).then_some(()))
        .await;
    let host = fleet.runs_show(&id).await["tasks"][0]["host"].as_str().expect("a name").to_owned();
    drop(fleet.cli(&["runs", "cancel", &id, "--host", &host]).await.ok());
    wait_for("its end there", PATIENCE, async || {
        (states(&fleet.runs_show(&id).await) == ["cancelled", "running"]).then_some(())
    })
    .await;
    let again = fleet.cli(&["runs", "cancel", &id, "--hosts", &host]).await;
    assert!(again.code != 0 && again.stderr.contains("at none of these hosts"), "{}", again.stderr);
    std::fs::write(fleet.scratch().join("go"), "").expect("write the scratch directory");
    let ended = fleet.ended(&id).await;
    assert_eq!(
        (&ended["state"], states(&ended)),
        (&"cancelled".into(), vec!["cancelled", "succeeded"])
    );
}

/// Cancel ends the command on every host, and `cancelled` is said only then.
#[tokio::test]
async fn a_cancelled_run_has_ended_everywhere() {
    let (fleet, _agents) = fleet::<2>().await;
    let text = "trap 'sleep 1; echo ended >> ended; exit 3' TERM; echo began >> began; while :; do sleep 0.05; done";
    let id = fleet.begin_shell("*", &[], text).await;
    wait_for("both to begin", PATIENCE, async || (fleet.lines("began").len() == 2).then_some(()))
        .await;
    drop(fleet.cli(&["runs", "cancel", &id]).await.ok());
    let ended = fleet.ended(&id).await;
    assert_eq!(fleet.lines("ended").len(), 2, "said only when both have ended");
    assert_eq!((&ended["state"], states(&ended)), (&"cancelled".into(), vec!["cancelled"; 2]));
    drop(fleet.cli(&["runs", "cancel", &id]).await.exits(6));
}

/// Live output comes with the host's name before each line, whole lines, results at the end; and
/// nothing but data on stdout.
#[tokio::test]
async fn output_is_followed_by_host() {
    let (fleet, _agents) = fleet::<2>().await;
    let text = "echo one; printf '\\033[31mred\\033[0m\\n'; echo oops >&2; exit $(mkdir first 2>/dev/null; echo $?)";
    let scratch = fleet.scratch().display().to_string();
    let ran = fleet.cli(&["run", "*", "--cwd", &scratch, "--shell", text]).await.exits(3);
    let text = ran.text();
    for host in ["web1", "web2"] {
        assert!(text.contains(&format!("{host} | one\n")), "{text}");
        assert_eq!(
            text.matches(&format!("{host} | ")).count()
                + ran.stderr.matches(&format!("{host} | ")).count(),
            3
        );
        assert!(ran.stderr.contains(host), "the results are a message: {}", ran.stderr);
    }
    // Later, from any machine with a token.
    let logs = fleet.cli(&["runs", "logs", "latest"]).await.ok();
    assert_eq!(logs.text().matches("| one\n").count(), 2);
    let one =
        fleet.cli(&["runs", "logs", "latest", "--host", "web1", "--stream", "stdout"]).await.ok();
    assert!(one.text().starts_with("one\n"), "{}", one.text());
}

/// Two follow the same run, one of them from its middle, and both have every line.
#[tokio::test]
async fn any_number_may_follow() {
    let (fleet, _agents) = fleet::<1>().await;
    let text = "for n in $(seq 200); do echo line $n; [ $n = 100 ] && while [ ! -e go ]; do sleep 0.05; done; done; true";
    let id = fleet.begin_shell("web1", &[], text).await;
    fleet.run_when(&id, "output", |run| run["tasks"][0]["stdout_bytes"].as_u64() > Some(0)).await;
    let args = ["runs", "logs", "-f", &id];
    let followers = [fleet.cli_spawn(&args), fleet.cli_spawn(&args)];
    fleet.touch("go");
    let expected: String = (1..=200).map(|n| format!("web1 | line {n}\n")).collect();
    for follower in followers {
        assert_eq!(fleet.finish(follower, &args, b"").await.ok().text(), expected);
    }
}

/// A follower outlives the server: it comes back to where it was, nothing twice, nothing missed.
#[tokio::test]
async fn a_follower_outlives_the_server() {
    let (mut fleet, _agents) = fleet::<1>().await;
    // The proxy keeps the address while the server is away.
    let server = format!("http://{}", fleet.proxy.addr());
    let text = "for n in $(seq 200); do echo line $n; [ $n = 100 ] && while [ ! -e go ]; do sleep 0.05; done; done; true";
    let id = fleet.begin_shell("web1", &[], text).await;
    let args = ["--server", &server, "runs", "logs", "-f", &id];
    let mut follower = fleet.cli_spawn(&args);
    let mut out = BufReader::new(follower.stdout.take().expect("a pipe"));
    let mut text = String::new();
    out.read_line(&mut text).await.expect("it follows before the kill");
    fleet.server.kill9().await;
    fleet.touch("go");
    fleet.start_server().await;
    let rest = tokio::time::timeout(PATIENCE, out.read_to_string(&mut text)).await;
    rest.expect("it ends with the run").expect("text");
    let expected: String = (1..=200).map(|n| format!("web1 | line {n}\n")).collect();
    assert_eq!(text, expected);
    drop(fleet.finish(follower, &args, b"").await.ok());
}

/// Scripts rely on these forms: names, kinds and absence of every value.
#[tokio::test]
async fn the_forms_that_scripts_rely_on() {
    let (fleet, _agents) = fleet::<1>().await;
    let cli = async |args: &[&str]| fleet.cli(args).await.ok().json();

    let hosts = cli(&["hosts", "list", "-o", "json"]).await;
    let host = &hosts.as_array().expect("an array without envelope")[0];
    for key in ["name", "id", "state", "facts", "labels", "agent_version", "last_seen"] {
        assert!(host.get(key).is_some(), "hosts list has {key}");
    }
    assert_eq!((&host["name"], &host["state"]), (&"web1".into(), &"online".into()));
    assert!(host["id"].is_string() && host["facts"].is_object() && host["labels"].is_object());
    assert_time(&host["last_seen"]);

    let invitation = cli(&["hosts", "invite", "--uses", "2", "-o", "json"]).await;
    assert!(invitation["join"].is_string());
    assert_time(&invitation["expires_at"]);
    assert_eq!(invitation["uses"], 2);

    assert_eq!(cli(&["hosts", "select", "web*", "-o", "json"]).await, json!(["web1"]));

    let begun = cli(&["run", "web1", "--detach", "-o", "json", "--", "true"]).await;
    let keys: Vec<_> = begun.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["id"]);
    assert!(begun["id"].is_string());

    let waited =
        cli(&["run", "web1", "--wait", "-o", "json", "--shell", "echo out; echo err >&2"]).await;
    let id = waited["id"].as_str().expect("an id");
    assert_eq!(waited, cli(&["runs", "show", id, "-o", "json"]).await);
    assert_eq!((&waited["state"], &waited["by"]), (&"succeeded".into(), &"admin".into()));
    assert_eq!(waited.get("retry_of"), Some(&Value::Null), "absent values are null");
    assert!(waited["report"].is_object());
    let task = &waited["tasks"].as_array().expect("an array")[0];
    let sha = |text: &str| -> Value {
        use sha2::{Digest as _, Sha256};
        let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        hex.into()
    };
    for (key, expected) in [
        ("host", json!("web1")),
        ("state", json!("succeeded")),
        ("attempt", json!(1)),
        ("exit_code", json!(0)),
        ("signal", Value::Null),
        ("stdout_bytes", json!(4)),
        ("stderr_bytes", json!(4)),
        ("stdout_sha256", sha("out\n")),
        ("stderr_sha256", sha("err\n")),
        ("stdout_dropped_bytes", json!(0)),
        ("stderr_dropped_bytes", json!(0)),
    ] {
        assert_eq!(task.get(key), Some(&expected), "{key}");
    }
    assert_time(&task["started_at"]);
    assert_time(&task["finished_at"]);

    let runs = cli(&["runs", "list", "-o", "json"]).await;
    assert_eq!(runs.as_array().map(Vec::len), Some(2));
    assert_eq!(runs[0]["id"], waited["id"], "newest first");
}

/// RFC 3339, UTC, milliseconds.
#[track_caller]
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let like: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(like, "0000-00-00T00:00:00.000Z", "{value}");
}
