//! Runbooks: begun, listed, shown, and what people say of their steps.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::access::Action;
use fw_core::change::{Change, Origin, Plan};
use fw_core::runbook::{self, compile, plan};
use fw_core::select::Selector;
use fw_proto::ChangeId;
use fw_proto::api::{
    ChangeBegun, ChangeVerb, NewRunbook, Page, Runbook, RunbookRehearsal, RunbookSummary,
    RunbookText, SourceError, StepNote, StepVerb,
};
use fw_store::{ChangeQuery, ChangeRow};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{change, page};
use crate::auth::Caller;
use crate::extract::{Body, Path, Query};
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// What a document without a name is called in errors.
const UNNAMED: &str = "runbook";

/// Errors of a text that are told at once.
const TOLD: usize = 20;

/// Begins a runbook. It is recorded when the answer comes, whatever happens to the server after.
#[utoipa::path(post, path = "/runbooks", tag = "runbooks", operation_id = "runbooks_begin", request_body = NewRunbook,
    responses((status = 201, body = ChangeBegun), (status = 422, description = "A secret is missing.")))]
pub(super) async fn begin(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewRunbook>,
) -> Result<(StatusCode, Json<ChangeBegun>)> {
    let id = app.changes.new_id();
    let shared = app.clone();
    // A long document takes a while to read, and has megabytes of templates to compile.
    let compiled = tokio::task::spawn_blocking(move || compile(&shared, id, &new)).await;
    let plan = compiled.map_err(|error| crate::problem::fault(&error))??;
    Ok((StatusCode::CREATED, Json(change::begin(&app, &caller, id, plan).await?)))
}

fn compile(app: &App, id: ChangeId, new: &NewRunbook) -> Result<Plan> {
    let parsed = runbook::parse(new.file.as_deref().unwrap_or(UNNAMED), &new.source);
    if !parsed.errors.is_empty() {
        return Err(Failure::invalid(errors_text(&parsed.errors)));
    }
    let given: Vec<_> =
        new.inputs.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
    let wrong = |lines: Vec<String>| Failure::invalid(lines.join("\n"));
    let values = plan::values(&parsed.runbook.inputs, &given).map_err(wrong)?;
    let hosts = new.hosts.as_deref().map(fleet::selector).transpose()?;
    let given = compile::Given {
        source: &new.source,
        values: &values,
        hosts: hosts.as_ref(),
        change: id,
        incarnation: app.store.incarnation(),
    };
    let rows = app.store.hosts();
    let choose = |selector: &Selector| Ok(fleet::choose(&rows, selector));
    compile::compile(&parsed.runbook, &given, choose).map_err(wrong)
}

/// What is wrong with a text, a line for each, with the place.
pub(super) fn errors_text(errors: &[SourceError]) -> String {
    let mut lines: Vec<_> = errors.iter().take(TOLD).map(SourceError::to_string).collect();
    if errors.len() > TOLD {
        lines.push(format!("and {} more", errors.len() - TOLD));
    }
    lines.join("\n")
}

/// Tells whether an undo of just this text has ever run to its end, everywhere it was to. Nothing is begun.
#[utoipa::path(post, path = "/runbooks/rehearsal", tag = "runbooks", operation_id = "runbooks_rehearsal",
    request_body = RunbookText, responses((status = 200, body = RunbookRehearsal)))]
pub(super) async fn rehearsal(
    State(app): State<App>,
    Body(text): Body<RunbookText>,
) -> Result<Json<RunbookRehearsal>> {
    Ok(Json(RunbookRehearsal { rehearsed: app.store.was_undone(&text.source).await? }))
}

/// Which runbooks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Where the page begins: `next` of the one before.
    pub(crate) cursor: Option<String>,
    /// How many, 1 to 1000; 100 when absent.
    pub(crate) limit: Option<u32>,
}

/// Lists runbooks that were begun, newest first.
#[utoipa::path(get, path = "/runbooks", tag = "runbooks", operation_id = "runbooks_list", params(ListQuery),
    responses((status = 200, body = Page<RunbookSummary>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<RunbookSummary>>> {
    page_of(&app, query).await.map(Json)
}

/// A page of them.
pub(crate) async fn page_of(app: &App, query: ListQuery) -> Result<Page<RunbookSummary>> {
    let limit = page::limit(query.limit)?;
    let query = ChangeQuery { cursor: query.cursor, limit, origin: Some(Origin::Runbook) };
    let Page { items, next } = app.store.changes(query).await?;
    Ok(Page { items: items.into_iter().map(summary).collect(), next })
}

/// A runbook of a list.
pub(crate) fn summary(row: ChangeRow) -> RunbookSummary {
    let ChangeRow { id, title, state, why, by, by_kind, created_at, finished_at, .. } = row;
    RunbookSummary { id, title, state, why, by, by_kind, created_at, finished_at }
}

/// Shows a runbook and its steps.
#[utoipa::path(get, path = "/runbooks/{id}", tag = "runbooks", operation_id = "runbooks_show",
    params(("id" = ChangeId, Path)), responses((status = 200, body = Runbook)))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ChangeId>,
) -> Result<Json<Runbook>> {
    let found = change::find_within(&app, &caller, Action::See, Origin::Runbook, id).await?;
    whole(&app, &found).await.map(Json)
}

/// A runbook as it is now.
pub(crate) async fn whole(app: &App, change: &Change) -> Result<Runbook> {
    let rehearsed = app.store.was_undone(&change.plan.source).await?;
    Ok(runbook::view(change, rehearsed))
}

/// Pauses, resumes, approves, ends or takes back a runbook. It is recorded when the answer comes; what runs
/// may go on for a while.
#[utoipa::path(post, path = "/runbooks/{id}/{verb}", tag = "runbooks", operation_id = "runbooks_ask",
    params(("id" = ChangeId, Path), ("verb" = inline(ChangeVerb), Path)),
    responses((status = 202, body = Runbook), (status = 409, description = "It is not in a state that allows this.")))]
pub(super) async fn ask(
    State(app): State<App>,
    caller: Caller,
    Path((id, verb)): Path<(ChangeId, ChangeVerb)>,
) -> Result<(StatusCode, Json<Runbook>)> {
    let found = change::find_within(&app, &caller, Action::Run, Origin::Runbook, id).await?;
    change::ask(&app, &caller, &found, change::request(verb), verb.as_str()).await?;
    answer(&app, id).await
}

/// Says of the step that waits for a person that it is done, that it may run, or that it is left out.
#[utoipa::path(post, path = "/runbooks/{id}/steps/{step}/{verb}", tag = "runbooks", operation_id = "runbooks_step",
    params(("id" = ChangeId, Path), ("step" = String, Path), ("verb" = inline(StepVerb), Path)), request_body = StepNote,
    responses((status = 202, body = Runbook), (status = 409, description = "It is not this step's turn.")))]
pub(super) async fn step(
    State(app): State<App>,
    caller: Caller,
    Path((id, step, verb)): Path<(ChangeId, String, StepVerb)>,
    Body(StepNote { note }): Body<StepNote>,
) -> Result<(StatusCode, Json<Runbook>)> {
    let found = change::find_within(&app, &caller, Action::Run, Origin::Runbook, id).await?;
    let request = change::step_request(&found, step, verb, note)?;
    change::ask(&app, &caller, &found, request, verb.as_str()).await?;
    answer(&app, id).await
}

async fn answer(app: &App, id: ChangeId) -> Result<(StatusCode, Json<Runbook>)> {
    let now = change::find(app, Origin::Runbook, id).await?;
    Ok((StatusCode::ACCEPTED, Json(whole(app, &now).await?)))
}
