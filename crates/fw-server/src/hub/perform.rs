//! Performs what is due once its events are committed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fw_core::hub::Effect;
use fw_proto::api::EnvValue;
use fw_proto::frame::{FromServer, Spec, Start};
use fw_proto::{HostId, RunId, TaskKey, Timestamp};
use tracing::{info, warn};

use super::shell::Shell;
use crate::gateway::spec::spec;

/// Frames for hosts, in the order in which each host gets them: a cancel never before its start.
#[derive(Default)]
struct Outgoing {
    starts: BTreeMap<HostId, Vec<Start>>,
    others: Vec<(HostId, FromServer)>,
    settled: BTreeMap<HostId, Vec<TaskKey>>,
}

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
                Effect::Start { host, key, not_after } => {
                    let prepared = match specs.entry(key.run) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => new.insert(self.prepare(key.run).await),
                    };
                    let start = self.start(host, key, not_after, prepared);
                    start.into_iter().for_each(|start| {
                        outgoing.starts.entry(host).or_default().push(start);
                    });
                }
                Effect::Cancel { host, key } => {
                    outgoing.others.push((host, FromServer::Cancel(vec![key])));
                }
                Effect::Query { host, key } => {
                    outgoing.others.push((host, FromServer::Query(vec![key])));
                }
                Effect::Settle { host, key } => outgoing.settled.entry(host).or_default().push(key),
                Effect::Late { host, report } => self.late.note(host, report),
                Effect::Ended { run, state } => info!(run.id = %run, "run {}", state.as_str()),
            }
        }
        self.send(outgoing);
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

    fn send(&mut self, outgoing: Outgoing) {
        for (host, starts) in outgoing.starts {
            for part in batches(starts) {
                self.links.send(host, FromServer::Start(part));
            }
        }
        for (host, frame) in outgoing.others {
            self.links.send(host, frame);
        }
        for (host, keys) in outgoing.settled {
            self.links.send(host, FromServer::Settled(keys));
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
        Prepared::Spec(Box::new(spec(&exec, secrets, self.parts.spool_bytes)))
    }
}

/// Starts for one host in frames of a bounded size.
fn batches(starts: Vec<Start>) -> Vec<Vec<Start>> {
    if starts.len() == 1 {
        return vec![starts];
    }
    let mut batches: Vec<Vec<Start>> = Vec::new();
    let mut size = 0;
    for start in starts {
        let bytes = fw_proto::frame::encode(&start).len();
        if size + bytes > fw_proto::frame::MAX_FRAME / 2 || batches.is_empty() {
            batches.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(batch) = batches.last_mut() {
            batch.push(start);
        }
    }
    batches
}
