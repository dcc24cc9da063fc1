//! The words and shapes of states: one place, so that every page says the same.
//!
//! Each tone has its shape beside its colour, for whoever does not see the colour.

use fw_proto::api::{FireReason, HostState, RunState, TaskState, Verdict};

/// What a state means to whoever looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    /// All is well.
    Ok,
    /// Something goes on.
    Run,
    /// Look at it.
    Warn,
    /// It went wrong.
    Bad,
    /// A person must say so.
    Hold,
    /// It has yet to begin.
    Queued,
    /// Not begun, on purpose.
    Idle,
}

impl Tone {
    /// As the icons and the style sheet call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Run => "run",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Hold => "hold",
            Self::Queued => "queued",
            Self::Idle => "idle",
        }
    }
}

/// A state in the words of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) tone: Tone,
    pub(super) word: &'static str,
}

impl Status {
    pub(super) const fn new(tone: Tone, word: &'static str) -> Self {
        Self { tone, word }
    }
}

impl From<HostState> for Status {
    fn from(state: HostState) -> Self {
        match state {
            HostState::Online => Self::new(Tone::Ok, "Online"),
            HostState::Offline => Self::new(Tone::Bad, "Unreachable"),
            HostState::Revoked => Self::new(Tone::Idle, "Revoked"),
            HostState::Duplicate => Self::new(Tone::Warn, "Duplicate key"),
        }
    }
}

impl From<RunState> for Status {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Planned => Self::new(Tone::Queued, "Queued"),
            RunState::Running => Self::new(Tone::Run, "Running"),
            RunState::Cancelling => Self::new(Tone::Run, "Cancelling"),
            RunState::Succeeded => Self::new(Tone::Ok, "Succeeded"),
            RunState::Failed => Self::new(Tone::Bad, "Failed"),
            RunState::Cancelled => Self::new(Tone::Idle, "Cancelled"),
        }
    }
}

impl From<TaskState> for Status {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Queued => Self::new(Tone::Queued, "Queued"),
            TaskState::Starting => Self::new(Tone::Run, "Starting"),
            TaskState::Running => Self::new(Tone::Run, "Running"),
            TaskState::Succeeded => Self::new(Tone::Ok, "Succeeded"),
            TaskState::Failed => Self::new(Tone::Bad, "Failed"),
            TaskState::TimedOut => Self::new(Tone::Bad, "Timed out"),
            TaskState::Cancelled => Self::new(Tone::Idle, "Cancelled"),
            TaskState::Skipped => Self::new(Tone::Idle, "Skipped"),
            TaskState::Refused => Self::new(Tone::Bad, "Refused"),
            TaskState::Lost => Self::new(Tone::Bad, "Lost"),
            TaskState::Unknown => Self::new(Tone::Warn, "Unknown"),
        }
    }
}

impl From<Verdict> for Status {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pending => Self::new(Tone::Queued, "Waits"),
            Verdict::Ran => Self::new(Tone::Ok, "Ran"),
            Verdict::Skipped => Self::new(Tone::Idle, "Skipped"),
            Verdict::Coalesced => Self::new(Tone::Idle, "Replaced by a later fire"),
            Verdict::CaughtUp => Self::new(Tone::Warn, "Caught up"),
            Verdict::Missed => Self::new(Tone::Bad, "Missed"),
            Verdict::Shadow => Self::new(Tone::Idle, "Would have run"),
        }
    }
}

/// Why a fire has its verdict, in words.
pub(super) const fn reason(reason: FireReason) -> &'static str {
    match reason {
        FireReason::Overlap => "the job's earlier run was still going on",
        FireReason::Paused => "the job was paused",
        FireReason::NoHosts => "the selector matched no host",
        FireReason::Downtime => "the server was down",
        FireReason::ClockJump => "the server's clock jumped ahead",
        FireReason::DstGap => "the clocks went forward over it; it ran right after",
        FireReason::NoSecret => "a secret that the job needs does not exist",
        FireReason::Changed => "the job was changed while the fire waited",
        FireReason::Manual => "begun by hand",
        FireReason::Calendar => "not on this day, says its calendar",
        FireReason::Window => "outside the hours in which it may run",
        FireReason::Maintenance => "all of its hosts were in maintenance",
    }
}
