//! A stand-in for Saltpeter's wrapper, exact in what it says: one output under way, all of it again after a
//! connection broke, and at the end everything until all of it is acknowledged.

#![expect(
    clippy::indexing_slicing,
    reason = "a wrapper without its environment is nothing to test"
)]

use std::collections::{BTreeMap, VecDeque};
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The longest message, in characters.
const LONGEST: usize = 500 * 1024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Wrapper {
    env: BTreeMap<String, String>,
    machine: String,
    socket: Option<Socket>,
    /// What is to be acknowledged before anything else: `connect`, then `start`.
    hello: VecDeque<&'static str>,
    pending: VecDeque<(u64, Value)>,
    next: u64,
    in_flight: Option<Instant>,
    killed: Option<Instant>,
    done: bool,
}

/// Runs a command and tells all about it, until the server has it or 30 tries are over.
pub(crate) async fn run(env: BTreeMap<String, String>, machine: String) {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("exec 2>&1\n{}", env["SP_COMMAND"])).process_group(0);
    if let Some(cwd) = env.get("SP_CWD") {
        command.current_dir(cwd);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // As the original: the command is started before the first connection.
    let child = command.spawn().expect("a shell");
    let hello = VecDeque::from(["connect", "start"]);
    let mut wrapper = Wrapper {
        env,
        machine,
        socket: None,
        hello,
        pending: VecDeque::new(),
        next: 0,
        in_flight: None,
        killed: None,
        done: false,
    };
    wrapper.follow(child).await;
}

impl Wrapper {
    fn message(&self, kind: &str, more: &Value) -> Value {
        let mut message = json!({
            "type": kind,
            "job_name": self.env["SP_JOB_NAME"],
            "job_instance": self.env["SP_JOB_INSTANCE"],
            "machine": self.machine,
            // A wrapper's clock is often off, and some write what nobody can read.
            "timestamp": "not known",
        });
        message
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        message
    }

    async fn follow(&mut self, mut child: Child) {
        let mut output = child.stdout.take().expect("it can be had");
        let group =
            child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it can be had");
        let interval =
            self.env.get("SP_OUTPUT_INTERVAL_MS").map_or(1000, |ms| ms.parse().expect("a number"));
        let begun = Instant::now();
        let timeout = self
            .env
            .get("SP_TIMEOUT")
            .map(|secs| Duration::from_secs(secs.parse().expect("a number")));
        let (mut buffer, mut beat, mut sent) = (Vec::new(), Instant::now(), Instant::now());
        let mut ended = false;
        let mut overran = false;
        while !ended {
            ended = self.read(&mut output, &mut buffer).await;
            self.connect().await;
            self.hear(Duration::from_millis(5)).await;
            if beat.elapsed() > Duration::from_secs(5) && self.socket.is_some() {
                beat = Instant::now();
                self.send(self.message("heartbeat", &json!({}))).await;
            }
            if self.in_flight.is_none() && sent.elapsed() >= Duration::from_millis(interval) {
                sent = Instant::now();
                self.flush(&mut buffer, false).await;
            }
            let too_long = timeout.is_some_and(|timeout| begun.elapsed() > timeout);
            if (self.killed.is_some() || too_long) && !overran {
                overran = true;
                kill_process_group(group, Signal::TERM).ok();
            }
        }
        let status = child.wait().await.expect("it can be had");
        if overran {
            let word = if self.killed.is_some() {
                "terminated by user request"
            } else {
                "exceeded timeout"
            };
            buffer.extend_from_slice(format!("\n[Job {word}]\n").as_bytes());
        }
        self.flush(&mut buffer, true).await;
        let code = std::os::unix::process::ExitStatusExt::signal(&status)
            .map_or_else(|| status.code().expect("it can be had"), |signal| -signal);
        let seq = self.next;
        self.pending
            .push_back((seq, self.message("complete", &json!({"retcode": code, "seq": seq}))));
        self.finish().await;
    }

    /// Reads what there is; whether it was the end.
    async fn read(&self, output: &mut ChildStdout, buffer: &mut Vec<u8>) -> bool {
        if buffer.len() > 2 * LONGEST {
            return false;
        }
        let read = tokio::time::timeout(Duration::from_millis(10), output.read_buf(buffer)).await;
        matches!(read, Ok(Ok(0)))
    }

