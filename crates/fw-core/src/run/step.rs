//! `Run::step`: the only way a run changes.
//!
//! Late and repeated events change no verdict: a host that speaks after its task was
//! settled is recorded as late. Each host named costs O(log hosts).

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::{Armed, RunState, TaskReason, TaskState};
use fw_proto::frame::{Cause, Ended, Fate, Refusal, RefusalReason, Reported};
use fw_proto::record::Offsets;
use fw_proto::{HostId, Incarnation, RunId, Span, Timestamp};

use super::event::{Actor, Event, Kind, Ruling};
use super::state::{Run, Task};
use crate::plan::{Chosen, Plan};

/// What a step makes due. The shell performs it after the event is committed; performing it
/// again does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Send the start to this host.
    Start(HostId),
    /// Tell this host to end its task.
    Cancel(HostId),
    /// Tell this host to keep its armed change.
    Keep(HostId),
    /// Tell this host that its report is recorded.
    Settle(HostId),
    /// The run has ended so.
    Ended(RunState),
}

/// What a report would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// Nothing, but the host is to be told that its last word is recorded.
    Again,
    /// Nothing, but the host waits for the word on its armed change.
    Waits,
    /// The host does not know the task.
    NeverStarted,
    /// The run.
    Event,
}

/// A history that does not begin with [`Kind::Planned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run's first event must be its plan")]
pub struct NotPlanned;

impl Run {
    /// Begins a run with its first event.
    ///
    /// # Errors
    /// The event is not [`Kind::Planned`].
    pub fn begin(id: RunId, first: &Event) -> Result<Self, NotPlanned> {
        let Kind::Planned(plan) = &first.kind else { return Err(NotPlanned) };
        let tasks: BTreeMap<_, _> =
            (0..).zip(&plan.hosts).map(|(place, host)| (host.id, Task::new(place, host))).collect();
        let open = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        Ok(Self {
            id,
            by: first.by.clone(),
            created_at: first.at,
            seq: 1,
            counts: BTreeMap::from([(TaskState::Queued, open)]),
            undispatched: tasks.iter().map(|(id, task)| (task.place, *id)).collect::<BTreeSet<_>>(),
            tasks,
            in_flight: 0,
            open,
            failures: 0,
            moved_at: first.at,
            cancel_requested_at: None,
            cancelled_by: None,
            finished_at: (open == 0).then_some(first.at),
            plan: Plan::clone(plan),
        })
    }

    /// Folds a whole history.
    ///
    /// # Errors
    /// It does not begin with [`Kind::Planned`].
    pub fn fold<'a>(
        id: RunId,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, NotPlanned> {
        let mut events = events.into_iter();
        let mut run = Self::begin(id, events.next().ok_or(NotPlanned)?)?;
        for event in events {
            run.step(event);
        }
        Ok(run)
    }

    /// Applies one event.
    pub fn step(&mut self, event: &Event) -> Vec<Effect> {
        self.seq += 1;
        let was_final = self.finished_at.is_some();
        let mut effects = Vec::new();
        match &event.kind {
            Kind::Planned(_) => {}
            Kind::Dispatched { hosts, not_after } => {
                effects.extend(
                    hosts.iter().filter_map(|host| self.dispatched(*host, *not_after, event.at)),
                );
            }
            Kind::Asked { hosts } => hosts.iter().for_each(|host| self.asked(*host)),
            Kind::Reported { reports } => {
                effects.extend(
                    reports.iter().filter_map(|(host, said)| self.reported(*host, said, event.at)),
                );
            }
            Kind::Ruled { hosts, ruling } => {
                hosts.iter().for_each(|host| self.ruled(*host, *ruling, event.at));
            }
            Kind::CancelRequested => effects.extend(self.cancel(&event.by, event.at)),
            Kind::HostsCancelRequested { hosts } => {
                effects.extend(hosts.iter().filter_map(|host| self.cancel_host(*host, event.at)));
            }
        }
        if self.open == 0 && !was_final {
            self.finished_at = Some(event.at);
            effects.push(Effect::Ended(self.state()));
        }
        effects
    }

