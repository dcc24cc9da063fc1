//! What was told, on disk: entries of JSON lines in segments, until all who want them have them.
//!
//! An entry is a step of the progress and the records that belong to it, in one line, so that a crash keeps
//! both or neither. The first line of a segment is the progress before it: opening reads the last segment.
//! Records are numbered; a cursor is the number of a record and where it stands. When the segments take
//! more than their bound the oldest goes, whoever still wants it; by the numbers they see what they missed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, warn};

use super::progress::{Progress, Step};
use super::record::Record;
use crate::private_file;

/// A segment is closed at this size, or at an eighth of the bound.
const SEGMENT: u64 = 8 * 1024 * 1024;

/// The smallest segment, so that a small bound makes no file for each entry.
const SMALLEST: u64 = 64 * 1024;

/// What was told together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What it changes.
    #[serde(flatten)]
    pub step: Step,
    /// What is told.
    pub records: Vec<Record>,
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Records before this one are done.
    pub record: u64,
    /// The segment, by the number of its first record and how many began there before it.
    pub segment: u64,
    /// Bytes into it.
    pub offset: u64,
}

/// What was read, and how to go on.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The records, in order.
    pub records: Vec<Record>,
    /// After them.
    pub next: Cursor,
    /// So many records before them were dropped unread.
    pub missed: u64,
}

/// How much is read at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    /// No more bytes, unless one entry alone has more.
    pub bytes: u64,
    /// No more records, unless one entry alone has more.
    pub records: usize,
}

/// Clones are the same journal. Its calls block.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    dir: Arc<Path>,
    inner: Arc<Mutex<Inner>>,
    grown: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Inner {
    most: u64,
    segments: Vec<Segment>,
    /// The last segment.
    file: File,
    readers: BTreeMap<&'static str, Cursor>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    /// Its name: grows from one to the next.
    number: u64,
    /// Records before it.
    from: u64,
    /// Records up to its end.
    to: u64,
    /// Where its entries begin.
    body: u64,
    /// Where they end.
    end: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    from: u64,
    progress: Progress,
}

impl Journal {
    /// Opens the journal in this directory, made when it is missing, and says how far things were told.
    /// One that is new begins with `fresh`.
    pub(crate) fn open(
        dir: &Path,
        most: u64,
        fresh: impl FnOnce() -> Progress,
    ) -> io::Result<(Self, Progress)> {
        private_file::create_dir(dir)?;
        let mut segments = Vec::new();
        let mut progress = None;
        for number in numbers(dir)? {
            match scan(&path(dir, number), number) {
                Ok((segment, at_end)) => {
                    segments.push(segment);
                    progress = Some(at_end);
                }
                // A segment whose first line was never whole holds nothing.
                Err(error) => {
                    warn!(%error, saltpeter.segment = number, "a segment of records cannot be read and is left out");
                }
            }
        }
        let (progress, file) = match progress.zip(segments.last()) {
            Some((progress, last)) => {
                let file = OpenOptions::new().append(true).open(path(dir, last.number))?;
                // What a crash left half written goes.
                file.set_len(last.end)?;
                (progress, file)
            }
            None => {
                let (progress, number) = (fresh(), numbers(dir)?.last().map_or(1, |last| last + 1));
                let (segment, file) = begin(dir, number, 0, &progress)?;
                segments.push(segment);
                (progress, file)
            }
        };
        let told = segments.last().map_or(0, |last| last.to);
        let inner = Inner { most: most.max(SMALLEST), segments, file, readers: BTreeMap::new() };
        let journal = Self {
            dir: dir.into(),
            inner: Arc::new(Mutex::new(inner)),
            grown: Arc::new(watch::Sender::new(told)),
        };
        Ok((journal, progress))
    }

