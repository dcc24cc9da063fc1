//! How hosts enter the fleet, are told apart, and leave it.

use std::os::unix::fs::PermissionsExt;

use fw_testkit::fleet::{Agent, Fleet, Output, PATIENCE, wait_for};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Joins with a state directory of its own, whatever the name is.
async fn join_as(fleet: &Fleet, join: &str, name: &str, state: &str) -> Output {
    let state = fleet.dir().join(state).display().to_string();
    let name = format!("--name={name}");
    let args = ["agent", "join", "-", "--state-dir", &state, &name];
    fleet.cli_with_input(&args, join.as_bytes()).await
}

/// Ten agents on one machine are ten hosts, by one invitation.
#[tokio::test]
async fn ten_agents_on_one_machine() {
    let fleet = Fleet::start(BINARY).await;
    let join = fleet.invite(&["--uses", "10", "--label", "stage=test"]).await;
    let mut agents: Vec<Agent> = Vec::new();
    for n in 0..10 {
        let name = format!("web{n}");
        drop(fleet.try_join(&join, &name).await.ok());
        let mut agent = fleet.agent_of(&name, &[], &[]);
        agent.start();
        agents.push(agent);
    }
    for n in 0..10 {
        fleet.online(&format!("web{n}")).await;
    }
    let run = fleet.cli(&["run", "label:stage=test", "--wait", "-o", "json", "--", "true"]).await;
    let run = run.ok().json();
    assert_eq!((&run["state"], &run["report"]["total"]), (&"succeeded".into(), &10.into()));
    let ids: std::collections::BTreeSet<_> = fleet
        .cli(&["hosts", "list", "-o", "json"])
        .await
        .ok()
        .json()
        .as_array()
        .expect("an array")
        .iter()
        .map(|host| host["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 10);
}

/// A taken name is refused, with what to do, and the invitation is still good.
#[tokio::test]
async fn a_taken_name_is_refused() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    let join = fleet.invite(&[]).await;
    let refused = join_as(&fleet, &join, "web1", "second").await.exits(6);
    for part in ["web1", "--name"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    drop(join_as(&fleet, &join, "web2", "second").await.ok());
    // Who has joined already is told so, and nothing of it changes.
    let again = join_as(&fleet, &join, "web3", "second").await;
    assert_ne!(again.code, 0);
    assert!(again.stderr.contains("web2"), "{}", again.stderr);
    drop(fleet.cli(&["hosts", "rename", "web2", "web1"]).await.exits(6));
}

/// Names that could be a path, a page or an attack are refused before anything is sent.
#[tokio::test]
async fn bad_names_are_refused() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    let join = fleet.invite(&["--uses", "100"]).await;
    let long = "x".repeat(300);
    let bad = [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "/etc",
        "a\nb",
        "a\tb",
        "a\u{1b}[31mb",
        "<b>bold</b>",
        "a b",
        "a&b",
        "a\"b",
        "a'b",
        "web*",
        "-web",
        "ünïcode",
        &long,
    ];
    for (n, name) in bad.into_iter().enumerate() {
        let refused = join_as(&fleet, &join, name, &format!("bad{n}")).await;
        assert_eq!(refused.code, 2, "{name:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains('\u{1b}'), "{:?}", refused.stderr);
        if name != "-web" {
            let refused = fleet.cli(&["hosts", "rename", "web1", "--", name]).await;
            assert_eq!(refused.code, 2, "{name:?}: {}", refused.stderr);
        }
    }
    assert_eq!(
        fleet.get("/hosts").await.expect("a list")["items"].as_array().map(Vec::len),
        Some(1)
    );
}

/// A join string that is wrong, used up or expired is refused, and says which.
#[tokio::test]
async fn a_join_string_is_good_once_and_for_a_while() {
    let fleet = Fleet::start(BINARY).await;
    let join = fleet.invite(&[]).await;
    drop(join_as(&fleet, &join, "web1", "one").await.ok());
    let refused = join_as(&fleet, &join, "web2", "two").await.exits(4);
    assert!(refused.stderr.contains("invite"), "{}", refused.stderr);

    let short = fleet.invite(&["--ttl", "1s"]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let refused = join_as(&fleet, &short, "web3", "three").await.exits(4);
    assert!(refused.stderr.contains("invite"), "{}", refused.stderr);

    for wrong in ["", "nonsense", "fw1:", join.get(..join.len() - 8).unwrap_or_default()] {
        let refused = join_as(&fleet, wrong, "web4", "four").await;
        assert_ne!(refused.code, 0, "{wrong:?}");
        assert!(refused.stderr.contains("join string"), "{}", refused.stderr);
    }
    assert_eq!(
        fleet.get("/hosts").await.expect("a list")["items"].as_array().map(Vec::len),
        Some(1)
    );
    // The secret is in no file of the server in plain.
    let secret = join.rsplit(['.', ':', '/', '#', '?']).next().unwrap_or_default();
    assert!(secret.len() > 10, "{join}");
    assert!(!holds(&fleet.data_dir(), secret.as_bytes()), "the join secret is stored in plain");
}

/// Revoking closes the link at once, ends what waits on the host, and the host stays out.
#[tokio::test]
async fn a_revoked_host_is_out_at_once() {
    let fleet = Fleet::start(BINARY).await;
    let mut web1 = fleet.agent("web1").await;
    let id = fleet.begin_shell("web1", &[], "echo $$ > pid; exec sleep 300").await;
    fleet.task_is(&id, "running").await;
    let asked = fleet.cli(&["hosts", "revoke", "web1"]).await.exits(2);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    drop(fleet.cli(&["hosts", "revoke", "web1", "--yes"]).await.ok());
    fleet.host_is("web1", "revoked").await;
    let run = fleet.ended(&id).await;
    let task = &run["tasks"][0];
    assert_eq!((&task["state"], &task["reason"]), (&"lost".into(), &"revoked".into()));
    wait_for("the agent to be told", PATIENCE, async || {
        web1.process.log().contains("refuses this host").then_some(())
    })
    .await;
    drop(fleet.cli(&["run", "web1", "--", "true"]).await.exits(9));
    web1.term().await;
    let before = web1.process.log().len();
    web1.start();
    wait_for("the refusal of the new agent", PATIENCE, async || {
        web1.process.log().get(before..)?.contains("refuses this host").then_some(())
    })
    .await;
    assert_eq!(fleet.get("/hosts/web1").await.expect("it stays in the list")["state"], "revoked");
    drop(fleet.cli(&["hosts", "remove", "web1", "--yes"]).await.ok());
    drop(fleet.cli(&["hosts", "show", "web1"]).await.exits(5));
}

/// A new name and labels are the server's, last over a restart, and select.
#[tokio::test]
async fn names_and_labels_select() {
    let mut fleet = Fleet::start(BINARY).await;
    let (_web1, mut web2) = (fleet.agent("web1").await, fleet.agent("web2").await);
    drop(fleet.cli(&["hosts", "rename", "web2", "db1"]).await.ok());
    drop(fleet.cli(&["hosts", "label", "db1", "stage=prod", "os=lies"]).await.ok());
    web2.kill9().await;
    fleet.server.kill9().await;
    fleet.start_server().await;
    web2.start();
    fleet.online("db1").await;
    fleet.online("web1").await;
    let select = async |expression: &str| -> Value {
        let selected = fleet.cli(&["hosts", "select", expression, "-o", "json"]).await;
        assert!([0, 9].contains(&selected.code), "{expression}: {}", selected.stderr);
        selected.json()
    };
    for (expression, expected) in [
        ("*", json!(["db1", "web1"])),
        ("web*", json!(["web1"])),
        ("web2", json!([])),
        ("db1,web1", json!(["db1", "web1"])),
        ("label:stage=prod", json!(["db1"])),
        ("not label:stage=prod", json!(["web1"])),
        ("* and not (db* or web*)", json!([])),
        ("fact:os=lies", json!([])),
        ("os:lies", json!([])),
        ("stage:prod", json!([])),
        ("label:stage=prod and kernel:Linux", json!(["db1"])),
    ] {
        assert_eq!(select(expression).await, expected, "{expression}");
    }
    drop(fleet.cli(&["hosts", "label", "db1", "stage-"]).await.ok());
    assert_eq!(select("label:stage=prod").await, json!([]));
    for (kind, target, expected) in [
        ("glob", "web?", json!(["web1"])),
        ("pcre", "web[12]", json!(["web1"])),
        ("list", "db1,nobody", json!(["db1"])),
        ("compound", "G@kernel:linux and not E@web\\d", json!(["db1"])),
        ("ipcidr", "203.0.113.0/24", json!([])),
    ] {
        let asked = ["hosts", "select", "--target-type", kind, target, "-o", "json"];
        let selected = fleet.cli(&asked).await;
        assert_eq!(selected.json(), expected, "{kind} {target}: {}", selected.stderr);
    }
}

/// A host on which a regular expression takes too many steps is named, and not picked.
#[tokio::test]
async fn the_undecided_are_named() {
    let fleet = Fleet::start(BINARY).await;
    let long = format!("{}1", "a".repeat(40));
    let _agents = (fleet.agent(&long).await, fleet.agent("web1").await);
    let selected = fleet.cli(&["hosts", "select", r"not ~^(a|aa)+\1c", "-o", "json"]).await.ok();
    assert_eq!(selected.json(), json!(["web1"]));
    assert!(selected.stderr.contains("too many steps"), "{}", selected.stderr);
    assert!(selected.stderr.contains(&long), "{}", selected.stderr);
}

/// A wrong expression is refused with a caret under the character; one that matches nothing has
/// an exit code of its own.
#[tokio::test]
async fn wrong_selectors_are_pointed_at() {
    let fleet = Fleet::start(BINARY).await;
    let _web1 = fleet.agent("web1").await;
    for (expression, column) in [("web* and (db*", 5 + 4), ("web1 and", 8), ("web1 & x", 5)] {
        for args in [vec!["hosts", "select", expression], vec!["run", expression, "--", "true"]] {
            let refused = fleet.cli(&args).await.exits(2);
            let lines: Vec<_> = refused.stderr.lines().collect();
            let at = lines.iter().position(|line| line.ends_with(expression));
            let at = at.unwrap_or_else(|| unreachable!("{}", refused.stderr));
            let indent = lines[at].len() - expression.len();
            let caret = lines[at + 1].find('^').expect("a caret");
            assert_eq!(caret - indent, column, "{}", refused.stderr);
        }
    }
    drop(fleet.cli(&["hosts", "select", "db*"]).await.exits(9));
    let refused = fleet.cli(&["run", "db*", "--", "true"]).await.exits(9);
    assert!(refused.stderr.contains("matched no host"), "{}", refused.stderr);
}

/// A policy that only observes, or that others can change, lets nothing run.
#[tokio::test]
async fn a_policy_has_the_last_word() {
    let fleet = Fleet::start(BINARY).await;
    let policy = fleet.dir().join("policy.toml");
    let flag = policy.display().to_string();
    let write = |text: &str, mode: u32| {
        std::fs::write(&policy, text).expect("a new file");
        std::fs::set_permissions(&policy, PermissionsExt::from_mode(mode)).expect("a new file");
    };
    write("mode = \"operate\"\n", 0o644);
    let _web1 = fleet.agent_with("web1", &["--policy", &flag]).await;
    let (_, run) = fleet.run_shell("web1", &[], "echo began >> began").await;
    assert_eq!(run["state"], "succeeded");
    for (text, mode) in [
        ("mode = \"observe\"\n", 0o644),
        ("mode = \"operate\"\n", 0o666),
        ("mode = \"opreate\"\n", 0o644),
        ("users = [\"nobody\"]\n", 0o644),
        ("commands = [{ program = \"/usr/bin/true\", args = [] }]\n", 0o644),
    ] {
        write(text, mode);
        let (_, run) = fleet.run_shell("web1", &[], "echo began >> began").await;
        let task = &run["tasks"][0];
        assert_eq!(
            (&task["state"], &task["reason"]),
            (&"refused".into(), &"policy".into()),
            "{text}"
        );
    }
    assert_eq!(fleet.lines("began").len(), 1);
    let ran = fleet.cli(&["run", "web1", "--", "/usr/bin/true"]).await;
    drop(ran.ok());
}

/// Custom facts of files and programs select hosts.
#[tokio::test]
async fn custom_facts_select() {
    let fleet = Fleet::start(BINARY).await;
    let facts = fleet.dir().join("facts");
    std::fs::write(facts.join("place.toml"), "rack = \"r7\"\n").expect("a new file");
    std::fs::write(facts.join("bad.json"), "{").expect("a new file");
    let program = facts.join("made.json");
    std::fs::write(&program, "#!/bin/sh\necho '{\"made\": \"here\"}'\n").expect("a new file");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a new file");
    let _web1 = fleet.agent("web1").await;
    wait_for("custom facts", PATIENCE, async || {
        let host = fleet.get("/hosts/web1").await?;
        (host["facts"]["rack"] == "r7" && host["facts"]["made"] == "here").then_some(())
    })
    .await;
    let selected =
        fleet.cli(&["hosts", "select", "rack:r7 and made:here", "-o", "json"]).await.ok();
    assert_eq!(selected.json(), json!(["web1"]));
}

/// Whether a file below a directory holds these bytes.
fn holds(dir: &std::path::Path, bytes: &[u8]) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let text = std::fs::read(&path).unwrap_or_default();
        text.windows(bytes.len()).any(|part| part == bytes)
    })
}

/// Two agents with one key, as after cloning a disk: neither is believed, and both are told what to do.
#[tokio::test]
async fn a_copied_state_directory_is_refused_as_a_duplicate() {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.agent("web1").await;
    let (from, to) = (fleet.state_dir("web1"), fleet.state_dir("copy"));
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp runs").success());
    let mut copy = fleet.agent_of("copy", &[], &[]);
    copy.start();
    fleet.host_is("web1", "duplicate").await;
    for agent in [&web1, &copy] {
        wait_for("the agent to be told", PATIENCE, async || {
            agent.process.log().contains("two machines use this host's key").then_some(())
        })
        .await;
    }
    drop(fleet.cli(&["run", "web1", "--", "true"]).await.exits(9));
}
