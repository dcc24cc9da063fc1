//! Runbooks: Markdown that a person reads on any forge becomes phases and steps.
//!
//! ````markdown
//! ---
//! title: New nginx
//! hosts: web*
//! inputs:
//!   version: text
//! ---
//! # Install
//!
//! - [ ] Look at the dashboard
//! - [ ] Install it
//!   ```sh id=install timeout=5m undo="install-nginx --previous"
//!   install-nginx {{ inputs.version }}
//!   ```
//! ````
//!
//! Headings are phases, items with a box and blocks of code are steps. A block without attributes asks
//! before it runs, an item without code is ticked by a person. Here a document is read and checked,
//! shown as a [`plan`], and made a [change](crate::change) by [`compile`].

mod attribute;
mod backup;
pub mod compile;
mod front;
mod input;
mod markdown;
mod names;
pub mod page;
pub mod plan;
pub mod report;
mod resolve;
mod script;
mod shell;
mod source;
mod step;
mod template;
mod view;

use std::fmt;

use fw_proto::Span;
use fw_proto::api::{Role, SourceError};

pub use attribute::KNOWN as ATTRIBUTES;
pub use input::{Input, LONGEST_VALUE, Type, Value};
pub use script::NOT_PROVED;
pub use source::MOST_TOLD;
pub use template::{Filled, Template};
pub use view::{summary, view};

use crate::select::Selector;
pub(crate) use shell::quote;
use source::Source;

/// The largest document, in bytes.
pub const LARGEST: usize = 1024 * 1024;

/// A runbook as far as it could be read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Runbook {
    /// What it is called: in front matter, else the first heading of the first level, else the file.
    pub title: String,
    /// Who looks after it.
    pub owner: Option<String>,
    /// Where its steps run that say nothing else.
    pub hosts: Option<Where>,
    /// What it asks for, in the order of the document.
    pub inputs: Vec<Input>,
    /// Its headings.
    pub phases: Vec<Phase>,
    /// All its steps, in the order of the document.
    pub steps: Vec<Step>,
}

/// What reading a document gives.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// The runbook; whole only if there are no errors.
    pub runbook: Runbook,
    /// What is wrong, in the order of the document; at most [`MOST_TOLD`] and how many more.
    pub errors: Vec<SourceError>,
    /// What is worth a thought, the same way.
    pub warnings: Vec<SourceError>,
}

/// A heading, and what stands under it up to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What it says.
    pub title: String,
    /// 1 to 6.
    pub level: u8,
    /// Counted from 1.
    pub line: u32,
}

/// The name of a step: letters, digits, `-` and `_`. Unique in its runbook, also when `-` and `_` count
/// as the same, for templates know `_` only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepId(String);

/// A step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its name, given or made from its text.
    pub id: StepId,
    /// Where its block or item begins, counted from 1.
    pub line: u32,
    /// Its place in the phases; `None` above the first heading.
    pub phase: Option<usize>,
    /// What its item says, or its heading.
    pub title: String,
    /// What it is.
    pub kind: Kind,
    /// What is in its block.
    pub block: Option<Template>,
    /// What reads the block.
    pub language: Language,
    /// Where it runs.
    pub hosts: Option<Where>,
    /// As which user.
    pub user: Option<String>,
    /// How long it may take.
    pub timeout: Option<Span>,
    /// How often it is tried again.
    pub retries: u32,
    /// What counts as success; exit code 0 when `None`.
    pub expect: Option<Expect>,
    /// What takes it back.
    pub undo: Option<Action>,
    /// What proves it.
    pub verify: Option<Action>,
    /// Who has to approve before it begins.
    pub approve: Option<Approve>,
    /// How long the host waits for a confirmation before it takes the change back by itself.
    pub armed: Option<Span>,
    /// What it needs that this program does not have yet.
    pub needs: Option<String>,
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A block with attributes: it runs by itself.
    Command,
    /// A block without attributes: it asks before it runs.
    Ask,
    /// Done by a person, who ticks it.
    Manual,
    /// Waits for an approval.
    Approval,
    /// A block of `backup`: what is saved, or has to be.
    Backup,
    /// The undo of another step; it does not run in its place.
    Undo,
    /// The proof of another step; it does not run in its place.
    Verify,
}

