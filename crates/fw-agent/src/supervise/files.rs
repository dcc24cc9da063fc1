//! The files of a task's spool directory, as supervisor and agent both know them.
//!
//! | name | written by | holds |
//! |---|---|---|
//! | `control` | agent makes the FIFO, supervisor holds it open | bytes `c` cancel, `f` space was freed, `k` keep the change |
//! | `started` | supervisor, before the exec | [`Started`]: from here on the command may have run |
//! | `pid` | supervisor, after the exec | the main process, decimal |
//! | `seg-…` | supervisor | output records ([`fw_proto::record`]), offsets in the name |
//! | `status` | supervisor, last | [`Status`]: how it ended, or why it was not started |
//! | `armed` | agent, before there is a supervisor | of an armed change: the spec, which says how to undo it |
//! | `lock` | agent makes it, supervisor holds a lock on it | of an armed change: who decides about it |
//! | `changed` | supervisor, when the change has ended | [`ChangedFile`]: how, and whether it waits for the word |
//! | `kept` | supervisor | that the change was confirmed in time |
//! | `tries` | supervisor, before each try | [`TriesFile`]: how often the undo was begun |
//! | `supervisor.log` | supervisor | what went wrong inside it, for people |
//!
//! `status` is on the disk before it has its name, and all output before it. `started` need not outlive a power cut: the
//! journal of the agent knows under which boot a task was accepted. Of an armed change it does, as do all files that
//! only such a one has: without `started` nothing was changed, without `kept` it is undone. `armed` holds the secrets of
//! the change, for an undo after a power cut needs them; it is removed as soon as the change is kept or undone.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fw_proto::Timestamp;
use fw_proto::frame::{Cause, Ended, Fate, Refusal, RefusalReason};
use fw_proto::record::Offsets;
use serde::{Deserialize, Serialize};

use super::Containment;

pub(crate) const CONTROL: &str = "control";
pub(crate) const STARTED: &str = "started";
pub(crate) const PID: &str = "pid";
pub(crate) const STATUS: &str = "status";
pub(crate) const ARMED: &str = "armed";
pub(crate) const LOCK: &str = "lock";
pub(crate) const CHANGED: &str = "changed";
pub(crate) const KEPT: &str = "kept";
pub(crate) const TRIES: &str = "tries";
pub(crate) const LOG: &str = "supervisor.log";
/// In the directory above: each line is the key of a task that has news.
pub(crate) const WAKE: &str = "wake";

/// Byte on `control`: end the task.
pub(crate) const CANCEL: u8 = b'c';
/// Byte on `control`: the server's word is there, keep the change.
pub(crate) const KEEP: u8 = b'k';
/// Byte on `control`: segments were deleted.
pub(crate) const FREED: u8 = b'f';

/// The mark that a command may have run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The supervisor's process.
    pub(crate) supervisor: u32,
    /// When the command was started.
    pub(crate) at: Timestamp,
    /// The boot under which that was (`/proc/sys/kernel/random/boot_id`).
    pub(crate) boot_id: String,
    /// What holds everything of the task together.
    pub(crate) containment: Containment,
    /// The task's own control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup: Option<PathBuf>,
}

/// The last word on a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Ended(EndedFile),
    Refused(RefusedFile),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndedFile {
    cause: CauseFile,
    exit_code: Option<i32>,
    signal: Option<i32>,
    started_at: Timestamp,
    finished_at: Timestamp,
    stdout: u64,
    stderr: u64,
    stdout_dropped: u64,
    stderr_dropped: u64,
    stdout_sha256: Option<[u8; 32]>,
    stderr_sha256: Option<[u8; 32]>,
    left_behind: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    armed: Option<FateFile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FateFile {
    Kept,
    Undone,
    UndoFailed,
}

/// How an armed change ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedFile {
    pub(crate) ended: EndedFile,
    /// Set when it has succeeded.
    pub(crate) waits: Option<WaitFile>,
}

/// A change that waits for the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaitFile {
    /// Since when.
    pub(crate) at: Timestamp,
    /// For people: until when. The supervisor has this by another clock.
    pub(crate) until: Timestamp,
}

/// How often an undo was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TriesFile {
    pub(crate) tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CauseFile {
    Exited,
    TimedOut,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedFile {
    reason: ReasonFile,
    message: String,
}

/// The reasons that a supervisor finds; the agent finds the others before it starts one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReasonFile {
    User,
    Spawn,
    Disk,
    Cancelled,
    Other,
}

impl From<&Ended> for EndedFile {
    fn from(ended: &Ended) -> Self {
        let Offsets { stdout, stderr, stdout_dropped, stderr_dropped } = ended.output;
        Self {
            cause: match ended.cause {
                Cause::Exited => CauseFile::Exited,
                Cause::TimedOut => CauseFile::TimedOut,
                Cause::Cancelled => CauseFile::Cancelled,
            },
            exit_code: ended.exit_code,
            signal: ended.signal,
            started_at: ended.started_at,
            finished_at: ended.finished_at,
            stdout,
            stderr,
            stdout_dropped,
            stderr_dropped,
            stdout_sha256: ended.stdout_sha256,
            stderr_sha256: ended.stderr_sha256,
            left_behind: ended.left_behind,
            armed: ended.armed.map(|fate| match fate {
                Fate::Kept => FateFile::Kept,
                Fate::Undone => FateFile::Undone,
                Fate::UndoFailed => FateFile::UndoFailed,
            }),
        }
    }
}

