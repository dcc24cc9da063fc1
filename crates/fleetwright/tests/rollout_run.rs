//! Rollouts on ten agents on one machine: through their waves with an approval, taken back when a wave fails,
//! paused, ended, and all of it across kills of the server.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::collections::BTreeMap;

use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// Ten hosts; each has a name of its own as its commands see it (`uname(1)`), in a namespace
/// (`uts_namespaces(7)`), and there a directory with a configuration and a process that reads it.
async fn fleet() -> (Fleet, Vec<Agent>) {
    let fleet = Fleet::start(BINARY).await;
    let mut agents = Vec::new();
    for n in 0..10 {
        let name = format!("web{n}");
        drop(fleet.join(&name, &[]).await);
        let named = format!("hostname {name}; exec \"$@\"");
        let wrap = ["unshare", "--uts", "sh", "-c", &named, "sh"];
        let mut agent = fleet.agent_of(&name, &wrap, &[]);
        agent.start();
        agents.push(agent);
        std::fs::create_dir(fleet.scratch().join(&name)).expect("a new directory");
    }
    for n in 0..10 {
        fleet.online(&format!("web{n}")).await;
    }
    let dir = fleet.scratch().display().to_string();
    script(
        &fleet,
        "restart",
        &format!(
            "cd {dir}/$(uname -n)
[ -e pid ] && kill $(cat pid)
setsid tail -f {dir}/$(uname -n)/conf >/dev/null 2>&1 </dev/null &
echo $! > pid
echo restart >> ../restarts
"
        ),
    );
    // It breaks after the file was written, so that there is something to take back.
    script(
        &fleet,
        "do",
        &format!(
            "set -e
cd {dir}/$(uname -n)
cp -p conf conf.before
echo version 2 > conf
while [ -e ../hold ] && [ $(uname -n) = web1 ]; do sleep 0.05; done
if [ -e ../broken ] && [ $(uname -n) = web3 ]; then exit 1; fi
sh {dir}/restart
"
        ),
    );
    script(
        &fleet,
        "undo",
        &format!(
            "set -e
cd {dir}/$(uname -n)
mv conf.before conf
sh {dir}/restart
"
        ),
    );
    for n in 0..10 {
        std::fs::write(fleet.scratch().join(format!("web{n}/conf")), "version 1\n")
            .expect("a file");
    }
    let (_, run) = fleet.run_shell("*", &[], &format!("sh {dir}/restart")).await;
    assert_eq!(run["state"], "succeeded");
    (fleet, agents)
}

fn script(fleet: &Fleet, name: &str, text: &str) {
    std::fs::write(fleet.scratch().join(name), text).expect("a new file");
}

/// A rollout file: 10 %, 50 %, all, with an approval before the second wave.
fn file(fleet: &Fleet, more: &str) -> String {
    let dir = fleet.scratch().display().to_string();
    let text = format!(
        "rollout: app\nhosts: \"web*\"\nwaves: [10%, 50%, 100%]\nmax_parallel: 2\nmax_failures: 1\n\
         do: {{ run: \"sh {dir}/do\", timeout: 2m }}\n\
         verify: [ {{ run: \"grep -q 'version 2' {dir}/$(uname -n)/conf\" }} ]\n\
         undo: {{ run: \"sh {dir}/undo\", timeout: 1m }}\non_failure: undo\n{more}"
    );
    let file = fleet.scratch().join("app.yaml");
    std::fs::write(&file, text).expect("a new file");
    file.display().to_string()
}

const APPROVE: &str = "approve: { before_wave: 2, by: operator, people: 1, expires: 4h }\n";

/// The bytes of all configurations, by host and file; processes are told apart from them.
fn state(fleet: &Fleet) -> BTreeMap<String, Vec<u8>> {
    let mut state = BTreeMap::new();
    for n in 0..10 {
        let host = format!("web{n}");
        for entry in std::fs::read_dir(fleet.scratch().join(&host)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "pid" {
                let bytes = std::fs::read(entry.path()).expect("a file");
                state.insert(format!("{host}/{name}"), bytes);
            }
        }
    }
    state
}

