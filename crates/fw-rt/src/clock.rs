//! The time of day.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use fw_proto::Timestamp;

/// Tells the time of day; clones share it. Tests set it ahead or back.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that asks")]
    pub fn now(&self) -> Timestamp {
        let since_epoch =
            std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(ms.saturating_add(self.offset_ms.load(Ordering::Relaxed)))
    }

    /// A time that only goes forward, at the pace of the monotonic clock: for how long something
    /// lasted, whoever sets the time of day meanwhile. It counts from the process's first question.
    #[must_use]
    pub fn steady(&self) -> Timestamp {
        static FIRST: OnceLock<tokio::time::Instant> = OnceLock::new();
        let since = FIRST.get_or_init(tokio::time::Instant::now).elapsed();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Sets the clock ahead (or back, when negative) by so many milliseconds.
    pub fn shift(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }
}
