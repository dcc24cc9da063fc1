//! Decides, never does: pure rules over values, without I/O, clock, randomness or tasks.
//!
//! Time is a parameter of each function that needs it, so every decision can be replayed and
//! tested in microseconds. Small closed enums that people also meet in the API (`TaskState`,
//! `Offline`, …) are those of `fw-proto`; what core makes of them (plans, runs, tables) is its
//! own and is never serialized.

pub mod access;
pub mod agent;
pub mod calendar;
pub mod caret;
pub mod change;
pub mod command;
pub mod fires;
pub mod host;
pub mod hub;
pub mod job;
pub mod link;
pub mod log;
pub mod maintenance;
pub mod overlaps;
pub mod plan;
pub mod policy;
pub mod rollout;
pub mod run;
pub mod runbook;
pub mod schedule;
pub mod select;
pub mod tasks;