    /// When the turn of a host comes, by its place in the plan: at once, or so that all places divide
    /// the spread evenly.
    #[must_use]
    pub fn turn_at(&self, place: u32) -> Timestamp {
        let Some(spread) = self.plan.limits.spread else { return self.created_at };
        let places = u64::try_from(self.tasks.len()).unwrap_or(u64::MAX).max(1);
        let (each, rest) = (spread.as_millis() / places, spread.as_millis() % places);
        let place = u64::from(place);
        self.created_at + Span::from_millis(each * place + rest * place / places)
    }

    /// Until when a host whose turn comes `now` may start. In a run whose hosts take turns that is
    /// counted from the turn. A run of an older life of the store gets no new time: what a backup
    /// calls undone may have been done since.
    #[must_use]
    pub fn not_after(&self, now: Timestamp, incarnation: Incarnation) -> Timestamp {
        let limits = &self.plan.limits;
        let turns = (limits.takes_turns() || limits.spread.is_some())
            && self.plan.incarnation == incarnation;
        let from = if turns { now.max(self.created_at) } else { self.created_at };
        from + limits.start_within
    }

    /// What a host's report would change.
    #[must_use]
    pub fn news(&self, host: HostId, said: &Reported) -> News {
        let Some(task) = self.tasks.get(&host) else { return News::None };
        let confirmed = task.confirmed_at.is_some();
        match said {
            Reported::NotKnown if task.state.is_final() => News::None,
            Reported::NotKnown if !confirmed => News::NeverStarted,
            Reported::Queued if confirmed || task.state.is_final() || self.waits(host, task) => {
                News::None
            }
            Reported::Started(_) if confirmed || task.state.is_final() => News::None,
            Reported::Applied(_) if task.state.is_final() => News::None,
            Reported::Applied(_) if task.armed == Some(Armed::Waiting) => News::Waits,
            Reported::Ended(_) | Reported::Refused(_) | Reported::Unknown(_)
                if task.heard_out() =>
            {
                News::Again
            }
            Reported::NotKnown | Reported::Queued | Reported::Started(_) | Reported::Applied(_) => {
                News::Event
            }
            Reported::Ended(_) | Reported::Refused(_) | Reported::Unknown(_) => News::Event,
        }
    }

    /// Whether a host is known to hold the task back until it has a slot.
    fn waits(&self, host: HostId, task: &Task) -> bool {
        task.state == TaskState::Queued && !self.undispatched.contains(&(task.place, host))
    }

    fn dispatched(&mut self, host: HostId, not_after: Timestamp, at: Timestamp) -> Option<Effect> {
        let task = self.tasks.get_mut(&host)?;
        if !self.undispatched.remove(&(task.place, host)) {
            return None;
        }
        task.dispatched_at = Some(at);
        task.not_after = Some(not_after);
        self.in_flight += 1;
        self.moved_at = at;
        self.shift(host, TaskState::Starting);
        Some(Effect::Start(host))
    }

    /// The host does not know the task: it did not start there, so it is to be dispatched (again).
    fn asked(&mut self, host: HostId) {
        let Some(task) = self.tasks.get_mut(&host) else { return };
        if task.state.is_final() || task.confirmed_at.is_some() {
            return;
        }
        task.asked = true;
        if self.undispatched.insert((task.place, host)) {
            task.dispatched_at = None;
            task.not_after = None;
            self.in_flight -= 1;
            self.shift(host, TaskState::Queued);
        }
    }

