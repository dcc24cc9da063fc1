//! A runbook on its way: the document itself, and in it each step with its state, its output and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_core::change::Origin;
use fw_core::runbook::page::{Code, Piece, pieces};
use fw_proto::api::{ActorKind, ChangeState, Runbook, RunbookStep, StepState};
use fw_proto::{ChangeId, Timestamp};

use super::error::{Result, render};
use super::page::{Nav, Page, Visit};
use super::time::{When, took};
use super::words::{Actions, Status};
use crate::api::{change, runbook as api};
use crate::extract::Path;
use crate::state::App;

/// Hosts that are named; of more, how many there are.
const NAMED: usize = 12;

/// A part of the document.
#[derive(Debug)]
enum Part {
    Html(String),
    Step(Box<Step>),
}

#[derive(Debug)]
struct Step {
    id: String,
    kind: String,
    status: Status,
    hosts: String,
    failed: String,
    command: String,
    run: Option<String>,
    undo_run: Option<String>,
    by: String,
    took: String,
    note: String,
    gate: String,
    /// What a person may say of it now.
    tick: bool,
    confirm: bool,
    skip: bool,
}

#[derive(Template)]
#[template(path = "runbook.html")]
struct Shown {
    page: Page,
    id: ChangeId,
    name: String,
    status: Status,
    why: String,
    by: String,
    began: When,
    took: String,
    is_final: bool,
    rehearsed: bool,
    actions: Actions,
    done: usize,
    total: usize,
    fill: usize,
    parts: Vec<Part>,
    cli: String,
}

/// Shows a runbook.
pub(super) async fn show(
    State(app): State<App>,
    visit: Visit,
    Path(id): Path<ChangeId>,
) -> Result<Response> {
    let found = change::find(&app, Origin::Runbook, id).await?;
    let runbook = api::whole(&app, &found).await?;
    let page = Page::new(&app, &visit, Nav::Runbooks, runbook.summary.title.clone());
    Ok(render(&view(page, &runbook, app.clock.now())))
}

fn view(page: Page, runbook: &Runbook, now: Timestamp) -> Shown {
    let summary = &runbook.summary;
    let until = summary.finished_at.unwrap_or(now);
    let is_done = |step: &&RunbookStep| matches!(step.state, StepState::Done | StepState::Skipped);
    let done = runbook.steps.iter().filter(is_done).count();
    let total = runbook.steps.len();
    Shown {
        page,
        id: summary.id,
        name: summary.title.clone(),
        status: summary.state.into(),
        why: summary.why.clone().unwrap_or_default(),
        by: summary.begun_by(),
        began: When::new(now, summary.created_at),
        took: took(until.since(summary.created_at)),
        is_final: summary.state.is_final(),
        rehearsed: runbook.rehearsed,
        actions: summary.state.into(),
        done,
        total,
        fill: (done * 100).checked_div(total).unwrap_or(0),
        parts: parts(runbook, now),
        cli: format!("fleetwright runbook show {}", summary.id),
    }
}

/// The document in its parts. A step whose place is not found comes at the end: nothing that waits may be unseen.
fn parts(runbook: &Runbook, now: Timestamp) -> Vec<Part> {
    let paused = runbook.summary.state == ChangeState::Paused;
    let step = |one: &RunbookStep| Part::Step(Box::new(step(one, &runbook.source, paused, now)));
    let mut left: BTreeMap<&str, &RunbookStep> =
        runbook.steps.iter().map(|one| (one.id.as_str(), one)).collect();
    let lines: BTreeSet<u32> = runbook.steps.iter().filter_map(|one| one.line).collect();
    let mut parts = Vec::new();
    for piece in pieces(&runbook.source, &lines, Code::LeftToSteps) {
        match piece {
            Piece::Html(html) => parts.push(Part::Html(html)),
            Piece::Step(line) => {
                let here = runbook.steps.iter().filter(|one| one.line == Some(line));
                for one in here.filter_map(|one| left.remove(one.id.as_str())) {
                    parts.push(step(one));
                }
            }
        }
    }
    parts.extend(left.into_values().map(step));
    parts
}

fn step(one: &RunbookStep, source: &str, paused: bool, now: Timestamp) -> Step {
    let began = one.started_at;
    let ended = one.finished_at.unwrap_or(now);
    let waits = one.state == StepState::AwaitingPerson;
    let asks = one.kind != "manual";
    let by = one.done_by().filter(|_| one.by_kind != Some(ActorKind::Server));
    Step {
        id: one.id.clone(),
        kind: one.kind.clone(),
        status: one.state.into(),
        hosts: named(&one.hosts),
        failed: named(&one.failed),
        command: one.line.map(|line| code(source, line)).unwrap_or_default(),
        run: one.output_run.map(|run| format!("/runs/{run}")),
        undo_run: one.undo_run.map(|run| format!("/runs/{run}")),
        by: by.unwrap_or_default(),
        took: began.map(|began| took(ended.since(began))).unwrap_or_default(),
        note: one.note.clone().unwrap_or_default(),
        gate: one
            .gate
            .as_ref()
            .map(|gate| format!("{} of {} approved", gate.approvals.len(), gate.people))
            .unwrap_or_default(),
        tick: waits && !asks,
        confirm: waits && asks,
        skip: waits || (paused && one.state == StepState::Failed),
    }
}

fn named(hosts: &[fw_proto::HostName]) -> String {
    let some: Vec<_> = hosts.iter().take(NAMED).map(fw_proto::HostName::as_str).collect();
    match hosts.len().saturating_sub(NAMED) {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

/// The code of a block that begins at this line, as it is written; empty for an item.
fn code(source: &str, line: u32) -> String {
    let begin = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut lines = source.lines().skip(begin);
    let Some(first) = lines.next() else { return String::new() };
    let fence: String = first.trim_start().chars().take_while(|c| matches!(c, '`' | '~')).collect();
    if fence.len() < 3 {
        return String::new();
    }
    let indent = first.len() - first.trim_start().len();
    let inside = lines.take_while(|line| !line.trim_start().starts_with(&fence));
    let text = |line: &str| {
        let own = line.len() - line.trim_start().len();
        line.get(own.min(indent)..).unwrap_or_default().to_owned()
    };
    inside.map(text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_step_is_what_stands_in_its_block() {
        let source = "- [ ] Do\n  ```sh id=x\n  a\n    b\n  ```\n\n~~~\nc\n~~~\n";
        assert_eq!(code(source, 2), "a\n  b");
        assert_eq!(code(source, 7), "c");
        assert_eq!(code(source, 1), "");
        assert_eq!(code(source, 99), "");
    }
}
