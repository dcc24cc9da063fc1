//! Every kind of message, tried once against a server: ours, the original, or another.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{Error, PROMPT, Whose, Wire};

/// A server may say `kill` or ping while something else is waited for.
const OTHERS: usize = 100;

/// The end of a run is acknowledged when it is recorded; the original polls for it up to 30 seconds.
const RECORDED: Duration = Duration::from_secs(30);

/// What became of a check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// What should be so.
    pub(crate) name: &'static str,
    /// Whether it is.
    pub(crate) outcome: Outcome,
    /// What was heard instead, why it was left out, or how long it took.
    pub(crate) detail: String,
}

/// Whether it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is.
    Passed,
    /// It is not.
    Failed,
    /// It was not tried.
    LeftOut,
}

impl Outcome {
    /// In the words of the table.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::LeftOut => "left out",
        }
    }
}

/// What needs an instance that the server has started.
const OF_A_RUN: [&str; 11] = [
    "start is acknowledged within two seconds",
    "output is acknowledged with its number within a second",
    "output that comes twice is acknowledged again",
    "output out of order is not taken, and told which is wanted",
    "output without a number is acknowledged",
    "a sync request is answered with the last output",
    "a heartbeat is taken in silence",
    "a new connection goes on where the old one was, without another connect",
    "a kill comes when the run is cancelled",
    "complete is acknowledged with its number",
    "complete that comes twice is acknowledged again",
];

/// Tries everything.
pub(crate) async fn all(url: &str, whose: Option<&Whose>, kill: Option<Duration>) -> Vec<Check> {
    let mut tried = Tried { url, checks: Vec::new() };
    if tried.strangers().await.is_none() {
        return tried.checks;
    }
    match whose {
        Some(whose) => {
            tried.run(whose, kill).await;
        }
        None => {
            let why = "needs --instance and --machine of a run that waits for its wrapper";
            OF_A_RUN.iter().for_each(|name| tried.leave_out(name, why));
        }
    }
    let why = "it would end the run in the place of complete";
    tried.leave_out("an error of the wrapper ends its task with 255", why);
    tried.checks
}

struct Tried<'a> {
    url: &'a str,
    checks: Vec<Check>,
}

