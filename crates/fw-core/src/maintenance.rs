//! Maintenance: when runs do not begin by themselves, everywhere or on some hosts.
//!
//! A maintenance begins when it is switched on, and ends at a time that is known before or when it is
//! switched off. One that recurs is in force within its windows alone. There can be several at once, and
//! a host is in maintenance while one of them covers it. Who begins a run by hand means it: that is not
//! held, but for a maintenance that the files of the job's own source ask for: they say it of all its runs.

mod spans;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_proto::{MaintenanceId, Timestamp};

use crate::host::Seen;
use crate::select::Selector;

pub use self::spans::{Spans, Stretch};
pub use self::window::{Recurring, Window, Windows};

/// What a maintenance covers.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    /// All hosts, and jobs that have none.
    Everything,
    /// The hosts that this picks, also those that come later.
    Hosts(Selector),
}

/// A maintenance, as far as it decides about runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Maintenance {
    /// What it covers.
    pub scope: Scope,
    /// Whose jobs it holds: those of this source, whose files ask for it; all when `None`.
    pub source: Option<Arc<str>>,
    /// Since when.
    pub since: Timestamp,
    /// From when on it is over; `None` until it is switched off.
    pub until: Option<Timestamp>,
    /// It is in force within these alone; all the time when `None`.
    pub windows: Option<Windows>,
}

/// A run that is to begin, as far as a maintenance asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking<'a> {
    /// Where its job comes from, if that has maintenances of its own.
    pub source: Option<&'a str>,
    /// Somebody wants it now.
    pub by_hand: bool,
}

impl Maintenance {
    /// Whether it is in force then: from `since` on and before `until`, in a window if it has some.
    #[must_use]
    pub fn in_force(&self, at: Timestamp) -> bool {
        let on = self.since <= at && !self.is_over(at);
        on && self.windows.as_ref().is_none_or(|windows| windows.cover(at))
    }

    /// Whether it is switched off, or has ended by itself.
    #[must_use]
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= at)
    }

    /// Whether it covers this host.
    #[must_use]
    pub fn covers(&self, host: Seen<'_>) -> bool {
        match &self.scope {
            Scope::Everything => true,
            Scope::Hosts(selector) => selector.matches(host),
        }
    }

    /// Whether it keeps such a run from the hosts that it covers.
    #[must_use]
    pub fn holds(&self, run: Asking<'_>) -> bool {
        match &self.source {
            None => !run.by_hand,
            Some(source) => run.source == Some(source),
        }
    }

    /// The window that this instant lies in, or the next one; `None` without windows, or when none is left.
    #[must_use]
    pub fn window(&self, at: Timestamp) -> Option<Window> {
        let windows = self.windows.as_ref().filter(|_| !self.is_over(at))?;
        let next = windows.next(at.max(self.since))?;
        let from = next.from.max(self.since);
        let until = self.until.map_or(next.until, |until| until.min(next.until));
        (from < until).then_some(Window { from, until })
    }

    /// Until when nothing changes of whether it is in force; `None` for ever.
    fn same_until(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_over(at) {
            return None;
        }
        let edge = self.windows.as_ref().and_then(|windows| windows.next_edge(at));
        let ends = [Some(self.since), self.until, edge];
        ends.into_iter().flatten().filter(|end| *end > at).min()
    }

    fn recurring(&self) -> Option<Recurring> {
        let windows = self.windows.clone()?;
        Some(Recurring { since: self.since, until: self.until, windows })
    }
}

/// All that are in force, or were.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Maintenances(BTreeMap<MaintenanceId, Maintenance>);

impl Maintenances {
    /// Adds one, or puts it in place of what was said of it before.
    pub fn put(&mut self, id: MaintenanceId, maintenance: Maintenance) {
        self.0.insert(id, maintenance);
    }

    /// Switches one off. The end of one that is over already stays.
    pub fn end(&mut self, id: MaintenanceId, at: Timestamp) {
        if let Some(ended) = self.0.get_mut(&id).filter(|ended| !ended.is_over(at)) {
            ended.until = Some(at);
        }
    }

