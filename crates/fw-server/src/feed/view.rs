//! One viewer: the topics that its pages show, and how far it has read each.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Feed, Held, Topic, message, rows};
use crate::problem::{Failure, Result};
use crate::sse::{Ended, RawOut};
use crate::state::App;

/// The most topics of one viewer: ten tabs, a page of each with three.
pub(crate) const MOST_TOPICS: usize = 32;

/// A viewer hears this often that it is connected, so that it notices when it is not: after a sleep the other end
/// may be gone without a word.
const BEAT: Duration = Duration::from_secs(15);

/// How far a viewer that comes back has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Since {
    epoch: String,
    seq: u64,
}

impl Since {
    /// Reads the id of an event.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once('.').and_then(|(epoch, seq)| {
            let seq = seq.parse().ok()?;
            (epoch.len() <= 16).then(|| Self { epoch: epoch.to_owned(), seq })
        });
        parsed.ok_or_else(|| {
            Failure::invalid("since: give an id of this stream, EPOCH.NUMBER, or leave it out")
        })
    }
}

/// Somebody who looks on. Its topics are let go when it is dropped.
pub(crate) struct Viewer {
    feed: Feed,
    latest: watch::Receiver<u64>,
    /// How far each topic was read; `None` when it has to begin with a snapshot.
    topics: BTreeMap<Topic, Option<u64>>,
    from: u64,
}

impl Viewer {
    /// Begins to follow: topics of `resumed` go on after `since`, those of `fresh` begin with a snapshot.
    pub(crate) fn new(
        feed: &Feed,
        resumed: &[Topic],
        fresh: &[Topic],
        since: Option<&Since>,
    ) -> Self {
        let latest = feed.0.latest.subscribe();
        let mut all = feed.lock();
        let from = all.seq;
        let since = since.filter(|since| since.epoch == feed.0.epoch && since.seq <= from);
        let resumed = resumed.iter().map(|topic| (*topic, since.map(|since| since.seq)));
        let mut topics: BTreeMap<_, _> = resumed.collect();
        topics.extend(fresh.iter().map(|topic| (*topic, None)));
        for topic in topics.keys() {
            all.topics.entry(*topic).or_insert_with(|| Held::new(from)).viewers += 1;
        }
        drop(all);
        Self { feed: feed.clone(), latest, topics, from }
    }

    /// Sends what it has not seen, and then what changes, until it goes.
    pub(crate) async fn follow(
        mut self,
        app: &App,
        out: &RawOut,
    ) -> std::result::Result<(), Ended> {
        let id = format!("{}.{}", self.feed.0.epoch, self.from);
        out.send(Bytes::from(format!("event: hello\nid: {id}\ndata: {{}}\n\n"))).await?;
        loop {
            self.latest.mark_unchanged();
            while self.send_news(app, out).await? {}
            let beat = Instant::now() + BEAT;
            tokio::select! {
                _ = out.gone() => return Err(Ended::Gone),
                changed = self.latest.changed() => changed.map_err(|_| Ended::Gone)?,
                () = tokio::time::sleep_until(beat) => {
                    out.send(Bytes::from_static(b"event: beat\ndata: {}\n\n")).await?;
                }
            }
        }
    }

    /// Sends all that there is; says whether more may have come meanwhile.
    async fn send_news(&mut self, app: &App, out: &RawOut) -> std::result::Result<bool, Ended> {
        let (lost, mut news) = self.take();
        // In the order in which they were made, so that the id of each stands for all before it.
        news.sort_by_key(|(seq, _)| *seq);
        for (_, message) in &news {
            out.send(message.clone()).await?;
        }
        for topic in &lost {
            let (seq, snapshot) = self.feed.snapshot(app, *topic).await?;
            out.send(snapshot).await?;
            self.topics.insert(*topic, Some(seq));
        }
        Ok(!lost.is_empty() || !news.is_empty())
    }

    /// Takes what is kept, and the topics of which too much has gone.
    pub(super) fn take(&mut self) -> (Vec<Topic>, Vec<(u64, Bytes)>) {
        let all = self.feed.lock();
        let (mut lost, mut news) = (Vec::new(), Vec::new());
        for (topic, seen) in &mut self.topics {
            let Some(held) = all.topics.get(topic) else { continue };
            match *seen {
                Some(seq) if seq >= held.since => {
                    let after = held.recent.iter().filter(|(at, _)| *at > seq);
                    news.extend(after.cloned());
                    *seen = Some(all.seq.max(seq));
                }
                Some(_) | None => lost.push(*topic),
            }
        }
        (lost, news)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut all = self.feed.lock();
        for topic in self.topics.keys() {
            if let Some(held) = all.topics.get_mut(topic) {
                held.viewers = held.viewers.saturating_sub(1);
                held.left_at = Instant::now();
            }
        }
    }
}

impl Feed {
    /// All rows of a topic, and the number of the change up to which they are new. Made once for all who need it, as
    /// long as what changed since is still kept.
    async fn snapshot(&self, app: &App, topic: Topic) -> Result<(u64, Bytes)> {
        let _one_at_a_time = self.0.making.lock().await;
        let seq = {
            let all = self.lock();
            let made = all.topics.get(&topic).and_then(|held| {
                // Once the changes are longer than it, a new one is cheaper for everybody.
                let (seq, snapshot) = held.snapshot.as_ref()?;
                let since = held.recent.iter().filter(|(at, _)| at > seq);
                let longer = since.map(|(_, message)| message.len()).sum::<usize>();
                (*seq >= held.since && longer <= snapshot.len()).then(|| (*seq, snapshot.clone()))
            });
            if let Some(made) = made {
                return Ok(made);
            }
            all.seq
        };
        let rows = rows::all(app, topic).await?;
        let snapshot = message("snapshot", None, topic, &rows);
        if let Some(held) = self.lock().topics.get_mut(&topic) {
            drop(held.news(rows));
            held.snapshot = Some((seq, snapshot.clone()));
        }
        Ok((seq, snapshot))
    }
}
