//! A stand-in for the program `salt`: minions of a test's own, on this machine.
//!
//! The program is a script that hands its arguments to the test and prints what the test answers. A wrapper
//! that it is told to start is really started, with the environment that came through.

#![expect(clippy::indexing_slicing, reason = "a call has the arguments that it is known to have")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fw_testkit::fleet::{PATIENCE, wait_for};
use serde_json::{Value, json};
use tokio::process::Command;

/// A wrapper of this path is not started: the test speaks for it.
pub(crate) const SPOKEN_FOR: &str = "spoken-for";

/// What a call of `cmd.run_all` was for.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) minions: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

/// The master, its minions and what it was told to start.
#[derive(Debug, Clone)]
pub(crate) struct Master {
    pub(crate) dir: PathBuf,
    up: Arc<Mutex<Vec<String>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

const SCRIPT: &str = r#"#!/bin/sh
# Hands the arguments over, one a line and those with line breaks refused, and prints the answer.
cd "$(dirname "$0")/calls" || exit 9
for argument in "$@"; do printf '%s\n' "$argument"; done > "$$.part"
mv "$$.part" "$$.call"
while [ ! -e "$$.answer" ]; do [ -d . ] && [ -e ../salt ] || exit 9; sleep 0.02; done
cat "$$.answer"
"#;

impl Master {
    /// Minions of these names, and a directory of Saltpeter whose wrapper is this program.
    pub(crate) fn new(dir: &Path, minions: &[&str], wrapper: &str) -> Self {
        fs::create_dir_all(dir.join("calls")).expect("files of the test");
        fs::create_dir_all(dir.join("saltpeter")).expect("files of the test");
        let config = format!(
            "saltpeter_config:\n  default_saltpeter_server_host: 127.0.0.1\n  default_wrapper_path: {}\n",
            json!(wrapper)
        );
        fs::write(dir.join("saltpeter/config.yaml"), config).expect("files of the test");
        fs::write(dir.join("salt"), SCRIPT).expect("files of the test");
        fs::set_permissions(dir.join("salt"), fs::Permissions::from_mode(0o755))
            .expect("files of the test");
        let up = Arc::new(Mutex::new(minions.iter().map(|name| (*name).to_owned()).collect()));
        Self { dir: dir.to_owned(), up, calls: Arc::default() }
    }

    /// The arguments of `serve`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let pairs = [
            ("--saltpeter", path("saltpeter")),
            ("--saltpeter-dispatch", "salt".to_owned()),
            ("--saltpeter-salt", path("salt")),
            ("--saltpeter-machines", "127.0.0.1:0".to_owned()),
            ("--reconnect-grace", "2s".to_owned()),
        ];
        pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// Answers calls for as long as it is polled.
    pub(crate) async fn serve(self) {
        loop {
            for entry in fs::read_dir(self.dir.join("calls")).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|end| end == "call") {
                    self.answer(&path).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn answer(&self, call: &Path) {
        let text = fs::read_to_string(call).expect("files of the test");
        fs::remove_file(call).expect("files of the test");
        let arguments: Vec<&str> = text.lines().collect();
        let has = |word: &str| arguments.contains(&word);
        let up = self.up.lock().expect("no test panics in it").clone();
        let answer = if has("test.ping") {
            json!(up.iter().map(|name| (name.clone(), json!(true))).collect::<BTreeMap<_, _>>())
        } else if has("grains.items") {
            let grains = |name: &String| json!({"id": name, "host": name, "fqdn": format!("{name}.example"), "os": "Debian", "saltversion": "3008.3"});
            json!(up.iter().map(|name| (name.clone(), grains(name))).collect::<BTreeMap<_, _>>())
        } else {
            self.run_all(&arguments).await
        };
        let part = call.with_extension("written");
        fs::write(&part, answer.to_string()).expect("files of the test");
        fs::rename(part, call.with_extension("answer")).expect("files of the test");
    }

    /// `-L m1,m2 -t 30 cmd.run_all WRAPPER env=JSON`.
    async fn run_all(&self, arguments: &[&str]) -> Value {
        let at = arguments.iter().position(|word| *word == "cmd.run_all").expect("a known call");
        let list = arguments.iter().position(|word| *word == "-L").expect("a list of minions");
        let minions: Vec<String> = arguments[list + 1].split(',').map(str::to_owned).collect();
        let env = arguments[at + 2].strip_prefix("env=").expect("an environment");
        let env: BTreeMap<String, String> = serde_json::from_str(env).expect("JSON of texts");
        let mut answers = serde_json::Map::new();
        for minion in &minions {
            let answer = match arguments[at + 1] {
                SPOKEN_FOR => json!({"retcode": 0, "stdout": "Wrapper started successfully"}),
                wrapper => start(wrapper, minion, &env).await,
            };
            answers.insert(minion.clone(), answer);
        }
        self.calls.lock().expect("no test panics in it").push(Call { minions, env });
        Value::Object(answers)
    }

    /// Waits for the call that starts a wrapper, the `nth` from 0.
    pub(crate) async fn call(&self, nth: usize) -> Call {
        wait_for("a call of salt", PATIENCE, async || {
            self.calls.lock().expect("no test panics in it").get(nth).cloned()
        })
        .await
    }
}

/// Starts a wrapper as `cmd.run_all` does: by a shell. What ends at once has its exit code told.
async fn start(wrapper: &str, minion: &str, env: &BTreeMap<String, String>) -> Value {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", wrapper]).envs(env).env("STAND_IN_FQDN", format!("{minion}.example"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().await.expect("it can be had");
    json!({
        "pid": 1,
        "retcode": output.status.code(),
        "stdout": String::from_utf8_lossy(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
    })
}
