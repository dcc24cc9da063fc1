//! Maintenance: what no job runs on now, and switching it on and off.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::Timestamp;
use fw_proto::api::Maintenance;

use super::error::{Result, render};
use super::link::quoted;
use super::page::{Nav, Page, Visit};
use super::time::When;
use crate::api::maintenance as api;
use crate::state::App;

/// Of those that are over, so many are shown, the latest.
const OVER: usize = 20;

#[derive(Debug)]
struct Row {
    id: String,
    what: String,
    covers: Option<u32>,
    reason: String,
    message: Option<String>,
    by: String,
    since: When,
    until: Option<When>,
    ended_by: Option<String>,
    end: String,
    cli: String,
}

#[derive(Template)]
#[template(path = "maintenance.html")]
struct List {
    page: Page,
    rows: Vec<Row>,
    over: Vec<Row>,
}

/// Shows maintenances.
pub(super) async fn list(State(app): State<App>, visit: Visit) -> Result<Response> {
    let now = app.clock.now();
    let (held, over): (Vec<_>, Vec<_>) =
        api::all(&app).await?.into_iter().partition(|one| one.in_force);
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Maintenance, "Maintenance"),
        rows: held.into_iter().map(|one| row(one, now)).collect(),
        over: over.into_iter().rev().take(OVER).map(|one| row(one, now)).collect(),
    }))
}

fn row(one: Maintenance, now: Timestamp) -> Row {
    let id = one.id.to_string();
    Row {
        what: one.hosts.unwrap_or_else(|| "Everything: no job fires".to_owned()),
        covers: one.covers,
        reason: one.reason,
        message: one.message,
        by: one.by,
        since: When::new(now, one.since),
        until: one.until.map(|at| When::new(now, at)),
        ended_by: one.ended_by,
        end: format!("POST /api/v1/maintenances/{id}/end"),
        cli: format!("fleetwright maintenance off {}", quoted(&id)),
        id,
    }
}
