//! The table of tasks on one host: what runs, what waits, what was ever started.
//!
//! A task starts at most once. The table says *journal this* before it says *spawn this*,
//! and the shell does the first durably before it answers [`Table::journaled`]. What the
//! host cannot tell after a power cut becomes `unknown`, never a second start.

use std::collections::{BTreeMap, VecDeque};

use fw_proto::frame::{
    Applied, Ended, MAX_FRAME, MAX_TEXT, Refusal, RefusalReason, Report, Reported, Spec, Start,
};
use fw_proto::record::Offsets;
use fw_proto::{Epoch, Span, TaskKey, Timestamp};

mod text;

use text::{cut, how_it_ended, with_text};

/// Ids are remembered this long after their `not_after`: a start that is older is refused by
/// its own expiry, clocks off by up to a day included.
pub const REMEMBER: Span = Span::from_secs(24 * 3600);

/// How many tasks run at once when nobody says.
pub const MAX_RUNNING: usize = 64;

/// How many tasks wait for a slot; further ones are refused. Sixteen per slot keep an hour of
/// short jobs, and their specs stay below a few megabytes.
pub const MAX_QUEUED: usize = 1024;

/// Bytes that a digest may take: it goes out as one frame, with other things in it.
const DIGEST: usize = MAX_FRAME / 2;

/// The bytes of a report without its text, rather too many.
const REPORT: usize = 128;

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
    /// Its change has succeeded, and waits for the word.
    Applied(Applied),
    /// Its process ended; output may be left to ship.
    Ended(Box<Ended>),
    /// It was started, and nobody can tell how it ended; output may be left to ship.
    Lost {
        /// When it was started.
        started_at: Timestamp,
        /// Why nobody can tell.
        why: String,
    },
    /// It was not started.
    Refused(Refusal),
    /// Nobody can tell.
    Unknown(String),
}

/// How much output a task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// There may come more.
    Open,
    /// It ended having written this much.
    Whole(Offsets),
    /// Nobody knows how much it wrote, and there comes no more than is there.
    Rest,
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
    /// Tell the supervisor that the server's word is there: keep the change.
    Keep(TaskKey),
    /// Start a supervisor that undoes the change.
    Undo(TaskKey),
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
    /// Its change has succeeded, and its supervisor waits for the word.
    Applied(Applied),
    /// Its supervisor is gone without a word, and what it changed, started then, is neither kept nor undone.
    Abandoned(Timestamp),
    /// It ended.
    Ended(Box<Ended>),
    /// It could not be started.
    Refused(Refusal),
    /// It was started then; its supervisor is gone without a word.
    Dead(Timestamp),
}

impl Found {
    /// In a few words, for a log.
    #[must_use]
    pub const fn describe(&self) -> &'static str {
        match self {
            Self::NotStarted => "never started",
            Self::Running(_) => "running",
            Self::Applied(_) => "waiting for the word on its change",
            Self::Abandoned(_) => "changed and without its supervisor",
            Self::Ended(_) => "ended",
            Self::Refused(_) => "refused",
            Self::Dead(_) => "without its supervisor",
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
            // The next look at it finds that the undo is due.
            Found::Running(Some(at)) | Found::Abandoned(at) => State::Running(at),
            Found::Applied(applied) => State::Applied(applied),
            Found::Ended(ended) => State::Ended(ended),
            Found::Refused(refusal) => State::Refused(refusal),
            Found::Dead(started_at) => {
                let why = "its supervisor was killed, or the machine went down".to_owned();
                State::Lost { started_at, why }
            }
        };
        let ship = state.is_shipped_first().then_some(Effect::Ship(key));
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

    /// The supervisor says that the change has succeeded, and waits for the word.
    pub fn applied(&mut self, key: TaskKey, applied: Applied) -> Option<Effect> {
        let entry = self.tasks.get_mut(&key)?;
        if !matches!(entry.state, State::Starting | State::Running(_)) {
            return None;
        }
        entry.state = State::Applied(applied);
        self.report(key)
    }

    /// The server's word on an armed change.
    pub fn keep(&mut self, key: TaskKey) -> Option<Effect> {
        self.awaits_word(key).then_some(Effect::Keep(key))
    }

    /// The supervisor is gone and has neither kept nor undone the change, which was started then. From now
    /// on no word saves it.
    pub fn abandoned(&mut self, key: TaskKey, started_at: Timestamp) -> Option<Effect> {
        let entry = self.tasks.get_mut(&key).filter(|entry| entry.state.is_supervised())?;
        entry.state = State::Running(started_at);
        Some(Effect::Undo(key))
    }

    /// Whether a task's change waits for the word.
    #[must_use]
    pub fn awaits_word(&self, key: TaskKey) -> bool {
        self.tasks.get(&key).is_some_and(|entry| matches!(entry.state, State::Applied(_)))
    }

    /// The tasks whose change waits for the word.
    pub fn waiting(&self) -> impl Iterator<Item = TaskKey> {
        self.tasks.keys().copied().filter(|key| self.awaits_word(*key))
    }

    /// The supervisor has written the final status: the slot is free, the output remains to be shipped.
    pub fn ended(&mut self, key: TaskKey, ended: Ended, now: Timestamp) -> Vec<Effect> {
        self.leave_slot(key, State::Ended(Box::new(ended)), now)
    }

