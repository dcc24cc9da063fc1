//! What wrappers say and hear: one JSON object a frame.
//!
//! Wrappers of many versions speak it, so everything is read loosely: unknown fields are ignored,
//! a field of the wrong type is as if it was not there, and what makes no sense is dropped.

use fw_proto::record::Stream;
use fw_proto::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A message of a wrapper.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The job as the wrapper was told its name.
    pub job: String,
    /// The instance as the wrapper was told it; empty when it did not say.
    pub instance: String,
    /// What the wrapper calls its machine.
    pub machine: String,
    /// When, by the wrapper's clock; `None` when it does not say or cannot be read.
    pub at: Option<Timestamp>,
    /// What.
    pub said: Said,
}

/// What a wrapper says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// First word on a connection.
    Connect,
    /// The command was started.
    Start,
    /// The wrapper lives.
    Heartbeat,
    /// A piece of output.
    Output {
        /// Which stream.
        stream: Stream,
        /// The text.
        data: String,
        /// Its number from 0; the oldest wrappers do not count.
        seq: Option<u64>,
    },
    /// Which output has arrived?
    Sync {
        /// The last one that the wrapper knows to have arrived, and does not keep any more.
        last_acked: Option<u64>,
    },
    /// The command has ended.
    Complete {
        /// Exit code, or a negative signal number as Python writes it.
        code: Option<i32>,
        /// Its number, counted on from the output.
        seq: Option<u64>,
        /// All the output; said by the older wrappers.
        output: Option<String>,
    },
    /// The wrapper could not do its work.
    Error(String),
    /// Nothing that is answered.
    Other,
}

/// Fields as they come.
#[derive(Deserialize)]
struct Raw {
    r#type: Option<Value>,
    job_name: Option<Value>,
    job_instance: Option<Value>,
    machine: Option<Value>,
    timestamp: Option<Value>,
    stream: Option<Value>,
    data: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    seq: Option<Value>,
    last_acked_seq: Option<Value>,
    retcode: Option<Value>,
    output: Option<Value>,
    error: Option<Value>,
}

/// Tells a `null` from a field that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Reads a message; `None` for what no wrapper means.
#[must_use]
pub fn read(json: &[u8]) -> Option<Message> {
    // An array of the right length would pass for the struct.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let raw: Raw = serde_json::from_slice(json).ok()?;
    Some(Message {
        said: said(&raw)?,
        job: text(raw.job_name).unwrap_or_default(),
        instance: text(raw.job_instance).unwrap_or_default(),
        machine: text(raw.machine).unwrap_or_default(),
        at: text(raw.timestamp).and_then(|text| instant(&text)),
    })
    .map(|message| with_texts(message, raw.data, raw.output))
}

/// What is said, without its long texts.
fn said(raw: &Raw) -> Option<Said> {
    let kind = raw.r#type.as_ref().and_then(Value::as_str)?;
    Some(match kind {
        "connect" => Said::Connect,
        "start" => Said::Start,
        "heartbeat" => Said::Heartbeat,
        "output" => Said::Output { stream: stream(raw), data: String::new(), seq: seq(raw)? },
        "sync_request" => {
            Said::Sync { last_acked: raw.last_acked_seq.as_ref().and_then(Value::as_u64) }
        }
        // An end counts even when its number cannot be read.
        "complete" => Said::Complete {
            code: raw.retcode.as_ref().and_then(code),
            seq: seq(raw).flatten(),
            output: None,
        },
        "error" => Said::Error(raw.error.as_ref().and_then(Value::as_str).unwrap_or("").to_owned()),
        _ => Said::Other,
    })
}

/// Moves the long texts in.
fn with_texts(mut message: Message, new: Option<Value>, all: Option<Value>) -> Message {
    match &mut message.said {
        Said::Output { data, .. } => *data = text(new).unwrap_or_default(),
        Said::Complete { output, .. } => *output = text(all),
        Said::Connect
        | Said::Start
        | Said::Heartbeat
        | Said::Sync { .. }
        | Said::Error(_)
        | Said::Other => {}
    }
    message
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        Some(
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_),
        )
        | None => None,
    }
}

fn stream(raw: &Raw) -> Stream {
    match raw.stream.as_ref().and_then(Value::as_str) {
        Some("stderr") => Stream::Stderr,
        Some(_) | None => Stream::Stdout,
    }
}

/// `None` for a number that is none: Saltpeter drops such a message, too.
fn seq(raw: &Raw) -> Option<Option<u64>> {
    match &raw.seq {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_u64().map(Some),
    }
}

