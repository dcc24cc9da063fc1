//! What the server decides about its runs: which hosts begin, which are given up, what is due.
//!
//! The hub takes in what happens (links, reports, requests, time) and answers with
//! [`Decisions`]: events to commit first, then effects to perform. It decides nothing
//! that is not in an event, so after a crash the fold of the committed events, and the
//! hosts' own digests as they link again, make the same effects due once more.
//!
//! It also holds what is not history: who is linked. A fresh hub knows nobody, and
//! gives its hosts [`GRACE`] to come back before it rules on any of them.

mod active;
pub mod clock;
pub mod links;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::{self, RunState, TaskState};
use fw_proto::frame::{Report, Reported};
use fw_proto::{HostId, Incarnation, RunId, Span, TaskKey, Timestamp};

use self::active::{Active, Due};
pub use self::outgoing::Outgoing;
use crate::plan::Plan;
use crate::run::{self, Actor, Event, Kind, News, Ruling, Run};

/// After a start, so long may hosts take to link before any is ruled on for being away:
/// twice the longest pause between an agent's tries. Tests make it shorter.
pub const GRACE: Span = Span::from_secs(30);

/// All runs that have not ended, and who is linked.
#[derive(Debug)]
pub struct Hub {
    incarnation: Incarnation,
    started_at: Timestamp,
    rules_from: Timestamp,
    online: BTreeSet<HostId>,
    /// Those of them whose agent can undo a change by itself.
    arming: BTreeSet<HostId>,
    runs: BTreeMap<RunId, Active>,
    by_host: BTreeMap<HostId, BTreeSet<RunId>>,
    wakes: BTreeSet<(Timestamp, RunId)>,
    touched: BTreeSet<RunId>,
    heard: BTreeMap<RunId, Vec<(HostId, Reported)>>,
    pending: Decisions,
}

/// What the hub wants done: first the appends, as one transaction, then the effects.
#[derive(Debug, Default, PartialEq)]
pub struct Decisions {
    /// Events to commit.
    pub appends: BTreeMap<RunId, Append>,
    /// What to do once they are.
    pub effects: Vec<Effect>,
}

/// Events of one run.
#[derive(Debug, Default, PartialEq)]
pub struct Append {
    /// How many events the run has before these.
    pub expected_seq: u64,
    /// The events.
    pub events: Vec<Event>,
    /// The run, when these events ended it: the hub holds it no longer.
    pub finished: Option<Box<Run>>,
    /// Hosts whose task these events changed.
    pub changed: BTreeSet<HostId>,
}

/// What the shell does after the commit. Doing it twice does no harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send the start of this task.
    Start {
        /// To which host.
        host: HostId,
        /// Which task.
        key: TaskKey,
        /// Not to start later.
        not_after: Timestamp,
    },
    /// Tell the host to end this task.
    Cancel {
        /// Which host.
        host: HostId,
        /// Which task.
        key: TaskKey,
    },
    /// Tell the host to keep the armed change of this task.
    Keep {
        /// Which host.
        host: HostId,
        /// Which task.
        key: TaskKey,
    },
    /// Tell the host that this task's end is recorded.
    Settle {
        /// Which host.
        host: HostId,
        /// Which task.
        key: TaskKey,
    },
    /// Ask the host what it knows of this task.
    Query {
        /// Which host.
        host: HostId,
        /// Which task.
        key: TaskKey,
    },
    /// A host's last word on a run that is not active: note it if the run's verdict was made
    /// without the host, then tell the host that it is recorded.
    Late {
        /// Which host.
        host: HostId,
        /// What it said.
        report: Report,
    },
    /// A run has ended so.
    Ended {
        /// Which run.
        run: RunId,
        /// How.
        state: RunState,
    },
}

impl Effect {
    /// The run that it belongs to.
    #[must_use]
    pub const fn run(&self) -> RunId {
        match self {
            Self::Start { key, .. }
            | Self::Cancel { key, .. }
            | Self::Keep { key, .. }
            | Self::Settle { key, .. }
            | Self::Query { key, .. } => key.run,
            Self::Late { report, .. } => report.key.run,
            Self::Ended { run, .. } => *run,
        }
    }
}

