//! Output as people read it: lines with numbers, made of the records of all who write.
//!
//! A line gets its number when it ends, so that what was numbered once keeps its number, however much is
//! written after it. What each stream has begun and not ended is open: it stands behind the last line.

mod ansi;
mod index;
mod search;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fw_proto::record::{self, Body, Malformed, Stream};
use fw_proto::{HostId, Timestamp};
use regex::bytes::Regex;

pub use ansi::plain;
pub use index::{Group, Index, Mark};
pub use search::{Invalid, MOST_FOUND, Pattern, Rows, Search};

/// The longest line, in bytes. What is longer goes on in the next line: a gigabyte without a line break
/// must cost no more than any other.
pub const MAX_LINE: usize = 8 * 1024;

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: u64,
    /// When it tells of an error: its number among those, from 1.
    pub error: Option<u64>,
    /// Who wrote it.
    pub writer: Writer,
    /// When its first byte was read.
    pub at: Timestamp,
    /// What it says, without its line break.
    pub text: &'a [u8],
    /// How it ends.
    pub end: End,
}

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a line break.
    Whole,
    /// It was too long, and goes on in the next of its writer; or something was left out after it.
    Cut,
    /// Not yet.
    Open,
    /// It is none: so many bytes were not kept here.
    Gap(u64),
}

/// One stream of one attempt on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    /// The host.
    pub host: HostId,
    /// Which attempt.
    pub attempt: u16,
    /// Which of its two streams.
    pub stream: Stream,
}

/// Which lines are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Only {
    /// All of them.
    #[default]
    All,
    /// Those that tell of errors.
    Errors,
}

impl Only {
    /// The row of a line among those that are asked for, from 1.
    #[must_use]
    pub fn row(self, line: &Line<'_>) -> Option<u64> {
        match self {
            Self::All => Some(line.number),
            Self::Errors => line.error,
        }
    }
}

/// Makes lines of records. A clone goes on where the original stands.
#[derive(Debug, Clone, Default)]
pub struct Splitter {
    open: BTreeMap<Writer, Begun>,
    lines: u64,
    errors: u64,
}

#[derive(Debug, Clone)]
struct Begun {
    at: Timestamp,
    text: Vec<u8>,
}

impl Splitter {
    /// Lines that have ended.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Those of them that tell of errors.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Bytes that are held.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.open.values().map(|begun| begun.text.capacity() + size_of::<(Writer, Begun)>()).sum()
    }

    /// Takes whole records of a task, and shows each line that ends in them.
    ///
    /// # Errors
    /// The bytes are no records.
    pub fn feed(
        &mut self,
        host: HostId,
        attempt: u16,
        raw: &[u8],
        see: &mut dyn FnMut(&Line<'_>),
    ) -> Result<(), Malformed> {
        for record in record::records(raw) {
            let record = record?;
            let writer = Writer { host, attempt, stream: record.stream };
            match record.body {
                Body::Bytes(bytes) => self.bytes(writer, record.at, bytes, see),
                Body::Gap(length) => {
                    if let Some(begun) = self.open.remove(&writer) {
                        self.end(writer, begun.at, &begun.text, End::Cut, see);
                    }
                    self.end(writer, record.at, b"", End::Gap(length), see);
                }
            }
        }
        Ok(())
    }

    /// Shows what is open, with the numbers that it would get if it ended now.
    pub fn rest(&self, see: &mut dyn FnMut(&Line<'_>)) {
        let (mut lines, mut errors) = (self.lines, self.errors);
        for (&writer, begun) in &self.open {
            lines += 1;
            let is_error = tells_of_error(writer.stream, &begun.text);
            errors += u64::from(is_error);
            see(&Line {
                number: lines,
                error: is_error.then_some(errors),
                writer,
                at: begun.at,
                text: &begun.text,
                end: End::Open,
            });
        }
    }

    fn bytes(
        &mut self,
        writer: Writer,
        at: Timestamp,
        mut bytes: &[u8],
        see: &mut dyn FnMut(&Line<'_>),
    ) {
        while !bytes.is_empty() {
            let held = self.open.get(&writer).map_or(0, |begun| begun.text.len());
            let room = MAX_LINE.saturating_sub(held);
            let near = bytes.get(..=room).unwrap_or(bytes);
            let newline = near.iter().position(|byte| *byte == b'\n');
            let (text, end, taken) = match newline {
                Some(length) => (bytes.get(..length), Some(End::Whole), length + 1),
                None if bytes.len() > room => {
                    let length = whole_characters(bytes, room);
                    (bytes.get(..length), Some(End::Cut), length)
                }
                None => (Some(bytes), None, bytes.len()),
            };
            let text = text.unwrap_or_default();
            bytes = bytes.get(taken..).unwrap_or_default();
            match (end, self.open.remove(&writer)) {
                (Some(end), None) => self.end(writer, at, text, end, see),
                (Some(end), Some(mut begun)) => {
                    begun.text.extend_from_slice(text);
                    self.end(writer, begun.at, &begun.text, end, see);
                }
                (None, begun) => {
                    let mut begun = begun.unwrap_or_else(|| Begun { at, text: Vec::new() });
                    begun.text.extend_from_slice(text);
                    self.open.insert(writer, begun);
                }
            }
        }
    }

    fn end(
        &mut self,
        writer: Writer,
        at: Timestamp,
        text: &[u8],
        end: End,
        see: &mut dyn FnMut(&Line<'_>),
    ) {
        self.lines += 1;
        let is_error = match end {
            End::Whole | End::Cut | End::Open => tells_of_error(writer.stream, text),
            End::Gap(_) => false,
        };
        self.errors += u64::from(is_error);
        let error = is_error.then_some(self.errors);
        see(&Line { number: self.lines, error, writer, at, text, end });
    }
}

/// The most bytes up to `most` that do not cut a character in two. A line is always longer than a character.
fn whole_characters(bytes: &[u8], most: usize) -> usize {
    let continues = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let back = (0..4).find(|back| !continues(most.saturating_sub(*back)));
    match back.map_or(most, |back| most.saturating_sub(back)) {
        0 => most,
        length => length,
    }
}

/// Words of which one makes a line one about an error, whatever the case. Not "failed" and not "errors", because
/// good news says "0 failed" and "0 errors".
static ERROR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i-u)\b(?:error|fatal|panic|panicked|exception|traceback|critical)\b")
        .expect("a pattern of ours")
});

/// Whether a line tells of an error: what is written to standard error does, and what says so.
fn tells_of_error(stream: Stream, text: &[u8]) -> bool {
    match stream {
        Stream::Stderr => true,
        Stream::Stdout => ERROR.is_match(&plain(text)),
    }
}

#[cfg(test)]
mod tests;
