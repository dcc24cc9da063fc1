//! Checks of the fire ledger.

use fw_core::plan::Retries;
use fw_proto::Span;
use fw_proto::api::{Fire, FireReason, Verdict};

use super::fixture::{Story, at, fire, job, run_id};
use crate::{Append, Error, NewFire, Retry, Store};

async fn ledger(store: &Store) -> Vec<Fire> {
    store.ledger(&job("tick"), None, 100).await.expect("a page").items
}

fn missed(from: i64, to: i64, count: u64) -> NewFire {
    let one = fire("tick", from, Verdict::Missed, Some(FireReason::Downtime));
    NewFire { to: at(to), count, ..one }
}

fn ran(secs: i64, run: u128) -> NewFire {
    let one = fire("tick", secs, Verdict::Ran, None);
    NewFire { run: Some(run_id(run)), lag_ms: Some(12), ..one }
}

pub(super) async fn a_fire_has_one_verdict(store: Store) {
    store.record_fires(vec![ran(0, 1), missed(60, 180, 3)]).await.expect("new fires");
    for taken in [ran(0, 2), ran(120, 2), missed(-60, 0, 2), missed(180, 240, 2)] {
        let nominal = taken.from;
        let skipped = fire("tick", 300, Verdict::Skipped, None);
        let refused = store.record_fires(vec![skipped, taken]).await;
        let named = matches!(&refused, Err(Error::FireTaken { job: of, nominal: at })
            if *of == job("tick") && *at == nominal);
        assert!(named, "{refused:?}");
    }
    assert_eq!(ledger(&store).await.len(), 2);
    store.record_fires(vec![fire("other", 0, Verdict::Ran, None)]).await.expect("another job's");
    let last = store.last_fires().await.expect("read");
    assert_eq!(last, [(job("other"), at(0)), (job("tick"), at(180))].into());
}

pub(super) async fn a_fire_and_its_run_are_decided_together(store: Store) {
    let mut first = Story::begin(1, 1, Some("tick"), at(0)).append();
    first.fire = Some(ran(0, 1));
    store.commit(vec![first]).await.expect("the fire is free");
    let mut second = Story::begin(2, 1, Some("tick"), at(0)).append();
    second.fire = Some(ran(0, 2));
    let beside = Story::begin(3, 1, None, at(0)).append();
    let refused = store.commit(vec![second, beside]).await.expect("the others are written");
    assert!(
        matches!(&refused[..], [(run, Error::FireTaken { .. })] if *run == run_id(2)),
        "{refused:?}"
    );
    assert_eq!(store.run(run_id(2)).await.expect("read"), None);
    assert!(store.run(run_id(3)).await.expect("read").is_some());
    // A try that seemed to fail had not.
    let mut again = Story::begin(1, 1, Some("tick"), at(0)).append();
    again.fire = Some(ran(0, 1));
    let there = store.commit(vec![again]).await;
    assert!(matches!(there, Err(Error::Conflict { run }) if run == run_id(1)), "{there:?}");
    let rows = ledger(&store).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].run_id, Some(run_id(1)));
    // Not what was given, but what it is when it is written: that instant has long passed.
    assert!(rows[0].lag_ms.is_some_and(|lag| lag > 12), "{:?}", rows[0].lag_ms);
    assert_eq!(rows[0].nominal, Some(at(0)));
}

pub(super) async fn a_pending_fire_is_replaced_by_its_verdict(store: Store) {
    let pending = |secs| fire("tick", secs, Verdict::Pending, Some(FireReason::Overlap));
    let all = vec![pending(0), pending(60), pending(60), pending(120)];
    store.record_fires(all).await.expect("they wait");
    let waiting = store.pending_fires().await.expect("read");
    assert_eq!(waiting, [pending(0), pending(60), pending(120)]);
    let coalesced = |secs| fire("tick", secs, Verdict::Coalesced, None);
    store.record_fires(vec![coalesced(0), coalesced(60), ran(120, 1)]).await.expect("verdicts");
    assert_eq!(store.pending_fires().await.expect("read"), []);
    let rows: Vec<_> =
        ledger(&store).await.into_iter().map(|row| (row.verdict, row.count)).collect();
    assert_eq!(rows, [(Verdict::Ran, 1), (Verdict::Coalesced, 2)]);
    let again = store.record_fires(vec![pending(120)]).await;
    assert!(matches!(again, Err(Error::FireTaken { .. })), "{again:?}");
}

pub(super) async fn what_did_not_run_is_found_newest_first(store: Store) {
    let skipped = |job, secs| fire(job, secs, Verdict::Skipped, Some(FireReason::Overlap));
    let all = vec![skipped("tick", 0), ran(60, 1), missed(120, 180, 2), skipped("other", 150)];
    store.record_fires(all).await.expect("new fires");
    let found = async |since, most| {
        let found = store.fires_not_run(at(since), most).await.expect("read");
        found.into_iter().map(|(job, fire)| (job, fire.verdict, fire.to)).collect::<Vec<_>>()
    };
    let lost = (job("tick"), Verdict::Missed, at(180));
    let other = (job("other"), Verdict::Skipped, at(150));
    let first = (job("tick"), Verdict::Skipped, at(0));
    assert_eq!(found(0, 10).await, [lost.clone(), other.clone(), first]);
    assert_eq!(found(150, 10).await, [lost.clone(), other]);
    assert_eq!(found(0, 1).await, [lost]);
}

