//! Starts wrappers: gathers what is to start in one call of `salt` for all hosts of a run.
//!
//! A task is started at most once. Its host has reported it as queued before, and `salt` is called only when the
//! hub shows that this is committed. So whoever starts after a crash knows which tasks may have been
//! started: those wait for their wrapper; all others are sent anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use fw_proto::api::{self, TaskState};
use fw_proto::frame::Spec;
use fw_proto::{RunId, TaskKey};
use fw_rt::Tasks;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::error::Elapsed;
use tracing::warn;

use super::super::machines::instance::Key;
use super::super::served;
use super::call::{self, failure};
use super::environment::{Told, argument, environment};
use super::minion::Event;
use crate::problem::Chain;
use crate::state::App;

/// The hub sends the starts of a run one after the other; a call takes half a second anyway.
const GATHER: Duration = Duration::from_millis(10);

/// Programs of Salt at one time: each is a Python process of 100 MB.
const CALLS: usize = 8;

/// Minions in one call: their ids are one argument of at most 128 KiB (`execve(2)`).
const MINIONS: usize = 400;

/// Seconds that Salt waits for minions to answer.
const WAIT: &str = "30";

/// Starts that may wait; minions wait when there are more.
pub(super) const INBOX: usize = 4096;

/// How long a commit of the hub may take before a start is given up.
const COMMITTED_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(2);

/// Who was first: the one that starts a task, or the one that cancels it.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim(Arc<AtomicU8>);

const OPEN: u8 = 0;
const MADE: u8 = 1;
const FORBIDDEN: u8 = 2;

impl Claim {
    /// One that is made already.
    pub(super) fn made() -> Self {
        Self(Arc::new(AtomicU8::new(MADE)))
    }

    /// Whether the task may be started; from now on it counts as started.
    fn make(&self) -> bool {
        self.0.compare_exchange(OPEN, MADE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the task will not be started.
    pub(super) fn forbid(&self) -> bool {
        self.0.compare_exchange(OPEN, FORBIDDEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// A task to start.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) key: TaskKey,
    pub(super) minion: String,
    pub(super) spec: Spec,
    pub(super) claim: Claim,
    pub(super) inbox: mpsc::Sender<Event>,
}

/// What starts wrappers.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) app: App,
    pub(super) names: Key,
    pub(super) salt: PathBuf,
    pub(super) served: served::Watch,
    /// What wrappers must show.
    pub(super) key: Option<String>,
    /// The port where they connect.
    pub(super) port: u16,
    pub(super) calls: Arc<Semaphore>,
    pub(super) tasks: Tasks,
}

pub(super) fn calls() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CALLS))
}

