//! What can be wrong with configuration, and what to do about it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::layers::Origin;

/// Everything that is wrong, in the order in which it was found; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error(Vec<Problem>);

/// A place in a configuration file, both counted from 1, and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file.
    pub(crate) file: PathBuf,
    /// The line.
    pub(crate) line: usize,
    /// The column, in characters.
    pub(crate) column: usize,
    /// The line's text.
    pub(crate) text: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// A file cannot be read.
    #[error("read {}: {why}", path.display())]
    Unreadable { path: PathBuf, why: String },
    /// The file is not TOML.
    #[error("{at}: {why}\n{}", at.caret())]
    Syntax { at: Place, why: String },
    /// No key has this name.
    #[error("{at}: unknown key `{key}`{}\n{}", suggestion(nearest.as_ref()), at.caret())]
    UnknownKey { at: Place, key: String, nearest: Option<String> },
    /// The key takes something else.
    #[error("{at}: `{key}` takes {wanted}, not {found}\n{}", at.caret())]
    WrongType { at: Place, key: String, wanted: &'static str, found: &'static str },
    /// The key does not take this value.
    #[error("{}: `{key}`: {why}", origin.brief())]
    Invalid { origin: Origin, key: String, why: String },
    /// A secret was given in two ways in one layer.
    #[error("{}: `{key}` and `{key}_file` are both set; keep one of them", origin.brief())]
    GivenTwice { origin: Origin, key: String },
    /// Anyone on the network could read along.
    #[error(
        "server.listen: {listen} can be reached by others, and tokens would cross the network in the clear; \
         set server.tls_cert and server.tls_key, or server.trusted_proxy when a proxy ends TLS, \
         or listen on 127.0.0.1, or accept it with --insecure-http"
    )]
    Exposed { listen: SocketAddr },
    /// A certificate without a key, or the other way round.
    #[error("server.tls_cert and server.tls_key belong together; set {missing} too")]
    HalfTls { missing: &'static str },
    /// Backups are made and none is kept.
    #[error(
        "server.backup_keep is 0; keep at least 1, or set server.backup_every to 0 to make none"
    )]
    NoBackupKept,
}

impl Error {
    /// An error of these problems, when there are any.
    pub(crate) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl Place {
    /// The place of a byte in a file's text.
    pub(crate) fn of(file: &std::path::Path, text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        let whole = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        Self { file: file.to_owned(), line, column, text: whole.to_owned() }
    }

    /// The line, and a caret under the place. Tabs stay tabs, so that the caret stands right.
    fn caret(&self) -> String {
        let before = self.text.chars().take(self.column - 1);
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("  {}\n  {indent}^", self.text)
    }
}

fn suggestion(nearest: Option<&String>) -> String {
    nearest.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

/// The candidate that a typing slip of at most a third of its letters turns into `word`.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = candidates.map(|candidate| (distance(word, candidate), candidate));
    let close = scored.filter(|(slips, candidate)| *slips * 3 <= candidate.chars().count().max(3));
    close.min().map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein's distance: letters to insert, delete or change.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut next = vec![i + 1];
        for (b, above) in to.iter().zip(row.windows(2)) {
            let &[diagonal, up] = above else { continue };
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(a != *b)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
