//! Decides, never does.

pub mod policy;
