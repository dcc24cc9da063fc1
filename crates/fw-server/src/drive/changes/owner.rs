//! The task that owns the changes: it waits, asks what is next, and has it done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fw_core::change::{Change, Event, Kind, Next, Plan, Request, Stop};
use fw_core::run::Actor;
use fw_proto::api::{Code, Problem, Role};
use fw_proto::{ChangeId, Incarnation, RunId, Span, Timestamp};
use fw_store::{ChangeAppend, ChangeRow, Store, StoredChange};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tracing::{info, warn};

use super::{MOST, Message, Parts, missing, refused};
use crate::hub;
use crate::live::RunChange;
use crate::problem::{Chain, Failure};

/// Runs that are waited for are looked at so often, hint or not, and so is the clock, which may be set.
const LOOK: Duration = Duration::from_secs(1);

/// Where nothing is waited for, only a request or a run's end wakes the task.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// What failed for want of the store is tried again after this.
const RETRY: Span = Span::from_secs(1);

/// One change does at most so much before the others have their turn.
const AT_ONCE: u32 = 100;

/// Why it does not go on at the moment.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The store.
    #[error("store")]
    Store(#[from] fw_store::Error),
    /// The hub.
    #[error("hub")]
    Hub(#[from] hub::Error),
}

/// All changes that have not ended.
pub(super) struct Owner {
    pub(super) parts: Parts,
    held: BTreeMap<ChangeId, Held>,
    /// Which change waits for which run.
    watched: BTreeMap<RunId, ChangeId>,
}

/// A change that has not ended.
pub(super) struct Held {
    /// What is committed of it.
    pub(super) change: Change,
    /// The life of the store in which the last event was committed.
    pub(super) life: Incarnation,
    /// What was cancelled of its run.
    pub(super) stopped: Option<(RunId, Stop)>,
    /// When it is to be looked at again without any hint.
    due: Option<Timestamp>,
    /// The store did not answer as it should: what is held may not be what is committed.
    stale: bool,
}

impl Held {
    fn new(stored: StoredChange) -> Self {
        let StoredChange { change, incarnation: life } = stored;
        Self { change, life, stopped: None, due: None, stale: false }
    }
}

impl Owner {
    pub(super) async fn load(parts: Parts) -> Result<Self, fw_store::Error> {
        let found = parts.store.unfinished_changes().await?;
        if !found.is_empty() {
            info!(changes.unfinished = found.len(), "{} unfinished changes taken up", found.len());
        }
        let held = found.into_iter().map(|stored| (stored.change.id, Held::new(stored)));
        Ok(Self { parts, held: held.collect(), watched: BTreeMap::new() })
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut runs: broadcast::Receiver<Arc<RunChange>>,
    ) {
        for id in self.held.keys().copied().collect::<Vec<_>>() {
            self.advance(id).await;
        }
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                change = runs.recv() => match change {
                    Ok(change) => self.heard(&change).await,
                    Err(RecvError::Lagged(_)) => self.look().await,
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(self.pause()) => self.look().await,
            }
        }
    }

    /// How long nothing is to be done without a hint.
    fn pause(&self) -> Duration {
        let waits = !self.watched.is_empty() || self.held.values().any(|one| one.due.is_some());
        if !waits {
            return IDLE;
        }
        let now = self.parts.clock.now();
        let first = self.held.values().filter_map(|one| one.due).min();
        first.map_or(LOOK, |due| due.since(now).duration().min(LOOK))
    }

    async fn heard(&mut self, change: &RunChange) {
        if !change.summary.state.is_final() {
            return;
        }
        if let Some(id) = self.watched.get(&change.summary.id).copied() {
            self.advance(id).await;
        }
    }

    /// What is due, and runs of which the end was not heard.
    async fn look(&mut self) {
        let now = self.parts.clock.now();
        let due = self.held.iter().filter(|(_, one)| one.due.is_some_and(|due| due <= now));
        let mut look_at: BTreeSet<_> = due.map(|(id, _)| *id).collect();
        look_at.extend(self.over().await);
        for id in look_at {
            self.advance(id).await;
        }
    }

    /// The changes whose runs go on no more.
    async fn over(&self) -> Vec<ChangeId> {
        let runs: BTreeSet<_> = self.watched.keys().copied().collect();
        if runs.is_empty() {
            return Vec::new();
        }
        let Ok(active) = self.parts.hub.summaries(runs).await else { return Vec::new() };
        let active: BTreeSet<_> = active.into_iter().map(|run| run.id).collect();
        let over = self.watched.iter().filter(|(run, _)| !active.contains(run));
        over.map(|(_, id)| *id).collect()
    }

    async fn take(&mut self, message: Message) {
        let (id, reply, outcome) = match message {
            Message::Start { id, plan, by, store, reply } => {
                (id, reply, self.start(id, plan, by, &store).await)
            }
            Message::Ask { id, request, by, role, store, reply } => {
                (id, reply, self.ask(id, &request, by, role, &store).await)
            }
        };
        if outcome.is_ok() {
            // Before the answer: who has paused it may trust that nothing more begins.
            self.advance(id).await;
        }
        // Whoever asked may have gone away.
        drop(reply.send(outcome));
    }

    async fn start(
        &mut self,
        id: ChangeId,
        plan: Box<Plan>,
        by: Actor,
        store: &Store,
    ) -> Result<(), Problem> {
        if self.held.len() >= MOST {
            let detail = "end some of them first: `fleetwright rollouts list`, `runbook list`";
            let title = format!("{MOST} rollouts and runbooks have not ended");
            return Err(Problem::new(Code::Conflict, title).detail(detail));
        }
        let (at, life) = (self.parts.clock.now(), self.parts.store.incarnation());
        let event = Event { at, by, kind: Kind::Planned(plan) };
        let change = Change::begin(id, &event).map_err(|error| fault(&error))?;
        let row = ChangeRow::from(&change);
        let append = ChangeAppend { expected_seq: 0, events: vec![event], row };
        let committed = store.commit_change(append).await;
        let mut held = Held::new(StoredChange { change, incarnation: life });
        if committed.is_err() {
            // It may be there all the same, and must not lie there until the server is started again.
            held.stale = true;
            held.due = Some(at + RETRY);
        }
        self.held.insert(id, held);
        self.parts.live.change_changed(id);
        committed.map_err(unwritten)
    }

    async fn ask(
        &mut self,
        id: ChangeId,
        request: &Request,
        by: Actor,
        role: Role,
        store: &Store,
    ) -> Result<(), Problem> {
        self.hold(id).await?;
        let held = self.held.get(&id).ok_or_else(|| missing(id))?;
        let kind = held.change.ask(request, &by, role).map_err(|why| refused(id, &why));
        let committed = match kind {
            Ok(kind) => self.commit(store, id, kind, by).await.map_err(unwritten),
            Err(problem) => Err(problem),
        };
        self.let_go(id);
        committed
    }

    /// Reads a change that is not held: one that has ended may still be taken back.
    async fn hold(&mut self, id: ChangeId) -> Result<(), Problem> {
        if self.held.get(&id).is_some_and(|held| !held.stale) {
            return Ok(());
        }
        let stored = self.parts.store.change(id).await.map_err(unwritten)?;
        self.held.insert(id, Held::new(stored.ok_or_else(|| missing(id))?));
        Ok(())
    }

    /// Does all that is due of a change now.
    async fn advance(&mut self, id: ChangeId) {
        if let Err(error) = self.go_on(id).await {
            if matches!(error, Error::Hub(hub::Error::Stopped)) {
                return;
            }
            warn!(change.id = %id, error = %Chain(&error), "a change does not go on; it is tried again");
            let due = self.parts.clock.now() + RETRY;
            if let Some(held) = self.held.get_mut(&id) {
                held.stale = true;
                held.due = Some(due);
            }
        }
        self.let_go(id);
    }

    async fn go_on(&mut self, id: ChangeId) -> Result<(), Error> {
        if self.held.get(&id).is_some_and(|held| held.stale) {
            let stored = self.parts.store.change(id).await?;
            self.held.remove(&id);
            self.held.extend(stored.map(|stored| (id, Held::new(stored))));
        }
        self.watched.retain(|_, of| *of != id);
        if self.held.get(&id).is_some_and(|held| held.life != self.parts.store.incarnation()) {
            self.take_up_restored(id).await?;
        }
        for _ in 0..AT_ONCE {
            let now = self.parts.clock.now();
            let Some(held) = self.held.get_mut(&id) else { return Ok(()) };
            held.due = None;
            match held.change.next(now) {
                Next::Begin(begin) => {
                    let kind = self.announce(id, begin).await?;
                    self.record(id, kind).await?;
                }
                Next::Record(kind) => self.record(id, kind).await?,
                Next::Watch { begin, run, stop } => {
                    match self.watch(id, &begin, run, stop).await? {
                        Some(kind) => self.record(id, kind).await?,
                        None => {
                            self.watched.insert(run, id);
                            return Ok(());
                        }
                    }
                }
                Next::Until(at) => {
                    held.due = Some(at);
                    return Ok(());
                }
                Next::Person(at) => {
                    held.due = at;
                    return Ok(());
                }
                Next::Ended => return Ok(()),
            }
        }
        // The others have their turn.
        let now = self.parts.clock.now();
        self.held.entry(id).and_modify(|held| held.due = Some(now));
        Ok(())
    }

    /// The store was restored from a backup, and what this change did since then is not known. The run that
    /// it waits for is taken up as one of the older life, of which hosts are asked first; before anything
    /// else begins a person has to look. An undo may be repeated, so it goes on.
    async fn take_up_restored(&mut self, id: ChangeId) -> Result<(), Error> {
        let Some(held) = self.held.get(&id) else { return Ok(()) };
        let next = held.change.next(self.parts.clock.now());
        let pauses = held.change.ask(&Request::Pause, &Actor::Server, Role::Admin).ok();
        if let Next::Watch { begin, run, stop: Stop::Nothing } = next {
            self.watch(id, &begin, run, Stop::Nothing).await?;
        }
        if let Some(kind) = pauses {
            warn!(change.id = %id, "the store was restored: look at what this change did, then resume it");
            self.record(id, kind).await?;
        }
        let life = self.parts.store.incarnation();
        self.held.entry(id).and_modify(|held| held.life = life);
        Ok(())
    }

    async fn record(&mut self, id: ChangeId, kind: Kind) -> Result<(), Error> {
        let store = self.parts.store.clone();
        Ok(self.commit(&store, id, kind, Actor::Server).await?)
    }

    /// Commits an event; only then is the change what it is after it.
    async fn commit(
        &mut self,
        store: &Store,
        id: ChangeId,
        kind: Kind,
        by: Actor,
    ) -> Result<(), fw_store::Error> {
        let (at, life) = (self.parts.clock.now(), self.parts.store.incarnation());
        let Some(held) = self.held.get_mut(&id) else { return Ok(()) };
        let event = Event { at, by, kind };
        let mut after = held.change.clone();
        after.step(&event);
        let (expected_seq, row) = (held.change.seq, ChangeRow::from(&after));
        let append = ChangeAppend { expected_seq, events: vec![event], row };
        if let Err(error) = store.commit_change(append).await {
            held.stale = true;
            return Err(error);
        }
        let (before, state) = (held.change.state(), after.state());
        if before != state && state.is_final() {
            info!(change.id = %id, "{:?} ended: {}", after.plan.title, state.as_str());
        }
        (held.change, held.life) = (after, life);
        self.parts.live.change_changed(id);
        Ok(())
    }

    /// Holds a change no longer that has ended.
    fn let_go(&mut self, id: ChangeId) {
        let ended = |held: &Held| held.change.finished_at.is_some() && !held.stale;
        if self.held.get(&id).is_some_and(ended) {
            self.held.remove(&id);
        }
    }

    pub(super) fn held(&self, id: ChangeId) -> Option<&Held> {
        self.held.get(&id)
    }

    /// Remembers that so much of a run was cancelled.
    pub(super) fn stopped(&mut self, id: ChangeId, run: RunId, stop: Stop) {
        self.held.entry(id).and_modify(|held| held.stopped = Some((run, stop)));
    }
}

fn unwritten(error: fw_store::Error) -> Problem {
    Failure::from(error).into_problem()
}

fn fault(error: &(dyn std::error::Error + 'static)) -> Problem {
    crate::problem::fault(error).into_problem()
}
