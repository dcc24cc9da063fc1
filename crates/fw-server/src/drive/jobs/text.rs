//! Job texts: read and checked whole, and what the store keeps of each job.

use fw_core::caret::caret;
use fw_core::command;
use fw_core::job::{JobDef, Parsed, parse_jobs};
use fw_core::plan::{Chosen, Origin, Plan, Retries};
use fw_proto::api::{Code, JobSpec, NewRun, Problem, SourceError};
use fw_proto::{Incarnation, JobName, Span, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A job in the store, as JSON.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Since when it says this: nothing before was ever due by it.
    set_at: Timestamp,
    spec: JobSpec,
}

/// Reads a text. Jobs whose command no host could start are errors too.
pub(super) fn read(file: &str, text: &str) -> Parsed {
    let mut parsed = parse_jobs(file, text);
    let mut errors = Vec::new();
    parsed.jobs.retain(|job| match runnable(job) {
        Ok(()) => true,
        Err(invalid) => {
            errors.push(at_job(file, text, job, invalid.to_string()));
            false
        }
    });
    parsed.with_errors(errors)
}

/// A file of which nothing is known but that it cannot be read.
pub(super) fn unreadable(file: &str, why: impl Into<String>) -> Parsed {
    Parsed { errors: vec![whole(file, why)], ..Parsed::default() }
}

/// An error of a whole file.
pub(super) fn whole(file: &str, why: impl Into<String>) -> SourceError {
    let (file, message) = (file.to_owned(), why.into());
    SourceError { file, line: 0, column: 0, job: None, message, snippet: None }
}

fn at_job(file: &str, text: &str, job: &JobDef, message: String) -> SourceError {
    let line = text.lines().nth(usize::try_from(job.line.saturating_sub(1)).unwrap_or(usize::MAX));
    let column = usize::try_from(job.column.saturating_sub(1)).unwrap_or_default();
    SourceError {
        file: file.to_owned(),
        line: job.line,
        column: job.column,
        job: Some(job.name.to_string()),
        message,
        snippet: line.map(|line| caret(line.trim_end(), column)),
    }
}

/// The answer to a text that is not in order.
pub(super) fn invalid(errors: &[SourceError]) -> Problem {
    let detail: Vec<_> = errors.iter().map(SourceError::to_string).collect();
    Problem::new(Code::InvalidJob, "the jobs have errors; none was changed")
        .detail(detail.join("\n"))
}

/// What a job's fire does on these hosts. The same compiler as for a command that someone runs.
///
/// # Errors
/// The job breaks a rule; never of a job that [`read`] or [`from_store`] gave.
pub(super) fn plan(
    job: &JobDef,
    mut hosts: Vec<Chosen>,
    incarnation: Incarnation,
    lost_after: Span,
) -> Result<Plan, command::Invalid> {
    if job.spec.spread.is_some() {
        command::stagger(&mut hosts, &job.name);
    }
    let origin = Origin { job: Some(job.name.clone()), retry_of: None };
    let plan = command::compile(request(&job.spec), hosts, incarnation, lost_after)?;
    let retries = Retries::new(job.spec.retries, job.spec.retry_backoff);
    Ok(Plan { origin, retries, ..plan })
}

fn request(spec: &JobSpec) -> NewRun {
    NewRun {
        hosts: spec.hosts.clone(),
        command: spec.command.clone(),
        user: spec.user.clone(),
        cwd: spec.cwd.clone(),
        env: spec.env.clone(),
        timeout: spec.timeout,
        kill_after: Some(spec.kill_after),
        start_within: Some(spec.start_within),
        offline: None,
        parallel: spec.max_parallel,
        max_failures: spec.max_failures,
        spread: spec.spread,
        on_full: spec.on_full,
        nice: None,
        umask: None,
        armed: None,
    }
}

/// Whether some host could start its command.
///
/// # Errors
/// Why not.
pub(crate) fn runnable(job: &JobDef) -> Result<(), command::Invalid> {
    plan(job, Vec::new(), Incarnation(Uuid::nil()), Span::ZERO).map(drop)
}

/// What the store keeps of a job.
pub(super) fn to_store(job: &JobDef, set_at: Timestamp) -> String {
    let kept = Kept { set_at, spec: job.spec.clone() };
    serde_json::to_string(&kept).expect("a job has only texts, numbers and maps by text")
}

/// A job as the store kept it, and since when it says so.
///
/// # Errors
/// Why this build cannot use it; only if another one stored it.
pub(super) fn from_store(name: &JobName, text: &str) -> Result<(JobDef, Timestamp), String> {
    let kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let job = JobDef::of(name.clone(), kept.spec)
        .map_err(|error| crate::problem::Chain(&error).to_string())?;
    runnable(&job).map_err(|invalid| invalid.to_string())?;
    Ok((job, kept.set_at))
}
