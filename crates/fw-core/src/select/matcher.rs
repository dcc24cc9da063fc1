//! What one word of a selector can mean, and whether a host fits it.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::fold::Fold;
use super::net::Net;
use super::pattern::{Pattern, Regex};
use super::token::{Text, written, written_regex};
use super::{Error, Glob, any};
use crate::host::Seen;

/// The most steps of a fact's path (`a:b:c`).
const LONGEST_PATH: usize = 8;

/// One test of a host.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    /// Its name is in a list.
    Names(Names),
    /// Its name fits a regular expression.
    Regex(Regex),
    /// It has a label.
    Label(Label),
    /// It has a fact.
    Fact(Fact),
    /// It has a fact, whatever the case of its letters.
    Fold(Fold),
    /// It has an address in a network.
    Net(Net),
}

/// Names and globs of names, one of which must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// As they were written.
    text: String,
    globs: Vec<Glob>,
    /// Those that are plain names: a list of a thousand is then still one look-up.
    exact: BTreeSet<String>,
}

/// A label and the glob that its value must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: Glob,
}

/// A fact and the pattern that its value must fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// As it was written.
    written: String,
    /// Where `a:b:c` could be split into path and value; any may fit. `ipv6:fe80::1` has colons
    /// in its value, `disk:sda:size` in its path, and only the host's facts tell which.
    ways: Vec<(String, Pattern)>,
}

impl Matcher {
    /// Whether the host fits; `None` when a regular expression took too many steps to say.
    #[must_use]
    pub fn matches(&self, host: Seen<'_>) -> Option<bool> {
        let name = host.name.as_str();
        match self {
            Self::Names(names) => Some(names.matches(name)),
            Self::Regex(regex) => regex.matches(name),
            Self::Label(label) => {
                Some(host.labels.get(&label.key).is_some_and(|value| label.value.matches(value)))
            }
            Self::Fact(fact) => {
                any(fact.ways.iter().map(|(path, value)| in_map(host.facts, path, value)))
            }
            Self::Fold(fold) => fold.matches(host.facts),
            Self::Net(net) => Some(net.matches(host.facts)),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Names(names) => names.text.clone(),
            Self::Regex(regex) => return f.write_str(&written_regex(regex.as_str())),
            Self::Label(label) => format!("label:{}={}", label.key, label.value.as_str()),
            Self::Fact(fact) => fact.written.clone(),
            Self::Fold(fold) => fold.to_string(),
            Self::Net(net) => net.to_string(),
        };
        f.write_str(&written(&word))
    }
}

impl Names {
    /// The names, when there is no glob among them.
    pub(super) fn plain(&self) -> Option<BTreeSet<&str>> {
        self.globs.is_empty().then(|| self.exact.iter().map(String::as_str).collect())
    }

    fn matches(&self, name: &str) -> bool {
        self.exact.contains(name) || self.globs.iter().any(|glob| glob.matches(name))
    }
}

/// Whether the value at `path` below this map fits. The path's steps are separated by `:` or
/// `.`; a key may itself contain either, so each way to split is tried.
fn in_map(map: &Map<String, Value>, path: &str, pattern: &Pattern) -> Option<bool> {
    let whole = map.get(path).map(|value| fits(value, pattern));
    let splits =
        path.char_indices().filter(|(_, c)| matches!(c, ':' | '.')).filter_map(|(at, _)| {
            let (key, rest) = path.split_at(at);
            let rest = rest.get(1..).unwrap_or_default();
            map.get(key).map(|value| in_value(value, rest, pattern))
        });
    any(whole.into_iter().chain(splits))
}

