//! What rollouts and runbooks have in common: who may do what with one, and what they say of it.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::access::{Action, Who};
use fw_core::change::{Act, Change, Origin, Plan, Request, Work};
use fw_core::plan::Chosen;
use fw_core::runbook::Value;
use fw_proto::api::{
    ChangeBegun, ChangeVerb, Code, EnvValue, Problem, Role, Scope, StepVerb, TaskState,
};
use fw_proto::{ChangeId, HostId};
use fw_store::NewAudit;
use serde_json::json;

use crate::auth::{self, Caller};
use crate::fleet;
use crate::problem::{Failure, Result};
use crate::state::App;

/// The longest note: a paragraph or two.
const MAX_NOTE: usize = 4096;

/// What people call it.
const fn noun(origin: Origin) -> &'static str {
    match origin {
        Origin::Rollout => "rollout",
        Origin::Runbook => "runbook",
    }
}

/// A rollout or a runbook of this id.
pub(crate) async fn find(app: &App, origin: Origin, id: ChangeId) -> Result<Change> {
    let change = app.changes.get(id).await?.filter(|change| change.plan.origin == origin);
    change.ok_or_else(|| {
        let hint = match origin {
            Origin::Rollout => "`fleetwright rollouts list` shows those that there are",
            Origin::Runbook => "`fleetwright runbook list` shows those that there are",
        };
        Failure::not_found(noun(origin), id, hint)
    })
}

/// Likewise, if the caller may do this with all its hosts.
pub(super) async fn find_within(
    app: &App,
    caller: &Caller,
    action: Action,
    origin: Origin,
    id: ChangeId,
) -> Result<Change> {
    let change = find(app, origin, id).await?;
    if caller.is_limited() {
        caller.may_with_all(app, action, &hosts(&change.plan, |_| true))?;
    }
    Ok(change)
}

/// What a plan does on hosts, and what takes that back.
fn works(plan: &Plan) -> impl Iterator<Item = &Work> {
    plan.nodes
        .iter()
        .flat_map(|node| node.work().into_iter().chain(node.undo.as_ref().map(|undo| &*undo.work)))
}

/// The hosts of those parts of a plan that are meant, each once.
pub(super) fn hosts(plan: &Plan, meant: impl Fn(&Work) -> bool) -> Vec<Chosen> {
    let works = works(plan).filter(|work| meant(work));
    let all: BTreeMap<HostId, &Chosen> =
        works.flat_map(|work| &work.hosts).map(|host| (host.id, host)).collect();
    let mut all: Vec<_> = all.into_values().cloned().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Begins a change, if the caller may do all that it does, on all its hosts together.
pub(super) async fn begin(
    app: &App,
    caller: &Caller,
    id: ChangeId,
    plan: Plan,
) -> Result<ChangeBegun> {
    let all = may_begin(app, caller, &plan).await?;
    let warning = fleet::warning(app, &all);
    let action = format!("{}.begin", noun(plan.origin));
    let note = NewAudit {
        hosts: all.iter().map(|host| host.name.to_string()).collect(),
        after: Some(json!({ "title": plan.title, "steps": plan.nodes.len() })),
        ..caller.note(app, &action, id)
    };
    app.changes.start(id, plan, caller.actor(), app.store.noting(note)).await?;
    Ok(ChangeBegun { id, warning })
}

/// Goes on only if the caller may begin this; gives its hosts.
pub(super) async fn may_begin(app: &App, caller: &Caller, plan: &Plan) -> Result<Vec<Chosen>> {
    let as_root = |work: &Work| auth::to_run(work.exec.user.as_deref()) == Action::RunAsRoot;
    let (all, root) = (hosts(plan, |_| true), hosts(plan, as_root));
    caller.may_with_all(app, Action::Run, &all)?;
    if !root.is_empty() {
        caller.may_with_all(app, Action::RunAsRoot, &root)?;
    }
    for name in secrets(plan) {
        if app.store.secret(&name).await?.is_none() {
            let shown: String = name.chars().take(80).collect();
            let problem = Problem::new(Code::NoSecret, format!("there is no secret {shown:?}"));
            return Err(problem.detail("set it with `fleetwright secrets set`").into());
        }
    }
    Ok(all)
}

/// The secrets that a plan names.
fn secrets(plan: &Plan) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for work in works(plan) {
        for value in work.exec.env.values() {
            match value {
                EnvValue::Secret(name) => names.extend([name.clone()]),
                EnvValue::Value(_) => {}
            }
        }
        for value in work.fill.iter().flat_map(|fill| fill.inputs.values()) {
            if let Value::Secret(name) = value {
                names.insert(name.clone());
            }
        }
    }
    names
}

