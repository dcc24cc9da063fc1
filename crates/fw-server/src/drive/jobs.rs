//! Jobs and their schedules. The scheduler takes this module's place; until it does, there are no jobs.

use fw_core::run::Actor;
use fw_proto::api::{CheckedJobs, Code, Job, JobsText, Problem, SourceError};
use fw_proto::{JobName, RunId};

/// Asks the task that owns the jobs. Clones ask the same.
#[derive(Debug, Clone, Default)]
pub struct Handle;

impl Handle {
    /// All jobs, by name.
    pub async fn list(&self) -> Vec<Job> {
        Vec::new()
    }

    /// A job.
    pub async fn show(&self, _: &JobName) -> Option<Job> {
        None
    }

    /// What is wrong with the job files now.
    pub async fn errors(&self) -> Vec<SourceError> {
        Vec::new()
    }

    /// Reads a text and changes nothing.
    pub async fn check(&self, _: JobsText) -> CheckedJobs {
        CheckedJobs { jobs: Vec::new(), errors: Vec::new() }
    }

    /// Takes up the jobs of a text.
    ///
    /// # Errors
    /// There is no scheduler.
    pub async fn apply(&self, _: JobsText, _: Actor) -> Result<CheckedJobs, Problem> {
        Err(Problem::new(Code::Unavailable, "there is no scheduler"))
    }

    /// Deletes a job.
    ///
    /// # Errors
    /// There is none.
    pub async fn delete(&self, name: &JobName) -> Result<(), Problem> {
        Err(missing(name))
    }

    /// Pauses or resumes a job.
    ///
    /// # Errors
    /// There is none.
    pub async fn pause(&self, name: &JobName, _: bool) -> Result<(), Problem> {
        Err(missing(name))
    }

    /// Runs a job now.
    ///
    /// # Errors
    /// There is none.
    pub async fn run_now(&self, name: &JobName, _: Actor) -> Result<RunId, Problem> {
        Err(missing(name))
    }
}

fn missing(name: &JobName) -> Problem {
    Problem::new(Code::NotFound, format!("no job {name}"))
}
