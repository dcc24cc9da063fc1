//! Following an event stream across broken connections and restarts of the server.
//!
//! The stream has ended when the server says so (`event: end`), or when a new connection
//! after the last event yields nothing, is closed in good order, and the run has ended. Anything else is an
//! interruption: the stream is resumed after the last event that arrived, for as long as it takes.

use std::time::Duration;

use fw_proto::RunId;
use fw_rt::{Backoff, Tasks};
use reqwest::Response;
use tokio::sync::mpsc;

use super::sse::{Event, Parser};
use super::{Client, Error, LogFilter};

/// Waits between tries: a server that restarts is back within a second, one that is
/// installed anew within minutes.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Signals that may wait for their reader; when full, the connection is read no further and TCP holds the server back.
const QUEUE: usize = 64;

/// What to follow.
#[derive(Debug, Clone)]
pub(crate) enum Started {
    /// The events of a run.
    Events(RunId),
    /// The output of a run; `follow` says whether to wait for more.
    Logs {
        /// The run.
        run: RunId,
        /// Which output.
        filter: LogFilter,
        /// Whether to wait for what is still to come.
        follow: bool,
    },
}

/// Whether a first connection that fails is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It is an error: the address may be wrong.
    FirstMustWork,
    /// The server was there a moment ago.
    Always,
}

/// What came of following.
#[derive(Debug)]
pub(crate) enum Signal {
    /// An event arrived.
    Event(Event),
    /// The connection broke or could not be made; it will be tried again.
    Lost(String),
    /// The connection is there again.
    Back,
    /// The stream has ended.
    End,
    /// It cannot go on.
    Failed(Error),
}

/// Follows a stream in a task of its own; the signals stop after [`Signal::End`] or [`Signal::Failed`].
pub(crate) fn follow(
    tasks: &Tasks,
    client: &Client,
    what: Started,
    patience: Patience,
) -> mpsc::Receiver<Signal> {
    let (to, signals) = mpsc::channel(QUEUE);
    let follower = Follower {
        client: client.clone(),
        what,
        last_id: String::new(),
        connected_before: patience == Patience::Always,
        lost: false,
        to,
    };
    tasks.spawn("follow", follower.run());
    signals
}

struct Follower {
    client: Client,
    what: Started,
    last_id: String,
    connected_before: bool,
    lost: bool,
    to: mpsc::Sender<Signal>,
}

/// How one connection ended.
enum Ended {
    /// The server says that there is no more.
    Finished,
    /// Closed in good order after events that were new.
    Progressed,
    /// Closed in good order without any.
    Idle,
    /// Nobody reads the signals any more.
    Unwanted,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let wait = match self.connection().await {
                Ok(Ended::Unwanted) => return,
                Ok(Ended::Finished) => return self.tell(Signal::End).await,
                Ok(Ended::Idle) if self.at_end().await => return self.tell(Signal::End).await,
                // A server that stops closes quiet streams in good order, too.
                Ok(Ended::Idle) => backoff.next_wait(),
                // Perhaps the end, perhaps a server that stops: the next connection will tell.
                Ok(Ended::Progressed) => {
                    backoff.reset();
                    continue;
                }
                Err(error) if self.connected_before && error.may_pass() => {
                    if !std::mem::replace(&mut self.lost, true) {
                        backoff.reset();
                    }
                    self.tell(Signal::Lost(error.told())).await;
                    backoff.next_wait()
                }
                Err(error) => return self.tell(Signal::Failed(error)).await,
            };
            if self.to.is_closed() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Whether a stream that yields nothing more has ended: not while its run goes on.
    async fn at_end(&self) -> bool {
        let run = match &self.what {
            Started::Events(run) | Started::Logs { run, follow: true, .. } => *run,
            Started::Logs { follow: false, .. } => return true,
        };
        self.client.run(run).await.is_ok_and(|run| run.summary.state.is_final())
    }

    async fn connect(&self) -> Result<Response, Error> {
        match &self.what {
            Started::Events(run) => self.client.run_events(*run, &self.last_id).await,
            Started::Logs { run, filter, follow } => {
                self.client.logs(*run, filter, *follow, &self.last_id).await
            }
        }
    }

    async fn connection(&mut self) -> Result<Ended, Error> {
        let mut body = self.connect().await?;
        self.connected_before = true;
        if std::mem::take(&mut self.lost) {
            self.tell(Signal::Back).await;
        }
        let mut parser = Parser::resumed(&self.last_id);
        let from = self.last_id.clone();
        while let Some(bytes) = self.client.more(&mut body).await? {
            for event in parser.push(&bytes).map_err(|error| Error::Stream(error.to_string()))? {
                if event.name == "end" {
                    return Ok(Ended::Finished);
                }
                self.last_id.clone_from(&event.id);
                if self.to.send(Signal::Event(event)).await.is_err() {
                    return Ok(Ended::Unwanted);
                }
            }
        }
        Ok(if self.last_id == from { Ended::Idle } else { Ended::Progressed })
    }

