//! `fleetwright bench saltpeter`: a server of the dialect and simulated wrappers, all of one run.
//!
//! In the place of `salt` is a script that says that all minions are there and keeps the environment that
//! wrappers would be started with. Each wrapper is a connection in this process that says what the
//! original says, with one output under way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use fw_proto::RunId;
use fw_proto::api::{Command, NewRun, OnFull, Run};
use fw_rt::Tasks;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::figures::{Quantiles, Wrappers};
use super::machine;
use super::process::{self, Server};
use super::progress::Progress;
use crate::client::Client;
use crate::wrapper::{Whose, Wire};

/// Connections that are being opened at once: as many as the kernel's queue of a listener holds.
const OPENING: usize = 128;

/// How long server and wrappers are watched at rest.
const REST: Duration = Duration::from_secs(10);

/// As the original: a sign of life every five seconds.
const BEAT: Duration = Duration::from_secs(5);

/// An answer that takes longer is counted as none.
const ANSWER: Duration = Duration::from_secs(30);

/// Everything that is waited for comes within this, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of an output.
const OUTPUT: usize = 100;

const SCRIPT: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
case "$*" in
*test.ping*) cat ping.json ;;
*grains.items*) echo '{}' ;;
*)
    for argument in "$@"; do
        case $argument in env=*) printf '%s' "${argument#env=}" > "env.$$" && mv "env.$$" env.json ;; esac
    done
    echo '{}' ;;
esac
"#;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How many wrappers.
    pub(crate) wrappers: u32,
    /// How long output is sent.
    pub(crate) duration: Duration,
    /// Where files go.
    pub(crate) dir: PathBuf,
}

/// Measures.
///
/// # Errors
/// The server does not start, or does not do what it should.
pub(crate) async fn run(options: Options) -> anyhow::Result<Wrappers> {
    let progress = Progress::new();
    let tasks = Tasks::new();
    let figures = measure(&options, &progress, &tasks).await;
    tasks.cancel();
    progress.clear();
    figures
}

async fn measure(
    options: &Options,
    progress: &Progress,
    tasks: &Tasks,
) -> anyhow::Result<Wrappers> {
    let mut figures = Wrappers { wrappers: options.wrappers, ..Wrappers::default() };
    progress.step("starting a server");
    let server = Server::start_with(&options.dir, |dir| prepare(dir, options.wrappers)).await?;
    machine::describe(server.dir(), &mut figures.cpu, &mut figures.disk_sync_us, &mut figures.why);
    let client = server.client()?;
    let begun = Instant::now();
    while client.server_info().await?.hosts_online < u64::from(options.wrappers) {
        ensure!(begun.elapsed() < PATIENCE, "not all minions are there");
        tokio::time::sleep(process::LOOK).await;
    }
    let before = server.rss();
    let id = client.begin(&request()).await?.id;
    let (url, instance) = told(server.dir()).await?;

    progress.step("wrappers connect");
    let begun = Instant::now();
    let open = Arc::new(Semaphore::new(OPENING));
    let opening = (0..options.wrappers).map(|number| {
        let whose = Whose { instance: instance.clone(), machine: name(number) };
        Wrapper::connect(url.clone(), whose, Arc::clone(&open))
    });
    let opening = opening.map(|connecting| tasks.spawn("wrapper", connecting));
    let mut wrappers = Vec::new();
    for connecting in opening.collect::<Vec<_>>() {
        let wrapper = connecting.await.context("a wrapper")?;
        wrappers.push(wrapper.context("the benchmark is stopping")??);
    }
    figures.connect_per_s = Some(f64::from(options.wrappers) / begun.elapsed().as_secs_f64());
    let memory = || {
        let more = server.rss().zip(before).map(|(now, before)| now.saturating_sub(before));
        more.map(|more| more / u64::from(options.wrappers.max(1)))
    };
    figures.rss_per_wrapper_bytes = memory();

    progress.step("output");
    let spent = server.cpu_time();
    let until = Instant::now() + options.duration;
    let begun = Instant::now();
    let done = in_parallel(tasks, wrappers, move |wrapper| wrapper.write(until)).await?;
    let took = begun.elapsed().as_secs_f64();
    let (mut wrappers, mut times) = (Vec::new(), Vec::new());
    for (wrapper, answered) in done {
        wrappers.push(wrapper);
        times.extend(answered);
    }
    let messages = times.len() as f64;
    figures.messages_per_s = Some(messages / took);
    figures.ack_ms = Quantiles::of(times);
    let spent = server.cpu_time().zip(spent).map(|(now, before)| now.saturating_sub(before));
    figures.cpu_us_per_message = spent.map(|spent| spent.as_secs_f64() * 1e6 / messages.max(1.0));
    figures.rss_per_busy_wrapper_bytes = memory();

    progress.step("at rest");
    let spent = server.cpu_time();
    let until = Instant::now() + REST;
    let wrappers = in_parallel(tasks, wrappers, move |wrapper| wrapper.rest(until)).await?;
    let spent = server.cpu_time().zip(spent).map(|(now, before)| now.saturating_sub(before));
    figures.rest_cpu_percent = spent.map(|spent| 100.0 * spent.as_secs_f64() / REST.as_secs_f64());

    progress.step("the end of all");
    let begun = Instant::now();
    let acked = in_parallel(tasks, wrappers, Wrapper::complete).await?;
    let run = end_of(&client, id).await?;
    figures.complete_all_s = Some(begun.elapsed().as_secs_f64());
    let stored: u64 = run.tasks.iter().map(|task| task.stdout_bytes).sum();
    let acked: u64 = acked.iter().sum::<u64>() * OUTPUT as u64;
    figures.lost_messages = acked.abs_diff(stored) / OUTPUT as u64;
    for (figure, missing) in [
        ("cpu_us_per_message", figures.cpu_us_per_message.is_none()),
        ("rest_cpu_percent", figures.rest_cpu_percent.is_none()),
        ("rss_per_wrapper_bytes", figures.rss_per_wrapper_bytes.is_none()),
        ("rss_per_busy_wrapper_bytes", figures.rss_per_busy_wrapper_bytes.is_none()),
    ] {
        if missing {
            figures.why.insert(figure, machine::NO_PROC.to_owned());
        }
    }
    figures.judge();
    Ok(figures)
}

