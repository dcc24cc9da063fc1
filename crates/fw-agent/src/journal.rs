//! What the host promised: which tasks it accepted, which are settled, the highest epoch.
//!
//! An append-only file. Each append is one entry, `length u32 · crc32 u32 · CBOR array of
//! records`, one write and one `fdatasync`, so that a group of starts costs one. A power cut
//! tears at most the last entry, which nobody was told of; it is cut off at the next open. An
//! entry that is damaged although later ones are whole was not torn: the disk lost it, and with
//! it perhaps the memory of a start. Then the agent must not go on as if it knew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fw_proto::{Epoch, Span, TaskKey, Timestamp};
use minicbor::{Decode, Encode};
use tracing::warn;

use crate::identity;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// The task may be started from now on; written before its supervisor is spawned.
    #[n(0)]
    Accepted {
        /// Which task.
        #[n(0)]
        key: TaskKey,
        /// Not to be started later than this.
        #[n(1)]
        not_after: Timestamp,
        /// The boot under which it was accepted.
        #[n(2)]
        boot_id: String,
    },
    /// The server has recorded the task's end.
    #[n(1)]
    Settled {
        /// Which task.
        #[n(0)]
        key: TaskKey,
    },
    /// A server with this epoch was seen.
    #[n(2)]
    Epoch(#[n(0)] Epoch),
    /// The journal reaches back to here: of what was before, it knows nothing.
    #[n(3)]
    Began(#[n(0)] Timestamp),
}

/// What is remembered of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Not to be started later than this.
    pub not_after: Timestamp,
    /// The boot under which it was accepted.
    pub boot_id: Arc<str>,
    /// The server has recorded its end.
    pub settled: bool,
}

/// Ids are remembered for so long after their `not_after`: a repeated request cannot be older
/// (it carries the same `not_after` and is refused as expired), and clocks may differ by a day.
pub const REMEMBERED: Span = Span::from_secs(24 * 60 * 60);

/// Records after which the file is written anew without what may be forgotten.
const COMPACT_AFTER: usize = 64 * 1024;

/// The longest entry: thousands of starts at once.
const LONGEST: usize = 4 * 1024 * 1024;

/// Bytes before an entry's records.
const HEADER: usize = 8;

/// Why the journal is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent uses the state directory.
    #[error("another agent uses {}; give each agent a --state-dir of its own", .0.display())]
    Locked(PathBuf),
    /// The file cannot be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk lost a part of the file.
    #[error(
        "{} is damaged at byte {at}, before whole entries: the host may have forgotten tasks that it started; \
         restore the file, or remove the state directory and join again", path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
}

/// The right to use a state directory, for as long as it is held (or the process lives).
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holds the lock by being open")] File);

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// Another agent has it, or the directory cannot be written.
    pub fn take(state_dir: &Path) -> Result<Self, Error> {
        let path = state_dir.join("lock");
        let fail = |source| Error::File { what: "lock", path: path.clone(), source };
        let mut open = File::options();
        let file =
            open.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(state_dir.to_owned())),
            Err(errno) => Err(fail(errno.into())),
        }
    }
}

/// The journal of one agent. Holding it is holding the [`Lock`].
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    /// An earlier write went wrong in a way that could not be undone: the file must be written
    /// anew before anything is appended.
    poisoned: bool,
    records: usize,
    /// At so many records the file is written anew.
    compact_at: usize,
    tasks: BTreeMap<TaskKey, Memory>,
    epoch: Epoch,
    began: Timestamp,
    _lock: Lock,
}

