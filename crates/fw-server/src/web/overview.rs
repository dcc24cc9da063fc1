//! The overview: what needs attention first, then how the fleet is.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_core::change::Origin;
use fw_proto::api::{AuditEntry, FireReason, HostState, RunState};
use fw_proto::{Span, Timestamp};
use fw_store::{AuditQuery, ChangeRow, RunQuery};

use super::error::{Result, render};
use super::job;
use super::link::{encode, link};
use super::page::{Nav, Page, Visit};
use super::run;
use super::time::When;
use super::words::Status;
use crate::fleet;
use crate::state::App;

/// A day.
const DAY: Span = Span::from_secs(24 * 60 * 60);

/// Rows of fires that did not run that are looked through: an overview must not read a million.
const LOOKED_AT: u32 = 1000;

/// Entries of each kind that need attention.
const EACH: usize = 8;

/// Entries of the audit among which changes are looked for.
const CHANGES_LOOKED_AT: u32 = 100;

/// Fires that are foretold.
const NEXT: usize = 10;

/// Something that a person should look at.
#[derive(Debug)]
struct Item {
    status: Status,
    what: String,
    href: String,
    why: String,
    at: Option<When>,
}

/// Hosts in one state, and their part of the bar.
#[derive(Debug)]
struct Part {
    status: Status,
    count: usize,
    x: usize,
    width: usize,
}

#[derive(Debug)]
struct Next {
    name: String,
    href: String,
    at: When,
    hosts: String,
}

