//! Records from real runs of a real store, to files and to a search server that fails on purpose.

mod standin;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use fw_proto::api::RunState;
use fw_proto::record::{Body, Offsets, Record as Written, Stream};
use fw_proto::{HostId, Incarnation, NodeId, RunId, TaskKey, Timestamp};
use fw_store::NewChunk;

use self::standin::{Act, Standin};
use super::journal::{Entry, Most};
use super::progress::Step;
use super::record::tests::record;
use super::record::{Record, What};
use super::*;
use crate::drive::world::{MINUTE, World, eventually, name};

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Everything at once, for a journal that is read in a test.
const ALL: Most = Most { bytes: u64::MAX, records: usize::MAX };

fn target(address: SocketAddr) -> Known {
    let target = Target { url: format!("http://{address}"), index: "sp".to_owned() };
    Known { targets: [(Kind::Elasticsearch, target)].into(), ..Known::default() }
}

fn entry(n: usize, output: &str) -> Entry {
    let step = Step::Fires { job: name("backup"), to: Timestamp::EPOCH };
    let id = format!("{n:04}");
    Entry { step, records: vec![Record { id, output: output.to_owned(), ..record(What::Start) }] }
}

/// A journal and whoever sends from it.
struct Sending {
    dir: tempfile::TempDir,
    journal: Journal,
    health: Health,
    known: watch::Sender<Arc<Known>>,
    tasks: Tasks,
}

impl Sending {
    fn begin(dir: tempfile::TempDir, known: Known) -> Self {
        let fresh = || Progress::new(Incarnation(uuid::Uuid::nil()), 0);
        let (journal, _) = Journal::open(dir.path(), 1 << 20, fresh).unwrap();
        let (health, tasks) = (Health::default(), Tasks::new());
        let known = watch::Sender::new(Arc::new(known));
        let sender = sink::Sender::open(
            Kind::Elasticsearch,
            &journal,
            dir.path(),
            known.subscribe(),
            health.clone(),
            sink::client(Duration::from_millis(500)).unwrap(),
            Backoff::new(Duration::from_millis(5), Duration::from_millis(20)),
        );
        tasks.spawn("sender", sender.run());
        Self { dir, journal, health, known, tasks }
    }

    fn to(address: SocketAddr) -> Self {
        Self::begin(tempfile::tempdir().unwrap(), target(address))
    }

    fn append(&self, from: usize, to: usize) {
        let entries: Vec<_> = (from..to).map(|n| entry(n, "")).collect();
        self.journal.append(&entries).unwrap();
    }

    async fn stop(self) -> tempfile::TempDir {
        assert!(self.tasks.shutdown(Duration::from_secs(10)).await);
        self.dir
    }
}

async fn holds(standin: &Standin, count: usize) {
    eventually(&format!("{count} documents"), async || {
        (standin.ids().len() >= count).then_some(())
    })
    .await;
    let ids: Vec<_> = (0..count).map(|n| format!("{n:04}")).collect();
    assert_eq!(standin.ids(), ids);
}

#[tokio::test]
async fn a_search_server_that_fails_in_every_way_gets_all_of_it_once() {
    let (standin, serving) = (Standin::default(), Tasks::new());
    let address = standin.listen(HERE, &serving).await;
    standin.script(&[
        Act::Say(503),
        Act::Crowded,
        Act::BreakOff,
        Act::Hang,
        Act::Say(429),
        Act::Crowded,
        Act::Say(401),
    ]);
    let sending = Sending::to(address);
    sending.append(0, 40);
    holds(&standin, 40).await;
    let (index, document) = standin.document("0007");
    assert_eq!((index.as_str(), &document["msg_type"]), ("sp-2026.11.20", &"start".into()));
    eventually("it is well again", async || sending.health.reasons().is_empty().then_some(()))
        .await;
    // It goes on.
    sending.append(40, 50);
    holds(&standin, 50).await;
    sending.stop().await;
}

#[tokio::test]
async fn what_a_search_server_refuses_is_dropped_and_holds_nothing_up() {
    let (standin, serving) = (Standin::default(), Tasks::new());
    let address = standin.listen(HERE, &serving).await;
    let sending = Sending::to(address);
    let entries = [entry(0, ""), entry(7, "poison"), entry(1, "")];
    sending.journal.append(&entries).unwrap();
    holds(&standin, 2).await;
    sending.append(2, 4);
    holds(&standin, 4).await;
    sending.stop().await;
}

