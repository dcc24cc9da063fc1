//! Saltpeter, a scheduler that targets hosts through Salt: its schedules and its targets.

pub mod codes;
pub mod files;
pub mod python;
pub mod schedule;
pub mod target;
