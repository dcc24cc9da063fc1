use std::path::Path;

use fw_core::host::Host;
use fw_core::select::select;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::*;

/// One answer of the real Salt.
#[derive(Deserialize)]
struct Row {
    target_type: String,
    targets: String,
    matches: Vec<String>,
    #[serde(default)]
    malformed: bool,
}

fn machines(text: &str) -> Vec<Host> {
    let machines: BTreeMap<String, Map<String, Value>> = serde_json::from_str(text).unwrap();
    let host = |(name, facts): (String, Map<String, Value>)| Host {
        id: fw_proto::HostId(uuid::Uuid::nil()),
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        facts,
    };
    machines.into_iter().map(host).collect()
}

fn read(kind: &str, target: &str) -> Result<Selector, Error> {
    translate(kind.parse().unwrap(), target, &Groups::new())
}

/// Every row agrees, also after a way through text.
fn agree(dir: &Path) {
    let hosts = machines(&std::fs::read_to_string(dir.join("machines.json")).unwrap());
    let rows = std::fs::read_to_string(dir.join("selectors.jsonl")).unwrap();
    let rows: Vec<Row> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), 430);
    let mut wrong = Vec::new();
    for row in &rows {
        let said = read(&row.target_type, &row.targets);
        if row.malformed {
            if said.is_ok() {
                wrong.push(format!("taken: {}", row.targets));
            }
            continue;
        }
        match said {
            Err(error) => wrong.push(error.to_string()),
            Ok(selector) => {
                let again = Selector::parse(&selector.to_string()).unwrap();
                assert_eq!(again, selector, "{}", row.targets);
                let mut expected = row.matches.clone();
                expected.sort();
                let names: Vec<_> =
                    select(&selector, &hosts).iter().map(|host| host.name.to_string()).collect();
                if names != expected {
                    wrong.push(format!(
                        "{} {} is {selector}: {names:?}",
                        row.target_type, row.targets
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_answer_of_salt_is_ours() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    agree(&here.join("tests/data/salt"));
    let shared = here.join("../../../shared/vectors");
    if shared.exists() {
        agree(&shared);
    }
}

fn check(kind: &str, target: &str, expected: &str) {
    let selector = read(kind, target).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(selector.to_string(), expected, "{target}");
    assert_eq!(Selector::parse(expected).unwrap(), selector, "{target}");
}

#[test]
fn targets_are_said_in_our_words() {
    check("glob", "web[^a]", "web[a^]");
    check("glob", "web[1", "web[[]1");
    check("glob", "web[3-1]", "not *");
    check("glob", "web[!3-1]", "web?");
    check("list", "web1, web2", "web1");
    check("pcre", "web(?=1)", r#"~"^(?:web(?=1))""#);
    check("grain", "os:Debian", "ifact:os:Debian");
    check("compound", "G|@os|Deb* not web1", "ifact|:os|Deb* and not web1");
    check("compound", "S@10.0.0.0/255.0.0.0 or and1", "net:10.0.0.0/8 or and1");
}

#[test]
fn classes_are_those_of_fnmatch() {
    let fits = |glob: &str, value: &str| {
        let text = format!(r#"{{"web1": {{"x": "{value}"}}}}"#);
        let selector = read("grain", &format!("x:{glob}")).unwrap();
        select(&selector, &machines(&text)).len() == 1
    };
    for (glob, yes, no) in [
        ("[^!]", "^!", "-a"),
        ("[!^]", "a-!", "^"),
        ("[^a]", "^a", "b"),
        ("[!a]", "b^", "a"),
        ("[-!]", "-!", "^"),
        ("[^-]", "^-", "!"),
        ("[#+--]", "#+,-", "$."),
        ("[]a]", "]a", "["),
        ("[", "[", "a"),
        ("[!z-a]", "a", ""),
    ] {
        for c in yes.chars() {
            assert!(fits(glob, &c.to_string()), "{glob} {c}");
        }
        for c in no.chars() {
            assert!(!fits(glob, &c.to_string()), "{glob} {c}");
        }
    }
}

#[test]
fn node_groups_are_looked_up() {
    let groups = Groups::from([
        ("a".into(), "web* or N@b".into()),
        ("b".into(), "db1".into()),
        ("c".into(), "N@c".into()),
    ]);
    let read = |target| translate(Kind::Compound, target, &groups);
    assert_eq!(read("N@a and not db2").unwrap().to_string(), "(web* or db1) and not db2");
    assert!(read("N@c").unwrap_err().message.contains("holds itself"));
    assert!(read("N@d").unwrap_err().message.contains("there are a, b, c"));
}

#[test]
fn errors_stand_under_the_character() {
    let all = [
        "and web*",
        "web* or or db*",
        "( web*",
        "X@foo",
        "G@os",
        "web* )",
        "()",
        "not not web1",
        "web1 db1",
        "E@web(",
        "E@a)(b",
        "P@os:(",
        "S@10.0.0.1/8",
        "N@web",
        "web1 or",
    ];
    let said: Vec<_> =
        all.iter().map(|text| read("compound", text).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(said.join("\n\n"));
    assert!("pillar".parse::<Kind>().unwrap_err().message.contains("grain_pcre"));
}
