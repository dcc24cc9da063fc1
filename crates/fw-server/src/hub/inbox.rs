//! What waits for the hub: runs that are to begin go before everything else.
//!
//! When thousands of jobs are due in one second, the first of their runs end while the last have not
//! begun. A run that begins late is late for good; what has ended can wait to be written down.

use tokio::sync::mpsc;

use super::Message;

/// Messages taken up at once: one commit carries what they amount to.
const BATCH: usize = 1024;

/// Of which so many are left to the rest, however many runs are to begin.
const REST: usize = BATCH / 8;

/// The two queues.
pub(super) struct Inbox {
    /// Runs that are to begin.
    pub(super) begins: mpsc::Receiver<Message>,
    /// Everything else.
    pub(super) rest: mpsc::Receiver<Message>,
}

impl Inbox {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.begins.is_empty() && self.rest.is_empty()
    }

    /// Waits until something is there and takes up to a batch of it; false when nobody is left to
    /// send any. Cancel-safe.
    pub(super) async fn receive(&mut self, batch: &mut Vec<Message>) -> bool {
        let first = tokio::select! {
            biased;
            Some(begin) = self.begins.recv() => begin,
            message = self.rest.recv() => match message {
                Some(message) => message,
                None => return false,
            },
        };
        batch.push(first);
        take(&mut self.begins, batch, BATCH - REST);
        take(&mut self.rest, batch, BATCH);
        true
    }
}

fn take(queue: &mut mpsc::Receiver<Message>, batch: &mut Vec<Message>, most: usize) {
    while batch.len() < most
        && let Ok(message) = queue.try_recv()
    {
        batch.push(message);
    }
}
