//! The record as Markdown: the document with its boxes ticked, and behind each step a quote with what became of it.

use std::fmt::Write as _;

use fw_proto::api::StepState;

use super::place::{Document, Spot};
use super::{Piece, Record, head, one_line, steps};
use crate::runbook::page::normal;

/// Writes the record of a change as Markdown.
#[must_use]
pub fn markdown(record: &Record<'_>) -> String {
    let steps = steps(record);
    let source = normal(&record.change.plan.source);
    let document = Document::new(&source, steps.iter().map(|(step, _)| step));
    let done = |at: usize| steps.get(at).is_some_and(|(step, _)| step.state == StepState::Done);
    let ticked = document.ticked(done);
    let mut report = format!("# {}\n\n", escaped(&record.change.plan.title));
    report.push_str(&quote("", &head(record)));
    report.push('\n');
    let mut written = document.begin;
    let mut told = vec![false; steps.len()];
    for (at, spot) in document.spots() {
        let (Some((_, pieces)), Some(told)) = (steps.get(at), told.get_mut(at)) else { continue };
        *told = true;
        // A record that has to stand within what was written already stands behind it.
        let end = end_of(&source, &spot).max(written);
        report.push_str(ticked.get(written..end).unwrap_or_default());
        written = end;
        let prefix = prefix(&source, &spot);
        if spot.fenced
            && let Some(fence) = open_fence(&source, &spot, &prefix)
        {
            writeln!(report, "{prefix}{fence}").expect("writing to memory");
        }
        if spot.item {
            // What HTML begins in an item ends with an empty line.
            writeln!(report, "{}", prefix.trim_end()).expect("writing to memory");
        }
        report.push_str(&quote(&prefix, pieces));
    }
    report.push_str(ticked.get(written..).unwrap_or_default());
    let left = steps.iter().zip(&told).filter(|(_, told)| !**told);
    for ((step, pieces), _) in left {
        write!(report, "\n## {}\n\n", escaped(&step.title)).expect("writing to memory");
        report.push_str(&quote("", pieces));
    }
    report
}

/// The end of the last line of a block or item that is not empty.
fn end_of(source: &str, spot: &Spot) -> usize {
    let text = source.get(spot.range.clone()).unwrap_or_default();
    let last = spot.range.start + text.trim_end_matches(['\n', ' ', '\t', '>']).len();
    let rest = source.get(last..).unwrap_or_default();
    last + rest.find('\n').map_or(rest.len(), |end| end + 1)
}

/// What lines have to begin with to be in the same list items and quotes as the block or item.
fn prefix(source: &str, spot: &Spot) -> String {
    let start = source.get(..spot.at).unwrap_or_default();
    let before = start.rsplit('\n').next().unwrap_or_default();
    let mut prefix = String::new();
    for c in before.chars() {
        match c {
            '>' => prefix.push('>'),
            // Of a tab within a list a part may belong to the list, and a part to what is in it.
            '\t' => prefix.push_str(&" ".repeat(4 - prefix.len() % 4)),
            _ => prefix.push(' '),
        }
    }
    if !(spot.item || spot.fenced) && prefix.ends_with("    ") {
        // Four columns make code of a line.
        prefix.truncate(prefix.len() - 4);
    }
    prefix
}

/// The fence that has to close a block which its document leaves open to its end.
fn open_fence(source: &str, spot: &Spot, prefix: &str) -> Option<String> {
    let text = source.get(spot.range.clone())?.trim_end();
    let fence: String = {
        let mark = text.chars().next()?;
        text.chars().take_while(|c| *c == mark).collect()
    };
    let last = text.lines().skip(1).last().unwrap_or_default();
    // Only the quotes around the block, and the blank after the last, are none of its text.
    let quotes = prefix.matches('>').count();
    let inner = |last: &'_ str| last.trim_start().strip_prefix('>').map(str::len);
    let last = (0..quotes).fold(last, |last, _| {
        inner(last).and_then(|rest| last.get(last.len() - rest..)).unwrap_or(last)
    });
    let own = prefix.rsplit('>').next().unwrap_or_default().len() + quotes.min(1);
    let mark = fence.chars().next()?;
    let text = last.trim_start();
    // What is indented by four or more is text, whatever it is (CommonMark 0.31 §4.5).
    let closes =
        columns(last) < own + 4 && text.len() >= fence.len() && text.chars().all(|c| c == mark);
    (!closes).then_some(fence)
}

/// How far a line is indented; a tab goes to the next fourth column.
fn columns(line: &str) -> usize {
    let blanks = line.chars().take_while(|c| matches!(c, ' ' | '\t'));
    blanks.fold(0, |at, c| if c == '\t' { (at / 4 + 1) * 4 } else { at + 1 })
}

/// Pieces as a quote, each line behind `prefix`.
fn quote(prefix: &str, pieces: &[Piece]) -> String {
    let mut quote = String::new();
    let mut put = |text: &str| {
        let text = format!("{prefix}> {text}");
        writeln!(quote, "{}", text.trim_end_matches(' ')).expect("writing to memory");
    };
    for piece in pieces {
        match piece {
            Piece::State(word, more) if more.is_empty() => put(&format!("**{}**", escaped(word))),
            Piece::State(word, more) => put(&format!("**{}** {}", escaped(word), escaped(more))),
            Piece::Line(label, text) => put(&format!("- {}: {}", escaped(label), escaped(text))),
            Piece::Block(caption, text) => {
                let fence = fence(text);
                put("");
                put(&format!("{}:", escaped(caption)));
                put(&format!("{fence}text"));
                text.split('\n').for_each(&mut put);
                put(&fence);
                put("");
            }
        }
    }
    // Without an empty line the text that follows would go on in the quote.
    writeln!(quote, "{}", prefix.trim_end()).expect("writing to memory");
    quote
}

/// A fence that is in no line of a text.
fn fence(text: &str) -> String {
    let longest = text.split(|c: char| c != '`').map(str::len).max().unwrap_or_default();
    "`".repeat(longest.max(2) + 1)
}

/// A text on one line in which nothing is Markdown.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in one_line(text).chars() {
        if "\\`*_[]<>#|&~!$^".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
