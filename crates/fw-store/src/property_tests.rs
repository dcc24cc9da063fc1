//! Rules of the store, over random histories.

use std::collections::BTreeMap;

use fw_proto::api::{FireReason, Verdict};
use fw_proto::record::{Body, records};
use fw_rt::Clock;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::conformance::fixture::{at, chunk, fire, host_id, job, run_id, task};
use crate::{Error, NewFire, Store};

/// A store for all cases of a property; each case takes names of its own.
struct Shared {
    runtime: Runtime,
    store: Store,
    case: std::cell::Cell<u32>,
    _dir: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let store = runtime.block_on(Store::open(dir.path(), Clock::system())).expect("a store");
        Self { runtime, store, case: std::cell::Cell::new(0), _dir: dir }
    }

    fn next(&self) -> u32 {
        self.case.set(self.case.get() + 1);
        self.case.get()
    }
}

fn check<T: std::fmt::Debug>(
    cases: u32,
    input: impl Strategy<Value = T>,
    rule: impl Fn(T) -> Result<(), TestCaseError>,
) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&input, rule)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Whatever pieces come in whatever order, however often: what is stored is a beginning of the
/// output, and once each byte was offered in order it is all of it.
#[test]
fn output_is_never_lost_doubled_or_reordered() {
    let shared = Shared::new();
    let pieces = prop::collection::vec((0..60_usize, 1..20_usize), 0..40);
    check(48, (pieces, prop::collection::vec(any::<u8>(), 60)), |(pieces, output)| {
        let key = task(shared.next().into());
        let piece = |from: usize, len: usize| {
            let to = (from + len).min(output.len());
            chunk(key, from as u64, &output[from..to])
        };
        shared.runtime.block_on(async {
            let mut durable = 0;
            for (from, len) in pieces {
                let (from, to) = (from as u64, ((from + len).min(output.len())) as u64);
                let answer = shared.store.append_chunk(piece(from as usize, len)).await;
                let expected = if from == durable { to.max(durable) } else { durable };
                match answer {
                    Ok(now) => prop_assert!(
                        from == durable || to <= durable,
                        "{from} at {durable}: {now:?}"
                    ),
                    Err(Error::OutOfOrder { .. }) => prop_assert!(from != durable && to > durable),
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                }
                durable = expected;
                let stored = shared.store.durable(host_id(0), vec![key]).await.expect("read");
                prop_assert_eq!(stored[0].stdout, durable);
            }
            if durable < 60 {
                shared.store.append_chunk(piece(durable as usize, 60)).await.expect("the rest");
            }
            let kept =
                shared.store.log_chunks(key.run, host_id(0), 1, 0, 1000).await.expect("read");
            let mut bytes = Vec::new();
            for part in kept {
                let raw = zstd::decode_all(&part.data[..]).expect("it was checked");
                for record in records(&raw) {
                    if let Body::Bytes(text) = record.expect("it was checked").body {
                        bytes.extend_from_slice(text);
                    }
                }
            }
            prop_assert_eq!(&bytes, &output);
            Ok(())
        })
    });
}

/// The ledger against a model: a map from each instant to its verdict.
#[test]
fn every_fire_is_in_the_ledger_once_under_its_first_verdict() {
    let shared = Shared::new();
    let verdict = prop::sample::select(vec![
        (Verdict::Skipped, Some(FireReason::Paused)),
        (Verdict::Skipped, Some(FireReason::Overlap)),
        (Verdict::Coalesced, None),
        (Verdict::Ran, None),
    ]);
    let fires = prop::collection::vec((0..30_i64, verdict), 0..60);
    check(64, fires, |fires| {
        let name = format!("job{}", shared.next());
        let mut model = BTreeMap::new();
        shared.runtime.block_on(async {
            for (minute, (verdict, reason)) in fires {
                let run = (verdict == Verdict::Ran).then(|| run_id(1));
                let one = NewFire { run, ..fire(&name, minute * 60, verdict, reason) };
                // A range stands for all instants between its ends.
                let free = !covered(&model, minute, &ranges(&model));
                let recorded = shared.store.record_fires(vec![one]).await;
                prop_assert_eq!(recorded.is_ok(), free, "{}: {:?}", minute, recorded);
                if free {
                    model.insert(minute, (verdict, reason));
                }
            }
            let ledger = shared.store.ledger(&job(&name), None, 1000).await.expect("a page").items;
            let rows: Vec<_> = ledger
                .iter()
                .rev()
                .map(|row| (row.from, row.to, row.count, row.verdict, row.reason))
                .collect();
            let expected: Vec<_> = ranges(&model)
                .into_iter()
                .map(|(from, to, count)| {
                    let (verdict, reason) = model[&from];
                    (at(from * 60), at(to * 60), count, verdict, reason)
                })
                .collect();
            prop_assert_eq!(rows, expected);
            Ok(())
        })
    });
}

type Model = BTreeMap<i64, (Verdict, Option<FireReason>)>;

/// Neighbours with the same fate and no run, joined.
fn ranges(model: &Model) -> Vec<(i64, i64, u64)> {
    let mut ranges: Vec<(i64, i64, u64)> = Vec::new();
    for (minute, fate) in model {
        match ranges.last_mut() {
            Some((from, to, count)) if model[from] == *fate && fate.0 != Verdict::Ran => {
                *to = *minute;
                *count += 1;
            }
            _ => ranges.push((*minute, *minute, 1)),
        }
    }
    ranges
}

fn covered(model: &Model, minute: i64, ranges: &[(i64, i64, u64)]) -> bool {
    model.contains_key(&minute)
        || ranges.iter().any(|(from, to, _)| (*from..=*to).contains(&minute))
}