#[tokio::test]
async fn too_much_at_once_is_sent_in_parts() {
    let (standin, serving) = (Standin::default(), Tasks::new());
    standin.takes_at_most(3);
    let address = standin.listen(HERE, &serving).await;
    let sending = Sending::to(address);
    sending.append(0, 20);
    holds(&standin, 20).await;
    sending.stop().await;
}

#[tokio::test]
async fn while_a_search_server_is_away_nothing_is_lost_not_even_over_a_restart() {
    let (standin, serving) = (Standin::default(), Tasks::new());
    let address = standin.listen(HERE, &serving).await;
    let sending = Sending::to(address);
    sending.append(0, 10);
    holds(&standin, 10).await;
    assert!(serving.shutdown(Duration::from_secs(10)).await);
    sending.append(10, 30);
    let reason = eventually("it is told", async || sending.health.reasons().pop()).await;
    assert!(reason.starts_with("documents of Saltpeter's jobs wait for Elasticsearch"), "{reason}");
    let dir = sending.stop().await;
    let sending = Sending::begin(dir, target(address));
    sending.append(30, 40);
    standin.listen(address, &Tasks::new()).await;
    holds(&standin, 40).await;
    assert_eq!(sending.journal.end().record, 40);
    sending.stop().await;
}

#[tokio::test]
async fn a_password_is_sent_and_never_told() {
    let (standin, serving) = (Standin::default(), Tasks::new());
    let address = standin.listen(HERE, &serving).await;
    standin.script(&[Act::Say(401); 5]);
    let mut known = target(address);
    let target = known.targets.get_mut(&Kind::Elasticsearch).unwrap();
    target.url = format!("http://sp:s3cret%21@{address}");
    assert!(!format!("{known:?}").contains("s3cret"));
    let sending = Sending::begin(tempfile::tempdir().unwrap(), known);
    sending.append(0, 1);
    let reason = eventually("it is told", async || sending.health.reasons().pop()).await;
    assert!(reason.contains("401") && !reason.contains("s3cret"), "{reason}");
    holds(&standin, 1).await;
    assert_eq!(standin.user().as_deref(), Some("Basic c3A6czNjcmV0IQ=="));
    sending.stop().await;
}

#[tokio::test]
async fn without_a_search_server_nothing_is_kept_for_one() {
    let (standin, serving) = (Standin::default(), Tasks::new());
    let address = standin.listen(HERE, &serving).await;
    let sending = Sending::begin(tempfile::tempdir().unwrap(), Known::default());
    sending.append(0, 5);
    let begin = 5;
    sending.known.send_replace(Arc::new(target(address)));
    let cursor = sending.dir.path().join("elasticsearch.cursor");
    eventually("it is read anew", async || cursor.exists().then_some(())).await;
    sending.append(begin, 8);
    eventually("the new ones", async || (standin.ids().len() == 3).then_some(())).await;
    assert_eq!(standin.ids(), ["0005", "0006", "0007"]);
    sending.known.send_replace(Arc::default());
    eventually("it is forgotten", async || (!cursor.exists()).then_some(())).await;
    let asked = standin.requests();
    sending.append(8, 9);
    sending.stop().await;
    assert_eq!(standin.requests(), asked);
}

/// A world with jobs of Saltpeter.
struct Telling {
    world: World,
    known: watch::Sender<Arc<Known>>,
}

const JOBS: &str = "jobs:
  backup: {schedule: '@every 60s', hosts: 'web*', run: 'true'}
  lonely: {schedule: '@every 60s', hosts: 'nobody', run: 'true'}
  other: {schedule: '@every 60s', hosts: '*', run: 'true', enabled: false}
";

impl Telling {
    async fn begin(address: Option<SocketAddr>) -> Self {
        let world = World::with(&[("a.yaml", JOBS)]).await;
        let named = |job: &str| Named {
            name: format!("{job}!"),
            group: "nightly".to_owned(),
            hosts: "web*".to_owned(),
        };
        let jobs = ["backup", "lonely"].map(|job| (name(job), named(job)));
        let known = Known {
            jobs: jobs.into(),
            log_dir: world.dir.path().join("logs"),
            ..address.map(target).unwrap_or_default()
        };
        let known = watch::Sender::new(Arc::new(known));
        let telling = Self { world, known };
        telling.start().await;
        telling
    }

