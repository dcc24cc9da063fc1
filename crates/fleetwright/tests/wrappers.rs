//! Minions of Salt and Saltpeter's wrapper, with real processes: a stand-in for `salt` that starts a
//! stand-in for the wrapper, which runs real commands.

#[path = "wrappers/master.rs"]
mod master;
#[path = "wrappers/wrapper.rs"]
mod wrapper;

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use fw_rt::Tasks;
use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use fw_testkit::proxy::Proxy;
use master::{Master, SPOKEN_FOR};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// The wrapper as a program: this test, started by the stand-in for `salt`. It goes to the background as the
/// original does, so that the call returns.
fn program() -> String {
    let this = std::env::current_exe().expect("it can be had");
    format!(
        "{} --exact the_wrapper_as_a_program --nocapture >/dev/null 2>&1 </dev/null &",
        this.display()
    )
}

/// No test of its own: what [`program`] starts.
#[tokio::test]
async fn the_wrapper_as_a_program() {
    let env: std::collections::BTreeMap<String, String> = std::env::vars().collect();
    let Some(machine) = env.get("STAND_IN_FQDN").cloned() else { return };
    wrapper::run(env, machine).await;
}

struct World {
    fleet: Fleet,
    master: Master,
    _dir: TempDir,
}

impl World {
    async fn start(minions: &[&str], wrapper: &str, more: &[&str]) -> Self {
        let dir = TempDir::with_prefix("fleetwright-salt-").expect("it can be had");
        let master = Master::new(dir.path(), minions, wrapper);
        Tasks::new().spawn("salt", master.clone().serve());
        let mut arguments = master.arguments();
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let fleet = Fleet::start_with(BINARY, &arguments).await;
        for minion in minions {
            fleet.online(minion).await;
        }
        Self { fleet, master, _dir: dir }
    }

    /// Where wrappers connect, as the server's last start says.
    fn machines(&self) -> SocketAddr {
        let log = self.fleet.server.log();
        let (_, rest) = log.rsplit_once("machines.addr=").expect("the port for wrappers");
        rest.split(|c: char| c.is_whitespace() || c == '\u{1b}')
            .next()
            .expect("it can be had")
            .parse()
            .expect("an address")
    }

    /// Begins a command on hosts; output comes 20 times as often as from the original.
    async fn begin(&self, hosts: &str, more: &[&str], text: &str) -> String {
        let scratch = self.fleet.scratch().display().to_string();
        let mut line = vec![hosts, "--cwd", &scratch, "--env", "SP_OUTPUT_INTERVAL_MS=50"];
        line.extend(more);
        line.extend(["--shell", text]);
        self.fleet.begin(&line).await
    }

    async fn run(&self, hosts: &str, more: &[&str], text: &str) -> (String, Value) {
        let id = self.begin(hosts, more, text).await;
        let run = self.fleet.ended(&id).await;
        (id, run)
    }

    async fn output(&self, id: &str, host: &str) -> String {
        let stdout = self.fleet.raw(id, host, "stdout").await.stdout;
        String::from_utf8_lossy(&stdout).into_owned()
    }
}

fn task<'a>(run: &'a Value, host: &str) -> &'a Value {
    let tasks = run["tasks"].as_array().expect("tasks");
    tasks.iter().find(|task| task["host"] == host).expect("a task of this host")
}

