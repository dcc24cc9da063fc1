//! Saltpeter, a scheduler that targets hosts through Salt: its directory, its schedules, its targets.
//!
//! A server serves one directory of it, when told to ([`Options`]): `reading` looks at the files,
//! `served` is what they amount to, and everything else follows that.

pub mod codes;
pub mod files;
pub mod history;
pub(crate) mod names;
pub mod native;
mod options;
pub mod python;
mod reading;
pub(crate) mod records;
pub mod schedule;
pub(crate) mod served;
pub(crate) mod settings;
pub mod target;

use std::path::PathBuf;

use fw_rt::Tasks;

pub use options::{Dispatch, Options};
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
}

/// A directory that is served.
#[derive(Debug)]
pub struct Running {
    /// What is in force.
    pub(crate) served: served::Watch,
    /// Who writes log files and documents.
    pub(crate) records: records::Handle,
}

/// Serves the directory of `options` until `tasks` end. What it says now is in force when this returns.
///
/// # Errors
/// The directory cannot be read. A bad file in it harms nothing.
pub(crate) async fn start(options: Options, app: App, tasks: &Tasks) -> Result<Running, Error> {
    let served = reading::start(&options, &app, tasks)?;
    let parts = records::Parts::of(&app, options.queue_bytes);
    let records = records::start(parts, records::known(served.clone(), tasks), tasks).await?;
    Ok(Running { served, records })
}
