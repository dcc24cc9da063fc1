//! A store as years of use would leave it, for measurements.
//!
//! Each run was fired by one of 50 jobs, had tasks on one to three of 1,000 hosts and has ended
//! within the last 25 days; each tenth has output.

use fw_proto::api::Verdict;
use fw_proto::{PublicKey, RunId, Span, TaskKey, Timestamp};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::fixture::{Story, chunk, enrolment, host_id, invite, job, noise, task};
use crate::{Append, Enrolment, Error, Invite, NewFire, Store};

/// Runs that are committed together.
const TOGETHER: u64 = 500;

/// Commits on their way at once.
const AT_ONCE: usize = 8;

const HOSTS: u32 = 1000;
const JOBS: u64 = 50;
const WITHIN: Span = Span::from_secs(25 * 24 * 3600);

/// Fills an empty store with so many runs.
///
/// # Errors
/// What the store says.
pub async fn fill(store: &Store, runs: u64) -> Result<(), Error> {
    enrol(store).await?;
    let begin = store.now() - WITHIN;
    let mut commits = JoinSet::new();
    for first in (0..runs).step_by(TOGETHER as usize) {
        if commits.len() >= AT_ONCE
            && let Some(committed) = commits.join_next().await
        {
            committed.map_err(|_| Error::Closed)??;
        }
        let store = store.clone();
        let last = (first + TOGETHER).min(runs);
        commits.spawn(async move { some(&store, first..last, begin, runs).await });
    }
    while let Some(committed) = commits.join_next().await {
        committed.map_err(|_| Error::Closed)??;
    }
    Ok(())
}

async fn enrol(store: &Store) -> Result<(), Error> {
    let all = Invite { expires_at: Timestamp::from_millis(i64::MAX), ..invite(1, HOSTS) };
    store.invite(all).await?;
    for n in 0..HOSTS {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let (id, key) = (host_id(n.into()), PublicKey(key));
        store.enrol(Enrolment { id, key, ..enrolment(1, 0, &format!("h{n}")) }).await?;
    }
    Ok(())
}

async fn some(
    store: &Store,
    numbers: std::ops::Range<u64>,
    begin: Timestamp,
    all: u64,
) -> Result<(), Error> {
    for number in numbers.clone().filter(|number| number.is_multiple_of(10)) {
        let key = TaskKey { run: id(number), ..task(0) };
        store.append_chunk(chunk(key, 0, &noise(number, 300))).await?;
    }
    store.commit(numbers.map(|number| run(number, begin, all)).collect()).await.map(drop)
}

/// Runs in the order of their time, as the server's ids are.
fn id(number: u64) -> RunId {
    RunId(Uuid::from_u128((u128::from(number) << 80) | 0x7000_8000_0000_0000_0000))
}

fn run(number: u64, begin: Timestamp, all: u64) -> Append {
    let now = begin + Span::from_millis(WITHIN.as_millis() / all * number);
    let of = format!("job{}", number % JOBS);
    let hosts = 1 + u32::try_from(number % 3).unwrap_or(0);
    let exit_code = i32::from(number.is_multiple_of(20));
    let mut append =
        Story::begin(id(number).0.as_u128(), hosts, Some(&of), now).ended(now, exit_code).append();
    append.fire = Some(NewFire {
        job: job(&of),
        verdict: Verdict::Ran,
        reason: None,
        from: now,
        to: now,
        count: 1,
        run: Some(append.run),
        lag_ms: Some(3),
        hosts: None,
    });
    append
}