/// Does the same with each wrapper at once.
async fn in_parallel<T, F>(
    tasks: &Tasks,
    wrappers: Vec<Wrapper>,
    work: impl Fn(Wrapper) -> F,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let working: Vec<_> =
        wrappers.into_iter().map(|wrapper| tasks.spawn("wrapper", work(wrapper))).collect();
    let mut done = Vec::with_capacity(working.len());
    for work in working {
        done.push(work.await.context("a wrapper")?.context("the benchmark is stopping")??);
    }
    Ok(done)
}

fn name(number: u32) -> String {
    format!("bench-{number}")
}

/// Writes what the server finds, and gives its arguments.
fn prepare(dir: &Path, wrappers: u32) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let files = dir.join("saltpeter");
    fs::create_dir(&files).context("make a directory of Saltpeter")?;
    let minions: serde_json::Map<String, Value> =
        (0..wrappers).map(|number| (name(number), json!(true))).collect();
    fs::write(dir.join("ping.json"), Value::Object(minions).to_string())
        .context("write minions")?;
    let config = "saltpeter_config:\n  default_saltpeter_server_host: 127.0.0.1\n";
    fs::write(files.join("config.yaml"), config).context("write the configuration")?;
    let salt = dir.join("salt");
    fs::write(&salt, SCRIPT).context("write a script")?;
    fs::set_permissions(&salt, fs::Permissions::from_mode(0o700)).context("write a script")?;
    Ok(vec![
        "--saltpeter".into(),
        files.into(),
        "--saltpeter-dispatch".into(),
        "salt".into(),
        "--saltpeter-salt".into(),
        salt.into(),
        "--saltpeter-machines".into(),
        "127.0.0.1:0".into(),
    ])
}

/// What wrappers are told: where to connect, and their instance.
async fn told(dir: &Path) -> anyhow::Result<(String, String)> {
    let path = dir.join("env.json");
    let begun = Instant::now();
    let text = loop {
        if let Ok(text) = fs::read_to_string(&path) {
            break text;
        }
        ensure!(begun.elapsed() < PATIENCE, "the server does not call salt");
        tokio::time::sleep(process::LOOK).await;
    };
    let env: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&text).context("read the environment of wrappers")?;
    let of = |name: &str| env.get(name).cloned().with_context(|| format!("wrappers lack {name}"));
    Ok((of("SP_WEBSOCKET_URL")?, of("SP_JOB_INSTANCE")?))
}

