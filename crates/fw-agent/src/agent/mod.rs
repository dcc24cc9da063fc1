//! The agent: one task that owns the table of tasks, the journal, the spool and the link.
//!
//! It turns what happens into calls of the pure [`Table`] and [`Link`] and does what they say.
//! Supervisors outlive it; after a crash it reads journal and spool and goes on.

mod perform;
mod ship;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fw_core::link::agent::{Link, Output};
use fw_core::tasks::{Effect, Found, Table};
use fw_proto::frame::{
    self, Decoded, Denied, Facts, FromAgent, FromServer, Hello, PolicyMode, Refusal, RefusalReason,
    Start, Welcome,
};
use fw_proto::{PublicKey, Span, TaskKey, Timestamp};
use fw_rt::noise::Keypair;
use fw_rt::{Clock, Tasks};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::connect;
use crate::dial::{self, Dialer, Event, OUTBOX, Redial};
use crate::identity;
use crate::identity::{Identity, StateDir, boot_id};
use crate::journal::{self, Journal};
use crate::policy;
use crate::spool::{self, Reader, Spool};
use crate::status::Status;
use crate::supervise::os::{self, Who};

/// How often supervisors are looked at, beside the bell they ring.
const LOOK: Duration = Duration::from_secs(1);

/// How often the status file is written when nothing changes.
const STATUS_EVERY: Duration = Duration::from_secs(30);

/// A clock that is off by more is worth a warning.
const SKEW: Span = Span::from_secs(60);

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
    #[error("the server refuses this host: {0}")]
    Denied(String),
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
    agent.run(inbox, &token).await;
    Ok(())
}

