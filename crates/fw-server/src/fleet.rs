//! Hosts as the store has them, and what others see in them: the selector, a plan, the API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_core::host::Seen;
use fw_core::maintenance::Maintenances;
use fw_core::plan::{Chosen, Plan};
use fw_core::select::{self, Selector};
use fw_proto::api::{self, Code, HostState, Problem, TaskState};
use fw_proto::frame::PolicyMode;
use fw_proto::{HostId, HostName, Timestamp};
use fw_store::{HostRow, Standing};

use crate::problem::{Failure, Result};
use crate::state::App;

/// Reads a selector; the problem has a caret under what is wrong.
///
/// # Errors
/// It is none.
pub fn selector(text: &str) -> Result<Selector> {
    let invalid = |error: select::Error| {
        Problem::new(Code::InvalidSelector, "invalid selector").detail(error.to_string())
    };
    Selector::parse(text).map_err(|error| invalid(error).into())
}

/// Those of these hosts, sorted by name, that a run on this selector is for. Those that may not link
/// are never chosen.
#[must_use]
pub fn choose(rows: &[Arc<HostRow>], selector: &Selector) -> Vec<Chosen> {
    let meant =
        |row: &&Arc<HostRow>| row.standing == Standing::Active && selector.matches(seen(row));
    let chosen = |row: &Arc<HostRow>| Chosen { id: row.id, name: row.name.clone() };
    match selector.names() {
        None => rows.iter().filter(meant).map(chosen).collect(),
        Some(names) => {
            let named = names.into_iter().filter_map(|name| named(rows, name));
            named.filter(meant).map(chosen).collect()
        }
    }
}

fn named<'r>(rows: &'r [Arc<HostRow>], name: &str) -> Option<&'r Arc<HostRow>> {
    rows.binary_search_by(|row| row.name.as_str().cmp(name)).ok().and_then(|at| rows.get(at))
}

/// The hosts of a repetition, by their present names, in the order of the first run: all of them
/// that are still here, or those that did not succeed.
#[must_use]
pub fn again(rows: &[Arc<HostRow>], first: &Plan, run: &api::Run, failed: bool) -> Vec<Chosen> {
    let succeeded = |task: &&api::Task| failed && task.state == TaskState::Succeeded;
    let good: BTreeSet<_> = run.tasks.iter().filter(succeeded).map(|task| &task.host).collect();
    let active = rows.iter().filter(|row| row.standing == Standing::Active);
    let active: BTreeMap<_, _> = active.map(|row| (row.id, &row.name)).collect();
    let again = first.hosts.iter().filter(|host| !good.contains(&host.name));
    again
        .filter_map(|host| {
            active.get(&host.id).map(|name| Chosen { id: host.id, name: (*name).clone() })
        })
        .collect()
}

/// Those of these hosts that are in no maintenance then.
#[must_use]
pub fn free(
    rows: &[Arc<HostRow>],
    hosts: &[Chosen],
    maintenances: &Maintenances,
    at: Timestamp,
) -> Vec<Chosen> {
    let held = |row: &Arc<HostRow>| maintenances.of(seen(row), at).is_some();
    let free = |host: &&Chosen| !named(rows, host.name.as_str()).is_some_and(held);
    hosts.iter().filter(free).cloned().collect()
}

/// What to know of a run that somebody begins on these hosts: that some are in maintenance.
pub(crate) fn warning(app: &App, hosts: &[Chosen]) -> Option<String> {
    let (held, now) = (app.jobs.held(), app.clock.now());
    held.in_force(now).next()?;
    let rows = app.store.hosts();
    let is_held = |row: &Arc<HostRow>| held.of(seen(row), now).is_some();
    let held = |host: &&Chosen| named(&rows, host.name.as_str()).is_some_and(is_held);
    let held: Vec<_> = hosts.iter().filter(held).collect();
    let first = held.first()?;
    let more = match held.len() - 1 {
        0 => "is".to_owned(),
        more => format!("and {more} more are"),
    };
    Some(format!(
        "{} {more} in maintenance (`fleetwright maintenance list`); what is begun by hand runs there all the same",
        first.name
    ))
}

/// What of hosts changes without them.
pub(crate) struct Present {
    online: BTreeSet<HostId>,
    maintenances: Arc<Maintenances>,
    at: Timestamp,
}

impl Present {
    /// As it is now, for these.
    pub(crate) async fn of(app: &App, hosts: Vec<HostId>) -> Result<Self> {
        let online = app.hub.online(hosts).await?;
        Ok(Self { online, maintenances: app.jobs.held(), at: app.clock.now() })
    }
}

/// The host as a selector sees it.
#[must_use]
pub fn seen(row: &HostRow) -> Seen<'_> {
    Seen { name: &row.name, labels: &row.labels, facts: &row.facts }
}

/// The host as the API shows it.
pub(crate) fn view(row: &HostRow, present: &Present) -> api::Host {
    let state = match row.standing {
        Standing::Revoked => HostState::Revoked,
        Standing::Duplicate => HostState::Duplicate,
        Standing::Active if present.online.contains(&row.id) => HostState::Online,
        Standing::Active => HostState::Offline,
    };
    let offline_since = match state {
        HostState::Online => None,
        // After a crash of the server nobody noted the end of the link.
        HostState::Offline | HostState::Revoked | HostState::Duplicate => {
            row.offline_since.or(row.last_seen)
        }
    };
    let policy = row.policy.map(|mode| match mode {
        PolicyMode::Observe => "observe".to_owned(),
        PolicyMode::Operate => "operate".to_owned(),
    });
    api::Host {
        name: row.name.clone(),
        id: row.id,
        state,
        offline_since,
        facts: row.facts.clone(),
        labels: row.labels.clone(),
        agent_version: row.agent_version.clone(),
        last_seen: row.last_seen,
        joined_at: row.joined_at,
        policy,
        maintenance: present.maintenances.of(seen(row), present.at),
    }
}

/// Finds a host by its name or id.
pub(crate) fn find(app: &App, name_or_id: &str) -> Result<Arc<HostRow>> {
    let found = match (name_or_id.parse::<HostId>(), name_or_id.parse::<HostName>()) {
        (Ok(id), _) => app.store.host(id),
        (Err(_), Ok(name)) => app.store.host_named(&name),
        (Err(_), Err(_)) => None,
    };
    let shown: String = name_or_id.chars().take(80).collect();
    found.ok_or_else(|| {
        Failure::not_found(
            "host",
            format!("{shown:?}"),
            "`fleetwright hosts list` shows those that there are",
        )
    })
}
