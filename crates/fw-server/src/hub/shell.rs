//! The loop that owns the hub: take, decide, commit, perform.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fw_core::hub::clock::Watch;
use fw_core::hub::{Append, Decisions, Effect, Hub};
use fw_core::run::Run;
use fw_proto::frame::{FromServer, Report};
use fw_proto::{HostId, RunId, Timestamp, api};
use fw_store::NewFire;
use tracing::{error, info, warn};

use super::inlets::{Inlets, Round};
use super::late::Late;
use super::{Begin, Counts, Error, Lot, Message, Parts, Refused, answer};
use crate::gateway::links::{Came, Links};
use crate::live::RunChange;
use crate::metrics::{COMMITS, task_ended};

/// The time of day may be set at any time: look at it at least so often.
const LOOK: Duration = Duration::from_secs(1);

/// After a commit that did not succeed, the store is read anew after this pause.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Shell {
    pub(super) parts: Parts,
    pub(super) hub: Hub,
    pub(super) links: Links,
    pub(super) late: Late,
    /// Effects that are performed after the next commit: those that could not be before, and what
    /// has no event of its own.
    pub(super) postponed: Vec<Effect>,
    /// Late words that are recorded: their hosts are told after the next commit.
    noted: Vec<(HostId, Report)>,
    /// Fires of runs that begin with the next commit.
    fires: BTreeMap<RunId, NewFire>,
    /// Said after the next commit.
    answers: Vec<Answer>,
    watch: Watch,
}

/// An answer that waits for the commit, and is told which runs that did not take.
type Answer = Box<dyn FnOnce(&Result<Refused, Error>) + Send + Sync>;

/// What a commit has made true and nobody was told of yet.
#[derive(Default)]
struct Done {
    effects: Vec<Effect>,
    changes: Vec<RunChange>,
    answers: Vec<Answer>,
    refused: Refused,
}

/// What a commit takes, and what is told when it has succeeded.
struct Batch {
    rows: Vec<fw_store::Append>,
    changes: Vec<RunChange>,
}

impl Shell {
    pub(super) fn new(parts: Parts, hub: Hub, late: Late) -> Self {
        let watch = Watch::new(parts.clock.now(), parts.clock.steady());
        let (postponed, noted, answers) = (Vec::new(), Vec::new(), Vec::new());
        let (links, fires) = (Links::default(), BTreeMap::new());
        Self { parts, hub, links, late, postponed, noted, fires, answers, watch }
    }

    pub(super) async fn run(mut self, mut inlets: Inlets) {
        let mut round = Round::default();
        let mut done = Done::default();
        loop {
            if inlets.is_empty() {
                // There is nothing that the store could do meanwhile.
                self.follow(std::mem::take(&mut done)).await;
            }
            let wake = self.hub.next_wake().map(|at| at.since(self.parts.clock.now()).duration());
            let pause = wake.unwrap_or(LOOK).min(LOOK);
            if !inlets.take(&mut round, pause).await {
                return;
            }
            let now = self.parts.clock.now();
            self.watch_clock(now);
            round.lots.drain(..).for_each(|lot| self.begin(lot, now));
            round.messages.drain(..).for_each(|message| self.take(message, now));
            let decisions = self.hub.decide(now);
            done = self.commit(decisions, done).await;
        }
    }

    fn begin(&mut self, lot: Lot, now: Timestamp) {
        let Lot { begins, reply } = lot;
        let runs: Vec<_> = begins.iter().map(|begin| begin.run).collect();
        for Begin { run, plan, by, fire } in begins {
            if self.hub.begin(run, plan, by, now) {
                self.fires.extend(fire.map(|fire| (run, fire)));
            }
        }
        self.answers.push(Box::new(move |outcome| {
            let of_these = |refused: &Refused| {
                let mut refused = refused.clone();
                refused.retain(|run, _| runs.contains(run));
                refused
            };
            answer(reply, outcome.as_ref().map(of_these).map_err(Clone::clone));
        }));
    }

    /// Notices when the time of day was set ahead.
    fn watch_clock(&mut self, now: Timestamp) {
        if let Some(ahead) = self.watch.look(now, self.parts.clock.steady()) {
            warn!(
                "the clock was set ahead by {ahead}; hosts are given time to link before any is given up"
            );
            self.hub.clock_jumped(ahead, now, self.parts.grace);
        }
    }

