//! How values lie in rows. The database has its own forms, apart from those of the wire.

pub(crate) mod actor;
mod change;
mod event;
mod plan;
mod text;

use std::cell::RefCell;
use std::str::FromStr;

use fw_proto::{HostId, Timestamp};
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::Error;

pub(crate) use change::{CHANGE_FORMAT, decode_change_event, encode_change_event};
pub(crate) use event::{FORMAT, decode_event, encode_event};
pub(crate) use plan::CommandRow;
pub(crate) use text::{Stored, Text};

/// Larger bodies are compressed: plans and reports of thousands of hosts shrink to a third.
const COMPRESS_FROM: usize = 1024;

/// The first bytes of a zstd frame (RFC 8878 §3.1.1). JSON never begins so.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// JSON, compressed when it is long.
pub(crate) fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("row types have text keys and no floats");
    if json.len() < COMPRESS_FROM {
        return json;
    }
    PACKER.with_borrow_mut(|packer| packer.compress(&json)).unwrap_or(json)
}

thread_local! {
    /// Kept: making one costs more than what it does to most bodies.
    static PACKER: RefCell<zstd::bulk::Compressor<'static>> =
        RefCell::new(zstd::bulk::Compressor::new(1).expect("level 1 is there, and memory suffices"));
    static UNPACKER: RefCell<zstd::bulk::Decompressor<'static>> =
        RefCell::new(zstd::bulk::Decompressor::new().expect("memory suffices"));
}

/// Reads zstd frames that hold at most so many bytes.
///
/// # Errors
/// They are damaged, or hold more.
pub(crate) fn decompress(frames: &[u8], most: usize) -> std::io::Result<Vec<u8>> {
    UNPACKER.with_borrow_mut(|unpacker| unpacker.decompress(frames, most))
}

/// Reads what [`pack`] wrote.
pub(crate) fn unpack<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let read = if body.starts_with(ZSTD) {
        let json = zstd::decode_all(body).map_err(Error::corrupt)?;
        serde_json::from_slice(&json)
    } else {
        serde_json::from_slice(body)
    };
    read.map_err(Error::corrupt)
}

/// JSON text.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("row types have text keys and no floats")
}

/// Reads JSON text from a column.
pub(crate) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Error> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| Error::corrupt(format!("{column}: {error}")))
}

/// `SQLite`'s integers are signed. Counts beyond 2^63 do not come about.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A column as a count.
pub(crate) fn count(row: &Row<'_>, column: &str) -> Result<u64, Error> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Error::corrupt(format!("{column}: {value}")))
}

/// A column as a UUID.
pub(crate) fn uuid(row: &Row<'_>, column: &str) -> Result<Uuid, Error> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

/// A column as a UUID, when it has one.
pub(crate) fn maybe_uuid(row: &Row<'_>, column: &str) -> Result<Option<Uuid>, Error> {
    let bytes: Option<[u8; 16]> = row.get(column)?;
    Ok(bytes.map(Uuid::from_bytes))
}

/// A column as an instant.
pub(crate) fn at(row: &Row<'_>, column: &str) -> Result<Timestamp, Error> {
    Ok(Timestamp::from_millis(row.get(column)?))
}

/// A column as an instant, when it has one.
pub(crate) fn maybe_at(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, Error> {
    let ms: Option<i64> = row.get(column)?;
    Ok(ms.map(Timestamp::from_millis))
}

/// A column as one of a closed set of words.
pub(crate) fn stored<T: Stored>(row: &Row<'_>, column: &str) -> Result<T, Error> {
    let text: String = row.get(column)?;
    T::parse(&text).ok_or_else(|| Error::corrupt(format!("{column}: {text:?}")))
}

/// A column as one of a closed set of words, when it has one.
pub(crate) fn maybe_stored<T: Stored>(row: &Row<'_>, column: &str) -> Result<Option<T>, Error> {
    let text: Option<String> = row.get(column)?;
    let parse =
        |text: String| T::parse(&text).ok_or_else(|| Error::corrupt(format!("{column}: {text:?}")));
    text.map(parse).transpose()
}

/// A column as a name.
pub(crate) fn name<T: FromStr>(row: &Row<'_>, column: &str) -> Result<T, Error> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| Error::corrupt(format!("{column}: {text:?}")))
}

/// A column as a name, when it has one.
pub(crate) fn maybe_name<T: FromStr>(row: &Row<'_>, column: &str) -> Result<Option<T>, Error> {
    let text: Option<String> = row.get(column)?;
    let parse =
        |text: String| text.parse().map_err(|_| Error::corrupt(format!("{column}: {text:?}")));
    text.map(parse).transpose()
}

/// An id as it lies in a row.
pub(crate) fn blob(id: &Uuid) -> &[u8] {
    id.as_bytes()
}

/// A host's id from a column.
pub(crate) fn host(row: &Row<'_>, column: &str) -> Result<HostId, Error> {
    uuid(row, column).map(HostId)
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot go wrong");
        text
    })
}
