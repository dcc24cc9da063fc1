//! One `SQLite` database: one thread that writes, a few connections that read.

mod migrate;
mod open;
mod readers;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fw_proto::Timestamp;
use rusqlite::Connection;

use crate::Error;
use readers::Readers;
use writer::Writer;

pub(crate) use migrate::{Schema, check_schema};
pub(crate) use open::{connect, copy};

/// One database.
pub(crate) struct Database {
    schema: &'static Schema,
    dir: PathBuf,
    writer: Writer,
    readers: Readers,
}

impl Database {
    /// Opens and migrates; blocks. The lock is let go when the writer has ended.
    pub(crate) fn open(
        dir: &Path,
        schema: &'static Schema,
        readers: usize,
        lock: Arc<File>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let path = dir.join(schema.file);
        let open = || {
            let mut connection = open::writing(&path)?;
            migrate::migrate(&mut connection, &path, schema, now)?;
            let readers = Readers::open(&path, readers)?;
            let writer = Writer::start(schema.file, connection, lock)?;
            Ok(Self { schema, dir: dir.to_owned(), writer, readers })
        };
        open().map_err(|error: Error| error.in_file(schema.file))
    }

    /// One write transaction; returns when it is durable.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.write_then(work, |_| ()).await
    }

    /// One write transaction; once it is durable, `after` runs on the thread that writes: in the
    /// order of the commits, and whether the caller still waits or not.
    pub(crate) async fn write_then<T, F, A>(&self, work: F, after: A) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let written = self.writer.call(work, after).await;
        written.map_err(|error| self.reason(error).in_file(self.schema.file))
    }

    /// One read transaction: all its statements see the same state.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.readers.call(work).await.map_err(|error| error.in_file(self.schema.file))
    }

    /// What the file system says after an error that `SQLite` only calls one of input or output:
    /// it tells a full disk apart, but not an exceeded quota, nor a file system that the kernel
    /// has made read-only.
    fn reason(&self, error: Error) -> Error {
        let failed = |error: &rusqlite::Error| {
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
        };
        if !matches!(&error, Error::Sqlite(source) if failed(source)) {
            return error;
        }
        let probe = tempfile::NamedTempFile::new_in(&self.dir);
        match probe.map_err(Error::io("probe the data directory")) {
            Err(reason @ (Error::Full | Error::ReadOnly)) => reason,
            Ok(_) | Err(_) => error,
        }
    }

    /// Lets what is queued finish, then closes the file.
    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.readers.close();
    }
}

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod tests;
