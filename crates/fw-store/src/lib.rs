//! Remembers: all SQL.
//!
//! A [`Store`] is a data directory with two `SQLite` databases: `main.db` holds what was
//! decided and what became of it, `logs.db` what commands wrote. Each method is one whole
//! transaction and returns once it is durable. There is one file per noun; the databases
//! themselves (one thread that writes, a few connections that read, migrations) are in `sqlite/`.
//!
//! On a full disk calls fail with [`Error::Full`], which says where; reads go on, and so do writes as soon as
//! there is space again.

mod audit;
mod backup;
mod beside;
mod board;
mod change;
mod error;
mod fire;
mod foreign;
mod host;
mod invite;
mod job;
mod lock;
mod log;
mod maintenance;
mod notice;
mod retry;
mod roster;
mod row;
mod run;
mod scratch;
mod secret;
mod session;
mod sqlite;
mod token;
mod upkeep;
mod user;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(test)]
mod property_tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fw_proto::{Epoch, Incarnation, Timestamp};
use fw_rt::Clock;
use rusqlite::{OptionalExtension as _, params};
use uuid::Uuid;

pub use audit::{AuditQuery, NewAudit};
pub use backup::{BackupInfo, Part, restore_backup, verify_backup};
pub use beside::Beside;
pub use board::{Past, Quarter};
pub use change::{ChangeAppend, ChangeQuery, ChangeRow, StoredChange};
pub use error::Error;
pub use fire::NewFire;
pub use foreign::{Contents, Table, copy_database, database_contents, put_database};
pub use host::{Changed, HostRow, Standing};
pub use invite::{Enrolled, Enrolment, Invite};
pub use job::StoredJob;
pub use log::{NewChunk, PlacedChunk, StoredChunk};
pub use maintenance::{NewMaintenance, StoredMaintenance, StoredWindows};
pub use notice::{NewNotice, Notice};
pub use retry::Retry;
pub use run::{Append, RunQuery, StoredPlan};
pub use session::{NewSession, SessionRow};
pub use token::{HeldToken, TokenRow};
pub use upkeep::{Retention, Size, Sizes, Swept};
pub use user::{SetUp, UserChanged, UserRow};

use tokio::sync::watch;

use lock::Lock;
use roster::Roster;
use sqlite::{Database, Schema, Unopened};

/// Decisions and results.
pub(crate) const MAIN: Schema = Schema {
    file: "main.db",
    steps: &[
        include_str!("../migrations/main/0001_begin.sql"),
        include_str!("../migrations/main/0002_retries.sql"),
        include_str!("../migrations/main/0003_maintenances.sql"),
        include_str!("../migrations/main/0004_access.sql"),
        include_str!("../migrations/main/0005_shadow.sql"),
        include_str!("../migrations/main/0006_recurring_maintenances.sql"),
        include_str!("../migrations/main/0007_changes.sql"),
        include_str!("../migrations/main/0008_overview.sql"),
        include_str!("../migrations/main/0009_fires_once.sql"),
    ],
};

/// Output.
pub(crate) const LOGS: Schema =
    Schema { file: "logs.db", steps: &[include_str!("../migrations/logs/0001_begin.sql")] };

/// What a fleet remembers. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// What goes into the audit with the next change through this handle.
    note: Option<Arc<NewAudit>>,
}

/// The main database, and what a change of it is noted with.
pub(crate) struct Main<'s> {
    db: &'s Database,
    note: Option<Arc<NewAudit>>,
    noted: &'s watch::Sender<i64>,
}

impl Main<'_> {
    /// As [`Database::write`], with the note.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, Error> + Send + 'static,
    {
        self.write_then(work, |_| ()).await
    }

    /// As [`Database::write_then`], with the note. What changes nothing is not noted.
    pub(crate) async fn write_then<T, F, A>(&self, work: F, after: A) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, Error> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let Some(note) = self.note.clone() else { return self.db.write_then(work, after).await };
        let with_note = move |db: &rusqlite::Connection| {
            let before = db.total_changes();
            let done = work(db)?;
            let changed = db.total_changes() > before;
            let entry = changed.then(|| audit::append(db, &note)).transpose()?;
            Ok((done, entry))
        };
        let noted = self.noted.clone();
        let told = move |(done, entry): &(T, Option<i64>)| {
            after(done);
            if let Some(entry) = entry {
                noted.send_replace(*entry);
            }
        };
        Ok(self.db.write_then(with_note, told).await?.0)
    }

    /// Writes what is only noted.
    pub(crate) async fn note(&self, notes: Vec<NewAudit>) -> Result<(), Error> {
        let append = move |db: &rusqlite::Connection| {
            notes.iter().try_fold(0, |_, note| audit::append(db, note))
        };
        let noted = self.noted.clone();
        let told = move |entry: &i64| {
            noted.send_replace(*entry);
        };
        self.db.write_then(append, told).await.map(drop)
    }

    /// As [`Database::read`].
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, Error> + Send + 'static,
    {
        self.db.read(work).await
    }
}

