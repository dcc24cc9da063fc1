use fw_proto::{Incarnation, JobName, Timestamp};
use proptest::prelude::*;

use super::super::record::What;
use super::super::record::tests::record;
use super::*;

const ALL: Most = Most { bytes: u64::MAX, records: usize::MAX };

fn fresh() -> Progress {
    Progress::new(Incarnation(uuid::Uuid::nil()), 7)
}

fn job() -> JobName {
    "backup".parse().unwrap()
}

/// An entry with so many records, at this time.
fn entry(at: i64, records: usize) -> Entry {
    let to = Timestamp::from_millis(at);
    let step = Step::Fires { job: job(), to };
    Entry { step, records: vec![Record { at: to, ..record(What::Start) }; records] }
}

fn all(journal: &Journal) -> Vec<i64> {
    let batch = journal.read(journal.start(), ALL).unwrap();
    assert_eq!(batch.next, journal.end());
    batch.records.iter().map(|record| record.at.as_millis()).collect()
}

/// Appends, and keeps the progress as a follower does.
fn append(journal: &Journal, progress: &mut Progress, entries: &[Entry]) {
    entries.iter().for_each(|entry| progress.apply(&entry.step));
    if journal.append(entries).unwrap() {
        journal.turn(progress).unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|one| one.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_is_appended_is_read_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, mut progress) = Journal::open(dir.path(), 1 << 20, fresh).unwrap();
    assert_eq!(progress, fresh());
    append(&journal, &mut progress, &[entry(1, 1), entry(2, 0), entry(3, 2)]);
    let first = journal.read(journal.start(), Most { records: 1, ..ALL }).unwrap();
    assert_eq!((first.records.len(), first.next.record, first.missed), (1, 1, 0));
    drop(journal);
    let (journal, again) = Journal::open(dir.path(), 1 << 20, || unreachable!()).unwrap();
    assert_eq!(again, progress);
    assert_eq!(again.fires_to.get(&job()), Some(&Timestamp::from_millis(3)));
    assert_eq!(all(&journal), [1, 3, 3]);
    let rest = journal.read(first.next, ALL).unwrap();
    assert_eq!((rest.records.len(), rest.next), (2, journal.end()));
    assert!(journal.read(rest.next, ALL).unwrap().records.is_empty());
}

#[test]
fn segments_that_all_readers_are_through_with_go() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, mut progress) = Journal::open(dir.path(), 1 << 30, fresh).unwrap();
    journal.moved("slow", journal.start());
    // Over eight megabytes close a segment.
    for at in 0..3 {
        let mut large = entry(at, 1);
        large.records[0].output = "x".repeat(9 << 20);
        append(&journal, &mut progress, &[large]);
    }
    assert_eq!(files(dir.path()).len(), 4);
    journal.moved("fast", journal.end());
    assert_eq!(all(&journal), [0, 1, 2]);
    journal.moved("slow", journal.end());
    assert_eq!(files(dir.path()).len(), 1);
    let (_, again) = Journal::open(dir.path(), 1 << 30, || unreachable!()).unwrap();
    assert_eq!(again, progress);
}

#[test]
fn beyond_its_bound_the_oldest_goes_and_its_reader_is_told_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let most = 8 * SMALLEST;
    let (journal, mut progress) = Journal::open(dir.path(), most, fresh).unwrap();
    let slow = journal.start();
    journal.moved("slow", slow);
    for at in 0..600 {
        let mut wide = entry(at, 2);
        wide.records[0].output = "x".repeat(1000);
        append(&journal, &mut progress, &[wide]);
    }
    let size: u64 = files(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(size <= most + SMALLEST, "{size}");
    let batch = journal.read(slow, ALL).unwrap();
    assert_eq!(batch.missed + batch.records.len() as u64, 1200);
    assert!(batch.missed > 0);
    assert_eq!(batch.next.record, 1200);
}

#[test]
fn a_damaged_line_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, mut progress) = Journal::open(dir.path(), 1 << 20, fresh).unwrap();
    append(&journal, &mut progress, &[entry(1, 1), entry(2, 1), entry(3, 1)]);
    let path = files(dir.path()).remove(0);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let damaged = [lines[0], lines[1], &"?".repeat(lines[2].len()), lines[3]].join("\n") + "\n";
    std::fs::write(&path, damaged).unwrap();
    drop(journal);
    let (journal, _) = Journal::open(dir.path(), 1 << 20, || unreachable!()).unwrap();
    assert_eq!(all(&journal), [1, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut at any byte, as a crash may leave it, a journal holds whole entries and the progress of just these.
    #[test]
    fn a_crash_keeps_whole_entries(counts in prop::collection::vec(0..3_usize, 1..6), cut in 0.0..1.0_f64) {
        let dir = tempfile::tempdir().unwrap();
        let (journal, mut progress) = Journal::open(dir.path(), 1 << 20, fresh).unwrap();
        let entries: Vec<_> = (0..).zip(&counts).map(|(at, count)| entry(at, *count)).collect();
        append(&journal, &mut progress, &entries);
        drop(journal);
        let path = files(dir.path()).remove(0);
        let bytes = std::fs::read(&path).unwrap();
        let head = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small file")]
        let keep = head + ((bytes.len() - head) as f64 * cut) as usize;
        std::fs::write(&path, &bytes[..keep]).unwrap();
        let whole = bytes[head..keep].iter().filter(|byte| **byte == b'\n').count();
        let (journal, again) = Journal::open(dir.path(), 1 << 20, || unreachable!()).unwrap();
        let mut expected = fresh();
        entries[..whole].iter().for_each(|entry| expected.apply(&entry.step));
        prop_assert_eq!(&again, &expected);
        prop_assert_eq!(all(&journal).len(), counts[..whole].iter().sum::<usize>());
        // It goes on where it was cut.
        let mut again = again;
        append(&journal, &mut again, &[entry(99, 1)]);
        prop_assert_eq!(all(&journal).last().copied(), Some(99));
    }
}
