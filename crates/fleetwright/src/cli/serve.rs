//! `fleetwright serve`: a server.

use fw_agent::install::{Plan, SERVER_DATA, ServerOptions};

use super::settings;
use crate::exit::Code;
use crate::{local, output};

/// Start a server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a unit for systemd (or launchd) with these flags, enable and start it; needs root.
    #[arg(long)]
    pub(crate) install: bool,
    /// With --install: show what would be done.
    #[arg(long, requires = "install")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) server: settings::Server,
    #[command(flatten)]
    pub(crate) general: settings::General,
}

/// Runs it until it is told to stop, or makes a service of it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Code> {
    if args.install {
        return install(args);
    }
    let loaded = local::configure(
        args.general.config.as_deref(),
        vec![args.general.flags(), args.server.flags()],
    )?;
    local::server::serve(&loaded.config.server)?;
    Ok(Code::Success)
}

fn install(args: &Args) -> anyhow::Result<Code> {
    // What would not start is not installed.
    local::read(args.general.config.as_deref(), vec![args.general.flags(), args.server.flags()])?
        .config
        .server
        .check()?;
    let options = ServerOptions {
        binary: std::env::current_exe()?,
        args: local::service_arguments("serve", ("--data-dir", SERVER_DATA)),
    };
    perform(&Plan::install_server(fw_agent::install::init(), &options)?, args.dry_run)
}

/// Does what a plan says, or only shows it.
pub(crate) fn perform(plan: &Plan, dry_run: bool) -> anyhow::Result<Code> {
    if dry_run {
        output::print(&plan.to_string())?;
    } else {
        plan.perform()?;
        output::say("done; `journalctl -u 'fleetwright*' -f` follows its log");
    }
    Ok(Code::Success)
}
