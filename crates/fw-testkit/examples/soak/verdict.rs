//! Whether what was seen levels off, and whether all was given back.

use std::fmt::Write as _;
use std::process::ExitStatus;
use std::time::Duration;

use crate::watch::{Process, Vitals};

/// Memory may rise by so many bytes a minute in the second half. The load makes about 330 runs a minute,
/// fires of jobs included: a leak of a kilobyte a run shows.
const SLOPE: u64 = 256 * 1024;

/// A shorter soak says nothing of memory: the store's caches (16 MiB for each of two writers, 4 MiB a reader)
/// are still filling, at some 8 MiB a minute, and must be full in the first half.
pub(crate) const JUDGED_FROM: Duration = Duration::from_secs(10 * 60);

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
    if time < JUDGED_FROM {
        return None;
    }
    let (third, last) = (quarter(samples, name, 2)?, quarter(samples, name, 3)?);
    let risen = last.saturating_sub(third);
    let a_minute = risen * 60 * 4 / time.as_secs().max(1);
    (a_minute > SLOPE).then(|| {
        format!(
            "memory of {name} does not level off: {risen} bytes more in the last quarter than in the third, which is \
             {a_minute} a minute; {SLOPE} are allowed"
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
