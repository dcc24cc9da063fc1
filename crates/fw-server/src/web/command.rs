//! Running a command: on which hosts exactly, with a look at them before it begins.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::api::HostState;
use serde::Deserialize;

use super::error::{Result, render};
use super::page::{Nav, Page, Visit};
use super::words::Status;
use crate::extract::Query;
use crate::fleet;
use crate::state::App;

/// Hosts that a preview names; of more it says how many.
const NAMED: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FormQuery {
    hosts: String,
    command: String,
}

#[derive(Debug)]
struct Target {
    name: String,
    status: Status,
    held: bool,
}

/// The hosts that a selector picks now.
#[derive(Debug, Template)]
#[template(path = "preview.html")]
struct Preview {
    selector: String,
    problem: Option<String>,
    count: usize,
    away: usize,
    held: usize,
    undecided: usize,
    more: usize,
    targets: Vec<Target>,
}

#[derive(Template)]
#[template(path = "command.html")]
struct Form {
    page: Page,
    hosts: String,
    command: String,
    preview: Preview,
}

/// The form.
pub(super) async fn form(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<FormQuery>,
) -> Result<Response> {
    let preview = look(&app, &query.hosts).await?;
    let page = Page::new(&app, &visit, Nav::Command, "Run a command");
    Ok(render(&Form { page, hosts: query.hosts, command: query.command, preview }))
}

/// The part of it that says which hosts are meant.
pub(super) async fn preview(
    State(app): State<App>,
    _visit: Visit,
    Query(query): Query<FormQuery>,
) -> Result<Response> {
    Ok(render(&look(&app, &query.hosts).await?))
}

async fn look(app: &App, text: &str) -> Result<Preview> {
    let selector = text.trim().to_owned();
    let nothing = |problem| Preview {
        selector: selector.clone(),
        problem,
        count: 0,
        away: 0,
        held: 0,
        undecided: 0,
        more: 0,
        targets: Vec::new(),
    };
    if selector.is_empty() {
        return Ok(nothing(None));
    }
    let parsed = match fleet::selector(&selector) {
        Ok(parsed) => parsed,
        Err(failure) => return Ok(nothing(failure.into_problem().detail)),
    };
    let rows = app.store.hosts();
    let chosen = fleet::choose(&rows, &parsed);
    let present = fleet::Present::of(app, chosen.iter().map(|host| host.id).collect()).await?;
    let views = chosen.iter().filter_map(|host| app.store.host(host.id));
    let views: Vec<_> = views.map(|row| fleet::view(&row, &present)).collect();
    let targets = views.iter().take(NAMED).map(|host| Target {
        name: host.name.to_string(),
        status: host.state.into(),
        held: host.maintenance.is_some(),
    });
    Ok(Preview {
        problem: None,
        count: views.len(),
        away: views.iter().filter(|host| host.state == HostState::Offline).count(),
        held: views.iter().filter(|host| host.maintenance.is_some()).count(),
        undecided: fleet::undecided(&rows, &parsed).len(),
        more: views.len().saturating_sub(NAMED),
        targets: targets.collect(),
        selector,
    })
}
