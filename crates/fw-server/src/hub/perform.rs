//! Performs what is due once its events are committed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fw_core::hub::{Effect, Outgoing};
use fw_proto::api::EnvValue;
use fw_proto::frame::{Spec, Start};
use fw_proto::{HostId, RunId, TaskKey, Timestamp};
use tracing::{debug, info, warn};

use super::shell::Shell;

/// What a run's hosts are to start.
enum Prepared {
    /// This.
    Spec(Box<Spec>),
    /// Nothing: the secret of this name is gone.
    NoSecret(String),
    /// A secret could not be read now.
    NotNow,
    /// Nothing: the run has ended.
    Over,
}

impl Shell {
    pub(super) async fn perform(&mut self, effects: Vec<Effect>) {
        let mut outgoing = Outgoing::default();
        let mut specs: BTreeMap<RunId, Prepared> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Start { host, key, .. } if !self.hub.wants(host, key) => {
                    debug!(host.id = %host, run.id = %key.run, "the task was ruled on before its start was sent");
                }
                Effect::Start { host, key, not_after } => {
                    let prepared = match specs.entry(key.run) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => new.insert(self.prepare(key.run).await),
                    };
                    let start = self.start(host, key, not_after, prepared);
                    if let Some(start) = start {
                        outgoing.start(host, start);
                        if self.hub.is_cancelled(key.run, host) {
                            outgoing.cancel(host, key);
                        }
                    }
                }
                Effect::Cancel { host, key } => outgoing.cancel(host, key),
                Effect::Query { host, key } => outgoing.query(host, key),
                // Whoever asked for the end meanwhile has the last word.
                Effect::Keep { host, key } if self.hub.is_cancelled(key.run, host) => {
                    outgoing.cancel(host, key);
                }
                Effect::Keep { host, key } => outgoing.keep(host, key),
                Effect::Settle { host, key } => outgoing.settle(host, key),
                Effect::Late { host, report } => self.late.note(host, report),
                Effect::Ended { run, state } => info!(run.id = %run, "run {}", state.as_str()),
            }
        }
        outgoing.frames().for_each(|(host, frame)| self.links.send(host, frame));
    }

    /// The start of one task, unless something is in its way.
    fn start(
        &mut self,
        host: HostId,
        key: TaskKey,
        not_after: Timestamp,
        prepared: &Prepared,
    ) -> Option<Start> {
        match prepared {
            Prepared::Spec(spec) => {
                let (incarnation, epoch) =
                    (self.parts.store.incarnation(), self.parts.store.epoch());
                if !spec.secrets.is_empty() {
                    self.hub.sent_secrets(host, key.run);
                }
                Some(Start { key, not_after, incarnation, epoch, spec: Spec::clone(spec) })
            }
            Prepared::NoSecret(name) => {
                warn!(run.id = %key.run, secret = name, "a secret that a run needs is gone");
                self.hub.no_secret(host, key.run, self.parts.clock.now());
                None
            }
            Prepared::NotNow => {
                self.postponed.push(Effect::Start { host, key, not_after });
                None
            }
            Prepared::Over => None,
        }
    }

    /// What a run's hosts are to start, with the values of its secrets.
    async fn prepare(&self, run: RunId) -> Prepared {
        let Some(exec) = self.hub.run(run).map(|run| run.plan.exec.clone()) else {
            return Prepared::Over;
        };
        let mut secrets = BTreeMap::new();
        for (variable, value) in &exec.env {
            let EnvValue::Secret(name) = value else { continue };
            match self.parts.secrets.get(&self.parts.store, name).await {
                Ok(Some(value)) => secrets.insert(variable.clone(), value),
                Ok(None) => return Prepared::NoSecret(name.clone()),
                Err(error) => {
                    warn!(secret = name, "secret cannot be read now, trying again: {error}");
                    return Prepared::NotNow;
                }
            };
        }
        Prepared::Spec(Box::new(exec.spec(secrets, self.parts.spool_bytes)))
    }
}
