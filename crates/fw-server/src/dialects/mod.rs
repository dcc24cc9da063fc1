//! Foreign words for what the core does. A dialect translates and decides nothing.

pub mod saltpeter;
