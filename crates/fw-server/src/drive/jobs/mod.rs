//! Jobs: what their files and the API say of them, when they fire, and what becomes of it.
//!
//! One task (`owner`) holds the jobs, the scheduler that decides about them and what was last
//! found in the directory of job files. `files` reads the directory, `reconcile` says what follows
//! from it, `change` carries out what people and files want changed, `perform` brings what was
//! decided into the ledger and to the hub, `hold` knows what is in maintenance. All decisions are in
//! `fw-core`.

mod change;
mod files;
mod hold;
mod owner;
mod perform;
mod reconcile;
#[cfg(test)]
mod tests;
pub(crate) mod text;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fw_core::job::JobDef;
use fw_core::maintenance::Maintenances;
use fw_core::plan::Plan;
use fw_core::run::Actor;
use fw_proto::api::{
    self, CheckedJob, CheckedJobs, Code, JobsText, Problem, RunState, SourceError,
};
use fw_proto::{JobName, MaintenanceId, RunId, Span, Timestamp};
use fw_rt::{Clock, Tasks};
use fw_store::{Store, StoredMaintenance};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use self::hold::{By, Said, Wanted};

use crate::hub;
use crate::live::Live;
use crate::problem::Chain;
use crate::state::Health;

/// Questions and changes that may wait for the owner; whoever asks more waits.
const INBOX: usize = 1024;

/// A change waits while the store cannot write. After so long whoever asked is told.
const CHANGE_WITHIN: Duration = Duration::from_secs(30);

/// So many texts are parsed at once; a tree of one takes some hundred times its bytes. Others wait.
const PARSED_AT_ONCE: usize = 2;

/// What jobs are called in errors when a text has no name.
const UNNAMED: &str = "jobs";

/// What the jobs need.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where jobs, pauses and the ledger are kept.
    pub store: Store,
    /// Who begins runs.
    pub hub: hub::Handle,
    /// Where ends of runs are heard.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// Where to say that the clock went back or that the directory is gone.
    pub health: Health,
    /// The directory of job files; only jobs of the API without.
    pub dir: Option<PathBuf>,
    /// The jobs of a dialect, when one is served.
    pub dialect: Option<Dialect>,
    /// After this silence of its host a started task is lost.
    pub lost_after: Span,
}

/// The jobs of another program's files. Whoever reads these translates them, and gives all of them
/// again when they changed (`Handle::serve`).
#[derive(Debug, Clone)]
pub struct Dialect {
    /// Which program.
    pub name: &'static str,
    /// Its jobs now.
    pub given: Given,
    /// Completes the plan of one of these jobs for a run that begins now.
    pub complete: fn(&mut Plan, Timestamp),
    /// Another scheduler runs these jobs: here no run of them begins, and the ledger says where one would have.
    pub shadow: bool,
}

/// All jobs of another program's files.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The good ones, each with its file.
    pub jobs: Vec<(String, JobDef)>,
    /// Files that cannot be read: their jobs go on as they were.
    pub doubtful_files: BTreeSet<String>,
    /// Jobs that are wrong: likewise.
    pub doubtful: BTreeSet<JobName>,
    /// What is in maintenance, for these jobs.
    pub maintenance: Vec<Said>,
    /// There is a file of which it was never known what it says: no maintenance ends by it.
    pub doubtful_maintenance: bool,
}

