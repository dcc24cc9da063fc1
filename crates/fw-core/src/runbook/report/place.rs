//! Where in a document each step ends: that is where its record stands.

use std::collections::BTreeMap;
use std::ops::Range;

use fw_proto::api::RunbookStep;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::runbook::front;

/// The document without its front matter, and what is in it.
pub(super) struct Document<'a> {
    /// All of it, with `\n` at the end of every line.
    pub(super) text: &'a str,
    /// Where it begins behind the front matter.
    pub(super) begin: usize,
    /// The places of the steps, by their lines.
    lines: BTreeMap<u32, usize>,
    /// Where each line begins.
    starts: Vec<usize>,
}

/// What comes next when a document is read from its begin to its end.
pub(super) enum Next<'a> {
    /// A part of the document.
    Part(Event<'a>),
    /// The place of a step's record, by its number.
    Step(usize, Spot),
}

/// Where a record stands.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    /// The bytes of the block or item that it follows.
    pub(super) range: Range<usize>,
    /// Whether that is a block that may be open until it is closed.
    pub(super) fenced: bool,
    /// Whether it is an item with a box.
    pub(super) item: bool,
}

/// Line ends as Markdown knows them, all as `\n`.
pub(super) fn normal(source: &str) -> String {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

impl<'a> Document<'a> {
    /// A document that [`normal`] made.
    pub(super) fn new(text: &'a str, steps: impl Iterator<Item = &'a RunbookStep>) -> Self {
        let begin = front::split(text).map_or(0, |(_, begin)| begin);
        let lines = steps.enumerate().filter_map(|(at, step)| Some((step.line?, at))).collect();
        let mut starts = vec![0];
        starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self { text, begin, lines, starts }
    }

    /// Reads it. The record of a block comes behind the block, that of an item at its end.
    pub(super) fn walk(&self) -> Vec<Next<'a>> {
        let body = self.text.get(self.begin..).unwrap_or_default();
        let mut found = Vec::new();
        let mut items: Vec<Option<usize>> = Vec::new();
        let mut fenced = false;
        for (event, range) in Parser::new_ext(body, Options::ENABLE_TASKLISTS).into_offset_iter() {
            let range = self.begin + range.start..self.begin + range.end;
            let mut behind = None;
            if let Event::Start(Tag::Item) = &event {
                items.push(None);
            } else if let Event::Start(Tag::CodeBlock(kind)) = &event {
                fenced = kind.is_fenced();
            } else if let (Event::TaskListMarker(_), Some(item)) = (&event, items.last_mut()) {
                *item = self.step_at(range.start);
            } else if event == Event::End(TagEnd::Item) {
                let step = items.pop().flatten();
                let spot = Spot { range, fenced: false, item: true };
                found.extend(step.map(|step| Next::Step(step, spot)));
            } else if event == Event::End(TagEnd::CodeBlock) {
                let spot = Spot { range: range.clone(), fenced, item: false };
                behind = self.step_at(range.start).map(|step| Next::Step(step, spot));
            }
            found.push(Next::Part(event));
            found.extend(behind);
        }
        found
    }

    fn step_at(&self, at: usize) -> Option<usize> {
        let line = self.starts.partition_point(|start| *start <= at);
        self.lines.get(&u32::try_from(line).ok()?).copied()
    }
}
