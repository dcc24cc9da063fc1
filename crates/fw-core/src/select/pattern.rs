//! Patterns over one text: a glob, or a regular expression.
//!
//! A regular expression runs in linear time where it can. One with look-around or back-references
//! backtracks, within a bound; beyond it the answer is "undecided", which picks no host.

use super::{Error, Glob};

/// The most memory a compiled regular expression may take.
const REGEX_BYTES: usize = 1 << 20;

/// The deepest nesting in a regular expression. The crate's own bound of 250 overflows the stack of a
/// thread (2 MiB) in a build without optimisation.
const DEEPEST_REGEX: u32 = 64;

/// The most steps back for one text. A pattern that people write takes some tens for a name; ten
/// thousand hosts at this bound take about a second.
const MOST_STEPS: usize = 10_000;

/// A glob that fits a whole text, or a regular expression that is found in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pattern {
    Glob(Glob),
    Regex(Regex),
}

/// A regular expression.
#[derive(Debug, Clone)]
pub struct Regex {
    source: String,
    engine: Engine,
}

#[derive(Debug, Clone)]
enum Engine {
    Linear(regex::Regex),
    Backtracking(fancy_regex::Regex),
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// Whether the text fits; `None` when it took too many steps to say.
    pub(super) fn matches(&self, text: &str) -> Option<bool> {
        match self {
            Self::Glob(glob) => Some(glob.matches(text)),
            Self::Regex(regex) => regex.matches(text),
        }
    }
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// It is none; the error is one of the pattern's text.
    pub(super) fn parse(source: &str) -> Result<Self, Error> {
        if source.is_empty() {
            return Err(Error::new(source, 0, "a regular expression should stand here"));
        }
        let built = regex::RegexBuilder::new(source)
            .size_limit(REGEX_BYTES)
            .nest_limit(DEEPEST_REGEX)
            .build();
        let engine = match built {
            Ok(regex) => Engine::Linear(regex),
            Err(regex::Error::Syntax(said)) if looks_around(source, &said) => {
                Engine::Backtracking(backtracking(source)?)
            }
            Err(regex::Error::Syntax(said)) => {
                let (index, message) = syntax(&said);
                return Err(Error::new(source, index, message));
            }
            Err(regex::Error::CompiledTooBig(_)) => return Err(too_large(source)),
            Err(other) => return Err(Error::new(source, 0, other.to_string())),
        };
        Ok(Self { source: source.to_owned(), engine })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether it is found in the text; `None` when it took too many steps to say.
    pub(super) fn matches(&self, text: &str) -> Option<bool> {
        match &self.engine {
            Engine::Linear(regex) => Some(regex.is_match(text)),
            Engine::Backtracking(regex) => regex.is_match(text).ok(),
        }
    }
}

/// Whether the linear engine refused the pattern for what it cannot do, not for what is wrong.
fn looks_around(source: &str, said: &str) -> bool {
    let beyond = ["look-around", "backreferences"];
    let signs = ["(?P=", "(?>", "(?("];
    beyond.iter().any(|word| said.contains(word)) || signs.iter().any(|sign| source.contains(sign))
}

fn backtracking(source: &str) -> Result<fancy_regex::Regex, Error> {
    // The crate bounds its own nesting too, but only counts groups; signs nest as well.
    let depth = source.matches(['(', '*', '+', '?', '{']).count();
    if depth > 4 * DEEPEST_REGEX as usize || deepest(source) > DEEPEST_REGEX {
        return Err(too_large(source));
    }
    let built = fancy_regex::RegexBuilder::new(source)
        .backtrack_limit(MOST_STEPS)
        .delegate_size_limit(REGEX_BYTES)
        .delegate_dfa_size_limit(REGEX_BYTES)
        .build();
    built.map_err(|error| {
        if let fancy_regex::Error::ParseError(place, said) = &error {
            let before = source.get(..*place).unwrap_or(source).chars().count();
            return Error::new(source, before, format!("regular expression: {}", fragment(said)));
        }
        Error::new(source, 0, format!("regular expression: {}", fragment(&error)))
    })
}

/// What another crate says, as a lower-case fragment on one line.
fn fragment(said: &impl ToString) -> String {
    let said = said.to_string();
    let mut chars = said.lines().next().unwrap_or_default().chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// How deep groups, and signs directly after one another, nest.
fn deepest(source: &str) -> u32 {
    let (mut open, mut row, mut most) = (0_u32, 0_u32, 0_u32);
    for c in source.chars() {
        match c {
            '(' => open += 1,
            ')' => open = open.saturating_sub(1),
            _ => {}
        }
        row = if matches!(c, '*' | '+' | '?') { row + 1 } else { 0 };
        most = most.max(open + row);
    }
    most
}

fn too_large(source: &str) -> Error {
    Error::new(source, 0, "this regular expression is too large; say it with less repetition")
}

/// At which character of the pattern `regex` says that something is wrong, and what. It says so
/// in a text of the form "regex parse error:\n    PATTERN\n      ^\nerror: MESSAGE" only.
fn syntax(said: &str) -> (usize, String) {
    let caret =
        said.lines().find(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty());
    let index = caret.and_then(|line| line.find('^')).and_then(|column| column.checked_sub(4));
    let message = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
    (index.unwrap_or(0), format!("regular expression: {}", message.unwrap_or("not valid")))
}
