//! Fires: which jobs are due, and what becomes of each instant.
//!
//! Every instant at which a job is due ends in exactly one verdict. The scheduler decides it from
//! what it is told: the time, which jobs there are, who paused them, which runs ended. It performs
//! nothing: `Ran` means that the caller commits a run of this fire, in the same transaction as the
//! ledger row. Where the caller finds that there is nothing to run (no host, no secret), it writes
//! `Skipped` in place of `Ran` and calls [`Scheduler::ended`].
//!
//! **Clock.** The scheduler keeps the highest time it has seen. While the clock is behind that,
//! nothing fires; where it jumps ahead by more than [`JUMP`], what lies between counts as missed.
//!
//! **Catching up.** What was lost is counted by stretches, in the background. Fires that a job
//! makes up for are `Pending` first and stand in the ledger as such, so that whoever comes after a
//! crash goes on where it was; each begins once nothing of the job goes on, the oldest first.
//!
//! **Maintenance.** While all is in maintenance no fire runs, nor does one whose turn comes then.
//! Runs that go on are left alone. It may hold the jobs of one source alone. That of some hosts is the caller's: it is looked at when a run is
//! to begin, where hosts are chosen.

mod decision;
mod entry;
mod owed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_proto::api::{FireReason, Overlap, Verdict};
use fw_proto::{JobName, RunId, Span, Timestamp};

use self::decision::push;
pub use self::decision::{Decision, Order, coalesces, retry_id, run_id};
use self::entry::Entry;
use self::owed::Owed;
use crate::calendar::Calendar;
use crate::maintenance::Held;
use crate::schedule::{self, Schedule};

/// A clock that moves ahead by more than this between two ticks was set, or this machine slept:
/// the fires between are not made up for. [`Scheduler::tick`] must be called far more often.
pub const JUMP: Span = Span::from_secs(5 * 60);

/// What the scheduler needs to know of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// When it is due.
    pub schedule: Schedule,
    /// When it does not run though it is due; never when `None`.
    pub calendar: Option<Arc<Calendar>>,
    /// What happens when its earlier run goes on.
    pub overlap: Overlap,
    /// Which of its lost fires are made up for.
    pub catch_up: CatchUp,
    /// Whether it fires at all. The instants of a disabled job get no verdict.
    pub enabled: bool,
    /// Where it comes from, if that has maintenances of its own; see [`Held`].
    pub source: Option<Arc<str>>,
}

/// Which of a job's lost fires are made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUp {
    /// At most so many, the latest.
    pub most: u32,
    /// None that was due longer ago.
    pub within: Span,
}

impl CatchUp {
    /// What was lost stays lost.
    pub const NONE: Self = Self { most: 0, within: Span::ZERO };
}

/// What the store remembers of a job at start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Every instant up to here has its verdict: the later of the last `to` in the job's ledger
    /// and of the time when the job was last set.
    pub decided_to: Timestamp,
    /// Whether someone has paused it.
    pub paused: bool,
    /// How many of its runs have not ended.
    pub active: u32,
    /// The fire whose verdict is `Pending` because it waits for them.
    pub queued: Option<Timestamp>,
    /// Those that are `Pending` because they were lost and are to be caught up, with why.
    pub behind: BTreeMap<Timestamp, FireReason>,
    /// Runs that failed and are tried again then; beside those in `active`.
    pub retries: BTreeMap<RunId, Timestamp>,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether someone has paused it.
    pub paused: bool,
    /// When it is due next, and not kept from running by its calendar.
    pub next: Option<Timestamp>,
    /// How many of its runs have not ended.
    pub active: u32,
    /// The fire that waits for them.
    pub queued: Option<Timestamp>,
    /// Those that wait to be caught up.
    pub behind: BTreeSet<Timestamp>,
    /// Runs that failed and are tried again then.
    pub retries: BTreeMap<RunId, Timestamp>,
}

/// All jobs and what is due next.
#[derive(Debug, Clone)]
pub struct Scheduler {
    jobs: BTreeMap<JobName, Entry>,
    due: BTreeSet<(Timestamp, JobName)>,
    /// The highest time seen. Every instant up to here has its verdict, or is in `owed`.
    seen: Timestamp,
    /// Stretches whose fires are lost but not counted, oldest first. Those of a job are counted
    /// before any later verdict of it, so that what the ledger says of a job has no holes.
    owed: BTreeMap<JobName, Vec<Owed>>,
    /// Jobs that may have something to catch up now. It begins when the caller says so, and not
    /// while it still takes up what jobs say.
    ready: BTreeSet<JobName>,
    /// When all is in maintenance.
    held: Held,
    agenda: Agenda,
}

