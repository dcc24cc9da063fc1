//! The agent: one task that owns what the host decides, the journal, the spool and the connection.
//!
//! It turns what happens into calls of the pure [`fw_core::agent::Agent`] and does what that says.
//! Supervisors outlive it; after a crash it reads journal and spool and goes on. What may wait
//! for a disk is done beside it, so that the server's pings are answered whatever the disk does.

mod link;
mod perform;
mod ship;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fw_core::agent::{self as core, Effect, Now};
use fw_core::tasks::Found;
use fw_proto::frame::{self, Refusal, RefusalReason};
use fw_proto::{Span, TaskKey, Timestamp};
use fw_rt::{Clock, Tasks};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::connect;
use crate::dial::{self, Dialer, Event, OUTBOX, Redial};
use crate::identity;
use crate::identity::{Identity, StateDir, boot_id};
use crate::journal::{self, Journal, Record};
use crate::policy;
use crate::spool::{self, Reader, Spool};
use crate::status::Status;
use crate::supervise::os::{self, Who};

pub(crate) use link::hello;
use perform::{Begun, Due, Job, Written, done};
use ship::Seen;

/// How often supervisors are looked at, beside the bell they ring.
const LOOK: Duration = Duration::from_secs(1);

/// By then all that only a start needs has been.
const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// How often mapped pages of the program are given back: a hundred are needed again, in less than a millisecond.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10 * 60);

/// How often the status file is written when nothing changes.
const STATUS_EVERY: Duration = Duration::from_secs(30);

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's key, journal and spool.
    pub state_dir: PathBuf,
    /// Custom facts; where they usually are when `None`.
    pub facts_dir: Option<PathBuf>,
    /// The local policy; where it usually is when `None`.
    pub policy: Option<PathBuf>,
    /// Tasks at once.
    pub max_tasks: usize,
    /// The most that one task may leave unsent on the disk.
    pub spool_bytes: u64,
    /// Proxy to dial through: `http://HOST:PORT`.
    pub proxy: Option<String>,
    /// Another binary for supervisors; this one when `None`.
    pub supervisor: Option<PathBuf>,
}

