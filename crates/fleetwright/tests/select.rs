//! `hosts select` with a file of facts, against answers of the real Salt. No server runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fw-server/tests/data/salt")
}

fn select(facts: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright"));
    command.args(["hosts", "select", "-o", "json", "--facts-file"]).arg(facts).args(args);
    command.output().expect("the binary starts")
}

fn refused(facts: &Path, args: &[&str], said: &str) {
    let output = select(facts, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(stderr.contains(said), "{args:?}: {stderr}");
}

/// Every twentieth row, as a process each.
#[test]
fn answers_are_those_of_salt() {
    let machines = vectors().join("machines.json");
    let rows = std::fs::read_to_string(vectors().join("selectors.jsonl")).expect("the rows");
    for row in rows.lines().step_by(20) {
        let row: Value = serde_json::from_str(row).expect("JSON");
        let text = |key: &str| row[key].as_str().expect("a text");
        let args = ["--target-type", text("target_type"), "--", text("targets")];
        if row["malformed"] == true {
            refused(&machines, &args, "^");
            continue;
        }
        let output = select(&machines, &args);
        let found: Vec<String> = serde_json::from_slice(&output.stdout).expect("JSON");
        let mut expected: Vec<String> =
            serde_json::from_value(row["matches"].clone()).expect("names");
        expected.sort();
        assert_eq!(found, expected, "{row}");
        assert_eq!(output.status.code(), Some(if expected.is_empty() { 9 } else { 0 }), "{row}");
    }
}

#[test]
fn mistakes_are_named() {
    let machines = vectors().join("machines.json");
    refused(&machines, &["--target-type", "pillar", "x"], "grain_pcre");
    refused(&machines, &["--target-type", "compound", "E@web("], "unclosed group");
    refused(&machines, &["--target-type", "compound", "web1 and"], "^");
    refused(&machines, &["web* and (db*"], "never closed");
    refused(&vectors().join("absent"), &["*"], "absent");
    refused(&vectors().join("selectors.jsonl"), &["*"], "object of hosts");
}

#[test]
fn our_own_language_is_asked_too_and_the_undecided_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let facts = dir.path().join("facts.json");
    let long = format!("{}1", "a".repeat(40));
    let text = format!(r#"{{"{long}": {{}}, "web1": {{"os": "Debian"}}}}"#);
    std::fs::write(&facts, text).expect("a new file");
    let output = select(&facts, &["os:Debian"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[\n  \"web1\"\n]");
    let output = select(&facts, &[r"not ~^(a|aa)+\1c"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("too many steps") && stderr.contains(&long), "{stderr}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains(&long));
}
