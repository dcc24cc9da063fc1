//! Changes: rollouts and runbooks on their way.

use serde::{Deserialize, Serialize};

/// Where a rollout or a runbook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// Nothing of it has begun.
    Planned,
    /// It goes on.
    Running,
    /// It waits until somebody resumes it, takes it back or ends it.
    Paused,
    /// It waits for an approval.
    AwaitingApproval,
    /// It waits for somebody to tick a step, or to say that it may run.
    AwaitingPerson,
    /// It is being taken back.
    Undoing,
    /// It went through.
    Succeeded,
    /// It ended before that, and what is done stays.
    Failed,
    /// It is taken back.
    Undone,
    /// It could not be taken back everywhere: a person must look.
    UndoFailed,
}

impl ChangeState {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::AwaitingApproval => "awaiting_approval",
            Self::AwaitingPerson => "awaiting_person",
            Self::Undoing => "undoing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Undone | Self::UndoFailed => true,
            Self::Planned
            | Self::Running
            | Self::Paused
            | Self::AwaitingApproval
            | Self::AwaitingPerson
            | Self::Undoing => false,
        }
    }
}
