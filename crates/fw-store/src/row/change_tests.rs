//! Events of changes survive their rows, in this format and in every one before.

use std::fmt::Write as _;

use fw_core::change::Change;
use fw_core::plan::{Exec, KILL_AFTER};
use fw_core::run::Actor;
use fw_proto::ChangeId;
use fw_proto::api::{Command, Offline, OnFull};
use uuid::Uuid;

use super::*;

fn work(template: Option<&str>) -> Work {
    let value = |text: &str| Value::Text(text.to_owned());
    let inputs = BTreeMap::from([
        ("version".to_owned(), value("1.27")),
        ("count".to_owned(), Value::Whole(-3)),
        ("share".to_owned(), Value::Decimal(0.1)),
        ("sure".to_owned(), Value::Flag(true)),
        ("pause".to_owned(), Value::Duration(Span::from_secs(90))),
        ("where".to_owned(), Value::Hosts(Selector::parse("web*").expect("a selector"))),
        ("key".to_owned(), Value::Secret("db".to_owned())),
    ]);
    let host = |n: u128, name: &str| Chosen {
        id: HostId(Uuid::from_u128(n)),
        name: name.parse().expect("a name"),
    };
    Work {
        exec: Exec {
            command: Command::Shell("install-nginx 1.27".to_owned()),
            user: Some("www".to_owned()),
            cwd: None,
            env: BTreeMap::new(),
            timeout: Some(Span::from_secs(300)),
            kill_after: KILL_AFTER,
            on_full: OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        },
        fill: template.map(|text| Fill { template: text.to_owned(), inputs }),
        selector: "web*".to_owned(),
        hosts: vec![host(0xa0, "web0"), host(0xa1, "web1")],
        parallel: Some(2),
        offline: Offline::Skip,
        start_within: Span::from_secs(60),
        expect: Some(Expect::Exit(vec![0, 3])),
        retries: 1,
    }
}

fn plan() -> Plan {
    let node = |id: &str, act, undo| Node {
        id: id.to_owned(),
        title: id.to_owned(),
        line: Some(7),
        group: Some(0),
        act,
        undo,
    };
    let undo =
        |expect| Undo { work: Box::new(Work { expect, ..work(None) }), when: UndoWhen::Failed };
    let gate = Approve { by: Role::Operator, people: 2, expires: Some(Span::from_secs(4 * 3600)) };
    let windows = vec!["Mon-Fri 22:00-06:00".to_owned()];
    let hours = Windows { windows, timezone: "Europe/Berlin".to_owned() };
    let exec = |template| Act::Exec(Box::new(work(template)));
    Plan {
        origin: Origin::Runbook,
        title: "Upgrade".to_owned(),
        source: "# Upgrade\n".to_owned(),
        inputs: std::collections::BTreeMap::new(),
        nodes: vec![
            node("ask", Act::Confirm, None),
            node("look", Act::Tick, None),
            node("gate", Act::Approve(gate), None),
            node("night", Act::Window(hours), None),
            node("soak", Act::Wait(Span::from_secs(120)), None),
            node("install", exec(None), Some(undo(Some(Expect::Text("ok".to_owned()))))),
            node(
                "check",
                exec(Some("test {{ steps.install.stdout }}")),
                Some(undo(Some(Expect::Pattern("^ok$".to_owned())))),
            ),
        ],
        max_failures: Some(2),
        on_failure: OnFailure::Pause,
        incarnation: Incarnation(Uuid::from_u128(1)),
    }
}

/// One of each.
fn kinds() -> Vec<Kind> {
    let host = |n: u128| HostId(Uuid::from_u128(n));
    let run = RunId(Uuid::from_u128(0xb0));
    let note = || Some("all is well".to_owned());
    let parts = [
        Part::NotBegun,
        Part::Skipped,
        Part::Done,
        Part::Refused,
        Part::Failed,
        Part::Unknown,
        Part::TakenBack,
        Part::NotTakenBack,
    ];
    let parts = (0xa0..).map(host).zip(parts).collect();
    vec![
        Kind::Planned(Box::new(plan())),
        Kind::Opened { node: 0, until: None },
        Kind::Passed { node: 0, note: note() },
        Kind::Opened { node: 1, until: None },
        Kind::Skipped { node: 1, note: note() },
        Kind::Opened { node: 2, until: Some(Timestamp::from_millis(1_780_000_100_000)) },
        Kind::Expired { node: 2 },
        Kind::Resumed,
        Kind::Opened { node: 2, until: None },
        Kind::Approved { node: 2 },
        Kind::PauseRequested,
        Kind::Passed { node: 3, note: None },
        Kind::Skipped { node: 4, note: None },
        Kind::Began { node: 5, way: Way::Do, run, hosts: vec![host(0xa0), host(0xa1)] },
        Kind::Ended { node: 5, way: Way::Do, run, parts, cancelled: true },
        Kind::NotBegun { node: 6, way: Way::Undo, why: "no value".to_owned() },
        Kind::AbortRequested,
        Kind::UndoRequested,
    ]
}

fn history() -> Vec<Event> {
    let by = |n: usize| match n % 4 {
        0 => Actor::User("ada".to_owned()),
        1 => Actor::Token("ci".to_owned()),
        2 => Actor::Job("nightly".parse().expect("a name")),
        _ => Actor::Server,
    };
    let at = |n: usize| Timestamp::from_millis(1_780_000_000_000 + i64::try_from(n).unwrap());
    let event = |(n, kind)| Event { at: at(n), by: by(n), kind };
    kinds().into_iter().enumerate().map(event).collect()
}

#[test]
fn events_survive_their_rows() {
    for event in history() {
        let body = encode_change_event(&event);
        assert_eq!(decode_change_event(CHANGE_FORMAT, &body).unwrap(), event);
    }
}

#[test]
fn an_event_of_a_later_format_is_refused() {
    let event = Event { at: Timestamp::EPOCH, by: Actor::Server, kind: Kind::Resumed };
    let refused = decode_change_event(CHANGE_FORMAT + 1, &encode_change_event(&event));
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

#[test]
fn damaged_rows_are_refused_and_do_not_panic() {
    for event in history() {
        let body = encode_change_event(&event);
        for end in 0..body.len() {
            let cut = decode_change_event(CHANGE_FORMAT, body.get(..end).unwrap());
            assert!(cut.is_err(), "{event:?}");
        }
    }
}

/// The words of the store never change: what one build wrote all later ones read alike. A line is added,
/// never edited.
#[test]
fn a_history_of_format_1_is_read_as_it_was_written() {
    let kept = include_str!("../../tests/data/change-events-v1.jsonl");
    let mut written = String::new();
    for event in history() {
        let json = serde_json::to_string(&EventRow::from(&event)).unwrap();
        writeln!(written, "{json}").expect("writing to memory");
    }
    assert_eq!(written, kept, "this build writes format 1 otherwise");
    let read = |line: &str| decode_change_event(1, line.as_bytes()).expect("an event of format 1");
    let events: Vec<_> = kept.lines().map(read).collect();
    assert_eq!(events, history());
    let change =
        Change::fold(ChangeId(Uuid::from_u128(1)), &events).expect("it begins with its plan");
    assert_eq!(change.seq, 18);
}
