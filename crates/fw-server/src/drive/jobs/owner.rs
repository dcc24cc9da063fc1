//! The task that owns the jobs: it waits, asks the scheduler, and hands on what was decided.
//!
//! What was decided is performed (`perform`) in the order of the decisions, since the ledger wants a job's
//! fires in order. When many jobs are due at once, it is decided in pieces, none of which has a job of another,
//! and each is performed while the next is decided. Until all are, nothing else is decided: a store that
//! cannot write holds the schedule up, and what that makes late counts as missed.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use fw_core::fires::{self, Decision, Known, Order, Scheduler};
use fw_core::job::JobDef;
use fw_core::maintenance::Maintenances;
use fw_proto::api::{self, FireReason, JobSource, SourceError, Verdict};
use fw_proto::{JobName, RunId, Span, Timestamp};
use fw_store::{NewFire, Retry, StoredJob};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::files::Files;
use super::hold::Words;
use super::perform::{Due, Given, Of, Performer, Work};
use super::{Change, Error, Parts, Query, text};
use crate::live::RunChange;
use crate::problem::Chain;

/// The clock may be set at any time: look at it at least so often.
const LOOK: Duration = Duration::from_millis(250);

/// The directory is read so often, hint or not.
const RESCAN: Duration = Duration::from_secs(5);

/// Runs that count as going on are compared with those that do so often, hint or not.
const RECONCILE: Duration = Duration::from_secs(30);

/// Jobs whose missed fires are counted at a time: a few milliseconds.
const ACCOUNT: usize = 200;

/// Jobs that are due at once are decided so many at a time: in a few milliseconds.
const PIECE: usize = 500;

/// A clock that is a little slewed back is nothing to report.
const BEHIND: Span = Span::from_secs(1);

/// A job as it is in force.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) def: Arc<JobDef>,
    pub(super) source: JobSource,
    pub(super) set_at: Timestamp,
}

/// A stored job that this build cannot use; it does not fire.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) source: JobSource,
    error: SourceError,
}

/// What is wrong in the job files.
#[derive(Debug, Default)]
pub(super) struct FileErrors {
    pub(super) all: Vec<SourceError>,
    /// Of `all` the first about each job, and the first about each whole file.
    by_job: BTreeMap<String, usize>,
    by_file: BTreeMap<String, usize>,
}

impl FileErrors {
    pub(super) fn new(all: Vec<SourceError>) -> Self {
        let mut errors = Self::default();
        for (place, error) in all.iter().enumerate() {
            let (index, key) = match &error.job {
                Some(job) => (&mut errors.by_job, job),
                None => (&mut errors.by_file, &error.file),
            };
            index.entry(key.clone()).or_insert(place);
        }
        Self { all, ..errors }
    }

    /// What is wrong with a job of a file, else with the whole file.
    fn of(&self, name: &JobName, source: &JobSource) -> Option<&SourceError> {
        let JobSource::File(file) = source else { return None };
        let place = self.by_job.get(name.as_str()).or_else(|| self.by_file.get(file))?;
        self.all.get(*place)
    }
}

/// Everything about jobs.
pub(super) struct Owner {
    pub(super) parts: Parts,
    pub(super) scheduler: Scheduler,
    /// What is in maintenance, and for a while what was.
    pub(super) maintenances: watch::Sender<Arc<Maintenances>>,
    /// What was said of these.
    pub(super) words: watch::Sender<Words>,
    pub(super) jobs: BTreeMap<JobName, Entry>,
    pub(super) unusable: BTreeMap<JobName, Unusable>,
    pub(super) files: Option<Files>,
    /// What the files follow from was not taken up whole: look again, changed or not.
    pub(super) unsettled: bool,
    /// What is wrong in the files.
    pub(super) file_errors: FileErrors,
    /// What is wrong with the directory.
    pub(super) trouble: Option<String>,
    /// Whether it was last seen that others may write there.
    pub(super) exposed: bool,
    /// Runs that the scheduler counts as going on.
    active: BTreeMap<RunId, JobName>,
    /// Those of them that are over, which it is still to be told.
    over: Vec<Over>,
    /// Decided, to be performed.
    work: Vec<Work>,
    /// Ends of runs may have gone unheard.
    deaf: bool,
}

/// A run that is over.
#[derive(Debug)]
struct Over {
    run: RunId,
    /// It failed and is tried again then.
    retry_at: Option<Timestamp>,
}

