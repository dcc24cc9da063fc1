//! Golden frames: what this release sends is what neighbouring releases read.
//!
//! A golden line is never edited, only added. `docs/protocol.md` shows the same bytes.

#![expect(clippy::unwrap_used, reason = "examples that are right by construction")]

use std::collections::BTreeMap;

use fw_proto::frame::*;
use fw_proto::record::Offsets;
use fw_proto::{Epoch, HostId, Incarnation, NodeId, PublicKey, RunId, Span, TaskKey, Timestamp};
use uuid::Uuid;

fn key() -> TaskKey {
    TaskKey { run: RunId(Uuid::from_u128(1)), node: NodeId(0), attempt: 1 }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
}

fn hello() -> Hello {
    Hello {
        agent_version: "0.1.0".into(),
        protocol: (1, 1),
        machine_id: "m".into(),
        boot_id: "b".into(),
        tasks: vec![Report { key: key(), state: Reported::Started(at(0)) }],
        policy: PolicyMode::Operate,
        epoch: Epoch(7),
        instance: "i".into(),
    }
}

fn offsets() -> Offsets {
    Offsets { stdout: 3, stderr: 0, stdout_dropped: 0, stderr_dropped: 0 }
}

fn spec() -> Spec {
    Spec {
        command: Command::Argv(vec!["uptime".into()]),
        user: None,
        cwd: None,
        env: BTreeMap::from([("A".into(), "b".into())]),
        secrets: BTreeMap::new(),
        timeout: Some(Span::from_secs(60)),
        kill_after: Span::from_secs(10),
        on_full: OnFull::Block,
        spool_bytes: 1 << 20,
        nice: None,
        umask: None,
        armed: None,
    }
}

fn ended() -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(0),
        signal: None,
        started_at: at(0),
        finished_at: at(1),
        output: offsets(),
        stdout_sha256: Some([9; 32]),
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}

fn from_agent() -> Vec<(&'static str, FromAgent<'static>)> {
    vec![
        ("hello", FromAgent::Hello(hello())),
        (
            "join",
            FromAgent::Join(JoinRequest {
                secret: "s".into(),
                name: "web1".into(),
                hello: Hello { tasks: vec![], ..hello() },
            }),
        ),
        ("facts", FromAgent::Facts(Facts { json: "{\"os\":\"Debian\"}".into() })),
        (
            "reports",
            FromAgent::Reports(vec![
                Report { key: key(), state: Reported::Ended(ended()) },
                Report {
                    key: key(),
                    state: Reported::Refused(Refusal {
                        reason: RefusalReason::Expired,
                        message: "late".into(),
                    }),
                },
                Report { key: key(), state: Reported::Queued },
                Report { key: key(), state: Reported::NotKnown },
                Report { key: key(), state: Reported::Unknown("power cut".into()) },
            ]),
        ),
        (
            "chunk",
            FromAgent::Chunk(Chunk {
                key: key(),
                from: Offsets::default(),
                to: offsets(),
                raw_len: 19,
                data: b"zstd",
            }),
        ),
        ("pong", FromAgent::Pong(5)),
        ("rekey", FromAgent::Rekey(PublicKey([1; 32]))),
    ]
}

fn from_server() -> Vec<(&'static str, FromServer)> {
    let ack = Ack { key: key(), durable: offsets() };
    let welcome = Welcome {
        host: HostId(Uuid::from_u128(2)),
        name: "web1".parse().unwrap(),
        protocol: 1,
        incarnation: Incarnation(Uuid::from_u128(3)),
        epoch: Epoch(7),
        now: at(0),
        ping_every: Span::from_secs(15),
        resume: vec![ack],
    };
    let start = || Start {
        key: key(),
        not_after: at(60),
        incarnation: Incarnation(Uuid::from_u128(3)),
        epoch: Epoch(7),
        spec: spec(),
    };
    let shell =
        Start { spec: Spec { command: Command::Shell("a | b".into()), ..spec() }, ..start() };
    vec![
        ("welcome", FromServer::Welcome(welcome)),
        (
            "denied",
            FromServer::Denied(Denied {
                reason: DeniedReason::NameTaken,
                message: "taken".into(),
                retry_after: None,
            }),
        ),
        ("start", FromServer::Start(vec![start(), shell])),
        ("cancel", FromServer::Cancel(vec![key()])),
        ("ack", FromServer::Ack(ack)),
        ("settled", FromServer::Settled(vec![key()])),
        ("query", FromServer::Query(vec![key()])),
        ("ping", FromServer::Ping(5)),
        ("server-keys", FromServer::ServerKeys(vec![PublicKey([1; 32])])),
        ("rekeyed", FromServer::Rekeyed(PublicKey([1; 32]))),
    ]
}

