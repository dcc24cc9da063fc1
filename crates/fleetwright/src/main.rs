//! `fleetwright`: the one binary.

mod bench;
mod cli;
mod client;
mod config;
mod exit;
mod local;
mod on_host;
mod output;
mod watch;
mod wrapper;

fn main() -> std::process::ExitCode {
    // A supervisor branches off before arguments are parsed and any runtime is made: it is small,
    // quick, and there is one for each command that runs.
    fw_agent::supervise::entry(std::env::args_os()).unwrap_or_else(cli::main)
}