/// Does what a person wants of a change.
pub(super) async fn ask(
    app: &App,
    caller: &Caller,
    change: &Change,
    request: Request,
    word: &str,
) -> Result<()> {
    let action = format!("{}.{word}", noun(change.plan.origin));
    let step = match &request {
        Request::Pass { node, note } | Request::Skip { node, note } => {
            Some(json!({ "step": node, "note": note }))
        }
        Request::Pause | Request::Resume | Request::Abort | Request::Undo | Request::Approve => {
            None
        }
    };
    let note = NewAudit {
        hosts: hosts(&change.plan, |_| true).iter().map(|host| host.name.to_string()).collect(),
        before: Some(json!({ "state": change.state().as_str() })),
        after: step,
        ..caller.note(app, &action, change.id)
    };
    let (store, role) = (app.store.noting(note), role(caller));
    Ok(app.changes.ask(change.id, request, caller.actor(), role, store).await?)
}

/// A verb as what is asked of a change.
pub(super) const fn request(verb: ChangeVerb) -> Request {
    match verb {
        ChangeVerb::Pause => Request::Pause,
        ChangeVerb::Resume => Request::Resume,
        ChangeVerb::Approve => Request::Approve,
        ChangeVerb::Abort => Request::Abort,
        ChangeVerb::Undo => Request::Undo,
    }
}

/// What is said of a step, as what is asked of its change. Whoever ticks a step that asks whether it may run
/// would run it unawares, so that is refused.
pub(super) fn step_request(
    change: &Change,
    node: String,
    verb: StepVerb,
    note: Option<String>,
) -> Result<Request> {
    if note.as_ref().is_some_and(|note| note.len() > MAX_NOTE) {
        return Err(Failure::invalid(format!("note: use at most {MAX_NOTE} bytes")));
    }
    let note = note.filter(|note| !note.trim().is_empty());
    let current = change.plan.nodes.get(change.at).filter(|current| current.id == node);
    let asks = current.is_some_and(|current| current.act == Act::Confirm);
    if asks && verb == StepVerb::Tick {
        let title = format!("step {node} asks whether it may run");
        let detail = "use `confirm` to let it run, or `skip` to go on without it";
        return Err(Problem::new(Code::Conflict, title).detail(detail).into());
    }
    Ok(match verb {
        StepVerb::Tick | StepVerb::Confirm => Request::Pass { node, note },
        StepVerb::Skip => Request::Skip { node, note },
    })
}

/// The role that a caller's approval has.
fn role(caller: &Caller) -> Role {
    match &caller.who {
        Who::Person { role, .. } => *role,
        Who::Token { scopes, owner, .. } => {
            let of = |scope: &Scope| match scope {
                Scope::Read | Scope::Dangerous => Role::Viewer,
                Scope::Run => Role::Operator,
                Scope::Admin => Role::Admin,
            };
            let most = scopes.iter().map(of).max().unwrap_or(Role::Viewer);
            owner.map_or(most, |owner| owner.min(most))
        }
    }
}

/// The hosts of the run that goes on that were told to begin and have not ended.
pub(crate) async fn under_way(app: &App, change: &Change) -> Result<BTreeSet<HostId>> {
    let Some((_, _, open)) = change.open_try() else { return Ok(BTreeSet::new()) };
    let Some(run) = app.hub.run(open.run).await? else { return Ok(BTreeSet::new()) };
    // A run's tasks are in the order of its plan, which has the hosts in this order.
    let tasks = open.hosts.iter().zip(&run.tasks);
    let busy =
        tasks.filter(|(_, task)| matches!(task.state, TaskState::Starting | TaskState::Running));
    Ok(busy.map(|(host, _)| *host).collect())
}
