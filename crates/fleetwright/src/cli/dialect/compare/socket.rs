//! The socket of Saltpeter's pages, listened to as a page would. Nothing is asked for that changes anything.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use fw_agent::connect::{self, Wire};
use fw_proto::Timestamp;
use fw_rt::Clock;
use fw_server::dialects::saltpeter::beside::heard::Heard;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, http};

use super::super::super::Refusal;

/// It speaks every two seconds, whatever happens; a loaded one somewhat later.
const SILENT: Duration = Duration::from_secs(30);

/// A search server may take a while; without one there is never an answer.
const SEARCH: Duration = Duration::from_secs(10);

/// More marks than this no timeline of ours has: the oldest are left out then.
const MOST_MARKS: usize = 5000;

/// A page of a Saltpeter.
pub(super) struct Socket {
    wire: WebSocketStream<Box<dyn Wire>>,
    url: String,
}

impl Socket {
    /// Opens it.
    ///
    /// # Errors
    /// The address is none, nobody is there, or the token is wrong.
    pub(super) async fn open(with: &str, token: Option<&Path>) -> anyhow::Result<Self> {
        let url = address(with)?;
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|error| Refusal::usage(format!("{with}: {error}")))?;
        if let Some(path) = token {
            let token = std::fs::read_to_string(path)
                .with_context(|| format!("read {}", path.display()))?;
            let value = http::HeaderValue::from_str(&format!("Bearer {}", token.trim()));
            let value = value.with_context(|| format!("the token in {}", path.display()))?;
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        let wire = connect::socket(&url).await.with_context(|| format!("connect to {url}"))?;
        let opening = timeout(SILENT, tokio_tungstenite::client_async(request, wire)).await;
        let opening = opening.with_context(|| format!("connect to {url}: no answer"))?;
        let (wire, _) = opening.with_context(|| format!("connect to {url}"))?;
        Ok(Self { wire, url })
    }

    /// Listens for so long, and at least until everything was told once.
    ///
    /// # Errors
    /// It falls silent or goes away.
    pub(super) async fn hear(
        &mut self,
        clock: &Clock,
        since: Timestamp,
        watch: Duration,
    ) -> anyhow::Result<Heard> {
        let mut heard = Heard::default();
        let (mut config, mut status) = (false, false);
        while !(config && status) {
            let message = self.next(Instant::now() + SILENT).await?;
            let message =
                message.with_context(|| format!("{}: it does not say its state", self.url))?;
            config |= message.get("config").is_some();
            status |= message.get("running").is_some();
            heard.take(&message, clock.now());
        }
        let jobs: Vec<_> = heard.jobs().into_iter().map(str::to_owned).collect();
        self.say(&json!({ "subscribe": jobs })).await?;
        let until = Instant::now() + watch;
        // The answer to that is one more state, with details of all jobs before the next.
        let mut states = 0;
        while states < 2 || Instant::now() < until {
            let message = self.next(Instant::now() + SILENT).await?;
            let message = message.with_context(|| format!("{}: it says nothing more", self.url))?;
            states += usize::from(message.get("running").is_some());
            heard.take(&message, clock.now());
        }
        self.timeline(&mut heard, clock, since).await?;
        Ok(heard)
    }

    /// Asks for older runs.
    async fn timeline(
        &mut self,
        heard: &mut Heard,
        clock: &Clock,
        since: Timestamp,
    ) -> anyhow::Result<()> {
        let to = clock.now();
        let id = format!("fleetwright-{}", to.as_millis());
        let asked = json!({"start_date": since.to_string(), "end_date": to.to_string(), "id": id});
        self.say(&json!({ "getTimeline": asked })).await?;
        let until = Instant::now() + SEARCH;
        while let Some(message) = self.next(until).await? {
            heard.take(&message, clock.now());
            let timeline = message.get("timeline");
            let mine = timeline.and_then(|timeline| timeline.get("id")?.as_str()) == Some(&id);
            let marks = timeline.and_then(|timeline| timeline.get("content")?.as_array());
            if let Some(marks) = marks.filter(|_| mine) {
                let oldest = marks.first().filter(|_| marks.len() >= MOST_MARKS);
                let oldest = oldest.and_then(|mark| mark.get("timestamp")?.as_str()?.parse().ok());
                heard.told_all(oldest.map_or(since, |oldest: Timestamp| oldest.max(since)), to);
                break;
            }
        }
        Ok(())
    }

    async fn say(&mut self, message: &Value) -> anyhow::Result<()> {
        let sent = timeout(SILENT, self.wire.send(Message::text(message.to_string()))).await;
        sent.with_context(|| format!("{} does not listen", self.url))?
            .with_context(|| format!("speak to {}", self.url))
    }

    /// The next message that is JSON; `None` when none came in time.
    async fn next(&mut self, until: Instant) -> anyhow::Result<Option<Value>> {
        loop {
            let Ok(message) = timeout_at(until, self.wire.next()).await else { return Ok(None) };
            let message = message.with_context(|| format!("{} hung up", self.url))?;
            let message = message.with_context(|| format!("listen to {}", self.url))?;
            if let Message::Text(text) = message
                && let Ok(value) = serde_json::from_str(&text)
            {
                return Ok(Some(value));
            }
        }
    }
}

/// Where its pages listen.
fn address(with: &str) -> anyhow::Result<String> {
    let usage = || Refusal::usage(format!("--with {with}: write it as http://HOST:8888"));
    let (scheme, rest) = with.split_once("://").ok_or_else(usage)?;
    let scheme = match scheme {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => return Err(usage()),
    };
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/ws").unwrap_or(rest);
    if rest.is_empty() { Err(usage()) } else { Ok(format!("{scheme}://{rest}/ws")) }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_https_address_is_spoken_to_in_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let with = format!("https://{}", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut begin = [0; 2];
            stream.read_exact(&mut begin).await.unwrap();
            begin
        };
        let both = async { tokio::join!(Socket::open(&with, None), server) };
        let (opened, begin) = timeout(SILENT, both).await.unwrap();
        assert_eq!(begin, [0x16, 0x03], "a record of a handshake (RFC 8446 section 5.1)");
        // The server has gone without an answer.
        let error = format!("{:#}", opened.err().unwrap());
        assert!(error.contains("TLS with 127.0.0.1"), "{error}");
    }

    #[test]
    fn an_address_is_that_of_its_api_or_of_its_socket() {
        for with in ["http://s:8888", "http://s:8888/", "ws://s:8888/ws"] {
            assert_eq!(address(with).unwrap(), "ws://s:8888/ws");
        }
        assert_eq!(address("https://s/saltpeter").unwrap(), "wss://s/saltpeter/ws");
        for wrong in ["s:8888", "ftp://s", "http://"] {
            assert!(
                address(wrong).unwrap_err().to_string().contains("http://HOST:8888"),
                "{wrong}"
            );
        }
    }
}
