//! Benchmarks that anyone can run: of a server with a simulated fleet or simulated wrappers, and of one real agent.

pub(crate) mod agent;
mod figures;
pub(crate) mod fleet;
mod hosts;
mod machine;
mod probe;
mod process;
mod progress;
pub(crate) mod swarm;
pub(crate) mod wrappers;
