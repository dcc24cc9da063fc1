//! Decides, never does: pure rules over values, without I/O, clock, randomness or tasks.
//!

pub mod caret;
pub mod command;
pub mod host;
pub mod hub;
pub mod job;
pub mod link;
pub mod plan;
pub mod run;
pub mod schedule;
pub mod select;
pub mod tasks;
