//! The simulated owner of the jobs: what `fw-server`'s `drive/jobs` does around the real scheduler.

use std::collections::{BTreeMap, VecDeque};

use fw_core::fires::{CatchUp, Decision, Job, Known, Order, Scheduler};
use fw_core::hub::Hub;
use fw_core::run::Actor;
use fw_core::schedule::Schedule;
use fw_proto::api::{FireReason, Overlap, Verdict};
use fw_proto::{JobName, RunId, Span, Timestamp};

use super::history::{Mark, Sight};
use super::requests;
use super::server::Message;
use super::store::{Error, Row, Store};
use super::world::Ctx;

/// How often runs that count as going on are compared with those that do.
const COMPARE: Span = Span::from_secs(30);

/// Jobs whose lost fires are counted at once.
const ACCOUNT: usize = 2;

/// The jobs of every world: name, period, overlap, and how many lost fires are made up for.
const JOBS: [(&str, &str, Overlap, u32); 6] = [
    ("often", "@every 7s", Overlap::Skip, 0),
    ("queued", "@every 20s", Overlap::Queue, 2),
    ("beside", "@every 45s", Overlap::Allow, 0),
    ("caught", "@every 15s", Overlap::Skip, 3),
    ("last", "@every 40s", Overlap::Allow, 1),
    ("replaced", "@every 11s", Overlap::Replace, 1),
];

/// A fire is caught up no later than this.
const WITHIN: Span = Span::from_secs(15 * 60);

/// The owner of the jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    scheduler: Scheduler,
    active: BTreeMap<RunId, JobName>,
    over: Vec<RunId>,
    work: VecDeque<Work>,
    /// A run that the hub was asked to begin.
    asked: Option<Work>,
    compare_at: Timestamp,
}

/// Something that was decided.
#[derive(Debug, Clone)]
enum Work {
    Verdict(Row),
    Begin(RunId, Row),
    Cancel(Vec<RunId>, JobName),
}

/// The jobs of every world.
pub(super) fn all() -> impl Iterator<Item = (JobName, Job)> {
    JOBS.into_iter().map(|(name, every, overlap, most)| {
        let schedule = Schedule::parse(every, "").expect("a schedule");
        let catch_up = CatchUp { most, within: WITHIN };
        (name.parse().expect("a name"), Job { schedule, overlap, catch_up, enabled: true })
    })
}

impl Jobs {
    /// Takes over what is stored.
    pub(super) fn load(ctx: &mut Ctx, store: &Store, hub: &Hub) -> Self {
        let active: BTreeMap<RunId, JobName> =
            hub.runs().filter_map(|run| Some((run.id, run.plan.origin.job.clone()?))).collect();
        let mut jobs = Self {
            scheduler: Scheduler::new(ctx.server_time()),
            active,
            over: Vec::new(),
            work: VecDeque::new(),
            asked: None,
            compare_at: ctx.now,
        };
        for (name, job) in all() {
            let going_on = jobs.active.values().filter(|of| **of == name).count();
            let last = store.decided_to(&name).unwrap_or(ctx.jobs_set_at);
            let known = Known {
                decided_to: last.max(ctx.jobs_set_at),
                paused: store.paused,
                active: u32::try_from(going_on).unwrap_or(u32::MAX),
                queued: store.queued(&name),
                behind: store.behind(&name),
            };
            let decisions = jobs.scheduler.restore(&name, job, known);
            jobs.take(ctx, store, decisions);
        }
        jobs
    }

    pub(super) fn is_idle(&self) -> bool {
        self.work.is_empty() && self.asked.is_none() && !self.scheduler.owes()
    }

    /// A run has ended.
    pub(super) fn over(&mut self, run: RunId) {
        if self.active.contains_key(&run) {
            self.over.push(run);
        }
    }

    /// The hub has begun a run, or could not.
    pub(super) fn begun(&mut self, run: RunId, outcome: &Result<(), Error>) {
        let mine = matches!(&self.asked, Some(Work::Begin(id, _)) if *id == run);
        if !mine {
            return;
        }
        let work = self.asked.take();
        match outcome {
            Ok(()) => {}
            // A try that seemed to fail may have succeeded.
            Err(Error::Conflict(id)) if *id == run => {}
            Err(Error::FireTaken(..)) => self.over.push(run),
            Err(Error::Conflict(_) | Error::Broken) => {
                work.into_iter().for_each(|work| self.work.push_front(work));
            }
        }
    }

