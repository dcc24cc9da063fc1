//! The shell around [`fw_core::hub::Hub`]: one task that owns it.
//!
//! It takes what has come in, lets the hub decide, commits the events in one transaction, and
//! only then sends frames, tells followers and answers those who asked. An answer therefore
//! never shows what a crash could undo. If a commit does not succeed, nothing of it is
//! performed: the hub is built anew from the store and the agents are made to link again.

mod inlets;
mod late;
mod perform;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fw_core::plan::Plan;
use fw_core::run::Actor;
use fw_proto::frame::{DeniedReason, Report};
use fw_proto::{HostId, JobName, PublicKey, RunId, Span, Timestamp, api};
use fw_rt::{Clock, Tasks};
use fw_store::{NewFire, Store};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use self::inlets::Inlets;
use self::late::Late;
use self::shell::{Shell, load};
use crate::gateway::links::LinkHandle;
use crate::live::Live;
use crate::secrets::Vault;

/// Messages that may wait for the hub; whoever sends more waits.
const INBOX: usize = 16 * 1024;

/// Lots of runs that may wait to begin, likewise.
const LOTS: usize = 1024;

/// How often it is kept when hosts were last heard: a host that is online was heard just now anyway.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// Why the hub could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
    /// The events could not be committed; nothing was done.
    #[error("commit the decision")]
    Store(#[source] Arc<fw_store::Error>),
}

/// A run to begin.
#[derive(Debug)]
pub struct Begin {
    /// Its id.
    pub run: RunId,
    /// What it does.
    pub plan: Plan,
    /// Who begins it.
    pub by: Actor,
    /// The fire it belongs to: committed with it.
    pub fire: Option<NewFire>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Hosts that are linked.
    pub hosts_online: usize,
    /// Runs that have not ended.
    pub runs_active: usize,
}

/// Runs that do not begin, each with the reason: its fire has its verdict already.
pub type Refused = BTreeMap<RunId, Arc<fw_store::Error>>;

/// How others reach the hub.
#[derive(Debug, Clone)]
pub struct Handle {
    lots: mpsc::Sender<Lot>,
    inbox: mpsc::Sender<Message>,
}

type Reply<T> = oneshot::Sender<T>;

/// Runs that begin with one commit.
struct Lot {
    begins: Vec<Begin>,
    reply: Reply<Result<Refused, Error>>,
}

enum Message {
    Cancel(RunId, Actor, Reply<Result<bool, Error>>),
    CancelHosts(RunId, Vec<HostId>, Actor, Reply<Result<Option<usize>, Error>>),
    CancelUnsent(RunId, Actor, Reply<Result<(), Error>>),
    Run(RunId, Reply<Option<api::Run>>),
    Summaries(BTreeSet<RunId>, Reply<Vec<api::RunSummary>>),
    Active(Reply<BTreeMap<RunId, Option<JobName>>>),
    Open(Vec<HostId>, Reply<BTreeMap<HostId, Vec<RunId>>>),
    Online(Vec<HostId>, Reply<BTreeSet<HostId>>),
    Counts(Reply<Counts>),
    Owns(HostId, RunId, Reply<bool>),
    LinkOf(HostId, Reply<Option<LinkHandle>>),
    Linked(Box<LinkHandle>, Vec<Report>),
    Unlinked(HostId, u64, Reply<bool>),
    Heard(Reply<Vec<(HostId, Timestamp)>>),
    Reports(HostId, Vec<Report>),
    Noted(HostId, Report),
    Forget(HostId, DeniedReason, Reply<Result<(), Error>>),
    PinKeys(Vec<PublicKey>, Reply<u64>),
}

impl Handle {
    /// Begins a run; returns after the commit.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit.
    pub async fn begin(&self, begin: Begin) -> Result<(), Error> {
        let run = begin.run;
        match self.begin_all(vec![begin]).await?.remove(&run) {
            None => Ok(()),
            Some(refused) => Err(Error::Store(refused)),
        }
    }

    /// Begins runs that are due together; returns after the commit, with those that do not begin.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit: then none is known to have begun.
    pub async fn begin_all(&self, begins: Vec<Begin>) -> Result<Refused, Error> {
        let (reply, answer) = oneshot::channel();
        self.lots.send(Lot { begins, reply }).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Asks for the end of a run; false when it is not active.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit.
    pub async fn cancel(&self, run: RunId, by: Actor) -> Result<bool, Error> {
        self.ask(|reply| Message::Cancel(run, by, reply)).await?
    }

    /// Asks for the end of a run on some hosts alone; gives at how many of them it goes on, `None` when it
    /// is not active.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit.
    pub async fn cancel_hosts(
        &self,
        run: RunId,
        hosts: Vec<HostId>,
        by: Actor,
    ) -> Result<Option<usize>, Error> {
        self.ask(|reply| Message::CancelHosts(run, hosts, by, reply)).await?
    }

    /// Asks for the end of a run on those of its hosts that were not sent the start.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit.
    pub async fn cancel_unsent(&self, run: RunId, by: Actor) -> Result<(), Error> {
        self.ask(|reply| Message::CancelUnsent(run, by, reply)).await?
    }

    /// A run that has not ended.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn run(&self, id: RunId) -> Result<Option<api::Run>, Error> {
        self.ask(|reply| Message::Run(id, reply)).await
    }

