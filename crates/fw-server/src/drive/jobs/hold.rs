//! Maintenance: what is switched on and off, and what of it the scheduler is to know.
//!
//! People switch theirs on and off; those that the files of a dialect ask for follow from the files.
//!
//! The store comes first: what is in force survives a restart. An end that was said before needs no
//! look into the store, and nobody to come: each decision asks what is in force at its own time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use fw_core::maintenance::{Maintenance, Maintenances, Scope, Windows};
use fw_core::run::Actor;
use fw_core::schedule::{self, Schedule};
use fw_core::select::Selector;
use fw_proto::api::{ActorKind, Code, MaintenanceNow, Problem};
use fw_proto::{MaintenanceId, Span, Timestamp};
use fw_store::{NewMaintenance, StoredMaintenance, StoredWindows};
use tracing::{error, info};

use super::change::unavailable;
use super::owner::Owner;
use crate::problem::Chain;

/// One that is over is remembered for so long: what was due in it is decided and performed by
/// then, since the scheduler makes no run of what was due longer ago than [`fw_core::fires::JUMP`].
const REMEMBERED: Span = Span::from_secs(10 * 60);

/// So many may be in force: each is looked at for every host of a fire.
const MOST: usize = 1000;

/// A maintenance as somebody wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The hosts that it is to cover, as a selector; everything when `None`.
    pub hosts: Option<String>,
    /// Why.
    pub reason: String,
    /// What people are to know.
    pub message: Option<String>,
    /// When it is to end; `None` until it is switched off.
    pub until: Option<Timestamp>,
    /// The windows that it is to be in force in; all the time when `None`.
    pub windows: Option<Windows>,
}

/// A maintenance that files of a dialect ask for, of the jobs of these files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// The hosts that it covers, as a selector; everything when `None`.
    pub hosts: Option<String>,
    /// What in the files asks for it.
    pub reason: String,
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

impl By {
    /// What it is; the files of a dialect are none of these.
    const fn kind(&self) -> Option<ActorKind> {
        match self {
            Self::Caller(actor) => Some(actor.kind()),
            Self::Dialect(_) => None,
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(actor) => actor.fmt(f),
            Self::Dialect(name) => write!(f, "dialect:{name}"),
        }
    }
}

/// What was said of maintenances, by their ids.
pub(super) type Words = BTreeMap<MaintenanceId, Arc<NewMaintenance>>;

/// What people are told of a maintenance in force.
pub(super) fn told(
    id: MaintenanceId,
    one: &Maintenance,
    words: &Words,
    at: Timestamp,
) -> Option<MaintenanceNow> {
    let said = words.get(&id)?;
    let until = one.window(at).map(|window| window.until).or(one.until);
    Some(MaintenanceNow {
        id,
        hosts: said.selector.clone(),
        source: said.source.clone(),
        reason: said.reason.clone(),
        message: said.message.clone(),
        until,
    })
}

