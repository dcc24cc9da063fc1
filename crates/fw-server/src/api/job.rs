//! Jobs and their fire ledger.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::job::JobDef;
use fw_proto::JobName;
use fw_proto::api::{CheckedJobs, Created, Fire, Job, JobsText, Page, SourceError};
use fw_store::NewAudit;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{noted, page};
use crate::auth::{self, Caller};
use crate::extract::{Body, Path, Query};
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// Lists jobs by name.
#[utoipa::path(get, path = "/jobs", tag = "jobs", operation_id = "jobs_list",
    responses((status = 200, body = Vec<Job>)))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<Job>>> {
    Ok(Json(app.jobs.list().await))
}

/// Shows a job.
#[utoipa::path(get, path = "/jobs/{name}", tag = "jobs", operation_id = "jobs_show",
    params(("name" = String, Path)), responses((status = 200, body = Job)))]
pub(super) async fn show(State(app): State<App>, Path(name): Path<JobName>) -> Result<Json<Job>> {
    app.jobs.show(&name).await.map(Json).ok_or_else(|| missing(&name))
}

fn missing(name: &JobName) -> Failure {
    Failure::not_found("job", name, "`fleetwright jobs list` shows those that there are")
}

/// Shows what is wrong with the job files now.
#[utoipa::path(get, path = "/jobs/errors", tag = "jobs", operation_id = "jobs_errors",
    responses((status = 200, body = Vec<SourceError>)))]
pub(super) async fn errors(State(app): State<App>) -> Result<Json<Vec<SourceError>>> {
    Ok(Json(app.jobs.errors().await))
}

/// Checks a job text and changes nothing.
#[utoipa::path(post, path = "/jobs/check", tag = "jobs", operation_id = "jobs_check",
    request_body = JobsText, responses((status = 200, body = CheckedJobs)))]
pub(super) async fn check(
    State(app): State<App>,
    Body(text): Body<JobsText>,
) -> Result<Json<CheckedJobs>> {
    Ok(Json(app.jobs.check(text).await))
}

/// Takes up the jobs of a text: all of them, or none when one is wrong.
#[utoipa::path(post, path = "/jobs/apply", tag = "jobs", operation_id = "jobs_apply",
    request_body = JobsText, responses((status = 200, body = CheckedJobs)))]
pub(super) async fn apply(
    State(app): State<App>,
    caller: Caller,
    Body(text): Body<JobsText>,
) -> Result<Json<CheckedJobs>> {
    let defs = app.jobs.read_defs(&text).await;
    for job in &defs {
        may_run(&app, &caller, job)?;
    }
    // Refused as a whole, it is no change.
    let checked =
        app.jobs.apply(JobsText { dry_run: true, ..text.clone() }, caller.actor()).await?;
    if text.dry_run {
        return Ok(Json(checked));
    }
    if checked.errors.is_empty() {
        note_apply(&app, &caller, &defs).await?;
    }
    Ok(Json(app.jobs.apply(text, caller.actor()).await?))
}

/// Notes what becomes of each job that a text changes.
async fn note_apply(app: &App, caller: &Caller, defs: &[JobDef]) -> Result<()> {
    let mut notes = Vec::new();
    for def in defs {
        let was = app.jobs.def(&def.name).await;
        if was.as_ref().is_some_and(|was| was.spec == def.spec) {
            continue;
        }
        let (before, after) = noted::changed(was.as_deref(), def);
        let note = caller.note(app, "job.apply", &def.name);
        notes.push(NewAudit { before, after: Some(after), ..note });
    }
    app.store.note_all(notes).await?;
    Ok(())
}

/// Goes on only if a caller may run what a job would run now.
fn may_run(app: &App, caller: &Caller, job: &JobDef) -> Result<()> {
    let hosts = fleet::choose(&app.store.hosts(), &job.selector);
    caller.may_with_all(app, auth::to_run(job.spec.user.as_deref()), &hosts)
}