/// Success, failure and stderr on several hosts at once, several runs at once on one, and the environment
/// as it was written.
#[tokio::test]
async fn commands_run_on_minions_by_their_wrappers() {
    let world = World::start(&["m1", "m2"], &program(), &[]).await;
    let m1 = world.fleet.get("/hosts/m1").await.expect("a host");
    assert_eq!(m1["labels"]["saltpeter"], "salt", "{m1}");

    let (id, run) = world.run("*", &[], "echo out; echo err >&2; exit 3").await;
    for host in ["m1", "m2"] {
        assert_eq!(
            (task(&run, host)["state"].as_str(), task(&run, host)["exit_code"].as_i64()),
            (Some("failed"), Some(3))
        );
        assert_eq!(world.output(&id, host).await, "out\nerr\n");
    }
    let call = world.master.call(0).await;
    assert_eq!(call.minions, ["m1", "m2"], "one call starts all hosts of a run");

    // What Saltpeter breaks on the way through Salt: line breaks, tabs, quotes, a backslash.
    let text = "printf '%s' \"it's\ta \\\\ \\\"line\\\"\nand \u{e9}\u{1F682} \u{2028} more $X\"";
    let (id, run) = world.run("m1", &["--env", "X=\"it's\" \\"], text).await;
    assert_eq!(task(&run, "m1")["state"], "succeeded", "{run}");
    assert_eq!(
        world.output(&id, "m1").await,
        "it's\ta \\ \"line\"\nand \u{e9}\u{1F682} \u{2028} more \"it's\" \\"
    );

    let text = "while [ ! -e go ]; do sleep 0.02; done; echo done";
    let ids = [world.begin("m1", &[], text).await, world.begin("m1", &[], text).await];
    for id in &ids {
        world.fleet.task_is(id, "running").await;
    }
    world.fleet.touch("go");
    for id in &ids {
        assert_eq!(world.fleet.ended(id).await["state"], "succeeded");
        assert_eq!(world.output(id, "m1").await, "done\n");
    }
    let (_, run) = world.run("m1", &[], "kill -9 $$").await;
    assert_eq!(
        (task(&run, "m1")["state"].as_str(), task(&run, "m1")["signal"].as_i64()),
        (Some("failed"), Some(9))
    );
}

/// A job of the directory that its schedule starts: on the hosts of its target, with what it says of its wrapper.
#[tokio::test]
async fn a_job_of_the_directory_runs_on_minions() {
    let world = World::start(&["m1", "m2", "db1"], &program(), &[]).await;
    let job = format!(
        "every second:\n  sec: '*'\n  min: '*'\n  hour: '*'\n  dom: '*'\n  mon: '*'\n  dow: '*'\n  \
         command: 'echo \"$SP_JOB_NAME on\" >> {}'\n  targets: 'G@os:Debian and not db*'\n  target_type: compound\n  \
         wrapper_loglevel: debug\n  lockfile: /run/lock/x\n",
        world.fleet.scratch().join("fired").display(),
    );
    std::fs::write(world.master.dir.join("saltpeter/jobs.yaml"), job).expect("files of the test");
    let lines = wait_for("two fires on two hosts", PATIENCE, async || {
        Some(world.fleet.lines("fired")).filter(|lines| lines.len() >= 4)
    })
    .await;
    assert_eq!(lines[0], "every second on");
    let call = world.master.call(0).await;
    assert_eq!(call.minions, ["m1", "m2"]);
    let told = |name: &str| call.env[name].as_str();
    assert_eq!((told("SP_WRAPPER_LOGLEVEL"), told("SP_LOCKFILE")), ("debug", "/run/lock/x"));
    assert_eq!((told("SP_ALLOW_OVERLAP"), told("SP_TIMEOUT")), ("false", "3600"));
    assert!(told("SP_JOB_INSTANCE").starts_with("every second_"), "{:?}", call.env);
}

/// Megabytes of output with connections that break in the middle: nothing is lost or comes twice.
#[tokio::test]
async fn output_survives_connections_that_break() {
    let world = World::start(&["m1"], &program(), &[]).await;
    let proxy = Proxy::start().await.expect("it can be had");
    proxy.lead_to(world.machines());
    let url = format!("SP_WEBSOCKET_URL=ws://{}", proxy.addr());
    let text = "i=0; while [ $i -lt 6 ]; do seq 1 60000; i=$((i+1)); sleep 0.1; done; echo end";
    let id = world.begin("m1", &["--env", &url], text).await;
    for cut in 0..4 {
        wait_for("more output", PATIENCE, async || {
            let run = world.fleet.runs_show(&id).await;
            let bytes = run["tasks"][0]["stdout_bytes"].as_u64().unwrap_or(0);
            (bytes > cut * 300_000 || run["state"] != "running").then_some(())
        })
        .await;
        proxy.cut();
        proxy.resume();
    }
    let run = world.fleet.ended(&id).await;
    assert_eq!(run["state"], "succeeded", "{run}");
    let expected: String = (1..=60_000).map(|i| format!("{i}\n")).collect();
    let expected = format!("{}end\n", expected.repeat(6));
    let output = world.output(&id, "m1").await;
    assert_eq!(output.len(), expected.len());
    assert!(output == expected, "the same bytes in the same order");
}

