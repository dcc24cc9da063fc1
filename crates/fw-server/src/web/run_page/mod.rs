//! A run: its hosts and how far each has come, when, why it waits, and the output.

mod words;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_core::plan::Plan;
use fw_proto::api::{Command, RunSummary, Task, TaskState};
use fw_proto::{RunId, Timestamp, api};
use fw_store::Beside;

use self::words::{explain, why};
use super::error::{Result, render};
use super::link::{encode, quoted};
use super::page::{Nav, Page, Visit};
use super::time::{When, took};
use super::words::{Status, Tone};
use crate::api::run;
use crate::extract::Path;
use crate::state::App;

/// Hosts with a row of their own; of more, those that need a look come first, and the map shows all.
const ROWS: usize = 500;

/// From so many hosts on, a map of all is of use.
const MAP_FROM: usize = 12;

/// Beyond so many hosts, their number is typed before a run on them is cancelled or repeated.
const TYPED_FROM: u32 = 10;

/// Wide enough for a bar to be to the second in a run of a quarter of an hour.
const CHART: i64 = 1000;

#[derive(Debug)]
struct Row {
    host: String,
    href: String,
    log_href: String,
    status: Status,
    why: String,
    code: String,
    bar: Bar,
    took: String,
    bytes: String,
    has_log: bool,
}

/// A task's time in the time of its run, in parts of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bar {
    from: i64,
    width: i64,
}

#[derive(Debug)]
struct Count {
    status: Status,
    hosts: u32,
}

#[derive(Template)]
#[template(path = "run.html")]
struct Shown {
    page: Page,
    id: RunId,
    title: String,
    status: Status,
    is_final: bool,
    /// Whether its end was asked for already.
    is_cancelling: bool,
    by: String,
    job: Option<(String, String)>,
    retry_of: Option<RunId>,
    retry_of_short: String,
    beside: Beside,
    /// Whose runs the ones beside it are.
    of: String,
    begun: When,
    took: String,
    explain: Vec<String>,
    counts: Vec<Count>,
    total: u32,
    failed: u32,
    typed: String,
    typed_failed: String,
    command: String,
    selector: String,
    options: Vec<(&'static str, String)>,
    map: Vec<Row>,
    rows: Vec<Row>,
    more: usize,
    axis: Vec<String>,
    hosts_json: String,
    cli: String,
}

/// Shows a run.
pub(super) async fn show(
    State(app): State<App>,
    visit: Visit,
    Path(id): Path<RunId>,
) -> Result<Response> {
    let (run, plan) = (run::whole(&app, id).await?, run::plan_of(&app, id).await?);
    let page = Page::new(&app, &visit, Nav::Runs, title(&run.summary.command));
    let beside = app.store.beside(id).await?;
    Ok(render(&view(page, &run, &plan, beside, app.clock.now())))
}

fn view(page: Page, run: &api::Run, plan: &Plan, beside: Beside, now: Timestamp) -> Shown {
    let summary = &run.summary;
    let until = summary.finished_at.unwrap_or(now);
    let chart = Chart::of(run, until);
    let mut tasks: Vec<&Task> = run.tasks.iter().collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(urgency(task.state)));
    let row = |task: &&Task| row(task, &chart, until);
    let hosts: Vec<_> = run.tasks.iter().map(|task| task.host.as_str()).collect();
    let is_final = summary.state.is_final();
    let failed = run.tasks.iter().filter(|task| task.state != TaskState::Succeeded).count();
    let failed = if is_final { u32::try_from(failed).unwrap_or(u32::MAX) } else { 0 };
    let typed = |hosts: u32| if hosts > TYPED_FROM { hosts.to_string() } else { String::new() };
    Shown {
        id: summary.id,
        title: title(&summary.command),
        status: summary.state.into(),
        is_final,
        is_cancelling: summary.state == api::RunState::Cancelling,
        by: summary.begun_by(),
        job: summary
            .job
            .as_ref()
            .map(|job| (job.to_string(), format!("/jobs/{}", encode(job.as_str())))),
        retry_of: summary.retry_of,
        retry_of_short: summary.retry_of.map(short).unwrap_or_default(),
        beside,
        of: summary.job.as_ref().map(|job| format!(" of {job}")).unwrap_or_default(),
        begun: When::new(now, summary.created_at),
        took: took(until.since(summary.created_at)),
        explain: explain(summary, &run.tasks, now),
        counts: counts(summary),
        total: summary.report.total,
        failed,
        typed: typed(summary.report.total),
        typed_failed: typed(failed),
        command: command(&plan.exec.command),
        selector: summary.hosts.clone(),
        options: options(plan),
        map: if tasks.len() >= MAP_FROM {
            run.tasks.iter().map(|task| row(&task)).collect()
        } else {
            Vec::new()
        },
        rows: tasks.iter().take(ROWS).map(row).collect(),
        more: tasks.len().saturating_sub(ROWS),
        axis: chart.axis(),
        hosts_json: serde_json::to_string(&hosts).expect("names are JSON"),
        cli: cli(summary, plan),
        page,
    }
}

