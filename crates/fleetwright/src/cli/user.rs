//! `fleetwright users`: who may sign in.

use fw_proto::api::{NewUser, Role, SetUpLink, UserChange};

use super::Session;
use super::ask;
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with users.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Add someone; prints the link with which they set their password.
    Add(AddArgs),
    /// List users.
    List(ListArgs),
    /// Change what someone may do.
    Role(RoleArgs),
    /// Keep someone out; it ends their sessions.
    Disable(NameArgs),
    /// Let someone in again.
    Enable(NameArgs),
    /// Take password and one-time codes away; prints a link to set them anew.
    Reset(ResetArgs),
    /// Remove someone, with their sessions and tokens.
    Remove(NameArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Their name; what they do carries it.
    name: String,
    /// What they may do: viewer, operator or admin.
    #[arg(long, value_name = "ROLE", default_value_t = Role::Viewer)]
    role: Role,
    /// Take over the hash of a password from another program; it is read from stdin.
    #[arg(long)]
    hash: bool,
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
pub(crate) struct RoleArgs {
    /// Whose.
    name: String,
    /// What they may do: viewer, operator or admin.
    role: Role,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResetArgs {
    /// Who.
    name: String,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    /// Who.
    name: String,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    let client = &session.client;
    match verb {
        Verb::Add(args) => {
            let hash = if args.hash { Some(ask::secret("Hash")?) } else { None };
            let new = NewUser { name: args.name, role: args.role, hash };
            let made = client.add_user(&new).await?;
            let page = || made.link.as_ref().map_or_else(String::new, shown);
            output::print(&output::item(&made, &made.user.name, args.output, page)?)?;
            if made.link.is_none() && args.output == Format::Table {
                output::say(&format!("{} may sign in with the password they have", made.user.name));
            }
        }
        Verb::List(args) => {
            let users = client.users().await?;
            output::print(&output::list(&users, args.output, session.now())?)?;
        }
        Verb::Role(RoleArgs { name, role }) => {
            client.change_user(&name, &UserChange { role: Some(role), disabled: None }).await?;
            output::say(&format!("{name} is {role} now"));
        }
        Verb::Disable(NameArgs { name }) => {
            client.change_user(&name, &UserChange { role: None, disabled: Some(true) }).await?;
            output::say(&format!("{name} may not sign in any more"));
        }
        Verb::Enable(NameArgs { name }) => {
            client.change_user(&name, &UserChange { role: None, disabled: Some(false) }).await?;
            output::say(&format!("{name} may sign in again"));
        }
        Verb::Reset(args) => {
            let link = client.reset_user(&args.name).await?;
            output::print(&output::item(&link, &link.name, args.output, || shown(&link))?)?;
        }
        Verb::Remove(NameArgs { name }) => {
            client.remove_user(&name).await?;
            output::say(&format!("user {name} is removed"));
        }
    }
    Ok(Code::Success)
}

fn shown(link: &SetUpLink) -> String {
    let (name, url) = (output::line(&link.name), output::line(&link.link));
    format!("{url}\n\n{name} sets a password there, once, until {}.\n", link.expires_at)
}
