//! Maps of known keys: each key read with its own rule, each error at its own place. Job files and
//! rollouts are read by it.

use std::collections::BTreeMap;

use fw_proto::Span;
use fw_proto::api::{Command, EnvValue, SourceError};

use super::yaml::{self, Node, Place, Value};
use crate::calendar::{self, Calendar};
use crate::caret::nearest;
use crate::select::Selector;

/// Something was reported, and no value came of it.
#[derive(Debug)]
pub(crate) struct Reported;

pub(crate) type Outcome<T> = Result<T, Reported>;

/// A map: its keys and values, each key once.
pub(crate) type Fields<'a> = BTreeMap<&'a str, (Place, &'a Node)>;

/// Reads a document, and gathers what is wrong with it.
pub(crate) struct Read<'a> {
    pub(crate) file: &'a str,
    pub(crate) lines: &'a [&'a str],
    /// The job that is being read.
    pub(crate) job: Option<String>,
    /// The days of each calendar that the file names; job files do.
    pub(crate) calendars: BTreeMap<String, Vec<String>>,
    pub(crate) errors: Vec<SourceError>,
}

impl<'a> Read<'a> {
    pub(crate) fn new(file: &'a str, lines: &'a [&'a str]) -> Self {
        Self { file, lines, job: None, calendars: BTreeMap::new(), errors: Vec::new() }
    }
}

impl Read<'_> {
    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) -> Reported {
        let job = self.job.as_deref();
        self.errors.push(yaml::error(self.file, self.lines, place, job, message.into()));
        Reported
    }

    /// One day or a list of them.
    pub(crate) fn days(&mut self, node: &Node) -> Outcome<Vec<String>> {
        self.each(node, |text| Calendar::parse(&[text], &[], "").map(drop))
    }

    pub(crate) fn windows(&mut self, node: &Node) -> Outcome<Vec<String>> {
        self.each(node, |text| Calendar::parse(&[], &[text], "").map(drop))
    }

    /// One text or a list of them, each of which is checked.
    pub(crate) fn each(
        &mut self,
        node: &Node,
        check: impl Fn(String) -> Result<(), calendar::Error>,
    ) -> Outcome<Vec<String>> {
        let nodes = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Null | Value::Scalar { .. } | Value::Map(_) => std::slice::from_ref(node),
        };
        let mut texts = Vec::new();
        for node in nodes {
            let text = self.words(node)?.trim().to_owned();
            if let Err(calendar::Error(error)) = check(text.clone()) {
                return Err(self.error(inside(node, error.offset), error.message));
            }
            texts.push(text);
        }
        Ok(texts)
    }

    pub(crate) fn command(&mut self, place: Place, fields: &Fields<'_>) -> Outcome<Command> {
        match (fields.get("run"), fields.get("argv")) {
            (Some((_, run)), None) => self.words(run).map(Command::Shell),
            (None, Some((_, argv))) => self.list(argv).map(Command::Argv),
            (None, None) => {
                Err(self
                    .error(place, "say what to run: 'run' (text for the shell) or 'argv' (a list)"))
            }
            (Some(_), Some((argv, _))) => Err(self.error(*argv, "write 'run' or 'argv', not both")),
        }
    }

    pub(crate) fn selector(&mut self, node: &Node) -> Outcome<(String, Selector)> {
        let text = self.text(node)?;
        match Selector::parse(&text) {
            Ok(selector) => Ok((text, selector)),
            Err(error) => Err(self.error(inside(node, error.offset), error.message)),
        }
    }

    pub(crate) fn required<'n>(
        &mut self,
        place: Place,
        fields: &Fields<'n>,
        key: &str,
        what: &str,
    ) -> Outcome<&'n Node> {
        match fields.get(key) {
            Some((_, node)) => Ok(node),
            None => Err(self.error(place, format!("'{key}' is missing: say {what}"))),
        }
    }

    /// The value of a key, if it has one and it is in order.
    pub(crate) fn optional<T>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node) -> Outcome<T>,
    ) -> Option<T> {
        let (_, node) = fields.get(key)?;
        if matches!(node.value, Value::Null) { None } else { read(self, node).ok() }
    }

    /// A map with known keys; `what` is what its keys are called.
    pub(crate) fn map<'n>(
        &mut self,
        node: &'n Node,
        known: &[&str],
        what: &str,
    ) -> Outcome<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            let known = known.iter().take(4).copied().collect::<Vec<_>>().join(", ");
            return Err(self.error(node.place, format!("keys should stand here, such as {known}")));
        };
        let mut fields = Fields::new();
        for (key, value) in entries {
            let Value::Scalar { text, .. } = &key.value else {
                self.error(key.place, "a key should be text");
                continue;
            };
            if !known.is_empty() && !known.contains(&text.as_str()) {
                let hint = match nearest(text, known) {
                    Some(nearest) => format!("did you mean {nearest}?"),
                    None => format!("use {}", known.join(", ")),
                };
                self.error(key.place, format!("{text:?} is no {what}; {hint}"));
            } else if fields.insert(text, (key.place, value)).is_some() {
                self.error(key.place, format!("{text:?} stands twice; remove one"));
            }
        }
        Ok(fields)
    }

    /// Any scalar, as it is written.
    pub(crate) fn text(&mut self, node: &Node) -> Outcome<String> {
        match &node.value {
            Value::Scalar { text, .. } if text.contains('\0') => {
                Err(self.error(node.place, "a zero byte cannot stand in a command"))
            }
            Value::Scalar { text, .. } => Ok(text.clone()),
            Value::Null => Err(self.error(node.place, "a value is missing")),
            Value::List(_) | Value::Map(_) => {
                Err(self.error(node.place, "a single value should stand here; put it in quotes"))
            }
        }
    }

    /// Text that is not empty.
    pub(crate) fn words(&mut self, node: &Node) -> Outcome<String> {
        let text = self.text(node)?;
        if text.trim().is_empty() {
            return Err(self.error(node.place, "this is empty"));
        }
        Ok(text)
    }

    pub(crate) fn span(&mut self, node: &Node) -> Outcome<Span> {
        let text = self.text(node)?;
        text.parse()
            .map_err(|error: fw_proto::InvalidTime| self.error(node.place, error.to_string()))
    }

    pub(crate) fn positive_span(&mut self, node: &Node) -> Outcome<Span> {
        let span = self.span(node)?;
        if span < Span::from_secs(1) {
            return Err(self.error(node.place, "this should be at least 1s"));
        }
        Ok(span)
    }

    pub(crate) fn count(&mut self, node: &Node) -> Outcome<u32> {
        let text = self.text(node)?;
        let count = text.parse().ok().filter(|count| *count >= 1);
        count
            .ok_or_else(|| self.error(node.place, "a whole number of at least 1 should stand here"))
    }

    /// What fails a hundred times is not mended by trying.
    pub(crate) fn few(&mut self, node: &Node) -> Outcome<u32> {
        let text = self.text(node)?;
        let count = text.parse().ok().filter(|count| *count <= 100);
        count
            .ok_or_else(|| self.error(node.place, "a whole number from 0 to 100 should stand here"))
    }

    pub(crate) fn at_most_a_day(&mut self, node: &Node) -> Outcome<Span> {
        let span = self.positive_span(node)?;
        if span > Span::from_secs(24 * 60 * 60) {
            return Err(self.error(node.place, "this should be at most 24h"));
        }
        Ok(span)
    }

    pub(crate) fn yes_or_no(&mut self, node: &Node) -> Outcome<bool> {
        let text = self.text(node)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(self.error(node.place, "true or false should stand here")),
        }
    }

    pub(crate) fn one_of<T: Copy>(&mut self, node: &Node, known: &[(&str, T)]) -> Outcome<T> {
        let text = self.text(node)?;
        match known.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                Err(self.error(node.place, format!("{text:?} is none of {}", names.join(", "))))
            }
        }
    }

    /// A list of texts, the first of which is a program.
    pub(crate) fn list(&mut self, node: &Node) -> Outcome<Vec<String>> {
        let Value::List(items) = &node.value else {
            return Err(self.error(node.place, "a list should stand here: [program, argument]"));
        };
        let Some(program) = items.first() else {
            return Err(self.error(node.place, "this list is empty; name a program"));
        };
        self.words(program)?;
        items.iter().map(|item| self.text(item)).collect()
    }

    pub(crate) fn env(&mut self, node: &Node) -> Outcome<BTreeMap<String, EnvValue>> {
        let mut env = BTreeMap::new();
        for (name, (place, value)) in self.map(node, &[], "variable")? {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.error(place, "a variable's name has no '=' and is not empty");
                continue;
            }
            if let Ok(value) = self.env_value(value) {
                env.insert(name.to_owned(), value);
            }
        }
        Ok(env)
    }

    pub(crate) fn env_value(&mut self, node: &Node) -> Outcome<EnvValue> {
        match &node.value {
            Value::Map(_) => {
                let fields = self.map(node, &["secret"], "kind of value")?;
                let secret =
                    self.required(node.place, &fields, "secret", "the name of a secret")?;
                self.words(secret).map(EnvValue::Secret)
            }
            Value::Null => Ok(EnvValue::Value(String::new())),
            Value::Scalar { .. } | Value::List(_) => self.text(node).map(EnvValue::Value),
        }
    }
}

/// The place of a character inside a scalar; its beginning where that cannot be said.
pub(crate) fn inside(node: &Node, offset: usize) -> Place {
    let Value::Scalar { shift: Some(shift), .. } = &node.value else { return node.place };
    let offset = u32::try_from(offset).unwrap_or_default();
    let Place { line, column } = node.place;
    Place { line, column: column.saturating_add(shift.saturating_add(offset)) }
}
