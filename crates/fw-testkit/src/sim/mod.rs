//! The simulated world: the real hub, scheduler, agents and links as plain structs in one loop.
//!
//! A seed decides everything: how many hosts there are, which runs begin, how long commands last
//! and what they print, what goes wrong and when. The same seed gives the same history, bit for
//! bit. The rules (see [`Rule`]) are looked at all the while; after the faults have stopped, every
//! run must end and hosts must keep no more than ids.
//!
//! **What is modelled honestly.** A link is Noise over TCP, so inside one nothing is lost, doubled
//! or reordered, and nobody else can put a frame in. A link can be late, or silent from some point
//! on (a half-open connection, which only pings find). Whole links can overlap: frames of an old
//! one come in after a newer one was let in. The server's effects may be performed twice, as after
//! a crash between commit and answer: starts, cancels, questions and settlements that were sent
//! come again. An acknowledgement is no such effect (it answers one piece on one link), so it does
//! not. Two machines with one key are not modelled: telling them apart takes a question with a
//! deadline, which the server's shell asks.
//!
//! **What stands in for the shells** (`host.rs`, `server.rs`, `gateway.rs`, `jobs.rs`, `changes.rs`) moves frames
//! and effects between the real structs and keeps no opinion of its own; every hand-over is a place
//! to die at.

mod armed;
mod changes;
mod disk;
mod fates;
mod faults;
mod gateway;
mod history;
mod host;
mod jobs;
mod net;
mod requests;
mod rules;
mod server;
mod spool;
mod store;
mod waves;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::faults::{ALL as ALL_FAULTS, Fault};
pub use self::history::{Mark, Sight};
pub use self::rules::{Broken, Rule};
use self::world::World;

/// What became of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it came from.
    pub seed: u64,
    /// The rule that was broken, if one was.
    pub broken: Option<Broken>,
    /// A hash of all that happened.
    pub hash: u64,
    /// How much that was.
    pub events: u64,
    /// What was seen, and how often.
    pub seen: BTreeMap<Mark, u64>,
    /// What happened, to be read; empty unless asked for.
    pub lines: Vec<String>,
}

/// Runs the world of a seed to its end. `lines`: so that it can be read.
#[must_use]
pub fn run(seed: u64, lines: bool) -> Report {
    let mut world = World::new(seed, lines);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let broken = match outcome {
        Ok(outcome) => outcome.err(),
        Err(panic) => Some(Broken { rule: Rule::Sound, how: said(&*panic) }),
    };
    let history = world.into_history();
    let ((hash, events), seen) = (history.sum(), history.seen.clone());
    Report { seed, broken, hash, events, seen, lines: history.into_lines() }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a word"))
}
