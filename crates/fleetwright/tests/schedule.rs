//! `fleetwright schedule next`, as scripts call it: without a server.

use std::process::{Command, Output};

use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

fn next(args: &[&str]) -> Output {
    Command::new(BINARY).args(["schedule", "next"]).args(args).output().expect("runs")
}

/// The JSON list of an answer.
fn list(args: &[&str]) -> Value {
    let output = next(&[args, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A question about fields of Saltpeter, as a row of the vectors asks it.
fn saltpeter(fields: &Value, count: &str) -> Vec<String> {
    let mut args = vec!["--dialect".to_owned(), "saltpeter".to_owned()];
    for name in ["sec", "min", "hour", "dom", "mon", "dow", "year"] {
        if let Some(text) = fields[name].as_str() {
            args.extend(["--field".to_owned(), format!("{name}={text}")]);
        }
    }
    let from = fields["now"].as_str().unwrap_or("2026-11-20T00:00:00Z");
    args.extend(["--from", from, "--count", count].map(str::to_owned));
    args
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn the_vectors_are_answered() {
    let rows = include_str!("../../fw-server/tests/data/saltpeter-cron.jsonl");
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (wrong, right): (Vec<_>, Vec<_>) = rows.partition(|row| row["next"] == "error");
    for row in right.iter().step_by(10) {
        assert_eq!(list(&borrowed(&saltpeter(row, "3"))), row["next"], "{row}");
    }
    assert_eq!(wrong.len(), 13);
    for row in wrong {
        let output = next(&borrowed(&saltpeter(&row, "3")));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{row}: {said}");
        assert!(said.contains('^') && output.stdout.is_empty(), "{row}: {said}");
    }
}

#[test]
fn defaults_and_what_is_never_due() {
    let daily = json!({"min": "0", "hour": "3", "dom": "*", "mon": "*", "dow": "*"});
    assert_eq!(list(&borrowed(&saltpeter(&daily, "1"))), json!(["2026-11-20T03:00:00Z"]));
    let never = json!({"min": "0", "hour": "3", "dom": "30", "mon": "feb", "dow": "*"});
    assert_eq!(list(&borrowed(&saltpeter(&never, "3"))), json!([null]));
    let once = json!({"min": "0", "hour": "3", "dom": "1", "mon": "1", "dow": "*", "year": "2027"});
    assert_eq!(list(&borrowed(&saltpeter(&once, "3"))), json!(["2027-01-01T03:00:00Z", null]));
}

#[test]
fn our_own_form() {
    let athens = ["30 3 * * *", "--timezone", "Europe/Athens", "--count", "2"];
    let args = [&athens[..], &["--from", "2026-03-28T12:00:00Z"]].concat();
    assert_eq!(list(&args), json!(["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]));
    let table = String::from_utf8(next(&args).stdout).expect("text");
    let first = table.lines().nth(1).expect("a row");
    assert!(first.contains("2026-03-29 04:00:00 +03:00") && first.contains("dst_gap"), "{table}");
    let last = ["0 0 0 1 1 * 2027", "--from", "2026-11-20T00:00:00Z"];
    assert_eq!(list(&last), json!(["2027-01-01T00:00:00Z", null]));
}

#[test]
fn mistakes_are_named() {
    let says = |args: &[&str], words: &str| {
        let output = next(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    };
    says(&[], "EXPR");
    says(&["0 25 * * *"], "hour \"25\"");
    says(&["@daily", "--timezone", "Athens"], "did you mean Europe/Athens?");
    says(&["@daily", "--from", "soon"], "soon");
    says(&["@daily", "--count", "0"], "--count");
    says(&["--dialect", "saltpeter", "--field", "min=0"], "the field 'dow' is missing");
    says(&["--dialect", "saltpeter", "--field", "minute=0"], "no field of a schedule");
    says(&["--dialect", "saltpeter", "--field", "dow=1", "--field", "dow=2"], "given twice");
    says(&["@daily", "--field", "dow=1"], "--dialect");
}

#[test]
fn a_directory_of_saltpeter_is_checked() {
    let directory = tempfile::tempdir().expect("directory");
    let job = |more: &str| {
        format!(
            "sweep: {{min: 0, hour: 2, dom: '*', mon: '*', dow: '*', command: 'true', \
             targets: 'db*', target_type: glob{more}}}\n"
        )
    };
    let check = || {
        let check = ["jobs", "check", "--dialect", "saltpeter", "-o", "json"];
        let output = Command::new(BINARY).args(check).arg(directory.path()).output().expect("runs");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), answer)
    };
    std::fs::write(directory.path().join("a.yaml"), job(", utc: true")).expect("written");
    let (code, answer) = check();
    assert_eq!(code, Some(0), "{answer}");
    assert_eq!(answer["jobs"][0]["targets"], "db*");
    assert_eq!(answer["warnings"][0]["line"], 1);
    std::fs::write(directory.path().join("b.yaml"), "x: [\n").expect("written");
    let (code, answer) = check();
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(answer["errors"][0]["file"], "b.yaml");
    assert_eq!(answer["jobs"][0]["name"], "sweep");
    assert_eq!(answer["jobs"][0]["hosts"], Value::Null);
}

#[test]
fn a_directory_of_saltpeter_is_checked_against_facts() {
    let directory = tempfile::tempdir().expect("directory");
    let job =
        "{min: 0, hour: 2, dom: '*', mon: '*', dow: '*', command: x, target_type: grain, targets: ";
    let text = format!("debian: {job} 'os:debian'}}\nplan9: {job} 'os:Plan9'}}\n");
    std::fs::write(directory.path().join("a.yaml"), text).expect("written");
    let facts = directory.path().join("facts.json");
    std::fs::write(&facts, r#"{"db1": {"os": "Debian"}, "web1": {}}"#).expect("written");
    let mut check = Command::new(BINARY);
    check.args(["jobs", "check", "--dialect", "saltpeter", "-o", "json", "--facts-file"]);
    let output = check.arg(&facts).arg(directory.path()).output().expect("runs");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["jobs"][0]["hosts"], json!(["db1"]), "{answer}");
    let warnings = answer["warnings"].as_array().expect("an array");
    let said: Vec<_> = warnings.iter().filter_map(|note| note["message"].as_str()).collect();
    assert!(said.contains(&"job plan9 matches no host"), "{said:?}");
}
