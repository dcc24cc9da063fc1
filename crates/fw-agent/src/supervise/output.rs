//! The spool of one task's output, as its supervisor writes it.
//!
//! Segments of whole records; the agent deletes those that the server has. What happens when
//! the bound is reached is the task's choice: read no more ([`OnFull::Block`]) or keep no more
//! ([`OnFull::Drop`]). A disk that takes nothing is treated as the latter either way: a command
//! never fails because its output cannot be kept.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use fw_proto::Timestamp;
use fw_proto::frame::OnFull;
use fw_proto::record::{self, Body, HEADER, MAX_PAYLOAD, Offsets, Record, Stream};
use sha2::{Digest as _, Sha256};

use super::files::Segment;
use crate::mask::{Mask, Needles};

/// A segment is closed when it has grown to this: small enough to free space soon, large
/// enough that a fast command makes tens of files and not thousands.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// The smallest bound: less could not hold a read of each stream and still move.
const SMALLEST_BOUND: u64 = 512 * 1024;

/// Room that must be there before a stream is read: the read, what the mask held back, headers.
const READ_ROOM: u64 = 2 * (MAX_PAYLOAD + HEADER) as u64;

/// The spool of one task.
pub(super) struct Output {
    dir: PathBuf,
    on_full: OnFull,
    bound: u64,
    segment_bytes: u64,
    /// Bytes beyond the bound that the end of a task may take.
    overshoot: u64,
    /// The segments there may be, with their sizes; the last is being written.
    segments: VecDeque<(Segment, u64)>,
    file: Option<File>,
    next_number: u64,
    /// The bound was reached, or the disk refused. Until [`Output::refresh`] finds room.
    full: bool,
    /// The disk refused.
    failing: bool,
    offsets: Offsets,
    stdout: Lane,
    stderr: Lane,
    record: Vec<u8>,
    /// Records were written since this was last asked.
    news: bool,
    /// What is written is on the disk before anybody is told of it, so that a power cut takes nothing
    /// that was sent: a later supervisor must be able to go on where this one was.
    synced: bool,
    /// It goes on where a supervisor that is gone has left off, so the hashes are not those of the whole.
    resumed: bool,
}

/// What is kept for each of the two streams.
struct Lane {
    mask: Mask,
    sha256: Sha256,
    /// Bytes not kept, and not yet said so in a gap.
    dropped: u64,
}

impl Lane {
    fn new(needles: &Rc<Needles>) -> Self {
        Self { mask: Mask::new(Rc::clone(needles)), sha256: Sha256::new(), dropped: 0 }
    }
}

impl Output {
    pub(super) fn new(dir: PathBuf, bound: u64, on_full: OnFull, needles: Needles) -> Self {
        let needles = Rc::new(needles);
        let bound = bound.max(SMALLEST_BOUND);
        Self {
            dir,
            on_full,
            bound,
            segment_bytes: SEGMENT_BYTES.min(bound / 4),
            overshoot: 0,
            segments: VecDeque::new(),
            file: None,
            next_number: 0,
            full: false,
            failing: false,
            offsets: Offsets::default(),
            stdout: Lane::new(&needles),
            stderr: Lane::new(&needles),
            record: Vec::new(),
            news: false,
            synced: false,
            resumed: false,
        }
    }

    /// Takes each piece to the disk before anybody is told of it.
    pub(super) fn synced(self) -> Self {
        Self { synced: true, ..self }
    }

