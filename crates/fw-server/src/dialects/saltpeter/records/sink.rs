//! Sends documents to a search server, from the journal, until it has them.
//!
//! One server that is away keeps nothing else waiting: the journal holds what it has not got, up to its bound.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fw_rt::Backoff;
use reqwest::Url;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::bulk::{self, Answer, Fate};
use super::files::replace;
use super::journal::{Cursor, Journal, Most};
use super::record::Record;
use super::{Kind, Known, Target};
use crate::metrics::{DOCUMENTS_DROPPED, DOCUMENTS_SENT, DOCUMENTS_WAITING};
use crate::problem::Chain;
use crate::state::Health;

/// What is sent at a time: a tenth of what servers take, so that it is parsed while the next is made.
const BATCH: Most = Most { bytes: 5 * 1024 * 1024, records: 500 };

/// A server that has not answered by then is tried again.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Connecting takes a round trip or two.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Waits between tries grow from this
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// up to this: a server that is back is soon heard of.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The waits between tries.
pub(super) const fn pauses() -> Backoff {
    Backoff::new(FIRST_WAIT, LONGEST_WAIT)
}

/// The longest answer that is read: some hundred bytes a document are usual.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// A single failure is a hiccup; from this try on it is told.
const TELL_AT: u32 = 2;

/// Where documents go, as long as the directory says so.
pub(super) struct Sender {
    kind: Kind,
    journal: Journal,
    known: watch::Receiver<Arc<Known>>,
    health: Health,
    client: reqwest::Client,
    /// Waits between tries.
    pauses: Backoff,
    /// Where the cursor is kept.
    path: PathBuf,
    failures: u32,
}

/// Why nothing more is sent.
enum Stopped {
    /// The directory names no such server any more.
    Unwanted,
    /// This server is stopping.
    Over,
}

