//! The table of tasks on one host: what runs, what waits, what was ever started.
//!
//! A task starts at most once. The table says *journal this* before it says *spawn this*,
//! and the shell does the first durably before it answers [`Table::journaled`]. What the
//! host cannot tell after a power cut becomes `unknown`, never a second start.

use std::collections::{BTreeMap, VecDeque};

use fw_proto::frame::{Ended, Refusal, RefusalReason, Report, Reported, Spec, Start};
use fw_proto::{Epoch, Span, TaskKey, Timestamp};

/// Ids are remembered this long after their `not_after`: a start that is older is refused by
/// its own expiry, clocks off by up to a day included.
pub const REMEMBER: Span = Span::from_secs(24 * 3600);

/// How many tasks run at once when nobody says.
pub const MAX_RUNNING: usize = 64;

/// How many tasks wait for a slot; further ones are refused. Sixteen per slot keep an hour of
/// short jobs, and their specs stay below a few megabytes.
pub const MAX_QUEUED: usize = 1024;

/// The tasks of one host.
#[derive(Debug)]
pub struct Table {
    max_running: usize,
    epoch: Epoch,
    tasks: BTreeMap<TaskKey, Entry>,
    queue: VecDeque<TaskKey>,
    busy: usize,
    remembered: BTreeMap<TaskKey, Timestamp>,
}

/// A task that the server has not settled.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    not_after: Timestamp,
    state: State,
}

/// Where a task stands on its host.
#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Waits for a slot; known only in memory.
    Queued(Box<Spec>),
    /// Its id is being written to disk.
    Journaling(Box<Spec>),
    /// Its supervisor is being started, and has not said that the process runs.
    Starting,
    /// Its process runs.
    Running(Timestamp),
    /// Its process ended; output may be left to ship.
    Ended(Box<Ended>),
    /// It was not started.
    Refused(Refusal),
    /// Nobody can tell.
    Unknown(String),
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write to disk that this task may be started from now on, then call [`Table::journaled`].
    Journal {
        /// Which task.
        key: TaskKey,
        /// Until when its id matters, but for [`REMEMBER`].
        not_after: Timestamp,
    },
    /// Write to disk that this is the highest epoch seen.
    Epoch(Epoch),
    /// Ask the policy, then start a supervisor.
    Spawn {
        /// Which task.
        key: TaskKey,
        /// What to start.
        spec: Box<Spec>,
    },
    /// Tell the supervisor to end the task.
    Kill(TaskKey),
    /// Tell the server, if there is a link.
    Report(Report),
    /// Ship the rest of the output, then call [`Table::shipped`].
    Ship(TaskKey),
    /// Write to disk that the task is settled, then delete its spool.
    Forget(TaskKey),
}

/// What a restarted agent finds of a task in journal and spool.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Journal only, or a spool without a start mark, and its supervisor is gone.
    NotStarted,
    /// The supervisor lives; the process runs since then, or is about to.
    Running(Option<Timestamp>),
    /// It ended.
    Ended(Box<Ended>),
    /// It could not be started.
    Refused(Refusal),
    /// It was started; its supervisor is gone without a word.
    Dead,
}

impl Found {
    /// In a few words, for a log.
    #[must_use]
    pub const fn describe(&self) -> &'static str {
        match self {
            Self::NotStarted => "never started",
            Self::Running(_) => "running",
            Self::Ended(_) => "ended",
            Self::Refused(_) => "refused",
            Self::Dead => "without its supervisor",
        }
    }
}

impl Table {
    /// An empty table; `epoch` is the highest that the journal names.
    #[must_use]
    pub fn new(max_running: usize, epoch: Epoch) -> Self {
        let (tasks, queue, remembered) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Self { max_running, epoch, tasks, queue, busy: 0, remembered }
    }

    /// Remembers a settled task of the journal.
    pub fn remember(&mut self, key: TaskKey, not_after: Timestamp) {
        self.remembered.insert(key, not_after);
    }

