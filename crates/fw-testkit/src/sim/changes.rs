//! The simulated owner of the changes: what `fw-server`'s `drive/changes` does around the real [`Change`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fw_core::change::{Begin, Change, Event, Kind, Next, Part, Plan, Request, Stop, judge};
use fw_core::run::Actor;
use fw_proto::api::Role;
use fw_proto::{ChangeId, Incarnation, RunId};
use rand::RngExt as _;

use super::history::Sight;
use super::requests::{self, LOST_AFTER};
use super::server::{self, Died, Server};
use super::store::{Store, StoredChange};
use super::world::Ctx;

/// What people want of changes.
#[derive(Debug)]
pub(super) enum Message {
    Start(ChangeId, Box<Plan>, Actor),
    Ask(ChangeId, Request, Actor),
}

/// All changes that have not ended.
#[derive(Debug, Default)]
pub(super) struct Changes {
    held: BTreeMap<ChangeId, Held>,
    pub(super) inbox: VecDeque<Message>,
    /// Runs that the hub was asked to begin and has not answered for.
    asked: BTreeSet<RunId>,
}

/// A change that has not ended.
#[derive(Debug)]
struct Held {
    change: Change,
    /// The life of the store in which its last event was committed.
    life: Incarnation,
    /// What was cancelled of its run.
    stopped: Option<(RunId, Stop)>,
    /// The store did not answer as it should.
    stale: bool,
}

/// What surrounds the owner of the changes.
pub(super) struct Around<'w> {
    pub(super) server: &'w mut Server,
    pub(super) ctx: &'w mut Ctx,
    pub(super) store: &'w mut Store,
}

impl Held {
    fn read(id: ChangeId, stored: &StoredChange) -> Self {
        let change = Change::fold(id, &stored.events).expect("a history begins with its plan");
        Self { change, life: stored.life, stopped: None, stale: false }
    }
}

impl Changes {
    /// Takes over what is stored.
    pub(super) fn load(store: &Store) -> Self {
        let open = store.changes.iter().map(|(id, stored)| (*id, Held::read(*id, stored)));
        let held = open.filter(|(_, held)| held.change.finished_at.is_none()).collect();
        Self { held, inbox: VecDeque::new(), asked: BTreeSet::new() }
    }

    /// The hub has begun a run, or could not: that shows at the next look.
    pub(super) fn begun(&mut self, run: RunId) {
        self.asked.remove(&run);
    }

