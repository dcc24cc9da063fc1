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

/// The header of the upgrade request in which an agent says which [`Versions`] it speaks. Whoever sends
/// none speaks ours.
pub const VERSIONS_HEADER: &str = "fleetwright-protocol";

/// The protocol versions that one end speaks. Written `1-3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub first: u16,
    /// The newest.
    pub last: u16,
}

/// A text that names no versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("versions are written FIRST-LAST, such as 1-3")]
pub struct InvalidVersions;

impl Versions {
    /// What this build speaks.
    pub const OURS: Self =
        Self { first: *fw_proto::PROTOCOL.start(), last: *fw_proto::PROTOCOL.end() };

    /// The highest version that both speak.
    ///
    /// # Errors
    /// There is none; the text says who speaks what, and what to do.
    pub fn common(self) -> Result<u16, String> {
        let highest = self.last.min(Self::OURS.last);
        if self.first <= highest && Self::OURS.first <= highest {
            return Ok(highest);
        }
        Err(format!(
            "this server speaks protocol {} to {}, the agent {} to {}: upgrade the older of the two",
            Self::OURS.first,
            Self::OURS.last,
            self.first,
            self.last
        ))
    }

    /// What binds a handshake to this protocol (Noise §6): a name, and the versions that the agent
    /// says it speaks. Were they changed on the way, the handshake would fail.
    #[must_use]
    pub fn prologue(self) -> Vec<u8> {
        format!("fleetwright agent link {self}").into_bytes()
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl std::str::FromStr for Versions {
    type Err = InvalidVersions;
    fn from_str(text: &str) -> Result<Self, InvalidVersions> {
        let number = |text: &str| text.parse().map_err(|_| InvalidVersions);
        let (first, last) = text.split_once('-').ok_or(InvalidVersions)?;
        let versions = Self { first: number(first)?, last: number(last)? };
        if versions.first <= versions.last { Ok(versions) } else { Err(InvalidVersions) }
    }
}
