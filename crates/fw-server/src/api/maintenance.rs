//! Maintenances.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::maintenance::Scope;
use fw_proto::api::{Maintenance, NewMaintenance};
use fw_proto::{MaintenanceId, Span, Timestamp};
use fw_store::{NewAudit, StoredMaintenance};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::Caller;
use crate::drive::jobs::{By, Wanted};
use crate::extract::{Body, Path, Query};
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// The longest reason: it stands in a column.
const MAX_REASON: usize = 200;

/// The longest message.
const MAX_MESSAGE: usize = 2000;

/// The longest maintenance with an end; longer is a slip of the keyboard.
const LONGEST: Span = Span::from_secs(10 * 366 * 24 * 60 * 60);

/// Which maintenances.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Those that are over, too.
    #[serde(default)]
    all: bool,
}

/// Lists the maintenances in force, the earliest first.
#[utoipa::path(get, path = "/maintenances", tag = "maintenances", operation_id = "maintenances_list",
    params(ListQuery), responses((status = 200, body = Vec<Maintenance>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Maintenance>>> {
    let shown = all(&app).await?.into_iter().filter(|one| query.all || one.in_force);
    Ok(Json(shown.collect()))
}

/// All that are known, those that are over too.
pub(crate) async fn all(app: &App) -> Result<Vec<Maintenance>> {
    let now = app.clock.now();
    let known = app.store.maintenances().await?.into_iter();
    Ok(known.map(|one| view(app, one, now)).collect())
}

/// Switches a maintenance on. Runs that go on are left alone.
#[utoipa::path(post, path = "/maintenances", tag = "maintenances", operation_id = "maintenances_begin",
    request_body = NewMaintenance, responses((status = 201, body = Maintenance)))]
pub(super) async fn begin(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewMaintenance>,
) -> Result<(StatusCode, Json<Maintenance>)> {
    let now = app.clock.now();
    check(&new)?;
    let until = end_of(&new, now)?;
    let NewMaintenance { hosts, reason, message, .. } = new;
    let wanted = Wanted { hosts, reason, message, until };
    let covers = wanted.hosts.as_deref().unwrap_or("everything");
    let note = NewAudit {
        after: Some(serde_json::json!({ "reason": wanted.reason, "until": wanted.until })),
        ..caller.note(&app, "maintenance.begin", covers)
    };
    app.store.note(note).await?;
    let begun = app.jobs.begin_maintenance(wanted, By::Caller(caller.actor())).await?;
    Ok((StatusCode::CREATED, Json(view(&app, begun, now))))
}

/// Switches a maintenance off.
#[utoipa::path(post, path = "/maintenances/{id}/end", tag = "maintenances", operation_id = "maintenances_end",
    params(("id" = u32, Path)),
    responses((status = 200, body = Maintenance), (status = 409, description = "It is over already.")))]
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<MaintenanceId>,
) -> Result<Json<Maintenance>> {
    app.store.note(caller.note(&app, "maintenance.end", id)).await?;
    let ended = app.jobs.end_maintenance(id, By::Caller(caller.actor())).await?;
    Ok(Json(view(&app, ended, app.clock.now())))
}

fn check(new: &NewMaintenance) -> Result<()> {
    if new.everything == new.hosts.is_some() {
        return Err(Failure::invalid("give either `hosts`, a selector, or `everything: true`"));
    }
    new.hosts.as_deref().map(fleet::selector).transpose()?;
    if new.reason.trim().is_empty() || new.reason.len() > MAX_REASON {
        return Err(Failure::invalid(format!("reason: use 1 to {MAX_REASON} bytes")));
    }
    if new.message.as_ref().is_some_and(|message| message.len() > MAX_MESSAGE) {
        return Err(Failure::invalid(format!("message: use at most {MAX_MESSAGE} bytes")));
    }
    Ok(())
}

/// When it is to end; `None` when it goes on until it is switched off.
fn end_of(new: &NewMaintenance, now: Timestamp) -> Result<Option<Timestamp>> {
    let (key, until) = match (new.lasts, new.until) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Failure::invalid("give either `for` or `until`")),
        (Some(lasts), None) => ("for", now + lasts),
        (None, Some(until)) => ("until", until),
    };
    if until <= now {
        let rule = format!("{key}: it would end at once; on the server it is {now}");
        return Err(Failure::invalid(rule));
    }
    if until.since(now) > LONGEST {
        let rule = format!("{key}: it is longer than 10 years; leave it out for no end");
        return Err(Failure::invalid(rule));
    }
    Ok(Some(until))
}

fn view(app: &App, known: StoredMaintenance, now: Timestamp) -> Maintenance {
    let StoredMaintenance { id, said, ended_by } = known;
    let in_force = said.until.is_none_or(|until| now < until);
    let covers = || {
        let rows = app.store.hosts();
        let hosts = match &app.jobs.held().get(id)?.scope {
            Scope::Everything => rows.len(),
            Scope::Hosts(selector) => fleet::choose(&rows, selector).len(),
        };
        u32::try_from(hosts).ok()
    };
    Maintenance {
        id,
        covers: in_force.then(covers).flatten(),
        hosts: said.selector,
        reason: said.reason,
        message: said.message,
        by: said.by,
        since: said.since,
        until: said.until,
        in_force,
        ended_by,
    }
}
