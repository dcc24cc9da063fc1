//! What can go wrong, by what a caller can do about it.

use std::path::PathBuf;
use std::sync::Arc;

use fw_proto::record::Offsets;
use fw_proto::{JobName, RunId, Timestamp};
use rusqlite::ErrorCode;

/// Why the store did not do what it was asked. Nothing of a failed call is kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The run has other events than the caller thinks: reload it.
    #[error("run {run} was changed by someone else")]
    Conflict {
        /// Which run.
        run: RunId,
    },
    /// This fire has its verdict already.
    #[error("the fire of job {job} at {nominal} has its verdict already")]
    FireTaken {
        /// Whose fire.
        job: JobName,
        /// The instant it was due.
        nominal: Timestamp,
    },
    /// Another server uses the data directory.
    #[error("{} is in use by another server; stop it first", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// A backup is not restored over data.
    #[error("{} is not empty; use another directory, or --force to move what is there aside", dir.display())]
    NotEmpty {
        /// The data directory.
        dir: PathBuf,
    },
    /// A later build has been here.
    #[error("{file} has schema {found}, this build knows {known}; use the newer build")]
    NewerSchema {
        /// Which database.
        file: String,
        /// Its last migration.
        found: u32,
        /// The last migration of this build.
        known: u32,
    },
    /// The database was made by other migrations than those of this build.
    #[error(
        "{file} was made by another migration {number} than this build's; use the build that made it"
    )]
    ChangedMigration {
        /// Which database.
        file: String,
        /// Which migration.
        number: u32,
    },
    /// No space is left. The store goes on by itself when there is some again.
    #[error("the disk of the data directory is full")]
    Full,
    /// The file system cannot be written.
    #[error("the data directory is read-only")]
    ReadOnly,
    /// The chunk does not follow what is there: send from `durable` on.
    #[error("the chunk does not follow what is stored")]
    OutOfOrder {
        /// All before this is stored.
        durable: Offsets,
    },
    /// The chunk is not what it claims to be.
    #[error("malformed chunk of output: {0}")]
    MalformedChunk(&'static str),
    /// The cursor is none of this list.
    #[error("this is no cursor of this list; leave it out to begin at the first page")]
    BadCursor,
    /// What is stored cannot be read.
    #[error("{file} is damaged: {what}; restore a backup")]
    Corrupt {
        /// Which file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The file is not a whole backup.
    #[error("{} is not a whole backup: {what}", file.display())]
    BadBackup {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A file outside the databases.
    #[error("{what}")]
    Io {
        /// What was done with which file.
        what: String,
        /// Why it did not work.
        source: Arc<std::io::Error>,
    },
    /// Anything else that `SQLite` says.
    #[error("database")]
    Sqlite(#[source] Arc<rusqlite::Error>),
}

impl Error {
    /// For `map_err`: what was done with which file.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| {
            use std::io::ErrorKind;
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                return Self::Full;
            }
            if source.kind() == ErrorKind::ReadOnlyFilesystem {
                return Self::ReadOnly;
            }
            Self::Io { what, source: Arc::new(source) }
        }
    }

    /// A row that this build cannot have written.
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt { file: String::new(), what: what.to_string() }
    }

    /// Names the database in which the error came about.
    pub(crate) fn in_file(self, name: &str) -> Self {
        if let Self::Corrupt { file, what } = &self
            && file.is_empty()
        {
            return Self::Corrupt { file: name.to_owned(), what: what.clone() };
        }
        self
    }
}

impl From<rusqlite::Error> for Error {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "foreign enums; the rest is passed on whole"
    )]
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => Self::corrupt(error),
            other => match other.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Self::Full,
                Some(ErrorCode::ReadOnly) => Self::ReadOnly,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::corrupt(error),
                _ => Self::Sqlite(Arc::new(error)),
            },
        }
    }
}
