//! Saltpeter, a scheduler that targets hosts through Salt: its directory, its schedules, its targets.
//!
//! A server serves one directory of it, when told to ([`Options`]): `reading` looks at the files,
//! `served` is what they amount to, and everything else follows that.

pub mod codes;
pub mod files;
mod http;
pub mod json;
pub(crate) mod names;
mod options;
pub mod python;
mod reading;
pub mod schedule;
pub(crate) mod served;
pub(crate) mod settings;
pub mod target;
mod translate;

use std::net::SocketAddr;
use std::path::PathBuf;

use fw_rt::Tasks;

pub use options::{Dispatch, Options};
pub(crate) use reading::{Prepared, prepare};

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
    /// An address is taken.
    #[error("serve Saltpeter: {what} on {address}")]
    Listen {
        /// What should listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What happened.
        source: crate::serve::Error,
    },
}

/// A directory that is served.
#[derive(Debug)]
pub struct Running {
    /// Where its API listens, when it does.
    pub api: Option<SocketAddr>,
}

/// Serves a directory until `tasks` end. Its jobs were taken up when jobs were.
///
/// # Errors
/// An address is taken.
pub(crate) async fn start(prepared: Prepared, app: App, tasks: &Tasks) -> Result<Running, Error> {
    let (options, served) = prepared.start(&app, tasks);
    let api = http::start(&options, served, &app, tasks).await?;
    Ok(Running { api })
}
