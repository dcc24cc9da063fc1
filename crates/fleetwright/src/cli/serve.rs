//! `fleetwright serve`: a server.

use fw_agent::install::{Plan, SERVER_DATA, ServerOptions};

use super::settings;
use crate::config::service_arguments;
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
    pub(crate) saltpeter: settings::Saltpeter,
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
        vec![args.general.flags(), args.server.flags(), args.saltpeter.flags()],
    )?;
    local::server::serve(&loaded.config)?;
    Ok(Code::Success)
}

fn install(args: &Args) -> anyhow::Result<Code> {
    let mut flags = args.general.flags();
    flags.extend(args.server.flags());
    flags.extend(args.saltpeter.flags());
    // What would not start is not installed.
    let file = args.general.config.as_deref();
    local::read(file, vec![flags.clone()])?.config.server.check()?;
    flags.entry("server.data_dir").or_insert_with(|| SERVER_DATA.to_owned());
    let options = ServerOptions {
        binary: std::env::current_exe()?,
        args: service_arguments(&["serve"], file, &flags)?,
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
