//! The directory of Saltpeter: `*.yaml`, each a group of jobs, with settings and maintenance.
//!
//! A bad file or job is reported once, at its place, and harms no other. Saltpeter lets the last
//! file in the order of the disk win where a name stands twice; here the first by name does, so
//! that the same files mean the same everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use fw_core::job::LARGEST_FILE;
use fw_core::job::yaml::{self, Node, Place, Value};
use fw_proto::api::SourceError;

use super::json::Json;
use super::schedule::{Fields, Times};

mod job;
pub mod scalar;

use scalar::Scalar;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It does not work.
    Error,
    /// It works, but not as one may think.
    Warning,
}

/// Something to tell about a place in a file.
#[derive(Debug, Clone)]
pub struct Note {
    /// How bad it is.
    pub level: Level,
    /// What and where.
    pub what: SourceError,
}

/// How long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// So many seconds; 3600 when the job does not say.
    Seconds(u64),
    /// No limit, as 0 and null were promised to mean.
    Unlimited,
}

/// A job that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Name of its file without `.yaml`.
    pub group: String,
    /// Its file.
    pub file: String,
    /// Where its name stands.
    pub place: Place,
    /// The seven fields as they are written.
    pub fields: Fields,
    /// When it is due.
    pub times: Times,
    /// What it runs.
    pub command: String,
    /// The target expression.
    pub targets: String,
    /// The kind of that expression.
    pub target_type: String,
    /// How long a run may take.
    pub timeout: Timeout,
    /// Of those that match, run on so many; 0 for all.
    pub number_of_targets: u64,
    /// Run on so many at a time; 0 for all.
    pub batch_size: u64,
    /// Whether a run may begin while another goes on.
    pub allow_overlap: bool,
    /// The user that runs it.
    pub user: Option<String>,
    /// Where it runs.
    pub cwd: Option<String>,
    /// Its environment, values as Python writes them.
    pub env: BTreeMap<String, String>,
    /// `false`: through Salt alone.
    pub use_wrapper: bool,
    /// About its wrapper.
    pub wrapper: Wrapper,
    /// The targets as a selector of ours.
    pub selector: String,
    /// All its keys as they are written.
    pub raw: Vec<(String, Json)>,
}

/// What a job says of its wrapper; `saltpeter_config` says the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wrapper {
    /// The program, for a shell.
    pub path: Option<String>,
    /// How it reaches the server.
    pub server: Option<String>,
    /// How much it logs.
    pub loglevel: Option<String>,
    /// And where.
    pub logdir: Option<String>,
    /// What keeps a second one away.
    pub lockfile: Option<String>,
}

/// What `saltpeter_maintenance` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maintenance {
    /// Nothing fires.
    pub global: bool,
    /// Nothing runs on these.
    pub machines: Vec<String>,
}

/// All that the directory says.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// The good jobs by name.
    pub jobs: BTreeMap<String, Job>,
    /// `saltpeter_config`: what is written, by key.
    pub config: BTreeMap<String, String>,
    /// The same with its types.
    pub raw_config: BTreeMap<String, Json>,
    /// `saltpeter_maintenance`.
    pub maintenance: Maintenance,
    /// What there is to tell, in the order of files and lines.
    pub notes: Vec<Note>,
    /// Files that cannot be read, and names of jobs that are wrong: what was known of them may go on.
    pub doubtful_files: BTreeSet<String>,
    /// See `doubtful_files`.
    pub doubtful_jobs: BTreeSet<String>,
    /// There is a file that was never read: it may say something of maintenance.
    pub doubtful_maintenance: bool,
}

/// What one file says.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    jobs: BTreeMap<String, Job>,
    config: Vec<(String, Scalar)>,
    global: Option<bool>,
    machines: Option<Vec<String>>,
    notes: Vec<Note>,
    /// Names of jobs that are not good.
    wrong: BTreeSet<String>,
    /// Whether the file is a map.
    readable: bool,
    /// Whether all of this is known from a time when it was one.
    known: bool,
}

impl Directory {
    /// Whether jobs and maintenance are the same, whatever the lines that they stand on.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let alike = |(one, other): (&Job, &Job)| one.says_the_same(other);
        self.maintenance == other.maintenance
            && self.jobs.len() == other.jobs.len()
            && self.jobs.values().zip(other.jobs.values()).all(alike)
    }
}

