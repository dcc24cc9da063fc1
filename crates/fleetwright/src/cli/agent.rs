//! `fleetwright agent`: this host's part in a fleet.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fw_agent::install::{AGENT_STATE, OBSERVE_POLICY, Plan, Profile, Service, UnitOptions};
use fw_proto::HostName;

use super::serve::perform;
use super::settings;
use crate::config::{AgentConfig, Flags, read_text, service_arguments};
use crate::exit::Code;
use crate::local;
use crate::output::{self, Format, agent};

/// What to do with the agent.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Join a fleet with a join string of `fleetwright hosts invite`.
    Join(Box<JoinArgs>),
    /// Link to the server and run commands, until told to stop.
    Run(Box<RunArgs>),
    /// Show whether this host has joined, is linked, and what it runs; exit code 5 when its agent does not run.
    Status(StatusArgs),
    /// Take up another key: the running agent tells the server, then uses it.
    RotateKey(RotateKeyArgs),
    /// Write a unit for systemd (or launchd) with these flags, enable and start it; needs root.
    Install(Box<InstallArgs>),
    /// Stop the agent and take its unit away; the state directory stays.
    Uninstall(UninstallArgs),
}

/// What `agent join` takes.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("string").args(["join", "join_file"]).required(true))]
pub(crate) struct JoinArgs {
    /// The join string; `-` reads it from stdin, which keeps it out of the process list.
    #[arg(value_name = "STRING")]
    pub(crate) join: Option<String>,
    /// File that holds the join string.
    #[arg(long, value_name = "FILE")]
    pub(crate) join_file: Option<PathBuf>,
    /// Name of this host in the fleet; the machine's own when absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<HostName>,
    #[command(flatten)]
    pub(crate) agent: settings::Agent,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// What `agent run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// File that holds a join string, used while this host has not joined.
    #[arg(long, value_name = "FILE")]
    pub(crate) join_file: Option<PathBuf>,
    /// Name to join with; the machine's own when absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<HostName>,
    #[command(flatten)]
    pub(crate) agent: settings::Agent,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// What `agent status` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) agent: settings::Agent,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// What `agent uninstall` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    /// Show what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What `agent rotate-key` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateKeyArgs {
    #[command(flatten)]
    pub(crate) agent: settings::Agent,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// What `agent install` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// File that holds a join string, for a host that has not joined.
    #[arg(long, value_name = "FILE")]
    pub(crate) join_file: Option<PathBuf>,
    /// Report only: an unprivileged service that refuses all commands, by a policy of its own.
    #[arg(long, conflicts_with = "policy")]
    pub(crate) observe: bool,
    /// Show what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) agent: settings::Agent,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// Does it.
pub(crate) fn run(verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Join(args) => join(*args),
        Verb::Run(args) => run_agent(*args),
        Verb::Status(args) => status(&args),
        Verb::RotateKey(args) => rotate_key(&args),
        Verb::Install(args) => install(&args),
        Verb::Uninstall(args) => {
            perform(&Plan::uninstall(fw_agent::install::init(), Service::Agent)?, args.dry_run)
        }
    }
}

fn join(args: JoinArgs) -> anyhow::Result<Code> {
    let config = load(&args.general, &args.agent, None)?;
    let text = match (args.join.as_deref(), &args.join_file) {
        (Some("-"), _) => {
            std::io::read_to_string(std::io::stdin()).context("read the join string from stdin")?
        }
        (Some(text), _) => text.to_owned(),
        (None, Some(file)) => {
            read_text(file).with_context(|| format!("read {}", file.display()))?
        }
        (None, None) => anyhow::bail!("give a join string, `-`, or --join-file"),
    };
    let identity = local::agent::join(&text.parse()?, args.name, &config)?;
    output::say(&format!(
        "joined {} as {}; start the agent with `fleetwright agent run` or `agent install`",
        identity.server, identity.name
    ));
    Ok(Code::Success)
}

fn run_agent(args: RunArgs) -> anyhow::Result<Code> {
    let flags =
        vec![args.general.flags(), args.agent.flags(), join_file(args.join_file.as_deref())];
    let loaded = local::configure(args.general.config.as_deref(), flags)?;
    local::agent::run(&loaded.config.agent, args.name)?;
    Ok(Code::Success)
}

fn status(args: &StatusArgs) -> anyhow::Result<Code> {
    let config = load(&args.general, &args.agent, None)?;
    let Some(status) = local::agent::status(&config)? else {
        let joined = local::agent::identity(&config)?;
        output::say(match joined {
            Some(_) => {
                "this host has joined a fleet, but its agent never ran: `fleetwright agent run`"
            }
            None => "this host has not joined a fleet: `fleetwright agent join`",
        });
        return Ok(Code::NotFound);
    };
    let shown = agent::Shown { is_running: local::agent::runs(&config)?, status };
    let name = shown.status.name.as_str();
    output::print(&output::item(&shown, name, args.output, || agent::status(&shown))?)?;
    if shown.is_running {
        return Ok(Code::Success);
    }
    output::say("the agent does not run; start it with `fleetwright agent run`, or its service");
    Ok(Code::NotFound)
}

fn rotate_key(args: &RotateKeyArgs) -> anyhow::Result<Code> {
    let config = load(&args.general, &args.agent, None)?;
    local::agent::rotate_key(&config)?;
    output::say("the agent takes the new key up as soon as it is linked; its log says so");
    Ok(Code::Success)
}

fn install(args: &InstallArgs) -> anyhow::Result<Code> {
    let mut flags = args.general.flags();
    flags.extend(args.agent.flags());
    flags.extend(join_file(args.join_file.as_deref()));
    let config = local::read(args.general.config.as_deref(), vec![flags.clone()])?.config.agent;
    if config.join.is_none() && local::agent::identity(&config)?.is_none() {
        anyhow::bail!(
            "this host has not joined a fleet: run `fleetwright agent join` first, or give --join-file"
        );
    }
    flags.entry("agent.state_dir").or_insert_with(|| AGENT_STATE.to_owned());
    if args.observe {
        flags.insert("agent.policy", OBSERVE_POLICY.to_owned());
    }
    let options = UnitOptions {
        binary: std::env::current_exe()?,
        args: service_arguments(&["agent", "run"], args.general.config.as_deref(), &flags)?,
        profile: if args.observe { Profile::Observe } else { Profile::Operator },
    };
    perform(&Plan::install_agent(fw_agent::install::init(), &options)?, args.dry_run)
}

fn load(
    general: &settings::General,
    agent: &settings::Agent,
    join: Option<&Path>,
) -> anyhow::Result<AgentConfig> {
    let flags = vec![general.flags(), agent.flags(), join_file(join)];
    Ok(local::read(general.config.as_deref(), flags)?.config.agent)
}

fn join_file(file: Option<&Path>) -> Flags {
    file.map(|file| ("agent.join_file", file.display().to_string())).into_iter().collect()
}
