//! The agent's side of its tasks' spools: starts supervisors, and reads what they wrote.
//!
//! `STATE/spool/KEY/` belongs to one task (its files are described in `supervise/files.rs`).
//! Nothing here is kept in memory but what starts supervisors: an agent that
//! was killed finds everything again. All functions are synchronous, short and fit for
//! `spawn_blocking`; only [`Wake`] is awaited.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fw_proto::frame::{Applied, Ended, Refusal, RefusalReason, Spec};
use fw_proto::record::Offsets;
use fw_proto::{TaskKey, Timestamp};
use tracing::warn;

mod reader;

pub use reader::Reader;

use crate::supervise::armed;
use crate::supervise::files::{
    self, ChangedFile, Kept, Segment, Started, Status, TriesFile, WaitFile,
};
use crate::supervise::starter::Starter;
use crate::supervise::{contain, os};

/// How output is compressed: zstd's fastest level, for log text still shrinks to about a tenth.
pub const LEVEL: i32 = 1;

/// The tasks' directories of one agent.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    starter: Starter,
}

/// What the spool says about a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// There is no directory: never spawned here, or removed.
    Missing,
    /// Its supervisor is gone and never came to start the command: certain only under the boot
    /// in which it was spawned, for the mark need not outlive a power cut.
    NotStarted,
    /// Its supervisor is about to start it.
    Starting,
    /// It runs.
    Running {
        /// When it was started.
        started_at: Timestamp,
    },
    /// Its change has succeeded, and its supervisor waits for the word.
    Applied(Applied),
    /// It is an armed change that was started then, and its supervisor is gone: another is due, which undoes
    /// it unless it was kept.
    Abandoned {
        /// When it was started.
        started_at: Timestamp,
    },
    /// It ended.
    Ended(Ended),
    /// Its supervisor could not start it.
    Refused(Refusal),
    /// It was started, but its supervisor is gone without a last word that can be read (killed, or
    /// the host went down): how it ended is not known, and parts of it may still run.
    Dead {
        /// When it was started, as far as that is known.
        started_at: Timestamp,
    },
}

/// Why a supervisor was not spawned. The command did not run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The task has a directory already: it was spawned before.
    #[error("task {0} was spawned before")]
    Exists(TaskKey),
    /// The directory cannot be made.
    #[error("make the spool of task {key}")]
    Disk {
        /// Which task.
        key: TaskKey,
        /// What the system said.
        source: io::Error,
    },
    /// The supervisor cannot be executed, or ended before it had the spec.
    #[error("start the supervisor of task {key}")]
    Supervisor {
        /// Which task.
        key: TaskKey,
        /// What the system said.
        source: io::Error,
    },
}

impl SpawnError {
    /// What the server is told; `None` when the task was spawned before, which is no refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let (reason, message) = match self {
            Self::Exists(_) => return None,
            Self::Disk { source, .. } => (
                RefusalReason::Disk,
                format!("write to the agent's state directory: {source}; free some space there"),
            ),
            Self::Supervisor { source, .. } => {
                (RefusalReason::Spawn, format!("start a process: {source}"))
            }
        };
        Some(Refusal { reason, message })
    }
}

/// Begins the names of directories that are being made or removed.
const PASSING: &str = ".";

