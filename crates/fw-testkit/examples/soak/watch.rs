//! Looks at processes from outside, and at the server's own figures, every few seconds.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fw_testkit::fleet::Fleet;
use serde_json::json;
use tokio::time::Instant;

use crate::load::Counts;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(2);

/// Samples between two lines of progress.
const TELL_EVERY: usize = 5;

/// One process at one moment (`proc(5)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) name: &'static str,
    /// Resident memory, bytes.
    pub(crate) rss: u64,
    pub(crate) fds: u64,
    pub(crate) threads: u64,
}

impl Process {
    /// `None` when the process is gone.
    fn of(name: &'static str, pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            value.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Self {
            name,
            rss: field("VmRSS:")? * 1024,
            fds: u64::try_from(fds).ok()?,
            threads: field("Threads:")?,
        })
    }
}

/// Everything that is watched, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vitals {
    /// Seconds since the load began.
    pub(crate) at: f64,
    pub(crate) processes: Vec<Process>,
    /// The server's own count of its tasks, connections and followers.
    pub(crate) tasks: u64,
    pub(crate) connections: u64,
    pub(crate) followers: u64,
    pub(crate) runs_active: u64,
    pub(crate) hosts_online: u64,
    /// Processes of the fleet, commands and their supervisors included.
    pub(crate) fleet: u64,
}

impl Vitals {
    pub(crate) async fn of(fleet: &Fleet, watched: &[(&'static str, u32)]) -> Self {
        let page = fleet.metrics().await.unwrap_or_default();
        let figure = |name: &str| figure(&page, name).unwrap_or_default();
        Self {
            at: 0.0,
            processes: watched.iter().filter_map(|(name, pid)| Process::of(name, *pid)).collect(),
            tasks: figure("fleetwright_async_tasks"),
            connections: figure("fleetwright_http_connections"),
            followers: figure("fleetwright_sse_clients"),
            runs_active: figure("fleetwright_runs_active"),
            hosts_online: figure("fleetwright_hosts_online"),
            fleet: u64::try_from(fleet.processes()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }

    fn line(&self) -> serde_json::Value {
        let processes = self.processes.iter().map(|process| {
            json!({"name": process.name, "rss": process.rss, "fds": process.fds, "threads": process.threads})
        });
        json!({
            "at_s": self.at, "processes": processes.collect::<Vec<_>>(), "tasks": self.tasks,
            "connections": self.connections, "followers": self.followers, "runs_active": self.runs_active,
            "hosts_online": self.hosts_online, "fleet_processes": self.fleet,
        })
    }
}

/// A figure of the page of metrics.
pub(crate) fn figure(page: &str, name: &str) -> Option<u64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    // Gauges are written as the floating numbers that they are, and hold whole ones.
    value.trim().split('.').next()?.parse().ok()
}

/// Takes samples and writes them down.
pub(crate) struct Sampler {
    path: PathBuf,
    file: File,
    watched: Vec<(&'static str, u32)>,
    samples: Vec<Vitals>,
}

impl Sampler {
    pub(crate) fn create(
        directory: &Path,
        watched: Vec<(&'static str, u32)>,
    ) -> std::io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join("samples.jsonl");
        Ok(Self { file: File::create(&path)?, path, watched, samples: Vec::new() })
    }

    pub(crate) fn samples(&self) -> &[Vitals] {
        &self.samples
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Samples until the time is up.
    pub(crate) async fn run(&mut self, fleet: &Fleet, time: Duration, counts: &Counts) {
        let began = Instant::now();
        let mut tick = tokio::time::interval(EVERY);
        while began.elapsed() < time {
            tick.tick().await;
            let mut now = Vitals::of(fleet, &self.watched).await;
            now.at = began.elapsed().as_secs_f64();
            // A disk that is full ends the soak's record, not the soak.
            writeln!(self.file, "{}", now.line()).ok();
            if self.samples.len().is_multiple_of(TELL_EVERY) {
                tell(&now, time, counts);
            }
            self.samples.push(now);
        }
    }
}

fn tell(now: &Vitals, time: Duration, counts: &Counts) {
    let server = now.process("server");
    let (rss, fds, threads) =
        server.map_or((0, 0, 0), |server| (server.rss / 1024, server.fds, server.threads));
    eprintln!(
        "{:>5.0} of {} s: server {rss} KiB, {fds} fds, {threads} threads, {} tasks, {} connections, {} followers; \
         {} hosts online, {} runs begun, {} under way",
        now.at,
        time.as_secs(),
        now.tasks,
        now.connections,
        now.followers,
        now.hosts_online,
        counts.runs.get(),
        now.runs_active,
    );
}
