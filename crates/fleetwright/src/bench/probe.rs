//! Asks the API the whole time, as an open dashboard would, and notes how long answers take.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fw_rt::Tasks;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::figures::Quantiles;
use crate::client::{Client, RunFilter};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// What an answer that is an error counts as: the longest that a client waits.
const UNANSWERED: Duration = Duration::from_secs(60);

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
    // Questions have their times. One that waits behind a slow answer has waited since its own, or
    // a server that stands still for seconds would count as one slow answer.
    let mut every = tokio::time::interval(PAUSE);
    for question in 0_u64.. {
        let due = every.tick().await;
        let answered = match question % 3 {
            0 => client.hosts(None, Some(50)).await.is_ok(),
            1 => client.runs(&RunFilter::default(), Some(20)).await.is_ok(),
            _ => client.server_info().await.is_ok(),
        };
        let took = if answered { due.elapsed() } else { UNANSWERED }.as_secs_f64() * 1000.0;
        times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    }
}
