//! What runs on this machine for as long as its process does: a server, an agent, or both.

pub(crate) mod agent;
mod log;
mod proxy;
pub(crate) mod server;
pub(crate) mod up;

use std::path::Path;

use crate::config::{Config, Flags, Loaded, environment, find};

/// Reads the configuration.
pub(crate) fn read(file: Option<&Path>, flags: Vec<Flags>) -> anyhow::Result<Loaded> {
    let env = environment();
    let file = find(file, &env);
    Ok(Config::load(file.as_deref(), &env, &flags.into_iter().flatten().collect())?)
}

/// Reads the configuration and begins to log as it says.
pub(crate) fn configure(file: Option<&Path>, flags: Vec<Flags>) -> anyhow::Result<Loaded> {
    let loaded = read(file, flags)?;
    log::start(&loaded.config.log)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(loaded)
}

/// Waits until someone wants this process to end: Ctrl+C, or TERM from a service manager.
pub(crate) async fn told_to_stop() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        interrupted = tokio::signal::ctrl_c() => { interrupted?; "interrupted" }
        _ = term.recv() => "terminated",
    })
}
