//! Saltpeter, a scheduler that targets hosts through Salt: its directory, its schedules, its targets.
//!
//! A server serves one directory of it, when told to ([`Options`]): `reading` looks at the files,
//! `served` is what they amount to, and everything else follows that.

pub mod beside;
pub mod codes;
pub mod files;
pub mod history;
mod http;
pub mod json;
pub mod machines;
pub(crate) mod names;
pub mod native;
mod options;
pub mod python;
mod reach;
mod reading;
pub(crate) mod records;
pub(crate) mod salt;
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
pub use records::QUEUE_BYTES;

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
    /// Its records cannot be kept.
    #[error(transparent)]
    Records(#[from] records::Error),
    /// In the shadow of Saltpeter nothing is served.
    #[error(
        "{what} is not served in shadow mode, where Saltpeter itself does that: leave out the address {address}, or shadow mode"
    )]
    Shadow {
        /// What should listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
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
    /// The key by which instances are known again.
    #[error("open the key of wrappers")]
    Key(#[source] std::io::Error),
    /// What was left of an earlier life.
    #[error("take up what runs on minions")]
    Store(#[from] fw_store::Error),
}

/// A directory that is served.
#[derive(Debug)]
pub struct Running {
    /// Where its API listens, when it does.
    pub api: Option<SocketAddr>,
    /// Where wrappers connect, if they may.
    pub machines: Option<SocketAddr>,
}

/// Serves a directory until `tasks` end. Its jobs were taken up when jobs were.
///
/// # Errors
/// An address is taken, or what runs on minions or the queue of records cannot be taken up.
pub(crate) async fn start(prepared: Prepared, app: App, tasks: &Tasks) -> Result<Running, Error> {
    let (options, served) = prepared.start(&app, tasks);
    if options.shadow {
        let machines = reach::start(&options, &app, &served, tasks).await?;
        return Ok(Running { api: None, machines });
    }
    let parts = records::Parts::of(&app, options.queue_bytes);
    let known = records::known(served.clone(), tasks);
    let _records = records::start(parts, known, tasks).await?;
    let machines = reach::start(&options, &app, &served, tasks).await?;
    let api = http::start(&options, served, &app, tasks).await?;
    Ok(Running { api, machines })
}
