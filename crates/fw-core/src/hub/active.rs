//! A run that has not ended, and what is known of its hosts: which could begin, which are silent.

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::Offline;
use fw_proto::{HostId, Incarnation, Span, TaskKey, Timestamp};

use super::Effect;
use crate::plan::ONLY_NODE;
use crate::run::{self, Kind, Ruling, Run};

/// A run that has not ended, and what is known of its hosts.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) run: Run,
    /// Undispatched hosts that could begin now, by their place in the plan.
    ready: BTreeSet<(u32, HostId)>,
    /// Undispatched hosts that are linked and may not begin yet: what they remember is not known.
    held: BTreeSet<(u32, HostId)>,
    /// Hosts that were sent a start with secrets on the link that they have now.
    pub(super) sent: BTreeSet<HostId>,
    pub(super) silent: Silent,
    pub(super) wake: Option<Timestamp>,
}

/// What a host's link makes due in a run.
pub(super) enum Due {
    Nothing,
    Effect(Effect),
    Ruling(Ruling),
}

/// Hosts in flight that are not linked, by when they count as lost.
#[derive(Debug, Default)]
pub(super) struct Silent {
    pub(super) lost_at: BTreeMap<HostId, Timestamp>,
    pub(super) by_time: BTreeSet<(Timestamp, HostId)>,
}

impl Silent {
    pub(super) fn insert(&mut self, host: HostId, lost_at: Timestamp) {
        self.remove(host);
        self.lost_at.insert(host, lost_at);
        self.by_time.insert((lost_at, host));
    }

    pub(super) fn shift(&mut self, by: Span) {
        self.lost_at.values_mut().for_each(|at| *at = *at + by);
        self.by_time = self.lost_at.iter().map(|(host, at)| (*at, *host)).collect();
    }

    pub(super) fn remove(&mut self, host: HostId) {
        if let Some(at) = self.lost_at.remove(&host) {
            self.by_time.remove(&(at, host));
        }
    }
}

impl Active {
    pub(super) fn new(run: Run) -> Self {
        let (ready, held) = (BTreeSet::new(), BTreeSet::new());
        Self { run, ready, held, sent: BTreeSet::new(), silent: Silent::default(), wake: None }
    }

    /// How many undispatched hosts are linked.
    pub(super) fn here(&self) -> usize {
        self.ready.len() + self.held.len()
    }

    /// Notes that a linked host could begin, or is held back; neither once it is dispatched.
    fn put(&mut self, place: (u32, HostId), may_begin: bool) {
        self.take_out(place);
        if self.run.undispatched.contains(&place) {
            let to = if may_begin { &mut self.ready } else { &mut self.held };
            to.insert(place);
        }
    }

    fn take_out(&mut self, place: (u32, HostId)) {
        self.ready.remove(&place);
        self.held.remove(&place);
    }

    /// Whether its command is a change that hosts undo by themselves.
    pub(super) fn is_armed(&self) -> bool {
        self.run.plan.exec.armed.is_some()
    }

    pub(super) fn key(&self, attempt: u16) -> TaskKey {
        TaskKey { run: self.run.id, node: ONLY_NODE, attempt }
    }

    /// What is due to a host that has just linked and named the tasks it knows. `arms`: its agent can undo
    /// a change by itself.
    pub(super) fn host_linked(
        &mut self,
        host: HostId,
        known: &BTreeSet<TaskKey>,
        restored: bool,
        arms: bool,
    ) -> Due {
        let Some(task) = self.run.tasks.get(&host).filter(|task| !task.state.is_final()) else {
            return Due::Nothing;
        };
        let key = self.key(task.attempt);
        let (place, may_ask) = ((task.place, host), restored && !task.asked);
        let (confirmed, not_after) = (task.confirmed_at.is_some(), task.not_after);
        self.silent.remove(host);
        self.put(place, false);
        self.sent.remove(&host);
        let cancelled = self.run.is_cancelled(host);
        if known.contains(&key) {
            return if cancelled {
                Due::Effect(Effect::Cancel { host, key })
            } else {
                Due::Nothing
            };
        }
        if confirmed || may_ask {
            return Due::Effect(Effect::Query { host, key });
        }
        match not_after {
            // It was sent the start, and does not know it: so it never started, and will not.
            _ if cancelled => Due::Ruling(Ruling::CancelledUnsent),
            Some(_) if self.is_armed() && !arms => Due::Ruling(Ruling::AgentOld),
            Some(not_after) => Due::Effect(Effect::Start { host, key, not_after }),
            // A restored store heard that the host held it back, and no word of a dispatch: it is asked
            // what became of that.
            None if !self.run.undispatched.contains(&place) => {
                Due::Effect(Effect::Query { host, key })
            }
            None => {
                self.put(place, true);
                Due::Nothing
            }
        }
    }

    pub(super) fn host_unlinked(&mut self, host: HostId, since: Timestamp) {
        let Some(task) = self.run.tasks.get(&host).filter(|task| !task.state.is_final()) else {
            return;
        };
        let place = (task.place, host);
        if !self.run.undispatched.contains(&place) {
            self.silent.insert(host, self.run.lost_at(task, since));
        }
        self.take_out(place);
    }

