//! What `agent status` shows: a file that the agent keeps up to date.

use std::fs;
use std::io;
use std::path::Path;

use fw_proto::{HostId, HostName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::supervise;

/// The file, in the state directory.
const FILE: &str = "status.json";

/// An agent's state, as it last wrote it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The host's name.
    pub name: HostName,
    /// Its id.
    pub host: HostId,
    /// The server it belongs to.
    pub server: String,
    /// The agent's process.
    pub pid: u32,
    /// Version of its build.
    pub version: String,
    /// When the agent started.
    pub started_at: Timestamp,
    /// Since when it is linked; `null` while it is not.
    pub linked_since: Option<Timestamp>,
    /// Why it is not, or was not last.
    pub last_error: Option<String>,
    /// How far this host's clock and the server's were apart, milliseconds.
    pub clock_skew_ms: u64,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that wait for a slot.
    pub queued: usize,
    /// What the local policy allows, and why.
    pub policy: String,
    /// How everything that belongs to a task is found when it is to be ended.
    pub containment: String,
    /// When this was written.
    pub at: Timestamp,
}

impl Status {
    pub(crate) fn new(identity: &Identity, now: Timestamp) -> Self {
        Self {
            name: identity.name.clone(),
            host: identity.host,
            server: identity.server.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: now,
            linked_since: None,
            last_error: None,
            clock_skew_ms: 0,
            running: 0,
            queued: 0,
            policy: String::new(),
            containment: supervise::containment().to_string(),
            at: now,
        }
    }

    pub(crate) fn up(&mut self, now: Timestamp, skew_ms: u64) {
        self.linked_since = Some(now);
        self.clock_skew_ms = skew_ms;
    }

    pub(crate) fn down(&mut self, why: String) {
        self.linked_since = None;
        self.last_error = Some(why);
    }

    pub(crate) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let passing = state_dir.join(".status.json");
        fs::write(&passing, serde_json::to_vec_pretty(self)?)?;
        fs::rename(passing, state_dir.join(FILE))
    }

    /// What the agent of this state directory last said; `None` when none ever ran.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(state_dir.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