/// What else is to be done than to decide fires.
#[derive(Debug, Clone, Default)]
struct Agenda {
    /// Runs that failed, by when they are tried again.
    retries: BTreeSet<(Timestamp, JobName, RunId)>,
    orders: Vec<Order>,
}

impl Scheduler {
    /// An empty one. Call [`Scheduler::hold`] with what maintenance there was and is, then
    /// [`Scheduler::restore`] for each stored job, then [`Scheduler::tick`].
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            jobs: BTreeMap::new(),
            due: BTreeSet::new(),
            seen: now,
            owed: BTreeMap::new(),
            ready: BTreeSet::new(),
            held: Held::default(),
            agenda: Agenda::default(),
        }
    }

    /// Takes over a stored job at start-up. What it missed meanwhile is owed: see
    /// [`Scheduler::account`].
    pub fn restore(&mut self, name: &JobName, job: Job, known: Known) -> Vec<Decision> {
        let Known { decided_to, paused, active, queued, behind, retries } = known;
        let mut out = Vec::new();
        let waiting = u32::try_from(retries.len()).unwrap_or(u32::MAX);
        if job.enabled && decided_to < self.seen {
            let stretch = (decided_to, self.seen);
            let held = self.held.of(job.source.as_deref());
            let owed = Owed::all(&job, stretch, paused, held, FireReason::Downtime);
            self.owed.entry(name.clone()).or_default().extend(owed);
        }
        let queued = queued.map(|nominal| schedule::Fire { nominal, dst_gap: false });
        let again = retries.iter().map(|(run, at)| (*at, name.clone(), *run));
        self.agenda.retries.extend(again);
        let mut entry = Entry {
            job: Some(job),
            paused,
            floor: decided_to,
            next: None,
            active: active.saturating_add(waiting),
            retries,
            queued,
            behind,
        };
        if !entry.tries_again() {
            entry.give_up(name, &mut self.agenda);
        }
        if entry.replaces() && entry.queued.is_some() && active > 0 {
            self.agenda.orders.push(Order::Replace(name.clone()));
        }
        let waits = !entry.behind.is_empty();
        self.jobs.insert(name.clone(), entry);
        self.plan(name);
        if waits {
            self.ready.insert(name.clone());
        } else {
            self.settle(name, &mut out);
        }
        out
    }

    /// Decides what is due by now. Cheap when nothing is; call it when [`Scheduler::next_due`]
    /// comes, and at least once a minute, since it also watches the clock.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Decision> {
        self.tick_some(now, usize::MAX)
    }

    /// Likewise, but of so many jobs only, where what is decided of one has nothing to do with another: the
    /// caller can begin with these. While [`Scheduler::has_due`] says so there are more.
    pub fn tick_some(&mut self, now: Timestamp, most: usize) -> Vec<Decision> {
        let mut out = Vec::new();
        let before = self.seen;
        if now > before {
            self.seen = now;
            self.retry_due(now);
        }
        let jumped = now.since(before) > JUMP;
        // Orders have their place among all that is decided with them.
        let together = jumped || !self.agenda.orders.is_empty();
        let most = if together { usize::MAX } else { most };
        for _ in 0..most {
            if !self.has_due() {
                break;
            }
            let Some((_, name)) = self.due.pop_first() else { break };
            if jumped {
                self.owe_jump(&name, before);
                self.plan(&name);
            } else {
                self.catch_up(&name, &mut out);
                self.fire(name, &mut out);
            }
        }
        out
    }

    /// Whether [`Scheduler::tick_some`] has left jobs that are due.
    #[must_use]
    pub fn has_due(&self) -> bool {
        self.due.first().is_some_and(|(nominal, _)| *nominal <= self.seen)
    }

    /// Adds a job or changes it; its fires so far are decided by what it was. Call it only when
    /// the job really changed: a fire that waits for a run is dropped as `Changed`. Those that are
    /// to be caught up stay, if the job still makes up for any, and do what it says now.
    pub fn set(&mut self, name: &JobName, job: Job, now: Timestamp) -> Vec<Decision> {
        let mut out = self.tick(now);
        self.count_owed(name, &mut out);
        let entry = self.jobs.entry(name.clone()).or_insert_with(Entry::empty);
        let most = if job.enabled { job.catch_up.most as usize } else { 0 };
        let kept = entry.keep_behind(most);
        entry.give_up(name, &mut self.agenda);
        entry.drop_waiting(name, FireReason::Changed, &mut out);
        if !kept.is_empty() {
            self.ready.insert(name.clone());
        }
        entry.behind = kept;
        entry.job = Some(job);
        self.plan(name);
        out
    }

    /// Every instant of the job up to here has its verdict, from a time that the scheduler does not
    /// remember. Call it before [`Scheduler::set`] for a job that is new to the scheduler but has a
    /// ledger: one that was removed, with a restart in between.
    pub fn decided(&mut self, name: &JobName, to: Timestamp) {
        let entry = self.jobs.entry(name.clone()).or_insert_with(Entry::empty);
        entry.floor = entry.floor.max(to);
    }

    /// Takes a job away. Runs of it that go on still count, should it come back.
    pub fn remove(&mut self, name: &JobName, now: Timestamp) -> Vec<Decision> {
        let mut out = self.tick(now);
        self.count_owed(name, &mut out);
        if let Some(entry) = self.jobs.get_mut(name) {
            entry.drop_waiting(name, FireReason::Changed, &mut out);
            entry.give_up(name, &mut self.agenda);
            entry.job = None;
            entry.paused = false;
        }
        self.plan(name);
        self.forget(name);
        out
    }

    /// Lets a job's fires pass without a run, from now on; also those that wait. Runs that failed
    /// are not tried again.
    pub fn pause(&mut self, name: &JobName, now: Timestamp) -> Vec<Decision> {
        let mut out = self.tick(now);
        self.count_owed(name, &mut out);
        if let Some(entry) = self.jobs.get_mut(name) {
            entry.paused = true;
            entry.drop_waiting(name, FireReason::Paused, &mut out);
            entry.give_up(name, &mut self.agenda);
        }
        out
    }

    /// Ends a pause.
    pub fn resume(&mut self, name: &JobName, now: Timestamp) -> Vec<Decision> {
        let out = self.tick(now);
        if let Some(entry) = self.jobs.get_mut(name) {
            entry.paused = false;
        }
        out
    }

    /// From now on all is in maintenance at these times and no others. What is due by now is decided
    /// by what was said before.
    pub fn hold(&mut self, held: Held, now: Timestamp) -> Vec<Decision> {
        let out = self.tick(now);
        self.held = held;
        out
    }

    /// A run of the job goes on that the scheduler does not know of: begun by hand, or found at
    /// start-up though the job itself is gone. It counts for overlap, also should the job come back.
    pub fn begun(&mut self, name: &JobName) {
        let entry = self.jobs.entry(name.clone()).or_insert_with(Entry::empty);
        entry.active = entry.active.saturating_add(1);
    }

    /// A run of the job ended, or a fire that was to run found nothing to run. The fire that
    /// waits may go.
    pub fn ended(&mut self, name: &JobName, now: Timestamp) -> Vec<Decision> {
        let mut out = self.tick(now);
        if let Some(entry) = self.jobs.get_mut(name) {
            entry.active = entry.active.saturating_sub(1);
        }
        self.settle(name, &mut out);
        self.forget(name);
        out
    }

    /// A run of the job failed, and is to be tried again then: until it is, it counts as going on.
    /// It is given up at once where nothing of the job may begin any more.
    pub fn failed(
        &mut self,
        name: &JobName,
        run: RunId,
        at: Timestamp,
        now: Timestamp,
    ) -> Vec<Decision> {
        let mut out = self.tick(now);
        let tries = self.jobs.get(name).is_some_and(Entry::tries_again);
        if !tries {
            self.agenda.orders.push(Order::GiveUp(name.clone(), run));
            out.extend(self.ended(name, now));
            return out;
        }
        if let Some(entry) = self.jobs.get_mut(name) {
            entry.retries.insert(run, at);
            self.agenda.retries.insert((at, name.clone(), run));
        }
        out
    }

    /// Counts what was missed while the server was down or the clock jumped, and begins what is to
    /// be caught up: at most `most` jobs a call, to be called in the background until
    /// [`Scheduler::owes`] says no. A job that is due or changed before its turn is counted then.
    pub fn account(&mut self, most: usize) -> Vec<Decision> {
        let mut out = Vec::new();
        for _ in 0..most {
            let first = self.owed.first_key_value().map(|(name, _)| name);
            let Some(name) = first.or_else(|| self.ready.first()).cloned() else { break };
            self.catch_up(&name, &mut out);
        }
        out
    }

    /// Whether there is something left for [`Scheduler::account`].
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.owed.is_empty() || !self.ready.is_empty()
    }

    /// What is to be done beside what was decided since the last call.
    #[must_use]
    pub fn orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.agenda.orders)
    }

    /// When the next job is due, or the next run to be tried again.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let fire = self.due.first().map(|(nominal, _)| *nominal);
        let retry = self.agenda.retries.first().map(|(at, ..)| *at);
        fire.into_iter().chain(retry).min()
    }

    /// How far the clock is behind the highest time seen: nothing fires for so long.
    #[must_use]
    pub fn clock_behind(&self, now: Timestamp) -> Option<Span> {
        Some(self.seen.since(now)).filter(|behind| *behind > Span::ZERO)
    }

    /// A job as it stands; `None` when there is no such job.
    #[must_use]
    pub fn state(&self, name: &JobName) -> Option<State> {
        let entry = self.jobs.get(name).filter(|entry| entry.job.is_some())?;
        Some(State {
            paused: entry.paused,
            next: entry.next_run(),
            active: entry.active,
            queued: entry.queued.map(|fire| fire.nominal),
            behind: entry.behind.keys().copied().collect(),
            retries: entry.retries.clone(),
        })
    }

    /// Decides every instant of one job that is due by now, and notes when it is due next.
    fn fire(&mut self, name: JobName, out: &mut Vec<Decision>) {
        let now = self.seen;
        let Some(entry) = self.jobs.get_mut(&name) else { return };
        let Some(job) = entry.job.as_ref() else { return };
        let (schedule, held) = (job.schedule.clone(), self.held.of(job.source.as_deref()));
        while let Some(fire) = entry.next.filter(|fire| fire.nominal <= now) {
            entry.next = schedule.next_after(fire.nominal);
            if let Some(reason) = entry.refuses(fire.nominal, held) {
                push(out, Decision::new(&name, fire, Verdict::Skipped, Some(reason)));
                continue;
            }
            let next = entry.next.filter(|next| next.nominal <= now);
            let superseded = next.is_some_and(|next| entry.refuses(next.nominal, held).is_none());
            entry.decide(&name, fire, superseded, out, &mut self.agenda);
        }
        if let Some(fire) = entry.next {
            self.due.insert((fire.nominal, name));
        }
    }

    /// Orders what is to be tried again by now. It counts as going on all the while.
    fn retry_due(&mut self, now: Timestamp) {
        while let Some((at, name, run)) = self.agenda.retries.pop_first() {
            if at > now {
                self.agenda.retries.insert((at, name, run));
                break;
            }
            if let Some(entry) = self.jobs.get_mut(&name) {
                entry.retries.remove(&run);
                self.agenda.orders.push(Order::Retry(name, run));
            }
        }
    }

    /// The clock jumped over a job's fires.
    fn owe_jump(&mut self, name: &JobName, before: Timestamp) {
        let Some(entry) = self.jobs.get(name) else { return };
        let Some(job) = &entry.job else { return };
        let stretch = (before.max(entry.floor), self.seen);
        let held = self.held.of(job.source.as_deref());
        let owed = Owed::all(job, stretch, entry.paused, held, FireReason::ClockJump);
        self.owed.entry(name.clone()).or_default().extend(owed);
    }

    /// Counts what a job has lost, before something else is decided about it.
    fn count_owed(&mut self, name: &JobName, out: &mut Vec<Decision>) {
        let (Some(stretches), Some(entry)) = (self.owed.remove(name), self.jobs.get_mut(name))
        else {
            return;
        };
        for owed in stretches {
            owed.settle(name, &mut entry.behind, out);
        }
    }

    /// Counts what a job has lost, and begins what it makes up for.
    fn catch_up(&mut self, name: &JobName, out: &mut Vec<Decision>) {
        let ready = self.ready.remove(name);
        let owed = self.owed.contains_key(name);
        if owed {
            self.count_owed(name, out);
        }
        if ready || owed {
            self.settle(name, out);
        }
    }

    /// Finds out when a job is due next.
    fn plan(&mut self, name: &JobName) {
        let Some(entry) = self.jobs.get_mut(name) else { return };
        if let Some(fire) = entry.next {
            self.due.remove(&(fire.nominal, name.clone()));
        }
        let after = self.seen.max(entry.floor);
        let job = entry.job.as_ref().filter(|job| job.enabled);
        entry.next = job.and_then(|job| job.schedule.next_after(after));
        if let Some(fire) = entry.next {
            self.due.insert((fire.nominal, name.clone()));
        }
    }

    /// Begins the fire that waits, when nothing is in its way any more.
    fn settle(&mut self, name: &JobName, out: &mut Vec<Decision>) {
        if let Some(entry) = self.jobs.get_mut(name) {
            let source = entry.job.as_ref().and_then(|job| job.source.as_deref());
            let held = self.held.of(source).covers(self.seen);
            entry.settle(name, self.seen, held, out);
        }
    }

    /// Forgets a job that is gone and has no runs left.
    fn forget(&mut self, name: &JobName) {
        if self.jobs.get(name).is_some_and(|entry| entry.job.is_none() && entry.active == 0) {
            self.jobs.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