/// What came with version 2 of the protocol.
fn from_agent_2() -> Vec<(&'static str, FromAgent<'static>)> {
    let applied = Applied { started_at: at(0), at: at(1), until: at(61) };
    let ended = |fate| Reported::Ended(Ended { armed: Some(fate), ..ended() });
    let report = |state| Report { key: key(), state };
    vec![(
        "reports-armed",
        FromAgent::Reports(vec![
            report(Reported::Applied(applied)),
            report(ended(Fate::Kept)),
            report(ended(Fate::Undone)),
            report(ended(Fate::UndoFailed)),
        ]),
    )]
}

fn from_server_2() -> Vec<(&'static str, FromServer)> {
    let armed = Armed {
        undo: Command::Shell("undo".into()),
        within: Span::from_secs(60),
        probe: Some(Command::Argv(vec!["probe".into()])),
    };
    let start = Start {
        key: key(),
        not_after: at(60),
        incarnation: Incarnation(Uuid::from_u128(3)),
        epoch: Epoch(7),
        spec: Spec { armed: Some(armed), ..spec() },
    };
    vec![("start-armed", FromServer::Start(vec![start])), ("keep", FromServer::Keep(vec![key()]))]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap()).collect()
}

fn written(
    agent: Vec<(&'static str, FromAgent<'static>)>,
    server: Vec<(&'static str, FromServer)>,
) -> String {
    let agent =
        agent.into_iter().map(|(name, frame)| format!("agent {name} {}\n", hex(&encode(&frame))));
    let server =
        server.into_iter().map(|(name, frame)| format!("server {name} {}\n", hex(&encode(&frame))));
    agent.chain(server).collect()
}

const GOLDEN: &str = include_str!("data/frames/protocol-1.txt");

/// Only what the second version added: the first is still spoken.
const GOLDEN_2: &str = include_str!("data/frames/protocol-2.txt");

#[test]
fn this_release_writes_the_golden_frames() {
    assert_eq!(written(from_agent(), from_server()), GOLDEN);
    assert_eq!(written(from_agent_2(), from_server_2()), GOLDEN_2);
}

#[test]
fn this_release_reads_the_golden_frames() {
    let lines = |of: &'static str| {
        GOLDEN.lines().chain(GOLDEN_2.lines()).filter(move |line| line.starts_with(of))
    };
    for (line, (name, frame)) in lines("agent").zip(from_agent().into_iter().chain(from_agent_2()))
    {
        let bytes = unhex(line.rsplit(' ').next().unwrap());
        assert_eq!(decode::<FromAgent<'_>>(&bytes).unwrap(), Decoded::Frame(frame), "{name}");
    }
    for (line, (name, frame)) in
        lines("server").zip(from_server().into_iter().chain(from_server_2()))
    {
        let bytes = unhex(line.rsplit(' ').next().unwrap());
        assert_eq!(decode::<FromServer>(&bytes).unwrap(), Decoded::Frame(frame), "{name}");
    }
}

#[test]
fn the_protocol_page_shows_the_golden_bytes() {
    let page = include_str!("../../../docs/protocol.md");
    for line in GOLDEN.lines().chain(GOLDEN_2.lines()) {
        let (name, bytes) = line.rsplit_once(' ').unwrap();
        assert!(page.contains(bytes), "docs/protocol.md does not show the bytes of {name}");
    }
}

/// What a server of the first version makes of the second: it skips a frame that holds what it does not
/// know, so nothing of that may stand in a greeting.
#[test]
fn an_armed_change_is_skipped_as_a_whole_by_who_does_not_know_it() {
    #[derive(Debug, PartialEq, minicbor::Decode)]
    enum Older {
        #[n(0)]
        NotKnown,
    }
    let applied = Reported::Applied(Applied { started_at: at(0), at: at(1), until: at(61) });
    let bytes = encode(&applied);
    assert_eq!(decode::<Older>(&bytes).unwrap(), Decoded::Unknown);
}

#[test]
fn a_newer_neighbour_is_understood() {
    // A ping with a second field, an ack whose offsets have a fifth, and frame number 99.
    let longer = [0x82, 0x07, 0x82, 0x05, 0x18, 0x2a];
    assert_eq!(decode::<FromServer>(&longer).unwrap(), Decoded::Frame(FromServer::Ping(5)));
    assert_eq!(decode::<FromServer>(&[0x82, 0x18, 0x63, 0x81, 0x00]).unwrap(), Decoded::Unknown);
    // Last fields that an older neighbour does not send yet.
    let Decoded::Frame(FromServer::Denied(denied)) =
        decode(&[0x82, 0x01, 0x81, 0x82, 0x01, 0x61, 0x78]).unwrap()
    else {
        panic!()
    };
    assert_eq!((denied.reason, denied.retry_after), (DeniedReason::Revoked, None));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        drop(decode::<FromAgent<'_>>(&bytes));
        drop(decode::<FromServer>(&bytes));
    }
}