    /// Goes on after the last whole record of a supervisor that is gone.
    ///
    /// # Errors
    /// What it wrote cannot be read now.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.resumed = true;
        for segment in Segment::list(&self.dir)? {
            let size = std::fs::metadata(self.dir.join(segment.name()))?.len();
            self.segments.push_back((segment, size));
        }
        if let Some((last, size)) = self.segments.back_mut() {
            let path = self.dir.join(last.name());
            let (whole, end) = whole_records(&File::open(&path)?, last.base)?;
            if whole < *size {
                File::options().write(true).open(&path)?.set_len(whole)?;
                *size = whole;
            }
            (self.next_number, self.offsets) = (last.number + 1, end);
        }
        Ok(())
    }

    /// From now on output that does not fit is dropped: nobody may be there to make room, and what
    /// comes must not wait for that.
    pub(super) fn never_wait(&mut self) {
        self.on_full = OnFull::Drop;
    }

    /// Whether the streams may be read now. When not, [`Output::refresh`] may change it.
    pub(super) fn may_read(&self) -> bool {
        match self.on_full {
            OnFull::Drop => true,
            OnFull::Block => self.failing || !self.full,
        }
    }

    /// Whether [`Output::refresh`] is worth calling: something was refused for lack of room.
    pub(super) fn is_full(&self) -> bool {
        self.full || self.failing
    }

    /// Lets the bound be exceeded by what was in the pipes when the command ended, so that a
    /// full spool never costs a command its last words.
    pub(super) fn allow(&mut self, bytes: u64) {
        self.overshoot =
            bytes.saturating_add(bytes / 1024 * HEADER as u64).saturating_add(READ_ROOM);
        self.refresh();
    }

    /// How far the stored output reaches.
    pub(super) fn offsets(&self) -> Offsets {
        self.offsets
    }

    /// Whether records were written since the last call.
    pub(super) fn take_news(&mut self) -> bool {
        let news = std::mem::take(&mut self.news);
        if news
            && self.synced
            && let Some(Err(error)) = self.file.as_ref().map(File::sync_data)
        {
            super::note(&format!("take the output of {} to the disk: {error}", self.dir.display()));
        }
        news
    }

    /// SHA-256 of the stored bytes of stdout and stderr, when all of them were written here.
    pub(super) fn hashes(&self) -> Option<([u8; 32], [u8; 32])> {
        let hash = |lane: &Lane| lane.sha256.clone().finalize().into();
        (!self.resumed).then(|| (hash(&self.stdout), hash(&self.stderr)))
    }

    /// Takes bytes as the command wrote them.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8], at: Timestamp) {
        let mask = &mut self.lane(stream).mask;
        if mask.is_transparent() {
            return self.store(stream, bytes, at);
        }
        let mut masked = Vec::new();
        mask.push(bytes, &mut masked);
        self.store(stream, &masked, at);
    }

    /// Both streams are over: stores what the masks held back, and the last gaps.
    pub(super) fn finish(&mut self, at: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut masked = Vec::new();
            self.lane(stream).mask.finish(&mut masked);
            self.store(stream, &masked, at);
        }
        self.failing = false;
        self.store_gaps(at);
        if self.offsets != Offsets::default()
            && let Err(error) = self.sync()
        {
            super::note(&format!("take the output of {} to the disk: {error}", self.dir.display()));
        }
    }

    /// Takes all that is left of the output through a power cut: the status, which says how much
    /// there is, must not be on the disk before it.
    fn sync(&self) -> io::Result<()> {
        for (segment, _) in &self.segments {
            match File::open(self.dir.join(segment.name())) {
                Ok(file) => file.sync_data()?,
                // Deleted since: the server has it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Looks which segments the agent has deleted, and gives a failing disk another try.
    pub(super) fn refresh(&mut self) {
        self.failing = false;
        if let Ok(there) = Segment::list(&self.dir) {
            self.segments.retain(|(segment, _)| there.binary_search(segment).is_ok());
        }
        self.full = !self.has_room(READ_ROOM);
    }

    fn lane(&mut self, stream: Stream) -> &mut Lane {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn has_room(&self, bytes: u64) -> bool {
        let used: u64 = self.segments.iter().map(|(_, size)| size).sum();
        used.saturating_add(bytes) <= self.bound.saturating_add(self.overshoot)
    }

    fn store(&mut self, stream: Stream, bytes: &[u8], at: Timestamp) {
        for payload in bytes.chunks(MAX_PAYLOAD) {
            let refuses = self.failing || (self.on_full == OnFull::Drop && self.full);
            if refuses || !self.store_gaps(at) || !self.append(stream, Body::Bytes(payload), at) {
                self.lane(stream).dropped += payload.len() as u64;
            }
        }
        if !self.full && !self.has_room(READ_ROOM) {
            self.full = true;
            self.close_segment();
        }
    }

    /// Says what was not kept, before anything that comes after it. False when that fails too.
    fn store_gaps(&mut self, at: Timestamp) -> bool {
        [Stream::Stdout, Stream::Stderr].into_iter().all(|stream| {
            let dropped = self.lane(stream).dropped;
            if dropped == 0 {
                return true;
            }
            let stored = self.append(stream, Body::Gap(dropped), at);
            if stored {
                self.lane(stream).dropped = 0;
            }
            stored
        })
    }

    /// Writes one record whole, or nothing of it.
    fn append(&mut self, stream: Stream, body: Body<'_>, at: Timestamp) -> bool {
        let record = Record { stream, at, body };
        self.record.clear();
        record.write(&mut self.record);
        if let Err(error) = self.write_record() {
            if !self.failing {
                super::note(&format!("spool of {}: {error}", self.dir.display()));
            }
            self.failing = true;
            return false;
        }
        self.offsets = self.offsets.after(&record);
        if let Body::Bytes(bytes) = body {
            self.lane(stream).sha256.update(bytes);
        }
        self.news = true;
        true
    }

    fn write_record(&mut self) -> io::Result<()> {
        if self.segments.back().is_none_or(|(_, size)| *size >= self.segment_bytes)
            || self.file.is_none()
        {
            self.open_segment()?;
        }
        let (Some(file), Some((_, size))) = (&mut self.file, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment is open"));
        };
        let written = file.write_all(&self.record);
        if written.is_err() {
            // A piece of a record may be there. What comes next must not follow it.
            if file.set_len(*size).is_err() {
                self.file = None;
            }
        } else {
            *size += self.record.len() as u64;
        }
        written
    }

    fn open_segment(&mut self) -> io::Result<()> {
        let segment = Segment { number: self.next_number, base: self.offsets };
        let file =
            File::options().append(true).create_new(true).open(self.dir.join(segment.name()))?;
        self.file = Some(file);
        self.next_number += 1;
        self.segments.push_back((segment, 0));
        Ok(())
    }

    /// Begins a new segment, so that the one before can be deleted: the agent never deletes the
    /// last, and a spool whose last segment fills it would never get free.
    fn close_segment(&mut self) {
        if self.segments.back().is_some_and(|(_, size)| *size > 0) && self.open_segment().is_err() {
            self.failing = true;
        }
    }
}

/// How much of a segment is whole records, and the offsets at its end. Of a write that a power cut tore
/// nobody was told.
fn whole_records(file: &File, base: Offsets) -> io::Result<(u64, Offsets)> {
    let (mut at, mut end) = (0, base);
    let mut room = vec![0; 2 * (MAX_PAYLOAD + HEADER)];
    loop {
        let taken = file.read_at(&mut room, at)?;
        let mut whole = 0;
        for record in record::records(room.get(..taken).unwrap_or_default()) {
            let Ok(record) = record else { break };
            whole += record.size();
            end = end.after(&record);
        }
        if whole == 0 {
            return Ok((at, end));
        }
        at += whole;
    }
}
