//! Records: the log file of each job, and the documents that a search server gets, as Saltpeter writes them.
//!
//! `follow` looks at what became of runs and fires, and puts it into a `journal` on disk, with how far it has
//! come, in one write. From there `files` appends lines to log files and `sink` sends documents, each at its
//! own pace. So nothing is told twice or forgotten when this server dies at any point, and a search server
//! that is away finds all of it when it is back.

mod bulk;
mod files;
mod follow;
mod journal;
mod progress;
pub(super) mod record;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fw_proto::{JobName, Span};
use fw_rt::{Backoff, Clock, Tasks};
use fw_store::Store;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::files::Files;
use self::journal::Journal;
use self::progress::Progress;
use super::files::Maintenance;
use super::served::{self, Served};
use crate::drive::jobs;
use crate::live::Live;
use crate::metrics::LOG_LINES_DROPPED;
use crate::problem::Chain;
use crate::state::{App, Health};

/// What log files and search servers have not got yet takes at most so many bytes when nobody says: a day of a
/// busy fleet.
pub const QUEUE_BYTES: u64 = 1024 * 1024 * 1024;

/// Requests that maintenance holds up and that are not told yet; of more nobody wants a line each.
const BLOCKED: usize = 100;

/// What health calls the log files.
const FILES: &str = "saltpeter-log-files";

/// A disk that is full has room again some seconds later at best.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// And nobody waits longer for lines once it has.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// What records need.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// Where runs, fires and output are.
    pub store: Store,
    /// Where changes are heard.
    pub live: Live,
    /// The time of day.
    pub clock: Clock,
    /// Where to say that something is in the way.
    pub health: Health,
    /// Who knows the jobs.
    pub jobs: jobs::Handle,
    /// After this silence of its host a started task is lost; for notes.
    pub lost_after: Span,
    /// The bound of the queue.
    pub queue_bytes: u64,
}

impl Parts {
    /// Of a server.
    pub(crate) fn of(app: &App, queue_bytes: u64) -> Self {
        Self {
            store: app.store.clone(),
            live: app.live.clone(),
            clock: app.clock.clone(),
            health: app.health.clone(),
            jobs: app.jobs.clone(),
            lost_after: app.config.lost_after,
            queue_bytes,
        }
    }
}

/// What of the directory records depend on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// The jobs, by our names.
    pub jobs: BTreeMap<JobName, Named>,
    /// Where log files are.
    pub log_dir: PathBuf,
    /// Which search servers get documents.
    pub targets: BTreeMap<Kind, Target>,
    /// What is in maintenance.
    pub maintenance: Maintenance,
}

/// What Saltpeter calls a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The hosts that it is for, as a selector of ours.
    pub hosts: String,
}

/// A kind of search server: one of each can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `elasticsearch`.
    Elasticsearch,
    /// `opensearch`.
    Opensearch,
}

/// A search server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where it is, with user and password when it wants them.
    pub url: String,
    /// What names of indexes begin with.
    pub index: String,
}

impl std::fmt::Debug for Target {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Kind {
    const ALL: [Self; 2] = [Self::Elasticsearch, Self::Opensearch];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Elasticsearch => "elasticsearch",
            Self::Opensearch => "opensearch",
        }
    }

    /// What health calls it.
    const fn topic(self) -> &'static str {
        match self {
            Self::Elasticsearch => "saltpeter-elasticsearch",
            Self::Opensearch => "saltpeter-opensearch",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Elasticsearch => "Elasticsearch",
            Self::Opensearch => "OpenSearch",
        })
    }
}

impl Known {
    fn of(served: &Served) -> Self {
        let named = |(ours, name): (&JobName, &String)| {
            let job = served.directory.jobs.get(name)?;
            Some((
                ours.clone(),
                Named { name: name.clone(), group: job.group.clone(), hosts: job.selector.clone() },
            ))
        };
        let settings = &served.settings;
        let servers = [
            (Kind::Elasticsearch, &settings.elasticsearch, &settings.elasticsearch_index),
            (Kind::Opensearch, &settings.opensearch, &settings.opensearch_index),
        ];
        let target = |(kind, url, index): (Kind, &Option<String>, &String)| {
            Some((kind, Target { url: url.clone()?, index: index.clone() }))
        };
        Self {
            jobs: served.by_job.iter().filter_map(named).collect(),
            log_dir: settings.logdir.clone(),
            targets: servers.into_iter().filter_map(target).collect(),
            maintenance: served.directory.maintenance.clone(),
        }
    }
}

