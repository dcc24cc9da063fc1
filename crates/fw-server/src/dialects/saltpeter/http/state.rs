//! What is asked for: which runs there are and how each job's last one went.
//!
//! It is looked up when someone asks and it is not fresh, so that nobody costs nothing, and many cost as
//! much as one. All of it comes from hub and store: a restart forgets nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use fw_proto::api::{Run, RunSummary};
use fw_proto::{JobName, RunId};
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{Mutex, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::json::Json;
use super::super::names;
use super::super::served::{Served, Watch};
use super::view;
use crate::hub;
use crate::live::RunChange;
use crate::state::App;

/// What was looked up counts for so long, however many ask.
const FRESH: Duration = Duration::from_millis(900);

/// Why it cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read runs")]
    Store(#[from] fw_store::Error),
    #[error("ask for runs that go on")]
    Hub(#[from] hub::Error),
}

/// What routes and sockets share. Clones are the same.
#[derive(Clone)]
pub(crate) struct State {
    pub(super) app: App,
    pub(super) served: Watch,
    /// Ends with the server.
    pub(super) end: CancellationToken,
    token: Option<[u8; 32]>,
    seen: Arc<Mutex<Seen>>,
    timeline: Arc<std::sync::Mutex<Option<Json>>>,
}

struct Seen {
    last: Option<(Instant, Arc<Snapshot>)>,
    runs: broadcast::Receiver<Arc<RunChange>>,
}

/// What there was at one moment.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// The directory.
    pub(super) served: Arc<Served>,
    /// The last run of each job, by Saltpeter's name.
    pub(super) last: BTreeMap<String, RunSummary>,
    /// The runs that go on, each with the name of its job; the oldest first.
    pub(super) running: Vec<(String, Run)>,
    /// The message `status`, written once for all who follow.
    pub(super) status: OnceLock<Utf8Bytes>,
}

impl State {
    pub(super) fn new(
        app: App,
        served: Watch,
        token: Option<&str>,
        end: CancellationToken,
    ) -> Self {
        let runs = app.live.runs();
        let digest = |token: &str| <[u8; 32]>::from(Sha256::digest(token));
        Self {
            app,
            served,
            end,
            token: token.map(digest),
            seen: Arc::new(Mutex::new(Seen { last: None, runs })),
            timeline: Arc::default(),
        }
    }

    pub(super) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.borrow())
    }

    /// Whether this is the token, or none is asked for. Digests are compared, so that time tells nothing.
    pub(super) fn admits(&self, given: Option<&str>) -> bool {
        let Some(token) = self.token else { return true };
        given.is_some_and(|given| <[u8; 32]>::from(Sha256::digest(given)) == token)
    }

    /// The answer to the last question for a timeline, whoever asked.
    pub(super) fn last_timeline(&self) -> Json {
        let timeline = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        timeline.clone().unwrap_or_else(|| Json::Map(Vec::new()))
    }

    pub(super) fn set_timeline(&self, timeline: Json) {
        *self.timeline.lock().unwrap_or_else(PoisonError::into_inner) = Some(timeline);
    }

    /// What there is now. A change of a run shows at once to who wants it `at_once`, else a moment later.
    pub(super) async fn now(&self, at_once: bool) -> Result<Arc<Snapshot>, Error> {
        let mut seen = self.seen.lock().await;
        let served = self.served();
        if let Some((at, last)) = &seen.last
            && Arc::ptr_eq(&last.served, &served)
            && (!at_once && at.elapsed() < FRESH)
        {
            return Ok(Arc::clone(last));
        }
        let changed = seen.changed();
        if let (false, Some((at, last))) = (changed, &mut seen.last)
            && Arc::ptr_eq(&last.served, &served)
        {
            *at = Instant::now();
            return Ok(Arc::clone(last));
        }
        // A change that was heard of is not forgotten when the look fails.
        seen.last = None;
        let snapshot = Arc::new(self.look(served).await?);
        seen.last = Some((Instant::now(), Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    async fn look(&self, served: Arc<Served>) -> Result<Snapshot, Error> {
        let names: Vec<JobName> = served.by_job.keys().cloned().collect();
        let original = |name: &JobName| served.by_job.get(name).cloned();
        let mut last = BTreeMap::new();
        for (job, summary) in self.app.store.last_runs(names).await? {
            last.extend(original(&job).map(|name| (name, summary)));
        }
        let mut running = Vec::new();
        for (id, job) in self.app.hub.active().await? {
            let Some(name) = job.as_ref().and_then(original) else { continue };
            // It may have ended just now.
            running.extend(self.app.hub.run(id).await?.map(|run| (name, run)));
        }
        running.sort_by_key(|(_, run)| (run.summary.created_at, run.summary.id));
        Ok(Snapshot { served, last, running, status: OnceLock::new() })
    }

    /// A run with its tasks, whether it goes on or has ended.
    pub(super) async fn run(&self, id: RunId) -> Result<Option<Run>, Error> {
        match self.app.hub.run(id).await? {
            Some(run) => Ok(Some(run)),
            None => Ok(self.app.store.run(id).await?),
        }
    }

    /// Whether the job's latest fire was skipped because an earlier run went on.
    pub(super) async fn overlapped(&self, job: &str) -> Result<bool, Error> {
        let page = self.app.store.ledger(&names::job_name(job), None, 1).await?;
        let overlap = Some(fw_proto::api::FireReason::Overlap);
        Ok(page.items.first().is_some_and(|fire| fire.reason == overlap && fire.run_id.is_none()))
    }
}

impl Snapshot {
    /// The message `status`.
    pub(super) fn status(&self) -> Utf8Bytes {
        self.status.get_or_init(|| view::status(self).to_string().into()).clone()
    }
}

impl Seen {
    /// Whether a run may have changed since this was last asked.
    fn changed(&mut self) -> bool {
        let mut changed = false;
        loop {
            match self.runs.try_recv() {
                Ok(_) | Err(TryRecvError::Lagged(_)) => changed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return changed,
            }
        }
    }
}
