//! A minion of Salt as a host: the one task that owns what runs on it.
//!
//! To the hub it is a host like any other: it links, takes starts and tells what became of them. In place of
//! an agent there is this task, `salt` that starts wrappers, and what they say. What an agent keeps in its
//! journal is in the store already: a task that is reported as queued may have been started, one
//! that is not was not; see [`super::starter`].

mod held;
mod link;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fw_proto::frame::{DeniedReason, FromServer, Report, Reported};
use fw_proto::record::Offsets;
use fw_proto::{HostId, HostName, RunId, Span, TaskKey, Timestamp};
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::link::Link;
use super::super::machines::door::{Say, ToWire};
use super::super::machines::message::{Message, Reply, Said};
use super::super::machines::stranger;
use super::super::machines::talk::{Now, Talk, Wire};
use super::starter::{self, Claim};
use crate::state::App;

/// What waits for a minion; connections wait when it is full.
pub(super) const INBOX: usize = 64;

/// What a minion is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A wrapper said something. An inbox makes room for 32 events at once, so a box keeps a minion small.
    Said(Box<Word>),
    /// A connection that spoke of this run is gone.
    Gone {
        /// Which.
        wire: Wire,
        /// Of which run.
        run: RunId,
    },
    /// Salt is about to be called for this run.
    Called(RunId),
    /// Salt could not start the wrapper.
    Failed(RunId, String),
    /// It answered a ping; the version of its Salt.
    Here(Arc<str>),
    /// It did not.
    Away,
    /// An agent of ours wants to take its place.
    Retire,
}

/// What a wrapper said.
#[derive(Debug)]
pub(crate) struct Word {
    /// On which connection.
    pub(crate) wire: Wire,
    /// How to answer.
    pub(crate) say: ToWire,
    /// Of which run.
    pub(crate) run: RunId,
    /// What.
    pub(crate) message: Message,
}

/// Who owns the tasks of which machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Minions {
    by_name: BTreeMap<String, HostId>,
    inboxes: BTreeMap<HostId, mpsc::Sender<Event>>,
}

impl Minions {
    /// The owner of what runs on the machine that a wrapper names so.
    pub(crate) fn of(&self, machine: &str) -> Option<(HostId, &mpsc::Sender<Event>)> {
        let host = *self.by_name.get(machine)?;
        Some((host, self.with(host)?))
    }

    /// The owner of what runs on this host.
    pub(crate) fn with(&self, host: HostId) -> Option<&mpsc::Sender<Event>> {
        self.inboxes.get(&host).filter(|inbox| !inbox.is_closed())
    }

    /// Adds a minion, in the place of one that has retired.
    pub(super) fn add(&mut self, host: HostId, inbox: mpsc::Sender<Event>) {
        self.inboxes.retain(|_, inbox| !inbox.is_closed());
        self.inboxes.insert(host, inbox);
    }

    /// Says what a wrapper may call a minion's machine; a minion's own id comes before all other names.
    pub(super) fn name(&mut self, names: BTreeMap<String, HostId>) {
        self.by_name = names;
    }
}

/// What all minions share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) app: App,
    pub(super) starter: mpsc::Sender<starter::Wanted>,
}

impl Shared {
    fn now(&self) -> Now {
        Now { at: self.app.clock.now(), steady: self.app.clock.steady() }
    }
}

/// A task of an earlier life of this server.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) key: TaskKey,
    pub(super) timeout: Option<Span>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) cancelled: bool,
}

/// One minion.
pub(super) struct Minion {
    shared: Shared,
    host: HostId,
    name: HostName,
    own: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    link: Option<Link>,
    version: Arc<str>,
    tasks: BTreeMap<RunId, Task>,
    wires: BTreeMap<Wire, ToWire>,
    retiring: bool,
}

struct Task {
    key: TaskKey,
    talk: Talk,
    durable: Offsets,
    said: Reported,
    claim: Claim,
    /// When the hub has recorded its end, until when it is remembered, by the steady clock.
    until: Option<Timestamp>,
}