/// Something that somebody changed.
#[derive(Debug)]
struct Change {
    n: i64,
    by: String,
    action: String,
    subject: String,
    at: When,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Show {
    page: Page,
    total: usize,
    attention: Vec<Item>,
    more: Vec<(String, String)>,
    parts: Vec<Part>,
    runs: u64,
    failed: u64,
    rate: String,
    active: usize,
    next: Vec<Next>,
    jobs: usize,
    recent: Vec<run::Row>,
    changes: Vec<Change>,
    reasons: Vec<String>,
}

/// Shows how the fleet is.
pub(super) async fn show(State(app): State<App>, visit: Visit) -> Result<Response> {
    let now = app.clock.now();
    let rows = app.store.hosts();
    let present = fleet::Present::of(&app, rows.iter().map(|row| row.id).collect()).await?;
    let views: Vec<_> = rows.iter().map(|row| (row, fleet::state(row, &present))).collect();
    let mut more = Vec::new();
    let mut attention = waiting_changes(&app, now).await?;
    attention.extend(failed_runs(&app, now, &mut more).await?);
    attention.extend(lost_fires(&app, now).await?);
    let away = views
        .iter()
        .filter(|(_, state)| matches!(state, HostState::Offline | HostState::Duplicate));
    let away: Vec<_> = away.collect();
    if away.len() > EACH {
        more.push((
            format!("{} more hosts unreachable", away.len() - EACH),
            link("/hosts", &[("sort", "state")]),
        ));
    }
    attention.extend(away.into_iter().take(EACH).map(|(row, state)| Item {
        status: (*state).into(),
        what: row.name.to_string(),
        href: format!("/hosts/{}", encode(row.name.as_str())),
        why: "its agent is not linked".to_owned(),
        at: row.offline_since.or(row.last_seen).map(|at| When::new(now, at)),
    }));
    let ended = app.store.ended_since(now - DAY).await?;
    let (runs, failed) =
        (ended.values().sum::<u64>(), ended.get(&RunState::Failed).copied().unwrap_or(0));
    let jobs = app.jobs.list().await;
    let recent = app.store.runs(RunQuery { limit: 8, ..RunQuery::default() }).await?;
    let page = Page::new(&app, &visit, Nav::Overview, "Overview");
    Ok(render(&Show {
        changes: if page.may.grant.is() { changes(&app, now).await? } else { Vec::new() },
        page,
        total: rows.len(),
        attention,
        more,
        parts: parts(views.iter().map(|(_, state)| *state)),
        runs,
        failed,
        rate: rate(runs, failed),
        active: app.hub.counts().await?.runs_active,
        next: next(&jobs, now),
        jobs: jobs.len(),
        recent: recent.items.iter().map(|run| run::row(run, now)).collect(),
        reasons: app.health.reasons(),
    }))
}

/// The part of runs that succeeded, rounded down: only all is 100%.
fn rate(runs: u64, failed: u64) -> String {
    match runs {
        0 => "nothing has run".to_owned(),
        runs => {
            let permille = (runs - failed) * 1000 / runs;
            format!("{}.{}% succeeded", permille / 10, permille % 10)
        }
    }
}

async fn failed_runs(
    app: &App,
    now: Timestamp,
    more: &mut Vec<(String, String)>,
) -> Result<Vec<Item>> {
    let query = RunQuery { state: Some(RunState::Failed), limit: 100, ..RunQuery::default() };
    let found = app.store.runs(query).await?.items;
    let new: Vec<_> = found.iter().filter(|run| run.created_at >= now - DAY).collect();
    // Of a job that fails again and again the last time is enough.
    let mut seen = BTreeMap::new();
    for run in new {
        let key = run.job.as_ref().map_or_else(|| run.id.to_string(), |job| format!("job:{job}"));
        seen.entry(key).or_insert((run, 0_u32)).1 += 1;
    }
    let mut last: Vec<_> = seen.into_values().collect();
    last.sort_by_key(|(run, _)| std::cmp::Reverse(run.created_at));
    if last.len() > EACH {
        more.push((
            format!("{} more that failed", last.len() - EACH),
            link("/runs", &[("state", "failed")]),
        ));
    }
    let item = |(run, times): &(&fw_proto::api::RunSummary, u32)| {
        let row = run::row(run, now);
        let why = match times {
            1 => format!("hosts done: {}; by {}", row.progress, row.by),
            times => format!("hosts done: {}; failed {times} times in 24 h", row.progress),
        };
        Item { status: row.status, what: row.what, href: row.href, why, at: Some(row.began) }
    };
    Ok(last.iter().take(EACH).map(item).collect())
}

/// Rollouts and runbooks that wait for a person, and those that could not be taken back.
async fn waiting_changes(app: &App, now: Timestamp) -> Result<Vec<Item>> {
    let most = u32::try_from(EACH).unwrap_or(u32::MAX);
    let found = app.store.changes_to_look_at(now - DAY, most).await?;
    let item = |row: ChangeRow| Item {
        status: row.state.into(),
        what: row.title,
        href: match row.origin {
            Origin::Rollout => format!("/rollouts/{}", row.id),
            Origin::Runbook => format!("/runbooks/{}", row.id),
        },
        why: row.why.unwrap_or_default(),
        at: Some(When::new(now, row.finished_at.unwrap_or(row.created_at))),
    };
    Ok(found.into_iter().map(item).collect())
}

/// Fires that were lost, or skipped for a reason that someone should mend; the last of each job.
async fn lost_fires(app: &App, now: Timestamp) -> Result<Vec<Item>> {
    let mut seen = BTreeMap::new();
    for (name, fire) in app.store.fires_not_run(now - DAY, LOOKED_AT).await? {
        if is_trouble(fire.reason) {
            let entry = seen.entry(name).or_insert_with(|| (fire.clone(), 0));
            entry.1 += fire.count;
        }
    }
    let item = |(name, (fire, count)): (fw_proto::JobName, (fw_proto::api::Fire, u64))| Item {
        status: fire.verdict.into(),
        what: name.to_string(),
        href: format!("{}#ledger", job::href(&name)),
        why: match count {
            1 => job::why(fire.verdict, fire.reason).to_owned(),
            count => format!("{count} fires: {}", job::why(fire.verdict, fire.reason)),
        },
        at: Some(When::new(now, fire.to)),
    };
    Ok(seen.into_iter().map(item).take(EACH).collect())
}

/// What was changed last. Who signs in and out changes nothing.
async fn changes(app: &App, now: Timestamp) -> Result<Vec<Change>> {
    let query = AuditQuery { limit: CHANGES_LOOKED_AT, ..AuditQuery::default() };
    let entries = app.store.audit(query).await?.items.into_iter();
    let changes = entries.filter(|entry| !entry.action.starts_with("session."));
    let row = |entry: AuditEntry| Change {
        n: entry.n,
        by: entry.by,
        action: entry.action,
        subject: entry.subject,
        at: When::new(now, entry.at),
    };
    Ok(changes.take(EACH).map(row).collect())
}

/// Whether a fire did not run for a reason that nobody chose.
const fn is_trouble(reason: Option<FireReason>) -> bool {
    match reason {
        Some(
            FireReason::Overlap
            | FireReason::NoHosts
            | FireReason::Downtime
            | FireReason::ClockJump
            | FireReason::NoSecret,
        )
        | None => true,
        Some(
            FireReason::Paused
            | FireReason::DstGap
            | FireReason::Changed
            | FireReason::Manual
            | FireReason::Calendar
            | FireReason::Window
            | FireReason::Maintenance,
        ) => false,
    }
}

/// The bar of hosts, in thousandths of its width; each state that there is can be seen.
fn parts(states: impl Iterator<Item = HostState>) -> Vec<Part> {
    let mut counts = BTreeMap::<HostState, usize>::new();
    states.for_each(|state| *counts.entry(state).or_default() += 1);
    let total: usize = counts.values().sum();
    let width = |count: usize| (count * 1000 / total.max(1)).max(12);
    let all: usize = counts.values().map(|count| width(*count)).sum();
    let mut x = 0;
    let part = |(state, count): (HostState, usize)| {
        let width = width(count) * 1000 / all.max(1);
        let part = Part { status: state.into(), count, x, width: width.saturating_sub(4) };
        x += width;
        part
    };
    counts.into_iter().map(part).collect()
}

fn next(jobs: &[fw_proto::api::Job], now: Timestamp) -> Vec<Next> {
    let mut due: Vec<_> = jobs
        .iter()
        .filter(|job| !job.paused)
        .filter_map(|job| Some((job.next_fire?, job)))
        .collect();
    due.sort_by_key(|(at, job)| (*at, job.name.clone()));
    let row = |(at, job): (Timestamp, &fw_proto::api::Job)| Next {
        name: job.name.to_string(),
        href: job::href(&job.name),
        at: When::new(now, at),
        hosts: job.spec.hosts.clone(),
    };
    due.into_iter().take(NEXT).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::words::Tone;
    use super::*;

    #[test]
    fn each_state_can_be_seen_in_the_bar() {
        let states = std::iter::repeat_n(HostState::Online, 999).chain([HostState::Offline]);
        let parts = parts(states);
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|part| part.width >= 7), "{parts:?}");
        assert!(parts.iter().map(|part| part.x + part.width).max() <= Some(1000));
        assert_eq!(parts[1].status, Status::new(Tone::Bad, "Unreachable"));
    }

    #[test]
    fn only_all_is_a_hundred_percent() {
        assert_eq!(rate(10_000, 1), "99.9% succeeded");
        assert_eq!(rate(5, 0), "100.0% succeeded");
        assert_eq!(rate(0, 0), "nothing has run");
    }
}
