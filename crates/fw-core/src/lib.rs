//! Decides, never does: no I/O, no clock, no randomness, no tasks.
//!
//! Time is a parameter of each function that needs it, so every decision can be replayed and
//! tested in microseconds.

pub mod caret;
pub mod fires;
pub mod host;
pub mod job;
pub mod schedule;
pub mod select;
