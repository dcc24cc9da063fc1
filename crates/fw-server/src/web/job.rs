//! Jobs: when they run, how it went, and one of them with all that is known of it.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_core::job::JobDef;
use fw_proto::api::{Fire, FireReason, Job, JobSource, JobWaiting, RunState, Verdict};
use fw_proto::{JobName, Span, Timestamp};
use fw_store::{Past, RunQuery};
use serde::Deserialize;

use super::error::{Result, render};
use super::heat::{self, Heat};
use super::link::{encode, link, quoted};
use super::page::{Nav, Page, Visit};
use super::run;
use super::spec;
use super::strip::{BARS, Strip};
use super::time::{When, took};
use super::trend::Trend;
use super::words::{self, Status, Tone};
use crate::extract::{Path, Query};
use crate::fleet;
use crate::problem::Failure;
use crate::state::App;

/// Rows of the list.
const ROWS: usize = 100;

/// Rows of the ledger on a page.
const LEDGER: u32 = 30;

/// Fires that are foretold.
const FORETOLD: usize = 10;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    q: String,
    page: usize,
}

#[derive(Debug)]
struct Row {
    name: String,
    href: String,
    status: Status,
    schedule: String,
    zone: String,
    next: Option<When>,
    hosts: String,
    strip: Strip,
    took: String,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct List {
    page: Page,
    q: String,
    total: usize,
    matching: usize,
    errors: Vec<String>,
    rows: Vec<Row>,
    before: Option<String>,
    after: Option<String>,
    held: Option<String>,
}

/// Shows jobs by name.
pub(super) async fn list(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let q = query.q.trim().to_owned();
    let mut jobs = app.jobs.list().await;
    let total = jobs.len();
    let lower = q.to_lowercase();
    jobs.retain(|job| job.name.as_str().to_lowercase().contains(&lower));
    let matching = jobs.len();
    let last = matching.saturating_sub(1) / ROWS;
    let page = query.page.clamp(1, last + 1);
    let jobs: Vec<_> = jobs.into_iter().skip((page - 1) * ROWS).take(ROWS).collect();
    let names = jobs.iter().map(|job| job.name.clone()).collect();
    let past = app.store.past_of_jobs(names, BARS).await?;
    let now = app.clock.now();
    let at = |page: usize| link("/jobs", &[("q", &q), ("page", &page.to_string())]);
    let rows =
        jobs.iter().map(|job| row(job, past.get(&job.name).map_or(&[][..], Vec::as_slice), now));
    let errors = app.jobs.errors().await;
    let rows = rows.collect();
    let everything = app.jobs.held().everything(now).is_some();
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Jobs, "Jobs"),
        total,
        matching,
        errors: errors.iter().map(ToString::to_string).collect(),
        rows,
        before: (page > 1).then(|| at(page - 1)),
        after: (page <= last).then(|| at(page + 1)),
        held: everything.then(|| "Everything is in maintenance: no job fires.".to_owned()),
        q,
    }))
}

fn row(job: &Job, past: &[Past], now: Timestamp) -> Row {
    let last = past.iter().find_map(|run| Some(run.finished_at?.since(run.created_at)));
    Row {
        name: job.name.to_string(),
        href: href(&job.name),
        status: status(job),
        schedule: job.spec.schedule.clone(),
        zone: job.spec.timezone.clone(),
        next: job.next_fire.filter(|_| !job.paused).map(|at| When::new(now, at)),
        hosts: job.spec.hosts.clone(),
        strip: Strip::of_runs(past.iter().map(|run| run.state)),
        took: last.map(took).unwrap_or_default(),
    }
}

/// The page of a job.
pub(super) fn href(name: &JobName) -> String {
    format!("/jobs/{}", encode(name.as_str()))
}