impl Starter {
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<Wanted>) {
        let mut waiting: BTreeMap<RunId, Vec<Wanted>> = BTreeMap::new();
        loop {
            match tokio::time::timeout(GATHER, inbox.recv()).await {
                Ok(None) => return,
                Ok(Some(wanted)) => {
                    let same = waiting.entry(wanted.key.run).or_default();
                    same.push(wanted);
                    if same.len() < MINIONS {
                        continue;
                    }
                }
                Err(_) if waiting.is_empty() => {
                    // There is nothing to gather: wait for the first.
                    let Some(wanted) = inbox.recv().await else { return };
                    waiting.entry(wanted.key.run).or_default().push(wanted);
                    continue;
                }
                Err(_) => {}
            }
            for (run, wanted) in std::mem::take(&mut waiting) {
                let starter = self.clone();
                self.tasks.spawn("salt start", async move { starter.start(run, wanted).await });
            }
        }
    }

    async fn start(self, run: RunId, mut wanted: Vec<Wanted>) {
        let hosts: BTreeSet<String> = wanted.iter().map(|one| one.minion.clone()).collect();
        let about = match self.committed(run, &hosts).await {
            Ok(Some(about)) => about,
            // It has ended meanwhile.
            Ok(None) => return,
            Err(_) => {
                let why = "Wrapper failed to start - its start could not be recorded in time";
                wanted.retain(|one| one.claim.forbid());
                return fail(&wanted, run, why).await;
            }
        };
        let Ok(_turn) = self.calls.acquire().await else { return };
        wanted.retain(|one| one.claim.make());
        wanted.sort_by(|one, other| one.minion.cmp(&other.minion));
        for one in &wanted {
            drop(one.inbox.send(Event::Called(run)).await);
        }
        let Some(first) = wanted.first() else { return };
        let (wrapper, told) = self.told(&about);
        let arguments = arguments(&wanted, &wrapper, &argument(&environment(&told, &first.spec)));
        let (answers, mut heard) = mpsc::channel::<(String, String)>(MINIONS);
        let calling = async {
            let called = call::salt(&self.salt, arguments, |minion, answer| {
                if let Some(why) = failure(&answer) {
                    // As many as there are minions fit in.
                    drop(answers.try_send((minion, why)));
                }
            })
            .await;
            drop(answers);
            called
        };
        let telling = async {
            while let Some((minion, why)) = heard.recv().await {
                let one = wanted.iter().find(|one| one.minion == minion);
                if let Some(one) = one {
                    drop(one.inbox.send(Event::Failed(run, why)).await);
                }
            }
        };
        let (called, ()) = tokio::join!(calling, telling);
        if let Err(error) = called {
            warn!(run.id = %run, error = %Chain(&error), "salt started no wrapper");
            fail(&wanted, run, &format!("Wrapper failed to start - {}", Chain(&error))).await;
        }
    }

    /// The run, once all these hosts are known to hold their tasks; `None` when there is nothing to start.
    async fn committed(
        &self,
        run: RunId,
        hosts: &BTreeSet<String>,
    ) -> Result<Option<api::Run>, Elapsed> {
        let mine = |task: &&api::Task| hosts.contains(task.host.as_str());
        let looking = async {
            loop {
                let about = self.app.hub.run(run).await.ok().flatten()?;
                let starting = |task: &api::Task| task.state == TaskState::Starting;
                if !about.tasks.iter().filter(mine).any(starting) {
                    return Some(about);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(COMMITTED_WITHIN, looking).await
    }

    /// The wrapper, and what it is told.
    fn told(&self, about: &api::Run) -> (String, Told) {
        let served = self.served.borrow();
        let settings = &served.settings;
        let ours = about.summary.job.as_ref();
        let name = ours.and_then(|job| served.by_job.get(job)).cloned();
        let job = name.as_ref().and_then(|name| served.directory.jobs.get(name));
        let wrapper = job.map(|job| job.wrapper.clone()).unwrap_or_default();
        let name = name.or_else(|| ours.map(ToString::to_string));
        let name = name.unwrap_or_else(|| "run".to_owned());
        let server = wrapper.server.as_ref().unwrap_or(&settings.default_saltpeter_server_host);
        let key = self.key.as_ref().map(|key| format!("/?key={key}")).unwrap_or_default();
        let told = Told {
            url: format!("ws://{server}:{}{key}", self.port),
            instance: self.names.name(&name, about.summary.created_at, about.summary.id),
            job: name,
            loglevel: wrapper.loglevel.unwrap_or_else(|| settings.default_wrapper_loglevel.clone()),
            logdir: wrapper.logdir.unwrap_or_else(|| settings.default_wrapper_logdir.clone()),
            // What is no job of the directory is begun by people, who may begin it twice.
            allow_overlap: job.is_none_or(|job| job.allow_overlap),
            lockfile: wrapper.lockfile,
        };
        (wrapper.path.unwrap_or_else(|| settings.default_wrapper_path.clone()), told)
    }
}

async fn fail(wanted: &[Wanted], run: RunId, why: &str) {
    for one in wanted {
        drop(one.inbox.send(Event::Failed(run, why.to_owned())).await);
    }
}

fn arguments(wanted: &[Wanted], wrapper: &str, env: &str) -> Vec<OsString> {
    let minions: Vec<_> = wanted.iter().map(|one| one.minion.as_str()).collect();
    ["-L", &minions.join(","), "-t", WAIT, "cmd.run_all", wrapper, env].map(OsString::from).into()
}
