//! Rollouts: a change goes through its hosts in waves.

use serde::{Deserialize, Serialize};

use super::{ActorKind, Approval, ChangeState};
use crate::{ChangeId, HostName, RunId, Span, Timestamp};

/// A rollout file (YAML), to be planned or begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RolloutText {
    /// The text.
    pub text: String,
    /// What to call it in errors.
    #[serde(default)]
    pub name: Option<String>,
    /// Say whether it could begin, and begin nothing.
    #[serde(default)]
    pub dry: bool,
}

/// What a rollout would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutPlan {
    /// Its name.
    pub name: String,
    /// Its waves, without those for which no host is left.
    pub waves: Vec<PlannedWave>,
    /// So many failed hosts end it.
    pub budget: u32,
    /// How that was counted.
    pub budget_words: String,
    /// At most so many hosts are under way at once.
    pub max_in_flight: u32,
    /// How that was counted.
    pub max_in_flight_words: String,
    /// What is in its way, or will be.
    pub conflicts: Vec<Conflict>,
    /// How many seconds it takes when nobody is waited for; `null` when nothing is known of that.
    pub predicted_s: Option<u64>,
    /// What that is taken from.
    pub predicted_words: String,
}

/// A wave of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedWave {
    /// Its name: `wave-1` is the first of the file.
    pub name: String,
    /// Its hosts, in the order in which they are served.
    pub hosts: Vec<HostName>,
    /// How they were counted.
    pub words: String,
    /// What it waits for before it begins.
    pub gates: Vec<String>,
}

/// Something that is in the way of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conflict {
    /// What.
    pub kind: ConflictKind,
    /// What it is, and what comes of it, for people.
    pub message: String,
    /// The hosts that it is about; empty when about all.
    pub hosts: Vec<HostName>,
    /// When it is over, if that is known.
    pub until: Option<Timestamp>,
    /// The other change, when there is one.
    pub change: Option<ChangeId>,
}

/// What is in the way of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// A maintenance is in force on hosts.
    Maintenance,
    /// These are not its hours.
    Window,
    /// Another change that has not ended has the same hosts.
    Overlap,
    /// Hosts are offline.
    Offline,
    /// For hosts it cannot be told whether its selector means them.
    Undecided,
}

impl ConflictKind {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance",
            Self::Window => "window",
            Self::Overlap => "overlap",
            Self::Offline => "offline",
            Self::Undecided => "undecided",
        }
    }
}

/// A rollout in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutSummary {
    /// Its id.
    pub id: ChangeId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: ChangeState,
    /// Why it does not go on, or what it does.
    pub why: Option<String>,
    /// The number of the wave that it is in, counted from 1.
    pub wave: Option<u32>,
    /// Who began it: the name of a person or token.
    pub by: String,
    /// What that is; absent for rollouts from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_kind: Option<ActorKind>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl RolloutSummary {
    /// Who began it, as people read it.
    #[must_use]
    pub fn begun_by(&self) -> String {
        ActorKind::shown(self.by_kind, &self.by)
    }
}

/// A rollout on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollout {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: RolloutSummary,
    /// Its waves.
    pub waves: Vec<Wave>,
    /// Its hosts, by wave and then by name.
    pub hosts: Vec<RolloutHost>,
    /// How many may fail.
    pub budget: Budget,
    /// The gate that waits for people; `null` when none does.
    pub gate: Option<Gate>,
    /// Until when the present wave soaks; `null` when none does.
    pub soaks_until: Option<Timestamp>,
    /// The rehearsal of its undo; `null` when none was asked for.
    pub rehearsal: Option<Rehearsal>,
    /// Its runs, in the order in which they began.
    pub runs: Vec<ChangeRun>,
    /// The text of the file.
    pub source: String,
}

/// A wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Wave {
    /// Its name: `wave-1` is the first of the file.
    pub name: String,
    /// Its number in the file, counted from 1.
    pub number: u32,
    /// Where it stands.
    pub state: WaveState,
    /// Its hosts, in the order in which they are served.
    pub hosts: Vec<HostName>,
    /// When its turn came.
    pub began_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// The approval that it takes before it begins.
    pub approval: Option<Gate>,
    /// How long it soaks.
    pub soak: Option<Span>,
}

/// Where a wave of a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WaveState {
    /// Its turn has not come.
    Waiting,
    /// It waits for people.
    AwaitingApproval,
    /// It waits for its hours.
    AwaitingWindow,
    /// Its hosts are changed.
    Running,
    /// It is done, and time passes before it is looked at again.
    Soaking,
    /// It is looked at again.
    Verifying,
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

impl WaveState {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::AwaitingApproval => "awaiting_approval",
            Self::AwaitingWindow => "awaiting_window",
            Self::Running => "running",
            Self::Soaking => "soaking",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
}

/// A host of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutHost {
    /// The host, by the name that it had when the rollout began.
    pub host: HostName,
    /// The number of its wave.
    pub wave: u32,
    /// Where it stands.
    pub state: RolloutHostState,
    /// What proves that; `null` while nothing does.
    pub proof: Option<Proof>,
}

/// Where a host of a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RolloutHostState {
    /// Its turn has not come.
    Waiting,
    /// It is under way.
    Running,
    /// It has the change.
    Done,
    /// It was offline, and such hosts are left out.
    Skipped,
    /// It would not begin; nothing was changed there.
    Refused,
    /// The change or its proof failed there.
    Failed,
    /// Nobody can tell what became of it.
    Unknown,
    /// It is being taken back there.
    Undoing,
    /// It is as it was before.
    Undone,
    /// It could not be taken back: a person must look.
    UndoFailed,
}

impl RolloutHostState {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
}

/// What proves how a host of a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Its command exited with code 0; the file asks for no other proof.
    ExitCode,
    /// All that `verify` asks for held right after the command.
    Verified,
    /// It held again after the soak.
    VerifiedAfterSoak,
    /// It was taken back, and its undo exited with code 0.
    UndoExitCode,
    /// It was taken back, and its state was found the same as before.
    StateCompared,
    /// The host itself took it back, and said so.
    TakenBackByHost,
}

impl Proof {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExitCode => "exit_code",
            Self::Verified => "verified",
            Self::VerifiedAfterSoak => "verified_after_soak",
            Self::UndoExitCode => "undo_exit_code",
            Self::StateCompared => "state_compared",
            Self::TakenBackByHost => "taken_back_by_host",
        }
    }
}

/// How many hosts of a rollout may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Budget {
    /// So many failed hosts end it.
    pub max: u32,
    /// So many have failed.
    pub failed: u32,
    /// So many are under way, and could fail.
    pub in_flight: u32,
}

/// An approval that a rollout or runbook takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gate {
    /// Of at least this role.
    pub role: super::Role,
    /// How many people it takes.
    pub people: u32,
    /// Who has approved.
    pub approvals: Vec<Approval>,
    /// When it expires; `null` while it does not wait, and when it never does.
    pub expires_at: Option<Timestamp>,
}

/// The rehearsal of a rollout's undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rehearsal {
    /// On which host.
    pub host: HostName,
    /// Where it stands.
    pub state: WaveState,
}

/// A run that belongs to a rollout or runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeRun {
    /// The run.
    pub run: RunId,
    /// The part of the change that it is for, such as `wave-2` or the id of a step.
    pub node: String,
    /// Whether it takes that back.
    pub undo: bool,
    /// How many hosts it has.
    pub hosts: u32,
    /// Whether it has ended.
    pub ended: bool,
}
