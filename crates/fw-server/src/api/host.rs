//! Hosts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use fw_core::access::{Action, On};
use fw_proto::api::{Code, Host, LabelChange, NewName, Page, Problem, Selected};
use fw_proto::frame::DeniedReason;
use fw_proto::{HostId, HostName};
use fw_store::{Changed, HostRow, NewAudit, Standing};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::page;
use crate::extract::{Body, Path, Query};
use crate::problem::{Failure, Result};
use crate::sse::{self, Gone, Out};
use crate::state::App;
use crate::{auth::Caller, fleet};

/// The most labels of one host; each is small, and all of them are in every list.
const MAX_LABELS: usize = 64;

/// The longest key or value of a label: as long as the longest host name.
const MAX_LABEL: usize = 253;

/// Which hosts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those that this selector picks.
    selector: Option<String>,
    /// Where the page begins: `next` of the one before.
    cursor: Option<String>,
    /// How many, 1 to 1000; 100 when absent.
    limit: Option<u32>,
}

/// Lists hosts by name.
#[utoipa::path(get, path = "/hosts", tag = "hosts", operation_id = "hosts_list", params(ListQuery),
    responses((status = 200, body = Page<Host>)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Host>>> {
    let limit = page::limit(query.limit)? as usize;
    let mut rows = app.store.hosts().to_vec();
    rows.retain(|row| caller.sees(row));
    if let Some(text) = &query.selector {
        let selector = fleet::selector(text)?;
        rows.retain(|row| selector.matches(fleet::seen(row)));
    }
    if let Some(cursor) = &query.cursor {
        // A cursor of this list is the last name of the page before.
        cursor.parse::<HostName>().map_err(|_| fw_store::Error::BadCursor)?;
        rows.retain(|row| row.name.as_str() > cursor.as_str());
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.name.to_string());
    let present = fleet::Present::of(&app, rows.iter().map(|row| row.id).collect()).await?;
    let items = rows.into_iter().map(|row| fleet::view(&row, &present)).collect();
    Ok(Json(Page { items, next }))
}

/// An expression to try.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SelectQuery {
    /// A selector.
    expr: String,
}

/// Names the hosts that a run on this selector would be for.
#[utoipa::path(get, path = "/hosts/select", tag = "hosts", operation_id = "hosts_select",
    params(SelectQuery), responses((status = 200, body = Selected)))]
pub(super) async fn select(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SelectQuery>,
) -> Result<Json<Selected>> {
    let selector = fleet::selector(&query.expr)?;
    let mut rows = app.store.hosts().to_vec();
    rows.retain(|row| caller.sees(row));
    let hosts = fleet::choose(&rows, &selector).into_iter().map(|host| host.name).collect();
    Ok(Json(Selected { hosts, undecided: fleet::undecided(&rows, &selector) }))
}

/// Shows a host.
#[utoipa::path(get, path = "/hosts/{host}", tag = "hosts", operation_id = "hosts_show",
    params(("host" = String, Path, description = "Name or id.")), responses((status = 200, body = Host)))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Json<Host>> {
    let row = fleet::find(&app, &host)?;
    caller.may_with(&app, Action::See, &row)?;
    view(&app, &row).await
}

/// Renames a host. Runs that go on keep showing the old name.
#[utoipa::path(patch, path = "/hosts/{host}", tag = "hosts", operation_id = "hosts_rename",
    params(("host" = String, Path, description = "Name or id.")), request_body = NewName,
    responses((status = 200, body = Host), (status = 409, description = "The name is taken.")))]
pub(super) async fn rename(
    State(app): State<App>,
    caller: Caller,
    Path(host): Path<String>,
    Body(new): Body<NewName>,
) -> Result<Json<Host>> {
    let row = fleet::find(&app, &host)?;
    // The name may be what a limit goes by.
    caller.may(&app, Action::Change, On::Fleet)?;
    let note = NewAudit {
        before: Some(serde_json::json!({ "name": row.name })),
        after: Some(serde_json::json!({ "name": new.name })),
        ..caller.note_host(&app, "host.rename", &row)
    };
    let changed = app.store.noting(note).rename_host(row.id, new.name.clone()).await?;
    let row = after(&app, row.id, changed, new.name.as_str())?;
    tracing::info!(host.id = %row.id, host.name = %row.name, by = caller.name, "host renamed");
    app.auth.forget();
    app.live.host_changed(row.id);
    view(&app, &row).await
}

