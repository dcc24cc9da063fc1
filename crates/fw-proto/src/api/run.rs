//! Runs: one execution of a command on the hosts that a selector picks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ActorKind;
use crate::record::Stream;
use crate::{ChangeId, HostName, JobName, RunId, Span, Timestamp};

/// A request to run a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// Which hosts: a selector.
    pub hosts: String,
    /// What to run.
    pub command: Command,
    /// As which user; the agent's own when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// In which directory; the user's home when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment added to the clean one.
    #[serde(default)]
    pub env: BTreeMap<String, EnvValue>,
    /// Ended after so long; absent or zero means no limit.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// From TERM to KILL; 10 s when absent.
    #[serde(default)]
    pub kill_after: Option<Span>,
    /// Not started later than this after now; 60 s when absent.
    #[serde(default)]
    pub start_within: Option<Span>,
    /// What to do about hosts that are offline; they are waited for as long as `start_within` when absent.
    #[serde(default)]
    pub offline: Option<Offline>,
    /// At most so many hosts at once; no limit when absent.
    #[serde(default)]
    pub parallel: Option<u32>,
    /// Begin no further hosts once so many have failed (at least 1); no limit when absent.
    #[serde(default)]
    pub max_failures: Option<u32>,
    /// Hosts begin one after the other over this time, evenly, instead of all at once.
    #[serde(default)]
    pub spread: Option<Span>,
    /// What happens on a host when output comes faster than it can be shipped.
    #[serde(default)]
    pub on_full: OnFull,
    /// Niceness, from -20 to 19.
    #[serde(default)]
    pub nice: Option<i8>,
    /// File mode creation mask.
    #[serde(default)]
    pub umask: Option<u16>,
    /// The command is a change that each host undoes by itself unless it is confirmed in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub armed: Option<Arm>,
}

/// How a host undoes a change, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Undoes the change, also one that was only half made, and also twice.
    pub undo: Command,
    /// How long the host waits for the server's word and its own proof, from the moment at which the change has
    /// succeeded.
    pub within: Span,
    /// Proves on the host that the change is good: without exit code 0 it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Command>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Program and arguments; no shell between.
    Argv(Vec<String>),
    /// A text for `/bin/sh -c`.
    Shell(String),
}

/// A value in the environment: plain text, or the name of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum EnvValue {
    /// Plain text.
    Value(String),
    /// The name of a secret of the server.
    Secret(String),
}

/// What happens about a host that is offline when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Offline {
    /// Wait for it so long; then it has failed.
    Wait(Span),
    /// It has failed.
    Fail,
    /// It is skipped.
    Skip,
}

/// What happens on a host when a task's spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// The command waits; its timeout runs on.
    #[default]
    Block,
    /// New output is not kept, and the gap is recorded.
    Drop,
}

/// The id of what was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Created {
    /// Its id.
    pub id: RunId,
    /// Something to know, such as that one of its hosts is in maintenance.
    #[serde(default)]
    pub warning: Option<String>,
}

/// A request to run again what did not succeed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Only the hosts that did not succeed; else all of them.
    #[serde(default)]
    pub failed: bool,
}

/// A request to end a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Only on those of its hosts that this selector picks, while it goes on at the others; else everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// Where it stands.
    pub state: RunState,
    /// How many tasks are in which state, and what it is waiting on.
    pub report: RunReport,
    /// Who began it: the name of a person or token, `job:NAME`, or `server`.
    pub by: String,
    /// What that is; absent for runs from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_kind: Option<ActorKind>,
    /// The job it belongs to.
    pub job: Option<JobName>,
    /// The run that this one repeats.
    pub retry_of: Option<RunId>,
    /// The rollout or runbook that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeId>,
    /// The selector it was begun with.
    pub hosts: String,
    /// What it runs.
    pub command: Command,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl RunSummary {
    /// Who began it, as people read it.
    #[must_use]
    pub fn begun_by(&self) -> String {
        ActorKind::shown(self.by_kind, &self.by)
    }
}

/// A run and its tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Run {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Its tasks, by host name.
    pub tasks: Vec<Task>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Decided; nothing was sent yet.
    Planned,
    /// Tasks are under way.
    Running,
    /// Cancelled by someone; not all hosts have confirmed it.
    Cancelling,
    /// Every task succeeded or was skipped.
    Succeeded,
    /// Some task did neither.
    Failed,
    /// It was cancelled, and every started host has confirmed or is lost; or some hosts were, and no other
    /// failed.
    Cancelled,
}

impl RunState {
    /// The word that the API writes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it will change no more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What a run amounts to, and why it does not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunReport {
    /// How many tasks are in which state; states without a task are left out.
    pub tasks: BTreeMap<TaskState, u32>,
    /// How many tasks there are.
    pub total: u32,
    /// What it is waiting on; empty when it has ended.
    pub waiting_on: Vec<WaitingOn>,
}

/// A reason why a run does not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "on")]
pub enum WaitingOn {
    /// Commands that run on so many hosts.
    Running {
        /// How many.
        hosts: u32,
    },
    /// So many hosts have been told to start and have not answered.
    Starting {
        /// How many.
        hosts: u32,
    },
    /// So many hosts are offline.
    Offline {
        /// How many.
        hosts: u32,
        /// How long they are waited for.
        until: Timestamp,
    },
    /// So many hosts wait because `parallel` others are busy.
    Parallel {
        /// How many.
        hosts: u32,
    },
    /// So many hosts wait because those under way could use up the failures left.
    Budget {
        /// How many.
        hosts: u32,
    },
    /// So many hosts wait until the time over which the run is spread comes to them.
    Spread {
        /// How many.
        hosts: u32,
        /// When it comes to the last host.
        until: Timestamp,
    },
    /// So many hosts must say what they remember, since the store was restored from a backup.
    Restored {
        /// How many.
        hosts: u32,
    },
}

