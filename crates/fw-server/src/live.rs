//! What changes now: hints for those who follow.
//!
//! A follower that falls behind is told so by its channel and reads the present state anew;
//! a lost hint costs latency, never correctness.

use std::sync::Arc;

use fw_proto::{ChangeId, HostId, JobName, RunId, Timestamp, api};
use tokio::sync::broadcast;

/// Hints that a slow follower may lag behind before it must read anew: a second of a busy fleet.
const KEPT: usize = 4096;

/// Where followers listen. Clones are the same.
#[derive(Debug, Clone)]
pub struct Live {
    runs: broadcast::Sender<Arc<RunChange>>,
    logs: broadcast::Sender<LogChange>,
    hosts: broadcast::Sender<HostId>,
    fires: broadcast::Sender<JobName>,
    changes: broadcast::Sender<ChangeId>,
}

/// A run has changed, and the change is committed.
#[derive(Debug, Clone)]
pub struct RunChange {
    /// The run now.
    pub summary: api::RunSummary,
    /// Its tasks that changed.
    pub tasks: Vec<api::Task>,
    /// How many events it has.
    pub seq: u64,
    /// When it failed and is tried again: when.
    pub retry_at: Option<Timestamp>,
}

/// More output of a task is durable.
#[derive(Debug, Clone, Copy)]
pub struct LogChange {
    /// Of which run.
    pub run: RunId,
    /// On which host.
    pub host: HostId,
    /// Which attempt.
    pub attempt: u16,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            runs: broadcast::channel(KEPT).0,
            logs: broadcast::channel(KEPT).0,
            hosts: broadcast::channel(KEPT).0,
            fires: broadcast::channel(KEPT).0,
            changes: broadcast::channel(KEPT).0,
        }
    }
}

impl Live {
    /// Changes of runs.
    #[must_use]
    pub fn runs(&self) -> broadcast::Receiver<Arc<RunChange>> {
        self.runs.subscribe()
    }

    /// New output.
    #[must_use]
    pub fn logs(&self) -> broadcast::Receiver<LogChange> {
        self.logs.subscribe()
    }

    /// Changes of a host's state, facts or labels.
    #[must_use]
    pub fn hosts(&self) -> broadcast::Receiver<HostId> {
        self.hosts.subscribe()
    }

    /// Jobs of which a fire got its verdict without a run.
    #[must_use]
    pub fn fires(&self) -> broadcast::Receiver<JobName> {
        self.fires.subscribe()
    }

    /// Rollouts and runbooks of which an event was committed.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<ChangeId> {
        self.changes.subscribe()
    }

    /// Tells followers of a rollout's or runbook's change.
    pub fn change_changed(&self, change: ChangeId) {
        tell(&self.changes, change);
    }

    /// Tells followers of a run's change.
    pub fn run_changed(&self, change: RunChange) {
        tell(&self.runs, Arc::new(change));
    }

    /// Tells followers of new output.
    pub fn log_grew(&self, change: LogChange) {
        tell(&self.logs, change);
    }

    /// Tells followers of a host's change.
    pub fn host_changed(&self, host: HostId) {
        tell(&self.hosts, host);
    }

    /// Tells followers of a verdict without a run.
    pub fn fired(&self, job: JobName) {
        tell(&self.fires, job);
    }
}

fn tell<T>(to: &broadcast::Sender<T>, what: T) {
    // Nobody listening is the normal case.
    drop(to.send(what));
}
