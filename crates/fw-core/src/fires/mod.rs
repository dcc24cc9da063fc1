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

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::{self, FireReason, Overlap, Verdict};
use fw_proto::{JobName, RunId, Span, Timestamp};
use uuid::Uuid;

use crate::schedule::{self, Schedule};

/// A clock that moves ahead by more than this between two ticks was set, or this machine slept:
/// the fires between are not made up for. [`Scheduler::tick`] must be called far more often.
pub const JUMP: Span = Span::from_secs(5 * 60);

/// What the scheduler needs to know of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// When it is due.
    pub schedule: Schedule,
    /// What happens when its earlier run goes on.
    pub overlap: Overlap,
    /// Whether it fires at all. The instants of a disabled job get no verdict.
    pub enabled: bool,
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
    /// The fire whose verdict is `Pending`.
    pub queued: Option<Timestamp>,
}

/// What became of a fire, or of neighbouring fires of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The job.
    pub job: JobName,
    /// What became of it. A fire that is `Pending` gets one more, final decision later.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<FireReason>,
    /// The first instant.
    pub from: Timestamp,
    /// The last instant.
    pub to: Timestamp,
    /// How many fires.
    pub count: u64,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether someone has paused it.
    pub paused: bool,
    /// When it is due next.
    pub next: Option<Timestamp>,
    /// How many of its runs have not ended.
    pub active: u32,
    /// The fire that waits for them.
    pub queued: Option<Timestamp>,
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
}

#[derive(Debug, Clone)]
struct Entry {
    /// `None` when the job is gone but runs of it go on.
    job: Option<Job>,
    paused: bool,
    /// Instants up to here were decided in an earlier life of the server.
    floor: Timestamp,
    next: Option<schedule::Fire>,
    active: u32,
    /// Waits for the active runs; `None` while there are none.
    queued: Option<schedule::Fire>,
}

/// A stretch of time whose fires are known to be lost, but not yet counted.
#[derive(Debug, Clone)]
struct Owed {
    schedule: Schedule,
    after: Timestamp,
    until: Timestamp,
    verdict: Verdict,
    reason: FireReason,
}

