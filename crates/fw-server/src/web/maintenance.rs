//! Maintenance: what no job runs on now, and switching it on and off.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::Timestamp;
use fw_proto::api::{Maintenance, Recurrence, StillRunning};

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
    /// Whose jobs, if not all.
    source: Option<String>,
    covers: Option<u32>,
    reason: String,
    message: Option<String>,
    by: String,
    since: When,
    until: Option<When>,
    in_force: bool,
    recurs: Option<Recurs>,
    running: Option<Running>,
    ended_by: Option<String>,
    end: String,
    cli: String,
}

#[derive(Debug)]
struct Recurs {
    words: String,
    /// The window that is open, or the next: from and until.
    next: Option<(When, When)>,
}

/// What still runs on its hosts.
#[derive(Debug)]
struct Running {
    tasks: u32,
    words: String,
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
    let (on, over): (Vec<_>, Vec<_>) =
        api::all(&app).await?.into_iter().partition(|one| api::is_on(one, now));
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Maintenance, "Maintenance"),
        rows: on.into_iter().map(|one| row(one, now)).collect(),
        over: over.into_iter().rev().take(OVER).map(|one| row(one, now)).collect(),
    }))
}

fn row(one: Maintenance, now: Timestamp) -> Row {
    let id = one.id.to_string();
    let (by, ended_by) = (one.begun_by(), one.switched_off_by());
    Row {
        what: one.hosts.unwrap_or_else(|| "Everything".to_owned()),
        source: one.source,
        covers: one.covers,
        reason: one.reason,
        message: one.message,
        by,
        since: When::new(now, one.since),
        until: one.until.map(|at| When::new(now, at)),
        in_force: one.in_force,
        recurs: one.windows.map(|windows| recurs(&windows, now)),
        running: one.running.as_ref().map(running),
        ended_by,
        end: format!("POST /api/v1/maintenances/{id}/end"),
        cli: format!("fleetwright maintenance off {}", quoted(&id)),
        id,
    }
}

fn recurs(windows: &Recurrence, now: Timestamp) -> Recurs {
    let Recurrence { every, timezone, lasts, next } = windows;
    let window = next.map(|next| (When::new(now, next.from), When::new(now, next.until)));
    Recurs { words: format!("{every} ({timezone}), each {lasts}"), next: window }
}

fn running(running: &StillRunning) -> Running {
    let names: Vec<_> = running.on.iter().map(|host| host.as_str()).collect();
    let more = if running.hosts as usize > names.len() { " …" } else { "" };
    let words = match (running.tasks, running.hosts) {
        (0, _) => "Nothing runs there any more".to_owned(),
        (1, _) => format!("1 task still runs on {}", names.join(", ")),
        (tasks, 1) => format!("{tasks} tasks still run on {}", names.join(", ")),
        (tasks, hosts) => {
            format!("{tasks} tasks still run on {hosts} hosts: {}{more}", names.join(", "))
        }
    };
    Running { tasks: running.tasks, words }
}
