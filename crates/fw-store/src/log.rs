//! Output: the chunks that hosts send, checked, in order, each kept once.

use fw_core::plan::ONLY_NODE;
use fw_proto::record::{self, Body, Offsets};
use fw_proto::{HostId, RunId, TaskKey, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use crate::row::{self, blob, int};
use crate::{Error, Store};

/// A piece of a task's output, as its host sent it.
#[derive(Debug, Clone)]
pub struct NewChunk {
    /// Which host.
    pub host: HostId,
    /// Which task.
    pub key: TaskKey,
    /// Where it begins.
    pub from: Offsets,
    /// Where it ends.
    pub to: Offsets,
    /// Bytes before compression.
    pub raw_len: u32,
    /// Whole records, in zstd frames (RFC 8878).
    pub data: Vec<u8>,
}

/// A piece of a task's output in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    /// Counted from 1 in each task.
    pub n: u64,
    /// Where it begins.
    pub from: Offsets,
    /// Where it ends.
    pub to: Offsets,
    /// As in [`NewChunk`].
    pub data: Vec<u8>,
}

/// A chunk of a run's output, and where it stands among all that the store has taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedChunk {
    /// Grows with each chunk stored: the row id, which nothing here changes once it is given.
    pub place: u64,
    /// Whose output.
    pub host: HostId,
    /// Which attempt.
    pub attempt: u16,
    /// The chunk.
    pub chunk: StoredChunk,
}

/// Places of chunks that are put in order at a time.
const AT_ONCE: u32 = 1024;

/// Beyond this no offset is believed: sums of a few of them still fit an `i64`, and no disk holds so much.
const MAX_OFFSET: u64 = 1 << 53;

impl Store {
    /// Appends a chunk and returns how far the task's output is durable. A chunk that is there
    /// already changes nothing.
    ///
    /// # Errors
    /// [`Error::MalformedChunk`] when it does not hold what it says, [`Error::OutOfOrder`] when
    /// it begins elsewhere than where the stored output ends.
    pub async fn append_chunk(&self, chunk: NewChunk) -> Result<Offsets, Error> {
        check(&chunk).map_err(Error::MalformedChunk)?;
        let now = self.now();
        self.logs().write_checked(move |db| append(db, &chunk, now)).await
    }