/// Where the owner is reached.
pub(super) struct Inlets {
    pub(super) queries: mpsc::Receiver<Query>,
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) runs: broadcast::Receiver<Arc<RunChange>>,
}

/// Pieces that are performed; each gives its runs that never came to be.
type Performing = JoinSet<Vec<RunId>>;

impl Owner {
    /// Takes over what is stored.
    pub(super) async fn load(parts: Parts) -> Result<Self, Error> {
        let (stored, mut last) = (parts.store.jobs().await?, parts.store.last_fires().await?);
        let mut pending: BTreeMap<_, Vec<NewFire>> = BTreeMap::new();
        for fire in parts.store.pending_fires().await? {
            pending.entry(fire.job.clone()).or_default().push(fire);
        }
        let active = parts.hub.active().await?;
        let active: BTreeMap<_, _> =
            active.into_iter().filter_map(|(run, job)| Some((run, job?))).collect();
        // One that ended just now is heard of later.
        let mut retries: BTreeMap<JobName, BTreeMap<RunId, Timestamp>> = BTreeMap::new();
        for Retry { run, job, at } in parts.store.retries().await? {
            if !active.contains_key(&run) {
                retries.entry(job).or_default().insert(run, at);
            }
        }
        let mut owner = Self {
            scheduler: Scheduler::new(parts.clock.now()),
            maintenances: watch::Sender::default(),
            words: watch::Sender::default(),
            jobs: BTreeMap::new(),
            unusable: BTreeMap::new(),
            files: parts.dir.clone().map(Files::new),
            unsettled: false,
            file_errors: FileErrors::default(),
            trouble: None,
            exposed: false,
            active,
            over: Vec::new(),
            work: Vec::new(),
            deaf: false,
            parts,
        };
        let maintenances = owner.parts.store.maintenances().await?;
        owner.load_maintenances(maintenances);
        for job in stored {
            let last = last.remove(&job.name);
            let waiting = pending.get(&job.name).map(Vec::as_slice).unwrap_or_default();
            let retries = retries.get(&job.name).cloned().unwrap_or_default();
            owner.restore(job, last, waiting, retries);
        }
        retries.retain(|name, _| !owner.jobs.contains_key(name));
        let lost = retries.into_iter().flat_map(|(job, runs)| {
            runs.into_keys().map(move |run| Order::GiveUp(job.clone(), run))
        });
        lost.for_each(|order| owner.order(order));
        pending.retain(|name, _| !owner.jobs.contains_key(name));
        let gone = pending.into_values().flatten();
        owner.work.extend(gone.map(|fire| Work::Verdict(changed_away(fire.job, fire.from))));
        owner.count_strays();
        if owner.files.is_none() && owner.count_from_files() > 0 {
            warn!(
                "{} jobs come from files, but no directory of job files is set; they go on as stored, and `jobs apply` and `jobs delete` may change them",
                owner.count_from_files()
            );
        }
        Ok(owner)
    }

    fn restore(
        &mut self,
        stored: StoredJob,
        last: Option<Timestamp>,
        waiting: &[NewFire],
        retries: BTreeMap<RunId, Timestamp>,
    ) {
        let StoredJob { name, source, text, paused } = stored;
        match text::from_store(&name, &text) {
            Ok((def, set_at)) => {
                let active = self.active.values().filter(|job| **job == name).count();
                let active = u32::try_from(active).unwrap_or(u32::MAX);
                let decided_to = last.map_or(set_at, |last| last.max(set_at));
                let (queued, behind) = sort_waiting(waiting);
                let known = Known { decided_to, paused, active, queued, behind, retries };
                let job = scheduled(&self.parts, &def, &source);
                let decisions = self.scheduler.restore(&name, job, known);
                self.jobs.insert(name, Entry { def: Arc::new(def), source, set_at });
                self.take(decisions);
            }
            Err(why) => {
                error!(job = %name, "stored job cannot be used and does not fire: {why}; set it again");
                let file = match &source {
                    JobSource::File(file) | JobSource::Dialect { file, .. } => file.as_str(),
                    JobSource::Api => "jobs",
                };
                let why = format!("job {name} as it is stored cannot be used: {why}; set it again");
                let error = SourceError { job: Some(name.to_string()), ..text::whole(file, why) };
                self.unusable.insert(name, Unusable { source, error });
            }
        }
    }

