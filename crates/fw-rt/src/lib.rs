//! The only place that spawns a task or asks the time.

pub mod backoff;
pub mod clock;
pub mod noise;
pub mod tasks;

pub use backoff::Backoff;
pub use clock::Clock;
pub use tasks::Tasks;
