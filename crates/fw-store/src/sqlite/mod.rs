//! One `SQLite` database: one thread that writes, a few connections that read.

mod migrate;
mod open;
mod readers;
mod writer;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fw_proto::Timestamp;
use rusqlite::Connection;

use crate::Error;
use crate::lock::Lock;
use readers::Readers;
use writer::{Failing, Writer};

pub(crate) use migrate::{Schema, check_schema};
pub(crate) use open::{connect, copy};

/// One database.
pub(crate) struct Database {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
}

/// A database that is not open yet, and of which this build knows what it holds.
pub(crate) struct Unopened {
    schema: &'static Schema,
    /// The file.
    pub(crate) path: PathBuf,
    /// The migrations that it has; 0 when it is new.
    pub(crate) version: u32,
}

impl Unopened {
    /// Looks at the file, and changes nothing about it; blocks.
    ///
    /// # Errors
    /// It is of a newer build, of another one, or damaged.
    pub(crate) fn check(dir: &Path, schema: &'static Schema) -> Result<Self, Error> {
        let path = dir.join(schema.file);
        match migrate::version(&path, schema) {
            Ok(version) => Ok(Self { schema, path, version }),
            Err(error) => Err(reason(error, &path).in_file(&path)),
        }
    }

    /// Whether a store was ever opened with it.
    ///
    /// # Errors
    /// It is damaged.
    pub(crate) fn has_lived(&self) -> Result<bool, Error> {
        let lived = || {
            let connection = migrate::looking(&self.path)?;
            Ok(connection.prepare("SELECT 1 FROM store")?.exists([])?)
        };
        lived().map_err(|error: Error| error.in_file(&self.path))
    }

    /// Opens and migrates; blocks. The lock is let go when the writer has ended.
    pub(crate) fn open(
        self,
        readers: usize,
        lock: Arc<Lock>,
        now: Timestamp,
    ) -> Result<Database, Error> {
        let Self { schema, path, .. } = self;
        let open = || {
            let mut connection = open::writing(&path)?;
            migrate::migrate(&mut connection, &path, schema, now)?;
            let readers = Readers::open(&path, readers)?;
            let writer = Writer::start(schema.file, connection, lock)?;
            Ok((writer, readers))
        };
        match open() {
            Ok((writer, readers)) => Ok(Database { path, writer, readers }),
            Err(error) => Err(reason(error, &path).in_file(&path)),
        }
    }
}

impl Database {
    /// One write transaction; returns when it is durable.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.write_then(work, |_| ()).await
    }

    /// As [`Database::write`], for work that checks before it writes, so that from then on it fails only
    /// when nothing can be written: its neighbours in the commit then fail with it.
    pub(crate) async fn write_checked<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let written = self.writer.call(Failing::Together, work, |_| ()).await;
        written.map_err(|error| reason(error, &self.path).in_file(&self.path))
    }

    /// One write transaction; once it is durable, `after` runs on the thread that writes: in the
    /// order of the commits, and whether the caller still waits or not.
    pub(crate) async fn write_then<T, F, A>(&self, work: F, after: A) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let written = self.writer.call(Failing::Alone, work, after).await;
        written.map_err(|error| reason(error, &self.path).in_file(&self.path))
    }

    /// One read transaction: all its statements see the same state.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.readers.call(work).await.map_err(|error| error.in_file(&self.path))
    }

    /// Lets what is queued finish, then closes the file.
    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.readers.close();
    }
}

/// What the file system says after an error that `SQLite` only calls one of input or output, or
/// of opening: it tells a full disk apart, but not an exceeded quota, nor a file system that the
/// kernel has made read-only, nor which file is another user's.
fn reason(error: Error, path: &Path) -> Error {
    use rusqlite::ErrorCode::{CannotOpen, SystemIoFailure};
    let vague = |error: &rusqlite::Error| {
        matches!(error.sqlite_error_code(), Some(CannotOpen | SystemIoFailure))
    };
    // `ReadOnly` as when the index beside a database is another user's.
    let unsaid = matches!(&error, Error::ReadOnly { what } if what.is_empty())
        || matches!(&error, Error::Sqlite { source, .. } if vague(source));
    if unsaid { look(path).err().unwrap_or(error) } else { error }
}

/// Tries what `SQLite` needs to do with a database and the files beside it.
fn look(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        match File::options().read(true).write(true).open(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("open {}", file.display()))(error));
            }
            Ok(_) | Err(_) => {}
        }
    }
    probe(path).map_err(Error::io(format!("write {}", path.display())))
}

/// Writes as much beside the database as `SQLite` does at least: on a full disk a file can
/// still be made, but nothing written to it.
fn probe(path: &Path) -> std::io::Result<()> {
    let mut file =
        tempfile::NamedTempFile::new_in(path.parent().unwrap_or_else(|| Path::new(".")))?;
    file.write_all(&[0; PROBE])?;
    file.as_file().sync_all()
}

/// The log's index grows by this much at a time.
const PROBE: usize = 32 * 1024;

#[cfg(test)]
mod again;
#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod migrate_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod tests;
