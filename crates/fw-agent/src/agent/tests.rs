//! An agent with a link that ends in the test, and spools as supervisors leave them.

use fw_proto::frame::{
    Ack, Cause, Decoded, Denied, DeniedReason, Ended, FromAgent, FromServer, Report, Reported,
    Welcome,
};
use fw_proto::record::{Body, Offsets, Record as Output, Stream};
use fw_proto::{Epoch, HostId, Incarnation, NodeId, PublicKey, RunId};
use uuid::Uuid;

use super::*;
use crate::supervise::Containment;
use crate::supervise::files::{self, EndedFile, Segment, Started};

const DEADLINE: Duration = Duration::from_secs(60);

fn key(number: u128) -> TaskKey {
    TaskKey { run: RunId(Uuid::from_u128(number)), node: NodeId(0), attempt: 1 }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(secs * 1000)
}

fn stdout(stdout: u64) -> Offsets {
    Offsets { stdout, ..Offsets::default() }
}

fn ended(wrote: u64) -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(0),
        signal: None,
        started_at: at(1),
        finished_at: at(2),
        output: stdout(wrote),
        stdout_sha256: None,
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}

/// What the test is told.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Chunk(TaskKey, u64, u64),
    Report(TaskKey, Reported),
    Pong(u64),
}

