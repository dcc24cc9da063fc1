//! One host: what it says of itself, what is said of it, what ran there, and what may be done.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_core::select::Selector;
use fw_proto::api::{HostState, RunState};
use fw_store::{HostRow, RunQuery};

use super::error::{Result, render};
use super::host::{fact, system};
use super::job;
use super::link::{encode, link, quoted};
use super::page::{Nav, Page, Visit};
use super::run;
use super::strip::{BARS, Strip};
use super::time::When;
use super::words::Status;
use crate::extract::Path;
use crate::fleet;
use crate::state::App;

/// Jobs that a page names; the list of jobs has all.
const JOBS: usize = 20;

#[derive(Debug)]
struct Job {
    name: String,
    href: String,
    status: Status,
    schedule: String,
    next: Option<When>,
}

#[derive(Template)]
#[template(path = "host.html")]
struct Show {
    page: Page,
    name: String,
    api: String,
    id: String,
    status: Status,
    revoked: bool,
    seen: Option<When>,
    joined: When,
    system: String,
    address: String,
    agent: String,
    policy: String,
    maintenance: Option<String>,
    labels: Vec<(String, String)>,
    facts: Vec<(String, String)>,
    strip: Strip,
    jobs: Vec<Job>,
    more_jobs: usize,
    runs: Vec<run::Row>,
    runs_href: String,
    run_href: String,
    show_cli: String,
    revoke_cli: String,
}

/// Shows a host by name or id.
pub(super) async fn show(
    State(app): State<App>,
    visit: Visit,
    Path(name): Path<String>,
) -> Result<Response> {
    let row = fleet::find(&app, &name)?;
    let present = fleet::Present::of(&app, vec![row.id]).await?;
    let host = fleet::view(&row, &present);
    let now = app.clock.now();
    let (name, plain) = (row.name.to_string(), quoted(row.name.as_str()));
    let query = RunQuery { host: Some(row.name.clone()), limit: 15, ..RunQuery::default() };
    let runs = app.store.runs(query).await?;
    let last = app.store.last_tasks(vec![row.name.clone()], BARS).await?;
    let (jobs, more_jobs) = jobs(&app, &row).await;
    let online = host.state == HostState::Online;
    let facts = host.facts.iter().map(|(key, value)| (key.clone(), text(value)));
    Ok(render(&Show {
        page: Page::new(&app, &visit, Nav::Hosts, &name),
        api: format!("/api/v1/hosts/{}", encode(&name)),
        id: row.id.to_string(),
        status: host.state.into(),
        revoked: host.state == HostState::Revoked,
        seen: if online { Some(now) } else { host.last_seen }.map(|at| When::new(now, at)),
        joined: When::new(now, host.joined_at),
        system: system(&host),
        address: fact(&host, "ipv4"),
        agent: host.agent_version.clone().unwrap_or_else(|| "unknown".to_owned()),
        policy: host.policy.clone().unwrap_or_else(|| "unknown".to_owned()),
        maintenance: host.maintenance.map(|id| id.to_string()),
        facts: facts.collect(),
        labels: host.labels.into_iter().collect(),
        strip: last
            .values()
            .next()
            .map_or_else(|| Strip::of_runs([] as [RunState; 0]), |states| Strip::of_tasks(states)),
        jobs,
        more_jobs,
        runs: runs.items.iter().map(|run| run::row(run, now)).collect(),
        runs_href: link("/runs", &[("host", &name)]),
        run_href: link("/run", &[("hosts", &name)]),
        show_cli: format!("fleetwright hosts show {plain}"),
        revoke_cli: format!("fleetwright hosts revoke {plain}"),
        name,
    }))
}

/// The jobs that are for this host, and how many more there are.
async fn jobs(app: &App, row: &HostRow) -> (Vec<Job>, usize) {
    let now = app.clock.now();
    let all = app.jobs.list().await;
    let meant = |job: &fw_proto::api::Job| {
        Selector::parse(&job.spec.hosts).is_ok_and(|selector| selector.matches(fleet::seen(row)))
    };
    let mut meant: Vec<_> = all.iter().filter(|job| meant(job)).collect();
    let more = meant.len().saturating_sub(JOBS);
    meant.truncate(JOBS);
    let shown = meant.into_iter().map(|one| Job {
        name: one.name.to_string(),
        href: job::href(&one.name),
        status: job::status(one),
        schedule: one.spec.schedule.clone(),
        next: one.next_fire.map(|at| When::new(now, at)),
    });
    (shown.collect(), more)
}

/// A fact in a line.
fn text(value: &serde_json::Value) -> String {
    match (value.as_str(), value.as_array()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(list)) => list.iter().map(text_of_one).collect::<Vec<_>>().join(", "),
        (None, None) => value.to_string(),
    }
}

fn text_of_one(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