    /// Takes up a task of the journal that is not settled. `same_boot`: the machine has not been
    /// down since, so what is not on its disk never was.
    pub fn recover(
        &mut self,
        key: TaskKey,
        not_after: Timestamp,
        found: Found,
        same_boot: bool,
    ) -> Vec<Effect> {
        let state = match found {
            Found::NotStarted if same_boot => return vec![Effect::Forget(key)],
            Found::NotStarted => {
                State::Unknown("the machine went down while this task was being started".to_owned())
            }
            Found::Running(None) => State::Starting,
            Found::Running(Some(at)) => State::Running(at),
            Found::Ended(ended) => State::Ended(ended),
            Found::Refused(refusal) => State::Refused(refusal),
            Found::Dead => {
                State::Unknown("its supervisor was killed, or the machine went down".to_owned())
            }
        };
        let ship = matches!(state, State::Ended(_)).then_some(Effect::Ship(key));
        self.busy += usize::from(state.holds_slot());
        self.tasks.insert(key, Entry { not_after, state });
        ship.into_iter().collect()
    }

    /// The server asks for a start.
    pub fn start(&mut self, start: Start, now: Timestamp) -> Vec<Effect> {
        let key = start.key;
        if let Some(known) = self.known(key) {
            return vec![Effect::Report(Report { key, state: known })];
        }
        let mut effects = Vec::new();
        if start.epoch > self.epoch {
            self.epoch = start.epoch;
            effects.push(Effect::Epoch(start.epoch));
        }
        let state = match self.refusal(&start, now) {
            Some(refusal) => State::Refused(refusal),
            None => State::Queued(Box::new(start.spec)),
        };
        let queued = matches!(state, State::Queued(_));
        self.tasks.insert(key, Entry { not_after: start.not_after, state });
        if queued {
            self.queue.push_back(key);
            effects.extend(self.fill(now));
        }
        if self.tasks.get(&key).is_some_and(|entry| !matches!(entry.state, State::Journaling(_))) {
            effects.extend(self.report(key));
        }
        effects
    }

    /// The id is on disk: the task may start.
    pub fn journaled(&mut self, key: TaskKey) -> Option<Effect> {
        let entry = self.tasks.get_mut(&key)?;
        if !matches!(entry.state, State::Journaling(_)) {
            return None;
        }
        let State::Journaling(spec) = std::mem::replace(&mut entry.state, State::Starting) else {
            return None;
        };
        Some(Effect::Spawn { key, spec })
    }

    /// The task was not started after all, for this reason; also when its id could not be written.
    pub fn refused(&mut self, key: TaskKey, refusal: Refusal, now: Timestamp) -> Vec<Effect> {
        self.leave_slot(key, State::Refused(refusal), now)
    }

    /// The supervisor says that the process runs.
    pub fn started(&mut self, key: TaskKey, at: Timestamp) -> Option<Effect> {
        let entry = self.tasks.get_mut(&key)?;
        if entry.state != State::Starting {
            return None;
        }
        entry.state = State::Running(at);
        self.report(key)
    }

    /// The supervisor has written the final status: the slot is free, the output remains to be shipped.
    pub fn ended(&mut self, key: TaskKey, ended: Ended, now: Timestamp) -> Vec<Effect> {
        let mut effects = self.leave_slot(key, State::Ended(Box::new(ended)), now);
        effects.retain(|effect| !matches!(effect, Effect::Report(report) if report.key == key));
        effects.push(Effect::Ship(key));
        effects
    }

    /// The supervisor is gone without a final status.
    pub fn died(&mut self, key: TaskKey, now: Timestamp) -> Vec<Effect> {
        self.leave_slot(key, State::Unknown("its supervisor was killed".to_owned()), now)
    }

    /// All output of an ended task was sent on this link: now its end may be told.
    #[must_use]
    pub fn shipped(&self, key: TaskKey) -> Option<Effect> {
        match &self.tasks.get(&key)?.state {
            State::Ended(ended) => {
                let state = Reported::Ended(Ended::clone(ended));
                Some(Effect::Report(Report { key, state }))
            }
            State::Queued(_)
            | State::Journaling(_)
            | State::Starting
            | State::Running(_)
            | State::Refused(_)
            | State::Unknown(_) => None,
        }
    }

