//! Our messages beside those that were recorded of Saltpeter: the same keys in the same order, of the same types.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use fw_core::plan::Plan;
use fw_proto::api::{Command, Run, RunReport, RunState, RunSummary, Task, TaskState};
use fw_proto::{Incarnation, RunId, Span, Timestamp};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use super::super::files;
use super::super::json::Json;
use super::super::served::Served;
use super::state::Snapshot;
use super::view::{self, Details};

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, on: bool) -> Result<Json, E> {
                Ok(Json::Bool(on))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Int(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::count(number))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
                Ok(Json::Float(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Json::Map(map))
            }
        }
        from.deserialize_any(Any)
    }
}

/// Keys and types of a value; of maps whose keys are names only one entry.
fn shape(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(_) => "bool".to_owned(),
        Json::Int(_) => "int".to_owned(),
        Json::Float(_) => "float".to_owned(),
        Json::Text(_) => "text".to_owned(),
        Json::List(items) => format!("[{}]", items.first().map(shape).unwrap_or_default()),
        Json::Map(entries) => {
            let mut text = "{".to_owned();
            for (key, value) in entries {
                let value = match (key.as_str(), value) {
                    ("crons" | "running" | "last_state" | "results", Json::Map(names)) => names
                        .first()
                        .map(|(_, value)| format!("*{}", shape(value)))
                        .unwrap_or_default(),
                    (_, value) => shape(value),
                };
                write!(text, " {key}:{value}").expect("writing to memory");
            }
            text + " }"
        }
    }
}

/// The recorded messages from the server, by their type and in their order.
fn recorded(kind: &str) -> Vec<Json> {
    let lines = include_str!("../../../../tests/data/saltpeter-ui.jsonl").lines();
    let entry = |json: &Json, key: &str| match json {
        Json::Map(entries) => {
            entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
        }
        Json::Null
        | Json::Bool(_)
        | Json::Int(_)
        | Json::Float(_)
        | Json::Text(_)
        | Json::List(_) => None,
    };
    lines
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .filter(|line| entry(line, "dir") == Some(Json::text("server->ui")))
        .filter_map(|line| entry(&line, "msg"))
        .filter(|message| entry(message, "type") == Some(Json::text(kind)))
        .collect()
}

const JOB: &str = "min: 0, hour: 0, dom: 1, mon: 1, dow: '*', targets: '*', target_type: glob, command: x, timeout: 60";

fn served() -> Arc<Served> {
    let text = format!(
        "saltpeter_config: {{api_ws: true}}\nkill_me: {{{JOB}, env: {{SP_WEBSOCKET_URL: 'ws://x', FOO: 1}}}}\n"
    );
    let files = BTreeMap::from([("jobs.yaml".to_owned(), Ok(text))]);
    let (served, wrong) = Served::of(files::of_texts(&files), 1_795_182_743.779_928);
    assert_eq!(wrong, Vec::<String>::new());
    Arc::new(served)
}

fn task(state: TaskState) -> Task {
    Task {
        host: "m1.local".parse().unwrap(),
        state,
        reason: None,
        message: None,
        attempt: 1,
        exit_code: None,
        signal: None,
        started_at: Some(Timestamp::from_millis(1_795_182_808_842)),
        finished_at: state.is_final().then(|| Timestamp::from_millis(1_795_182_814_027)),
        stdout_bytes: 105,
        stderr_bytes: 0,
        stdout_sha256: Some("e3b0c442".to_owned()),
        stderr_sha256: None,
        stdout_dropped_bytes: 0,
        stderr_dropped_bytes: 0,
        left_behind: 0,
        armed: None,
        late: None,
    }
}

fn run(state: RunState, task: Task) -> Run {
    let summary = RunSummary {
        id: RunId(Uuid::from_u128(1)),
        state,
        report: RunReport { tasks: BTreeMap::new(), total: 1, waiting_on: Vec::new() },
        by: "job:kill_me".to_owned(),
        by_kind: Some(fw_proto::api::ActorKind::Job),
        job: Some("kill_me".parse().unwrap()),
        retry_of: None,
        change: None,
        hosts: "*".to_owned(),
        command: Command::Shell("x".to_owned()),
        created_at: Timestamp::from_millis(1_795_182_808_026),
        finished_at: None,
    };
    Run { summary, tasks: vec![task] }
}

fn plan() -> Plan {
    let new = serde_json::from_value(
        serde_json::json!({"hosts": "*", "command": {"shell": "x"}, "timeout": "60s"}),
    );
    fw_core::command::compile(
        new.unwrap(),
        Vec::new(),
        Incarnation(Uuid::nil()),
        Span::from_secs(600),
    )
    .unwrap()
}

fn snapshot() -> Snapshot {
    let run = run(RunState::Running, task(TaskState::Running));
    let last = BTreeMap::from([("kill_me".to_owned(), run.summary.clone())]);
    Snapshot {
        served: served(),
        last,
        running: vec![("kill_me".to_owned(), run)],
        status: OnceLock::new(),
    }
}

#[test]
fn configuration_and_status_have_the_recorded_form() {
    let config = view::config(&served());
    let ours = Json::map([
        ("type", Json::text("config")),
        ("config", config),
        ("sp_version", Json::text(view::SP_VERSION)),
    ]);
    assert_eq!(shape(&ours), shape(&recorded("config")[0]));
    let status = recorded("status");
    assert_eq!(shape(&view::status(&snapshot())), shape(&status[0]));
    let idle = Snapshot { last: BTreeMap::new(), running: Vec::new(), ..snapshot() };
    assert_eq!(view::status(&idle).to_string(), status[1].to_string());
}

#[test]
fn details_and_output_have_the_recorded_form() {
    let served = served();
    let job = &served.directory.jobs["kill_me"];
    let (run, plan) = (run(RunState::Cancelled, task(TaskState::Cancelled)), plan());
    let details = |last| {
        let data = view::details(&Details {
            job,
            next_run: view::next_run(&served, job, "2026-11-20T00:00:00Z".parse().unwrap()),
            last,
            overlap: false,
            output: &BTreeMap::new(),
            lengths: &BTreeMap::from([("m1.local".to_owned(), 105)]),
        });
        Json::map([
            ("type", Json::text("details")),
            ("cron", Json::text("echo_all")),
            ("data", data),
        ])
    };
    let [before, after] = &recorded("details")[..] else { panic!("two are kept") };
    assert_eq!(details(None).to_string(), before.to_string());
    // Only Saltpeter's wrapper has a version and a heart.
    let with_wrapper = shape(after).replace(" wrapper_version:text last_heartbeat:text", "");
    assert_eq!(shape(&details(Some((&run, &plan)))), with_wrapper);
    insta::assert_snapshot!(details(Some((&run, &plan))));
    let chunk = super::socket::chunk("echo_all", "m3.local", "hello from m3.local\nbye\n", 0, true);
    assert_eq!(chunk.to_string(), recorded("output_chunk")[0].to_string());
}