/// What needs a look comes first.
fn urgency(state: TaskState) -> u8 {
    match Status::from(state).tone {
        Tone::Bad => 6,
        Tone::Warn => 5,
        Tone::Hold => 4,
        Tone::Run => 3,
        Tone::Queued => 2,
        Tone::Idle => 1,
        Tone::Ok => 0,
    }
}

fn row(task: &Task, chart: &Chart, until: Timestamp) -> Row {
    let host = task.host.to_string();
    let end = task.finished_at.unwrap_or(until);
    let bytes = task.stdout_bytes.saturating_add(task.stderr_bytes);
    let code = match (task.exit_code, task.signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => String::new(),
    };
    Row {
        href: format!("/hosts/{}", encode(&host)),
        log_href: format!("?host={}#log", encode(&host)),
        status: task.state.into(),
        why: why(task),
        code,
        bar: chart.bar(task, until),
        took: task.started_at.map(|at| took(end.since(at))).unwrap_or_default(),
        bytes: amount(bytes),
        has_log: bytes > 0,
        host,
    }
}

/// The time of a run.
struct Chart {
    from: Timestamp,
    /// At least 1.
    millis: i64,
}

impl Chart {
    /// Hosts have clocks of their own: what they say lies within the chart, or makes it longer.
    fn of(run: &api::Run, until: Timestamp) -> Self {
        let begun = run.tasks.iter().filter_map(|task| task.started_at);
        let from = begun.fold(run.summary.created_at, Timestamp::min);
        let ended = run.tasks.iter().filter_map(|task| task.finished_at);
        let until = ended.fold(until, Timestamp::max);
        Self { from, millis: (until.as_millis() - from.as_millis()).max(1) }
    }

    fn at(&self, time: Timestamp) -> i64 {
        let passed = time.as_millis().saturating_sub(self.from.as_millis());
        (passed.saturating_mul(CHART) / self.millis).clamp(0, CHART)
    }

    fn bar(&self, task: &Task, until: Timestamp) -> Bar {
        let Some(started) = task.started_at else { return Bar { from: 0, width: 0 } };
        let (from, to) = (self.at(started), self.at(task.finished_at.unwrap_or(until)));
        // What was quick is seen as well.
        let width = (to - from).max(6);
        Bar { from: from.min(CHART - width), width }
    }

    /// The times at the beginning, in the middle and at the end.
    fn axis(&self) -> Vec<String> {
        let millis = u64::try_from(self.millis).unwrap_or_default();
        let at = |part: u64| fw_proto::Span::from_millis(millis * part / 2);
        vec!["0".to_owned(), took(at(1)), took(at(2))]
    }
}

fn counts(summary: &RunSummary) -> Vec<Count> {
    let counts = summary.report.tasks.iter();
    counts.map(|(state, hosts)| Count { status: (*state).into(), hosts: *hosts }).collect()
}

/// A command in one line.
fn title(of: &Command) -> String {
    let mut title = command(of).lines().next().unwrap_or_default().to_owned();
    let most = title.floor_char_boundary(100);
    if title.len() > most {
        title.truncate(most);
        title.push('…');
    }
    title
}

fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.clone(),
        Command::Argv(words) => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

/// What a run was begun with, beside its command.
fn options(plan: &Plan) -> Vec<(&'static str, String)> {
    let (exec, limits) = (&plan.exec, &plan.limits);
    let some = |name, value: Option<String>| value.map(|value| (name, value));
    let all = [
        some("User", exec.user.clone()),
        some("Directory", exec.cwd.clone()),
        some("Timeout", exec.timeout.map(|span| span.to_string())),
        some("Hosts at once", limits.parallel.map(|most| most.to_string())),
        some("Failures allowed", limits.max_failures.map(|most| format!("fewer than {most}"))),
        some("Spread over", limits.spread.map(|span| span.to_string())),
    ];
    all.into_iter().flatten().collect()
}

/// The same as a command line. Secrets and the environment are left out: they may be long, and a job has them.
fn cli(summary: &RunSummary, plan: &Plan) -> String {
    let mut line = format!("fleetwright run {}", quoted(&summary.hosts));
    let (exec, limits) = (&plan.exec, &plan.limits);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.extend([" --", name, " ", &quoted(&value)]);
        }
    };
    add("user", exec.user.clone());
    add("cwd", exec.cwd.clone());
    add("timeout", exec.timeout.map(|span| span.to_string()));
    add("parallel", limits.parallel.map(|most| most.to_string()));
    add("max-failures", limits.max_failures.map(|most| most.to_string()));
    add("spread", limits.spread.map(|span| span.to_string()));
    match &exec.command {
        Command::Shell(text) => add("shell", Some(text.clone())),
        Command::Argv(_) => line.extend([" -- ", &command(&exec.command)]),
    }
    line
}

/// The last part of an id, which tells runs of a day apart.
fn short(id: RunId) -> String {
    let text = id.to_string();
    text.get(text.len().saturating_sub(8)..).unwrap_or_default().to_owned()
}

/// Bytes as people read them.
fn amount(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        1..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

#[cfg(test)]
mod tests;
