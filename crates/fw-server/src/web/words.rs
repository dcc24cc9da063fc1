//! The words and shapes of states: one place, so that every page says the same.
//!
//! Each tone has its shape beside its colour, for whoever does not see the colour.

use fw_proto::api::{
    ChangeState, FireReason, HostState, Proof, RolloutHostState, RunState, StepState, TaskState,
    Verdict, WaveState,
};

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

impl From<ChangeState> for Status {
    fn from(state: ChangeState) -> Self {
        match state {
            ChangeState::Planned => Self::new(Tone::Queued, "Planned"),
            ChangeState::Running => Self::new(Tone::Run, "Running"),
            ChangeState::Paused => Self::new(Tone::Hold, "Paused"),
            ChangeState::AwaitingApproval => Self::new(Tone::Hold, "Waits for approval"),
            ChangeState::AwaitingPerson => Self::new(Tone::Hold, "Waits for a person"),
            ChangeState::Undoing => Self::new(Tone::Warn, "Being taken back"),
            ChangeState::Succeeded => Self::new(Tone::Ok, "Succeeded"),
            ChangeState::Failed => Self::new(Tone::Bad, "Failed"),
            ChangeState::Undone => Self::new(Tone::Idle, "Taken back"),
            ChangeState::UndoFailed => Self::new(Tone::Bad, "Undo failed"),
        }
    }
}

impl From<WaveState> for Status {
    fn from(state: WaveState) -> Self {
        match state {
            WaveState::Waiting => Self::new(Tone::Queued, "Waits"),
            WaveState::AwaitingApproval => Self::new(Tone::Hold, "Waits for approval"),
            WaveState::AwaitingWindow => Self::new(Tone::Hold, "Waits for its hours"),
            WaveState::Running => Self::new(Tone::Run, "Running"),
            WaveState::Soaking => Self::new(Tone::Run, "Soaks"),
            WaveState::Verifying => Self::new(Tone::Run, "Is looked at again"),
            WaveState::Done => Self::new(Tone::Ok, "Done"),
            WaveState::Failed => Self::new(Tone::Bad, "Failed"),
            WaveState::Skipped => Self::new(Tone::Idle, "Skipped"),
            WaveState::Undoing => Self::new(Tone::Warn, "Being taken back"),
            WaveState::Undone => Self::new(Tone::Idle, "Taken back"),
            WaveState::UndoFailed => Self::new(Tone::Bad, "Undo failed"),
        }
    }
}

impl From<RolloutHostState> for Status {
    fn from(state: RolloutHostState) -> Self {
        match state {
            RolloutHostState::Waiting => Self::new(Tone::Queued, "Waits"),
            RolloutHostState::Running => Self::new(Tone::Run, "Running"),
            RolloutHostState::Done => Self::new(Tone::Ok, "Done"),
            RolloutHostState::Skipped => Self::new(Tone::Idle, "Left out: offline"),
            RolloutHostState::Refused => Self::new(Tone::Bad, "Not begun"),
            RolloutHostState::Failed => Self::new(Tone::Bad, "Failed"),
            RolloutHostState::Unknown => Self::new(Tone::Warn, "Unknown"),
            RolloutHostState::Undoing => Self::new(Tone::Warn, "Being taken back"),
            RolloutHostState::Undone => Self::new(Tone::Idle, "Taken back"),
            RolloutHostState::UndoFailed => Self::new(Tone::Bad, "Undo failed"),
        }
    }
}

impl From<StepState> for Status {
    fn from(state: StepState) -> Self {
        match state {
            StepState::Planned => Self::new(Tone::Queued, "To do"),
            StepState::Running => Self::new(Tone::Run, "Running"),
            StepState::AwaitingApproval => Self::new(Tone::Hold, "Waits for approval"),
            StepState::AwaitingPerson => Self::new(Tone::Hold, "Waits for a person"),
            StepState::Done => Self::new(Tone::Ok, "Done"),
            StepState::Failed => Self::new(Tone::Bad, "Failed"),
            StepState::Skipped => Self::new(Tone::Idle, "Skipped"),
            StepState::Undoing => Self::new(Tone::Warn, "Being taken back"),
            StepState::Undone => Self::new(Tone::Idle, "Taken back"),
            StepState::UndoFailed => Self::new(Tone::Bad, "Undo failed"),
        }
    }
}

/// What proves how a host of a rollout is, in words.
pub(super) const fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::ExitCode => "exit code 0",
        Proof::Verified => "verified",
        Proof::VerifiedAfterSoak => "verified after the soak",
        Proof::UndoExitCode => "undo exited with 0",
        Proof::StateCompared => "state as before",
        Proof::TakenBackByHost => "taken back by the host",
    }
}

/// What a person can do about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Actions {
    pub(super) approve: bool,
    pub(super) pause: bool,
    pub(super) resume: bool,
    pub(super) abort: bool,
    pub(super) undo: bool,
}

impl From<ChangeState> for Actions {
    fn from(state: ChangeState) -> Self {
        let goes_on = !state.is_final() && state != ChangeState::Undoing;
        let paused = state == ChangeState::Paused;
        Self {
            approve: state == ChangeState::AwaitingApproval,
            pause: goes_on && !paused,
            resume: paused,
            abort: goes_on,
            undo: goes_on || matches!(state, ChangeState::Succeeded | ChangeState::Failed),
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
