//! Events of changes in rows, format 1: never changed, only followed by the next.
//! `tests/data/change-events-v*.jsonl` hold histories of each.

use std::collections::BTreeMap;

use fw_core::change::{
    Act, Approve, Event, Fill, Kind, Node, OnFailure, Origin, Part, Plan, Undo, UndoWhen, Way,
    Windows, Work,
};
use fw_core::plan::Chosen;
use fw_core::runbook::{Expect, Value};
use fw_core::select::Selector;
use fw_proto::api::Role;
use fw_proto::{HostId, HostName, Incarnation, RunId, Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::ActorRow;
use super::plan::{ExecRow, OfflineRow};
use super::{Text, pack, unpack};
use crate::Error;

/// The format that this build writes.
pub(crate) const CHANGE_FORMAT: i64 = 1;

/// The body of an event's row.
pub(crate) fn encode_change_event(event: &Event) -> Vec<u8> {
    pack(&EventRow::from(event))
}

/// Reads the body of an event's row.
pub(crate) fn decode_change_event(format: i64, body: &[u8]) -> Result<Event, Error> {
    match format {
        CHANGE_FORMAT => unpack::<EventRow>(body)?.try_into(),
        other => Err(Error::corrupt(format!("a change's event of format {other}"))),
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
enum KindRow {
    Planned(Box<PlanRow>),
    Opened {
        node: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
    },
    Passed {
        node: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    Approved {
        node: u32,
    },
    Expired {
        node: u32,
    },
    Skipped {
        node: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    Began {
        node: u32,
        way: Text<Way>,
        run: RunId,
        hosts: Vec<HostId>,
    },
    Ended {
        node: u32,
        way: Text<Way>,
        run: RunId,
        parts: Vec<(HostId, Text<Part>)>,
        cancelled: bool,
    },
    NotBegun {
        node: u32,
        way: Text<Way>,
        why: String,
    },
    PauseRequested,
    Resumed,
    AbortRequested,
    UndoRequested,
}

#[derive(Serialize, Deserialize)]
struct PlanRow {
    origin: Text<Origin>,
    title: String,
    source: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    inputs: BTreeMap<String, ValueRow>,
    nodes: Vec<NodeRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_failures: Option<u32>,
    on_failure: Text<OnFailure>,
    incarnation: Incarnation,
}

#[derive(Serialize, Deserialize)]
struct NodeRow {
    id: String,
    title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<u32>,
    act: ActRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undo: Option<UndoRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActRow {
    Exec(Box<WorkRow>),
    WaitMs(u64),
    Approve {
        by: Text<Role>,
        people: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_ms: Option<u64>,
    },
    Window {
        windows: Vec<String>,
        timezone: String,
    },
    Tick,
    Confirm,
}

#[derive(Serialize, Deserialize)]
struct WorkRow {
    exec: ExecRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fill: Option<FillRow>,
    selector: String,
    hosts: Vec<(HostId, HostName)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parallel: Option<u32>,
    offline: OfflineRow,
    start_within_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect: Option<ExpectRow>,
    retries: u32,
}

#[derive(Serialize, Deserialize)]
struct FillRow {
    template: String,
    inputs: BTreeMap<String, ValueRow>,
}

/// A number with a point is kept as its bits, so that it comes back as it was.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValueRow {
    Text(String),
    Whole(i64),
    DecimalBits(u64),
    Flag(bool),
    DurationMs(u64),
    Hosts(String),
    Secret(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExpectRow {
    Exit(Vec<u8>),
    Text(String),
    Pattern(String),
}

#[derive(Serialize, Deserialize)]
struct UndoRow {
    work: Box<WorkRow>,
    when: Text<UndoWhen>,
}

impl From<&Event> for EventRow {
    fn from(event: &Event) -> Self {
        let by = ActorRow::from(&event.by);
        Self { at: event.at.as_millis(), by, kind: KindRow::from(&event.kind) }
    }
}

impl TryFrom<EventRow> for Event {
    type Error = Error;
    fn try_from(row: EventRow) -> Result<Self, Error> {
        let at = Timestamp::from_millis(row.at);
        Ok(Self { at, by: row.by.into(), kind: row.kind.try_into()? })
    }
}

impl From<&Kind> for KindRow {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::Planned(plan) => Self::Planned(Box::new(PlanRow::from(&**plan))),
            Kind::Opened { node, until } => {
                Self::Opened { node: *node, until: until.map(Timestamp::as_millis) }
            }
            Kind::Passed { node, note } => Self::Passed { node: *node, note: note.clone() },
            Kind::Approved { node } => Self::Approved { node: *node },
            Kind::Expired { node } => Self::Expired { node: *node },
            Kind::Skipped { node, note } => Self::Skipped { node: *node, note: note.clone() },
            Kind::Began { node, way, run, hosts } => {
                Self::Began { node: *node, way: Text(*way), run: *run, hosts: hosts.clone() }
            }
            Kind::Ended { node, way, run, parts, cancelled } => Self::Ended {
                node: *node,
                way: Text(*way),
                run: *run,
                parts: parts.iter().map(|(host, part)| (*host, Text(*part))).collect(),
                cancelled: *cancelled,
            },
            Kind::NotBegun { node, way, why } => {
                Self::NotBegun { node: *node, way: Text(*way), why: why.clone() }
            }
            Kind::PauseRequested => Self::PauseRequested,
            Kind::Resumed => Self::Resumed,
            Kind::AbortRequested => Self::AbortRequested,
            Kind::UndoRequested => Self::UndoRequested,
        }
    }
}

impl TryFrom<KindRow> for Kind {
    type Error = Error;
    fn try_from(row: KindRow) -> Result<Self, Error> {
        Ok(match row {
            KindRow::Planned(plan) => Self::Planned(Box::new((*plan).try_into()?)),
            KindRow::Opened { node, until } => {
                Self::Opened { node, until: until.map(Timestamp::from_millis) }
            }
            KindRow::Passed { node, note } => Self::Passed { node, note },
            KindRow::Approved { node } => Self::Approved { node },
            KindRow::Expired { node } => Self::Expired { node },
            KindRow::Skipped { node, note } => Self::Skipped { node, note },
            KindRow::Began { node, way, run, hosts } => {
                Self::Began { node, way: way.0, run, hosts }
            }
            KindRow::Ended { node, way, run, parts, cancelled } => {
                let parts = parts.into_iter().map(|(host, part)| (host, part.0)).collect();
                Self::Ended { node, way: way.0, run, parts, cancelled }
            }
            KindRow::NotBegun { node, way, why } => Self::NotBegun { node, way: way.0, why },
            KindRow::PauseRequested => Self::PauseRequested,
            KindRow::Resumed => Self::Resumed,
            KindRow::AbortRequested => Self::AbortRequested,
            KindRow::UndoRequested => Self::UndoRequested,
        })
    }
}

impl From<&Plan> for PlanRow {
    fn from(plan: &Plan) -> Self {
        Self {
            origin: Text(plan.origin),
            title: plan.title.clone(),
            source: plan.source.clone(),
            inputs: value_rows(&plan.inputs),
            nodes: plan.nodes.iter().map(NodeRow::from).collect(),
            max_failures: plan.max_failures,
            on_failure: Text(plan.on_failure),
            incarnation: plan.incarnation,
        }
    }
}

impl TryFrom<PlanRow> for Plan {
    type Error = Error;
    fn try_from(row: PlanRow) -> Result<Self, Error> {
        Ok(Self {
            origin: row.origin.0,
            title: row.title,
            source: row.source,
            inputs: values(row.inputs)?,
            nodes: row.nodes.into_iter().map(Node::try_from).collect::<Result<_, _>>()?,
            max_failures: row.max_failures,
            on_failure: row.on_failure.0,
            incarnation: row.incarnation,
        })
    }
}

impl From<&Node> for NodeRow {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.clone(),
            title: node.title.clone(),
            line: node.line,
            group: node.group,
            act: ActRow::from(&node.act),
            undo: node.undo.as_ref().map(|undo| UndoRow {
                work: Box::new(WorkRow::from(&*undo.work)),
                when: Text(undo.when),
            }),
        }
    }
}

impl TryFrom<NodeRow> for Node {
    type Error = Error;
    fn try_from(row: NodeRow) -> Result<Self, Error> {
        let undo = |undo: UndoRow| {
            Ok::<_, Error>(Undo { work: Box::new((*undo.work).try_into()?), when: undo.when.0 })
        };
        Ok(Self {
            id: row.id,
            title: row.title,
            line: row.line,
            group: row.group,
            act: row.act.try_into()?,
            undo: row.undo.map(undo).transpose()?,
        })
    }
}

impl From<&Act> for ActRow {
    fn from(act: &Act) -> Self {
        match act {
            Act::Exec(work) => Self::Exec(Box::new(WorkRow::from(&**work))),
            Act::Wait(span) => Self::WaitMs(span.as_millis()),
            Act::Approve(gate) => Self::Approve {
                by: Text(gate.by),
                people: gate.people,
                expires_ms: gate.expires.map(Span::as_millis),
            },
            Act::Window(hours) => {
                Self::Window { windows: hours.windows.clone(), timezone: hours.timezone.clone() }
            }
            Act::Tick => Self::Tick,
            Act::Confirm => Self::Confirm,
        }
    }
}

impl TryFrom<ActRow> for Act {
    type Error = Error;
    fn try_from(row: ActRow) -> Result<Self, Error> {
        Ok(match row {
            ActRow::Exec(work) => Self::Exec(Box::new((*work).try_into()?)),
            ActRow::WaitMs(ms) => Self::Wait(Span::from_millis(ms)),
            ActRow::Approve { by, people, expires_ms } => {
                let expires = expires_ms.map(Span::from_millis);
                Self::Approve(Approve { by: by.0, people, expires })
            }
            ActRow::Window { windows, timezone } => Self::Window(Windows { windows, timezone }),
            ActRow::Tick => Self::Tick,
            ActRow::Confirm => Self::Confirm,
        })
    }
}

impl From<&Work> for WorkRow {
    fn from(work: &Work) -> Self {
        Self {
            exec: ExecRow::from(&work.exec),
            fill: work.fill.as_ref().map(FillRow::from),
            selector: work.selector.clone(),
            hosts: work.hosts.iter().map(|host| (host.id, host.name.clone())).collect(),
            parallel: work.parallel,
            offline: work.offline.into(),
            start_within_ms: work.start_within.as_millis(),
            expect: work.expect.as_ref().map(ExpectRow::from),
            retries: work.retries,
        }
    }
}

impl TryFrom<WorkRow> for Work {
    type Error = Error;
    fn try_from(row: WorkRow) -> Result<Self, Error> {
        Ok(Self {
            exec: row.exec.into(),
            fill: row.fill.map(Fill::try_from).transpose()?,
            selector: row.selector,
            hosts: row.hosts.into_iter().map(|(id, name)| Chosen { id, name }).collect(),
            parallel: row.parallel,
            offline: row.offline.into(),
            start_within: Span::from_millis(row.start_within_ms),
            expect: row.expect.map(Expect::from),
            retries: row.retries,
        })
    }
}

impl From<&Fill> for FillRow {
    fn from(fill: &Fill) -> Self {
        Self { template: fill.template.clone(), inputs: value_rows(&fill.inputs) }
    }
}

impl TryFrom<FillRow> for Fill {
    type Error = Error;
    fn try_from(row: FillRow) -> Result<Self, Error> {
        Ok(Self { template: row.template, inputs: values(row.inputs)? })
    }
}

fn value_rows(values: &BTreeMap<String, Value>) -> BTreeMap<String, ValueRow> {
    values.iter().map(|(name, value)| (name.clone(), ValueRow::from(value))).collect()
}

fn values(rows: BTreeMap<String, ValueRow>) -> Result<BTreeMap<String, Value>, Error> {
    rows.into_iter().map(|(name, value)| Ok((name, value.try_into()?))).collect()
}

impl From<&Value> for ValueRow {
    fn from(value: &Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text.clone()),
            Value::Whole(number) => Self::Whole(*number),
            Value::Decimal(number) => Self::DecimalBits(number.to_bits()),
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Duration(span) => Self::DurationMs(span.as_millis()),
            Value::Hosts(selector) => Self::Hosts(selector.to_string()),
            Value::Secret(name) => Self::Secret(name.clone()),
        }
    }
}

impl TryFrom<ValueRow> for Value {
    type Error = Error;
    fn try_from(row: ValueRow) -> Result<Self, Error> {
        Ok(match row {
            ValueRow::Text(text) => Self::Text(text),
            ValueRow::Whole(number) => Self::Whole(number),
            ValueRow::DecimalBits(bits) => Self::Decimal(f64::from_bits(bits)),
            ValueRow::Flag(flag) => Self::Flag(flag),
            ValueRow::DurationMs(ms) => Self::Duration(Span::from_millis(ms)),
            ValueRow::Hosts(text) => {
                let read = Selector::parse(&text);
                Self::Hosts(read.map_err(|error| Error::corrupt(format!("a selector: {error}")))?)
            }
            ValueRow::Secret(name) => Self::Secret(name),
        })
    }
}

impl From<&Expect> for ExpectRow {
    fn from(expect: &Expect) -> Self {
        match expect {
            Expect::Exit(codes) => Self::Exit(codes.clone()),
            Expect::Text(text) => Self::Text(text.clone()),
            Expect::Pattern(pattern) => Self::Pattern(pattern.clone()),
        }
    }
}

impl From<ExpectRow> for Expect {
    fn from(row: ExpectRow) -> Self {
        match row {
            ExpectRow::Exit(codes) => Self::Exit(codes),
            ExpectRow::Text(text) => Self::Text(text),
            ExpectRow::Pattern(pattern) => Self::Pattern(pattern),
        }
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
