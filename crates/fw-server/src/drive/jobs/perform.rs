//! Brings what was decided into the ledger and to the hub.
//!
//! A job's fires are recorded in the order of their instants. Those of different jobs have no order,
//! so thousands of runs that are due at once begin together and share the hub's commits. What the
//! store cannot write now is tried again until it can: no verdict is lost while the server lives.
//!
//! `start_within` counts from the begin of the run, as for any run: a fire that waited for the job's
//! earlier run would otherwise be too late before its turn came.

mod prepare;
mod steps;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use fw_core::job::JobDef;
use fw_core::maintenance::{Asking, Maintenances};
use fw_core::plan::{Chosen, Plan};
use fw_core::run::Actor;
use fw_core::{command, fires};
use fw_proto::api::{Code, FireReason, Problem, TaskState, Verdict};
use fw_proto::{HostId, JobName, RunId, Span, Timestamp};
use fw_rt::Clock;
use fw_store::{HostRow, NewFire, Store};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use self::prepare::prepare;
use super::{Parts, text};
use crate::drive::notices;
use crate::fleet::{self, choose};
use crate::hub;
use crate::live::Live;
use crate::problem::Chain;
use crate::state::Health;

/// The store is tried again after this pause.
const RETRY: Duration = Duration::from_secs(1);

/// Runs that are given to the hub at a time: so many are made ready while it has those before.
const LOT: usize = 256;

/// Something that was decided.
#[derive(Debug)]
pub(super) enum Work {
    /// A verdict without a run.
    Verdict(NewFire),
    /// A run is to begin.
    Begin(Due),
    /// A run that failed waits no longer to be tried again.
    GiveUp(Given),
    /// A run that failed is tried again.
    Retry(Given),
    /// These runs of a job are to make room for its next one, of the job as it is now.
    Cancel(Vec<RunId>, JobName, Of),
}

/// A run that failed, and its job as it is now.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) run: RunId,
    pub(super) of: Of,
}

/// A job as it is now.
#[derive(Debug)]
pub(super) struct Of {
    /// `None` when the job is gone.
    pub(super) def: Option<Arc<JobDef>>,
    /// Where it comes from, if that has maintenances of its own.
    pub(super) source: Option<Arc<str>>,
}

impl Of {
    fn asking(&self) -> Asking<'_> {
        Asking { source: self.source.as_deref(), by_hand: false }
    }
}

/// A run that is due.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) run: RunId,
    /// The job as it was when it became due.
    pub(super) job: Arc<JobDef>,
    /// Where it comes from, if that has maintenances of its own.
    pub(super) source: Option<Arc<str>>,
    pub(super) nominal: Timestamp,
    /// When its turn came: hosts that are in maintenance then are left out.
    pub(super) at: Timestamp,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<FireReason>,
    /// Someone asked for it, beside the schedule.
    pub(super) manual: Option<Manual>,
    /// Another scheduler runs this job: it is only said where a run would have begun.
    pub(super) shadow: bool,
}

impl Due {
    fn asking(&self) -> Asking<'_> {
        Asking { source: self.source.as_deref(), by_hand: self.manual.is_some() }
    }
}

/// Who asked for a run, and waits to hear of it.
#[derive(Debug)]
pub(super) struct Manual {
    pub(super) by: Actor,
    pub(super) reply: oneshot::Sender<Result<RunId, Problem>>,
}

/// What is needed to perform.
#[derive(Debug, Clone)]
pub(super) struct Performer {
    store: Store,
    hub: hub::Handle,
    live: Live,
    clock: Clock,
    health: Health,
    lost_after: Span,
    maintenances: Arc<Maintenances>,
    complete: Option<fn(&mut Plan, Timestamp)>,
}

/// What there is to choose from.
#[derive(Debug, Default)]
struct Fleet {
    maintenances: Arc<Maintenances>,
    /// By name.
    hosts: Arc<[Arc<HostRow>]>,
    secrets: BTreeSet<String>,
    /// Those that are linked, when someone draws among them.
    online: BTreeSet<HostId>,
}

/// A run that can begin.
#[derive(Debug)]
struct Ready {
    due: Due,
    hosts: Arc<[Chosen]>,
}

/// What became of a run that was to begin.
enum Begun {
    Yes,
    /// It did not, and this is the fire's verdict, where it has none.
    No(Option<NewFire>),
    /// The server is stopping; what is not recorded counts as missed.
    Stopped,
}