    /// Appends entries, durably, all or none. True when it is time for [`Self::turn`].
    pub(crate) fn append(&self, entries: &[Entry]) -> io::Result<bool> {
        let mut bytes = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut bytes, entry)?;
            bytes.push(b'\n');
        }
        let mut inner = self.lock();
        let mut last = *inner.segments.last().expect("there is always a segment");
        let written = inner.file.write_all(&bytes).and_then(|()| inner.file.sync_data());
        if let Err(error) = written {
            // Whatever is there of it is written again.
            inner.file.set_len(last.end)?;
            return Err(error);
        }
        last.end += bytes.len() as u64;
        last.to += entries.iter().map(|entry| entry.records.len() as u64).sum::<u64>();
        *inner.segments.last_mut().expect("there is always a segment") = last;
        let full = last.end - last.body >= (inner.most / 8).clamp(SMALLEST, SEGMENT);
        drop(inner);
        self.grown.send_replace(last.to);
        Ok(full)
    }

    /// Begins a new segment after this progress, and drops the oldest when all take too much.
    pub(crate) fn turn(&self, progress: &Progress) -> io::Result<()> {
        let mut inner = self.lock();
        let last = *inner.segments.last().expect("there is always a segment");
        let (segment, file) = begin(&self.dir, last.number + 1, last.to, progress)?;
        inner.segments.push(segment);
        inner.file = file;
        self.release(&mut inner);
        while inner.segments.len() > 1
            && inner.segments.iter().map(|one| one.end).sum::<u64>() > inner.most
        {
            self.drop_first(&mut inner);
        }
        Ok(())
    }

    /// Drops segments that every reader is through with.
    fn release(&self, inner: &mut Inner) {
        let first = inner.readers.values().map(|cursor| cursor.segment).min();
        while let (Some(wanted), Some(segment)) = (first, inner.segments.first())
            && segment.number < wanted
            && inner.segments.len() > 1
        {
            self.drop_first(inner);
        }
    }

    fn drop_first(&self, inner: &mut Inner) {
        let gone = inner.segments.remove(0);
        if let Err(error) = std::fs::remove_file(path(&self.dir, gone.number)) {
            warn!(%error, saltpeter.segment = gone.number, "a segment of records that is done cannot be deleted");
        }
    }

    /// After all that is there.
    pub(crate) fn end(&self) -> Cursor {
        let last = *self.lock().segments.last().expect("there is always a segment");
        Cursor { record: last.to, segment: last.number, offset: last.end }
    }

    /// The oldest that is there.
    pub(crate) fn start(&self) -> Cursor {
        let first = *self.lock().segments.first().expect("there is always a segment");
        Cursor { record: first.from, segment: first.number, offset: first.body }
    }

    /// Says how far a reader has come: what all are through with goes.
    pub(crate) fn moved(&self, reader: &'static str, to: Cursor) {
        let mut inner = self.lock();
        inner.readers.insert(reader, to);
        self.release(&mut inner);
    }

    /// A reader wants no more.
    pub(crate) fn left(&self, reader: &'static str) {
        let mut inner = self.lock();
        inner.readers.remove(reader);
        self.release(&mut inner);
    }

    /// Tells of growth: how many records there are.
    pub(crate) fn grown(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    /// Reads what follows; nothing when there is no more.
    pub(crate) fn read(&self, from: Cursor, most: Most) -> io::Result<Batch> {
        let segments = self.lock().segments.clone();
        let first = segments.first().expect("there is always a segment");
        let (from, missed) = if from.segment < first.number {
            let start = Cursor { record: first.from, segment: first.number, offset: first.body };
            (start, first.from.saturating_sub(from.record))
        } else {
            (from, 0)
        };
        let mut batch = Batch { records: Vec::new(), next: from, missed };
        let mut bytes = 0;
        for segment in segments.iter().filter(|segment| segment.number >= from.segment) {
            if segment.number > batch.next.segment {
                batch.next =
                    Cursor { record: segment.from, segment: segment.number, offset: segment.body };
            }
            if self.read_segment(segment, &mut batch, &mut bytes, most)? {
                break;
            }
        }
        Ok(batch)
    }

    /// Reads on in a segment; true when it is enough.
    fn read_segment(
        &self,
        segment: &Segment,
        batch: &mut Batch,
        bytes: &mut u64,
        most: Most,
    ) -> io::Result<bool> {
        let offset = batch.next.offset.max(segment.body);
        if offset >= segment.end {
            return Ok(false);
        }
        let mut file = File::open(path(&self.dir, segment.number))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut lines = BufReader::new(file.take(segment.end - offset));
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = lines.read_until(b'\n', &mut line)? as u64;
            if length == 0 {
                return Ok(false);
            }
            let entry: Option<Entry> = serde_json::from_slice(&line).ok();
            let records = entry.map(|entry| entry.records).unwrap_or_else(|| {
                error!(
                    saltpeter.segment = segment.number,
                    "a line of records is damaged and left out; check the disk"
                );
                Vec::new()
            });
            let full =
                *bytes + length > most.bytes || batch.records.len() + records.len() > most.records;
            if full && !batch.records.is_empty() {
                return Ok(true);
            }
            *bytes += length;
            batch.next.record += records.len() as u64;
            batch.next.offset = batch.next.offset.max(segment.body) + length;
            batch.records.extend(records);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Each change is whole before it can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.records"))
}

/// The numbers of the segments there, in order.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".records"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a segment, which is there whole or not at all.
fn begin(dir: &Path, number: u64, from: u64, progress: &Progress) -> io::Result<(Segment, File)> {
    let head = Head { format: 1, from, progress: progress.clone() };
    let mut line = serde_json::to_vec(&head)?;
    line.push(b'\n');
    let (temporary, name) = (dir.join("next"), path(dir, number));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&line)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &name)?;
    File::open(dir)?.sync_all()?;
    let file = OpenOptions::new().append(true).open(&name)?;
    let body = line.len() as u64;
    Ok((Segment { number, from, to: from, body, end: body }, file))
}

/// Reads a segment from its begin: where its whole lines end, and the progress there.
fn scan(path: &Path, number: u64) -> io::Result<(Segment, Progress)> {
    let mut lines = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    let body = lines.read_until(b'\n', &mut line)? as u64;
    let head: Head = serde_json::from_slice(&line)?;
    let mut progress = head.progress;
    let mut segment = Segment { number, from: head.from, to: head.from, body, end: body };
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            return Ok((segment, progress));
        }
        if let Ok(entry) = serde_json::from_slice::<Entry>(&line) {
            progress.apply(&entry.step);
            segment.to += entry.records.len() as u64;
        }
        segment.end += length;
    }
}

#[cfg(test)]
mod tests;
