//! `fleetwright runbook check` and `plan`, as people and scripts call them. No server runs.

#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/seeds")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn runbook(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright"));
    command.arg("runbook").args(args).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The answer of `check` as data, and the exit code.
fn checked(file: &Path) -> (Value, Option<i32>) {
    let output = runbook(&["check", file.to_str().expect("UTF-8"), "-o", "json"]);
    (serde_json::from_slice(&output.stdout).expect("JSON"), output.status.code())
}

/// The lines at which blocks of code begin, found without any Markdown: a fence begins a block, and
/// the next fence of the same letters ends it.
fn fences(text: &str) -> Vec<u64> {
    let mut open: Option<&str> = None;
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let fence = ["```", "~~~"].into_iter().find(|fence| text.trim_start().starts_with(fence));
        match (open, fence) {
            (None, Some(fence)) => {
                open = Some(fence);
                found.push(line);
            }
            (Some(begun), Some(fence)) if begun == fence => open = None,
            (None | Some(_), _) => {}
        }
    }
    assert_eq!(open, None, "a fence is never closed");
    found
}

/// Every block is a step that asks, at its line; and nothing is wrong.
fn every_block_is_found(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).expect("a document");
    let (answer, code) = checked(file);
    assert_eq!((code, &answer["errors"]), (Some(0), &serde_json::json!([])), "{}", file.display());
    let steps = answer["steps"].as_array().expect("steps");
    let blocks = steps.iter().filter(|step| step["kind"] == "ask");
    let lines: Vec<u64> = blocks.map(|step| step["line"].as_u64().expect("a line")).collect();
    assert_eq!(lines, fences(&text), "{}", file.display());
    lines.len()
}

#[test]
fn a_document_of_all_shapes_is_a_checklist() {
    let file = data().join("shapes.md");
    assert_eq!(every_block_is_found(&file), 10);
    let (answer, _) = checked(&file);
    let steps = answer["steps"].as_array().expect("steps").iter();
    let manual: Vec<_> =
        steps.filter(|step| step["kind"] == "manual").map(|step| &step["id"]).collect();
    assert_eq!(manual, ["say-when-it-happens", "change-settings-if-needed", "it-works"]);
}

/// The documents themselves are not ours to keep here; where they lie beside the checkout they are read.
#[test]
fn migration_documents_are_checklists() {
    let counts = std::fs::read_to_string(data().join("counts.txt")).expect("the counts");
    for row in counts.lines().filter(|row| !row.starts_with('#')) {
        let words: Vec<&str> = row.split(' ').collect();
        let [name, hash, count] = words.as_slice() else { panic!("{row}") };
        let file = root().join("../shared/seeds").join(name);
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let digest: String =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, *hash, "{name} is another document");
        assert_eq!(every_block_is_found(&file).to_string(), *count, "{name}");
    }
}

#[test]
fn our_own_runbooks_pass() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("examples/runbooks")).expect("the examples") {
        let path = entry.expect("readable").path();
        let (answer, code) = checked(&path);
        assert_eq!(
            (code, &answer["errors"]),
            (Some(0), &serde_json::json!([])),
            "{}",
            path.display()
        );
        names.push(path.file_name().expect("a name").to_string_lossy().into_owned());
    }
    names.sort();
    let five = ["atlas.md", "nixfleet.md", "pipeline-manager.md", "saltpeter.md", "socket-io.md"];
    assert_eq!(names, five);
}

/// Runs a text as a host does, with programs of this directory before others.
fn host(text: &str, bin: &Path) -> std::process::ExitStatus {
    let text = format!("PATH={}:$PATH\n{text}", bin.display());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &text]).env("FLEETWRIGHT_CHANGE_ID", "c1");
    shell.output().expect("a shell").status
}

