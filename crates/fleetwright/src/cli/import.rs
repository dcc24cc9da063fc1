//! `fleetwright import saltpeter`: job files of ours from a directory of Saltpeter.
//!
//! Nothing is written that was not read back: its jobs must fire at the same instants, and be for the same hosts.

mod files;
mod past;
mod proof;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fw_core::job::{JobDef, parse_jobs};
use fw_rt::Clock;
use fw_server::dialects::saltpeter::files as saltpeter;
use fw_server::dialects::saltpeter::native::{self, Native};
use serde::Serialize;

use super::{Refusal, select};
use crate::exit::Code;
use crate::output::{self, Format, line};

pub(super) use past::histories;

/// Another program whose jobs can be carried over.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Turn a directory of Saltpeter into job files, with the same fires on the same hosts.
    ///
    /// Each job is read back and compared: its next 1,000 fires, and with --facts-file its hosts. What has no
    /// counterpart is told with its place.
    Saltpeter(Box<Args>),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of Saltpeter.
    #[arg(value_name = "DIR", required_unless_present = "undo")]
    dir: Option<PathBuf>,
    /// Where to: a directory, one file a group; or a file whose name ends with .yaml.
    #[arg(long, value_name = "FILE_OR_DIR", required_unless_present = "dry_run")]
    to: Option<PathBuf>,
    /// Say what would be written, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write over files that are there; what was in them is kept, and comes back with --undo.
    #[arg(long, conflicts_with = "undo")]
    force: bool,
    /// Remove what an import wrote to --to, if it was not changed since.
    #[arg(long, requires = "to", conflicts_with_all = ["dir", "logs", "facts_file", "dry_run"])]
    undo: bool,
    /// Directory of log files: how each job did in the past is told, and compared with its schedule.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Compare the hosts too, by a JSON file: an object of hosts, each an object of its facts.
    #[arg(long, value_name = "FILE")]
    facts_file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// The answer as data.
#[derive(Debug, Serialize)]
struct Answer {
    jobs: Vec<Job>,
    /// What has no counterpart, each with its place.
    left: Vec<String>,
    /// How jobs did in the past, by Saltpeter's names; only with --logs.
    past: BTreeMap<String, past::Past>,
    /// By name; what was written, or would be.
    files: BTreeMap<String, String>,
    written: bool,
}

/// A job of the answer.
#[derive(Debug, Serialize)]
struct Job {
    name: String,
    original: String,
    place: String,
    #[serde(flatten)]
    proof: proof::Proof,
}

/// Does it.
pub(crate) fn run(verb: &Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Saltpeter(args) if args.undo => files::undo(place(args)?),
        Verb::Saltpeter(args) => import(args),
    }
}

fn place(args: &Args) -> anyhow::Result<&Path> {
    args.to.as_deref().ok_or_else(|| Refusal::usage("say where to with --to"))
}

fn import(args: &Args) -> anyhow::Result<Code> {
    let dir = args.dir.as_deref().ok_or_else(|| Refusal::usage("name the directory"))?;
    let directory = saltpeter::read(dir).with_context(|| format!("read {}", dir.display()))?;
    let native = native::native(&directory);
    let to = args.to.as_deref();
    let texts = texts(dir, &native, to.and_then(files::single));
    let (jobs, alike) = prove(&native, &texts, args.facts_file.as_deref())?;
    let past = match &args.logs {
        Some(logs) => past::read(logs, &native.jobs)?,
        None => BTreeMap::new(),
    };
    let write = alike && !args.dry_run;
    let errors: Vec<_> =
        directory.notes.iter().filter(|note| note.level == saltpeter::Level::Error).collect();
    let mut left: Vec<_> = errors.iter().map(|note| place_of(&note.what)).collect();
    left.extend(native.left);
    if write {
        files::write(place(args)?, dir, &texts, args.force)?;
    }
    let answer = Answer { jobs, left, past, files: texts, written: write };
    tell(&answer, args)?;
    Ok(if !alike {
        Code::Conflict
    } else if answer.left.is_empty() {
        Code::Success
    } else {
        Code::Partial
    })
}

fn place_of(error: &fw_proto::api::SourceError) -> String {
    format!("{}:{}: {}", error.file, error.line, error.message)
}

/// The files by name: one a group, or one for all.
fn texts(dir: &Path, native: &Native, single: Option<String>) -> BTreeMap<String, String> {
    let from = dir.display().to_string();
    match single {
        Some(name) => {
            let jobs: Vec<_> = native.jobs.iter().collect();
            [(name, native::file(&from, &jobs))].into()
        }
        None => {
            let groups = native::by_group(&native.jobs).into_iter();
            groups
                .map(|(group, jobs)| (format!("{group}.yaml"), native::file(&from, &jobs)))
                .collect()
        }
    }
}

/// Reads back what is to be written, and compares; says whether all is alike.
fn prove(
    native: &Native,
    texts: &BTreeMap<String, String>,
    facts: Option<&Path>,
) -> anyhow::Result<(Vec<Job>, bool)> {
    let facts = facts.map(select::facts).transpose()?;
    let now = Clock::system().now();
    let mut read: BTreeMap<String, JobDef> = BTreeMap::new();
    for (file, text) in texts {
        let parsed = parse_jobs(file, text);
        if let Some(error) = parsed.errors.first() {
            let shown = output::error_text(error);
            return Err(Refusal::usage(format!("a job cannot be said here: {shown}")));
        }
        read.extend(parsed.jobs.into_iter().map(|job| (job.name.to_string(), job)));
    }
    let mut alike = true;
    let mut jobs = Vec::new();
    for there in &native.jobs {
        let here = read.get(there.name.as_str()).context("a job was lost on the way")?;
        let proof = proof::compare(there, here, facts.as_ref(), now);
        alike &= proof.alike();
        jobs.push(Job {
            name: there.name.to_string(),
            original: there.original.clone(),
            place: there.place.clone(),
            proof,
        });
    }
    Ok((jobs, alike))
}

fn tell(answer: &Answer, args: &Args) -> anyhow::Result<()> {
    match args.output {
        Format::Json | Format::Jsonl | Format::Yaml => {
            output::print(&output::item(answer, "", args.output, String::new)?)?;
            return Ok(());
        }
        Format::Name => {
            let names = answer.jobs.iter().map(|job| format!("{}\n", line(&job.name)));
            output::print(&names.collect::<String>())?;
        }
        Format::Table | Format::Wide => {
            if args.dry_run {
                let shown =
                    |(name, text): (&String, &String)| format!("# {}\n{text}\n", line(name));
                output::print(&answer.files.iter().map(shown).collect::<String>())?;
            }
            output::print(&proof::page(&answer.jobs))?;
            output::print(&past::page(&answer.past))?;
        }
    }
    answer.left.iter().for_each(|left| output::say(&format!("not carried over: {left}")));
    if let (true, Some(to)) = (answer.written, &args.to) {
        let to = to.display();
        output::say(&format!(
            "{} jobs written to {to}; take them back with: fleetwright import saltpeter --undo --to {to}",
            answer.jobs.len()
        ));
    } else if !args.dry_run {
        output::say("nothing is written, since some jobs would differ");
    }
    if !answer.past.is_empty() {
        output::say("past results are told only: a server's ledger holds what it did itself");
    }
    Ok(())
}
