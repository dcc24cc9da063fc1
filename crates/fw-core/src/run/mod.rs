//! Runs: one execution of a plan. `Run = fold(events)`.
//!
//! [`Run::step`] is the only way a run changes, and it sees no clock but the events' own.
//! [`Run::waiting_on`] says why it does not go on. What happens *next* is decided by
//! [`crate::hub`]: it turns reports, links and time into events, which the shell commits
//! before it performs their effects.

mod event;
mod report;
mod state;
mod step;

pub use event::{Actor, Event, Kind, Ruling};
pub use state::{Run, Task};
pub use step::{Effect, News, NotPlanned};
pub(crate) use step::{fate_text, late_text};

#[cfg(test)]
mod tests;