pub(super) fn client(answer_within: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(answer_within)
        .connect_timeout(CONNECT_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("fleetwright/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The address of `_bulk`. Without a scheme it is plain HTTP, as clients of Python take it.
pub(super) fn address(url: &str) -> Result<Url, String> {
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let mut url = Url::parse(&whole).map_err(|error| format!("its URL is none: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("its URL should begin with http:// or https:// and name a host".to_owned());
    }
    let path = format!("{}/_bulk", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(None);
    Ok(url)
}

impl Sender {
    /// Where it was left. A server that was not there before gets what comes from now on.
    pub(super) fn open(
        kind: Kind,
        journal: &Journal,
        beside: &Path,
        known: watch::Receiver<Arc<Known>>,
        health: Health,
        client: reqwest::Client,
        pauses: Backoff,
    ) -> Self {
        let path = beside.join(format!("{}.cursor", kind.as_str()));
        let journal = journal.clone();
        let sender = Self { kind, journal, known, health, client, pauses, path, failures: 0 };
        if sender.target().is_some() {
            sender.journal.moved(kind.as_str(), sender.cursor());
        }
        sender
    }

    fn target(&self) -> Option<Target> {
        self.known.borrow().targets.get(&self.kind).cloned()
    }

    fn cursor(&self) -> Cursor {
        match kept(&self.path) {
            Ok(Some(cursor)) => cursor,
            // It was never sent to: what was before it is not for it.
            Ok(None) => {
                let end = self.journal.end();
                self.keep(end);
                end
            }
            Err(error) => {
                let file = self.path.display();
                warn!(%error, %file, "how far documents were sent cannot be read; all that wait are sent again");
                self.journal.start()
            }
        }
    }

    fn keep(&self, cursor: Cursor) {
        let text = serde_json::to_vec(&cursor).expect("there are only numbers");
        if let Err(error) = replace(&self.path, &text) {
            // After a restart they are sent again, which makes nothing twice.
            warn!(%error, file = %self.path.display(), "how far documents were sent cannot be noted");
        }
        self.journal.moved(self.kind.as_str(), cursor);
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            if self.target().is_some() {
                match self.send_all().await {
                    Stopped::Unwanted => continue,
                    Stopped::Over => return,
                }
            }
            self.journal.left(self.kind.as_str());
            // Where it is not there already.
            drop(std::fs::remove_file(&self.path));
            self.health.clear(self.kind.topic());
            if self.known.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends until the directory names no such server any more.
    async fn send_all(&mut self) -> Stopped {
        let mut grown = self.journal.grown();
        let mut cursor = self.cursor();
        self.journal.moved(self.kind.as_str(), cursor);
        loop {
            grown.borrow_and_update();
            let (journal, from) = (self.journal.clone(), cursor);
            let read = tokio::task::spawn_blocking(move || journal.read(from, BATCH)).await;
            let batch = match read {
                Ok(Ok(batch)) => batch,
                Ok(Err(error)) => {
                    self.trouble(&format!("the queue cannot be read: {error}"));
                    tokio::time::sleep(LONGEST_WAIT).await;
                    continue;
                }
                Err(_) => return Stopped::Over,
            };
            if batch.missed > 0 {
                self.dropped(batch.missed, "the queue was full");
            }
            self.show_waiting(cursor.record + batch.missed);
            if batch.next != cursor {
                if let Err(stopped) = self.deliver(batch.records.into()).await {
                    return stopped;
                }
                cursor = batch.next;
                self.keep(cursor);
                self.show_waiting(cursor.record);
                continue;
            }
            tokio::select! {
                changed = grown.changed() => if changed.is_err() { return Stopped::Over },
                changed = self.known.changed() => {
                    if changed.is_err() {
                        return Stopped::Over;
                    }
                    if self.target().is_none() {
                        return Stopped::Unwanted;
                    }
                }
            }
        }
    }

    /// Sends these until each is stored or refused.
    async fn deliver(&mut self, mut pending: VecDeque<Record>) -> Result<(), Stopped> {
        let mut backoff = self.pauses.clone();
        let mut at_once = pending.len();
        while !pending.is_empty() {
            let Some(target) = self.target() else { return Err(Stopped::Unwanted) };
            let sent: Vec<Record> = pending.iter().take(at_once).cloned().collect();
            let outcome = match self.post(&target, &sent).await {
                Ok((status, body)) => bulk::answer(status, &body, sent.len()),
                Err(why) => Answer::Again(why),
            };
            let later = match outcome {
                Answer::Each(fates) => {
                    let later = self.settle(&mut pending, fates);
                    self.well();
                    later.then(|| "it has no room for some documents now".to_owned())
                }
                Answer::Split(why) if sent.len() > 1 => {
                    at_once = sent.len() / 2;
                    info!(sink = self.kind.as_str(), "{}: {why}; sending fewer at once", self.kind);
                    continue;
                }
                Answer::Split(why) => {
                    pending.pop_front();
                    self.dropped(1, &why);
                    None
                }
                Answer::Again(why) => {
                    self.trouble(&why);
                    Some(why)
                }
            };
            if later.is_none() {
                backoff.reset();
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                changed = self.known.changed() => if changed.is_err() { return Err(Stopped::Over) },
            }
        }
        Ok(())
    }

    /// Takes what is settled away; says whether some are to be sent again.
    fn settle(&self, pending: &mut VecDeque<Record>, fates: Vec<Fate>) -> bool {
        let sent: Vec<_> = pending.drain(..fates.len().min(pending.len())).collect();
        let mut later = Vec::new();
        let mut stored = 0;
        for (record, fate) in sent.into_iter().zip(fates) {
            match fate {
                Fate::Stored => stored += 1,
                Fate::Later => later.push(record),
                Fate::Refused(why) => {
                    self.dropped(
                        1,
                        &format!("document {} of job {}: {why}", record.id, record.job),
                    );
                }
            }
        }
        metrics::counter!(DOCUMENTS_SENT, "sink" => self.kind.as_str()).increment(stored);
        let again = !later.is_empty();
        later.into_iter().rev().for_each(|record| pending.push_front(record));
        again
    }

    async fn post(&self, target: &Target, records: &[Record]) -> Result<(u16, Vec<u8>), String> {
        let url = address(&target.url)?;
        let body = bulk::body(records, &target.index);
        let request =
            self.client.post(url).header("content-type", "application/x-ndjson").body(body);
        // The URL may hold a password, so it is in no log.
        let said = |error: reqwest::Error| Chain(&error.without_url()).to_string();
        let mut answer = request.send().await.map_err(said)?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(said)? {
            body.extend_from_slice(&part);
            if body.len() > LONGEST_ANSWER {
                return Err(format!("its answer has over {LONGEST_ANSWER} bytes"));
            }
        }
        Ok((status, body))
    }

    fn show_waiting(&self, done: u64) {
        let waiting = self.journal.end().record.saturating_sub(done);
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        metrics::gauge!(DOCUMENTS_WAITING, "sink" => self.kind.as_str()).set(waiting as f64);
    }

    fn dropped(&self, count: u64, why: &str) {
        metrics::counter!(DOCUMENTS_DROPPED, "sink" => self.kind.as_str()).increment(count);
        error!(
            sink = self.kind.as_str(),
            count, "{} documents for {} are dropped: {why}", count, self.kind
        );
    }

    fn trouble(&mut self, why: &str) {
        self.failures += 1;
        if self.failures == TELL_AT {
            warn!(sink = self.kind.as_str(), "documents wait for {}: {why}", self.kind);
        }
        if self.failures >= TELL_AT {
            let reason = format!("documents of Saltpeter's jobs wait for {}: {why}", self.kind);
            self.health.report(self.kind.topic(), reason);
        }
    }

    fn well(&mut self) {
        if self.failures >= TELL_AT {
            info!(sink = self.kind.as_str(), "{} takes documents again", self.kind);
        }
        self.failures = 0;
        self.health.clear(self.kind.topic());
    }
}

/// How far a sink has come; `None` when it never began.
fn kept(path: &Path) -> io::Result<Option<Cursor>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_path_and_its_user() {
        let shown = |url| address(url).map(|url| url.to_string());
        assert_eq!(shown("http://es:9200").unwrap(), "http://es:9200/_bulk");
        assert_eq!(shown("es.local:9200/").unwrap(), "http://es.local:9200/_bulk");
        assert_eq!(shown("https://u:p%40@es/logs/?x=1").unwrap(), "https://u:p%40@es/logs/_bulk");
        assert!(shown("ftp://es").unwrap_err().contains("http://"));
        assert!(shown("http://").is_err());
    }

    #[test]
    fn a_damaged_note_of_how_far_it_came_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent");
        assert_eq!(kept(&path).unwrap(), None);
        let cursor = Cursor { record: 7, segment: 2, offset: 90 };
        std::fs::write(&path, serde_json::to_vec(&cursor).unwrap()).unwrap();
        assert_eq!(kept(&path).unwrap(), Some(cursor));
        std::fs::write(&path, "{\"record\": 7").unwrap();
        assert!(kept(&path).is_err());
    }
}
