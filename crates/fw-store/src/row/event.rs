//! Events in rows.
//!
//! Histories of every release must fold to the same report for ever: a format is never
//! changed, only followed by the next. `tests/data/events-v*.jsonl` hold histories of each.

use fw_core::run::{Actor, Event, Kind, Ruling};
use fw_proto::frame::{Applied, Cause, Ended, Fate, Refusal, RefusalReason, Reported};
use fw_proto::record::Offsets;
use fw_proto::{HostId, JobName, Timestamp};
use serde::{Deserialize, Serialize};

use super::plan::PlanRow;
use super::{Text, pack, unpack};
use crate::Error;

/// The format that this build writes.
pub(crate) const FORMAT: i64 = 1;

/// The body of an event's row.
pub(crate) fn encode_event(event: &Event) -> Vec<u8> {
    pack(&EventRow::from(event))
}

/// Reads the body of an event's row.
pub(crate) fn decode_event(format: i64, body: &[u8]) -> Result<Event, Error> {
    match format {
        FORMAT => unpack::<EventRow>(body)?.try_into(),
        other => Err(Error::corrupt(format!("an event of format {other}"))),
    }
}

#[derive(Serialize, Deserialize)]
struct EventRow {
    at: i64,
    by: ActorRow,
    kind: KindRow,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActorRow {
    Token(String),
    User(String),
    Job(JobName),
    Server,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindRow {
    Planned(Box<PlanRow>),
    Dispatched { hosts: Vec<HostId>, not_after: i64 },
    Asked { hosts: Vec<HostId> },
    Reported { reports: Vec<(HostId, ReportedRow)> },
    Ruled { hosts: Vec<HostId>, ruling: Text<Ruling> },
    CancelRequested,
    HostsCancelRequested { hosts: Vec<HostId> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReportedRow {
    NotKnown,
    Queued,
    Started(i64),
    Applied { started_at: i64, at: i64, until: i64 },
    Ended(EndedRow),
    Refused { reason: Text<RefusalReason>, message: String },
    Unknown(String),
}

#[derive(Serialize, Deserialize)]
struct EndedRow {
    cause: Text<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    started_at: i64,
    finished_at: i64,
    /// stdout, stderr, and what of each was not kept.
    output: [u64; 4],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr_sha256: Option<String>,
    left_behind: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    armed: Option<Text<Fate>>,
}

impl From<&Event> for EventRow {
    fn from(event: &Event) -> Self {
        let by = match &event.by {
            Actor::Token(name) => ActorRow::Token(name.clone()),
            Actor::User(name) => ActorRow::User(name.clone()),
            Actor::Job(name) => ActorRow::Job(name.clone()),
            Actor::Server => ActorRow::Server,
        };
        Self { at: event.at.as_millis(), by, kind: KindRow::from(&event.kind) }
    }
}

impl TryFrom<EventRow> for Event {
    type Error = Error;
    fn try_from(row: EventRow) -> Result<Self, Error> {
        let by = match row.by {
            ActorRow::Token(name) => Actor::Token(name),
            ActorRow::User(name) => Actor::User(name),
            ActorRow::Job(name) => Actor::Job(name),
            ActorRow::Server => Actor::Server,
        };
        Ok(Self { at: Timestamp::from_millis(row.at), by, kind: row.kind.try_into()? })
    }
}

impl From<&Kind> for KindRow {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::Planned(plan) => Self::Planned(Box::new(PlanRow::from(&**plan))),
            Kind::Dispatched { hosts, not_after } => {
                Self::Dispatched { hosts: hosts.clone(), not_after: not_after.as_millis() }
            }
            Kind::Asked { hosts } => Self::Asked { hosts: hosts.clone() },
            Kind::Reported { reports } => Self::Reported {
                reports: reports.iter().map(|(host, said)| (*host, said.into())).collect(),
            },
            Kind::Ruled { hosts, ruling } => {
                Self::Ruled { hosts: hosts.clone(), ruling: Text(*ruling) }
            }
            Kind::CancelRequested => Self::CancelRequested,
            Kind::HostsCancelRequested { hosts } => {
                Self::HostsCancelRequested { hosts: hosts.clone() }
            }
        }
    }
}

impl TryFrom<KindRow> for Kind {
    type Error = Error;
    fn try_from(row: KindRow) -> Result<Self, Error> {
        Ok(match row {
            KindRow::Planned(plan) => Self::Planned(Box::new((*plan).into())),
            KindRow::Dispatched { hosts, not_after } => {
                Self::Dispatched { hosts, not_after: Timestamp::from_millis(not_after) }
            }
            KindRow::Asked { hosts } => Self::Asked { hosts },
            KindRow::Reported { reports } => {
                let read = |(host, said): (_, ReportedRow)| Ok((host, said.try_into()?));
                Self::Reported {
                    reports: reports.into_iter().map(read).collect::<Result<_, Error>>()?,
                }
            }
            KindRow::Ruled { hosts, ruling } => Self::Ruled { hosts, ruling: ruling.0 },
            KindRow::CancelRequested => Self::CancelRequested,
            KindRow::HostsCancelRequested { hosts } => Self::HostsCancelRequested { hosts },
        })
    }
}

impl From<&Reported> for ReportedRow {
    fn from(said: &Reported) -> Self {
        match said {
            Reported::NotKnown => Self::NotKnown,
            Reported::Queued => Self::Queued,
            Reported::Started(at) => Self::Started(at.as_millis()),
            Reported::Applied(applied) => Self::Applied {
                started_at: applied.started_at.as_millis(),
                at: applied.at.as_millis(),
                until: applied.until.as_millis(),
            },
            Reported::Ended(ended) => Self::Ended(EndedRow::from(ended)),
            Reported::Refused(refusal) => {
                Self::Refused { reason: Text(refusal.reason), message: refusal.message.clone() }
            }
            Reported::Unknown(why) => Self::Unknown(why.clone()),
        }
    }
}

impl TryFrom<ReportedRow> for Reported {
    type Error = Error;
    fn try_from(row: ReportedRow) -> Result<Self, Error> {
        Ok(match row {
            ReportedRow::NotKnown => Self::NotKnown,
            ReportedRow::Queued => Self::Queued,
            ReportedRow::Started(at) => Self::Started(Timestamp::from_millis(at)),
            ReportedRow::Applied { started_at, at, until } => Self::Applied(Applied {
                started_at: Timestamp::from_millis(started_at),
                at: Timestamp::from_millis(at),
                until: Timestamp::from_millis(until),
            }),
            ReportedRow::Ended(ended) => Self::Ended(ended.try_into()?),
            ReportedRow::Refused { reason, message } => {
                Self::Refused(Refusal { reason: reason.0, message })
            }
            ReportedRow::Unknown(why) => Self::Unknown(why),
        })
    }
}

impl From<&Ended> for EndedRow {
    fn from(ended: &Ended) -> Self {
        let out = &ended.output;
        Self {
            cause: Text(ended.cause),
            exit_code: ended.exit_code,
            signal: ended.signal,
            started_at: ended.started_at.as_millis(),
            finished_at: ended.finished_at.as_millis(),
            output: [out.stdout, out.stderr, out.stdout_dropped, out.stderr_dropped],
            stdout_sha256: ended.stdout_sha256.map(hex),
            stderr_sha256: ended.stderr_sha256.map(hex),
            left_behind: ended.left_behind,
            armed: ended.armed.map(Text),
        }
    }
}

impl TryFrom<EndedRow> for Ended {
    type Error = Error;
    fn try_from(row: EndedRow) -> Result<Self, Error> {
        let [stdout, stderr, stdout_dropped, stderr_dropped] = row.output;
        Ok(Self {
            cause: row.cause.0,
            exit_code: row.exit_code,
            signal: row.signal,
            started_at: Timestamp::from_millis(row.started_at),
            finished_at: Timestamp::from_millis(row.finished_at),
            output: Offsets { stdout, stderr, stdout_dropped, stderr_dropped },
            stdout_sha256: row.stdout_sha256.as_deref().map(from_hex).transpose()?,
            stderr_sha256: row.stderr_sha256.as_deref().map(from_hex).transpose()?,
            left_behind: row.left_behind,
            armed: row.armed.map(|fate| fate.0),
        })
    }
}

fn hex(bytes: [u8; 32]) -> String {
    crate::row::hex(&bytes)
}

fn from_hex(text: &str) -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let good = text.len() == 64
        && bytes.iter_mut().zip(digits).all(|(to, from)| {
            from.is_some_and(|byte| {
                *to = byte;
                true
            })
        });
    if good { Ok(bytes) } else { Err(Error::corrupt(format!("a hash: {text:?}"))) }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
