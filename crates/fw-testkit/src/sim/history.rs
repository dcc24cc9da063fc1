//! What happened in a world: a hash of all of it, its last lines, and what was seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use fw_proto::api::{TaskState, Verdict};
use fw_proto::frame::Fate;
use fw_proto::{HostId, RunId, Timestamp};

use super::faults::Fault;

/// Lines that are kept: the last minutes of a world of a few hosts.
const LINES: usize = 20_000;

/// Something worth seeing over many seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// A fault was injected.
    Fault(Fault),
    /// A task ended so.
    Task(TaskState),
    /// A task ended so that was in flight when the fault came to its host or to the server.
    Both(Fault, TaskState),
    /// A fire was decided so.
    Fire(Verdict),
    /// Something else that must not go unseen.
    Sight(Sight),
}

/// What else must not go unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// A newer link took over while the older one stood.
    Superseded,
    /// Frames of an older link came in after a newer one was let in.
    OldLinkHeard,
    /// A greeting came in after that of a newer link.
    GreetedLate,
    /// A link was ended for its silence, by either end.
    Silence,
    /// The server cut a host that does not read.
    OutboxFull,
    /// A command waited for room in its spool.
    SpoolBlocked,
    /// A command's output was dropped for lack of room.
    SpoolDropped,
    /// The agent's window was full.
    WindowFull,
    /// A revoked host was refused.
    RevokedRefused,
    /// A host was revoked while it was being let in.
    RevokedWhileLinking,
    /// A fence kept an old server's start out.
    Fenced,
    /// A host spoke of a run that had ended.
    Late,
    /// A spool no longer held what the server asked for.
    Damaged,
    /// A run was repeated.
    Retried,
    /// The failures of a run were used up.
    BudgetSpent,
    /// A run of an older life of the store asked its hosts.
    Asked,
    /// A secret was gone.
    NoSecret,
    /// What a commit made true was performed after the next commit.
    PerformedLate,
    /// A start was not sent, since its task had its verdict by then.
    StartOverruled,
    /// A job's run was cancelled for its next fire.
    Replaced,
    /// A job's run that failed was tried again.
    TriedAgain,
    /// Or was not, after all.
    GivenUp,
    /// A run was ended on one host and went on at others.
    CancelledOnHost,
    /// A change whose supervisor was gone was taken up by another.
    TakenUp,
    /// An armed change ended so.
    Fate(Fate),
    /// A host with an old agent was not sent an armed change.
    AgentOld,
    /// A rollout or runbook went through its plan.
    ChangeSucceeded,
    /// One waits for a person to let it go on.
    ChangePaused,
    /// One was taken back.
    ChangeUndone,
    /// One could not be taken back everywhere.
    ChangeUndoFailed,
    /// One was taken back after it had ended.
    UndoneAfterEnd,
    /// One went on in a store that was replaced by an older one.
    ChangeRestored,
    /// A run of one was announced, and never begun since it was stopped first.
    NeverBegun,
}

impl Sight {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::Superseded,
        Self::OldLinkHeard,
        Self::GreetedLate,
        Self::Silence,
        Self::OutboxFull,
        Self::SpoolBlocked,
        Self::SpoolDropped,
        Self::WindowFull,
        Self::RevokedRefused,
        Self::RevokedWhileLinking,
        Self::Fenced,
        Self::Late,
        Self::Damaged,
        Self::Retried,
        Self::BudgetSpent,
        Self::Asked,
        Self::NoSecret,
        Self::PerformedLate,
        Self::StartOverruled,
        Self::Replaced,
        Self::TriedAgain,
        Self::GivenUp,
        Self::CancelledOnHost,
        Self::TakenUp,
        Self::Fate(Fate::Kept),
        Self::Fate(Fate::Undone),
        Self::Fate(Fate::UndoFailed),
        Self::AgentOld,
        Self::ChangeSucceeded,
        Self::ChangePaused,
        Self::ChangeUndone,
        Self::ChangeUndoFailed,
        Self::UndoneAfterEnd,
        Self::ChangeRestored,
        Self::NeverBegun,
    ];
}

/// What happened.
#[derive(Debug)]
pub(super) struct History {
    now: Timestamp,
    hash: DefaultHasher,
    events: u64,
    lines: Option<VecDeque<String>>,
    pub(super) seen: BTreeMap<Mark, u64>,
    /// Faults that came to tasks in flight.
    touched: BTreeMap<(RunId, HostId), BTreeSet<Fault>>,
}

impl History {
    /// An empty one; with `lines` it can be read.
    pub(super) fn new(lines: bool) -> Self {
        Self {
            now: Timestamp::EPOCH,
            hash: DefaultHasher::new(),
            events: 0,
            lines: lines.then(VecDeque::new),
            seen: BTreeMap::new(),
            touched: BTreeMap::new(),
        }
    }

    /// Time has passed.
    pub(super) fn at(&mut self, now: Timestamp) {
        self.now = now;
        now.as_millis().hash(&mut self.hash);
    }

    /// Something happened: the hash takes the facts, people read the text.
    pub(super) fn note(&mut self, facts: impl Hash, text: impl FnOnce() -> String) {
        facts.hash(&mut self.hash);
        self.events += 1;
        if let Some(lines) = &mut self.lines {
            if lines.len() >= LINES {
                lines.pop_front();
            }
            let secs = self.now.as_millis() as f64 / 1000.0;
            lines.push_back(format!("{secs:>9.3}  {}", text()));
        }
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        *self.seen.entry(mark).or_default() += 1;
    }

    pub(super) fn sight(&mut self, sight: Sight) {
        self.mark(Mark::Sight(sight));
    }

    /// A fault comes while this task is in flight.
    pub(super) fn touch(&mut self, run: RunId, host: HostId, fault: Fault) {
        self.touched.entry((run, host)).or_default().insert(fault);
    }

    /// A task has its verdict.
    pub(super) fn verdict(&mut self, run: RunId, host: HostId, state: TaskState) {
        self.mark(Mark::Task(state));
        for fault in self.touched.remove(&(run, host)).unwrap_or_default() {
            self.mark(Mark::Both(fault, state));
        }
    }

    /// A hash of all that happened, and how much that was.
    pub(super) fn sum(&self) -> (u64, u64) {
        (self.hash.finish(), self.events)
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }
}