/// What reads a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Language {
    /// `sh`.
    Sh,
    /// `bash`.
    Bash,
    /// Nothing that is run: for people to read.
    Other(String),
}

/// Where a step runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Where {
    /// On these hosts.
    Selector(Selector),
    /// On those that an input says.
    Input(String),
}

/// What takes a step back, or proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing has to be done.
    Nothing,
    /// Another block.
    Step(StepId),
    /// A command.
    Command(Template),
}

/// What counts as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// One of these exit codes.
    Exit(Vec<u8>),
    /// Output that contains this.
    Text(String),
    /// Output in which this regular expression is found.
    Pattern(String),
}

/// Who has to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approve {
    /// Of which role; anyone who may start runs, when `None`.
    pub by: Option<Role>,
    /// How many people.
    pub people: u32,
    /// How long an approval is waited for.
    pub expires: Option<Span>,
}

/// What a step left behind, for templates of later ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// What it printed.
    pub stdout: String,
    /// How it exited.
    pub exit_code: i64,
}

/// What front matter says.
#[derive(Debug, Default)]
struct Front {
    title: Option<String>,
    owner: Option<String>,
    hosts: Option<(Where, crate::job::yaml::Place)>,
    inputs: Vec<Input>,
}

impl StepId {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As templates say it.
    #[must_use]
    pub fn in_templates(&self) -> String {
        self.0.replace('-', "_")
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Kind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Ask => "ask",
            Self::Manual => "manual",
            Self::Approval => "approval",
            Self::Backup => "backup",
            Self::Undo => "undo",
            Self::Verify => "verify",
        }
    }

    /// Whether it is due in its place; the others are part of another step.
    #[must_use]
    pub const fn has_its_turn(self) -> bool {
        match self {
            Self::Command | Self::Ask | Self::Manual | Self::Approval | Self::Backup => true,
            Self::Undo | Self::Verify => false,
        }
    }

    /// Whether it runs a command.
    #[must_use]
    pub const fn runs(self) -> bool {
        match self {
            Self::Command | Self::Ask | Self::Backup | Self::Undo | Self::Verify => true,
            Self::Manual | Self::Approval => false,
        }
    }
}

impl Step {
    /// Whether something of it runs on hosts when its turn comes: its block, or what proves a person's work.
    #[must_use]
    pub const fn acts(&self) -> bool {
        match self.kind {
            Kind::Command | Kind::Backup => true,
            Kind::Ask => !matches!(self.language, Language::Other(_)),
            Kind::Manual => matches!(self.verify, Some(Action::Step(_) | Action::Command(_))),
            Kind::Approval | Kind::Undo | Kind::Verify => false,
        }
    }
}

/// Reads a document. `file` is what to call it in errors.
#[must_use]
pub fn parse(file: &str, text: &str) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > LARGEST {
        let mut source = Source::new(file, "");
        let place = crate::job::yaml::Place { line: 0, column: 0 };
        source.error_at(place, format!("a runbook has at most {LARGEST} bytes; split it"));
        let (mut errors, warnings) = source.told();
        errors.iter_mut().for_each(|error| error.snippet = None);
        return Parsed { runbook: Runbook::default(), errors, warnings };
    }
    let mut source = Source::new(file, text);
    let front = front::split(text);
    if front.is_none() && front::never_closed(text) {
        source.error(0, "front matter begins here and is never closed; end it with a line of ---");
    }
    let begin = front.map_or(0, |(_, begin)| begin);
    let read = front.map(|(inside, _)| front::read(&mut source, inside));
    let parts = markdown::read(text, begin).unwrap_or_else(|much| {
        source.error(much.at, much.message);
        Vec::new()
    });
    let runbook = resolve::runbook(&mut source, read, parts);
    let (errors, warnings) = source.told();
    Parsed { runbook, errors, warnings }
}

#[cfg(test)]
mod tests;