fn request() -> NewRun {
    NewRun {
        hosts: "*".to_owned(),
        command: Command::Shell("true".to_owned()),
        user: None,
        cwd: None,
        env: std::collections::BTreeMap::new(),
        timeout: None,
        kill_after: None,
        start_within: None,
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

async fn end_of(client: &Client, id: RunId) -> anyhow::Result<Run> {
    let begun = Instant::now();
    loop {
        let run = client.run(id).await?;
        if run.summary.state.is_final() {
            return Ok(run);
        }
        ensure!(begun.elapsed() < PATIENCE, "the run does not end");
        tokio::time::sleep(process::LOOK).await;
    }
}

/// A wrapper that is connected.
struct Wrapper {
    wire: Wire,
    whose: Whose,
    /// What it prints again and again.
    data: String,
    next: u64,
}

/// A message with output.
#[derive(Serialize)]
struct Output<'a> {
    r#type: &'static str,
    job_name: &'a str,
    job_instance: &'a str,
    machine: &'a str,
    stream: &'static str,
    data: &'a str,
    seq: u64,
}

/// What a server answers.
#[derive(Deserialize)]
struct Ack<'a> {
    ack_type: &'a str,
    seq: Option<u64>,
}

impl Wrapper {
    async fn connect(url: String, whose: Whose, open: Arc<Semaphore>) -> anyhow::Result<Self> {
        let _turn = open.acquire().await.context("wait for a turn")?;
        let data = format!("{:>width$}\n", whose.machine, width = OUTPUT - 1);
        let mut wrapper = Self { wire: Wire::open(&url).await?, whose, data, next: 0 };
        wrapper.ask("connect", &json!({})).await?;
        wrapper.ask("start", &json!({"pid": 1, "version": "0.9.31"})).await?;
        Ok(wrapper)
    }

    async fn ask(&mut self, kind: &str, more: &Value) -> anyhow::Result<()> {
        self.wire.say(Message::text(self.whose.says(kind, more).to_string())).await?;
        let seq = more.get("seq").and_then(Value::as_u64);
        timeout(ANSWER, self.acked(kind, seq)).await.context("the server does not answer")?
    }

    /// Waits until the server has this.
    async fn acked(&mut self, kind: &str, seq: Option<u64>) -> anyhow::Result<()> {
        let Some(answer) = self.wire.next().await? else {
            bail!("the server closed the connection of {}", self.whose.machine);
        };
        let is = serde_json::from_str::<Ack<'_>>(&answer)
            .is_ok_and(|ack| ack.ack_type == kind && ack.seq == seq);
        ensure!(is, "the server answered {answer}");
        Ok(())
    }

    /// One output after the other, each when the one before is acknowledged; how long each took.
    async fn write(mut self, until: Instant) -> anyhow::Result<(Self, Vec<f64>)> {
        let mut times = Vec::new();
        let writing = async {
            while Instant::now() < until {
                let begun = Instant::now();
                self.output().await?;
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            anyhow::Ok(())
        };
        // One limit for all: the timer of another one would be a part of what is measured.
        timeout_at(until + ANSWER, writing).await.context("the server does not answer")??;
        Ok((self, times))
    }

    async fn output(&mut self) -> anyhow::Result<()> {
        let output = Output {
            r#type: "output",
            job_name: self.whose.job(),
            job_instance: &self.whose.instance,
            machine: &self.whose.machine,
            stream: "stdout",
            data: &self.data,
            seq: self.next,
        };
        let text = serde_json::to_string(&output).context("write a message")?;
        self.wire.say(Message::text(text)).await?;
        self.acked("output", Some(self.next)).await?;
        self.next += 1;
        Ok(())
    }

    async fn rest(mut self, until: Instant) -> anyhow::Result<Self> {
        while Instant::now() + BEAT < until {
            tokio::time::sleep(BEAT).await;
            let beat = self.whose.says("heartbeat", &json!({}));
            self.wire.say(Message::text(beat.to_string())).await?;
        }
        tokio::time::sleep_until(until).await;
        Ok(self)
    }

    /// Ends; how many outputs were acknowledged.
    async fn complete(mut self) -> anyhow::Result<u64> {
        let more = json!({"retcode": 0, "seq": self.next});
        self.ask("complete", &more).await?;
        Ok(self.next)
    }
}
