//! Whole systems inside one test: the simulated world.

pub mod sim;
