//! `fleetwright bench fleet`: what a server does with thousands of agents.
//!
//! Three processes: the server, the simulated agents, and this one, which asks and takes the
//! time. A step that fails leaves its figures `null` with the reason, and the next one begins.

mod fires;
mod load;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use fw_proto::api::NewInvitation;
use fw_proto::{Span, Timestamp};
use fw_rt::{Clock, Tasks};
use rand::RngExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::figures::Fleet;
use super::hosts::Hosts;
use super::machine;
use super::probe::Probe;
use super::process::Server;
use super::progress::Progress;
use crate::client::Client;

/// Open files of a server beside its agents: databases, logs, and those who ask.
const OTHER_FILES: u64 = 512;

/// A join string is good for so long: all agents use it in the first minutes.
const JOIN_TTL: Span = Span::from_secs(3600);

/// Memory is looked at so often until it stays level.
const MEMORY_LOOK: Duration = Duration::from_millis(500);

/// And no longer than this.
const MEMORY_LOOKS: u32 = 60;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How many agents.
    pub(crate) agents: u32,
    /// How long starts are counted.
    pub(crate) duration: Duration,
    /// How many jobs are due in one second.
    pub(crate) jobs: u32,
    /// How much output is shipped, in 10⁶ bytes.
    pub(crate) output_mb: u64,
    /// Where the server's files go.
    pub(crate) dir: PathBuf,
    /// A server that is there already.
    pub(crate) server: Option<Client>,
}

/// A benchmark under way.
struct Bench {
    options: Options,
    client: Client,
    server: Option<Server>,
    hosts: Hosts,
    /// What its hosts and jobs are called, and the value of the hosts' label `bench`.
    name: String,
    /// The server's memory before the first agent.
    empty: Option<u64>,
    progress: Progress,
    tasks: Tasks,
    clock: Clock,
    figures: Fleet,
}

/// Measures; `None` when `stop` came first. Either way a server that is not ours is left as it was.
///
/// # Errors
/// No server starts or answers, or no agents link.
pub(crate) async fn run(
    options: Options,
    stop: impl Future<Output = std::io::Result<&'static str>>,
) -> anyhow::Result<Option<Fleet>> {
    tokio::pin!(stop);
    let tasks = Tasks::new();
    let mut bench = tokio::select! {
        bench = Bench::start(options, &tasks) => bench?,
        stopped = &mut stop => return stopped.map(|_| None).context("wait for a signal"),
    };
    let measured = tokio::select! {
        measured = bench.measure() => measured.map(|()| true),
        stopped = &mut stop => stopped.map(|_| false).context("wait for a signal"),
    };
    let left = bench.leave().await;
    tasks.cancel();
    bench.progress.clear();
    let whole = measured?;
    left?;
    Ok(whole.then_some(bench.figures))
}

impl Bench {
    async fn start(mut options: Options, tasks: &Tasks) -> anyhow::Result<Self> {
        let mut figures = Fleet { agent_kind: "simulated, spool in memory", ..Fleet::default() };
        let asked = options.agents;
        options.agents = within_open_files(asked);
        if options.agents < asked {
            figures.why.insert("agents", format!(
                "{asked} agents were asked for, and the system allows a process only {} open files: raise the hard limit (`ulimit -Hn`)",
                u64::from(options.agents) + OTHER_FILES
            ));
        }
        figures.agents = options.agents;
        let progress = Progress::new();
        progress.step("starting a server");
        let (server, client) = match &options.server {
            Some(client) => (None, client.clone()),
            None => {
                let server = Server::start(&options.dir).await?;
                let client = server.client()?;
                (Some(server), client)
            }
        };
        let name = format!("bench-{:06x}-", rand::rng().random_range(0..1 << 24));
        let invitation = NewInvitation {
            uses: Some(options.agents),
            ttl: Some(JOIN_TTL),
            labels: [("bench".to_owned(), name.clone())].into(),
        };
        let join = client.invite(&invitation).await?.join;
        let empty = server.as_ref().and_then(Server::rss);
        let dir = server.as_ref().map_or(options.dir.as_path(), Server::dir);
        machine::describe(dir, &mut figures.cpu, &mut figures.disk_sync_us, &mut figures.why);
        let hosts = Hosts::start(options.agents, &join, &name, dir, tasks)?;
        let (tasks, clock) = (tasks.clone(), Clock::system());
        Ok(Self { options, client, server, hosts, name, empty, progress, tasks, clock, figures })
    }

    async fn measure(&mut self) -> anyhow::Result<()> {
        self.connect().await?;
        self.memory().await;
        self.fanout().await;
        self.starts().await;
        self.output().await;
        self.fires().await;
        self.reconnect().await;
        self.totals();
        self.figures.judge(self.options.jobs);
        Ok(())
    }

