//! What the HTTP API under `/api/v1` takes and gives, one noun a file.
//!
//! JSON; times are RFC 3339 UTC with milliseconds, durations as people write them (`90s`),
//! absent values `null`. Requests refuse unknown fields; readers of answers should skip them.

mod actor;
mod audit;
mod change;
mod device;
mod host;
mod invite;
mod job;
mod log;
mod maintenance;
mod problem;
mod rollout;
mod run;
mod runbook;
mod secret;
mod server;
mod session;
mod token;
mod user;

pub use actor::ActorKind;
pub use audit::{AuditCheck, AuditEntry};
pub use change::{ChangeBegun, ChangeState, ChangeVerb, StepNote, StepVerb};
pub use device::{
    Device, DeviceAnswer, DeviceBegun, DeviceCode, DeviceSecret, DeviceState, NewDevice,
};
pub use host::{Host, HostState, LabelChange, NewName, Selected};
pub use invite::{Invitation, NewInvitation};
pub use job::{
    CatchUp, CheckedJob, CheckedJobs, Fire, FireReason, Hook, Job, JobSource, JobSpec, JobWaiting,
    JobsText, Overlap, RETRY_BACKOFF, SourceError, Verdict,
};
pub use log::{LineEnd, LogGroup, LogLine, LogLines, LogMatch, LogMatches, OnlyLines};
pub use maintenance::{
    Maintenance, MaintenanceNow, MaintenanceWindow, NewMaintenance, Recurrence, StillRunning,
};
pub use problem::{Code, Problem};
pub use rollout::{
    Budget, ChangeRun, Conflict, ConflictKind, Gate, PlannedWave, Proof, Rehearsal, Rollout,
    RolloutHost, RolloutHostState, RolloutPlan, RolloutSummary, RolloutText, Wave, WaveState,
};
pub use run::{
    Arm, Armed, Cancel, Command, Created, EnvValue, LogEvent, NewRun, Offline, OnFull, Retry, Run,
    RunEvent, RunReport, RunState, RunSummary, Task, TaskReason, TaskState, WaitingOn,
};
pub use runbook::{
    Approval, NewRunbook, ReportFormat, Runbook, RunbookPhase, RunbookRehearsal, RunbookStep,
    RunbookSummary, RunbookText, StepGate, StepState,
};
pub use secret::{NewSecret, Secret};
pub use server::{BackupMade, KeyRotation, Readiness, ServerInfo};
pub use session::{
    Me, NewPassword, RecoveryCodes, Session, SetUp, SetupState, SignIn, StepUp, TotpCode,
    TotpSecret,
};
pub use token::{NewToken, Scope, Token, TokenMade};
pub use user::{NewUser, Role, SetUpLink, User, UserChange, UserMade};

/// One page of a list, and where the next begins.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The page.
    pub items: Vec<T>,
    /// Pass as `cursor` for the page after this one; `null` on the last.
    pub next: Option<String>,
}
