//! Acts on one host: keeps the link, starts what it is asked to, remembers what ran.

pub mod identity;
pub mod journal;
pub mod mask;
pub mod policy;
pub mod spool;
pub mod supervise;
