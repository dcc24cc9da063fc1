//! What happens to a change. Events record decisions, so no later version decides them again.

use fw_proto::{HostId, RunId, Timestamp};

use super::part::Part;
use super::plan::Plan;
use super::state::Way;
use crate::run::Actor;

/// Something that happened to a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Who made it happen.
    pub by: Actor,
    /// What happened.
    pub kind: Kind,
}

/// What can happen to a change. A `node` is its place in the plan, counted from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// It was planned. Always the first event, and never another.
    Planned(Box<Plan>),
    /// The turn of a wait or a gate has come.
    Opened {
        /// Which node.
        node: u32,
        /// When the wait is over, or the gate expires.
        until: Option<Timestamp>,
    },
    /// A wait is over, the hours have come, or a person has ticked or confirmed.
    Passed {
        /// Which node.
        node: u32,
        /// What the person wrote.
        note: Option<String>,
    },
    /// A person has approved.
    Approved {
        /// Which node.
        node: u32,
    },
    /// Nobody approved in time.
    Expired {
        /// Which node.
        node: u32,
    },
    /// A person goes on without this node, or without what failed of it.
    Skipped {
        /// Which node.
        node: u32,
        /// Why.
        note: Option<String>,
    },
    /// A run begins. Committed before the run is.
    Began {
        /// Which node.
        node: u32,
        /// To do it, or to take it back.
        way: Way,
        /// The run.
        run: RunId,
        /// Its hosts.
        hosts: Vec<HostId>,
    },
    /// A run has ended.
    Ended {
        /// Which node.
        node: u32,
        /// To do it, or to take it back.
        way: Way,
        /// The run.
        run: RunId,
        /// What became of it on each host.
        parts: Vec<(HostId, Part)>,
        /// Somebody asked for its end, and not this change.
        cancelled: bool,
    },
    /// A run could not be begun at all.
    NotBegun {
        /// Which node.
        node: u32,
        /// To do it, or to take it back.
        way: Way,
        /// Why.
        why: String,
    },
    /// A person wants it to begin nothing more for now.
    PauseRequested,
    /// A person lets it go on; what failed is tried again.
    Resumed,
    /// A person ends it; what is done stays.
    AbortRequested,
    /// It is to be taken back.
    UndoRequested,
}
