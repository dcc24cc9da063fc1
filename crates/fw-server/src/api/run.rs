//! Runs: begun, listed, shown, cancelled, repeated. What happens in one is followed in `run_events`.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fw_core::access::Action;
use fw_core::plan::Plan;
use fw_core::{command, plan};
use fw_proto::api::{
    self, Cancel, Code, Command, Created, EnvValue, NewRun, Page, Problem, Retry, RunState,
    RunSummary, TaskState,
};
use fw_proto::{HostName, JobName, RunId};
use fw_store::{NewAudit, RunQuery};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{noted, page};
use crate::auth::{self, Caller};
use crate::extract::{Body, Path, Query};
use crate::problem::{Failure, Result};
use crate::state::App;
use crate::{fleet, hub, ids};

/// Begins a run. It is recorded when the answer comes, whatever happens to the server after.
#[utoipa::path(post, path = "/runs", tag = "runs", operation_id = "runs_begin", request_body = NewRun,
    responses((status = 201, body = Created), (status = 422, description = "No host matched, or a secret is missing.")))]
pub(super) async fn begin(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewRun>,
) -> Result<(StatusCode, Json<Created>)> {
    let selector = fleet::selector(&new.hosts)?;
    let hosts = fleet::choose(&app.store.hosts(), &selector);
    let plan = command::compile(new, hosts, app.store.incarnation(), app.config.lost_after)?;
    if plan.hosts.is_empty() {
        let detail = "`fleetwright hosts select` shows what a selector picks; revoked hosts are never picked";
        return Err(Problem::new(Code::NoHosts, "the selector matched no host")
            .detail(detail)
            .into());
    }
    commit(&app, &caller, plan).await
}

/// Checks what only the store knows, and begins.
async fn commit(app: &App, caller: &Caller, plan: Plan) -> Result<(StatusCode, Json<Created>)> {
    caller.may_with_all(app, auth::to_run(plan.exec.user.as_deref()), &plan.hosts)?;
    require_secrets(app, &plan.exec).await?;
    let (id, warning) = (RunId(ids::v7(app.clock.now())), fleet::warning(app, &plan.hosts));
    let note = NewAudit {
        hosts: plan.hosts.iter().map(|host| host.name.to_string()).collect(),
        after: Some(noted::run(&plan)),
        ..caller.note(app, "run.begin", id)
    };
    app.store.note(note).await?;
    app.hub.begin(hub::Begin { run: id, plan, by: caller.actor(), fire: None }).await?;
    Ok((StatusCode::CREATED, Json(Created { id, warning })))
}

async fn require_secrets(app: &App, exec: &plan::Exec) -> Result<()> {
    for value in exec.env.values() {
        let EnvValue::Secret(name) = value else { continue };
        if app.store.secret(name).await?.is_none() {
            let shown: String = name.chars().take(80).collect();
            let detail = "set it with `fleetwright secrets set`";
            let problem = Problem::new(Code::NoSecret, format!("there is no secret {shown:?}"));
            return Err(problem.detail(detail).into());
        }
    }
    Ok(())
}

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only of this job.
    #[param(value_type = Option<String>)]
    pub(crate) job: Option<JobName>,
    /// Only in this state.
    pub(crate) state: Option<RunState>,
    /// Only with a task on the host of this name.
    #[param(value_type = Option<String>)]
    pub(crate) host: Option<HostName>,
    /// Where the page begins: `next` of the one before.
    pub(crate) cursor: Option<String>,
    /// How many, 1 to 1000; 100 when absent.
    pub(crate) limit: Option<u32>,
}

/// The most bytes of a command in a list.
const SHOWN: usize = 1024;

/// Stands where a command was cut.
const CUT: &str = "…";

