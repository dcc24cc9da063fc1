//! Job files: YAML in, jobs and errors out. A bad job harms no other.
//!
//! ```yaml
//! jobs:
//!   backup:
//!     schedule: "30 3 * * *"
//!     timezone: Europe/Athens
//!     hosts: db* and not label:stage=canary
//!     run: pg_dumpall | zstd > /var/backups/all.zst
//! ```
//!
//! `calendars:` at the top names lists of days on which jobs of this file do not run; keys there that
//! begin with `x-` are for anchors and are not read.

pub(crate) mod fields;
mod read;
mod url;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_proto::api::{JobSpec, SourceError};
use fw_proto::{JobName, Timestamp};

use crate::calendar::{self, Calendar};
use crate::schedule::{self, Schedule};
use crate::select::{self, Selector};

pub(crate) use url::wrong_url;

/// The largest job file, in bytes.
pub const LARGEST_FILE: usize = 1024 * 1024;

/// The most jobs in a file.
pub const MOST_JOBS: usize = 20_000;

/// The most errors of a file that are told one by one.
pub const MOST_ERRORS: usize = 50;

/// The job file that `up` writes at first start.
pub const EXAMPLE: &str = include_str!("example.yaml");

/// A job, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct JobDef {
    /// Its name.
    pub name: JobName,
    /// What it says, defaults filled in.
    pub spec: JobSpec,
    /// Line of its name, counted from 1; 0 when it comes from no text.
    pub line: u32,
    /// Column of its name in characters, counted from 1.
    pub column: u32,
    /// When it is due.
    pub schedule: Schedule,
    /// Where it runs.
    pub selector: Selector,
    /// When it does not run though it is due; never when `None`.
    pub calendar: Option<Arc<Calendar>>,
}

/// What a job file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// The good jobs, in the order of the file.
    pub jobs: Vec<JobDef>,
    /// What is wrong with the others, in the order of the file; at most [`MOST_ERRORS`] and how many more.
    pub errors: Vec<SourceError>,
    /// The names of the jobs that are not good, all of them. A name that stands twice is here, and its
    /// first job is good all the same.
    pub wrong: BTreeSet<String>,
    /// Whether the file could be read at all. Only then is a job that has neither a good text
    /// here nor an error of its own gone from the file.
    pub readable: bool,
}

/// Why a stored job cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Its schedule.
    #[error("schedule of job {0}")]
    Schedule(JobName, #[source] schedule::Error),
    /// Its selector.
    #[error("hosts of job {0}")]
    Hosts(JobName, #[source] select::Error),
    /// Its days or hours.
    #[error("calendar of job {0}")]
    Calendar(JobName, #[source] calendar::Error),
}

impl JobDef {
    /// When it runs next, after an instant: due, and not kept from it by its calendar.
    #[must_use]
    pub fn next_run(&self, after: Timestamp) -> Option<Timestamp> {
        calendar::next_run(&self.schedule, self.calendar.as_deref(), after)
    }

    /// A job as the store keeps it.
    ///
    /// # Errors
    /// Its schedule or selector does not parse; only if another version of this program wrote it.
    pub fn of(name: JobName, spec: JobSpec) -> Result<Self, Invalid> {
        let schedule = Schedule::parse(&spec.schedule, &spec.timezone)
            .map_err(|error| Invalid::Schedule(name.clone(), error))?;
        let selector =
            Selector::parse(&spec.hosts).map_err(|error| Invalid::Hosts(name.clone(), error))?;
        let calendar = Calendar::parse(&spec.skip_on, &spec.window, schedule.timezone())
            .map_err(|error| Invalid::Calendar(name.clone(), error))?
            .map(Arc::new);
        Ok(Self { name, spec, line: 0, column: 0, schedule, selector, calendar })
    }
}

impl Parsed {
    /// Puts more errors to those that there are, and all in the order of the file. What is beyond
    /// [`MOST_ERRORS`] is counted only, for a bad text may have one in each line.
    #[must_use]
    pub fn with_errors(mut self, more: Vec<SourceError>) -> Self {
        self.wrong.extend(more.iter().filter_map(|error| error.job.clone()));
        if self.errors.len() > MOST_ERRORS {
            return self;
        }
        self.errors.extend(more);
        self.errors.sort_by_key(|error| (error.line, error.column));
        let untold = self.errors.len().saturating_sub(MOST_ERRORS);
        if untold > 0 {
            self.errors.truncate(MOST_ERRORS + 1);
        }
        if let Some(first) = self.errors.get_mut(MOST_ERRORS) {
            first.message = format!("and {untold} more; mend those before first");
            (first.job, first.snippet) = (None, None);
        }
        self
    }
}

/// Reads a job file. `file` is what to call it in errors. Of a text that does not look like one
/// no line is shown: it may be a file that its reader should not see.
#[must_use]
pub fn parse_jobs(file: &str, text: &str) -> Parsed {
    let mut parsed = parse(file, text);
    let meant = text.lines().any(|line| line.starts_with("jobs:"));
    if !parsed.readable && !meant {
        parsed.errors.iter_mut().for_each(|error| error.snippet = None);
    }
    parsed
}

fn parse(file: &str, text: &str) -> Parsed {
    let whole = |message: String| Parsed {
        errors: vec![SourceError {
            file: file.to_owned(),
            line: 0,
            column: 0,
            job: None,
            message,
            snippet: None,
        }],
        ..Parsed::default()
    };
    if text.len() > LARGEST_FILE {
        return whole(format!("a job file has at most {LARGEST_FILE} bytes; split this one"));
    }
    let lines = yaml::lines(text);
    match yaml::document(text) {
        Err(error) => {
            let place = yaml::Place { line: error.line, column: error.column };
            let errors = vec![yaml::error(file, &lines, place, None, error.message)];
            Parsed { errors, ..Parsed::default() }
        }
        Ok(document) => read::file(file, &lines, &document),
    }
}

/// Puts the jobs of several files together; each name belongs to one file.
///
/// A name in two files is an error at both places, and the file stays its owner that `current`
/// says owns it, else the first by file name.
#[must_use]
pub fn merge(
    files: &[(String, Parsed)],
    current: &BTreeMap<JobName, String>,
) -> (BTreeMap<JobName, (String, JobDef)>, Vec<SourceError>) {
    let mut found: BTreeMap<&JobName, Vec<(&str, &JobDef)>> = BTreeMap::new();
    for (file, parsed) in files {
        for job in &parsed.jobs {
            found.entry(&job.name).or_default().push((file, job));
        }
    }
    let mut jobs = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, mut places) in found {
        let owner = current.get(name).map(String::as_str);
        places.sort_by_key(|(file, _)| (Some(*file) != owner, *file));
        let Some(((file, job), others)) = places.split_first() else { continue };
        jobs.insert(name.clone(), ((*file).to_owned(), (*job).clone()));
        for (other_file, other) in others {
            let place = |file: &str, job: &JobDef| format!("{file}:{}", job.line);
            let stays = format!("also at {}; this one stays in force", place(other_file, other));
            let loses = format!("also at {}, which stays in force; rename one", place(file, job));
            errors.push(twice(file, job, &stays));
            errors.push(twice(other_file, other, &loses));
        }
    }
    (jobs, errors)
}

fn twice(file: &str, job: &JobDef, where_else: &str) -> SourceError {
    SourceError {
        file: file.to_owned(),
        line: job.line,
        column: job.column,
        job: Some(job.name.to_string()),
        message: format!("job {} is {where_else}", job.name),
        snippet: None,
    }
}

#[cfg(test)]
mod tests;
