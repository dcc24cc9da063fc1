//! Front matter: what stands between two lines of `---` at the top of a runbook.

use super::input::{Input, TYPES, Type};
use super::source::Source;
use super::{Front, Where};
use crate::caret::nearest;
use crate::job::yaml::{self, Node, Place, Value};
use crate::select::Selector;

/// The most bytes of front matter.
const LONGEST: usize = 64 * 1024;

/// The most inputs.
const MOST_INPUTS: usize = 100;

/// The most choices of an input.
const MOST_CHOICES: usize = 1000;

const KEYS: [&str; 4] = ["title", "owner", "hosts", "inputs"];
const INPUT_KEYS: [&str; 4] = ["type", "default", "choices", "about"];

/// Where the front matter stands, and where the rest begins; `None` when there is none.
///
/// A rule at the top of a plain document looks the same. So what stands between counts only if its first
/// line looks like a key.
pub(super) fn split(text: &str) -> Option<(&str, usize)> {
    let first = text.split_inclusive('\n').next()?;
    if first.trim_end() != "---" {
        return None;
    }
    let mut end = first.len();
    for line in text.get(first.len()..)?.split_inclusive('\n') {
        if matches!(line.trim_end(), "---" | "...") {
            let inside = text.get(first.len()..end)?;
            return looks_like_keys(inside).then_some((inside, end + line.len()));
        }
        end += line.len();
    }
    None
}

/// Whether a text begins with front matter that is never closed.
pub(super) fn never_closed(text: &str) -> bool {
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.trim_end() == "---")
        && looks_like_keys(text.get(3..).unwrap_or_default())
        && !lines.any(|line| matches!(line.trim_end(), "---" | "..."))
}

fn looks_like_keys(inside: &str) -> bool {
    let mut lines = inside.lines().map(str::trim_end);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    first.and_then(|line| line.split_once(':')).is_some_and(|(key, value)| {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        !key.is_empty() && key.chars().all(word) && (value.is_empty() || value.starts_with(' '))
    })
}

/// Reads front matter, whose first line is the second of the document.
pub(super) fn read(source: &mut Source<'_>, inside: &str) -> Front {
    let mut front = Front::default();
    if inside.len() > LONGEST {
        source.error(4, format!("front matter has at most {LONGEST} bytes; shorten it"));
        return front;
    }
    match yaml::document(inside) {
        Err(error) => {
            source.error_at(below(Place { line: error.line, column: error.column }), error.message);
        }
        Ok(document) => {
            if let Some(twice) = &document.duplicate {
                let place = below(Place { line: twice.line, column: twice.column });
                source.error_at(place, "this key stands twice; remove one");
            }
            fields(source, &mut front, &document.root);
        }
    }
    front
}

/// The place in the document of a place in its front matter.
fn below(place: Place) -> Place {
    if place.line == 0 {
        Place { line: 2, column: 1 }
    } else {
        Place { line: place.line + 1, ..place }
    }
}

/// The entries of a map with texts as keys.
fn entries<'n>(
    source: &mut Source<'_>,
    node: &'n Node,
    what: &str,
) -> Vec<(&'n str, Place, &'n Node)> {
    let Value::Map(entries) = &node.value else {
        source.error_at(below(node.place), format!("{what} is a map of names and what they say"));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in entries {
        match &key.value {
            Value::Scalar { text, .. } => found.push((text.as_str(), below(key.place), value)),
            Value::Null | Value::List(_) | Value::Map(_) => {
                source.error_at(below(key.place), format!("a key of {what} is a word"));
            }
        }
    }
    found
}

/// A single value.
fn scalar<'n>(source: &mut Source<'_>, node: &'n Node, what: &str) -> Option<&'n str> {
    match &node.value {
        Value::Scalar { text, .. } if !text.trim().is_empty() => Some(text),
        Value::Scalar { .. } | Value::Null | Value::List(_) | Value::Map(_) => {
            source.error_at(below(node.place), format!("{what} is a text that is not empty"));
            None
        }
    }
}

fn unknown(source: &mut Source<'_>, place: Place, key: &str, known: &[&str]) {
    let shown: String = key.chars().take(40).collect();
    let hint = nearest(&shown, known).map_or_else(
        || format!("there are {}", known.join(", ")),
        |near| format!("did you mean {near}?"),
    );
    source.error_at(place, format!("unknown key {shown:?}; {hint}"));
}

fn fields(source: &mut Source<'_>, front: &mut Front, root: &Node) {
    for (key, place, value) in entries(source, root, "front matter") {
        match key {
            "title" => front.title = scalar(source, value, "title").map(str::to_owned),
            "owner" => front.owner = scalar(source, value, "owner").map(str::to_owned),
            "hosts" => hosts(source, front, value),
            "inputs" => inputs(source, front, value),
            _ => unknown(source, place, key, &KEYS),
        }
    }
    if let Some((Where::Input(name), place)) = &front.hosts {
        let named = front.inputs.iter().find(|input| input.name == *name);
        if named.is_none_or(|input| input.kind != Type::Hosts) {
            source.error_at(*place, format!("there is no input {name:?} of type hosts"));
        }
    }
}

fn hosts(source: &mut Source<'_>, front: &mut Front, value: &Node) {
    let Some(text) = scalar(source, value, "hosts") else { return };
    match Where::parse(text) {
        Ok(hosts) => front.hosts = Some((hosts, below(value.place))),
        Err(error) => {
            let Value::Scalar { shift, .. } = &value.value else { return };
            let offset = u32::try_from(error.offset).unwrap_or(u32::MAX);
            let shift = shift.map_or(0, |shift| shift.saturating_add(offset));
            let place = below(value.place);
            let column = place.column.saturating_add(shift);
            source.error_at(Place { column, ..place }, error.message);
        }
    }
}

fn inputs(source: &mut Source<'_>, front: &mut Front, value: &Node) {
    let found = entries(source, value, "inputs");
    if found.len() > MOST_INPUTS {
        source.error_at(below(value.place), format!("a runbook has at most {MOST_INPUTS} inputs"));
        return;
    }
    for (name, place, value) in found {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.len() > 40
            || !name.chars().all(letter)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            source.error_at(
                place,
                "an input's name has letters, digits and '_', at most 40, and begins with no digit",
            );
            continue;
        }
        if let Some(input) = input(source, name, place, value) {
            if input.kind == Type::Secret && name.eq_ignore_ascii_case("change_id") {
                source.error_at(
                    place,
                    "the variable of this name holds the id of the change; rename it",
                );
            }
            front.inputs.push(input);
        }
    }
}

