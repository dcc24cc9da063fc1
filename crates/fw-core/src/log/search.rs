//! What is looked for in a log, and the rows in which it was found so far.

use fw_proto::HostId;
use fw_proto::record::Malformed;
use regex::bytes::{Regex, RegexBuilder};

use super::{Line, Mark, Only, plain};

/// The most rows that a search remembers, 4 MB of them. Who finds more looks for too little.
pub const MOST_FOUND: usize = 500_000;

/// The longest pattern.
const MOST_PATTERN: usize = 1000;

/// The most memory of a compiled pattern.
const MOST_COMPILED: usize = 1 << 20;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    /// The text.
    pub text: String,
    /// Whether it is a regular expression.
    pub regex: bool,
    /// In which lines.
    pub only: Only,
}

/// A pattern that cannot be looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has no text.
    #[error("say what to look for")]
    Empty,
    /// It is too long.
    #[error("a pattern has at most {MOST_PATTERN} bytes")]
    Long,
    /// It is no regular expression, or a huge one.
    #[error("{0}")]
    Regex(String),
}

/// A search, as far as it has come.
#[derive(Debug, Clone)]
pub struct Search {
    regex: Regex,
    only: Only,
    end: Mark,
    found: Vec<u64>,
}

impl Search {
    /// Begins at the top. A pattern without capitals finds them too.
    ///
    /// # Errors
    /// The pattern cannot be looked for.
    pub fn new(pattern: &Pattern) -> Result<Self, Invalid> {
        let text = &pattern.text;
        if text.is_empty() {
            return Err(Invalid::Empty);
        }
        if text.len() > MOST_PATTERN {
            return Err(Invalid::Long);
        }
        let source = if pattern.regex { text.clone() } else { regex::escape(text) };
        let any_case = !text.chars().any(char::is_uppercase);
        let built = RegexBuilder::new(&source)
            .case_insensitive(any_case)
            .size_limit(MOST_COMPILED)
            .dfa_size_limit(MOST_COMPILED)
            .build();
        let regex = built.map_err(|error| Invalid::Regex(error.to_string()))?;
        Ok(Self { regex, only: pattern.only, end: Mark::default(), found: Vec::new() })
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// It holds no records.
    pub fn feed(
        &mut self,
        place: u64,
        host: HostId,
        attempt: u16,
        raw: &[u8],
    ) -> Result<(), Malformed> {
        let (regex, only, found) = (&self.regex, self.only, &mut self.found);
        self.end.splitter.feed(host, attempt, raw, &mut |line| {
            found.extend(row_of(regex, only, line));
        })?;
        self.end.place = place;
        Ok(())
    }

    /// How far it has looked.
    #[must_use]
    pub fn end(&self) -> &Mark {
        &self.end
    }

    /// Whether it looks no further, because it has found so much.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.found.len() >= MOST_FOUND
    }

    /// The rows found, in lines that have ended and in those that have not.
    #[must_use]
    pub fn rows(&self) -> Rows<'_> {
        let mut open = Vec::new();
        self.end.splitter.rest(&mut |line| open.extend(row_of(&self.regex, self.only, line)));
        Rows { found: &self.found, open }
    }
}

fn row_of(regex: &Regex, only: Only, line: &Line<'_>) -> Option<u64> {
    let row = only.row(line)?;
    regex.is_match(&plain(line.text)).then_some(row)
}

/// Rows in which something was found.
#[derive(Debug, Clone)]
pub struct Rows<'a> {
    found: &'a [u64],
    open: Vec<u64>,
}

impl Rows<'_> {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.found.len() + self.open.len()
    }

    /// The one at this place, from 0.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<u64> {
        let open = || self.open.get(at.checked_sub(self.found.len())?);
        self.found.get(at).or_else(open).copied()
    }

    /// The place of the first that is not before `row`.
    #[must_use]
    pub fn from(&self, row: u64) -> usize {
        self.found.partition_point(|found| *found < row)
            + self.open.partition_point(|found| *found < row)
    }
}
