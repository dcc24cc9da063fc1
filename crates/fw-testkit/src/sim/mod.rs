//! The simulated world: the real hub, task tables and links as plain structs in one loop.
//!
//! A seed decides everything: which runs begin, how long commands last and what they print,
//! when a link is cut, when a side crashes and whether its last commit made it to disk. The
//! same seed gives the same history. After the faults stop, every run must end; the rules in
//! `World::check` hold at every step.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is a test, and a broken rule should stop it"
)]

mod host;
mod server;
pub mod world;
