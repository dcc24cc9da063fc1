//! Runbooks on their way: a document whose steps run, wait for people, and are taken back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ActorKind;
use super::change::ChangeState;
use super::user::Role;
use crate::{ChangeId, HostName, RunId, Timestamp};

/// A request to begin a runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRunbook {
    /// What to call the document in errors, such as its path.
    #[serde(default)]
    pub file: Option<String>,
    /// The document.
    pub source: String,
    /// Values by the names of its inputs, as people write them.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Where steps run that name no hosts: a selector.
    #[serde(default)]
    pub hosts: Option<String>,
}

/// The text of a runbook that was not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RunbookText {
    /// The document.
    pub source: String,
}

/// What is known of the undo of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunbookRehearsal {
    /// Whether an undo of just this text has ever run to its end.
    pub rehearsed: bool,
}

/// A runbook in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunbookSummary {
    /// Its id.
    pub id: ChangeId,
    /// What it is called.
    pub title: String,
    /// Where it stands.
    pub state: ChangeState,
    /// Why it does not go on, or what it does.
    pub why: Option<String>,
    /// Who began it: the name of a person or token.
    pub by: String,
    /// What that is; absent for runbooks from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_kind: Option<ActorKind>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl RunbookSummary {
    /// Who began it, as people read it.
    #[must_use]
    pub fn begun_by(&self) -> String {
        ActorKind::shown(self.by_kind, &self.by)
    }
}

/// A runbook and its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Runbook {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: RunbookSummary,
    /// Whether an undo of this document has ever run.
    pub rehearsed: bool,
    /// Its headings.
    pub phases: Vec<RunbookPhase>,
    /// Its steps that have a turn, in the order of the document.
    pub steps: Vec<RunbookStep>,
    /// The document as it was given.
    pub source: String,
}

/// A heading of a runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunbookPhase {
    /// What it says.
    pub title: String,
    /// 1 to 6.
    pub level: u8,
    /// Its line in the document, counted from 1.
    pub line: u32,
}

/// A step of a runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunbookStep {
    /// Its id.
    pub id: String,
    /// Its line in the document, counted from 1.
    pub line: Option<u32>,
    /// What it is: `command`, `ask`, `manual`, `approval` or `backup`.
    pub kind: String,
    /// What it says.
    pub title: String,
    /// Its place in the phases, counted from 0.
    pub phase: Option<u32>,
    /// Where it stands.
    pub state: StepState,
    /// The hosts on which it runs.
    pub hosts: Vec<HostName>,
    /// The hosts on which it failed or may have.
    pub failed: Vec<HostName>,
    /// The last run that did it.
    pub output_run: Option<RunId>,
    /// All runs that did it, the first one first.
    pub runs: Vec<RunId>,
    /// The last run that took it back.
    pub undo_run: Option<RunId>,
    /// Whether something takes it back.
    pub has_undo: bool,
    /// Who ticked, confirmed or skipped it, or let it begin; the server where nobody had to.
    pub by: Option<String>,
    /// What that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_kind: Option<ActorKind>,
    /// When its turn came.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The approval that it needs.
    pub gate: Option<StepGate>,
    /// What the person wrote, or why it could not be begun.
    pub note: Option<String>,
}

impl RunbookStep {
    /// Who did it or let it begin, as people read it.
    #[must_use]
    pub fn done_by(&self) -> Option<String> {
        self.by.as_deref().map(|by| ActorKind::shown(self.by_kind, by))
    }
}

/// The approval that a step needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepGate {
    /// Of at least this role.
    pub by: Role,
    /// How many people.
    pub people: u32,
    /// Until when it is waited for.
    pub until: Option<Timestamp>,
    /// Who has approved.
    pub approvals: Vec<Approval>,
}

/// The form of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    /// Markdown.
    Md,
    /// One page of HTML.
    Html,
}

impl ReportFormat {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md => "md",
            Self::Html => "html",
        }
    }
}

/// That somebody has approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// Who.
    pub by: String,
    /// What that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_kind: Option<ActorKind>,
    /// When.
    pub at: Timestamp,
}

impl Approval {
    /// Whose it is, as people read it.
    #[must_use]
    pub fn given_by(&self) -> String {
        ActorKind::shown(self.by_kind, &self.by)
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Its turn has not come.
    Planned,
    /// It goes on.
    Running,
    /// It waits for an approval.
    AwaitingApproval,
    /// It waits for a person to do it, or to say that it may run.
    AwaitingPerson,
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// A person went on without it.
    Skipped,
    /// It is being taken back.
    Undoing,
    /// It is taken back.
    Undone,
    /// It could not be taken back everywhere.
    UndoFailed,
}

impl StepState {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::AwaitingPerson => "awaiting_person",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
}
