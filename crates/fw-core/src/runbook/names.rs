//! The names that commands may use: inputs, and what earlier steps printed.

use std::collections::BTreeSet;

use super::Template;
use super::source::Source;
use crate::caret::nearest;

/// The fields of `steps.ID`.
const FIELDS: [&str; 2] = ["stdout", "exit_code"];

/// The names there are.
pub(super) struct Known<'a> {
    pub(super) inputs: &'a BTreeSet<String>,
    pub(super) earlier: &'a BTreeSet<String>,
    pub(super) all: &'a BTreeSet<String>,
}

/// Says what is wrong with the names that a command uses.
pub(super) fn template_in(
    source: &mut Source<'_>,
    template: &Template,
    known: &Known<'_>,
    place: impl Fn(usize) -> usize,
) {
    match template.read() {
        Err(wrong) => source.error(place(wrong.at), wrong.message),
        Ok(said) => {
            for name in &said.names {
                if !name_is_known(name, known) {
                    source.error_with(place(template.place(name)), || unknown_name(name, known));
                }
            }
            if let Some(at) = said.raw {
                source.warning(place(at), "raw: this value goes into the command as it is, and may say commands of its own");
            }
        }
    }
}

/// A name with its parts: the root, what is named, its field, and more.
fn parts_of(name: &str) -> [Option<&str>; 4] {
    let mut words = name.split('.');
    [words.next(), words.next(), words.next(), words.next()]
}

fn name_is_known(name: &str, known: &Known<'_>) -> bool {
    match parts_of(name) {
        [Some("inputs"), Some(input), None, None] => known.inputs.contains(input),
        [Some("steps"), Some(step), Some(field), None] => {
            FIELDS.contains(&field) && known.earlier.contains(step)
        }
        _ => false,
    }
}

/// What is wrong with a name that is not known.
fn unknown_name(name: &str, known: &Known<'_>) -> String {
    let near = |word: &str, known: &BTreeSet<String>| {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        nearest(word, &known).map_or_else(String::new, |near| format!("; did you mean {near}?"))
    };
    match parts_of(name) {
        [Some("inputs"), Some(input), None, None] => {
            format!("there is no input {input:?}{}", near(input, known.inputs))
        }
        [Some("steps"), Some(_), Some(field), None] if !FIELDS.contains(&field) => {
            format!("a step has {}, and no {field:?}", FIELDS.join(" and "))
        }
        [Some("steps"), Some(step), Some(_), None] if known.all.contains(step) => format!(
            "step {step:?} has printed nothing yet; only steps before this one that run a command have"
        ),
        [Some("steps"), Some(step), Some(_), None] => {
            format!("there is no step {step:?}{}", near(step, known.all))
        }
        _ => {
            let shown: String = name.chars().take(80).collect();
            format!(
                "unknown name {shown:?}; there are inputs.NAME and steps.ID.stdout, where '-' in an ID is written '_'"
            )
        }
    }
}
