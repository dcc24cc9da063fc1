//! Events survive their rows, in this format and in every one before.

use std::collections::BTreeMap;

use fw_core::plan::{Armed, Chosen, Exec, Limits, Origin, Plan, Retries};
use fw_core::run::Run;
use fw_proto::api::{Command, EnvValue, Offline, OnFull};
use fw_proto::{Incarnation, RunId, Span};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::row::Stored;

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn at() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_799_999_i64).prop_map(Timestamp::from_millis)
}

fn span() -> impl Strategy<Value = Span> {
    any::<u64>().prop_map(Span::from_millis)
}

fn host() -> impl Strategy<Value = HostId> {
    id().prop_map(HostId)
}

fn hosts() -> impl Strategy<Value = Vec<HostId>> {
    prop::collection::vec(host(), 0..40)
}

fn word<T: Stored + std::fmt::Debug>(words: &'static [&'static str]) -> impl Strategy<Value = T> {
    prop::sample::select(words).prop_map(|word| T::parse(word).expect("one of its words"))
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        prop::collection::vec(any::<String>(), 0..4).prop_map(Command::Argv),
        any::<String>().prop_map(Command::Shell),
    ]
}

fn armed() -> impl Strategy<Value = Armed> {
    (command(), span(), prop::option::of(command())).prop_map(|(undo, within, probe)| Armed {
        undo,
        within,
        probe,
    })
}