/// `name: type`, or a map.
fn input(source: &mut Source<'_>, name: &str, place: Place, node: &Node) -> Option<Input> {
    let mut input = Input {
        name: name.to_owned(),
        line: place.line,
        kind: Type::Text,
        default: None,
        about: None,
    };
    if let Value::Scalar { text, .. } = &node.value {
        input.kind = kind(source, below(node.place), text, &[])?;
        return Some(input);
    }
    let (mut word, mut choices, mut default) = (None, Vec::new(), None);
    for (key, place, value) in entries(source, node, "an input") {
        match key {
            "type" => word = scalar(source, value, "type").map(|text| (below(value.place), text)),
            "default" => default = text(value).map(|text| (below(value.place), text)),
            "about" => input.about = scalar(source, value, "about").map(str::to_owned),
            "choices" => choices = list(source, value),
            _ => unknown(source, place, key, &INPUT_KEYS),
        }
    }
    let (at, word) = word.unwrap_or((place, if choices.is_empty() { "text" } else { "choice" }));
    input.kind = kind(source, at, word, &choices)?;
    if let Some((at, text)) = default {
        match input.kind.read(text) {
            Ok(value) => input.default = Some(value),
            Err(error) => {
                source
                    .error_at(at, format!("default: {}", error.lines().next().unwrap_or_default()));
            }
        }
    }
    Some(input)
}

/// A single value, which may be empty.
fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        Value::Null => Some(""),
        Value::List(_) | Value::Map(_) => None,
    }
}

fn list(source: &mut Source<'_>, node: &Node) -> Vec<String> {
    let Value::List(items) = &node.value else {
        source.error_at(below(node.place), "choices is a list: [small, large]");
        return Vec::new();
    };
    if items.len() > MOST_CHOICES {
        source.error_at(below(node.place), format!("an input has at most {MOST_CHOICES} choices"));
        return Vec::new();
    }
    items.iter().filter_map(|item| scalar(source, item, "a choice").map(str::to_owned)).collect()
}

fn kind(source: &mut Source<'_>, place: Place, word: &str, choices: &[String]) -> Option<Type> {
    let kind = match word {
        "text" => Type::Text,
        "number" => Type::Number,
        "choice" if choices.is_empty() => {
            source.error_at(place, "a choice needs its choices: [small, large]");
            return None;
        }
        "choice" => Type::Choice(choices.to_vec()),
        "flag" => Type::Flag,
        "duration" => Type::Duration,
        "hosts" => Type::Hosts,
        "secret" => Type::Secret,
        _ => {
            let shown: String = word.chars().take(40).collect();
            let hint = nearest(&shown, &TYPES).map_or_else(
                || format!("there are {}", TYPES.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            source.error_at(place, format!("unknown type {shown:?}; {hint}"));
            return None;
        }
    };
    if !choices.is_empty() && !matches!(kind, Type::Choice(_)) {
        source.error_at(place, "only a choice has choices; say type: choice");
    }
    Some(kind)
}

impl Where {
    /// A selector, or `{{ inputs.NAME }}`.
    pub(super) fn parse(text: &str) -> Result<Self, crate::caret::Error> {
        let inside = text.trim().strip_prefix("{{").and_then(|text| text.strip_suffix("}}"));
        match inside.and_then(|inside| inside.trim().strip_prefix("inputs.")) {
            Some(name) => Ok(Self::Input(name.to_owned())),
            None => Selector::parse(text).map(Self::Selector),
        }
    }
}
