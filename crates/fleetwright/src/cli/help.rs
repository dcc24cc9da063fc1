//! `fleetwright help`: of a command, or about a topic.

use super::Refusal;
use crate::exit::Code;
use crate::output;

/// Print help for a command, or about `exit-codes`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A command, such as `runs logs`, or `exit-codes`.
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

/// Prints it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Code> {
    if args.words == ["exit-codes"] {
        output::print(&Code::page())?;
        return Ok(Code::Success);
    }
    let mut command = super::command();
    for word in &args.words {
        let below = command.find_subcommand(word).cloned();
        let unknown = || Refusal::usage(format!("there is no command {:?}", args.words.join(" ")));
        command = below.ok_or_else(unknown)?;
    }
    command.print_long_help()?;
    Ok(Code::Success)
}