    fn parts(&self) -> Parts {
        Parts {
            store: self.world.store.clone(),
            live: self.world.live.clone(),
            clock: self.world.clock.clone(),
            health: self.world.health.clone(),
            jobs: self.world.jobs.clone(),
            lost_after: Span::from_secs(600),
            queue_bytes: QUEUE_BYTES,
        }
    }

    async fn start(&self) -> Handle {
        start(self.parts(), self.known.subscribe(), &self.world.tasks).await.unwrap()
    }

    async fn restart(self) -> Self {
        let world = self.world.stop().await.start().await;
        let telling = Self { world, known: self.known };
        telling.start().await;
        telling
    }

    /// A minute passes.
    fn minute(&self) {
        self.world.clock.shift(MINUTE);
    }

    /// What a job's log file says, without times.
    fn log(&self, job: &str) -> String {
        let path = self.world.dir.path().join("logs").join(format!("{job}.log"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut shown = String::new();
        for line in text.lines() {
            let mut words = line.split(' ').map(|word| {
                let begins = |from: &str| word.starts_with(from);
                if begins(&format!("{job}_")) {
                    "INSTANCE"
                } else if word.ends_with("+00:00") {
                    // Asked first: in the evening an hour begins as a year does.
                    "TIME"
                } else if begins("20") {
                    "DATE"
                } else {
                    word
                }
            });
            let line: Vec<_> = words.by_ref().collect();
            shown.push_str(&line.join(" "));
            shown.push('\n');
        }
        shown
    }

    async fn log_has(&self, job: &str, what: &str, times: usize) {
        eventually(&format!("{what} in the log of {job}"), async || {
            (self.log(job).matches(what).count() >= times).then_some(())
        })
        .await;
    }

    /// The next task of the host writes this before it ends.
    async fn write(&self, host: HostId, run: RunId, text: &str) {
        let mut raw = Vec::new();
        let at = self.world.clock.now();
        Written { stream: Stream::Stdout, at, body: Body::Bytes(text.as_bytes()) }.write(&mut raw);
        let chunk = NewChunk {
            host,
            key: TaskKey { run, node: NodeId(0), attempt: 1 },
            from: Offsets::default(),
            to: Offsets { stdout: text.len() as u64, ..Offsets::default() },
            raw_len: u32::try_from(raw.len()).unwrap(),
            data: zstd::bulk::compress(&raw, 1).unwrap(),
        };
        self.world.store.append_chunk(chunk).await.unwrap();
    }

    /// The run of the job that goes on.
    async fn going_on(&self, job: &str) -> RunId {
        eventually("a run goes on", async || {
            let runs = self.world.store.last_runs(vec![name(job)]).await.unwrap();
            let run = runs.into_values().next()?;
            (run.state == RunState::Running).then_some(run.id)
        })
        .await
    }
}

#[tokio::test]
async fn a_run_is_told_from_its_begin_to_its_end() {
    let (standin, serving) = (Standin::default(), Tasks::new());
    let address = standin.listen(HERE, &serving).await;
    let telling = Telling::begin(Some(address)).await;
    let host = telling.world.host("web-1").await;
    telling.minute();
    let run = telling.going_on("backup").await;
    telling.log_has("backup!", "Starting", 1).await;
    telling.log_has("lonely!", "Finished", 1).await;
    telling.minute();
    telling.log_has("backup!", "Overlap", 1).await;
    telling.write(host, run, "10%\r100%\ndone\n").await;
    telling.world.end_next(host, 3).await;
    telling.log_has("backup!", "Finished", 1).await;
    telling.log_has("lonely!", "Finished", 2).await;
    insta::assert_snapshot!(telling.log("backup!"));
    insta::assert_snapshot!(telling.log("lonely!"));
    let id = format!("{run}:machine_result:web-1");
    eventually("all documents", async || (standin.ids().len() == 11).then_some(())).await;
    let (_, document) = standin.document(&id);
    assert_eq!(document["output"], "100%\ndone\n");
    assert_eq!((&document["return_code"], &document["job_name"]), (&3.into(), &"backup!".into()));
    let (_, end) = standin.document(&format!("{run}:end"));
    assert_eq!(end["output"], "Completed: 0/1 targets successful");
    assert_eq!(end["return_code"], 1);
    assert_eq!(telling.world.health.reasons(), Vec::<String>::new());
}

#[tokio::test]
async fn what_happened_around_a_restart_is_told_once() {
    let telling = Telling::begin(None).await;
    let host = telling.world.host("web-1").await;
    telling.minute();
    telling.going_on("backup").await;
    telling.log_has("backup!", "Starting", 1).await;
    let telling = telling.restart().await;
    telling.world.link(host).await;
    telling.world.end_next(host, 0).await;
    telling.log_has("backup!", "Finished", 1).await;
    let telling = telling.restart().await;
    telling.world.link(host).await;
    telling.minute();
    telling.world.end_next(host, 0).await;
    telling.log_has("backup!", "Finished", 2).await;
    let log = telling.log("backup!");
    assert_eq!(log.matches("Starting").count(), 4, "{log}");
    assert_eq!(log.matches("Exit Code 0").count(), 2, "{log}");
}

#[tokio::test]
async fn machines_in_maintenance_are_told_where_they_are_left_out() {
    let telling = Telling::begin(None).await;
    telling.world.host("web-9").await;
    let mut known = Known::clone(&telling.known.borrow());
    known.maintenance.machines = vec!["web-9".to_owned(), "db-1".to_owned()];
    telling.known.send_replace(Arc::new(known));
    telling.minute();
    // Its selector here picks nobody, as that of a job whose machines are all in maintenance.
    telling.log_has("lonely!", "Finished", 1).await;
    let log = telling.log("lonely!");
    assert_eq!(log.matches("########## web-9 from INSTANCE").count(), 1, "{log}");
    assert_eq!(log.matches("Target under maintenance").count(), 1, "{log}");
    assert!(log.contains("No targets matched"), "{log}");
}

#[tokio::test]
async fn a_run_that_maintenance_holds_up_is_told() {
    let mut telling = Telling::begin(None).await;
    telling = Telling { world: telling.world.stop().await.start().await, ..telling };
    telling.start().await.blocked(name("backup"));
    telling.log_has("backup!", "Global maintenance mode active", 1).await;
    insta::assert_snapshot!(telling.log("backup!"));
}

/// Cut after any of its entries, as a crash may leave it, the journal comes to hold the same records again.
#[tokio::test]
async fn after_a_crash_at_any_entry_nothing_is_lost_and_nothing_comes_twice() {
    let telling = Telling::begin(None).await;
    let host = telling.world.host("web-1").await;
    telling.minute();
    telling.going_on("backup").await;
    // Two minutes that are looked at together would be one fire and one that was missed.
    telling.log_has("lonely!", "Finished", 1).await;
    telling.minute();
    telling.log_has("backup!", "Overlap", 1).await;
    telling.log_has("lonely!", "Finished", 2).await;
    telling.world.end_next(host, 0).await;
    telling.minute();
    telling.world.end_next(host, 1).await;
    telling.log_has("backup!", "Finished", 2).await;
    telling.log_has("lonely!", "Finished", 3).await;
    let dir = telling.world.store.dir().join("saltpeter").join("records");
    let text = std::fs::read_to_string(dir.join("000000000001.records")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let told = |journal: &Journal| {
        let batch = journal.read(journal.start(), ALL).unwrap();
        batch.records.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    let (journal, _) = Journal::open(&dir, 1 << 20, || unreachable!()).unwrap();
    let mut all = told(&journal);
    all.sort();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    let first = lines.iter().position(|line| line.contains("\"id\"")).unwrap();
    for keep in first..=lines.len() {
        let crashed = tempfile::tempdir().unwrap();
        let kept = lines[..keep].join("\n") + "\n";
        std::fs::write(crashed.path().join("000000000001.records"), kept).unwrap();
        let (journal, progress) =
            Journal::open(crashed.path(), 1 << 20, || unreachable!()).unwrap();
        let tasks = Tasks::new();
        let follower = follow::Follower::new(
            telling.parts(),
            journal.clone(),
            progress,
            telling.known.subscribe(),
            mpsc::channel(1).1,
            tasks.token(),
        );
        tasks.spawn_graceful("follower", follower.run());
        eventually("all is told", async || (told(&journal).len() >= all.len()).then_some(())).await;
        assert!(tasks.shutdown(Duration::from_secs(10)).await);
        let mut again = told(&journal);
        again.sort();
        assert_eq!(again, all, "after {keep} lines");
    }
}
