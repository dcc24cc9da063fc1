//! `fleetwright bench agent`: one real agent and real, short commands.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fw_proto::api::{Cancel, Command, NewInvitation, NewRun, OnFull, Run, RunState, TaskState};
use fw_proto::{RunId, Span, Timestamp};
use fw_rt::{Clock, Tasks};
use tokio::process::Child;
use tokio::time::Instant;

use super::figures::{Agent, Quantiles};
use super::machine;
use super::process::{self, Server};
use super::progress::Progress;
use crate::client::{Client, LogFilter, Patience, RunFilter, Signal, Started, follow};

/// Commands whose times are taken one by one.
const SINGLES: usize = 200;

/// Runs under way at once while starts are counted: so many of an agent's slots that none is empty
/// between two looks.
const AT_ONCE: usize = 256;

/// Between two looks at which runs have ended. To ask costs processor that the commands then lack: a
/// page of 512 runs takes milliseconds.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// How long the agent is watched at rest.
const REST: Duration = Duration::from_secs(10);

/// Everything that is waited for comes within this, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How long starts are counted.
    pub(crate) duration: Duration,
    /// Where the files of server and agent go.
    pub(crate) dir: PathBuf,
}

/// A benchmark under way. The agent ends before the server's directory goes.
struct Bench {
    agent: Child,
    client: Client,
    server: Server,
    options: Options,
    tasks: Tasks,
    clock: Clock,
    progress: Progress,
}

/// Measures.
///
/// # Errors
/// Server or agent do not start, or a command goes wrong.
pub(crate) async fn run(options: Options) -> anyhow::Result<Agent> {
    let tasks = Tasks::new();
    let bench = Bench::start(options, &tasks).await?;
    let figures = bench.measure().await;
    tasks.cancel();
    bench.progress.clear();
    figures
}

impl Bench {
    async fn start(options: Options, tasks: &Tasks) -> anyhow::Result<Self> {
        let progress = Progress::new();
        progress.step("starting a server and an agent");
        let server = Server::start(&options.dir).await?;
        let client = server.client()?;
        let join = client.invite(&NewInvitation::default()).await?.join;
        let agent = agent(&server, &join)?;
        let (tasks, clock) = (tasks.clone(), Clock::system());
        let bench = Self { agent, client, server, options, tasks, clock, progress };
        let begun = Instant::now();
        while bench.client.server_info().await?.hosts_online == 0 {
            ensure!(begun.elapsed() < PATIENCE, "the agent does not link");
            tokio::time::sleep(process::LOOK).await;
        }
        Ok(bench)
    }

    async fn measure(&self) -> anyhow::Result<Agent> {
        let pid = self.agent.id().context("the agent has ended")?;
        let mut figures = Agent::default();
        let dir = self.server.dir();
        machine::describe(dir, &mut figures.cpu, &mut figures.disk_sync_us, &mut figures.why);
        self.progress.step("commands one by one");
        figures.request_to_exec_ms = self.one_by_one().await?;
        self.progress.step("first output of commands");
        figures.request_to_output_ms = self.first_outputs().await?;
        self.progress.step("memory of a command that runs");
        figures.supervisor_bytes = self.supervisor(pid).await?;
        self.progress.step("as many commands as there can be");
        figures.starts_per_s = Some(self.starts().await?);
        self.progress.step("the agent at rest");
        let before = machine::cpu_time(pid);
        tokio::time::sleep(REST).await;
        let spent =
            machine::cpu_time(pid).zip(before).map(|(now, before)| now.saturating_sub(before));
        figures.agent_rest_cpu_percent =
            spent.map(|spent| 100.0 * spent.as_secs_f64() / REST.as_secs_f64());
        figures.agent_rss_bytes = machine::rss(pid);
        // Nothing runs any more, so its only child is that.
        figures.fork_server_bytes =
            machine::children(pid).first().copied().and_then(machine::private);
        for (figure, missing) in [
            ("supervisor_bytes", figures.supervisor_bytes.is_none()),
            ("agent_rss_bytes", figures.agent_rss_bytes.is_none()),
            ("fork_server_bytes", figures.fork_server_bytes.is_none()),
            ("agent_rest_cpu_percent", figures.agent_rest_cpu_percent.is_none()),
        ] {
            if missing {
                figures.why.insert(figure, machine::NO_PROC.to_owned());
            }
        }
        figures.judge();
        Ok(figures)
    }

    /// From the request to the start of the process, by the clock that both share.
    async fn one_by_one(&self) -> anyhow::Result<Option<Quantiles>> {
        let mut times = Vec::with_capacity(SINGLES);
        for done in 0..SINGLES {
            self.progress.at(done as u64, SINGLES as u64);
            let asked = self.clock.now();
            let id = self.client.begin(&request(&["true"])).await?.id;
            let run = self.end_of(id).await?;
            let started = run.tasks.first().and_then(|task| task.started_at);
            times.push(milliseconds(asked, started.context("a command without start")?));
        }
        Ok(Quantiles::of(times))
    }