    async fn connect(&mut self) {
        if self.socket.is_some() {
            return;
        }
        let connecting = tokio_tungstenite::connect_async(&self.env["SP_WEBSOCKET_URL"]);
        let Ok(Ok((socket, _))) = tokio::time::timeout(Duration::from_secs(2), connecting).await
        else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return;
        };
        self.socket = Some(socket);
        self.in_flight = None;
        self.say_hello().await;
        // Everything that is not acknowledged, at once.
        for (_, message) in self.pending.clone() {
            self.send(message).await;
            self.in_flight = Some(Instant::now());
        }
    }

    async fn say_hello(&mut self) {
        if let Some(kind) = self.hello.front() {
            self.send(self.message(kind, &json!({"pid": 1, "version": "0.9.31"}))).await;
        }
    }

    async fn send(&mut self, message: Value) {
        let Some(socket) = &mut self.socket else { return };
        if socket.send(Message::text(message.to_string())).await.is_err() {
            self.socket = None;
        }
    }

    /// Makes messages of what was read: one, or all of it.
    async fn flush(&mut self, buffer: &mut Vec<u8>, all: bool) {
        while !buffer.is_empty() {
            let text = String::from_utf8_lossy(buffer);
            let data: String = text.chars().take(LONGEST).collect();
            let rest = text[data.len()..].as_bytes().to_vec();
            let seq = self.next;
            let message =
                self.message("output", &json!({"stream": "stdout", "data": data, "seq": seq}));
            self.next += 1;
            self.pending.push_back((seq, message.clone()));
            if !all {
                self.send(message).await;
                self.in_flight = Some(Instant::now());
            }
            *buffer = rest;
            if !all {
                return;
            }
        }
    }

    /// Hears what comes within so long.
    async fn hear(&mut self, within: Duration) {
        let Some(socket) = &mut self.socket else { return };
        let Ok(frame) = tokio::time::timeout(within, socket.next()).await else {
            return self.ask().await;
        };
        let Some(Ok(frame)) = frame else {
            self.socket = None;
            return;
        };
        let Message::Text(text) = frame else { return };
        let message: Value = serde_json::from_str(&text).expect("JSON");
        let seq = message["seq"].as_u64();
        match message["type"].as_str().expect("a text") {
            "ack" => match message["ack_type"].as_str().expect("a text") {
                "complete" => self.done = true,
                "output" => {
                    self.pending.retain(|(pending, _)| seq.is_none_or(|seq| *pending > seq));
                    self.in_flight = None;
                }
                kind => {
                    if self.hello.front() == Some(&kind) {
                        self.hello.pop_front();
                        self.say_hello().await;
                    }
                }
            },
            "kill" => self.killed = self.killed.or_else(|| Some(Instant::now())),
            "sync_response" => {
                let last = message["last_seq"].as_i64().expect("a number");
                self.pending.retain(|(pending, _)| last >= 0 && (*pending as i64) > last);
                self.in_flight = None;
            }
            // All is sent again after a new connection.
            "nack" => self.socket = None,
            "error" => self.done = true,
            other => assert_eq!(other, "known", "the server says it"),
        }
    }

    async fn ask(&mut self) {
        if self.in_flight.is_some_and(|at| at.elapsed() > Duration::from_secs(1)) {
            self.in_flight = Some(Instant::now());
            let last = self.pending.front().map_or(self.next as i64, |(seq, _)| *seq as i64) - 1;
            let ask = json!({"last_acked_seq": last, "next_seq": self.next});
            self.send(self.message("sync_request", &ask)).await;
        }
    }

    async fn finish(&mut self) {
        for _ in 0..30 {
            for (_, message) in self.pending.clone() {
                self.send(message).await;
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            while !self.done && self.socket.is_some() && Instant::now() < deadline {
                self.hear(Duration::from_millis(50)).await;
            }
            if self.done {
                return;
            }
            self.socket = None;
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.pending.retain(|(seq, _)| *seq <= self.next);
            self.connect().await;
        }
    }
}
