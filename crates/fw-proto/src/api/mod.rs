//! What the HTTP API under `/api/v1` takes and gives, one noun a file.
//!
//! JSON; times are RFC 3339 UTC with milliseconds, durations as people write them (`90s`),
//! absent values `null`. Requests refuse unknown fields; readers of answers should skip them.

mod audit;
mod host;
mod invite;
mod job;
mod log;
mod maintenance;
mod problem;
mod run;
mod secret;
mod server;
mod session;
mod token;
mod user;

pub use audit::{AuditCheck, AuditEntry};
pub use host::{Host, HostState, LabelChange, NewName, Selected};
pub use invite::{Invitation, NewInvitation};
pub use job::{
    CatchUp, CheckedJob, CheckedJobs, Fire, FireReason, Hook, Job, JobSource, JobSpec, JobWaiting,
    JobsText, Overlap, RETRY_BACKOFF, SourceError, Verdict,
};
pub use log::{LineEnd, LogGroup, LogLine, LogLines, LogMatch, LogMatches, OnlyLines};
pub use maintenance::{Maintenance, NewMaintenance};
pub use problem::{Code, Problem};
pub use run::{
    Arm, Armed, Cancel, Command, Created, EnvValue, LogEvent, NewRun, Offline, OnFull, Retry, Run,
    RunEvent, RunReport, RunState, RunSummary, Task, TaskReason, TaskState, WaitingOn,
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
