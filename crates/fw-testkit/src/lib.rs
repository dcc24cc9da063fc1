//! Whole systems inside one test: the simulated world, fleets of real processes, and a real browser.
//! And the rules that fuzzers and the kept corpus try parsers against.

pub mod browser;
pub mod door;
pub mod fleet;
pub mod fuzz;
pub mod intruder;
pub mod postgres;
pub mod proxy;
pub mod sim;
