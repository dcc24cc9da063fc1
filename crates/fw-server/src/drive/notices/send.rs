//! Sends notices, and tries again what was not taken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use fw_proto::Span;
use fw_proto::api::Hook;
use fw_rt::Clock;
use fw_store::{Notice, Store};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::command::execute;
use crate::problem::Chain;

/// A webhook has so long to answer.
const WEBHOOK_WITHIN: Duration = Duration::from_secs(10);

/// Sent at one time: one endpoint that hangs keeps no other from being told.
const AT_ONCE: usize = 16;

/// The outbox is looked at so often, told or not.
const POLL: Duration = Duration::from_secs(1);

/// Waits between tries grow from this, twofold,
const FIRST_WAIT: Span = Span::from_secs(10);

/// up to this.
pub(super) const LONGEST_WAIT: Span = Span::from_secs(60 * 60);

/// Tries: the waits between them sum up to a day and a little.
const TRIES: u32 = 33;

/// Sends what is in the outbox.
pub(super) struct Sender {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) client: reqwest::Client,
}

impl Sender {
    pub(super) async fn run(self, put: Arc<Notify>) {
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
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_go_on_for_a_day() {
        let total: u64 = (0..TRIES - 1).map(|attempts| wait_after(attempts).as_millis()).sum();
        let day = 24 * 60 * 60 * 1000;
        assert!((day..day + LONGEST_WAIT.as_millis()).contains(&total), "{total}");
    }
}
