//! Thousands of simulated agents in one process: the real link, the real handshake and the real
//! decisions of an agent, but no commands, and the spool in memory.
//!
//! The process says on stdout, a line of JSON at a time, how it stands, and ends when its stdin is closed: the
//! benchmark that started it is gone then.

mod agent;
pub(crate) mod spool;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use fw_agent::facts::{self, Sources};
use fw_proto::{Join, Timestamp};
use fw_rt::{Clock, Tasks};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use self::agent::Agent;
use self::spool::Outputs;

/// How often the process says how it stands.
const SAY_EVERY: Duration = Duration::from_millis(50);

/// Agents that dial at once for the first time. Later they come back when they like, as agents do.
const DIALLING: usize = 256;

/// Agents that share an address. A server limits what one address may do, and in a real fleet
/// most hosts have one of their own.
const PER_ADDRESS: u32 = 64;

/// How the swarm stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Agents that are linked.
    pub(crate) linked: u32,
    /// Times that a server has refused one for good.
    pub(crate) refused: u32,
    /// When the first one dialled.
    pub(crate) first_dial: Option<Timestamp>,
    /// Since when all are linked.
    pub(crate) all_since: Option<Timestamp>,
}

/// How many are linked, and since when all are.
#[derive(Debug, Clone, Copy, Default)]
struct Linked {
    count: u32,
    all_since: Option<Timestamp>,
}

/// What the agents of a swarm share.
#[derive(Debug)]
pub(crate) struct Swarm {
    count: u32,
    join: Join,
    prefix: String,
    outputs: Outputs,
    /// This machine's, as each agent would tell its own.
    facts: serde_json::Map<String, serde_json::Value>,
    clock: Clock,
    linked: Mutex<Linked>,
    refused: AtomicU32,
    /// Milliseconds since the epoch; 0 for not yet.
    first_dial: AtomicI64,
    first_time: Semaphore,
}

impl Swarm {
    fn dials(&self) {
        let now = self.clock.now().as_millis();
        // Only the first counts.
        self.first_dial.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    fn up(&self) {
        let mut linked = self.linked();
        linked.count += 1;
        linked.all_since = (linked.count == self.count).then(|| self.clock.now());
    }

    fn down(&self) {
        let mut linked = self.linked();
        linked.count -= 1;
        linked.all_since = None;
    }

    fn linked(&self) -> MutexGuard<'_, Linked> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Status {
        let first_dial = self.first_dial.load(Ordering::Relaxed);
        let Linked { count, all_since } = *self.linked();
        Status {
            linked: count,
            refused: self.refused.load(Ordering::Relaxed),
            first_dial: (first_dial != 0).then(|| Timestamp::from_millis(first_dial)),
            all_since,
        }
    }
}

/// Runs so many agents called `prefix` and a number until stdin is closed.
///
/// # Errors
/// Nobody reads how it stands.
pub(crate) async fn run(count: u32, join: Join, prefix: String) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let swarm = Arc::new(Swarm {
        count,
        join,
        prefix,
        outputs: Outputs::default(),
        facts: facts().await?,
        clock: Clock::system(),
        linked: Mutex::default(),
        refused: AtomicU32::new(0),
        first_dial: AtomicI64::new(0),
        first_time: Semaphore::new(DIALLING),
    });
    for number in 0..count {
        let agent = Agent::new(Arc::clone(&swarm), number)?;
        tasks.spawn("simulated-agent", agent.run());
    }
    let said = tokio::select! {
        said = say(&swarm) => said,
        () = closed() => Ok(()),
    };
    tasks.cancel();
    said
}

async fn say(swarm: &Swarm) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(SAY_EVERY);
    let mut out = tokio::io::stdout();
    loop {
        every.tick().await;
        let mut line = serde_json::to_vec(&swarm.status()).context("write the status")?;
        line.push(b'\n');
        out.write_all(&line).await.context("say the status")?;
        out.flush().await.context("say the status")?;
    }
}

async fn closed() {
    let mut nothing = [0; 64];
    let mut stdin = tokio::io::stdin();
    while matches!(stdin.read(&mut nothing).await, Ok(read) if read > 0) {}
}

/// What a real agent on this machine would say of it.
async fn facts() -> anyhow::Result<serde_json::Map<String, serde_json::Value>> {
    let sources = Sources { id: String::new(), roles: Vec::new(), dir: None };
    let gathered = tokio::task::spawn_blocking(move || facts::gather(&sources)).await;
    Ok(gathered.context("gather facts")?.facts)
}

/// The loopback address that an agent dials from: 127.1.0.1 and up (RFC 1122 §3.2.1.3).
fn address(number: u32) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    IpAddr::V4(Ipv4Addr::from(base + number / PER_ADDRESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_on_loopback() {
        assert_eq!(address(0).to_string(), "127.1.0.1");
        assert_eq!(address(20_000).to_string(), "127.1.1.57");
        assert!(address(1_000_000).is_loopback());
    }
}