pub(super) async fn neighbours_without_a_run_are_one_row(store: Store) {
    let skipped = |secs| fire("tick", secs, Verdict::Skipped, Some(FireReason::Paused));
    let all = vec![skipped(0), skipped(60), ran(120, 1), skipped(180), missed(240, 300, 2)];
    store.record_fires(all).await.expect("new fires");
    store.record_fires(vec![missed(360, 480, 3), skipped(600)]).await.expect("new fires");
    store.record_fires(vec![skipped(540)]).await.expect("a new fire");
    let rows = ledger(&store).await;
    let short: Vec<_> = rows.iter().map(|row| (row.verdict, row.from, row.to, row.count)).collect();
    assert_eq!(
        short,
        [
            (Verdict::Skipped, at(540), at(600), 2),
            (Verdict::Missed, at(240), at(480), 5),
            (Verdict::Skipped, at(180), at(180), 1),
            (Verdict::Ran, at(120), at(120), 1),
            (Verdict::Skipped, at(0), at(60), 2),
        ]
    );
    assert_eq!(rows[0].nominal, None);
    assert_eq!(rows[2].nominal, Some(at(180)));
}

pub(super) async fn fires_by_hand_stand_beside_the_schedule(store: Store) {
    let by_hand = NewFire { reason: Some(FireReason::Manual), ..ran(60, 1) };
    store.record_fires(vec![by_hand.clone(), ran(60, 2), by_hand]).await.expect("all three");
    assert_eq!(ledger(&store).await.len(), 3);
    let by_hand = NewFire { reason: Some(FireReason::Manual), ..ran(90, 3) };
    store.record_fires(vec![by_hand]).await.expect("a fire by hand");
    let last = store.last_fires().await.expect("read");
    assert_eq!(last, [(job("tick"), at(60))].into());
}

pub(super) async fn what_failed_waits_until_it_is_tried_again(store: Store) {
    let mut first = Story::begin(1, 1, Some("tick"), at(0));
    first.run.plan.retries = Retries::new(1, Span::from_secs(10));
    let mut first = first.ended(at(1), 1);
    store.commit(vec![first.append()]).await.expect("a run that failed");
    let waits = Retry { run: run_id(1), job: job("tick"), at: at(11) };
    assert_eq!(store.retries().await.expect("read"), [waits]);
    let again = async |run| store.is_tried_again(&job("tick"), run).await.expect("read");
    assert!(again(run_id(1)).await);
    let by_hand = next_try(2, None);
    store.commit(vec![by_hand]).await.expect("a repetition by hand");
    assert_eq!(store.retries().await.expect("read").len(), 1, "it is none of the job's");
    store.commit(vec![next_try(3, Some("tick"))]).await.expect("the next try");
    assert_eq!(store.retries().await.expect("read"), []);
    assert!(again(run_id(1)).await, "it was");
    assert!(!again(run_id(3)).await);
    let mut given_up = Story::begin(4, 1, Some("tick"), at(0));
    given_up.run.plan.retries = Retries::new(1, Span::from_secs(10));
    store.commit(vec![given_up.ended(at(1), 1).append()]).await.expect("another");
    store.give_up_retry(run_id(4)).await.expect("it is given up");
    assert!(!again(run_id(4)).await);
}

/// A run that repeats the first one.
fn next_try(n: u128, of: Option<&str>) -> Append {
    let mut story = Story::begin(n, 1, of, at(12));
    story.run.plan.origin.retry_of = Some(run_id(1));
    story.append()
}

pub(super) async fn the_ledger_is_paged_newest_first(store: Store) {
    let fires = (0..5).map(|n| ran(n * 60, 1)).collect();
    store.record_fires(fires).await.expect("new fires");
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.ledger(&job("tick"), cursor, 2).await.expect("a page");
        seen.extend(page.items.iter().map(|row| row.from));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [240, 180, 120, 60, 0].map(at));
    let lost = store.ledger(&job("tick"), Some("x".to_owned()), 2).await;
    assert!(matches!(lost, Err(Error::BadCursor)));
}

pub(super) async fn fires_of_a_shadow_keep_their_hosts(store: Store) {
    let shadow = |secs: i64, hosts: &[&str]| NewFire {
        hosts: Some(hosts.iter().map(|name| name.parse().expect("a name")).collect()),
        ..fire("tick", secs, Verdict::Shadow, None)
    };
    let rows = vec![shadow(0, &["web1", "web2"]), shadow(60, &[]), missed(120, 120, 1)];
    store.record_fires(rows.clone()).await.expect("new fires");
    let kept: Vec<_> =
        ledger(&store).await.into_iter().rev().map(|fire| (fire.verdict, fire.hosts)).collect();
    let wanted: Vec<_> = rows.into_iter().map(|row| (row.verdict, row.hosts)).collect();
    assert_eq!(kept, wanted, "each has a row and hosts of its own");
    let again = store.record_fires(vec![shadow(0, &["web1"])]).await;
    assert!(matches!(again, Err(Error::FireTaken { .. })), "{again:?}");
}