/// A killed command is cancelled, one that takes too long has timed out, with the wrapper's last words.
#[tokio::test]
async fn kill_and_timeout() {
    let world = World::start(&["m1"], &program(), &[]).await;
    let id = world.begin("m1", &[], "echo on; sleep 600").await;
    world.fleet.task_is(&id, "running").await;
    let _cancelled = world.fleet.cli(&["runs", "cancel", &id]).await.ok();
    let run = world.fleet.ended(&id).await;
    assert_eq!(
        (run["state"].as_str(), task(&run, "m1")["state"].as_str()),
        (Some("cancelled"), Some("cancelled"))
    );
    assert_eq!(task(&run, "m1")["signal"], 15);
    assert!(world.output(&id, "m1").await.contains("terminated by user request"));

    let (id, run) = world.run("m1", &["--timeout", "1s"], "echo on; sleep 600").await;
    assert_eq!(task(&run, "m1")["state"], "timed_out", "{run}");
    assert!(world.output(&id, "m1").await.contains("exceeded timeout"));
}

/// The server is killed in the middle and comes back: the wrapper goes on and its run ends as if
/// nothing had been.
#[tokio::test]
async fn a_server_restart_in_the_middle() {
    let mut world = World::start(&["m1", "m2"], &program(), &[]).await;
    let proxy = Proxy::start().await.expect("it can be had");
    proxy.lead_to(world.machines());
    let url = format!("SP_WEBSOCKET_URL=ws://{}", proxy.addr());
    let text = "echo began >> began; i=0; while [ ! -e go ]; do i=$((i+1)); echo $i; sleep 0.01; done; echo last $i";
    let id = world.begin("*", &["--env", &url], text).await;
    world
        .fleet
        .run_when(&id, "output of both", |run| {
            run["tasks"]
                .as_array()
                .is_some_and(|tasks| tasks.iter().all(|task| task["state"] == "running"))
        })
        .await;
    for _ in 0..2 {
        world.fleet.server.kill9().await;
        world.fleet.start_server().await;
        proxy.lead_to(world.machines());
        let before = world.output(&id, "m1").await.len();
        wait_for("output after the restart", PATIENCE, async || {
            (world.output(&id, "m1").await.len() > before).then_some(())
        })
        .await;
    }
    world.fleet.touch("go");
    let run = world.fleet.ended(&id).await;
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(world.fleet.lines("began").len(), 2, "each ran once");
    for host in ["m1", "m2"] {
        let output = world.output(&id, host).await;
        let lines: Vec<&str> = output.lines().collect();
        let (last, counted) = lines.split_last().expect("it can be had");
        assert!(last.starts_with("last "), "{last}");
        for (line, count) in counted.iter().zip(1..) {
            assert_eq!(line.parse(), Ok(count), "every line once and in order on {host}");
        }
        assert_eq!(last.strip_prefix("last ").expect("it can be had"), counted.len().to_string());
    }
}

/// A program that cannot be started fails its host with the words of the original; salt itself as well.
#[tokio::test]
async fn what_cannot_be_started_is_254() {
    let world = World::start(
        &["m1", "m2"],
        "if [ $STAND_IN_FQDN = m1.example ]; then echo no >&2; exit 127; fi; sleep 0.1",
        &[],
    )
    .await;
    let id = world.begin("*", &[], "true").await;
    let run = world
        .fleet
        .run_when(&id, "the end of m1", |run| task(run, "m1")["state"] == "failed")
        .await;
    assert_eq!(task(&run, "m1")["exit_code"], 254);
    assert_eq!(task(&run, "m2")["state"], "queued", "only that host fails at once");
    let stderr = world.fleet.raw(&id, "m1", "stderr").await.stdout;
    assert_eq!(
        String::from_utf8_lossy(&stderr),
        "Wrapper failed to start - Exit code 127\nSTDERR: no\nSTDOUT: "
    );
    // The other one never connects.
    let run = world.fleet.ended(&id).await;
    assert_eq!(task(&run, "m2")["exit_code"], 254);
    let stderr = world.fleet.raw(&id, "m2", "stderr").await.stdout;
    assert!(String::from_utf8_lossy(&stderr).contains("failed to connect within 30s"));
}

/// A connection of the test's own.
struct Wire(
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
);

impl Wire {
    async fn open(url: &str) -> Self {
        Self(tokio_tungstenite::connect_async(url).await.expect("it can be had").0)
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("it can be had");
    }

