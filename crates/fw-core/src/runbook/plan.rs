//! What a runbook would do: its steps with values filled in, and its undo backwards.

use std::collections::BTreeMap;

use super::{Action, Expect, Input, Kind, Runbook, Step, StepId, Template, Value, Where};
use crate::select::Selector;

/// Values by the names of their inputs.
pub type Values = BTreeMap<String, Value>;

/// Reads the values that were given, and fills in defaults. What is wrong is told all at once.
///
/// # Errors
/// Values are missing, do not fit or belong to no input; a line for each.
pub fn values(inputs: &[Input], given: &[(String, String)]) -> Result<Values, Vec<String>> {
    let mut values = Values::new();
    let mut wrong = Vec::new();
    for (name, text) in given {
        let Some(input) = inputs.iter().find(|input| input.name == *name) else {
            let known: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            let there = if known.is_empty() {
                "it asks for none".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            wrong.push(format!("{name}: no such input; {there}"));
            continue;
        };
        match input.kind.read(text) {
            _ if values.contains_key(name) => wrong.push(format!("{name}: it is given twice")),
            Ok(value) => drop(values.insert(name.clone(), value)),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    for input in inputs.iter().filter(|input| !given.iter().any(|(name, _)| *name == input.name)) {
        match &input.default {
            Some(value) => drop(values.insert(input.name.clone(), value.clone())),
            None => wrong.push(missing(input)),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(wrong) }
}

fn missing(input: &Input) -> String {
    let about = input.about.as_ref().map_or_else(String::new, |about| format!(": {about}"));
    format!("{}: it is missing ({}){about}", input.name, input.kind.name())
}

/// A command as it would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// All is known.
    Filled(String),
    /// It uses what earlier steps print, so it is shown as it is written.
    Later(String),
}

impl Shown {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Filled(text) | Self::Later(text) => text,
        }
    }

    /// Whether all is known.
    #[must_use]
    pub const fn is_filled(&self) -> bool {
        match self {
            Self::Filled(_) => true,
            Self::Later(_) => false,
        }
    }
}

/// Fills in a command.
///
/// # Errors
/// A value cannot stand where it stands.
pub fn shown(template: &Template, values: &Values) -> Result<Shown, String> {
    let said = template.read().map_err(|wrong| wrong.message)?;
    if said.names.iter().any(|name| name.starts_with("steps.")) {
        return Ok(Shown::Later(template.text.clone()));
    }
    template.fill(values, &BTreeMap::new()).map(|filled| Shown::Filled(filled.text))
}

/// The steps that run on hosts and name none, neither they nor the front matter: whoever begins the runbook says where.
pub fn unnamed(runbook: &Runbook) -> impl Iterator<Item = &Step> {
    let none = |step: &&Step| step.acts() && step.hosts.is_none() && runbook.hosts.is_none();
    runbook.steps.iter().filter(none)
}

/// The hosts that a step names, or the front matter for it; `None` when they are those that it is begun with.
#[must_use]
pub fn selector<'a>(
    runbook: &'a Runbook,
    step: &'a Step,
    values: &'a Values,
) -> Option<&'a Selector> {
    match step.hosts.as_ref().or(runbook.hosts.as_ref())? {
        Where::Selector(selector) => Some(selector),
        Where::Input(name) => match values.get(name)? {
            Value::Hosts(selector) => Some(selector),
            Value::Text(_)
            | Value::Whole(_)
            | Value::Decimal(_)
            | Value::Flag(_)
            | Value::Duration(_)
            | Value::Secret(_) => None,
        },
    }
}

/// The steps that have an undo, the last one first: that is how they are taken back.
#[must_use]
pub fn undo_order(runbook: &Runbook) -> Vec<&StepId> {
    let undone = |step: &&Step| {
        step.kind.has_its_turn() && matches!(step.undo, Some(Action::Step(_) | Action::Command(_)))
    };
    runbook.steps.iter().rev().filter(undone).map(|step| &step.id).collect()
}

/// The block that a step refers to.
#[must_use]
pub fn part<'a>(runbook: &'a Runbook, id: &StepId) -> Option<&'a Step> {
    runbook.steps.iter().find(|step| step.id == *id)
}

/// How many steps there are of a kind.
#[must_use]
pub fn count(runbook: &Runbook, kind: Kind) -> usize {
    runbook.steps.iter().filter(|step| step.kind == kind).count()
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(codes) => {
                let codes: Vec<String> = codes.iter().map(u8::to_string).collect();
                write!(f, "exit code {}", codes.join(" or "))
            }
            Self::Text(text) => write!(f, "output with {text:?}"),
            Self::Pattern(pattern) => write!(f, "output like ~{pattern}"),
        }
    }
}
