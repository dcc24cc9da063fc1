//! Acts on one host: keeps the link, starts what it is asked to, remembers what ran.

mod agent;
pub mod connect;
mod dial;
pub mod facts;
pub mod identity;
pub mod install;
mod join;
pub mod journal;
pub mod mask;
mod patient;
pub mod policy;
pub mod spool;
pub mod status;
pub mod supervise;

pub use agent::{Error, Options, run};
pub use join::join;