impl Spool {
    /// The spool in a state directory, made when it is not there. Sweeps what a killed agent
    /// left half made or half removed. One agent at a time: see [`crate::journal::Lock`].
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("spool");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let dir = dir.canonicalize()?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PASSING)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                warn!("{} could not be removed: {error}", entry.path().display());
            }
        }
        contain::sweep_cgroups();
        let wake = dir.join(files::WAKE);
        if !wake.exists()
            && let Err(error) = os::mkfifo(&wake)
        {
            warn!("supervisors cannot ring: make {}: {error}", wake.display());
        }
        let supervisor = if cfg!(target_os = "linux") {
            // Still this build after an upgrade has replaced the file.
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        let starter = Starter::new(supervisor, dir.clone());
        Ok(Self { dir, starter })
    }

    /// Uses another binary for supervisors; it must call [`crate::supervise::entry`].
    #[must_use]
    pub fn with_supervisor(mut self, binary: PathBuf) -> Self {
        self.starter.execute(binary);
        self
    }

    /// Where a task's files are.
    #[must_use]
    pub fn task_dir(&self, key: TaskKey) -> PathBuf {
        self.dir.join(key.to_string())
    }

    /// Starts a supervisor for the task and hands it the spec. The start must be in the journal
    /// before. A supervisor that was spawned goes on whatever happens to the agent.
    ///
    /// # Errors
    /// See [`SpawnError`]; after each the task has not run and will not.
    pub fn spawn(&self, key: TaskKey, spec: &Spec) -> Result<(), SpawnError> {
        let dir = self.task_dir(key);
        if dir.exists() {
            return Err(SpawnError::Exists(key));
        }
        let bytes = minicbor::to_vec(spec).expect("writing to memory cannot go wrong");
        let armed = spec.armed.is_some().then_some(bytes.as_slice());
        let (control, log) =
            self.make_dir(key, armed).map_err(|source| SpawnError::Disk { key, source })?;
        self.start(key, &bytes, &control, &log)
    }

    /// Starts another supervisor for an armed change whose first is gone: it undoes the change, unless
    /// it was kept. Does nothing where one lives.
    ///
    /// # Errors
    /// There is none yet; the change stays as it is until the next try.
    pub fn undo(&self, key: TaskKey) -> Result<(), SpawnError> {
        let dir = self.task_dir(key);
        let disk = |source| SpawnError::Disk { key, source };
        // The lock says for certain that nobody else decides about the change. The next one takes it anew.
        if armed::lock(&dir).map_err(disk)?.is_none() {
            return Ok(());
        }
        let spec = fs::read(dir.join(files::ARMED)).map_err(disk)?;
        if !dir.join(files::CHANGED).exists() {
            self.end_rest(key);
        }
        // From now on it waits no more.
        if !dir.join(files::TRIES).exists()
            && let Err(error) =
                files::write_json(&dir, files::TRIES, &TriesFile { tries: 0 }, false)
        {
            warn!(task.key = %key, "tries of the undo are not counted: {error}");
        }
        let (control, log) = open_streams(&dir).map_err(disk)?;
        self.start(key, &spec, &control, &log)
    }

    fn start(
        &self,
        key: TaskKey,
        spec: &[u8],
        control: &File,
        log: &File,
    ) -> Result<(), SpawnError> {
        // The supervisor holds `control` from its first moment on, hence it is seen to live. One
        // that has only part of its spec ends without starting anything.
        self.starter
            .start(&self.task_dir(key), control, log)
            .and_then(|mut to| to.write_all(spec))
            .map_err(|source| SpawnError::Supervisor { key, source })
    }

    /// Makes a task's directory, complete before it has its name: also with room for the status.
    /// A supervisor that found no room could not even say so. How a change is undone (`armed`) is on the
    /// disk before there is anybody who could make it.
    fn make_dir(&self, key: TaskKey, armed: Option<&[u8]>) -> io::Result<(File, File)> {
        let staging = self.dir.join(format!("{PASSING}new-{key}"));
        if staging.exists() {
            fs::remove_dir_all(&staging)?;
        }
        let made = Self::fill_dir(&staging, armed);
        if made.is_err() {
            // What a full disk took may be what another task needs.
            drop(fs::remove_dir_all(&staging));
        }
        let made = made?;
        fs::rename(&staging, self.task_dir(key))?;
        if armed.is_some() {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(made)
    }

    fn fill_dir(staging: &Path, armed: Option<&[u8]>) -> io::Result<(File, File)> {
        DirBuilder::new().mode(0o700).create(staging)?;
        files::reserve(staging, files::STATUS)?;
        os::mkfifo(&staging.join(files::CONTROL))?;
        let streams = open_streams(staging)?;
        if let Some(spec) = armed {
            for name in [files::CHANGED, files::KEPT, files::TRIES] {
                files::reserve(staging, name)?;
            }
            let mut private = File::options();
            let private = private.write(true).create_new(true).mode(0o600);
            private.open(staging.join(files::LOCK))?;
            let mut file = private.open(staging.join(files::ARMED))?;
            file.write_all(spec)?;
            file.sync_all()?;
            File::open(staging)?.sync_all()?;
        }
        Ok(streams)
    }

    /// Collects processes that have ended. Called by [`Spool::remove`]; the agent's regular look at
    /// its tasks calls it too, so that none stays a zombie.
    pub fn reap(&self) {
        self.starter.reap();
    }

    /// What is known of a task. Files that are damaged tell that it was begun, and no more.
    ///
    /// # Errors
    /// Its files cannot be read now.
    pub fn state(&self, key: TaskKey) -> io::Result<Found> {
        let dir = self.task_dir(key);
        if let Kept::Whole(last) = last_word(&dir)? {
            return Ok(last);
        }
        let alive = match open_control(&dir) {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => false,
            // A power cut may leave the directory and take what was in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !dir.try_exists()? {
                    return Ok(Found::Missing);
                }
                false
            }
            Err(error) => return Err(error),
        };
        let started = files::read_json::<Started>(&dir, files::STARTED)?;
        if alive {
            if let Some(applied) = waits(&dir, &started)? {
                return Ok(Found::Applied(applied));
            }
            return Ok(match started {
                Kept::Whole(Started { at, .. }) if dir.join(files::PID).exists() => {
                    Found::Running { started_at: at }
                }
                Kept::Whole(_) | Kept::Missing | Kept::Damaged => Found::Starting,
            });
        }
        // The last word may have been said between the first look and the supervisor's end.
        let armed = dir.join(files::ARMED).try_exists()?;
        Ok(match (last_word(&dir)?, started) {
            (Kept::Whole(last), _) => last,
            (_, Kept::Whole(Started { at, .. })) if armed => Found::Abandoned { started_at: at },
            (_, Kept::Damaged) if armed => Found::Abandoned { started_at: changed_at(&dir) },
            (Kept::Missing | Kept::Damaged, Kept::Whole(started)) => {
                Found::Dead { started_at: started.at }
            }
            (Kept::Missing, Kept::Missing) => Found::NotStarted,
            (Kept::Damaged, Kept::Missing) | (_, Kept::Damaged) => {
                Found::Dead { started_at: changed_at(&dir) }
            }
        })
    }

    /// Whether a task may be an armed change that is neither kept nor undone; also when that cannot be told.
    #[must_use]
    pub fn may_be_armed(&self, key: TaskKey) -> bool {
        self.task_dir(key).join(files::ARMED).try_exists().unwrap_or(true)
    }

    /// Ends what is left of a task whose supervisor is gone, as far as that can be found.
    pub fn end_rest(&self, key: TaskKey) {
        if let Some(cgroup) = self.cgroup(key) {
            contain::end_rest(&cgroup, &key.to_string());
        }
    }

    fn cgroup(&self, key: TaskKey) -> Option<PathBuf> {
        match files::read_json::<Started>(&self.task_dir(key), files::STARTED) {
            Ok(Kept::Whole(started)) => started.cgroup,
            Ok(Kept::Missing | Kept::Damaged) | Err(_) => None,
        }
    }

    /// The tasks that have a directory.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn list(&self) -> io::Result<Vec<TaskKey>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            keys.extend(entry?.file_name().to_str().and_then(|name| name.parse::<TaskKey>().ok()));
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Asks the supervisor to end the task; false when there is none any more.
    ///
    /// # Errors
    /// The supervisor cannot be asked.
    pub fn cancel(&self, key: TaskKey) -> io::Result<bool> {
        self.tell(key, files::CANCEL)
    }

    /// Passes the server's word on an armed change to its supervisor; false when there is none any more.
    ///
    /// # Errors
    /// The supervisor cannot be told.
    pub fn keep(&self, key: TaskKey) -> io::Result<bool> {
        self.tell(key, files::KEEP)
    }

    fn tell(&self, key: TaskKey, what: u8) -> io::Result<bool> {
        match open_control(&self.task_dir(key)).and_then(|mut control| control.write_all(&[what])) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EPIPE)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a task's output from `resume` on.
    #[must_use]
    pub fn reader(&self, key: TaskKey, resume: Offsets) -> Reader {
        Reader::new(self.task_dir(key), resume)
    }

    /// Deletes the segments that the server has whole, never the last, and tells the supervisor.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn trim(&self, key: TaskKey, acked: Offsets) -> io::Result<()> {
        let dir = self.task_dir(key);
        let segments = Segment::list(&dir)?;
        let mut freed = false;
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            if !is_covered(next.base, acked) {
                break;
            }
            fs::remove_file(dir.join(segment.name()))?;
            freed = true;
        }
        if freed {
            self.tell(key, files::FREED)?;
        }
        Ok(())
    }

    /// Removes a task's directory, and its control group when nothing is left in it.
    ///
    /// # Errors
    /// The task has not ended, or the directory cannot be removed.
    pub fn remove(&self, key: TaskKey) -> io::Result<()> {
        self.reap();
        match self.state(key) {
            Ok(Found::Missing) => return Ok(()),
            // What is neither kept nor undone is not forgotten either.
            Ok(
                Found::Starting
                | Found::Running { .. }
                | Found::Applied(_)
                | Found::Abandoned { .. },
            ) => {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            Ok(Found::NotStarted | Found::Ended(_) | Found::Refused(_) | Found::Dead { .. })
            | Err(_) => {}
        }
        let (dir, passing) = (self.task_dir(key), self.dir.join(format!("{PASSING}old-{key}")));
        if let Some(cgroup) = self.cgroup(key) {
            contain::remove_cgroup(&cgroup);
        }
        fs::rename(&dir, &passing)?;
        fs::remove_dir_all(&passing)
    }

    /// The bell that supervisors ring when a task has news. One at a time; inside a runtime.
    ///
    /// # Errors
    /// The FIFO cannot be opened.
    pub fn wake(&self) -> io::Result<Wake> {
        let path = self.dir.join(files::WAKE);
        let receiver = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&path)?;
        // With a writer of our own it is never at its end.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let writer = File::options().write(true).custom_flags(flags).open(&path)?;
        Ok(Wake { receiver, _writer: writer, partial: Vec::new() })
    }
}