    /// How far the output of these tasks is durable, in the order asked.
    ///
    /// # Errors
    /// What the database says.
    pub async fn durable(&self, host: HostId, keys: Vec<TaskKey>) -> Result<Vec<Offsets>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.logs()
            .read(move |db| {
                let durable = |key: &TaskKey| {
                    Ok(stream(db, host, key)?.map(|stream| stream.durable).unwrap_or_default())
                };
                keys.iter().map(durable).collect()
            })
            .await
    }

    /// The last chunk of a task; `None` when it has no output.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_chunk(
        &self,
        host: HostId,
        key: TaskKey,
    ) -> Result<Option<StoredChunk>, Error> {
        self.logs()
            .read(move |db| {
                let Some(stream) = stream(db, host, &key)? else { return Ok(None) };
                let mut statement = db.prepare_cached(
                    "SELECT * FROM chunks WHERE stream = ?1 ORDER BY n DESC LIMIT 1",
                )?;
                let mut chunks = statement.query_and_then([stream.id], read_chunk)?;
                chunks.next().transpose()
            })
            .await
    }

    /// Chunks of a task, in order: at most `most` of those after number `after` (0: from the start).
    ///
    /// # Errors
    /// What the database says.
    pub async fn log_chunks(
        &self,
        run: RunId,
        host: HostId,
        attempt: u16,
        after: u64,
        most: u32,
    ) -> Result<Vec<StoredChunk>, Error> {
        let key = TaskKey { run, node: ONLY_NODE, attempt };
        self.logs()
            .read(move |db| {
                let Some(stream) = stream(db, host, &key)? else { return Ok(Vec::new()) };
                let mut statement = db.prepare_cached(
                    "SELECT * FROM chunks WHERE stream = ?1 AND n > ?2 ORDER BY n LIMIT ?3",
                )?;
                let chunks =
                    statement.query_and_then(params![stream.id, int(after), most], read_chunk)?;
                chunks.collect()
            })
            .await
    }

    /// The places of a run's chunks, or of those of one host, in the order in which they were stored: at
    /// most `most` of those after `after` (0: from the start).
    ///
    /// # Errors
    /// What the database says.
    pub async fn log_places(
        &self,
        run: RunId,
        host: Option<HostId>,
        after: u64,
        most: u32,
    ) -> Result<Vec<u64>, Error> {
        self.logs()
            .read(move |db| {
                // Only keys, so that the sort holds no output.
                let mut statement = db.prepare_cached(
                    "SELECT chunks.rowid AS place FROM streams JOIN chunks ON chunks.stream = streams.id
                     WHERE run = ?1 AND (?2 IS NULL OR host = ?2) AND chunks.rowid > ?3
                     ORDER BY chunks.rowid LIMIT ?4",
                )?;
                let host = host.map(|host| blob(&host.0).to_vec());
                let values = params![blob(&run.0), host, int(after), most];
                statement.query_and_then(values, |row| row::count(row, "place"))?.collect()
            })
            .await
    }

    /// The chunks of a run, or of one of its hosts, in the order in which they were stored: those after `after` (0: from the
    /// start), until there are `most` bytes of them; at least one when there is any.
    ///
    /// # Errors
    /// What the database says.
    pub async fn log_read(
        &self,
        run: RunId,
        host: Option<HostId>,
        after: u64,
        most: usize,
    ) -> Result<Vec<PlacedChunk>, Error> {
        // Whoever has one stream reads it along its key; several have to be put in order first, keys alone.
        if let Some(chunks) =
            self.logs().read(move |db| read_one(db, run, host, after, most)).await?
        {
            return Ok(chunks);
        }
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        for place in self.log_places(run, host, after, AT_ONCE).await? {
            if let Some(placed) = self.log_chunk_at(place).await? {
                bytes += placed.chunk.data.len();
                chunks.push(placed);
            }
            if bytes >= most {
                break;
            }
        }
        Ok(chunks)
    }

    /// The chunk at this place; `None` when it was swept meanwhile.
    ///
    /// # Errors
    /// What the database says.
    pub async fn log_chunk_at(&self, place: u64) -> Result<Option<PlacedChunk>, Error> {
        self.logs()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT chunks.*, chunks.rowid AS place, host, attempt FROM chunks JOIN streams ON streams.id = stream
                     WHERE chunks.rowid = ?1",
                )?;
                let mut found = statement.query_and_then([int(place)], read_placed)?;
                found.next().transpose()
            })
            .await
    }

    /// Which hosts, and which attempts of each, have output in a run, and how much of it is durable.
    ///
    /// # Errors
    /// What the database says.
    pub async fn log_hosts(&self, run: RunId) -> Result<Vec<(HostId, u16, Offsets)>, Error> {
        self.logs()
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT stdout, stderr, stdout_dropped, stderr_dropped, host, attempt
                     FROM streams WHERE run = ?1 ORDER BY host, attempt",
                )?;
                let found = statement.query_and_then([blob(&run.0)], |row| {
                    Ok((row::host(row, "host")?, row.get("attempt")?, offsets(row, 0)?))
                })?;
                found.collect()
            })
            .await
    }
}

