//! A soak: a real server and real agents under a load that comes and goes, watched for what creeps.
//!
//! `cargo xtask soak` builds the binary and runs this. Arguments: the binary, minutes, and the directory
//! for the samples. It exits 1 when memory does not level off, or when anything is not given back at the end.

mod load;
mod verdict;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fw_testkit::fleet::{Fleet, PATIENCE, wait_for};
use load::Load;
use watch::{Sampler, Vitals};

/// Agents that are never stopped: only their links break. Their memory is watched too.
const STEADY: [&str; 3] = ["steady1", "steady2", "steady3"];

/// Agents that come and go.
const FLEETING: [&str; 3] = ["fleeting1", "fleeting2", "fleeting3"];

/// After the load, so long until threads that wait for work (10 s) and idle connections (30 s) are gone.
const CALM: Duration = Duration::from_secs(45);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [binary, minutes, directory] = args.as_slice() else {
        eprintln!("usage: soak BINARY MINUTES DIRECTORY (cargo xtask soak runs it)");
        return ExitCode::from(2);
    };
    let Some(minutes) = minutes.parse::<u64>().ok().filter(|minutes| *minutes > 0) else {
        eprintln!("soak: {minutes:?} is no number of minutes");
        return ExitCode::from(2);
    };
    // The fleet's processes run in directories of their own.
    let Ok(binary) = std::fs::canonicalize(binary) else {
        eprintln!("soak: there is no {binary}");
        return ExitCode::from(2);
    };
    if soak(&binary.display().to_string(), Duration::from_secs(minutes * 60), Path::new(directory))
        .await
    {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether all was as it should be.
async fn soak(binary: &str, time: Duration, directory: &Path) -> bool {
    let jobs = tempfile::tempdir().expect("a temporary directory");
    let jobs_dir = jobs.path().display().to_string();
    let args = ["--ping-every", "2s", "--handshake-rate", "10000", "--jobs", &jobs_dir];
    let mut fleet = Fleet::start_with(binary, &args).await;
    let mut steady = Vec::new();
    let mut fleeting = Vec::new();
    for name in STEADY {
        steady.push(fleet.agent(name).await);
    }
    for name in FLEETING {
        fleeting.push(fleet.agent(name).await);
    }
    let mut watched = vec![("server", fleet.server.pid().expect("it runs"))];
    let pids = steady.iter().map(|agent| agent.process.pid().expect("it runs"));
    watched.extend(STEADY.into_iter().zip(pids));
    // One run of each kind, so that what is made once is there before the count of what rests.
    drop(fleet.run_shell("*", &[], "echo warm").await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rest = Vitals::of(&fleet, &watched).await;

    let mut sampler = Sampler::create(directory, watched.clone()).expect("a file for samples");
    let load = Load::new(&fleet, jobs.path(), time);
    tokio::join!(load.run(&mut fleeting), sampler.run(&fleet, time, load.counts()));
    let counts = load.into_counts();

    eprintln!("the load has ended; waiting {} s for calm", CALM.as_secs());
    fleet.proxy.resume();
    for name in STEADY.into_iter().chain(FLEETING) {
        fleet.online(name).await;
    }
    wait_for("the end of all runs", 2 * PATIENCE, async || {
        (watch::figure(&fleet.metrics().await?, "fleetwright_runs_active")? == 0).then_some(())
    })
    .await;
    tokio::time::sleep(CALM).await;
    let end = Vitals::of(&fleet, &watched).await;
    let faults = verdict::judge(sampler.samples(), &rest, &end, time, fleet.server.ended());
    eprint!("{}", verdict::table(sampler.samples(), &rest, &end));
    eprintln!(
        "{} runs, {} links cut, {} agents stopped or killed; samples: {}",
        counts.runs.get(),
        counts.cuts.get(),
        counts.ends.get(),
        sampler.path().display()
    );
    if time < verdict::JUDGED_FROM {
        eprintln!(
            "memory was not judged: that takes {} minutes, until the store's caches are full",
            verdict::JUDGED_FROM.as_secs() / 60
        );
    }
    faults.iter().for_each(|fault| eprintln!("FAULT: {fault}"));
    if faults.is_empty() {
        eprintln!("all was given back");
    }
    faults.is_empty()
}