    fn reported(&mut self, host: HostId, said: &Reported, at: Timestamp) -> Option<Effect> {
        let task = self.tasks.get_mut(&host)?;
        if task.state.is_final() {
            return task.hear_late(said).then_some(Effect::Settle(host));
        }
        match said {
            Reported::NotKnown if task.confirmed_at.is_none() => None,
            Reported::NotKnown => {
                task.message = Some("the host no longer knows this task".to_owned());
                self.settle(host, TaskState::Unknown, at);
                None
            }
            Reported::Queued => {
                self.take_up(host);
                self.shift(host, TaskState::Queued);
                None
            }
            Reported::Started(started_at) => {
                task.confirmed_at = Some(at);
                task.started_at = Some(*started_at);
                self.take_up(host);
                self.shift(host, TaskState::Running);
                self.is_cancelled(host).then_some(Effect::Cancel(host))
            }
            Reported::Applied(applied) => {
                task.confirmed_at.get_or_insert(at);
                task.started_at = Some(applied.started_at);
                task.armed = Some(Armed::Waiting);
                self.take_up(host);
                self.shift(host, TaskState::Running);
                Some(self.word(host))
            }
            Reported::Ended(ended) => {
                let state = task.ended(ended, self.plan.exec.armed.is_some());
                self.settle(host, state, at);
                Some(Effect::Settle(host))
            }
            Reported::Refused(refusal) => {
                let state = task.refused(refusal);
                self.settle(host, state, at);
                Some(Effect::Settle(host))
            }
            Reported::Unknown(why) => {
                task.message = Some(why.clone());
                self.settle(host, TaskState::Unknown, at);
                Some(Effect::Settle(host))
            }
        }
    }

    fn ruled(&mut self, host: HostId, ruling: Ruling, at: Timestamp) {
        let Some(task) = self.tasks.get_mut(&host).filter(|task| !task.state.is_final()) else {
            return;
        };
        let (state, reason) = match ruling {
            Ruling::OfflineFailed => (TaskState::Failed, Some(TaskReason::Offline)),
            Ruling::OfflineSkipped => (TaskState::Skipped, Some(TaskReason::Offline)),
            Ruling::BudgetSpent => (TaskState::Skipped, Some(TaskReason::Budget)),
            Ruling::CancelledUnsent => (TaskState::Cancelled, None),
            Ruling::Lost => (TaskState::Lost, None),
            Ruling::RevokedUnsent => (TaskState::Failed, Some(TaskReason::Revoked)),
            Ruling::RevokedSent => (TaskState::Lost, Some(TaskReason::Revoked)),
            Ruling::NoSecret => (TaskState::Failed, Some(TaskReason::NoSecret)),
            Ruling::AgentOld => (TaskState::Failed, Some(TaskReason::AgentOld)),
        };
        task.reason = reason;
        self.settle(host, state, at);
    }

    fn cancel(&mut self, by: &Actor, at: Timestamp) -> Vec<Effect> {
        if self.finished_at.is_some() || self.cancel_requested_at.is_some() {
            return Vec::new();
        }
        self.cancel_requested_at = Some(at);
        self.cancelled_by = Some(by.clone());
        let unsent: Vec<_> = self.undispatched.iter().map(|(_, host)| *host).collect();
        for host in unsent {
            self.ruled(host, Ruling::CancelledUnsent, at);
        }
        self.tasks
            .iter()
            .filter(|(_, task)| !task.state.is_final())
            .map(|(host, _)| Effect::Cancel(*host))
            .collect()
    }

    /// Ends one host's part. Whoever has begun must say so itself.
    fn cancel_host(&mut self, host: HostId, at: Timestamp) -> Option<Effect> {
        let task = self.tasks.get_mut(&host).filter(|task| !task.state.is_final())?;
        task.cancel_requested_at.get_or_insert(at);
        if self.undispatched.contains(&(task.place, host)) {
            self.ruled(host, Ruling::CancelledUnsent, at);
            return None;
        }
        Some(Effect::Cancel(host))
    }

