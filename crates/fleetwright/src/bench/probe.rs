//! Asks the API the whole time, as an open dashboard would, and notes how long answers take.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fw_rt::Tasks;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::figures::Quantiles;
use crate::client::{Client, RunFilter};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until it is dropped or told to say what it found.
#[derive(Debug)]
pub(crate) struct Probe {
    times: Arc<Mutex<Vec<f64>>>,
    _until: DropGuard,
}

impl Probe {
    /// Begins.
    pub(crate) fn start(client: &Client, tasks: &Tasks) -> Self {
        let (times, token) = (Arc::<Mutex<Vec<f64>>>::default(), CancellationToken::new());
        let asking = ask(client.clone(), Arc::clone(&times));
        let until = token.clone();
        tasks.spawn("api-probe", async move { until.run_until_cancelled(asking).await });
        Self { times, _until: token.drop_guard() }
    }

    /// How long answers took, in milliseconds.
    pub(crate) fn found(self) -> Option<Quantiles> {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        Quantiles::of(std::mem::take(&mut *times))
    }
}

async fn ask(client: Client, times: Arc<Mutex<Vec<f64>>>) {
    let mut every = tokio::time::interval(PAUSE);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for question in 0_u64.. {
        every.tick().await;
        let begun = tokio::time::Instant::now();
        // An answer that is an error takes its time like any other.
        match question % 3 {
            0 => drop(client.hosts(None, Some(50)).await),
            1 => drop(client.runs(&RunFilter::default(), Some(20)).await),
            _ => drop(client.server_info().await),
        }
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    }
}
