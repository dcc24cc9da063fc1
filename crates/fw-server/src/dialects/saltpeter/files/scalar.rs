//! Scalars as YAML 1.1 and Python read them: `yes` is true, `010` is 8, `1:30` is 90.

use std::fmt;

use fw_core::job::yaml::{Node, Value};

use crate::dialects::saltpeter::json::Json;

/// A single value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// Nothing.
    Null,
    /// `yes`, `off` and the like.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// A day, which Saltpeter's own API cannot show.
    Date(String),
    /// Anything else.
    Text(String),
}

impl Scalar {
    /// As JSON; a date as text, on which Saltpeter's own API fails.
    #[must_use]
    pub fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(on) => Json::Bool(*on),
            Self::Number(number) => Json::Int(*number),
            Self::Date(text) | Self::Text(text) => Json::text(text),
        }
    }
}

/// Prints as Python's `str()` does.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Date(text) | Self::Text(text) => f.write_str(text),
        }
    }
}

/// The value of a node; `None` for a list or a map.
#[must_use]
pub fn of(node: &Node) -> Option<Scalar> {
    match &node.value {
        Value::Null => Some(Scalar::Null),
        Value::Scalar { text, plain: false, .. } => Some(Scalar::Text(text.clone())),
        Value::Scalar { text, plain: true, .. } => Some(plain(text)),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// Any value as JSON.
#[must_use]
pub fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar { text, plain, .. } => match fraction(text).filter(|_| *plain) {
            Some(fraction) => Json::Float(fraction),
            None => of(node).map_or(Json::Null, |scalar| scalar.json()),
        },
        Value::List(items) => Json::List(items.iter().map(json).collect()),
        Value::Map(entries) => {
            let entry = |(key, value): &(Node, Node)| {
                (of(key).map(|key| key.to_string()).unwrap_or_default(), json(value))
            };
            Json::Map(entries.iter().map(entry).collect())
        }
    }
}

/// `1.5`: what has digits and one point.
fn fraction(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (plain && digits.contains('.') && digits.len() > 1).then(|| text.parse().ok())?
}

fn plain(text: &str) -> Scalar {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        _ if is_date(text) => Scalar::Date(text.to_owned()),
        _ => number(text).map_or_else(|| Scalar::Text(text.to_owned()), Scalar::Number),
    }
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split(['T', 't', ' ']).next().unwrap_or_default().split('-');
    let mut digits = |from: usize, to: usize| {
        parts.next().is_some_and(|part| {
            (from..=to).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        })
    };
    digits(4, 4) && digits(1, 2) && digits(1, 2) && parts.next().is_none()
}

fn number(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let value = match digits.as_str() {
        "0" => Some(0),
        text if text.starts_with("0x") => i64::from_str_radix(text.get(2..)?, 16).ok(),
        text if text.starts_with("0b") => i64::from_str_radix(text.get(2..)?, 2).ok(),
        text if text.starts_with('0') => i64::from_str_radix(text, 8).ok(),
        text if text.contains(':') => sixties(text),
        text => text.parse().ok(),
    };
    value?.checked_mul(sign)
}

/// `1:30` is ninety.
fn sixties(text: &str) -> Option<i64> {
    text.split(':').enumerate().try_fold(0_i64, |sum, (index, part)| {
        let part: i64 = part.parse().ok().filter(|part| index == 0 || (0..60).contains(part))?;
        sum.checked_mul(60)?.checked_add(part)
    })
}
