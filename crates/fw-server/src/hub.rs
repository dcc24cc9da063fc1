//! The shell around [`fw_core::hub::Hub`]: one task that owns it.
//!
//! It takes what has come in, lets the hub decide, commits the events in one transaction, and
//! only then sends frames, tells followers and answers those who asked. An answer therefore
//! never shows what a crash could undo. If a commit does not succeed, nothing of it is
//! performed: the hub is built anew from the store and the agents are made to link again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fw_core::hub::{Decisions, Effect, Hub, late_note};
use fw_core::plan::Plan;
use fw_core::run::{Actor, Run};
use fw_proto::frame::{DeniedReason, FromServer, Report, Reported, Spec, Start};
use fw_proto::{HostId, PublicKey, RunId, Span, TaskKey, Timestamp, api};
use fw_rt::{Clock, Tasks};
use fw_store::{NewFire, Store};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::gateway::links::{LinkHandle, Links};
use crate::live::{Live, RunChange};
use crate::metrics::{COMMITS, task_ended};
use crate::secrets::Vault;

/// Messages that may wait for the hub; whoever sends more waits.
const INBOX: usize = 16 * 1024;

/// Messages taken up at once: one commit carries what they amount to.
const BATCH: usize = 4096;

/// A transaction that does not succeed is tried again, from the store's state, after this pause.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

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

/// How others reach the hub.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Message>,
}

type Reply<T> = oneshot::Sender<T>;

enum Message {
    Begin(Box<Begin>, Reply<Result<(), Error>>),
    Cancel(RunId, Actor, Reply<Result<bool, Error>>),
    Run(RunId, Reply<Option<api::Run>>),
    Summaries(Reply<Vec<api::RunSummary>>),
    Online(Reply<BTreeSet<HostId>>),
    Owns(HostId, RunId, Reply<bool>),
    LinkOf(HostId, Reply<Option<LinkHandle>>),
    Linked(Box<LinkHandle>, Vec<Report>),
    Unlinked(HostId, u64, Reply<bool>),
    Heard(Reply<Vec<(HostId, Timestamp)>>),
    Reports(HostId, Vec<Report>),
    Forget(HostId, DeniedReason, Reply<Result<(), Error>>),
    PinKeys(Vec<PublicKey>, Reply<u64>),
}

impl Handle {
    /// Begins a run; returns after the commit.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit.
    pub async fn begin(&self, begin: Begin) -> Result<(), Error> {
        self.ask(|reply| Message::Begin(Box::new(begin), reply)).await?
    }

    /// Asks for the end of a run; false when it is not active.
    ///
    /// # Errors
    /// The server is stopping, or the store could not commit.
    pub async fn cancel(&self, run: RunId, by: Actor) -> Result<bool, Error> {
        self.ask(|reply| Message::Cancel(run, by, reply)).await?
    }

