//! See `rules::join`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fleetwright_fuzz::rules::join(bytes));
