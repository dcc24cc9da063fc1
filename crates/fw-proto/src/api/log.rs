//! Output as people read it: lines by number, and what is found in them.

use serde::{Deserialize, Serialize};

use crate::record::Stream;
use crate::{HostName, Timestamp};

/// Which lines are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnlyLines {
    /// All of them.
    #[default]
    All,
    /// Those on standard error, and those with a word such as `error` or `fatal`.
    Errors,
}

/// Some lines of a log, and how long it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLines {
    /// The lines, in order.
    pub lines: Vec<LogLine>,
    /// How many lines there are, those that have not ended with them.
    pub total: u64,
    /// How many of them tell of errors.
    pub errors: u64,
    /// So many have ended, and keep their numbers and texts.
    pub settled: u64,
    /// Whether all that is stored was counted. Else ask again: counting goes on.
    pub complete: bool,
    /// Lines that can be folded together. Only for one host.
    pub groups: Vec<LogGroup>,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// Its number, from 1.
    pub n: u64,
    /// Its place among the lines that were asked for, from 1.
    pub row: u64,
    /// The host.
    pub host: HostName,
    /// Which stream.
    pub stream: Stream,
    /// When the host read its beginning.
    pub at: Timestamp,
    /// What it says, with its escape sequences; what is no UTF-8 is replaced.
    pub text: String,
    /// How it ends.
    pub end: LineEnd,
    /// So many bytes were not kept here; 0 where there is no gap.
    #[serde(default)]
    pub gap: u64,
    /// Whether it tells of an error.
    pub error: bool,
}

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LineEnd {
    /// With a line break.
    Whole,
    /// It has 8 KiB and goes on in the next of its stream, or something was not kept after it.
    Cut,
    /// Not yet.
    Open,
}

/// Lines that can be folded into the first of them: `::group::TITLE` to `::endgroup::`, or `##[group]TITLE` to `##[endgroup]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogGroup {
    /// The number of the line that begins it.
    pub from: u64,
    /// Of the one that ends it; `null` while it goes on.
    pub to: Option<u64>,
    /// What it is called.
    pub title: String,
    /// How many other groups it is in.
    pub depth: u16,
}

/// What was found in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogMatches {
    /// In how many lines so far.
    pub matches: u64,
    /// Whether there are more, which are not counted: it was found in half a million lines.
    pub more: bool,
    /// How many lines were looked at.
    pub looked: u64,
    /// Whether that is all that is stored. Else ask again: the search goes on.
    pub complete: bool,
    /// The first match at or behind `from`.
    pub next: Option<LogMatch>,
    /// The last match before `from`.
    pub previous: Option<LogMatch>,
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogMatch {
    /// The row of its line among the lines that were searched.
    pub row: u64,
    /// Which of the matches it is, from 1.
    pub nth: u64,
}
