//! `fleetwright context`: the servers you talk to, by name.

use std::path::PathBuf;

use fw_proto::Timestamp;
use serde::Serialize;

use super::{Connection, Refusal};
use crate::config::context::{Context, Contexts, TokenSource, path};
use crate::config::{Secret, environment};
use crate::exit::Code;
use crate::output::{self, Format, Row, Width};

/// What to do with contexts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Name a server: `context add prod --server URL --token-file FILE`. The first one is used from then on.
    Add(NameArgs),
    /// Use a server from now on.
    Use(NameArgs),
    /// List the servers.
    List(ListArgs),
    /// Show the one in use, or another.
    Show(ShowArgs),
    /// Forget a server and its token.
    Remove(NameArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    /// Its name.
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Its name.
    name: Option<String>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// A context as it is shown: without its token.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    server: String,
    current: bool,
    token: &'static str,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl Row for Shown {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("NAME", Width::Always),
        ("USED", Width::Always),
        ("SERVER", Width::Always),
        ("TOKEN", Width::Always),
    ];

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        let file = self.token_file.as_ref().filter(|_| self.token == "file");
        let file = file.map(|path| path.display().to_string());
        let used = if self.current { "*" } else { "" };
        vec![
            self.name.clone(),
            used.to_owned(),
            self.server.clone(),
            file.unwrap_or_else(|| self.token.to_owned()),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Does it.
pub(crate) fn run(verb: Verb, connection: &Connection) -> anyhow::Result<Code> {
    let no_home = || Refusal::usage("contexts are kept in your home directory; set HOME");
    let path = path(&environment()).ok_or_else(no_home)?;
    let mut contexts = Contexts::load(&path)?;
    match verb {
        Verb::Add(args) => {
            contexts.add(&args.name, added(connection)?);
            contexts.save(&path)?;
            let in_use = contexts.current.as_ref() == Some(&args.name);
            let next = if in_use {
                "is in use"
            } else {
                "is known; use it with `fleetwright context use`"
            };
            output::say(&format!("{} {next}", args.name));
        }
        Verb::Use(args) => {
            contexts.choose(&args.name)?;
            contexts.save(&path)?;
            output::say(&format!("{} is in use", args.name));
        }
        Verb::List(args) => {
            let shown: Vec<_> = contexts
                .contexts
                .keys()
                .map(|name| shown(&contexts, name))
                .collect::<Result<_, _>>()?;
            output::print(&output::list(&shown, args.output, Timestamp::EPOCH)?)?;
        }
        Verb::Show(args) => {
            let none = || {
                Refusal::not_found("no context is in use; add one with `fleetwright context add`")
            };
            let name = args.name.or_else(|| contexts.current.clone()).ok_or_else(none)?;
            let shown = [shown(&contexts, &name)?];
            let [only] = &shown;
            let table =
                || output::list(&shown, Format::Table, Timestamp::EPOCH).unwrap_or_default();
            output::print(&output::item(only, &name, args.output, table)?)?;
        }
        Verb::Remove(args) => {
            contexts.remove(&args.name)?;
            contexts.save(&path)?;
            output::say(&format!("{} is forgotten", args.name));
        }
    }
    Ok(Code::Success)
}

fn added(connection: &Connection) -> anyhow::Result<Context> {
    let missing = || Refusal::usage("name the server's address with --server URL");
    let server = connection.server.clone().ok_or_else(missing)?;
    let parsed =
        reqwest::Url::parse(&server).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    if parsed.is_none() {
        return Err(Refusal::usage(format!(
            "{server} is no address such as https://fleet.example.com:7400"
        )));
    }
    // A relative path would mean another file in each directory.
    let token_file = connection.token_file.as_ref().map(std::path::absolute).transpose()?;
    let ca_file = connection.ca_file.as_ref().map(std::path::absolute).transpose()?;
    // One that is of no use is refused now.
    ca_file.as_deref().map(super::certificates).transpose()?;
    if let Some(token) = &connection.token {
        TokenSource::Given(Secret(token.clone())).read()?;
    }
    Ok(Context { server, token: connection.token.clone(), token_file, session: None, ca_file })
}

fn shown(contexts: &Contexts, name: &str) -> anyhow::Result<Shown> {
    let context = contexts.get(name)?;
    Ok(Shown {
        name: name.to_owned(),
        server: context.server.clone(),
        current: contexts.current.as_deref() == Some(name),
        token: match (&context.session, &context.token, &context.token_file) {
            (Some(_), _, _) => "session",
            (None, Some(_), _) => "kept",
            (None, None, Some(_)) => "file",
            (None, None, None) => "none",
        },
        token_file: context.token_file.clone(),
        ca_file: context.ca_file.clone(),
    })
}