impl Journal {
    /// Opens the journal of a state directory and forgets what may be forgotten at `now`. A disk
    /// that takes no write is no reason not to: what the journal says holds all the same.
    ///
    /// # Errors
    /// Another agent uses the directory, or the file is damaged or cannot be used.
    pub fn open(state_dir: &Path, now: Timestamp) -> Result<Self, Error> {
        let lock = Lock::take(state_dir)?;
        let path = state_dir.join("journal");
        let fail = |what| {
            let path = path.clone();
            move |source| Error::File { what, path, source }
        };
        let mut open = File::options();
        let open = open.read(true).append(true).create(true).mode(0o600);
        let mut file = open.open(&path).map_err(fail("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail("read"))?;
        let (records, whole) =
            replay(&bytes).map_err(|at| Error::Damaged { path: path.clone(), at })?;
        let size = bytes.len() as u64;
        drop(bytes);
        let mut journal = Self {
            dir: state_dir.to_owned(),
            path: path.clone(),
            file,
            len: whole as u64,
            poisoned: false,
            records: 0,
            compact_at: COMPACT_AFTER,
            tasks: BTreeMap::new(),
            epoch: Epoch(0),
            began: now,
            _lock: lock,
        };
        for record in &records {
            journal.remember(record);
        }
        journal.tidy(size, now);
        Ok(journal)
    }

    /// Cuts a torn entry off, begins an empty file, and writes a large one anew.
    fn tidy(&mut self, size: u64, now: Timestamp) {
        identity::sweep(&self.dir, "journal");
        if size > self.len {
            self.cut_off();
        }
        if self.len == 0
            && let Err(error) = self.append(&[Record::Began(now), Record::Epoch(self.epoch)], now)
        {
            warn!("journal cannot be begun: {}", crate::agent::chain(&error));
        }
        self.compact_if_due(now);
        self.forget(now);
    }

    /// Makes records durable, then remembers them. When it returns, they outlive a power cut.
    ///
    /// # Errors
    /// The disk did not take them; then none of them counts.
    pub fn append(&mut self, records: &[Record], now: Timestamp) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        if self.poisoned {
            self.compact(now)?;
        }
        let entry = entry(records);
        let written = self.file.write_all(&entry).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // What is there of it must not be found at the next open. After a failed sync the
            // state of the file is unknown for good (fsync(2), "Errors").
            self.cut_off();
            return Err(Error::File { what: "write", path: self.path.clone(), source });
        }
        self.len += entry.len() as u64;
        for record in records {
            self.remember(record);
        }
        self.compact_if_due(now);
        Ok(())
    }

    /// Takes back what is behind the last entry that counts.
    fn cut_off(&mut self) {
        self.poisoned = self.file.set_len(self.len).and_then(|()| self.file.sync_data()).is_err();
    }

    /// Where the disk has no room for another file, the old one does for a while longer.
    fn compact_if_due(&mut self, now: Timestamp) {
        if self.records >= self.compact_at
            && let Err(error) = self.compact(now)
        {
            warn!("journal cannot be compacted: {}", crate::agent::chain(&error));
            self.compact_at = self.records + COMPACT_AFTER / 8;
        }
    }

    fn forget(&mut self, now: Timestamp) {
        self.tasks.retain(|_, memory| !memory.settled || memory.not_after + REMEMBERED >= now);
    }

    /// From now on the disk takes nothing, until the directory that this gives is removed.
    #[cfg(test)]
    pub(crate) fn fill_disk(&mut self) -> PathBuf {
        // Takes no byte and cannot be cut off (full(4)); nor can it be written anew.
        self.file = File::options().append(true).open("/dev/full").unwrap();
        let place = self.dir.join(format!(".journal.{}.tmp", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        place
    }

    /// What is remembered of a task. Nothing, for one accepted before [`Journal::began`] or whose
    /// `not_after` passed more than [`REMEMBERED`] ago, is no proof that it never ran.
    #[must_use]
    pub fn task(&self, key: TaskKey) -> Option<&Memory> {
        self.tasks.get(&key)
    }

    /// All that is remembered.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskKey, &Memory)> {
        self.tasks.iter().map(|(key, memory)| (*key, memory))
    }

    /// The tasks of which the server has not recorded the end.
    pub fn unsettled(&self) -> impl Iterator<Item = (TaskKey, &Memory)> {
        self.tasks.iter().filter(|(_, memory)| !memory.settled).map(|(key, memory)| (*key, memory))
    }

    /// Forgets a task that is known never to have been started: it may yet be. Its record stays in
    /// the file until that is written anew, so the next start may find it, and forget it, again.
    pub fn never_started(&mut self, key: TaskKey) {
        self.tasks.remove(&key);
    }

    /// The highest epoch ever seen.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Since when this journal has been kept.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.began
    }

