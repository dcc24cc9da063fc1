//! `fleetwright hosts select`: which hosts an expression means, on a server or by a file of facts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fw_core::host::Seen;
use fw_core::select::Selector;
use fw_proto::api::Selected;
use fw_proto::{HostName, Timestamp};
use fw_rt::Clock;
use fw_server::dialects::saltpeter::target::{Groups, Kind, translate};
use serde_json::{Map, Value};

use super::{Refusal, Session};
use crate::exit::Code;
use crate::output::{self, Format};

/// The largest file of facts, in bytes: some kilobytes for each of 20,000 hosts.
const LARGEST_FACTS: u64 = 512 << 20;

/// Hosts with their facts.
pub(super) type Machines = BTreeMap<HostName, Map<String, Value>>;

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
    let selected = session.client.select(expression).await?;
    tell(&selected, args.target.output, session.now())
}

/// Asks a file.
pub(crate) fn offline(file: &Path, target: &Target) -> anyhow::Result<Code> {
    let selected = selected(&target.selector()?, &facts(file)?);
    tell(&selected, target.output, Clock::system().now())
}

/// Those of the machines that a selector picks. They have no labels.
pub(super) fn selected(selector: &Selector, machines: &Machines) -> Selected {
    let labels = BTreeMap::new();
    let mut selected = Selected::default();
    for (name, facts) in machines {
        match selector.decide(Seen { name, labels: &labels, facts }) {
            Some(true) => selected.hosts.push(name.clone()),
            Some(false) => {}
            None => selected.undecided.push(name.clone()),
        }
    }
    selected
}

/// Reads a file of facts.
pub(super) fn facts(file: &Path) -> anyhow::Result<Machines> {
    let refused = |error: &dyn std::fmt::Display| {
        Refusal::usage(format!("facts file {}: {error}", file.display()))
    };
    let mut text = Vec::new();
    let opened = File::open(file).map_err(|error| refused(&error))?;
    opened.take(LARGEST_FACTS + 1).read_to_end(&mut text).map_err(|error| refused(&error))?;
    if text.len() as u64 > LARGEST_FACTS {
        return Err(refused(&format!("it is larger than {} MiB", LARGEST_FACTS >> 20)));
    }
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

fn tell(selected: &Selected, format: Format, now: Timestamp) -> anyhow::Result<Code> {
    let format = match format {
        Format::Table | Format::Wide => Format::Name,
        Format::Json | Format::Jsonl | Format::Yaml | Format::Name => format,
    };
    if !selected.undecided.is_empty() {
        let names: Vec<_> = selected.undecided.iter().map(HostName::as_str).collect();
        output::say(&format!(
            "warning: a regular expression takes too many steps on {}; they are not picked; say it with less repetition",
            names.join(", ")
        ));
    }
    output::print(&output::list(&selected.hosts, format, now)?)?;
    if selected.hosts.is_empty() {
        output::say("no host matches");
        return Ok(Code::NothingMatched);
    }
    Ok(Code::Success)
}