async fn start(fleet: &Fleet, file: &str) -> String {
    let begun = fleet.cli(&["rollouts", "start", file, "--detach", "-o", "json"]).await.ok();
    begun.json()["id"].as_str().expect("an id").to_owned()
}

async fn when(fleet: &Fleet, id: &str, what: &str, looks: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, 3 * PATIENCE, async || {
        let rollout = fleet.get(&format!("/rollouts/{id}")).await?;
        let budget = &rollout["budget"];
        if rollout["state"] != "running" {
            // On the way back all are served.
            return looks(&rollout).then_some(rollout);
        }
        let used = budget["failed"].as_u64()? + budget["in_flight"].as_u64()?;
        assert!(
            used <= budget["max"].as_u64()?.max(1),
            "more in flight than failures left: {budget}"
        );
        looks(&rollout).then_some(rollout)
    })
    .await
}

async fn state_is(fleet: &Fleet, id: &str, state: &str) -> Value {
    when(fleet, id, &format!("a rollout that is {state}"), |rollout| rollout["state"] == state)
        .await
}

fn hosts_of(wave: &Value) -> usize {
    wave["hosts"].as_array().expect("hosts").len()
}

fn versions(fleet: &Fleet) -> usize {
    let state = state(fleet);
    let new = state
        .iter()
        .filter(|(name, text)| name.ends_with("/conf") && text.as_slice() == b"version 2\n");
    new.count()
}

#[tokio::test]
async fn a_rollout_goes_through_its_waves_with_an_approval() {
    let (mut fleet, _agents) = fleet().await;
    let file = file(&fleet, APPROVE);
    let id = start(&fleet, &file).await;
    let rollout = state_is(&fleet, &id, "awaiting_approval").await;
    let waves = rollout["waves"].as_array().expect("waves");
    assert_eq!(waves.iter().map(hosts_of).collect::<Vec<_>>(), [1, 4, 5]);
    assert_eq!(versions(&fleet), 1, "the first wave alone");
    let shown = fleet.cli(&["rollouts", "show", &id, "-o", "json"]).await.exits(8).json();
    assert_eq!(shown["state"], "awaiting_approval");
    let plan = fleet.cli(&["rollouts", "plan", &file, "-o", "json"]).await.ok().json();
    let conflicts = plan["conflicts"].as_array().expect("conflicts");
    let overlap =
        conflicts.iter().find(|one| one["kind"] == "overlap").expect("the one that waits");
    assert_eq!(overlap["change"], id.as_str(), "{overlap}");
    fleet.server.kill9().await;
    fleet.start_server().await;
    drop(fleet.cli(&["rollouts", "watch", &id]).await.exits(8));
    drop(fleet.cli(&["rollouts", "approve", &id]).await.ok());
    drop(fleet.cli(&["rollouts", "watch", &id]).await.ok());
    let rollout = state_is(&fleet, &id, "succeeded").await;
    assert_eq!(versions(&fleet), 10);
    let hosts = rollout["hosts"].as_array().expect("hosts");
    assert!(hosts.iter().all(|host| host["state"] == "done" && host["proof"] == "verified"));
    assert_eq!(fleet.lines("restarts").len(), 20, "each once, after the first start");
    drop(fleet.cli(&["rollouts", "approve", &id]).await.exits(6));
}

