//! The hot paths of the store, on the disk of the temporary directory: each commit is durable
//! (`synchronous = FULL`), so the disk's sync is part of what is measured.
//!
//! `cargo bench -p fw-store`

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fw_core::run::Kind;
use fw_proto::RunId;
use fw_proto::api::Verdict;
use fw_proto::frame::Reported;
use fw_proto::record::{Body, MAX_PAYLOAD, Offsets, Record, Stream};
use fw_rt::Clock;
use fw_store::conformance::crowd;
use fw_store::conformance::fixture::{Story, at, ended, fire, host_id, run_id, task};
use fw_store::{Append, NewChunk, NewFire, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Jobs that are due at once.
const FIRES: u32 = 1000;

/// Hosts of the large run, and of all small ones together.
const HOSTS: u32 = 5000;

struct World {
    runtime: Runtime,
    store: Store,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let store = runtime.block_on(open(dir.path()));
        Self { runtime, store, dir }
    }

    /// What was measured was also done.
    fn end(self) {
        let wrong = self.runtime.block_on(self.store.integrity()).expect("it can be read");
        assert!(wrong.is_empty(), "{wrong:?}");
        self.runtime.block_on(self.store.close());
        drop(self.dir);
    }
}

async fn open(dir: &Path) -> Store {
    Store::open(dir, Clock::system()).await.expect("a store")
}

#[expect(clippy::disallowed_methods, reason = "a benchmark's own time, which nothing pauses")]
fn now() -> Instant {
    Instant::now()
}

fn dispatched(n: u128, hosts: u32) -> Story {
    let all = (0..hosts).map(|host| host_id(host.into())).collect();
    let dispatched = Kind::Dispatched { hosts: all, not_after: at(60) };
    Story::begin(n, hosts, None, at(0)).then(at(0), dispatched)
}

fn started(story: Story, hosts: std::ops::Range<u32>) -> Story {
    let reports = hosts.map(|host| (host_id(host.into()), Reported::Started(at(1)))).collect();
    story.then(at(1), Kind::Reported { reports })
}

/// So many starts of one run in each commit, each an event of its own, as when hosts answer one
/// by one.
fn starts_of_one_run(world: &World, n: u128, together: u32, commits: u64) -> Duration {
    let mut story = dispatched(n, HOSTS);
    world.runtime.block_on(world.store.commit(vec![story.append()])).expect("a run");
    let mut spent = Duration::ZERO;
    let turns = u64::from(HOSTS / together);
    for turn in 0..commits {
        let first = u32::try_from(turn % turns).expect("few turns") * together;
        story = (first..first + together).fold(story, |story, host| started(story, host..host + 1));
        let append = story.append();
        let begin = now();
        world.runtime.block_on(world.store.commit(vec![append])).expect("starts");
        spent += begin.elapsed();
    }
    spent
}

/// All starts of many runs in one commit, one event of each run, as the hub makes them of what
/// came in while it committed.
fn starts_of_many_runs(world: &World, first: u128, runs: u32) -> Duration {
    let tasks = HOSTS / runs;
    let numbers = first..first + u128::from(runs);
    let mut stories: Vec<_> = numbers.map(|n| dispatched(n, tasks)).collect();
    let begun = stories.iter_mut().map(Story::append).collect();
    world.runtime.block_on(world.store.commit(begun)).expect("runs");
    let appends = stories.into_iter().map(|story| started(story, 0..tasks).append()).collect();
    let begin = now();
    world.runtime.block_on(world.store.commit(appends)).expect("starts");
    begin.elapsed()
}

fn events(c: &mut Criterion) {
    let world = World::new();
    let mut group = c.benchmark_group("task starts");
    group.sample_size(20);
    let mut next = 0;
    for together in [1, 50, 500] {
        group.throughput(Throughput::Elements(together.into()));
        group.bench_function(format!("one run, {together} events in a commit"), |b| {
            b.iter_custom(|commits| {
                next += 1;
                starts_of_one_run(&world, next, together, commits)
            });
        });
    }
    group.throughput(Throughput::Elements(HOSTS.into()));
    for runs in [1, 100, 1000] {
        group.bench_function(format!("{runs} runs, one event of each in a commit"), |b| {
            b.iter_custom(|commits| {
                let commit = |_| {
                    next += 10_000;
                    starts_of_many_runs(&world, next, runs)
                };
                (0..commits).map(commit).sum()
            });
        });
    }
    group.finish();
    world.end();
}

/// Jobs that are due at once, of a fleet of as many: each begins a run on one host, which then ends.
struct Due {
    begun: Vec<Append>,
    ended: Vec<Append>,
}

impl Due {
    fn new(jobs: u128, time: i64) -> Self {
        let mut due = Self { begun: Vec::new(), ended: Vec::new() };
        for n in 0..jobs {
            let name = format!("backup-{n}");
            let run = run_id(n);
            // As the runs of fires are named: by a hash, in no order.
            let id = RunId(Uuid::new_v5(&run.0, &time.to_le_bytes()));
            let host = vec![host_id(0)];
            let dispatched = Kind::Dispatched { hosts: host.clone(), not_after: at(time + 60) };
            let mut story = Story::begin(n, 1, Some(&name), at(time)).then(at(time), dispatched);
            let fire = fire(&name, time, Verdict::Ran, None);
            let fire = NewFire { run: Some(id), lag_ms: Some(0), ..fire };
            due.begun.push(Append { run: id, fire: Some(fire), ..story.append() });
            let end =
                Kind::Reported { reports: vec![(host_id(0), Reported::Ended(ended(at(time), 0)))] };
            due.ended.push(Append { run: id, ..story.then(at(time), end).append() });
        }
        due
    }
}

