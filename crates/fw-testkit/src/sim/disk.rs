//! A simulated host's disk: its journal, and the commands with their spools.

use std::collections::BTreeMap;

use fw_core::tasks::Found;
use fw_proto::{Epoch, TaskKey, Timestamp};

use super::spool::{Phase, Process};

/// What a crash of the agent leaves.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) journal: BTreeMap<TaskKey, Memory>,
    pub(super) epoch: u64,
    pub(super) spools: BTreeMap<TaskKey, Process>,
    /// All that commands wrote whose spool is removed.
    truths: BTreeMap<TaskKey, Vec<u8>>,
}

/// A task in the journal.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) not_after: Timestamp,
    pub(super) boot: u32,
    pub(super) settled: bool,
    /// Never started, as was found at a start: the journal in use knows it no longer.
    pub(super) dropped: bool,
}

/// What is written to the journal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Record {
    Accepted(TaskKey, Timestamp),
    Settled(TaskKey),
    Epoch(Epoch),
}

impl Disk {
    /// A write of the journal has come to its end.
    pub(super) fn keep(&mut self, records: &[Record], boot: u32) {
        for record in records {
            match *record {
                Record::Accepted(key, not_after) => {
                    let memory = Memory { not_after, boot, settled: false, dropped: false };
                    if self.journal.get(&key).is_none_or(|memory| !memory.settled) {
                        self.journal.insert(key, memory);
                    }
                }
                Record::Settled(key) => {
                    if let Some(memory) = self.journal.get_mut(&key) {
                        memory.settled = true;
                    }
                }
                Record::Epoch(epoch) => self.epoch = self.epoch.max(epoch.0),
            }
        }
    }

    /// Removes a task's spool; false while its supervisor lives, or another is due.
    pub(super) fn remove(&mut self, key: TaskKey) -> bool {
        if self.spools.get(&key).is_some_and(Process::is_held) {
            return false;
        }
        if let Some(process) = self.spools.remove(&key) {
            self.truths.insert(key, process.truth);
        }
        true
    }

    /// All that a command ever wrote and its supervisor kept.
    pub(super) fn truth(&self, key: TaskKey) -> &[u8] {
        let here = self.spools.get(&key).map(|process| process.truth.as_slice());
        here.or_else(|| self.truths.get(&key).map(Vec::as_slice)).unwrap_or_default()
    }
}

/// What a restarted agent finds of a task.
pub(super) fn found(process: Option<&Process>) -> Found {
    match process.map(|process| &process.phase) {
        None | Some(Phase::NotStarted) => Found::NotStarted,
        Some(Phase::Starting(_)) => Found::Running(None),
        Some(Phase::Running(at) | Phase::Undoing(at) | Phase::Keeping(at)) => {
            Found::Running(Some(*at))
        }
        Some(Phase::Waiting(applied)) => Found::Applied(*applied),
        Some(Phase::Abandoned(at)) => Found::Abandoned(*at),
        Some(Phase::Ended(ended)) => Found::Ended(ended.clone()),
        Some(Phase::Dead(at)) => Found::Dead(*at),
    }
}
