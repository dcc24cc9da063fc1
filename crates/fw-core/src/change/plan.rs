//! What a change will do: nodes in their order, decided once.

use std::collections::BTreeMap;

use fw_proto::api::{Offline, Role};
use fw_proto::{Incarnation, Span};

use crate::plan::{Chosen, Exec};
use crate::runbook::{Expect, Value};

/// The longest text that a change keeps of where it came from, in bytes.
pub const LARGEST_SOURCE: usize = crate::runbook::LARGEST;

/// What a change does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What text it was compiled from.
    pub origin: Origin,
    /// What it is called: the name of the rollout, the title of the runbook.
    pub title: String,
    /// The text, as it was given.
    pub source: String,
    /// The values that it was given; a secret is its name. For the record: commands have theirs.
    pub inputs: BTreeMap<String, Value>,
    /// What is done, in this order.
    pub nodes: Vec<Node>,
    /// So many failed hosts end it; `None`: each failure does.
    pub max_failures: Option<u32>,
    /// What happens then.
    pub on_failure: OnFailure,
    /// The store's life in which it was decided.
    pub incarnation: Incarnation,
}

/// What text a change was compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A rollout.
    Rollout,
    /// A runbook.
    Runbook,
}

/// What happens when a change has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnFailure {
    /// It waits for a person.
    Pause,
    /// It is taken back.
    Undo,
    /// It ends, and what is done stays.
    Stop,
}

/// A part of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name: a step of a runbook, `wave-2` of a rollout. Unique in its plan together with its
    /// act, for a step may ask first and act then.
    pub id: String,
    /// What it is, for people.
    pub title: String,
    /// Its line in the source, counted from 1.
    pub line: Option<u32>,
    /// The wave or phase that it belongs to, counted from 0.
    pub group: Option<u32>,
    /// What is done.
    pub act: Act,
    /// What takes it back.
    pub undo: Option<Undo>,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// A command on hosts.
    Exec(Box<Work>),
    /// Time passes.
    Wait(Span),
    /// People approve.
    Approve(Approve),
    /// The hours have come in which it may go on.
    Window(Windows),
    /// A person does something, and says so.
    Tick,
    /// A person is asked whether the next node may begin.
    Confirm,
}

/// A command on hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// The command, and how it is started.
    pub exec: Exec,
    /// Its command uses what earlier nodes printed, and is filled in when its turn has come.
    pub fill: Option<Fill>,
    /// The selector as it was written; for people.
    pub selector: String,
    /// The hosts that it picked, in the order in which they are served.
    pub hosts: Vec<Chosen>,
    /// At most so many hosts at once.
    pub parallel: Option<u32>,
    /// About hosts that are offline when their turn comes.
    pub offline: Offline,
    /// No task starts later than this after its turn has come.
    pub start_within: Span,
    /// What counts as success; exit code 0 when `None`.
    pub expect: Option<Expect>,
    /// How often a host that failed is tried again.
    pub retries: u32,
}

/// What a command is filled in with, by [`Work::filled`].
#[derive(Debug, Clone, PartialEq)]
pub struct Fill {
    /// The command as it is written, for people. The one that is filled in is that of the work, of which
    /// this is only a part when something proves it.
    pub template: String,
    /// Values by the names of their inputs.
    pub inputs: BTreeMap<String, Value>,
}

/// What takes a node back.
#[derive(Debug, Clone, PartialEq)]
pub struct Undo {
    /// The command. Its hosts are those on which the node was begun.
    pub work: Box<Work>,
    /// On which of them.
    pub when: UndoWhen,
}

/// Which hosts need an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UndoWhen {
    /// All on which the node was begun.
    Begun,
    /// Those on which it was begun and did not succeed: what succeeds takes itself back, such as
    /// a rehearsal.
    Failed,
}

/// Who has to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approve {
    /// Of at least this role.
    pub by: Role,
    /// How many people, at least 1. Of two or more, none may be who began it.
    pub people: u32,
    /// How long that is waited for.
    pub expires: Option<Span>,
}

/// Hours in which a change may go on, as [`crate::calendar`] reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Such as `Mon-Fri 22:00-06:00`.
    pub windows: Vec<String>,
    /// The time zone of the hours.
    pub timezone: String,
}

impl Plan {
    /// How many failed hosts end it.
    #[must_use]
    pub fn failures_allowed(&self) -> u32 {
        self.max_failures.unwrap_or(1).max(1)
    }
}

impl Node {
    /// The command of this node, if it has one.
    #[must_use]
    pub fn work(&self) -> Option<&Work> {
        match &self.act {
            Act::Exec(work) => Some(work),
            Act::Wait(_) | Act::Approve(_) | Act::Window(_) | Act::Tick | Act::Confirm => None,
        }
    }
}
