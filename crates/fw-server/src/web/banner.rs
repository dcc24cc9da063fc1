//! What stands above every page: the maintenances in force. A page that follows nothing else asks for this alone.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::Timestamp;
use fw_proto::api::MaintenanceNow;

use super::error::{Result, render};
use super::page::{Nav, Page, Visit};
use super::time::When;
use crate::state::App;

/// So many are shown, the earliest; the page of maintenances has all.
const SHOWN: usize = 3;

/// A maintenance in force.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) id: String,
    pub(super) what: String,
    pub(super) reason: String,
    pub(super) message: Option<String>,
    pub(super) until: Option<When>,
}

#[derive(Template)]
#[template(path = "banner_alone.html")]
struct Banner {
    page: Page,
}

/// Shows the banner alone.
pub(super) async fn show(State(app): State<App>, visit: Visit) -> Result<Response> {
    Ok(render(&Banner { page: Page::new(&app, &visit, Nav::Maintenance, "Maintenance") }))
}

/// What there is to tell now.
pub(super) fn notices(app: &App) -> Vec<Notice> {
    let now = app.clock.now();
    app.jobs.in_force().into_iter().take(SHOWN).map(|one| notice(one, now)).collect()
}

fn notice(one: MaintenanceNow, now: Timestamp) -> Notice {
    let what = match (&one.hosts, &one.source) {
        (None, None) => "Everything is in maintenance: no job fires.".to_owned(),
        (None, Some(source)) => format!("No job of {source} fires: maintenance."),
        (Some(hosts), None) => format!("In maintenance: {hosts}."),
        (Some(hosts), Some(source)) => {
            format!("In maintenance for jobs of {source}: {hosts}.")
        }
    };
    Notice {
        id: one.id.to_string(),
        what,
        reason: one.reason,
        message: one.message,
        until: one.until.map(|at| When::new(now, at)),
    }
}
