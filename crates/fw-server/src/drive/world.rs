//! A real store, a real hub and real jobs in one test, with hosts that answer as the test says.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fw_core::run::Actor;
use fw_proto::api::{Fire, Job, JobsText, Problem};
use fw_proto::frame::{Cause, Ended, FromServer, Hello, PolicyMode, Report, Reported};
use fw_proto::record::Offsets;
use fw_proto::{Epoch, HostId, JobName, PublicKey, RunId, Span, TaskKey};
use fw_rt::{Clock, Tasks};
use fw_store::{Enrolled, Enrolment, Invite, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::jobs;
use crate::gateway::links::{LinkHandle, OUTBOX};
use crate::hub;
use crate::live::Live;
use crate::secrets::Vault;
use crate::state::Health;

/// A server that can be stopped and started again.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) hub: hub::Handle,
    pub(crate) live: Live,
    pub(crate) health: Health,
    pub(crate) jobs: jobs::Handle,
    pub(crate) tasks: Tasks,
    starts: Arc<Mutex<VecDeque<TaskKey>>>,
}

/// The time between two fires of `@every 60s`.
pub(crate) const MINUTE: i64 = 60_000;

impl World {
    /// A server whose directory of job files holds these. It is five seconds past the minute.
    pub(crate) async fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        clock.shift(5000 - clock.now().as_millis() % MINUTE);
        std::fs::create_dir(dir.path().join("jobs")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join("jobs").join(name), text).unwrap();
        }
        Self::open(dir, clock, false).await
    }

    /// In the shadow another scheduler runs the jobs of the dialect.
    async fn open(dir: tempfile::TempDir, clock: Clock, shadow: bool) -> Self {
        let store = Store::open(&dir.path().join("data"), clock.clone()).await.unwrap();
        let (tasks, live, health) = (Tasks::new(), Live::default(), Health::default());
        let parts = hub::Parts {
            store: store.clone(),
            live: live.clone(),
            clock: clock.clone(),
            secrets: Vault::open(dir.path()).unwrap(),
            grace: Span::ZERO,
            spool_bytes: 1024,
        };
        let hub = hub::start(parts, &tasks).await.unwrap();
        let parts = jobs::Parts {
            dialect: Some(jobs::Dialect {
                shadow,
                name: "other",
                given: jobs::Given::default(),
                complete: |_, _| {},
            }),
            store: store.clone(),
            hub: hub.clone(),
            live: live.clone(),
            clock: clock.clone(),
            health: health.clone(),
            dir: Some(dir.path().join("jobs")),
            lost_after: Span::from_secs(600),
        };
        let jobs = jobs::start(parts, &tasks).await.unwrap();
        let starts = Arc::default();
        Self { dir, clock, store, hub, live, health, jobs, tasks, starts }
    }

    /// Stops the server.
    pub(crate) async fn stop(self) -> Stopped {
        assert!(self.tasks.shutdown(Duration::from_secs(10)).await, "all tasks end");
        self.store.close().await;
        Stopped { dir: self.dir, clock: self.clock }
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join("jobs").join(file)
    }

    /// Enrols a host and links it.
    pub(crate) async fn host(&self, name: &str) -> HostId {
        let (id, at) = (HostId(Uuid::now_v7()), self.clock.now());
        // Each host its own.
        let mut secret_sha256 = [7; 32];
        secret_sha256[..16].copy_from_slice(id.0.as_bytes());
        let expires_at = at + Span::from_secs(60);
        let by = "test".to_owned();
        let labels = BTreeMap::new();
        self.store.invite(Invite { secret_sha256, uses: 1, expires_at, labels, by }).await.unwrap();
        let key = PublicKey(secret_sha256);
        let enrolment = Enrolment { secret_sha256, name: name.parse().unwrap(), key, id, at };
        assert!(matches!(self.store.enrol(enrolment).await.unwrap(), Enrolled::Done(_)));
        self.link(id).await;
        id
    }

    /// Links a host; it remembers what it is told to start.
    pub(crate) async fn link(&self, host: HostId) {
        let (outbox, mut frames) = mpsc::channel(OUTBOX);
        let hello = Hello {
            agent_version: "1.0.0".to_owned(),
            protocol: (1, fw_proto::ARMED),
            machine_id: "m".to_owned(),
            boot_id: "b".to_owned(),
            tasks: Vec::new(),
            policy: PolicyMode::Operate,
            epoch: Epoch(1),
            instance: "i".to_owned(),
        };
        let (close, heard) = (CancellationToken::new(), Arc::new(AtomicI64::new(0)));
        let link = LinkHandle {
            host,
            id: 1,
            outbox,
            close,
            denied: Arc::default(),
            hello: Arc::new(hello),
            heard,
            ponged: Arc::default(),
        };
        self.hub.linked(link, Vec::new()).await.unwrap();
        let starts = Arc::clone(&self.starts);
        self.tasks.spawn("host", async move {
            while let Some(frame) = frames.recv().await {
                if let FromServer::Start(new) = *frame {
                    starts.lock().unwrap().extend(new.into_iter().map(|start| start.key));
                }
            }
        });
    }

    /// Waits until the next task is started; ends it with this exit code.
    pub(crate) async fn end_next(&self, host: HostId, exit_code: i32) -> RunId {
        self.finish_next(host, Cause::Exited, Some(exit_code)).await
    }

    /// Waits until the next task is started; ends it as one that was cancelled.
    pub(crate) async fn cancel_next(&self, host: HostId) -> RunId {
        self.finish_next(host, Cause::Cancelled, None).await
    }

    async fn finish_next(&self, host: HostId, cause: Cause, exit_code: Option<i32>) -> RunId {
        let key =
            eventually("a task is started", async || self.starts.lock().unwrap().pop_front()).await;
        let mut changes = self.live.runs();
        self.report(host, key, cause, exit_code).await;
        eventually("the run has ended", async || {
            let run = &changes.recv().await.unwrap().summary;
            (run.id == key.run && run.state.is_final()).then_some(())
        })
        .await;
        key.run
    }

    /// Waits until a run has started on all of its hosts, which these are; fails on each of them.
    pub(super) async fn fail(&self, run: RunId, hosts: &[HostId]) {
        for host in hosts {
            let mine = |starts: &mut VecDeque<TaskKey>| {
                let at = starts.iter().position(|key| key.run == run)?;
                starts.remove(at)
            };
            let key =
                eventually("a task is started", async || mine(&mut self.starts.lock().unwrap()));
            self.report(*host, key.await, Cause::Exited, Some(1)).await;
        }
        eventually("the run has failed", async || {
            let run = self.store.run(run).await.unwrap()?;
            run.summary.state.is_final().then_some(())
        })
        .await;
    }

    async fn report(&self, host: HostId, key: TaskKey, cause: Cause, exit_code: Option<i32>) {
        let now = self.clock.now();
        let ended = Ended {
            cause,
            exit_code,
            signal: None,
            started_at: now,
            finished_at: now,
            output: Offsets::default(),
            stdout_sha256: Some([0; 32]),
            stderr_sha256: None,
            left_behind: 0,
            armed: None,
        };
        let report = Report { key, state: Reported::Ended(ended) };
        self.hub.reports(host, vec![report]).await.unwrap();
    }

    pub(crate) async fn apply(&self, text: &str) -> Result<(), Problem> {
        let text = JobsText { text: text.to_owned(), name: None, dry_run: false };
        self.jobs.apply(text, Actor::Token("test".to_owned())).await.map(drop)
    }

    /// The ledger as a test reads it: newest first, `verdict reason count`.
    pub(crate) async fn ledger(&self, job: &str) -> Vec<String> {
        let fires = self.fires(job).await.into_iter();
        let word = |fire: &Fire| {
            let reason = fire.reason.map(|reason| format!(" {reason:?}")).unwrap_or_default();
            format!("{:?}{reason} {}", fire.verdict, fire.count)
        };
        fires.map(|fire| word(&fire)).collect()
    }

    pub(crate) async fn fires(&self, job: &str) -> Vec<Fire> {
        self.store.ledger(&name(job), None, 100).await.unwrap().items
    }

    /// Waits until the ledger says this.
    pub(crate) async fn ledger_is(&self, job: &str, rows: &[&str]) {
        let last = Mutex::new(Vec::new());
        let wait = async || {
            let ledger = self.ledger(job).await;
            let alike = ledger == rows;
            *last.lock().unwrap() = ledger;
            alike.then_some(())
        };
        let waited = tokio::time::timeout(PATIENCE, poll(wait)).await;
        assert!(waited.is_ok(), "{job}: {:?} is not {rows:?}", last.lock().unwrap());
    }

    /// Waits until there are just these jobs.
    pub(crate) async fn jobs_are(&self, names: &[&str]) -> Vec<Job> {
        eventually(&format!("jobs are {names:?}"), async || {
            let jobs = self.jobs.list().await;
            let alike = jobs.iter().map(|job| job.name.as_str()).eq(names.iter().copied());
            alike.then_some(jobs)
        })
        .await
    }
}

/// What stays when a server is stopped.
pub(crate) struct Stopped {
    dir: tempfile::TempDir,
    pub(crate) clock: Clock,
}

impl Stopped {
    pub(crate) async fn start(self) -> World {
        World::open(self.dir, self.clock, false).await
    }

    /// Where another scheduler runs the jobs of the dialect.
    pub(crate) async fn start_in_the_shadow(self) -> World {
        World::open(self.dir, self.clock, true).await
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join("jobs").join(file)
    }

    /// What it remembers.
    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.dir.path().join("data"), self.clock.clone()).await.unwrap()
    }
}

/// No wait in a test takes longer, or it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until there is an answer.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = tokio::time::timeout(PATIENCE, poll(ask)).await;
    answer.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

async fn poll<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn name(job: &str) -> JobName {
    job.parse().unwrap()
}
