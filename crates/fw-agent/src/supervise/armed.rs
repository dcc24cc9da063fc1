//! A change that undoes itself unless it is confirmed: what its supervisor does after the change.
//!
//! The spec, and the undo in it, lies in the task's spool before the change is started. A change that
//! did not succeed is undone at once. One that did waits for the server's word, then for its own proof
//! (the probe); both within a time of the boot-time clock, which needs neither agent nor link and
//! counts while the host sleeps. What makes it last is one file, `kept`, which gets its name only
//! before the time is over.
//!
//! Whoever holds the task's lock decides, and that is its supervisor for as long as it lives. When it
//! was killed, or the host went down, the agent starts another, which finds the change begun: it looks
//! for `kept`, and undoes the change at once where there is none. So a change is never both.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fw_core::plan::{UNDO_PAUSE, UNDO_TIMEOUT, UNDO_TRIES};
use fw_proto::Timestamp;
use fw_proto::frame::{Armed, Cause, Command, Ended, Fate, Refusal, Spec};
use fw_rt::Clock;

use super::child::{self, NotStarted, Prepared};
use super::contain::Contain;
use super::desk::Desk;
use super::files::{self, ChangedFile, Kept, TriesFile, WaitFile};
use super::note;
use super::os::Spawned;
use super::run::{Over, Running, Task};

/// Between two tries of the probe: a service takes a moment to come up.
const PROBE_AGAIN: Duration = Duration::from_secs(2);

/// How often the boot-time clock is looked at: poll(2) does not count the time for which a host sleeps, so
/// one that wakes up is late by at most this.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Now, by the clock that only goes forward, also while the host sleeps.
pub(super) fn boottime() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // Where there is no such clock, the monotonic one is the nearest.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let (secs, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(secs.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Takes the right to decide about a change; `None` when another process has it. It is held for as long
/// as the file is open.
pub(crate) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::options().write(true).open(dir.join(files::LOCK))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// An armed change, and all that is needed to undo it.
pub(super) struct Change {
    dir: PathBuf,
    key: String,
    spec: Spec,
    armed: Armed,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Both the word and the proof were there in time.
    Kept,
    /// They were not.
    TooLate,
    /// Somebody asked for the end.
    Cancelled,
}

impl Change {
    /// The change in a spec, when it is an armed one.
    pub(super) fn of(dir: &Path, key: &str, spec: Spec) -> Option<Self> {
        let armed = spec.armed.clone()?;
        Some(Self { dir: dir.to_owned(), key: key.to_owned(), spec, armed })
    }

    /// The change has ended so: keeps or undoes it.
    pub(super) fn settle(self, desk: &mut Desk, mut over: Over) -> Ended {
        desk.finish_command();
        desk.output.never_wait();
        desk.forget_word();
        let waits = over.is_good().then(|| (boottime(), Clock::system().now()));
        let within = self.armed.within;
        let file = waits.map(|(_, at)| WaitFile { at, until: at + within });
        let written = files::write_json(
            &self.dir,
            files::CHANGED,
            &ChangedFile { ended: (&over.ended()).into(), waits: file },
            true,
        );
        let fate = match (waits, written) {
            (Some((since, _)), Ok(())) => {
                match self.wait(desk, since.saturating_add(within.duration())) {
                    Wait::Kept => Fate::Kept,
                    Wait::TooLate => self.undo(desk),
                    Wait::Cancelled => {
                        over.cause = Cause::Cancelled;
                        self.undo(desk)
                    }
                }
            }
            // A change that nobody is told of cannot be confirmed.
            (Some(_), Err(error)) => {
                note(&format!("write that the change is made: {error}"));
                self.undo(desk)
            }
            (None, _) => self.undo(desk),
        };
        desk.conclude(over, Some(fate))
    }

    /// The change was begun by a supervisor that is gone: whatever it was at, `kept` alone counts.
    pub(super) fn take_up(self, desk: &mut Desk, started_at: Timestamp) -> io::Result<Ended> {
        desk.output.never_wait();
        let kept = self.dir.join(files::KEPT).try_exists()?;
        let over = match files::read_json::<ChangedFile>(&self.dir, files::CHANGED) {
            Ok(Kept::Whole(file)) => Over::from(&Ended::from(file.ended)),
            Ok(Kept::Missing | Kept::Damaged) | Err(_) => Over::unknown(started_at),
        };
        let fate = if kept {
            Fate::Kept
        } else {
            desk.say("this change was neither kept nor undone when its supervisor was killed or the host went down");
            self.undo(desk)
        };
        Ok(desk.conclude(over, Some(fate)))
    }