/// What a second costs the store in which many jobs are due: their runs begin, and later end.
fn fires(c: &mut Criterion) {
    let world = World::new();
    let mut group = c.benchmark_group("fires");
    group.sample_size(20);
    let mut time = 0;
    group.throughput(Throughput::Elements(FIRES.into()));
    for phase in ["begin", "end"] {
        group.bench_function(format!("{FIRES} runs of jobs {phase} in one commit"), |b| {
            b.iter_custom(|commits| {
                let commit = |_| {
                    time += 1;
                    let due = Due::new(FIRES.into(), time);
                    let timed = |appends| {
                        let begin = now();
                        world.runtime.block_on(world.store.commit(appends)).expect("fires");
                        begin.elapsed()
                    };
                    let (begin, end) = (timed(due.begun), timed(due.ended));
                    if phase == "begin" { begin } else { end }
                };
                (0..commits).map(commit).sum()
            });
        });
    }
    group.finish();
    world.end();
}

/// Lines as servers log them: some words the same, some numbers not.
fn log_text(len: usize) -> Vec<u8> {
    let mut text = String::with_capacity(len + 200);
    let mut state = 1_u64;
    while text.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let (a, b) = (state >> 33, state >> 48);
        let (second, ms, host) = (a % 60, b % 900, a % 40);
        writeln!(
            text,
            "2026-11-20T10:12:{second:02}.{ms:03}Z INFO app::worker: request served id={a:08x} \
             host=web{host} status=200 bytes={b} ms={ms}"
        )
        .expect("a string takes all");
    }
    text.truncate(len);
    text.into_bytes()
}

/// Bytes of a chunk's text.
const SIZE: usize = MAX_PAYLOAD;

/// Chunks of each host in one round, one after the other.
const EACH: u64 = 16;

/// All that a host sends in a round.
fn output(run: u128, text: &[u8]) -> Vec<NewChunk> {
    let mut raw = Vec::new();
    Record { stream: Stream::Stdout, at: at(0), body: Body::Bytes(text) }.write(&mut raw);
    let raw_len = u32::try_from(raw.len()).expect("a chunk is small");
    let data = zstd::bulk::compress(&raw, 3).expect("memory suffices");
    let offsets = |n| Offsets { stdout: n * SIZE as u64, ..Offsets::default() };
    let chunk = |n| NewChunk {
        host: host_id(0),
        key: task(run),
        from: offsets(n),
        to: offsets(n + 1),
        raw_len,
        data: data.clone(),
    };
    (0..EACH).map(chunk).collect()
}

fn append_output(world: &World, sent: Vec<Vec<NewChunk>>) -> Duration {
    let begin = now();
    world.runtime.block_on(async {
        let mut all = JoinSet::new();
        for chunks in sent {
            let store = world.store.clone();
            all.spawn(async move {
                for chunk in chunks {
                    store.append_chunk(chunk).await.expect("it follows");
                }
            });
        }
        all.join_all().await;
    });
    begin.elapsed()
}

fn logs(c: &mut Criterion) {
    let world = World::new();
    let mut group = c.benchmark_group("log");
    group.sample_size(20);
    let text = log_text(SIZE);
    let mut next = 0;
    for hosts in [1, 32, 256] {
        group.throughput(Throughput::Bytes(hosts * EACH * SIZE as u64));
        group.bench_function(format!("append 64 KiB chunks of {hosts} hosts"), |b| {
            b.iter_custom(|rounds| {
                let round = |_| {
                    let first = next;
                    next += u128::from(hosts);
                    append_output(&world, (first..next).map(|run| output(run, &text)).collect())
                };
                (0..rounds).map(round).sum()
            });
        });
    }
    group.throughput(Throughput::Bytes(EACH * SIZE as u64));
    group.bench_function("read 64 KiB chunks of one host", |b| {
        b.iter(|| {
            let read = world.store.log_chunks(task(1).run, host_id(0), 1, 0, 100);
            let chunks = world.runtime.block_on(read).expect("it was written");
            assert_eq!(chunks.len() as u64, EACH);
        });
    });
    group.finish();
    world.end();
}

/// From nothing open to all that a server reads before it is ready, and closed again.
fn start(c: &mut Criterion) {
    let World { runtime, store, dir } = World::new();
    runtime.block_on(crowd::fill(&store, 100_000)).expect("runs");
    runtime.block_on(store.close());
    let life = async || {
        let store = open(dir.path()).await;
        store.unfinished().await.expect("read");
        store.jobs().await.expect("read");
        store.last_fires().await.expect("read");
        store.pending_fires().await.expect("read");
        store.close().await;
    };
    c.bench_function("open and close with 100,000 runs", |b| {
        b.iter(|| runtime.block_on(life()));
    });
}

criterion_group!(benches, events, fires, logs, start);
criterion_main!(benches);
