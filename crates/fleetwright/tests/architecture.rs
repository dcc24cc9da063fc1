//! The rules of the house, enforced. Change these tables only together with `ARCHITECTURE.md`.
//!
//! The rules are functions over text and metadata, tested below with a case for each thing
//! that is forbidden: a rule that has never been seen to fire guards nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// What one crate may and may not import. Imports of tests do not count.
struct Rule {
    name: &'static str,
    /// The members that it may import.
    members: &'static [&'static str],
    /// The outside crates that it may never import.
    never: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { name: "fw-proto", members: &[], never: &["tokio", "axum", "rusqlite", "reqwest"] },
    Rule {
        name: "fw-core",
        members: &["fw-proto"],
        never: &[
            "tokio",
            "axum",
            "rusqlite",
            "reqwest",
            "rand",
            "anyhow",
            "getrandom",
            "fastrand",
            "chrono",
            "time",
        ],
    },
    Rule { name: "fw-rt", members: &["fw-proto"], never: &["axum", "rusqlite"] },
    Rule {
        name: "fw-store",
        members: &["fw-proto", "fw-core", "fw-rt"],
        never: &["axum", "reqwest"],
    },
    Rule {
        name: "fw-agent",
        members: &["fw-proto", "fw-core", "fw-rt"],
        never: &["axum", "rusqlite"],
    },
    Rule {
        name: "fw-server",
        members: &["fw-proto", "fw-core", "fw-rt", "fw-store"],
        never: &["rusqlite", "tokio-postgres"],
    },
    Rule {
        name: "fleetwright",
        members: &["fw-proto", "fw-core", "fw-rt", "fw-store", "fw-agent", "fw-server"],
        never: &["rusqlite"],
    },
    Rule {
        name: "fw-testkit",
        members: &["fw-proto", "fw-core", "fw-rt", "fw-store", "fw-agent", "fw-server"],
        never: &[],
    },
    Rule {
        name: "fw-bench",
        members: &["fw-proto", "fw-core", "fw-rt"],
        never: &["axum", "rusqlite", "reqwest"],
    },
    Rule { name: "xtask", members: &[], never: &["tokio"] },
];

/// The one file that may say `unsafe`.
const UNSAFE_FILE: &str = "crates/fw-agent/src/supervise/os.rs";

/// The most lines a file has before its tests.
const MAX_LINES: usize = 600;

/// What breaks [`RULES`] in the output of `cargo metadata --no-deps`.
fn forbidden_imports(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let missing =
        RULES.iter().filter(|rule| packages.iter().all(|package| package["name"] != rule.name));
    let missing = missing.map(|rule| format!("{} has a rule and does not exist", rule.name));
    missing.chain(packages.iter().flat_map(forbidden_imports_of)).collect()
}

fn forbidden_imports_of(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
        return vec![format!("{name} has no rule")];
    };
    let imports = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let counted = imports.iter().filter(|import| import["kind"] != "dev");
    let names = counted.filter_map(|import| import["name"].as_str());
    let bad = names.filter(|import| is_forbidden(rule, import));
    bad.map(|import| format!("{name} must not import {import}")).collect()
}

fn is_forbidden(rule: &Rule, import: &str) -> bool {
    let member = RULES.iter().any(|rule| rule.name == import);
    (member && !rule.members.contains(&import)) || rule.never.contains(&import)
}

/// Lines before the tests of a file.
fn lines_before_tests(source: &str) -> usize {
    source.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

/// Whether `word` stands in the code of a file, outside of comments and strings.
fn says(source: &str, word: &str) -> bool {
    let code = source.lines().map(without_text);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.into_iter().any(|line| line.split(|c| !is_part(c)).any(|token| token == word))
}

/// A line without its comment and without what is between its quotation marks.
fn without_text(line: &str) -> String {
    let mut code = String::new();
    let line = line.replace("\\\"", "").replace("'\"'", "");
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 0 {
            let (before, comment) =
                part.split_once("//").map_or((part, false), |(before, _)| (before, true));
            code.push_str(before);
            code.push(' ');
            if comment {
                break;
            }
        }
    }
    code
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace is there")
}

/// All sources of the workspace: path from its root, and text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut waiting = vec![root.join("crates"), root.join("xtask")];
    let mut found = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory of the workspace").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                let name =
                    path.strip_prefix(&root).expect("found below the root").display().to_string();
                found.push((name, text));
            }
        }
    }
    assert!(found.len() > 20, "found {} sources only", found.len());
    found
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON");
    assert_none(&forbidden_imports(&metadata));
}

/// Metadata in which every crate imports all that it may, and one imports `import` too.
fn metadata_with(importer: &str, import: &str, kind: &Value) -> Value {
    let package = |rule: &Rule| {
        let allowed = rule.members.iter().map(|member| json!({"name": member, "kind": null}));
        let extra = (rule.name == importer).then(|| json!({"name": import, "kind": kind}));
        json!({"name": rule.name, "dependencies": allowed.chain(extra).collect::<Vec<_>>()})
    };
    json!({"packages": RULES.iter().map(package).collect::<Vec<_>>()})
}