fn in_value(value: &Value, path: &str, pattern: &Pattern) -> Option<bool> {
    match value {
        Value::Object(map) => in_map(map, path, pattern),
        Value::Array(items) => any(items.iter().map(|item| in_value(item, path, pattern))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(false),
    }
}

/// Whether a value, one element of a list, or one key of an object fits the pattern. Numbers and
/// booleans are compared as JSON writes them; null fits nothing.
fn fits(value: &Value, pattern: &Pattern) -> Option<bool> {
    match value {
        Value::Null => Some(false),
        Value::Bool(yes) => pattern.matches(if *yes { "true" } else { "false" }),
        Value::Number(number) => pattern.matches(&number.to_string()),
        Value::String(text) => pattern.matches(text),
        Value::Array(items) => any(items.iter().map(|item| fits(item, pattern))),
        Value::Object(map) => any(map.keys().map(|key| pattern.matches(key))),
    }
}

/// Compiles the text of a regular expression.
pub(super) fn regex(text: &str, at: usize, pattern: &Text) -> Result<Matcher, Error> {
    let source = pattern.text();
    if source.is_empty() {
        return Err(Error::new(text, at, "a regular expression should follow '~'"));
    }
    let built = Regex::parse(&source);
    built
        .map(Matcher::Regex)
        .map_err(|error| Error::new(text, pattern.place(error.offset), error.message))
}

/// Reads a word that is neither sign nor regular expression.
pub(super) fn word(text: &str, word: &Text) -> Result<Matcher, Error> {
    let content = word.text();
    if let Some(rest) = content.strip_prefix("label:") {
        let (key, value) = assignment(text, word, rest, "label")?;
        return Ok(Matcher::Label(Label { key, value }));
    }
    if let Some(rest) = content.strip_prefix("fact:") {
        let way = fact(text, word, rest)?;
        return Ok(Matcher::Fact(Fact { written: content, ways: vec![way] }));
    }
    if let Some(fold) = Fold::parse(&content) {
        return fold
            .map(Matcher::Fold)
            .map_err(|error| Error::new(text, word.place(error.offset), error.message));
    }
    if let Some(rest) = content.strip_prefix("net:") {
        return Net::parse(rest)
            .map(Matcher::Net)
            .map_err(|message| Error::new(text, word.place("net:".len()), message));
    }
    if content.contains(':') { bare_fact(text, word, content) } else { names(text, word) }
}

/// `PATH=GLOB` or `PATH~REGEX` after `fact:`, whichever sign is first.
fn fact(text: &str, word: &Text, rest: &str) -> Result<(String, Pattern), Error> {
    let sign = rest.split_once('~').filter(|(path, _)| !path.contains('='));
    let Some((path, source)) = sign else {
        let (path, value) = assignment(text, word, rest, "fact")?;
        return Ok((path, Pattern::Glob(value)));
    };
    let start = "fact:".len();
    if path.is_empty() {
        return Err(Error::new(text, word.place(start), "name the fact before '~'"));
    }
    short_path(text, word, start, path)?;
    let from = start + path.chars().count() + 1;
    let regex = Regex::parse(source)
        .map_err(|error| Error::new(text, word.place(from + error.offset), error.message))?;
    Ok((path.to_owned(), Pattern::Regex(regex)))
}

/// `KEY=VALUE` after `label:` or `fact:`.
fn assignment(text: &str, word: &Text, rest: &str, kind: &str) -> Result<(String, Glob), Error> {
    let start = kind.len() + 1;
    let Some((key, value)) = rest.split_once('=') else {
        let message = format!("write {kind}:KEY=VALUE");
        return Err(Error::new(text, word.place(word.chars.len()), message));
    };
    if key.is_empty() {
        return Err(Error::new(text, word.place(start), format!("name the {kind} before '='")));
    }
    short_path(text, word, start, key)?;
    let from = start + key.chars().count() + 1;
    Ok((key.to_owned(), glob(text, word, from, value)?))
}

/// `PATH:VALUE`.
fn bare_fact(text: &str, word: &Text, content: String) -> Result<Matcher, Error> {
    let error = |index: usize, message: &str| Err(Error::new(text, word.place(index), message));
    let key: Vec<char> = word.chars.iter().copied().take_while(|c| *c != ':').collect();
    if key.is_empty() {
        return error(0, "name the fact before ':'");
    }
    if let Some(index) =
        key.iter().position(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.'))
    {
        return match key.get(index) {
            Some('@') => error(index, "targets such as G@ are not known here; write os:Debian"),
            Some(',' | '*' | '?' | '[' | ']') => {
                error(index, "a list or glob of names cannot hold a fact; join them with 'or'")
            }
            _ => error(
                index,
                "a fact's name has letters, digits, '_', '-' and '.'; else write fact:\"NAME\"=VALUE",
            ),
        };
    }
    let mut ways = Vec::new();
    for (at, _) in content.match_indices(':').take(LONGEST_PATH) {
        let (path, value) = content.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        if !value.is_empty() {
            let from = path.chars().count() + 1;
            ways.push((path.to_owned(), Pattern::Glob(glob(text, word, from, value)?)));
        }
    }
    if ways.is_empty() {
        return error(word.chars.len(), "a value should follow ':' directly; a glob will do");
    }
    Ok(Matcher::Fact(Fact { written: content, ways }))
}

fn short_path(text: &str, word: &Text, start: usize, path: &str) -> Result<(), Error> {
    let steps = path.chars().filter(|c| matches!(c, ':' | '.')).count() + 1;
    if steps <= LONGEST_PATH {
        return Ok(());
    }
    let message = format!("a key has at most {LONGEST_PATH} parts; this one has {steps}");
    Err(Error::new(text, word.place(start), message))
}

/// A list of names and globs.
fn names(text: &str, word: &Text) -> Result<Matcher, Error> {
    let mut globs = Vec::new();
    let mut exact = BTreeSet::new();
    let mut from = 0;
    for item in word.chars.split(|c| *c == ',') {
        if item.is_empty() {
            let message = if word.chars.is_empty() {
                "a name should stand in these quotes"
            } else {
                "a list has a name on both sides of each ',', and no spaces: web1,web2"
            };
            return Err(Error::new(text, word.place(from.min(word.chars.len())), message));
        }
        let glob = glob(text, word, from, &item.iter().collect::<String>())?;
        only_names(text, word, from, item)?;
        if glob.is_literal() {
            exact.insert(glob.as_str().to_owned());
        } else {
            globs.push(glob);
        }
        from += item.len() + 1;
    }
    Ok(Matcher::Names(Names { text: word.text(), globs, exact }))
}

/// Refuses what no host name can contain: it is a slip, and would else quietly match nothing.
fn only_names(text: &str, word: &Text, from: usize, item: &[char]) -> Result<(), Error> {
    let in_glob = |c: char| matches!(c, '*' | '?' | '[' | ']' | '!' | '^');
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') || in_glob(c);
    let Some(index) = item.iter().position(|c| !allowed(*c)) else { return Ok(()) };
    let message = match item.get(index) {
        Some('=') => "no host name contains '='; a label is written label:KEY=VALUE".to_owned(),
        Some('@') => "targets such as G@ are not known here; write os:Debian".to_owned(),
        Some('&' | '|') => "write 'and' and 'or' as words".to_owned(),
        other => {
            let c = other.copied().unwrap_or(' ');
            format!("no host name contains {c:?}; a regular expression begins with '~'")
        }
    };
    Err(Error::new(text, word.place(from + index), message))
}

fn glob(text: &str, word: &Text, from: usize, glob: &str) -> Result<Glob, Error> {
    Glob::parse(glob)
        .map_err(|(index, message)| Error::new(text, word.place(from + index), message))
}
