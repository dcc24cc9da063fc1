//! The begin of what a task printed, for what needs it as a whole: a later command, a judgement, a record.
//!
//! Whoever shows a log reads it piece by piece in [`crate::api`] instead.

use fw_proto::record::{self, Body, MAX_CHUNK, Stream};
use fw_proto::{HostId, RunId};
use fw_store::{Store, StoredChunk};

/// Chunks that are read at a time; each has at most 256 KiB.
const CHUNKS: u32 = 4;

/// The task that printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) run: RunId,
    pub(crate) host: HostId,
    pub(crate) attempt: u16,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    /// At most as many bytes as were asked for.
    pub(crate) bytes: Vec<u8>,
    /// Whether that is all: nothing was cut off, not kept by the host, or damaged in the store.
    pub(crate) whole: bool,
}

/// Reads at most so much of one stream, or of both in the order in which they came.
///
/// # Errors
/// What the store says.
pub(crate) async fn read(
    store: &Store,
    task: Task,
    only: Option<Stream>,
    most: usize,
) -> Result<Printed, fw_store::Error> {
    let Task { run, host, attempt } = task;
    let (mut printed, mut after) = (Printed { bytes: Vec::new(), whole: true }, 0);
    while printed.bytes.len() <= most {
        let chunks = store.log_chunks(run, host, attempt, after, CHUNKS).await?;
        let Some(last) = chunks.last() else { return Ok(printed) };
        after = last.n;
        for chunk in &chunks {
            printed.whole &= take(chunk, only, &mut printed.bytes).is_some();
        }
    }
    printed.bytes.truncate(most);
    printed.whole = false;
    Ok(printed)
}

/// `None` when something of it is missing; what is damaged is told where the log is shown.
fn take(chunk: &StoredChunk, only: Option<Stream>, bytes: &mut Vec<u8>) -> Option<()> {
    let raw = zstd::bulk::decompress(&chunk.data, MAX_CHUNK).ok()?;
    let mut whole = Some(());
    for record in record::records(&raw) {
        let record = record.ok()?;
        if only.is_some_and(|only| only != record.stream) {
            continue;
        }
        match record.body {
            Body::Bytes(more) => bytes.extend_from_slice(more),
            Body::Gap(_) => whole = None,
        }
    }
    whole
}
