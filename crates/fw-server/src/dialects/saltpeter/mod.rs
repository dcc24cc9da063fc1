//! Saltpeter, a scheduler that targets hosts through Salt.

pub mod target;