/// The last word on a task, when it was said.
fn last_word(dir: &Path) -> io::Result<Kept<Found>> {
    Ok(match files::read_json(dir, files::STATUS)? {
        Kept::Whole(Status::Ended(ended)) => Kept::Whole(Found::Ended(ended.into())),
        Kept::Whole(Status::Refused(refused)) => Kept::Whole(Found::Refused(refused.into())),
        Kept::Missing => Kept::Missing,
        Kept::Damaged => Kept::Damaged,
    })
}

/// What a change waits for whose supervisor lives, if it does.
fn waits(dir: &Path, started: &Kept<Started>) -> io::Result<Option<Applied>> {
    let Kept::Whole(Started { at: started_at, .. }) = *started else { return Ok(None) };
    let changed = files::read_json::<ChangedFile>(dir, files::CHANGED)?;
    let Kept::Whole(ChangedFile { waits: Some(WaitFile { at, until }), .. }) = changed else {
        return Ok(None);
    };
    let over = dir.join(files::TRIES).try_exists()? || dir.join(files::KEPT).try_exists()?;
    Ok((!over).then_some(Applied { started_at, at, until }))
}

/// The ear of a supervisor, open so that it is never at its end, and its log.
fn open_streams(dir: &Path) -> io::Result<(File, File)> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut control = File::options();
    let control =
        control.read(true).write(true).custom_flags(flags).open(dir.join(files::CONTROL))?;
    let log = File::options().append(true).create(true).mode(0o600).open(dir.join(files::LOG))?;
    Ok((control, log))
}