/// Why an agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory is of no use.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The journal is of no use.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The spool is of no use.
    #[error("open the spool")]
    Spool(#[source] std::io::Error),
    /// The host has not joined a fleet.
    #[error(
        "this host has not joined a fleet: run `fleetwright agent join` with a join string from `fleetwright hosts invite`"
    )]
    NotJoined,
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The server refuses.
    #[error("the server refuses this host: {message}")]
    Denied {
        /// For programs.
        reason: frame::DeniedReason,
        /// For people: what to do.
        message: String,
    },
    /// The server has no time for this host now; later it may.
    #[error("the server is busy: try again in {retry_after}")]
    Busy {
        /// Not to be asked sooner.
        retry_after: Span,
    },
    /// The server speaks differently.
    #[error("the server broke the protocol: {0}")]
    Malformed(#[from] frame::Malformed),
    /// No randomness.
    #[error("make a key")]
    Key(#[source] fw_rt::noise::Error),
}

/// Runs the agent of an enrolled host until the token is cancelled.
///
/// # Errors
/// Its state cannot be used, or it has not joined.
pub async fn run(options: Options, clock: Clock, tasks: &Tasks) -> Result<(), Error> {
    let mut agent = Agent::open(options, clock)?;
    let (events, inbox) = mpsc::channel(OUTBOX);
    let token = tasks.token();
    tasks.spawn(
        "agent-facts",
        dial::gather(
            agent.identity.host.to_string(),
            agent.options.facts_dir.clone(),
            events.clone(),
        ),
    );
    tasks.spawn("agent-dialer", agent.dialer().run(events));
    tasks.spawn("agent-memory", keep_small());
    agent.run(inbox, &token).await;
    Ok(())
}

/// Gives back, when all is started and then now and again, what of the program was needed and is mapped still.
async fn keep_small() {
    tokio::time::sleep(STARTED_WITHIN).await;
    let mut again = tokio::time::interval(GIVE_BACK_EVERY);
    loop {
        again.tick().await;
        os::give_back_program();
    }
}

struct Agent {
    options: Options,
    clock: Clock,
    state_dir: StateDir,
    identity: Identity,
    core: core::Agent,
    spool: Arc<Spool>,
    /// Away while it is written.
    journal: Option<Journal>,
    /// What the journal's next write takes.
    records: Vec<Record>,
    /// What the last one could not take and the next must.
    owed: Vec<Record>,
    /// The last write went wrong.
    unwritable: bool,
    writing: Job<Written>,
    /// May be started: their ids are on the disk.
    starts: Vec<(TaskKey, Due)>,
    /// Armed changes for which a supervisor is being started that undoes them.
    undoing: BTreeSet<TaskKey>,
    starting: Job<Begun>,
    /// Where frames for the server go, while there is a connection.
    outbox: Option<mpsc::Sender<Vec<u8>>>,
    /// How long a server that refuses wants to be left alone.
    pause: Duration,
    /// Why the server refused, until the link is down: that is then why.
    refused: Option<String>,
    readers: BTreeMap<TaskKey, Reader>,
    shipping: Job<Seen>,
    /// Tasks whose state could not be read, which was said.
    unseen: BTreeSet<TaskKey>,
    /// Settled tasks whose spool could not be removed.
    leftovers: BTreeSet<TaskKey>,
    own_user: String,
    status: Status,
    redial: watch::Sender<Redial>,
}

impl Agent {
    fn open(options: Options, clock: Clock) -> Result<Self, Error> {
        let state_dir = StateDir::open(&options.state_dir)?;
        let identity = state_dir.identity()?.ok_or(Error::NotJoined)?;
        let now = clock.now();
        let journal = Journal::open(&options.state_dir, now)?;
        let spool = Spool::open(&options.state_dir).map_err(Error::Spool)?;
        let spool = match options.supervisor.clone() {
            Some(binary) => spool.with_supervisor(binary),
            None => spool,
        };
        let core = core::Agent::new(options.max_tasks, options.spool_bytes, journal.epoch());
        let redial = Redial { keys: identity.server_keys.clone(), dropped: 0 };
        let status = Status::new(&identity, now);
        let mut agent = Self {
            options,
            clock,
            state_dir,
            identity,
            core,
            spool: Arc::new(spool),
            journal: Some(journal),
            records: Vec::new(),
            owed: Vec::new(),
            unwritable: false,
            writing: None,
            starts: Vec::new(),
            undoing: BTreeSet::new(),
            starting: None,
            outbox: None,
            pause: Duration::ZERO,
            refused: None,
            readers: BTreeMap::new(),
            shipping: None,
            unseen: BTreeSet::new(),
            leftovers: BTreeSet::new(),
            own_user: own_user(),
            status,
            redial: watch::Sender::new(redial),
        };
        agent.recover(now);
        Ok(agent)
    }

    /// Takes up what a former agent left: journal and spool say what ran.
    fn recover(&mut self, now: Timestamp) {
        let boot = boot_id();
        let (mut keep, mut never_started) = (BTreeSet::new(), Vec::new());
        for (key, memory) in self.journal.iter().flat_map(Journal::tasks) {
            if memory.settled {
                self.core.remember(key, memory.not_after);
                continue;
            }
            let same_boot = is_same_boot(&memory.boot_id, &boot);
            let found = match self.spool.state(key) {
                Ok(found) => known(found),
                Err(error) => {
                    warn!(task.key = %key, "spool cannot be read: {error}");
                    // It may pass; but no supervisor outlives its boot, unless another is due for it.
                    let waits = same_boot || self.spool.may_be_armed(key);
                    if waits { Found::Running(None) } else { Found::Dead(now) }
                }
            };
            info!(task.key = %key, "task found after a restart: {}", found.describe());
            if matches!(found, Found::Dead(_)) {
                self.spool.end_rest(key);
            }
            if self.core.recover(key, memory.not_after, found, same_boot) {
                keep.insert(key);
            } else {
                never_started.push(key);
            }
        }
        if let Some(journal) = &mut self.journal {
            never_started.into_iter().for_each(|key| journal.never_started(key));
        }
        let spools = self.spool.list().inspect_err(|error| warn!("spool cannot be read: {error}"));
        for key in spools.unwrap_or_default().into_iter().filter(|key| !keep.contains(key)) {
            if let Err(error) = self.spool.remove(key) {
                warn!(task.key = %key, "spool could not be removed: {error}");
            }
        }
    }

    fn dialer(&self) -> Dialer {
        Dialer {
            server: self.identity.server.clone(),
            proxy: self.options.proxy.clone(),
            state_dir: self.state_dir.clone(),
            redial: self.redial.subscribe(),
        }
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<Event>, token: &CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut report = tokio::time::interval(STATUS_EVERY);
        let mut bell =
            self.spool.wake().inspect_err(|error| warn!("supervisors cannot ring: {error}")).ok();
        info!(host.name = %self.identity.name, "agent runs, for {}", self.identity.server);
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                Some(event) = inbox.recv() => self.event(event),
                keys = ring(&mut bell) => self.rung(&keys),
                _ = look.tick() => self.look(),
                _ = report.tick() => self.write_status(),
                written = done(&mut self.writing) => self.written(written),
                begun = done(&mut self.starting) => self.begun(begun),
                seen = done(&mut self.shipping) => self.shipped(seen),
            }
            self.write_ahead();
            self.start_due();
            self.ship();
        }
        self.finish().await;
        self.status.linked_since = None;
        self.write_status();
    }

    /// Supervisors have news of these.
    fn rung(&mut self, keys: &BTreeSet<TaskKey>) {
        self.look_at(keys);
        self.core.has_output(keys.iter().copied());
    }

    fn look(&mut self) {
        let keys: BTreeSet<_> = self.core.supervised().collect();
        self.look_at(&keys);
        self.spool.reap();
        self.catch_up();
        self.rekey();
        let effects = self.core.tick(self.now());
        self.perform(effects);
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), steady: self.clock.steady() }
    }

    /// Looks whether tasks have started or ended.
    fn look_at(&mut self, keys: &BTreeSet<TaskKey>) {
        let now = self.now();
        let supervised: BTreeSet<_> = self.core.supervised().collect();
        let mut effects = Vec::new();
        for key in keys.intersection(&supervised).copied() {
            match self.spool.state(key) {
                Ok(found) => {
                    self.unseen.remove(&key);
                    effects.extend(self.seen(key, found, now));
                }
                Err(error) if self.unseen.insert(key) => {
                    warn!(task.key = %key, "spool cannot be read: {error}");
                }
                Err(_) => {}
            }
        }
        self.perform(effects);
    }

    fn seen(&mut self, key: TaskKey, found: spool::Found, now: Now) -> Vec<Effect> {
        match found {
            spool::Found::Running { started_at } => self.core.started(key, started_at),
            spool::Found::Applied(applied) => self.core.applied(key, applied),
            spool::Found::Abandoned { .. } if self.undoing.contains(&key) => Vec::new(),
            spool::Found::Abandoned { started_at } => self.core.abandoned(key, started_at),
            spool::Found::Ended(ended) => self.core.ended(key, ended, now),
            spool::Found::Refused(refusal) => self.core.refused(key, refusal, now),
            spool::Found::Dead { started_at } => {
                self.spool.end_rest(key);
                self.core.died(key, started_at, now)
            }
            spool::Found::NotStarted => {
                let message = "its supervisor ended before it started the command".to_owned();
                let refusal = Refusal { reason: RefusalReason::Spawn, message };
                self.core.refused(key, refusal, now)
            }
            spool::Found::Missing | spool::Found::Starting => Vec::new(),
        }
    }

    fn write_status(&mut self) {
        let (running, queued) = self.core.load();
        self.status.running = running;
        self.status.queued = queued;
        self.status.policy = policy::load(self.options.policy.as_deref()).describe();
        self.status.name.clone_from(&self.identity.name);
        self.status.at = self.clock.now();
        if let Err(error) = self.status.write(&self.options.state_dir) {
            debug!("status could not be written: {error}");
        }
    }
}

