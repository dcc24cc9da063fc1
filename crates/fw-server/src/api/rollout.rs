//! Rollouts: planned, begun, listed and shown.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use fw_core::access::Action;
use fw_core::change::{Change, Origin, Plan};
use fw_core::maintenance::Scope;
use fw_core::rollout::{self, Facts, Held, Other, Waves};
use fw_proto::api::{
    ChangeBegun, ChangeVerb, Code, Page, Problem, Rollout, RolloutPlan, RolloutSummary, RolloutText,
};
use fw_proto::{ChangeId, HostName, Span};
use fw_store::{ChangeQuery, ChangeRow, Standing};

use super::runbook::{ListQuery, errors_text};
use super::{change, page};
use crate::auth::Caller;
use crate::extract::{Body, Path, Query};
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// What a file without a name is called in errors.
const UNNAMED: &str = "rollout";

/// Earlier rollouts of the same name whose times are looked at.
const EARLIER: usize = 3;

/// Rollouts among which they are looked for.
const LOOK_BACK: u32 = 50;

/// Says what a rollout would do, and what is in its way. Changes nothing.
#[utoipa::path(post, path = "/rollouts/plan", tag = "rollouts", operation_id = "rollouts_plan",
    request_body = RolloutText, responses((status = 200, body = RolloutPlan)))]
pub(super) async fn plan(
    State(app): State<App>,
    caller: Caller,
    Body(text): Body<RolloutText>,
) -> Result<Json<RolloutPlan>> {
    let (rollout, waves) = read(&app, &text)?;
    // Also compiled: what would be refused at its begin is refused here.
    let plan = compile(&app, &rollout, &waves, &text.text)?;
    if caller.is_limited() {
        caller.may_with_all(&app, Action::See, &change::hosts(&plan, |_| true))?;
    }
    foresee(&app, &rollout, &waves).await.map(Json)
}

/// Begins a rollout. It is recorded when the answer comes, whatever happens to the server after. With `dry` it
/// is only said what it would do, if it could begin.
#[utoipa::path(post, path = "/rollouts", tag = "rollouts", operation_id = "rollouts_begin",
    request_body = RolloutText,
    responses((status = 201, body = ChangeBegun), (status = 200, body = RolloutPlan, description = "With `dry`."),
        (status = 422, description = "No host matched, or a secret is missing.")))]
pub(super) async fn begin(
    State(app): State<App>,
    caller: Caller,
    Body(text): Body<RolloutText>,
) -> Result<Response> {
    let (rollout, waves) = read(&app, &text)?;
    let plan = compile(&app, &rollout, &waves, &text.text)?;
    let foreseen = foresee(&app, &rollout, &waves).await?;
    if text.dry {
        change::may_begin(&app, &caller, &plan).await?;
        return Ok(Json(foreseen).into_response());
    }
    let id = app.changes.new_id();
    let mut begun = change::begin(&app, &caller, id, plan).await?;
    let conflicts: Vec<_> = foreseen.conflicts.into_iter().map(|one| one.message).collect();
    begun.warning = (!conflicts.is_empty()).then(|| conflicts.join("; "));
    Ok((StatusCode::CREATED, Json::<ChangeBegun>(begun)).into_response())
}

/// Reads a file, and puts the hosts that there are into its waves.
fn read(app: &App, text: &RolloutText) -> Result<(rollout::Rollout, Waves)> {
    let name = text.name.as_deref().unwrap_or(UNNAMED);
    let parsed = rollout::parse(name, &text.text);
    let rollout = parsed.map_err(|errors| Failure::invalid(errors_text(&errors)))?;
    let rows = app.store.hosts();
    let pick = |picked: &rollout::Picked| {
        let hosts = fleet::choose(&rows, &picked.selector);
        (picked.text.clone(), hosts.into_iter().map(|host| host.name).collect())
    };
    let picks = rollout.selectors().into_iter().map(pick).collect();
    let waves = rollout.waves(&picks).map_err(|error| refused(&error))?;
    Ok((rollout, waves))
}

fn compile(app: &App, rollout: &rollout::Rollout, waves: &Waves, source: &str) -> Result<Plan> {
    let rows = app.store.hosts();
    let active = rows.iter().filter(|row| row.standing == Standing::Active);
    let ids: BTreeMap<_, _> = active.map(|row| (row.name.clone(), row.id)).collect();
    let (now, life) = (app.clock.now(), app.store.incarnation());
    rollout::compile(rollout, source, waves, &ids, now, life).map_err(|error| refused(&error))
}

fn refused(error: &rollout::Error) -> Failure {
    let code = match error {
        rollout::Error::NoHosts(_) => Code::NoHosts,
        rollout::Error::EmptyWave { .. }
        | rollout::Error::LeftOver { .. }
        | rollout::Error::Metric { .. }
        | rollout::Error::Gone(_)
        | rollout::Error::Command { .. } => Code::InvalidRequest,
    };
    Problem::new(code, "the rollout cannot begin").detail(error.to_string()).into()
}

async fn foresee(app: &App, rollout: &rollout::Rollout, waves: &Waves) -> Result<RolloutPlan> {
    let rows = app.store.hosts();
    let ids = rows.iter().map(|row| row.id).collect();
    let online = app.hub.online(ids).await?;
    let offline = rows.iter().filter(|row| !online.contains(&row.id));
    let undecided = rollout.selectors();
    let undecided =
        undecided.into_iter().flat_map(|picked| fleet::undecided(&rows, &picked.selector));
    let facts = Facts {
        offline: offline.map(|row| row.name.clone()).collect(),
        undecided: undecided.collect(),
        maintenances: maintenances(app).await?,
        others: others(app).await?,
        took: took(app, rollout.name.as_str()).await?,
    };
    Ok(rollout::foresee(rollout, waves, &facts, app.clock.now()))
}