fn code(value: &Value) -> Option<i32> {
    match value {
        Value::Number(number) => number.as_i64().and_then(|code| i32::try_from(code).ok()),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads an instant as Python writes it: with an offset from UTC, or without one, which is UTC.
fn instant(text: &str) -> Option<Timestamp> {
    // humantime would panic in the middle of a character.
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = text.split_once(['T', ' '])?;
    let (time, offset) = match time.find(['Z', '+', '-']) {
        Some(at) => time.split_at_checked(at)?,
        None => (time, "Z"),
    };
    let at: Timestamp = format!("{date}T{time}Z").parse().ok()?;
    let Some((hours, minutes)) = offset.get(1..).and_then(|rest| rest.split_once(':')) else {
        return (offset == "Z").then_some(at);
    };
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let by = Span::from_secs(hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?);
    Some(if offset.starts_with('-') { at + by } else { at - by })
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// Yes, I have it.
    Ack {
        /// What.
        ack_type: Acked,
        /// Which, when the wrapper counts.
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    },
    /// Output came out of order: it was not taken.
    Nack {
        /// Always the same.
        nack_type: OutOfOrder,
        /// The one that is wanted.
        expected_seq: u64,
        /// The one that came.
        received_seq: u64,
    },
    /// Answers [`Said::Sync`].
    SyncResponse {
        /// The last output that is here; -1 for none.
        last_seq: i64,
    },
    /// End the command.
    Kill {
        /// As in [`Message::job`].
        job_name: String,
        /// As in [`Message::instance`].
        job_instance: String,
        /// As in [`Message::machine`].
        machine: String,
    },
    /// The run is over or was never begun here; the connection closes.
    Error {
        /// For programs.
        code: &'static str,
        /// For people.
        message: &'static str,
    },
}

/// What is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Acked {
    /// [`Said::Connect`].
    Connect,
    /// [`Said::Start`].
    Start,
    /// [`Said::Output`].
    Output,
    /// [`Said::Complete`].
    Complete,
}

/// The one reason not to take output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfOrder {
    /// It.
    OutOfOrder,
}

impl Reply {
    /// There is no such run any more.
    pub const NOT_FOUND: Self = Self::Error {
        code: "JOB_NOT_FOUND",
        message: "Job no longer exists on server (stopped or restarted)",
    };

    /// An acknowledgement without a number.
    #[must_use]
    pub const fn ack(ack_type: Acked) -> Self {
        Self::Ack { ack_type, seq: None }
    }

    /// The frame's text.
    #[must_use]
    pub fn json(&self, now: Timestamp) -> String {
        let mut text = serde_json::to_string(self).expect("a reply has only names for keys");
        if !matches!(self, Self::Error { .. }) {
            text.truncate(text.len() - 1);
            let now = now.to_string();
            text.push_str(",\"timestamp\":\"");
            text.push_str(now.trim_end_matches('Z'));
            text.push_str("+00:00\"}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_as_python_writes_them() {
        let at = |text: &str| instant(text).map(|at| at.to_string());
        let same = Some("2026-11-20T13:52:31.331Z".to_owned());
        assert_eq!(at("2026-11-20T13:52:31.331651+00:00"), same);
        assert_eq!(at("2026-11-20T15:52:31.331651+02:00"), same);
        assert_eq!(at("2026-11-20T08:22:31.331-05:30"), same);
        assert_eq!(at("2026-11-20 13:52:31.331"), same);
        assert_eq!(at("2026-11-20T13:52:31Z").as_deref(), Some("2026-11-20T13:52:31.000Z"));
        for none in
            ["yesterday", "", "2026-11-20", "2026-13-20T00:00:00", "2026-11-20T00:00:00+x:y"]
        {
            assert_eq!(at(none), None, "{none}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_dropped() {
        for bad in [
            "not json",
            "[1,2]",
            "\"str\"",
            "\u{0}\u{1}",
            "{}",
            r#"{"type":5}"#,
            r#"{"type":"output","seq":"0","data":"x"}"#,
            r#"{"type":"output","seq":-1,"data":"x"}"#,
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        let said = |json: &str| read(json.as_bytes()).map(|message| message.said);
        let output = |seq| Some(Said::Output { stream: Stream::Stdout, data: String::new(), seq });
        assert_eq!(said(r#"{"type":"output","seq":0,"data":null}"#), output(Some(0)));
        assert_eq!(said(r#"{"type":"output","seq":null,"data":7}"#), output(None));
        let complete = |code| Some(Said::Complete { code, seq: None, output: None });
        assert_eq!(said(r#"{"type":"complete","retcode":"7"}"#), complete(Some(7)));
        assert_eq!(said(r#"{"type":"complete","retcode":null}"#), complete(None));
        assert_eq!(said(r#"{"type":"complete","retcode":-15,"x":[1]}"#), complete(Some(-15)));
        assert_eq!(said(r#"{"type":"mystery"}"#), Some(Said::Other));
    }

    #[test]
    fn replies_have_the_fields_of_the_original() {
        let now: Timestamp = "2026-11-20T13:52:31.463Z".parse().unwrap();
        insta::assert_snapshot!(
            [
                Reply::ack(Acked::Connect),
                Reply::Ack { ack_type: Acked::Output, seq: Some(3) },
                Reply::Nack {
                    nack_type: OutOfOrder::OutOfOrder,
                    expected_seq: 1,
                    received_seq: 2
                },
                Reply::SyncResponse { last_seq: -1 },
                Reply::NOT_FOUND,
            ]
            .map(|reply| reply.json(now))
            .join("\n"),
            @r#"
        {"type":"ack","ack_type":"connect","timestamp":"2026-11-20T13:52:31.463+00:00"}
        {"type":"ack","ack_type":"output","seq":3,"timestamp":"2026-11-20T13:52:31.463+00:00"}
        {"type":"nack","nack_type":"out_of_order","expected_seq":1,"received_seq":2,"timestamp":"2026-11-20T13:52:31.463+00:00"}
        {"type":"sync_response","last_seq":-1,"timestamp":"2026-11-20T13:52:31.463+00:00"}
        {"type":"error","code":"JOB_NOT_FOUND","message":"Job no longer exists on server (stopped or restarted)"}
        "#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(read(&bytes));
        }

        #[test]
        fn any_texts_are_read_without_panic(kind in "(connect|output|complete|error|sync_request)", text in any::<String>()) {
            let json = serde_json::json!({"type": kind, "timestamp": text, "retcode": text, "seq": text, "job_instance": text});
            drop(read(json.to_string().as_bytes()));
        }
    }
}