    fn take(&mut self, message: Message, now: Timestamp) {
        match message {
            Message::Cancel(run, by, reply) => {
                let known = self.hub.cancel(run, by, now);
                self.answer_later(move |outcome| answer(reply, outcome.map(|()| known)));
            }
            Message::CancelHosts(run, hosts, by, reply) => {
                let open = self.hub.cancel_hosts(run, &hosts, by, now);
                self.answer_later(move |outcome| answer(reply, outcome.map(|()| open)));
            }
            Message::CancelUnsent(run, by, reply) => {
                let unsent = self.hub.run(run).map(|run| run.undispatched.iter());
                let unsent: Vec<_> = unsent.into_iter().flatten().map(|(_, host)| *host).collect();
                self.hub.cancel_hosts(run, &unsent, by, now);
                self.answer_later(|outcome| answer(reply, outcome));
            }
            Message::Run(id, reply) => {
                answer(reply, self.hub.run(id).map(|run| self.hub.view(run)));
            }
            Message::Summaries(runs, reply) => {
                let active = runs.iter().filter_map(|id| self.hub.run(*id));
                answer(reply, active.map(|run| self.hub.summary(run)).collect());
            }
            Message::Active(reply) => {
                let job = |run: &Run| (run.id, run.plan.origin.job.clone());
                answer(reply, self.hub.runs().map(job).collect());
            }
            Message::Open(hosts, reply) => {
                let open = |host: HostId| (host, self.hub.open_on(host).collect::<Vec<_>>());
                let open = hosts.into_iter().map(open).filter(|(_, runs)| !runs.is_empty());
                answer(reply, open.collect());
            }
            Message::Online(mut hosts, reply) => {
                hosts.retain(|host| self.hub.online().contains(host));
                answer(reply, hosts.into_iter().collect());
            }
            Message::Counts(reply) => {
                let (hosts_online, runs_active) =
                    (self.hub.online().len(), self.hub.runs().count());
                answer(reply, Counts { hosts_online, runs_active });
            }
            Message::Owns(host, run, reply) => {
                answer(reply, self.hub.run(run).is_some_and(|run| run.tasks.contains_key(&host)));
            }
            Message::LinkOf(host, reply) => answer(reply, self.links.get(host).cloned()),
            Message::Linked(link, digest) => {
                let (host, (_, newest)) = (link.host, link.hello.protocol);
                match self.links.insert(*link) {
                    Came::First => {}
                    Came::Instead => self.hub.unlinked(host, now),
                    Came::Refused => return,
                }
                if newest >= fw_proto::ARMED {
                    self.hub.can_arm(host);
                }
                self.hub.linked(host, digest, now);
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
            // With others of its host in one frame: an outbox is bounded.
            Message::Noted(host, report) => self.noted.push((host, report)),
            Message::Forget(host, why, reply) => {
                self.links.deny(host, why);
                self.hub.gone(host, now);
                self.parts.live.host_changed(host);
                self.answer_later(|outcome| answer(reply, outcome));
            }
            Message::PinKeys(keys, reply) => {
                answer(reply, self.links.send_all(&FromServer::ServerKeys(keys)));
            }
        }
    }

    fn answer_later(&mut self, say: impl FnOnce(Result<(), Error>) + Send + Sync + 'static) {
        self.answers
            .push(Box::new(|outcome| say(outcome.as_ref().map(|_| ()).map_err(Clone::clone))));
    }

    /// Commits; what that makes true is to be performed after. What the commit before made true is
    /// performed while the store works.
    async fn commit(&mut self, decisions: Decisions, before: Done) -> Done {
        let Decisions { appends, mut effects } = decisions;
        let Batch { rows, mut changes } = self.batch(appends);
        match self.store(rows, &mut effects, &mut changes, before).await {
            Ok(refused) => {
                effects.append(&mut self.postponed);
                let noted = std::mem::take(&mut self.noted).into_iter();
                effects.extend(noted.filter_map(|(host, report)| self.hub.recorded(host, report)));
                Done { effects, changes, answers: std::mem::take(&mut self.answers), refused }
            }
            Err(error) => {
                let error = Arc::new(error);
                error!(
                    error = &*error as &dyn std::error::Error,
                    "decisions were not committed; runs are read anew from the store"
                );
                let failed = Err(Error::Store(error));
                self.answers.drain(..).for_each(|answer| answer(&failed));
                self.reload().await;
                Done::default()
            }
        }
    }

    /// Performs what is committed, tells followers and answers those who asked.
    async fn follow(&mut self, done: Done) {
        self.perform(done.effects).await;
        done.changes.iter().for_each(count);
        done.changes.into_iter().for_each(|change| self.parts.live.run_changed(change));
        let outcome = Ok(done.refused);
        done.answers.into_iter().for_each(|answer| answer(&outcome));
    }

    fn batch(&mut self, appends: BTreeMap<RunId, Append>) -> Batch {
        let mut batch = Batch { rows: Vec::with_capacity(appends.len()), changes: Vec::new() };
        for (id, append) in appends {
            let finished = append.finished.as_deref();
            let Some(run) = finished.or_else(|| self.hub.run(id)) else { continue };
            let summary = self.hub.summary(run);
            batch.changes.push(change(run, summary.clone(), &append.changed));
            batch.rows.push(fw_store::Append {
                run: id,
                expected_seq: append.expected_seq,
                events: append.events,
                finished: finished.map(|run| Box::new(run.view(Vec::new()))),
                summary,
                fire: self.fires.remove(&id),
                retry_at: finished.and_then(Run::retry_at),
            });
        }
        batch
    }

    /// Commits the rows. A fire that was decided before takes only its own run out.
    async fn store(
        &mut self,
        rows: Vec<fw_store::Append>,
        effects: &mut Vec<Effect>,
        changes: &mut Vec<RunChange>,
        before: Done,
    ) -> Result<Refused, fw_store::Error> {
        if rows.is_empty() {
            self.follow(before).await;
            return Ok(Refused::new());
        }
        let store = self.parts.store.clone();
        // The store has its work before this begins with its own.
        let refused = tokio::join!(store.commit(rows), self.follow(before)).0?;
        for (run, error) in &refused {
            warn!(run.id = %run, error = error as &dyn std::error::Error, "the run does not begin");
            effects.retain(|effect| effect.run() != *run);
            changes.retain(|change| change.summary.id != *run);
            self.hub.abandon(*run);
        }
        Ok(refused.into_iter().map(|(run, error)| (run, Arc::new(error))).collect())
    }

    /// Begins anew from what is committed. The agents link again and say what they know.
    async fn reload(&mut self) {
        self.fires.clear();
        self.postponed.clear();
        self.noted.clear();
        self.links.close_all();
        loop {
            tokio::time::sleep(RELOAD_PAUSE).await;
            match load(&self.parts).await {
                Ok(hub) => {
                    self.hub = hub;
                    return;
                }
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "runs cannot be read; trying again"
                    );
                }
            }
        }
    }
}

/// A hub with the runs of the store that have not ended.
pub(super) async fn load(parts: &Parts) -> Result<Hub, fw_store::Error> {
    let runs = parts.store.unfinished().await?;
    let mut hub = Hub::new(parts.store.incarnation(), parts.clock.now(), parts.grace);
    if !runs.is_empty() {
        info!(runs.unfinished = runs.len(), "{} unfinished runs taken up", runs.len());
    }
    runs.into_iter().for_each(|run| hub.resume(run));
    Ok(hub)
}

fn change(run: &Run, summary: api::RunSummary, changed: &BTreeSet<HostId>) -> RunChange {
    let tasks = changed.iter().filter_map(|host| run.tasks.get(host));
    let tasks = tasks.map(fw_core::run::Task::view).collect();
    RunChange { summary, tasks, seq: run.seq, retry_at: run.retry_at() }
}

/// Counts a commit and the tasks that ended with it. What a host says late changes no task's end.
fn count(change: &RunChange) {
    metrics::counter!(COMMITS).increment(1);
    change.tasks.iter().filter(|task| task.late.is_none()).for_each(|task| task_ended(task.state));
}
