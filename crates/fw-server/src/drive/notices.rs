//! Notices: tells the world when a job's run fails, and when the job recovers.
//!
//! Two tasks. One hears of ends of runs and puts notices into the store's outbox; the other sends
//! what is due there until it was taken, for about a day.
//!
//! **Once.** The outbox holds one notice for each run and hook, however often it is put, and keeps
//! it after it was sent. So whatever may have been missed (a crash between a run's end and its
//! notice, a follower that fell behind) is made good by looking at all runs that ended lately once
//! more: at a start, since shortly before the server was last known alive. Sending can happen twice,
//! when the server dies between the answer and noting it: the run's id in the body tells.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use fw_core::job::JobDef;
use fw_proto::api::{Hook, RunState, RunSummary};
use fw_proto::{JobName, RunId, Span, Timestamp};
use fw_rt::{Clock, Tasks};
use fw_store::{NewNotice, Notice, RunQuery, Store};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, broadcast};
use tracing::{debug, error, info, warn};

use super::jobs;
use crate::live::{Live, RunChange};
use crate::problem::Chain;

/// A webhook has so long to answer.
const WEBHOOK_WITHIN: Duration = Duration::from_secs(10);

/// A command has so long to end.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// What a process that a command left behind may still write is waited for so long.
const OUTPUT_WITHIN: Duration = Duration::from_secs(1);

/// Of a command's output so much is kept, for the log.
const OUTPUT: u64 = 4096;

/// Sent at one time: one endpoint that hangs keeps no other from being told.
const AT_ONCE: usize = 16;

/// The outbox is looked at so often, told or not.
const POLL: Duration = Duration::from_secs(1);

/// The store is tried again after this pause.
const RETRY: Duration = Duration::from_secs(1);

/// Waits between tries grow from this, twofold,
const FIRST_WAIT: Span = Span::from_secs(10);

/// up to this.
const LONGEST_WAIT: Span = Span::from_secs(60 * 60);

/// Tries: the waits between them sum up to a day and a little.
const TRIES: u32 = 33;

/// The alive mark is set each minute; a run that ended this long before it was surely heard of.
const MARGIN: Span = Span::from_secs(2 * 60);

/// Runs looked at for the one before: of a job with so many at a time, those before are no matter.
const LOOK_BACK: u32 = 100;

/// What a notice's command may look for programs in; the server's own environment may hold secrets.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What notices need.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where runs are read and the outbox is.
    pub store: Store,
    /// Where ends of runs are heard.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// Who knows the hooks.
    pub jobs: jobs::Handle,
}

