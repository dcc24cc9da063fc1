//! Rollouts: a change goes through its hosts in waves, each proved before the next begins.
//!
//! ```yaml
//! rollout: nginx-1.27
//! hosts: "web*"
//! waves: [1, 10%, 50%, 100%]
//! max_failures: 2
//! do: { run: "install-nginx 1.27", timeout: 5m }
//! verify: [ { http: "http://localhost/healthz", expect: 200, within: 30s } ]
//! soak: 2m
//! approve: { before_wave: 2, by: operator }
//! undo: { run: "install-nginx 1.26" }
//! on_failure: undo
//! ```
//!
//! [`parse`] reads a file, [`Rollout::waves`] puts hosts into waves, [`compile`] makes both a
//! [`change::Plan`](crate::change::Plan), [`foresee`] says what is in its way before it begins, and
//! [`view`] what it amounts to on its way.

mod check;
mod compile;
mod foresee;
mod read;
mod script;
mod view;
mod waves;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fw_proto::api::{Offline, Role, SourceError};
use fw_proto::{HostName, Span};

pub use compile::{command, compile};
pub use foresee::{Facts, Held, Other, foresee};
pub use view::{summary, view, wave};
pub use waves::{Wave, Waves};

use crate::change::{OnFailure, Windows};
use crate::job::yaml;
use crate::plan::Exec;
use crate::runbook::Expect;
use crate::select::Selector;

/// The largest rollout file, in bytes.
pub const LARGEST_FILE: usize = 1024 * 1024;

/// The most waves of a rollout.
pub const MOST_WAVES: usize = 100;

/// The most checks of a rollout, and the most files and commands of its state.
pub const MOST_ITEMS: usize = 100;

/// A rollout, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Its name.
    pub name: Name,
    /// Line of its name, counted from 1.
    pub line: u32,
    /// Which hosts.
    pub hosts: Picked,
    /// How many of them at a time.
    pub waves: Vec<Share>,
    /// At most so many hosts at once.
    pub max_parallel: Option<u32>,
    /// So many failed hosts end it.
    pub max_failures: Amount,
    /// What is done on each host.
    pub act: Exec,
    /// How often a host that failed is tried again.
    pub retries: u32,
    /// How long the host waits for a confirmation before it takes the change back by itself.
    pub armed: Option<Span>,
    /// What proves it.
    pub verify: Vec<Check>,
    /// How long each wave is left alone before it is proved again.
    pub soak: Option<Span>,
    /// Who has to approve, and when.
    pub approve: Option<Approve>,
    /// The hours in which waves may begin.
    pub windows: Option<Windows>,
    /// What takes it back.
    pub undo: Option<Exec>,
    /// What happens when it has failed.
    pub on_failure: OnFailure,
    /// About hosts that are offline when their turn comes.
    pub offline: Offline,
    /// No host begins later than this after its turn has come.
    pub start_within: Span,
    /// Whether it is done, undone and compared on one host before the first wave.
    pub rehearse: bool,
    /// What makes up the state of a host.
    pub state: Option<State>,
}

/// The name of a rollout: letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// Hosts as a selector means them.
#[derive(Debug, Clone, PartialEq)]
pub struct Picked {
    /// The selector as it was written.
    pub text: String,
    /// The selector.
    pub selector: Selector,
}

/// Which hosts a wave serves, of those that no earlier one has.
#[derive(Debug, Clone, PartialEq)]
pub enum Share {
    /// So many.
    Count(u32),
    /// As many as bring the rollout up to this share of all its hosts.
    Percent(u32),
    /// Those that this picks.
    Picked(Picked),
}

/// A number of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// This share of all hosts.
    Percent(u32),
}

/// Something that must hold on a host when it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub what: What,
    /// It is tried again for so long.
    pub within: Option<Span>,
    /// Its line, counted from 1.
    pub line: u32,
}

/// What a check looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A command, and what counts as success.
    Run(fw_proto::api::Command, Expect),
    /// The answer to a request.
    Http {
        /// What is asked.
        url: String,
        /// The status that it must have.
        expect: u16,
        /// What its body must hold: a text, or `~` and a regular expression.
        body: Option<String>,
    },
    /// Whether a port takes connections: `HOST:PORT`.
    Tcp(String),
    /// The bytes of a file.
    File {
        /// Which, absolute.
        path: String,
        /// Their SHA-256 in hexadecimal.
        sha256: String,
    },
    /// A metric; there are none yet.
    Metric(String),
}

