//! The output of a task as text, read piece by piece from the store.
//!
//! Saltpeter merges stderr into stdout; so does this, in the order in which the pieces came. What is no
//! UTF-8 becomes a mark, and a letter that is cut by the end of a piece waits for its rest. Positions count
//! UTF-16 units, as its pages do.

use fw_proto::record::{self, Body, MAX_CHUNK};
use fw_proto::{HostId, RunId};
use fw_store::Store;

/// How far the output of a task was read.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    run: RunId,
    host: HostId,
    attempt: u16,
    /// The number of the last chunk that was read.
    chunk: u64,
    /// Bytes of a letter whose rest has not come.
    rest: Vec<u8>,
    /// UTF-16 units so far.
    pub(super) position: u64,
    /// Whether the note of the task's end was given as well.
    pub(super) complete: bool,
}

impl Cursor {
    /// From the start.
    pub(super) const fn new(run: RunId, host: HostId, attempt: u16) -> Self {
        Self { run, host, attempt, chunk: 0, rest: Vec::new(), position: 0, complete: false }
    }

    /// Whether it is of this attempt.
    pub(super) fn is_of(&self, run: RunId, host: HostId, attempt: u16) -> bool {
        (self.run, self.host, self.attempt) == (run, host, attempt)
    }

    /// The next piece; `None` when there is no more now.
    pub(super) async fn next(&mut self, store: &Store) -> Result<Option<String>, fw_store::Error> {
        loop {
            let (run, host, attempt) = (self.run, self.host, self.attempt);
            let found = store.log_chunks(run, host, attempt, self.chunk, 1).await?.pop();
            let Some(chunk) = found else { return Ok(None) };
            self.chunk = chunk.n;
            let Ok(raw) = zstd::bulk::decompress(&chunk.data, MAX_CHUNK) else {
                tracing::error!(run.id = %run, "stored output is damaged; restore a backup, and check the disk");
                continue;
            };
            let mut bytes = std::mem::take(&mut self.rest);
            for record in record::records(&raw).flatten() {
                match record.body {
                    Body::Bytes(more) => bytes.extend_from_slice(more),
                    Body::Gap(missing) => {
                        bytes.extend_from_slice(
                            format!("\n[{missing} bytes are missing]\n").as_bytes(),
                        );
                    }
                }
            }
            let text = self.text(bytes);
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }

    /// What comes after all output: a letter that stays cut, and the note.
    pub(super) fn end(&mut self, note: &str) -> String {
        self.complete = true;
        let rest = std::mem::take(&mut self.rest);
        let text = format!("{}{note}", String::from_utf8_lossy(&rest));
        self.position += units(&text);
        text
    }

    fn text(&mut self, mut bytes: Vec<u8>) -> String {
        let cut = unfinished(&bytes);
        self.rest = bytes.split_off(bytes.len() - cut);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.position += units(&text);
        text
    }
}

/// UTF-16 units of a text.
pub(super) fn units(text: &str) -> u64 {
    text.chars().map(|c| c.len_utf16() as u64).sum()
}

/// How many bytes at the end begin a letter that is not whole.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(3).enumerate();
    for (back, byte) in tail {
        let length = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            0x00..=0x7F | 0xC0 | 0xC1 | 0xF5..=0xFF => return 0,
        };
        return if back + 1 < length { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn cursor() -> Cursor {
        Cursor::new(RunId(Uuid::nil()), HostId(Uuid::nil()), 1)
    }

    proptest! {
        #[test]
        fn a_text_that_is_cut_anywhere_is_whole(text in any::<String>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let mut cursor = cursor();
            let mut read = String::new();
            for pair in places.windows(2) {
                let mut bytes = std::mem::take(&mut cursor.rest);
                bytes.extend_from_slice(&text.as_bytes()[pair[0]..pair[1]]);
                read.push_str(&cursor.text(bytes));
            }
            read.push_str(&cursor.end(""));
            prop_assert_eq!(cursor.position, text.encode_utf16().count() as u64);
            prop_assert_eq!(read, text);
        }

        #[test]
        fn what_is_no_text_is_read_all_the_same(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut cursor = cursor();
            let mut read = cursor.text(bytes.clone());
            read.push_str(&cursor.end(""));
            prop_assert_eq!(units(&read), cursor.position);
            prop_assert!(bytes.is_empty() || !read.is_empty());
        }
    }
}