    /// Whether there is one to forget.
    #[must_use]
    pub fn is_any_over(&self, at: Timestamp) -> bool {
        self.0.values().any(|one| one.is_over(at))
    }

    /// Forgets those that are over by then, and names them.
    pub fn forget(&mut self, at: Timestamp) -> Vec<MaintenanceId> {
        let over: Vec<_> =
            self.0.iter().filter(|(_, one)| one.is_over(at)).map(|(id, _)| *id).collect();
        over.iter().for_each(|id| drop(self.0.remove(id)));
        over
    }

    /// Those that are in force then, the earliest first.
    pub fn in_force(&self, at: Timestamp) -> impl Iterator<Item = (MaintenanceId, &Maintenance)> {
        self.0.iter().filter(move |(_, one)| one.in_force(at)).map(|(id, one)| (*id, one))
    }

    /// Those that are not over then, whether it is their time or not.
    pub fn on(&self, at: Timestamp) -> impl Iterator<Item = (MaintenanceId, &Maintenance)> {
        self.0.iter().filter(move |(_, one)| !one.is_over(at)).map(|(id, one)| (*id, one))
    }

    /// One of them, whether it is in force or over.
    #[must_use]
    pub fn get(&self, id: MaintenanceId) -> Option<&Maintenance> {
        self.0.get(&id)
    }

    /// The maintenance of everything, of all jobs, that is in force then.
    #[must_use]
    pub fn everything(&self, at: Timestamp) -> Option<MaintenanceId> {
        let all = |one: &Maintenance| one.scope == Scope::Everything && one.source.is_none();
        self.in_force(at).find(|(_, one)| all(one)).map(|(id, _)| id)
    }

    /// The maintenance of all jobs that a host is in then.
    #[must_use]
    pub fn of(&self, host: Seen<'_>, at: Timestamp) -> Option<MaintenanceId> {
        self.holding(host, Asking { source: None, by_hand: false }, at)
    }

    /// The maintenance that keeps such a run from a host then.
    #[must_use]
    pub fn holding(&self, host: Seen<'_>, run: Asking<'_>, at: Timestamp) -> Option<MaintenanceId> {
        let mut found = self.in_force(at).filter(|(_, one)| one.holds(run) && one.covers(host));
        found.next().map(|(id, _)| id)
    }

    /// Until when the same ones are in force; `None` for ever.
    #[must_use]
    pub fn same_until(&self, at: Timestamp) -> Option<Timestamp> {
        self.0.values().filter_map(|one| one.same_until(at)).min()
    }

    /// When fires are held, whatever their hosts.
    #[must_use]
    pub fn held(&self) -> Held {
        let sources = self.0.values().filter_map(|one| one.source.clone());
        let of = sources.map(|source| (Arc::clone(&source), self.spans(Some(&source)))).collect();
        Held { all: self.spans(None), of }
    }

    /// When everything is in maintenance for the jobs of a source.
    fn spans(&self, source: Option<&str>) -> Spans {
        let run = Asking { source, by_hand: false };
        let everything = self.0.values().filter(|one| one.scope == Scope::Everything);
        let holding: Vec<_> = everything.filter(|one| one.holds(run)).collect();
        let whole = holding.iter().filter(|one| one.windows.is_none());
        let recurring = holding.iter().filter_map(|one| one.recurring()).collect();
        Spans::new(whole.map(|one| (one.since, one.until)).collect()).with(recurring)
    }
}

/// When fires are held, whatever their hosts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Held {
    all: Spans,
    of: BTreeMap<Arc<str>, Spans>,
}

impl Held {
    /// The same for all jobs.
    #[must_use]
    pub const fn all(spans: Spans) -> Self {
        Self { all: spans, of: BTreeMap::new() }
    }

    /// When those of jobs of this source are.
    #[must_use]
    pub fn of(&self, source: Option<&str>) -> &Spans {
        source.and_then(|source| self.of.get(source)).unwrap_or(&self.all)
    }
}

#[cfg(test)]
mod tests;
