//! What the children said was acknowledged, and how it compares with what is in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use fw_core::run::Run;
use fw_proto::RunId;
use fw_proto::api::Verdict;
use fw_proto::record::{Body, records};
use rusqlite::params;

use super::script;
use crate::conformance::fixture::{host_id, job, run_id};
use crate::{Error, Store, row, verify_backup};

/// Everything that was acknowledged.
#[derive(Default)]
pub(super) struct Model {
    /// Steps of each pair of runs.
    steps: BTreeMap<u128, u8>,
    /// Bytes of each run's output.
    output: BTreeMap<u128, u64>,
    /// First instants of the missed fires of each writer.
    missed: BTreeMap<u32, BTreeSet<i64>>,
    /// When each host was seen.
    hosts: BTreeMap<u128, i64>,
    epoch: u64,
    backup: bool,
    /// Children so far; their numbers were counted from 0.
    pub(super) lives: u64,
    /// Those before this number were checked to the byte.
    checked: u64,
    /// How much was acknowledged in all.
    pub(super) acknowledged: usize,
}

/// A run as its row says it.
struct Found {
    seq: u64,
    finished: bool,
}

impl Model {
    pub(super) fn hear(&mut self, lines: Vec<String>) {
        self.acknowledged += lines.len();
        self.lives += 1;
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            match words.as_slice() {
                ["epoch", epoch] => {
                    let epoch = epoch.parse().unwrap();
                    assert!(epoch > self.epoch, "epoch {epoch} follows {}", self.epoch);
                    self.epoch = epoch;
                }
                ["run", run, step] => {
                    self.steps.insert(run.parse().unwrap(), step.parse().unwrap());
                }
                ["output", run, bytes] => {
                    self.output.insert(run.parse().unwrap(), bytes.parse().unwrap());
                }
                ["missed", writer, instant] => {
                    let missed = self.missed.entry(writer.parse().unwrap()).or_default();
                    missed.insert(instant.parse().unwrap());
                }
                ["host", number, seen] => {
                    self.hosts.insert(number.parse().unwrap(), seen.parse().unwrap());
                }
                ["backup"] => self.backup = true,
                ["swept"] => {}
                other => panic!("who says {other:?}?"),
            }
        }
    }

    /// Everything by its rows, and all that was written since the last check to the byte.
    pub(super) async fn check(&mut self, store: &Store, what: &str) {
        assert!(store.epoch().0 > self.epoch, "{what}: the epoch does not rise");
        self.epoch = store.epoch().0;
        let from = std::mem::replace(&mut self.checked, self.lives);
        self.compare(store, what, |run| script::parts(run).0 >= from).await;
    }

    /// Everything to the byte.
    pub(super) async fn check_all(&self, store: &Store, what: &str) {
        self.compare(store, what, |_| true).await;
    }

    async fn compare(&self, store: &Store, what: &str, whole: impl Fn(u128) -> bool) {
        let found = runs(store).await;
        self.compare_steps(&found, what);
        compare_unfinished(store, &found, what).await;
        for (run, found) in found.iter().filter(|(run, _)| whole(**run)) {
            compare_run(store, *run, found, what).await;
        }
        self.compare_output(store, &found, what, whole).await;
        self.compare_fires(store, &found, what).await;
        let hosts: BTreeMap<_, _> =
            store.hosts().iter().map(|host| (host.id, Arc::clone(host))).collect();
        for (number, seen) in &self.hosts {
            let host = hosts.get(&host_id(*number));
            let last = host.unwrap_or_else(|| panic!("{what}: host {number} is gone")).last_seen;
            let last = last.map_or(0, |at| at.as_millis());
            assert!(last >= *seen, "{what}: host {number} was seen at {last}, not {seen}");
        }
    }

    /// Both runs of a pair are where they were acknowledged, or one commit further: a writer
    /// begins the next only when it has heard of the last.
    fn compare_steps(&self, found: &BTreeMap<u128, Found>, what: &str) {
        let step = |run: u128| {
            let seq = found.get(&run).map_or(0, |found| found.seq);
            if seq == 0 {
                return 0;
            }
            script::step_of(seq).unwrap_or_else(|| panic!("{what}: run {run:x} has {seq} events"))
        };
        for (first, acknowledged) in &self.steps {
            let there = step(*first);
            assert_eq!(there, step(first + 1), "{what}: half a commit of {first:x}");
            let further = there.checked_sub(*acknowledged);
            assert!(
                further <= Some(1) && further.is_some(),
                "{what}: {first:x} is at {there}, was at {acknowledged}"
            );
        }
        let mut unheard = BTreeMap::new();
        for run in found.keys().filter(|run| **run & script::OLD == 0) {
            if !self.steps.contains_key(&(run & !1)) {
                assert_eq!((step(*run), step(run ^ 1)), (1, 1), "{what}: {run:x} was not heard of");
                *unheard.entry(run >> 32).or_insert(0) += 1;
            }
        }
        // In every life one pair of each writer may have been committed and not told.
        assert!(unheard.values().all(|runs| *runs <= 2), "{what}: {unheard:?}");
    }

    async fn compare_output(
        &self,
        store: &Store,
        found: &BTreeMap<u128, Found>,
        what: &str,
        whole: impl Fn(u128) -> bool,
    ) {
        let streams = streams(store).await;
        for (run, acknowledged) in self.output.iter().filter(|(run, _)| **run & script::OLD == 0) {
            let there = streams.get(run).copied().unwrap_or_default();
            assert!(there >= *acknowledged, "{what}: {run:x} has {there} of {acknowledged} bytes");
        }
        for (run, durable) in &streams {
            let (text, ends) = script::output(*run);
            let durable = usize::try_from(*durable).unwrap();
            assert!(ends.contains(&durable), "{what}: half a chunk of {run:x}: {durable}");
            let counted = found.get(run).is_some_and(|found| found.finished);
            assert!(!counted || durable == text.len(), "{what}: {run:x} counts what is not there");
            if whole(*run) {
                assert!(kept(store, *run).await == text[..durable], "{what}: output of {run:x}");
            }
        }
        let ended = found.iter().filter(|(run, found)| *run & script::OLD == 0 && found.finished);
        for (run, _) in ended {
            assert!(streams.contains_key(run), "{what}: {run:x} has ended without its output");
        }
    }

    async fn compare_fires(&self, store: &Store, found: &BTreeMap<u128, Found>, what: &str) {
        let began = began(store).await;
        let runs = found.keys().copied().filter(|run| run & script::OLD == 0);
        assert!(runs.eq(began.iter().copied()), "{what}: a fire without its run, or a run without");
        for (writer, missed) in &self.missed {
            let name = job(&script::missed_job(*writer));
            let rows = store.ledger(&name, None, 1000).await.unwrap();
            assert!(rows.next.is_none(), "{what}: neighbours are not one row");
            let counted: u64 = rows.items.iter().map(|row| row.count).sum();
            assert!(rows.items.iter().all(|row| row.verdict == Verdict::Missed), "{what}");
            // In every life one commit may have been made and not told.
            let least = 2 * missed.len() as u64;
            let most = least + 2 * self.lives;
            let whole = (least..=most).contains(&counted) && counted.is_multiple_of(2);
            assert!(whole, "{what}: {counted} of {least} to {most} fires of {name}");
        }
    }

    /// A backup is whole whenever there is one, and nothing is left of those that were not.
    pub(super) async fn check_backup(&mut self, store: &Store, what: &str) {
        let file: PathBuf = store.dir().join("backups/one.tar");
        if !std::mem::take(&mut self.backup) && !file.exists() {
            return;
        }
        let made = tokio::task::spawn_blocking({
            let file = file.clone();
            move || verify_backup(&file)
        });
        let made = made.await.unwrap().expect(what);
        assert_eq!(made.incarnation, store.incarnation(), "{what}");
        let left = std::fs::read_dir(file.parent().unwrap()).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["one.tar"], "{what}: what a killed backup left stays for ever");
    }
}