    /// Runs of jobs that are gone count should the job come back.
    fn count_strays(&mut self) {
        let jobs = &self.jobs;
        for name in self.active.values().filter(|name| !jobs.contains_key(*name)) {
            self.scheduler.begun(name);
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self, mut inlets: Inlets) {
        let mut rescan = interval(RESCAN);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reconcile = interval(RECONCILE);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut performing = Performing::new();
        loop {
            self.hear_all(&mut inlets.runs);
            if performing.is_empty() {
                self.decide(&mut performing);
            }
            let idle = performing.is_empty();
            let pause = self.pause();
            tokio::select! {
                biased;
                Some(piece) = performing.join_next() => {
                    let over = never_begun(piece).into_iter();
                    self.over.extend(over.map(|run| Over { run, retry_at: None }));
                }
                change = inlets.runs.recv() => self.heard(change),
                Some(query) = inlets.queries.recv() => self.answer(query),
                Some(change) = inlets.changes.recv(), if idle => self.change(change).await,
                _ = rescan.tick(), if idle => self.rescan().await,
                _ = reconcile.tick(), if idle => self.deaf = true,
                () = hint(&mut self.files) => {}
                () = tokio::time::sleep(pause), if idle => self.wake().await,
            }
        }
    }

    /// Decides what is due and begins to perform it; only while nothing is being performed.
    fn decide(&mut self, performing: &mut Performing) {
        let now = self.parts.clock.now();
        // A run that is over, or what was decided when a job was set, may be of a job that is due now.
        let apart = self.over.is_empty() && self.work.is_empty();
        let most = if apart { PIECE } else { usize::MAX };
        let mut decisions = self.scheduler.tick_some(now, most);
        while self.scheduler.has_due() {
            self.take(decisions);
            self.perform(performing);
            decisions = self.scheduler.tick_some(now, most);
        }
        self.take(decisions);
        for Over { run, retry_at } in std::mem::take(&mut self.over) {
            let Some(job) = self.active.remove(&run) else { continue };
            let decisions = match retry_at {
                Some(at) => self.scheduler.failed(&job, run, at, now),
                None => self.scheduler.ended(&job, now),
            };
            self.take(decisions);
        }
        self.forget_maintenances(now);
        if self.work.is_empty() && performing.is_empty() && self.scheduler.owes() {
            let decisions = self.scheduler.account(ACCOUNT);
            self.take(decisions);
        }
        self.watch_clock(now);
        self.perform(performing);
    }

    /// What came late by looking: the directory after a hint, runs whose end went unheard.
    async fn wake(&mut self) {
        let look_at = self.files.as_ref().and_then(Files::look_at);
        if look_at.is_some_and(|at| at <= Instant::now()) {
            self.rescan().await;
        }
        if std::mem::take(&mut self.deaf) {
            self.compare_runs().await;
        }
    }

    fn pause(&self) -> Duration {
        let now = self.parts.clock.now();
        let due = self.scheduler.next_due().map_or(LOOK, |at| at.since(now).duration());
        let look_at = self.files.as_ref().and_then(Files::look_at);
        let look = look_at.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()));
        if self.deaf { Duration::ZERO } else { due.min(look).min(LOOK) }
    }

    fn perform(&mut self, performing: &mut Performing) {
        let work = std::mem::take(&mut self.work);
        if !work.is_empty() {
            let performer = Performer::of(&self.parts, Arc::clone(&self.maintenances.borrow()));
            performing.spawn(performer.perform(work));
        }
    }

    /// Notes what was decided, with the jobs as they are now: a change that follows does not change it.
    pub(super) fn take(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            let work = match decision.run().zip(self.jobs.get(&decision.job)) {
                Some((run, entry)) => {
                    self.active.insert(run, decision.job);
                    let Decision { from: nominal, verdict, reason, waited, .. } = decision;
                    let job = Arc::clone(&entry.def);
                    let at = if waited { self.parts.clock.now() } else { nominal };
                    let shadow = is_shadow(&self.parts, &entry.source);
                    let source = maintained(&entry.source).map(Into::into);
                    let manual = None;
                    let due =
                        Due { run, job, source, nominal, at, verdict, reason, manual, shadow };
                    Work::Begin(due)
                }
                None => Work::Verdict(verdict(decision)),
            };
            self.work.push(work);
        }
        self.scheduler.orders().into_iter().for_each(|order| self.order(order));
    }

    fn order(&mut self, order: Order) {
        let of = |job: &JobName| {
            let entry = self.jobs.get(job);
            let source = entry.and_then(|entry| maintained(&entry.source)).map(Into::into);
            Of { def: entry.map(|entry| Arc::clone(&entry.def)), source }
        };
        let work = match order {
            Order::GiveUp(job, run) => Work::GiveUp(Given { run, of: of(&job) }),
            Order::Retry(job, run) => {
                let retry = Work::Retry(Given { run, of: of(&job) });
                self.active.insert(fires::retry_id(run), job);
                retry
            }
            Order::Replace(job) => Work::Cancel(self.runs_of(&job), job.clone(), of(&job)),
        };
        self.work.push(work);
    }

    /// The runs of a job that go on, as far as is known here.
    fn runs_of(&self, job: &JobName) -> Vec<RunId> {
        self.active.iter().filter(|(_, of)| *of == job).map(|(run, _)| *run).collect()
    }

    /// A run that someone wants now.
    pub(super) fn take_manual(&mut self, due: Due) {
        let name = &due.job.name;
        self.scheduler.begun(name);
        self.active.insert(due.run, name.clone());
        self.work.push(Work::Begin(due));
    }

    /// A fire that is due now comes after the ends of runs that are known now.
    fn hear_all(&mut self, runs: &mut broadcast::Receiver<Arc<RunChange>>) {
        loop {
            let change = match runs.try_recv() {
                Ok(change) => Ok(change),
                Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            };
            self.heard(change);
        }
    }

    fn heard(&mut self, change: Result<Arc<RunChange>, RecvError>) {
        match change {
            Ok(change) => {
                let run = change.summary.id;
                if change.summary.state.is_final() && self.active.contains_key(&run) {
                    self.over.push(Over { run, retry_at: change.retry_at });
                }
            }
            // Closed it never is: `parts` holds the other end.
            Err(RecvError::Lagged(_) | RecvError::Closed) => {
                self.deaf = true;
            }
        }
    }

    /// Whatever is not going on has ended. All that were decided have been begun by now.
    async fn compare_runs(&mut self) {
        let going_on = match self.parts.hub.active().await {
            Ok(going_on) => going_on,
            Err(error) => return info!(%error, "runs cannot be compared"),
        };
        match self.parts.store.retries().await {
            Ok(retries) => {
                let retries: BTreeMap<_, _> =
                    retries.into_iter().map(|retry| (retry.run, retry.at)).collect();
                let ended = self.active.keys().filter(|run| !going_on.contains_key(run));
                let over = |run: &RunId| Over { run: *run, retry_at: retries.get(run).copied() };
                self.over.extend(ended.map(over));
            }
            Err(error) => warn!(error = %Chain(&error), "runs cannot be compared"),
        }
    }

    fn watch_clock(&self, now: Timestamp) {
        match self.scheduler.clock_behind(now).filter(|behind| *behind >= BEHIND) {
            Some(behind) => {
                let shown = Span::from_secs(behind.as_millis() / 1000);
                let until = now + behind;
                let reason = format!("clock went back {shown}; nothing fires again until {until}");
                self.parts.health.report("clock", reason);
            }
            None => self.parts.health.clear("clock"),
        }
    }

    fn answer(&self, query: Query) {
        // Whoever asked may have gone away.
        match query {
            Query::List(reply) => drop(reply.send(self.views())),
            Query::Show(name, reply) => drop(reply.send(self.view(&name))),
            Query::Def(name, reply) => {
                let entry = self.jobs.get(&name);
                drop(reply.send(entry.map(|entry| Arc::clone(&entry.def))));
            }
            Query::Errors(reply) => drop(reply.send(self.errors())),
        }
    }

    fn views(&self) -> Vec<api::Job> {
        self.jobs.keys().filter_map(|name| self.view(name)).collect()
    }

    fn view(&self, name: &JobName) -> Option<api::Job> {
        let entry = self.jobs.get(name)?;
        let state = self.scheduler.state(name)?;
        Some(api::Job {
            name: name.clone(),
            spec: entry.def.spec.clone(),
            source: entry.source.clone(),
            paused: state.paused,
            next_fire: state.next,
            waiting: waiting(&state),
            last_run: None,
            last_failed: None,
            error: self.file_errors.of(name, &entry.source).cloned(),
        })
    }

    fn errors(&self) -> Vec<SourceError> {
        let dir = self.files.as_ref().map(|files| files.dir().display().to_string());
        let trouble = dir.zip(self.trouble.as_ref()).map(|(dir, why)| text::whole(&dir, why));
        let unusable = self.unusable.values().map(|unusable| unusable.error.clone());
        trouble.into_iter().chain(unusable).chain(self.file_errors.all.iter().cloned()).collect()
    }

    /// How many jobs come from files.
    pub(super) fn count_from_files(&self) -> usize {
        self.jobs.values().filter(|entry| matches!(entry.source, JobSource::File(_))).count()
    }
}

