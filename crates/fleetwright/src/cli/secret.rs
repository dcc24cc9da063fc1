//! `fleetwright secrets`: values that commands need and nobody should read.

use super::Session;
use super::ask;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with secrets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Set a secret to what stdin holds.
    Set(SetArgs),
    /// List the names of secrets.
    List(ListArgs),
    /// Remove a secret.
    Remove(RemoveArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// Name of the secret.
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Name of the secret.
    name: String,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Set(args) => {
            let value = ask::secret(&format!("Value of {}", args.name))?;
            session.client.set_secret(&args.name, value).await?;
            output::say(&format!("secret {} is set", args.name));
        }
        Verb::List(args) => {
            let secrets = session.client.secrets().await?;
            output::print(&output::list(&secrets, args.output, session.now())?)?;
        }
        Verb::Remove(args) => {
            session.client.remove_secret(&args.name).await?;
            output::say(&format!("secret {} is removed", args.name));
        }
    }
    Ok(Code::Success)
}