impl Job {
    fn says_the_same(&self, other: &Self) -> bool {
        let said = |job: &Self| Self { place: other.place, ..job.clone() };
        said(self) == *other
    }
}

/// Reads the `*.yaml` of a directory, not those of directories in it.
///
/// # Errors
/// The directory cannot be listed. A file that cannot be read is a note.
pub fn read(path: &Path) -> io::Result<Directory> {
    let texts = names(path)?.into_iter().map(|name| {
        let text = text_of(&path.join(&name));
        (name, text)
    });
    Ok(of_texts(&texts.collect()))
}

/// The names of the files that count.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.strip_suffix(".yaml").is_some_and(|group| !group.is_empty()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file's text, or why there is none.
pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("this is no file, so nothing is read from it".to_owned());
    }
    if about.len() > LARGEST_FILE as u64 {
        return Err(format!("a file has at most {LARGEST_FILE} bytes; split this one"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Reads files by name; an `Err` says why there is no text.
#[must_use]
pub fn of_texts(files: &BTreeMap<String, Result<String, String>>) -> Directory {
    let parts: Vec<_> =
        files.iter().map(|(name, text)| (name.as_str(), part(name, text))).collect();
    merge(parts.iter().map(|(name, part)| (*name, part)))
}

/// Reads a file.
pub(super) fn part(name: &str, text: &Result<String, String>) -> Part {
    let lines = yaml::lines(text.as_deref().unwrap_or_default());
    let mut read = Read { file: name, lines, job: None, part: Part::default() };
    match text {
        Err(why) => read.error(Place { line: 0, column: 0 }, why.clone()),
        Ok(text) => read.file(text),
    }
    read.part.notes.sort_by_key(|note| (note.what.line, note.what.column));
    read.part
}

impl Part {
    /// The same, with what was known before where it is wrong: a typo stops no job and ends no maintenance.
    pub(super) fn over(mut self, before: &Self) -> Self {
        if !self.readable {
            return Self { notes: self.notes, readable: false, ..before.clone() };
        }
        for name in &self.wrong {
            if let (Some(job), false) = (before.jobs.get(name), self.jobs.contains_key(name)) {
                self.jobs.insert(name.clone(), job.clone());
            }
        }
        self
    }
}

/// Puts files together, in the order of their names.
pub(super) fn merge<'a>(parts: impl Iterator<Item = (&'a str, &'a Part)>) -> Directory {
    let mut directory = Directory::default();
    for (file, part) in parts {
        directory.notes.extend(part.notes.iter().cloned());
        for job in part.jobs.values() {
            directory.take(job);
        }
        for (key, value) in &part.config {
            directory.config.insert(key.clone(), value.to_string());
            directory.raw_config.insert(key.clone(), value.json());
        }
        directory.maintenance.global = part.global.unwrap_or(directory.maintenance.global);
        if let Some(machines) = &part.machines {
            directory.maintenance.machines.clone_from(machines);
        }
        directory.doubtful_maintenance |= !part.known;
        if !part.readable {
            directory.doubtful_files.insert(file.to_owned());
        }
        directory.doubtful_jobs.extend(part.wrong.iter().cloned());
    }
    directory.notes.sort_by(|a, b| (&a.what.file, a.what.line).cmp(&(&b.what.file, b.what.line)));
    directory
}

impl Directory {
    /// The first file by name keeps a name.
    fn take(&mut self, job: &Job) {
        let Some(first) = self.jobs.get(&job.name) else {
            self.jobs.insert(job.name.clone(), job.clone());
            return;
        };
        let place = |job: &Job| format!("{}:{}", job.file, job.place.line);
        let stays = format!("also at {}; this one stays in force", place(job));
        let loses = format!("also at {}, which stays in force; rename one", place(first));
        let notes = [(Level::Warning, first, stays), (Level::Error, job, loses)].map(twice);
        self.notes.extend(notes);
    }
}

fn twice((level, job, message): (Level, &Job, String)) -> Note {
    let what = SourceError {
        file: job.file.clone(),
        line: job.place.line,
        column: job.place.column,
        job: Some(job.name.clone()),
        message,
        snippet: None,
    };
    Note { level, what }
}

/// A file that is being read.
struct Read<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    job: Option<String>,
    part: Part,
}

impl Read<'_> {
    fn error(&mut self, place: Place, message: impl Into<String>) {
        self.note(Level::Error, place, message.into());
    }

    fn warn(&mut self, place: Place, message: impl Into<String>) {
        self.note(Level::Warning, place, message.into());
    }

    fn note(&mut self, level: Level, place: Place, message: String) {
        let what = yaml::error(self.file, &self.lines, place, self.job.as_deref(), message);
        self.part.notes.push(Note { level, what });
    }

    fn file(&mut self, text: &str) {
        let document = match yaml::document(text) {
            Ok(document) => document,
            Err(error) => {
                let place = Place { line: error.line, column: error.column };
                return self
                    .error(place, format!("{}; all of this file is left out", error.message));
            }
        };
        if let Some(twice) = &document.duplicate {
            let place = Place { line: twice.line, column: twice.column };
            self.warn(place, "this key stands twice; the last one counts");
        }
        let Value::Map(entries) = &document.root.value else {
            return self.error(
                document.root.place,
                "a file holds a name and a map for each job; all of this file is left out",
            );
        };
        (self.part.readable, self.part.known) = (true, true);
        for (key, value) in entries {
            match scalar::of(key) {
                Some(Scalar::Text(name)) if name == "saltpeter_config" => {
                    self.config(value);
                }
                Some(Scalar::Text(name)) if name == "saltpeter_maintenance" => {
                    self.maintenance(value);
                }
                Some(Scalar::Text(name)) => self.named(key, &name, value),
                Some(
                    Scalar::Null | Scalar::Bool(_) | Scalar::Number(_) | Scalar::Date(_),
                )
                | None => self.error(
                    key.place,
                    "a job's name should be text, so put it in quotes; Saltpeter itself stops when this fires",
                ),
            }
        }
    }

    fn named(&mut self, key: &Node, name: &str, value: &Node) {
        self.job = Some(name.to_owned());
        match job::read(self, key.place, name, value) {
            Some(job) => drop(self.part.jobs.insert(name.to_owned(), job)),
            None => drop(self.part.wrong.insert(name.to_owned())),
        }
        self.job = None;
    }

    fn config(&mut self, value: &Node) {
        let Value::Map(entries) = &value.value else {
            return self.error(value.place, "saltpeter_config should be a map");
        };
        for (key, value) in entries {
            match (scalar::of(key), scalar::of(value)) {
                (Some(key), Some(value)) => {
                    self.part.config.push((key.to_string(), value));
                }
                (None, _) | (_, None) => self.error(key.place, "a single value should stand here"),
            }
            if scalar::of(key).is_some_and(|key| !CONFIG.contains(&key.to_string().as_str())) {
                self.warn(key.place, "Saltpeter knows no such setting");
            }
        }
    }

    fn maintenance(&mut self, value: &Node) {
        let Value::Map(entries) = &value.value else {
            return self.error(value.place, "saltpeter_maintenance should be a map");
        };
        for (key, value) in entries {
            let name = scalar::of(key).map(|key| key.to_string()).unwrap_or_default();
            match (name.as_str(), scalar::of(value), &value.value) {
                ("global", Some(Scalar::Bool(on)), _) => self.part.global = Some(on),
                ("machines", _, Value::List(items)) => {
                    let names = items.iter().filter_map(scalar::of).map(|name| name.to_string());
                    self.part.machines = Some(names.collect());
                }
                ("global", ..) => self.warn(value.place, "ignored: only true or false counts"),
                ("machines", ..) => self.warn(value.place, "ignored: only a list counts"),
                (..) => self.warn(key.place, "ignored: there are only global and machines"),
            }
        }
    }
}

/// The settings of `saltpeter_config`.
const CONFIG: [&str; 15] = [
    "logdir",
    "debug",
    "api_ws",
    "api_ws_port",
    "api_ws_bind_addr",
    "machines_ws_port",
    "machines_ws_bind_addr",
    "default_saltpeter_server_host",
    "default_wrapper_path",
    "default_wrapper_loglevel",
    "default_wrapper_logdir",
    "elasticsearch",
    "opensearch",
    "elasticsearch_index",
    "opensearch_index",
];

#[cfg(test)]
mod tests;
