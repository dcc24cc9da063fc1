//! Browsers that look on: each a stream of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fw_rt::Tasks;
use reqwest::Response;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::super::figures::Quantiles;
use super::super::process::Server;
use super::super::progress::Progress;

/// Connections that are being opened at once: as many as the kernel's queue of a listener holds.
const OPENING: usize = 64;

/// How often a host changes.
const CHANGES: u32 = 10;

/// Between two changes: longer than the server waits for more.
const PAUSE: Duration = Duration::from_millis(300);

/// Everything that is waited for comes within this, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// What viewers cost and how late they hear.
pub(super) struct Seen {
    pub(super) rss_per_viewer_bytes: Option<u64>,
    pub(super) lag_ms: Option<Quantiles>,
}

pub(super) async fn watch(
    server: &Server,
    count: u32,
    progress: &Progress,
    tasks: &Tasks,
) -> anyhow::Result<Seen> {
    let (http, token) = (client()?, server.token()?);
    let before = server.rss();
    let url = format!("{}/api/v1/events?fresh=hosts,runs", server.url());
    let (ready, mut are_ready) = mpsc::channel(1024);
    let (heard, mut all_heard) = mpsc::channel(1024);
    let open = Arc::new(Semaphore::new(OPENING));
    for _ in 0..count {
        let asking = http.get(&url).bearer_auth(&token);
        let (open, ready, heard) = (Arc::clone(&open), ready.clone(), heard.clone());
        tasks.spawn("viewer", async move {
            let one = open.acquire_owned().await.context("connections may be opened")?;
            let answer = asking.send().await.context("follow")?.error_for_status()?;
            let mut viewer = Viewer { answer, text: Vec::new() };
            viewer.until("event: snapshot").await?;
            viewer.until("event: snapshot").await?;
            drop(one);
            // Nobody waits any more when the benchmark was given up.
            if ready.send(()).await.is_err() {
                return anyhow::Ok(());
            }
            loop {
                viewer.until("event: delta").await?;
                // Nobody listens when the benchmark is over.
                if heard.send(Instant::now()).await.is_err() {
                    return Ok(());
                }
            }
        });
    }
    drop((ready, heard));
    for number in 1..=count {
        let one = tokio::time::timeout(PATIENCE, are_ready.recv()).await;
        ensure!(one.context("viewers connect")?.is_some(), "a viewer was refused");
        progress.at(u64::from(number), u64::from(count));
    }
    let after = server.rss();
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let begun = Instant::now();
        let change = json!({"set": {"bench": number.to_string()}});
        let asked = http.patch(format!("{}/api/v1/hosts/bench-1/labels", server.url()));
        let answer =
            asked.bearer_auth(&token).json(&change).send().await.context("change a host")?;
        answer.error_for_status().context("change a host")?;
        for _ in 0..count {
            let at = tokio::time::timeout(PATIENCE, all_heard.recv()).await;
            let at = at.context("every viewer hears of a change")?.context("viewers are there")?;
            times.push(at.saturating_duration_since(begun).as_secs_f64() * 1000.0);
        }
        tokio::time::sleep(PAUSE).await;
    }
    let grown = after.zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(Seen {
        rss_per_viewer_bytes: grown.map(|bytes| bytes / u64::from(count.max(1))),
        lag_ms: Quantiles::of(times),
    })
}

fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().build().context("make a client")
}

/// A stream, and what of it has come and was not looked at.
struct Viewer {
    answer: Response,
    text: Vec<u8>,
}

impl Viewer {
    /// Reads on until these words have come, and past them.
    async fn until(&mut self, words: &str) -> anyhow::Result<()> {
        loop {
            let found = self.text.windows(words.len()).position(|part| part == words.as_bytes());
            if let Some(at) = found {
                self.text.drain(..at + words.len());
                return Ok(());
            }
            // The words may have come in part.
            let keep = self.text.len().saturating_sub(words.len());
            self.text.drain(..keep);
            let more = self.answer.chunk().await.context("read a stream")?;
            self.text.extend_from_slice(&more.context("a stream has ended")?);
        }
    }
}
