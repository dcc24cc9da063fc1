//! Saltpeter: its schedules and its directory of files, as its code understands them.

pub mod schedule;