/// Removes a host: closes its link and forgets it. Its runs stay.
#[utoipa::path(delete, path = "/hosts/{host}", tag = "hosts", operation_id = "hosts_remove",
    params(("host" = String, Path, description = "Name or id.")), responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<StatusCode> {
    let row = fleet::find(&app, &host)?;
    caller.may_with(&app, Action::RemoveHost, &row)?;
    // Revoked first: it must not link again between the end of its link and its removal.
    app.store.set_standing(row.id, Standing::Revoked).await?;
    app.hub.forget_host(row.id, DeniedReason::Revoked).await?;
    let note = NewAudit {
        before: Some(serde_json::json!({ "labels": row.labels })),
        ..caller.note_host(&app, "host.remove", &row)
    };
    app.store.noting(note).remove_host(row.id).await?;
    tracing::info!(host.id = %row.id, host.name = %row.name, by = caller.name, "host removed");
    app.live.host_changed(row.id);
    Ok(StatusCode::NO_CONTENT)
}

/// Sets labels and takes labels off.
#[utoipa::path(patch, path = "/hosts/{host}/labels", tag = "hosts", operation_id = "hosts_label",
    params(("host" = String, Path, description = "Name or id.")), request_body = LabelChange,
    responses((status = 200, body = Host)))]
pub(super) async fn label(
    State(app): State<App>,
    caller: Caller,
    Path(host): Path<String>,
    Body(change): Body<LabelChange>,
) -> Result<Json<Host>> {
    check_labels(change.set.iter())?;
    let row = fleet::find(&app, &host)?;
    // Labels may be what a limit goes by.
    caller.may(&app, Action::Change, On::Fleet)?;
    let kept = row.labels.keys().filter(|key| !change.remove.contains(key));
    let labels: BTreeSet<_> = kept.chain(change.set.keys()).collect();
    if labels.len() > MAX_LABELS {
        return Err(Failure::invalid(format!(
            "a host has at most {MAX_LABELS} labels; remove some"
        )));
    }
    let note = NewAudit {
        before: Some(serde_json::json!({ "labels": row.labels })),
        after: Some(serde_json::json!(change)),
        ..caller.note_host(&app, "host.label", &row)
    };
    let changed = app.store.noting(note).label_host(row.id, change).await?;
    let row = after(&app, row.id, changed, row.name.as_str())?;
    app.auth.forget();
    app.live.host_changed(row.id);
    view(&app, &row).await
}

/// Checks labels that someone wants to set.
pub(super) fn check_labels<'l>(
    labels: impl Iterator<Item = (&'l String, &'l String)>,
) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    for (count, (key, value)) in labels.enumerate() {
        if count >= MAX_LABELS {
            return Err(Failure::invalid(format!("a host has at most {MAX_LABELS} labels")));
        }
        if key.is_empty() || key.len() > MAX_LABEL || !key.chars().all(fits) {
            let key: String = key.chars().take(80).collect();
            return Err(Failure::invalid(format!(
                "label {key:?}: a key has 1 to {MAX_LABEL} letters, digits, '.', '_', '-' and '/'"
            )));
        }
        if value.len() > MAX_LABEL || value.chars().any(char::is_control) {
            return Err(Failure::invalid(format!(
                "label {key:?}: a value has at most {MAX_LABEL} bytes and no control characters"
            )));
        }
    }
    Ok(())
}

/// Revokes a host: its link is closed at once, and it may not link again.
#[utoipa::path(post, path = "/hosts/{host}/revoke", tag = "hosts", operation_id = "hosts_revoke",
    params(("host" = String, Path, description = "Name or id.")), responses((status = 200, body = Host)))]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Json<Host>> {
    let row = fleet::find(&app, &host)?;
    caller.may_with(&app, Action::RevokeHost, &row)?;
    let note = caller.note_host(&app, "host.revoke", &row);
    app.store.noting(note).set_standing(row.id, Standing::Revoked).await?;
    app.hub.forget_host(row.id, DeniedReason::Revoked).await?;
    tracing::info!(host.id = %row.id, host.name = %row.name, by = caller.name, "host revoked");
    app.live.host_changed(row.id);
    view(&app, &HostRow { standing: Standing::Revoked, ..HostRow::clone(&row) }).await
}