    /// The server asks for an end.
    pub fn cancel(&mut self, key: TaskKey, now: Timestamp) -> Vec<Effect> {
        let Some(entry) = self.tasks.get(&key) else { return Vec::new() };
        match entry.state {
            State::Queued(_) | State::Journaling(_) => {
                self.queue.retain(|queued| *queued != key);
                let message = "cancelled before it was started".to_owned();
                self.leave_slot(
                    key,
                    State::Refused(Refusal { reason: RefusalReason::Cancelled, message }),
                    now,
                )
            }
            State::Starting | State::Running(_) => vec![Effect::Kill(key)],
            State::Ended(_) | State::Refused(_) | State::Unknown(_) => Vec::new(),
        }
    }

    /// The server has recorded the task's end.
    pub fn settled(&mut self, key: TaskKey) -> Option<Effect> {
        let entry = self.tasks.get(&key)?;
        if !entry.state.is_final() {
            return None;
        }
        let not_after = entry.not_after;
        self.tasks.remove(&key);
        self.remembered.insert(key, not_after);
        Some(Effect::Forget(key))
    }

    /// The server asks what is known of a task.
    #[must_use]
    pub fn query(&self, key: TaskKey) -> Report {
        Report { key, state: self.known(key).unwrap_or(Reported::NotKnown) }
    }

    /// Every task that the server has not settled, for [`fw_proto::frame::Hello`]. One that has
    /// ended counts as started until its output is shipped.
    #[must_use]
    pub fn digest(&self) -> Vec<Report> {
        self.tasks
            .iter()
            .map(|(key, entry)| Report { key: *key, state: entry.state.reported() })
            .collect()
    }

    /// Tasks whose output may have to be shipped: those that run or have ended.
    pub fn with_output(&self) -> impl Iterator<Item = (TaskKey, Option<&Ended>)> {
        self.tasks.iter().filter_map(|(key, entry)| match &entry.state {
            State::Running(_) | State::Starting => Some((*key, None)),
            State::Ended(ended) => Some((*key, Some(&**ended))),
            State::Queued(_) | State::Journaling(_) | State::Refused(_) | State::Unknown(_) => None,
        })
    }

    /// Tasks whose supervisor should be alive.
    pub fn supervised(&self) -> impl Iterator<Item = TaskKey> {
        self.tasks
            .iter()
            .filter(|(_, entry)| matches!(entry.state, State::Starting | State::Running(_)))
            .map(|(key, _)| *key)
    }

    /// Drops ids that no start could name any more, and refuses queued starts whose time is over.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Effect> {
        self.remembered.retain(|_, not_after| *not_after + REMEMBER > now);
        let late = |key: &TaskKey| self.tasks.get(key).is_some_and(|entry| entry.not_after < now);
        let late: Vec<TaskKey> = self.queue.iter().copied().filter(late).collect();
        // Also while no slot is free: whoever asked waits for an answer by then.
        let mut effects: Vec<Effect> =
            late.into_iter().filter_map(|key| self.refuse_late(key)).collect();
        effects.extend(self.fill(now));
        effects
    }

    /// The highest epoch seen.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many tasks hold a slot, and how many wait for one.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.busy, self.queue.len())
    }

    fn known(&self, key: TaskKey) -> Option<Reported> {
        let handed_over = || {
            Reported::Unknown(
                "it ran on this host before; its result was handed over then".to_owned(),
            )
        };
        let here = self.tasks.get(&key).map(|entry| entry.state.reported());
        here.or_else(|| self.remembered.contains_key(&key).then(handed_over))
    }

    fn refusal(&self, start: &Start, now: Timestamp) -> Option<Refusal> {
        let refuse = |reason, message: String| Some(Refusal { reason, message });
        if start.epoch < self.epoch {
            let (theirs, highest) = (start.epoch.0, self.epoch.0);
            return refuse(
                RefusalReason::Fenced,
                format!("sent under epoch {theirs}, but a server with epoch {highest} was here"),
            );
        }
        if start.not_after < now {
            return refuse(
                RefusalReason::Expired,
                format!("it was to start by {}, and here it is {now}", start.not_after),
            );
        }
        if self.queue.len() >= MAX_QUEUED {
            return refuse(
                RefusalReason::QueueFull,
                format!("{MAX_QUEUED} tasks wait on this host already"),
            );
        }
        None
    }

    /// Gives free slots to waiting tasks whose time is not over.
    fn fill(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.busy < self.max_running {
            let Some(key) = self.queue.pop_front() else { break };
            let Some(entry) = self.tasks.get_mut(&key) else { continue };
            let not_after = entry.not_after;
            if not_after < now {
                effects.extend(self.refuse_late(key));
                continue;
            }
            let waiting = std::mem::replace(&mut entry.state, State::Starting);
            if let State::Queued(spec) = waiting {
                entry.state = State::Journaling(spec);
                self.busy += 1;
                effects.push(Effect::Journal { key, not_after });
            } else {
                entry.state = waiting;
            }
        }
        effects
    }

    /// Refuses a queued task whose time is over.
    fn refuse_late(&mut self, key: TaskKey) -> Option<Effect> {
        self.queue.retain(|queued| *queued != key);
        let entry = self.tasks.get_mut(&key)?;
        let message = format!("it waited for a slot on the host until {}", entry.not_after);
        entry.state = State::Refused(Refusal { reason: RefusalReason::Expired, message });
        self.report(key)
    }

    fn leave_slot(&mut self, key: TaskKey, to: State, now: Timestamp) -> Vec<Effect> {
        let Some(entry) = self.tasks.get_mut(&key).filter(|entry| !entry.state.is_final()) else {
            return Vec::new();
        };
        let held = std::mem::replace(&mut entry.state, to).holds_slot();
        self.busy -= usize::from(held);
        let mut effects: Vec<_> = self.report(key).into_iter().collect();
        effects.extend(self.fill(now));
        effects
    }

    fn report(&self, key: TaskKey) -> Option<Effect> {
        let state = self.tasks.get(&key)?.state.reported();
        Some(Effect::Report(Report { key, state }))
    }
}

