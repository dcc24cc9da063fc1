//! Saltpeter, a scheduler that targets hosts through Salt: its schedules and its targets.

pub mod files;
pub mod schedule;
pub mod target;
