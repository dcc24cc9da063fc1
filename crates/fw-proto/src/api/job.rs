//! Jobs: a schedule, a selector, a command and policies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Command, EnvValue, OnFull};
use crate::{HostName, JobName, RunId, Span, Timestamp};

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// What it says.
    pub spec: JobSpec,
    /// Where it comes from.
    pub source: JobSource,
    /// Whether someone has paused it.
    pub paused: bool,
    /// When it fires next; `null` when never.
    pub next_fire: Option<Timestamp>,
    /// What waits, and on what: nothing when all goes its way.
    #[serde(default)]
    pub waiting: Vec<JobWaiting>,
    /// Its last fire that ran.
    pub last_run: Option<RunId>,
    /// Whether that run failed; `null` while it goes on or before the first.
    pub last_failed: Option<bool>,
    /// What is wrong with its file now; the last good version goes on.
    pub error: Option<SourceError>,
}

/// Something of a job that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum JobWaiting {
    /// A fire waits for the end of the job's earlier run.
    Queued {
        /// When it was due.
        nominal: Timestamp,
    },
    /// A run failed and is tried again then.
    Retry {
        /// Which.
        run: RunId,
        /// When.
        at: Timestamp,
    },
    /// Fires that were lost wait to be caught up, each for the end of the run before.
    CatchUp {
        /// How many.
        fires: u32,
        /// When the first of them was due.
        from: Timestamp,
        /// When the last of them was due.
        to: Timestamp,
    },
}

/// Where a job comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobSource {
    /// A file of the server's job directory, relative to it.
    File(String),
    /// `jobs apply`.
    Api,
    /// A file of another program, in a directory that this server serves.
    Dialect {
        /// Which program: `saltpeter`.
        name: String,
        /// The file, relative to the directory.
        file: String,
    },
}

/// What a job says; unset keys have their defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobSpec {
    /// Cron with 5 fields, 6 with seconds first, or `@every 90s`.
    pub schedule: String,
    /// IANA name of the time zone; UTC when absent.
    pub timezone: String,
    /// Which hosts: a selector.
    pub hosts: String,
    /// What to run.
    pub command: Command,
    /// As which user; the agent's own when absent.
    pub user: Option<String>,
    /// In which directory.
    pub cwd: Option<String>,
    /// Environment.
    pub env: BTreeMap<String, EnvValue>,
    /// Ended after so long.
    pub timeout: Option<Span>,
    /// From TERM to KILL.
    pub kill_after: Span,
    /// Not started later than this after the nominal instant.
    pub start_within: Span,
    /// What happens when the job's earlier run goes on.
    pub overlap: Overlap,
    /// Days on which it does not run: `2026-12-25`, `12-25` of every year, or `Sat`. Those of the
    /// calendars that it names are among them.
    #[serde(default)]
    pub skip_on: Vec<String>,
    /// Hours in which it may run, such as `Mon-Fri 22:00-06:00`; at any time when empty.
    #[serde(default)]
    pub window: Vec<String>,
    /// Which fires are made up for that were lost while the server was down or its clock jumped.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// None is made up for that was due longer ago.
    #[serde(default = "catch_up_window")]
    pub catch_up_window: Span,
    /// With `all`, at most so many are, the latest.
    #[serde(default = "catch_up_max")]
    pub catch_up_max: u32,
    /// How often a run of a fire that failed is tried again, on the hosts that did not succeed.
    #[serde(default)]
    pub retries: u32,
    /// The pause before the first of these tries; it doubles with each.
    #[serde(default = "retry_backoff")]
    pub retry_backoff: Span,
    /// Hosts begin one after the other over this time, each job in an order of its own that stays.
    #[serde(default)]
    pub spread: Option<Span>,
    /// Of the hosts only so many, drawn anew for each run; those that are online come first.
    #[serde(default)]
    pub pick: Option<u32>,
    /// At most so many hosts at once.
    pub max_parallel: Option<u32>,
    /// Begin no further hosts once so many have failed.
    pub max_failures: Option<u32>,
    /// Whether it fires.
    pub enabled: bool,
    /// What happens when output comes faster than it can be shipped.
    pub on_full: OnFull,
    /// Called when a run fails.
    pub on_failure: Vec<Hook>,
    /// Called when a run succeeds after one that failed.
    pub on_recovery: Vec<Hook>,
}

