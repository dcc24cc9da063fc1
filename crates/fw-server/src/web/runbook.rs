//! Runbooks: the list of those that were begun, and where one is. One runbook has a page of its own.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_proto::Timestamp;
use fw_proto::api::RunbookSummary;

use super::error::{Result, render};
use super::link::link;
use super::page::{Nav, Page, Visit};
use super::time::{When, took};
use super::words::Status;
use crate::api::runbook as api;
use crate::api::runbook::ListQuery;
use crate::extract::Query;
use crate::state::App;

/// A runbook in the table.
#[derive(Debug)]
struct Row {
    id: String,
    href: String,
    status: Status,
    title: String,
    why: String,
    by: String,
    began: When,
    took: String,
}

#[derive(Template)]
#[template(path = "runbooks.html")]
struct List {
    page: Page,
    rows: Vec<Row>,
    first: bool,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "runbook_new.html")]
struct New {
    page: Page,
}

/// Shows runbooks that were begun, newest first.
pub(super) async fn list(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let now = app.clock.now();
    let first = query.cursor.is_none();
    let found = api::page_of(&app, query).await?;
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Runbooks, "Runbooks"),
        rows: found.items.iter().map(|one| row(one, now)).collect(),
        first,
        after: found.next.map(|next| link("/runbooks", &[("cursor", &next)])),
    }))
}

/// Where one is begun.
pub(super) async fn form(State(app): State<App>, visit: Visit) -> Response {
    render(&New { page: Page::new(&app, &visit, Nav::Runbooks, "Begin a runbook") })
}

fn row(one: &RunbookSummary, now: Timestamp) -> Row {
    let ended = one.finished_at.unwrap_or(now);
    Row {
        id: one.id.to_string(),
        href: format!("/runbooks/{}", one.id),
        status: one.state.into(),
        title: one.title.clone(),
        why: one.why.clone().unwrap_or_default(),
        by: one.begun_by(),
        began: When::new(now, one.created_at),
        took: took(ended.since(one.created_at)),
    }
}
