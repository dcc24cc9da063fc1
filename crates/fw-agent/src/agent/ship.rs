//! Ships output: reads and compresses off the agent's own thread, a piece at a time.
//!
//! Which piece is next, and whether it is still wanted once it was read, is decided in core.

use std::io;

use fw_core::agent::{Look, Ship};
use fw_core::tasks::Extent;
use fw_proto::frame::{self, FromAgent};
use fw_proto::record::{MAX_CHUNK, Offsets};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::Agent;
use crate::spool::{self, Reader};

/// Frames of the outbox that output leaves to reports and pongs: without them the link is lost.
const RESERVE: usize = 64;

/// What a look at a task's output has found.
pub(super) struct Seen {
    look: Look,
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
            && self.outbox.as_ref().is_some_and(|outbox| outbox.capacity() >= RESERVE)
            && let Some(next) = self.core.ship()
        {
            match next {
                Ship::Read(look) => self.look_at_output(look),
                Ship::Sent(key, effects) => {
                    self.readers.remove(&key);
                    self.perform(effects);
                }
            }
        }
    }

    fn look_at_output(&mut self, look: Look) {
        let reader = self.readers.remove(&look.key).filter(|reader| reader.at() == look.from);
        let mut reader = reader.unwrap_or_else(|| self.spool.reader(look.key, look.from));
        self.shipping = Some(spawn_blocking(move || {
            let read = next_piece(&mut reader);
            Seen { look, reader, read }
        }));
    }

    /// Sends what a look has found.
    pub(super) fn shipped(&mut self, seen: Seen) {
        let Seen { look, reader, read } = seen;
        match read {
            Ok(Some(piece)) => self.send_piece(&look, reader, &piece),
            Ok(None) => self.nothing_more(&look, reader),
            Err(error) => self.unreadable(&look, &error),
        }
    }

    fn send_piece(&mut self, look: &Look, reader: Reader, piece: &Piece) {
        // Where there is no room, it stays due and is read again.
        let Some(Ok(room)) = self.outbox.as_ref().map(|outbox| outbox.try_reserve()) else {
            return;
        };
        if let Some(chunk) = self.core.piece(look, piece.to, piece.raw_len, &piece.data) {
            room.send(frame::encode(&FromAgent::Chunk(chunk)));
            self.readers.insert(look.key, reader);
        }
    }

    fn nothing_more(&mut self, look: &Look, reader: Reader) {
        let there = reader.at();
        let effects = self.core.nothing_more(look, there);
        match look.extent {
            Extent::Open if self.core.is_current(look) => {
                self.readers.insert(look.key, reader);
            }
            Extent::Whole(end) if !effects.is_empty() => {
                let (there, wrote) = (there.total(), end.total());
                warn!(task.key = %look.key, "output is damaged: {there} of {wrote} bytes are there");
            }
            Extent::Open | Extent::Whole(_) | Extent::Rest => {}
        }
        self.perform(effects);
    }

    fn unreadable(&mut self, look: &Look, error: &io::Error) {
        if self.core.is_current(look) && self.core.troubles(look.key) == 0 {
            warn!(task.key = %look.key, "output cannot be read: {error}");
        }
        let effects = self.core.unreadable(look, spool::is_damage(error));
        self.perform(effects);
    }
}

/// Reads the next piece, if there is one.
fn next_piece(reader: &mut Reader) -> io::Result<Option<Piece>> {
    let mut raw = Vec::new();
    let Some((_, to)) = reader.next(MAX_CHUNK, &mut raw)? else { return Ok(None) };
    let data = zstd::bulk::compress(&raw, spool::LEVEL)?;
    Ok(Some(Piece { to, raw_len: u32::try_from(raw.len()).unwrap_or(u32::MAX), data }))
}
