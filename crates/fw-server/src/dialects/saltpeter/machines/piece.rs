//! Output of wrappers in the form that the store keeps, with the mark of how far it reaches.
//!
//! The mark lies in a skippable frame (RFC 8878 §3.1.2) behind the compressed records of a chunk. So
//! output and mark become durable at once, and whoever reads the output does not see it.

use std::cell::RefCell;

use fw_proto::record::{Body, MAX_PAYLOAD, Offsets, Record};
use fw_proto::{HostId, TaskKey};
use fw_store::NewChunk;

use super::talk::{Mark, Piece};

/// Bytes of output in a chunk: three whole records, and room for the headers in the bound of a chunk.
const CHUNK: usize = 3 * MAX_PAYLOAD;

/// The first of the 16 numbers of skippable frames, little endian.
const MAGIC: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

/// Bytes of a mark.
const MARK: usize = 12;

/// zstd's fastest level: log text still shrinks to about a tenth.
const LEVEL: i32 = 1;

thread_local! {
    /// Kept: making one costs more than what it does to most pieces.
    static PACKER: RefCell<zstd::bulk::Compressor<'static>> =
        RefCell::new(zstd::bulk::Compressor::new(LEVEL).expect("the level is there, and memory suffices"));
}

/// The chunks of a piece, after what is durable of the task.
#[must_use]
pub(crate) fn chunks(host: HostId, key: TaskKey, durable: Offsets, piece: &Piece) -> Vec<NewChunk> {
    let (mut from, mut taken) = (durable, 0);
    let mut chunks = Vec::with_capacity(piece.data.len().div_ceil(CHUNK));
    while let Some(data) = piece.data.get(taken..).filter(|rest| !rest.is_empty()) {
        let data = data.get(..cut(data, CHUNK)).unwrap_or(data);
        taken += data.len();
        let mark = mark_at(piece, taken);
        let (raw, to) = records(piece, data, from);
        let packed = PACKER.with_borrow_mut(|packer| packer.compress(&raw));
        let mut packed = packed.expect("memory suffices");
        append(&mut packed, mark);
        let raw_len = u32::try_from(raw.len()).expect("a chunk is short");
        chunks.push(NewChunk { host, key, from, to, raw_len, data: packed });
        from = to;
    }
    chunks
}

/// The mark when so many bytes of a piece are durable.
fn mark_at(piece: &Piece, taken: usize) -> Mark {
    if taken == piece.data.len() {
        return piece.after;
    }
    if piece.before == piece.after {
        return piece.before;
    }
    let done = piece.before.done.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
    Mark { done, ..piece.before }
}

fn records(piece: &Piece, mut data: &[u8], mut to: Offsets) -> (Vec<u8>, Offsets) {
    let mut raw = Vec::with_capacity(data.len() + 64);
    while !data.is_empty() {
        let (head, rest) = data.split_at(cut(data, MAX_PAYLOAD));
        let record = Record { stream: piece.stream, at: piece.at, body: Body::Bytes(head) };
        record.write(&mut raw);
        to = to.after(&record);
        data = rest;
    }
    (raw, to)
}

/// At most so many bytes, and no character in two parts.
fn cut(data: &[u8], most: usize) -> usize {
    if data.len() <= most {
        return data.len();
    }
    let in_character = |byte: &u8| byte & 0xC0 == 0x80;
    (most - 3..=most).rev().find(|at| !data.get(*at).is_some_and(in_character)).unwrap_or(most)
}

fn append(packed: &mut Vec<u8>, mark: Mark) {
    packed.extend_from_slice(&MAGIC);
    packed.extend_from_slice(&(MARK as u32).to_le_bytes());
    packed.extend_from_slice(&mark.next.to_le_bytes());
    packed.extend_from_slice(&mark.done.to_le_bytes());
}

/// The mark of a chunk; `None` when it has none, for an agent sent it.
#[must_use]
pub(crate) fn mark(packed: &[u8]) -> Option<Mark> {
    let (_, frame) = packed.split_last_chunk::<{ 8 + MARK }>()?;
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (next, done) = rest.split_first_chunk::<8>()?;
    let known = *magic == MAGIC && *len == (MARK as u32).to_le_bytes();
    let done = u32::from_le_bytes(done.try_into().ok()?);
    known.then(|| Mark { next: u64::from_le_bytes(*next), done })
}

/// A piece without a number, of what the server itself has to say in the output.
#[cfg(test)]
pub(super) fn unnumbered(text: &str) -> Piece {
    let mark = Mark { next: 3, done: 0 };
    let at = fw_proto::Timestamp::from_millis(1000);
    Piece {
        stream: fw_proto::record::Stream::Stderr,
        at,
        data: text.into(),
        before: mark,
        after: mark,
    }
}

#[cfg(test)]
mod tests {
    use fw_proto::record::{MAX_CHUNK, Stream, records as read};
    use fw_proto::{RunId, Timestamp};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn key() -> TaskKey {
        TaskKey { run: RunId(Uuid::from_u128(1)), node: fw_core::plan::ONLY_NODE, attempt: 1 }
    }

    proptest! {
        #[test]
        fn chunks_hold_the_piece_and_lead_from_mark_to_mark(
            text in "[a-zé€🚂]{0,40}", times in 1..30_000_usize, done in 0..5_u32,
        ) {
            let data: Vec<u8> = text.repeat(times).into_bytes();
            let (before, after) = (Mark { next: 7, done }, Mark { next: 8, done: 0 });
            let piece = Piece { stream: Stream::Stdout, at: Timestamp::from_millis(5), data, before, after };
            let chunks = chunks(HostId(Uuid::nil()), key(), Offsets::default(), &piece);
            let (mut all, mut from, mut last) = (Vec::new(), Offsets::default(), None);
            for chunk in &chunks {
                prop_assert_eq!(chunk.from, from);
                // The readers of the store know nothing of marks.
                let raw = zstd::bulk::decompress(&chunk.data, MAX_CHUNK).unwrap();
                prop_assert_eq!(raw.len(), chunk.raw_len as usize);
                for record in read(&raw) {
                    let Body::Bytes(bytes) = record.unwrap().body else { panic!("a gap") };
                    prop_assert!(std::str::from_utf8(bytes).is_ok());
                    all.extend_from_slice(bytes);
                }
                last = mark(&chunk.data);
                if all.len() < piece.data.len() {
                    prop_assert_eq!(last, Some(Mark { next: 7, done: done + all.len() as u32 }));
                }
                from = chunk.to;
            }
            prop_assert_eq!(all.len() as u64, from.stdout);
            prop_assert!(all == piece.data);
            prop_assert_eq!(last, (!piece.data.is_empty()).then_some(after));
        }
    }

    #[test]
    fn what_has_no_mark_has_none() {
        assert_eq!(mark(b""), None);
        assert_eq!(mark(&zstd::bulk::compress(&[7; 5000], 1).unwrap()), None);
        let piece = unnumbered("words of the server");
        let chunks = chunks(HostId(Uuid::nil()), key(), Offsets::default(), &piece);
        assert_eq!(mark(&chunks[0].data), Some(piece.before));
    }
}
