//! `fleetwright jobs`: commands on a schedule.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fw_core::job::{merge, parse_jobs};
use fw_proto::JobName;
use fw_proto::api::{CheckedJob, CheckedJobs, JobsText};
use fw_rt::Clock;

use super::Session;
use super::ask::{self, Sure};
use super::begin::Waiting;
use super::durations;
use super::runs::limit;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with jobs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List jobs.
    List(ListArgs),
    /// Show a job.
    Show(ShowArgs),
    /// Check job files here, without a server; exit code 1 when anything is wrong.
    Check(CheckArgs),
    /// Run a job now.
    Run(RunArgs),
    /// Let a job fire no more, until it is resumed.
    Pause(NameArgs),
    /// Let a paused job fire again.
    Resume(NameArgs),
    /// Show what became of a job's fires, newest first.
    Ledger(LedgerArgs),
    /// Give the server jobs that are in no file of its own.
    Apply(ApplyArgs),
    /// Delete a job that was applied.
    Delete(DeleteArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Name of the job.
    name: JobName,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    /// Name of the job.
    name: JobName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Job files; `-` is stdin. With --dialect, a directory.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Read the directory of another program and say what in it runs, is ignored, is dangerous.
    #[arg(long, value_enum)]
    dialect: Option<super::parse::Dialect>,
    /// With --dialect: say on which of these hosts each job runs. A JSON file: an object of hosts, each
    /// an object of its facts.
    #[arg(long, value_name = "FILE", requires = "dialect")]
    facts_file: Option<PathBuf>,
    /// Warn of fires that would come while the earlier run goes on, by how long the server's last runs of each
    /// job took.
    #[arg(long)]
    ask_server: bool,
    /// With --dialect: likewise, by its log files in this directory.
    #[arg(long, value_name = "DIR", requires = "dialect", conflicts_with = "ask_server")]
    logs: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Name of the job.
    name: JobName,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LedgerArgs {
    /// Name of the job.
    name: JobName,
    /// At most so many; 0 for all. Tables have 50 when absent, the other formats all.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// A job file; `-` is stdin.
    file: String,
    /// Say what would be; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Name of the job.
    name: JobName,
    #[command(flatten)]
    sure: Sure,
}

/// Does what needs the server.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::List(args) => list(session, &args).await,
        Verb::Show(args) => show(session, &args).await,
        Verb::Check(args) => check_asking(session, &args).await,
        Verb::Run(args) => run_now(session, args).await,
        Verb::Pause(args) => pause(session, &args.name, true).await,
        Verb::Resume(args) => pause(session, &args.name, false).await,
        Verb::Ledger(args) => ledger(session, args).await,
        Verb::Apply(args) => apply(session, args).await,
        Verb::Delete(args) => delete(session, &args).await,
    }
}

async fn list(session: &Session, args: &ListArgs) -> anyhow::Result<Code> {
    let jobs = session.client.jobs(args.limit.filter(|limit| *limit > 0)).await?;
    output::print(&output::list(&jobs, args.output, session.now())?)?;
    if matches!(args.output, Format::Table | Format::Wide) {
        for error in session.client.job_errors().await? {
            output::say(&format!("warning: {}", output::error_text(&error)));
        }
        let on = session.client.maintenances(false).await?;
        for one in on.iter().filter(|one| one.hosts.is_none() && one.in_force) {
            output::say(&format!("warning: {}", output::maintenance_warning(one)));
        }
    }
    Ok(Code::Success)
}

async fn show(session: &Session, args: &ShowArgs) -> anyhow::Result<Code> {
    let job = session.client.job(&args.name).await?;
    let page = || output::job_page(&job, session.now());
    output::print(&output::item(&job, job.name.as_str(), args.output, page)?)?;
    Ok(Code::Success)
}

/// Whether a server is needed to check files.
pub(crate) const fn asks_server(args: &CheckArgs) -> bool {
    args.ask_server
}

