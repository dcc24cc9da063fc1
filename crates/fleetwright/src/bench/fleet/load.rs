//! Runs: one on all hosts, as many as there can be, and some with much output.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{bail, ensure};
use fw_proto::api::{Command, NewRun, Run, RunSummary, TaskState};
use fw_proto::{RunId, Span};
use tokio::time::Instant;

use super::Bench;
use crate::bench::figures::Fanout;
use crate::bench::swarm::spool::{self, Kind};
use crate::client::RunFilter;

/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(10);

/// Whatever was begun has ended by then, or something is wrong.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// Tasks that are under way at once while starts are counted: enough to keep a server busy.
const UNDER_WAY: u32 = 20_000;

/// And in how many runs at least and at most.
const RUNS: (u32, u32) = (2, 64);

/// Hosts that ship output at once.
const SHIPPING: u32 = 64;

impl Bench {
    /// One run on all hosts.
    pub(super) async fn fanout(&mut self) {
        self.progress.step("one run on all hosts");
        match self.reach_all().await {
            Ok(fanout) => self.figures.fanout = fanout,
            Err(error) => self.because(&["fanout"], format!("{error:#}")),
        }
    }

    async fn reach_all(&self) -> anyhow::Result<Fanout> {
        let begun = Instant::now();
        let id = self.client.begin(&self.request(nothing())).await?.id;
        let mut fanout = Fanout::default();
        loop {
            ensure!(begun.elapsed() < ENDS_WITHIN, "a run on all hosts does not end");
            let Some(run) = self.newest(id).await? else { bail!("the run is gone") };
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let waiting = |state| run.report.tasks.get(&state).copied().unwrap_or(0);
            self.progress.at(u64::from(ended(&run)), u64::from(run.report.total));
            if waiting(TaskState::Queued) + waiting(TaskState::Starting) == 0 {
                fanout.all_started_ms = fanout.all_started_ms.or(Some(ms));
            }
            if run.state.is_final() {
                fanout.all_durable_ms = Some(ms);
                succeeded(&run)?;
                return Ok(fanout);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The run as lists show it: small, however many hosts it has.
    async fn newest(&self, id: RunId) -> anyhow::Result<Option<RunSummary>> {
        let runs = self.client.runs(&RunFilter::default(), Some(8)).await?;
        Ok(runs.into_iter().find(|run| run.id == id))
    }

    /// As many starts as there can be, for as long as was asked for.
    pub(super) async fn starts(&mut self) {
        if self.options.duration.is_zero() {
            return self.because(&["task_starts_per_s"], "--duration 0");
        }
        self.progress.step("as many starts as there can be");
        match self.keep_starting().await {
            Ok(rate) => self.figures.task_starts_per_s = Some(rate),
            Err(error) => self.because(&["task_starts_per_s"], format!("{error:#}")),
        }
    }

    async fn keep_starting(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let until = begun + self.options.duration;
        let at_once = (UNDER_WAY / self.options.agents.max(1)).clamp(RUNS.0, RUNS.1) as usize;
        let (mut open, mut tasks) = (BTreeSet::new(), 0_u64);
        loop {
            while open.len() < at_once && Instant::now() < until {
                open.insert(self.client.begin(&self.request(nothing())).await?.id);
            }
            for run in self.client.runs(&RunFilter::default(), Some(2 * RUNS.1 as usize)).await? {
                if run.state.is_final() && open.remove(&run.id) {
                    succeeded(&run)?;
                    tasks += u64::from(run.report.total);
                }
            }
            if open.is_empty() && Instant::now() >= until {
                return Ok(tasks as f64 / begun.elapsed().as_secs_f64());
            }
            ensure!(
                begun.elapsed() < self.options.duration + ENDS_WITHIN,
                "runs do not end: {open:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn end_of(&self, id: RunId) -> anyhow::Result<RunSummary> {
        let begun = Instant::now();
        loop {
            ensure!(begun.elapsed() < ENDS_WITHIN, "run {id} does not end");
            if let Some(run) = self.newest(id).await?.filter(|run| run.state.is_final()) {
                succeeded(&run)?;
                return Ok(run);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Much output: log text, then what cannot be compressed.
    pub(super) async fn output(&mut self) {
        let both = ["output_mb_per_s", "output_random_mb_per_s"];
        if self.options.output_mb == 0 {
            return self.because(&both, "--output-mb 0");
        }
        for (kind, figure) in [(Kind::Text, both[0]), (Kind::Random, both[1])] {
            self.progress.step("output of commands");
            match self.ship(kind).await {
                Ok(rate) if kind == Kind::Text => self.figures.output_mb_per_s = Some(rate),
                Ok(rate) => self.figures.output_random_mb_per_s = Some(rate),
                Err(error) => self.because(&[figure], format!("{error:#}")),
            }
        }
    }

    async fn ship(&self, kind: Kind) -> anyhow::Result<f64> {
        let hosts = self.options.agents.min(SHIPPING);
        let each = self.options.output_mb * 1_000_000 / u64::from(hosts);
        let some = format!("{} and ({})", self.selector(), self.first(hosts));
        let request = |command| NewRun { hosts: some.clone(), ..self.request(command) };
        // The first run of a size is when the swarm makes it.
        let warm = self
            .client
            .begin(&NewRun { hosts: self.first(1), ..self.request(spool::command(kind, each)) })
            .await?
            .id;
        self.end_of(warm).await?;
        let begun = Instant::now();
        let id = self.client.begin(&request(spool::command(kind, each))).await?.id;
        let run = self.end_of(id).await?;
        let took = begun.elapsed().as_secs_f64();
        self.whole(id, each, run.report.total).await?;
        Ok((each * u64::from(hosts)) as f64 / 1e6 / took)
    }

    /// Checks that the server has every byte that it says it has.
    async fn whole(&self, id: RunId, each: u64, hosts: u32) -> anyhow::Result<()> {
        let Run { tasks, .. } = self.client.run(id).await?;
        let stored: u64 = tasks.iter().map(|task| task.stdout_bytes).sum();
        ensure!(
            stored == each * u64::from(hosts),
            "the server has {stored} bytes of {}",
            each * u64::from(hosts)
        );
        Ok(())
    }

    /// The first so many simulated hosts, as a selector.
    fn first(&self, hosts: u32) -> String {
        (0..hosts).map(|number| self.host(number)).collect::<Vec<_>>().join(" or ")
    }

    /// The name of a simulated host.
    pub(super) fn host(&self, number: u32) -> String {
        format!("{}{number:05}", self.name)
    }

    fn request(&self, command: Command) -> NewRun {
        NewRun {
            hosts: self.selector(),
            command,
            user: None,
            cwd: None,
            env: std::collections::BTreeMap::new(),
            timeout: None,
            kill_after: None,
            start_within: Some(Span::from_secs(300)),
            offline: None,
            parallel: None,
            max_failures: None,
            spread: None,
            on_full: fw_proto::api::OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        }
    }
}

/// A command that does nothing.
fn nothing() -> Command {
    Command::Argv(vec!["true".to_owned()])
}

fn ended(run: &RunSummary) -> u32 {
    run.report.tasks.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum()
}

/// A figure counts only when all went well.
fn succeeded(run: &RunSummary) -> anyhow::Result<()> {
    let tasks = &run.report.tasks;
    let well = tasks.get(&TaskState::Succeeded).copied().unwrap_or(0);
    ensure!(well == run.report.total, "run {} went wrong: {tasks:?}", run.id);
    Ok(())
}