/// As [`Store::log_read`]; `None` when there are several streams.
fn read_one(
    db: &Connection,
    run: RunId,
    host: Option<HostId>,
    after: u64,
    most: usize,
) -> Result<Option<Vec<PlacedChunk>>, Error> {
    let mut streams = db.prepare_cached(
        "SELECT id FROM streams WHERE run = ?1 AND (?2 IS NULL OR host = ?2) LIMIT 2",
    )?;
    let host = host.map(|host| blob(&host.0).to_vec());
    let ids = streams.query_map(params![blob(&run.0), host], |row| row.get(0))?;
    let ids: Vec<i64> = ids.collect::<Result<_, _>>()?;
    let stream = match ids.as_slice() {
        [] => return Ok(Some(Vec::new())),
        [stream] => *stream,
        _ => return Ok(None),
    };
    let mut statement = db.prepare_cached(
        "SELECT chunks.*, chunks.rowid AS place, host, attempt FROM chunks JOIN streams ON streams.id = stream
         WHERE stream = ?1 AND n > coalesce((SELECT n FROM chunks WHERE rowid = ?2 AND stream = ?1), 0)
         ORDER BY n",
    )?;
    let found = statement.query_and_then(params![stream, int(after)], read_placed)?;
    let (mut chunks, mut bytes) = (Vec::new(), 0);
    for placed in found {
        let placed: PlacedChunk = placed?;
        bytes += placed.chunk.data.len();
        chunks.push(placed);
        if bytes >= most {
            break;
        }
    }
    Ok(Some(chunks))
}

fn read_placed(row: &Row<'_>) -> Result<PlacedChunk, Error> {
    let (host, attempt) = (row::host(row, "host")?, row.get("attempt")?);
    Ok(PlacedChunk { place: row::count(row, "place")?, host, attempt, chunk: read_chunk(row)? })
}

/// Whether the chunk holds whole records that lead from `from` to `to`. Hosts are hostile:
/// nothing is believed that was not counted, and nothing grows beyond its bound meanwhile.
fn check(chunk: &NewChunk) -> Result<(), &'static str> {
    let raw_len = usize::try_from(chunk.raw_len).unwrap_or(usize::MAX);
    if raw_len > record::MAX_CHUNK {
        return Err("longer than a chunk may be");
    }
    // zstd adds little to what it cannot compress; more is padding.
    if chunk.data.len() > raw_len + raw_len / 128 + 1024 {
        return Err("more compressed than raw bytes");
    }
    if chunk.key.node != ONLY_NODE {
        return Err("there is no such node");
    }
    if parts(&chunk.from).iter().chain(&parts(&chunk.to)).any(|offset| *offset > MAX_OFFSET) {
        return Err("an offset beyond all disks");
    }
    let raw = row::decompress(&chunk.data, raw_len)
        .map_err(|_| "not compressed as it should be, or longer than it says")?;
    if raw.len() != raw_len {
        return Err("shorter than it says");
    }
    let end = walk(&raw, chunk.from)?;
    if end == chunk.to { Ok(()) } else { Err("its records lead elsewhere than it says") }
}

/// Where the records lead.
fn walk(mut raw: &[u8], from: Offsets) -> Result<Offsets, &'static str> {
    let mut offsets = from;
    while !raw.is_empty() {
        let read = record::read(raw).map_err(|_| "not made of records")?;
        let (record, taken) = read.ok_or("its last record is cut off")?;
        if matches!(record.body, Body::Gap(length) if length > MAX_OFFSET) {
            return Err("a gap beyond all disks");
        }
        offsets = offsets.after(&record);
        if parts(&offsets).iter().any(|offset| *offset > MAX_OFFSET) {
            return Err("an offset beyond all disks");
        }
        raw = raw.get(taken..).unwrap_or_default();
    }
    Ok(offsets)
}

