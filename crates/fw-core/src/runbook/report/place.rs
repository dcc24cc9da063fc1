//! Where in a document each step ends: that is where its record stands.

use std::collections::BTreeMap;
use std::ops::Range;

use fw_proto::api::RunbookStep;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::runbook::front;

/// The box of an item.
const EMPTY: &str = "[ ]";

/// One that is ticked.
const TICKED: &str = "[x]";

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

    /// The document with the boxes ticked of items whose steps are all done; no byte of it moves.
    pub(super) fn ticked(&self, done: impl Fn(usize) -> bool) -> String {
        let mut text = self.text.to_owned();
        for (at, steps) in self.boxes() {
            let whole = !steps.is_empty() && steps.iter().all(|step| done(*step));
            if whole && text.get(at..at + EMPTY.len()) == Some(EMPTY) {
                text.replace_range(at..at + EMPTY.len(), TICKED);
            }
        }
        text
    }

    /// The places of boxes, and the numbers of the steps that stand in the item of each.
    fn boxes(&self) -> Vec<(usize, Vec<usize>)> {
        let body = self.text.get(self.begin..).unwrap_or_default();
        let mut found = Vec::new();
        let mut items: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
        for (event, range) in Parser::new_ext(body, Options::ENABLE_TASKLISTS).into_offset_iter() {
            let at = self.begin + range.start;
            if let Event::Start(Tag::Item) = &event {
                items.push((None, Vec::new()));
            } else if let (Event::TaskListMarker(_), Some((place, _))) = (&event, items.last_mut())
            {
                *place = Some(at);
            }
            let begins =
                matches!(event, Event::TaskListMarker(_) | Event::Start(Tag::CodeBlock(_)));
            if let (true, Some((_, steps))) = (begins, items.last_mut()) {
                steps.extend(self.step_at(at));
            }
            if event == Event::End(TagEnd::Item)
                && let Some((place, steps)) = items.pop()
            {
                if let Some((_, around)) = items.last_mut() {
                    around.extend(&steps);
                }
                found.extend(place.map(|place| (place, steps)));
            }
        }
        found
    }

    fn step_at(&self, at: usize) -> Option<usize> {
        let line = self.starts.partition_point(|start| *start <= at);
        self.lines.get(&u32::try_from(line).ok()?).copied()
    }
}
