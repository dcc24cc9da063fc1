//! `fleetwright server`: the server itself.

use super::Session;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with the server.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show what it is and how it does.
    Info(FormArgs),
    /// Look after the key that hosts know it by.
    #[command(subcommand)]
    Key(KeyVerb),
}

/// What to do with its key.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyVerb {
    /// Make a new key and tell the hosts; the old ones stay good.
    Rotate(FormArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct FormArgs {
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Info(args) => {
            let info = session.client.server_info().await?;
            let address = session.client.server().as_str();
            let page = || output::server_page(&info, address, session.now());
            output::print(&output::item(&info, address, args.output, page)?)?;
        }
        Verb::Key(KeyVerb::Rotate(args)) => {
            let rotation = session.client.rotate_keys().await?;
            let keys = || rotation.keys.iter().map(|key| format!("{key}\n")).collect::<String>();
            let newest = rotation.keys.first().map(ToString::to_string).unwrap_or_default();
            output::print(&output::item(&rotation, &newest, args.output, keys)?)?;
            output::say(&format!(
                "{} hosts were told; the others are when they link",
                rotation.told
            ));
        }
    }
    Ok(Code::Success)
}
