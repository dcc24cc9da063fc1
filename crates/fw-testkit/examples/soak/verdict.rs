//! Whether what was seen levels off, and whether all was given back.

use std::fmt::Write as _;
use std::process::ExitStatus;
use std::time::Duration;

use crate::watch::{Process, Vitals};

/// Memory may rise by so much a minute in the second half. A leak of one kilobyte a run, at two or three
/// runs a second with jobs, is 150 KB a minute and more: it shows. What a server may keep, such as its caches
/// and the history of jobs that fire each second, is filled in the first half.
const SLOPE: u64 = 128 * 1024;

/// Below this, a difference says nothing: the allocator gives pages back in steps of this order.
const NOISE: u64 = 2 * 1024 * 1024;

/// Descriptors and tasks beyond those at rest that are no leak: pooled database connections, and the
/// connection by which this program asks.
const SPARE: u64 = 8;

/// Threads for blocking work come and go; the pool keeps a few more than it began with.
const SPARE_THREADS: u64 = 12;

/// Everything that is wrong.
pub(crate) fn judge(
    samples: &[Vitals],
    rest: &Vitals,
    end: &Vitals,
    time: Duration,
    server: Option<ExitStatus>,
) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(status) = server {
        faults.push(format!("the server has ended: {status}"));
    }
    for process in &rest.processes {
        faults.extend(rises(samples, process.name, time));
        match end.process(process.name) {
            Some(last) => faults.extend(kept(process, last)),
            None => faults.push(format!("{} has ended", process.name)),
        }
    }
    let mut back = |what: &str, rest: u64, end: u64, spare: u64| {
        if end > rest + spare {
            faults.push(format!("{what}: {rest} at rest, {end} at the end"));
        }
    };
    back("tasks of the server", rest.tasks, end.tasks, SPARE);
    back("connections", rest.connections, end.connections, 2);
    back("followers", rest.followers, end.followers, 0);
    back("runs under way", rest.runs_active, end.runs_active, 0);
    back("processes of the fleet", rest.fleet, end.fleet, 0);
    faults
}

/// Descriptors and threads that a process has kept.
fn kept(rest: &Process, end: &Process) -> Vec<String> {
    let name = rest.name;
    let mut faults = Vec::new();
    if end.fds > rest.fds + SPARE {
        faults.push(format!("{name} has {} descriptors, and had {} at rest", end.fds, rest.fds));
    }
    if end.threads > rest.threads + SPARE_THREADS {
        faults
            .push(format!("{name} has {} threads, and had {} at rest", end.threads, rest.threads));
    }
    faults
}

/// Compares the medians of the third and the last quarter: single samples lie.
fn rises(samples: &[Vitals], name: &str, time: Duration) -> Option<String> {
    let (third, last) = (quarter(samples, name, 2)?, quarter(samples, name, 3)?);
    let minutes = time.as_secs_f64() / 60.0 / 4.0;
    let allowed = NOISE.max((Duration::from_secs_f64(minutes).as_secs() + 1) * SLOPE / 60);
    let risen = last.saturating_sub(third);
    (risen > allowed).then(|| {
        format!(
            "memory of {name} does not level off: {} KiB more in the last quarter than in the third; {} KiB are \
             allowed ({} KiB a minute, or {} KiB as noise)",
            risen / 1024,
            allowed / 1024,
            SLOPE / 1024,
            NOISE / 1024,
        )
    })
}

/// The median of the memory of a process in a quarter of the samples, counted from 0.
fn quarter(samples: &[Vitals], name: &str, quarter: usize) -> Option<u64> {
    let (from, to) = (samples.len() * quarter / 4, samples.len() * (quarter + 1) / 4);
    let part = samples.get(from..to)?.iter();
    let mut rss: Vec<u64> = part.filter_map(|sample| Some(sample.process(name)?.rss)).collect();
    rss.sort_unstable();
    rss.get(rss.len() / 2).copied()
}

/// What was seen, a row a process.
pub(crate) fn table(samples: &[Vitals], rest: &Vitals, end: &Vitals) -> String {
    let mut page = format!(
        "\n{:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11} {:>13}\n",
        "process", "rest KiB", "Q1 KiB", "Q2 KiB", "Q3 KiB", "Q4 KiB", "end KiB", "fds", "threads"
    );
    for process in &rest.processes {
        let kib =
            |quarter_of| quarter(samples, process.name, quarter_of).map_or(0, |bytes| bytes / 1024);
        let last = end.process(process.name).unwrap_or(process);
        writeln!(
            page,
            "{:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11} {:>13}",
            process.name,
            process.rss / 1024,
            kib(0),
            kib(1),
            kib(2),
            kib(3),
            last.rss / 1024,
            format!("{} to {}", process.fds, last.fds),
            format!("{} to {}", process.threads, last.threads),
        )
        .expect("writing to memory");
    }
    let server = [
        ("tasks", rest.tasks, end.tasks),
        ("connections", rest.connections, end.connections),
        ("followers", rest.followers, end.followers),
        ("runs", rest.runs_active, end.runs_active),
        ("processes", rest.fleet, end.fleet),
    ];
    for (what, rest, end) in server {
        writeln!(page, "{what:<12} {rest} at rest, {end} at the end").expect("writing to memory");
    }
    page
}