    /// From the request to the first byte at a follower.
    async fn first_outputs(&self) -> anyhow::Result<Option<Quantiles>> {
        let mut times = Vec::with_capacity(SINGLES);
        for done in 0..SINGLES {
            self.progress.at(done as u64, SINGLES as u64);
            let begun = Instant::now();
            let run = self.client.begin(&request(&["echo", "here"])).await?.id;
            let what = Started::Logs { run, filter: LogFilter::default(), follow: true };
            let mut signals = follow(&self.tasks, &self.client, what, Patience::FirstMustWork);
            loop {
                match signals.recv().await {
                    Some(Signal::Event(_)) => break,
                    Some(Signal::Lost(_) | Signal::Back) => {}
                    Some(Signal::Failed(error)) => return Err(error.into()),
                    Some(Signal::End) | None => anyhow::bail!("a command without output"),
                }
            }
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            self.end_of(run).await?;
        }
        Ok(Quantiles::of(times))
    }

    /// Memory of the supervisor of a command that runs.
    async fn supervisor(&self, agent: u32) -> anyhow::Result<Option<u64>> {
        let before = supervisors(agent);
        let id = self.client.begin(&request(&["sleep", "60"])).await?.id;
        let begun = Instant::now();
        while self.client.run(id).await?.tasks.first().map(|task| task.state)
            != Some(TaskState::Running)
        {
            ensure!(begun.elapsed() < PATIENCE, "a command does not start");
            tokio::time::sleep(process::LOOK).await;
        }
        let supervisor = supervisors(agent).into_iter().find(|pid| !before.contains(pid));
        let bytes = supervisor.and_then(machine::private);
        self.client.cancel(id, &Cancel::default()).await?;
        while !self.client.run(id).await?.summary.state.is_final() {
            ensure!(begun.elapsed() < PATIENCE, "a command does not end");
            tokio::time::sleep(process::LOOK).await;
        }
        Ok(bytes)
    }

    /// Commands started and ended in a second, with all slots of the agent in use and others waiting.
    async fn starts(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let until = begun + self.options.duration;
        let (mut open, mut ended) = (BTreeSet::new(), 0_u64);
        loop {
            if Instant::now() < until {
                let request = request(&["true"]);
                let more = (open.len()..AT_ONCE).map(|_| self.client.begin(&request));
                let more = futures_util::future::try_join_all(more.collect::<Vec<_>>()).await?;
                open.extend(more.into_iter().map(|run| run.id));
            }
            for run in self.client.runs(&RunFilter::default(), Some(2 * AT_ONCE)).await? {
                if run.state.is_final() && open.remove(&run.id) {
                    ensure!(run.state == RunState::Succeeded, "run {} went wrong", run.id);
                    ended += 1;
                }
            }
            if open.is_empty() && Instant::now() >= until {
                return Ok(ended as f64 / begun.elapsed().as_secs_f64());
            }
            ensure!(begun.elapsed() < self.options.duration + PATIENCE, "commands do not end");
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    async fn end_of(&self, id: RunId) -> anyhow::Result<Run> {
        let what = Started::Events(id);
        let mut signals = follow(&self.tasks, &self.client, what, Patience::FirstMustWork);
        while let Some(signal) = signals.recv().await {
            match signal {
                Signal::End => break,
                Signal::Failed(error) => return Err(error.into()),
                Signal::Event(_) | Signal::Lost(_) | Signal::Back => {}
            }
        }
        let run = self.client.run(id).await?;
        let state = run.tasks.first().map(|task| task.state);
        ensure!(state == Some(TaskState::Succeeded), "run {id} went wrong: {state:?}");
        Ok(run)
    }
}

/// Starts a real agent of this binary.
fn agent(server: &Server, join: &str) -> anyhow::Result<Child> {
    let dir = server.dir();
    let file = dir.join("join");
    std::fs::write(&file, join).context("write the join string")?;
    let log = std::fs::File::create(dir.join("agent.log")).context("open the agent's log")?;
    let mut args = ["agent", "run", "--name", "bench", "--join-file"].map(Into::into).to_vec();
    args.extend([file.into(), "--state-dir".into(), dir.join("state").into()]);
    let mut command = process::command(dir, &args)?;
    command.stdout(log.try_clone().context("open the agent's log")?).stderr(log);
    command.spawn().context("start the agent")
}

/// The supervisors of an agent: forked by a child of its own, or children themselves.
fn supervisors(agent: u32) -> Vec<u32> {
    let children = machine::children(agent);
    let below = children.iter().flat_map(|child| machine::children(*child));
    below.collect::<Vec<_>>().into_iter().chain(children).collect()
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_millis() as f64
}

fn request(words: &[&str]) -> NewRun {
    NewRun {
        hosts: "*".to_owned(),
        command: Command::Argv(words.iter().copied().map(str::to_owned).collect()),
        user: None,
        cwd: None,
        env: std::collections::BTreeMap::new(),
        timeout: None,
        kill_after: None,
        start_within: Some(Span::from_secs(60)),
        offline: None,
        parallel: None,
        max_failures: None,
        spread: None,
        on_full: OnFull::Block,
        nice: None,
        umask: None,
        armed: None,
    }
}
