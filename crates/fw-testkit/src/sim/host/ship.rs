//! What a host sends: output, read a piece at a time, and frames, as far as its socket takes them.

use fw_core::agent::{Look, Ship};
use fw_proto::Span;
use fw_proto::frame::{self, FromAgent};
use rand::RngExt as _;

use super::{Host, OUTBOX, RESERVE, Shell};
use crate::sim::history::Sight;
use crate::sim::net::Net;
use crate::sim::spool::Read;
use crate::sim::world::Ctx;

impl Host {
    pub(super) fn ship(&mut self, ctx: &mut Ctx) {
        while let Some(shell) = &mut self.shell
            && shell.reading.is_none()
            && shell.conn.is_some()
            && shell.outbox.len() + RESERVE <= OUTBOX
        {
            match shell.core.ship() {
                None => return,
                Some(Ship::Read(look)) => {
                    // Mostly at once, so that several pieces may go out in a step.
                    if ctx.one_in(4) {
                        let at = ctx.now + Span::from_millis(ctx.rng.random_range(0..2000));
                        shell.reading = Some((at, look));
                    } else {
                        self.has_read(ctx, look);
                    }
                }
                Some(Ship::Sent(_, effects)) => self.perform(ctx, effects),
            }
        }
    }

    pub(super) fn write_frames(&mut self, ctx: &mut Ctx, net: &mut Net) {
        let Some(shell) = &mut self.shell else { return };
        let Some(conn) = shell.conn.and_then(|id| net.conns.get_mut(&id)) else { return };
        while conn.up.has_room()
            && let Some(bytes) = shell.outbox.pop_front()
        {
            let delay = Span::from_millis(ctx.rng.random_range(0..800));
            conn.up.put(bytes, ctx.now, delay);
        }
    }

    pub(super) fn has_read(&mut self, ctx: &mut Ctx, look: Look) {
        let Some(shell) = &mut self.shell else { return };
        let read = self.disk.spools.get(&look.key).map_or(Read::Damaged, |of| of.read(look.from));
        let effects = match read {
            Read::Piece(to, bytes) => {
                let raw_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if shell.outbox.len() < OUTBOX
                    && let Some(chunk) = shell.core.piece(&look, to, raw_len, &bytes)
                {
                    shell.send(&FromAgent::Chunk(chunk));
                }
                Vec::new()
            }
            Read::Nothing => shell.core.nothing_more(&look, look.from),
            Read::Damaged => {
                ctx.history.sight(Sight::Damaged);
                shell.core.unreadable(&look, true)
            }
        };
        self.perform(ctx, effects);
    }
}

impl Shell {
    pub(super) fn send(&mut self, frame: &FromAgent<'_>) {
        if self.conn.is_none() {
            return;
        }
        if self.outbox.len() >= OUTBOX {
            self.core.down();
            self.conn = None;
            return;
        }
        self.outbox.push_back(frame::encode(frame));
    }
}