    /// Whether someone has asked for the end of a host's task, or of the whole run.
    #[must_use]
    pub fn is_cancelled(&self, host: HostId) -> bool {
        let alone = self.tasks.get(&host).and_then(|task| task.cancel_requested_at);
        alone.or(self.cancel_requested_at).is_some()
    }

    /// The word for a host whose armed change waits: keep it, unless its end was asked for.
    pub(crate) fn word(&self, host: HostId) -> Effect {
        if self.is_cancelled(host) { Effect::Cancel(host) } else { Effect::Keep(host) }
    }

    /// Whether a host is in flight only because it said so: nobody here dispatched it.
    #[must_use]
    pub fn was_taken_up(&self, host: HostId) -> bool {
        let task = self.tasks.get(&host).filter(|task| !task.state.is_final());
        task.is_some_and(|task| {
            task.not_after.is_none() && !self.undispatched.contains(&(task.place, host))
        })
    }

    /// Counts a host as in flight, when a report shows that it is though nobody here dispatched it.
    fn take_up(&mut self, host: HostId) {
        let Some(task) = self.tasks.get(&host) else { return };
        if self.undispatched.remove(&(task.place, host)) {
            self.in_flight += 1;
        }
    }

    fn settle(&mut self, host: HostId, to: TaskState, at: Timestamp) {
        let Some(task) = self.tasks.get_mut(&host) else { return };
        // A job cancels a run only to put its next one in the place.
        if to == TaskState::Cancelled && matches!(self.cancelled_by, Some(Actor::Job(_))) {
            task.reason.get_or_insert(TaskReason::Replaced);
        }
        if !self.undispatched.remove(&(task.place, host)) {
            self.in_flight -= 1;
        }
        self.open -= 1;
        self.failures += u32::from(to.is_failure());
        self.moved_at = at;
        self.shift(host, to);
    }

    fn shift(&mut self, host: HostId, to: TaskState) {
        let Some(task) = self.tasks.get_mut(&host) else { return };
        let from = std::mem::replace(&mut task.state, to);
        if let Some(count) = self.counts.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&from);
            }
        }
        *self.counts.entry(to).or_default() += 1;
    }
}

/// What the end of a main process amounts to.
fn verdict(ended: &Ended) -> TaskState {
    match ended.cause {
        Cause::TimedOut => TaskState::TimedOut,
        Cause::Cancelled => TaskState::Cancelled,
        Cause::Exited if ended.exit_code == Some(0) => TaskState::Succeeded,
        Cause::Exited => TaskState::Failed,
    }
}

/// What the fate of an armed change amounts to. Undone at the wish of a person it has not failed.
const fn armed_verdict(fate: Fate, cause: Cause) -> (TaskState, TaskReason) {
    match (fate, cause) {
        (Fate::Kept, _) => (TaskState::Succeeded, TaskReason::Kept),
        (Fate::Undone, Cause::Exited) => (TaskState::Failed, TaskReason::Undone),
        (Fate::Undone, Cause::TimedOut) => (TaskState::TimedOut, TaskReason::Undone),
        (Fate::Undone, Cause::Cancelled) => (TaskState::Cancelled, TaskReason::Undone),
        (Fate::UndoFailed, _) => (TaskState::Failed, TaskReason::UndoFailed),
    }
}

impl Task {
    fn new(place: u32, host: &Chosen) -> Self {
        Self {
            name: host.name.clone(),
            place,
            state: TaskState::Queued,
            reason: None,
            message: None,
            attempt: 1,
            dispatched_at: None,
            not_after: None,
            confirmed_at: None,
            asked: false,
            cancel_requested_at: None,
            started_at: None,
            finished_at: None,
            cause: None,
            exit_code: None,
            signal: None,
            output: Offsets::default(),
            stdout_sha256: None,
            stderr_sha256: None,
            left_behind: 0,
            late: None,
            armed: None,
        }
    }

