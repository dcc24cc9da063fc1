//! Does what the table of tasks says: journal first, then supervisors, then words to the server.

use std::sync::Arc;

use fw_core::tasks::Effect;
use fw_proto::TaskKey;
use fw_proto::frame::{FromAgent, Refusal, RefusalReason, Spec};
use tracing::{info, warn};

use super::{Agent, chain};
use crate::identity::boot_id;
use crate::journal::{self, Record};
use crate::policy;
use crate::spool::SpawnError;

impl Agent {
    /// Does what the table says, and what follows from that.
    pub(super) async fn perform(&mut self, effects: Vec<Effect>) {
        let mut todo = effects;
        while !todo.is_empty() {
            todo = self.round(todo).await;
        }
    }

    /// Journal records of one round share one sync of the disk, and nothing starts before it.
    async fn round(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let (mut next, mut records) = (Vec::new(), Vec::new());
        let (mut accepted, mut settled) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Journal { key, not_after } => {
                    records.push(Record::Accepted { key, not_after, boot_id: boot_id() });
                    accepted.push(key);
                }
                Effect::Epoch(epoch) => records.push(Record::Epoch(epoch)),
                Effect::Forget(key) => {
                    records.push(Record::Settled { key });
                    settled.push(key);
                }
                Effect::Spawn { key, spec } => next.extend(self.spawn(key, *spec).await),
                Effect::Kill(key) => {
                    self.kills.insert(key);
                    self.kill();
                }
                Effect::Report(report) => self.send(&FromAgent::Reports(vec![report])),
                Effect::Ship(_) => {}
            }
        }
        match self.journal.append(&records, self.clock.now()) {
            Ok(()) => {
                settled.into_iter().for_each(|key| self.forget(key));
                next.extend(accepted.into_iter().filter_map(|key| self.table.journaled(key)));
            }
            // What is settled keeps its spool: after a restart the server settles it again.
            Err(error) => next.extend(self.refuse(accepted, &error)),
        }
        next
    }

    /// Refuses tasks whose ids could not be written.
    fn refuse(&mut self, keys: Vec<TaskKey>, error: &journal::Error) -> Vec<Effect> {
        let why = chain(error);
        warn!("journal cannot be written, so tasks are refused: {why}");
        let refusal = Refusal { reason: RefusalReason::Disk, message: why };
        let now = self.clock.now();
        let refused = |key| self.table.refused(key, refusal.clone(), now);
        keys.into_iter().flat_map(refused).collect()
    }

    fn forget(&mut self, key: TaskKey) {
        self.readers.remove(&key);
        self.kills.remove(&key);
        if let Err(error) = self.spool.remove(key) {
            warn!(task.key = %key, "spool could not be removed: {error}");
        }
    }

    /// Asks the policy, then starts a supervisor.
    async fn spawn(&mut self, key: TaskKey, spec: Spec) -> Vec<Effect> {
        let now = self.clock.now();
        if let Err(refusal) =
            policy::load(self.options.policy.as_deref()).policy.check(&spec, &self.own_user)
        {
            info!(task.key = %key, "task refused by the local policy: {}", refusal.message);
            return self.table.refused(key, refusal, now);
        }
        let spool = Arc::clone(&self.spool);
        let spawned = tokio::task::spawn_blocking(move || spool.spawn(key, &spec)).await;
        match spawned {
            Ok(Ok(()) | Err(SpawnError::Exists(_))) => {
                info!(task.key = %key, "task started");
                Vec::new()
            }
            Ok(Err(error)) => {
                warn!(task.key = %key, "task could not be started: {}", chain(&error));
                error
                    .refusal()
                    .map(|refusal| self.table.refused(key, refusal, now))
                    .unwrap_or_default()
            }
            Err(_) => self.table.died(key, now),
        }
    }

    pub(super) fn kill(&mut self) {
        let spool = &self.spool;
        self.kills.retain(|key| !spool.cancel(*key).unwrap_or(false));
    }
}