/// A step that installs something fails, is tried again and is taken back: to what there was before the first try.
fn check_way_back(file: &str, step: &str, inputs: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let (bin, app) = (dir.path().join("bin"), dir.path().join("app"));
    std::fs::create_dir(&bin).expect("a new directory");
    for name in ["pip", "pip3", "docker"] {
        let text = format!("#!/bin/sh\ntest ! -e {}\n", dir.path().join("broken").display());
        std::fs::write(bin.join(name), text).expect("a new file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join(name), mode).expect("our own file");
    }
    let git = "git -c user.name=n -c user.email=e@example.com";
    let made = format!(
        "set -e; cd {}; git init -q up; cd up; echo 1 > v; git add v; {git} commit -qm 1; cd ..
         git clone -q up app; cd up; echo 2 > v; {git} commit -qam 2; git tag v2",
        dir.path().display()
    );
    assert!(host(&made, &bin).success(), "{made}");
    let facts = dir.path().join("facts.json");
    std::fs::write(&facts, r#"{"web1": {}}"#).expect("a new file");
    let document = root().join("examples/runbooks").join(file);
    let mut args = vec!["plan".to_owned(), document.display().to_string(), "-o".to_owned()];
    args.extend(["json".to_owned(), "--facts-file".to_owned(), facts.display().to_string()]);
    for input in inputs {
        args.extend(["--input".to_owned(), input.replace("APP", &app.display().to_string())]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = runbook(&args);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let steps = plan["steps"].as_array().expect("steps");
    let step = steps.iter().find(|one| one["id"] == step).expect("the step");
    let text = |part: &str| step[part]["text"].as_str().expect("a command").to_owned();
    let version = || std::fs::read_to_string(app.join("v")).expect("the file");
    std::fs::write(dir.path().join("broken"), "").expect("a new file");
    assert!(!host(&text("command"), &bin).success());
    assert_eq!(version(), "2\n", "{file}: it broke after the new one was there");
    std::fs::remove_file(dir.path().join("broken")).expect("it is there");
    assert!(host(&text("command"), &bin).success());
    assert!(host(&text("undo"), &bin).success() && host(&text("undo"), &bin).success());
    assert_eq!(version(), "1\n", "{file}: it is as it was before the first try");
}

#[test]
fn what_is_tried_again_still_finds_its_way_back() {
    let server = ["server=web1", "application=APP", "revision=v2"];
    check_way_back("socket-io.md", "code", &server);
    let atlas =
        ["server=web1", "agents=web1", "trial=web1", "program=APP", "tag=v2", "cluster_secret=s"];
    check_way_back("atlas.md", "code", &atlas);
    let nixfleet = [
        "dashboard=web1",
        "nixos=web1",
        "macs=web1",
        "trial=web1",
        "trial_mac=web1",
        "user=u",
        "service=APP",
    ];
    check_way_back("nixfleet.md", "dashboard-on", &nixfleet);
}

const DOCUMENT: &str = "---\ntitle: New nginx\nowner: web team\nhosts: web*\ninputs:\n  version: text\n  where: {type: hosts, about: the canary}\n---\n\n## Install\n\n- [ ] Tell the others\n- [ ] Install it\n  ```sh id=install on=\"{{ inputs.where }}\" as=root timeout=5m armed=60s approve=operator,2,4h undo=back verify=\"nginx -v\"\n  install-nginx {{ inputs.version }}\n  ```\n- [ ] Look at it\n  ```sh id=look timeout=5s undo=none\n  echo {{ steps.install.stdout }}\n  ```\n\n```sh id=back\ninstall-nginx --previous\n```\n";

/// A directory with the document and a file of facts.
fn files() -> (tempfile::TempDir, String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let (document, facts) = (dir.path().join("x.md"), dir.path().join("facts.json"));
    std::fs::write(&document, DOCUMENT).expect("a new file");
    std::fs::write(&facts, r#"{"web1": {}, "web2": {}, "db1": {}}"#).expect("a new file");
    let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    (dir, text(document), text(facts))
}

#[test]
fn a_plan_shows_what_would_be_done() {
    let (_dir, document, facts) = files();
    let inputs = ["--input", "version=1.27; rm -rf 'x'", "--input", "where=web1"];
    let args = [&["plan", &document, "--facts-file", &facts], inputs.as_slice()].concat();
    let output = runbook(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    insta::assert_snapshot!(stdout(&output));
    let output = runbook(&[args.as_slice(), &["-o", "json"]].concat());
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["undo_order"], serde_json::json!(["install"]));
    assert_eq!(plan["steps"][1]["hosts"], serde_json::json!(["web1"]));
    assert_eq!(plan["steps"][2]["hosts"], serde_json::json!(["web1", "web2"]));
    assert_eq!(plan["steps"][1]["command"]["text"], r"install-nginx '1.27; rm -rf '\''x'\'''");
    assert_eq!(plan["steps"][2]["command"]["complete"], false);
}

/// Steps that name no hosts run where `--hosts` says; the plan says which do, and who said it.
#[test]
fn hosts_may_be_given_with_the_plan() {
    let (dir, _, facts) = files();
    let document = dir.path().join("y.md");
    let text = "- [ ] Write it\n  ```sh id=write timeout=5s undo=none\n  date\n  ```\n- [ ] Look\n  ```sh id=look on=db1 timeout=5s undo=none\n  date\n  ```\n- [ ] Plug it in\n  ```text id=plug manual timeout=5s verify=\"test -e /\"\n  x\n  ```\n";
    std::fs::write(&document, text).expect("a new file");
    let document = document.to_str().expect("UTF-8");
    let (answer, code) = checked(Path::new(document));
    assert_eq!((code, &answer["errors"]), (Some(0), &serde_json::json!([])));
    let plan =
        |more: &[&str]| runbook(&[&["plan", document, "--facts-file", &facts], more].concat());
    let shown = plan(&["--hosts", "web*"]);
    let text = stdout(&shown);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    assert_eq!(text.matches("web* (by --hosts): web1, web2").count(), 2, "{text}");
    assert!(text.contains("hosts    db1: db1"), "{text}");
    let json = plan(&["--hosts", "web*", "-o", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["steps"][0]["hosts"], serde_json::json!(["web1", "web2"]));
    let unnamed: Vec<_> = (0..3).map(|step| json["steps"][step]["unnamed"].clone()).collect();
    assert_eq!(unnamed, [true, false, true]);
    let none = plan(&[]);
    assert!(
        stderr(&none).contains("no hosts are named for write, plug; give them with --hosts"),
        "{}",
        stderr(&none)
    );
    let wrong = plan(&["--hosts", "web* and"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
    let nobody = plan(&["--hosts", "mail*"]);
    assert_eq!(nobody.status.code(), Some(9), "{}", stderr(&nobody));
}

#[test]
fn inputs_that_are_missing_are_named_all_at_once() {
    let (_dir, document, facts) = files();
    let output = runbook(&["plan", &document, "--facts-file", &facts, "--input", "versoin=1"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [
        "versoin: no such input",
        "version: it is missing (text)",
        "where: it is missing (hosts): the canary",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let args = [
        "plan",
        &document,
        "--facts-file",
        &facts,
        "--input",
        "version=1",
        "--input",
        "where=mail*",
    ];
    let output = runbook(&args);
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no host matches mail* for step install"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn mistakes_have_a_place_and_a_caret() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x.md");
    std::fs::write(&file, "# T\n\n```sh on=web* tiemout=5m undo=none\ntrue\n```\n")
        .expect("a new file");
    let output = runbook(&["check", file.to_str().expect("UTF-8")]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("x.md:3:15: unknown attribute \"tiemout\"; did you mean timeout?\n"),
        "{said}"
    );
    assert!(said.contains("\n              ^\n"), "{said}");
    let (answer, code) = checked(&file);
    assert_eq!(code, Some(1));
    assert_eq!(answer["errors"][0]["line"], 3);
    assert_eq!(answer["steps"][0], serde_json::json!({"id": "step", "line": 3, "kind": "command"}));
    assert_eq!(answer.as_object().map(|keys| keys.len()), Some(2), "{answer}");
}
