//! What a directory amounts to: what is in force now.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_proto::{JobName, Timestamp};
use tokio::sync::watch;

use super::files::Directory;
use super::names;
use super::settings::{self, Settings};

/// What is in force.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// What the files say.
    pub directory: Directory,
    /// Of that `saltpeter_config`, typed.
    pub settings: Settings,
    /// Saltpeter's name of each job, by ours.
    pub by_job: BTreeMap<JobName, String>,
    /// When it last changed, in seconds of Unix time; not for a change of `saltpeter_config` alone.
    pub serial: f64,
}

/// Where it is followed.
pub(crate) type Watch = watch::Receiver<Arc<Served>>;

impl Served {
    /// What a directory amounts to, and what is wrong with its settings.
    pub(crate) fn of(directory: Directory, serial: f64) -> (Self, Vec<String>) {
        let (settings, wrong) = settings::read(&directory.config);
        let by_job = directory.jobs.keys().map(|name| (names::job_name(name), name.clone()));
        (Self { by_job: by_job.collect(), settings, directory, serial }, wrong)
    }
}

/// An instant as Python's `time.time()`.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds have a place in 52 bits until the year 144,000"
)]
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}
