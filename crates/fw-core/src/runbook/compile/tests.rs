//! Runbooks as plans.

use uuid::Uuid;

use super::*;

const LIFE: Incarnation = Incarnation(Uuid::from_u128(1));
const CHANGE: ChangeId = ChangeId(Uuid::from_u128(2));

/// The hosts of a fleet of two.
fn choose(selector: &Selector) -> Result<Vec<Chosen>, String> {
    let hosts = ["web1", "web2"].into_iter().zip(1..);
    let hosts =
        hosts.filter(|(name, _)| *name == selector.to_string() || selector.to_string() == "web*");
    Ok(hosts
        .map(|(name, n)| Chosen {
            id: fw_proto::HostId(Uuid::from_u128(n)),
            name: name.parse().unwrap(),
        })
        .collect())
}

fn compiled(text: &str, inputs: &[(&str, &str)], hosts: Option<&str>) -> Result<Plan, Vec<String>> {
    let parsed = crate::runbook::parse("x.md", text);
    assert_eq!(parsed.errors, [], "{text}");
    let inputs: Vec<_> = inputs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let values = plan::values(&parsed.runbook.inputs, &inputs).unwrap();
    let hosts = hosts.map(|text| Selector::parse(text).unwrap());
    let given = Given {
        source: text,
        values: &values,
        hosts: hosts.as_ref(),
        change: CHANGE,
        incarnation: LIFE,
    };
    compile(&parsed.runbook, &given, choose)
}

/// A plain checklist asks before each command, and is ticked where there is none.
#[test]
fn a_plain_checklist_asks_and_is_ticked() {
    let text = "# Move\n\n- [ ] Save\n  ```\n  cp a b\n  ```\n- [ ] Tell all\n\n## Do\n\n```yaml\na: 1\n```\n";
    let plan = compiled(text, &[], Some("web*")).unwrap();
    let acts: Vec<_> = plan.nodes.iter().map(|node| (node.id.as_str(), kind(&node.act))).collect();
    assert_eq!(acts, [("save", "confirm"), ("save", "exec"), ("tell-all", "tick"), ("do", "tick")]);
    let missing = compiled(text, &[], None).unwrap_err();
    assert_eq!(
        missing,
        ["step save at line 4: it names no hosts; say on which hosts such steps run"]
    );
    let none = compiled(text, &[], Some("mail*")).unwrap_err();
    assert_eq!(none, ["step save at line 4: no host matches mail*"]);
}

fn kind(act: &Act) -> &'static str {
    match act {
        Act::Exec(_) => "exec",
        Act::Wait(_) => "wait",
        Act::Approve(_) => "approve",
        Act::Window(_) => "window",
        Act::Tick => "tick",
        Act::Confirm => "confirm",
    }
}
