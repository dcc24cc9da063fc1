//! Whole systems inside one test: the simulated world, and fleets of real processes.

pub mod fleet;
pub mod proxy;
pub mod sim;