/// Who has to approve, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approve {
    /// Before which waves.
    pub before: Before,
    /// Of at least this role.
    pub by: Role,
    /// How many people.
    pub people: u32,
    /// How long an approval is waited for.
    pub expires: Option<Span>,
}

/// Before which waves something is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// Before each.
    Each,
    /// Before these, counted from 1.
    Waves(BTreeSet<u32>),
}

/// What makes up the state of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Files and directories, absolute: bytes, mode and owner.
    pub files: Vec<String>,
    /// Commands whose output it is.
    pub commands: Vec<String>,
}

/// The hosts that each selector of a rollout picks, by the selector's text.
pub type Picks = BTreeMap<String, BTreeSet<HostName>>;

/// Why a rollout cannot begin. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are no hosts.
    #[error("no host matches {0}; see `fleetwright hosts list`")]
    NoHosts(String),
    /// A wave has no hosts.
    #[error(
        "wave {wave}: none of the {left} hosts that are left matches {selector}; mend the selector or take the wave out"
    )]
    EmptyWave {
        /// Which, counted from 1.
        wave: usize,
        /// How many hosts are left.
        left: usize,
        /// What it wants.
        selector: String,
    },
    /// Hosts are in no wave.
    #[error("{left} of {all} hosts are in no wave ({names}); end the waves with 100%")]
    LeftOver {
        /// How many.
        left: usize,
        /// Of how many.
        all: usize,
        /// The first of them.
        names: String,
    },
    /// A metric is to prove it.
    #[error(
        "line {line}: {metric:?} is a metric, and there are none yet; verify with run, http, tcp or file"
    )]
    Metric {
        /// Where.
        line: u32,
        /// Which.
        metric: String,
    },
    /// A host has no id.
    #[error("host {0} is not known any more; begin again")]
    Gone(HostName),
    /// What would run on a host breaks a rule.
    #[error("{what}: {why}")]
    Command {
        /// Which of its commands.
        what: &'static str,
        /// Why.
        why: crate::command::Invalid,
    },
}

impl Name {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Rollout {
    /// The selectors whose hosts [`Self::waves`] has to know.
    #[must_use]
    pub fn selectors(&self) -> Vec<&Picked> {
        let waves = self.waves.iter().filter_map(|share| match share {
            Share::Picked(picked) => Some(picked),
            Share::Count(_) | Share::Percent(_) => None,
        });
        std::iter::once(&self.hosts).chain(waves).collect()
    }
}

impl Before {
    /// Whether it is asked before this wave, counted from 1.
    #[must_use]
    pub fn holds(&self, wave: u32) -> bool {
        match self {
            Self::Each => true,
            Self::Waves(waves) => waves.contains(&wave),
        }
    }
}

/// Reads a rollout file. `file` is what to call it in errors.
///
/// # Errors
/// What is wrong, in the order of the file, each at its place.
pub fn parse(file: &str, text: &str) -> Result<Rollout, Vec<SourceError>> {
    let place = |line, column| yaml::Place { line, column };
    if text.len() > LARGEST_FILE {
        let message = format!("a rollout file has at most {LARGEST_FILE} bytes; shorten this one");
        return Err(vec![yaml::error(file, &[], place(0, 0), None, message)]);
    }
    let lines = yaml::lines(text);
    let mut errors = match yaml::document(text) {
        Err(error) => {
            let place = place(error.line, error.column);
            vec![yaml::error(file, &lines, place, None, error.message)]
        }
        Ok(document) => match read::file(file, &lines, &document) {
            Ok(rollout) => return Ok(rollout),
            Err(errors) => errors,
        },
    };
    // Of a text that does not look like one no line is shown: it may be a file that its reader
    // should not see.
    if !text.lines().any(|line| line.starts_with("rollout:")) {
        errors.iter_mut().for_each(|error| error.snippet = None);
    }
    Err(errors)
}

#[cfg(test)]
mod tests;
