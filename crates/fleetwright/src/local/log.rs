//! Log lines, on stderr: data on stdout stays clean.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Begins to write log lines.
pub(super) fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(config.filter.as_str()).context("read log filter")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
        }
    };
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}
