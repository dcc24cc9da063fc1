//! Connections and how they are set up.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::Error;

/// Statements are few and known; each connection keeps them all compiled.
const STATEMENTS: usize = 128;

/// Bytes of a page.
pub(super) const PAGE: u64 = 8192;

/// Pages of 8 KiB: chunks of output are mostly larger than the default of 4 KiB.
///
/// Deleted rows leave free pages that new rows use; `auto_vacuum` lets the sweeper give
/// pages back when there are too many of them. Both must be set before the first table.
const AT_CREATION: &str = "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;";

/// `FULL` costs nothing under group commit and keeps what was acknowledged through a power cut.
/// The log is written back every 2,000 pages (16 MiB), and cut when it has grown beyond 64 MiB.
/// No memory map: a read error there would be a signal instead of an error.
/// Caches are small, for the kernel has the pages too: two that write and eight that read are 16 MiB.
const WRITING: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -4096;
    PRAGMA wal_autocheckpoint = 2000;
    PRAGMA journal_size_limit = 67108864;
";

const READING: &str =
    "PRAGMA query_only = ON; PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY;";

/// A bare connection.
pub(crate) fn connect(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on the values bound. Without this a statement that could use a partial
    // index is compiled anew each time it is run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    #[cfg(test)]
    let connection = super::plan_tests::overheard(connection);
    Ok(connection)
}

/// The connection that writes. Creates the file, readable by its owner only; `SQLite` gives
/// the files beside it the same mode.
pub(super) fn writing(path: &Path) -> Result<Connection, Error> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io(format!("open {}", path.display())))?;
    let connection = connect(path)?;
    connection.execute_batch(AT_CREATION)?;
    connection.execute_batch(WRITING)?;
    Ok(connection)
}

/// A connection that reads.
pub(super) fn reading(path: &Path) -> Result<Connection, Error> {
    let connection = connect(path)?;
    connection.execute_batch(READING)?;
    Ok(connection)
}

/// Copies a database that may be in use, as it is at one instant.
///
/// One step copies all pages under one read transaction: in several steps each write in
/// between would begin the copy anew.
pub(crate) fn copy(from: &Connection, to: &Path) -> Result<(), Error> {
    copy_pages(from, to).map_err(|error| error.in_file(to))
}

fn copy_pages(from: &Connection, to: &Path) -> Result<(), Error> {
    let mut target = Connection::open(to)?;
    let step = Backup::new(from, &mut target)?.step(-1)?;
    if step != StepResult::Done {
        return Err(Error::corrupt("a copy of the database stopped half way"));
    }
    // The copy says that it is in WAL mode; nothing beside the file is wanted.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    target.close().map_err(|(_, error)| error)?;
    let file = std::fs::File::open(to).map_err(Error::io(format!("open {}", to.display())))?;
    file.sync_all().map_err(Error::io(format!("sync {}", to.display())))
}
