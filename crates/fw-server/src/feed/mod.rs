//! What browsers follow: one stream of changes for each, of all topics that its pages show.
//!
//! A change is encoded once a topic and at most ten times a second, by the one task in `publish`, whoever looks on. What
//! was sent last is kept for each topic, up to a bound: a viewer that comes back, or that reads slowly, goes on
//! where it stopped if that is still there, and gets a snapshot if not. So a viewer costs its connection and
//! a number for each topic. Rows are absolute: to see one twice does no harm.

mod publish;
mod rows;
mod topic;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use fw_proto::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use publish::start;
pub(crate) use topic::Topic;
pub(crate) use view::{MOST_TOPICS, Since, Viewer};

/// Changes of a topic that are kept for those who lag: half a minute of a busy one, and at most so many bytes.
const KEPT: usize = 256;
const KEPT_BYTES: usize = 1 << 20;

/// Rows whose last state is remembered to leave out what did not change; beyond that, all are forgotten and sent anew.
const KNOWN: usize = 20_000;

/// A row of a topic: its key, and its value as JSON; `None` when it is gone.
type Rows = BTreeMap<String, Option<String>>;

/// Where viewers find what changes. Clones are the same.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    counts: Mutex<Counts>,
    held: Mutex<AllHeld>,
    /// The number of the last change.
    latest: watch::Sender<u64>,
    /// Tells numbers of this life of the server from those of another.
    epoch: String,
    /// Snapshots are made one after the other: who waited may find it made.
    making: tokio::sync::Mutex<()>,
}

/// How often something of each kind has changed.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    hosts: u64,
    jobs: u64,
    runs: u64,
    changes: u64,
    audit: u64,
}

#[derive(Default)]
struct AllHeld {
    seq: u64,
    topics: BTreeMap<Topic, Held>,
}

/// What is kept of a topic that somebody follows.
struct Held {
    viewers: usize,
    recent: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// All changes after this number are in `recent`.
    since: u64,
    snapshot: Option<(u64, Bytes)>,
    known: BTreeMap<String, u64>,
    left_at: Instant,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("epoch", &self.0.epoch).finish_non_exhaustive()
    }
}

impl Feed {
    /// A feed without topics.
    #[must_use]
    pub fn new(started_at: Timestamp) -> Self {
        Self(Arc::new(Shared {
            counts: Mutex::default(),
            held: Mutex::default(),
            latest: watch::Sender::new(0),
            epoch: format!("{:x}", started_at.as_millis()),
            making: tokio::sync::Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, AllHeld> {
        // Each change of it is whole before anything can panic.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topics that somebody follows.
    fn followed(&self) -> Vec<Topic> {
        self.lock().topics.iter().filter(|(_, held)| held.viewers > 0).map(|(of, _)| *of).collect()
    }

    fn counts(&self) -> Counts {
        *self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what has changed.
    fn count(&self, more: Counts) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.hosts += more.hosts;
        counts.jobs += more.jobs;
        counts.runs += more.runs;
        counts.changes += more.changes;
        counts.audit += more.audit;
    }

    /// Sends what is new in these rows of a topic.
    fn publish(&self, topic: Topic, rows: Rows) {
        let mut all = self.lock();
        let seq = all.seq + 1;
        let Some(held) = all.topics.get_mut(&topic) else { return };
        let news = held.news(rows);
        if news.is_empty() {
            return;
        }
        let id = format!("{}.{seq}", self.0.epoch);
        held.keep(seq, message("delta", Some(&id), topic, &news));
        all.seq = seq;
        self.0.latest.send_replace(seq);
    }

    /// Something may have been missed: what is kept proves nothing any more, and everyone gets a snapshot.
    fn lose(&self) {
        let mut all = self.lock();
        all.seq += 1;
        let seq = all.seq;
        for held in all.topics.values_mut() {
            (held.since, held.bytes, held.snapshot) = (seq, 0, None);
            held.recent.clear();
        }
        self.0.latest.send_replace(seq);
    }

    /// Forgets topics that nobody has followed since then.
    fn forget(&self, before: Instant) {
        self.lock().topics.retain(|_, held| held.viewers > 0 || held.left_at > before);
    }
}

impl Held {
    fn new(seq: u64) -> Self {
        Self {
            viewers: 0,
            recent: VecDeque::new(),
            bytes: 0,
            since: seq,
            snapshot: None,
            known: BTreeMap::new(),
            left_at: Instant::now(),
        }
    }

    /// Leaves out rows that are as they were.
    fn news(&mut self, rows: Rows) -> Rows {
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        let mut news = Rows::new();
        for (key, value) in rows {
            let before = match &value {
                Some(value) => self.known.insert(key.clone(), hash(value)),
                None => self.known.remove(&key),
            };
            if value.as_deref().map(hash) != before {
                news.insert(key, value);
            }
        }
        news
    }

    fn keep(&mut self, seq: u64, message: Bytes) {
        self.bytes += message.len();
        self.recent.push_back((seq, message));
        // The last is always kept, however large: else nobody would get it.
        while self.recent.len() > KEPT || (self.bytes > KEPT_BYTES && self.recent.len() > 1) {
            let Some((seq, gone)) = self.recent.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(gone.len());
            self.since = seq;
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// An event of a stream (WHATWG HTML §9.2), with rows that are JSON already.
fn message(kind: &str, id: Option<&str>, topic: Topic, rows: &Rows) -> Bytes {
    let mut text = format!("event: {kind}\n");
    if let Some(id) = id {
        text.extend(["id: ", id, "\n"]);
    }
    text.extend(["data: {\"topic\":\"", &topic.to_string(), "\",\"rows\":{"]);
    for (at, (key, value)) in rows.iter().enumerate() {
        let key = serde_json::to_string(key).expect("text is JSON");
        let comma = if at == 0 { "" } else { "," };
        text.extend([comma, &key, ":", value.as_deref().unwrap_or("null")]);
    }
    text.push_str("}}\n\n");
    text.into()
}

#[cfg(test)]
mod tests;
