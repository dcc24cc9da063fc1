//! What handlers and drivers share. Everything in it is a handle; clones are the same server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fw_proto::Timestamp;
use fw_rt::{Clock, Tasks};
use fw_store::Store;

use crate::feed::Feed;
use crate::gateway::admit::Admission;
use crate::lines::Lines;
use crate::live::Live;
use crate::problem::Chain;
use crate::{Config, auth, drive, hub, keys, metrics, secrets};

/// The server, as its parts see it.
#[derive(Debug, Clone)]
pub struct App {
    /// What is remembered.
    pub store: Store,
    /// Who decides about runs and knows who is linked.
    pub hub: hub::Handle,
    /// What changes now.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// Where tasks are spawned.
    pub tasks: Tasks,
    /// How this server is set up.
    pub config: Arc<Config>,
    /// Encrypts and decrypts secrets.
    pub secrets: secrets::Vault,
    /// The jobs and their schedules.
    pub jobs: drive::jobs::Handle,
    /// The rollouts and runbooks on their way.
    pub changes: drive::changes::Handle,
    /// The keys that hosts know this server by.
    pub keys: keys::ServerKeys,
    /// What browsers follow.
    pub feed: Feed,
    /// Lines of the logs that are looked at.
    pub lines: Lines,
    /// Who may use the API.
    pub auth: auth::Guard,
    /// Who may link, by address.
    pub(crate) admission: Admission,
    /// What is counted.
    pub metrics: metrics::Metrics,
    /// Why the server cannot do all its work.
    pub health: Health,
    /// When it started.
    pub started_at: Timestamp,
}

/// What is wrong now, by topic, in plain words; `/readyz` shows it. Drivers report here, and take
/// back what is over.
#[derive(Debug, Clone, Default)]
pub struct Health {
    reasons: Arc<Mutex<BTreeMap<&'static str, String>>>,
    probed: Arc<tokio::sync::Mutex<Option<Probed>>>,
}

/// When it was last tried to write, and what went wrong.
#[derive(Debug)]
struct Probed {
    at: tokio::time::Instant,
    wrong: Option<String>,
}

/// A store that has not written by then will not soon: probes ask every few seconds.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// Anyone may ask whether the server is ready, so that it costs a write at most this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);

impl Health {
    /// Something is wrong; replaces what the same topic said before.
    pub fn report(&self, topic: &'static str, reason: impl Into<String>) {
        self.lock().insert(topic, reason.into());
    }

    /// It is over.
    pub fn clear(&self, topic: &'static str) {
        self.lock().remove(topic);
    }

    /// All that is wrong.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    /// Whether the store can write: `None`, or what is wrong. It is tried by noting that the server is alive.
    pub(crate) async fn cannot_write(&self, store: &Store, clock: &Clock) -> Option<String> {
        let mut probed = self.probed.lock().await;
        if let Some(Probed { at, wrong }) = &*probed
            && at.elapsed() < PROBE_EVERY
        {
            return wrong.clone();
        }
        let wrong = match tokio::time::timeout(WRITE_WITHIN, store.touch_alive(clock.now())).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("store cannot write: {}", Chain(&error))),
            Err(_) => Some(format!("store has not written for {WRITE_WITHIN:?}")),
        };
        *probed = Some(Probed { at: tokio::time::Instant::now(), wrong: wrong.clone() });
        wrong
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        // Each change is one insert or remove, so a panic elsewhere leaves nothing half done.
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