    /// Pauses all jobs, or ends that.
    pub(super) fn pause(&mut self, ctx: &mut Ctx, store: &mut Store, paused: bool) {
        if store.paused == paused {
            return;
        }
        ctx.history.note((40_u8, paused), || format!("jobs paused: {paused}"));
        store.paused = paused;
        for (name, _) in all() {
            let now = ctx.server_time();
            let decisions = if paused {
                self.scheduler.pause(&name, now)
            } else {
                self.scheduler.resume(&name, now)
            };
            self.take(ctx, store, decisions);
        }
    }

    /// Decides what is due, unless something is being performed, and performs one thing. Of each
    /// run that goes on it is known whether its end was asked for.
    pub(super) fn step(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        going_on: &BTreeMap<RunId, bool>,
    ) -> Option<Message> {
        if self.asked.is_some() {
            return None;
        }
        if self.work.is_empty() {
            self.compare(ctx, going_on);
            self.decide(ctx, store);
        }
        match self.work.pop_front()? {
            Work::Verdict(row) => {
                self.record(ctx, store, &row);
                None
            }
            Work::Begin(run, row) => {
                let plan = requests::plan_of_job(ctx, store, &row.job);
                if plan.hosts.is_empty() {
                    self.over.push(run);
                    let (verdict, reason) = (Verdict::Skipped, Some(FireReason::NoHosts));
                    self.record(ctx, store, &Row { verdict, reason, ..row });
                    return None;
                }
                let fire = Some(Row { run: Some(run), ..row.clone() });
                let by = Actor::Job(row.job.clone());
                self.asked = Some(Work::Begin(run, row));
                Some(Message::Begin { run, plan: Box::new(plan), by, fire })
            }
            Work::Cancel(runs, job) => {
                // The real one is told when it is done; here it is asked until it is.
                let run = runs.iter().find(|run| going_on.get(run) == Some(&false)).copied()?;
                ctx.history.sight(Sight::Replaced);
                self.work.push_back(Work::Cancel(runs, job.clone()));
                Some(Message::Cancel(run, Actor::Job(job)))
            }
        }
    }

    fn record(&mut self, ctx: &mut Ctx, store: &mut Store, row: &Row) {
        ctx.history.note((41_u8, row.from.as_millis(), row.count), || format!("fire: {row:?}"));
        ctx.history.mark(Mark::Fire(row.verdict));
        if store.record(row).is_err() {
            // The real server says that the verdict stands, and goes on.
            ctx.history.note(42_u8, || "it has its verdict already".to_owned());
        }
    }

    fn decide(&mut self, ctx: &mut Ctx, store: &Store) {
        let now = ctx.server_time();
        for run in std::mem::take(&mut self.over) {
            if let Some(job) = self.active.remove(&run) {
                let decisions = self.scheduler.ended(&job, now);
                self.take(ctx, store, decisions);
            }
        }
        let decisions = self.scheduler.tick(now);
        self.take(ctx, store, decisions);
        if self.work.is_empty() && self.scheduler.owes() {
            let decisions = self.scheduler.account(ACCOUNT);
            self.take(ctx, store, decisions);
        }
    }

    /// Whatever is not going on has ended.
    fn compare(&mut self, ctx: &Ctx, going_on: &BTreeMap<RunId, bool>) {
        if self.compare_at > ctx.now {
            return;
        }
        self.compare_at = ctx.now + COMPARE;
        let ended = self.active.keys().filter(|run| !going_on.contains_key(run));
        self.over.extend(ended.copied());
    }

    fn take(&mut self, ctx: &mut Ctx, store: &Store, decisions: Vec<Decision>) {
        for decision in decisions {
            let outcome = ctx.witness.decided(store, &decision, &self.waiting());
            ctx.judge(outcome);
            let row = Row::of(&decision);
            let work = match decision.run() {
                Some(run) => {
                    self.active.insert(run, decision.job);
                    Work::Begin(run, row)
                }
                None => Work::Verdict(row),
            };
            self.work.push_back(work);
        }
        for order in self.scheduler.orders() {
            self.work.push_back(match order {
                Order::Replace(job) => Work::Cancel(self.runs_of(&job), job),
            });
        }
    }

    fn runs_of(&self, job: &JobName) -> Vec<RunId> {
        self.active.iter().filter(|(_, of)| *of == job).map(|(run, _)| *run).collect()
    }

    /// What was decided and is not stored yet.
    fn waiting(&self) -> Vec<&Row> {
        let rows = self.work.iter().chain(&self.asked).filter_map(|work| match work {
            Work::Verdict(row) | Work::Begin(_, row) => Some(row),
            Work::Cancel(..) => None,
        });
        rows.collect()
    }
}
