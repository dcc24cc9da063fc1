//! What can go wrong, by what a caller can do about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fw_proto::record::Offsets;
use fw_proto::{ChangeId, JobName, RunId, Timestamp};
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
    /// The rollout or runbook has other events than the caller thinks: reload it.
    #[error("change {change} was changed by someone else")]
    ChangeConflict {
        /// Which.
        change: ChangeId,
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
    #[error("{} is in use by another server{}; stop it first", dir.display(), process(*pid))]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Its process, as it says itself; another container may number processes differently.
        pid: Option<u32>,
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
    /// One of the two databases is gone.
    #[error("{} is missing or empty; put it back, or restore a backup, {way_out}", file.display())]
    Missing {
        /// Which one.
        file: PathBuf,
        /// What else can be done.
        way_out: &'static str,
    },
    /// No space is left. The store goes on by itself when there is some again.
    #[error("{what}: the disk is full; make room on it, then try again")]
    Full {
        /// What was done with which file.
        what: String,
    },
    /// The file system cannot be written.
    #[error("{what}: the file system is read-only; remount it writable, then try again")]
    ReadOnly {
        /// What was done with which file.
        what: String,
    },
    /// The files are another user's.
    #[error("{what}: permission denied; run as the owner of the directory and of all files in it")]
    Denied {
        /// What was done with which file.
        what: String,
    },
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
    #[error("use {file}")]
    Sqlite {
        /// Which file.
        file: String,
        /// What it says.
        source: Arc<rusqlite::Error>,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl Error {
    /// For `map_err`: what was done with which file.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| {
            use std::io::ErrorKind;
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                return Self::Full { what };
            }
            if source.kind() == ErrorKind::ReadOnlyFilesystem {
                return Self::ReadOnly { what };
            }
            if source.kind() == ErrorKind::PermissionDenied {
                return Self::Denied { what };
            }
            Self::Io { what, source: Arc::new(source) }
        }
    }

    /// A row that this build cannot have written.
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt { file: String::new(), what: what.to_string() }
    }

    /// Names the database in which the error came about, unless it is named already.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        let unnamed = match &mut self {
            Self::Corrupt { file, .. } | Self::Sqlite { file, .. } => Some((file, "")),
            Self::Full { what } | Self::ReadOnly { what } => Some((what, "write ")),
            Self::Denied { what } => Some((what, "open ")),
            Self::Conflict { .. }
            | Self::FireTaken { .. }
            | Self::InUse { .. }
            | Self::NotEmpty { .. }
            | Self::NewerSchema { .. }
            | Self::ChangedMigration { .. }
            | Self::Missing { .. }
            | Self::OutOfOrder { .. }
            | Self::MalformedChunk(_)
            | Self::BadCursor
            | Self::BadBackup { .. }
            | Self::Closed
            | Self::ChangeConflict { .. }
            | Self::Io { .. } => None,
        };
        if let Some((name, verb)) = unnamed.filter(|(name, _)| name.is_empty()) {
            *name = format!("{verb}{}", path.display());
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
                Some(ErrorCode::DiskFull) => Self::Full { what: String::new() },
                Some(ErrorCode::ReadOnly) => Self::ReadOnly { what: String::new() },
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::corrupt(error),
                _ => Self::Sqlite { file: String::new(), source: Arc::new(error) },
            },
        }
    }
}
