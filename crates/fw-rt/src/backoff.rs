//! Waits between tries: exponential with full jitter, so that a fleet does not come back all at once.
//!
//! "Full jitter" as in Brooker, *Exponential Backoff and Jitter* (AWS Architecture Blog, 2015).

use std::time::Duration;

use rand::RngExt as _;

/// The waits between tries of one thing.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits of up to `first`, doubling up to `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    /// How long to wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.tries.min(20)).min(self.most);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It worked: begin anew.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }
}
