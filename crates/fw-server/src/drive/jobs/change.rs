//! Changes of jobs: what people ask for over the API, and what follows from the files.
//!
//! The store comes first: what is in force survives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_core::job::JobDef;
use fw_core::run::Actor;
use fw_proto::api::{Code, FireReason, JobSource, Problem, SourceError, Verdict};
use fw_proto::{JobName, RunId, Timestamp};
use fw_store::StoredJob;
use tracing::{error, info, warn};

use super::owner::{Entry, FileErrors, Owner, is_shadow, maintained, scheduled};
use super::perform::{Due, Manual};
use super::reconcile::{Outcome, reconcile};
use super::{Change, Given, text};
use crate::ids;
use crate::problem::{Chain, Failure};

/// A job to be set, and where it comes from.
type Wanted = (JobSource, JobDef);

impl Owner {
    /// Makes one change and says how it went.
    pub(super) async fn change(&mut self, change: Change) {
        // Whoever asked may have gone away.
        match change {
            Change::Apply { jobs, dry_run, by, reply } => {
                drop(reply.send(self.apply(jobs, dry_run, &by).await));
            }
            Change::Delete(name, reply) => drop(reply.send(self.delete(&name).await)),
            Change::Pause(name, paused, reply) => {
                drop(reply.send(self.pause_job(&name, paused).await));
            }
            Change::BeginMaintenance(wanted, by, reply) => {
                drop(reply.send(self.begin_maintenance(wanted, by).await));
            }
            Change::EndMaintenance(id, by, reply) => {
                drop(reply.send(self.end_maintenance(id, by).await));
            }
            Change::Serve(given, reply) => {
                drop(reply.send(self.serve(given).await.map_err(unavailable)));
            }
            Change::Run(name, by, reply) => match self.jobs.get(&name) {
                None => drop(reply.send(Err(missing(&name)))),
                Some(entry) if is_shadow(&self.parts, &entry.source) => {
                    drop(reply.send(Err(in_shadow(&name))));
                }
                Some(entry) => {
                    let now = self.parts.clock.now();
                    let (run, job) = (RunId(ids::v7(now)), Arc::clone(&entry.def));
                    let reason = Some(FireReason::Manual);
                    let (verdict, manual) = (Verdict::Ran, Some(Manual { by, reply }));
                    let shadow = false;
                    let (nominal, at) = (now, now);
                    let source = maintained(&entry.source).map(Into::into);
                    let due =
                        Due { run, job, source, nominal, at, verdict, reason, manual, shadow };
                    self.take_manual(due);
                }
            },
        }
    }

    async fn apply(&mut self, jobs: Vec<JobDef>, dry_run: bool, by: &Actor) -> Result<(), Problem> {
        let owned: Vec<_> =
            jobs.iter().filter_map(|job| Some((&job.name, self.owner_of(&job.name)?))).collect();
        if !owned.is_empty() {
            let lines: Vec<_> =
                owned.iter().map(|(name, file)| format!("job {name} belongs to {file}")).collect();
            let detail =
                format!("{}\nchange the file; the server reads it by itself", lines.join("\n"));
            return Err(Problem::new(
                Code::OwnedByFile,
                "job files own some of these jobs; none was changed",
            )
            .detail(detail));
        }
        if dry_run {
            return Ok(());
        }
        let wanted = jobs.into_iter().map(|job| (JobSource::Api, job)).collect();
        let set = self.set(wanted).await.map_err(unavailable)?;
        info!(%by, jobs.set = set, "jobs set over the API");
        Ok(())
    }

    async fn delete(&mut self, name: &JobName) -> Result<(), Problem> {
        if !self.jobs.contains_key(name) && !self.unusable.contains_key(name) {
            return Err(missing(name));
        }
        if let Some(file) = self.owner_of(name) {
            let detail = format!("remove it from {file}; the server reads the file by itself");
            return Err(Problem::new(Code::OwnedByFile, format!("job {name} belongs to a file"))
                .detail(detail));
        }
        self.remove(name).await.map_err(unavailable)
    }

    async fn pause_job(&mut self, name: &JobName, paused: bool) -> Result<(), Problem> {
        if !self.jobs.contains_key(name) {
            return Err(missing(name));
        }
        self.parts.store.set_paused(name, paused).await.map_err(unavailable)?;
        let now = self.parts.clock.now();
        let decisions =
            if paused { self.scheduler.pause(name, now) } else { self.scheduler.resume(name, now) };
        self.take(decisions);
        Ok(())
    }

