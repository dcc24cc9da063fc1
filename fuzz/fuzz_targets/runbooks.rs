//! See `rules::runbooks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fleetwright_fuzz::rules::runbooks(bytes));
