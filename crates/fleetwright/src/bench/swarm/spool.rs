//! The output of simulated commands, kept in memory and made before the clock starts.
//!
//! Chunks of one size and kind are the same on every host, so there is one copy of them. They
//! are made as agents make them: records, compressed at the same level, no more than a chunk at
//! a time. What is measured is therefore the server, not the compression.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use fw_proto::frame::Command;
use fw_proto::record::{Body, HEADER, MAX_CHUNK, Offsets, Record, Stream};
use fw_proto::{Timestamp, api};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Log lines of this program's own server and agents.
const LOG_TEXT: &[u8] = include_bytes!("server.log");

/// What a supervisor gets out of a pipe at once from a program that writes without pause (`pipe(7)`).
const PAYLOAD: usize = 16 * 1024;

/// The program that simulated agents know.
const PROGRAM: &str = "fleetwright-bench-output";

/// What a simulated command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Log lines.
    Text,
    /// What cannot be compressed.
    Random,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Random => "random",
        }
    }
}

/// The command that makes a simulated agent write so much.
pub(crate) fn command(kind: Kind, size: u64) -> api::Command {
    api::Command::Argv(vec![PROGRAM.to_owned(), kind.as_str().to_owned(), size.to_string()])
}

/// What a command asks a simulated agent to write; nothing when it is another command.
fn asked(command: &Command) -> Option<(Kind, u64)> {
    let Command::Argv(words) = command else { return None };
    let [program, kind, size] = words.as_slice() else { return None };
    let kind = [Kind::Text, Kind::Random].into_iter().find(|known| known.as_str() == kind)?;
    (program == PROGRAM).then_some((kind, size.parse().ok()?))
}

/// All that one command writes.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pieces: Vec<Piece>,
    end: Offsets,
}

/// A chunk of it.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) from: Offsets,
    pub(crate) to: Offsets,
    pub(crate) raw_len: u32,
    /// Compressed.
    pub(crate) data: Vec<u8>,
}

impl Output {
    fn make(kind: Kind, size: u64) -> anyhow::Result<Self> {
        let mut noise = StdRng::seed_from_u64(size);
        let mut left = usize::try_from(size).context("output beyond memory")?;
        let (mut made, mut raw, mut from) = (Self::default(), Vec::new(), Offsets::default());
        let mut text = LOG_TEXT.iter().copied().cycle();
        while left > 0 {
            let length = left.min(PAYLOAD);
            let bytes: Vec<u8> = match kind {
                Kind::Text => text.by_ref().take(length).collect(),
                Kind::Random => {
                    let mut bytes = vec![0; length];
                    noise.fill_bytes(&mut bytes);
                    bytes
                }
            };
            left -= length;
            let record =
                Record { stream: Stream::Stdout, at: Timestamp::EPOCH, body: Body::Bytes(&bytes) };
            record.write(&mut raw);
            made.end = made.end.after(&record);
            if left == 0 || raw.len() + PAYLOAD + HEADER > MAX_CHUNK {
                made.pieces.push(Piece::of(from, made.end, &raw)?);
                from = made.end;
                raw.clear();
            }
        }
        Ok(made)
    }

    /// The chunk that begins there.
    pub(crate) fn piece(&self, from: Offsets) -> Option<&Piece> {
        let at =
            self.pieces.binary_search_by_key(&from.total(), |piece| piece.from.total()).ok()?;
        self.pieces.get(at)
    }

    /// How much it is.
    pub(crate) const fn end(&self) -> Offsets {
        self.end
    }
}

impl Piece {
    fn of(from: Offsets, to: Offsets, raw: &[u8]) -> anyhow::Result<Self> {
        let data = zstd::bulk::compress(raw, fw_agent::spool::LEVEL).context("compress output")?;
        Ok(Self { from, to, raw_len: u32::try_from(raw.len())?, data })
    }
}

/// Outputs that were made, by what was asked. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outputs(Arc<Mutex<Made>>);

type Made = BTreeMap<(Kind, u64), Arc<Output>>;

impl Outputs {
    /// What this command writes. The first who asks for a size makes it; the others wait.
    pub(crate) fn of(&self, command: &Command) -> Arc<Output> {
        let Some((kind, size)) = asked(command) else { return Arc::default() };
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(output) = made.get(&(kind, size)) {
            return Arc::clone(output);
        }
        // Nothing that our own controller asks for is too much for memory.
        let output = Arc::new(Output::make(kind, size).unwrap_or_default());
        made.insert((kind, size), Arc::clone(&output));
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_and_hold_what_was_asked_for() {
        for (kind, size) in [(Kind::Text, 1), (Kind::Text, 1_000_000), (Kind::Random, 600_000)] {
            let api::Command::Argv(words) = command(kind, size) else { panic!("a program") };
            let output = Outputs::default().of(&Command::Argv(words));
            let (mut at, mut bytes) = (Offsets::default(), 0);
            while let Some(piece) = output.piece(at) {
                let raw = zstd::bulk::decompress(&piece.data, MAX_CHUNK).unwrap();
                assert_eq!(raw.len(), piece.raw_len as usize);
                bytes += fw_proto::record::records(&raw)
                    .map(|record| match record.unwrap().body {
                        Body::Bytes(bytes) => bytes.len() as u64,
                        Body::Gap(_) => panic!("no gap"),
                    })
                    .sum::<u64>();
                at = piece.to;
            }
            assert_eq!((at, bytes), (output.end(), size));
        }
    }

    #[test]
    fn other_commands_write_nothing() {
        for command in [
            Command::Shell("true".into()),
            Command::Argv(vec![PROGRAM.into(), "text".into(), "-1".into()]),
        ] {
            assert_eq!(Outputs::default().of(&command).end(), Offsets::default());
        }
    }
}
