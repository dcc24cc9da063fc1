//! `fleetwright up`: a server and an agent for this machine, for the first minute.

use fw_proto::HostName;

use super::settings;
use crate::exit::Code;
use crate::local;

/// Start a server and an agent for this machine.
///
/// The first start makes the store, enrols this machine, writes an example job file unless --jobs
/// names a directory, and prints the first admin token once. Ctrl+C stops both.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of this host; the machine's own when absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<HostName>,
    #[command(flatten)]
    pub(crate) server: settings::Server,
    #[command(flatten)]
    pub(crate) saltpeter: settings::Saltpeter,
    #[command(flatten)]
    pub(crate) agent: settings::Agent,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// Runs both until Ctrl+C.
pub(crate) fn run(args: Args) -> anyhow::Result<Code> {
    let flags =
        vec![args.general.flags(), args.server.flags(), args.saltpeter.flags(), args.agent.flags()];
    let loaded = local::configure(args.general.config.as_deref(), flags)?;
    local::up::up(loaded, args.name)?;
    Ok(Code::Success)
}
