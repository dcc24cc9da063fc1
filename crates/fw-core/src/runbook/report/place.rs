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

/// Where a record stands.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    /// The bytes of the block or item that it follows.
    pub(super) range: Range<usize>,
    /// Where the block begins, or the box of the item.
    pub(super) at: usize,
    /// Whether that is a block that may be open until it is closed.
    pub(super) fenced: bool,
    /// Whether it is an item with a box.
    pub(super) item: bool,
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

    /// The places of records by the numbers of their steps, in the order of the document. The record of a block comes
    /// behind the block, that of an item at its end.
    pub(super) fn spots(&self) -> Vec<(usize, Spot)> {
        let body = self.text.get(self.begin..).unwrap_or_default();
        let mut found = Vec::new();
        let mut items: Vec<Option<(usize, usize)>> = Vec::new();
        let mut fenced = false;
        for (event, range) in Parser::new_ext(body, Options::ENABLE_TASKLISTS).into_offset_iter() {
            let range = self.begin + range.start..self.begin + range.end;
            if let Event::Start(Tag::Item) = &event {
                items.push(None);
            } else if let Event::Start(Tag::CodeBlock(kind)) = &event {
                fenced = kind.is_fenced();
            } else if let (Event::TaskListMarker(_), Some(item)) = (&event, items.last_mut()) {
                *item = self.step_at(range.start).map(|step| (step, range.start));
            } else if event == Event::End(TagEnd::Item) {
                let step = items.pop().flatten();
                let spot = |(step, at)| (step, Spot { range, at, fenced: false, item: true });
                found.extend(step.map(spot));
            } else if event == Event::End(TagEnd::CodeBlock) {
                let at = range.start;
                let spot = |step| (step, Spot { range, at, fenced, item: false });
                found.extend(self.step_at(at).map(spot));
            }
        }
        found
    }

    fn step_at(&self, at: usize) -> Option<usize> {
        let line = self.starts.partition_point(|start| *start <= at);
        self.lines.get(&u32::try_from(line).ok()?).copied()
    }
}