async fn runs(store: &Store) -> BTreeMap<u128, Found> {
    let read = store.main().db.read(|db| {
        let mut statement = db.prepare("SELECT id, seq, finished_at IS NOT NULL FROM runs")?;
        let rows = statement.query_and_then([], |row| {
            let found = Found { seq: row::count(row, "seq")?, finished: row.get(2)? };
            Ok::<_, Error>((row::uuid(row, "id")?.as_u128(), found))
        })?;
        rows.collect()
    });
    read.await.unwrap()
}

/// How much of each run's output is stored.
async fn streams(store: &Store) -> BTreeMap<u128, u64> {
    let read = store.logs().read(|db| {
        let mut statement = db.prepare("SELECT run, stdout FROM streams")?;
        let rows = statement.query_and_then([], |row| {
            Ok::<_, Error>((row::uuid(row, "run")?.as_u128(), row::count(row, "stdout")?))
        })?;
        rows.collect()
    });
    read.await.unwrap()
}

/// The runs that fires have begun.
async fn began(store: &Store) -> BTreeSet<u128> {
    let read = store.main().db.read(|db| {
        let mut statement = db.prepare("SELECT run FROM fires WHERE verdict = 'ran'")?;
        let rows = statement
            .query_and_then(params![], |row| Ok::<_, Error>(row::uuid(row, "run")?.as_u128()))?;
        rows.collect()
    });
    read.await.unwrap()
}

async fn compare_unfinished(store: &Store, found: &BTreeMap<u128, Found>, what: &str) {
    let unfinished: BTreeMap<RunId, Run> =
        store.unfinished().await.unwrap().into_iter().map(|run| (run.id, run)).collect();
    let expected = found.iter().filter(|(_, found)| !found.finished);
    for (run, found) in expected.clone() {
        let expected = script::after(*run, script::step_of(found.seq).unwrap()).run;
        assert_eq!(unfinished.get(&run_id(*run)), Some(&expected), "{what}");
    }
    assert_eq!(unfinished.len(), expected.count(), "{what}");
}

async fn compare_run(store: &Store, run: u128, found: &Found, what: &str) {
    if !found.finished {
        return;
    }
    let expected = if run & script::OLD == 0 {
        script::after(run, script::STEPS).run
    } else {
        let (life, _, turn) = script::parts(run);
        script::old(life, turn).run
    };
    let kept = store.run(run_id(run)).await.unwrap().expect(what);
    assert_eq!(kept, expected.view(Vec::new()), "{what}");
    assert_eq!(store.plan(run_id(run)).await.unwrap(), Some(expected.plan), "{what}");
}

/// The stored output of host 0.
async fn kept(store: &Store, run: u128) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut end = 0;
    for part in store.log_chunks(run_id(run), host_id(0), 1, 0, 1000).await.unwrap() {
        assert_eq!(part.from.stdout, end, "a hole in the output of {run:x}");
        end = part.to.stdout;
        let raw = zstd::decode_all(&part.data[..]).unwrap();
        for record in records(&raw) {
            if let Body::Bytes(text) = record.unwrap().body {
                bytes.extend_from_slice(text);
            }
        }
    }
    bytes
}

/// No old run is left, nor its output, once a sweep was not killed.
pub(super) async fn assert_no_old(store: &Store, what: &str) {
    assert!(runs(store).await.keys().all(|run| run & script::OLD == 0), "{what}");
}