/// The host after a change, or why there was none.
fn after(app: &App, id: HostId, changed: Changed, name: &str) -> Result<Arc<HostRow>> {
    let removed = || Failure::not_found("host", name, "it was removed just now");
    match changed {
        Changed::Done => app.store.host(id).ok_or_else(removed),
        Changed::Unknown => Err(removed()),
        Changed::Taken => {
            let detail = "choose another name, or first rename or remove the host that has it \
                          (`fleetwright hosts rename`, `fleetwright hosts remove`)";
            Err(Problem::new(Code::NameTaken, format!("the name {name} is taken"))
                .detail(detail)
                .into())
        }
    }
}

async fn view(app: &App, row: &HostRow) -> Result<Json<Host>> {
    let present = fleet::Present::of(app, vec![row.id]).await?;
    Ok(Json(fleet::view(row, &present)))
}

/// Follows all hosts: `reset`, then each as `host`, and `ready`; then `host` when one changes and `removed` (`{"id"}`) when one goes.
///
/// A client that comes back gets the present state: with `reset` it forgets what it knew.
#[utoipa::path(get, path = "/hosts/events", tag = "hosts", operation_id = "hosts_events",
    responses((status = 200, body = Host, content_type = "text/event-stream")))]
pub(super) async fn events(State(app): State<App>, caller: Caller) -> Response {
    let following = app.clone();
    sse::respond(&app, caller, |out| async move {
        let ended = follow(&following, &out).await;
        if let Err(error) = ended {
            tracing::debug!(error = ?error, "host events ended");
        }
    })
}

/// Why a stream of hosts ends.
#[derive(Debug)]
#[expect(dead_code, reason = "read through Debug, for the log")]
enum Ended {
    Gone(Gone),
    Failed(Failure),
}

impl From<Gone> for Ended {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Changes that come together are sent together: after a network fault thousands of hosts come back at once.
const TOGETHER: Duration = Duration::from_millis(50);

/// From so many changes on, reading all hosts once is cheaper than each.
const MANY: usize = 32;

async fn follow(app: &App, out: &Out) -> std::result::Result<(), Ended> {
    let mut changes = app.live.hosts();
    let mut sent = 0_u64;
    'anew: loop {
        out.send("reset", None, &serde_json::json!({})).await?;
        send_hosts(app, out, &mut sent, None).await?;
        out.send("ready", None, &serde_json::json!({})).await?;
        loop {
            let mut changed = BTreeSet::new();
            let first = tokio::select! {
                first = changes.recv() => first,
                gone = out.gone() => return Err(gone.into()),
            };
            match first {
                Ok(host) => changed.insert(host),
                Err(RecvError::Lagged(_)) => continue 'anew,
                Err(RecvError::Closed) => return Ok(()),
            };
            tokio::time::sleep(TOGETHER).await;
            while let Ok(host) = changes.try_recv() {
                changed.insert(host);
            }
            send_hosts(app, out, &mut sent, Some(changed)).await?;
        }
    }
}

/// Sends these hosts, or all.
async fn send_hosts(
    app: &App,
    out: &Out,
    sent: &mut u64,
    only: Option<BTreeSet<HostId>>,
) -> std::result::Result<(), Ended> {
    let (rows, gone) = match only {
        None => (app.store.hosts().to_vec(), BTreeSet::new()),
        Some(ids) => read(app, ids),
    };
    let ids = rows.iter().map(|row| row.id).collect();
    let present = fleet::Present::of(app, ids).await?;
    for row in rows {
        *sent += 1;
        out.send("host", Some(format!("hosts/{sent}")), &fleet::view(&row, &present)).await?;
    }
    for id in gone {
        *sent += 1;
        out.send("removed", Some(format!("hosts/{sent}")), &serde_json::json!({ "id": id }))
            .await?;
    }
    Ok(())
}

/// Reads these hosts; also gives the ids of those that are no more.
fn read(app: &App, mut ids: BTreeSet<HostId>) -> (Vec<Arc<HostRow>>, BTreeSet<HostId>) {
    let mut rows = Vec::new();
    if ids.len() >= MANY {
        rows.extend(app.store.hosts().iter().filter(|row| ids.remove(&row.id)).cloned());
        return (rows, ids);
    }
    let mut gone = BTreeSet::new();
    for id in ids {
        match app.store.host(id) {
            Some(row) => rows.push(row),
            None => {
                gone.insert(id);
            }
        }
    }
    (rows, gone)
}
