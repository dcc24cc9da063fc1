//! Reads a task's output out of its segments.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fw_proto::record::{self, Body, Offsets, Record, Stream};

use super::is_covered;
use crate::supervise::files::Segment;

/// Reads one task's output in order, whole records at a time.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    at: Offsets,
    open: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    number: u64,
    file: File,
    /// Where in the file the next record begins, and what offsets that is.
    byte: u64,
    place: Offsets,
}

impl Reader {
    pub(super) fn new(dir: PathBuf, at: Offsets) -> Self {
        Self { dir, at, open: None }
    }

    /// How far it has read.
    #[must_use]
    pub fn at(&self) -> Offsets {
        self.at
    }

    /// Puts the next records into `buf` (emptied first), at most `max` bytes of them but always
    /// at least one, and says where they begin and end. `None` when there are none yet; when the
    /// task has ended, that is all. `max` is best [`record::MAX_CHUNK`].
    ///
    /// # Errors
    /// The spool cannot be read, is damaged, or no longer reaches back to where reading began.
    pub fn next(
        &mut self,
        max: usize,
        buf: &mut Vec<u8>,
    ) -> io::Result<Option<(Offsets, Offsets)>> {
        let max = max.max(record::HEADER + record::MAX_PAYLOAD);
        let from = self.at;
        buf.clear();
        loop {
            let Some(mut open) =
                self.open.take().map_or_else(|| self.find(), |open| Ok(Some(open)))?
            else {
                return Ok(None);
            };
            // Asked for before reading: what is not in this segment by then never will be.
            let next = self.after(&open)?;
            let read = self.read(&mut open, max, buf)?;
            self.open = Some(open);
            match (read, next) {
                (true, _) if !buf.is_empty() => return Ok(Some((from, self.at))),
                (true, _) => {}
                (false, Some(next)) => self.open = Some(next),
                (false, None) => return Ok(None),
            }
        }
    }

    /// Opens the segment in which reading begins.
    fn find(&self) -> io::Result<Option<OpenSegment>> {
        let segments = Segment::list(&self.dir)?;
        let holding = segments.iter().rev().find(|segment| is_covered(segment.base, self.at));
        match (holding, segments.first()) {
            (Some(segment), _) => OpenSegment::new(&self.dir, segment).map(Some),
            (None, Some(_)) => Err(damaged("it no longer reaches back to where the server is")),
            (None, None) if self.at == Offsets::default() => Ok(None),
            (None, None) => Err(damaged("it has no segment")),
        }
    }

    /// Opens the segment after this one, when there is one.
    fn after(&self, open: &OpenSegment) -> io::Result<Option<OpenSegment>> {
        let segments = Segment::list(&self.dir)?;
        let next = segments.iter().find(|segment| segment.number > open.number);
        next.map(|segment| OpenSegment::new(&self.dir, segment)).transpose()
    }

    /// Reads on in a segment; false when it holds no further whole record.
    fn read(&mut self, open: &mut OpenSegment, max: usize, buf: &mut Vec<u8>) -> io::Result<bool> {
        let there = open.file.metadata()?.len().saturating_sub(open.byte);
        let mut raw = vec![0; usize::try_from(there).unwrap_or(usize::MAX).min(max)];
        // May be less: a record that the disk refused is taken back.
        let taken = open.file.read_at(&mut raw, open.byte)?;
        raw.truncate(taken);
        let before = open.byte;
        for record in record::records(&raw) {
            let record = match record {
                Ok(record) => record,
                // What stands before it is whole; the next call says that this is not.
                Err(_) if open.byte > before => break,
                Err(malformed) => return Err(damaged(&malformed.to_string())),
            };
            open.byte += record.size();
            self.push(open.place, &record, buf);
            open.place = open.place.after(&record);
        }
        Ok(open.byte > before)
    }

    /// Appends the part of a record at `place` that lies beyond what was read before.
    fn push(&mut self, place: Offsets, record: &Record<'_>, buf: &mut Vec<u8>) {
        let behind = |at: u64, begins: u64| at.saturating_sub(begins);
        let body = match (record.stream, record.body) {
            (stream, Body::Bytes(bytes)) => {
                let skip = match stream {
                    Stream::Stdout => behind(self.at.stdout, place.stdout),
                    Stream::Stderr => behind(self.at.stderr, place.stderr),
                };
                let rest = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..));
                Body::Bytes(rest.unwrap_or_default())
            }
            (Stream::Stdout, Body::Gap(length)) => Body::Gap(
                length.saturating_sub(behind(self.at.stdout_dropped, place.stdout_dropped)),
            ),
            (Stream::Stderr, Body::Gap(length)) => Body::Gap(
                length.saturating_sub(behind(self.at.stderr_dropped, place.stderr_dropped)),
            ),
        };
        if !matches!(body, Body::Bytes([]) | Body::Gap(0)) {
            let rest = Record { body, ..*record };
            rest.write(buf);
            self.at = self.at.after(&rest);
        }
    }
}

impl OpenSegment {
    fn new(dir: &Path, segment: &Segment) -> io::Result<Self> {
        let file = File::open(dir.join(segment.name()))?;
        Ok(Self { number: segment.number, file, byte: 0, place: segment.base })
    }
}

fn damaged(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the spool is damaged: {how}"))
}