/// Lists runs, newest first. Of a command longer than 1 KiB only the beginning and `…`; showing the run gives all of it.
#[utoipa::path(get, path = "/runs", tag = "runs", operation_id = "runs_list", params(ListQuery),
    responses((status = 200, body = Page<RunSummary>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<RunSummary>>> {
    page_of(&app, query).await.map(Json)
}

/// A page of runs as they are now.
pub(crate) async fn page_of(app: &App, query: ListQuery) -> Result<Page<RunSummary>> {
    let ListQuery { job, state, host, cursor, limit } = query;
    let limit = page::limit(limit)?;
    let mut page = app.store.runs(RunQuery { cursor, limit, job, state, host }).await?;
    // The store knows each run as of its last event; what a run waits on, only the hub.
    let open = page.items.iter().filter(|run| !run.state.is_final()).map(|run| run.id);
    let open: BTreeSet<_> = open.collect();
    if !open.is_empty() {
        let live = app.hub.summaries(open).await?;
        let mut live: BTreeMap<_, _> = live.into_iter().map(|run| (run.id, run)).collect();
        for run in page.items.iter_mut().filter(|run| !run.state.is_final()) {
            if let Some(now) = live.remove(&run.id) {
                *run = now;
            }
        }
    }
    for run in &mut page.items {
        shorten(&mut run.command);
    }
    Ok(page)
}

/// Cuts a command to what a list needs; a page of whole ones could have hundreds of MB.
pub(crate) fn shorten(command: &mut Command) {
    match command {
        Command::Shell(text) => drop(cut(text, SHOWN)),
        Command::Argv(words) => {
            let mut left = SHOWN;
            let kept = words.iter_mut().take_while(|word| {
                let goes_on = left > 0;
                left = left.saturating_sub(word.len() + 1);
                goes_on
            });
            let kept = kept.count();
            let more = words.len() > kept;
            words.truncate(kept);
            if let Some((last, before)) = words.split_last_mut() {
                let before: usize = before.iter().map(|word| word.len() + 1).sum();
                let was_cut = cut(last, SHOWN.saturating_sub(before));
                if more && !was_cut {
                    words.push(CUT.to_owned());
                }
            }
        }
    }
}

/// Cuts a text that is longer than so many bytes, between characters; says whether it was.
fn cut(text: &mut String, most: usize) -> bool {
    if text.len() <= most {
        return false;
    }
    text.truncate(text.floor_char_boundary(most));
    text.push_str(CUT);
    true
}

/// Shows a run and its tasks.
#[utoipa::path(get, path = "/runs/{id}", tag = "runs", operation_id = "runs_show",
    params(("id" = RunId, Path)), responses((status = 200, body = api::Run)))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
) -> Result<Json<api::Run>> {
    within(&app, &caller, Action::See, id).await?;
    whole(&app, id).await.map(Json)
}

/// The run as it is now, with what its tasks have written so far.
pub(crate) async fn whole(app: &App, id: RunId) -> Result<api::Run> {
    let mut run = read(app, id).await?;
    fill_offsets(app, &mut run).await?;
    Ok(run)
}

/// Goes on only if a caller may do this with all hosts of a run.
pub(super) async fn within(app: &App, caller: &Caller, action: Action, id: RunId) -> Result<()> {
    if caller.is_limited() {
        caller.may_with_all(app, action, &plan_of(app, id).await?.hosts)?;
    }
    Ok(())
}

/// The run as it is now.
pub(super) async fn read(app: &App, id: RunId) -> Result<api::Run> {
    if let Some(run) = app.hub.run(id).await? {
        return Ok(run);
    }
    app.store.run(id).await?.ok_or_else(|| missing(id))
}

fn missing(id: RunId) -> Failure {
    Failure::not_found(
        "run",
        id,
        "`fleetwright runs list` shows those that there are; old ones are removed in time",
    )
}

/// The run's plan: what it is for, with the ids of its hosts.
pub(crate) async fn plan_of(app: &App, id: RunId) -> Result<Plan> {
    app.store.plan(id).await?.ok_or_else(|| missing(id))
}

/// A task's end says how much it wrote; before that, and for one that never told its end, the
/// store knows how much has come.
async fn fill_offsets(app: &App, run: &mut api::Run) -> Result<()> {
    let unsaid = |task: &api::Task| task.stdout_sha256.is_none();
    if !run.tasks.iter().any(unsaid) {
        return Ok(());
    }
    let id = run.summary.id;
    let hosts = app.store.plan(id).await?.map(|plan| plan.hosts).unwrap_or_default();
    let ids: BTreeMap<_, _> = hosts.into_iter().map(|host| (host.name, host.id)).collect();
    let written = app.store.log_hosts(id).await?;
    let written: BTreeMap<_, _> =
        written.into_iter().map(|(host, attempt, durable)| ((host, attempt), durable)).collect();
    for task in run.tasks.iter_mut().filter(|task| unsaid(task)) {
        let Some(durable) =
            ids.get(&task.host).and_then(|host| written.get(&(*host, task.attempt)))
        else {
            continue;
        };
        task.stdout_bytes = durable.stdout;
        task.stderr_bytes = durable.stderr;
        task.stdout_dropped_bytes = durable.stdout_dropped;
        task.stderr_dropped_bytes = durable.stderr_dropped;
    }
    Ok(())
}