/// Whether another scheduler runs the jobs that come from there.
pub(super) fn is_shadow(parts: &Parts, source: &JobSource) -> bool {
    match source {
        JobSource::File(_) | JobSource::Api => false,
        JobSource::Dialect { .. } => parts.dialect.as_ref().is_some_and(|dialect| dialect.shadow),
    }
}

/// The source of a job, if that has maintenances of its own.
pub(super) fn maintained(source: &JobSource) -> Option<&str> {
    match source {
        JobSource::File(_) | JobSource::Api => None,
        JobSource::Dialect { name, .. } => Some(name),
    }
}

/// What the scheduler needs to know. Of a job in the shadow no run goes on, so nothing overlaps.
pub(super) fn scheduled(parts: &Parts, def: &JobDef, source: &JobSource) -> fires::Job {
    let shadow = is_shadow(parts, source);
    fires::Job {
        schedule: def.schedule.clone(),
        calendar: def.calendar.clone(),
        overlap: if shadow { api::Overlap::Allow } else { def.spec.overlap },
        catch_up: fires::CatchUp {
            most: match def.spec.catch_up {
                api::CatchUp::None => 0,
                api::CatchUp::Last => 1,
                api::CatchUp::All => def.spec.catch_up_max,
            },
            within: def.spec.catch_up_window,
        },
        enabled: def.spec.enabled,
        source: maintained(source).map(Into::into),
    }
}

