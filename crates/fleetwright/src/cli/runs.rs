//! `fleetwright runs`: what has run and what is running.

use std::io::Write as _;

use fw_proto::api::{Cancel, Retry, RunState};
use fw_proto::record::Stream;
use fw_proto::{HostName, JobName, RunId};

use super::begin::Waiting;
use super::parse::{self, RunName};
use super::{Refusal, Session};
use crate::client::{LogFilter, RunFilter};
use crate::exit::Code;
use crate::output::{self, Format, Prefix, View};
use crate::watch::{self, End, Show};

/// A table of more lines than this is read by nobody; programs get all.
const TABLE_LIMIT: usize = 50;

/// What to do with runs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List runs, newest first.
    List(ListArgs),
    /// Show a run and its tasks.
    Show(ShowArgs),
    /// Show the output of a run.
    Logs(LogsArgs),
    /// Cancel a run: end it on every host, or on some.
    Cancel(CancelArgs),
    /// Run again what a run did.
    Retry(RetryArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only those of this job.
    #[arg(long, value_name = "NAME")]
    job: Option<JobName>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only those with a task on this host.
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// At most so many; 0 for all. Tables have 50 when absent, the other formats all.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum State {
    Planned,
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Id of the run, or `latest`.
    #[arg(value_name = "ID", value_parser = parse::run_name)]
    run: RunName,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Id of the run, or `latest`.
    #[arg(value_name = "ID", value_parser = parse::run_name)]
    run: RunName,
    /// Wait for what is still to come, until the run ends.
    #[arg(long, short = 'f')]
    follow: bool,
    /// Only of this host; its lines have no prefix.
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// Only of this stream.
    #[arg(long, value_enum)]
    stream: Option<Which>,
    /// The exact bytes of one stream of one host, on stdout. Exit code 3 when there are gaps.
    #[arg(long, requires = "host", requires = "stream", conflicts_with = "timestamps")]
    raw: bool,
    /// Begin each line with the time at which the host read it.
    #[arg(long)]
    timestamps: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Which {
    Stdout,
    Stderr,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    /// Id of the run, or `latest`.
    #[arg(value_name = "ID", value_parser = parse::run_name)]
    run: RunName,
    /// Only on this host; may be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "hosts")]
    host: Vec<HostName>,
    /// Only on those of its hosts that this selector picks.
    #[arg(long, value_name = "SELECTOR")]
    hosts: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    /// Id of the run, or `latest`.
    #[arg(value_name = "ID", value_parser = parse::run_name)]
    run: RunName,
    /// Only on the hosts where it did not succeed.
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::List(args) => list(session, args).await,
        Verb::Show(args) => show(session, args).await,
        Verb::Logs(args) => logs(session, args).await,
        Verb::Cancel(args) => cancel(session, args).await,
        Verb::Retry(args) => retry(session, args).await,
    }
}

/// How many items to ask for, by the flag and the format.
pub(super) fn limit(flag: Option<usize>, format: Format) -> Option<usize> {
    match (flag, format) {
        (Some(0), _) => None,
        (Some(limit), _) => Some(limit),
        (None, Format::Table | Format::Wide) => Some(TABLE_LIMIT),
        (None, Format::Json | Format::Jsonl | Format::Yaml | Format::Name) => None,
    }
}

async fn list(session: &Session, args: ListArgs) -> anyhow::Result<Code> {
    let state = args.state.map(|state| match state {
        State::Planned => RunState::Planned,
        State::Running => RunState::Running,
        State::Cancelling => RunState::Cancelling,
        State::Succeeded => RunState::Succeeded,
        State::Failed => RunState::Failed,
        State::Cancelled => RunState::Cancelled,
    });
    let filter = RunFilter { job: args.job, state, host: args.host };
    let runs = session.client.runs(&filter, limit(args.limit, args.output)).await?;
    output::print(&output::list(&runs, args.output, session.now())?)?;
    if args.limit.is_none() && runs.len() == TABLE_LIMIT && args.output == Format::Table {
        output::say("there may be more; --limit 0 lists all");
    }
    Ok(Code::Success)
}