    /// The next message, but for its time; `null` when the connection is closed.
    async fn hear(&mut self) -> Value {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("an answer");
            match frame {
                Some(Ok(Message::Text(text))) => {
                    let mut message: Value = serde_json::from_str(&text).expect("JSON");
                    message.as_object_mut().expect("an object").remove("timestamp");
                    return message;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return Value::Null,
            }
        }
    }

    async fn answers(&mut self, message: Value, expected: Value) {
        self.say(message.clone()).await;
        assert_eq!(self.hear().await, expected, "{message}");
    }
}

/// Duplicates, gaps, two connections, and those that have no business here.
#[tokio::test]
async fn a_wrapper_that_says_it_twice_or_is_none_of_ours() {
    let key = "--saltpeter-key-file";
    let dir = TempDir::new().expect("it can be had");
    let file = dir.path().join("key");
    std::fs::write(&file, "open-sesame").expect("files of the test");
    let world =
        World::start(&["m1"], SPOKEN_FOR, &[key, file.to_str().expect("it can be had")]).await;
    let id = world.begin("m1", &[], "true").await;
    let env = world.master.call(0).await.env;
    let url = &env["SP_WEBSOCKET_URL"];
    assert_eq!(*url, format!("ws://{}/?key=open-sesame", world.machines()));
    let says = |kind: &str, more: Value| {
        let mut message = json!({"type": kind, "job_name": "x", "job_instance": env["SP_JOB_INSTANCE"], "machine": "m1.example"});
        message
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        message
    };
    let ack = |kind: &str, seq: Option<u64>| match seq {
        Some(seq) => json!({"type": "ack", "ack_type": kind, "seq": seq}),
        None => json!({"type": "ack", "ack_type": kind}),
    };
    let output = |data: &str, seq: u64| says("output", json!({"data": data, "seq": seq}));

    let mut one = Wire::open(url).await;
    one.answers(output("a", 0), ack("output", Some(0))).await;
    one.answers(output("again", 0), ack("output", Some(0))).await;
    one.answers(
        output("c", 2),
        json!({"type": "nack", "nack_type": "out_of_order", "expected_seq": 1, "received_seq": 2}),
    )
    .await;
    let mut two = Wire::open(&url.replace("/?", "/any/path?x=1&")).await;
    two.answers(says("connect", json!({})), ack("connect", None)).await;
    two.say(json!([1, 2])).await;
    two.0.send(Message::binary(output("b", 1).to_string())).await.expect("it can be had");
    assert_eq!(two.hear().await, ack("output", Some(1)));
    drop(one);
    two.answers(says("start", json!({"pid": 5})), ack("start", None)).await;
    two.answers(
        says("sync_request", json!({"last_acked_seq": 0, "next_seq": 2})),
        json!({"type": "sync_response", "last_seq": 1}),
    )
    .await;
    // Someone who makes up an instance is told that there is none, and the run goes on.
    let made_up = env["SP_JOB_INSTANCE"].replace(char::is_numeric, "7");
    let mut other = Wire::open(url).await;
    let complete = |instance: &str| json!({"type": "complete", "job_instance": instance, "machine": "m1", "retcode": 0});
    for wrong in [made_up.as_str(), "x", ""] {
        other.say(json!({"type": "output", "job_instance": wrong, "machine": "m1", "data": "forged", "seq": 2})).await;
    }
    other.say(complete(&made_up)).await;
    assert_eq!(other.hear().await["code"], "JOB_NOT_FOUND");
    assert_eq!(other.hear().await, Value::Null, "and the connection is closed");
    assert_eq!(world.fleet.runs_show(&id).await["state"], "running");

    two.answers(says("complete", json!({"retcode": 0, "seq": 2})), ack("complete", Some(2))).await;
    two.answers(says("complete", json!({"retcode": 9, "seq": 2})), ack("complete", Some(2))).await;
    assert_eq!(world.fleet.ended(&id).await["state"], "succeeded");
    assert_eq!(world.output(&id, "m1").await, "ab");

    for wrong in [url.replace("sesame", "says-me"), format!("ws://{}", world.machines())] {
        let refused = tokio_tungstenite::connect_async(&wrong).await.unwrap_err().to_string();
        assert!(refused.contains("403"), "{refused}");
    }
}

