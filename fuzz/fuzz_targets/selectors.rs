//! See `rules::selectors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fleetwright_fuzz::rules::selectors(bytes));