    /// Takes over what a host says of its end; where the task stands then. `armed`: the change had an undo.
    fn ended(&mut self, ended: &Ended, armed: bool) -> TaskState {
        self.cause = Some(ended.cause);
        self.exit_code = ended.exit_code;
        self.signal = ended.signal;
        self.started_at = Some(ended.started_at);
        self.finished_at = Some(ended.finished_at);
        self.output = ended.output;
        self.stdout_sha256 = ended.stdout_sha256;
        self.stderr_sha256 = ended.stderr_sha256;
        self.left_behind = ended.left_behind;
        let Some(fate) = ended.armed else {
            if armed {
                self.message = Some("the host does not say whether the change was kept".to_owned());
                return TaskState::Unknown;
            }
            return verdict(ended);
        };
        let (state, reason) = armed_verdict(fate, ended.cause);
        self.reason = Some(reason);
        self.armed = reason.armed();
        state
    }

    fn refused(&mut self, refusal: &Refusal) -> TaskState {
        self.message = Some(refusal.message.clone());
        let (state, reason) = match refusal.reason {
            RefusalReason::Expired => (TaskState::Refused, Some(TaskReason::Expired)),
            RefusalReason::Fenced => (TaskState::Refused, Some(TaskReason::Fenced)),
            RefusalReason::Policy => (TaskState::Refused, Some(TaskReason::Policy)),
            RefusalReason::QueueFull => (TaskState::Refused, Some(TaskReason::QueueFull)),
            RefusalReason::User => (TaskState::Refused, Some(TaskReason::User)),
            RefusalReason::Spawn => (TaskState::Failed, Some(TaskReason::Spawn)),
            RefusalReason::Disk => (TaskState::Refused, Some(TaskReason::Disk)),
            RefusalReason::Cancelled => (TaskState::Cancelled, None),
        };
        self.reason = reason;
        state
    }

    /// Whether the verdict is what the host said: its report may come again, and is not late then.
    fn told(&self) -> bool {
        self.finished_at.is_some() || self.message.is_some()
    }

    /// Whether a last word of the host would say nothing new.
    fn heard_out(&self) -> bool {
        self.state.is_final() && (self.told() || self.late.is_some())
    }

    /// Notes what a host says after the verdict; whether it is to be told that this is recorded.
    fn hear_late(&mut self, said: &Reported) -> bool {
        if !self.told() {
            self.late = late_text(said).or_else(|| self.late.take());
        }
        match said {
            Reported::NotKnown | Reported::Queued | Reported::Started(_) | Reported::Applied(_) => {
                false
            }
            Reported::Ended(_) | Reported::Refused(_) | Reported::Unknown(_) => true,
        }
    }
}

/// What to note of something that a host says after the verdict.
pub(crate) fn late_text(said: &Reported) -> Option<String> {
    match said {
        Reported::NotKnown | Reported::Queued => None,
        Reported::Started(at) => Some(format!("started at {at}")),
        Reported::Applied(applied) => Some(format!("changed at {}", applied.at)),
        Reported::Ended(ended) => Some(late_end(ended)),
        Reported::Refused(refusal) => Some(format!("refused: {}", refusal.message)),
        Reported::Unknown(why) => Some(format!("unknown: {why}")),
    }
}

fn late_end(ended: &Ended) -> String {
    let at = ended.finished_at;
    let text = match (ended.exit_code, ended.signal) {
        (Some(code), _) => format!("ended at {at} with exit code {code}"),
        (None, Some(signal)) => format!("ended at {at} by signal {signal}"),
        (None, None) => format!("ended at {at}"),
    };
    match ended.armed {
        None => text,
        Some(fate) => format!("{text}; {}", fate_text(fate)),
    }
}

/// For people: what became of an armed change.
pub(crate) const fn fate_text(fate: Fate) -> &'static str {
    match fate {
        Fate::Kept => "the change was kept",
        Fate::Undone => "the change was undone",
        Fate::UndoFailed => "the change could not be undone",
    }
}
