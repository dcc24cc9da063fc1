//! `fleetwright agent`: this host's part in a fleet.

use std::path::PathBuf;

use fw_proto::HostName;

use super::settings;
use crate::exit::Code;
use crate::output::Format;

/// What to do with the agent.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Join a fleet with a join string of `fleetwright hosts invite`.
    Join(Box<JoinArgs>),
    /// Link to the server and run commands, until told to stop.
    Run(Box<RunArgs>),
    /// Show whether this host has joined, is linked, and what it runs.
    Status(StatusArgs),
    /// Write a unit for systemd (or launchd) with these flags, enable and start it; needs root.
    Install(Box<InstallArgs>),
    /// Stop the agent and take its unit away; the state directory stays.
    Uninstall,
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

/// What `agent install` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// File that holds a join string, for a host that has not joined.
    #[arg(long, value_name = "FILE")]
    pub(crate) join_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) agent: settings::Agent,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// Does it.
pub(crate) fn run(verb: Verb) -> anyhow::Result<Code> {
    drop(verb);
    anyhow::bail!("this build has no agent yet")
}
