//! The executed document: the runbook itself with who did what, when, where, with which output and proof.
//!
//! It is the record of a change, as Markdown ([`markdown`]) and as one page of HTML ([`html`]). What
//! commands printed and people wrote is hostile until proved otherwise: it stands in blocks that it cannot
//! leave.

mod html;
mod markdown;
mod place;

use std::collections::BTreeMap;

use fw_proto::api::{Approval, Command, RunbookStep, StepState, Task};
use fw_proto::{RunId, Timestamp};

use super::view;
use crate::change::{Act, Change, Node, Progress, Try, Work};
use crate::runbook::page::harmless;

pub use html::html;
pub use markdown::markdown;

/// The most bytes of output of one task that a report shows.
pub const MOST_OUTPUT: usize = 64 * 1024;

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The change.
    pub change: &'a Change,
    /// What is still known of its runs.
    pub runs: &'a BTreeMap<RunId, Ran>,
    /// Whether an undo of this document has ever succeeded.
    pub rehearsed: bool,
}

/// A run of a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ran {
    /// What was run, filled in as it was then.
    pub command: Option<Command>,
    /// Its tasks, by host name.
    pub tasks: Vec<RanTask>,
}

/// A task of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RanTask {
    /// What became of it.
    pub task: Task,
    /// What it printed on stdout and stderr, in the order in which it came; the begin of it, if it is long.
    pub output: Vec<u8>,
    /// How many more bytes there were.
    pub left_out: u64,
}

/// Something that is told of a step, or of the whole.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// Where it stands: a word, and more.
    State(&'static str, String),
    /// A label and what it says.
    Line(String, String),
    /// A text of several lines as it is, under a caption.
    Block(String, String),
}

fn line(label: &str, text: impl Into<String>) -> Piece {
    Piece::Line(label.to_owned(), text.into())
}

/// What is told of the whole.
fn head(record: &Record<'_>) -> Vec<Piece> {
    let (change, plan) = (record.change, &record.change.plan);
    let mut pieces = vec![Piece::State(change.state().as_str(), change.why().unwrap_or_default())];
    pieces.push(line("id", change.id.to_string()));
    pieces.push(line("began", format!("{} by {}", change.created_at, change.by.shown())));
    if let Some(at) = change.finished_at {
        pieces.push(line("ended", at.to_string()));
    }
    for (name, value) in &plan.inputs {
        pieces.push(line("input", format!("{name} = {value}")));
    }
    let undo = if plan.nodes.iter().all(|node| node.undo.is_none()) {
        "there is none"
    } else if record.rehearsed {
        "rehearsed: it has run before"
    } else {
        "unrehearsed: no undo of this document has ever succeeded"
    };
    pieces.push(line("undo", undo));
    pieces
}

/// The steps, and what is told of each.
fn steps(record: &Record<'_>) -> Vec<(RunbookStep, Vec<Piece>)> {
    let view = view(record.change, record.rehearsed);
    let told = view.steps.into_iter().map(|step| {
        let pieces = of_step(record, &step);
        (step, pieces)
    });
    told.collect()
}

fn of_step(record: &Record<'_>, step: &RunbookStep) -> Vec<Piece> {
    let mut pieces = vec![Piece::State(step.state.as_str(), when(step))];
    if let Some(gate) = &step.gate {
        let people = if gate.people == 1 { "one person" } else { "people" };
        let asked = match gate.people {
            1 => format!("{people} of role {}", gate.by),
            more => format!("{more} {people} of role {}", gate.by),
        };
        pieces.push(line("approval asked", asked));
        let approvals = gate.approvals.iter();
        let approved = |one: &Approval| format!("{} at {}", one.given_by(), one.at);
        pieces.extend(approvals.map(|one| line("approved", approved(one))));
    }
    if let Some(note) = &step.note {
        pieces.push(line("note", note.clone()));
    }
    for (node, progress) in nodes(record.change, step) {
        let Some(work) = node.work() else { continue };
        if progress.tries.is_empty() {
            continue;
        }
        let hosts: Vec<&str> = work.hosts.iter().map(|host| host.name.as_str()).collect();
        pieces.push(line("hosts", format!("{} ({})", hosts.join(", "), work.selector)));
        if let Some(user) = &work.exec.user {
            pieces.push(line("as", user.clone()));
        }
        pieces.extend(command(record, "command", work, &progress.tries));
        progress.tries.iter().for_each(|one| of_run(record, "run", one.run, &mut pieces));
        if let Some(undo) = node.undo.as_ref().filter(|_| !progress.undo_tries.is_empty()) {
            pieces.extend(command(record, "undo", &undo.work, &progress.undo_tries));
            progress
                .undo_tries
                .iter()
                .for_each(|one| of_run(record, "undo run", one.run, &mut pieces));
        }
    }
    pieces
}