/// The fire that waits for a run, and those that are to be caught up.
fn sort_waiting(waiting: &[NewFire]) -> (Option<Timestamp>, BTreeMap<Timestamp, FireReason>) {
    let lost = |fire: &NewFire| {
        let lost = [FireReason::Downtime, FireReason::ClockJump];
        fire.reason.filter(|reason| lost.contains(reason)).map(|reason| (fire.from, reason))
    };
    let queued = waiting.iter().find(|fire| lost(fire).is_none()).map(|fire| fire.from);
    (queued, waiting.iter().filter_map(lost).collect())
}

/// What people are told of that.
fn waiting(state: &fires::State) -> Vec<api::JobWaiting> {
    let ends = state.behind.first().zip(state.behind.last());
    let catch_up = ends.map(|(from, to)| api::JobWaiting::CatchUp {
        fires: u32::try_from(state.behind.len()).unwrap_or(u32::MAX),
        from: *from,
        to: *to,
    });
    let queued = state.queued.map(|nominal| api::JobWaiting::Queued { nominal });
    let retry = |(run, at): (&RunId, &Timestamp)| api::JobWaiting::Retry { run: *run, at: *at };
    state.retries.iter().map(retry).chain(catch_up).chain(queued).collect()
}

/// The ledger row of a decision without a run.
fn verdict(decision: Decision) -> NewFire {
    if decision.run().is_some() {
        return changed_away(decision.job, decision.from);
    }
    let Decision { job, verdict, reason, from, to, count, .. } = decision;
    NewFire { job, verdict, reason, from, to, count, run: None, lag_ms: None, hosts: None }
}

/// The verdict of a fire whose job was gone before its run could begin.
fn changed_away(job: JobName, at: Timestamp) -> NewFire {
    let (verdict, reason) = (Verdict::Skipped, Some(FireReason::Changed));
    NewFire {
        job,
        verdict,
        reason,
        from: at,
        to: at,
        count: 1,
        run: None,
        lag_ms: None,
        hosts: None,
    }
}

/// The runs of a piece that never came to be. A server that stops ends its tasks.
fn never_begun(piece: Result<Vec<RunId>, JoinError>) -> Vec<RunId> {
    piece.unwrap_or_else(|error| {
        error.try_into_panic().map_or_else(|_| Vec::new(), |panic| resume_unwind(panic))
    })
}

async fn hint(files: &mut Option<Files>) {
    match files {
        Some(files) => files.hint().await,
        None => std::future::pending().await,
    }
}
