//! Lines of logs for those who look at them: an index for each log that is looked at, and searches under way.
//!
//! All of it is made of the stored output when somebody asks, as far as time allows, and goes on with the next
//! question. So nothing is written for logs that nobody reads, and nothing has to be kept right.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fw_core::log::{Index, Line, Mark, Only, Pattern, Search};
use fw_proto::api::{Code, Problem};
use fw_proto::record::MAX_CHUNK;
use fw_proto::{HostId, RunId};
use fw_store::{PlacedChunk, Store};
use tokio::time::Instant;

use crate::problem::{Chain, Failure, Result};

/// Logs whose index is kept. One is at most some MB, a usual one some KB.
const INDEXES: usize = 32;

/// Searches that are kept. One has at most 4 MB.
const SEARCHES: usize = 8;

/// Compressed bytes that are read at a time: raw, some MB.
const READ: usize = 512 * 1024;

/// How long one request counts or looks. Short enough for a page to show that something goes on.
const WITHIN: Duration = Duration::from_millis(250);

/// Of which output: of a whole run in the order in which it came, or of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) run: RunId,
    pub(crate) host: Option<HostId>,
}

/// What is kept of logs. Clones share it.
#[derive(Clone, Default)]
pub struct Lines {
    indexes: Kept<Log, Index>,
    searches: Kept<(Log, Pattern), Search>,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

/// Whether all that is stored has been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    All,
    Part,
}

impl Lines {
    /// Counts on for a while, then answers from what is known.
    pub(crate) async fn count<T>(
        &self,
        store: &Store,
        log: Log,
        answer: impl FnOnce(&Index, Taken) -> T,
    ) -> Result<T> {
        let kept = self.indexes.get(&log, INDEXES, || Ok(Index::default()))?;
        let mut index = kept.lock().await;
        let until = Instant::now() + WITHIN;
        let taken = loop {
            let chunks = store.log_read(log.run, log.host, index.end().place, READ).await?;
            if chunks.is_empty() {
                break Taken::All;
            }
            for placed in &chunks {
                let raw = decompress(placed)?;
                let fed = index.feed(placed.place, placed.host, placed.attempt, &raw);
                fed.map_err(|error| damaged(&error))?;
            }
            if Instant::now() >= until {
                break Taken::Part;
            }
            tokio::task::yield_now().await;
        };
        Ok(answer(&index, taken))
    }

    /// Looks on for a while, then answers from what was found.
    pub(crate) async fn search<T>(
        &self,
        store: &Store,
        log: Log,
        pattern: Pattern,
        answer: impl FnOnce(&Search, Taken) -> T,
    ) -> Result<T> {
        let begin = || {
            Search::new(&pattern).map_err(|error| {
                let problem = Problem::new(Code::InvalidRequest, "this cannot be searched for");
                Failure::from(problem.detail(error.to_string()))
            })
        };
        let kept = self.searches.get(&(log, pattern.clone()), SEARCHES, begin)?;
        let mut search = kept.lock().await;
        let until = Instant::now() + WITHIN;
        let taken = loop {
            if search.is_full() {
                break Taken::All;
            }
            let chunks = store.log_read(log.run, log.host, search.end().place, READ).await?;
            if chunks.is_empty() {
                break Taken::All;
            }
            for placed in &chunks {
                let raw = decompress(placed)?;
                let fed = search.feed(placed.place, placed.host, placed.attempt, &raw);
                fed.map_err(|error| damaged(&error))?;
            }
            if Instant::now() >= until {
                break Taken::Part;
            }
            tokio::task::yield_now().await;
        };
        Ok(answer(&search, taken))
    }
}

/// Shows the lines behind a mark, in order, with those that have not ended, until `see` has enough.
pub(crate) async fn read(
    store: &Store,
    log: Log,
    mut mark: Mark,
    end: &Mark,
    see: &mut (dyn FnMut(&Line<'_>) -> Enough + Send),
) -> Result<()> {
    let mut enough = Enough::No;
    while mark.place < end.place {
        for placed in store.log_read(log.run, log.host, mark.place, MAX_CHUNK).await? {
            if placed.place > end.place {
                break;
            }
            mark.place = placed.place;
            let raw = decompress(&placed)?;
            let fed = mark.splitter.feed(placed.host, placed.attempt, &raw, &mut |line| {
                if enough == Enough::No {
                    enough = see(line);
                }
            });
            fed.map_err(|error| damaged(&error))?;
            if enough == Enough::Yes {
                return Ok(());
            }
        }
    }
    mark.splitter.rest(&mut |line| {
        if enough == Enough::No {
            enough = see(line);
        }
    });
    Ok(())
}

/// Whether a reader has what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enough {
    No,
    Yes,
}

/// The rows that are open, as well as those that have ended.
pub(crate) fn rows(end: &Mark, only: Only) -> u64 {
    let mut rows = match only {
        Only::All => end.splitter.lines(),
        Only::Errors => end.splitter.errors(),
    };
    end.splitter.rest(&mut |line| rows = rows.max(only.row(line).unwrap_or_default()));
    rows
}

pub(crate) fn decompress(placed: &PlacedChunk) -> Result<Vec<u8>> {
    // The store has checked it against this bound when it came.
    zstd::bulk::decompress(&placed.chunk.data, MAX_CHUNK).map_err(|error| damaged(&error))
}

pub(crate) fn damaged(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::error!(error = %Chain(error), "stored output is damaged; restore a backup, and check the disk");
    Problem::new(Code::Internal, "stored output is damaged").into()
}

/// What was used last, each with a lock of its own: who comes while another reads on waits for that.
struct Kept<K, V>(Arc<Mutex<Vec<Entry<K, V>>>>);

type Entry<K, V> = (K, Arc<tokio::sync::Mutex<V>>);

impl<K, V> Clone for Kept<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + PartialEq, V> Kept<K, V> {
    /// The value for a key; the one that was not asked for the longest goes when they are too many.
    fn get(
        &self,
        key: &K,
        most: usize,
        begin: impl FnOnce() -> Result<V>,
    ) -> Result<Arc<tokio::sync::Mutex<V>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match kept.iter().position(|(of, _)| of == key) {
            Some(at) => kept.remove(at),
            None => (key.clone(), Arc::new(tokio::sync::Mutex::new(begin()?))),
        };
        let value = Arc::clone(&entry.1);
        kept.insert(0, entry);
        kept.truncate(most);
        Ok(value)
    }
}