async fn resolve(session: &Session, name: RunName) -> anyhow::Result<RunId> {
    match name {
        RunName::Id(id) => Ok(id),
        RunName::Latest => {
            let runs = session.client.runs(&RunFilter::default(), Some(1)).await?;
            runs.first()
                .map(|run| run.id)
                .ok_or_else(|| Refusal::not_found("there are no runs yet"))
        }
    }
}

async fn show(session: &Session, args: ShowArgs) -> anyhow::Result<Code> {
    let run = session.client.run(resolve(session, args.run).await?).await?;
    let page = || output::run_page(&run, session.now());
    output::print(&output::item(&run, &run.summary.id.to_string(), args.output, page)?)?;
    Ok(Code::Success)
}

async fn cancel(session: &Session, args: CancelArgs) -> anyhow::Result<Code> {
    let id = resolve(session, args.run).await?;
    let named = || args.host.iter().map(HostName::as_str).collect::<Vec<_>>().join(",");
    let hosts = args.hosts.clone().or_else(|| (!args.host.is_empty()).then(named));
    let on = hosts.as_ref().map_or_else(String::new, |hosts| format!(" on {hosts}"));
    session.client.cancel(id, &Cancel { hosts }).await?;
    output::say(&format!("run {id} is being cancelled{on}; see `fleetwright runs show {id}`"));
    Ok(Code::Success)
}

async fn retry(session: &Session, args: RetryArgs) -> anyhow::Result<Code> {
    args.waiting.check()?;
    let id = resolve(session, args.run).await?;
    let created = session.client.retry(id, &Retry { failed: args.failed }).await?;
    args.waiting.go_on(session, created).await
}

/// Shows the output of a run.
pub(crate) async fn logs(session: &Session, args: LogsArgs) -> anyhow::Result<Code> {
    let id = resolve(session, args.run).await?;
    let stream = args.stream.map(|which| match which {
        Which::Stdout => Stream::Stdout,
        Which::Stderr => Stream::Stderr,
    });
    if let (true, false, Some(host), Some(stream)) = (args.raw, args.follow, &args.host, stream) {
        return raw(session, id, host, stream).await;
    }
    let view = view(session, id, &args).await?;
    let filter = LogFilter { host: args.host, stream };
    let (code, gaps) = if args.follow {
        let show = Show::Output(view, filter);
        let watched = watch::watch(&session.client, &session.tasks, id, show, None).await?;
        let code = match watched.end {
            End::Ended(_) | End::TimedOut(_) => Code::Success,
            End::Interrupted => Code::Interrupted,
        };
        (code, watched.gaps)
    } else {
        (Code::Success, watch::show_logs(&session.client, &session.tasks, id, view, filter).await?)
    };
    Ok(if args.raw && gaps > 0 && code == Code::Success { Code::Partial } else { code })
}

async fn view(session: &Session, id: RunId, args: &LogsArgs) -> anyhow::Result<View> {
    // Also asked when it is not needed: what follows is patient with a server that is away, and
    // here the address may be wrong.
    let run = session.client.run(id).await?;
    if args.raw {
        return Ok(View::Raw);
    }
    let prefix = match &args.host {
        Some(_) => Prefix::None,
        None => Prefix::fitting(run.tasks.iter().map(|task| &task.host)),
    };
    Ok(View::Lines { prefix, timestamps: args.timestamps })
}

/// The exact stored bytes; over gaps what there is, each gap on stderr.
async fn raw(
    session: &Session,
    id: RunId,
    host: &HostName,
    stream: Stream,
) -> anyhow::Result<Code> {
    let mut raw = session.client.raw(id, host, stream).await?;
    let mut out = std::io::stdout().lock();
    while let Some(bytes) = session.client.more(&mut raw.body).await? {
        out.write_all(&bytes)?;
    }
    out.flush()?;
    for (offset, length) in &raw.gaps {
        output::say(&output::gap_text(host, stream, *offset, *length));
    }
    if raw.gaps.is_empty() && raw.dropped > 0 {
        output::say(&format!("gap: {} bytes were not kept", raw.dropped));
    }
    Ok(if raw.dropped > 0 || !raw.gaps.is_empty() { Code::Partial } else { Code::Success })
}
