//! Saltpeter, a scheduler that targets hosts through Salt: its directory, its schedules, its targets.
//!
//! A server serves one directory of it, when told to ([`Options`]): `reading` looks at the files,
//! `served` is what they amount to, and everything else follows that.

pub mod files;
pub mod machines;
pub(crate) mod names;
mod options;
mod reach;
mod reading;
pub(crate) mod salt;
pub mod schedule;
pub(crate) mod served;
pub(crate) mod settings;
pub mod target;

use std::net::SocketAddr;
use std::path::PathBuf;

use fw_rt::Tasks;

pub use options::{Dispatch, Options};

use crate::serve;
use crate::state::App;

/// Why the directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read the directory of Saltpeter {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The key by which instances are known again.
    #[error("open the key of wrappers")]
    Key(#[source] std::io::Error),
    /// The port for wrappers.
    #[error("open the port for wrappers")]
    Machines(#[source] serve::Error),
    /// What was left of an earlier life.
    #[error("take up what runs on minions")]
    Store(#[from] fw_store::Error),
}

/// A directory that is served.
#[derive(Debug)]
pub struct Running {
    /// What is in force.
    pub(crate) served: served::Watch,
    /// Where wrappers connect, if they may.
    pub machines: Option<SocketAddr>,
}

/// Serves the directory of `options` until `tasks` end. What it says now is in force when this returns.
///
/// # Errors
/// The directory cannot be read, or a port is taken. A bad file in it harms nothing.
pub(crate) async fn start(options: Options, app: App, tasks: &Tasks) -> Result<Running, Error> {
    let served = reading::start(&options, &app, tasks)?;
    let machines = reach::start(&options, &app, &served, tasks).await?;
    Ok(Running { served, machines })
}
