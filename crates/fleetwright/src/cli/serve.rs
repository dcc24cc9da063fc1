//! `fleetwright serve`: a server.

use super::settings;
use crate::exit::Code;

/// Start a server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a unit for systemd (or launchd) with these flags, enable and start it; needs root.
    #[arg(long)]
    pub(crate) install: bool,
    #[command(flatten)]
    pub(crate) server: settings::Server,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// Runs it until it is told to stop.
pub(crate) fn run(args: Args) -> anyhow::Result<Code> {
    drop(args);
    anyhow::bail!("this build has no server yet")
}
