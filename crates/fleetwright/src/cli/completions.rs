//! `fleetwright completions`: for shells.

use crate::exit::Code;
use crate::output;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "fleetwright", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(Code::Success)
}