    /// Takes up these jobs of the dialect and forgets its others; gives those whose name is taken.
    pub(super) async fn serve(&mut self, given: Given) -> Result<Vec<JobName>, fw_store::Error> {
        let Given { jobs, doubtful_files, doubtful, maintenance, doubtful_maintenance } = given;
        let dialect = self.parts.dialect.as_ref().map_or("", |dialect| dialect.name);
        // Before jobs that are new, and after those that are gone.
        self.begin_said(dialect, &maintenance).await?;
        let wanted: BTreeSet<JobName> = jobs.iter().map(|(_, def)| def.name.clone()).collect();
        let is_gone = |name: &&JobName| match self.source_of(name) {
            Some(JobSource::Dialect { file, .. }) => {
                let doubt = doubtful.contains(*name) || doubtful_files.contains(file);
                !wanted.contains(*name) && !doubt
            }
            Some(JobSource::File(_) | JobSource::Api) | None => false,
        };
        let names = self.jobs.keys().chain(self.unusable.keys());
        let gone: Vec<_> = names.filter(is_gone).cloned().collect();
        let (mut taken, mut rows) = (Vec::new(), Vec::new());
        for (file, def) in jobs {
            match self.source_of(&def.name) {
                Some(JobSource::File(_) | JobSource::Api) => taken.push(def.name),
                Some(JobSource::Dialect { .. }) | None => {
                    rows.push((JobSource::Dialect { name: dialect.to_owned(), file }, def));
                }
            }
        }
        let set = self.take_up(rows, &gone).await?;
        if !doubtful_maintenance {
            self.end_said(dialect, &maintenance).await?;
        }
        if set > 0 || !gone.is_empty() {
            info!(jobs.set = set, jobs.gone = gone.len(), "jobs of {dialect} changed");
        }
        Ok(taken)
    }

    /// The file that a job belongs to. Without a directory files own nothing.
    fn owner_of(&self, name: &JobName) -> Option<&str> {
        match self.source_of(name)? {
            JobSource::File(file) => Some(file.as_str()).filter(|_| self.files.is_some()),
            JobSource::Dialect { file, .. } => Some(file),
            JobSource::Api => None,
        }
    }

    fn source_of(&self, name: &JobName) -> Option<&JobSource> {
        let unusable = || self.unusable.get(name).map(|unusable| &unusable.source);
        self.jobs.get(name).map(|entry| &entry.source).or_else(unusable)
    }

    /// Looks at the directory and takes up what changed.
    pub(super) async fn rescan(&mut self) {
        let owned = self.count_from_files();
        let Some(files) = &mut self.files else { return };
        let dir = files.dir().display().to_string();
        match files.scan().await {
            Err(error) => self.report(format!(
                "job directory {dir} cannot be read: {error}; its {owned} jobs go on as they were"
            )),
            Ok(found) if found.is_empty() && owned > 0 => self.report(format!(
                "job directory {dir} has no job file any more; its {owned} jobs go on as they were. \
                 To end them, put a file with `jobs: {{}}` there"
            )),
            Ok(found) => {
                let changed = files.take(found);
                let exposed = files.exposed;
                self.trouble_is_over();
                self.note_exposed(exposed);
                if changed || self.unsettled {
                    self.reconcile().await;
                }
            }
        }
    }