struct Agent {
    options: Options,
    clock: Clock,
    state_dir: StateDir,
    identity: Identity,
    table: Table,
    spool: Arc<Spool>,
    journal: Journal,
    link: Option<(Link, mpsc::Sender<Vec<u8>>)>,
    readers: BTreeMap<TaskKey, Reader>,
    /// Tasks to be ended whose supervisor has not been told yet.
    kills: BTreeSet<TaskKey>,
    own_user: String,
    /// The key that this link's server was asked to record.
    rekeying: Option<PublicKey>,
    facts: String,
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
        let table = Table::new(options.max_tasks, journal.epoch());
        let redial = Redial { keys: identity.server_keys.clone(), refused: false, dropped: 0 };
        let status = Status::new(&identity, now);
        let mut agent = Self {
            options,
            clock,
            state_dir,
            identity,
            table,
            spool: Arc::new(spool),
            journal,
            link: None,
            readers: BTreeMap::new(),
            kills: BTreeSet::new(),
            own_user: own_user(),
            rekeying: None,
            facts: String::new(),
            status,
            redial: watch::Sender::new(redial),
        };
        agent.recover()?;
        Ok(agent)
    }

    /// Takes up what a former agent left: journal and spool say what ran.
    fn recover(&mut self) -> Result<(), Error> {
        let boot = boot_id();
        let mut keep = BTreeSet::new();
        for (key, memory) in self.journal.tasks() {
            if memory.settled {
                self.table.remember(key, memory.not_after);
                continue;
            }
            let found = found(self.spool.state(key).map_err(Error::Spool)?);
            info!(task.key = %key, "task found after a restart: {}", found.describe());
            let same_boot = *memory.boot_id == *boot;
            // What was never started is not kept: the server asks again, and then it may start.
            if self.table.recover(key, memory.not_after, found, same_boot) != [Effect::Forget(key)]
            {
                keep.insert(key);
            }
        }
        for key in self.spool.list().map_err(Error::Spool)? {
            if !keep.contains(&key)
                && let Err(error) = self.spool.remove(key)
            {
                warn!(task.key = %key, "spool could not be removed: {error}");
            }
        }
        Ok(())
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
                Some(event) = inbox.recv() => self.event(event).await,
                keys = ring(&mut bell) => self.look_at(keys).await,
                _ = look.tick() => self.look().await,
                _ = report.tick() => self.write_status(),
            }
            self.ship();
        }
        self.status.linked_since = None;
        self.write_status();
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Up(outbox) => self.greet(outbox),
            Event::Frame(bytes) => self.frame(&bytes).await,
            Event::Facts(json) => self.tell_facts(json),
            Event::Down(why) => {
                if self.link.take().is_some() {
                    warn!("link to the server is down: {why}");
                } else {
                    debug!("no link to the server: {why}");
                }
                self.status.down(why);
                self.write_status();
            }
        }
    }

    fn greet(&mut self, outbox: mpsc::Sender<Vec<u8>>) {
        let policy = policy::load(self.options.policy.as_deref());
        let hello = hello(&self.state_dir, &self.table, policy.policy.mode);
        let (link, greeting) = Link::open(hello, None, self.clock.now());
        self.readers.clear();
        self.rekeying = None;
        self.link = Some((link, outbox));
        self.send(&greeting);
    }

    async fn frame(&mut self, bytes: &[u8]) {
        let frame = match frame::decode::<FromServer>(bytes) {
            Ok(Decoded::Frame(frame)) => frame,
            Ok(Decoded::Unknown) => return debug!("a frame of a later version was skipped"),
            Err(error) => {
                warn!("the server broke the protocol: {error}");
                return self.drop_link();
            }
        };
        let now = self.clock.now();
        let Some((link, _)) = &mut self.link else { return };
        for output in link.frame(frame, now) {
            self.output(output, now).await;
        }
    }

    async fn output(&mut self, output: Output, now: Timestamp) {
        let effects: Vec<Effect> = match output {
            Output::Send(frame) => return self.send(&frame),
            Output::Welcomed(welcome) => return self.welcomed(&welcome, now),
            Output::Denied(denied) => return self.denied(&denied),
            Output::Start(starts) => starts
                .into_iter()
                .flat_map(|start| self.table.start(bounded(start, self.options.spool_bytes), now))
                .collect(),
            Output::Cancel(keys) => {
                keys.into_iter().flat_map(|key| self.table.cancel(key, now)).collect()
            }
            Output::Query(keys) => {
                keys.into_iter().map(|key| Effect::Report(self.table.query(key))).collect()
            }
            Output::Settled(keys) => {
                keys.into_iter().filter_map(|key| self.table.settled(key)).collect()
            }
            Output::Durable(ack) => {
                if let Err(error) = self.spool.trim(ack.key, ack.durable) {
                    debug!(task.key = %ack.key, "spool was not trimmed: {error}");
                }
                return;
            }
            Output::Pin(keys) => return self.pin(keys),
            Output::Rekeyed(key) => return self.rekeyed(key),
            Output::Close => return self.drop_link(),
        };
        self.perform(effects).await;
    }

    fn welcomed(&mut self, welcome: &Welcome, now: Timestamp) {
        let skew = now.since(welcome.now).as_millis().max(welcome.now.since(now).as_millis());
        if skew > SKEW.as_millis() {
            warn!(
                "this host's clock and the server's are {} apart: starts may be refused as late",
                Span::from_millis(skew)
            );
        }
        info!(host.name = %welcome.name, "linked to {}", self.identity.server);
        self.status.up(now, skew);
        self.redial.send_modify(|redial| redial.refused = false);
        if welcome.name != self.identity.name || welcome.host != self.identity.host {
            self.identity.name = welcome.name.clone();
            self.identity.host = welcome.host;
            self.keep_identity();
        }
        if !self.facts.is_empty() {
            self.send(&FromAgent::Facts(Facts { json: self.facts.clone() }));
        }
        self.write_status();
    }

    fn denied(&mut self, denied: &Denied) {
        warn!("the server refuses this host: {}", denied.message);
        self.status.down(denied.message.clone());
        let for_good = match denied.reason {
            frame::DeniedReason::Busy | frame::DeniedReason::Superseded => false,
            frame::DeniedReason::UnknownKey
            | frame::DeniedReason::Revoked
            | frame::DeniedReason::Duplicate
            | frame::DeniedReason::Invitation
            | frame::DeniedReason::NameTaken
            | frame::DeniedReason::NameInvalid
            | frame::DeniedReason::Protocol
            | frame::DeniedReason::Malformed => true,
        };
        // The server may have recorded the next key just before the link was lost.
        let retry = denied.reason == frame::DeniedReason::UnknownKey && self.next_key().is_some();
        if retry {
            self.promote_next_key();
        }
        self.redial.send_modify(|redial| redial.refused = for_good && !retry);
    }

    fn pin(&mut self, keys: Vec<PublicKey>) {
        if keys.is_empty() || keys == self.identity.server_keys {
            return;
        }
        info!("the server has {} keys now", keys.len());
        self.identity.server_keys.clone_from(&keys);
        self.keep_identity();
        self.redial.send_modify(|redial| redial.keys = keys);
    }

    /// Asks for the next key to be recorded, once a link.
    fn rekey(&mut self) {
        let live = self.link.as_ref().is_some_and(|(link, _)| link.is_live());
        if let (true, None, Some(next)) = (live, self.rekeying, self.next_key()) {
            self.rekeying = Some(next);
            self.send(&FromAgent::Rekey(next));
        }
    }

    fn next_key(&self) -> Option<PublicKey> {
        let next = self.state_dir.next_key().inspect_err(|error| warn!("{}", chain(error)));
        next.ok().flatten().map(|private| Keypair::from_private(private).public)
    }

    fn rekeyed(&mut self, key: PublicKey) {
        if self.next_key() == Some(key) {
            self.promote_next_key();
            self.drop_link();
        }
    }

    fn promote_next_key(&self) {
        match self.state_dir.promote_next_key() {
            Ok(()) => info!("this host has a new key"),
            Err(error) => warn!("the new key could not be taken up: {}", chain(&error)),
        }
    }

    fn keep_identity(&self) {
        if let Err(error) = self.state_dir.set_identity(&self.identity) {
            warn!("identity could not be kept: {error}");
        }
    }

    async fn look(&mut self) {
        let now = self.clock.now();
        let keys: BTreeSet<_> = self.table.supervised().collect();
        self.look_at(keys).await;
        self.kill();
        self.spool.reap();
        self.rekey();
        let effects = self.table.expire(now);
        self.perform(effects).await;
        let Some((link, _)) = &mut self.link else { return };
        for output in link.tick(now) {
            self.output(output, now).await;
        }
    }

    /// Looks whether tasks have started or ended.
    async fn look_at(&mut self, keys: BTreeSet<TaskKey>) {
        let now = self.clock.now();
        let supervised: BTreeSet<_> = self.table.supervised().collect();
        let mut effects = Vec::new();
        for key in keys.intersection(&supervised).copied() {
            match self.spool.state(key) {
                Ok(spool::Found::Running { started_at }) => {
                    effects.extend(self.table.started(key, started_at));
                }
                Ok(spool::Found::Ended(ended)) => effects.extend(self.table.ended(key, ended, now)),
                Ok(spool::Found::Refused(refusal)) => {
                    effects.extend(self.table.refused(key, refusal, now));
                }
                Ok(spool::Found::Dead { .. }) => effects.extend(self.table.died(key, now)),
                Ok(spool::Found::NotStarted) => {
                    let message = "its supervisor ended before it started the command".to_owned();
                    effects.extend(self.table.refused(
                        key,
                        Refusal { reason: RefusalReason::Spawn, message },
                        now,
                    ));
                }
                Ok(spool::Found::Missing | spool::Found::Starting) => {}
                Err(error) => warn!(task.key = %key, "spool cannot be read: {error}"),
            }
        }
        self.perform(effects).await;
    }

    /// Keeps facts that have changed, and tells them.
    fn tell_facts(&mut self, json: String) {
        if json != self.facts {
            self.facts = json;
            self.send(&FromAgent::Facts(Facts { json: self.facts.clone() }));
        }
    }

    fn send(&mut self, frame: &FromAgent<'_>) {
        let Some((link, outbox)) = &self.link else { return };
        let greeting = matches!(frame, FromAgent::Hello(_) | FromAgent::Pong(_));
        if !link.is_live() && !greeting {
            return;
        }
        if outbox.try_send(frame::encode(frame)).is_err() {
            warn!("the server takes no frames; linking anew");
            self.drop_link();
        }
    }

    fn drop_link(&mut self) {
        self.link = None;
        self.redial.send_modify(|redial| redial.dropped += 1);
    }

    fn write_status(&mut self) {
        let (running, queued) = self.table.load();
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

fn found(found: spool::Found) -> Found {
    match found {
        spool::Found::Missing | spool::Found::NotStarted => Found::NotStarted,
        spool::Found::Starting => Found::Running(None),
        spool::Found::Running { started_at } => Found::Running(Some(started_at)),
        spool::Found::Ended(ended) => Found::Ended(Box::new(ended)),
        spool::Found::Refused(refusal) => Found::Refused(refusal),
        spool::Found::Dead { .. } => Found::Dead,
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

fn bounded(mut start: Start, spool_bytes: u64) -> Start {
    start.spec.spool_bytes = start.spec.spool_bytes.min(spool_bytes);
    start
}

/// Tells this process from another one that holds the same key.
fn instance() -> &'static str {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    INSTANCE.get_or_init(|| Uuid::now_v7().to_string())
}

pub(crate) fn hello(state_dir: &StateDir, table: &Table, policy: PolicyMode) -> Hello {
    Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: (*fw_proto::PROTOCOL.start(), *fw_proto::PROTOCOL.end()),
        machine_id: state_dir.machine_id().unwrap_or_default(),
        boot_id: boot_id(),
        tasks: table.digest(),
        policy,
        epoch: table.epoch(),
        instance: instance().to_owned(),
    }
}

/// An error and all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