impl Hub {
    /// A hub for this life of the store, which knows nobody yet and gives them `grace` to come.
    #[must_use]
    pub fn new(incarnation: Incarnation, now: Timestamp, grace: Span) -> Self {
        Self {
            incarnation,
            started_at: now,
            rules_from: now + grace,
            online: BTreeSet::new(),
            arming: BTreeSet::new(),
            runs: BTreeMap::new(),
            by_host: BTreeMap::new(),
            wakes: BTreeSet::new(),
            touched: BTreeSet::new(),
            heard: BTreeMap::new(),
            pending: Decisions::default(),
        }
    }

    /// Takes up a run of the store that has not ended.
    pub fn resume(&mut self, run: Run) {
        self.adopt(run);
    }

    /// Begins a run; false when it goes on already, since a try that seemed to fail had not: then
    /// nothing is to be committed with it.
    pub fn begin(&mut self, id: RunId, plan: Plan, by: Actor, now: Timestamp) -> bool {
        let event = Event { at: now, by, kind: Kind::Planned(Box::new(plan)) };
        let Ok(run) = Run::begin(id, &event) else { return false };
        if self.runs.contains_key(&id) {
            return false;
        }
        if run.finished_at.is_some() {
            self.pending.effects.push(Effect::Ended { run: id, state: run.state() });
        }
        self.pending.push(id, 0, event, run.tasks.keys().copied());
        self.adopt(run);
        true
    }

    /// Asks for the end of a run; false when it is not active. Asking again changes nothing.
    pub fn cancel(&mut self, id: RunId, by: Actor, now: Timestamp) -> bool {
        let Some(active) = self.runs.get(&id) else { return false };
        if active.run.cancel_requested_at.is_none() {
            self.apply(id, by, Kind::CancelRequested, now);
        }
        true
    }

    /// Asks for the end of a run on some hosts alone; gives how many of them it goes on at, `None` when
    /// it is not active. Asking again changes nothing.
    pub fn cancel_hosts(
        &mut self,
        id: RunId,
        hosts: &[HostId],
        by: Actor,
        now: Timestamp,
    ) -> Option<usize> {
        let run = &self.runs.get(&id)?.run;
        let open = |host: &HostId| run.tasks.get(host).is_some_and(|task| !task.state.is_final());
        let open: Vec<_> = hosts.iter().copied().filter(open).collect();
        let count = open.len();
        let hosts: Vec<_> = open.into_iter().filter(|host| !run.is_cancelled(*host)).collect();
        if !hosts.is_empty() {
            self.apply(id, by, Kind::HostsCancelRequested { hosts }, now);
        }
        Some(count)
    }

    /// The agent of a host that links now can undo a change by itself; to be said before
    /// [`Hub::linked`], for each link anew. Of whom it is not said nobody believes it.
    pub fn can_arm(&mut self, host: HostId) {
        self.arming.insert(host);
    }

    /// A host has linked, and says which tasks it has not been told are settled.
    pub fn linked(&mut self, host: HostId, digest: Vec<Report>, now: Timestamp) {
        self.online.insert(host);
        self.forget_held_back(host);
        let known: BTreeSet<TaskKey> = digest.iter().map(|report| report.key).collect();
        digest.into_iter().for_each(|report| self.reported(host, report));
        for id in self.by_host.get(&host).cloned().unwrap_or_default() {
            let Some(active) = self.runs.get_mut(&id) else { continue };
            let restored = active.run.plan.incarnation != self.incarnation;
            let arms = self.arming.contains(&host);
            match active.host_linked(host, &known, restored, arms) {
                Due::Nothing => {}
                Due::Effect(effect) => self.pending.effects.push(effect),
                Due::Ruling(ruling) => {
                    self.apply(id, Actor::Server, Kind::Ruled { hosts: vec![host], ruling }, now);
                }
            }
            self.touched.insert(id);
        }
    }

    /// What a host holds back it has in memory alone, and it says anew on each link what it knows. So such a
    /// word of a link before, of which nothing was decided yet, is none any more.
    fn forget_held_back(&mut self, host: HostId) {
        for run in self.by_host.get(&host).into_iter().flatten() {
            if let Some(heard) = self.heard.get_mut(run) {
                heard.retain(|(of, said)| *of != host || *said != Reported::Queued);
            }
        }
    }

