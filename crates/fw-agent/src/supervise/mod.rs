//! The supervisor: a small process beside each command, which outlives the agent.
//!
//! The same binary, branching off before it reads arguments or starts a runtime: one thread and
//! one poll loop. On Linux it is forked by a process that has done the loading already (see
//! `fork_server.rs`). It starts the command, keeps its timeout, takes its output into the spool and
//! writes down how it ended. The agent hands it the spec through a pipe, so that secrets are
//! never on the disk, and from then on both talk by files only (see `files.rs`): the agent may be
//! killed, upgraded and started again without the command noticing.

pub(crate) mod armed;
pub(crate) mod child;
pub(crate) mod contain;
mod desk;
pub(crate) mod files;
#[cfg(target_os = "linux")]
mod fork_server;
#[cfg(target_os = "linux")]
mod maps;
pub(crate) mod os;
mod output;
mod run;
pub(crate) mod starter;
mod wake;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fw_proto::frame::{Refusal, RefusalReason, Spec};
use fw_rt::Clock;
use rustix::fs::{Mode, OFlags};

pub use contain::{Containment, containment};
pub use os::keep_little_memory;

use crate::mask::Needles;
use armed::Change;
use child::{NotStarted, Prepared};
use contain::Contain;
use desk::Desk;
use files::{EndedFile, Kept, RefusedFile, Started, Status};
use output::Output;
use run::{Running, Task};
use wake::Wake;

/// The hidden first argument that makes the binary a supervisor.
pub const SUBCOMMAND: &str = "supervise-task";

/// The longest spec that is read: a frame of the link, with room.
const LONGEST_SPEC: u64 = 4 * 1024 * 1024;

/// Between two tries to write the status to a disk that does not take it.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Becomes a supervisor, or the server that forks them, when these are the arguments for that.
///
/// To be called first thing in `main`, before there is another thread, with all arguments (program
/// name included); `None` means: go on as usual.
pub fn entry(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    args.next().filter(|first| first == SUBCOMMAND)?;
    let Some(dir) = args.next() else {
        note(&format!("{SUBCOMMAND} is started by the agent and takes a directory"));
        return Some(ExitCode::from(2));
    };
    #[cfg(target_os = "linux")]
    if dir == fork_server::OPTION {
        return Some(fork_server::main());
    }
    Some(main(Path::new(&dir)))
}

/// Supervises the task whose spool is `dir` and whose spec comes on standard input.
fn main(dir: &Path) -> ExitCode {
    os::ignore_signals();
    os::seal_descriptors();
    // Fails for the leader of a process group, which a supervisor never is.
    let _ = rustix::process::setsid();
    match supervise(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("supervise {}: {error}", dir.display()));
            ExitCode::FAILURE
        }
    }
}

fn supervise(dir: &Path) -> io::Result<()> {
    let control = open_control(dir)?;
    let spec = read_spec()?;
    let key = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let needles = Needles::new(spec.secrets.values().map(String::as_str));
    let output = Output::new(dir.to_owned(), spec.spool_bytes, spec.on_full, needles);
    let wake = Wake::new(run::above(dir).join(files::WAKE), &key);
    if spec.armed.is_some() {
        return supervise_armed(dir, &key, spec, Desk::new(control, output.synced(), wake));
    }
    let mut desk = Desk::new(control, output, wake);
    let status = match begin(dir, &key, &spec) {
        Err(refusal) => Status::Refused(RefusedFile::from(&refusal)),
        Ok((running, contain)) => {
            desk.wake.ring();
            let task = Task::new(&mut desk, &spec, running, contain);
            drop(spec);
            let over = task.watch();
            Status::Ended(EndedFile::from(&desk.conclude(over, None)))
        }
    };
    conclude(dir, &mut desk, &status)?;
    desk.wake.ring();
    Ok(())
}

/// Makes an armed change, or takes up one that was begun.
fn supervise_armed(dir: &Path, key: &str, spec: Spec, mut desk: Desk) -> io::Result<()> {
    // Held until the last word is on the disk.
    let Some(_lock) = armed::lock(dir)? else {
        return Err(io::Error::other("another supervisor decides about this change"));
    };
    let started = match files::read_json::<Started>(dir, files::STARTED)? {
        Kept::Missing => None,
        Kept::Whole(started) => Some(started.at),
        // It was there, so the change may have been made; when, nobody knows.
        Kept::Damaged => Some(Clock::system().now()),
    };
    let status = if let Some(at) = started {
        if let Err(error) = desk.resume() {
            // What is undone counts for more than what is said of it.
            note(&format!("go on with the output: {error}"));
        }
        Change::of(dir, key, spec).map(|change| change.take_up(&mut desk, at)).transpose()?
    } else {
        match begin(dir, key, &spec) {
            Err(refusal) => {
                return finish_armed(dir, &mut desk, &Status::Refused(RefusedFile::from(&refusal)));
            }
            Ok((running, contain)) => {
                desk.wake.ring();
                let over = Task::new(&mut desk, &spec, running, contain).watch();
                Change::of(dir, key, spec).map(|change| change.settle(&mut desk, over))
            }
        }
    };
    let ended = status.expect("an armed spec, as was asked above");
    finish_armed(dir, &mut desk, &Status::Ended(EndedFile::from(&ended)))
}