    /// Those of these runs that have not ended.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn summaries(&self, runs: BTreeSet<RunId>) -> Result<Vec<api::RunSummary>, Error> {
        self.ask(|reply| Message::Summaries(runs, reply)).await
    }

    /// All runs that have not ended, with the job that each belongs to.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn active(&self) -> Result<BTreeMap<RunId, Option<JobName>>, Error> {
        self.ask(Message::Active).await
    }

    /// What has not ended on these hosts, also where its turn has not come. Hosts with nothing are left out.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn open(&self, hosts: Vec<HostId>) -> Result<BTreeMap<HostId, Vec<RunId>>, Error> {
        self.ask(|reply| Message::Open(hosts, reply)).await
    }

    /// Those of these hosts that are linked.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn online(&self, hosts: Vec<HostId>) -> Result<BTreeSet<HostId>, Error> {
        self.ask(|reply| Message::Online(hosts, reply)).await
    }

    /// How much there is.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn counts(&self) -> Result<Counts, Error> {
        self.ask(Message::Counts).await
    }

    /// Whether a run that has not ended has a task on this host.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn owns(&self, host: HostId, run: RunId) -> Result<bool, Error> {
        self.ask(|reply| Message::Owns(host, run, reply)).await
    }

    /// The link of a host, to ask whether it still answers.
    ///
    /// # Errors
    /// The server is stopping.
    pub(crate) async fn link_of(&self, host: HostId) -> Result<Option<LinkHandle>, Error> {
        self.ask(|reply| Message::LinkOf(host, reply)).await
    }

    /// A host was let in: the newest link is the one that counts.
    ///
    /// # Errors
    /// The server is stopping.
    pub(crate) async fn linked(&self, link: LinkHandle, digest: Vec<Report>) -> Result<(), Error> {
        self.tell(Message::Linked(Box::new(link), digest)).await
    }

    /// A link has ended; whether it was the one that counts, so that the host is offline now.
    pub(crate) async fn unlinked(&self, host: HostId, link: u64) -> bool {
        // When the server is stopping, all hosts are offline.
        self.ask(|reply| Message::Unlinked(host, link, reply)).await.unwrap_or(true)
    }

    /// When each linked host was last heard.
    async fn heard(&self) -> Result<Vec<(HostId, Timestamp)>, Error> {
        self.ask(Message::Heard).await
    }

    /// A host said what became of tasks.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn reports(&self, host: HostId, reports: Vec<Report>) -> Result<(), Error> {
        self.tell(Message::Reports(host, reports)).await
    }

    /// Closes a host's link at once and settles its tasks.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit.
    pub async fn forget_host(&self, host: HostId, why: DeniedReason) -> Result<(), Error> {
        self.ask(|reply| Message::Forget(host, why, reply)).await?
    }

    /// Tells all linked hosts the server's keys; how many were told.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn pin_keys(&self, keys: Vec<PublicKey>) -> Result<u64, Error> {
        self.ask(|reply| Message::PinKeys(keys, reply)).await
    }

    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply)).await?;
        answer.await.map_err(|_| Error::Stopped)
    }

    async fn tell(&self, message: Message) -> Result<(), Error> {
        self.inbox.send(message).await.map_err(|_| Error::Stopped)
    }
}

/// What the hub's task needs.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where events are committed.
    pub store: Store,
    /// Where followers are told.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// Gives the values of secrets.
    pub secrets: Vault,
    /// How long hosts may take to come back after a start.
    pub grace: Span,
    /// The bound of a task's spool on its host, bytes.
    pub spool_bytes: u64,
}

/// Reads the unfinished runs and starts the hub's task.
///
/// # Errors
/// The store cannot be read.
pub async fn start(parts: Parts, tasks: &Tasks) -> Result<Handle, fw_store::Error> {
    let (inbox, messages) = mpsc::channel(INBOX);
    let (lots, waiting) = mpsc::channel(LOTS);
    let (store, handle) = (parts.store.clone(), Handle { lots, inbox });
    let inlets = Inlets { lots: waiting, messages };
    let hub = load(&parts).await?;
    let late = Late::start(store.clone(), handle.clone(), tasks);
    let (shell, token) = (Shell::new(parts, hub, late), tasks.token());
    tasks.spawn_graceful("hub", async move { token.run_until_cancelled(shell.run(inlets)).await });
    tasks.spawn("hosts-seen", keep_seen(handle.clone(), store));
    Ok(handle)
}

/// Keeps in the store when hosts were last heard.
async fn keep_seen(hub: Handle, store: Store) {
    loop {
        tokio::time::sleep(SEEN_EVERY).await;
        let Ok(heard) = hub.heard().await else { return };
        if let Err(error) = store.seen(heard).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "when hosts were seen could not be kept"
            );
        }
    }
}

fn answer<T>(reply: Reply<T>, value: T) {
    // Whoever asked may have gone away.
    drop(reply.send(value));
}