impl Performer {
    pub(super) fn of(parts: &Parts, maintenances: Arc<Maintenances>) -> Self {
        Self {
            store: parts.store.clone(),
            hub: parts.hub.clone(),
            live: parts.live.clone(),
            clock: parts.clock.clone(),
            health: parts.health.clone(),
            lost_after: parts.lost_after,
            maintenances,
            complete: parts.dialect.as_ref().map(|dialect| dialect.complete),
        }
    }

    /// Performs all of it; gives the runs that did not begin.
    pub(super) async fn perform(self, work: Vec<Work>) -> Vec<RunId> {
        let (mut decided, mut retries, mut cancels) = (Vec::new(), Vec::new(), Vec::new());
        for work in work {
            match work {
                Work::Verdict(_) | Work::Begin(_) => decided.push(work),
                // Before another run of the job may begin.
                Work::GiveUp(given) => self.give_up(&given).await,
                Work::Retry(given) => retries.push(given),
                Work::Cancel(runs, job, of) => cancels.push((runs, job, of)),
            }
        }
        let mut over = self.decided(decided).await;
        let retried = join_all(retries.iter().map(|given| self.retry(given))).await;
        over.extend(retried.into_iter().flatten());
        // One of them may have begun just now.
        for (runs, job, of) in cancels {
            if !self.all_held(&of) {
                self.cancel(&runs, &job).await;
            }
        }
        over
    }

    /// Tells that the run failed for good, then forgets that it waited.
    async fn give_up(&self, given: &Given) {
        while let Err(error) = self.try_give_up(given).await {
            self.wait(&error).await;
        }
        info!(run.id = %given.run, "run that failed is not tried again: its job changed or is paused, another run takes its place, or its hosts are gone or in maintenance");
    }

    async fn try_give_up(&self, given: &Given) -> Result<(), fw_store::Error> {
        if let Some(def) = &given.of.def {
            notices::put_failure(&self.store, self.clock.now(), def, given.run).await?;
        }
        self.store.give_up_retry(given.run).await
    }

    /// Begins the next try of a run; gives its id when there is nothing to try.
    async fn retry(&self, given: &Given) -> Option<RunId> {
        let id = fires::retry_id(given.run);
        loop {
            match self.try_retry(given, id).await {
                Ok(Begun::Yes | Begun::Stopped) => return None,
                Ok(Begun::No(_)) => {
                    self.give_up(given).await;
                    return Some(id);
                }
                Err(error) => self.wait(&error).await,
            }
        }
    }

    async fn try_retry(&self, given: &Given, id: RunId) -> Result<Begun, fw_store::Error> {
        let of = given.run;
        let (plan, run) = (self.store.plan(of).await?, self.store.run(of).await?);
        // It may be so old that it is gone.
        let Some((plan, run)) = plan.zip(run) else { return Ok(Begun::No(None)) };
        let Some(job) = plan.origin.job.clone() else { return Ok(Begun::No(None)) };
        let rows = self.store.hosts();
        // Where somebody ended it, nobody wants it again.
        let done = [TaskState::Succeeded, TaskState::Cancelled];
        let hosts = fleet::again(&rows, &plan, &run, &done);
        let (asking, now) = (given.of.asking(), self.clock.now());
        let hosts = fleet::free(&rows, &hosts, &self.maintenances, asking, now);
        if hosts.is_empty() {
            return Ok(Begun::No(None));
        }
        let plan = command::next_try(of, plan, hosts, self.store.incarnation());
        let begin = hub::Begin { run: id, plan, by: Actor::Job(job), fire: None };
        match self.hub.begin(begin).await {
            Ok(()) => Ok(Begun::Yes),
            Err(hub::Error::Stopped) => Ok(Begun::Stopped),
            Err(hub::Error::Store(error)) => already_there(id, &error),
        }
    }

    /// Whether all hosts of a job are in maintenance: then nothing takes the place of its runs.
    fn all_held(&self, of: &Of) -> bool {
        let Some(job) = &of.def else { return false };
        let (rows, now) = (self.store.hosts(), self.clock.now());
        let hosts = choose(&rows, &job.selector);
        let free = fleet::free(&rows, &hosts, &self.maintenances, of.asking(), now);
        !hosts.is_empty() && free.is_empty()
    }

    /// Ends runs, whatever it takes: the fire that takes their place waits for it.
    async fn cancel(&self, runs: &[RunId], job: &JobName) {
        for run in runs {
            loop {
                match self.hub.cancel(*run, Actor::Job(job.clone())).await {
                    Ok(true) => {
                        info!(run.id = %run, %job, "run is cancelled: the job's next fire takes its place");
                    }
                    // It has ended by itself.
                    Ok(false) => {}
                    Err(hub::Error::Stopped) => return,
                    Err(hub::Error::Store(error)) => {
                        self.wait(&error).await;
                        continue;
                    }
                }
                break;
            }
        }
    }