    /// Notes why figures are missing.
    fn because(&mut self, figures: &[&'static str], why: impl std::fmt::Display) {
        for figure in figures {
            self.figures.why.insert(figure, why.to_string());
        }
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        self.progress.step("agents join and link");
        let linked = self.hosts.all_linked(&self.progress, |_| true).await?;
        let (from, to) = linked.first_dial.zip(linked.all_since).context("nobody has dialled")?;
        let took = to.since(from).duration().as_secs_f64().max(0.001);
        self.figures.connect_per_s = Some(f64::from(self.options.agents) / took);
        Ok(())
    }

    /// The server's memory once all agents are linked and idle.
    async fn memory(&mut self) {
        let Some(server) = &self.server else {
            return self.because(
                &["rss_per_agent_bytes", "server_rss_bytes", "server_cpu_s"],
                "the server was not started here, so its process cannot be looked at",
            );
        };
        self.progress.step("memory of idle agents");
        let mut before = 0;
        for _ in 0..MEMORY_LOOKS {
            tokio::time::sleep(MEMORY_LOOK).await;
            let now = server.rss().unwrap_or_default();
            if now.abs_diff(before) < now / 1000 {
                break;
            }
            before = now;
        }
        self.figures.server_rss_bytes = server.rss();
        let grown = self
            .figures
            .server_rss_bytes
            .zip(self.empty)
            .map(|(now, empty)| now.saturating_sub(empty));
        self.figures.rss_per_agent_bytes =
            grown.map(|grown| grown / u64::from(self.options.agents.max(1)));
        if grown.is_none() {
            self.because(&["rss_per_agent_bytes", "server_rss_bytes"], machine::NO_PROC);
        }
    }

    /// Starts the server anew: how soon all agents are back, and how the API does meanwhile.
    async fn reconnect(&mut self) {
        let both = ["reconnect_all_s", "api_ms"];
        if self.server.is_none() {
            return self.because(&both, "a server that was not started here is not restarted");
        }
        self.progress.step("the server restarts and agents come back");
        match self.restart().await {
            Ok((took, probe)) => {
                self.figures.reconnect_all_s = Some(took);
                self.figures.api_ms = probe.found();
            }
            Err(error) => self.because(&both, format!("{error:#}")),
        }
    }

    async fn restart(&mut self) -> anyhow::Result<(f64, Probe)> {
        let server = self.server.as_mut().context("there is no server of our own")?;
        server.end().await?;
        let down = self.clock.now();
        server.spawn().await?;
        let ready = self.clock.now();
        let probe = Probe::start(&self.client, &self.tasks);
        let back =
            |status: &super::swarm::Status| status.all_since.is_some_and(|since| since >= down);
        let linked = self.hosts.all_linked(&self.progress, back).await?;
        let all: Timestamp = linked.all_since.context("not all are linked")?;
        Ok((all.since(ready).duration().as_secs_f64(), probe))
    }

    fn totals(&mut self) {
        let Some(server) = &self.server else { return };
        match server.cpu_time() {
            Some(time) => self.figures.server_cpu_s = Some(time.as_secs_f64()),
            None => self.because(&["server_cpu_s"], machine::NO_PROC),
        }
    }

    /// Takes from a server that is not ours what was put there.
    async fn leave(&mut self) -> anyhow::Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        self.progress.step("removing the simulated hosts and jobs");
        let jobs = self.delete_jobs().await;
        let hosts = self.remove_hosts().await;
        jobs.and(hosts).context(
            "not all that the benchmark made could be removed: see `jobs list` and `hosts list`",
        )
    }

    async fn remove_hosts(&self) -> anyhow::Result<()> {
        let mut removed = Ok(());
        for (done, host) in (0..).zip(self.client.hosts(Some(&self.selector()), None).await?) {
            self.progress.at(done, u64::from(self.options.agents));
            // One that cannot be removed keeps none of the others.
            removed = removed.and(self.client.remove_host(host.name.as_str()).await);
        }
        Ok(removed?)
    }

    /// Picks the simulated hosts and no others.
    fn selector(&self) -> String {
        format!("label:bench={}", self.name)
    }
}

/// How many of so many agents a server and a swarm can have; raises this process's limit, which those inherit.
pub(crate) fn within_open_files(agents: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = setrlimit(Resource::Nofile, raised).map_or(limit.current, |()| limit.maximum);
    let room = files.map_or(u64::MAX, |files| files.saturating_sub(OTHER_FILES));
    agents.min(u32::try_from(room).unwrap_or(u32::MAX)).max(1)
}