/// Nothing is left of it, though its server was killed twice: in the wave, and on the way back.
#[tokio::test]
async fn what_breaks_in_the_second_wave_is_taken_back_to_the_last_byte() {
    let (mut fleet, _agents) = fleet().await;
    let before = state(&fleet);
    // Each host compares with what it kept itself, though all of them share a machine.
    let dir = fleet.scratch().display().to_string();
    let compared = format!("state: {{ commands: [\"cat {dir}/$(uname -n)/conf\"] }}\n");
    let file = file(&fleet, &format!("{APPROVE}{compared}"));
    fleet.touch("broken");
    fleet.touch("hold");
    let id = start(&fleet, &file).await;
    state_is(&fleet, &id, "awaiting_approval").await;
    drop(fleet.cli(&["rollouts", "approve", &id]).await.ok());
    wait_for("the second wave", PATIENCE, async || (versions(&fleet) > 1).then_some(())).await;
    fleet.server.kill9().await;
    std::fs::remove_file(fleet.scratch().join("hold")).expect("it is there");
    fleet.start_server().await;
    when(&fleet, &id, "the way back", |rollout| rollout["state"] != "running").await;
    fleet.server.kill9().await;
    fleet.start_server().await;
    let rollout = state_is(&fleet, &id, "undone").await;
    assert_eq!(state(&fleet), before);
    let hosts = rollout["hosts"].as_array().expect("hosts");
    let third = hosts.iter().find(|host| host["host"] == "web3").expect("web3");
    assert_eq!((&third["state"], &third["proof"]), (&"undone".into(), &"state_compared".into()));
    assert_eq!(rollout["why"], "wave 2 failed on web3", "why it was taken back");
    let last = hosts.iter().find(|host| host["host"] == "web9").expect("web9");
    assert_eq!(last["state"], "waiting", "the third wave never began");
    drop(fleet.cli(&["rollouts", "undo", &id]).await.exits(6));
}

#[tokio::test]
async fn a_rollout_is_paused_goes_on_and_is_ended() {
    let (fleet, _agents) = fleet().await;
    fleet.touch("hold");
    let id = start(&fleet, &file(&fleet, "")).await;
    wait_for("the second wave", PATIENCE, async || (versions(&fleet) > 1).then_some(())).await;
    drop(fleet.cli(&["rollouts", "pause", &id]).await.ok());
    std::fs::remove_file(fleet.scratch().join("hold")).expect("it is there");
    let quiet = |rollout: &Value| {
        let runs = rollout["runs"].as_array().expect("runs");
        rollout["state"] == "paused" && runs.iter().all(|run| run["ended"] == true)
    };
    when(&fleet, &id, "a rollout at rest", quiet).await;
    assert!(versions(&fleet) < 5, "the rest of the wave has not begun");
    drop(fleet.cli(&["rollouts", "resume", &id]).await.ok());
    state_is(&fleet, &id, "succeeded").await;
    assert_eq!(versions(&fleet), 10);
    assert_eq!(fleet.lines("restarts").len(), 20, "none was begun twice");

    drop(fleet.cli(&["rollouts", "undo", &id]).await.ok());
    state_is(&fleet, &id, "undone").await;
    fleet.touch("hold");
    let id = start(&fleet, &file(&fleet, "")).await;
    wait_for("the second wave", PATIENCE, async || (versions(&fleet) > 1).then_some(())).await;
    drop(fleet.cli(&["rollouts", "abort", &id]).await.ok());
    let rollout = state_is(&fleet, &id, "failed").await;
    assert_eq!(rollout["waves"][2]["state"], "waiting");
    let text = file(&fleet, "approve: { before_wave: 1, by: operator, people: 2 }\n");
    let id = start(&fleet, &text).await;
    state_is(&fleet, &id, "awaiting_approval").await;
    let refused = fleet.cli(&["rollouts", "approve", &id]).await.exits(4);
    assert!(refused.stderr.contains("a token is no person"), "{}", refused.stderr);
}

/// What is left of the budget lets it through, and a script is told all the same.
#[tokio::test]
async fn who_failed_on_the_way_is_told_by_the_exit_code() {
    let (fleet, _agents) = fleet().await;
    fleet.touch("broken");
    let path = file(&fleet, "");
    let text = std::fs::read_to_string(&path).expect("a file");
    std::fs::write(&path, text.replace("max_failures: 1", "max_failures: 2")).expect("written");
    let through = fleet.cli(&["rollouts", "start", &path, "-o", "json"]).await.exits(3).json();
    assert_eq!((&through["state"], &through["budget"]["failed"]), (&"succeeded".into(), &1.into()));
    assert_eq!(versions(&fleet), 10, "it broke after the file was written");
}