/// The command that was run. One that was filled in when its turn came is known by its runs alone.
fn command(record: &Record<'_>, caption: &str, work: &Work, tries: &[Try]) -> Option<Piece> {
    let ran = || tries.iter().rev().find_map(|one| record.runs.get(&one.run)?.command.as_ref());
    let command = if work.fill.is_none() { Some(&work.exec.command) } else { ran() };
    let text = super::script::main(command?).to_owned();
    Some(Piece::Block(caption.to_owned(), text))
}

/// The nodes of a step.
fn nodes<'a>(
    change: &'a Change,
    step: &'a RunbookStep,
) -> impl Iterator<Item = (&'a Node, &'a Progress)> {
    let all = change.plan.nodes.iter().zip(&change.nodes);
    all.filter(|(node, _)| node.id == step.id && !matches!(node.act, Act::Wait(_)))
}

fn when(step: &RunbookStep) -> String {
    let by = step.done_by().map(|by| format!("by {by}"));
    let time = match (step.started_at, step.finished_at) {
        (Some(began), Some(ended)) => Some(span(began, ended)),
        (Some(began), None) => Some(format!("since {began}")),
        (None, _) => None,
    };
    let over = !matches!(step.state, StepState::Planned | StepState::AwaitingPerson);
    let parts = [by.filter(|_| over), time];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn span(began: Timestamp, ended: Timestamp) -> String {
    if began == ended { began.to_string() } else { format!("{began} to {ended}") }
}

fn of_run(record: &Record<'_>, label: &str, run: RunId, pieces: &mut Vec<Piece>) {
    let Some(ran) = record.runs.get(&run) else {
        return pieces.push(line(label, format!("{run}: what it did is no longer kept")));
    };
    pieces.push(line(label, run.to_string()));
    for one in &ran.tasks {
        pieces.push(line(one.task.host.as_str(), of_task(&one.task)));
        let shown = text(&one.output);
        if !shown.is_empty() {
            pieces.push(Piece::Block(format!("output on {}", one.task.host), shown));
        }
        let cut = u64::try_from(one.output.len().saturating_sub(MOST_OUTPUT)).unwrap_or(u64::MAX);
        let left_out = one.left_out.saturating_add(cut);
        if left_out > 0 {
            pieces
                .push(line("left out", format!("{left_out} more bytes of output; see run {run}")));
        }
    }
}

/// What became of a task, with what proves its output.
fn of_task(task: &Task) -> String {
    let mut parts = vec![task.state.as_str().replace('_', " ")];
    if let Some(reason) = task.reason {
        parts.push(format!("{reason:?}").to_lowercase());
    }
    parts.extend(task.exit_code.map(|code| format!("exit code {code}")));
    parts.extend(task.signal.map(|signal| format!("signal {signal}")));
    match (task.started_at, task.finished_at) {
        (Some(began), Some(ended)) => parts.push(span(began, ended)),
        (Some(began), None) => parts.push(format!("since {began}")),
        (None, _) => {}
    }
    if task.attempt > 1 {
        parts.push(format!("attempt {}", task.attempt));
    }
    parts.extend(task.message.clone());
    parts.extend(task.stdout_sha256.as_ref().map(|hash| format!("stdout SHA-256 {hash}")));
    parts.extend(task.stderr_sha256.as_ref().map(|hash| format!("stderr SHA-256 {hash}")));
    parts.extend(task.late.as_ref().map(|late| format!("said later: {late}")));
    parts.join(", ")
}

/// Output as text: lines without what would steer a terminal or turn the direction of reading.
fn text(output: &[u8]) -> String {
    let output = output.get(..MOST_OUTPUT).unwrap_or(output);
    let lines = output.split(|byte| *byte == b'\n').map(|line| {
        String::from_utf8_lossy(&crate::log::plain(line)).chars().map(harmless).collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// A text on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().map(harmless).collect()
}

#[cfg(test)]
mod tests;
