//! One job: what waits, what goes on, and what becomes of an instant.

use std::collections::BTreeMap;

use fw_proto::api::{FireReason, Overlap, Verdict};
use fw_proto::{JobName, RunId, Span, Timestamp};

use super::decision::{Decision, Order, push};
use super::{Agenda, Job};
use crate::maintenance::Spans;
use crate::{calendar, schedule};

#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `None` when the job is gone but runs of it go on.
    pub(super) job: Option<Job>,
    pub(super) paused: bool,
    /// Instants up to here were decided in an earlier life of the server.
    pub(super) floor: Timestamp,
    pub(super) next: Option<schedule::Fire>,
    /// Runs that go on, and those that failed and wait to be tried again.
    pub(super) active: u32,
    pub(super) retries: BTreeMap<RunId, Timestamp>,
    /// Waits for the active runs; `None` while there are none.
    pub(super) queued: Option<schedule::Fire>,
    /// Lost fires that are to be caught up, each once nothing of the job goes on, with why they
    /// were lost.
    pub(super) behind: BTreeMap<Timestamp, FireReason>,
}

impl Entry {
    /// Of a job that is not there.
    pub(super) const fn empty() -> Self {
        Self {
            job: None,
            paused: false,
            floor: Timestamp::EPOCH,
            next: None,
            active: 0,
            retries: BTreeMap::new(),
            queued: None,
            behind: BTreeMap::new(),
        }
    }

