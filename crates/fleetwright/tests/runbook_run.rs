//! A runbook that runs: it asks, waits for people, uses what earlier steps printed, survives its server, and
//! is taken back over exactly what was done.

use std::path::PathBuf;

use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// A document that works in this directory.
fn document(dir: &str) -> String {
    format!(
        r#"---
title: Move the name
hosts: web1
inputs:
  version: text
---

## Before

- [ ] Tell the others

## Move

- [ ] Read it
  ```sh id=read timeout=1m
  echo "old name"
  ```

- [ ] Write it
  ```sh id=write timeout=2m undo=unwrite
  echo {{{{ inputs.version }}}} {{{{ steps.read.stdout | trim }}}} >> {dir}/written
  echo write >> {dir}/steps
  while [ ! -e {dir}/go ]; do sleep 0.05; done
  ```

```sh id=unwrite
rm {dir}/written
echo unwrite >> {dir}/steps
```

- [ ] Clean up
  ```sh
  echo clean >> {dir}/steps
  ```

- [ ] Restart it
  ```sh id=restart timeout=1m undo=unrestart
  echo restart >> {dir}/steps
  ```

```sh id=unrestart
echo unrestart >> {dir}/steps
```
"#
    )
}

async fn fleet() -> (Fleet, Agent) {
    let fleet = Fleet::start(BINARY).await;
    let web1 = fleet.agent("web1").await;
    (fleet, web1)
}

fn written(fleet: &Fleet) -> PathBuf {
    let file = fleet.scratch().join("move.md");
    let dir = fleet.scratch().display().to_string();
    std::fs::write(&file, document(&dir)).expect("a new file");
    file
}

async fn show(fleet: &Fleet, id: &str) -> Option<Value> {
    fleet.get(&format!("/runbooks/{id}")).await
}

async fn state_is(fleet: &Fleet, id: &str, state: &str) -> Value {
    wait_for(&format!("a runbook that is {state}"), 2 * PATIENCE, async || {
        show(fleet, id).await.filter(|runbook| runbook["state"] == state)
    })
    .await
}

fn step<'v>(runbook: &'v Value, id: &str) -> &'v Value {
    let steps = runbook["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["id"] == id).expect("a step of this id")
}

