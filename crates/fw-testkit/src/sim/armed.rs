//! What a simulated supervisor does with an armed change after its command: as `fw-agent`'s does.
//!
//! It keeps time by a clock of its own, that nobody sets. What it writes down outlives it.

use fw_core::plan::UNDO_TRIES;
use fw_proto::frame::{Applied, Fate, Spec};
use fw_proto::{Span, Timestamp};

/// What becomes of the proof and the undo of a change; the world knows it by the task's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outlook {
    /// Tries of the probe until it holds; never when `None`.
    pub(super) proof: Option<u32>,
    /// Tries of the undo that do not succeed.
    pub(super) failing: u32,
    /// Steps that each try takes.
    pub(super) steps: u32,
}

/// An armed change: what of it is on the disk, and where its supervisor is.
#[derive(Debug)]
pub(super) struct Change {
    outlook: Outlook,
    within: Span,
    probes: bool,
    /// By the clock that nobody sets.
    deadline: Timestamp,
    word: bool,
    pub(super) kept: bool,
    tries: u32,
    /// Steps of the present try that are left.
    left: Option<u32>,
    pub(super) undone: bool,
}

/// What a step of the wait, or of the undo, comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GoesOn,
    Keep,
    Undo,
    Over(Fate),
}

impl Change {
    pub(super) fn of(spec: &Spec, outlook: Outlook) -> Option<Self> {
        let armed = spec.armed.as_ref()?;
        Some(Self {
            outlook,
            within: armed.within,
            probes: armed.probe.is_some(),
            deadline: Timestamp::EPOCH,
            word: false,
            kept: false,
            tries: 0,
            left: None,
            undone: false,
        })
    }

    /// The change has succeeded: the wait begins. A word that came before is none.
    pub(super) fn applied(
        &mut self,
        started_at: Timestamp,
        wall: Timestamp,
        steady: Timestamp,
    ) -> Applied {
        (self.deadline, self.word) = (steady + self.within, false);
        Applied { started_at, at: wall, until: wall + self.within }
    }

    /// Until when the change can be kept.
    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// The agent passes the server's word on.
    pub(super) fn hear(&mut self) {
        self.word = true;
    }

    /// A step of the wait.
    pub(super) fn wait(&mut self, steady: Timestamp, cancelled: bool) -> Next {
        if cancelled || steady >= self.deadline {
            return Next::Undo;
        }
        if !self.word {
            return Next::GoesOn;
        }
        match &mut self.outlook.proof {
            _ if !self.probes => {}
            Some(0) => {}
            Some(left) => {
                *left -= 1;
                return Next::GoesOn;
            }
            None => return Next::GoesOn,
        }
        self.kept = true;
        Next::Keep
    }

    /// A step of the undo, whoever was here before.
    pub(super) fn undo(&mut self) -> Next {
        match &mut self.left {
            None if self.tries >= UNDO_TRIES => Next::Over(Fate::UndoFailed),
            None => {
                self.tries += 1;
                self.left = Some(self.outlook.steps);
                Next::GoesOn
            }
            Some(0) => {
                self.left = None;
                self.undone = self.tries > self.outlook.failing;
                if self.undone { Next::Over(Fate::Undone) } else { Next::GoesOn }
            }
            Some(left) => {
                *left -= 1;
                Next::GoesOn
            }
        }
    }

    /// The supervisor is killed: what it was at is lost.
    pub(super) fn die(&mut self) {
        (self.left, self.word) = (None, false);
    }
}
