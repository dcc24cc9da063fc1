//! The command line: what can be typed, and who answers it.

mod agent;
mod ask;
mod audit;
mod backup;
mod begin;
mod bench;
mod change;
mod completions;
mod config;
mod context;
mod dialect;
mod durations;
mod explain;
mod help;
mod host;
mod host_backup;
mod import;
mod job;
mod lint;
mod maintenance;
mod man;
mod parse;
mod probe;
//R mod rollout;
mod run;
mod runbook;
mod runs;
mod schedule;
mod secret;
mod select;
mod serve;
mod server;
mod settings;
mod state;
mod token;
mod up;
mod user;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use fw_proto::Timestamp;
use fw_proto::frame::DeniedReason;
use fw_rt::{Clock, Tasks};

use crate::client::{self, Client};
use crate::config::context::{self as contexts, Contexts, TargetFlags};
use crate::exit::Code;
use crate::output;

/// Runs a fleet of hosts and changes it safely.
///
/// Begin with `fleetwright up` in one terminal and `fleetwright run '*' -- uptime` in another.
#[derive(Debug, Parser)]
#[command(name = "fleetwright", version, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

/// Which server to talk to, for the commands that talk to one.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Address of the server [env: `FLEETWRIGHT_SERVER`].
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// Token; others can see it in the process list, so prefer --token-file [env: `FLEETWRIGHT_TOKEN`].
    #[arg(long, global = true, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File that holds the token [env: `FLEETWRIGHT_TOKEN_FILE`].
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Server of `fleetwright context` to use for this command [env: `FLEETWRIGHT_CONTEXT`].
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "server")]
    context: Option<String>,
    /// Certificates (PEM) to trust beside the system's.
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(Box<up::Args>),
    Run(Box<run::Args>),
    /// List, show and cancel runs, and read their output.
    #[command(subcommand)]
    Runs(runs::Verb),
    /// Show the output of a run (`runs logs`).
    Logs(runs::LogsArgs),
    /// Invite, list and change hosts.
    #[command(subcommand)]
    Hosts(host::Verb),
    /// Look after scheduled jobs.
    #[command(subcommand)]
    Jobs(job::Verb),
    /// Switch maintenance on and off: while it is in force, no run begins by itself.
    #[command(subcommand)]
    Maintenance(maintenance::Verb),
    //R
    /// Check, plan and run runbooks: Markdown whose steps run, wait for people, and are taken back.
    #[command(subcommand)]
    Runbook(runbook::Verb),
    /// See when a schedule is due.
    #[command(subcommand)]
    Schedule(schedule::Verb),
    /// Look after secrets that commands need.
    #[command(subcommand)]
    Secrets(secret::Verb),
    /// Look after API tokens.
    #[command(subcommand)]
    Tokens(token::Verb),
    /// Look after those who may sign in.
    #[command(subcommand)]
    Users(user::Verb),
    /// See what was changed, by whom.
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Show the server, and change its key.
    #[command(subcommand)]
    Server(server::Verb),
    /// Make, verify and restore backups.
    #[command(subcommand)]
    Backup(backup::Verb),
    Serve(Box<serve::Args>),
    /// Carry over the jobs of another program.
    #[command(subcommand)]
    Import(import::Verb),
    /// Join a fleet and run commands for it.
    #[command(subcommand)]
    Agent(agent::Verb),
    #[command(subcommand, hide = true)]
    Probe(probe::Verb),
    #[command(subcommand, hide = true)]
    State(state::Verb),
    #[command(subcommand, hide = true)]
    HostBackup(host_backup::Verb),
    /// Try what other programs speak against a server, and compare what they did.
    #[command(subcommand)]
    Dialects(dialect::Verb),
    /// Measure how fast it is here.
    #[command(subcommand)]
    Bench(bench::Verb),
    /// Name the servers you talk to.
    #[command(subcommand)]
    Context(context::Verb),
    /// Check and show the configuration of `up`, `serve` and `agent`.
    #[command(subcommand)]
    Config(config::Verb),
    Explain(explain::Args),
    Version(version::Args),
    Completions(completions::Args),
    Man(man::Args),
    Help(help::Args),
}

/// Something that this side refuses or misses.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { code: Code::Usage, message: message.into() }.into()
    }

    /// Something is in the way.
    pub(crate) fn conflict(message: impl Into<String>) -> anyhow::Error {
        Self { code: Code::Conflict, message: message.into() }.into()
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> anyhow::Error {
        Self { code: Code::NotFound, message: message.into() }.into()
    }
}

/// What a command that talks to a server has at hand.
#[derive(Debug)]
pub(crate) struct Session {
    /// The server.
    pub(crate) client: Client,
    /// The time of day, for "3m ago".
    pub(crate) clock: Clock,
    /// Where its tasks live.
    pub(crate) tasks: Tasks,
}

impl Session {
    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Reads the command line, does what it says and gives the exit code.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // stdout for --help, stderr for mistakes; nobody is left to tell when they are closed.
            error.print().ok();
            return if error.use_stderr() { Code::Usage } else { Code::Success }.into();
        }
    };
    let code = dispatch(cli).unwrap_or_else(|error| report(&error));
    code.into()
}