/// Deletes a job that no file owns.
#[utoipa::path(delete, path = "/jobs/{name}", tag = "jobs", operation_id = "jobs_delete",
    params(("name" = String, Path)),
    responses((status = 204), (status = 409, description = "A file owns it.")))]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<JobName>,
) -> Result<StatusCode> {
    let was = app.jobs.def(&name).await;
    let before = was.as_deref().map(noted::job);
    app.store.note(NewAudit { before, ..caller.note(&app, "job.delete", &name) }).await?;
    app.jobs.delete(&name).await?;
    tracing::info!(job = %name, by = caller.name, "job deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a job now, beside its schedule.
#[utoipa::path(post, path = "/jobs/{name}/run", tag = "jobs", operation_id = "jobs_run",
    params(("name" = String, Path)), responses((status = 201, body = Created)))]
pub(super) async fn run(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<JobName>,
) -> Result<(StatusCode, Json<Created>)> {
    let def = app.jobs.def(&name).await.ok_or_else(|| missing(&name))?;
    may_run(&app, &caller, &def)?;
    let hosts = fleet::choose(&app.store.hosts(), &def.selector);
    let note = NewAudit {
        hosts: hosts.iter().map(|host| host.name.to_string()).collect(),
        after: Some(noted::job(&def)),
        ..caller.note(&app, "job.run", &name)
    };
    app.store.note(note).await?;
    let id = app.jobs.run_now(&name, caller.actor()).await?;
    let job = app.jobs.def(&name).await;
    let hosts = job.map(|job| fleet::choose(&app.store.hosts(), &job.selector));
    let warning = hosts.and_then(|hosts| fleet::warning(&app, &hosts));
    Ok((StatusCode::CREATED, Json(Created { id, warning })))
}

/// Pauses a job: its fires are skipped until it is resumed.
#[utoipa::path(post, path = "/jobs/{name}/pause", tag = "jobs", operation_id = "jobs_pause",
    params(("name" = String, Path)), responses((status = 200, body = Job)))]
pub(super) async fn pause(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<JobName>,
) -> Result<Json<Job>> {
    paused(&app, &caller, &name, true).await
}

/// Resumes a job.
#[utoipa::path(post, path = "/jobs/{name}/resume", tag = "jobs", operation_id = "jobs_resume",
    params(("name" = String, Path)), responses((status = 200, body = Job)))]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<JobName>,
) -> Result<Json<Job>> {
    paused(&app, &caller, &name, false).await
}

async fn paused(app: &App, caller: &Caller, name: &JobName, paused: bool) -> Result<Json<Job>> {
    let action = if paused { "job.pause" } else { "job.resume" };
    let was = app.jobs.show(name).await.ok_or_else(|| missing(name))?;
    let note = NewAudit {
        before: Some(serde_json::json!({ "paused": was.paused })),
        after: Some(serde_json::json!({ "paused": paused })),
        ..caller.note(app, action, name)
    };
    app.store.note(note).await?;
    app.jobs.pause(name, paused).await?;
    let verb = if paused { "paused" } else { "resumed" };
    tracing::info!(job = %name, by = caller.name, "job {verb}");
    app.jobs.show(name).await.map(Json).ok_or_else(|| missing(name))
}

/// Which part of a ledger.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LedgerQuery {
    /// Where the page begins: `next` of the one before.
    cursor: Option<String>,
    /// How many, 1 to 1000; 100 when absent.
    limit: Option<u32>,
}

/// Lists what became of a job's fires, newest first. A job that is no more keeps its ledger.
#[utoipa::path(get, path = "/jobs/{name}/ledger", tag = "jobs", operation_id = "jobs_ledger",
    params(("name" = String, Path), LedgerQuery), responses((status = 200, body = Page<Fire>)))]
pub(super) async fn ledger(
    State(app): State<App>,
    Path(name): Path<JobName>,
    Query(query): Query<LedgerQuery>,
) -> Result<Json<Page<Fire>>> {
    let first = query.cursor.is_none();
    let page = app.store.ledger(&name, query.cursor, page::limit(query.limit)?).await?;
    if first && page.items.is_empty() && app.jobs.show(&name).await.is_none() {
        return Err(missing(&name));
    }
    Ok(Json(page))
}