    /// Waits for the word and the proof until the boot-time clock shows `deadline`.
    fn wait(&self, desk: &mut Desk, deadline: Duration) -> Wait {
        desk.wake.ring();
        let mut probe_at = Duration::ZERO;
        loop {
            let now = boottime();
            if desk.is_cancelled() {
                return Wait::Cancelled;
            }
            if now >= deadline {
                return Wait::TooLate;
            }
            if desk.has_word() && now >= probe_at {
                if self.proves_good(desk, deadline) {
                    return if self.keep(deadline) { Wait::Kept } else { Wait::TooLate };
                }
                probe_at = boottime() + PROBE_AGAIN;
                continue;
            }
            let next = if desk.has_word() { deadline.min(probe_at) } else { deadline };
            desk.pause(next.saturating_sub(now).min(LOOK));
        }
    }

    /// Whether the host's own proof holds.
    fn proves_good(&self, desk: &mut Desk, deadline: Duration) -> bool {
        let Some(probe) = &self.armed.probe else { return true };
        desk.say("is the change good? The probe:");
        let good = self.run(desk, probe, "probe", Limit::Until(deadline));
        good && !desk.is_cancelled()
    }

    /// Writes that the change is kept, unless the time is over by then.
    fn keep(&self, deadline: Duration) -> bool {
        let kept = files::write_json_if(&self.dir, files::KEPT, &Clock::system().now(), || {
            boottime() < deadline
        });
        kept.unwrap_or_else(|error| {
            note(&format!("write that the change is kept: {error}"));
            false
        })
    }

    /// Undoes the change. Each try is written down before it begins, so that crashes count, too.
    fn undo(&self, desk: &mut Desk) -> Fate {
        let mut tries = self.tries();
        while tries < UNDO_TRIES {
            tries += 1;
            if let Err(error) =
                files::write_json(&self.dir, files::TRIES, &TriesFile { tries }, true)
            {
                note(&format!("count the tries of the undo: {error}"));
            }
            desk.say(&format!("undoing the change, try {tries} of {UNDO_TRIES}:"));
            if self.run(desk, &self.armed.undo, &format!("undo{tries}"), Limit::Undo) {
                desk.say("the change is undone");
                return Fate::Undone;
            }
            if tries < UNDO_TRIES {
                desk.rest(UNDO_PAUSE.duration());
            }
        }
        desk.say(&format!(
            "THE UNDO FAILED {UNDO_TRIES} times: the change is still there, wholly or in part; a person must look"
        ));
        Fate::UndoFailed
    }

    /// How often the undo was begun by whoever was here before.
    fn tries(&self) -> u32 {
        match files::read_json::<TriesFile>(&self.dir, files::TRIES) {
            Ok(Kept::Whole(file)) => file.tries,
            Ok(Kept::Missing | Kept::Damaged) | Err(_) => 0,
        }
    }

    /// Runs a command beside the change, with the same user, place and environment; whether it exits with
    /// code 0.
    fn run(&self, desk: &mut Desk, command: &Command, name: &str, limit: Limit) -> bool {
        let timeout = match limit {
            Limit::Undo => Some(UNDO_TIMEOUT),
            Limit::Until(_) => None,
        };
        let spec = Spec { command: command.clone(), timeout, ..self.spec.clone() };
        let group = format!("{}-{name}-{}", self.key, std::process::id());
        let started = child::prepare(&spec).and_then(|prepared| start(&prepared, &group));
        let (running, contain) = match started {
            Ok(started) => started,
            Err(refusal) => {
                desk.say(&format!("it could not be started: {}", refusal.message));
                return false;
            }
        };
        let task = Task::new(desk, &spec, running, contain);
        let over = match limit {
            Limit::Undo => task.uncancelled().watch(),
            Limit::Until(deadline) => task.until(deadline).watch(),
        };
        desk.finish_command();
        if !over.is_good() {
            desk.say(&format!("it did not succeed: {}", over.describe()));
        }
        over.is_good()
    }
}

/// What bounds a command beside the change.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// The time of one try of an undo, which nobody can cancel.
    Undo,
    /// This moment of the boot-time clock.
    Until(Duration),
}

/// Starts a command in a control group of this name. Without one, only its own processes may be ended with
/// it: a tree of orphans would also hold what the change has started.
fn start(prepared: &Prepared, group: &str) -> Result<(Running, Contain), Refusal> {
    let contain = Contain::cgroup(group).unwrap_or(Contain::ProcessGroup);
    let running = |Spawned { pid, stdout, stderr }: Spawned| Running {
        pid,
        stdout,
        stderr,
        started_at: Clock::system().now(),
    };
    match prepared.start(contain.cgroup_path()) {
        Ok(spawned) => Ok((running(spawned), contain)),
        Err(NotStarted::Refused(refusal)) => {
            contain.remove();
            Err(refusal)
        }
        Err(NotStarted::Join(_)) => {
            contain.remove();
            let contain = Contain::ProcessGroup;
            match prepared.start(None) {
                Ok(spawned) => Ok((running(spawned), contain)),
                Err(NotStarted::Refused(refusal)) => Err(refusal),
                Err(NotStarted::Join(error)) => Err(super::spawn_refusal(&error)),
            }
        }
    }
}
