//! Runs simulated worlds: one to be read, or many until a rule is broken. `cargo xtask sim` calls it.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fw_testkit::sim::{self, Report};

const USAGE: &str = "\
cargo xtask sim [--seeds A..B | --forever [--from A] | --seed N [--all]]

  --seeds A..B   runs these worlds (0..5000 when nothing is said)
  --forever      runs one world after the other until a rule is broken
  --seed N       runs one world and shows what happened: the end of it, or all with --all
";

/// Lines of a history that are shown unless all are asked for.
const LAST: usize = 200;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Panics are broken rules, told with their seed.
    std::panic::set_hook(Box::new(|_| {}));
    let number = |text: &str| text.parse::<u64>().ok();
    match args.as_slice() {
        [] => many(0, 5000),
        ["--seed", seed] if let Some(seed) = number(seed) => one(seed, LAST),
        ["--seed", seed, "--all"] if let Some(seed) = number(seed) => one(seed, usize::MAX),
        ["--forever"] => many(0, u64::MAX),
        ["--forever", "--from", first] if let Some(first) = number(first) => many(first, u64::MAX),
        ["--seeds", range]
            if let Some((first, end)) = range.split_once("..")
                && let (Some(first), Some(end)) = (number(first), number(end)) =>
        {
            many(first, end)
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Shows one world.
fn one(seed: u64, last: usize) -> ExitCode {
    let report = sim::run(seed, true);
    let hidden = report.lines.len().saturating_sub(last);
    if hidden > 0 {
        println!("({hidden} lines before; --all shows them)");
    }
    let mut out = std::io::stdout().lock();
    for line in report.lines.iter().skip(hidden) {
        // Whoever reads may have seen enough.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    drop(out);
    println!("seed {seed}: {} events, hash {:016x}", report.events, report.hash);
    verdict(&report)
}

fn verdict(report: &Report) -> ExitCode {
    match &report.broken {
        None => {
            println!("every rule was kept");
            ExitCode::SUCCESS
        }
        Some(broken) => {
            println!("seed {} breaks {:?}: {}", report.seed, broken.rule, broken.how);
            ExitCode::FAILURE
        }
    }
}

/// Runs worlds on all cores, and stops at the first that breaks a rule.
fn many(first: u64, end: u64) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, done, stop) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let begun = tokio::time::Instant::now();
    let rate = || done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64().max(0.001);
    let broken = std::thread::scope(|scope| {
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return None;
                }
                let report = sim::run(seed, false);
                if report.broken.is_some() {
                    stop.store(true, Ordering::Relaxed);
                    return Some(report);
                }
                let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                if count.is_multiple_of(500) {
                    eprintln!("{count} worlds, {:.0}/s", rate());
                }
            }
            None
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let found = workers.into_iter().filter_map(|worker| worker.join().ok().flatten());
        found.min_by_key(|report| report.seed)
    });
    let (count, rate) = (done.load(Ordering::Relaxed), rate());
    println!(
        "{count} worlds in {:.1?}, {rate:.0}/s",
        Duration::from_secs_f64(count as f64 / rate.max(0.001))
    );
    let Some(report) = broken else {
        println!("every rule was kept");
        return ExitCode::SUCCESS;
    };
    let outcome = verdict(&report);
    println!("`cargo xtask sim --seed {}` shows what happened", report.seed);
    outcome
}