    fn report(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            error!("{trouble}");
            self.parts.health.report("jobs", trouble.as_str());
            self.trouble = Some(trouble);
        }
    }

    /// Job files run commands as root on every host, so whoever may put one there may do that.
    fn note_exposed(&mut self, exposed: bool) {
        let before = std::mem::replace(&mut self.exposed, exposed);
        if before == exposed {
            return;
        }
        let Some(files) = self.files.as_ref().filter(|_| exposed) else {
            return self.parts.health.clear("jobs.exposed");
        };
        let dir = files.dir().display();
        let reason = format!(
            "job directory {dir} can be written by others, whose jobs would run as root; run chmod go-w on it"
        );
        warn!("{reason}");
        self.parts.health.report("jobs.exposed", reason);
    }

    fn trouble_is_over(&mut self) {
        if self.trouble.take().is_some() {
            info!("job directory is there again");
            self.parts.health.clear("jobs");
        }
    }

    async fn reconcile(&mut self) {
        let Some(files) = &self.files else { return };
        let Outcome { jobs, gone, errors } =
            reconcile(&files.parsed, &self.owned(), &self.others());
        self.note_errors(errors);
        let wanted =
            jobs.into_iter().map(|(_, (file, def))| (JobSource::File(file), def)).collect();
        let outcome = self.take_up(wanted, &gone).await;
        let known = std::mem::replace(&mut self.unsettled, outcome.is_err());
        match outcome {
            Ok(0) if gone.is_empty() => {}
            Ok(set) => info!(jobs.set = set, jobs.gone = gone.len(), "job files changed"),
            Err(_) if known => {}
            Err(error) => {
                error!(error = %Chain(&error), "jobs cannot be stored; the job files are read again");
            }
        }
    }

    async fn take_up(
        &mut self,
        wanted: Vec<Wanted>,
        gone: &[JobName],
    ) -> Result<usize, fw_store::Error> {
        let set = self.set(wanted).await?;
        for name in gone {
            self.remove(name).await?;
        }
        Ok(set)
    }

    fn owned(&self) -> BTreeMap<JobName, String> {
        let names = self.jobs.keys().chain(self.unusable.keys());
        let owned = names.filter_map(|name| match self.source_of(name)? {
            JobSource::File(file) => Some((name.clone(), file.clone())),
            JobSource::Api | JobSource::Dialect { .. } => None,
        });
        owned.collect()
    }

    /// Jobs that come from elsewhere.
    fn others(&self) -> BTreeSet<JobName> {
        let names = self.jobs.keys().chain(self.unusable.keys());
        let other = |name: &&JobName| match self.source_of(name) {
            Some(JobSource::Api | JobSource::Dialect { .. }) => true,
            Some(JobSource::File(_)) | None => false,
        };
        names.filter(other).cloned().collect()
    }

    /// Logs what is newly wrong, once.
    fn note_errors(&mut self, errors: Vec<SourceError>) {
        let known: BTreeSet<_> = self.file_errors.all.iter().map(SourceError::to_string).collect();
        for error in &errors {
            if !known.contains(&error.to_string()) {
                let SourceError { file, line, column, message, .. } = error;
                warn!(file, line, column, "job file: {message}");
            }
        }
        if errors.is_empty() && !self.file_errors.all.is_empty() {
            info!("all job files are in order again");
        }
        self.file_errors = FileErrors::new(errors);
    }

    /// Sets those of these jobs that are new or differ, all or none; says how many.
    async fn set(&mut self, wanted: Vec<Wanted>) -> Result<usize, fw_store::Error> {
        let now = self.parts.clock.now();
        let mut rows = Vec::new();
        let mut changes = Vec::new();
        for (source, def) in wanted {
            let Some((entry, changed)) = self.changed(source, def, now) else { continue };
            rows.push(StoredJob {
                name: entry.def.name.clone(),
                source: entry.source.clone(),
                text: text::to_store(&entry.def, entry.set_at),
                paused: false,
            });
            changes.push((entry, changed));
        }
        if rows.is_empty() {
            return Ok(0);
        }
        self.parts.store.put_jobs(rows).await?;
        let set = changes.len();
        for (entry, changed) in changes {
            let name = entry.def.name.clone();
            if changed {
                // Whatever was due is decided by what the job said before.
                let job = scheduled(&self.parts, &entry.def, &entry.source);
                let decisions = self.scheduler.set(&name, job, now);
                self.take(decisions);
            }
            self.unusable.remove(&name);
            self.jobs.insert(name, entry);
        }
        Ok(set)
    }

    /// The job as it is to be, and whether it says something new; `None` when all is as it was.
    fn changed(&self, source: JobSource, def: JobDef, now: Timestamp) -> Option<(Entry, bool)> {
        match self.jobs.get(&def.name) {
            Some(entry) if entry.def.spec == def.spec && entry.source == source => None,
            Some(entry) if entry.def.spec == def.spec => {
                Some((Entry { source, ..entry.clone() }, false))
            }
            Some(_) | None => Some((Entry { def: Arc::new(def), source, set_at: now }, true)),
        }
    }

    async fn remove(&mut self, name: &JobName) -> Result<(), fw_store::Error> {
        self.parts.store.remove_job(name).await?;
        let decisions = self.scheduler.remove(name, self.parts.clock.now());
        self.take(decisions);
        self.jobs.remove(name);
        self.unusable.remove(name);
        Ok(())
    }
}

fn missing(name: &JobName) -> Problem {
    Problem::new(Code::NotFound, format!("no job {name}"))
        .detail("`fleetwright jobs list` shows those that there are")
}

fn in_shadow(name: &JobName) -> Problem {
    let title = format!("job {name} is only watched here: another scheduler runs it");
    Problem::new(Code::Conflict, title)
        .detail("run it there, or start this server without shadow mode")
}

pub(super) fn unavailable(error: fw_store::Error) -> Problem {
    Failure::from(error).into_problem()
}
