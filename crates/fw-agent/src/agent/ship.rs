//! Ships output: as much as the window takes, a chunk a task in turn.
//!
//! Reading and compressing happens off the agent's own thread, a chunk at a time. Each task that
//! may have something is *due* until a read finds nothing; whoever was served last comes last, so
//! that a task that never stops writing does not starve the others.

use std::io;
use std::ops::Bound;

use fw_core::tasks::Extent;
use fw_proto::TaskKey;
use fw_proto::frame::{self, Chunk, FromAgent};
use fw_proto::record::{MAX_CHUNK, Offsets};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::Agent;
use crate::spool::{self, Reader};

/// zstd's fastest level: log text still shrinks to about a tenth.
const LEVEL: i32 = 1;

/// Frames of the outbox that output leaves to reports and pongs: without them the link is lost.
const RESERVE: usize = 64;

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

/// One look at a task's output.
pub(super) struct Look {
    /// The link for which it was read.
    link: u64,
    key: TaskKey,
    /// How much output the task had when the look began.
    extent: Extent,
    from: Offsets,
    reader: Reader,
    read: io::Result<Option<Piece>>,
}

/// A piece of output, compressed.
struct Piece {
    to: Offsets,
    raw_len: u32,
    data: Vec<u8>,
}

impl Agent {
    /// Begins to read the next piece of output that may be sent.
    pub(super) fn ship(&mut self) {
        while self.shipping.is_none()
            && let Some((link, outbox)) = &self.link
            && outbox.capacity() >= RESERVE
            && let Some(key) = self.next_due()
            && let Some(from) = link.send_from(key)
        {
            self.served = Some(key);
            match self.table.extent(key) {
                None => {
                    self.due.remove(&key);
                }
                // The server has it all: no need for the spool to have it too.
                Some(Extent::Whole(end)) if from.total() >= end.total() => {
                    self.due.remove(&key);
                    self.all_sent(key, end);
                }
                Some(extent) => self.look_at_output(key, extent, from),
            }
        }
    }

    /// The task after the one that was served last.
    fn next_due(&self) -> Option<TaskKey> {
        let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        self.due.range((after, Bound::Unbounded)).next().or_else(|| self.due.first()).copied()
    }

    fn look_at_output(&mut self, key: TaskKey, extent: Extent, from: Offsets) {
        let reader = self.readers.remove(&key).filter(|reader| reader.at() == from);
        let mut reader = reader.unwrap_or_else(|| self.spool.reader(key, from));
        let link = self.links;
        self.shipping = Some(spawn_blocking(move || {
            let read = next_piece(&mut reader);
            Look { link, key, extent, from, reader, read }
        }));
    }

    /// Sends what a look has found.
    pub(super) fn shipped(&mut self, look: Look) {
        let Look { link: of, key, extent, from, reader, read } = look;
        let Some((link, outbox)) = self.link.as_mut().filter(|_| self.links == of) else { return };
        // Settled meanwhile, or the server went back: then it is read again.
        if self.table.extent(key).is_none() || link.send_from(key) != Some(from) {
            return;
        }
        match read {
            Ok(Some(Piece { to, raw_len, data })) => {
                let chunk = FromAgent::Chunk(Chunk { key, from, to, raw_len, data: &data });
                if outbox.try_send(frame::encode(&chunk)).is_ok() {
                    link.sent(key, to, data.len() as u64);
                    self.readers.insert(key, reader);
                    self.troubles.remove(&key);
                }
            }
            Ok(None) => self.nothing_more(key, extent, reader),
            Err(error) => self.unreadable(key, extent, &error),
        }
    }

    fn nothing_more(&mut self, key: TaskKey, extent: Extent, reader: Reader) {
        // It may have ended since the look began, and written before that.
        if self.table.extent(key) != Some(extent) {
            return;
        }
        self.due.remove(&key);
        match extent {
            Extent::Open => {
                self.readers.insert(key, reader);
            }
            Extent::Whole(end) => {
                let (there, wrote) = (reader.at().total(), end.total());
                warn!(task.key = %key, "output is damaged: {there} of {wrote} bytes are there");
                self.give_up(key);
            }
            Extent::Rest => self.all_sent(key, reader.at()),
        }
    }

    /// All output of a task that has ended was sent: tells the end, once a link.
    fn all_sent(&mut self, key: TaskKey, end: Offsets) {
        let Some((link, _)) = &mut self.link else { return };
        self.readers.remove(&key);
        if link.tell_end(key, end) {
            let told = self.table.shipped(key);
            self.tell(told.into_iter().collect());
        }
    }

    /// Output cannot be read: tried again with each look, but not for ever.
    fn unreadable(&mut self, key: TaskKey, extent: Extent, error: &io::Error) {
        self.due.remove(&key);
        let tries = self.troubles.entry(key).or_default();
        *tries = tries.saturating_add(1);
        if *tries == 1 {
            warn!(task.key = %key, "output cannot be read: {error}");
        }
        let damaged = spool::is_damage(error) && *tries >= DAMAGED_AFTER;
        match extent {
            // The command must not wait for room that nobody will ever free.
            Extent::Open if damaged => drop(self.spool.trim(key, ALL)),
            Extent::Open => {}
            Extent::Whole(_) | Extent::Rest if damaged || *tries >= UNREADABLE_AFTER => {
                self.give_up(key);
            }
            Extent::Whole(_) | Extent::Rest => {}
        }
    }

    fn give_up(&mut self, key: TaskKey) {
        self.troubles.remove(&key);
        let told = self.table.damaged(key);
        self.perform(told.into_iter().collect());
    }

    /// Notes whose output may have grown without a word: bells may be lost.
    pub(super) fn look_for_output(&mut self) {
        if self.link.is_some() {
            let open = self.table.with_output().filter(|(_, extent)| *extent == Extent::Open);
            self.due.extend(open.map(|(key, _)| key).chain(self.troubles.keys().copied()));
        }
    }
}

/// Reads the next piece, if there is one.
fn next_piece(reader: &mut Reader) -> io::Result<Option<Piece>> {
    let mut raw = Vec::new();
    let Some((_, to)) = reader.next(MAX_CHUNK, &mut raw)? else { return Ok(None) };
    let data = zstd::bulk::compress(&raw, LEVEL)?;
    Ok(Some(Piece { to, raw_len: u32::try_from(raw.len()).unwrap_or(u32::MAX), data }))
}
