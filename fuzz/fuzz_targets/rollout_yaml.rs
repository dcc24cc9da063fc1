//! See `rules::rollout_yaml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fleetwright_fuzz::rules::rollout_yaml(bytes));