impl Owner {
    /// Takes over what is stored, those that are over too: downtime may have begun in one.
    pub(super) fn load_maintenances(&mut self, stored: Vec<StoredMaintenance>) {
        let mut all = Maintenances::default();
        for StoredMaintenance { id, said, .. } in stored {
            match maintenance(&said) {
                Ok(one) => {
                    all.put(id, one);
                    self.words.send_modify(|words| drop(words.insert(id, Arc::new(said))));
                }
                Err(error) => {
                    let why = Chain(&error);
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
        let Wanted { hosts, reason, message, until, windows } = wanted;
        let (since, by_kind, by) = (self.parts.clock.now(), by.kind(), by.to_string());
        let stored = |windows: Windows| StoredWindows {
            every: windows.every.as_str().to_owned(),
            timezone: windows.every.timezone().to_owned(),
            lasts: windows.lasts,
        };
        let (selector, windows, source) = (hosts, windows.map(stored), None);
        let said = NewMaintenance {
            selector,
            reason,
            message,
            by,
            by_kind,
            since,
            until,
            windows,
            source,
        };
        let one = maintenance(&said).map_err(|why| {
            Problem::new(Code::InvalidSelector, "invalid selector").detail(Chain(&why).to_string())
        })?;
        if self.maintenances.borrow().on(since).count() >= MOST {
            let title = format!("{MOST} maintenances are on, which is the most there can be");
            let detail = "switch some off first (`fleetwright maintenance off`), or cover more hosts with one";
            return Err(Problem::new(Code::Conflict, title).detail(detail));
        }
        let id = self.put_maintenance(&said, one).await.map_err(unavailable)?;
        Ok(StoredMaintenance { id, said, ended_by: None, ended_by_kind: None })
    }

    async fn put_maintenance(
        &mut self,
        said: &NewMaintenance,
        one: Maintenance,
    ) -> Result<MaintenanceId, fw_store::Error> {
        let id = self.parts.store.begin_maintenance(said.clone()).await?;
        let words = Arc::new(said.clone());
        self.words.send_modify(|all| drop(all.insert(id, words)));
        let mut all = self.known();
        all.put(id, one);
        self.publish(all, said.since);
        let NewMaintenance { selector, reason, by, by_kind, .. } = said;
        let by = ActorKind::shown(*by_kind, by);
        let covers = selector.as_deref().unwrap_or("everything");
        info!(maintenance = %id, hosts = covers, reason, by, "maintenance is on");
        Ok(id)
    }

    /// Switches on what the files of a dialect ask for, unless it is on.
    pub(super) async fn begin_said(
        &mut self,
        dialect: &'static str,
        said: &[Said],
    ) -> Result<(), fw_store::Error> {
        let on = self.said().await?.into_iter().filter(|(_, source, _)| source == dialect);
        let on: BTreeSet<_> = on.map(|(_, _, said)| said).collect();
        for Said { hosts, reason } in said.iter().filter(|one| !on.contains(one)) {
            let since = self.parts.clock.now();
            let new = NewMaintenance {
                selector: hosts.clone(),
                reason: reason.clone(),
                message: None,
                by: By::Dialect(dialect).to_string(),
                by_kind: None,
                since,
                until: None,
                windows: None,
                source: Some(dialect.to_owned()),
            };
            match maintenance(&new) {
                Ok(one) => drop(self.put_maintenance(&new, one).await?),
                Err(error) => error!(
                    error = %Chain(&error),
                    "maintenance that files of {dialect} ask for cannot be used; please report this"
                ),
            }
        }
        Ok(())
    }

    /// Switches off what the files of a dialect do not ask for any more, and what those of another asked for.
    pub(super) async fn end_said(
        &mut self,
        dialect: &'static str,
        said: &[Said],
    ) -> Result<(), fw_store::Error> {
        for (id, source, one) in self.said().await? {
            if source != dialect || !said.contains(&one) {
                self.switch_off(id, &format!("dialect:{source}"), None).await?;
            }
        }
        Ok(())
    }

    /// What is on because files ask for it.
    async fn said(&self) -> Result<Vec<(MaintenanceId, String, Said)>, fw_store::Error> {
        let now = self.parts.clock.now();
        let known = self.parts.store.maintenances().await?.into_iter();
        let on = known.filter(|one| one.said.until.is_none_or(|until| now < until));
        let said = |one: StoredMaintenance| {
            let NewMaintenance { selector: hosts, reason, source, .. } = one.said;
            Some((one.id, source?, Said { hosts, reason }))
        };
        Ok(on.filter_map(said).collect())
    }

    /// Whether it was on.
    async fn switch_off(
        &mut self,
        id: MaintenanceId,
        by: &str,
        kind: Option<ActorKind>,
    ) -> Result<bool, fw_store::Error> {
        let now = self.parts.clock.now();
        let ended = self.parts.store.end_maintenance(id, now, by, kind).await?;
        if ended {
            let mut all = self.known();
            all.end(id, now);
            self.publish(all, now);
            let by = ActorKind::shown(kind, by);
            info!(maintenance = %id, by, "maintenance is off");
        }
        Ok(ended)
    }

    /// Ends one.
    pub(super) async fn end_maintenance(
        &mut self,
        id: MaintenanceId,
        by: By,
    ) -> Result<StoredMaintenance, Problem> {
        let now = self.parts.clock.now();
        let of_files = |one: &Maintenance| one.source.clone().filter(|_| !one.is_over(now));
        if let Some(source) = self.known().get(id).and_then(of_files) {
            return Err(owned(id, &source));
        }
        let ended = self.switch_off(id, &by.to_string(), by.kind()).await.map_err(unavailable)?;
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
            let gone = all.forget(by);
            self.publish(all, now);
            self.words.send_modify(|words| gone.iter().for_each(|id| drop(words.remove(id))));
        }
    }

    fn known(&self) -> Maintenances {
        Maintenances::clone(&self.maintenances.borrow())
    }

    fn publish(&mut self, all: Maintenances, now: Timestamp) {
        let decisions = self.scheduler.hold(all.held(), now);
        self.take(decisions);
        self.maintenances.send_replace(Arc::new(all));
    }
}

/// Why a maintenance cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Selector(#[from] fw_core::select::Error),
    #[error("read its schedule")]
    Schedule(#[from] schedule::Error),
}

fn maintenance(said: &NewMaintenance) -> Result<Maintenance, Unusable> {
    let scope = match &said.selector {
        None => Scope::Everything,
        Some(text) => Scope::Hosts(Selector::parse(text)?),
    };
    let windows = match &said.windows {
        None => None,
        Some(StoredWindows { every, timezone, lasts }) => {
            Some(Windows { every: Schedule::parse(every, timezone)?, lasts: *lasts })
        }
    };
    let source = said.source.as_deref().map(Into::into);
    Ok(Maintenance { scope, source, since: said.since, until: said.until, windows })
}

fn owned(id: MaintenanceId, source: &str) -> Problem {
    let title = format!("maintenance {id} is asked for by files of {source}");
    Problem::new(Code::OwnedByFile, title)
        .detail("change it there; the server reads the files by itself")
}

fn missing(id: MaintenanceId) -> Problem {
    Problem::new(Code::NotFound, format!("no maintenance {id}"))
        .detail("`fleetwright maintenance list` shows those that are in force")
}

fn over(known: &StoredMaintenance) -> Problem {
    let at = known.said.until.map(|at| format!(" since {at}")).unwrap_or_default();
    let by = known.ended_by.as_deref().map(|by| ActorKind::shown(known.ended_by_kind, by));
    let by = by.map(|by| format!(", by {by}")).unwrap_or_default();
    Problem::new(Code::Conflict, format!("maintenance {} is over{at}{by}", known.id))
        .detail("there is nothing to switch off; `fleetwright maintenance list` shows what is on")
}

#[cfg(test)]
mod tests;