fn append(db: &Connection, chunk: &NewChunk, now: Timestamp) -> Result<Offsets, Error> {
    let known = stream(db, chunk.host, &chunk.key)?;
    let durable = known.as_ref().map(|stream| stream.durable).unwrap_or_default();
    if within(&chunk.to, &durable) {
        return Ok(durable);
    }
    if chunk.from != durable {
        return Err(Error::OutOfOrder { durable });
    }
    let (id, n) = match known {
        Some(stream) => (stream.id, stream.chunks + 1),
        None => (begin_stream(db, chunk, now)?, 1),
    };
    let (from, to) = (&chunk.from, &chunk.to);
    db.prepare_cached("INSERT INTO chunks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
        .execute(params![
            id,
            n,
            int(from.stdout),
            int(from.stderr),
            int(from.stdout_dropped),
            int(from.stderr_dropped),
            int(to.stdout),
            int(to.stderr),
            int(to.stdout_dropped),
            int(to.stderr_dropped),
            chunk.data,
        ])?;
    let mut statement = db.prepare_cached(
        "UPDATE streams SET stdout = :stdout, stderr = :stderr, stdout_dropped = :stdout_dropped,
             stderr_dropped = :stderr_dropped, chunks = :chunks, bytes = bytes + :bytes WHERE id = :id",
    )?;
    statement.execute(named_params! {
        ":id": id,
        ":stdout": int(to.stdout),
        ":stderr": int(to.stderr),
        ":stdout_dropped": int(to.stdout_dropped),
        ":stderr_dropped": int(to.stderr_dropped),
        ":chunks": n,
        ":bytes": int(chunk.data.len() as u64),
    })?;
    Ok(chunk.to)
}

fn begin_stream(db: &Connection, chunk: &NewChunk, now: Timestamp) -> Result<i64, Error> {
    let mut statement = db.prepare_cached(
        "INSERT INTO streams (run, host, node, attempt, stdout, stderr, stdout_dropped, stderr_dropped,
                              chunks, bytes, begun_at)
         VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, 0, 0, ?5)",
    )?;
    let key = &chunk.key;
    Ok(statement.insert(params![
        blob(&key.run.0),
        blob(&chunk.host.0),
        key.node.0,
        key.attempt,
        now.as_millis(),
    ])?)
}

/// A task's output as far as it is stored.
struct Stream {
    id: i64,
    durable: Offsets,
    chunks: i64,
}

fn stream(db: &Connection, host: HostId, key: &TaskKey) -> Result<Option<Stream>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id, chunks, stdout, stderr, stdout_dropped, stderr_dropped FROM streams
         WHERE run = ?1 AND host = ?2 AND node = ?3 AND attempt = ?4",
    )?;
    let found = statement
        .query_row(params![blob(&key.run.0), blob(&host.0), key.node.0, key.attempt], |row| {
            Ok((row.get(0)?, row.get(1)?, offsets(row, 2)))
        });
    let Some((id, chunks, durable)) = found.optional()? else { return Ok(None) };
    Ok(Some(Stream { id, chunks, durable: durable? }))
}

fn read_chunk(row: &Row<'_>) -> Result<StoredChunk, Error> {
    Ok(StoredChunk {
        n: row::count(row, "n")?,
        from: offsets(row, 2)?,
        to: offsets(row, 6)?,
        data: row.get("data")?,
    })
}

/// Four columns from the `first` on.
fn offsets(row: &Row<'_>, first: usize) -> Result<Offsets, Error> {
    let part = |column: usize| {
        let value: i64 = row.get(first + column)?;
        u64::try_from(value).map_err(|_| Error::corrupt(format!("an offset: {value}")))
    };
    Ok(Offsets {
        stdout: part(0)?,
        stderr: part(1)?,
        stdout_dropped: part(2)?,
        stderr_dropped: part(3)?,
    })
}

fn parts(offsets: &Offsets) -> [u64; 4] {
    [offsets.stdout, offsets.stderr, offsets.stdout_dropped, offsets.stderr_dropped]
}

/// Whether `inner` lies nowhere beyond `outer`.
fn within(inner: &Offsets, outer: &Offsets) -> bool {
    parts(inner).iter().zip(parts(outer)).all(|(inner, outer)| *inner <= outer)
}
