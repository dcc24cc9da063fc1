//! Ten thousand hostile frames, from a host that is enrolled, and as many messages from nobody: the
//! server serves the others as before, and no host's data changes.

#![expect(clippy::indexing_slicing, reason = "a test that reads beyond an end should say so")]

use std::net::SocketAddr;
use std::time::Duration;

use fw_agent::identity::StateDir;
use fw_proto::frame::{
    self, Cause, Chunk, Ended, Facts, FromAgent, FromServer, JoinRequest, MAX_FACTS, MAX_FRAME,
    Refusal, RefusalReason, Report, Reported,
};
use fw_proto::record::{Body, LARGEST, MAX_CHUNK, Offsets, Record, Stream};
use fw_proto::{NodeId, PublicKey, TaskKey, Timestamp};
use fw_rt::noise::{Keypair, MAX_MESSAGE};
use fw_testkit::fleet::{Agent, Fleet, PATIENCE, wait_for};
use fw_testkit::intruder::{BINARY as BYTES, Insider, Intruder, hello};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetwright");

/// How much is thrown at the server, by those who hold a host's key and by those who hold nothing.
const FRAMES: usize = 10_000;

/// Another seed tries other frames; this one is kept so that a failure comes again.
const SEED: u64 = 0x5eed_0003;

/// What a server may have grown by after all this: what one link may make it hold (a frame of 1 MiB that
/// comes in parts, its text, what waits for the store), a few times over, and the allocator's keeping.
/// One that kept a sixth of the 150 MB that it is sent would hold more.
const GROWTH: u64 = 24 * 1024 * 1024;

/// A link that has broken the protocol is over by then.
const OVER: Duration = Duration::from_secs(30);

/// What a hostile host knows: frames that are good, and names of what belongs to others.
struct Arsenal {
    golden: Vec<Vec<u8>>,
    /// Tasks of another host.
    victims: Vec<TaskKey>,
    /// Keys that are taken.
    keys: Vec<PublicKey>,
}

impl Arsenal {
    fn new(victims: Vec<TaskKey>, keys: Vec<PublicKey>) -> Self {
        let lines = include_str!("../../fw-proto/tests/data/frames/protocol-1.txt").lines();
        let bytes = |text: &str| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
            (0..text.len()).step_by(2).map(byte).collect()
        };
        let golden = lines.filter_map(|line| line.split(' ').nth(2)).map(bytes).collect();
        Self { golden, victims, keys }
    }

    /// A frame that no honest agent sends.
    fn frame(&self, rng: &mut StdRng) -> Vec<u8> {
        match rng.random_range(0..100) {
            0..20 => random(rng, 600),
            20..55 => self.mutated(rng),
            55..75 => frame::encode(&FromAgent::Reports(self.lies(rng))),
            75..85 => self.chunk(rng),
            85..90 => frame::encode(&FromAgent::Facts(Facts { json: facts(rng) })),
            90..93 => {
                frame::encode(&FromAgent::Rekey(self.keys[rng.random_range(0..self.keys.len())]))
            }
            93..96 => self.greeting(rng),
            96..99 => nested(rng),
            _ => vec![0x82; MAX_FRAME + 1],
        }
    }

    /// A good frame of either side with a few bytes changed, left out, added or cut off.
    fn mutated(&self, rng: &mut StdRng) -> Vec<u8> {
        let mut bytes = self.golden[rng.random_range(0..self.golden.len())].clone();
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..bytes.len().max(1));
            match rng.random_range(0..4) {
                0 if at < bytes.len() => bytes[at] = rng.random(),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.truncate(at),
                _ => bytes.insert(at.min(bytes.len()), rng.random()),
            }
        }
        // A mutation may be a valid wish for a new key: that host would then be another.
        if bytes.starts_with(&[0x82, 6]) { vec![0x82, 6] } else { bytes }
    }

    /// Claims about tasks of another host.
    fn lies(&self, rng: &mut StdRng) -> Vec<Report> {
        let count = 1 << rng.random_range(0..6);
        let lie = || {
            let key = self.victims[rng.random_range(0..self.victims.len())];
            let stdout = [0, 9, LARGEST, u64::MAX][rng.random_range(0..4)];
            let output = Offsets { stdout, ..Offsets::default() };
            let state = match rng.random_range(0..6) {
                0 => Reported::NotKnown,
                1 => Reported::Queued,
                2 => Reported::Started(Timestamp::EPOCH),
                3 => Reported::Refused(Refusal {
                    reason: RefusalReason::Policy,
                    message: "x".repeat(rng.random_range(0..5000)),
                }),
                4 => Reported::Unknown("a\u{1b}[2J<script>".to_owned()),
                _ => Reported::Ended(ended(output)),
            };
            Report { key, state }
        };
        std::iter::repeat_with(lie).take(count).collect()
    }

    /// Output of another host's task, some of it well formed, some of it a bomb.
    fn chunk(&self, rng: &mut StdRng) -> Vec<u8> {
        let key = self.victims[rng.random_range(0..self.victims.len())];
        let mut raw = Vec::new();
        let body = Body::Bytes(b"forged\n");
        Record { stream: Stream::Stdout, at: Timestamp::EPOCH, body }.write(&mut raw);
        let to = Offsets { stdout: 7, ..Offsets::default() };
        let bomb = vec![0; 8 * 1024 * 1024];
        let (data, raw_len) = match rng.random_range(0..4) {
            0 => (random(rng, 300), 300),
            1 => (zstd(&bomb), u32::MAX),
            2 => (zstd(&bomb), u32::try_from(MAX_CHUNK).expect("small")),
            _ => (zstd(&raw), u32::try_from(raw.len()).expect("small")),
        };
        let from = Offsets { stdout: [0, 0, 1 << 20, u64::MAX][rng.random_range(0..4)], ..to };
        frame::encode(&FromAgent::Chunk(Chunk { key, from, to, raw_len, data: &data }))
    }

    /// A greeting out of its turn, or with more than fits.
    fn greeting(&self, rng: &mut StdRng) -> Vec<u8> {
        let mut hello = hello((1, 1));
        match rng.random_range(0..3) {
            0 => hello.boot_id = "b".repeat(rng.random_range(1..100_000)),
            1 => hello.tasks = (0..50).flat_map(|_| self.lies(rng)).collect(),
            _ => {
                let (secret, name) = ("s".repeat(5000), "../../etc/<b>".to_owned());
                return frame::encode(&FromAgent::Join(JoinRequest { secret, name, hello }));
            }
        }
        frame::encode(&FromAgent::Hello(hello))
    }
}