    /// A host's link has ended.
    pub fn unlinked(&mut self, host: HostId, now: Timestamp) {
        self.arming.remove(&host);
        if !self.online.remove(&host) {
            return;
        }
        for id in self.by_host.get(&host).cloned().unwrap_or_default() {
            if let Some(active) = self.runs.get_mut(&id) {
                active.host_unlinked(host, now);
                self.touched.insert(id);
            }
        }
    }

    /// A host said what became of a task.
    pub fn reported(&mut self, host: HostId, mut report: Report) {
        report.state.cut();
        let run = report.key.run;
        let active = self.runs.get(&run).and_then(|active| active.run.tasks.get(&host));
        if active.is_some_and(|task| task.attempt == report.key.attempt) {
            self.heard.entry(run).or_default().push((host, report.state));
            self.touched.insert(run);
        } else if report.state.is_last_word() {
            self.pending.effects.push(Effect::Late { host, report });
        }
    }

    /// A host's last word on a run that was not active is recorded: what the host is told. In a
    /// restored store a run of that id may have begun since; then the word counts for that one, for
    /// the host says it once.
    pub fn recorded(&mut self, host: HostId, report: Report) -> Option<Effect> {
        let key = report.key;
        let task = self.runs.get(&key.run).and_then(|active| active.run.tasks.get(&host));
        if task.is_some_and(|task| !task.state.is_final()) {
            self.reported(host, report);
            return None;
        }
        Some(Effect::Settle { host, key })
    }

    /// A host was revoked or removed: it will not be heard again.
    pub fn gone(&mut self, host: HostId, now: Timestamp) {
        self.unlinked(host, now);
        for id in self.by_host.get(&host).cloned().unwrap_or_default() {
            let Some(task) = self.runs.get(&id).and_then(|active| active.run.tasks.get(&host))
            else {
                continue;
            };
            let ruling = if task.dispatched_at.is_some() {
                Ruling::RevokedSent
            } else {
                Ruling::RevokedUnsent
            };
            self.apply(id, Actor::Server, Kind::Ruled { hosts: vec![host], ruling }, now);
        }
    }

    /// The time of day was set ahead by so much: nobody was silent for that long.
    pub fn clock_jumped(&mut self, by: Span, now: Timestamp, grace: Span) {
        self.rules_from = now + grace;
        for (id, active) in &mut self.runs {
            active.silent.shift(by);
            self.touched.insert(*id);
        }
    }

    /// Lets go of a run that could not be committed.
    pub fn abandon(&mut self, id: RunId) {
        let Some(active) = self.runs.remove(&id) else { return };
        active.run.tasks.keys().for_each(|host| forget(&mut self.by_host, *host, id));
        self.wakes.retain(|(_, run)| *run != id);
    }

    /// A start with secrets was sent on the link that the host has.
    pub fn sent_secrets(&mut self, host: HostId, run: RunId) {
        if let Some(active) = self.runs.get_mut(&run) {
            active.sent.insert(host);
        }
    }

    /// A secret that a dispatched task needs is gone: nothing was sent. Unless the same start went out
    /// on this link while the secret was there, for it is due twice when a host links just as its
    /// dispatch is committed; then the host will say what became of that.
    pub fn no_secret(&mut self, host: HostId, run: RunId, now: Timestamp) {
        if self.runs.get(&run).is_some_and(|active| !active.sent.contains(&host)) {
            self.apply(
                run,
                Actor::Server,
                Kind::Ruled { hosts: vec![host], ruling: Ruling::NoSecret },
                now,
            );
        }
    }

