//! What a runbook asks for before it begins: inputs and their types.

use std::fmt;

use fw_proto::Span;

use crate::caret::nearest;
use crate::select::Selector;

/// The longest value, in bytes; a command has at most twice as many.
pub const LONGEST_VALUE: usize = 64 * 1024;

/// Something that a runbook asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its name, as templates say it: `inputs.NAME`.
    pub name: String,
    /// Line of its name, counted from 1.
    pub line: u32,
    /// What it can be.
    pub kind: Type,
    /// What it is when nobody says; without it, it must be given.
    pub default: Option<Value>,
    /// What it is for.
    pub about: Option<String>,
}

/// What an input can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Any text.
    Text,
    /// A number, whole or with a point.
    Number,
    /// One of these.
    Choice(Vec<String>),
    /// `yes` or `no`.
    Flag,
    /// A length of time.
    Duration,
    /// A selector.
    Hosts,
    /// The name of a secret that the server keeps. The secret itself is in no command's text.
    Secret,
}

/// The names of types, as front matter says them.
pub(super) const TYPES: [&str; 7] =
    ["text", "number", "choice", "flag", "duration", "hosts", "secret"];

/// A value that fits its input.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text, or one of the choices.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number with a point.
    Decimal(f64),
    /// Yes or no.
    Flag(bool),
    /// A length of time.
    Duration(Span),
    /// Which hosts.
    Hosts(Selector),
    /// The name of a secret.
    Secret(String),
}

impl Type {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Choice(_) => "choice",
            Self::Flag => "flag",
            Self::Duration => "duration",
            Self::Hosts => "hosts",
            Self::Secret => "secret",
        }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// It does not fit; the text says what would.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        if text.len() > LONGEST_VALUE {
            return Err(format!("it is longer than {LONGEST_VALUE} bytes; put it into a file"));
        }
        if text.contains('\0') {
            return Err("it contains a NUL byte; take it out".to_owned());
        }
        match self {
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::Number => number(text),
            Self::Choice(choices) => choice(text, choices),
            Self::Flag => match text {
                "yes" | "true" => Ok(Value::Flag(true)),
                "no" | "false" => Ok(Value::Flag(false)),
                _ => Err(format!("{text:?} is neither yes nor no")),
            },
            Self::Duration => text.parse().map(Value::Duration).map_err(|error| format!("{error}")),
            Self::Hosts => Selector::parse(text)
                .map(Value::Hosts)
                .map_err(|error| format!("it is no selector: {error}")),
            Self::Secret => secret(text),
        }
    }
}

fn number(text: &str) -> Result<Value, String> {
    if let Ok(whole) = text.parse() {
        return Ok(Value::Whole(whole));
    }
    let decimal: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
    decimal.map(Value::Decimal).ok_or_else(|| format!("{text:?} is no number such as 3 or 0.5"))
}

fn choice(text: &str, choices: &[String]) -> Result<Value, String> {
    if choices.iter().any(|choice| choice == text) {
        return Ok(Value::Text(text.to_owned()));
    }
    let known: Vec<&str> = choices.iter().map(String::as_str).collect();
    let meant =
        nearest(text, &known).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    Err(format!("{text:?} is none of: {}{meant}", known.join(", ")))
}

fn secret(text: &str) -> Result<Value, String> {
    let name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if text.is_empty() || !text.chars().all(name) {
        return Err(format!(
            "{:?} is no name of a secret; give its name, as `fleetwright secrets list` shows it, never the secret itself",
            "…"
        ));
    }
    Ok(Value::Secret(text.to_owned()))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => number.fmt(f),
            Self::Decimal(number) => number.fmt(f),
            Self::Flag(flag) => f.write_str(if *flag { "yes" } else { "no" }),
            Self::Duration(span) => span.fmt(f),
            Self::Hosts(selector) => selector.fmt(f),
            Self::Secret(name) => write!(f, "secret {name}"),
        }
    }
}