impl State {
    fn reported(&self) -> Reported {
        match self {
            Self::Queued(_) | Self::Journaling(_) | Self::Starting => Reported::Queued,
            Self::Running(at) => Reported::Started(*at),
            Self::Ended(ended) => Reported::Started(ended.started_at),
            Self::Refused(refusal) => Reported::Refused(refusal.clone()),
            Self::Unknown(why) => Reported::Unknown(why.clone()),
        }
    }

    const fn holds_slot(&self) -> bool {
        matches!(self, Self::Journaling(_) | Self::Starting | Self::Running(_))
    }

    const fn is_final(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Refused(_) | Self::Unknown(_))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_proto::frame::{Command, OnFull};
    use fw_proto::{Incarnation, NodeId, RunId};

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn key(number: u128) -> TaskKey {
        TaskKey { run: RunId(uuid::Uuid::from_u128(number)), node: NodeId(0), attempt: 1 }
    }

    fn start(number: u128, not_after: Timestamp) -> Start {
        let spec = Spec {
            command: Command::Shell("true".to_owned()),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            timeout: None,
            kill_after: Span::from_secs(5),
            on_full: OnFull::Block,
            spool_bytes: 1,
            nice: None,
            umask: None,
        };
        let incarnation = Incarnation(uuid::Uuid::nil());
        Start { key: key(number), not_after, incarnation, epoch: Epoch(1), spec }
    }

    fn reported(effects: &[Effect]) -> Vec<(TaskKey, Reported)> {
        let report = |effect: &Effect| match effect {
            Effect::Report(report) => Some((report.key, report.state.clone())),
            Effect::Journal { .. }
            | Effect::Epoch(_)
            | Effect::Spawn { .. }
            | Effect::Kill(_)
            | Effect::Ship(_)
            | Effect::Forget(_) => None,
        };
        effects.iter().filter_map(report).collect()
    }

    #[test]
    fn a_queued_start_is_refused_in_time_while_all_slots_are_busy() {
        let mut table = Table::new(1, Epoch(1));
        table.start(start(1, at(100)), at(0));
        table.journaled(key(1));
        table.started(key(1), at(0));
        table.start(start(2, at(10)), at(0));
        table.start(start(3, at(20)), at(0));
        assert_eq!(table.expire(at(10)), []);
        let told = reported(&table.expire(at(11)));
        assert!(
            matches!(&told[..], [(late, Reported::Refused(refusal))]
                if *late == key(2) && refusal.reason == RefusalReason::Expired),
            "{told:?}"
        );
        assert_eq!(table.load(), (1, 1));
    }
}