/// The user that commands run as when nobody says otherwise.
fn own_user() -> String {
    let uid = rustix::process::getuid().as_raw();
    let account = os::account(Who::Uid(uid)).ok().flatten();
    account.map_or_else(|| uid.to_string(), |account| account.name)
}

/// Whether the machine has not been down since that boot; where there are no ids, nobody knows.
fn is_same_boot(then: &str, now: &str) -> bool {
    !now.is_empty() && then == now
}

fn known(found: spool::Found) -> Found {
    match found {
        spool::Found::Missing | spool::Found::NotStarted => Found::NotStarted,
        spool::Found::Starting => Found::Running(None),
        spool::Found::Running { started_at } => Found::Running(Some(started_at)),
        spool::Found::Applied(applied) => Found::Applied(applied),
        spool::Found::Abandoned { started_at } => Found::Abandoned(started_at),
        spool::Found::Ended(ended) => Found::Ended(Box::new(ended)),
        spool::Found::Refused(refusal) => Found::Refused(refusal),
        spool::Found::Dead { started_at } => Found::Dead(started_at),
    }
}

async fn ring(bell: &mut Option<spool::Wake>) -> BTreeSet<TaskKey> {
    let Some(open) = bell else { return std::future::pending().await };
    match open.next().await {
        Ok(keys) => keys,
        Err(error) => {
            warn!("supervisors cannot ring: {error}");
            *bell = None;
            BTreeSet::new()
        }
    }
}

/// An error and all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source()).fold(
        error.to_string(),
        |text, cause| {
            let cause = cause.to_string();
            // Some libraries say their cause themselves.
            if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
        },
    )
}

#[cfg(test)]
mod tests;
