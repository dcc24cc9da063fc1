//! Both ends of the agent link, as pure state machines.
//!
//! Frames, timers and the store's answers in; frames and effects out. The shells only move
//! bytes, so the same code runs in production and in the simulated world.

pub mod agent;
pub mod server;

use fw_proto::Span;

/// A ping goes out this often, when nobody says otherwise. Three missed ones end the link: a cable that
/// was pulled is noticed within a minute, and 20,000 idle agents cost 1,300 small frames a second.
pub const PING_EVERY: Span = Span::from_secs(15);

/// So many intervals of silence end a link.
pub const MISSED: u64 = 3;

/// A link is over after so much silence. The interval may come from a server that is not to be trusted.
const fn patience(ping_every: Span) -> Span {
    Span::from_millis(ping_every.as_millis().saturating_mul(MISSED))
}

/// Both ends have so long from the first byte to the welcome.
pub const GREETING: Span = Span::from_secs(30);

/// Output bytes, compressed, that an agent sends ahead of the server's acknowledgement. Enough
/// for 100 MB/s over a round trip of 40 ms, since log text shrinks to a tenth.
pub const WINDOW: u64 = 512 * 1024;

/// What binds a handshake to this protocol (Noise §6): a name and the versions spoken.
#[must_use]
pub fn prologue() -> Vec<u8> {
    format!("fleetwright agent link {}-{}", fw_proto::PROTOCOL.start(), fw_proto::PROTOCOL.end())
        .into_bytes()
}
