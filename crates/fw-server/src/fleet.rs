//! Hosts as the store has them, and what others see in them: the selector, a plan, the API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_core::host::Seen;
use fw_core::maintenance::{Asking, Maintenances};
use fw_core::plan::{Chosen, Plan};
use fw_core::select::{self, Selector};
use fw_proto::api::{self, Code, HostState, Problem, TaskState};
use fw_proto::frame::PolicyMode;
use fw_proto::{HostId, HostName, RunId, Timestamp};
use fw_store::{HostRow, Standing};
use sha2::{Digest as _, Sha256};

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

/// Those of these hosts on which the selector's regular expressions take too many steps to say.
#[must_use]
pub fn undecided(rows: &[Arc<HostRow>], selector: &Selector) -> Vec<HostName> {
    let active = rows.iter().filter(|row| row.standing == Standing::Active);
    let undecided = active.filter(|row| selector.decide(seen(row)).is_none());
    undecided.map(|row| row.name.clone()).collect()
}

fn named<'r>(rows: &'r [Arc<HostRow>], name: &str) -> Option<&'r Arc<HostRow>> {
    rows.binary_search_by(|row| row.name.as_str().cmp(name)).ok().and_then(|at| rows.get(at))
}

/// So many of these hosts, in their order: first those that are online, each with the same chance. A run
/// draws the same again, so that a try that seemed to fail is the same run.
#[must_use]
pub fn draw(hosts: &[Chosen], most: u32, online: &BTreeSet<HostId>, run: RunId) -> Vec<Chosen> {
    let lot = |host: &Chosen| {
        let mut digest = Sha256::new();
        digest.update(run.0.as_bytes());
        digest.update(host.id.0.as_bytes());
        (!online.contains(&host.id), <[u8; 32]>::from(digest.finalize()))
    };
    let mut lots: Vec<_> = hosts.iter().map(|host| (lot(host), host.id)).collect();
    lots.sort_unstable();
    lots.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    let drawn: BTreeSet<_> = lots.into_iter().map(|(_, id)| id).collect();
    hosts.iter().filter(|host| drawn.contains(&host.id)).cloned().collect()
}

/// The hosts of a repetition, by their present names, in the order of the first run: all of them
/// that are still here, but for those whose part ended in one of `but`.
#[must_use]
pub fn again(
    rows: &[Arc<HostRow>],
    first: &Plan,
    run: &api::Run,
    but: &[TaskState],
) -> Vec<Chosen> {
    let done = |task: &&api::Task| but.contains(&task.state);
    let done: BTreeSet<_> = run.tasks.iter().filter(done).map(|task| &task.host).collect();
    let active = rows.iter().filter(|row| row.standing == Standing::Active);
    let active: BTreeMap<_, _> = active.map(|row| (row.id, &row.name)).collect();
    let again = first.hosts.iter().filter(|host| !done.contains(&host.name));
    again
        .filter_map(|host| {
            active.get(&host.id).map(|name| Chosen { id: host.id, name: (*name).clone() })
        })
        .collect()
}

/// Those of these hosts that no maintenance keeps such a run from then.
#[must_use]
pub fn free(
    rows: &[Arc<HostRow>],
    hosts: &[Chosen],
    maintenances: &Maintenances,
    run: Asking<'_>,
    at: Timestamp,
) -> Vec<Chosen> {
    let held = |row: &Arc<HostRow>| maintenances.holding(seen(row), run, at).is_some();
    let free = |host: &&Chosen| !named(rows, host.name.as_str()).is_some_and(held);
    hosts.iter().filter(free).cloned().collect()
}

/// What to know of a run that somebody begins on these hosts: that some are in maintenance.
pub(crate) fn warning(app: &App, hosts: &[Chosen]) -> Option<String> {
    let (held, now) = (app.jobs.held(), app.clock.now());
    held.in_force(now).next()?;
    let rows = app.store.hosts();
    let id = |host: &Chosen| held.of(seen(named(&rows, host.name.as_str())?), now);
    let held: Vec<_> = hosts.iter().filter_map(|host| Some((host, id(host)?))).collect();
    let (first, id) = held.first()?;
    let more = match held.len() - 1 {
        0 => "is".to_owned(),
        more => format!("and {more} more are"),
    };
    Some(format!(
        "{} {more} in maintenance ({id}); what is begun by hand runs there all the same",
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

/// The state of a host.
pub(crate) fn state(row: &HostRow, present: &Present) -> HostState {
    match row.standing {
        Standing::Revoked => HostState::Revoked,
        Standing::Duplicate => HostState::Duplicate,
        Standing::Active if present.online.contains(&row.id) => HostState::Online,
        Standing::Active => HostState::Offline,
    }
}

/// The host as the API shows it.
pub(crate) fn view(row: &HostRow, present: &Present) -> api::Host {
    let state = state(row, present);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn hosts(count: u128) -> Vec<Chosen> {
        let host =
            |n| Chosen { id: HostId(Uuid::from_u128(n)), name: format!("h{n}").parse().unwrap() };
        (0..count).map(host).collect()
    }

    proptest! {
        #[test]
        fn those_that_are_online_are_drawn_first(
            count in 0_u128..40, most in 0_u32..50, online in prop::collection::btree_set(0_u128..40, 0..40), run: u128,
        ) {
            let hosts = hosts(count);
            let online: BTreeSet<_> = online.into_iter().map(|n| HostId(Uuid::from_u128(n))).collect();
            let run = RunId(Uuid::from_u128(run));
            let drawn = draw(&hosts, most, &online, run);
            prop_assert_eq!(drawn.len(), hosts.len().min(most as usize));
            let up = |of: &[Chosen]| of.iter().filter(|host| online.contains(&host.id)).count();
            prop_assert_eq!(up(&drawn), up(&hosts).min(most as usize));
            prop_assert!(drawn.windows(2).all(|pair| pair[0].id < pair[1].id));
            prop_assert_eq!(draw(&hosts, most, &online, run), drawn);
        }
    }

    #[test]
    fn every_host_has_its_chance() {
        let hosts = hosts(10);
        let mut seen = BTreeSet::new();
        for run in 0..200 {
            let drawn = draw(&hosts, 1, &BTreeSet::new(), RunId(Uuid::from_u128(run)));
            seen.extend(drawn.into_iter().map(|host| host.id));
        }
        assert_eq!(seen.len(), hosts.len());
    }
}