#[test]
fn what_is_allowed_passes() {
    assert_none(&forbidden_imports(&metadata_with("fw-core", "winnow", &Value::Null)));
}

#[test]
fn every_forbidden_outside_crate_is_caught() {
    for rule in RULES {
        for import in rule.never {
            for kind in [Value::Null, json!("build")] {
                let broken = forbidden_imports(&metadata_with(rule.name, import, &kind));
                assert_eq!(broken, [format!("{} must not import {import}", rule.name)]);
            }
        }
    }
}

#[test]
fn every_forbidden_member_is_caught() {
    let mut cases = 0;
    for rule in RULES {
        for member in
            RULES.iter().map(|other| other.name).filter(|name| !rule.members.contains(name))
        {
            let broken = forbidden_imports(&metadata_with(rule.name, member, &Value::Null));
            assert_eq!(broken, [format!("{} must not import {member}", rule.name)]);
            cases += 1;
        }
    }
    assert!(cases > RULES.len(), "{cases} cases");
}

#[test]
fn the_table_says_what_the_design_says() {
    let may = |from: &str, to: &str| {
        let rule = RULES.iter().find(|rule| rule.name == from).expect("a crate of ours");
        !is_forbidden(rule, to)
    };
    for (from, to) in [
        ("fw-core", "fw-rt"),
        ("fw-rt", "fw-core"),
        ("fw-agent", "fw-store"),
        ("fw-agent", "fw-server"),
        ("fw-server", "fw-agent"),
        ("fleetwright", "fw-testkit"),
        ("fw-testkit", "fleetwright"),
        ("xtask", "fw-proto"),
        ("fw-core", "rand"),
        ("fw-server", "rusqlite"),
    ] {
        assert!(!may(from, to), "{from} may import {to}");
    }
    for (from, to) in [
        ("fw-store", "rusqlite"),
        ("fw-server", "axum"),
        ("fw-rt", "tokio"),
        ("fw-store", "fw-core"),
    ] {
        assert!(may(from, to), "{from} may not import {to}");
    }
}

#[test]
fn a_crate_without_a_rule_and_a_rule_without_a_crate_are_caught() {
    let mut metadata = metadata_with("", "", &Value::Null);
    metadata["packages"][0]["name"] = json!("fw-extra");
    assert_eq!(
        forbidden_imports(&metadata),
        ["fw-proto has a rule and does not exist", "fw-extra has no rule"]
    );
}

#[test]
fn imports_of_tests_do_not_count() {
    assert_none(&forbidden_imports(&metadata_with("fleetwright", "fw-testkit", &json!("dev"))));
}

#[test]
fn files_are_short_before_their_tests() {
    let lengths = sources().into_iter().map(|(name, text)| (lines_before_tests(&text), name));
    let long = lengths.filter(|(lines, name)| *lines > MAX_LINES && !name.contains("/tests"));
    assert_none(
        &long
            .map(|(lines, name)| format!("{name} has {lines} lines before its tests"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn one_file_alone_is_unsafe() {
    let found = sources().into_iter().filter(|(_, text)| says(text, "unsafe"));
    let wrong = found.map(|(name, _)| name).filter(|name| name != UNSAFE_FILE);
    assert_none(&wrong.map(|name| format!("{name} says unsafe")).collect::<Vec<_>>());
}

#[test]
fn core_types_are_not_the_wires() {
    let core = sources().into_iter().filter(|(name, _)| name.starts_with("crates/fw-core/src/"));
    let wrong = core.filter(|(_, text)| says(text, "Serialize"));
    assert_none(
        &wrong.map(|(name, _)| format!("{name} derives or imports Serialize")).collect::<Vec<_>>(),
    );
}

#[test]
fn the_checks_of_sources_see_code_and_not_text() {
    for code in [
        "unsafe { f() }",
        "  unsafe fn f() {}",
        "f(\"x\", unsafe { g() })",
        "impl X {} unsafe impl Send for X {}",
    ] {
        assert!(says(code, "unsafe"), "{code}");
    }
    for text in [
        "// unsafe",
        "//! is unsafe here",
        "#![expect(unsafe_code)]",
        "f(\"unsafe { }\")",
        "f(\"https://x\") // unsafe",
    ] {
        assert!(!says(text, "unsafe"), "{text}");
    }
    for code in [
        "#[derive(Debug, Serialize)]",
        "use serde::{Deserialize, Serialize};",
        "impl serde::Serialize for X {",
    ] {
        assert!(says(code, "Serialize"), "{code}");
    }
    assert!(!says("#[derive(Deserialize)]", "Serialize"));
    assert_eq!(lines_before_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(lines_before_tests("a\nb\n"), 2);
}