/// Why the jobs cannot be taken up at a start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error("read jobs")]
    Store(#[from] fw_store::Error),
    /// The hub does not answer.
    #[error("ask for unfinished runs")]
    Hub(#[from] hub::Error),
}

/// How others reach the jobs. Clones ask the same task.
#[derive(Debug, Clone)]
pub struct Handle {
    queries: mpsc::Sender<Query>,
    changes: mpsc::Sender<Change>,
    store: Store,
    clock: Clock,
    maintenances: watch::Receiver<Arc<Maintenances>>,
    words: watch::Receiver<hold::Words>,
    parsing: Arc<Semaphore>,
}

type Reply<T> = oneshot::Sender<T>;

/// What changes nothing, and is answered even while the store cannot write.
#[derive(Debug)]
enum Query {
    List(Reply<Vec<api::Job>>),
    Show(JobName, Reply<Option<api::Job>>),
    Def(JobName, Reply<Option<Arc<JobDef>>>),
    Errors(Reply<Vec<SourceError>>),
}

/// What changes something; one after the other.
#[derive(Debug)]
enum Change {
    Apply { jobs: Vec<JobDef>, dry_run: bool, by: Actor, reply: Reply<Result<(), Problem>> },
    Delete(JobName, Reply<Result<(), Problem>>),
    Pause(JobName, bool, Reply<Result<(), Problem>>),
    Serve(Given, Reply<Result<Vec<JobName>, Problem>>),
    Run(JobName, Actor, Reply<Result<RunId, Problem>>),
    BeginMaintenance(Wanted, By, Reply<Result<StoredMaintenance, Problem>>),
    EndMaintenance(MaintenanceId, By, Reply<Result<StoredMaintenance, Problem>>),
}

/// Takes up the stored jobs and those of the directory, and starts the task that owns them. What
/// was missed while no server ran is counted afterwards, in the background.
///
/// # Errors
/// The store cannot be read, or the hub has stopped. A directory that cannot be read is no error:
/// the stored jobs go on, and it is reported.
pub async fn start(mut parts: Parts, tasks: &Tasks) -> Result<Handle, Error> {
    let (queries, asked) = mpsc::channel(INBOX);
    let (changes, wanted) = mpsc::channel(INBOX);
    let (store, clock) = (parts.store.clone(), parts.clock.clone());
    let inlets = owner::Inlets { queries: asked, changes: wanted, runs: parts.live.runs() };
    let served = parts.dialect.as_mut().map(|dialect| std::mem::take(&mut dialect.given));
    let mut owner = owner::Owner::load(parts).await?;
    // Nothing fires of what is in no file any more.
    owner.serve(served.unwrap_or_default()).await?;
    owner.rescan().await;
    let (maintenances, words) = (owner.maintenances.subscribe(), owner.words.subscribe());
    tasks.spawn("jobs", owner.run(inlets));
    let parsing = Arc::new(Semaphore::new(PARSED_AT_ONCE));
    Ok(Handle { queries, changes, store, clock, maintenances, words, parsing })
}

impl Handle {
    /// All jobs, by name.
    pub async fn list(&self) -> Vec<api::Job> {
        let mut jobs = self.ask(Query::List).await.unwrap_or_default();
        self.fill_last_runs(&mut jobs).await;
        jobs
    }

    /// A job.
    pub async fn show(&self, name: &JobName) -> Option<api::Job> {
        let mut job = [self.ask(|reply| Query::Show(name.clone(), reply)).await??];
        self.fill_last_runs(&mut job).await;
        let [job] = job;
        Some(job)
    }

    /// What is wrong with job files now.
    pub async fn errors(&self) -> Vec<SourceError> {
        self.ask(Query::Errors).await.unwrap_or_default()
    }

    /// A job as it is defined now.
    pub(crate) async fn def(&self, name: &JobName) -> Option<Arc<JobDef>> {
        self.ask(|reply| Query::Def(name.clone(), reply)).await?
    }

    /// What a text holds. Changes nothing.
    pub async fn check(&self, text: JobsText) -> CheckedJobs {
        self.checked(&self.read(text).await)
    }

    /// The good jobs of a text. Changes nothing.
    pub(crate) async fn read_defs(&self, text: &JobsText) -> Vec<JobDef> {
        self.read(text.clone()).await.jobs
    }

    /// Takes up the jobs of a text: all of them, or none when one is wrong. A dry run says what is
    /// wrong in its answer.
    ///
    /// # Errors
    /// [`Code::InvalidJob`], [`Code::OwnedByFile`], [`Code::Unavailable`].
    pub async fn apply(&self, text: JobsText, by: Actor) -> Result<CheckedJobs, Problem> {
        let dry_run = text.dry_run;
        let parsed = self.read(text).await;
        let checked = self.checked(&parsed);
        if !checked.errors.is_empty() && !dry_run {
            return Err(text::invalid(&checked.errors));
        }
        let jobs = parsed.jobs;
        self.change(|reply| Change::Apply { jobs, dry_run, by, reply }).await?;
        Ok(checked)
    }

    /// Forgets a job. Runs of it go on, its ledger stays.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::OwnedByFile`], [`Code::Unavailable`].
    pub async fn delete(&self, name: &JobName) -> Result<(), Problem> {
        self.change(|reply| Change::Delete(name.clone(), reply)).await
    }

    /// Takes up all jobs of the dialect, and forgets those that are not among them. Gives the names that
    /// jobs of others have already; those stay in force.
    ///
    /// # Errors
    /// [`Code::Unavailable`].
    pub(crate) async fn serve(&self, given: Given) -> Result<Vec<JobName>, Problem> {
        self.change(|reply| Change::Serve(given, reply)).await
    }

    /// Pauses a job or lets it go on; outlives reload and restart.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::Unavailable`].
    pub async fn pause(&self, name: &JobName, paused: bool) -> Result<(), Problem> {
        self.change(|reply| Change::Pause(name.clone(), paused, reply)).await
    }

    /// Begins a run of a job now, beside its schedule, also of one that is paused or disabled.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::Conflict`] when another scheduler runs it, [`Code::NoHosts`],
    /// [`Code::NoSecret`], [`Code::Unavailable`].
    pub async fn run_now(&self, name: &JobName, by: Actor) -> Result<RunId, Problem> {
        self.change(|reply| Change::Run(name.clone(), by, reply)).await
    }

    /// What is in maintenance; ask it of a time.
    #[must_use]
    pub fn held(&self) -> Arc<Maintenances> {
        Arc::clone(&self.maintenances.borrow())
    }

    /// The maintenances in force, the earliest first, as people are told of them. The store is not asked.
    #[must_use]
    pub fn in_force(&self) -> Vec<api::MaintenanceNow> {
        let (held, now) = (self.held(), self.clock.now());
        if held.in_force(now).next().is_none() {
            return Vec::new();
        }
        let words = self.words.borrow();
        held.in_force(now).filter_map(|(id, one)| hold::told(id, one, &words, now)).collect()
    }

    /// The maintenances that are not over, the earliest first, with what was said of them and by whom.
    ///
    /// # Errors
    /// What the store says.
    pub async fn maintenances(&self) -> Result<Vec<StoredMaintenance>, fw_store::Error> {
        let now = self.clock.now();
        let mut known = self.store.maintenances().await?;
        known.retain(|one| one.said.until.is_none_or(|until| now < until));
        Ok(known)
    }

    /// Switches a maintenance on, from now on. Runs that go on are left alone.
    ///
    /// # Errors
    /// [`Code::InvalidSelector`], [`Code::Conflict`] when there are too many, [`Code::Unavailable`].
    pub async fn begin_maintenance(
        &self,
        wanted: Wanted,
        by: By,
    ) -> Result<StoredMaintenance, Problem> {
        self.change(|reply| Change::BeginMaintenance(wanted, by, reply)).await
    }

    /// Switches a maintenance off.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::Conflict`] when it is over, [`Code::Unavailable`].
    pub async fn end_maintenance(
        &self,
        id: MaintenanceId,
        by: By,
    ) -> Result<StoredMaintenance, Problem> {
        self.change(|reply| Change::EndMaintenance(id, by, reply)).await
    }

    /// Reads a text away from the async threads: a large one takes a while.
    async fn read(&self, text: JobsText) -> fw_core::job::Parsed {
        // It is never closed. The permit goes with the work, which nobody who leaves can end.
        let permit = Arc::clone(&self.parsing).acquire_owned().await;
        let read = move || {
            let _permit = permit;
            text::read(text.name.as_deref().unwrap_or(UNNAMED), &text.text)
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
            let why = format!("it cannot be read: {error}; please report this");
            text::unreadable(UNNAMED, why)
        })
    }

    fn checked(&self, parsed: &fw_core::job::Parsed) -> CheckedJobs {
        let now = self.clock.now();
        let next = |job: &JobDef| job.next_run(now).filter(|_| job.spec.enabled);
        let jobs = parsed
            .jobs
            .iter()
            .map(|job| CheckedJob { name: job.name.clone(), next_fire: next(job) })
            .collect();
        CheckedJobs { jobs, errors: parsed.errors.clone() }
    }

    /// The history is the store's; a job is shown without it when it cannot be read.
    async fn fill_last_runs(&self, jobs: &mut [api::Job]) {
        let names = jobs.iter().map(|job| job.name.clone()).collect();
        match self.store.last_runs(names).await {
            Ok(mut last) => {
                for job in jobs {
                    let Some(run) = last.remove(&job.name) else { continue };
                    job.last_run = Some(run.id);
                    job.last_failed = run.state.is_final().then_some(run.state == RunState::Failed);
                }
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "last runs of jobs cannot be read");
            }
        }
    }

    /// `None` when the server is stopping.
    async fn ask<T>(&self, query: impl FnOnce(Reply<T>) -> Query) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(query(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn change<T>(
        &self,
        change: impl FnOnce(Reply<Result<T, Problem>>) -> Change,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.changes.send(change(reply)).await.ok()?;
            answer.await.ok()
        };
        let unavailable =
            |detail| Problem::new(Code::Unavailable, "jobs cannot be changed").detail(detail);
        match tokio::time::timeout(CHANGE_WITHIN, asked).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(unavailable("the server is stopping; try again when it is back")),
            Err(_) => Err(unavailable(
                "the store cannot write, see /readyz; the change waits and may still be made",
            )),
        }
    }
}
