//! The rule of armed changes, and what really became of each: a change is kept only if the server said so
//! and its proof held in time, else undone, and never both.

use std::collections::BTreeMap;

use fw_core::run::Task;
use fw_proto::api::{Armed, TaskReason};
use fw_proto::frame::{Fate, FromServer};
use fw_proto::{HostId, TaskKey, Timestamp};

use super::armed::Change;
use super::host::short;
use super::rules::{Judgement, Rule, judge};
use super::spool::Phase;

/// All armed changes, as they are on their hosts.
#[derive(Debug, Default)]
pub(super) struct Fates(BTreeMap<(HostId, TaskKey), Truth>);

/// What really became of an armed change.
#[derive(Debug, Clone, Copy, Default)]
struct Truth {
    /// The server said: keep it.
    word: bool,
    /// It had succeeded, and could be kept until then.
    deadline: Option<Timestamp>,
    kept: bool,
    /// An undo was begun.
    undoing: bool,
    undone: bool,
    fate: Option<Fate>,
}

impl Fates {
    /// The server puts a frame on a link to an agent that speaks this version.
    pub(super) fn said(&mut self, host: HostId, protocol: u16, frame: &FromServer) -> Judgement {
        if let FromServer::Keep(keys) = frame {
            for key in keys {
                self.0.entry((host, *key)).or_default().word = true;
            }
        }
        never_to_an_old_agent(host, protocol, frame)
    }

    /// A command with an armed change took a step, from one phase to another.
    pub(super) fn changed(
        &mut self,
        host: HostId,
        key: TaskKey,
        before: &Phase,
        now: &Phase,
        change: &Change,
        at: Timestamp,
    ) -> Judgement {
        let truth = self.0.entry((host, key)).or_default();
        match now {
            Phase::Waiting(_) => truth.deadline = Some(change.deadline()),
            Phase::Undoing(_) => truth.undoing = true,
            Phase::Keeping(_) if matches!(before, Phase::Waiting(_)) => {
                kept_in_time(host, key, truth, at)?;
            }
            Phase::Ended(ended) => truth.fate = ended.armed,
            Phase::Starting(_)
            | Phase::Running(_)
            | Phase::Keeping(_)
            | Phase::Abandoned(_)
            | Phase::NotStarted
            | Phase::Dead(_) => {}
        }
        (truth.kept, truth.undone) = (change.kept, change.undone);
        never_both(host, key, truth)
    }

    /// Once all is at rest: no change is left as it is, on hosts that are still `served`.
    pub(super) fn at_rest(
        &self,
        served: impl Fn(&HostId) -> bool,
        started: impl Fn(HostId, TaskKey) -> bool,
    ) -> Judgement {
        let mut changes = self.0.iter().filter(|((host, _), _)| served(host));
        changes.try_for_each(|((host, key), truth)| {
            kept_or_undone(*host, *key, truth, started(*host, *key))
        })
    }

    /// What the server says of a change is what its host has said, and that is true.
    pub(super) fn verdict_is_true(&self, host: HostId, key: TaskKey, task: &Task) -> Judgement {
        fate_is_true(host, key, task, self.0.get(&(host, key)))
    }
}

/// A change is kept only if the server has said so, and in time.
fn kept_in_time(host: HostId, key: TaskKey, truth: &Truth, at: Timestamp) -> Judgement {
    let in_time = truth.deadline.is_some_and(|deadline| at < deadline);
    judge(truth.word && in_time && !truth.undoing, Rule::DeadMan, || {
        format!("{} keeps {key} at {at}: {truth:?}", short(host))
    })
}

/// A change is never kept and undone both.
fn never_both(host: HostId, key: TaskKey, truth: &Truth) -> Judgement {
    let undone = truth.undone || truth.undoing;
    judge(!(truth.kept && undone), Rule::DeadMan, || {
        format!("{} kept and undid {key}: {truth:?}", short(host))
    })
}

/// A change that was begun is kept, or its undo was performed, if not with success.
fn kept_or_undone(host: HostId, key: TaskKey, truth: &Truth, started: bool) -> Judgement {
    let good = match truth.fate {
        Some(Fate::Kept) => truth.kept,
        Some(Fate::Undone) => truth.undone,
        Some(Fate::UndoFailed) => truth.undoing && !truth.undone,
        None => !started,
    };
    judge(good, Rule::DeadMan, || format!("{key} of {} is {truth:?}", short(host)))
}

/// What the server says of a change is what its host has said, and that is true.
fn fate_is_true(host: HostId, key: TaskKey, task: &Task, truth: Option<&Truth>) -> Judgement {
    let said = task.reason.and_then(TaskReason::armed);
    let fate = truth.and_then(|truth| truth.fate).map(|fate| match fate {
        Fate::Kept => Armed::Kept,
        Fate::Undone => Armed::Undone,
        Fate::UndoFailed => Armed::UndoFailed,
    });
    judge(said.is_none() || said == fate, Rule::DeadMan, || {
        format!("{key} of {} is called {said:?} and was {fate:?}", short(host))
    })
}

/// An armed change is never sent to an agent that would skip its undo.
fn never_to_an_old_agent(host: HostId, protocol: u16, frame: &FromServer) -> Judgement {
    let FromServer::Start(starts) = frame else { return Ok(()) };
    let armed = starts.iter().any(|start| start.spec.armed.is_some());
    judge(!armed || protocol >= fw_proto::ARMED, Rule::DeadMan, || {
        format!("{} speaks version {protocol} and is sent an armed change", short(host))
    })
}