impl Tried<'_> {
    fn leave_out(&mut self, name: &'static str, why: &str) {
        let detail = why.to_owned();
        self.checks.push(Check { name, outcome: Outcome::LeftOut, detail });
    }

    /// Notes what came of a check; `None` when it failed.
    fn note<T>(
        &mut self,
        name: &'static str,
        begun: Instant,
        heard: Result<T, String>,
    ) -> Option<T> {
        let took = begun.elapsed().as_millis();
        let (outcome, detail, heard) = match heard {
            Ok(heard) => (Outcome::Passed, format!("{took} ms"), Some(heard)),
            Err(why) => (Outcome::Failed, why, None),
        };
        self.checks.push(Check { name, outcome, detail });
        heard
    }

    async fn open(&mut self, name: &'static str) -> Option<Wire> {
        let begun = Instant::now();
        let opened = Wire::open(self.url).await.map_err(|error| error.to_string());
        self.note(name, begun, opened)
    }

    /// Says something and checks what is answered.
    async fn ask(
        &mut self,
        name: &'static str,
        wire: &mut Wire,
        frames: Vec<Message>,
        within: Duration,
        expected: &Value,
    ) -> Option<()> {
        let begun = Instant::now();
        let answered = answer(wire, frames, within, expected).await;
        self.note(name, begun, answered)
    }

    /// What any server says to a wrapper of a run that it does not know.
    async fn strangers(&mut self) -> Option<()> {
        let whose = Whose {
            instance: format!("connectivity-test_{}", std::process::id()),
            machine: "connectivity-test".to_owned(),
        };
        let connect = whose.says("connect", &json!({}));
        let acked = json!({"type": "ack", "ack_type": "connect"});
        let mut wire = self.open("the server takes a connection").await?;
        let name = "connect is acknowledged within two seconds";
        self.ask(name, &mut wire, vec![text(&connect)], PROMPT, &acked).await;
        let binary = Message::binary(connect.to_string());
        self.ask("JSON in a binary frame is read", &mut wire, vec![binary], PROMPT, &acked).await;
        let harmless = ["not json", "[1, 2]", "\"text\"", "{}", "{\"type\": 5}", "\u{0}\u{1}"];
        let mut frames: Vec<_> = harmless.into_iter().map(Message::text).collect();
        frames.extend([
            text(&whose.says("mystery", &json!({}))),
            text(&whose.says("killed", &json!({}))),
            text(&whose.says("heartbeat", &json!({"timestamp": "yesterday"}))),
            text(&whose.says("output", &json!({"data": null, "seq": "x"}))),
            text(&whose.says("error", &json!({"error": "test"}))),
            text(&whose.says("heartbeat", &json!({}))),
            text(&connect),
        ]);
        let name = "what makes no sense does no harm";
        self.ask(name, &mut wire, frames, PROMPT, &acked).await;
        let sync = whose.says("sync_request", &json!({"last_acked_seq": -1, "next_seq": 0}));
        let none = json!({"type": "sync_response", "last_seq": -1});
        let name = "a sync request of an unknown run is answered with -1";
        self.ask(name, &mut wire, vec![text(&sync)], PROMPT, &none).await;
        let complete = whose.says("complete", &json!({"retcode": 0, "seq": 0}));
        let unknown = json!({"type": "error", "code": "JOB_NOT_FOUND"});
        let name = "complete of an unknown run is refused";
        self.ask(name, &mut wire, vec![text(&complete)], PROMPT, &unknown).await;
        let begun = Instant::now();
        let closed = match wire.hear(PROMPT).await {
            Ok(None) | Err(Error::Socket(_)) => Ok(()),
            Ok(Some(message)) => Err(format!("heard {message}")),
            Err(error) => Err(error.to_string()),
        };
        self.note("and its connection is closed", begun, closed);
        Some(())
    }

    /// What a server says to the wrapper of a run that it has started.
    async fn run(&mut self, whose: &Whose, kill: Option<Duration>) -> Option<()> {
        let [start, first, again, gap, plain, sync, beat, anew, killed, end, end_again] = OF_A_RUN;
        let ack = |kind: &str, seq: u64| json!({"type": "ack", "ack_type": kind, "seq": seq});
        let output = |seq: u64| {
            text(&whose.says("output", &json!({"data": "connectivity test\n", "seq": seq})))
        };
        let second = Duration::from_secs(1);
        let mut wire = self.open("the server takes a connection of the run").await?;
        let hello = vec![text(&whose.says("connect", &json!({})))];
        let acked = json!({"type": "ack", "ack_type": "connect"});
        self.ask("connect of the run is acknowledged", &mut wire, hello, PROMPT, &acked).await;
        let pid = json!({"pid": std::process::id(), "version": "test"});
        let begun = vec![text(&whose.says("start", &pid))];
        let acked = json!({"type": "ack", "ack_type": "start"});
        self.ask(start, &mut wire, begun, PROMPT, &acked).await;
        self.ask(first, &mut wire, vec![output(0)], second, &ack("output", 0)).await;
        self.ask(again, &mut wire, vec![output(0)], second, &ack("output", 0)).await;
        let nack = json!({"type": "nack", "expected_seq": 1, "received_seq": 2});
        self.ask(gap, &mut wire, vec![output(2)], second, &nack).await;
        let unnumbered = text(&whose.says("output", &json!({"data": "no number\n"})));
        let acked = json!({"type": "ack", "ack_type": "output"});
        self.ask(plain, &mut wire, vec![unnumbered], second, &acked).await;
        let ask = text(&whose.says("sync_request", &json!({"last_acked_seq": 0, "next_seq": 1})));
        let last = json!({"type": "sync_response", "last_seq": 0});
        self.ask(sync, &mut wire, vec![ask.clone()], PROMPT, &last).await;
        let heartbeat = vec![text(&whose.says("heartbeat", &json!({}))), ask];
        self.ask(beat, &mut wire, heartbeat, PROMPT, &last).await;
        drop(wire);
        let mut wire = self.open("and another one").await?;
        self.ask(anew, &mut wire, vec![output(1)], second, &ack("output", 1)).await;
        match kill {
            Some(within) => {
                self.ask(killed, &mut wire, Vec::new(), within, &json!({"type": "kill"})).await;
            }
            None => self.leave_out(killed, "needs --kill and someone who cancels the run"),
        }
        let code = if kill.is_some() { -15 } else { 0 };
        let complete = vec![text(&whose.says("complete", &json!({"retcode": code, "seq": 2})))];
        let acked = ack("complete", 2);
        self.ask(end, &mut wire, complete.clone(), RECORDED, &acked).await;
        self.ask(end_again, &mut wire, complete, RECORDED, &acked).await
    }
}

fn text(message: &Value) -> Message {
    Message::text(message.to_string())
}

/// Waits for a message that has these fields. Kills come in between at any time.
async fn answer(
    wire: &mut Wire,
    frames: Vec<Message>,
    within: Duration,
    expected: &Value,
) -> Result<(), String> {
    for frame in frames {
        wire.say(frame).await.map_err(|error| error.to_string())?;
    }
    let deadline = Instant::now() + within;
    for _ in 0..OTHERS {
        let left = deadline.saturating_duration_since(Instant::now());
        let heard = wire.hear(left).await;
        let message = match heard {
            Err(Error::Silent(_)) => return Err(format!("no answer within {within:?}")),
            heard => heard.map_err(|error| error.to_string())?,
        };
        match message {
            None => return Err("the connection was closed".to_owned()),
            Some(message) if has(&message, expected) => return Ok(()),
            Some(message) if message.get("type").is_some_and(|kind| kind == "kill") => {}
            Some(message) => return Err(format!("heard {message}, not {expected}")),
        }
    }
    Err("heard nothing but kills".to_owned())
}

fn has(message: &Value, expected: &Value) -> bool {
    let expected = expected.as_object().into_iter().flatten();
    expected.into_iter().all(|(name, value)| message.get(name) == Some(value))
}