impl Scheduler {
    /// An empty one. Call [`Scheduler::restore`] for each stored job, then [`Scheduler::tick`].
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { jobs: BTreeMap::new(), due: BTreeSet::new(), seen: now, owed: BTreeMap::new() }
    }

    /// Takes over a stored job at start-up. What it missed meanwhile is owed: see
    /// [`Scheduler::account`].
    pub fn restore(&mut self, name: &JobName, job: Job, known: &Known) -> Vec<Decision> {
        let queued = known.queued.map(|nominal| schedule::Fire { nominal, dst_gap: false });
        let mut entry = Entry {
            job: None,
            paused: known.paused,
            floor: known.decided_to,
            next: None,
            active: known.active,
            queued,
        };
        if job.enabled && known.decided_to < self.seen {
            let lost = owed(&job, known.decided_to, self.seen, known.paused, FireReason::Downtime);
            self.owed.entry(name.clone()).or_default().push(lost);
        }
        entry.job = Some(job);
        self.jobs.insert(name.clone(), entry);
        self.plan(name);
        let mut out = Vec::new();
        self.settle_queue(name, &mut out);
        out
    }

    /// Decides what is due by now. Cheap when nothing is; call it when [`Scheduler::next_due`]
    /// comes, and at least once a minute, since it also watches the clock.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Decision> {
        let mut out = Vec::new();
        if now <= self.seen {
            return out;
        }
        let before = std::mem::replace(&mut self.seen, now);
        let jumped = now.since(before) > JUMP;
        while let Some((nominal, name)) = self.due.pop_first() {
            if nominal > now {
                self.due.insert((nominal, name));
                break;
            }
            if jumped {
                self.owe_jump(&name, before);
                self.plan(&name);
            } else {
                self.settle_owed(&name, &mut out);
                self.fire(name, now, &mut out);
            }
        }
        out
    }

    /// Adds a job or changes it; its fires so far are decided by what it was. Call it only when
    /// the job really changed: a fire that waits is dropped as `Changed`.
    pub fn set(&mut self, name: &JobName, job: Job, now: Timestamp) -> Vec<Decision> {
        let mut out = self.tick(now);
        self.settle_owed(name, &mut out);
        self.drop_queued(name, FireReason::Changed, &mut out);
        let entry = self.jobs.entry(name.clone()).or_insert_with(Entry::empty);
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
        self.settle_owed(name, &mut out);
        self.drop_queued(name, FireReason::Changed, &mut out);
        if let Some(entry) = self.jobs.get_mut(name) {
            entry.job = None;
            entry.paused = false;
        }
        self.plan(name);
        self.forget(name);
        out
    }

    /// Lets a job's fires pass without a run, from now on; also the one that waits.
    pub fn pause(&mut self, name: &JobName, now: Timestamp) -> Vec<Decision> {
        let mut out = self.tick(now);
        if let Some(entry) = self.jobs.get_mut(name) {
            entry.paused = true;
        }
        self.drop_queued(name, FireReason::Paused, &mut out);
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
        self.settle_queue(name, &mut out);
        self.forget(name);
        out
    }

    /// Counts what was missed while the server was down or the clock jumped: at most `most` jobs a
    /// call, to be called in the background until [`Scheduler::owes`] says no. A job that is due
    /// or changed before its turn is counted then.
    pub fn account(&mut self, most: usize) -> Vec<Decision> {
        let mut out = Vec::new();
        for _ in 0..most {
            let Some((name, stretches)) = self.owed.pop_first() else { break };
            count(&name, stretches, &mut out);
        }
        out
    }

    /// Whether there is something left for [`Scheduler::account`].
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// When the next job is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(nominal, _)| *nominal)
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
            next: entry.next.map(|fire| fire.nominal),
            active: entry.active,
            queued: entry.queued.map(|fire| fire.nominal),
        })
    }

    /// Decides every instant of one job that is due by now, and notes when it is due next.
    fn fire(&mut self, name: JobName, now: Timestamp, out: &mut Vec<Decision>) {
        let Some(entry) = self.jobs.get_mut(&name) else { return };
        let Some(job) = &entry.job else { return };
        let (schedule, overlap) = (job.schedule.clone(), job.overlap);
        while let Some(fire) = entry.next.filter(|fire| fire.nominal <= now) {
            entry.next = schedule.next_after(fire.nominal);
            entry.decide(&name, fire, overlap, out);
        }
        if let Some(fire) = entry.next {
            self.due.insert((fire.nominal, name));
        }
    }

    /// The clock jumped over a job's fires.
    fn owe_jump(&mut self, name: &JobName, before: Timestamp) {
        let Some(entry) = self.jobs.get(name) else { return };
        let Some(job) = &entry.job else { return };
        let after = before.max(entry.floor);
        let lost = owed(job, after, self.seen, entry.paused, FireReason::ClockJump);
        self.owed.entry(name.clone()).or_default().push(lost);
    }

    /// Counts what a job has lost, before something else is decided about it.
    fn settle_owed(&mut self, name: &JobName, out: &mut Vec<Decision>) {
        if let Some(stretches) = self.owed.remove(name) {
            count(name, stretches, out);
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
    fn settle_queue(&mut self, name: &JobName, out: &mut Vec<Decision>) {
        let Some(entry) = self.jobs.get_mut(name) else { return };
        if entry.paused {
            self.drop_queued(name, FireReason::Paused, out);
        } else if entry.active == 0
            && let Some(fire) = entry.queued.take()
        {
            entry.active = 1;
            push(out, one(name, fire, Verdict::Ran, ran_reason(fire)));
        }
    }

    /// Gives up the fire that waits.
    fn drop_queued(&mut self, name: &JobName, reason: FireReason, out: &mut Vec<Decision>) {
        if let Some(fire) = self.jobs.get_mut(name).and_then(|entry| entry.queued.take()) {
            push(out, one(name, fire, Verdict::Skipped, Some(reason)));
        }
    }

    /// Forgets a job that is gone and has no runs left.
    fn forget(&mut self, name: &JobName) {
        if self.jobs.get(name).is_some_and(|entry| entry.job.is_none() && entry.active == 0) {
            self.jobs.remove(name);
        }
    }
}

impl Entry {
    /// Of a job that is not there.
    const fn empty() -> Self {
        Self {
            job: None,
            paused: false,
            floor: Timestamp::EPOCH,
            next: None,
            active: 0,
            queued: None,
        }
    }

    /// Decides one instant.
    fn decide(
        &mut self,
        name: &JobName,
        fire: schedule::Fire,
        overlap: Overlap,
        out: &mut Vec<Decision>,
    ) {
        if self.paused {
            return push(out, one(name, fire, Verdict::Skipped, Some(FireReason::Paused)));
        }
        if self.active == 0 {
            self.active = 1;
            return push(out, one(name, fire, Verdict::Ran, ran_reason(fire)));
        }
        let overlaps = Some(FireReason::Overlap);
        match overlap {
            Overlap::Allow => {
                self.active = self.active.saturating_add(1);
                push(out, one(name, fire, Verdict::Ran, ran_reason(fire)));
            }
            Overlap::Skip => push(out, one(name, fire, Verdict::Skipped, overlaps)),
            Overlap::Queue => {
                if let Some(earlier) = self.queued.replace(fire) {
                    push(out, one(name, earlier, Verdict::Coalesced, overlaps));
                }
                push(out, one(name, fire, Verdict::Pending, overlaps));
            }
        }
    }
}

impl Decision {
    /// The instant, when the decision is about one fire.
    #[must_use]
    pub fn nominal(&self) -> Option<Timestamp> {
        (self.count == 1).then_some(self.from)
    }

    /// The run to begin, when the verdict is `Ran`.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        (self.verdict == Verdict::Ran).then(|| run_id(&self.job, self.from))
    }

    /// The ledger row of this decision.
    #[must_use]
    pub fn row(&self) -> api::Fire {
        api::Fire {
            verdict: self.verdict,
            reason: self.reason,
            nominal: self.nominal(),
            from: self.from,
            to: self.to,
            count: self.count,
            run_id: self.run(),
            lag_ms: None,
        }
    }
}

