//! Facts without regard to case, along a path with one separator.
//!
//! `ifact:PATH:GLOB` and `ifact~PATH:REGEX`. Each way to split the text into path and pattern is
//! tried, the longest path first. A step into a list takes its number or the first object with the
//! key. Values are compared in lower case with the pattern in lower case; a regular expression must
//! fit from the value's start. What is an object fits when it has the pattern as a key, or with `*`.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

use super::pattern::{Pattern, Regex};
use super::{Error, Glob, any};

/// The most steps of a path.
const LONGEST_PATH: usize = 8;

/// A fact and a pattern for its value, both parts of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Fold {
    written: String,
    ways: Vec<Way>,
}

/// One way to split the text.
#[derive(Debug, Clone, PartialEq)]
struct Way {
    path: Vec<String>,
    rest: Rest,
}

/// What must be found at the path's end.
#[derive(Debug, Clone, PartialEq)]
struct Rest {
    /// The pattern as text, for keys.
    text: String,
    /// The same in lower case, compiled.
    pattern: Pattern,
    /// Further splits of the pattern, for objects; always at ':'.
    ways: Vec<Way>,
}

/// How a text is read.
#[derive(Debug, Clone, Copy)]
struct Form {
    regex: bool,
    separator: char,
}

impl Fold {
    /// Reads the text after `ifact`, when it is one of this kind. Places in errors are those of
    /// `word`.
    pub(super) fn parse(word: &str) -> Option<Result<Self, Error>> {
        let rest = word.strip_prefix("ifact")?;
        let mut chars = rest.chars();
        let (first, second) = (chars.next()?, chars.next());
        let own = |c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.');
        let (separator, sign, text) = match second {
            Some(sign @ (':' | '~')) if own(first) => (first, sign, chars.as_str()),
            _ if matches!(first, ':' | '~') => (':', first, rest.get(1..)?),
            _ => return None,
        };
        let form = Form { regex: sign == '~', separator };
        let skipped = word.chars().count() - text.chars().count();
        let ways = ways(text, form, 0)
            .map_err(|error| Error::new(word, error.offset + skipped, error.message));
        Some(ways.map(|ways| Self { written: word.to_owned(), ways }))
    }

    pub(super) fn matches(&self, facts: &Map<String, Value>) -> Option<bool> {
        any(self.ways.iter().map(|way| way.matches(facts)))
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// All ways to split a text, the longest path first.
fn ways(text: &str, form: Form, depth: usize) -> Result<Vec<Way>, Error> {
    let steps: Vec<&str> = text.split(form.separator).collect();
    let length = text.chars().count();
    if steps.len() < 2 && depth == 0 {
        let message = format!("a value should follow the fact's name and '{}'", form.separator);
        return Err(Error::new(text, length, message));
    }
    if steps.len() > LONGEST_PATH {
        let message = format!("a path and its value have at most {LONGEST_PATH} parts");
        return Err(Error::new(text, 0, message));
    }
    let separator = form.separator.to_string();
    let mut found = Vec::new();
    for at in (1..steps.len()).rev() {
        let (path, rest) = steps.split_at(at);
        let rest = rest.join(&separator);
        let from = length - rest.chars().count();
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        let rest = rest_of(&rest, form, depth)
            .map_err(|error| Error::new(text, error.offset + from, error.message));
        // A split in the middle of a regular expression is none.
        match rest {
            Ok(rest) => found.push(Way { path, rest }),
            Err(error) if at == 1 && found.is_empty() && depth == 0 => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

fn rest_of(text: &str, form: Form, depth: usize) -> Result<Rest, Error> {
    let lower = text.to_lowercase();
    let pattern = if form.regex {
        let regex = Regex::parse(&format!("^(?:{lower})"))
            .map_err(|error| Error::new(text, error.offset.saturating_sub(4), error.message))?;
        Pattern::Regex(regex)
    } else {
        let glob =
            Glob::parse(&lower).map_err(|(index, message)| Error::new(text, index, message))?;
        Pattern::Glob(glob)
    };
    let inner = Form { separator: ':', ..form };
    let ways = if depth < 2 { ways(text, inner, depth + 1)? } else { Vec::new() };
    Ok(Rest { text: text.to_owned(), pattern, ways })
}

impl Way {
    fn matches(&self, facts: &Map<String, Value>) -> Option<bool> {
        // A first step of '*' stands for any fact.
        if let [star] = self.path.as_slice()
            && star == "*"
        {
            let below = facts.values().map(|value| self.rest.below(value));
            return any(std::iter::once(self.rest.object(facts)).chain(below));
        }
        let Some(value) = walk(facts, &self.path) else { return Some(false) };
        match value {
            Value::Object(map) if map.is_empty() => Some(false),
            Value::Object(map) => self.rest.object(map),
            Value::Array(items) => any(items.iter().map(|item| self.rest.member(item))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.rest.value(value)
            }
        }
    }
}

impl Rest {
    fn object(&self, map: &Map<String, Value>) -> Option<bool> {
        if self.text == "*" || map.contains_key(&self.text) {
            return Some(true);
        }
        any(self.ways.iter().map(|way| way.matches(map)))
    }

    /// What lies under a '*'.
    fn below(&self, value: &Value) -> Option<bool> {
        match value {
            Value::Object(map) => self.object(map),
            Value::Array(items) => any(items.iter().map(|item| self.value(item))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self.value(value),
        }
    }

    fn member(&self, item: &Value) -> Option<bool> {
        match item {
            Value::Object(map) => any([self.object(map), self.value(item)]),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => self.value(item),
        }
    }

    fn value(&self, value: &Value) -> Option<bool> {
        if let (Value::String(text), Pattern::Glob(glob)) = (value, &self.pattern)
            && glob.is_literal()
            && text.is_ascii()
        {
            return Some(text.eq_ignore_ascii_case(glob.as_str()));
        }
        self.pattern.matches(&lower(value))
    }
}

/// A value as text in lower case. Lists and objects are written as with brackets and single quotes.
fn lower(value: &Value) -> Cow<'_, str> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase());
    match value {
        Value::String(text) if plain(text) => Cow::Borrowed(text),
        Value::String(text) => Cow::Owned(text.to_lowercase()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Cow::Owned(quoted(value).to_lowercase())
        }
    }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(quoted).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", quoted(&Value::String(key.clone())), quoted(value))
            };
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The value at a path.
fn walk<'v>(facts: &'v Map<String, Value>, path: &[String]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(facts.get(first)?, |value, step| match value {
        Value::Object(map) => map.get(step),
        Value::Array(items) => match step.parse::<isize>() {
            Ok(index) => {
                let index =
                    if index < 0 { index + isize::try_from(items.len()).ok()? } else { index };
                items.get(usize::try_from(index).ok()?)
            }
            Err(_) => items.iter().find_map(|item| item.as_object()?.get(step)),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}
