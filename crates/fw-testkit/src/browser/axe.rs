//! axe-core: which rules of accessibility a page breaks.
//!
//! Kept as it was published, packed, with its licences beside it (`tests/data/axe`). Only tests carry it.

use serde_json::Value;

/// The script, packed with zstd.
const PACKED: &[u8] = include_bytes!("../../tests/data/axe/axe-4.14.1.min.js.zst");

/// Unpacked it has 654 KB.
const MOST: usize = 1 << 20;

/// Runs all rules of WCAG 2.2 A and AA, and what axe calls best practice.
pub(super) const RUN: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    return axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})
        .then(found => found.violations.map(v => ({rule: v.id, help: v.help,
            nodes: v.nodes.map(n => n.target.join(' ') + ': ' + n.failureSummary)})));";

/// What makes the page know axe.
pub(super) fn script() -> String {
    let bytes = zstd::bulk::decompress(PACKED, MOST).expect("packed when it was added");
    String::from_utf8(bytes).expect("a script is text")
}

/// A rule that a page breaks.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The rule's name, `color-contrast`.
    pub rule: String,
    /// What it asks for.
    pub help: String,
    /// Where it is broken and how to mend it, one for each element.
    pub nodes: Vec<String>,
}

pub(super) fn read(found: &Value) -> Vec<Violation> {
    let text =
        |value: &Value, key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let nodes = |value: &Value| {
        let nodes = value.get("nodes").and_then(Value::as_array).into_iter().flatten();
        nodes.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let found = found.as_array().expect("axe gives a list");
    let violation = |value: &Value| Violation {
        rule: text(value, "rule"),
        help: text(value, "help"),
        nodes: nodes(value),
    };
    found.iter().map(violation).collect()
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.help)?;
        self.nodes.iter().try_for_each(|node| write!(f, "\n  {node}"))
    }
}