    async fn decided(&self, work: Vec<Work>) -> Vec<RunId> {
        let runs = work.iter().any(|work| matches!(work, Work::Begin(_)));
        let mut fleet = if runs { self.fleet().await } else { Fleet::default() };
        if work.iter().any(draws) {
            let hosts = fleet.hosts.iter().map(|row| row.id).collect();
            // A server that stops begins nothing anyway.
            fleet.online = self.hub.online(hosts).await.unwrap_or_default();
        }
        // Thousands of jobs over thousands of hosts are too much for an async thread.
        let prepared = tokio::task::spawn_blocking(move || prepare(work, &fleet)).await;
        let (steps, mut over) = prepared.unwrap_or_else(|error| {
            error!(%error, "what was due could not be prepared; please report this");
            Default::default()
        });
        for step in steps {
            self.record(step.rows).await;
            // All but the first are made ready while the hub has those before.
            let begun = join_all(lots(step.begins).map(|lot| self.begin_all(lot))).await;
            let mut late = Vec::new();
            for (run, begun) in begun.into_iter().flatten() {
                match begun {
                    Begun::Yes => {}
                    Begun::No(row) => {
                        over.push(run);
                        late.extend(row);
                    }
                    Begun::Stopped => return over,
                }
            }
            self.record(late).await;
        }
        over
    }

    async fn fleet(&self) -> Fleet {
        loop {
            match self.read_fleet().await {
                Ok(fleet) => return fleet,
                Err(error) => self.wait(&error).await,
            }
        }
    }

    async fn read_fleet(&self) -> Result<Fleet, fw_store::Error> {
        let hosts = self.store.hosts();
        let secrets = self.store.secrets().await?.into_iter().map(|secret| secret.name).collect();
        let maintenances = Arc::clone(&self.maintenances);
        Ok(Fleet { maintenances, hosts, secrets, online: BTreeSet::new() })
    }

    /// Records verdicts, whatever it takes.
    async fn record(&self, mut rows: Vec<NewFire>) {
        while !rows.is_empty() {
            match self.store.record_fires(rows.clone()).await {
                Ok(()) => {
                    rows.into_iter().for_each(|row| self.live.fired(row.job));
                    break;
                }
                Err(fw_store::Error::FireTaken { job, nominal }) => {
                    warn!(%job, %nominal, "a fire has its verdict already; it stands");
                    let before = rows.len();
                    rows.retain(|row| (&row.job, row.from) != (&job, nominal));
                    if rows.len() == before {
                        error!(%job, %nominal, "verdicts of fires are not recorded; please report this");
                        return;
                    }
                }
                Err(error) => self.wait(&error).await,
            }
        }
        self.health.clear("ledger");
    }

    async fn wait(&self, error: &fw_store::Error) {
        warn!(error = %Chain(error), "fires cannot be recorded; trying again");
        self.health.report("ledger", format!("fires cannot be recorded: {}", Chain(error)));
        tokio::time::sleep(RETRY).await;
    }

    /// Begins runs that are due together.
    async fn begin_all(&self, lot: Vec<Ready>) -> Vec<(RunId, Begun)> {
        let (mut begun, mut ready, mut begins) =
            (Vec::with_capacity(lot.len()), Vec::new(), Vec::new());
        for one in lot {
            match self.compile(&one) {
                Ok(begin) => {
                    begins.push(begin);
                    ready.push(one);
                }
                Err(no) => begun.push(self.told(one.due, no)),
            }
        }
        match self.hub.begin_all(begins).await {
            Ok(refused) => begun.extend(ready.into_iter().map(|Ready { due, .. }| {
                let taken = refused.contains_key(&due.run);
                self.told(due, if taken { Begun::No(None) } else { Begun::Yes })
            })),
            Err(hub::Error::Stopped) => {
                begun.extend(
                    ready.into_iter().map(|Ready { due, .. }| self.told(due, Begun::Stopped)),
                );
            }
            // Each by itself: one that cannot be written takes no other with it.
            Err(hub::Error::Store(_)) => {
                begun.extend(join_all(ready.into_iter().map(|one| self.begin(one))).await);
            }
        }
        begun
    }

    async fn begin(&self, ready: Ready) -> (RunId, Begun) {
        let since = self.clock.now();
        let begun = loop {
            match self.try_begin(&ready).await {
                Ok(begun) => break begun,
                Err(error) => {
                    let late = self.clock.now().since(since);
                    if ready.due.manual.is_some() || late > ready.due.job.spec.start_within {
                        break self.too_late(&ready.due, &error);
                    }
                    self.wait(&error).await;
                }
            }
        };
        self.told(ready.due, begun)
    }

