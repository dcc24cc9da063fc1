//! `fleetwright bench api`: a server with a history, and many browsers that look on.
//!
//! The store is filled before the server starts on it. Then lists are asked for, one after the other; then viewers
//! follow hosts and runs as pages do, and hosts change: what a viewer costs, and how late it hears of it.

mod fill;
mod viewers;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use fw_rt::Tasks;
use serde::Serialize;
use tokio::time::Instant;

use super::figures::{Bar, Quantiles, Why, page, short};
use super::machine;
use super::process::Server;
use super::progress::Progress;
use crate::output::bytes;

/// How often each list is asked for.
const QUESTIONS: usize = 200;

/// A page of a list is to be there in this time, at a history as large as the one below.
const LIST_MS: f64 = 20.0;

/// From which history on the bar counts as reached.
const BAR_HISTORY: History = History { hosts: 1000, runs: 10_000, ledger: 1_000_000 };

/// What a viewer may cost the server: a connection of its own has 16 KiB of buffers.
const VIEWER_BYTES: f64 = 64.0 * 1024.0;

/// How late a viewer may hear of a change, of which a tenth of a second is on purpose.
const LAG_MS: f64 = 1000.0;

/// What a server has behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct History {
    pub(crate) hosts: u32,
    pub(crate) runs: u32,
    pub(crate) ledger: u32,
}

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) viewers: u32,
    pub(crate) history: History,
    /// Where files go.
    pub(crate) dir: PathBuf,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) viewers: u32,
    pub(crate) hosts: u32,
    pub(crate) runs: u32,
    pub(crate) ledger_rows: u32,
    /// Milliseconds from question to answer, by list.
    pub(crate) lists_ms: BTreeMap<&'static str, Quantiles>,
    /// Of the slowest list.
    pub(crate) list_p99_ms: Option<f64>,
    pub(crate) rss_per_viewer_bytes: Option<u64>,
    /// From the request that changes a host to each viewer.
    pub(crate) lag_ms: Option<Quantiles>,
    pub(crate) disk_sync_us: Option<u64>,
    pub(crate) cpu: Option<String>,
    pub(crate) why: Why,
    pub(crate) bars: Vec<Bar>,
}

/// Measures.
///
/// # Errors
/// The server does not start, or does not do what it should.
pub(crate) async fn run(options: Options) -> anyhow::Result<Figures> {
    let (progress, tasks) = (Progress::new(), Tasks::new());
    let figures = measure(&options, &progress, &tasks).await;
    tasks.cancel();
    progress.clear();
    figures
}

async fn measure(options: &Options, progress: &Progress, tasks: &Tasks) -> anyhow::Result<Figures> {
    let history = options.history;
    let mut figures = Figures {
        viewers: options.viewers,
        hosts: history.hosts,
        runs: history.runs,
        ledger_rows: history.ledger,
        ..Figures::default()
    };
    progress.step("starting a server");
    let mut server = Server::start(&options.dir).await?;
    machine::describe(server.dir(), &mut figures.cpu, &mut figures.disk_sync_us, &mut figures.why);
    server.end().await?;
    progress.step("filling its store");
    fill::fill(&server.dir().join("data"), history).await.context("fill the store")?;
    server.spawn().await?;

    progress.step("lists");
    figures.lists_ms = lists(&server).await?;
    figures.list_p99_ms = figures.lists_ms.values().map(|list| list.p99).reduce(f64::max);

    progress.step("viewers");
    let seen = viewers::watch(&server, options.viewers, progress, tasks).await?;
    figures.rss_per_viewer_bytes = seen.rss_per_viewer_bytes;
    figures.lag_ms = seen.lag_ms;
    if figures.rss_per_viewer_bytes.is_none() {
        figures.why.insert("rss_per_viewer_bytes", machine::NO_PROC.to_owned());
    }
    figures.judge(history);
    Ok(figures)
}

