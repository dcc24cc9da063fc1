//! The rows of topics, as the server has them now.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::change::Origin;
use fw_proto::api::{self, Host, HostState, RunSummary};
use fw_proto::{ChangeId, HostId, RunId};
use fw_store::{ChangeQuery, RunQuery};
use serde::Serialize;

use super::{Counts, Rows, Topic};
use crate::api::run;
use crate::fleet;
use crate::problem::Result;
use crate::state::App;

/// Runs of a snapshot, as many as a page of the list.
const RUNS: u32 = 100;

/// All rows of a topic; none when what it is about is not there.
pub(super) async fn all(app: &App, topic: Topic) -> Result<Rows> {
    match topic {
        Topic::Hosts => hosts(app, None).await,
        Topic::Jobs => Ok(jobs(app).await),
        Topic::Runs => runs(app).await,
        Topic::Touched => Ok(touched(app)),
        Topic::Run(id) => one_run(app, id).await,
        Topic::Changes => changes(app, None).await,
        Topic::Change(id) => one_change(app, id).await,
        Topic::Log(id) => log(app, id).await,
    }
}

/// A rollout or a runbook of a list.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ChangeRow {
    Rollout(api::RolloutSummary),
    Runbook(api::RunbookSummary),
}

/// Rollouts and runbooks: the last ones, or these.
pub(super) async fn changes(app: &App, only: Option<&BTreeSet<ChangeId>>) -> Result<Rows> {
    let query = ChangeQuery { cursor: None, limit: RUNS, origin: None };
    let last = app.store.changes(query).await?.items.into_iter();
    let meant = |id| only.is_none_or(|only| only.contains(&id));
    Ok(last.filter(|row| meant(row.id)).map(change_row).collect())
}

fn change_row(row: fw_store::ChangeRow) -> (String, Option<String>) {
    let id = row.id.to_string();
    let row = match row.origin {
        Origin::Rollout => ChangeRow::Rollout(crate::api::rollout::summary(row)),
        Origin::Runbook => ChangeRow::Runbook(crate::api::runbook::summary(row)),
    };
    (id, Some(json(&row)))
}

async fn one_change(app: &App, id: ChangeId) -> Result<Rows> {
    let Some(change) = app.changes.get(id).await? else { return Ok(Rows::new()) };
    let row = match change.plan.origin {
        Origin::Rollout => json(&crate::api::rollout::whole(app, &change).await?),
        Origin::Runbook => json(&crate::api::runbook::whole(app, &change).await?),
    };
    Ok([("change".to_owned(), Some(row))].into())
}

/// Hosts: all, or these, of which those that are no more are gone.
pub(super) async fn hosts(app: &App, only: Option<&BTreeSet<HostId>>) -> Result<Rows> {
    let mut found = app.store.hosts().to_vec();
    found.retain(|row| only.is_none_or(|only| only.contains(&row.id)));
    let present = fleet::Present::of(app, found.iter().map(|row| row.id).collect()).await?;
    let gone = only.into_iter().flatten().map(|id| (id.to_string(), None));
    let mut rows: Rows = gone.collect();
    for row in found {
        let mut host: Host = fleet::view(&row, &present);
        // Facts may be many, and no list shows them.
        host.facts.clear();
        if host.state == HostState::Online {
            // Else every sign of life would be a change.
            host.last_seen = None;
        }
        rows.insert(host.id.to_string(), Some(json(&host)));
    }
    Ok(rows)
}

pub(super) async fn jobs(app: &App) -> Rows {
    let jobs = app.jobs.list().await;
    jobs.iter().map(|job| (job.name.to_string(), Some(json(job)))).collect()
}

/// How often each kind has changed since the server was started.
pub(super) fn touched(app: &App) -> Rows {
    let Counts { hosts, jobs, runs, changes, audit } = app.feed.counts();
    let all =
        [("hosts", hosts), ("jobs", jobs), ("runs", runs), ("changes", changes), ("audit", audit)];
    let row =
        |(kind, n): (&str, u64)| (kind.to_owned(), Some(json(&serde_json::json!({ "n": n }))));
    all.map(row).into_iter().collect()
}

/// The last runs, and all that go on.
async fn runs(app: &App) -> Result<Rows> {
    let query = RunQuery { cursor: None, limit: RUNS, job: None, state: None, host: None };
    let mut rows: Rows = app.store.runs(query).await?.items.iter().map(run_row).collect();
    let open = app.hub.active().await?.into_keys().collect();
    rows.extend(app.hub.summaries(open).await?.iter().map(run_row));
    Ok(rows)
}

/// A run of a list. Long commands are for those who look at the run.
pub(super) fn run_row(summary: &RunSummary) -> (String, Option<String>) {
    let mut summary = summary.clone();
    run::shorten(&mut summary.command);
    (summary.id.to_string(), Some(json(&summary)))
}

async fn one_run(app: &App, id: RunId) -> Result<Rows> {
    if app.store.plan(id).await?.is_none() {
        return Ok(Rows::new());
    }
    let run = run::whole(app, id).await?;
    Ok(run_rows(&run.summary, &run.tasks))
}

/// A run and some of its tasks.
pub(super) fn run_rows(summary: &RunSummary, tasks: &[api::Task]) -> Rows {
    let tasks = tasks.iter().map(|task| (format!("task/{}", task.host), Some(json(task))));
    let mut rows: Rows = tasks.collect();
    let (_, run) = run_row(summary);
    rows.insert("run".to_owned(), run);
    rows
}

/// How much output a host has stored.
#[derive(Serialize)]
struct Stored {
    bytes: u64,
    dropped: u64,
}

pub(super) async fn log(app: &App, id: RunId) -> Result<Rows> {
    let Some(plan) = app.store.plan(id).await? else { return Ok(Rows::new()) };
    let names: BTreeMap<_, _> = plan.hosts.into_iter().map(|host| (host.id, host.name)).collect();
    let mut stored: BTreeMap<String, Stored> = BTreeMap::new();
    for (host, _, offsets) in app.store.log_hosts(id).await? {
        let Some(name) = names.get(&host) else { continue };
        let sum = stored.entry(name.to_string()).or_insert(Stored { bytes: 0, dropped: 0 });
        sum.bytes += offsets.stdout + offsets.stderr;
        sum.dropped += offsets.stdout_dropped + offsets.stderr_dropped;
    }
    Ok(stored.into_iter().map(|(name, stored)| (name, Some(json(&stored)))).collect())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the API's types have text keys")
}