/// Says the last word. What it takes to undo the change, secrets and all, is not needed any more.
fn finish_armed(dir: &Path, desk: &mut Desk, status: &Status) -> io::Result<()> {
    conclude(dir, desk, status)?;
    if let Err(error) = std::fs::remove_file(dir.join(files::ARMED)) {
        note(&format!("remove what undoes the change: {error}"));
    }
    desk.wake.ring();
    Ok(())
}

/// Open for reading and writing, so that it is never at its end. While it is open, opening it
/// for writing works: that is how the agent knows that we live.
fn open_control(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir.join(files::CONTROL), flags, Mode::empty())?)
}

fn read_spec() -> io::Result<Spec> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(LONGEST_SPEC).read_to_end(&mut bytes)?;
    minicbor::decode(&bytes).map_err(|error| io::Error::other(format!("read the spec: {error}")))
}

/// Starts the command. From the moment that `started` is there, it may have run.
fn begin(dir: &Path, key: &str, spec: &Spec) -> Result<(Running, Contain), Refusal> {
    let prepared = child::prepare(spec)?;
    let contain = Contain::cgroup(&format!("{key}-{}", std::process::id()));
    let first = contain.unwrap_or_else(Contain::without_cgroup);
    let durable = spec.armed.is_some();
    match attempt(dir, &prepared, &first, durable) {
        Ok(running) => Ok((running, first)),
        Err(NotStarted::Refused(refusal)) => {
            first.remove();
            Err(refusal)
        }
        Err(NotStarted::Join(error)) => {
            // Nothing was executed: the command never got past joining its group.
            note(&format!("join the control group: {error}; going on without one"));
            first.remove();
            let second = Contain::without_cgroup();
            match attempt(dir, &prepared, &second, durable) {
                Ok(running) => Ok((running, second)),
                Err(NotStarted::Refused(refusal)) => Err(refusal),
                Err(NotStarted::Join(error)) => Err(spawn_refusal(&error)),
            }
        }
    }
}

/// `durable`: the mark that the command may have run outlives a power cut.
fn attempt(
    dir: &Path,
    prepared: &Prepared,
    contain: &Contain,
    durable: bool,
) -> Result<Running, NotStarted> {
    let started = Started {
        supervisor: std::process::id(),
        at: Clock::system().now(),
        boot_id: crate::identity::boot_id(),
        containment: contain.kind(),
        cgroup: contain.cgroup_path().map(PathBuf::from),
    };
    files::write_json(dir, files::STARTED, &started, durable)
        .map_err(|error| NotStarted::Refused(disk(&error)))?;
    let os::Spawned { pid, stdout, stderr } = prepared.start(contain.cgroup_path())?;
    if let Err(error) = std::fs::write(dir.join(files::PID), pid.as_raw_pid().to_string()) {
        note(&format!("note the process: {error}"));
    }
    Ok(Running { pid, stdout, stderr, started_at: started.at })
}

/// A line for people in `supervisor.log`. The macro of the standard library would panic when the
/// disk is full, and a full disk must not end a supervisor.
fn note(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

fn disk(error: &io::Error) -> Refusal {
    let message = format!("write to the agent's state directory: {error}; free some space there");
    Refusal { reason: RefusalReason::Disk, message }
}

fn spawn_refusal(error: &io::Error) -> Refusal {
    Refusal { reason: RefusalReason::Spawn, message: format!("start a process: {error}") }
}

/// Writes the last word, however long the disk refuses it: a result that is lost would make the
/// task unknown for ever.
fn conclude(dir: &Path, desk: &mut Desk, status: &Status) -> io::Result<()> {
    loop {
        match files::write_json(dir, files::STATUS, status, true) {
            Ok(()) => return Ok(()),
            Err(error) if !dir.exists() => return Err(error),
            Err(error) => {
                note(&format!("write the status: {error}"));
                desk.pause(TRY_AGAIN);
            }
        }
    }
}