struct Inner {
    main: Database,
    logs: Database,
    roster: Roster,
    /// The last entry of the audit that was made since the store was opened.
    noted: watch::Sender<i64>,
    dir: PathBuf,
    clock: Clock,
    incarnation: Incarnation,
    epoch: Epoch,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Reads at one time, per database.
    pub read_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_connections: 4 }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.inner.dir)
            .field("incarnation", &self.inner.incarnation)
            .field("epoch", &self.inner.epoch)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, which is made (mode 0700) when it is not there, migrates it
    /// and begins a new epoch.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NewerSchema`], [`Error::ChangedMigration`], and what files can do.
    pub async fn open(dir: &Path, clock: Clock) -> Result<Self, Error> {
        Self::open_with(dir, clock, Options::default()).await
    }

    /// Likewise, with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(dir: &Path, clock: Clock, options: Options) -> Result<Self, Error> {
        let dir = dir.to_owned();
        let open = move || {
            let readers = options.read_connections;
            let lock = Arc::new(Lock::take(&dir)?);
            scratch::clear(&dir);
            let now = clock.now();
            // Both, before either is changed.
            let (main, logs) = (Unopened::check(&dir, &MAIN)?, Unopened::check(&dir, &LOGS)?);
            refuse_half(&main, &logs)?;
            let main = main.open(readers, Arc::clone(&lock), now)?;
            let logs = logs.open(readers, lock, now);
            Ok::<_, Error>((dir, clock, main, logs))
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(|_| Error::Closed)?;
        let (dir, clock, main, logs) = opened?;
        // Who tries again must not meet this try's lock: what was opened is closed first.
        let logs = match logs {
            Ok(logs) => logs,
            Err(error) => {
                main.close().await;
                return Err(error);
            }
        };
        let now = clock.now();
        let begin = async {
            let (incarnation, epoch) = main.write(move |db| begin_life(db, now)).await?;
            let roster = Roster::load(main.read(host::all).await?);
            Ok((incarnation, epoch, roster))
        };
        match begin.await {
            Ok((incarnation, epoch, roster)) => {
                let noted = watch::Sender::default();
                let inner = Inner { main, logs, roster, noted, dir, clock, incarnation, epoch };
                Ok(Self { inner: Arc::new(inner), note: None })
            }
            Err(error) => {
                main.close().await;
                logs.close().await;
                Err(error)
            }
        }
    }

    /// This life of the store: new when it is made, and after each restore.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// This server's fencing number: higher each time the store is opened.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Finishes what was begun, closes the files and lets go of the directory. Later calls
    /// through other clones fail with [`Error::Closed`].
    pub async fn close(self) {
        self.inner.main.close().await;
        self.inner.logs.close().await;
    }

    pub(crate) fn main(&self) -> Main<'_> {
        Main { db: &self.inner.main, note: self.note.clone(), noted: &self.inner.noted }
    }

    pub(crate) fn logs(&self) -> &Database {
        &self.inner.logs
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.inner.roster
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Notes that this server was running at `at`; after a crash that is where downtime begins.
    ///
    /// # Errors
    /// What the database says.
    pub async fn touch_alive(&self, at: Timestamp) -> Result<(), Error> {
        self.main()
            .write(move |db| {
                db.prepare_cached("UPDATE store SET alive_at = ?1")?.execute([at.as_millis()])?;
                Ok(())
            })
            .await
    }

    /// When a server was last known to run on this store.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_alive(&self) -> Result<Option<Timestamp>, Error> {
        self.main()
            .read(|db| {
                let alive = "SELECT alive_at FROM store";
                let ms: Option<i64> = db.prepare_cached(alive)?.query_row([], |row| row.get(0))?;
                Ok(ms.map(Timestamp::from_millis))
            })
            .await
    }
}

/// Refuses a directory of which one database was taken away: the other would go on beside an empty
/// one, and nobody would be told what is gone. The databases are made one after the other, so a
/// start that was cut short has left `main.db` at most, and it does not know of a life yet.
fn refuse_half(main: &Unopened, logs: &Unopened) -> Result<(), Error> {
    let missing =
        |lost: &Unopened, way_out| Err(Error::Missing { file: lost.path.clone(), way_out });
    if main.version == 0 && logs.version > 0 {
        return missing(main, "or use another data directory to begin anew");
    }
    if logs.version > 0 || main.version == 0 || !main.has_lived()? {
        return Ok(());
    }
    if !logs.path.exists() {
        return missing(
            logs,
            "or make an empty file of this name to give up the output of all runs",
        );
    }
    tracing::warn!(store.file = LOGS.file, "the file is empty: the output of all runs is given up");
    Ok(())
}

/// Begins an epoch. The time of day keeps it ahead of what hosts have seen when the store was
/// restored from an old backup.
fn begin_life(db: &rusqlite::Connection, now: Timestamp) -> Result<(Incarnation, Epoch), Error> {
    let now_s = now.as_millis() / 1000;
    let life = db
        .query_row("SELECT incarnation, epoch FROM store", [], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let (incarnation, epoch) = match life {
        Some((bytes, epoch)) => (Uuid::from_bytes(bytes), epoch.saturating_add(1).max(now_s)),
        None => (Uuid::now_v7(), now_s.max(1)),
    };
    db.execute(
        "INSERT INTO store (one, incarnation, epoch, created_at) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch",
        params![row::blob(&incarnation), epoch, now.as_millis()],
    )?;
    Ok((Incarnation(incarnation), Epoch(u64::try_from(epoch).unwrap_or(1))))
}