    /// A run that has not ended.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn run(&self, id: RunId) -> Result<Option<api::Run>, Error> {
        self.ask(|reply| Message::Run(id, reply)).await
    }

    /// All runs that have not ended.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn summaries(&self) -> Result<Vec<api::RunSummary>, Error> {
        self.ask(Message::Summaries).await
    }

    /// Hosts that are linked.
    ///
    /// # Errors
    /// The server is stopping.
    pub async fn online(&self) -> Result<BTreeSet<HostId>, Error> {
        self.ask(Message::Online).await
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
    let store = parts.store.clone();
    let hub = load(&parts).await?;
    let links = Links::default();
    let shell = Shell { parts, hub, links, fires: BTreeMap::new(), answers: Vec::new() };
    let token = tasks.token();
    tasks
        .spawn_graceful("hub", async move { token.run_until_cancelled(shell.run(messages)).await });
    let handle = Handle { inbox };
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

async fn load(parts: &Parts) -> Result<Hub, fw_store::Error> {
    let runs = parts.store.unfinished().await?;
    let mut hub = Hub::new(parts.store.incarnation(), parts.clock.now(), parts.grace);
    if !runs.is_empty() {
        info!(runs.unfinished = runs.len(), "{} unfinished runs taken up", runs.len());
    }
    runs.into_iter().for_each(|run| hub.resume(run));
    Ok(hub)
}

struct Shell {
    parts: Parts,
    hub: Hub,
    links: Links,
    /// Fires of runs that begin with the next commit.
    fires: BTreeMap<RunId, NewFire>,
    /// Said after the next commit.
    answers: Vec<Answer>,
}

/// An answer that waits for the commit.
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send + Sync>;

impl Shell {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let wake = self.hub.next_wake().map(|at| at.since(self.parts.clock.now()).duration());
            // The clock may be set meanwhile: look again at least every second.
            let pause = wake.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
            if let Ok(0) = tokio::time::timeout(pause, inbox.recv_many(&mut batch, BATCH)).await {
                return;
            }
            let now = self.parts.clock.now();
            for message in batch.drain(..) {
                self.take(message, now);
            }
            let decisions = self.hub.decide(now);
            self.commit(decisions).await;
        }
    }

    fn take(&mut self, message: Message, now: Timestamp) {
        match message {
            Message::Begin(begin, reply) => {
                let Begin { run, plan, by, fire } = *begin;
                self.fires.extend(fire.map(|fire| (run, fire)));
                self.hub.begin(run, plan, by, now);
                self.answers.push(Box::new(|outcome| answer(reply, outcome)));
            }
            Message::Cancel(run, by, reply) => {
                let known = self.hub.cancel(run, by, now);
                self.answers.push(Box::new(move |outcome| answer(reply, outcome.map(|()| known))));
            }
            Message::Run(id, reply) => {
                answer(reply, self.hub.run(id).map(|run| self.hub.view(run)));
            }
            Message::Summaries(reply) => {
                answer(reply, self.hub.runs().map(|run| self.hub.summary(run)).collect());
            }
            Message::Online(reply) => answer(reply, self.hub.online().clone()),
            Message::Owns(host, run, reply) => {
                answer(reply, self.hub.run(run).is_some_and(|run| run.tasks.contains_key(&host)));
            }
            Message::LinkOf(host, reply) => answer(reply, self.links.get(host).cloned()),
            Message::Linked(link, digest) => {
                let host = link.host;
                if self.links.insert(*link) {
                    self.hub.unlinked(host, now);
                }
                self.hub.linked(host, digest);
                self.parts.live.host_changed(host);
            }
            Message::Unlinked(host, link, reply) => {
                let counts = self.links.remove(host, link);
                if counts {
                    self.hub.unlinked(host, now);
                    self.parts.live.host_changed(host);
                }
                answer(reply, counts);
            }
            Message::Heard(reply) => answer(reply, self.links.heard()),
            Message::Reports(host, reports) => {
                reports.into_iter().for_each(|report| self.hub.reported(host, report));
            }
            Message::Forget(host, why, reply) => {
                self.links.deny(host, why);
                self.hub.gone(host, now);
                self.parts.live.host_changed(host);
                self.answers.push(Box::new(|outcome| answer(reply, outcome)));
            }
            Message::PinKeys(keys, reply) => {
                answer(reply, self.links.send_all(&FromServer::ServerKeys(keys)));
            }
        }
    }

    /// Commits, then performs. Nothing is performed that is not committed.
    async fn commit(&mut self, decisions: Decisions) {
        let Decisions { appends, effects } = decisions;
        let mut changes = Vec::with_capacity(appends.len());
        let mut rows = Vec::with_capacity(appends.len());
        let now = self.parts.clock.now();
        for (id, append) in appends {
            let finished = append.finished.as_deref();
            let Some(run) = finished.or_else(|| self.hub.run(id)) else { continue };
            let summary = self.hub.summary(run);
            changes.push(change(run, summary.clone(), &append.changed));
            rows.push(fw_store::Append {
                run: id,
                expected_seq: append.expected_seq,
                events: append.events,
                finished: finished.map(|run| Box::new(run.view(Vec::new()))),
                summary,
                fire: self.fires.remove(&id).map(|fire| NewFire {
                    lag_ms: fire.lag_ms.map(|_| now.since(fire.from).as_millis()),
                    ..fire
                }),
            });
        }
        let outcome = if rows.is_empty() { Ok(()) } else { self.parts.store.commit(rows).await };
        let answers = std::mem::take(&mut self.answers);
        match outcome {
            Ok(()) => {
                self.perform(effects).await;
                changes.iter().for_each(count);
                changes.into_iter().for_each(|change| self.parts.live.run_changed(change));
                answers.into_iter().for_each(|answer| answer(Ok(())));
            }
            Err(error) => {
                let error = Arc::new(error);
                error!(
                    error = &*error as &dyn std::error::Error,
                    "decisions could not be committed; runs are read anew from the store"
                );
                answers
                    .into_iter()
                    .for_each(|answer| answer(Err(Error::Store(Arc::clone(&error)))));
                self.reload().await;
            }
        }
    }

    /// Begins anew from what is committed. The agents link again and say what they know.
    async fn reload(&mut self) {
        self.fires.clear();
        self.links.close_all();
        loop {
            tokio::time::sleep(RELOAD_PAUSE).await;
            match load(&self.parts).await {
                Ok(hub) => {
                    self.hub = hub;
                    return;
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "runs cannot be read; trying again"
                ),
            }
        }
    }

    async fn perform(&mut self, effects: Vec<Effect>) {
        let mut starts: BTreeMap<HostId, Vec<Start>> = BTreeMap::new();
        let mut settled: BTreeMap<HostId, Vec<TaskKey>> = BTreeMap::new();
        let mut values = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Start { host, key, not_after } => match self
                    .spec(key.run, &mut values)
                    .await
                {
                    Some(Ok(spec)) => {
                        let (incarnation, epoch) =
                            (self.parts.store.incarnation(), self.parts.store.epoch());
                        starts.entry(host).or_default().push(Start {
                            key,
                            not_after,
                            incarnation,
                            epoch,
                            spec,
                        });
                    }
                    Some(Err(name)) => {
                        warn!(run.id = %key.run, secret = name, "a secret that a run needs is gone");
                        self.hub.no_secret(host, key.run, self.parts.clock.now());
                    }
                    None => debug!(run.id = %key.run, "the run ended before its start was sent"),
                },
                Effect::Cancel { host, key } => {
                    self.links.send(host, FromServer::Cancel(vec![key]));
                }
                Effect::Query { host, key } => self.links.send(host, FromServer::Query(vec![key])),
                Effect::Settle { host, key } => settled.entry(host).or_default().push(key),
                Effect::Late { host, report } => {
                    if self.late(host, &report).await {
                        settled.entry(host).or_default().push(report.key);
                    }
                }
                Effect::Ended { run, state } => info!(run.id = %run, "run {}", in_words(state)),
            }
        }
        for (host, starts) in starts {
            for part in batches(starts) {
                self.links.send(host, FromServer::Start(part));
            }
        }
        settled
            .into_iter()
            .for_each(|(host, keys)| self.links.send(host, FromServer::Settled(keys)));
    }

    /// What a run's hosts are to start, with its secrets; the name of one that is gone.
    async fn spec(
        &self,
        run: RunId,
        values: &mut BTreeMap<String, Option<String>>,
    ) -> Option<Result<Spec, String>> {
        let exec = self.hub.run(run)?.plan.exec.clone();
        let mut secrets = BTreeMap::new();
        for (variable, value) in &exec.env {
            let api::EnvValue::Secret(name) = value else { continue };
            if !values.contains_key(name) {
                let opened = self.parts.secrets.get(&self.parts.store, name).await;
                values.insert(
                    name.clone(),
                    opened
                        .inspect_err(|error| {
                            error!(secret = name, "secret cannot be read: {error}");
                        })
                        .ok()
                        .flatten(),
                );
            }
            match values.get(name).cloned().flatten() {
                Some(value) => secrets.insert(variable.clone(), value),
                None => return Some(Err(name.clone())),
            };
        }
        Some(Ok(crate::gateway::spec::spec(&exec, secrets, self.parts.spool_bytes)))
    }

    /// Notes what a host says of a run that has ended; whether to tell it that this is recorded.
    async fn late(&self, host: HostId, report: &Report) -> bool {
        match report.state {
            Reported::NotKnown | Reported::Queued | Reported::Started(_) => return false,
            Reported::Ended(_) | Reported::Refused(_) | Reported::Unknown(_) => {}
        }
        match self.note_late(host, report).await {
            Ok(()) => true,
            Err(error) => {
                warn!(run.id = %report.key.run, host.id = %host, error = &error as &dyn std::error::Error, "late report could not be noted; the host will tell it again");
                false
            }
        }
    }

    async fn note_late(&self, host: HostId, report: &Report) -> Result<(), fw_store::Error> {
        let run = report.key.run;
        let Some(task) = self.parts.store.task(run, host).await? else {
            warn!(run.id = %run, host.id = %host, "a host reported on a run that this store does not know");
            return Ok(());
        };
        match late_note(&task, &report.state) {
            Some(note) => self.parts.store.note_late(run, host, note).await.map(drop),
            None => Ok(()),
        }
    }
}

/// How a run ended, for a log.
const fn in_words(state: api::RunState) -> &'static str {
    match state {
        api::RunState::Succeeded => "succeeded",
        api::RunState::Failed => "failed",
        api::RunState::Cancelled => "cancelled",
        api::RunState::Planned | api::RunState::Running | api::RunState::Cancelling => "goes on",
    }
}

/// Starts for one host in frames of a bounded size.
fn batches(starts: Vec<Start>) -> Vec<Vec<Start>> {
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

fn change(run: &Run, summary: api::RunSummary, changed: &BTreeSet<HostId>) -> RunChange {
    let tasks = changed
        .iter()
        .filter_map(|host| run.tasks.get(host))
        .map(fw_core::run::Task::view)
        .collect();
    RunChange { summary, tasks, seq: run.seq }
}

/// Counts a commit and the tasks that ended with it. What a host says late changes no task's end.
fn count(change: &RunChange) {
    metrics::counter!(COMMITS).increment(1);
    change.tasks.iter().filter(|task| task.late.is_none()).for_each(|task| task_ended(task.state));
}

fn answer<T>(reply: Reply<T>, value: T) {
    // Whoever asked may have gone away.
    drop(reply.send(value));
}