struct Bench {
    dir: tempfile::TempDir,
    keys: Vec<TaskKey>,
    agent: Option<Agent>,
    outbox: Option<mpsc::Receiver<Vec<u8>>>,
    frames: usize,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let identity = Identity {
            server: "http://127.0.0.1:1".to_owned(),
            server_keys: vec![PublicKey([1; 32])],
            host: HostId(Uuid::from_u128(5)),
            name: "web1".parse().unwrap(),
        };
        state.set_identity(&identity).unwrap();
        Self { dir, keys: Vec::new(), agent: None, outbox: None, frames: 0 }
    }

    /// A task that was started, and wrote `output` after the first `base` bytes.
    fn begun(&mut self, key: TaskKey, base: u64, output: &[u8]) -> PathBuf {
        let dir = self.dir.path().join("spool").join(key.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let started = Started {
            supervisor: 1,
            at: at(1),
            boot_id: boot_id(),
            containment: Containment::Subreaper,
            cgroup: None,
        };
        files::write_json(&dir, files::STARTED, &started, false).unwrap();
        let mut bytes = Vec::new();
        for payload in output.chunks(fw_proto::record::MAX_PAYLOAD) {
            let body = Body::Bytes(payload);
            Output { stream: Stream::Stdout, at: at(1), body }.write(&mut bytes);
        }
        let segment = Segment { number: 0, base: stdout(base) };
        std::fs::write(dir.join(segment.name()), bytes).unwrap();
        self.keys.push(key);
        dir
    }

    /// And has ended, having written so much by its own account.
    fn ended(&mut self, key: TaskKey, base: u64, output: &[u8], wrote: u64) {
        let dir = self.begun(key, base, output);
        let status = files::Status::Ended(EndedFile::from(&ended(wrote)));
        files::write_json(&dir, files::STATUS, &status, false).unwrap();
    }

    /// The agent starts, and links to a server that has nothing of any task.
    fn link(&mut self) {
        let mut journal = Journal::open(self.dir.path(), at(0)).unwrap();
        let accepted =
            |key| Record::Accepted { key, not_after: at(i64::MAX / 4000), boot_id: boot_id() };
        journal
            .append(&self.keys.iter().copied().map(accepted).collect::<Vec<_>>(), at(0))
            .unwrap();
        drop(journal);
        let options = Options {
            state_dir: self.dir.path().to_owned(),
            facts_dir: None,
            policy: None,
            max_tasks: 4,
            spool_bytes: 1 << 20,
            proxy: None,
            supervisor: None,
        };
        let agent = Agent::open(options, Clock::system()).unwrap();
        self.agent = Some(agent);
        self.greet();
        self.welcome();
    }

    fn greet(&mut self) {
        let (outbox, frames) = mpsc::channel(OUTBOX);
        self.agent().event(Event::Up(outbox));
        self.outbox = Some(frames);
        assert_eq!(self.told(), [], "greeted and no more");
    }

    fn welcome(&mut self) {
        self.say(&FromServer::Welcome(Welcome {
            host: HostId(Uuid::from_u128(5)),
            name: "web1".parse().unwrap(),
            protocol: 1,
            incarnation: Incarnation(Uuid::nil()),
            epoch: Epoch(1),
            now: Clock::system().now(),
            ping_every: Span::from_secs(1000),
            resume: Vec::new(),
        }));
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    fn say(&mut self, frame: &FromServer) {
        self.agent().event(Event::Frame(frame::encode(frame)));
    }

    /// Lets the agent's jobs run until none is left.
    async fn settle(&mut self) {
        let agent = self.agent();
        let settle = async {
            loop {
                agent.write_ahead();
                agent.ship();
                if agent.writing.is_some() {
                    let written = done(&mut agent.writing).await;
                    agent.written(written);
                } else if agent.shipping.is_some() {
                    let seen = done(&mut agent.shipping).await;
                    agent.shipped(seen);
                } else {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, settle).await.unwrap();
    }

    /// What the agent has sent since this was last asked.
    fn told(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Ok(bytes) = self.outbox.as_mut().unwrap().try_recv() {
            self.frames += 1;
            assert!(bytes.len() < frame::MAX_FRAME);
            match frame::decode::<FromAgent<'_>>(&bytes).unwrap() {
                Decoded::Frame(FromAgent::Chunk(chunk)) => {
                    told.push(Told::Chunk(chunk.key, chunk.from.stdout, chunk.to.stdout));
                }
                Decoded::Frame(FromAgent::Reports(reports)) => told.extend(
                    reports.into_iter().map(|Report { key, state }| Told::Report(key, state)),
                ),
                Decoded::Frame(FromAgent::Pong(number)) => told.push(Told::Pong(number)),
                Decoded::Frame(
                    FromAgent::Hello(_)
                    | FromAgent::Join(_)
                    | FromAgent::Facts(_)
                    | FromAgent::Rekey(_),
                )
                | Decoded::Unknown => {}
            }
        }
        told
    }

    fn ack(&mut self, key: TaskKey, to: u64) {
        self.say(&FromServer::Ack(Ack { key, durable: stdout(to) }));
    }
}

fn unknown(key: TaskKey, why: &str) -> Told {
    Told::Report(key, Reported::Unknown(why.to_owned()))
}

#[test]
fn a_boot_without_an_id_is_never_the_same() {
    assert!(is_same_boot("a", "a"));
    assert!(!is_same_boot("a", "b"));
    assert!(!is_same_boot("", ""));
}

#[tokio::test]
async fn an_end_whose_output_the_host_lost_is_unknown_and_not_silence() {
    let mut bench = Bench::new();
    // The server was restored to before the first segment that is kept; a disk lost the rest.
    bench.ended(key(1), 1000, b"more", 1004);
    bench.ended(key(2), 0, b"half", 9);
    bench.ended(key(3), 0, b"whole", 5);
    bench.link();
    bench.settle().await;
    let lost = "its output is no longer whole on the host; the command exited with code 0";
    assert_eq!(
        bench.told(),
        [
            Told::Chunk(key(2), 0, 4),
            Told::Chunk(key(3), 0, 5),
            unknown(key(2), lost),
            Told::Report(key(3), Reported::Ended(ended(5))),
        ]
    );
    for _ in 0..3 {
        bench.agent().look();
        bench.settle().await;
    }
    assert_eq!(bench.told(), [unknown(key(1), lost)], "once it is sure");
    bench.say(&FromServer::Settled(vec![key(1), key(2), key(3)]));
    bench.settle().await;
    assert_eq!(bench.agent().spool.list().unwrap(), []);
}

#[tokio::test]
async fn a_task_without_its_supervisor_is_unknown_after_its_output() {
    let mut bench = Bench::new();
    bench.begun(key(1), 0, b"last words");
    bench.link();
    bench.settle().await;
    let why = "its supervisor was killed, or the machine went down";
    assert_eq!(bench.told(), [Told::Chunk(key(1), 0, 10), unknown(key(1), why)]);
    assert_eq!(bench.agent().core.load(), (0, 0));
}

#[tokio::test]
async fn a_command_whose_output_the_server_cannot_take_is_not_held_up() {
    let mut bench = Bench::new();
    let dir = bench.begun(key(1), 1000, b"some");
    let last = Segment { number: 1, base: stdout(1004) };
    std::fs::write(dir.join(last.name()), "").unwrap();
    std::fs::write(dir.join(files::PID), "1").unwrap();
    // Who holds it is the supervisor.
    os::mkfifo(&dir.join(files::CONTROL)).unwrap();
    let control = std::fs::File::options().read(true).write(true).open(dir.join(files::CONTROL));
    bench.link();
    for _ in 0..4 {
        bench.settle().await;
        bench.agent().look();
    }
    assert_eq!(bench.told(), []);
    assert_eq!(Segment::list(&dir).unwrap(), [last], "there is room again");
    let status = files::Status::Ended(EndedFile::from(&ended(1004)));
    files::write_json(&dir, files::STATUS, &status, false).unwrap();
    drop(control);
    bench.agent().look();
    bench.settle().await;
    let lost = "its output is no longer whole on the host; the command exited with code 0";
    assert_eq!(bench.told(), [unknown(key(1), lost)]);
}

#[tokio::test]
async fn a_torn_spool_does_not_keep_the_agent_from_starting() {
    let mut bench = Bench::new();
    let dir = bench.begun(key(1), 0, b"");
    std::fs::write(dir.join(files::STARTED), "").unwrap();
    std::fs::write(dir.join(files::STATUS), "").unwrap();
    bench.link();
    bench.settle().await;
    let why = "its supervisor was killed, or the machine went down";
    assert_eq!(bench.told(), [unknown(key(1), why)]);
}

#[tokio::test]
async fn tasks_that_write_much_take_turns() {
    let mut bench = Bench::new();
    // What does not shrink: two chunks fill the window.
    let mut noise = vec![0; 2 * 1024 * 1024];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut noise);
    let wrote = noise.len() as u64;
    bench.ended(key(1), 0, &noise, wrote);
    bench.ended(key(2), 0, &noise, wrote);
    bench.link();
    bench.settle().await;
    let mut waiting = std::collections::VecDeque::from(bench.told());
    let mut order = Vec::new();
    while order.len() < 8 {
        let Some(Told::Chunk(of, _, to)) = waiting.pop_front() else { panic!("{order:?}") };
        order.push(of);
        bench.ack(of, to);
        bench.settle().await;
        waiting.extend(bench.told());
    }
    assert_eq!(order, [key(1), key(2)].repeat(4));
}

#[tokio::test]
async fn output_leaves_room_for_reports_and_pongs() {
    let mut bench = Bench::new();
    for number in 0..400 {
        bench.ended(key(number), 0, b"few", 3);
    }
    bench.link();
    bench.settle().await;
    bench.say(&FromServer::Ping(7));
    let asked: Vec<_> = (1000..2000).map(key).collect();
    bench.say(&FromServer::Query(asked));
    bench.frames = 0;
    let told = bench.told();
    assert!(bench.agent().outbox.is_some(), "the link holds");
    assert!(told.contains(&Told::Pong(7)));
    let answers = told.iter().filter(|told| matches!(told, Told::Report(_, Reported::NotKnown)));
    assert_eq!(answers.count(), 1000);
    let chunks: Vec<_> = told
        .iter()
        .filter_map(|told| match told {
            Told::Chunk(key, ..) => Some(*key),
            Told::Report(..) | Told::Pong(_) => None,
        })
        .collect();
    assert!(bench.frames <= OUTBOX && chunks.len() > 100, "{} frames", bench.frames);
    chunks.into_iter().for_each(|key| bench.ack(key, 3));
    bench.settle().await;
    assert!(!bench.told().is_empty(), "and the rest follows");
}

#[tokio::test]
async fn what_a_full_disk_could_not_settle_is_settled_later() {
    let mut bench = Bench::new();
    bench.ended(key(1), 0, b"out", 3);
    bench.link();
    bench.settle().await;
    let full = bench.agent().journal.as_mut().unwrap().fill_disk();
    bench.say(&FromServer::Settled(vec![key(1)]));
    bench.settle().await;
    bench.agent().look();
    bench.settle().await;
    assert_eq!(bench.agent().spool.list().unwrap(), [key(1)], "it could be started again");
    std::fs::remove_dir(full).unwrap();
    bench.agent().look();
    bench.settle().await;
    assert_eq!(bench.agent().spool.list().unwrap(), []);
    assert!(bench.agent().journal.as_ref().unwrap().task(key(1)).unwrap().settled);
}

#[tokio::test]
async fn pings_are_answered_while_the_disk_is_slow() {
    let mut bench = Bench::new();
    bench.link();
    let journal = bench.agent().journal.take().unwrap();
    bench.say(&FromServer::Ping(1));
    bench.agent().records.push(Record::Epoch(Epoch(9)));
    bench.agent().write_ahead();
    assert!(bench.agent().writing.is_none(), "one write at a time");
    assert_eq!(bench.told(), [Told::Pong(1)]);
    bench.agent().journal = Some(journal);
    bench.settle().await;
    assert_eq!(bench.agent().journal.as_ref().unwrap().epoch(), Epoch(9));
}

#[tokio::test]
async fn a_server_that_is_busy_is_left_alone_as_long_as_it_asks() {
    let mut bench = Bench::new();
    bench.link();
    let mut pause = |reason, retry_after| {
        bench.greet();
        let message = "later".to_owned();
        bench.say(&FromServer::Denied(Denied { reason, message, retry_after }));
        let (answer, mut least) = tokio::sync::oneshot::channel();
        bench.agent().event(Event::Down("closed".to_owned(), answer));
        least.try_recv().unwrap().as_secs()
    };
    assert_eq!(pause(DeniedReason::Busy, Some(Span::from_secs(20))), 20);
    assert_eq!(pause(DeniedReason::Busy, None), 0);
    assert_eq!(pause(DeniedReason::Busy, Some(Span::from_secs(u64::MAX / 2000))), 600);
    assert_eq!(pause(DeniedReason::Revoked, None), 60);
    assert_eq!(pause(DeniedReason::Superseded, None), 0);
}