    /// Whether its runs may be replaced.
    pub(super) fn replaces(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.overlap == Overlap::Replace)
    }

    /// Why a fire of this instant does not run, whatever else there is. A pause and a maintenance
    /// keep all of them from running, so neither asks the calendar.
    pub(super) fn refuses(&self, nominal: Timestamp, held: &Spans) -> Option<FireReason> {
        if self.paused {
            return Some(FireReason::Paused);
        }
        if held.covers(nominal) {
            return Some(FireReason::Maintenance);
        }
        self.job.as_ref()?.calendar.as_ref()?.refuses(nominal)
    }

    /// When it runs next.
    pub(super) fn next_run(&self) -> Option<Timestamp> {
        let (fire, job) = (self.next?, self.job.as_ref()?);
        let before = fire.nominal - Span::from_millis(1);
        calendar::next_run(&job.schedule, job.calendar.as_deref(), before)
    }

    /// Whether a run that failed now may be tried again.
    pub(super) fn tries_again(&self) -> bool {
        let replaced = self.replaces() && self.queued.is_some();
        let enabled = self.job.as_ref().is_some_and(|job| job.enabled);
        enabled && !self.paused && !replaced
    }

    /// Gives up every run that waits to be tried again.
    pub(super) fn give_up(&mut self, name: &JobName, agenda: &mut Agenda) {
        for (run, at) in std::mem::take(&mut self.retries) {
            agenda.retries.remove(&(at, name.clone(), run));
            agenda.orders.push(Order::GiveUp(name.clone(), run));
            self.active = self.active.saturating_sub(1);
        }
    }

    /// Decides one instant that nothing refuses. `superseded`: the next one is due as well.
    pub(super) fn decide(
        &mut self,
        name: &JobName,
        fire: schedule::Fire,
        superseded: bool,
        out: &mut Vec<Decision>,
        agenda: &mut Agenda,
    ) {
        let Some(overlap) = self.job.as_ref().map(|job| job.overlap) else { return };
        let overlaps = Some(FireReason::Overlap);
        if overlap == Overlap::Replace && superseded {
            return push(out, Decision::new(name, fire, Verdict::Coalesced, overlaps));
        }
        if overlap == Overlap::Replace {
            self.give_up(name, agenda);
            self.drop_behind(name, Verdict::Coalesced, FireReason::Overlap, out);
        }
        if self.active == 0 {
            self.active = 1;
            return push(out, Decision::new(name, fire, Verdict::Ran, ran_reason(fire)));
        }
        match overlap {
            Overlap::Allow => {
                self.active = self.active.saturating_add(1);
                push(out, Decision::new(name, fire, Verdict::Ran, ran_reason(fire)));
            }
            Overlap::Skip => push(out, Decision::new(name, fire, Verdict::Skipped, overlaps)),
            Overlap::Queue => self.queue(name, fire, out),
            Overlap::Replace => {
                self.queue(name, fire, out);
                agenda.orders.push(Order::Replace(name.clone()));
            }
        }
    }

    /// The fire waits, in place of the one that did.
    fn queue(&mut self, name: &JobName, fire: schedule::Fire, out: &mut Vec<Decision>) {
        let overlaps = Some(FireReason::Overlap);
        if let Some(earlier) = self.queued.replace(fire) {
            out.push(Decision::last(name, earlier.nominal, Verdict::Coalesced, overlaps));
        }
        push(out, Decision::new(name, fire, Verdict::Pending, overlaps));
    }

    /// Begins the fire that waits longest, when nothing is in its way any more; gives up all that
    /// wait when all is `held`. One that is behind further than the job makes up for is lost.
    pub(super) fn settle(
        &mut self,
        name: &JobName,
        now: Timestamp,
        held: bool,
        out: &mut Vec<Decision>,
    ) {
        if self.paused {
            return self.drop_waiting(name, FireReason::Paused, out);
        }
        let Some(job) = self.job.as_ref().filter(|job| job.enabled) else {
            return self.drop_waiting(name, FireReason::Changed, out);
        };
        let earliest = now - job.catch_up.within;
        while let Some(oldest) = self.behind.first_entry().filter(|first| *first.key() < earliest) {
            let (nominal, reason) = oldest.remove_entry();
            out.push(Decision::last(name, nominal, Verdict::Missed, Some(reason)));
        }
        match (self.active, held) {
            (0, true) => self.drop_waiting(name, FireReason::Maintenance, out),
            (0, false) => self.begin_waiting(name, out),
            (1.., _) => {}
        }
    }

    fn begin_waiting(&mut self, name: &JobName, out: &mut Vec<Decision>) {
        let first = self.behind.first_key_value().map(|(nominal, _)| *nominal);
        match (self.queued, first) {
            (Some(fire), behind) if behind.is_none_or(|behind| fire.nominal < behind) => {
                self.queued = None;
                let reason = ran_reason(fire);
                out.push(Decision::last(name, fire.nominal, Verdict::Ran, reason));
            }
            (Some(_) | None, Some(_)) => {
                let Some((nominal, reason)) = self.behind.pop_first() else { return };
                out.push(Decision::last(name, nominal, Verdict::CaughtUp, Some(reason)));
            }
            (Some(_) | None, None) => return,
        }
        self.active = 1;
    }

    /// Gives up every fire that waits, oldest first.
    pub(super) fn drop_waiting(
        &mut self,
        name: &JobName,
        reason: FireReason,
        out: &mut Vec<Decision>,
    ) {
        if self.queued.is_none() && self.behind.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.behind);
        waiting.extend(self.queued.take().map(|fire| (fire.nominal, reason)));
        let last = |nominal| Decision::last(name, nominal, Verdict::Skipped, Some(reason));
        out.extend(waiting.into_keys().map(last));
    }

    /// Takes out the latest of the fires that are to be caught up, at most so many.
    pub(super) fn keep_behind(&mut self, most: usize) -> BTreeMap<Timestamp, FireReason> {
        let surplus = self.behind.len().saturating_sub(most);
        match self.behind.keys().nth(surplus).copied() {
            Some(first) => self.behind.split_off(&first),
            None => BTreeMap::new(),
        }
    }

    /// Gives up the fires that were to be caught up.
    pub(super) fn drop_behind(
        &mut self,
        name: &JobName,
        verdict: Verdict,
        reason: FireReason,
        out: &mut Vec<Decision>,
    ) {
        let behind = std::mem::take(&mut self.behind);
        let last = |nominal| Decision::last(name, nominal, verdict, Some(reason));
        out.extend(behind.into_keys().map(last));
    }
}

fn ran_reason(fire: schedule::Fire) -> Option<FireReason> {
    fire.dst_gap.then_some(FireReason::DstGap)
}