impl From<EndedFile> for Ended {
    fn from(file: EndedFile) -> Self {
        let EndedFile { stdout, stderr, stdout_dropped, stderr_dropped, .. } = file;
        Self {
            cause: match file.cause {
                CauseFile::Exited => Cause::Exited,
                CauseFile::TimedOut => Cause::TimedOut,
                CauseFile::Cancelled => Cause::Cancelled,
            },
            exit_code: file.exit_code,
            signal: file.signal,
            started_at: file.started_at,
            finished_at: file.finished_at,
            output: Offsets { stdout, stderr, stdout_dropped, stderr_dropped },
            stdout_sha256: file.stdout_sha256,
            stderr_sha256: file.stderr_sha256,
            left_behind: file.left_behind,
            armed: file.armed.map(|fate| match fate {
                FateFile::Kept => Fate::Kept,
                FateFile::Undone => Fate::Undone,
                FateFile::UndoFailed => Fate::UndoFailed,
            }),
        }
    }
}

impl From<&Refusal> for RefusedFile {
    fn from(refusal: &Refusal) -> Self {
        let reason = match refusal.reason {
            RefusalReason::User => ReasonFile::User,
            RefusalReason::Spawn => ReasonFile::Spawn,
            RefusalReason::Disk => ReasonFile::Disk,
            RefusalReason::Cancelled => ReasonFile::Cancelled,
            RefusalReason::Expired
            | RefusalReason::Fenced
            | RefusalReason::Policy
            | RefusalReason::QueueFull => ReasonFile::Other,
        };
        Self { reason, message: refusal.message.clone() }
    }
}

impl From<RefusedFile> for Refusal {
    fn from(file: RefusedFile) -> Self {
        let reason = match file.reason {
            ReasonFile::User => RefusalReason::User,
            ReasonFile::Spawn | ReasonFile::Other => RefusalReason::Spawn,
            ReasonFile::Disk => RefusalReason::Disk,
            ReasonFile::Cancelled => RefusalReason::Cancelled,
        };
        Self { reason, message: file.message }
    }
}

/// A segment's place: its number, and the offsets at which its first record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) base: Offsets,
}

impl Segment {
    /// Its file's name.
    pub(crate) fn name(&self) -> String {
        let Offsets { stdout, stderr, stdout_dropped, stderr_dropped } = self.base;
        format!("seg-{}-{stdout}-{stderr}-{stdout_dropped}-{stderr_dropped}", self.number)
    }

    /// Reads a file's name; `None` when it is not a segment's.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("seg-")?.split('-').map(str::parse::<u64>);
        let mut next = || parts.next()?.ok();
        let number = next()?;
        let base = Offsets {
            stdout: next()?,
            stderr: next()?,
            stdout_dropped: next()?,
            stderr_dropped: next()?,
        };
        parts.next().is_none().then_some(Self { number, base })
    }

    /// All segments in a directory, in order.
    pub(crate) fn list(dir: &Path) -> io::Result<Vec<Self>> {
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            segments.extend(entry?.file_name().to_str().and_then(Self::parse));
        }
        segments.sort_unstable();
        Ok(segments)
    }
}

/// Writes `value` as JSON under a name that appears only when all of it is there. `durable` also
/// takes it through a power cut.
pub(crate) fn write_json(
    dir: &Path,
    name: &str,
    value: &impl Serialize,
    durable: bool,
) -> io::Result<()> {
    let temporary = stage(dir, name, value, durable)?;
    std::fs::rename(&temporary, dir.join(name))?;
    if durable {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Writes `value` durably, under a name that appears only if `still` holds by then; whether it did.
///
/// # Errors
/// The disk did not take it; then there is no such name.
pub(crate) fn write_json_if(
    dir: &Path,
    name: &str,
    value: &impl Serialize,
    still: impl FnOnce() -> bool,
) -> io::Result<bool> {
    let temporary = stage(dir, name, value, true)?;
    if !still() {
        return Ok(false);
    }
    std::fs::rename(&temporary, dir.join(name))?;
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    if synced.is_err() {
        std::fs::remove_file(dir.join(name))?;
    }
    synced.map(|()| true)
}

fn stage(dir: &Path, name: &str, value: &impl Serialize, durable: bool) -> io::Result<PathBuf> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::options().write(true).create(true).truncate(false).open(&temporary)?;
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)?;
    if durable {
        file.sync_all()?;
    }
    Ok(temporary)
}

/// Takes the room for a later [`write_json`] now, while there is some.
pub(crate) fn reserve(dir: &Path, name: &str) -> io::Result<()> {
    std::fs::write(dir.join(format!("{name}.tmp")), [b' '; 2048])
}

/// What is there of a file that [`write_json`] wrote.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kept<T> {
    /// All of it.
    Whole(T),
    /// It is not there.
    Missing,
    /// The disk lost it, or a power cut left it empty.
    Damaged,
}

/// Reads what [`write_json`] wrote.
///
/// # Errors
/// It cannot be read now; later it may.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(
    dir: &Path,
    name: &str,
) -> io::Result<Kept<T>> {
    match std::fs::read(dir.join(name)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_or(Kept::Damaged, Kept::Whole)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::Missing),
        Err(error) if is_damage(&error) => Ok(Kept::Damaged),
        Err(error) => Err(error),
    }
}

/// Whether an error says that what was on the disk is lost, rather than that it cannot be had now.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    let lost = [
        libc::EIO,
        libc::EBADMSG,
        #[cfg(target_os = "linux")]
        libc::EUCLEAN,
    ];
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
    ) || error.raw_os_error().is_some_and(|code| lost.contains(&code))
}