fn dispatch(cli: Cli) -> anyhow::Result<Code> {
    let connection = cli.connection;
    match cli.command {
        Command::Up(args) => up::run(*args),
        Command::Serve(args) => serve::run(&args),
        Command::Agent(verb) => agent::run(verb),
        Command::Run(args) => talk(&connection, async |session| run::run(session, *args).await),
        Command::Runs(verb) => talk(&connection, async |session| runs::run(session, verb).await),
        Command::Logs(args) => talk(&connection, async |session| runs::logs(session, args).await),
        Command::Hosts(host::Verb::Select(select::Args {
            facts_file: Some(file), target, ..
        })) => select::offline(&file, &target),
        Command::Hosts(verb) => talk(&connection, async |session| host::run(session, verb).await),
        Command::Jobs(job::Verb::Check(args)) if !job::asks_server(&args) => {
            job::check_offline(&args)
        }
        Command::Jobs(verb) => talk(&connection, async |session| job::run(session, verb).await),
        Command::Maintenance(verb) => {
            talk(&connection, async |session| maintenance::run(session, verb).await)
        }
        //R
        Command::Runbook(verb) => runbook::run(verb, &connection),
        Command::Schedule(verb) => schedule::run(&verb),
        Command::Secrets(verb) => {
            talk(&connection, async |session| secret::run(session, verb).await)
        }
        Command::Tokens(verb) => talk(&connection, async |session| token::run(session, verb).await),
        Command::Users(verb) => talk(&connection, async |session| user::run(session, verb).await),
        Command::Audit(verb) => talk(&connection, async |session| audit::run(session, verb).await),
        Command::Server(verb) => {
            talk(&connection, async |session| server::run(session, verb).await)
        }
        Command::Backup(backup::Verb::Create(args)) => {
            talk(&connection, async |session| backup::create(session, args).await)
        }
        Command::Backup(backup::Verb::Verify(args)) => backup::verify(&args),
        Command::Backup(backup::Verb::Restore(args)) => backup::restore(&args),
        Command::Probe(verb) => probe::run(verb, &connection),
        Command::State(verb) => state::run(verb),
        Command::HostBackup(verb) => host_backup::run(verb),
        Command::Dialects(verb) => dialect::run(&verb, &connection),
        Command::Import(verb) => import::run(&verb),
        Command::Bench(verb) => bench::run(verb, &connection),
        Command::Context(verb) => context::run(verb, &connection),
        Command::Config(verb) => config::run(&verb),
        Command::Explain(args) => explain::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Help(args) => help::run(&args),
    }
}

/// Runs a command that talks to a server.
fn talk(
    connection: &Connection,
    command: impl AsyncFnOnce(&Session) -> anyhow::Result<Code>,
) -> anyhow::Result<Code> {
    // Two threads: a second Ctrl+C is heard even while the first one is stuck in a write.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let session =
        Session { client: connection.client()?, clock: Clock::system(), tasks: Tasks::new() };
    let code = runtime.block_on(command(&session));
    session.tasks.cancel();
    // A blocking read of stdin must not keep the process.
    runtime.shutdown_background();
    code
}

impl Connection {
    fn client(&self) -> anyhow::Result<Client> {
        let env = crate::config::environment();
        let contexts = || {
            let path = crate::config::context::path(&env);
            path.map_or_else(|| Ok(Contexts::default()), |path| Contexts::load(&path))
        };
        let flags = TargetFlags {
            server: self.server.clone(),
            token: self.token.clone().map(crate::config::Secret),
            token_file: self.token_file.clone(),
            context: self.context.clone(),
        };
        let target = crate::config::context::target(&flags, &env, contexts)?;
        let token = target.token.read()?.map(|secret| secret.0);
        let ca = self.ca_file.as_deref().or(target.ca_file.as_deref());
        let ca = ca.map(certificates).transpose()?.unwrap_or_default();
        Ok(Client::new(target.server, token, target.named_by, ca)?)
    }
}

fn certificates(path: &std::path::Path) -> anyhow::Result<Vec<reqwest::Certificate>> {
    let pem =
        crate::config::read_bytes(path).with_context(|| format!("read {}", path.display()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem);
    let certificates =
        certificates.with_context(|| format!("read certificates in {}", path.display()))?;
    if certificates.is_empty() {
        return Err(Refusal::usage(format!("there is no certificate in {}", path.display())));
    }
    Ok(certificates)
}

/// Says what went wrong and what to do, once, and gives the exit code.
fn report(error: &anyhow::Error) -> Code {
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(output::reader_gone)) {
        return Code::Error;
    }
    if let Some(error) = error.downcast_ref::<client::Error>() {
        output::say(&format!("error: {}", error.told()));
        error.detail().into_iter().for_each(output::say);
        error.hint().iter().for_each(|hint| output::say(&format!("hint: {hint}")));
        return error.exit_code();
    }
    output::say(&format!("error: {error:#}"));
    if let Some(contexts::Error::Unknown { .. }) = error.downcast_ref() {
        return Code::NotFound;
    }
    if let Some(fw_agent::Error::Denied { reason, .. }) = error.downcast_ref() {
        let conflict = matches!(reason, DeniedReason::NameTaken | DeniedReason::NameInvalid);
        return if conflict { Code::Conflict } else { Code::Authentication };
    }
    error.downcast_ref::<Refusal>().map_or(Code::Error, |refusal| refusal.code)
}

/// The whole command line, for help, man pages and completions.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[cfg(test)]
mod tests;
