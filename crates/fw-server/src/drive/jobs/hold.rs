//! Maintenance: what is switched on and off, and what of it the scheduler is to know.
//!
//! The store comes first: what is in force survives a restart. An end that was said before needs no
//! look into the store, and nobody to come: each decision asks what is in force at its own time.

use std::fmt;
use std::sync::Arc;

use fw_core::maintenance::{Maintenance, Maintenances, Scope};
use fw_core::run::Actor;
use fw_core::select::Selector;
use fw_proto::api::{Code, Problem};
use fw_proto::{MaintenanceId, Span, Timestamp};
use fw_store::{NewMaintenance, StoredMaintenance};
use tracing::{error, info};

use super::change::unavailable;
use super::owner::Owner;

/// One that is over is remembered for so long: what was due in it is decided and performed by
/// then, since the scheduler makes no run of what was due longer ago than [`fw_core::fires::JUMP`].
const REMEMBERED: Span = Span::from_secs(10 * 60);

/// So many may be in force: each is looked at for every host of a fire.
const MOST: usize = 1000;

/// A maintenance as somebody wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The hosts that it is to cover, as a selector; everything when `None`.
    pub hosts: Option<String>,
    /// Why.
    pub reason: String,
    /// What people are to know.
    pub message: Option<String>,
    /// When it is to end; `None` until it is switched off.
    pub until: Option<Timestamp>,
}

/// Who switches a maintenance on or off. The text of a dialect is no token's name, which has no
/// colon, so that a dialect knows its own again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Whoever asked.
    Caller(Actor),
    /// The files of this dialect.
    Dialect(&'static str),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(actor) => actor.fmt(f),
            Self::Dialect(name) => write!(f, "dialect:{name}"),
        }
    }
}

impl Owner {
    /// Takes over what is stored, those that are over too: downtime may have begun in one.
    pub(super) fn load_maintenances(&mut self, stored: Vec<StoredMaintenance>) {
        let mut all = Maintenances::default();
        for StoredMaintenance { id, said, .. } in stored {
            match scope(said.selector.as_deref()) {
                Ok(scope) => {
                    all.put(id, Maintenance { scope, since: said.since, until: said.until });
                }
                Err(why) => {
                    error!(maintenance = %id, "stored maintenance cannot be used and holds nothing: {why}; switch it on again");
                }
            }
        }
        self.publish(all, self.parts.clock.now());
    }

    /// Begins one.
    pub(super) async fn begin_maintenance(
        &mut self,
        wanted: Wanted,
        by: By,
    ) -> Result<StoredMaintenance, Problem> {
        let Wanted { hosts, reason, message, until } = wanted;
        let scope = scope(hosts.as_deref()).map_err(|why| {
            Problem::new(Code::InvalidSelector, "invalid selector").detail(why.to_string())
        })?;
        let since = self.parts.clock.now();
        if self.maintenances.borrow().in_force(since).count() >= MOST {
            let title = format!("{MOST} maintenances are in force, which is the most there can be");
            let detail = "switch some off first (`fleetwright maintenance off`), or cover more hosts with one";
            return Err(Problem::new(Code::Conflict, title).detail(detail));
        }
        let by = by.to_string();
        let said = NewMaintenance { selector: hosts, reason, message, by, since, until };
        let id = self.parts.store.begin_maintenance(said.clone()).await.map_err(unavailable)?;
        let mut all = self.known();
        all.put(id, Maintenance { scope, since, until });
        self.publish(all, since);
        let NewMaintenance { selector, reason, by, .. } = &said;
        let covers = selector.as_deref().unwrap_or("everything");
        info!(maintenance = %id, hosts = covers, reason, by, "maintenance is on");
        Ok(StoredMaintenance { id, said, ended_by: None })
    }

    /// Ends one.
    pub(super) async fn end_maintenance(
        &mut self,
        id: MaintenanceId,
        by: By,
    ) -> Result<StoredMaintenance, Problem> {
        let (store, now, by) = (&self.parts.store, self.parts.clock.now(), by.to_string());
        let ended = store.end_maintenance(id, now, &by).await.map_err(unavailable)?;
        if ended {
            let mut all = self.known();
            all.end(id, now);
            self.publish(all, now);
            info!(maintenance = %id, by, "maintenance is off");
        }
        let known = self.parts.store.maintenances().await.map_err(unavailable)?;
        match known.into_iter().find(|one| one.id == id) {
            Some(one) if ended => Ok(one),
            Some(one) => Err(over(&one)),
            None => Err(missing(id)),
        }
    }

    /// Forgets those that have long been over.
    pub(super) fn forget_maintenances(&mut self, now: Timestamp) {
        let by = now - REMEMBERED;
        if self.maintenances.borrow().is_any_over(by) {
            let mut all = self.known();
            all.forget(by);
            self.publish(all, now);
        }
    }

    fn known(&self) -> Maintenances {
        Maintenances::clone(&self.maintenances.borrow())
    }

    fn publish(&mut self, all: Maintenances, now: Timestamp) {
        let decisions = self.scheduler.hold(all.spans(), now);
        self.take(decisions);
        self.maintenances.send_replace(Arc::new(all));
    }
}

fn scope(selector: Option<&str>) -> Result<Scope, fw_core::select::Error> {
    selector.map_or(Ok(Scope::Everything), |text| Selector::parse(text).map(Scope::Hosts))
}

fn missing(id: MaintenanceId) -> Problem {
    Problem::new(Code::NotFound, format!("no maintenance {id}"))
        .detail("`fleetwright maintenance list` shows those that are in force")
}

fn over(known: &StoredMaintenance) -> Problem {
    let at = known.said.until.map(|at| format!(" since {at}")).unwrap_or_default();
    let by = known.ended_by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    Problem::new(Code::Conflict, format!("maintenance {} is over{at}{by}", known.id))
        .detail("there is nothing to switch off; `fleetwright maintenance list` shows what is on")
}

#[cfg(test)]
mod tests;