/// Checks files; the server is asked only for how long runs took.
async fn check_asking(session: &Session, args: &CheckArgs) -> anyhow::Result<Code> {
    check(args, &durations::of_server(session).await?)
}

/// Checks files without a server.
pub(crate) fn check_offline(args: &CheckArgs) -> anyhow::Result<Code> {
    let past = args.logs.as_deref().map(durations::of_logs).transpose()?;
    check(args, &past.unwrap_or_default())
}

/// Checks job files as the server would read them, all names together.
fn check(args: &CheckArgs, past: &durations::Past) -> anyhow::Result<Code> {
    if let Some(super::parse::Dialect::Saltpeter) = args.dialect {
        let machines = args.facts_file.as_deref().map(super::select::facts).transpose()?;
        return super::lint::check(&args.files, machines.as_ref(), past, args.output);
    }
    let now = Clock::system().now();
    let mut files = Vec::new();
    for path in &args.files {
        let (text, name) = ask::text_of(path)?;
        let parsed = parse_jobs(&name, &text);
        files.push((name, parsed));
    }
    let (jobs, twice) = merge(&files, &BTreeMap::new());
    let job = |(name, (_, job)): (JobName, (String, fw_core::job::JobDef))| CheckedJob {
        name,
        next_fire: job.next_run(now).filter(|_| job.spec.enabled),
    };
    for (file, def) in jobs.values() {
        if let Some(warning) = durations::warning(file, def, past, now) {
            output::say(&format!("warning: {}", output::error_text(&warning)));
        }
    }
    let jobs = jobs.into_iter().map(job).collect();
    let errors = files.into_iter().flat_map(|(_, parsed)| parsed.errors).chain(twice).collect();
    tell(&CheckedJobs { jobs, errors }, args.output, now)
}

/// Prints good jobs as data and errors as messages; in the other formats both are data.
fn tell(checked: &CheckedJobs, format: Format, now: fw_proto::Timestamp) -> anyhow::Result<Code> {
    match format {
        Format::Table | Format::Wide | Format::Name => {
            if !checked.jobs.is_empty() {
                output::print(&output::list(&checked.jobs, format, now)?)?;
            }
            checked
                .errors
                .iter()
                .for_each(|error| output::say(&format!("error: {}", output::error_text(error))));
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            output::print(&output::item(checked, "", format, String::new)?)?;
        }
    }
    Ok(if checked.errors.is_empty() { Code::Success } else { Code::Error })
}

async fn run_now(session: &Session, args: RunArgs) -> anyhow::Result<Code> {
    args.waiting.check()?;
    let created = session.client.run_job(&args.name).await?;
    args.waiting.go_on(session, created).await
}

async fn pause(session: &Session, name: &JobName, pause: bool) -> anyhow::Result<Code> {
    session.client.pause_job(name, pause).await?;
    let done =
        if pause { "is paused; let it go on with `fleetwright jobs resume`" } else { "goes on" };
    output::say(&format!("{name} {done}"));
    Ok(Code::Success)
}

async fn ledger(session: &Session, args: LedgerArgs) -> anyhow::Result<Code> {
    let fires = session.client.ledger(&args.name, limit(args.limit, args.output)).await?;
    output::print(&output::list(&fires, args.output, session.now())?)?;
    Ok(Code::Success)
}

async fn apply(session: &Session, args: ApplyArgs) -> anyhow::Result<Code> {
    let (text, name) = ask::text_of(&args.file)?;
    let text = JobsText { text, name: Some(name), dry_run: args.dry_run };
    let applied = session.client.apply_jobs(&text).await?;
    if args.dry_run {
        output::say("nothing was changed (--dry-run)");
    }
    tell(&applied, args.output, session.now())
}

async fn delete(session: &Session, args: &DeleteArgs) -> anyhow::Result<Code> {
    args.sure.confirm(&format!("Delete the job {}? Its runs and its ledger stay.", args.name))?;
    session.client.delete_job(&args.name).await?;
    output::say(&format!("{} is deleted", args.name));
    Ok(Code::Success)
}
