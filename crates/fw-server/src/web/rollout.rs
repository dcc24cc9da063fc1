//! Rollouts: the list of them, and where one is planned and begun. One rollout has a page of its own.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::Timestamp;
use fw_proto::api::RolloutSummary;

use super::error::{Result, render};
use super::link::link;
use super::page::{Nav, Page, Visit};
use super::time::{When, took};
use super::words::Status;
use crate::api::rollout as api;
use crate::api::runbook::ListQuery;
use crate::extract::Query;
use crate::state::App;

/// A rollout in the table.
#[derive(Debug)]
struct Row {
    id: String,
    href: String,
    status: Status,
    name: String,
    why: String,
    by: String,
    began: When,
    took: String,
}

#[derive(Template)]
#[template(path = "rollouts.html")]
struct List {
    page: Page,
    rows: Vec<Row>,
    first: bool,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "rollout_new.html")]
struct New {
    page: Page,
    example: &'static str,
}

/// What the form begins with, so that nobody starts from nothing.
const EXAMPLE: &str = "rollout: hello
hosts: \"*\"
waves: [1, 10%, 100%]
max_failures: 1
do: { run: \"echo hello\", timeout: 1m }
on_failure: stop
";

/// Shows rollouts, newest first.
pub(super) async fn list(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let now = app.clock.now();
    let first = query.cursor.is_none();
    let found = api::page_of(&app, query).await?;
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Rollouts, "Rollouts"),
        rows: found.items.iter().map(|one| row(one, now)).collect(),
        first,
        after: found.next.map(|next| link("/rollouts", &[("cursor", &next)])),
    }))
}

/// Where one is planned and begun.
pub(super) async fn form(State(app): State<App>, visit: Visit) -> Response {
    let page = Page::new(&app, &visit, Nav::Rollouts, "New rollout");
    render(&New { page, example: EXAMPLE })
}

fn row(one: &RolloutSummary, now: Timestamp) -> Row {
    let ended = one.finished_at.unwrap_or(now);
    Row {
        id: one.id.to_string(),
        href: format!("/rollouts/{}", one.id),
        status: one.state.into(),
        name: one.name.clone(),
        why: one.why.clone().unwrap_or_default(),
        by: one.begun_by(),
        began: When::new(now, one.created_at),
        took: took(ended.since(one.created_at)),
    }
}