fn exec() -> impl Strategy<Value = Exec> {
    let value = prop_oneof![
        any::<String>().prop_map(EnvValue::Value),
        any::<String>().prop_map(EnvValue::Secret)
    ];
    let env = prop::collection::btree_map(any::<String>(), value, 0..4);
    let on_full = word::<OnFull>(&["block", "drop"]);
    let who = (any::<Option<String>>(), any::<Option<String>>());
    let kills = (prop::option::of(span()), span());
    let rest = any::<(Option<i8>, Option<u16>)>();
    (command(), who, env, kills, on_full, rest, prop::option::of(armed())).prop_map(
        |(command, (user, cwd), env, (timeout, kill_after), on_full, (nice, umask), armed)| Exec {
            command,
            user,
            cwd,
            env,
            timeout,
            kill_after,
            on_full,
            nice,
            umask,
            armed,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let offline =
        prop_oneof![span().prop_map(Offline::Wait), Just(Offline::Fail), Just(Offline::Skip)];
    let spread = prop::option::of(span());
    (span(), offline, any::<(Option<u32>, Option<u32>)>(), spread, span()).prop_map(
        |(start_within, offline, (parallel, max_failures), spread, lost_after)| Limits {
            start_within,
            offline,
            parallel,
            max_failures,
            spread,
            lost_after,
        },
    )
}

fn plan() -> impl Strategy<Value = Plan> {
    let chosen = (id(), "[a-z0-9]{1,20}").prop_map(|(id, name)| Chosen {
        id: HostId(id),
        name: format!("h{name}").parse().expect("letters and digits"),
    });
    let hosts = prop::collection::vec(chosen, 0..40);
    let job = prop::option::of("[a-z0-9]{1,20}");
    let retries = (0..9_u32, span()).prop_map(|(left, pause)| Retries::new(left, pause));
    (exec(), any::<String>(), hosts, limits(), job, prop::option::of(id()), retries, id()).prop_map(
        |(exec, selector, hosts, limits, job, retry_of, retries, incarnation)| Plan {
            exec,
            selector,
            hosts,
            limits,
            origin: Origin {
                job: job.map(|name| format!("j{name}").parse().expect("letters and digits")),
                retry_of: retry_of.map(RunId),
            },
            retries,
            incarnation: Incarnation(incarnation),
        },
    )
}

fn ended() -> impl Strategy<Value = Ended> {
    let cause = word::<Cause>(&["exited", "timed_out", "cancelled"]);
    let times = (at(), at());
    let hashes = any::<(Option<[u8; 32]>, Option<[u8; 32]>)>();
    let exits = any::<(Option<i32>, Option<i32>)>();
    let fate = prop::option::of(word::<Fate>(&["kept", "undone", "undo_failed"]));
    (cause, exits, times, any::<[u64; 4]>(), hashes, any::<u32>(), fate).prop_map(
        |(cause, (exit_code, signal), times, output, hashes, left_behind, armed)| Ended {
            cause,
            exit_code,
            signal,
            started_at: times.0,
            finished_at: times.1,
            output: Offsets {
                stdout: output[0],
                stderr: output[1],
                stdout_dropped: output[2],
                stderr_dropped: output[3],
            },
            stdout_sha256: hashes.0,
            stderr_sha256: hashes.1,
            left_behind,
            armed,
        },
    )
}

fn reported() -> impl Strategy<Value = Reported> {
    let reason = word::<RefusalReason>(&[
        "expired",
        "fenced",
        "policy",
        "queue_full",
        "user",
        "spawn",
        "cancelled",
        "disk",
    ]);
    prop_oneof![
        Just(Reported::NotKnown),
        Just(Reported::Queued),
        at().prop_map(Reported::Started),
        (at(), at(), at()).prop_map(|(started_at, at, until)| {
            Reported::Applied(Applied { started_at, at, until })
        }),
        ended().prop_map(Reported::Ended),
        (reason, any::<String>())
            .prop_map(|(reason, message)| Reported::Refused(Refusal { reason, message })),
        any::<String>().prop_map(Reported::Unknown),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let by = prop_oneof![
        any::<String>().prop_map(Actor::Token),
        "[a-z]{1,9}".prop_map(|name| Actor::Job(format!("j{name}").parse().expect("letters"))),
        Just(Actor::Server),
    ];
    let ruling = word::<Ruling>(&[
        "offline_failed",
        "offline_skipped",
        "budget_spent",
        "cancelled_unsent",
        "lost",
        "revoked_unsent",
        "revoked_sent",
        "no_secret",
        "agent_old",
    ]);
    let kind = prop_oneof![
        plan().prop_map(|plan| Kind::Planned(Box::new(plan))),
        (hosts(), at()).prop_map(|(hosts, not_after)| Kind::Dispatched { hosts, not_after }),
        hosts().prop_map(|hosts| Kind::Asked { hosts }),
        prop::collection::vec((host(), reported()), 0..20)
            .prop_map(|reports| Kind::Reported { reports }),
        (hosts(), ruling).prop_map(|(hosts, ruling)| Kind::Ruled { hosts, ruling }),
        Just(Kind::CancelRequested),
        hosts().prop_map(|hosts| Kind::HostsCancelRequested { hosts }),
    ];
    (at(), by, kind).prop_map(|(at, by, kind)| Event { at, by, kind })
}

proptest! {
    #[test]
    fn events_survive_their_rows(event in event()) {
        let body = encode_event(&event);
        prop_assert_eq!(decode_event(FORMAT, &body).unwrap(), event);
    }

    #[test]
    fn damaged_rows_are_refused_and_do_not_panic(event in event(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut body = encode_event(&event);
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(at + 1);
        if let Ok(read) = decode_event(FORMAT, &body) {
            prop_assert_eq!(read, event);
        }
    }
}

#[test]
fn an_event_of_a_later_format_is_refused() {
    let event = Event { at: Timestamp::EPOCH, by: Actor::Server, kind: Kind::CancelRequested };
    let refused = decode_event(FORMAT + 1, &encode_event(&event));
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

/// The words of the store never change: what one build wrote all later ones read alike.
#[test]
fn histories_of_format_1_fold_to_the_same_reports() {
    let mut histories: BTreeMap<RunId, Vec<Event>> = BTreeMap::new();
    for line in include_str!("../../tests/data/events-v1.jsonl").lines() {
        let (id, body) = line.split_once(' ').expect("a run's id and an event");
        let event = decode_event(1, body.as_bytes()).expect("an event of format 1");
        let written = String::from_utf8(encode_event(&event));
        assert_eq!(written.as_deref(), Ok(body), "this build writes format 1 otherwise");
        histories.entry(id.parse().expect("an id")).or_default().push(event);
    }
    let fold = |(id, events): (RunId, Vec<Event>)| {
        Run::fold(id, &events).expect("it begins with its plan").view(Vec::new())
    };
    let reports: Vec<_> = histories.into_iter().map(fold).collect();
    let reports = serde_json::to_string_pretty(&reports).expect("reports are JSON");
    assert_eq!(reports.trim(), include_str!("../../tests/data/events-v1.reports.json").trim());
}