fn ended(output: Offsets) -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(0),
        signal: None,
        started_at: Timestamp::EPOCH,
        finished_at: Timestamp::EPOCH,
        output,
        stdout_sha256: Some([0; 32]),
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).expect("compressing to memory cannot go wrong")
}

fn random(rng: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..most)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Facts that are too large, too deep, or no object.
fn facts(rng: &mut StdRng) -> String {
    match rng.random_range(0..4) {
        0 => format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_FACTS)),
        1 => format!("{{\"a\":{}", "[".repeat(100_000)),
        2 => "[1, 2]".to_owned(),
        _ => "{\"a\":1,".to_owned(),
    }
}

/// CBOR (RFC 8949) that promises more than there is, or goes deep.
fn nested(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..3) {
        0 => [vec![0x82, 0x18, 99], vec![0x81; 200_000]].concat(),
        1 => vec![0x82, 3, 0x81, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        _ => vec![0x82, 4, 0x81, 0x85, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    }
}

/// What must be the same afterwards.
#[derive(Debug, PartialEq)]
struct Owned {
    hosts: Vec<Value>,
    task: Value,
}

impl Owned {
    async fn of(fleet: &Fleet, run: &str) -> Self {
        let mut hosts = Vec::new();
        for name in ["web1", "evil1", "evil2"] {
            let mut host = fleet.get(&format!("/hosts/{name}")).await.expect("the host");
            let host_is = host.as_object_mut().expect("an object");
            // These say that it was heard, which is true, and what its build is, which is its own claim.
            for key in ["last_seen", "offline_since", "state", "agent_version", "facts"] {
                if !(name == "web1" && key == "facts") {
                    host_is.remove(key);
                }
            }
            hosts.push(host);
        }
        let mut task = fleet.runs_show(run).await["tasks"][0].take();
        // It prints on.
        task.as_object_mut().expect("an object").remove("stdout_bytes");
        Self { hosts, task }
    }
}

fn keys(agent: &Agent) -> (Keypair, PublicKey) {
    let dir = StateDir::open(&agent.state).expect("a state directory");
    let own = dir.key().expect("readable").expect("the host has joined");
    let identity = dir.identity().expect("readable").expect("the host has joined");
    (Keypair::from_private(own), identity.server_keys[0])
}

fn address(fleet: &Fleet) -> SocketAddr {
    fleet.url().trim_start_matches("http://").parse().expect("an address")
}

/// Resident memory of the server, bytes (`proc(5)`).
fn memory(fleet: &Fleet) -> u64 {
    let pid = fleet.server.pid().expect("the server runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Connections that the server has, that of this question included.
async fn connections(fleet: &Fleet) -> Option<u64> {
    let page = fleet.metrics().await?;
    let line = page.lines().find_map(|line| line.strip_prefix("fleetwright_http_connections "))?;
    line.trim().parse().ok()
}

/// A fleet with a host that works, and a run on it that must not be touched.
async fn besieged() -> (Fleet, Agent, String) {
    let fleet = Fleet::start_with(BINARY, &["--handshake-rate", "1000000"]).await;
    let web1 = fleet.agent("web1").await;
    let text = "while [ ! -e go ]; do echo tick; sleep 0.05; done; echo done";
    let run = fleet.begin_shell("web1", &[], text).await;
    fleet.task_is(&run, "running").await;
    (fleet, web1, run)
}

/// The server is as it was, and quick.
async fn assert_unharmed(fleet: &Fleet, run: &str, memory_before: u64) {
    let began = tokio::time::Instant::now();
    let (_, other) = fleet.run_shell("web1", &[], "echo prompt").await;
    assert_eq!(other["state"], "succeeded");
    assert!(began.elapsed() < Duration::from_secs(10), "a run took {:?}", began.elapsed());
    fleet.touch("go");
    assert_eq!(fleet.ended(run).await["state"], "succeeded");
    let said = fleet.raw(run, "web1", "stdout").await.ok().text();
    let forged = said.lines().find(|line| *line != "tick" && *line != "done");
    assert_eq!((forged, said.lines().last()), (None, Some("done")));
    wait_for("the end of all hostile connections", PATIENCE, async || {
        (connections(fleet).await? <= 3).then_some(())
    })
    .await;
    let grown = memory(fleet).saturating_sub(memory_before);
    eprintln!("the server has grown by {} KiB", grown / 1024);
    assert!(grown < GROWTH, "the server has grown by {grown} bytes");
    let log = fleet.server.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn ten_thousand_hostile_frames_of_an_enrolled_host_harm_nobody() {
    let (fleet, web1, run) = besieged().await;
    let evils = [fleet.join("evil1", &[]).await, fleet.join("evil2", &[]).await];
    let victims = vec![
        TaskKey { run: run.parse().expect("an id"), node: NodeId(0), attempt: 1 },
        TaskKey { run: run.parse().expect("an id"), node: NodeId(0), attempt: 2 },
    ];
    let (_, server) = keys(&web1);
    let taken = vec![PublicKey([0; 32]), server, keys(&web1).0.public];
    let arsenal = Arsenal::new(victims, taken);
    let before = Owned::of(&fleet, &run).await;
    let memory_before = memory(&fleet);
    let half = async |evil: &Agent, seed: u64| {
        let (own, server) = keys(evil);
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut sent, mut links) = (0, 0);
        while sent < FRAMES / 2 {
            sent += attack(&fleet, &own, &server, &arsenal, &mut rng).await;
            links += 1;
        }
        (sent, links)
    };
    let (one, other) = tokio::join!(half(&evils[0], SEED), half(&evils[1], SEED + 1));
    eprintln!("{} frames on {} links", one.0 + other.0, one.1 + other.1);
    assert_eq!(Owned::of(&fleet, &run).await, before);
    assert_unharmed(&fleet, &run, memory_before).await;
}

/// One hostile link: greets properly or not, sends some frames, and last one that nobody can
/// mistake. How many frames were sent; the link is over.
async fn attack(
    fleet: &Fleet,
    own: &Keypair,
    server: &PublicKey,
    arsenal: &Arsenal,
    rng: &mut StdRng,
) -> usize {
    let mut link = Insider::link(address(fleet), own, server).await.expect("a session");
    if rng.random_range(0..5) > 0 {
        link.speak(&FromAgent::Hello(hello((1, 1)))).await.expect("the server listens");
        let welcome = link.next().await;
        assert!(matches!(welcome, Some(FromServer::Welcome(_))), "{welcome:?}");
    }
    let mut sent = 0;
    for _ in 0..rng.random_range(1..16) {
        // The server may have hung up on the frame before.
        if link.frame(&arsenal.frame(rng)).await.is_err() {
            break;
        }
        sent += 1;
    }
    last_word(&mut link, rng).await;
    let over = async { while link.next().await.is_some() {} };
    assert!(tokio::time::timeout(OVER, over).await.is_ok(), "a hostile link is still up");
    sent + 1
}

/// Below the frames: what is no message, no part, not sealed, or not even a WebSocket's.
async fn last_word(link: &mut Insider, rng: &mut StdRng) {
    let said = match rng.random_range(0..5) {
        0 => link.frame(&[0xff; 9]).await,
        1 => link.wire.say(BYTES, &random(rng, 400)).await,
        2 => link.wire.say(BYTES, &vec![0; MAX_MESSAGE + 1]).await,
        3 => link.wire.say(1, b"text").await,
        _ => link.wire.raw(&[0xff; 64]).await,
    };
    // It may have hung up already.
    said.ok();
}

#[tokio::test]
async fn ten_thousand_messages_of_nobody_harm_nobody() {
    let (fleet, _web1, run) = besieged().await;
    for name in ["evil1", "evil2"] {
        drop(fleet.join(name, &[]).await);
    }
    let before = Owned::of(&fleet, &run).await;
    let memory_before = memory(&fleet);
    let some = async |seed: u64| {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut sent, mut connected) = (0, 0);
        while sent < FRAMES / 4 {
            sent += knock(&fleet, &mut rng).await;
            connected += 1;
        }
        (sent, connected)
    };
    let (a, b, c, d) = tokio::join!(some(SEED), some(SEED + 1), some(SEED + 2), some(SEED + 3));
    let (sent, connected) = (a.0 + b.0 + c.0 + d.0, a.1 + b.1 + c.1 + d.1);
    eprintln!("{sent} messages on {connected} connections");
    assert_eq!(Owned::of(&fleet, &run).await, before);
    assert_unharmed(&fleet, &run, memory_before).await;
}

/// One connection of someone without any key; how many messages it took. It is over.
async fn knock(fleet: &Fleet, rng: &mut StdRng) -> usize {
    let to = address(fleet);
    let mut sent = 0;
    if rng.random_range(0..3) == 0 {
        let mut stream = TcpStream::connect(to).await.expect("the server listens");
        for _ in 0..rng.random_range(1..6) {
            sent += usize::from(stream.write_all(&not_http(rng)).await.is_ok());
        }
        stream.shutdown().await.ok();
        let rest = async { stream.read_to_end(&mut Vec::new()).await };
        assert!(tokio::time::timeout(OVER, rest).await.is_ok(), "a connection is still up");
        return sent.max(1);
    }
    let mut intruder = Intruder::knock(to, "").await.expect("the server answers");
    for _ in 0..rng.random_range(1..6) {
        let said = match rng.random_range(0..6) {
            // As long as a first message should be, and the costly case: a key is computed with.
            0 | 1 => {
                let mut message = [0; 96];
                rng.fill_bytes(&mut message);
                intruder.say(BYTES, &message).await
            }
            2 => intruder.say(BYTES, &random(rng, MAX_MESSAGE)).await,
            3 => intruder.say(rng.random_range(3..16), &random(rng, 100)).await,
            4 => intruder.raw(&random(rng, 100)).await,
            // A ping is in order, and changes nothing.
            _ => intruder.say(9, b"ping").await,
        };
        sent += usize::from(said.is_ok());
    }
    // Otherwise half of them would wait for the server's deadline, which `partition.rs` tries.
    intruder.finish().await.ok();
    let over = async { while intruder.hear().await.is_some() {} };
    assert!(tokio::time::timeout(OVER, over).await.is_ok(), "a connection is still up");
    sent.max(1)
}

/// What is no request, or the beginning of one.
fn not_http(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..4) {
        0 => random(rng, 2000),
        1 => b"GET /agent/v1/link HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n".to_vec(),
        2 => [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 20_000]].concat(),
        _ => b"POST /api/v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{"
            .to_vec(),
    }
}
