//! Output records: the one form of output on the host's disk, on the wire and in the store.
//!
//! A record is a header of 16 bytes and a payload. The supervisor appends records to the
//! spool; the agent compresses runs of whole records into chunks; the server stores the
//! chunks as they come. Nothing re-encodes them on the way.
//!
//! ```text
//! byte 0      kind: 1 stdout, 2 stderr, 3 gap in stdout, 4 gap in stderr
//! bytes 1-3   zero
//! bytes 4-7   length of the payload, little endian
//! bytes 8-15  when the bytes were read, milliseconds since the Unix epoch, little endian
//! ```
//! The payload of a gap is the number of bytes that were not kept, 8 bytes little endian.

use crate::Timestamp;

/// Bytes of a record's header.
pub const HEADER: usize = 16;

/// The longest payload of one record: what one read of a pipe yields (`pipe(7)`: 64 KiB).
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The most raw record bytes in one chunk.
pub const MAX_CHUNK: usize = 256 * 1024;

/// One of a command's two output streams.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Bytes as the command wrote them, secrets masked.
    Bytes(&'a [u8]),
    /// So many bytes were not kept: the spool was full.
    Gap(u64),
}

/// A record, borrowed from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which stream.
    pub stream: Stream,
    /// When the supervisor read it.
    pub at: Timestamp,
    /// What it holds.
    pub body: Body<'a>,
}

/// How far a task's output reaches, in stored bytes; gaps do not count towards the offsets.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
pub struct Offsets {
    /// Bytes of stdout.
    #[n(0)]
    pub stdout: u64,
    /// Bytes of stderr.
    #[n(1)]
    pub stderr: u64,
    /// Bytes of stdout that were not kept.
    #[n(2)]
    pub stdout_dropped: u64,
    /// Bytes of stderr that were not kept.
    #[n(3)]
    pub stderr_dropped: u64,
}

impl Offsets {
    /// The offsets after this record.
    #[must_use]
    pub fn after(mut self, record: &Record<'_>) -> Self {
        match (record.stream, record.body) {
            (Stream::Stdout, Body::Bytes(bytes)) => grow(&mut self.stdout, bytes.len() as u64),
            (Stream::Stderr, Body::Bytes(bytes)) => grow(&mut self.stderr, bytes.len() as u64),
            (Stream::Stdout, Body::Gap(length)) => grow(&mut self.stdout_dropped, length),
            (Stream::Stderr, Body::Gap(length)) => grow(&mut self.stderr_dropped, length),
        }
        self
    }

    /// Stored and dropped bytes of both streams: grows with every record that is not empty,
    /// so it orders any two positions in one task's output.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.stderr, self.stdout_dropped, self.stderr_dropped]
            .iter()
            .fold(self.stdout, |sum, part| sum.saturating_add(*part))
    }

    /// Whether a command could have written so much: hosts are hostile, and sums must not overflow.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.total() <= LARGEST
    }
}

/// The most output of a task: 9 petabytes, and every number up to it is exact in any language.
pub const LARGEST: u64 = 1 << 53;

fn grow(offset: &mut u64, by: u64) {
    *offset = offset.saturating_add(by);
}

/// Bytes that are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("output record: unknown kind {kind} or length {len}")]
pub struct Malformed {
    /// The first byte of the header.
    pub kind: u8,
    /// The length that the header claims.
    pub len: u32,
}

impl Record<'_> {
    /// The bytes that it takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let payload = match self.body {
            Body::Bytes(bytes) => bytes.len(),
            Body::Gap(_) => size_of::<u64>(),
        };
        (HEADER + payload) as u64
    }

    /// Appends the record's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let gap;
        let (kind, payload): (u8, &[u8]) = match (self.stream, self.body) {
            (Stream::Stdout, Body::Bytes(bytes)) => (1, bytes),
            (Stream::Stderr, Body::Bytes(bytes)) => (2, bytes),
            (stream, Body::Gap(length)) => {
                gap = length.to_le_bytes();
                (if stream == Stream::Stdout { 3 } else { 4 }, &gap)
            }
        };
        let len = u32::try_from(payload.len()).expect("a payload is at most MAX_PAYLOAD");
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.at.as_millis().to_le_bytes());
        out.extend_from_slice(payload);
    }
}

/// Reads the first record and says how many bytes it took; `None` while it is not all there yet.
///
/// # Errors
/// The bytes are not a record's.
pub fn read(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, Malformed> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [kind, _, _, _, l0, l1, l2, l3, at @ ..] = *header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    let malformed = Malformed { kind, len };
    let size = usize::try_from(len).ok().filter(|size| *size <= MAX_PAYLOAD).ok_or(malformed)?;
    let stream = match kind {
        1 | 3 => Stream::Stdout,
        2 | 4 => Stream::Stderr,
        _ => return Err(malformed),
    };
    let Some(payload) = rest.get(..size) else { return Ok(None) };
    let body = if kind <= 2 {
        Body::Bytes(payload)
    } else {
        Body::Gap(u64::from_le_bytes(payload.try_into().map_err(|_| malformed)?))
    };
    let at = Timestamp::from_millis(i64::from_le_bytes(at));
    Ok(Some((Record { stream, at, body }, HEADER + size)))
}

/// All whole records in `bytes`, in order.
pub fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    std::iter::from_fn(move || match read(bytes) {
        Ok(None) => None,
        Ok(Some((record, taken))) => {
            bytes = bytes.get(taken..).unwrap_or_default();
            Some(Ok(record))
        }
        Err(malformed) => {
            bytes = &[];
            Some(Err(malformed))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_survive_their_bytes(parts in prop::collection::vec((any::<bool>(), prop::option::of(1..9_u64), prop::collection::vec(any::<u8>(), 0..50)), 0..20)) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (err, gap, payload) in &parts {
                let stream = if *err { Stream::Stderr } else { Stream::Stdout };
                let body = gap.map_or(Body::Bytes(payload), Body::Gap);
                let record = Record { stream, at: Timestamp::from_millis(5), body };
                record.write(&mut bytes);
                expected.push(record);
            }
            let read: Vec<_> = records(&bytes).map(Result::unwrap).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for record in records(&bytes) {
                if record.is_err() { break; }
            }
        }
    }
}
