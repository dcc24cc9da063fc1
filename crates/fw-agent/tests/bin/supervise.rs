//! The supervisor's entry point without the rest of the binary, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    fw_agent::supervise::entry(std::env::args_os()).unwrap_or_else(|| ExitCode::from(2))
}
