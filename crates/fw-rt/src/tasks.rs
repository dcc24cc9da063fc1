//! Tasks that have a name, are waited for, and end when told to.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// A group of tasks with one token; groups nest. Clones are the same group.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    /// A group of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that the group's tasks watch.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// A group that ends with this one, and can end before it. The outer group waits for its tasks too.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: self.tracker.clone(), token: self.token.child_token() }
    }

    /// Spawns a task that is dropped at its next await when the group ends.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let token = self.token.clone();
        self.spawn_graceful(name, async move { token.run_until_cancelled(task).await })
    }

    /// Spawns a task that watches the token itself and ends in its own time.
    #[expect(clippy::disallowed_methods, reason = "this is the place that spawns")]
    pub fn spawn_graceful<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(task.instrument(tracing::debug_span!("task", name))))
    }

    /// Tells all tasks to end.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Ends the group and waits for its tasks; false when some were still there at the deadline.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}