/// When something in the directory was last made: about when the task was begun.
fn changed_at(dir: &Path) -> Timestamp {
    let secs = fs::metadata(dir).map_or(0, |about| about.mtime());
    Timestamp::from_millis(secs.saturating_mul(1000))
}

/// Opens a supervisor's ear; `ENXIO` says that there is no supervisor (`fifo(7)`).
fn open_control(dir: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().write(true).custom_flags(flags).open(dir.join(files::CONTROL))
}

/// Whether everything before `place` is within `acked`.
fn is_covered(place: Offsets, acked: Offsets) -> bool {
    place.stdout <= acked.stdout
        && place.stderr <= acked.stderr
        && place.stdout_dropped <= acked.stdout_dropped
        && place.stderr_dropped <= acked.stderr_dropped
}

/// The bell of all tasks. What it says is a hint; it may be lost, never wrong.
#[derive(Debug)]
pub struct Wake {
    receiver: tokio::net::unix::pipe::Receiver,
    _writer: File,
    partial: Vec<u8>,
}

impl Wake {
    /// Waits until tasks have news. Cancel-safe.
    ///
    /// # Errors
    /// The FIFO cannot be read.
    pub async fn next(&mut self) -> io::Result<BTreeSet<TaskKey>> {
        loop {
            self.receiver.readable().await?;
            let mut bytes = [0; 4096];
            match self.receiver.try_read(&mut bytes) {
                Ok(taken) => self.partial.extend_from_slice(bytes.get(..taken).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let keys = self.whole_lines();
            if !keys.is_empty() {
                return Ok(keys);
            }
        }
    }

    fn whole_lines(&mut self) -> BTreeSet<TaskKey> {
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.partial.drain(..end).collect();
        let lines = String::from_utf8_lossy(&lines);
        lines.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Whether a [`Reader`]'s error is for good: what it should read is not there any more.
#[must_use]
pub fn is_damage(error: &io::Error) -> bool {
    files::is_damage(error)
}