    /// The supervisor is gone without a final status; the process was started at `started_at`.
    pub fn died(&mut self, key: TaskKey, started_at: Timestamp, now: Timestamp) -> Vec<Effect> {
        let why = "its supervisor was killed".to_owned();
        self.leave_slot(key, State::Lost { started_at, why }, now)
    }

    /// The output of a task that has ended cannot be read, or stops short of what the task
    /// wrote: its end may not be told as if it could, and what is left will not be shipped.
    pub fn damaged(&mut self, key: TaskKey) -> Option<Effect> {
        let entry = self.tasks.get_mut(&key)?;
        entry.state = match &entry.state {
            State::Ended(ended) => State::Unknown(format!(
                "its output is no longer whole on the host; the command {}",
                how_it_ended(ended)
            )),
            State::Lost { why, .. } => State::Unknown(why.clone()),
            State::Queued(_)
            | State::Journaling(_)
            | State::Starting
            | State::Running(_)
            | State::Applied(_)
            | State::Refused(_)
            | State::Unknown(_) => return None,
        };
        self.report(key)
    }

    /// All output of a task that has ended was sent on this link: now its end may be told.
    #[must_use]
    pub fn shipped(&self, key: TaskKey) -> Option<Report> {
        match &self.tasks.get(&key)?.state {
            State::Ended(ended) => {
                Some(Report { key, state: Reported::Ended(Ended::clone(ended)) })
            }
            State::Lost { why, .. } => {
                Some(Report { key, state: Reported::Unknown(cut(why, MAX_TEXT)) })
            }
            State::Queued(_)
            | State::Journaling(_)
            | State::Starting
            | State::Running(_)
            | State::Applied(_)
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
            State::Starting | State::Running(_) | State::Applied(_) => vec![Effect::Kill(key)],
            State::Ended(_) | State::Lost { .. } | State::Refused(_) | State::Unknown(_) => {
                Vec::new()
            }
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

    /// The tasks that the server has not settled, for [`fw_proto::frame::Hello`]. One that has
    /// ended counts as started until its output is shipped, and so does one whose change waits for the
    /// word: an older server could not read more. Where they are too many for a frame,
    /// those that were not started stay out: the server asks for what it misses.
    #[must_use]
    pub fn digest(&self) -> Vec<Report> {
        let (open, over): (Vec<_>, Vec<_>) = self
            .tasks
            .iter()
            .map(|(key, entry)| Report { key: *key, state: entry.state.greeted() })
            .partition(|report| matches!(report.state, Reported::Started(_) | Reported::Queued));
        let share = (DIGEST / self.tasks.len().max(1)).saturating_sub(REPORT).clamp(64, MAX_TEXT);
        let short = |report: Report| Report { state: with_text(report.state, share), ..report };
        open.into_iter().chain(over).take(DIGEST / (REPORT + 64)).map(short).collect()
    }

    /// Tasks whose output may have to be shipped: those that run or have ended.
    pub fn with_output(&self) -> impl Iterator<Item = (TaskKey, Extent)> {
        self.tasks.iter().filter_map(|(key, entry)| Some((*key, entry.state.extent()?)))
    }

    /// How much output a task has, if it has any.
    #[must_use]
    pub fn extent(&self, key: TaskKey) -> Option<Extent> {
        self.tasks.get(&key)?.state.extent()
    }

    /// Tasks whose supervisor should be alive.
    pub fn supervised(&self) -> impl Iterator<Item = TaskKey> {
        self.tasks.iter().filter(|(_, entry)| entry.state.is_supervised()).map(|(key, _)| *key)
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
        let ship = to.is_shipped_first();
        let held = std::mem::replace(&mut entry.state, to).holds_slot();
        self.busy -= usize::from(held);
        let told = if ship { Some(Effect::Ship(key)) } else { self.report(key) };
        let mut effects: Vec<_> = told.into_iter().collect();
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
            Self::Applied(applied) => Reported::Applied(*applied),
            Self::Ended(ended) => Reported::Started(ended.started_at),
            Self::Lost { started_at, .. } => Reported::Started(*started_at),
            Self::Refused(refusal) => with_text(Reported::Refused(refusal.clone()), MAX_TEXT),
            Self::Unknown(why) => with_text(Reported::Unknown(why.clone()), MAX_TEXT),
        }
    }

    /// In a greeting, which servers of any version read.
    fn greeted(&self) -> Reported {
        match self.reported() {
            Reported::Applied(applied) => Reported::Started(applied.started_at),
            said @ (Reported::NotKnown
            | Reported::Queued
            | Reported::Started(_)
            | Reported::Ended(_)
            | Reported::Refused(_)
            | Reported::Unknown(_)) => said,
        }
    }

    fn extent(&self) -> Option<Extent> {
        match self {
            Self::Running(_) | Self::Applied(_) | Self::Starting => Some(Extent::Open),
            Self::Ended(ended) => Some(Extent::Whole(ended.output)),
            Self::Lost { .. } => Some(Extent::Rest),
            Self::Queued(_) | Self::Journaling(_) | Self::Refused(_) | Self::Unknown(_) => None,
        }
    }

    /// Whether its end may be told only after its output.
    const fn is_shipped_first(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Lost { .. })
    }

    const fn holds_slot(&self) -> bool {
        matches!(self, Self::Journaling(_)) || self.is_supervised()
    }

    const fn is_supervised(&self) -> bool {
        matches!(self, Self::Starting | Self::Running(_) | Self::Applied(_))
    }

    const fn is_final(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Lost { .. } | Self::Refused(_) | Self::Unknown(_))
    }
}

#[cfg(test)]
mod tests;
