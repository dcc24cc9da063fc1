//! Runs: the list of them. One run has a page of its own.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::api::{Command, RunState, RunSummary, TaskState};
use fw_proto::{HostName, JobName, Timestamp};
use serde::Deserialize;

use super::error::{Result, render};
use super::link::{link, quoted};
use super::page::{Nav, Page, Visit};
use super::time::{When, took};
use super::words::{Status, Tone};
use crate::api::run as api;
use crate::extract::Query;
use crate::state::App;

/// Rows of a page.
const ROWS: u32 = 50;

/// Characters of a command in a list.
const SHOWN: usize = 120;

/// Which runs; what is no state, job or host is as if it were not there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    state: String,
    job: String,
    host: String,
    cursor: String,
}

/// A run in a table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) href: String,
    pub(super) status: Status,
    /// The job, or what runs.
    pub(super) what: String,
    pub(super) hosts: String,
    /// How far it is, in words.
    pub(super) progress: String,
    pub(super) by: String,
    pub(super) began: When,
    pub(super) took: String,
}

#[derive(Template)]
#[template(path = "runs.html")]
struct List {
    page: Page,
    states: Vec<(&'static str, &'static str, bool)>,
    job: String,
    host: String,
    filtered: bool,
    first: bool,
    rows: Vec<Row>,
    after: Option<String>,
    cli: String,
}

const STATES: &[RunState] = &[
    RunState::Planned,
    RunState::Running,
    RunState::Cancelling,
    RunState::Succeeded,
    RunState::Failed,
    RunState::Cancelled,
];

/// Shows runs, newest first.
pub(super) async fn list(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let state = STATES.iter().copied().find(|state| state.as_str() == query.state);
    let (job, host) = (query.job.parse::<JobName>().ok(), query.host.parse::<HostName>().ok());
    let cursor = Some(query.cursor).filter(|cursor| !cursor.is_empty());
    let word = state.map_or("", RunState::as_str);
    let text = |name: Option<String>| name.unwrap_or_default();
    let (job_text, host_text) =
        (text(job.as_ref().map(ToString::to_string)), text(host.as_ref().map(ToString::to_string)));
    let first = cursor.is_none();
    let wanted = api::ListQuery { job, state, host, cursor, limit: Some(ROWS) };
    let found = api::page_of(&app, wanted).await?;
    let now = app.clock.now();
    let kept = [("state", word), ("job", job_text.as_str()), ("host", host_text.as_str())];
    let after = found.next.map(|next| {
        let mut query = kept.to_vec();
        query.push(("cursor", &next));
        link("/runs", &query)
    });
    let filters = kept.iter().filter(|(_, value)| !value.is_empty());
    let flags = filters.map(|(key, value)| format!(" --{key} {}", quoted(value)));
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Runs, "Runs"),
        states: STATES
            .iter()
            .map(|one| (one.as_str(), Status::from(*one).word, Some(*one) == state))
            .collect(),
        filtered: kept.iter().any(|(_, value)| !value.is_empty()),
        first,
        rows: found.items.iter().map(|run| row(run, now)).collect(),
        after,
        cli: format!("fleetwright runs list{}", flags.collect::<String>()),
        job: job_text,
        host: host_text,
    }))
}

/// A run as a row.
pub(super) fn row(run: &RunSummary, now: Timestamp) -> Row {
    let what = match &run.job {
        Some(job) => job.to_string(),
        None => command(&run.command, SHOWN),
    };
    let ended = run.finished_at.unwrap_or(now);
    Row {
        id: run.id.to_string(),
        href: format!("/runs/{}", run.id),
        status: status(run),
        what,
        hosts: run.hosts.clone(),
        progress: progress(run),
        by: run.begun_by(),
        began: When::new(now, run.created_at),
        took: took(ended.since(run.created_at)),
    }
}

/// Where a run stands; one that failed on some hosts only says so.
pub(super) fn status(run: &RunSummary) -> Status {
    let good = run.report.tasks.get(&TaskState::Succeeded).copied().unwrap_or(0);
    match run.state {
        RunState::Failed if good > 0 => Status::new(Tone::Bad, "Partly failed"),
        RunState::Planned
        | RunState::Running
        | RunState::Cancelling
        | RunState::Succeeded
        | RunState::Failed
        | RunState::Cancelled => run.state.into(),
    }
}

/// How many hosts are through, and how many of them failed.
fn progress(run: &RunSummary) -> String {
    let count = |wanted: fn(TaskState) -> bool| -> u32 {
        run.report.tasks.iter().filter(|(state, _)| wanted(**state)).map(|(_, count)| count).sum()
    };
    let open = count(|state| {
        matches!(state, TaskState::Queued | TaskState::Starting | TaskState::Running)
    });
    let failed = count(TaskState::is_failure);
    let through = run.report.total.saturating_sub(open);
    match failed {
        0 => format!("{through} / {}", run.report.total),
        failed => format!("{through} / {}, {failed} failed", run.report.total),
    }
}

/// A command as a person would type it, cut.
pub(super) fn command(command: &Command, most: usize) -> String {
    let whole = match command {
        Command::Shell(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Command::Argv(words) => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    };
    match whole.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", whole.get(..at).unwrap_or_default()),
        None => whole,
    }
}