    /// A step: what people ask, then what is due.
    pub(super) fn step(&mut self, around: &mut Around<'_>) -> Result<(), Died> {
        for message in std::mem::take(&mut self.inbox) {
            self.take(around, message)?;
        }
        for id in self.held.keys().copied().collect::<Vec<_>>() {
            if !around.ctx.one_in(3) {
                self.advance(around, id)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, around: &mut Around<'_>, message: Message) -> Result<(), Died> {
        match message {
            Message::Start(id, plan, by) => {
                let event = Event { at: around.ctx.server_time(), by, kind: Kind::Planned(plan) };
                let change = Change::begin(id, &event).expect("it is its plan");
                let life = around.store.incarnation;
                let stale = !write(around, id, event)?;
                self.held.insert(id, Held { change, life, stopped: None, stale });
            }
            Message::Ask(id, request, by) => {
                let Some(stored) = around.store.changes.get(&id) else { return Ok(()) };
                let held = self.held.entry(id).or_insert_with(|| Held::read(id, stored));
                if let (false, Ok(kind)) =
                    (held.stale, held.change.ask(&request, &by, Role::Operator))
                {
                    self.commit(around, id, kind, by)?;
                }
                self.let_go(id);
            }
        }
        Ok(())
    }

    fn advance(&mut self, around: &mut Around<'_>, id: ChangeId) -> Result<(), Died> {
        if self.held.get(&id).is_some_and(|held| held.stale) {
            self.held.remove(&id);
            let stored = around.store.changes.get(&id).map(|stored| (id, Held::read(id, stored)));
            self.held.extend(stored);
        }
        if self.held.get(&id).is_some_and(|held| held.life != around.store.incarnation) {
            self.take_up_restored(around, id)?;
        }
        for _ in 0..around.ctx.rng.random_range(1..8) {
            let Some(held) = self.held.get(&id).filter(|held| !held.stale) else { break };
            let kind = match held.change.next(around.ctx.server_time()) {
                Next::Begin(begin) => announce(around.ctx, begin),
                Next::Record(kind) => kind,
                Next::Watch { begin, run, stop } => {
                    match self.watch(around, id, &begin, run, stop)? {
                        Some(kind) => kind,
                        None => break,
                    }
                }
                Next::Until(_) | Next::Person(_) | Next::Ended => break,
            };
            self.commit(around, id, kind, Actor::Server)?;
        }
        self.let_go(id);
        Ok(())
    }

    /// The store is an older one. The run that is waited for is taken up as one of the older life; before
    /// anything else begins a person has to look.
    fn take_up_restored(&mut self, around: &mut Around<'_>, id: ChangeId) -> Result<(), Died> {
        let Some(held) = self.held.get(&id) else { return Ok(()) };
        around.ctx.history.sight(Sight::ChangeRestored);
        let next = held.change.next(around.ctx.server_time());
        let pauses = held.change.ask(&Request::Pause, &Actor::Server, Role::Admin).ok();
        if let Next::Watch { begin, run, stop: Stop::Nothing } = next {
            self.watch(around, id, &begin, run, Stop::Nothing)?;
        }
        if let Some(kind) = pauses {
            self.commit(around, id, kind, Actor::Server)?;
        }
        let life = around.store.incarnation;
        self.held.entry(id).and_modify(|held| held.life = life);
        Ok(())
    }

    fn watch(
        &mut self,
        around: &mut Around<'_>,
        id: ChangeId,
        begin: &Begin,
        run: RunId,
        stop: Stop,
    ) -> Result<Option<Kind>, Died> {
        let Some(held) = self.held.get_mut(&id) else { return Ok(None) };
        if self.asked.contains(&run) {
            return Ok(None);
        }
        if let Some(active) = around.server.hub.run(run) {
            // The real one is told when it is done; here it is asked until it is.
            let over = match stop {
                Stop::Nothing => true,
                Stop::Rest => active.undispatched.is_empty(),
                Stop::All => active.cancel_requested_at.is_some(),
            };
            if !over {
                held.stopped = Some((run, stop));
                let by = held.change.pause.as_ref().map(|pause| pause.by.clone());
                let by = by.unwrap_or(Actor::Server);
                around.server.inbox.push_back(match stop {
                    Stop::All => server::Message::Cancel(run, by),
                    Stop::Rest | Stop::Nothing => server::Message::CancelUnsent(run, by),
                });
            }
            return Ok(None);
        }
        if let Some(ended) = around.store.ended.get(&run) {
            let report = ended.view(Vec::new());
            let expect = held.change.work(begin).and_then(|work| work.expect.as_ref());
            let expected = report.tasks.iter().map(|task| judge(expect, task.exit_code, ""));
            let stopped = held.stopped.filter(|(of, _)| *of == run);
            let stopped = stopped.map_or(Stop::Nothing, |(_, stop)| stop);
            return Ok(Some(begin.ended(&report, &expected.collect::<Vec<_>>(), stopped)));
        }
        if stop != Stop::Nothing {
            around.ctx.history.sight(Sight::NeverBegun);
            return Ok(Some(begin.never(run, Part::NotBegun)));
        }
        let exec = held.change.work(begin).map(|work| work.exec.clone());
        let plan = exec.and_then(|exec| held.change.run_plan(begin, exec, held.life, LOST_AFTER));
        let Some(plan) = plan else { return Ok(Some(begin.never(run, Part::Refused))) };
        let (plan, by) = (Box::new(plan), held.change.by.clone());
        around.server.inbox.push_back(server::Message::Begin { run, plan, by, fire: None });
        self.asked.insert(run);
        around.server.boundary()?;
        Ok(None)
    }

    /// Commits an event; only then is the change what it is after it.
    fn commit(
        &mut self,
        around: &mut Around<'_>,
        id: ChangeId,
        kind: Kind,
        by: Actor,
    ) -> Result<(), Died> {
        let event = Event { at: around.ctx.server_time(), by, kind };
        let written = write(around, id, event.clone())?;
        let Some(held) = self.held.get_mut(&id) else { return Ok(()) };
        if written {
            held.change.step(&event);
            held.life = around.store.incarnation;
        } else {
            held.stale = true;
        }
        Ok(())
    }

    fn let_go(&mut self, id: ChangeId) {
        let ended = |held: &Held| held.change.finished_at.is_some() && !held.stale;
        if self.held.get(&id).is_some_and(ended) {
            self.held.remove(&id);
        }
    }
}

/// A run that is to begin, as the event to commit before it does.
fn announce(ctx: &mut Ctx, begin: Begin) -> Kind {
    let Begin { node, way, hosts, .. } = begin;
    if ctx.one_in(40) {
        return Kind::NotBegun { node, way, why: "no output to fill in".to_owned() };
    }
    Kind::Began { node, way, run: requests::run_of_change(ctx), hosts }
}

/// Writes an event; false when the store says that it could not, which may not be true.
fn write(around: &mut Around<'_>, id: ChangeId, event: Event) -> Result<bool, Died> {
    around.server.boundary()?;
    if std::mem::take(&mut around.server.lose_commit) {
        return Err(Died);
    }
    let refuse = std::mem::take(&mut around.server.refuse_commit);
    if !(refuse && around.ctx.one_in(2)) {
        around.ctx.history.note((50_u8, id.0), || format!("change {id}: {:?}", event.kind));
        around.store.commit_change(id, event);
        let outcome =
            around.ctx.witness.change_committed(&mut around.ctx.history, around.store, id);
        around.ctx.judge(outcome);
    }
    around.server.boundary()?;
    Ok(!refuse)
}
