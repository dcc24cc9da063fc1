//! `fleetwright hosts`: who is in the fleet.

use fw_proto::api::{LabelChange, NewInvitation};
use fw_proto::{HostName, Span};

use super::Session;
use super::ask::Sure;
use super::parse::{self, Label};
use super::select;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with hosts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a join string for new hosts.
    Invite(InviteArgs),
    /// List hosts.
    List(ListArgs),
    /// Show a host with its facts.
    Show(ShowArgs),
    /// Print the names of the hosts that an expression selects.
    Select(select::Args),
    /// Give a host another name.
    Rename(RenameArgs),
    /// Set labels and take them off.
    Label(LabelArgs),
    /// Close a host's link for good; it stays in the list.
    Revoke(GoneArgs),
    /// Remove a host from the fleet.
    Remove(GoneArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct InviteArgs {
    /// How many hosts may use it; 1 when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// How long it is good; an hour when absent.
    #[arg(long, value_name = "DUR")]
    ttl: Option<Span>,
    /// Label that its hosts get.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    label: Vec<(String, String)>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only the hosts that this expression selects.
    selector: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Name or id.
    host: String,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RenameArgs {
    /// Name or id.
    host: String,
    /// The new name.
    name: HostName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LabelArgs {
    /// Name or id.
    host: String,
    /// `key=value` sets a label, `key-` takes it off.
    #[arg(required = true, value_name = "LABEL", value_parser = parse::label)]
    labels: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GoneArgs {
    /// Name or id.
    host: String,
    #[command(flatten)]
    sure: Sure,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Invite(args) => invite(session, args).await,
        Verb::List(args) => list(session, args).await,
        Verb::Show(args) => show(session, args).await,
        Verb::Select(args) => select::live(session, args).await,
        Verb::Rename(args) => rename(session, args).await,
        Verb::Label(args) => label(session, args).await,
        Verb::Revoke(args) => revoke(session, args).await,
        Verb::Remove(args) => remove(session, args).await,
    }
}

async fn invite(session: &Session, args: InviteArgs) -> anyhow::Result<Code> {
    let labels = args.label.into_iter().collect();
    let wanted = NewInvitation { uses: args.uses, ttl: args.ttl, labels };
    let invitation = session.client.invite(&wanted).await?;
    invitation.warning.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
    let page = || format!("{}\n", output::line(&invitation.join));
    output::print(&output::item(&invitation, &invitation.join, args.output, page)?)?;
    if args.output == Format::Table {
        output::say(&format!(
            "good until {} for {} host(s); on the new host: fleetwright agent join STRING",
            invitation.expires_at, invitation.uses
        ));
    }
    Ok(Code::Success)
}

async fn list(session: &Session, args: ListArgs) -> anyhow::Result<Code> {
    let limit = args.limit.filter(|limit| *limit > 0);
    let hosts = session.client.hosts(args.selector.as_deref(), limit).await?;
    output::print(&output::list(&hosts, args.output, session.now())?)?;
    if hosts.is_empty() && args.selector.is_none() && args.output == Format::Table {
        output::say("there are no hosts yet; make a join string with `fleetwright hosts invite`");
    }
    Ok(Code::Success)
}

async fn show(session: &Session, args: ShowArgs) -> anyhow::Result<Code> {
    let host = session.client.host(&args.host).await?;
    let page = || output::host_page(&host, session.now());
    output::print(&output::item(&host, host.name.as_str(), args.output, page)?)?;
    Ok(Code::Success)
}

async fn rename(session: &Session, args: RenameArgs) -> anyhow::Result<Code> {
    let name = args.name.clone();
    session.client.rename_host(&args.host, args.name).await?;
    output::say(&format!("{} is {name} now", args.host));
    Ok(Code::Success)
}

async fn label(session: &Session, args: LabelArgs) -> anyhow::Result<Code> {
    let mut change = LabelChange::default();
    for label in args.labels {
        match label {
            Label::Set(key, value) => drop(change.set.insert(key, value)),
            Label::Remove(key) => change.remove.push(key),
        }
    }
    session.client.label_host(&args.host, &change).await?;
    output::say(&format!("the labels of {} are changed", args.host));
    Ok(Code::Success)
}

async fn revoke(session: &Session, args: GoneArgs) -> anyhow::Result<Code> {
    args.sure.confirm(&format!(
        "Revoke {}? Its link closes at once and what runs there counts as lost.",
        args.host
    ))?;
    session.client.revoke_host(&args.host).await?;
    output::say(&format!("{} is revoked", args.host));
    Ok(Code::Success)
}

async fn remove(session: &Session, args: GoneArgs) -> anyhow::Result<Code> {
    args.sure.confirm(&format!(
        "Remove {} from the fleet? To come back it must join with a new invitation.",
        args.host
    ))?;
    session.client.remove_host(&args.host).await?;
    output::say(&format!("{} is removed", args.host));
    Ok(Code::Success)
}
