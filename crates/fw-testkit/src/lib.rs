//! Whole systems inside one test: the simulated world, and fleets of real processes. And the rules
//! that fuzzers and the kept corpus try parsers against.

pub mod fleet;
pub mod fuzz;
pub mod intruder;
pub mod proxy;
pub mod sim;
