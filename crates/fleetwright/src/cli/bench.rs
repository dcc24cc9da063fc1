//! `fleetwright bench`: how fast it is here.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use fw_proto::Join;

use super::Connection;
use crate::bench::{agent, api, fleet, swarm, wrappers};
use crate::config::read_text;
use crate::exit::Code;
use crate::output::{self, Format};

/// Where files go: unlike `/tmp`, this is a disk almost everywhere (hier(7)).
const DIR: &str = "/var/tmp";

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Measure a server with a fleet of simulated agents: links, memory, runs, output, jobs, a restart.
    ///
    /// Starts a server of its own with the usual defaults, or uses that of --server, where it
    /// leaves runs behind but no hosts and no jobs. The agents are a process of their own: real
    /// links and decisions, no commands, their spool in memory.
    Fleet(FleetArgs),
    /// Measure one real agent with real, short commands, on a server of its own.
    Agent(AgentArgs),
    /// Measure a server with simulated wrappers of Saltpeter, on a server of its own.
    ///
    /// All wrappers belong to one run. Each has a connection with one output of 100 bytes under way,
    /// acknowledged when it is durable; then they rest, and end together.
    Saltpeter(SaltpeterArgs),
    /// Measure what viewers of pages cost a server with a history, and how fast its lists are.
    ///
    /// Fills the store of a server of its own with hosts, ended runs and fires, asks for its lists, then
    /// lets viewers follow hosts and runs while hosts change.
    Api(ApiArgs),
    /// Be the simulated agents of `bench fleet`.
    #[command(hide = true)]
    Swarm(SwarmArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct FleetArgs {
    /// How many agents.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=99_999))]
    agents: u32,
    /// How many seconds starts are counted; 0 leaves that out.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    duration: u64,
    /// How many jobs are due in one second; 0 leaves that out.
    #[arg(long, value_name = "M", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=99_999))]
    jobs: u32,
    /// How much output is shipped, in millions of bytes; 0 leaves that out.
    #[arg(long, value_name = "N", default_value_t = 500)]
    output_mb: u64,
    /// Directory in which a server of its own has its files.
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    /// How many seconds starts are counted.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Directory in which server and agent have their files.
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SaltpeterArgs {
    /// How many wrappers.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    wrappers: u32,
    /// How many seconds output is sent.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Directory in which the server has its files.
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApiArgs {
    /// How many viewers.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    viewers: u32,
    /// How many hosts the server knows.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hosts: u32,
    /// How many runs have ended.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    runs: u32,
    /// How many fires have their verdict.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    ledger: u32,
    /// Directory in which the server has its files.
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SwarmArgs {
    #[arg(long)]
    agents: u32,
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    join_file: PathBuf,
}

/// Does it.
pub(crate) fn run(verb: Verb, connection: &Connection) -> anyhow::Result<Code> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    runtime.block_on(async {
        match verb {
            Verb::Fleet(args) => fleet(args, connection).await,
            Verb::Agent(args) => until_stopped(agent(args)).await,
            Verb::Saltpeter(args) => until_stopped(saltpeter(args)).await,
            Verb::Api(args) => until_stopped(viewers(args)).await,
            Verb::Swarm(args) => swarm(args).await,
        }
    })
}

/// Ctrl+C drops what is under way, and with it its processes and files.
async fn until_stopped(work: impl Future<Output = anyhow::Result<Code>>) -> anyhow::Result<Code> {
    tokio::select! {
        done = work => done,
        told = crate::local::told_to_stop() => told.map(|_| stopped()).context("wait for a signal"),
    }
}

fn stopped() -> Code {
    output::say("stopped; nothing was measured");
    Code::Interrupted
}

async fn fleet(args: FleetArgs, connection: &Connection) -> anyhow::Result<Code> {
    // A benchmark is nothing to do to a server by accident: only one that is named here.
    let server = connection.server.is_some().then(|| connection.client()).transpose()?;
    let options = fleet::Options {
        agents: args.agents,
        duration: Duration::from_secs(args.duration),
        jobs: args.jobs,
        output_mb: args.output_mb,
        dir: args.dir,
        server,
    };
    let Some(figures) = fleet::run(options, crate::local::told_to_stop()).await? else {
        return Ok(stopped());
    };
    output::print(&output::item(&figures, "fleet", args.output, || figures.page())?)?;
    Ok(Code::Success)
}

async fn viewers(args: ApiArgs) -> anyhow::Result<Code> {
    let history = api::History { hosts: args.hosts, runs: args.runs, ledger: args.ledger };
    let viewers = fleet::within_open_files(args.viewers);
    let figures = api::run(api::Options { viewers, history, dir: args.dir }).await?;
    output::print(&output::item(&figures, "api", args.output, || figures.page())?)?;
    Ok(Code::Success)
}

async fn agent(args: AgentArgs) -> anyhow::Result<Code> {
    let options = agent::Options { duration: Duration::from_secs(args.duration), dir: args.dir };
    let figures = agent::run(options).await?;
    output::print(&output::item(&figures, "agent", args.output, || figures.page())?)?;
    Ok(Code::Success)
}

async fn saltpeter(args: SaltpeterArgs) -> anyhow::Result<Code> {
    let duration = Duration::from_secs(args.duration);
    let options = wrappers::Options { wrappers: args.wrappers, duration, dir: args.dir };
    let figures = wrappers::run(options).await?;
    output::print(&output::item(&figures, "saltpeter", args.output, || figures.page())?)?;
    Ok(Code::Success)
}

async fn swarm(args: SwarmArgs) -> anyhow::Result<Code> {
    let join: Join = read_text(&args.join_file).context("read the join string")?.trim().parse()?;
    swarm::run(args.agents, join, args.prefix).await?;
    Ok(Code::Success)
}