    /// Keeps `ready` and `silent` true after a host's task has changed.
    pub(super) fn follow(
        &mut self,
        host: HostId,
        online: &BTreeSet<HostId>,
        incarnation: Incarnation,
        now: Timestamp,
    ) {
        let Some(task) = self.run.tasks.get(&host) else { return };
        let place = (task.place, host);
        let may_begin = task.asked || self.run.plan.incarnation == incarnation;
        let waits = self.run.undispatched.contains(&place);
        let here = online.contains(&host);
        if task.state.is_final() {
            self.silent.remove(host);
        } else if !waits && !here && !self.silent.lost_at.contains_key(&host) {
            self.silent.insert(host, self.run.lost_at(task, now));
        }
        if waits && here {
            self.put(place, may_begin);
        } else {
            self.take_out(place);
        }
    }

    /// Hosts that will not begin because the failures are used up.
    pub(super) fn overspent(&self) -> Option<Kind> {
        if !self.run.budget_spent() || self.run.undispatched.is_empty() {
            return None;
        }
        let hosts = self.run.undispatched.iter().map(|(_, host)| *host).collect();
        Some(Kind::Ruled { hosts, ruling: Ruling::BudgetSpent })
    }

    /// Hosts in flight that have been silent for too long.
    pub(super) fn lost(&self, now: Timestamp) -> Option<Kind> {
        let hosts: Vec<_> = self
            .silent
            .by_time
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, host)| *host)
            .collect();
        (!hosts.is_empty()).then_some(Kind::Ruled { hosts, ruling: Ruling::Lost })
    }

    /// Hosts whose turn has come and that are away, for as long as they are waited for.
    pub(super) fn away(&self, now: Timestamp, rules_from: Timestamp) -> Option<Kind> {
        let room = self.run.room() as usize;
        let due = |place: u32| now >= self.run.offline_until(place).max(rules_from);
        if !due(0) || room == 0 || self.run.undispatched.len() == self.ready.len() {
            return None;
        }
        let ruling = match self.run.plan.limits.offline {
            Offline::Wait(_) | Offline::Fail => Ruling::OfflineFailed,
            Offline::Skip => Ruling::OfflineSkipped,
        };
        let away = self.run.undispatched.difference(&self.ready);
        let away = away.take_while(|(place, _)| due(*place)).take(room);
        let hosts: Vec<_> = away.map(|(_, host)| *host).collect();
        (!hosts.is_empty()).then_some(Kind::Ruled { hosts, ruling })
    }

    /// Hosts that begin now: those whose turn has come, never more in flight than `parallel`, nor than
    /// failures left. An armed change begins only at hosts that can undo it; at the others it has failed.
    pub(super) fn dispatch(
        &self,
        now: Timestamp,
        incarnation: Incarnation,
        arming: &BTreeSet<HostId>,
    ) -> Option<Kind> {
        let room = self.run.room() as usize;
        let spread = self.is_spread();
        let turn = |place: u32| !spread || self.run.turn_at(place) <= now;
        let hosts: Vec<_> = self
            .ready
            .iter()
            .take_while(|(place, _)| turn(*place))
            .take(room)
            .map(|(_, host)| *host)
            .collect();
        let old = |host: &&HostId| self.is_armed() && !arming.contains(*host);
        let old: Vec<_> = hosts.iter().filter(old).copied().collect();
        if !old.is_empty() {
            return Some(Kind::Ruled { hosts: old, ruling: Ruling::AgentOld });
        }
        (!hosts.is_empty())
            .then(|| Kind::Dispatched { hosts, not_after: self.run.not_after(now, incarnation) })
    }

    pub(super) fn wakes_at(&self, rules_from: Timestamp) -> Option<Timestamp> {
        let room = self.run.room() > 0;
        let away = room && self.run.undispatched.len() > self.ready.len();
        let offline = away.then(|| self.run.offline_until(self.first_away()).max(rules_from));
        let lost = self.silent.by_time.first().map(|(at, _)| *at);
        let turn = self.ready.first().filter(|_| room && self.is_spread());
        let turn = turn.map(|(place, _)| self.run.turn_at(*place));
        offline.into_iter().chain(lost).chain(turn).min()
    }

    fn is_spread(&self) -> bool {
        self.run.plan.limits.spread.is_some()
    }

    /// The first place whose host is away. It matters only in a run that is spread.
    fn first_away(&self) -> u32 {
        let mut away = self.run.undispatched.difference(&self.ready);
        if self.is_spread() { away.next().map_or(0, |(place, _)| *place) } else { 0 }
    }

    pub(super) fn effect(&self, effect: run::Effect) -> Option<Effect> {
        let key = |host| self.run.tasks.get(&host).map(|task| self.key(task.attempt));
        match effect {
            run::Effect::Start(host) => {
                let not_after = self.run.tasks.get(&host)?.not_after?;
                Some(Effect::Start { host, key: key(host)?, not_after })
            }
            run::Effect::Cancel(host) => Some(Effect::Cancel { host, key: key(host)? }),
            run::Effect::Keep(host) => Some(Effect::Keep { host, key: key(host)? }),
            run::Effect::Settle(host) => Some(Effect::Settle { host, key: key(host)? }),
            run::Effect::Ended(state) => Some(Effect::Ended { run: self.run.id, state }),
        }
    }
}
