//! Selectors: read, and asked of 10,000 hosts with labels and facts.

use std::collections::BTreeMap;
use std::hint::black_box;

use fw_core::host::Host;
use fw_core::select::{Selector, select};
use serde_json::{Map, Value, json};

use super::{HOSTS, host, name};
use crate::scenario::{Scenario, Size};

/// An expression of the kinds that people write together.
const MIXED: &str =
    "web* and (os:Debian or os:Ubuntu) and not (label:stage=canary or fact:cpus=2) or db-1,db-2";

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::again("select-parse", Size::Items(1), || || Selector::parse(black_box(MIXED))),
        over("select-all", "*".to_owned()),
        over("select-name", "web-05000.eu.example.com".to_owned()),
        over("select-names-1000", names(1000)),
        over("select-glob", "*-0[0-4]*.eu.*".to_owned()),
        over("select-regex", r"~^web-\d+[05]\.(eu|us)\.".to_owned()),
        over("select-label", "label:stage=canary".to_owned()),
        over("select-fact", "os:Debian".to_owned()),
        over("select-fact-list", "fact:ip:v4=10.1.*".to_owned()),
        over("select-mixed", MIXED.to_owned()),
        over("select-look-behind", r"~^(?:.*(?<!com)$)".to_owned()),
    ]
}

fn over(label: &'static str, expression: String) -> Scenario {
    Scenario::again(label, Size::Items(u64::from(HOSTS)), move || {
        let selector = Selector::parse(&expression).expect("a selector");
        let hosts = fleet();
        move || select(black_box(&selector), hosts.iter()).len()
    })
}

/// Every tenth host, by its name.
fn names(count: u32) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("web-{:05}", n * 10)).collect();
    names.join(",")
}

fn fleet() -> Vec<Host> {
    (0..HOSTS).map(one).collect()
}

fn one(n: u32) -> Host {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let pick = |of: [&'static str; 4]| of.into_iter().cycle().nth(n as usize % 4);
    let stage = if n.is_multiple_of(20) { "canary" } else { "stable" };
    let labels = BTreeMap::from([
        label("rack", &format!("r{}", n % 97)),
        label("stage", stage),
        label("team", "payments"),
    ]);
    let facts = json!({
        "arch": "x86_64",
        "cpus": 2 << (n % 4),
        "hostname": name(n).as_str(),
        "ip": {"v4": ["127.0.0.1", format!("10.{}.{}.7", n / 256, n % 256)], "v6": ["::1"]},
        "kernel": "6.12.48+deb13-amd64",
        "memory": 8_589_934_592_u64,
        "os": pick(["Debian", "Ubuntu", "Alma", "Alpine"]),
        "os_version": "13.1",
        "virtual": true,
    });
    let facts = match facts {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    Host { id: host(n), name: name(n), labels, facts }
}
