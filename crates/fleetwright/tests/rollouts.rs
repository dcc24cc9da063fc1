//! `fleetwright rollouts plan`, as people and scripts call it. No server runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn plan(dir: &Path, file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright"));
    command.args(["rollouts", "plan"]).arg(file).arg("--facts-file").arg(dir.join("facts.json"));
    command.args(more).output().expect("the binary starts")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with facts of so many hosts.
fn hosts(count: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let facts: serde_json::Map<_, _> =
        (1..=count).map(|n| (format!("web{n:02}"), json!({"os": "Debian"}))).collect();
    std::fs::write(dir.path().join("facts.json"), Value::Object(facts).to_string())
        .expect("written");
    dir
}

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("r.yaml");
    std::fs::write(&path, text).expect("written");
    path
}

/// The file of the issue that asked for rollouts; scripts rely on its form.
const FILE: &str = r#"rollout: nginx-1.27
hosts: "web*"
waves: [1, 10%, 50%, 100%]
max_parallel: 20
max_failures: 2
do: { run: "install-nginx 1.27", timeout: 5m, armed: 60s }
verify: [ { http: "http://localhost/healthz", expect: 200, within: 30s } ]
soak: 2m
approve: { before_wave: 2, by: operator, people: 1, expires: 4h }
undo: { run: "install-nginx 1.26" }
on_failure: undo
"#;

#[test]
fn people_see_the_waves_and_how_they_were_counted() {
    let dir = hosts(42);
    let output = plan(dir.path(), &file(dir.path(), FILE), &[]);
    assert!(output.status.success(), "{}", said(&output.stderr));
    insta::assert_snapshot!(said(&output.stdout));
}

#[test]
fn scripts_rely_on_the_form() {
    let dir = hosts(10);
    let output = plan(dir.path(), &file(dir.path(), FILE), &["-o", "json"]);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["waves"][0]["name"], "wave-1");
    assert_eq!(plan["waves"][2]["hosts"], json!(["web03", "web04", "web05"]));
    assert_eq!((&plan["budget"], &plan["max_in_flight"]), (&json!(2), &json!(2)));
    assert_eq!(plan["conflicts"], json!([]));
    // Seven rounds of 340 s, each proved again for 40 s, and four soaks.
    assert_eq!(plan["predicted_s"], 7 * 340 + 7 * 40 + 480);
    let output = self::plan(dir.path(), &file(dir.path(), FILE), &["-o", "name"]);
    assert_eq!(said(&output.stdout).lines().count(), 10);
}

#[test]
fn what_cannot_begin_is_refused_with_what_to_do() {
    let dir = hosts(10);
    let refused = |from: &str, to: &str| {
        let output = plan(dir.path(), &file(dir.path(), &FILE.replace(from, to)), &[]);
        assert_eq!(said(&output.stdout), "");
        let told = said(&output.stderr).replace(&dir.path().display().to_string(), "DIR");
        format!("{:?} {told}", output.status.code())
    };
    let texts = [
        refused("web*", "db*"),
        refused(", 100%]", "]"),
        refused("[ {", "[ { metric: 'errors < 1%' }, {"),
        refused("verify:", "verfy:"),
        refused("undo:", "x-undo:"),
    ];
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn the_examples_are_in_order() {
    let dir = hosts(10);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rollouts");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).expect("examples") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        // Facts have no labels.
        let text = text.replace("label:stage=canary", "web01");
        let output = plan(dir.path(), &file(dir.path(), &text), &["-o", "json"]);
        assert!(output.status.success(), "{}: {}", path.display(), said(&output.stderr));
        seen += 1;
    }
    assert!(seen >= 3, "{seen} examples");
}

/// The document's example is one that works.
#[test]
fn the_example_of_the_guide_is_the_one_that_is_tried() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rollouts.md");
    let guide = std::fs::read_to_string(guide).expect("the guide");
    assert!(guide.contains(&format!("```yaml\n{FILE}```")), "the guide shows another file");
}
