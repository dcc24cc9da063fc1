//! What a command prints: data on stdout, everything else on stderr.

pub(crate) mod agent;
mod change;
mod escape;
mod format;
mod host;
mod job;
mod lines;
mod live;
mod maintenance;
mod progress;
mod run;
mod server;
mod table;
mod tame;

use std::io::{self, IsTerminal as _, Write as _};

pub(crate) use change::{rollout_page, runbook_page};
pub(crate) use escape::{line, text};
pub(crate) use format::{Format, item, list, reader_gone};
pub(crate) use host::page as host_page;
pub(crate) use job::{error_text, page as job_page, reason as fire_reason};
#[cfg(test)]
pub(crate) use live::sample_event;
pub(crate) use live::{Live, Prefix, View, gap_text};
pub(crate) use maintenance::{
    begun as maintenance_begun, waits as maintenance_waits, warning as maintenance_warning,
};
pub(crate) use progress::Progress;
pub(crate) use run::{Begun, page as run_page, task_table};
pub(crate) use server::page as server_page;
pub(crate) use table::{Row, Width, ago, bytes};

/// Prints a message for people on stderr.
pub(crate) fn say(message: &str) {
    // Nobody is left to tell when stderr is gone.
    writeln!(anstream::stderr(), "{}", text(message)).ok();
}

/// Whether a person sits at both ends: prompts make sense.
pub(crate) fn interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Writes data to stdout.
///
/// # Errors
/// stdout is closed or full.
pub(crate) fn print(data: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(data.as_bytes())?;
    out.flush()
}