    /// Tells who asked for the run what became of it.
    fn told(&self, due: Due, begun: Begun) -> (RunId, Begun) {
        if let Some(manual) = due.manual {
            let outcome = match &begun {
                Begun::Yes => Ok(due.run),
                Begun::No(_) | Begun::Stopped => Err(self.refusal()),
            };
            // Whoever asked may have gone away.
            drop(manual.reply.send(outcome));
        }
        (due.run, begun)
    }

    fn completed(&self, mut plan: Plan) -> Plan {
        if let Some(complete) = self.complete {
            complete(&mut plan, self.clock.now());
        }
        plan
    }

    fn refusal(&self) -> Problem {
        Problem::new(Code::Unavailable, "the run could not be recorded and was not begun")
            .detail("see /readyz and the server's log, then try again")
    }

    fn too_late(&self, due: &Due, error: &fw_store::Error) -> Begun {
        error!(job = %due.job.name, error = %Chain(error), "run could not be recorded in time and is not begun");
        self.health.report("ledger", format!("runs cannot be recorded: {}", Chain(error)));
        let missed = row(due, Verdict::Missed, Some(FireReason::Downtime));
        Begun::No(Some(missed).filter(|_| due.manual.is_none()))
    }

    /// One try; an error when the store could not.
    async fn try_begin(&self, ready: &Ready) -> Result<Begun, fw_store::Error> {
        let begin = match self.compile(ready) {
            Ok(begin) => begin,
            Err(no) => return Ok(no),
        };
        match self.hub.begin(begin).await {
            Ok(()) => Ok(Begun::Yes),
            Err(hub::Error::Stopped) => Ok(Begun::Stopped),
            Err(hub::Error::Store(error)) => refused(&ready.due, &error),
        }
    }

    /// What the hub is to begin, or why nothing.
    fn compile(&self, ready: &Ready) -> Result<hub::Begin, Begun> {
        let Ready { due, hosts } = ready;
        let name = &due.job.name;
        let incarnation = self.store.incarnation();
        let plan = match text::plan(&due.job, hosts.to_vec(), incarnation, self.lost_after) {
            // Whoever began it by hand sees it fail, and decides.
            Ok(plan) => self
                .completed(Plan { retries: plan.retries.filter(|_| due.manual.is_none()), ..plan }),
            Err(invalid) => {
                error!(job = %name, "job cannot run: {invalid}; please report this");
                return Err(Begun::No(Some(row(due, Verdict::Skipped, Some(FireReason::Changed)))));
            }
        };
        let by = due
            .manual
            .as_ref()
            .map_or_else(|| Actor::Job(name.clone()), |manual| manual.by.clone());
        let lag_ms = Some(self.clock.now().since(due.nominal).as_millis());
        let fire = NewFire { run: Some(due.run), lag_ms, ..row(due, due.verdict, due.reason) };
        Ok(hub::Begin { run: due.run, plan, by, fire: Some(fire) })
    }
}

/// Whether it is a run on a part of its hosts.
fn draws(work: &Work) -> bool {
    match work {
        Work::Begin(due) => due.job.spec.pick.is_some(),
        Work::Verdict(_) | Work::GiveUp(_) | Work::Retry(_) | Work::Cancel(..) => false,
    }
}

/// What it means that the store would not take a run.
fn refused(due: &Due, error: &fw_store::Error) -> Result<Begun, fw_store::Error> {
    if let fw_store::Error::FireTaken { job, nominal } = error
        && (job, *nominal) == (&due.job.name, due.nominal)
    {
        return Ok(Begun::No(None));
    }
    already_there(due.run, error)
}

/// A try that seemed to fail may have succeeded.
fn already_there(id: RunId, error: &fw_store::Error) -> Result<Begun, fw_store::Error> {
    let there = matches!(error, fw_store::Error::Conflict { run } if *run == id);
    if there { Ok(Begun::Yes) } else { Err(error.clone()) }
}

/// Runs that begin together, in lots of [`LOT`].
fn lots(begins: Vec<Ready>) -> impl Iterator<Item = Vec<Ready>> {
    let mut begins = begins.into_iter();
    std::iter::from_fn(move || {
        let lot: Vec<_> = begins.by_ref().take(LOT).collect();
        (!lot.is_empty()).then_some(lot)
    })
}

fn row(due: &Due, verdict: Verdict, reason: Option<FireReason>) -> NewFire {
    let (job, from, to) = (due.job.name.clone(), due.nominal, due.nominal);
    NewFire { job, verdict, reason, from, to, count: 1, run: None, lag_ms: None, hosts: None }
}