/// Follows what records depend on.
pub(crate) fn known(mut served: served::Watch, tasks: &Tasks) -> watch::Receiver<Arc<Known>> {
    let now = Known::of(&served.borrow_and_update());
    let (publish, known) = watch::channel(Arc::new(now));
    tasks.spawn("saltpeter.known", async move {
        while served.changed().await.is_ok() {
            let now = Known::of(&served.borrow_and_update());
            publish.send_if_modified(|known| {
                let changed = **known != now;
                if changed {
                    *known = Arc::new(now);
                }
                changed
            });
        }
    });
    known
}

/// How others tell of what no run and no ledger shows.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    blocked: mpsc::Sender<JobName>,
}

#[cfg_attr(not(test), expect(dead_code, reason = "for the API, which holds such requests up"))]
impl Handle {
    /// Somebody wants a run of this job now, and it does not begin, because everything is in maintenance.
    pub(crate) fn blocked(&self, job: JobName) {
        if self.blocked.try_send(job).is_err() {
            tracing::debug!("a run that maintenance holds up is not told: too many at once");
        }
    }
}

/// Why records cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue.
    #[error("open the queue of records in {path}")]
    Queue {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The store.
    #[error("read where runs end")]
    Store(#[from] fw_store::Error),
    /// TLS.
    #[error("set up the sending of documents")]
    Client(#[from] reqwest::Error),
}

/// Keeps records until `tasks` end. What happens from now on is told, and what has happened since the last
/// time that records were kept here.
///
/// # Errors
/// The queue or the store cannot be read, or no TLS is to be had.
pub(crate) async fn start(
    parts: Parts,
    known: watch::Receiver<Arc<Known>>,
    tasks: &Tasks,
) -> Result<Handle, Error> {
    let dir = parts.store.dir().join("saltpeter").join("records");
    let (incarnation, place) = (parts.store.incarnation(), parts.store.last_run_place().await?);
    let (at, most) = (dir.clone(), parts.queue_bytes);
    let fresh = move || Progress::new(incarnation, place);
    let opened = tokio::task::spawn_blocking(move || Journal::open(&at, most, fresh)).await;
    let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let (journal, progress) =
        opened.map_err(|source| Error::Queue { path: dir.clone(), source })?;
    let client = sink::client(sink::ANSWER_WITHIN)?;
    for kind in Kind::ALL {
        let (known, health) = (known.clone(), parts.health.clone());
        let sender =
            sink::Sender::open(kind, &journal, &dir, known, health, client.clone(), sink::pauses());
        tasks.spawn("saltpeter.documents", sender.run());
    }
    let files =
        write_files(journal.clone(), dir, known.clone(), parts.health.clone(), tasks.token());
    tasks.spawn_graceful("saltpeter.files", files);
    let (blocked, told) = mpsc::channel(BLOCKED);
    let follower = follow::Follower::new(parts, journal, progress, known, told, tasks.token());
    tasks.spawn_graceful("saltpeter.records", follower.run());
    Ok(Handle { blocked })
}

/// Writes log files until the server stops.
async fn write_files(
    journal: Journal,
    beside: PathBuf,
    known: watch::Receiver<Arc<Known>>,
    health: Health,
    token: CancellationToken,
) {
    let mut grown = journal.grown();
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut files = Files::open(journal, &beside);
    while !token.is_cancelled() {
        grown.borrow_and_update();
        let dir = known.borrow().log_dir.clone();
        // It blocks, and is not to be cut off in the middle.
        let round = tokio::task::spawn_blocking(move || {
            let round = files.round(&dir);
            (files, round)
        });
        let Ok((again, round)) = round.await else { return };
        files = again;
        let pause = match round {
            Ok(round) => {
                backoff.reset();
                health.clear(FILES);
                metrics::counter!(LOG_LINES_DROPPED).increment(round.dropped);
                if round.appended > 0 {
                    continue;
                }
                None
            }
            Err(error) => {
                let why = Chain(&error).to_string();
                tracing::warn!(error = why, "log files of Saltpeter's jobs wait");
                health.report(FILES, format!("log files of Saltpeter's jobs wait: {why}"));
                Some(backoff.next_wait())
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = wait(pause) => {}
            changed = grown.changed(), if pause.is_none() => if changed.is_err() { return },
        }
    }
}

/// Waits so long, or for ever.
async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