/// The step that waits for a person.
fn waiting(runbook: &Value) -> String {
    let steps = runbook["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["state"] == "awaiting_person");
    step.expect("a step that waits")["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_runbook_runs_waits_for_people_survives_its_server_and_is_taken_back() {
    let (mut fleet, _web1) = fleet().await;
    let file = written(&fleet).display().to_string();
    let refused = fleet.cli(&["runbook", "run", &file, "--detach"]).await.exits(2);
    assert!(refused.stderr.contains("version"), "{}", refused.stderr);

    let input = ["--input", "version=1 2"];
    let line = [&["runbook", "run", &file, "--detach", "-o", "json"], &input[..]].concat();
    let begun = fleet.cli(&line).await.ok().json();
    let id = begun["id"].as_str().expect("an id").to_owned();

    let runbook = state_is(&fleet, &id, "awaiting_person").await;
    let tell = waiting(&runbook);
    let watched = fleet.cli(&["runbook", "watch", &id]).await.exits(8);
    assert!(watched.stderr.contains(&format!("runbook tick {id} {tell}")), "{}", watched.stderr);
    drop(fleet.cli(&["runbook", "tick", &id, "no-such-step"]).await.exits(6));
    let ticked = ["runbook", "tick", &id, &tell, "--note", "they know", "-o", "json"];
    drop(fleet.cli(&ticked).await.ok());

    fleet.written("steps").await;
    fleet.server.kill9().await;
    fleet.touch("go");
    fleet.start_server().await;

    let runbook = state_is(&fleet, &id, "awaiting_person").await;
    assert_eq!(step(&runbook, &tell)["note"], "they know");
    assert_eq!(fleet.lines("written"), ["1 2 old name"], "it ran once, with its values");
    assert_eq!(step(&runbook, "write")["state"], "done");
    let run = step(&runbook, "write")["output_run"].as_str().expect("its run").to_owned();
    assert_eq!(fleet.runs_show(&run).await["change"], id.as_str());

    let clean = waiting(&runbook);
    drop(fleet.cli(&["runbook", "tick", &id, &clean]).await.exits(6));
    drop(fleet.cli(&["runbook", "confirm", &id, &clean]).await.ok());
    let runbook = state_is(&fleet, &id, "succeeded").await;
    assert_eq!(runbook["rehearsed"], false);
    let plan = [&["runbook", "plan", &file, "-o", "json"], &input[..]].concat();
    assert_eq!(fleet.cli(&plan).await.ok().json()["rehearsed"], false);
    assert_eq!(fleet.lines("steps"), ["write", "clean", "restart"]);

    drop(fleet.cli(&["runbook", "undo", &id]).await.ok());
    let runbook = state_is(&fleet, &id, "undone").await;
    let steps = ["write", "clean", "restart", "unrestart", "unwrite"];
    assert_eq!(fleet.lines("steps"), steps, "backwards over what was done");
    assert!(!fleet.scratch().join("written").exists());
    assert_eq!(runbook["rehearsed"], true);
    let plan = fleet.cli(&plan).await.ok().json();
    assert_eq!(plan["rehearsed"], true, "the next one is told");
    let again = fleet.cli(&["runbook", "undo", &id]).await.exits(6);
    assert!(again.stderr.contains("cannot be undone"), "{}", again.stderr);
}

/// A part of a value may mean something else than the whole, so a command that would get one is not begun.
#[tokio::test]
async fn what_is_too_long_for_a_command_is_put_into_none() {
    let (fleet, _web1) = fleet().await;
    let ran = fleet.scratch().join("ran");
    let text = format!(
        "---\nhosts: web1\n---\n# Use it\n\n```sh id=long timeout=1m undo=none\nhead -c 65537 /dev/zero | tr '\\0' x\n```\n\n\
         ```sh id=use timeout=1m undo=none\necho {{{{ steps.long.stdout }}}} > {}\n```\n",
        ran.display()
    );
    let file = fleet.scratch().join("long.md");
    std::fs::write(&file, text).expect("a file");
    let line = ["runbook", "run", &file.display().to_string(), "--detach", "-o", "json"];
    let id = fleet.cli(&line).await.ok().json()["id"].as_str().expect("an id").to_owned();
    let runbook = state_is(&fleet, &id, "paused").await;
    assert_eq!(step(&runbook, "long")["state"], "done");
    let note = step(&runbook, "use")["note"].as_str().expect("a reason");
    assert!(note.starts_with("what step long printed") && note.contains("64 KiB"), "{note}");
    assert!(!ran.exists());
}

/// A document in the scratch directory, begun.
async fn begun(fleet: &Fleet, name: &str, text: &str, more: &[&str]) -> (String, String) {
    let file = fleet.scratch().join(name);
    std::fs::write(&file, text).expect("a new file");
    let file = file.display().to_string();
    let line = [&["runbook", "run", &file, "--detach", "-o", "json"], more].concat();
    let said = fleet.cli(&line).await.ok();
    let answer = said.json();
    let id = answer.get("id").and_then(serde_json::Value::as_str).expect("an id");
    (id.to_owned(), said.stderr)
}

/// An undo gets what its own step printed, whatever is in that; and a pattern is looked for in each line.
#[tokio::test]
async fn what_a_step_printed_takes_it_back() {
    let (fleet, _web1) = fleet().await;
    let dir = fleet.scratch().display().to_string();
    let text = format!(
        "---\nhosts: web1\n---\n```sh id=make timeout=1m expect=~^made undo=\"printf '[%s]' {{{{ steps.make.stdout }}}} {{{{ steps.make.exit_code }}}} > {dir}/undone\"\necho first\nprintf 'made $(touch {dir}/hacked)'\n```\n"
    );
    let (id, _) = begun(&fleet, "own.md", &text, &[]).await;
    state_is(&fleet, &id, "succeeded").await;
    drop(fleet.cli(&["runbook", "undo", &id]).await.ok());
    state_is(&fleet, &id, "undone").await;
    let undone = std::fs::read_to_string(fleet.scratch().join("undone")).expect("it ran");
    assert_eq!(undone, format!("[first\nmade $(touch {dir}/hacked)][0]"));
    assert!(!fleet.scratch().join("hacked").exists());
}

/// Steps that name no hosts run where the command line says, with attributes or without.
#[tokio::test]
async fn hosts_may_be_given_with_the_run() {
    let (fleet, _web1) = fleet().await;
    let _web2 = fleet.agent("web2").await;
    let text = "```sh id=all timeout=1m undo=none\ntrue\n```\n\n```sh id=one on=web1 timeout=1m undo=none\nexit 3\n```\n";
    let file = fleet.scratch().join("hosts.md");
    std::fs::write(&file, text).expect("a new file");
    let refused =
        fleet.cli(&["runbook", "run", &file.display().to_string(), "--detach"]).await.exits(2);
    assert!(
        refused.stderr.contains("all at line 1: it names no hosts; say with --hosts"),
        "{}",
        refused.stderr
    );
    let (id, said) = begun(&fleet, "hosts.md", text, &["--hosts", "web*"]).await;
    assert!(said.contains("on web*, as they name no hosts: all\n"), "{said}");
    let runbook = state_is(&fleet, &id, "paused").await;
    assert_eq!(step(&runbook, "all")["hosts"], serde_json::json!(["web1", "web2"]));
    assert_eq!(step(&runbook, "one")["hosts"], serde_json::json!(["web1"]));
    let run = step(&runbook, "one")["output_run"].as_str().expect("a run");
    let shown = fleet.cli(&["runbook", "show", &id]).await.ok();
    assert!(shown.stderr.contains(&format!("runs logs {run}")), "{}", shown.stderr);
}
