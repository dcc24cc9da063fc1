//! The audit: what was changed, by whom, from where, and what it was before.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use fw_core::access::{Action, On};
use fw_proto::Timestamp;
use fw_proto::api::AuditEntry;
use fw_store::AuditQuery;
use serde::Deserialize;

use super::error::{Result, render};
use super::link::{link, quoted};
use super::page::{Nav, Page, Visit};
use super::time::When;
use crate::extract::Query;
use crate::state::App;

/// Rows of a page.
const ROWS: u32 = 50;

/// Of the hosts of an entry so many are named.
const HOSTS: usize = 5;

/// Which entries.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    by: String,
    action: String,
    host: String,
    cursor: String,
}

#[derive(Debug)]
struct Row {
    n: i64,
    at: When,
    by: String,
    address: Option<String>,
    action: String,
    subject: String,
    hosts: String,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct List {
    page: Page,
    by: String,
    action: String,
    host: String,
    filtered: bool,
    first: bool,
    rows: Vec<Row>,
    after: Option<String>,
    cli: String,
}

/// Shows entries, newest first.
pub(super) async fn list(
    State(app): State<App>,
    visit: Visit,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    visit.caller().may(&app, Action::Grant, On::Fleet)?;
    let ListQuery { by, action, host, cursor } = query;
    let asked = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let found = app.store.audit(AuditQuery {
        cursor: asked(&cursor),
        limit: ROWS,
        by: asked(&by),
        action: asked(&action),
        subject: None,
        host: asked(&host),
    });
    let found = found.await?;
    let now = app.clock.now();
    let kept = [("by", by.as_str()), ("action", &action), ("host", &host)];
    let after = found.next.map(|next| {
        let mut query = kept.to_vec();
        query.push(("cursor", &next));
        link("/audit", &query)
    });
    let filters = kept.iter().filter(|(_, value)| !value.is_empty());
    let flags: String = filters.map(|(key, value)| format!(" --{key} {}", quoted(value))).collect();
    Ok(render(&List {
        page: Page::new(&app, &visit, Nav::Audit, "Audit"),
        filtered: !flags.is_empty(),
        first: cursor.is_empty(),
        rows: found.items.into_iter().map(|entry| row(entry, now)).collect(),
        after,
        cli: format!("fleetwright audit list{flags}"),
        by,
        action,
        host,
    }))
}

fn row(entry: AuditEntry, now: Timestamp) -> Row {
    let named = entry.hosts.iter().take(HOSTS).cloned().collect::<Vec<_>>().join(", ");
    let hosts = match entry.hosts.len().saturating_sub(HOSTS) {
        0 => named,
        more => format!("{named} and {more} more"),
    };
    Row {
        n: entry.n,
        at: When::new(now, entry.at),
        by: entry.by,
        address: entry.address,
        action: entry.action,
        subject: entry.subject,
        hosts,
        before: entry.before.map(|value| value.to_string()),
        after: entry.after.map(|value| value.to_string()),
    }
}
