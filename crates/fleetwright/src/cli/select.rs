//! `fleetwright hosts select`: which hosts an expression means, on a server or by a file of facts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fw_core::host::Seen;
use fw_core::select::Selector;
use fw_proto::HostName;
use fw_rt::Clock;
use fw_server::dialects::saltpeter::target::{Groups, Kind, translate};
use serde_json::{Map, Value};

use super::{Refusal, Session};
use crate::exit::Code;
use crate::output::{self, Format};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Answer without a server, from a JSON file: an object of hosts, each an object of its facts.
    #[arg(long, value_name = "FILE")]
    pub(super) facts_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What is asked, and how to answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The expression, such as `web* and os:Ubuntu and not label:stage=canary`.
    #[arg(value_name = "EXPR")]
    expression: String,
    /// The expression is a target of Salt of this kind, such as glob, pcre, list, grain or compound.
    #[arg(long, value_name = "KIND")]
    target_type: Option<String>,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Target {
    /// The selector that a target of Salt is; `None` when the expression is our own.
    fn foreign(&self) -> anyhow::Result<Option<Selector>> {
        let Some(kind) = &self.target_type else { return Ok(None) };
        let kind: Kind = kind
            .parse()
            .map_err(|error| Refusal::usage(format!("invalid target type\n{error}")))?;
        let selector = translate(kind, &self.expression, &Groups::new())
            .map_err(|error| Refusal::usage(format!("invalid target\n{error}")))?;
        Ok(Some(selector))
    }

    fn selector(&self) -> anyhow::Result<Selector> {
        if let Some(selector) = self.foreign()? {
            return Ok(selector);
        }
        Selector::parse(&self.expression)
            .map_err(|error| Refusal::usage(format!("invalid selector\n{error}")))
    }
}

/// Asks the server.
pub(crate) async fn live(session: &Session, args: Args) -> anyhow::Result<Code> {
    let foreign = args.target.foreign()?.map(|selector| selector.to_string());
    let expression = foreign.as_deref().unwrap_or(&args.target.expression);
    let hosts = session.client.select(expression).await?.hosts;
    tell(&hosts, args.target.output, session.now())
}

/// Asks a file.
pub(crate) fn offline(file: &Path, target: &Target) -> anyhow::Result<Code> {
    let selector = target.selector()?;
    let machines = facts(file)?;
    let labels = BTreeMap::new();
    let seen = |(name, facts)| Seen { name, labels: &labels, facts };
    let undecided: Vec<_> = machines
        .iter()
        .filter(|host| selector.undecided(seen(*host)))
        .map(|(name, _)| name.as_str())
        .collect();
    if !undecided.is_empty() {
        output::say(&format!(
            "warning: a regular expression takes too many steps on {}; they are not picked; say it with less repetition",
            undecided.join(", ")
        ));
    }
    let chosen = machines.iter().filter(|host| selector.matches(seen(*host)));
    let hosts: Vec<_> = chosen.map(|(name, _)| name.clone()).collect();
    tell(&hosts, target.output, Clock::system().now())
}

/// Reads a file of facts.
pub(super) fn facts(file: &Path) -> anyhow::Result<BTreeMap<HostName, Map<String, Value>>> {
    let refused = |error: &dyn std::fmt::Display| {
        Refusal::usage(format!("facts file {}: {error}", file.display()))
    };
    let text = std::fs::read(file).map_err(|error| refused(&error))?;
    let read: BTreeMap<String, Map<String, Value>> =
        serde_json::from_slice(&text).map_err(|error| {
            refused(&format!("{error}; it should be an object of hosts with their facts"))
        })?;
    let host = |(name, facts): (String, _)| match name.parse() {
        Ok(parsed) => Ok((parsed, facts)),
        Err(error) => Err(refused(&format!("host {name:?}: {error}"))),
    };
    read.into_iter().map(host).collect()
}

fn tell(hosts: &[HostName], format: Format, now: fw_proto::Timestamp) -> anyhow::Result<Code> {
    let format = match format {
        Format::Table | Format::Wide => Format::Name,
        Format::Json | Format::Jsonl | Format::Yaml | Format::Name => format,
    };
    output::print(&output::list(hosts, format, now)?)?;
    if hosts.is_empty() {
        output::say("no host matches");
        return Ok(Code::NothingMatched);
    }
    Ok(Code::Success)
}
