//! Saltpeter, a scheduler that targets hosts through Salt: its schedules and its targets.

pub mod codes;
pub mod files;
pub mod history;
pub(crate) mod names;
pub mod native;
pub mod python;
#[cfg_attr(not(test), expect(dead_code, reason = "started with the directory, once it is served"))]
pub(crate) mod records;
pub mod schedule;
pub mod target;