/// The lists of the API and of pages, as a person opens them.
const LISTS: &[(&str, &str)] = &[
    ("hosts", "/api/v1/hosts?limit=100"),
    ("hosts, selected", "/api/v1/hosts?limit=100&selector=label:site%3Da"),
    ("runs", "/api/v1/runs?limit=100"),
    ("runs, failed", "/api/v1/runs?limit=100&state=failed"),
    ("runs of a job", "/api/v1/runs?limit=100&job=bench-1"),
    ("runs of a host", "/api/v1/runs?limit=100&host=bench-1"),
    ("ledger", "/api/v1/jobs/bench-1/ledger?limit=100"),
    ("audit", "/api/v1/audit?limit=100"),
    ("rollouts", "/api/v1/rollouts?limit=100"),
    ("page of hosts", "/hosts"),
    ("page of hosts, selected", "/hosts?q=label:site%3Da"),
    ("page of a host", "/hosts/bench-1"),
    ("page of runs", "/runs"),
    ("page of runs of a job", "/runs?job=bench-1"),
    ("page of runs of a host", "/runs?host=bench-1"),
    ("page of jobs", "/jobs"),
    ("page of the audit", "/audit"),
    ("overview", "/"),
];

async fn lists(server: &Server) -> anyhow::Result<BTreeMap<&'static str, Quantiles>> {
    let http = reqwest::Client::builder().no_proxy().build().context("make a client")?;
    let token = server.token()?;
    let mut found = BTreeMap::new();
    for (name, path) in LISTS {
        let mut times = Vec::new();
        for _ in 0..QUESTIONS {
            let begun = Instant::now();
            let answer = http.get(format!("{}{path}", server.url())).bearer_auth(&token).send();
            let answer = answer.await.context("ask")?.error_for_status().context(*name)?;
            answer.bytes().await.context("read an answer")?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        found.extend(Quantiles::of(times).map(|list| (*name, list)));
    }
    Ok(found)
}

impl Figures {
    fn judge(&mut self, history: History) {
        let bar = |figure, bar, met| Bar { figure, bar, met };
        let whole = history.hosts >= BAR_HISTORY.hosts
            && history.runs >= BAR_HISTORY.runs
            && history.ledger >= BAR_HISTORY.ledger;
        let lists = self.list_p99_ms.map(|ms| ms <= LIST_MS).filter(|met| whole || !met);
        let memory = self.rss_per_viewer_bytes.map(|bytes| bytes as f64 <= VIEWER_BYTES);
        let lag = self.lag_ms.map(|lag| lag.p99 <= LAG_MS);
        self.bars = vec![
            bar("list_p99_ms", "at most 20 with 1,000 hosts, 10,000 runs, 1 M ledger rows", lists),
            bar("rss_per_viewer_bytes", "at most 64 KiB", memory),
            bar("lag_ms.p99", "at most 1,000", lag),
        ];
    }

    /// The page for people.
    pub(crate) fn page(&self) -> String {
        let quantiles = |q: Quantiles| format!("p50 {} ms, p99 {} ms", short(q.p50), short(q.p99));
        let history =
            format!("{} hosts, {} runs, {} ledger rows", self.hosts, self.runs, self.ledger_rows);
        let mut rows = vec![
            ("viewers", "viewers", Some(self.viewers.to_string())),
            ("history", "hosts", Some(history)),
        ];
        rows.extend(self.lists_ms.iter().map(|(name, q)| (*name, "lists_ms", Some(quantiles(*q)))));
        let slowest = self.list_p99_ms.map(|ms| format!("{} ms", short(ms)));
        rows.extend([
            ("slowest list's p99", "list_p99_ms", slowest),
            (
                "server's memory per viewer",
                "rss_per_viewer_bytes",
                self.rss_per_viewer_bytes.map(bytes),
            ),
            ("a change to each viewer", "lag_ms.p99", self.lag_ms.map(quantiles)),
            ("disk sync", "disk_sync_us", self.disk_sync_us.map(|us| format!("{us} µs"))),
            ("processors", "cpu", self.cpu.clone()),
        ]);
        page(&rows, &self.why, &self.bars)
    }
}