    fn remember(&mut self, record: &Record) {
        self.records += 1;
        match record {
            Record::Accepted { key, not_after, boot_id } => {
                let boot_id = self.boot(boot_id);
                let memory = Memory { not_after: *not_after, boot_id, settled: false };
                // Accepted once more, after it was found never to have been started: what counts
                // is the boot of the last time.
                if self.tasks.get(key).is_none_or(|known| !known.settled) {
                    self.tasks.insert(*key, memory);
                }
            }
            Record::Settled { key } => {
                if let Some(memory) = self.tasks.get_mut(key) {
                    memory.settled = true;
                }
            }
            Record::Epoch(epoch) => self.epoch = self.epoch.max(*epoch),
            Record::Began(at) => self.began = self.began.min(*at),
        }
    }

    /// Nearly all tasks were accepted under the same boot: its id is kept once.
    fn boot(&self, id: &str) -> Arc<str> {
        let same = self.tasks.values().next_back().filter(|memory| &*memory.boot_id == id);
        same.map_or_else(|| Arc::from(id), |memory| Arc::clone(&memory.boot_id))
    }

    /// Writes the file anew without what may be forgotten at `now`.
    fn compact(&mut self, now: Timestamp) -> Result<(), Error> {
        self.forget(now);
        let mut records = vec![Record::Began(self.began), Record::Epoch(self.epoch)];
        for (key, memory) in &self.tasks {
            let (not_after, boot_id) = (memory.not_after, memory.boot_id.to_string());
            records.push(Record::Accepted { key: *key, not_after, boot_id });
            records.extend(memory.settled.then_some(Record::Settled { key: *key }));
        }
        // In several entries, each within the bound.
        let bytes: Vec<u8> = records.chunks(1024).flat_map(entry).collect();
        let fail = |source| Error::File { what: "write", path: self.path.clone(), source };
        self.file = identity::put(&self.dir, "journal", &bytes).map_err(fail)?;
        (self.len, self.records, self.compact_at) = (bytes.len() as u64, 0, COMPACT_AFTER);
        // Until the directory is synced a power cut brings the former file back, without what
        // is appended to this one.
        let synced = identity::sync_dir(&self.dir);
        self.poisoned = synced.is_err();
        synced.map_err(fail)
    }
}

/// The bytes of an entry.
fn entry(records: &[Record]) -> Vec<u8> {
    let body = minicbor::to_vec(records).expect("writing to memory cannot go wrong");
    let len = u32::try_from(body.len()).expect("an entry is far below 4 GiB");
    let mut entry = Vec::with_capacity(HEADER + body.len());
    entry.extend_from_slice(&len.to_le_bytes());
    entry.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    entry.extend_from_slice(&body);
    entry
}

/// Reads all entries and says how many bytes they are; what follows is torn.
///
/// # Errors
/// The place of a damaged entry that whole ones follow.
fn replay(bytes: &[u8]) -> Result<(Vec<Record>, usize), usize> {
    let (mut records, mut at) = (Vec::new(), 0);
    while let Some((more, size)) = first_entry(bytes.get(at..).unwrap_or_default()) {
        records.extend(more);
        at += size;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let whole_entry_follows =
        (1..rest.len()).any(|skip| first_entry(rest.get(skip..).unwrap_or_default()).is_some());
    if whole_entry_follows { Err(at) } else { Ok((records, at)) }
}

/// The entry at the beginning of `bytes`, if it is whole, and its size.
fn first_entry(bytes: &[u8]) -> Option<(Vec<Record>, usize)> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let len =
        usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| (1..=LONGEST).contains(len))?;
    let body = rest.get(..len)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((minicbor::decode(body).ok()?, HEADER + len))
}