/// Why a minion's task ends.
enum Stop {
    /// The server is stopping.
    Stopping,
    /// An agent takes its place.
    Retired,
}

impl From<crate::hub::Error> for Stop {
    fn from(_: crate::hub::Error) -> Self {
        Self::Stopping
    }
}

impl Minion {
    pub(super) fn new(
        shared: Shared,
        host: HostId,
        name: HostName,
        own: mpsc::Sender<Event>,
        inbox: mpsc::Receiver<Event>,
    ) -> Self {
        Self {
            shared,
            host,
            name,
            own,
            inbox,
            link: None,
            version: "salt".into(),
            tasks: BTreeMap::new(),
            wires: BTreeMap::new(),
            retiring: false,
        }
    }

    /// Goes on with what an earlier life of this server has left.
    pub(super) async fn run(mut self, left: Vec<Left>) {
        if !left.is_empty() {
            for task in left {
                self.take_up(task).await;
            }
            if self.link().await.is_err() {
                return;
            }
        }
        while let Ok(()) = self.turn().await {}
    }

    async fn turn(&mut self) -> Result<(), Stop> {
        let wake = self.wakes_at().map(|at| at.since(self.shared.app.clock.steady()).duration());
        let heard = {
            let (link, inbox) = (&mut self.link, &mut self.inbox);
            let link = async {
                match link {
                    Some(link) => link.next().await,
                    None => std::future::pending().await,
                }
            };
            // No timer while there is none to wait for: of most tasks only messages move something.
            let time = async {
                match wake {
                    Some(wake) => tokio::time::sleep(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = inbox.recv() => Heard::Event(event.ok_or(Stop::Stopping)?),
                frame = link => Heard::Link(frame),
                () = time => Heard::Time,
            }
        };
        match heard {
            Heard::Event(event) => self.event(event).await?,
            Heard::Link(Some(frame)) => self.frame(*frame).await?,
            // The hub begins anew from its store: it is told all again.
            Heard::Link(None) => {
                let sent_away = self.link.as_ref().is_some_and(Link::is_sent_away);
                self.unlink().await;
                if !sent_away {
                    self.link().await?;
                }
            }
            Heard::Time => {}
        }
        self.tick().await?;
        if self.retiring && self.is_idle() { self.retire().await } else { Ok(()) }
    }

    fn wakes_at(&self) -> Option<Timestamp> {
        self.tasks.values().filter_map(|task| task.until.or_else(|| task.talk.wakes_at())).min()
    }

    async fn tick(&mut self) -> Result<(), Stop> {
        let now = self.shared.now();
        self.tasks.retain(|_, task| task.until.is_none_or(|until| now.steady < until));
        let due = |task: &&mut Task| task.talk.wakes_at().is_some_and(|at| at <= now.steady);
        let due = self.tasks.values_mut().filter(due);
        let due: Vec<_> = due.map(|task| (task.key.run, task.talk.tick(now))).collect();
        for (run, outputs) in due {
            self.perform(run, outputs).await?;
        }
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Said(word) => self.said(*word).await,
            Event::Gone { wire, run } => {
                self.wires.remove(&wire);
                let now = self.shared.now();
                if let Some(task) = self.tasks.get_mut(&run) {
                    task.talk.gone(wire, now);
                }
                Ok(())
            }
            Event::Called(run) => {
                let now = self.shared.now();
                if let Some(task) = self.tasks.get_mut(&run) {
                    task.talk.called(now);
                }
                Ok(())
            }
            Event::Failed(run, why) => {
                let now = self.shared.now();
                let outputs = self.tasks.get_mut(&run).map(|task| task.talk.failed(&why, now));
                self.perform(run, outputs.unwrap_or_default()).await
            }
            Event::Here(version) => {
                self.version = version;
                let now = self.shared.app.clock.now();
                if let Some(link) = &self.link {
                    link.heard.store(now.as_millis(), Ordering::Relaxed);
                    return Ok(());
                }
                self.link().await
            }
            // A wrapper that is connected shows that the machine lives.
            Event::Away if self.wires.is_empty() => {
                self.unlink().await;
                Ok(())
            }
            Event::Away => Ok(()),
            Event::Retire => {
                self.retiring = true;
                Ok(())
            }
        }
    }

    async fn said(&mut self, word: Word) -> Result<(), Stop> {
        let Word { wire, say, run, message } = word;
        if let Some(link) = &self.link {
            let now = self.shared.app.clock.now();
            link.heard.store(now.as_millis(), Ordering::Relaxed);
        }
        let now = self.shared.now();
        let Some(task) = self.tasks.get_mut(&run) else {
            let recorded = self.is_recorded(run, &message).await;
            for reply in stranger(&message, recorded) {
                let over = reply == Reply::NOT_FOUND;
                drop(say.try_send(Say::Reply(Box::new(reply))));
                if over {
                    drop(say.try_send(Say::Close));
                }
            }
            return Ok(());
        };
        self.wires.insert(wire, say);
        let outputs = task.talk.message(wire, message, now);
        self.perform(run, outputs).await
    }

    /// Whether the end that a wrapper tells of a run that is over is the one that is recorded.
    async fn is_recorded(&self, run: RunId, message: &Message) -> bool {
        let Said::Complete { code, .. } = &message.said else { return false };
        let Ok(Some(task)) = self.shared.app.store.task(run, self.host).await else { return false };
        let code = code.unwrap_or(-1);
        task.exit_code == Some(code) || task.signal.is_some_and(|signal| code == -signal)
    }

    async fn frame(&mut self, frame: FromServer) -> Result<(), Stop> {
        match frame {
            FromServer::Start(starts) => {
                for start in starts {
                    self.start(start).await?;
                }
                Ok(())
            }
            FromServer::Cancel(keys) => {
                for key in keys {
                    self.cancel(key).await?;
                }
                Ok(())
            }
            FromServer::Query(keys) => {
                let known = |key: TaskKey| match self.task(key) {
                    Some(task) => Report { key, state: task.said.clone() },
                    None => Report { key, state: unknown() },
                };
                let reports = keys.into_iter().map(known).collect();
                Ok(self.shared.app.hub.reports(self.host, reports).await?)
            }
            FromServer::Settled(keys) => {
                for key in keys {
                    self.settled(key).await?;
                }
                Ok(())
            }
            FromServer::Ping(number) => {
                if let Some(link) = &self.link {
                    link.ponged.store(number, Ordering::Relaxed);
                }
                Ok(())
            }
            FromServer::Welcome(_)
            | FromServer::Denied(_)
            | FromServer::Ack(_)
            | FromServer::ServerKeys(_)
            | FromServer::Rekeyed(_)
            // Nothing is armed on a minion: its link speaks the first version of the protocol.
            | FromServer::Keep(_) => Ok(()),
        }
    }

    fn is_idle(&self) -> bool {
        self.tasks.values().all(|task| task.until.is_some())
    }

    /// Makes room for the agent that has this name: what ran here stays in the history.
    async fn retire(&mut self) -> Result<(), Stop> {
        self.unlink().await;
        let app = &self.shared.app;
        let why = DeniedReason::UnknownKey;
        app.hub.forget_host(self.host, why).await?;
        if let Err(error) = app.store.remove_host(self.host).await {
            warn!(error = &error as &dyn std::error::Error, "a minion is not retired yet");
            return Ok(());
        }
        app.live.host_changed(self.host);
        info!(host.id = %self.host, host.name = %self.name, "minion made room for an agent");
        Err(Stop::Retired)
    }
}

enum Heard {
    Event(Event),
    Link(Option<Box<FromServer>>),
    Time,
}

fn unknown() -> Reported {
    let why = "a host behind Salt does not say what it ran for a server whose store was replaced";
    Reported::Unknown(why.to_owned())
}
