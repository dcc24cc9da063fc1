//! `fleetwright`: the one binary.

mod cli;
mod client;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the commands that start things read the rest")
)]
mod config;
mod exit;
mod output;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
