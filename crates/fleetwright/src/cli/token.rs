//! `fleetwright tokens`: who may use the API.

use fw_proto::Span;
use fw_proto::api::{NewToken, Scope};

use super::Session;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a token; it is shown this once.
    Create(CreateArgs),
    /// List tokens, without their secrets.
    List(ListArgs),
    /// Revoke a token: whoever uses it is refused from then on.
    #[command(alias = "remove")]
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Its name; runs that it begins carry it.
    name: String,
    /// How long it is good; for ever when absent.
    #[arg(long, value_name = "DUR")]
    ttl: Option<Span>,
    /// What it may do: read, run, admin, and dangerous; may be repeated. What you may, but for dangerous, when absent.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Only these hosts, by name and labels.
    #[arg(long, value_name = "SELECTOR")]
    hosts: Option<String>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Its name.
    name: String,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Create(args) => {
            let selector = args.hosts;
            let scopes = (!args.scopes.is_empty()).then_some(args.scopes);
            let new = NewToken { name: args.name, ttl: args.ttl, scopes, selector };
            let made = session.client.create_token(&new).await?;
            let page = || format!("{}\n", output::line(&made.token));
            output::print(&output::item(&made, &made.name, args.output, page)?)?;
            if args.output == Format::Table {
                output::say("keep it now: it is not shown again");
            }
        }
        Verb::List(args) => {
            let tokens = session.client.tokens().await?;
            output::print(&output::list(&tokens, args.output, session.now())?)?;
        }
        Verb::Revoke(args) => {
            session.client.remove_token(&args.name).await?;
            output::say(&format!("token {} is revoked", args.name));
        }
    }
    Ok(Code::Success)
}
