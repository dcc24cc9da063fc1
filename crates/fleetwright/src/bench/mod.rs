//! Benchmarks that anyone can run: of a server with a simulated fleet, simulated wrappers or many viewers, and of one
//! real agent.

pub(crate) mod agent;
pub(crate) mod api;
mod figures;
pub(crate) mod fleet;
mod hosts;
mod machine;
mod probe;
mod process;
mod progress;
pub(crate) mod swarm;
pub(crate) mod wrappers;
