//! Fills a data directory as years of use would, and says how long a server's start and its lists
//! take then: `fill DIR RUNS`. For measurements only; with 0 runs it measures what is there.

use std::path::Path;

use fw_proto::api::RunState;
use fw_rt::Clock;
use fw_store::conformance::crowd;
use fw_store::conformance::fixture::job;
use fw_store::{Error, RunQuery, Store};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(dir), Some(runs)) = (words.next(), words.next()) else {
        anyhow::bail!("usage: fill DIR RUNS");
    };
    let (dir, runs) = (Path::new(&dir), runs.parse()?);
    if runs > 0 {
        let store = Store::open(dir, Clock::system()).await?;
        let begin = Instant::now();
        crowd::fill(&store, runs).await?;
        println!("{runs} runs in {:?}, {:?}", begin.elapsed(), store.size().await?);
        store.close().await;
    }
    let begin = Instant::now();
    let store = Store::open(dir, Clock::system()).await?;
    println!("open {:?}", begin.elapsed());
    timed("unfinished", store.unfinished()).await?;
    timed("tokens", store.tokens()).await?;
    timed("jobs", store.jobs()).await?;
    timed("last_fires", store.last_fires()).await?;
    timed("pending_fires", store.pending_fires()).await?;
    timed("last_alive", store.last_alive()).await?;
    println!("all of it {:?}", begin.elapsed());
    lists(&store).await?;
    store.close().await;
    Ok(())
}

async fn timed<T>(what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let begin = Instant::now();
    let done = work.await;
    println!("{what} {:?}", begin.elapsed());
    done
}

async fn lists(store: &Store) -> Result<(), Error> {
    let all = RunQuery { limit: 100, ..RunQuery::default() };
    let of = Some(job("job7"));
    let host = || "h1".parse().ok();
    timed("runs", store.runs(all.clone())).await?;
    timed("runs of a job", store.runs(RunQuery { job: of.clone(), ..all.clone() })).await?;
    let failed = RunQuery { state: Some(RunState::Failed), ..all.clone() };
    timed("failed runs", store.runs(failed.clone())).await?;
    let none = RunQuery { state: Some(RunState::Cancelled), job: of.clone(), ..all.clone() };
    timed("cancelled runs of a job, none", store.runs(none)).await?;
    timed("failed runs of a job, none", store.runs(RunQuery { job: of, ..failed })).await?;
    timed("runs on a host", store.runs(RunQuery { host: host(), ..all.clone() })).await?;
    let failed = RunQuery { host: host(), state: Some(RunState::Failed), ..all };
    timed("failed runs on a host", store.runs(failed)).await?;
    timed("ledger", store.ledger(&job("job7"), None, 100)).await?;
    timed("last_runs", store.last_runs((0..50).map(|n| job(&format!("job{n}"))).collect())).await?;
    Ok(())
}
