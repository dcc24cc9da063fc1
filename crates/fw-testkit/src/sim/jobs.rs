//! The simulated owner of the jobs: what `fw-server`'s `drive/jobs` does around the real scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fw_core::calendar::Calendar;
use fw_core::fires::{self, CatchUp, Decision, Job, Known, Order, Scheduler};
use fw_core::hub::Hub;
use fw_core::plan::{Plan, Retries};
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

/// The jobs of every world: name, period, overlap, how many lost fires are made up for, and how often
/// what failed is tried again.
const JOBS: [(&str, &str, Overlap, u32, u32); 6] = [
    ("often", "@every 7s", Overlap::Skip, 0, 0),
    ("queued", "@every 20s", Overlap::Queue, 2, 1),
    ("beside", "@every 45s", Overlap::Allow, 0, 1),
    ("caught", "@every 15s", Overlap::Skip, 3, 2),
    ("last", "@every 40s", Overlap::Allow, 1, 0),
    ("replaced", "@every 11s", Overlap::Replace, 1, 2),
];

/// The pause before the first of these tries.
const PAUSE: Span = Span::from_secs(4);

/// The hours of one of them: worlds begin at 08:16:40, and most end in minutes.
const WINDOW: &str = "08:20-08:18";

/// A fire is caught up no later than this.
const WITHIN: Span = Span::from_secs(15 * 60);

/// The owner of the jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    scheduler: Scheduler,
    active: BTreeMap<RunId, JobName>,
    /// Runs that are over, and when they are tried again.
    over: Vec<(RunId, Option<Timestamp>)>,
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
    GiveUp(RunId),
    /// Which run is tried again, and as which.
    Retry(RunId, RunId, JobName),
    Cancel(Vec<RunId>, JobName),
}

/// The jobs of every world.
pub(super) fn all() -> impl Iterator<Item = (JobName, Job)> {
    JOBS.into_iter().map(|(name, every, overlap, most, _)| {
        let schedule = Schedule::parse(every, "").expect("a schedule");
        let catch_up = CatchUp { most, within: WITHIN };
        let windows: &[String] = if name == "caught" { &[WINDOW.to_owned()] } else { &[] };
        let calendar = Calendar::parse(&[], windows, "").expect("a window").map(Arc::new);
        let job = Job { schedule, calendar, overlap, catch_up, enabled: true, source: None };
        (name.parse().expect("a name"), job)
    })
}

/// How often a run of this job is tried again.
fn retries(job: &JobName) -> Option<Retries> {
    let (.., most) = JOBS.into_iter().find(|(name, ..)| *name == job.as_str())?;
    Retries::new(most, PAUSE)
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
                retries: store.retries_of(&name),
            };
            let decisions = jobs.scheduler.restore(&name, job, known);
            jobs.take(ctx, store, decisions);
        }
        jobs
    }

    pub(super) fn is_idle(&self) -> bool {
        let performed = self.work.is_empty() && self.asked.is_none() && self.over.is_empty();
        performed && self.active.is_empty() && !self.scheduler.owes()
    }

    /// A run has ended, and may be tried again then.
    pub(super) fn over(&mut self, run: RunId, retry_at: Option<Timestamp>) {
        if self.active.contains_key(&run) {
            self.over.push((run, retry_at));
        }
    }

    /// The hub has begun a run, or could not.
    pub(super) fn begun(&mut self, run: RunId, outcome: &Result<(), Error>) {
        let asked = |work: &Work| match work {
            Work::Begin(id, _) | Work::Retry(_, id, _) => *id == run,
            Work::Verdict(_) | Work::GiveUp(_) | Work::Cancel(..) => false,
        };
        let mine = self.asked.as_ref().is_some_and(asked);
        if !mine {
            return;
        }
        let work = self.asked.take();
        match outcome {
            Ok(()) => {}
            // A try that seemed to fail may have succeeded.
            Err(Error::Conflict(id)) if *id == run => {}
            Err(Error::FireTaken(..)) => self.over.push((run, None)),
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
            self.compare(ctx, store, going_on);
            self.decide(ctx, store);
        }
        match self.work.pop_front()? {
            Work::Verdict(row) => {
                self.record(ctx, store, &row);
                None
            }
            Work::Begin(run, row) => {
                let plan = requests::plan_of_job(ctx, store, &row.job);
                let plan = Plan { retries: retries(&row.job), ..plan };
                if plan.hosts.is_empty() {
                    self.over.push((run, None));
                    let (verdict, reason) = (Verdict::Skipped, Some(FireReason::NoHosts));
                    self.record(ctx, store, &Row { verdict, reason, ..row });
                    return None;
                }
                let fire = Some(Row { run: Some(run), ..row.clone() });
                let by = Actor::Job(row.job.clone());
                self.asked = Some(Work::Begin(run, row));
                Some(Message::Begin { run, plan: Box::new(plan), by, fire })
            }
            Work::GiveUp(run) => {
                ctx.history.sight(Sight::GivenUp);
                store.retries.remove(&run);
                None
            }
            Work::Retry(of, run, job) => {
                let Some(plan) = requests::next_try(store, of) else {
                    self.over.push((run, None));
                    self.work.push_front(Work::GiveUp(of));
                    return None;
                };
                ctx.history.sight(Sight::TriedAgain);
                let by = Actor::Job(job.clone());
                self.asked = Some(Work::Retry(of, run, job));
                Some(Message::Begin { run, plan: Box::new(plan), by, fire: None })
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
        for (run, retry_at) in std::mem::take(&mut self.over) {
            let Some(job) = self.active.remove(&run) else { continue };
            let decisions = match retry_at {
                Some(at) => self.scheduler.failed(&job, run, at, now),
                None => self.scheduler.ended(&job, now),
            };
            self.take(ctx, store, decisions);
        }
        let decisions = self.scheduler.tick(now);
        self.take(ctx, store, decisions);
        if self.work.is_empty() && self.scheduler.owes() {
            let decisions = self.scheduler.account(ACCOUNT);
            self.take(ctx, store, decisions);
        }
    }

    /// Whatever is not going on has ended.
    fn compare(&mut self, ctx: &Ctx, store: &Store, going_on: &BTreeMap<RunId, bool>) {
        if self.compare_at > ctx.now {
            return;
        }
        self.compare_at = ctx.now + COMPARE;
        let ended = self.active.keys().filter(|run| !going_on.contains_key(run));
        let retry_at = |run: &RunId| store.retries.get(run).map(|(_, at)| *at);
        self.over.extend(ended.map(|run| (*run, retry_at(run))));
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
            match order {
                // Before another run of the job may begin.
                Order::GiveUp(_, run) => self.work.push_front(Work::GiveUp(run)),
                Order::Retry(job, of) => {
                    let id = fires::retry_id(of);
                    self.active.insert(id, job.clone());
                    self.work.push_back(Work::Retry(of, id, job));
                }
                Order::Replace(job) => {
                    self.work.push_back(Work::Cancel(self.runs_of(&job), job));
                }
            }
        }
    }

    fn runs_of(&self, job: &JobName) -> Vec<RunId> {
        self.active.iter().filter(|(_, of)| *of == job).map(|(run, _)| *run).collect()
    }

    /// What was decided and is not stored yet.
    fn waiting(&self) -> Vec<&Row> {
        let rows = self.work.iter().chain(&self.asked).filter_map(|work| match work {
            Work::Verdict(row) | Work::Begin(_, row) => Some(row),
            Work::GiveUp(_) | Work::Retry(..) | Work::Cancel(..) => None,
        });
        rows.collect()
    }
}
