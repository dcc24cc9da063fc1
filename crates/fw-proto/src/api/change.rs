//! Changes: rollouts and runbooks on their way.

use serde::{Deserialize, Serialize};

use crate::ChangeId;

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

/// The rollout or runbook that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeBegun {
    /// Its id.
    pub id: ChangeId,
    /// What to know of it, such as hosts in maintenance.
    #[serde(default)]
    pub warning: Option<String>,
}

/// What is wanted of a rollout or runbook that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangeVerb {
    /// Begin nothing more for now. What runs ends.
    Pause,
    /// Go on; what failed is tried again.
    Resume,
    /// The gate that waits may be passed.
    Approve,
    /// End it; what is done stays.
    Abort,
    /// Take it back.
    Undo,
}

impl ChangeVerb {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Abort => "abort",
            Self::Undo => "undo",
        }
    }
}

/// What a person says of a step that waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepVerb {
    /// It is done.
    Tick,
    /// It may run.
    Confirm,
    /// Go on without it.
    Skip,
}

impl StepVerb {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Confirm => "confirm",
            Self::Skip => "skip",
        }
    }
}

/// What a person wants to say with it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StepNote {
    /// Kept with the step, and shown in the report; at most 4 KiB.
    #[serde(default)]
    pub note: Option<String>,
}
