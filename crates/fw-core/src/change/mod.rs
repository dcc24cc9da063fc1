//! Changes: rollouts and runbooks on their way. `Change = fold(events)`.
//!
//! A rollout and a runbook are two texts that compile to one [`Plan`]: nodes that are performed one
//! after the other, each a command on hosts, a wait, or a gate. What a node does on hosts is a
//! [run](crate::run) of its own, with its tasks, its output and its page; a change says which run
//! is next, on which hosts, and with how many failures left.
//!
//! [`Change::step`] is the only way a change moves, and it sees no clock but the events' own.
//! [`Change::next`] says what is due: a run to begin, one to watch, something to record, or a
//! person to wait for. [`Change::ask`] turns what a person wants into an event, or says why not.
//! The shell commits an event before it does anything about it, so a server that is killed
//! anywhere goes on from what `next` says after the fold.
//!
//! **Budget.** A host that has failed takes no further part, and one that was left out none in the
//! same group. A run is begun with the failures
//! that are left and keeps them itself, so there are never more unconfirmed hosts in flight.
//!
//! **Undo** goes backwards over the nodes, and on each over exactly the hosts on which something
//! was begun and not taken back by the host itself.

mod event;
mod next;
mod part;
mod plan;
mod report;
mod request;
mod run;
mod state;
mod step;

pub use event::{Event, Kind};
pub use next::{Begin, Next, Stop};
pub use part::{Part, judge};
pub use plan::{
    Act, Approve, Fill, LARGEST_SOURCE, Node, OnFailure, Origin, Plan, Undo, UndoWhen, Windows,
    Work,
};
pub use request::{Refused, Request};
pub use state::{Cause, Change, Course, Pause, Progress, Stand, Try, Way};
pub use step::NotPlanned;

#[cfg(test)]
mod tests;
