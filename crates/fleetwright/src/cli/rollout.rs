//! `fleetwright rollouts`: a change goes through hosts in waves.

mod act;
mod plan;

use std::path::PathBuf;

use super::{Connection, talk};
use crate::exit::Code;
use crate::output::Format;

/// What to do with rollouts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show what a rollout would do: its waves by host name, budget, time and what is in its way.
    ///
    /// Changes nothing and begins nothing. The hosts are those of a server, or of a file of facts.
    Plan(PlanArgs),
    #[command(flatten)]
    Act(act::Verb),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The rollout file (YAML); `-` is stdin.
    file: String,
    /// Pick hosts without a server, from a JSON file: an object of hosts, each an object of its facts.
    #[arg(long, value_name = "FILE")]
    facts_file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Does it.
pub(super) fn run(verb: Verb, connection: &Connection) -> anyhow::Result<Code> {
    match verb {
        Verb::Plan(args) => plan::run(&args, connection),
        Verb::Act(verb) => talk(connection, async |session| act::run(session, verb).await),
    }
}
