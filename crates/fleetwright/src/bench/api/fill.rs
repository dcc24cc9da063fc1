//! A history: hosts, runs that have ended, and what became of fires.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use fw_core::command;
use fw_core::plan::{Chosen, LOST_AFTER, Plan};
use fw_core::run::{Actor, Event, Kind, Run};
use fw_proto::api::{Command, FireReason, NewRun, OnFull, Verdict};
use fw_proto::frame::{Cause, Ended, Reported};
use fw_proto::record::Offsets;
use fw_proto::{HostId, JobName, PublicKey, RunId, Span, Timestamp};
use fw_rt::Clock;
use fw_store::{Append, Enrolled, Enrolment, Invite, NewFire, Store};
use rand::RngExt as _;
use uuid::Uuid;

use super::History;

/// Written in one transaction.
const AT_ONCE: usize = 500;
const FIRES_AT_ONCE: u32 = 5000;

/// Hosts of a run.
const HOSTS: usize = 3;

/// One run in so many fails, and one in so many is a job's.
const FAILS: u32 = 20;
const JOBS: u32 = 10;

/// Fires are so far apart.
const EVERY: Span = Span::from_secs(60);

pub(super) async fn fill(data: &Path, history: History) -> anyhow::Result<()> {
    let clock = Clock::system();
    let store = Store::open(data, clock.clone()).await?;
    let now = clock.now();
    let chosen = hosts(&store, history.hosts, now).await?;
    runs(&store, history.runs, &chosen, now).await?;
    fires(&store, history.ledger, now).await?;
    store.close().await;
    Ok(())
}

async fn hosts(store: &Store, count: u32, now: Timestamp) -> anyhow::Result<Vec<Chosen>> {
    let secret_sha256: [u8; 32] = rand::rng().random();
    let labels = BTreeMap::from([("site".to_owned(), "a".to_owned())]);
    let expires_at = now + Span::from_secs(3600);
    let by = "bench".to_owned();
    store.invite(Invite { secret_sha256, uses: count, expires_at, labels, by }).await?;
    let mut chosen = Vec::new();
    for number in 1..=count {
        let id = HostId(Uuid::from_u128(rand::rng().random()));
        let name = format!("bench-{number}").parse().context("a name of ours")?;
        let key = PublicKey(rand::rng().random());
        let enrolled = store.enrol(Enrolment { secret_sha256, name, key, id, at: now }).await?;
        let Enrolled::Done(row) = enrolled else { anyhow::bail!("a host was refused") };
        chosen.push(Chosen { id: row.id, name: row.name });
    }
    Ok(chosen)
}

async fn runs(store: &Store, count: u32, hosts: &[Chosen], now: Timestamp) -> anyhow::Result<()> {
    ensure!(!hosts.is_empty(), "a run needs a host");
    let mut waiting = Vec::new();
    for number in 0..count {
        let at = now - Span::from_secs(u64::from(count - number));
        let first = number as usize % hosts.len();
        let on = hosts.iter().cycle().skip(first).take(HOSTS.min(hosts.len())).cloned().collect();
        let mut plan = command::compile(request()?, on, store.incarnation(), LOST_AFTER)?;
        plan.origin.job = number.is_multiple_of(JOBS).then(|| job(number / JOBS)).transpose()?;
        waiting.push(ended(number, plan, at)?);
        if waiting.len() >= AT_ONCE {
            store.commit(std::mem::take(&mut waiting)).await?;
        }
    }
    store.commit(waiting).await?;
    Ok(())
}

fn request() -> anyhow::Result<NewRun> {
    let command = Command::Shell("uptime".to_owned());
    serde_json::from_value(serde_json::json!({
        "hosts": "*", "command": command, "on_full": OnFull::Block,
    }))
    .context("a request of ours")
}

/// A run of which all hosts have told their end.
fn ended(number: u32, plan: Plan, at: Timestamp) -> anyhow::Result<Append> {
    let by = match &plan.origin.job {
        Some(job) => Actor::Job(job.clone()),
        None => Actor::Token("bench".to_owned()),
    };
    let hosts: Vec<_> = plan.hosts.iter().map(|host| host.id).collect();
    let id = RunId(Uuid::from_u128(rand::rng().random()));
    let begin = Event { at, by, kind: Kind::Planned(Box::new(plan)) };
    let mut run = Run::begin(id, &begin).map_err(|_| anyhow::anyhow!("a plan begins a run"))?;
    let exit_code = i32::from(number.is_multiple_of(FAILS));
    let said = |host: &HostId| (*host, Reported::Ended(end(at, exit_code)));
    let reports = hosts.iter().map(said).collect();
    let kinds = [Kind::Dispatched { hosts, not_after: at }, Kind::Reported { reports }];
    let mut events = vec![begin];
    for kind in kinds {
        let event = Event { at, by: Actor::Server, kind };
        run.step(&event);
        events.push(event);
    }
    let view = run.view(Vec::new());
    Ok(Append {
        run: id,
        expected_seq: 0,
        events,
        summary: view.summary.clone(),
        finished: Some(Box::new(view)),
        fire: None,
        retry_at: None,
    })
}

fn end(at: Timestamp, exit_code: i32) -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(exit_code),
        signal: None,
        started_at: at,
        finished_at: at,
        output: Offsets::default(),
        stdout_sha256: None,
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}

/// Fires of a few jobs. Verdicts take turns, for neighbours with the same one would be one row.
async fn fires(store: &Store, count: u32, now: Timestamp) -> anyhow::Result<()> {
    let each = count / JOBS;
    for number in 0..JOBS {
        let job = job(number)?;
        let mut waiting = Vec::new();
        for nth in 0..each {
            let at = now - Span::from_millis(EVERY.as_millis() * u64::from(each - nth));
            let (verdict, reason) = match nth % 2 {
                0 => (Verdict::Skipped, Some(FireReason::Overlap)),
                _ => (Verdict::Missed, None),
            };
            let job = job.clone();
            let fire = NewFire {
                job,
                verdict,
                reason,
                from: at,
                to: at,
                count: 1,
                run: None,
                lag_ms: None,
                hosts: None,
            };
            waiting.push(fire);
            if nth % FIRES_AT_ONCE == FIRES_AT_ONCE - 1 {
                store.record_fires(std::mem::take(&mut waiting)).await?;
            }
        }
        store.record_fires(waiting).await?;
    }
    Ok(())
}

fn job(number: u32) -> anyhow::Result<JobName> {
    format!("bench-{}", number % JOBS).parse().context("a name of ours")
}