/// What happens when a job is due while its earlier run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// The fire is skipped.
    #[default]
    Skip,
    /// It waits; only the latest one does.
    Queue,
    /// The earlier run is cancelled, and it begins once that has ended.
    Replace,
    /// It runs beside the earlier one.
    Allow,
}

/// Which lost fires of a job are made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// None of them.
    #[default]
    None,
    /// The last one.
    Last,
    /// All of them, one after the other, the oldest first.
    All,
}

impl CatchUp {
    /// How long a fire may be made up for, when a job does not say: what is due daily is, once.
    pub const WINDOW: Span = Span::from_secs(24 * 60 * 60);

    /// How many fires are made up for, when a job does not say.
    pub const MAX: u32 = 100;
}

const fn catch_up_window() -> Span {
    CatchUp::WINDOW
}

const fn catch_up_max() -> u32 {
    CatchUp::MAX
}

/// The pause before the first try again, when a job does not say.
pub const RETRY_BACKOFF: Span = Span::from_secs(10);

const fn retry_backoff() -> Span {
    RETRY_BACKOFF
}

/// A notice of a failure or a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// POST the run as JSON to this URL.
    Webhook(String),
    /// Run this command on the server, with the run as JSON on its standard input.
    Command(Vec<String>),
}

/// A job text (YAML), to be checked or applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobsText {
    /// The text.
    pub text: String,
    /// What to call it in errors.
    #[serde(default)]
    pub name: Option<String>,
    /// Say what would be, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a job text holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckedJobs {
    /// The good jobs.
    pub jobs: Vec<CheckedJob>,
    /// What is wrong with the others.
    pub errors: Vec<SourceError>,
}

/// A job that is in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckedJob {
    /// Its name.
    pub name: JobName,
    /// When it fires next; `null` when never.
    pub next_fire: Option<Timestamp>,
}

/// An error in a text: what, where, and the line with a caret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceError {
    /// The file.
    pub file: String,
    /// Counted from 1; 0 when the whole file is meant.
    pub line: u32,
    /// Counted from 1.
    pub column: u32,
    /// The job, when it belongs to one.
    pub job: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
    /// The line and a caret under the place.
    pub snippet: Option<String>,
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message)?,
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message)?,
        }
        self.snippet.iter().try_for_each(|snippet| write!(f, "\n{snippet}"))
    }
}

/// A row of the fire ledger: what became of one fire, or of neighbouring ones with the same fate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fire {
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<FireReason>,
    /// The instant it was due, when the row is of one fire.
    pub nominal: Option<Timestamp>,
    /// The first instant.
    pub from: Timestamp,
    /// The last instant.
    pub to: Timestamp,
    /// How many fires.
    pub count: u64,
    /// The run it began.
    pub run_id: Option<RunId>,
    /// From the nominal instant to the commit of the run.
    pub lag_ms: Option<u64>,
    /// On which hosts it would have run; of verdict `shadow` only.
    pub hosts: Option<Vec<HostName>>,
}

/// What became of a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Waits for the job's earlier run, also to be caught up.
    Pending,
    /// Its run was committed.
    Ran,
    /// Not run, on purpose.
    Skipped,
    /// A later fire took its place in the queue.
    Coalesced,
    /// Its run was committed later than due, after downtime.
    CaughtUp,
    /// Not run: the server was down.
    Missed,
    /// It would have run, but another scheduler runs this job: ours only says what it would start.
    Shadow,
}

/// Why a fire has its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FireReason {
    /// The job's earlier run went on.
    Overlap,
    /// Someone paused the job.
    Paused,
    /// The selector matched no host.
    NoHosts,
    /// The server was down.
    Downtime,
    /// The clock jumped ahead.
    ClockJump,
    /// The wall time does not exist on this day; it ran at the first instant after the gap.
    DstGap,
    /// A secret that the job needs does not exist.
    NoSecret,
    /// The job was changed or deleted while the fire waited.
    Changed,
    /// Begun by hand (`jobs run`).
    Manual,
    /// It was due on a day on which the job does not run.
    Calendar,
    /// It was due outside the hours in which the job may run.
    Window,
    /// All of its hosts were in maintenance.
    Maintenance,
}
