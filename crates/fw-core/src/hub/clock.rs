//! Notices when the server's time of day was set ahead.

use fw_proto::{Span, Timestamp};

/// A clock that is set ahead by more makes nobody silent for that long.
///
/// It is like time for which the server was down. It must be well below [`super::GRACE`]: a machine
/// sets its clock soon after it has started, when no host is back yet. A clock that is only slewed
/// stays far below it.
pub const JUMP: Span = Span::from_secs(5);

/// The time of day and the steady time when they were last looked at.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    wall: Timestamp,
    steady: Timestamp,
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub const fn new(wall: Timestamp, steady: Timestamp) -> Self {
        Self { wall, steady }
    }

    /// Looks again: by how much the clock was set ahead since, when that is more than [`JUMP`].
    pub fn look(&mut self, wall: Timestamp, steady: Timestamp) -> Option<Span> {
        let before = std::mem::replace(self, Self { wall, steady });
        let ahead = wall.since(before.wall + steady.since(before.steady));
        (ahead > JUMP).then_some(ahead)
    }
}
