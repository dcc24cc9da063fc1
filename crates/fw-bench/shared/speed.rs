//! Times scenarios with criterion.

use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput};

use crate::scenario::{Scenario, Size, Work};

/// Times each scenario whose name the command line asks for.
pub(crate) fn time(scenarios: Vec<Scenario>) {
    let mut criterion = Criterion::default().configure_from_args();
    for scenario in scenarios {
        let mut group = criterion.benchmark_group(env!("CARGO_PKG_NAME"));
        group.throughput(match scenario.size {
            Size::Bytes(bytes) => Throughput::Bytes(bytes),
            Size::Items(items) => Throughput::Elements(items),
        });
        group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
        match scenario.work {
            Work::Again(prepare) => {
                group.bench_function(scenario.name, |bencher| bencher.iter(prepare()))
            }
            Work::Once(prepare) => {
                // A turn takes milliseconds, and its input as long to prepare.
                group.sample_size(10).sampling_mode(SamplingMode::Flat);
                group.bench_function(scenario.name, |bencher| {
                    bencher.iter_batched(&prepare, |work| work(), BatchSize::PerIteration);
                })
            }
        };
        group.finish();
    }
    criterion.final_summary();
}