/// A run's part on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// The host.
    pub host: HostName,
    /// Where it stands.
    pub state: TaskState,
    /// Why, when the state alone does not say.
    pub reason: Option<TaskReason>,
    /// More, for people.
    pub message: Option<String>,
    /// Counted from 1.
    pub attempt: u16,
    /// Exit code, when the command exited.
    pub exit_code: Option<i32>,
    /// Signal number, when a signal ended it.
    pub signal: Option<i32>,
    /// When its process was started, by the host's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the host's clock.
    pub finished_at: Option<Timestamp>,
    /// Bytes of stdout in the store.
    pub stdout_bytes: u64,
    /// Bytes of stderr in the store.
    pub stderr_bytes: u64,
    /// SHA-256 of the stored bytes, by the host.
    pub stdout_sha256: Option<String>,
    /// Likewise of stderr.
    pub stderr_sha256: Option<String>,
    /// Bytes of stdout that were not kept.
    pub stdout_dropped_bytes: u64,
    /// Bytes of stderr that were not kept.
    pub stderr_dropped_bytes: u64,
    /// Processes that the command left behind when it ended.
    pub left_behind: u32,
    /// Something the host said after the verdict; the verdict stands.
    pub late: Option<String>,
    /// What became of an armed change, as its host said; absent while it said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub armed: Option<Armed>,
}

/// What a host says of an armed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Armed {
    /// It has succeeded, and waits for the word.
    Waiting,
    /// It was confirmed in time.
    Kept,
    /// The host has undone it.
    Undone,
    /// The host could not undo it.
    UndoFailed,
}

impl Armed {
    /// The word that the API writes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Kept => "kept",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not sent yet, or waiting for a slot on its host.
    Queued,
    /// Sent; the host has not confirmed the start.
    Starting,
    /// The host has started it.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Another exit code, a signal, or it could not be begun.
    Failed,
    /// Ended by its timeout.
    TimedOut,
    /// Ended because the run was cancelled, or never begun for that reason.
    Cancelled,
    /// Not begun, on purpose.
    Skipped,
    /// The host would not start it.
    Refused,
    /// Started, and the host was not heard of again.
    Lost,
    /// The host cannot tell whether it ran.
    Unknown,
}

impl TaskState {
    /// The word that the API writes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it will change no more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Starting | Self::Running)
    }

    /// Whether it counts against the failure budget and makes the run fail.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::Refused | Self::Lost | Self::Unknown)
    }
}

/// Why a task is in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskReason {
    /// The host was offline for as long as it was waited for.
    Offline,
    /// The run had used up its failures.
    Budget,
    /// The host was revoked or removed.
    Revoked,
    /// The start came too late.
    Expired,
    /// A newer server has taken over this host.
    Fenced,
    /// The host's own policy.
    Policy,
    /// Too many tasks waited on the host.
    QueueFull,
    /// No such user there, or the agent may not become that user.
    User,
    /// The program or directory could not be used.
    Spawn,
    /// The host's state directory could not be written.
    Disk,
    /// A secret it needs is gone.
    NoSecret,
    /// The job's earlier run was still going on.
    Overlap,
    /// The job's next fire took the place of this run (`overlap: replace`).
    Replaced,
    /// The host's agent is too old to undo a change by itself.
    AgentOld,
    /// The armed change was confirmed in time.
    Kept,
    /// The host has undone the change.
    Undone,
    /// The host could not undo the change: a person must look.
    UndoFailed,
}

impl TaskReason {
    /// What it says of an armed change.
    #[must_use]
    pub const fn armed(self) -> Option<Armed> {
        match self {
            Self::Kept => Some(Armed::Kept),
            Self::Undone => Some(Armed::Undone),
            Self::UndoFailed => Some(Armed::UndoFailed),
            Self::Offline
            | Self::Budget
            | Self::Revoked
            | Self::Expired
            | Self::Fenced
            | Self::Policy
            | Self::QueueFull
            | Self::User
            | Self::Spawn
            | Self::Disk
            | Self::NoSecret
            | Self::Overlap
            | Self::Replaced
            | Self::AgentOld => None,
        }
    }
}

/// One event of a run's stream (`text/event-stream`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum RunEvent {
    /// The run's state or report changed.
    Run(RunSummary),
    /// A task changed.
    Task(Task),
}

/// One piece of output in a stream of a run's logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEvent {
    /// The host.
    pub host: HostName,
    /// Which stream.
    pub stream: Stream,
    /// When the host read it.
    pub at: Timestamp,
    /// Offset of the first byte in the stream.
    pub offset: u64,
    /// The bytes, in standard base64; empty for a gap.
    pub data: String,
    /// So many bytes were not kept here; 0 where there is no gap.
    #[serde(default)]
    pub gap: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_called_what_the_api_writes() {
        for state in [RunState::Planned, RunState::Cancelling, RunState::Succeeded] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for state in [TaskState::Queued, TaskState::TimedOut, TaskState::Unknown] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
