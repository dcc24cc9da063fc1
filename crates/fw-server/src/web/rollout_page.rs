//! A rollout: its waves side by side, what may still fail, what it waits for, and what a person can do about it.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_core::change::Origin;
use fw_proto::api::{Budget, Gate, Rollout, RolloutHost, RolloutHostState, Wave};
use fw_proto::{ChangeId, Timestamp};

use super::error::{Result, render};
use super::link::encode;
use super::page::{Nav, Page, Visit};
use super::time::{When, about, took};
use super::words::{Actions, Status, proof};
use crate::api::{change, rollout as api};
use crate::extract::Path;
use crate::state::App;

/// Hosts of a wave that are named; of more, those that need a look come first.
const NAMED: usize = 40;

#[derive(Debug)]
struct Column {
    name: String,
    status: Status,
    done: usize,
    total: usize,
    fill: usize,
    gate: Option<Asked>,
    soak: String,
    hosts: Vec<Named>,
    more: usize,
}

#[derive(Debug)]
struct Named {
    host: String,
    href: String,
    status: Status,
    proof: &'static str,
}

/// An approval: who is asked, and who has said yes.
#[derive(Debug)]
struct Asked {
    words: String,
    approvals: Vec<(String, When)>,
    expires: Option<When>,
}

#[derive(Debug)]
struct Ran {
    href: String,
    what: String,
    hosts: u32,
    ended: bool,
}

#[derive(Template)]
#[template(path = "rollout.html")]
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
    actions: Actions,
    budget: Budget,
    marks: Vec<&'static str>,
    soaks_until: Option<When>,
    rehearsal: Option<(String, Status)>,
    waves: Vec<Column>,
    runs: Vec<Ran>,
    source: String,
    cli: String,
}

/// Shows a rollout.
pub(super) async fn show(
    State(app): State<App>,
    visit: Visit,
    Path(id): Path<ChangeId>,
) -> Result<Response> {
    let found = change::find(&app, Origin::Rollout, id).await?;
    let rollout = api::whole(&app, &found).await?;
    let page = Page::new(&app, &visit, Nav::Rollouts, rollout.summary.name.clone());
    Ok(render(&view(page, &rollout, app.clock.now())))
}

fn view(page: Page, rollout: &Rollout, now: Timestamp) -> Shown {
    let summary = &rollout.summary;
    let until = summary.finished_at.unwrap_or(now);
    Shown {
        page,
        id: summary.id,
        name: summary.name.clone(),
        status: summary.state.into(),
        why: summary.why.clone().unwrap_or_default(),
        by: summary.begun_by(),
        began: When::new(now, summary.created_at),
        took: took(until.since(summary.created_at)),
        is_final: summary.state.is_final(),
        actions: summary.state.into(),
        budget: rollout.budget,
        marks: marks(rollout.budget),
        soaks_until: rollout.soaks_until.map(|at| When::new(now, at)),
        rehearsal: rollout.rehearsal.as_ref().map(|one| (one.host.to_string(), one.state.into())),
        waves: rollout.waves.iter().map(|wave| column(wave, rollout, now)).collect(),
        runs: rollout
            .runs
            .iter()
            .map(|run| Ran {
                href: format!("/runs/{}", run.run),
                what: if run.undo { format!("undo of {}", run.node) } else { run.node.clone() },
                hosts: run.hosts,
                ended: run.ended,
            })
            .collect(),
        source: rollout.source.clone(),
        cli: format!("fleetwright rollouts show {}", summary.id),
    }
}

/// The most failures that are drawn one by one.
const DRAWN: u32 = 24;

/// A mark for each failure that is allowed: used up, at stake, or left.
fn marks(budget: Budget) -> Vec<&'static str> {
    let at_stake = budget.failed.saturating_add(budget.in_flight);
    let mark = |n: u32| match n {
        n if n < budget.failed => "bad",
        n if n < at_stake => "run",
        _ => "left",
    };
    (0..budget.max.min(DRAWN)).map(mark).collect()
}

fn asked(gate: &Gate, now: Timestamp) -> Asked {
    let people = match gate.people {
        1 => format!("one {}", gate.role),
        people => format!("{people} people of role {}", gate.role),
    };
    Asked {
        words: format!("{} of {people} approved", gate.approvals.len()),
        approvals: gate
            .approvals
            .iter()
            .map(|one| (one.given_by(), When::new(now, one.at)))
            .collect(),
        expires: gate.expires_at.map(|at| When::new(now, at)),
    }
}

fn column(wave: &Wave, rollout: &Rollout, now: Timestamp) -> Column {
    let mut hosts: Vec<_> = rollout.hosts.iter().filter(|one| one.wave == wave.number).collect();
    let done = hosts.iter().filter(|one| one.state == RolloutHostState::Done).count();
    let total = hosts.len();
    hosts.sort_by_key(|one| urgency(one.state));
    Column {
        name: wave.name.clone(),
        status: wave.state.into(),
        done,
        total,
        fill: (done * 100).checked_div(total).unwrap_or(0),
        gate: wave.approval.as_ref().map(|gate| asked(gate, now)),
        soak: wave.soak.map(|soak| format!("soaks {}", about(soak))).unwrap_or_default(),
        more: total.saturating_sub(NAMED),
        hosts: hosts.into_iter().take(NAMED).map(named).collect(),
    }
}

/// What needs a look comes first; what is alike stays in its order.
const fn urgency(state: RolloutHostState) -> u8 {
    match state {
        RolloutHostState::UndoFailed => 0,
        RolloutHostState::Failed | RolloutHostState::Unknown | RolloutHostState::Refused => 1,
        RolloutHostState::Undoing | RolloutHostState::Running => 2,
        RolloutHostState::Waiting
        | RolloutHostState::Done
        | RolloutHostState::Skipped
        | RolloutHostState::Undone => 3,
    }
}

fn named(one: &RolloutHost) -> Named {
    Named {
        host: one.host.to_string(),
        href: format!("/hosts/{}", encode(one.host.as_str())),
        status: one.state.into(),
        proof: one.proof.map_or("", proof),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_drawn_failure_by_failure() {
        let marks = |max, failed, in_flight| marks(Budget { max, failed, in_flight });
        assert_eq!(marks(3, 1, 1), ["bad", "run", "left"]);
        assert_eq!(marks(2, 2, 5), ["bad", "bad"]);
        assert_eq!(marks(1, 0, 0), ["left"]);
        assert_eq!(marks(5000, 0, 0).len(), 24);
    }
}