/// Why notices cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error("read when the server was last alive")]
    Store(#[from] fw_store::Error),
    /// TLS cannot be set up.
    #[error("set up webhooks")]
    Client(#[from] reqwest::Error),
}

/// Starts both tasks. To be called before the alive mark of this server is set (see
/// [`super::upkeep::start`]): it tells what may have been missed.
///
/// # Errors
/// The store cannot be read, or no TLS is to be had.
pub async fn start(parts: Parts, tasks: &Tasks) -> Result<(), Error> {
    let runs = parts.live.runs();
    let alive = parts.store.last_alive().await?;
    let put = Arc::new(Notify::new());
    let sender =
        Sender { store: parts.store.clone(), clock: parts.clock.clone(), client: client()? };
    tasks.spawn("notices.send", sender.run(Arc::clone(&put)));
    tasks.spawn("notices.put", Writer { parts, put }.run(runs, alive));
    Ok(())
}

/// Puts notices into the outbox.
struct Writer {
    parts: Parts,
    put: Arc<Notify>,
}

impl Writer {
    async fn run(self, mut runs: broadcast::Receiver<Arc<RunChange>>, alive: Option<Timestamp>) {
        // Before the first start nothing can have been missed.
        if let Some(alive) = alive {
            self.catch_up(alive).await;
        }
        let mut heard_at = self.parts.clock.now();
        loop {
            match runs.recv().await {
                Ok(change) => {
                    let run = &change.summary;
                    if run.state.is_final() && run.job.is_some() {
                        self.insist(run).await;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up(heard_at).await,
                Err(broadcast::error::RecvError::Closed) => return,
            }
            heard_at = self.parts.clock.now();
        }
    }

    /// Looks at all runs that ended since shortly before `since`.
    async fn catch_up(&self, since: Timestamp) {
        let runs = loop {
            match self.parts.store.job_runs_ended(since - MARGIN).await {
                Ok(runs) => break runs,
                Err(error) => wait(&error).await,
            }
        };
        for run in &runs {
            self.insist(run).await;
        }
    }

    async fn insist(&self, run: &RunSummary) {
        while let Err(error) = self.put(run).await {
            wait(&error).await;
        }
    }

    /// Puts what is to be said of a run that ended into the outbox.
    async fn put(&self, run: &RunSummary) -> Result<(), fw_store::Error> {
        let Some(name) = &run.job else { return Ok(()) };
        // A job that is gone has nobody to tell.
        let Some(job) = self.parts.jobs.def(name).await else { return Ok(()) };
        let store = &self.parts.store;
        let (hooks, tell) = match run.state {
            RunState::Failed => {
                let hooks = &job.spec.on_failure;
                (hooks, !hooks.is_empty() && !store.is_tried_again(name, run.id).await?)
            }
            RunState::Succeeded => {
                let hooks = &job.spec.on_recovery;
                (hooks, !hooks.is_empty() && self.failed_before(name, run).await?)
            }
            RunState::Cancelled | RunState::Planned | RunState::Running | RunState::Cancelling => {
                return Ok(());
            }
        };
        if tell {
            put_all(store, self.parts.clock.now(), name, run.id, hooks).await?;
            self.put.notify_one();
        }
        Ok(())
    }

    /// Whether the run of the job that ended before this one had failed. Cancelled ones say nothing,
    /// nor those that are tried again.
    async fn failed_before(
        &self,
        name: &JobName,
        run: &RunSummary,
    ) -> Result<bool, fw_store::Error> {
        let query = RunQuery { limit: LOOK_BACK, job: Some(name.clone()), ..RunQuery::default() };
        let runs = self.parts.store.runs(query).await?.items;
        let waiting = self.parts.store.retries().await?;
        let mut again: BTreeSet<_> = runs.iter().filter_map(|run| run.retry_of).collect();
        again.extend(waiting.into_iter().map(|retry| retry.run));
        let before = runs
            .into_iter()
            .filter(|other| !again.contains(&other.id))
            .filter(|other| matches!(other.state, RunState::Failed | RunState::Succeeded))
            .filter(|other| other.id != run.id && other.finished_at <= run.finished_at);
        let last = before.max_by_key(|other| (other.finished_at, other.created_at));
        Ok(last.is_some_and(|last| last.state == RunState::Failed))
    }
}

/// Puts what is to be said of a run that failed, and is not tried again after all, into the outbox;
/// it is sent within [`POLL`].
///
/// # Errors
/// What the store says.
pub(super) async fn put_failure(
    store: &Store,
    now: Timestamp,
    job: &JobDef,
    run: RunId,
) -> Result<(), fw_store::Error> {
    put_all(store, now, &job.name, run, &job.spec.on_failure).await
}

async fn put_all(
    store: &Store,
    now: Timestamp,
    job: &JobName,
    run: RunId,
    hooks: &[Hook],
) -> Result<(), fw_store::Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let Some(whole) = store.run(run).await? else { return Ok(()) };
    let body =
        serde_json::to_string(&whole).expect("a run has only texts, numbers and maps by text");
    for hook in hooks {
        let (hook, body) = (hook.clone(), body.clone());
        store.put_notice(NewNotice { run, job: job.clone(), hook, body, next_at: now }).await?;
    }
    Ok(())
}

async fn wait(error: &fw_store::Error) {
    warn!(error = %Chain(error), "notices wait for the store");
    tokio::time::sleep(RETRY).await;
}

/// Sends what is in the outbox.
struct Sender {
    store: Store,
    clock: Clock,
    client: reqwest::Client,
}

impl Sender {
    async fn run(self, put: Arc<Notify>) {
        let mut sending = FuturesUnordered::new();
        let mut under_way = BTreeSet::new();
        loop {
            if under_way.len() < AT_ONCE {
                for notice in self.due().await {
                    if under_way.len() < AT_ONCE && under_way.insert(notice.id) {
                        sending.push(self.deliver(notice));
                    }
                }
            }
            tokio::select! {
                Some(done) = sending.next() => { under_way.remove(&done); }
                () = put.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn due(&self) -> Vec<Notice> {
        self.store.due_notices(self.clock.now()).await.unwrap_or_else(|error| {
            warn!(error = %Chain(&error), "notices cannot be read");
            Vec::new()
        })
    }

    /// Sends one and notes how it went; gives its id.
    async fn deliver(&self, notice: Notice) -> u64 {
        let Notice { id, run, job, attempts, .. } = &notice;
        let sent = match &notice.hook {
            Hook::Webhook(url) => self.post(url, notice.body.clone()).await,
            Hook::Command(argv) => execute(argv, &notice).await,
        };
        let noted = match sent {
            Ok(()) => {
                info!(run.id = %run, %job, "notice sent");
                self.store.notice_done(*id).await
            }
            Err(why) if attempts + 1 >= TRIES => {
                error!(run.id = %run, %job, "notice could not be sent for a day and is given up: {why}");
                self.store.notice_done(*id).await
            }
            Err(why) => {
                let next_at = self.clock.now() + wait_after(*attempts);
                warn!(run.id = %run, %job, %next_at, "notice could not be sent, trying again later: {why}");
                self.store.notice_failed(*id, next_at).await
            }
        };
        if let Err(error) = noted {
            // It is sent again: better twice than never.
            error!(run.id = %run, %job, error = %Chain(&error), "outcome of a notice could not be noted");
        }
        *id
    }

    async fn post(&self, url: &str, body: String) -> Result<(), String> {
        let request = self.client.post(url).header("content-type", "application/json").body(body);
        // The URL may hold a token, so it is in no log.
        let answer =
            request.send().await.map_err(|error| Chain(&error.without_url()).to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

/// How long to wait after so many tries and one more.
fn wait_after(attempts: u32) -> Span {
    let doubled = FIRST_WAIT.as_millis().saturating_mul(1 << attempts.min(20));
    Span::from_millis(doubled).min(LONGEST_WAIT)
}

/// Follows only redirects that keep the request as it is, on the same host: a body is not for others to see.
fn client() -> Result<reqwest::Client, reqwest::Error> {
    let policy = reqwest::redirect::Policy::custom(|attempt| {
        let origin = |url: &reqwest::Url| {
            (
                url.scheme().to_owned(),
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
            )
        };
        let same =
            attempt.previous().first().is_some_and(|first| origin(first) == origin(attempt.url()));
        let keeps = matches!(attempt.status().as_u16(), 307 | 308);
        if same && keeps && attempt.previous().len() <= 5 {
            attempt.follow()
        } else {
            attempt.stop()
        }
    });
    reqwest::Client::builder()
        .timeout(WEBHOOK_WITHIN)
        .redirect(policy)
        .user_agent(concat!("fleetwright/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Runs a command as the server's own user, with the run on its standard input.
async fn execute(argv: &[String], notice: &Notice) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err("it names no program".to_owned());
    };
    let spawned = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("FLEETWRIGHT_JOB", notice.job.as_str())
        .env("FLEETWRIGHT_RUN", notice.run.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| format!("{program} cannot be started: {error}"))?;
    let group =
        child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended =
        tokio::time::timeout(COMMAND_WITHIN, attend(&mut child, &notice.body, &mut out, &mut err))
            .await;
    let why = match ended {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => format!("it cannot be waited for: {error}"),
        Err(_) => {
            // It was not waited for yet, so the group is still its own.
            if let Some(Err(error)) = group.map(|group| {
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
            }) {
                debug!(%error, "command of a notice cannot be killed");
            }
            format!("it had not ended after {COMMAND_WITHIN:?} and was killed")
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Err(format!("{program}: {why}; stdout: {:?}, stderr: {:?}", text(&out), text(&err)))
}

/// Feeds the command, keeps the beginning of its output, and waits for its end.
async fn attend(
    child: &mut tokio::process::Child,
    body: &str,
    out: &mut Vec<u8>,
    err: &mut Vec<u8>,
) -> std::io::Result<std::process::ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it does not want to know.
            drop(stdin.write_all(body.as_bytes()).await);
        }
    };
    let mut talking =
        std::pin::pin!(async { tokio::join!(feed, keep(stdout, out), keep(stderr, err)) });
    let mut silent = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = &mut talking, if !silent => silent = true,
        }
    };
    if !silent {
        // What comes later is another process's.
        drop(tokio::time::timeout(OUTPUT_WITHIN, talking).await);
    }
    Ok(status)
}

/// Reads a pipe to its end and keeps the beginning.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    // A pipe that breaks has ended.
    drop((&mut pipe).take(OUTPUT).read_to_end(kept).await);
    drop(tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use fw_core::run::Actor;
    use fw_proto::{HostId, api};

    use super::*;
    use crate::drive::world::{World, eventually};

    #[test]
    fn tries_go_on_for_a_day() {
        let total: u64 = (0..TRIES - 1).map(|attempts| wait_after(attempts).as_millis()).sum();
        let day = 24 * 60 * 60 * 1000;
        assert!((day..day + LONGEST_WAIT.as_millis()).contains(&total), "{total}");
    }

    fn notice(body: &str) -> Notice {
        Notice {
            id: 1,
            run: "0190a5c2-0000-7000-8000-000000000001".parse().unwrap(),
            job: "nightly".parse().unwrap(),
            hook: Hook::Command(Vec::new()),
            body: body.to_owned(),
            attempts: 0,
            next_at: Timestamp::EPOCH,
        }
    }

    fn shell(text: &str) -> Vec<String> {
        ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn a_command_gets_the_run_and_its_output_is_told_when_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("got").display().to_string();
        let body = "x".repeat(1024 * 1024);
        execute(&shell(&format!("cat > {file}")), &notice(&body)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), body);
        let why =
            execute(&shell("echo said $FLEETWRIGHT_JOB; echo no >&2; exit 3"), &notice(&body))
                .await;
        assert_eq!(
            why.unwrap_err(),
            "/bin/sh: exit status: 3; stdout: \"said nightly\", stderr: \"no\""
        );
        let why = execute(&["/nonexistent".to_owned()], &notice("")).await.unwrap_err();
        assert_eq!(why, "/nonexistent cannot be started: No such file or directory (os error 2)");
    }

    #[tokio::test]
    async fn a_command_that_leaves_a_process_behind_has_ended() {
        execute(&shell("sleep 300 & exit 0"), &notice("")).await.unwrap();
    }

    /// An endpoint that answers with these status codes in turn, then 200; and what it was sent.
    async fn endpoint(codes: &[u16]) -> (String, Arc<Mutex<Vec<api::Run>>>) {
        let got = Arc::new(Mutex::new(Vec::new()));
        let (answers, taken) = (codes.to_vec(), Arc::clone(&got));
        let take = async move |axum::Json(run): axum::Json<api::Run>| {
            let mut taken = taken.lock().unwrap();
            taken.push(run);
            let code = answers.get(taken.len() - 1).copied().unwrap_or(200);
            let location = [(axum::http::header::LOCATION, "http://localhost:1/")];
            (axum::http::StatusCode::from_u16(code).unwrap(), location)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/hook", axum::routing::post(take));
        let serve = async move { axum::serve(listener, router).await };
        Tasks::new().spawn("endpoint", serve);
        (url, got)
    }

    async fn start_notices(world: &World) {
        let World { store, live, clock, jobs, .. } = world;
        let parts = Parts {
            store: store.clone(),
            live: live.clone(),
            clock: clock.clone(),
            jobs: jobs.clone(),
        };
        start(parts, &world.tasks).await.unwrap();
    }

    fn job(url: &str) -> String {
        format!(
            "jobs:\n  a: {{schedule: '@every 60s', hosts: '*', run: x, on_failure: {{webhook: '{url}?failed'}}, \
             on_recovery: {{webhook: '{url}?recovered'}}}}\n"
        )
    }

    async fn run(world: &World, host: HostId, exit_code: i32) -> RunId {
        let run = world.jobs.run_now(&"a".parse().unwrap(), Actor::Server).await.unwrap();
        assert_eq!(world.end_next(host, exit_code).await, run);
        run
    }

    async fn told(got: &Mutex<Vec<api::Run>>, runs: &[RunId]) {
        eventually(&format!("{runs:?} are told"), async || {
            let got = got.lock().unwrap();
            got.iter().map(|run| run.summary.id).eq(runs.iter().copied()).then_some(())
        })
        .await;
    }

    #[tokio::test]
    async fn failure_and_recovery_are_told_and_tried_again() {
        // The redirect leads elsewhere, so it is no answer.
        let (url, got) = endpoint(&[500, 307]).await;
        let world = World::with(&[("a.yaml", &job(&url))]).await;
        start_notices(&world).await;
        let host = world.host("web1").await;
        run(&world, host, 0).await;
        let failed = run(&world, host, 1).await;
        told(&got, &[failed]).await;
        let failures = async |count| {
            eventually("it is tried again later", async || {
                let due = world.store.due_notices(world.clock.now() + LONGEST_WAIT).await.unwrap();
                due.first().is_some_and(|notice| notice.attempts == count).then_some(())
            })
            .await;
        };
        failures(1).await;
        world.clock.shift(15_000);
        told(&got, &[failed, failed]).await;
        failures(2).await;
        world.clock.shift(25_000);
        told(&got, &[failed, failed, failed]).await;
        let recovered = run(&world, host, 0).await;
        told(&got, &[failed, failed, failed, recovered]).await;
        run(&world, host, 0).await;
        let again = run(&world, host, 1).await;
        told(&got, &[failed, failed, failed, recovered, again]).await;
        assert_eq!(got.lock().unwrap()[0].tasks[0].exit_code, Some(1));
    }

    /// The job's schedule begins a run, which ends so.
    async fn fire(world: &World, host: HostId, exit_code: i32) -> RunId {
        world.clock.shift(60_000);
        world.end_next(host, exit_code).await
    }

    #[tokio::test]
    async fn a_failure_is_told_when_it_is_not_tried_again() {
        let (url, got) = endpoint(&[]).await;
        let text = job(&url).replace("run: x,", "run: x, retries: 1, retry_backoff: 5s,");
        let world = World::with(&[("a.yaml", &text)]).await;
        start_notices(&world).await;
        let host = world.host("web1").await;
        fire(&world, host, 1).await;
        eventually("it waits", async || world.store.retries().await.unwrap().first().map(drop))
            .await;
        world.clock.shift(5000);
        // Nobody was told that it failed, so nobody is that it recovered.
        world.end_next(host, 0).await;
        fire(&world, host, 1).await;
        eventually("it waits", async || world.store.retries().await.unwrap().first().map(drop))
            .await;
        world.clock.shift(5000);
        let last = world.end_next(host, 1).await;
        told(&got, &[last]).await;
        let recovered = fire(&world, host, 0).await;
        told(&got, &[last, recovered]).await;
        let given_up = fire(&world, host, 1).await;
        eventually("it waits", async || {
            (!world.jobs.show(&"a".parse().unwrap()).await?.waiting.is_empty()).then_some(())
        })
        .await;
        world.jobs.pause(&"a".parse().unwrap(), true).await.unwrap();
        told(&got, &[last, recovered, given_up]).await;
    }

    #[tokio::test]
    async fn an_end_that_nobody_heard_is_told_once_after_the_next_start() {
        let (url, got) = endpoint(&[]).await;
        let world = World::with(&[("a.yaml", &job(&url))]).await;
        world.store.touch_alive(world.clock.now()).await.unwrap();
        let host = world.host("web1").await;
        let unheard = run(&world, host, 1).await;
        let world = world.stop().await.start().await;
        start_notices(&world).await;
        told(&got, &[unheard]).await;
        eventually("it is noted", async || {
            world
                .store
                .due_notices(world.clock.now() + LONGEST_WAIT)
                .await
                .unwrap()
                .is_empty()
                .then_some(())
        })
        .await;
        let world = world.stop().await.start().await;
        start_notices(&world).await;
        world.link(host).await;
        let heard = run(&world, host, 1).await;
        told(&got, &[unheard, heard]).await;
    }
}
