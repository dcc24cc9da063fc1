//! The state that events add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_proto::{ChangeId, HostId, RunId, Timestamp};

use super::part::Part;
use super::plan::Plan;
use crate::run::Actor;

/// A change: the fold of its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its id.
    pub id: ChangeId,
    /// What it does. Large, and never changed: copies of a change share it.
    pub plan: Arc<Plan>,
    /// Who began it.
    pub by: Actor,
    /// When it was planned.
    pub created_at: Timestamp,
    /// How many events it is the fold of.
    pub seq: u64,
    /// How far each node is, in the order of the plan.
    pub nodes: Vec<Progress>,
    /// Where it is heading.
    pub course: Course,
    /// The place of the node whose turn it is; backwards, the one that is taken back next.
    pub at: usize,
    /// That it waits for a person to let it go on.
    pub pause: Option<Pause>,
    /// Hosts that have failed: they take no further part.
    pub failed: BTreeSet<HostId>,
    /// Hosts on which an undo has failed: nothing earlier is taken back there.
    pub stuck: BTreeSet<HostId>,
    /// The node that failed and made it pause, end or turn back; none when a person wanted that.
    pub broken: Option<u32>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Where a change is heading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// Through its plan.
    Forward,
    /// To its end, as soon as what runs has ended.
    Aborting,
    /// Back.
    Undoing,
    /// It went through its plan.
    Succeeded,
    /// It ended before that, and what is done stays.
    Failed,
    /// It is taken back.
    Undone,
    /// It could not be taken back everywhere.
    UndoFailed,
}

/// To do a node, or to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To do it.
    Do,
    /// To take it back.
    Undo,
}

/// How far a node is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Where it stands.
    pub stand: Stand,
    /// When its turn came.
    pub began_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When a wait is over, or a gate expires.
    pub until: Option<Timestamp>,
    /// Who ticked, confirmed or skipped it.
    pub by: Option<Actor>,
    /// What they wrote, or why it could not be begun.
    pub note: Option<String>,
    /// Who approved, and when, each once.
    pub approvals: Vec<(Actor, Timestamp)>,
    /// The runs that did it.
    pub tries: Vec<Try>,
    /// What became of it on each host so far.
    pub parts: BTreeMap<HostId, Part>,
    /// Hosts that failed and are tried again.
    pub again: BTreeSet<HostId>,
    /// How often that came about on each.
    pub retried: BTreeMap<HostId, u32>,
    /// The runs that took it back.
    pub undo_tries: Vec<Try>,
    /// What became of that on each host.
    pub undo_parts: BTreeMap<HostId, Part>,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stand {
    /// Its turn has not come.
    #[default]
    Ahead,
    /// It is its turn.
    Open,
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// A person went on without it.
    Skipped,
    /// It is taken back.
    Undone,
    /// It could not be taken back everywhere.
    UndoFailed,
}

/// A run of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The run.
    pub run: RunId,
    /// Its hosts.
    pub hosts: Vec<HostId>,
    /// Whether it has ended.
    pub ended: bool,
}

/// That a change waits for a person to let it go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub at: Timestamp,
    /// Who asked for it; the server, when it is for another cause.
    pub by: Actor,
    /// Why.
    pub cause: Cause,
}

/// Why a change is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A person wants it.
    Asked,
    /// This node failed.
    Failed(u32),
    /// Somebody cancelled the run of this node.
    Cancelled(u32),
    /// Nobody approved this node in time.
    Expired(u32),
}

impl Course {
    /// Whether it leads nowhere any more.
    #[must_use]
    pub const fn is_end(self) -> bool {
        match self {
            Self::Forward | Self::Aborting | Self::Undoing => false,
            Self::Succeeded | Self::Failed | Self::Undone | Self::UndoFailed => true,
        }
    }
}

impl Change {
    /// How many more hosts may fail.
    #[must_use]
    pub fn failures_left(&self) -> u32 {
        let failed = u32::try_from(self.failed.len()).unwrap_or(u32::MAX);
        self.plan.failures_allowed().saturating_sub(failed)
    }

    /// The run that goes on, with its node and its way.
    #[must_use]
    pub fn open_try(&self) -> Option<(u32, Way, &Try)> {
        let progress = self.nodes.get(self.at)?;
        let node = u32::try_from(self.at).ok()?;
        let of = |way, tries: &'_ Vec<Try>| tries.last().filter(|last| !last.ended).map(|_| way);
        let way = of(Way::Do, &progress.tries).or_else(|| of(Way::Undo, &progress.undo_tries))?;
        let tries = match way {
            Way::Do => &progress.tries,
            Way::Undo => &progress.undo_tries,
        };
        Some((node, way, tries.last()?))
    }

    /// The hosts on which a node is still to be done, in their order.
    #[must_use]
    pub fn remaining(&self, node: usize) -> Vec<HostId> {
        let (Some(work), Some(progress)) =
            (self.plan.nodes.get(node).and_then(super::Node::work), self.nodes.get(node))
        else {
            return Vec::new();
        };
        let due = |host: &HostId| {
            let part = progress.parts.get(host).copied().unwrap_or(Part::NotBegun);
            part == Part::NotBegun || progress.again.contains(host)
        };
        let hosts = work.hosts.iter().map(|host| host.id);
        let part = |host: &HostId| !self.failed.contains(host) && !self.left_out(node, *host);
        hosts.filter(|host| due(host) && part(host)).collect()
    }

    /// Whether a host was left out of an earlier node of the same group, which this one builds on.
    fn left_out(&self, node: usize, host: HostId) -> bool {
        let group = self.plan.nodes.get(node).and_then(|node| node.group);
        let before = self.plan.nodes.iter().zip(&self.nodes).take(node);
        let mut before = before.filter(|(earlier, _)| group.is_some() && earlier.group == group);
        before.any(|(_, progress)| progress.parts.get(&host) == Some(&Part::Skipped))
    }

    /// The hosts on which a node is to be taken back, in the order in which it was done.
    #[must_use]
    pub fn to_undo(&self, node: usize) -> Vec<HostId> {
        let (Some(planned), Some(progress)) = (self.plan.nodes.get(node), self.nodes.get(node))
        else {
            return Vec::new();
        };
        let (Some(work), Some(undo)) = (planned.work(), &planned.undo) else { return Vec::new() };
        let meant = |part: Part| match undo.when {
            super::UndoWhen::Begun => part.leaves_something(),
            super::UndoWhen::Failed => part.leaves_something() && part != Part::Done,
        };
        let hosts = work.hosts.iter().map(|host| host.id);
        hosts
            .filter(|host| progress.parts.get(host).copied().is_some_and(meant))
            .filter(|host| !self.stuck.contains(host))
            .filter(|host| !progress.undo_parts.contains_key(host))
            .collect()
    }
}