/// Asks for a run's end, everywhere or on some of its hosts. It has ended when each started host has
/// confirmed, or is lost.
#[utoipa::path(post, path = "/runs/{id}/cancel", tag = "runs", operation_id = "runs_cancel",
    params(("id" = RunId, Path)), request_body = Cancel,
    responses((status = 202), (status = 409, description = "It has ended."),
        (status = 422, description = "It goes on at none of these hosts.")))]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    Body(cancel): Body<Cancel>,
) -> Result<StatusCode> {
    within(&app, &caller, Action::Run, id).await?;
    let run = read(&app, id).await?;
    let note = NewAudit {
        hosts: run.tasks.iter().map(|task| task.host.to_string()).collect(),
        before: Some(serde_json::json!({ "state": run.summary.state })),
        after: cancel.hosts.as_ref().map(|hosts| serde_json::json!({ "cancelled_on": hosts })),
        ..caller.note(&app, "run.cancel", id)
    };
    app.store.note(note).await?;
    let open = match &cancel.hosts {
        None => app.hub.cancel(id, caller.actor()).await?.then_some(1),
        Some(selector) => {
            let hosts = fleet::choose(&app.store.hosts(), &fleet::selector(selector)?);
            let hosts = hosts.into_iter().map(|host| host.id).collect();
            app.hub.cancel_hosts(id, hosts, caller.actor()).await?
        }
    };
    match open {
        Some(0) => {
            let title = format!("run {id} goes on at none of these hosts");
            let detail = "`fleetwright runs show` lists its hosts, and which have ended";
            Err(Problem::new(Code::NoHosts, title).detail(detail).into())
        }
        Some(_) => Ok(StatusCode::ACCEPTED),
        None => {
            let run = read(&app, id).await?;
            let detail = format!("it is {} since {}", run.summary.state.as_str(), ended_at(&run));
            Err(Problem::new(Code::Conflict, format!("run {id} has ended")).detail(detail).into())
        }
    }
}

fn ended_at(run: &api::Run) -> String {
    run.summary.finished_at.map_or_else(|| "just now".to_owned(), |at| at.to_string())
}

/// Runs again: the same command with the same limits, on all hosts or those that did not succeed.
#[utoipa::path(post, path = "/runs/{id}/retry", tag = "runs", operation_id = "runs_retry",
    params(("id" = RunId, Path)), request_body = Retry,
    responses((status = 201, body = Created), (status = 409, description = "It has not ended.")))]
pub(super) async fn retry(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RunId>,
    Body(retry): Body<Retry>,
) -> Result<(StatusCode, Json<Created>)> {
    let run = read(&app, id).await?;
    if !run.summary.state.is_final() {
        let detail = "wait for its end, or cancel it first (`fleetwright runs cancel`)";
        return Err(Problem::new(Code::Conflict, format!("run {id} goes on"))
            .detail(detail)
            .into());
    }
    let first = plan_of(&app, id).await?;
    let done: &[TaskState] = if retry.failed { &[TaskState::Succeeded] } else { &[] };
    let hosts = fleet::again(&app.store.hosts(), &first, &run, done);
    if hosts.is_empty() {
        let detail = if retry.failed {
            "every host succeeded, or is not in the fleet any more"
        } else {
            "none of its hosts is in the fleet any more"
        };
        return Err(Problem::new(Code::NoHosts, "no host to run on again").detail(detail).into());
    }
    commit(&app, &caller, command::again(id, first, hosts, app.store.incarnation())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mut command: Command, expected: &Command) {
        shorten(&mut command);
        assert_eq!(command, *expected);
    }

    #[test]
    fn a_list_shows_the_beginning_of_a_long_command() {
        let argv = |words: &[&str]| Command::Argv(words.iter().map(|&w| w.to_owned()).collect());
        for short in [Command::Shell("uptime".to_owned()), argv(&["a", "b"]), argv(&["a", ""])] {
            check(short.clone(), &short);
        }
        let long = "x".repeat(5000);
        check(Command::Shell(long.clone()), &Command::Shell(format!("{}…", "x".repeat(1024))));
        check(Command::Shell("é".repeat(5000)), &Command::Shell(format!("{}…", "é".repeat(512))));
        check(argv(&["a", &long, "b"]), &argv(&["a", &format!("{}…", "x".repeat(1022))]));
        let many = Command::Argv(vec!["abc".to_owned(); 5000]);
        let mut shown = vec!["abc"; 256];
        shown.push("…");
        check(many, &argv(&shown));
    }
}
