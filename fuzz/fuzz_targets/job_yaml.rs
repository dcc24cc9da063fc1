//! See `rules::job_yaml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fleetwright_fuzz::rules::job_yaml(bytes));
