//! Notices: tells the world when a job's run fails, and when the job recovers.
//!
//! Two tasks. One hears of ends of runs and puts notices into the store's outbox; the other sends
//! what is due there until it was taken, for about a day.
//!
//! **Once.** The outbox holds one notice for each run and hook, however often it is put, and keeps
//! it after it was sent. So whatever may have been missed (a crash between a run's end and its
//! notice, a follower that fell behind) is made good by looking at all runs that ended lately once
//! more: at a start, since shortly before the server was last known alive. Sending can happen twice,
//! when the server dies between the answer and noting it: the run's id in the body tells.

mod command;
mod send;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fw_core::job::JobDef;
use fw_proto::api::{Hook, RunState, RunSummary};
use fw_proto::{JobName, RunId, Span, Timestamp};
use fw_rt::{Clock, Tasks};
use fw_store::{NewNotice, RunQuery, Store};
use tokio::sync::{Notify, broadcast};
use tracing::warn;

use self::send::{Sender, client};
use super::jobs;
use crate::live::{Live, RunChange};
use crate::problem::Chain;
use crate::state::App;

/// The store is tried again after this pause.
const RETRY: Duration = Duration::from_secs(1);

/// The alive mark is set each minute; a run that ended this long before it was surely heard of.
const MARGIN: Span = Span::from_secs(2 * 60);

/// Runs looked at for the one before: of a job with so many at a time, those before are no matter.
const LOOK_BACK: u32 = 100;

/// What notices need.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where runs are read and the outbox is.
    pub store: Store,
    /// Where ends of runs are heard.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// Who knows the hooks.
    pub jobs: jobs::Handle,
}

impl Parts {
    /// What notices need of a server.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self {
            store: app.store.clone(),
            live: app.live.clone(),
            clock: app.clock.clone(),
            jobs: app.jobs.clone(),
        }
    }
}

/// Why notices cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error("read when the server was last alive")]
    Store(#[from] fw_store::Error),
    /// TLS cannot be set up.
    #[error("set up webhooks")]
    Client(#[from] reqwest::Error),
}

/// Starts both tasks. To be called before the alive mark of this server is set (see
/// [`super::upkeep::start`]): it tells what may have been missed.
///
/// # Errors
/// The store cannot be read, or no TLS is to be had.
pub async fn start(parts: Parts, tasks: &Tasks) -> Result<(), Error> {
    let runs = parts.live.runs();
    let alive = parts.store.last_alive().await?;
    let put = Arc::new(Notify::new());
    let sender =
        Sender { store: parts.store.clone(), clock: parts.clock.clone(), client: client()? };
    tasks.spawn("notices.send", sender.run(Arc::clone(&put)));
    tasks.spawn("notices.put", Writer { parts, put }.run(runs, alive));
    Ok(())
}

/// Puts notices into the outbox.
struct Writer {
    parts: Parts,
    put: Arc<Notify>,
}

impl Writer {
    async fn run(self, mut runs: broadcast::Receiver<Arc<RunChange>>, alive: Option<Timestamp>) {
        // Before the first start nothing can have been missed.
        if let Some(alive) = alive {
            self.catch_up(alive).await;
        }
        let mut heard_at = self.parts.clock.now();
        loop {
            match runs.recv().await {
                Ok(change) => {
                    let run = &change.summary;
                    if run.state.is_final() && run.job.is_some() {
                        self.insist(run).await;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up(heard_at).await,
                Err(broadcast::error::RecvError::Closed) => return,
            }
            heard_at = self.parts.clock.now();
        }
    }

    /// Looks at all runs that ended since shortly before `since`.
    async fn catch_up(&self, since: Timestamp) {
        let runs = loop {
            match self.parts.store.job_runs_ended(since - MARGIN).await {
                Ok(runs) => break runs,
                Err(error) => wait(&error).await,
            }
        };
        for run in &runs {
            self.insist(run).await;
        }
    }

    async fn insist(&self, run: &RunSummary) {
        while let Err(error) = self.put(run).await {
            wait(&error).await;
        }
    }

    /// Puts what is to be said of a run that ended into the outbox.
    async fn put(&self, run: &RunSummary) -> Result<(), fw_store::Error> {
        let Some(name) = &run.job else { return Ok(()) };
        // A job that is gone has nobody to tell.
        let Some(job) = self.parts.jobs.def(name).await else { return Ok(()) };
        let store = &self.parts.store;
        let (hooks, tell) = match run.state {
            RunState::Failed => {
                let hooks = &job.spec.on_failure;
                (hooks, !hooks.is_empty() && !store.is_tried_again(name, run.id).await?)
            }
            RunState::Succeeded => {
                let hooks = &job.spec.on_recovery;
                (hooks, !hooks.is_empty() && self.failed_before(name, run).await?)
            }
            RunState::Cancelled | RunState::Planned | RunState::Running | RunState::Cancelling => {
                return Ok(());
            }
        };
        if tell {
            put_all(store, self.parts.clock.now(), name, run.id, hooks).await?;
            self.put.notify_one();
        }
        Ok(())
    }

    /// Whether the run of the job that ended before this one had failed. Cancelled ones say nothing,
    /// nor those that are tried again.
    async fn failed_before(
        &self,
        name: &JobName,
        run: &RunSummary,
    ) -> Result<bool, fw_store::Error> {
        let query = RunQuery { limit: LOOK_BACK, job: Some(name.clone()), ..RunQuery::default() };
        let runs = self.parts.store.runs(query).await?.items;
        let waiting = self.parts.store.retries().await?;
        let mut again: BTreeSet<_> = runs.iter().filter_map(|run| run.retry_of).collect();
        again.extend(waiting.into_iter().map(|retry| retry.run));
        let before = runs
            .into_iter()
            .filter(|other| !again.contains(&other.id))
            .filter(|other| matches!(other.state, RunState::Failed | RunState::Succeeded))
            .filter(|other| other.id != run.id && other.finished_at <= run.finished_at);
        let last = before.max_by_key(|other| (other.finished_at, other.created_at));
        Ok(last.is_some_and(|last| last.state == RunState::Failed))
    }
}

/// Puts what is to be said of a run that failed, and is not tried again after all, into the outbox;
/// it is sent within a second.
///
/// # Errors
/// What the store says.
pub(super) async fn put_failure(
    store: &Store,
    now: Timestamp,
    job: &JobDef,
    run: RunId,
) -> Result<(), fw_store::Error> {
    put_all(store, now, &job.name, run, &job.spec.on_failure).await
}

async fn put_all(
    store: &Store,
    now: Timestamp,
    job: &JobName,
    run: RunId,
    hooks: &[Hook],
) -> Result<(), fw_store::Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let Some(whole) = store.run(run).await? else { return Ok(()) };
    let body =
        serde_json::to_string(&whole).expect("a run has only texts, numbers and maps by text");
    for hook in hooks {
        let (hook, body) = (hook.clone(), body.clone());
        store.put_notice(NewNotice { run, job: job.clone(), hook, body, next_at: now }).await?;
    }
    Ok(())
}

async fn wait(error: &fw_store::Error) {
    warn!(error = %Chain(error), "notices wait for the store");
    tokio::time::sleep(RETRY).await;
}
