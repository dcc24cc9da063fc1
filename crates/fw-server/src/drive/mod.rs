//! What the server does by itself: one file for each thing it drives.

pub mod changes;
pub mod jobs;
pub mod notices;
pub mod upkeep;
#[cfg(test)]
pub(crate) mod world;
