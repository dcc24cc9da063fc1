//! Does what is decided: journal first, then supervisors, then words to the server.
//!
//! A disk may take seconds. So the journal is written and supervisors are started off the
//! agent's own thread, one job of each kind at a time; what comes up meanwhile is the next job's,
//! and shares its sync of the disk.

use std::path::Path;
use std::sync::Arc;

use fw_core::agent::Effect;
use fw_proto::TaskKey;
use fw_proto::frame::{Refusal, RefusalReason, Spec};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, info, warn};

use super::{Agent, chain};
use crate::identity::boot_id;
use crate::journal::{self, Journal, Record};
use crate::policy;
use crate::spool::{SpawnError, Spool};

/// The most records of one entry in the journal: far within its bound.
const RECORDS: usize = 4096;

/// What happens off the agent's own thread.
pub(super) type Job<T> = Option<JoinHandle<T>>;

/// What a job gives; never while there is none. Cancel-safe.
pub(super) async fn done<T>(job: &mut Job<T>) -> T {
    let Some(running) = job else { return std::future::pending().await };
    let done = running.await;
    *job = None;
    match done.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is going down, and this with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// The journal back from a write.
pub(super) struct Written {
    journal: Journal,
    records: Vec<Record>,
    result: Result<(), journal::Error>,
}

/// A supervisor that is to be started.
pub(super) enum Due {
    /// One that starts the command of this.
    Start(Box<Spec>),
    /// One that undoes an armed change.
    Undo,
}

/// The variable that says to a command which host it runs on: where several agents are on one machine, nothing
/// else tells them apart, and what a rollout keeps for one host must not be taken for another's.
const HOST_ID: &str = "FLEETWRIGHT_HOST_ID";

/// What became of starts.
pub(super) type Begun = Vec<(TaskKey, Result<(), Refusal>)>;

impl Agent {
    /// Does what was decided, or notes it for the next job.
    pub(super) fn perform(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(frame) => self.send(&frame),
                Effect::Journal { key, not_after } => {
                    self.records.push(Record::Accepted { key, not_after, boot_id: boot_id() });
                }
                Effect::Epoch(epoch) => self.records.push(Record::Epoch(epoch)),
                Effect::Forget(key) => self.records.push(Record::Settled { key }),
                Effect::Spawn { key, spec } => self.starts.push((key, Due::Start(spec))),
                Effect::Undo(key) => self.undo(key),
                Effect::Kill(key) => self.kill(key),
                Effect::Keep(key) => self.keep(key),
                Effect::Trim(ack) => {
                    if let Err(error) = self.spool.trim(ack.key, ack.durable) {
                        debug!(task.key = %ack.key, "spool was not trimmed: {error}");
                    }
                }
                Effect::Welcomed(welcome) => self.welcomed(&welcome),
                Effect::Denied { denied, pause } => self.denied(&denied, pause),
                Effect::Pin(keys) => self.pin(keys),
                Effect::Rekeyed(key) => self.rekeyed(key),
                Effect::Close => self.drop_link(),
            }
        }
    }

    /// Begins to write what waits for the journal. Nothing starts, and nothing is forgotten,
    /// before [`Agent::written`].
    pub(super) fn write_ahead(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let Some(mut journal) = self.journal.take() else { return };
        self.records.append(&mut self.owed);
        let records: Vec<_> = self.records.drain(..self.records.len().min(RECORDS)).collect();
        let now = self.clock.now();
        self.writing = Some(spawn_blocking(move || {
            let result = journal.append(&records, now);
            Written { journal, records, result }
        }));
    }

    /// The journal was written, or could not be.
    pub(super) fn written(&mut self, written: Written) {
        let Written { journal, records, result } = written;
        self.journal = Some(journal);
        let effects = match result {
            Ok(()) => {
                self.unwritable = false;
                records.into_iter().flat_map(|record| self.remembered(&record)).collect()
            }
            Err(error) => self.unwritten(records, &error),
        };
        self.perform(effects);
    }

    /// A record is on the disk.
    fn remembered(&mut self, record: &Record) -> Vec<Effect> {
        match record {
            Record::Accepted { key, .. } => self.core.journaled(*key),
            Record::Settled { key } => {
                self.forget(*key);
                Vec::new()
            }
            Record::Epoch(_) | Record::Began(_) => Vec::new(),
        }
    }

    /// Refuses tasks whose ids could not be written. What else could not be is tried again: the
    /// table has forgotten it, and a spool must not stay for that.
    fn unwritten(&mut self, records: Vec<Record>, error: &journal::Error) -> Vec<Effect> {
        let why = chain(error);
        if !std::mem::replace(&mut self.unwritable, true) {
            warn!("journal cannot be written, so tasks are refused: {why}");
        }
        let refusal = Refusal { reason: RefusalReason::Disk, message: why };
        let now = self.now();
        let mut effects = Vec::new();
        for record in records {
            match record {
                Record::Accepted { key, .. } => {
                    effects.extend(self.core.refused(key, refusal.clone(), now));
                }
                Record::Settled { .. } | Record::Epoch(_) => self.owed.push(record),
                Record::Began(_) => {}
            }
        }
        effects
    }

    fn forget(&mut self, key: TaskKey) {
        self.readers.remove(&key);
        self.unseen.remove(&key);
        if let Err(error) = self.spool.remove(key)
            && self.leftovers.insert(key)
        {
            warn!(task.key = %key, "spool could not be removed: {error}");
        }
    }

    /// Tries again what a disk did not take before.
    pub(super) fn catch_up(&mut self) {
        self.records.append(&mut self.owed);
        let spool = &self.spool;
        self.leftovers.retain(|key| spool.remove(*key).is_err());
    }

    /// Begins to start what may start.
    pub(super) fn start_due(&mut self) {
        if self.starts.is_empty() || self.starting.is_some() {
            return;
        }
        let starts = std::mem::take(&mut self.starts);
        let (spool, policy) = (Arc::clone(&self.spool), self.options.policy.clone());
        let own_user = self.own_user.clone();
        let host = self.identity.host.to_string();
        let begin = move |(key, due): (TaskKey, Due)| {
            let result = match due {
                Due::Start(mut spec) => {
                    spec.env.entry(HOST_ID.to_owned()).or_insert_with(|| host.clone());
                    begin(&spool, policy.as_deref(), &own_user, key, &spec)
                }
                Due::Undo => {
                    begin_undo(&spool, key);
                    Ok(())
                }
            };
            (key, result)
        };
        self.starting = Some(spawn_blocking(move || starts.into_iter().map(begin).collect()));
    }

    /// Starts were made or refused.
    pub(super) fn begun(&mut self, begun: Begun) {
        let now = self.now();
        let mut effects = Vec::new();
        for (key, result) in begun {
            self.undoing.remove(&key);
            if let Err(refusal) = result {
                effects.extend(self.core.refused(key, refusal, now));
            }
        }
        self.perform(effects);
    }

    fn kill(&mut self, key: TaskKey) {
        if self.spool.cancel(key).unwrap_or(false) {
            self.core.told_to_end(key);
        }
    }

    fn keep(&mut self, key: TaskKey) {
        if self.spool.keep(key).unwrap_or(false) {
            self.core.told_to_keep(key);
        }
    }

    fn undo(&mut self, key: TaskKey) {
        if self.undoing.insert(key) {
            self.starts.push((key, Due::Undo));
        }
    }

    /// Waits for the jobs that write to the disk, so that whoever comes next finds it at rest.
    pub(super) async fn finish(&mut self) {
        if self.writing.is_some() {
            done(&mut self.writing).await;
        }
        if self.starting.is_some() {
            done(&mut self.starting).await;
        }
    }
}

/// Asks the policy, then starts a supervisor.
fn begin(
    spool: &Spool,
    policy: Option<&Path>,
    own_user: &str,
    key: TaskKey,
    spec: &Spec,
) -> Result<(), Refusal> {
    policy::load(policy).policy.check(spec, own_user).inspect_err(|refusal| {
        info!(task.key = %key, "task refused by the local policy: {}", refusal.message);
    })?;
    match spool.spawn(key, spec) {
        Ok(()) | Err(SpawnError::Exists(_)) => {
            info!(task.key = %key, "task started");
            Ok(())
        }
        Err(error) => {
            warn!(task.key = %key, "task could not be started: {}", chain(&error));
            error.refusal().map_or(Ok(()), Err)
        }
    }
}

/// Starts a supervisor that undoes a change. Should that fail, the next look finds the change abandoned
/// still, and it is tried again.
fn begin_undo(spool: &Spool, key: TaskKey) {
    match spool.undo(key) {
        Ok(()) => warn!(
            task.key = %key,
            "the supervisor of an armed change is gone; another undoes the change, unless it was kept"
        ),
        Err(error) => {
            warn!(task.key = %key, "an armed change cannot be undone yet: {}", chain(&error));
        }
    }
}
