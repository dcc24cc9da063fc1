//! Maintenances.

mod view;
mod wanted;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::maintenance::Scope;
use fw_proto::api::{Maintenance, NewMaintenance};
use fw_proto::{HostId, MaintenanceId, RunId};
use fw_store::NewAudit;
use serde::Deserialize;
use utoipa::IntoParams;

use self::view::Look;
use crate::auth::Caller;
use crate::drive::jobs::By;
use crate::extract::{Body, Path, Query};
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// Which maintenances.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Those that are over, too.
    #[serde(default)]
    all: bool,
}

/// Lists the maintenances that are on, the earliest first; one that recurs is on between its windows, too.
#[utoipa::path(get, path = "/maintenances", tag = "maintenances", operation_id = "maintenances_list",
    params(ListQuery), responses((status = 200, body = Vec<Maintenance>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Maintenance>>> {
    let now = app.clock.now();
    let shown = all(&app).await?.into_iter().filter(|one| query.all || is_on(one, now));
    Ok(Json(shown.collect()))
}

/// Whether it is not over.
pub(crate) fn is_on(one: &Maintenance, now: fw_proto::Timestamp) -> bool {
    one.until.is_none_or(|until| now < until)
}

/// All that are known, those that are over too.
pub(crate) async fn all(app: &App) -> Result<Vec<Maintenance>> {
    let known = app.store.maintenances().await?;
    let look = Look::of(app).await?;
    Ok(known.into_iter().map(|one| look.view(one)).collect())
}

/// Shows a maintenance, and how much still runs on the hosts that it covers.
#[utoipa::path(get, path = "/maintenances/{id}", tag = "maintenances", operation_id = "maintenances_show",
    params(("id" = u32, Path)), responses((status = 200, body = Maintenance)))]
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<MaintenanceId>,
) -> Result<Json<Maintenance>> {
    let known = app.store.maintenances().await?.into_iter().find(|one| one.id == id);
    let hint = "`fleetwright maintenance list --all` shows those that are known";
    let known = known.ok_or_else(|| Failure::not_found("maintenance", id, hint))?;
    Ok(Json(Look::of(&app).await?.view(known)))
}

/// Switches a maintenance on. Runs that go on are left alone, unless they are to be ended.
#[utoipa::path(post, path = "/maintenances", tag = "maintenances", operation_id = "maintenances_begin",
    request_body = NewMaintenance, responses((status = 201, body = Maintenance)))]
pub(super) async fn begin(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewMaintenance>,
) -> Result<(StatusCode, Json<Maintenance>)> {
    let stop_running = new.stop_running;
    let wanted = wanted::read(new, app.clock.now())?;
    let covers = wanted.hosts.as_deref().unwrap_or("everything");
    let note = NewAudit {
        after: Some(serde_json::json!({ "reason": wanted.reason, "until": wanted.until })),
        ..caller.note(&app, "maintenance.begin", covers)
    };
    app.store.note(note).await?;
    let begun = app.jobs.begin_maintenance(wanted, By::Caller(caller.actor())).await?;
    if stop_running {
        stop(&app, &caller, begun.id).await?;
    }
    Ok((StatusCode::CREATED, Json(Look::of(&app).await?.view(begun))))
}

/// Ends what goes on at the hosts that a maintenance covers now.
async fn stop(app: &App, caller: &Caller, id: MaintenanceId) -> Result<()> {
    let open = app.hub.open(covered(app, id)).await?;
    let mut runs: BTreeMap<RunId, Vec<HostId>> = BTreeMap::new();
    for (host, on) in open {
        on.into_iter().for_each(|run| runs.entry(run).or_default().push(host));
    }
    for (run, hosts) in runs {
        app.store.note(caller.note(app, "run.cancel", run)).await?;
        app.hub.cancel_hosts(run, hosts, caller.actor()).await?;
    }
    Ok(())
}

/// The hosts that a maintenance covers now.
fn covered(app: &App, id: MaintenanceId) -> Vec<HostId> {
    let (rows, held) = (app.store.hosts(), app.jobs.held());
    match held.get(id).map(|one| &one.scope) {
        None => Vec::new(),
        Some(Scope::Everything) => rows.iter().map(|row| row.id).collect(),
        Some(Scope::Hosts(selector)) => {
            fleet::choose(&rows, selector).into_iter().map(|host| host.id).collect()
        }
    }
}

/// Switches a maintenance off.
#[utoipa::path(post, path = "/maintenances/{id}/end", tag = "maintenances", operation_id = "maintenances_end",
    params(("id" = u32, Path)),
    responses((status = 200, body = Maintenance),
        (status = 409, description = "It is over already, or files ask for it.")))]
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<MaintenanceId>,
) -> Result<Json<Maintenance>> {
    app.store.note(caller.note(&app, "maintenance.end", id)).await?;
    let ended = app.jobs.end_maintenance(id, By::Caller(caller.actor())).await?;
    Ok(Json(Look::of(&app).await?.view(ended)))
}
