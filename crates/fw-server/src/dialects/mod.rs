//! Dialects: what other programs say and read, translated. They decide nothing, and the core knows
//! none of them.

pub mod saltpeter;
