//! Which output is sent next: as much as the window takes, a piece a task in turn.
//!
//! Each task that may have something is *due* until a read finds nothing; whoever was served last
//! comes last, so that a task that never stops writing does not starve the others. Reading is the
//! shell's and may take its time: what it finds counts only while nothing has changed meanwhile.

use std::ops::Bound;

use fw_proto::TaskKey;
use fw_proto::frame::{Ack, Chunk};
use fw_proto::record::Offsets;

use super::{Agent, Effect};
use crate::tasks::Extent;

/// A spool that is damaged in so many looks is damaged for good.
const DAMAGED_AFTER: u32 = 3;

/// And one that could not be read for so many, about a minute, is of no more use.
const UNREADABLE_AFTER: u32 = 60;

/// All there could ever be.
const ALL: Offsets = Offsets {
    stdout: u64::MAX,
    stderr: u64::MAX,
    stdout_dropped: u64::MAX,
    stderr_dropped: u64::MAX,
};

/// What is to be done about output next.
#[derive(Debug, PartialEq)]
pub enum Ship {
    /// Read the next piece of this, and say what was found: [`Agent::piece`],
    /// [`Agent::nothing_more`] or [`Agent::unreadable`].
    Read(Look),
    /// The server has been sent all of this task: its reader may go, and this is to be done.
    Sent(TaskKey, Vec<Effect>),
}

/// One look at a task's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whose.
    pub key: TaskKey,
    /// Read from here.
    pub from: Offsets,
    /// How much output the task had when the look began.
    pub extent: Extent,
    /// The link for which it is read.
    link: u64,
}

impl Agent {
    /// Notes that these may have output. Without a link nothing is noted: the next looks at all.
    pub fn has_output(&mut self, keys: impl IntoIterator<Item = TaskKey>) {
        if self.link.is_some() {
            self.due.extend(keys);
        }
    }

    /// What is to be done about output next; to be called until it gives nothing, as long as there
    /// is room for frames and no read is under way.
    pub fn ship(&mut self) -> Option<Ship> {
        loop {
            let key = self.next_due()?;
            let from = self.link.as_ref()?.send_from(key)?;
            self.served = Some(key);
            match self.table.extent(key) {
                None => {
                    self.due.remove(&key);
                }
                // The server has it all: no need for the spool to have it too.
                Some(Extent::Whole(end)) if from.total() >= end.total() => {
                    self.due.remove(&key);
                    return Some(Ship::Sent(key, self.all_sent(key, end)));
                }
                Some(extent) => {
                    return Some(Ship::Read(Look { key, from, extent, link: self.links }));
                }
            }
        }
    }

    /// Whether what a look finds is still wanted: the link is the same, the task is not settled,
    /// and the server has not gone back.
    #[must_use]
    pub fn is_current(&self, look: &Look) -> bool {
        let from = self.link.as_ref().and_then(|link| link.send_from(look.key));
        self.links == look.link && from == Some(look.from) && self.table.extent(look.key).is_some()
    }

    /// The look has found this, compressed, up to `to`: what to send, if it is still wanted.
    /// Counts it as sent.
    #[must_use]
    pub fn piece<'a>(
        &mut self,
        look: &Look,
        to: Offsets,
        raw_len: u32,
        data: &'a [u8],
    ) -> Option<Chunk<'a>> {
        if !self.is_current(look) {
            return None;
        }
        self.link.as_mut()?.sent(look.key, to, data.len() as u64);
        self.troubles.remove(&look.key);
        Some(Chunk { key: look.key, from: look.from, to, raw_len, data })
    }

    /// The look has found nothing behind `there`.
    pub fn nothing_more(&mut self, look: &Look, there: Offsets) -> Vec<Effect> {
        // It may have ended since the look began, and written before that.
        if !self.is_current(look) || self.table.extent(look.key) != Some(look.extent) {
            return Vec::new();
        }
        self.due.remove(&look.key);
        match look.extent {
            Extent::Open => Vec::new(),
            // It stops short of what the task wrote.
            Extent::Whole(_) => self.give_up(look.key),
            Extent::Rest => self.all_sent(look.key, there),
        }
    }

    /// Output cannot be read, for good if it is `damaged`: tried again with each tick, but not for
    /// ever.
    pub fn unreadable(&mut self, look: &Look, damaged: bool) -> Vec<Effect> {
        if !self.is_current(look) {
            return Vec::new();
        }
        let key = look.key;
        self.due.remove(&key);
        let tries = self.troubles.entry(key).or_default();
        *tries = tries.saturating_add(1);
        let damaged = damaged && *tries >= DAMAGED_AFTER;
        match look.extent {
            // The command must not wait for room that nobody will ever free.
            Extent::Open if damaged => vec![Effect::Trim(Ack { key, durable: ALL })],
            Extent::Open => Vec::new(),
            Extent::Whole(_) | Extent::Rest if damaged || *tries >= UNREADABLE_AFTER => {
                self.give_up(key)
            }
            Extent::Whole(_) | Extent::Rest => Vec::new(),
        }
    }

    /// How often in a row a task's output could not be read.
    #[must_use]
    pub fn troubles(&self, key: TaskKey) -> u32 {
        self.troubles.get(&key).copied().unwrap_or(0)
    }

    /// Notes whose output may have grown without a word: bells may be lost.
    pub(super) fn look_for_output(&mut self) {
        if self.link.is_some() {
            let open = self.table.with_output().filter(|(_, extent)| *extent == Extent::Open);
            self.due.extend(open.map(|(key, _)| key).chain(self.troubles.keys().copied()));
        }
    }

    /// The task after the one that was served last.
    fn next_due(&self) -> Option<TaskKey> {
        let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        self.due.range((after, Bound::Unbounded)).next().or_else(|| self.due.first()).copied()
    }

    /// All output of a task that has ended was sent: tells the end, once a link.
    fn all_sent(&mut self, key: TaskKey, end: Offsets) -> Vec<Effect> {
        let Some(link) = &mut self.link else { return Vec::new() };
        let told = if link.tell_end(key, end) { self.table.shipped(key) } else { None };
        self.tell(told.into_iter().collect())
    }

    fn give_up(&mut self, key: TaskKey) -> Vec<Effect> {
        self.troubles.remove(&key);
        let told = self.table.damaged(key);
        self.carry(told)
    }
}
