//! Checks of retention. They use the store's own clock.

use fw_proto::api::Verdict;
use fw_proto::{Span, Timestamp};

use super::fixture::{Story, chunk, fire, host_id, noise, run_id, task};
use crate::{NewFire, Retention, Store};

const DAY: Span = Span::from_secs(24 * 3600);

async fn ended(store: &Store, n: u128, at: Timestamp) {
    let mut story = Story::begin(n, 1, None, at).ended(at, 0);
    store.commit(vec![story.append()]).await.expect("a whole run");
    let text = noise(u64::try_from(n).unwrap_or(0), 60_000);
    store.append_chunk(chunk(task(n), 0, &text)).await.expect("its output");
}

async fn there(store: &Store, n: u128) -> (bool, bool) {
    let run = store.run(run_id(n)).await.expect("read").is_some();
    let output = store.log_chunks(run_id(n), host_id(0), 1, 0, 10).await.expect("read");
    (run, !output.is_empty())
}

pub(super) async fn what_is_old_is_swept_with_its_output(store: Store) {
    let now = store.now();
    let old = now - Span::from_secs(2 * 24 * 3600);
    ended(&store, 1, old).await;
    ended(&store, 2, now).await;
    let mut going_on = Story::begin(3, 1, None, old);
    store.commit(vec![going_on.append()]).await.expect("a new run");
    store.append_chunk(chunk(task(3), 0, b"still here")).await.expect("its output");
    let fire = |verdict, ago: u64| {
        let at = old - Span::from_secs(ago);
        NewFire { from: at, to: at, ..fire("tick", 0, verdict, None) }
    };
    let fires = vec![fire(Verdict::Skipped, 120), fire(Verdict::Pending, 60)];
    store.record_fires(fires).await.expect("two fires");

    let swept = store.sweep(Retention { age: DAY, bytes: u64::MAX }).await.expect("a sweep");
    assert_eq!((swept.runs, swept.rows), (1, 1));
    assert_eq!(there(&store, 1).await, (false, false));
    assert_eq!(there(&store, 2).await, (true, true));
    assert_eq!(there(&store, 3).await, (true, true));
    assert_eq!(store.pending_fires().await.expect("read").len(), 1);
}

pub(super) async fn what_is_too_much_is_swept_oldest_first(store: Store) {
    let now = store.now();
    for n in 1..=20 {
        let ago = 1000 - u64::try_from(n).unwrap_or(0);
        ended(&store, n, now - Span::from_secs(ago)).await;
    }
    let mut going_on = Story::begin(21, 1, None, now - DAY);
    store.commit(vec![going_on.append()]).await.expect("a new run");
    store.append_chunk(chunk(task(21), 0, &noise(21, 60_000))).await.expect("its output");

    let before = store.size().await.expect("read");
    let keep = before.used() - 400_000;
    let swept = store.sweep(Retention { age: DAY, bytes: keep }).await.expect("a sweep");
    assert!(swept.used <= keep, "{} of {keep}", swept.used);
    assert!((5..15).contains(&swept.runs), "{} runs are gone", swept.runs);
    assert_eq!(there(&store, 1).await, (false, false));
    assert_eq!(there(&store, 20).await, (true, true));
    assert_eq!(there(&store, 21).await, (true, true));
    let after = store.size().await.expect("read");
    assert!(after.logs.on_disk < before.logs.on_disk, "{after:?}");

    let swept = store.sweep(Retention { age: DAY, bytes: 0 }).await.expect("a sweep");
    assert!(swept.runs > 0);
    assert_eq!(there(&store, 20).await, (false, false));
    assert_eq!(there(&store, 21).await, (true, true));
}

pub(super) async fn output_of_no_run_is_swept(store: Store) {
    store.append_chunk(chunk(task(1), 0, b"whose is this?")).await.expect("first of its task");
    let young = store.sweep(Retention { age: DAY, bytes: u64::MAX }).await;
    young.expect("a sweep");
    assert_eq!(there(&store, 1).await, (false, true));
    store.inner.clock.shift(2 * 24 * 3600 * 1000);
    store.sweep(Retention { age: DAY, bytes: u64::MAX }).await.expect("a sweep");
    assert_eq!(there(&store, 1).await, (false, false));
}