    async fn tell(&self, signal: Signal) {
        // The reader may have what it wanted and be gone.
        self.to.send(signal).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Mutex;
    use uuid::Uuid;

    use super::*;

    /// What a server does with one connection.
    #[derive(Debug, Clone)]
    enum Act {
        /// Sends these events as one chunk and breaks the connection.
        Break(&'static str),
        /// Sends them and ends the answer in good order.
        Close(&'static str),
        /// Answers with JSON.
        Json(u16, String),
    }

    /// Reads the request's head; gives its first line and its `Last-Event-ID`.
    async fn head(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.unwrap());
        }
        let text = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
        let id = text.lines().find_map(|line| line.strip_prefix("last-event-id: ")).unwrap_or("-");
        format!("{} {id}", text.split_whitespace().nth(1).unwrap())
    }

    async fn play(act: &Act, stream: &mut TcpStream) {
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let stream_head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = match act {
            Act::Break(events) => format!("{stream_head}{}", chunk(events)),
            Act::Close("") => format!("{stream_head}0\r\n\r\n"),
            Act::Close(events) => format!("{stream_head}{}0\r\n\r\n", chunk(events)),
            Act::Json(status, body) => {
                let length = body.len();
                format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                )
            }
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    /// Follows a server that plays these acts; what the reader hears, and what the server was asked.
    async fn check(acts: Vec<Act>, follow_logs: bool) -> (Vec<String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tasks.spawn("server", async move {
            for act in acts {
                let (mut stream, _) = listener.accept().await.unwrap();
                log.lock().await.push(head(&mut stream).await);
                play(&act, &mut stream).await;
            }
        });
        let client =
            Client::new(server.parse().unwrap(), None, "a test".into(), Vec::new()).unwrap();
        let what = Started::Logs {
            run: RunId(Uuid::nil()),
            filter: LogFilter::default(),
            follow: follow_logs,
        };
        let mut signals = follow(&tasks, &client, what, Patience::Always);
        let mut heard = Vec::new();
        let all = async {
            while let Some(signal) = signals.recv().await {
                heard.push(match signal {
                    Signal::Event(event) => event.data,
                    Signal::Lost(_) => "lost".to_owned(),
                    Signal::Back => "back".to_owned(),
                    Signal::End => "end".to_owned(),
                    Signal::Failed(error) => format!("failed: {error}"),
                });
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        tasks.cancel();
        let asked = asked
            .lock()
            .await
            .iter()
            .map(|line| line.replace("/api/v1/runs/00000000-0000-0000-0000-000000000000", ""))
            .collect();
        (heard, asked)
    }

    fn run_in(state: &str) -> String {
        serde_json::json!({
            "id": Uuid::nil(), "state": state, "by": "admin", "hosts": "*", "tasks": [],
            "report": {"tasks": {}, "total": 0, "waiting_on": []}, "command": {"shell": "x"},
            "created_at": "2026-11-20T09:30:00Z",
        })
        .to_string()
    }

    #[tokio::test]
    async fn a_broken_stream_is_resumed_after_the_last_event() {
        let (heard, asked) = check(
            vec![
                Act::Break("id: 1.1\ndata: a\n\nid: 1.2\ndata: b\n\nid: 1.3\ndata: half of"),
                Act::Json(
                    503,
                    r#"{"status":503,"code":"unavailable","title":"starting"}"#.to_owned(),
                ),
                Act::Close("id: 1.3\ndata: c\n\nevent: end\nid: 1.3\ndata: {}\n\n"),
            ],
            true,
        )
        .await;
        assert_eq!(heard, ["a", "b", "lost", "lost", "back", "c", "end"]);
        assert_eq!(
            asked,
            ["/logs?follow=true -", "/logs?follow=true 1.2", "/logs?follow=true 1.2"]
        );
    }

    #[tokio::test]
    async fn a_stream_that_is_closed_before_its_run_ends_goes_on() {
        let (heard, asked) = check(
            vec![
                Act::Close("id: 1.1\ndata: a\n\n"),
                Act::Close(""),
                Act::Json(200, run_in("running")),
                Act::Close("id: 1.2\ndata: b\n\n"),
                Act::Close(""),
                Act::Json(200, run_in("failed")),
            ],
            true,
        )
        .await;
        assert_eq!(heard, ["a", "b", "end"]);
        assert_eq!(asked.iter().filter(|line| line.starts_with("/logs")).count(), 4);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_tried_again() {
        let gone = r#"{"status":404,"code":"not_found","title":"no such run"}"#.to_owned();
        let (heard, _) = check(vec![Act::Json(404, gone)], false).await;
        assert_eq!(heard, ["failed: no such run"]);
    }
}