#[cfg(test)]
mod tests {
    use fw_proto::{NodeId, RunId};
    use proptest::prelude::*;

    use super::*;

    fn key(number: u128) -> TaskKey {
        TaskKey { run: RunId(uuid::Uuid::from_u128(number)), node: NodeId(0), attempt: 1 }
    }

    fn accepted(number: u128, not_after: Timestamp) -> Record {
        Record::Accepted { key: key(number), not_after, boot_id: "boot".to_owned() }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    #[test]
    fn what_was_appended_is_remembered_and_forgotten_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), at(5)).unwrap();
        journal
            .append(&[accepted(1, at(100)), accepted(2, at(100)), Record::Epoch(Epoch(7))], at(5))
            .unwrap();
        journal.append(&[Record::Settled { key: key(1) }, Record::Epoch(Epoch(6))], at(5)).unwrap();
        drop(journal);
        let day = 24 * 60 * 60;
        let journal = Journal::open(dir.path(), at(day + 100)).unwrap();
        assert_eq!((journal.epoch(), journal.began()), (Epoch(7), at(5)));
        assert!(journal.task(key(1)).unwrap().settled);
        assert_eq!(journal.unsettled().map(|(key, _)| key).collect::<Vec<_>>(), [key(2)]);
        drop(journal);
        let journal = Journal::open(dir.path(), at(day + 101)).unwrap();
        assert_eq!(journal.task(key(1)), None);
        assert!(journal.task(key(2)).is_some(), "what is not settled is never forgotten");
        assert_eq!(journal.epoch(), Epoch(7));
    }

    #[test]
    fn what_was_never_started_does_not_stay_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), at(5)).unwrap();
        journal.append(&[accepted(1, at(100)), accepted(2, at(100))], at(5)).unwrap();
        journal.never_started(key(1));
        journal.never_started(key(2));
        assert_eq!(journal.unsettled().count(), 0);
        let again =
            Record::Accepted { key: key(1), not_after: at(200), boot_id: "later".to_owned() };
        journal.append(std::slice::from_ref(&again), at(6)).unwrap();
        journal.compact(at(6)).unwrap();
        drop(journal);
        let journal = Journal::open(dir.path(), at(7)).unwrap();
        let memory = journal.task(key(1)).unwrap();
        assert_eq!((memory.not_after, &*memory.boot_id), (at(200), "later"));
        assert_eq!(journal.task(key(2)), None);
    }

    #[test]
    fn two_agents_on_one_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), at(0)).unwrap();
        let refused = Journal::open(dir.path(), at(0)).unwrap_err();
        assert!(refused.to_string().contains("--state-dir"), "{refused}");
        drop(journal);
        Journal::open(dir.path(), at(0)).unwrap();
    }

    /// A directory in which no file can be written anew, as on a full disk, until it is dropped.
    struct Full(PathBuf);

    impl Full {
        fn new(dir: &Path) -> Self {
            let place = dir.join(format!(".journal.{}.tmp", std::process::id()));
            std::fs::create_dir(&place).unwrap();
            Self(place)
        }
    }

    impl Drop for Full {
        fn drop(&mut self) {
            std::fs::remove_dir(&self.0).unwrap();
        }
    }

    #[test]
    fn a_disk_without_room_for_another_file_does_not_stop_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), at(0)).unwrap();
        journal.append(&[accepted(1, at(1))], at(0)).unwrap();
        drop(journal);
        let torn = std::fs::read(dir.path().join("journal")).unwrap();
        let whole = torn.len();
        std::fs::write(dir.path().join("journal"), [torn, b"torn".to_vec()].concat()).unwrap();
        let full = Full::new(dir.path());
        let mut journal = Journal::open(dir.path(), at(0)).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("journal")).unwrap().len(), whole as u64);
        for size in [1, COMPACT_AFTER as u128, 2] {
            let first = 10 + journal.records as u128;
            let many: Vec<Record> =
                (first..first + size).map(|number| accepted(number, at(1))).collect();
            journal.append(&many, at(0)).unwrap();
        }
        drop(journal);
        let known = Journal::open(dir.path(), at(0)).unwrap().tasks().count();
        assert_eq!(known, 1 + 1 + COMPACT_AFTER + 2);
        drop(full);
        assert_eq!(Journal::open(dir.path(), at(0)).unwrap().tasks().count(), known);
        assert_eq!(Journal::open(dir.path(), at(0)).unwrap().records, 0, "compacted");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_write_that_failed_does_not_count_and_the_next_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), at(0)).unwrap();
        journal.append(&[accepted(1, at(1))], at(0)).unwrap();
        let full = Full(journal.fill_disk());
        journal.append(&[accepted(2, at(1))], at(0)).unwrap_err();
        journal.append(&[accepted(3, at(1))], at(0)).unwrap_err();
        drop(full);
        journal.append(&[accepted(4, at(1))], at(0)).unwrap();
        drop(journal);
        let journal = Journal::open(dir.path(), at(0)).unwrap();
        let known: Vec<_> = journal.tasks().map(|(key, _)| key).collect();
        assert_eq!(known, [key(1), key(4)]);
    }

    #[test]
    fn a_journal_that_grows_is_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), at(0)).unwrap();
        let settle = |number| [accepted(number, at(1)), Record::Settled { key: key(number) }];
        let many: Vec<Record> = (0..COMPACT_AFTER as u128).flat_map(settle).collect();
        let grown = journal.len;
        journal.append(&many, at(100_000)).unwrap();
        assert_eq!((journal.tasks.len(), journal.len), (0, grown));
        journal.append(&[accepted(9, at(1))], at(100_000)).unwrap();
        drop(journal);
        assert!(Journal::open(dir.path(), at(100_000)).unwrap().task(key(9)).is_some());
    }

    proptest! {
        #[test]
        fn a_torn_tail_loses_the_last_entry_and_nothing_else(
            sizes in prop::collection::vec(1..4_u128, 1..8),
            cut in 0..200_usize,
            rubbish in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut entries = Vec::new();
            for (nth, size) in sizes.iter().enumerate() {
                let records: Vec<_> = (0..*size).map(|n| accepted(nth as u128 * 10 + n, at(1))).collect();
                entries.push(entry(&records));
            }
            let last = entries.pop().unwrap();
            let before = entries.concat();
            let mut bytes = before.clone();
            bytes.extend_from_slice(&last[..cut.min(last.len() - 1)]);
            bytes.extend_from_slice(&rubbish);
            if bytes.len() < before.len() + last.len() {
                let (records, whole) = replay(&bytes).unwrap();
                prop_assert_eq!(whole, before.len());
                prop_assert_eq!(records.len() as u128, sizes[..sizes.len() - 1].iter().sum::<u128>());
            }
        }

        #[test]
        fn damage_before_whole_entries_is_refused(count in 2..6_u128, place in 0..50_usize, flip in 1..255_u8) {
            let mut bytes: Vec<u8> = (0..count).flat_map(|n| entry(&[accepted(n, at(1))])).collect();
            let first = entry(&[accepted(0, at(1))]).len();
            bytes[place % first] ^= flip;
            prop_assert_eq!(replay(&bytes), Err(0));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((_, whole)) = replay(&bytes) {
                prop_assert!(whole <= bytes.len());
            }
        }
    }
}