async fn maintenances(app: &App) -> Result<Vec<Held>> {
    let (held, rows) = (app.jobs.held(), app.store.hosts());
    let known = app.jobs.maintenances().await?;
    let view = |(id, one): (_, &fw_core::maintenance::Maintenance)| {
        let hosts = match &one.scope {
            Scope::Everything => None,
            Scope::Hosts(selector) => {
                let hosts = fleet::choose(&rows, selector);
                Some(hosts.into_iter().map(|host| host.name).collect())
            }
        };
        let said = known.iter().find(|known| known.id == id);
        let reason = said.map_or_else(String::new, |known| known.said.reason.clone());
        Held { hosts, reason, until: one.until }
    };
    Ok(held.in_force(app.clock.now()).map(view).collect())
}

/// What else goes on, and where.
async fn others(app: &App) -> Result<Vec<Other>> {
    let found = app.store.unfinished_changes().await?;
    let other = |change: Change| {
        let hosts: BTreeSet<HostName> =
            change::hosts(&change.plan, |_| true).into_iter().map(|host| host.name).collect();
        let state = change.state();
        Other { id: change.id, title: change.plan.title.clone(), state, hosts }
    };
    Ok(found.into_iter().map(|stored| other(stored.change)).collect())
}

/// How long the commands of the last rollouts of this name took on single hosts.
async fn took(app: &App, name: &str) -> Result<Vec<Span>> {
    let query = ChangeQuery { cursor: None, limit: LOOK_BACK, origin: Some(Origin::Rollout) };
    let rows = app.store.changes(query).await?.items.into_iter();
    let same = rows.filter(|row| row.title == name && row.finished_at.is_some()).take(EARLIER);
    let mut spans = Vec::new();
    for row in same {
        let Some(change) = app.changes.get(row.id).await? else { continue };
        let acts = change.plan.nodes.iter().zip(&change.nodes).filter(|(node, _)| {
            // Not the proof after a soak, which is a node of its own and has no undo.
            node.work().is_some() && !node.id.ends_with("-verify")
        });
        for run in acts.flat_map(|(_, progress)| &progress.tries) {
            let Some(report) = app.store.run(run.run).await? else { continue };
            let of = |task: &fw_proto::api::Task| Some(task.finished_at?.since(task.started_at?));
            spans.extend(report.tasks.iter().filter_map(of));
        }
    }
    Ok(spans)
}

/// Lists rollouts that were begun, newest first.
#[utoipa::path(get, path = "/rollouts", tag = "rollouts", operation_id = "rollouts_list", params(ListQuery),
    responses((status = 200, body = Page<RolloutSummary>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<RolloutSummary>>> {
    page_of(&app, query).await.map(Json)
}

/// A page of them.
pub(crate) async fn page_of(app: &App, query: ListQuery) -> Result<Page<RolloutSummary>> {
    let limit = page::limit(query.limit)?;
    let query = ChangeQuery { cursor: query.cursor, limit, origin: Some(Origin::Rollout) };
    let Page { items, next } = app.store.changes(query).await?;
    Ok(Page { items: items.into_iter().map(summary).collect(), next })
}

/// A rollout of a list.
pub(crate) fn summary(row: ChangeRow) -> RolloutSummary {
    let ChangeRow { id, title, state, why, wave, by, by_kind, created_at, finished_at, .. } = row;
    RolloutSummary { id, name: title, state, why, wave, by, by_kind, created_at, finished_at }
}

/// Shows a rollout, its waves and its hosts.
#[utoipa::path(get, path = "/rollouts/{id}", tag = "rollouts", operation_id = "rollouts_show",
    params(("id" = ChangeId, Path)), responses((status = 200, body = Rollout)))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ChangeId>,
) -> Result<Json<Rollout>> {
    let found = change::find_within(&app, &caller, Action::See, Origin::Rollout, id).await?;
    whole(&app, &found).await.map(Json)
}

/// A rollout as it is now.
pub(crate) async fn whole(app: &App, change: &Change) -> Result<Rollout> {
    let under_way = change::under_way(app, change).await?;
    Ok(rollout::view(change, &under_way))
}

/// Pauses, resumes, approves, ends or takes back a rollout. It is recorded when the answer comes; what runs
/// may go on for a while.
#[utoipa::path(post, path = "/rollouts/{id}/{verb}", tag = "rollouts", operation_id = "rollouts_ask",
    params(("id" = ChangeId, Path), ("verb" = inline(ChangeVerb), Path)),
    responses((status = 202, body = Rollout), (status = 409, description = "It is not in a state that allows this.")))]
pub(super) async fn ask(
    State(app): State<App>,
    caller: Caller,
    Path((id, verb)): Path<(ChangeId, ChangeVerb)>,
) -> Result<(StatusCode, Json<Rollout>)> {
    let found = change::find_within(&app, &caller, Action::Run, Origin::Rollout, id).await?;
    change::ask(&app, &caller, &found, change::request(verb), verb.as_str()).await?;
    let now = change::find(&app, Origin::Rollout, id).await?;
    Ok((StatusCode::ACCEPTED, Json(whole(&app, &now).await?)))
}