/// Whether two ledger rows of one job, with no row between them, become one row: they have the same
/// verdict and reason, the verdict is final, and neither has a run.
#[must_use]
pub fn coalesces(earlier: &api::Fire, later: &api::Fire) -> bool {
    earlier.to < later.from
        && earlier.run_id.is_none()
        && later.run_id.is_none()
        && (earlier.verdict, earlier.reason) == (later.verdict, later.reason)
        && is_countable(earlier.verdict)
}

/// Whether fires with this verdict may share a row.
const fn is_countable(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Skipped | Verdict::Coalesced | Verdict::Missed => true,
        Verdict::Pending | Verdict::Ran | Verdict::CaughtUp => false,
    }
}

/// The namespace of the runs of fires (RFC 9562 §5.5): drawn once, never changed.
const RUNS_OF_FIRES: Uuid = Uuid::from_u128(0x6d0e_5f3a_41c7_4be2_9a58_d27b_0c93_e1f4);

/// The id of the run of a fire. A server on a restored store names it alike, so that hosts that
/// know it from before refuse to run it again.
#[must_use]
pub fn run_id(job: &JobName, nominal: Timestamp) -> RunId {
    let name = format!("{job}\n{}", nominal.as_millis());
    RunId(Uuid::new_v5(&RUNS_OF_FIRES, name.as_bytes()))
}

fn ran_reason(fire: schedule::Fire) -> Option<FireReason> {
    fire.dst_gap.then_some(FireReason::DstGap)
}

fn one(
    name: &JobName,
    fire: schedule::Fire,
    verdict: Verdict,
    reason: Option<FireReason>,
) -> Decision {
    let (from, to) = (fire.nominal, fire.nominal);
    Decision { job: name.clone(), verdict, reason, from, to, count: 1 }
}

/// The fires of a stretch, which a pause or else `lost` keeps from running.
fn owed(job: &Job, after: Timestamp, until: Timestamp, paused: bool, lost: FireReason) -> Owed {
    let (verdict, reason) =
        if paused { (Verdict::Skipped, FireReason::Paused) } else { (Verdict::Missed, lost) };
    Owed { schedule: job.schedule.clone(), after, until, verdict, reason }
}

/// Adds a decision for each stretch that has fires.
fn count(name: &JobName, stretches: Vec<Owed>, out: &mut Vec<Decision>) {
    for owed in stretches {
        let Some(tally) = owed.schedule.tally(owed.after, owed.until) else { continue };
        let schedule::Tally { from, to, count } = tally;
        let (verdict, reason) = (owed.verdict, Some(owed.reason));
        push(out, Decision { job: name.clone(), verdict, reason, from, to, count });
    }
}

/// Adds a decision, to the one before it where they can share a row: after a stall of minutes, a
/// job that is due each second is one line and not hundreds.
fn push(out: &mut Vec<Decision>, next: Decision) {
    match out.last_mut() {
        Some(last) if last.job == next.job && coalesces(&last.row(), &next.row()) => {
            last.to = next.to;
            last.count += next.count;
        }
        Some(_) | None => out.push(next),
    }
}

#[cfg(test)]
mod tests;
