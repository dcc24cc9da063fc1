//! A document's text with its places, and what is found wrong in it.

use fw_proto::api::SourceError;

use crate::job::yaml::{self, Place};

/// The most errors, and the most warnings, that are told one by one.
pub const MOST_TOLD: usize = 50;

/// The text and what there is to tell about it.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// What to call it.
    pub(super) file: &'a str,
    /// All of it.
    pub(super) text: &'a str,
    lines: Vec<&'a str>,
    /// Where each line begins, in bytes.
    starts: Vec<usize>,
    /// What is wrong.
    pub(super) errors: Vec<SourceError>,
    /// What is worth a thought.
    pub(super) warnings: Vec<SourceError>,
    /// Errors and warnings that are counted only.
    untold: (usize, usize),
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let lines = yaml::lines(text);
        let start = text.as_ptr().addr();
        let starts = lines.iter().map(|line| line.as_ptr().addr() - start).collect();
        Self { file, text, lines, starts, errors: Vec::new(), warnings: Vec::new(), untold: (0, 0) }
    }

    /// The line of a byte, counted from 1.
    pub(super) fn line(&self, at: usize) -> u32 {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn place(&self, at: usize) -> Place {
        let line = self.line(at);
        let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
        let start = self.starts.get(index).copied().unwrap_or_default();
        let length = self.lines.get(index).map_or(0, |line| line.len());
        let before = self.text.get(start..at.min(start + length)).unwrap_or_default();
        let column = u32::try_from(before.chars().count()).unwrap_or(u32::MAX).saturating_add(1);
        Place { line, column }
    }

    /// Tells an error at a byte.
    pub(super) fn error(&mut self, at: usize, message: impl Into<String>) {
        self.error_with(at, || message.into());
    }

    /// Tells an error at a byte. Its words and its place are looked for only if it is told: a text of a
    /// megabyte has room for a hundred thousand mistakes on one line.
    pub(super) fn error_with(&mut self, at: usize, message: impl FnOnce() -> String) {
        if self.errors.len() >= MOST_TOLD {
            self.untold.0 += 1;
            return;
        }
        self.error_at(self.place(at), message());
    }

    /// Tells an error at a line and column; at the whole file when the line is 0.
    pub(super) fn error_at(&mut self, place: Place, message: impl Into<String>) {
        if self.errors.len() >= MOST_TOLD {
            self.untold.0 += 1;
            return;
        }
        let error = yaml::error(self.file, &self.lines, place, None, message.into());
        self.errors.push(error);
    }

    /// Tells a warning at a byte.
    pub(super) fn warning(&mut self, at: usize, message: impl Into<String>) {
        if self.warnings.len() >= MOST_TOLD {
            self.untold.1 += 1;
            return;
        }
        let place = self.place(at);
        let warning = yaml::error(self.file, &self.lines, place, None, message.into());
        self.warnings.push(warning);
    }

    /// Errors and warnings, each in the order of the file.
    pub(super) fn told(self) -> (Vec<SourceError>, Vec<SourceError>) {
        let (errors, warnings) = self.untold;
        (sorted(self.file, self.errors, errors), sorted(self.file, self.warnings, warnings))
    }
}

fn sorted(file: &str, mut told: Vec<SourceError>, untold: usize) -> Vec<SourceError> {
    told.sort_by_key(|one| (one.line, one.column));
    if untold > 0 {
        told.push(SourceError {
            file: file.to_owned(),
            line: 0,
            column: 0,
            job: None,
            message: format!("and {untold} more; mend those before first"),
            snippet: None,
        });
    }
    told
}
