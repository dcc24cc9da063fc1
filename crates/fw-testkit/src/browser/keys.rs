//! Keys as people write them (`Control+K`, `Enter`, `g`), as presses of a keyboard.

use serde_json::{Value, json};

/// Keys without a character, and the code points that the `WebDriver` standard gives them.
const NAMED: &[(&str, &str)] = &[
    ("Control", "\u{e009}"),
    ("Shift", "\u{e008}"),
    ("Alt", "\u{e00a}"),
    ("Meta", "\u{e03d}"),
    ("Enter", "\u{e007}"),
    ("Escape", "\u{e00c}"),
    ("Tab", "\u{e004}"),
    ("Space", " "),
    ("Backspace", "\u{e003}"),
    ("Delete", "\u{e017}"),
    ("ArrowUp", "\u{e013}"),
    ("ArrowDown", "\u{e015}"),
    ("ArrowLeft", "\u{e012}"),
    ("ArrowRight", "\u{e014}"),
    ("Home", "\u{e011}"),
    ("End", "\u{e010}"),
    ("PageUp", "\u{e00e}"),
    ("PageDown", "\u{e00f}"),
];

/// The presses of these chords, one after the other, as a body for `/actions`.
pub(super) fn actions(chords: &[&str]) -> Value {
    let steps: Vec<Value> = chords.iter().flat_map(|chord| presses(chord)).collect();
    json!({"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})
}

/// All keys of a chord go down in order, and up in the reverse of it. The plus alone is a key.
fn presses(chord: &str) -> Vec<Value> {
    let keys: Vec<&str> = if chord == "+" { vec!["+"] } else { chord.split('+').collect() };
    let values: Vec<&str> = keys.into_iter().map(value).collect();
    let step = |kind: &str, value: &&str| json!({"type": kind, "value": value});
    let down = values.iter().map(|value| step("keyDown", value));
    let up = values.iter().rev().map(|value| step("keyUp", value));
    down.chain(up).collect()
}

fn value(key: &str) -> &str {
    let named = NAMED.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    let value = named.unwrap_or(key);
    assert!(value.chars().count() == 1, "there is no key {key:?}");
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chord_goes_down_and_up_again() {
        let told = actions(&["Control+k", "+"]);
        let steps = told["actions"][0]["actions"].as_array().unwrap();
        let said: Vec<_> = steps
            .iter()
            .map(|step| (step["type"].as_str().unwrap(), step["value"].as_str().unwrap()))
            .collect();
        let expected = [
            ("keyDown", "\u{e009}"),
            ("keyDown", "k"),
            ("keyUp", "k"),
            ("keyUp", "\u{e009}"),
            ("keyDown", "+"),
            ("keyUp", "+"),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    #[should_panic(expected = "there is no key \"Entr\"")]
    fn a_key_that_is_misspelt_is_named() {
        actions(&["Entr"]);
    }
}
