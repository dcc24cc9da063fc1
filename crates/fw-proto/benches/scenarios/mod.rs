//! Words on the wire: agent frames and output records, there and back.

use std::collections::BTreeMap;
use std::hint::black_box;

use fw_proto::frame::{
    Cause, Chunk, Command, Decoded, Ended, FromAgent, FromServer, Hello, OnFull, PolicyMode,
    Report, Reported, Spec, Start, decode, encode,
};
use fw_proto::record::{Body, HEADER, Offsets, Record, Stream, records};
use fw_proto::{Epoch, Incarnation, NodeId, RunId, Span, TaskKey, Timestamp};
use uuid::Uuid;

use crate::scenario::{Scenario, Size};

/// All scenarios of this crate.
pub(crate) fn all() -> Vec<Scenario> {
    let one = Size::Items(1);
    vec![
        Scenario::again("frame-encode-start", one, || {
            let frame = start();
            move || encode(black_box(&frame))
        }),
        Scenario::again("frame-decode-start", one, || {
            let bytes = encode(&start());
            move || decode::<FromServer>(black_box(&bytes))
        }),
        encode_of("frame-encode-report", one, || reports(1)),
        decode_of("frame-decode-report", one, || reports(1)),
        encode_of("frame-encode-reports-256", Size::Items(256), || reports(256)),
        decode_of("frame-decode-reports-256", Size::Items(256), || reports(256)),
        encode_of("frame-encode-hello", one, hello),
        decode_of("frame-decode-hello", one, hello),
        encode_of("frame-encode-chunk-64k", Size::Bytes(64 * 1024), || chunk(&PIECE)),
        decode_of("frame-decode-chunk-64k", Size::Bytes(64 * 1024), || chunk(&PIECE)),
        Scenario::once("record-write", Size::Bytes(LINES_BYTES), || {
            let line = [b'x'; LINE];
            let mut bytes = Vec::with_capacity(LINES * (LINE + HEADER));
            move || {
                write_lines(black_box(&line), &mut bytes);
                bytes
            }
        }),
        Scenario::again("record-read", Size::Bytes(LINES_BYTES), || {
            let mut bytes = Vec::new();
            write_lines(&[b'x'; LINE], &mut bytes);
            move || {
                let read = records(black_box(&bytes)).map_while(Result::ok);
                read.fold(Offsets::default(), |offsets, record| offsets.after(&record))
            }
        }),
    ]
}

/// A piece of output; what it holds does not matter to a frame.
static PIECE: [u8; 64 * 1024] = [7; 64 * 1024];

/// Lines of a log: so many, each in a record of its own, each so long.
const LINES: usize = 1000;
const LINE: usize = 80;
const LINES_BYTES: u64 = (LINES * LINE) as u64;

fn encode_of(
    name: &'static str,
    size: Size,
    frame: impl Fn() -> FromAgent<'static> + 'static,
) -> Scenario {
    Scenario::again(name, size, move || {
        let frame = frame();
        move || encode(black_box(&frame))
    })
}

fn decode_of(
    name: &'static str,
    size: Size,
    frame: impl Fn() -> FromAgent<'static> + 'static,
) -> Scenario {
    Scenario::again(name, size, move || {
        let bytes = encode(&frame());
        move || {
            let whole = matches!(
                black_box(decode::<FromAgent<'_>>(black_box(&bytes))),
                Ok(Decoded::Frame(_))
            );
            assert!(whole, "what was encoded is read");
        }
    })
}

fn key(run: u128) -> TaskKey {
    TaskKey { run: RunId(Uuid::from_u128(run)), node: NodeId(0), attempt: 1 }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
}

fn start() -> FromServer {
    let spec = Spec {
        command: Command::Shell("pg_dumpall | zstd > /var/backups/all.zst".to_owned()),
        user: Some("postgres".to_owned()),
        cwd: Some("/var/lib/postgresql".to_owned()),
        env: BTreeMap::from([
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("PGHOST".to_owned(), "/run/postgresql".to_owned()),
        ]),
        secrets: BTreeMap::from([("PGPASSWORD".to_owned(), "correct horse".to_owned())]),
        timeout: Some(Span::from_secs(3600)),
        kill_after: Span::from_secs(10),
        on_full: OnFull::Block,
        spool_bytes: 64 * 1024 * 1024,
        nice: Some(10),
        umask: None,
        armed: None,
    };
    let start = Start {
        key: key(1),
        not_after: at(60),
        incarnation: Incarnation(Uuid::from_u128(3)),
        epoch: Epoch(7),
        spec,
    };
    FromServer::Start(vec![start])
}

fn reports(count: u128) -> FromAgent<'static> {
    let ended = Ended {
        cause: Cause::Exited,
        exit_code: Some(0),
        signal: None,
        started_at: at(0),
        finished_at: at(1),
        output: Offsets { stdout: 4711, ..Offsets::default() },
        stdout_sha256: Some([9; 32]),
        stderr_sha256: Some([8; 32]),
        left_behind: 0,
        armed: None,
    };
    let report = |run| Report { key: key(run), state: Reported::Ended(ended.clone()) };
    FromAgent::Reports((0..count).map(report).collect())
}

/// A greeting with the digest of a busy host.
fn hello() -> FromAgent<'static> {
    let task = |run| Report { key: key(run), state: Reported::Started(at(0)) };
    FromAgent::Hello(Hello {
        agent_version: "0.1.0".to_owned(),
        protocol: (1, 1),
        machine_id: "5f3a41c74be29a58d27b0c93e1f46d0e".to_owned(),
        boot_id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned(),
        tasks: (0..16).map(task).collect(),
        policy: PolicyMode::Operate,
        epoch: Epoch(7),
        instance: "c93e1f46d0e5f3a4".to_owned(),
    })
}

fn chunk(data: &'static [u8]) -> FromAgent<'static> {
    let to = Offsets { stdout: 600_000, ..Offsets::default() };
    FromAgent::Chunk(Chunk { key: key(1), from: Offsets::default(), to, raw_len: 256 * 1024, data })
}

fn write_lines(line: &[u8], out: &mut Vec<u8>) {
    for _ in 0..LINES {
        Record { stream: Stream::Stdout, at: at(0), body: Body::Bytes(line) }.write(out);
    }
}