/// The most important thing to know of a job.
pub(super) fn status(job: &Job) -> Status {
    let retrying = job.waiting.iter().any(|what| matches!(what, JobWaiting::Retry { .. }));
    match (job.error.is_some(), job.paused, job.spec.enabled, job.last_failed) {
        (true, ..) => Status::new(Tone::Warn, "File error"),
        (_, true, ..) => Status::new(Tone::Idle, "Paused"),
        (_, _, false, _) => Status::new(Tone::Idle, "Disabled"),
        (_, _, true, _) if retrying => Status::new(Tone::Warn, "Will retry"),
        (_, _, true, Some(true)) => Status::new(Tone::Bad, "Failed"),
        (_, _, true, Some(false)) => Status::new(Tone::Ok, "Succeeded"),
        (_, _, true, None) if job.last_run.is_some() => Status::new(Tone::Run, "Running"),
        (_, _, true, None) => Status::new(Tone::Queued, "Not run yet"),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShowQuery {
    cursor: String,
}

#[derive(Debug)]
struct Foretold {
    at: When,
    wall: String,
    note: Option<&'static str>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    status: Status,
    why: &'static str,
    wall: String,
    until: Option<String>,
    count: u64,
    at: When,
    run: Option<String>,
    late: Option<String>,
}

#[derive(Template)]
#[template(path = "job.html")]
struct Show {
    page: Page,
    name: String,
    api: String,
    status: Status,
    paused: bool,
    source: String,
    deletable: bool,
    error: Option<String>,
    waiting: Vec<String>,
    schedule: String,
    zone: String,
    hosts: String,
    hosts_href: String,
    covers: usize,
    next: Vec<Foretold>,
    heat: Heat,
    trend: Option<Trend>,
    ledger: Vec<Entry>,
    first: bool,
    after: Option<String>,
    runs: Vec<run::Row>,
    spec: Vec<(&'static str, String)>,
    command: String,
    run_cli: String,
    show_cli: String,
}

/// Shows a job. One that is no more keeps its ledger, which the command line shows.
pub(super) async fn show(
    State(app): State<App>,
    visit: Visit,
    Path(name): Path<JobName>,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let missing =
        || Failure::not_found("job", &name, "the list of jobs shows those that there are");
    let job = app.jobs.show(&name).await.ok_or_else(missing)?;
    let def = app.jobs.def(&name).await.ok_or_else(missing)?;
    let now = app.clock.now();
    let cursor = Some(query.cursor).filter(|cursor| !cursor.is_empty());
    let first = cursor.is_none();
    let ledger = app.store.ledger(&name, cursor, LEDGER).await?;
    let runs = RunQuery { job: Some(name.clone()), limit: 10, ..RunQuery::default() };
    let runs = app.store.runs(runs).await?;
    let past = app.store.past_of_jobs(vec![name.clone()], 40).await?.remove(&name);
    let since = now - Span::from_secs(heat::DAYS * 24 * 60 * 60);
    let quarters = app.store.fires_by_quarter(&name, since).await?;
    let covers = fleet::choose(&app.store.hosts(), &def.selector).len();
    let plain = name.as_str();
    Ok(render(&Show {
        page: Page::new(&app, &visit, Nav::Jobs, plain),
        api: format!("/api/v1{}", href(&name)),
        status: status(&job),
        paused: job.paused,
        source: source(&job.source),
        deletable: job.source == JobSource::Api,
        error: job.error.as_ref().map(ToString::to_string),
        waiting: job.waiting.iter().map(|what| waiting(what, now)).collect(),
        schedule: job.spec.schedule.clone(),
        zone: def.schedule.timezone().to_owned(),
        hosts_href: link("/hosts", &[("q", &job.spec.hosts)]),
        hosts: job.spec.hosts.clone(),
        covers,
        next: if job.paused || !job.spec.enabled { Vec::new() } else { foretell(&def, now) },
        heat: Heat::new(&def.schedule, now, &quarters),
        trend: Trend::new(&past.unwrap_or_default()),
        ledger: ledger.items.iter().map(|fire| entry(&def, fire, now)).collect(),
        first,
        after: ledger.next.map(|next| link(&href(&name), &[("cursor", &next)])),
        runs: runs.items.iter().map(|run| run::row(run, now)).collect(),
        spec: spec::lines(&job.spec),
        command: spec::command(&job.spec.command),
        run_cli: format!("fleetwright jobs run {}", quoted(plain)),
        show_cli: format!("fleetwright jobs show {}", quoted(plain)),
        name: name.to_string(),
    }))
}

/// The next fires that are not kept back by the calendar, each with what the clocks do to it.
fn foretell(def: &JobDef, now: Timestamp) -> Vec<Foretold> {
    let runs = std::iter::successors(def.next_run(now), |at| def.next_run(*at));
    let mut offset = zone_of(&def.schedule.wall(now));
    let told = |at: Timestamp| {
        let wall = def.schedule.wall(at);
        let due = def.schedule.next_after(at - Span::from_millis(1));
        let before = std::mem::replace(&mut offset, zone_of(&wall));
        let note = if due.is_some_and(|fire| fire.dst_gap) {
            Some("the clocks go forward over it: it runs at the first instant after the gap")
        } else {
            (before != offset).then_some("the first after the clocks change")
        };
        Foretold { at: When::new(now, at), wall, note }
    };
    runs.take(FORETOLD).map(told).collect()
}

/// The offset at the end of a wall time.
fn zone_of(wall: &str) -> String {
    wall.rsplit(' ').next().unwrap_or_default().to_owned()
}

fn entry(def: &JobDef, fire: &Fire, now: Timestamp) -> Entry {
    let late = fire.lag_ms.map(Span::from_millis).filter(|lag| *lag > Span::from_secs(5));
    Entry {
        id: format!("{}-{}", fire.from.as_millis(), fire.count),
        status: fire.verdict.into(),
        why: why(fire.verdict, fire.reason),
        wall: def.schedule.wall(fire.from),
        until: (fire.from != fire.to).then(|| def.schedule.wall(fire.to)),
        count: fire.count,
        at: When::new(now, fire.from),
        run: fire.run_id.map(|run| format!("/runs/{run}")),
        late: late.map(|lag| format!("{} late", took(lag))),
    }
}

/// Why a fire has its verdict, in words.
pub(super) fn why(verdict: Verdict, reason: Option<FireReason>) -> &'static str {
    match reason {
        Some(reason) => words::reason(reason),
        None => match verdict {
            Verdict::Pending => "waits for the job's earlier run to end",
            Verdict::Ran => "",
            Verdict::Skipped => "not run, on purpose",
            Verdict::Coalesced => "a later fire took its place in the queue",
            Verdict::CaughtUp => "made up for after the server was down",
            Verdict::Missed => "the server was down",
            Verdict::Shadow => "only said: another scheduler starts it",
        },
    }
}

fn source(source: &JobSource) -> String {
    match source {
        JobSource::File(file) => format!("file {file}"),
        JobSource::Api => "jobs apply".to_owned(),
        JobSource::Dialect { name, file } => format!("{name} file {file}"),
    }
}

fn waiting(what: &JobWaiting, now: Timestamp) -> String {
    match what {
        JobWaiting::Queued { nominal } => {
            format!("The fire of {nominal} waits for the end of the earlier run.")
        }
        JobWaiting::Retry { at, .. } => {
            format!("The last run failed; it is tried again {}.", When::new(now, *at).text)
        }
        JobWaiting::CatchUp { fires, .. } => {
            format!("Fires that were lost wait to be caught up: {fires}.")
        }
    }
}

/// Whether a run of a job counts as one that went well.
pub(super) fn went_well(state: RunState) -> bool {
    match state {
        RunState::Succeeded => true,
        RunState::Planned
        | RunState::Running
        | RunState::Cancelling
        | RunState::Failed
        | RunState::Cancelled => false,
    }
}
