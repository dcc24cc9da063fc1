//! The binary.

#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the commands that read it come next")
)]
mod config;

fn main() {}
