//! The API as its clients see it: a real server on a port of its own, a real store, a real HTTP client.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: what is not as it should be ends the test"
)]

mod access;
mod audit;
mod changes;
mod device;
mod document;
mod hosts;
mod logs;
mod maintenances;
mod rights;
mod runs;
mod server;
mod sign_in;
mod tls;
