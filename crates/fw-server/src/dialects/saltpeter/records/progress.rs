//! How far things have been told: of each run that goes on what was said of which host, and of each job
//! up to which instant its fires were. A journal entry carries a step; all steps in order are the progress.

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::{RunSummary, Task, TaskState};
use fw_proto::{HostName, Incarnation, JobName, RunId, Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{Record, What};
use crate::dialects::saltpeter::codes::{self, Limits};

/// All that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The store's life that `runs_to` counts in.
    pub incarnation: Incarnation,
    /// All runs up to this place in the store were looked at.
    pub runs_to: u64,
    /// Runs whose end was not told.
    pub open: BTreeMap<RunId, Open>,
    /// The last fire of each job that was looked at.
    pub fires_to: BTreeMap<JobName, Timestamp>,
}

/// A run, as far as it was told; what its job was called when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    /// Our name of its job.
    pub job: JobName,
    /// Saltpeter's name of it.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The run's name there.
    pub instance: String,
    /// When it began.
    pub begun: Timestamp,
    /// What its tasks may take, in seconds; for notes.
    pub timeout: Option<u64>,
    /// Hosts on which it was said to begin.
    pub begun_on: BTreeSet<HostName>,
    /// Hosts on which it was said to end, or of which nothing is said.
    pub ended_on: BTreeSet<HostName>,
}

/// A change of the progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub(crate) enum Step {
    /// A run was found.
    Opened { run: RunId, place: u64, open: Open },
    /// It began on a host.
    Began { run: RunId, host: HostName },
    /// It ended there.
    Ended { run: RunId, host: HostName },
    /// It ended.
    Closed { run: RunId },
    /// Fires of a job up to this one.
    Fires { job: JobName, to: Timestamp },
    /// Something was told that nobody will look for again.
    Told,
    /// The store was restored: places count anew from here.
    Restored { incarnation: Incarnation, runs_to: u64 },
}

impl Progress {
    /// Of a store of which nothing is to be told.
    pub(crate) const fn new(incarnation: Incarnation, runs_to: u64) -> Self {
        Self { incarnation, runs_to, open: BTreeMap::new(), fires_to: BTreeMap::new() }
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Opened { run, place, open } => {
                self.runs_to = self.runs_to.max(*place);
                self.open.insert(*run, open.clone());
            }
            Step::Began { run, host } => {
                if let Some(open) = self.open.get_mut(run) {
                    open.begun_on.insert(host.clone());
                }
            }
            Step::Ended { run, host } => {
                if let Some(open) = self.open.get_mut(run) {
                    open.ended_on.insert(host.clone());
                }
            }
            Step::Closed { run } => drop(self.open.remove(run)),
            Step::Fires { job, to } => {
                let known = self.fires_to.entry(job.clone()).or_insert(*to);
                *known = (*known).max(*to);
            }
            Step::Told => {}
            Step::Restored { incarnation, runs_to } => {
                (self.incarnation, self.runs_to) = (*incarnation, *runs_to);
            }
        }
    }
}

/// What is to be told of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Due {
    /// That it began, and when.
    pub began: Option<Timestamp>,
    /// How it ended, and when.
    pub ended: Option<Ended>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// When.
    pub at: Timestamp,
    /// How; `None` when nothing is said of it: Saltpeter names machines that were down, or never begun
    /// because of a kill, in no record.
    pub told: Option<codes::Ending>,
}

impl Open {
    /// What a task adds to what was told of its run.
    pub(crate) fn due(&self, task: &Task, lost_after: Span, now: Timestamp) -> Due {
        if self.ended_on.contains(&task.host) {
            return Due::default();
        }
        let limits = Limits { timeout: self.timeout.map(Span::from_secs), lost_after };
        let ending = codes::ending(task, limits);
        let unsent = task.state == TaskState::Cancelled && task.started_at.is_none();
        let silent = codes::is_down(task) || unsent;
        let begun = task.state == TaskState::Running || (ending.is_some() && !silent);
        let ended_at = task.finished_at.unwrap_or(now);
        let began_at = task.started_at.unwrap_or(ended_at);
        Due {
            began: (begun && !self.begun_on.contains(&task.host)).then_some(began_at),
            ended: ending
                .map(|ending| Ended { at: ended_at, told: Some(ending).filter(|_| !silent) }),
        }
    }

    /// A record of this run.
    pub(crate) fn record(&self, run: RunId, what: What, at: Timestamp) -> Record {
        Record {
            id: format!("{run}:{}", what.as_str()),
            job: self.name.clone(),
            group: self.group.clone(),
            instance: self.instance.clone(),
            what,
            at,
            machine: String::new(),
            code: 0,
            output: String::new(),
        }
    }

    /// A record of this run on a host.
    pub(crate) fn record_on(
        &self,
        run: RunId,
        what: What,
        at: Timestamp,
        host: &HostName,
    ) -> Record {
        let record = self.record(run, what, at);
        Record { id: format!("{}:{host}", record.id), machine: host.to_string(), ..record }
    }

    /// What is told at the end of this run.
    pub(crate) fn end(&self, summary: &RunSummary, now: Timestamp) -> Vec<Record> {
        let (run, at) = (summary.id, summary.finished_at.unwrap_or(now));
        let good = summary.report.tasks.get(&TaskState::Succeeded).copied().unwrap_or(0);
        let total = summary.report.total;
        let end = Record {
            code: i32::from(total == 0 || good < total),
            output: format!("Completed: {good}/{total} targets successful"),
            ..self.record(run, What::End, at)
        };
        // Where all machines are down Saltpeter sees none.
        let none = self.begun_on.is_empty() && summary.state != fw_proto::api::RunState::Cancelled;
        let none = none.then(|| self.record(run, What::NoMachines, at));
        none.into_iter().chain([end]).collect()
    }
}