    /// When [`Hub::decide`] has something to decide by time alone.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Decides all that can be decided now.
    pub fn decide(&mut self, now: Timestamp) -> Decisions {
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            if let Some(active) = self.runs.get_mut(&id) {
                active.wake = None;
                self.touched.insert(id);
            }
        }
        for (id, reports) in std::mem::take(&mut self.heard) {
            self.hear(id, reports, now);
        }
        while let Some(id) = self.touched.pop_first() {
            while let Some(kind) = self.next_for(id, now) {
                self.apply(id, Actor::Server, kind, now);
            }
            self.close_or_sleep(id);
        }
        std::mem::take(&mut self.pending)
    }

    /// A run that has not ended.
    #[must_use]
    pub fn run(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id).map(|active| &active.run)
    }

    /// Whether a start that was decided is still wanted. Since then the hub may have ruled that its host
    /// has never had it and will not; then it must not have it. Should that ruling not be committed,
    /// the start is due again. Nor must an older agent have an armed change, if the host has linked with
    /// one since.
    #[must_use]
    pub fn wants(&self, host: HostId, key: TaskKey) -> bool {
        let Some(active) = self.runs.get(&key.run) else { return false };
        let task = active.run.tasks.get(&host);
        let open = task.is_some_and(|task| task.attempt == key.attempt && !task.state.is_final());
        open && (!active.is_armed() || self.arming.contains(&host))
    }

    /// Whether someone has asked for the end of a run on a host. That wish may have come to a host which
    /// did not know its task yet: it goes with each start.
    #[must_use]
    pub fn is_cancelled(&self, id: RunId, host: HostId) -> bool {
        self.run(id).is_some_and(|run| run.is_cancelled(host))
    }

    /// All runs that have not ended.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().map(|active| &active.run)
    }

    /// The runs that have not ended on a host, also those whose turn there has not come.
    pub fn open_on(&self, host: HostId) -> impl Iterator<Item = RunId> {
        self.by_host.get(&host).into_iter().flatten().copied()
    }

    /// The hosts that are linked.
    #[must_use]
    pub fn online(&self) -> &BTreeSet<HostId> {
        &self.online
    }

    /// A run as a list shows it, with what it is waiting on.
    #[must_use]
    pub fn summary(&self, run: &Run) -> api::RunSummary {
        run.summary(self.waiting_on(run))
    }

    /// A run with its tasks and what it is waiting on.
    #[must_use]
    pub fn view(&self, run: &Run) -> api::Run {
        run.view(self.waiting_on(run))
    }

    fn waiting_on(&self, run: &Run) -> Vec<api::WaitingOn> {
        // A run that the hub no longer holds has ended: no host of it is undispatched.
        let here = self.runs.get(&run.id).map_or(0, Active::here);
        run.waiting_on(here, run.plan.incarnation != self.incarnation)
    }

    fn adopt(&mut self, run: Run) {
        let id = run.id;
        let mut active = Active::new(run);
        let restored = active.run.plan.incarnation != self.incarnation;
        let open = active.run.tasks.iter().filter(|(_, task)| !task.state.is_final());
        for host in open.map(|(host, _)| *host).collect::<Vec<_>>() {
            self.by_host.entry(host).or_default().insert(id);
            if self.online.contains(&host) {
                let arms = self.arming.contains(&host);
                let due = active.host_linked(host, &BTreeSet::new(), restored, arms);
                if let Due::Effect(effect) = due {
                    self.pending.effects.push(effect);
                }
            } else {
                active.host_unlinked(host, self.started_at);
            }
        }
        self.runs.insert(id, active);
        self.touched.insert(id);
    }

    /// Turns what hosts said about one run into events. What says nothing new becomes none.
    fn hear(&mut self, id: RunId, reports: Vec<(HostId, Reported)>, now: Timestamp) {
        let Some(active) = self.runs.get(&id) else { return };
        let (mut asked, mut news) = (Vec::new(), Vec::new());
        for (host, said) in reports {
            match active.run.news(host, &said) {
                News::None => {}
                News::Again => {
                    self.pending.effects.extend(active.effect(run::Effect::Settle(host)));
                }
                News::Waits => self.pending.effects.extend(active.effect(active.run.word(host))),
                News::NeverStarted => asked.push(host),
                News::Event => news.push((host, said)),
            }
        }
        // In this life of the store a host that was sent the start is believed when it comes to it,
        // but not one that spoke first, of the same run in an earlier life, and has lost it since.
        let restored = active.run.plan.incarnation != self.incarnation;
        asked.retain(|host| restored || active.run.was_taken_up(*host));
        let (unsent, asked): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|host| active.run.is_cancelled(*host));
        if !unsent.is_empty() {
            let ruling = Ruling::CancelledUnsent;
            self.apply(id, Actor::Server, Kind::Ruled { hosts: unsent, ruling }, now);
        }
        if !asked.is_empty() {
            self.apply(id, Actor::Server, Kind::Asked { hosts: asked }, now);
        }
        if !news.is_empty() {
            self.apply(id, Actor::Server, Kind::Reported { reports: news }, now);
        }
    }

    /// The next thing to decide about a run, if there is one.
    fn next_for(&self, id: RunId, now: Timestamp) -> Option<Kind> {
        let active = self.runs.get(&id)?;
        active
            .overspent()
            .or_else(|| active.lost(now))
            .or_else(|| active.away(now, self.rules_from))
            .or_else(|| active.dispatch(now, self.incarnation, &self.arming))
    }

    fn apply(&mut self, id: RunId, by: Actor, kind: Kind, now: Timestamp) {
        let Some(active) = self.runs.get_mut(&id) else { return };
        let changed = kind.hosts(&active.run);
        let event = Event { at: now, by, kind };
        let expected_seq = active.run.seq;
        let due = active.run.step(&event);
        self.pending.effects.extend(due.into_iter().filter_map(|effect| active.effect(effect)));
        for host in &changed {
            active.follow(*host, &self.online, self.incarnation, now);
            if active.run.tasks.get(host).is_none_or(|task| task.state.is_final()) {
                forget(&mut self.by_host, *host, id);
            }
        }
        self.pending.push(id, expected_seq, event, changed);
        self.touched.insert(id);
    }

    fn close_or_sleep(&mut self, id: RunId) {
        let Some(active) = self.runs.get_mut(&id) else { return };
        if let Some(at) = active.wake.take() {
            self.wakes.remove(&(at, id));
        }
        if active.run.finished_at.is_some() {
            let run = self.runs.remove(&id).map(|active| Box::new(active.run));
            self.pending.appends.entry(id).or_default().finished = run;
        } else if let Some(at) = active.wakes_at(self.rules_from) {
            active.wake = Some(at);
            self.wakes.insert((at, id));
        }
    }
}

