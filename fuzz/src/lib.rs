//! The rules that the targets try. They live in `fw-testkit`, which also plays the kept corpus to
//! them; the file is included because that crate would bring half the server along to be instrumented.

#[path = "../../crates/fw-testkit/src/fuzz.rs"]
pub mod rules;