/// An agent that joins under a minion's name takes its place, but not while something runs there.
#[tokio::test]
async fn an_agent_takes_the_place_of_a_minion() {
    let world = World::start(&["m1", "m2"], &program(), &[]).await;
    let id = world.begin("m1", &[], "while [ ! -e go ]; do sleep 0.02; done; echo by salt").await;
    world.fleet.task_is(&id, "running").await;
    let join = world.fleet.invite(&[]).await;
    let state = world.fleet.dir().join("early").display().to_string();
    let args = ["agent", "join", &join, "--state-dir", &state, "--name", "m1"];
    let busy = world.fleet.plain(&args).await;
    assert_eq!(busy.code, 1, "{}", busy.stderr);
    assert!(busy.stderr.contains("busy"), "{}", busy.stderr);
    let host = world.fleet.get("/hosts/m1").await.expect("it stays until nothing runs there");
    assert_eq!(host["labels"]["saltpeter"], "retiring");
    world.fleet.touch("go");
    let run = world.fleet.ended(&id).await;
    wait_for("room for the agent", PATIENCE, async || {
        world.fleet.get("/hosts/m1").await.is_none().then_some(())
    })
    .await;
    let _agent = world.fleet.agent("m1").await;
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(world.output(&id, "m1").await, "by salt\n");
    let (_, run) = world.run("m*", &[], "echo here").await;
    assert_eq!(run["state"], "succeeded", "{run}");
    assert!(
        world.fleet.get("/hosts/m1").await.expect("it can be had")["labels"]["saltpeter"].is_null()
    );
}

/// `dialects test` passes here, from the first connection to the end of a run, and fails where nobody answers.
#[tokio::test]
async fn the_connectivity_test() {
    let world = World::start(&["m1"], SPOKEN_FOR, &[]).await;
    let url = format!("ws://{}", world.machines());
    let test = ["dialects", "test", "saltpeter", &url, "-o", "json"];
    let answer = world.fleet.plain(&test).await.ok().json();
    assert_eq!(answer["failed"], 0, "{answer}");
    assert!(answer["left_out"].as_u64() > Some(10), "{answer}");

    let tested = async |call: usize, more: &[&str]| {
        let id = world.begin("m1", &[], "true").await;
        let instance = world.master.call(call).await.env["SP_JOB_INSTANCE"].clone();
        let mut args = test.to_vec();
        args.extend(["--instance", &instance, "--machine", "m1"]);
        args.extend(more);
        let output = world.fleet.plain(&args).await;
        (id, instance, output)
    };
    let (id, instance, output) = tested(0, &[]).await;
    let answer = output.ok().json();
    assert_eq!(
        (answer["failed"].as_u64(), answer["left_out"].as_u64()),
        (Some(0), Some(2)),
        "{answer}"
    );
    assert_eq!(world.fleet.ended(&id).await["state"], "succeeded");
    let text = "connectivity test\nno number\nconnectivity test\n";
    assert_eq!(world.output(&id, "m1").await, text);
    // The run is over: what needs it fails, and says how.
    let args = ["dialects", "test", "saltpeter", &url, "--instance", &instance, "--machine", "m1"];
    let over = world.fleet.plain(&args).await.exits(1);
    let said = String::from_utf8_lossy(&over.stdout).into_owned();
    assert!(
        said.contains("FAILED    output without a number is acknowledged (no answer"),
        "{said}"
    );

    let cancelled = async {
        let runs = wait_for("a run to cancel", PATIENCE, async || {
            let runs = world.fleet.get("/runs").await?;
            runs["items"].as_array()?.iter().find(|run| run["state"] == "running").cloned()
        })
        .await;
        let id = runs["id"].as_str().expect("a text").to_owned();
        world.fleet.cli(&["runs", "cancel", &id]).await.ok()
    };
    let ((id, _, output), _) = tokio::join!(tested(1, &["--kill", "60"]), cancelled);
    let answer = output.ok().json();
    assert_eq!(
        (answer["failed"].as_u64(), answer["left_out"].as_u64()),
        (Some(0), Some(1)),
        "{answer}"
    );
    assert_eq!(world.fleet.ended(&id).await["state"], "cancelled");

    let nobody = Proxy::start().await.expect("it can be had");
    let nowhere = format!("ws://{}", nobody.addr());
    let refused = world.fleet.plain(&["dialects", "test", "saltpeter", &nowhere]).await.exits(1);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("FAILED    the server takes a connection"), "{said}");
}