fn forget(by_host: &mut BTreeMap<HostId, BTreeSet<RunId>>, host: HostId, run: RunId) {
    if let Some(runs) = by_host.get_mut(&host) {
        runs.remove(&run);
        if runs.is_empty() {
            by_host.remove(&host);
        }
    }
}

impl Kind {
    /// The hosts whose task an event changes.
    fn hosts(&self, run: &Run) -> Vec<HostId> {
        match self {
            Self::Planned(plan) => plan.hosts.iter().map(|host| host.id).collect(),
            Self::Dispatched { hosts, .. }
            | Self::Asked { hosts }
            | Self::Ruled { hosts, .. }
            | Self::HostsCancelRequested { hosts } => hosts.clone(),
            Self::Reported { reports } => reports.iter().map(|(host, _)| *host).collect(),
            Self::CancelRequested => run.undispatched.iter().map(|(_, host)| *host).collect(),
        }
    }
}

impl Decisions {
    fn push(
        &mut self,
        run: RunId,
        expected_seq: u64,
        event: Event,
        changed: impl IntoIterator<Item = HostId>,
    ) {
        let append =
            self.appends.entry(run).or_insert_with(|| Append { expected_seq, ..Append::default() });
        append.events.push(event);
        append.changed.extend(changed);
    }
}

/// What a finished task of the store should say of a report that comes after its run has ended;
/// `None` when the report is the one that made the verdict, or says nothing new.
#[must_use]
pub fn late_note(task: &api::Task, said: &Reported) -> Option<String> {
    let made_without_host = matches!(
        task.state,
        TaskState::Lost | TaskState::Skipped | TaskState::Failed | TaskState::Cancelled
    ) && task.finished_at.is_none();
    if !made_without_host || task.message.is_some() || task.late.is_some() {
        return None;
    }
    run::late_text(said)
}

#[cfg(test)]
mod tests;
