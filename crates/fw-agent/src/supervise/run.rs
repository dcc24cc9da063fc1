//! One command from start to end: the loop of its supervisor.
//!
//! The loop waits for four descriptors (both streams, the main process, `control`) and the
//! earliest of its deadlines. All deadlines are of the monotonic clock, so neither a clock
//! that jumps nor a link that is down moves a timeout; but for that of a probe, which ends with the
//! time of its change (see `armed.rs`).

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use fw_proto::frame::{Cause, Ended, Spec};
use fw_proto::record::{Offsets, Stream};
use fw_proto::{Span, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};

use super::armed::{LOOK, boottime};
use super::contain::Contain;
use super::desk::{Desk, READ};

/// How long output is read on after the main process ended, for what it left in the pipes and
/// for helpers that end with it. A daemon that inherited a stream hangs nothing.
const DRAIN: Duration = Duration::from_secs(2);

/// How often a full spool is looked at when the agent says nothing.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// Between two looks at whether everything of an ended task is gone.
const LOOK_FOR_REST: Duration = Duration::from_millis(10);

/// How long after KILL the rest is waited for: a process in an uninterruptible system call may
/// not die before the host restarts.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// As reaper of orphans, how often those are looked for that ended meanwhile.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// Where there are no process descriptors, how often the main process is asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What the main process left to be watched.
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) started_at: Timestamp,
}

/// A command and all that its supervisor keeps in mind.
pub(super) struct Task<'a> {
    desk: &'a mut Desk,
    contain: Contain,
    main: Pid,
    /// Readable when the main process has ended; `None` where that does not exist.
    ended: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    exit: Option<WaitStatus>,
    phase: Phase,
    kill_after: Span,
    /// Whether it ends when somebody asks for that.
    heeds_cancel: bool,
    /// It is ended when the boot-time clock shows this.
    until: Option<Duration>,
    /// When a full spool is looked at next.
    room_at: Duration,
    /// When the rest of an ended task is looked at next.
    rest_at: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    pub(super) cause: Cause,
    pub(super) finished_at: Timestamp,
    exit_code: Option<i32>,
    signal: Option<i32>,
    started_at: Timestamp,
    left_behind: u32,
}

impl Over {
    /// Of a command whose supervisor was killed before it ended.
    pub(super) fn unknown(started_at: Timestamp) -> Self {
        let (exit_code, signal, left_behind) = (None, None, 0);
        let (cause, finished_at) = (Cause::Exited, started_at);
        Self { cause, finished_at, exit_code, signal, started_at, left_behind }
    }

    /// Whether it exited by itself and with code 0.
    pub(super) fn is_good(&self) -> bool {
        self.cause == Cause::Exited && self.exit_code == Some(0)
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let how = match (self.exit_code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "its end is not known".to_owned(),
        };
        match self.cause {
            Cause::Exited => how,
            Cause::TimedOut => format!("{how}, for its time was over"),
            Cause::Cancelled => format!("{how}, for the task was cancelled"),
        }
    }

    /// Without output and fate.
    pub(super) fn ended(&self) -> Ended {
        Ended {
            cause: self.cause,
            exit_code: self.exit_code,
            signal: self.signal,
            started_at: self.started_at,
            finished_at: self.finished_at,
            output: Offsets::default(),
            stdout_sha256: None,
            stderr_sha256: None,
            left_behind: self.left_behind,
            armed: None,
        }
    }
}

impl From<&Ended> for Over {
    fn from(ended: &Ended) -> Self {
        Self {
            cause: ended.cause,
            finished_at: ended.finished_at,
            exit_code: ended.exit_code,
            signal: ended.signal,
            started_at: ended.started_at,
            left_behind: ended.left_behind,
        }
    }
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its main process runs; the timeout is at this moment.
    Running { timeout: Option<Duration> },
    /// It was sent TERM; KILL follows at `kill_at`.
    Stopping { cause: Cause, kill_at: Duration },
    /// It was sent KILL.
    Killing { cause: Cause, give_up_at: Duration },
    /// It is over, but for what is still in the pipes.
    Draining { cause: Cause, until: Duration },
}

/// Now, by the clock that only goes forward.
pub(super) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (secs, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(secs.unwrap_or_default(), nanos.unwrap_or_default())
}

impl<'a> Task<'a> {
    pub(super) fn new(desk: &'a mut Desk, spec: &Spec, running: Running, contain: Contain) -> Self {
        let now = monotonic();
        Self {
            desk,
            contain,
            main: running.pid,
            ended: process_descriptor(running.pid),
            stdout: Some(running.stdout),
            stderr: Some(running.stderr),
            started_at: running.started_at,
            finished_at: None,
            exit: None,
            phase: Phase::Running {
                timeout: spec.timeout.map(|span| now.saturating_add(span.duration())),
            },
            kill_after: spec.kill_after,
            heeds_cancel: true,
            until: None,
            room_at: now,
            rest_at: now,
        }
    }

    /// Nobody can ask for its end.
    pub(super) fn uncancelled(self) -> Self {
        Self { heeds_cancel: false, ..self }
    }

    /// It is ended when the boot-time clock shows this.
    pub(super) fn until(self, deadline: Duration) -> Self {
        Self { until: Some(deadline), ..self }
    }

    /// Watches the command until it has ended.
    pub(super) fn watch(mut self) -> Over {
        while !self.is_over() {
            let ready = self.wait();
            self.obey(ready.control);
            self.read(Stream::Stdout, ready.stdout);
            self.read(Stream::Stderr, ready.stderr);
            self.reap();
            self.keep_time();
            self.desk.told();
        }
        self.conclude()
    }

    fn is_over(&self) -> bool {
        let Phase::Draining { until, .. } = self.phase else { return false };
        (self.stdout.is_none() && self.stderr.is_none()) || monotonic() >= until
    }

    /// Waits until something is ready or due.
    fn wait(&self) -> Ready {
        let readable = self.desk.output.may_read();
        let stdout = self.stdout.as_ref().filter(|_| readable);
        let stderr = self.stderr.as_ref().filter(|_| readable);
        let control = &self.desk.control;
        let watched = [Some(control), stdout, stderr, self.ended.as_ref()];
        // A stream that is not read stays out: poll(2) reports its hang-up asked or not.
        let mut fds: Vec<PollFd<'_>> =
            watched.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let left = self.next_deadline().map(|at| at.saturating_sub(monotonic()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Ready::default();
        }
        let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut ready = |fd: Option<&OwnedFd>| fd.is_some() && answers.next().unwrap_or(false);
        Ready { control: ready(Some(control)), stdout: ready(stdout), stderr: ready(stderr) }
    }

    fn next_deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Running { timeout } => timeout,
            Phase::Stopping { kill_at, .. } if self.exit.is_none() => Some(kill_at),
            Phase::Stopping { .. } | Phase::Killing { .. } => Some(self.rest_at),
            Phase::Draining { until, .. } => Some(until),
        };
        let room = self.desk.output.is_full().then_some(self.room_at);
        let reap = match &self.contain {
            Contain::Subreaper => Some(monotonic() + REAP_EVERY),
            Contain::Cgroup(_) | Contain::ProcessGroup => None,
        };
        let ask = (self.ended.is_none() && self.exit.is_none()).then(|| monotonic() + ASK_EVERY);
        // The other clock is looked at often, for this one stands still while the host sleeps.
        let running = matches!(self.phase, Phase::Running { .. });
        let until = self.until.filter(|_| running);
        let until = until.map(|at| monotonic() + at.saturating_sub(boottime()).min(LOOK));
        [phase, room, reap, ask, until, self.desk.wake.due()].into_iter().flatten().min()
    }

    /// Does what the agent asks.
    fn obey(&mut self, ready: bool) {
        if ready {
            self.desk.listen();
        }
        if self.heeds_cancel && self.desk.is_cancelled() {
            self.stop(Cause::Cancelled);
        }
    }

    /// Reads a stream once.
    fn read(&mut self, stream: Stream, ready: bool) {
        if !ready || !self.desk.output.may_read() {
            return;
        }
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(fd) = pipe else { return };
        let Desk { output, buffer, clock, .. } = &mut *self.desk;
        match rustix::io::read(fd, &mut *buffer) {
            Ok(0) => *pipe = None,
            Ok(taken) => {
                let bytes = buffer.get(..taken).unwrap_or_default();
                output.take(stream, bytes, clock.now());
                if output.is_full() {
                    self.room_at = monotonic() + LOOK_FOR_ROOM;
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => *pipe = None,
        }
    }

    /// Collects ended children: the main process, and orphans when we are their reaper.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.main {
                self.exit = Some(status);
                self.ended = None;
                self.main_ended();
            }
        }
    }

    fn main_ended(&mut self) {
        match self.phase {
            Phase::Running { .. } => {
                self.finished_at = Some(self.desk.clock.now());
                let waiting = |fd: &Option<OwnedFd>| {
                    fd.as_ref().and_then(|fd| rustix::io::ioctl_fionread(fd).ok())
                };
                let left =
                    [waiting(&self.stdout), waiting(&self.stderr)].into_iter().flatten().sum();
                self.desk.output.allow(left);
                self.drain(Cause::Exited);
            }
            Phase::Stopping { .. } | Phase::Killing { .. } => self.rest_at = monotonic(),
            Phase::Draining { .. } => {}
        }
    }

    fn drain(&mut self, cause: Cause) {
        self.phase = Phase::Draining { cause, until: monotonic() + DRAIN };
    }

    /// Begins to end a task that runs.
    fn stop(&mut self, cause: Cause) {
        if matches!(self.phase, Phase::Running { .. }) {
            self.contain.signal(self.main, Signal::TERM);
            let kill_at = monotonic().saturating_add(self.kill_after.duration());
            self.phase = Phase::Stopping { cause, kill_at };
        }
    }

    /// Does what is due.
    fn keep_time(&mut self) {
        let now = monotonic();
        if self.desk.output.is_full() && now >= self.room_at {
            self.desk.output.refresh();
            self.room_at = now + LOOK_FOR_ROOM;
        }
        if self.until.is_some_and(|at| boottime() >= at) {
            self.stop(Cause::TimedOut);
        }
        match self.phase {
            Phase::Running { timeout } if timeout.is_some_and(|at| now >= at) => {
                self.stop(Cause::TimedOut);
            }
            Phase::Running { .. } | Phase::Draining { .. } => {}
            Phase::Stopping { cause, kill_at } => {
                if self.all_gone(now) {
                    self.stopped(cause);
                } else if now >= kill_at {
                    self.phase = Phase::Killing { cause, give_up_at: now + GIVE_UP_AFTER };
                    self.kill(now);
                }
            }
            Phase::Killing { cause, give_up_at } => {
                if self.all_gone(now) || now >= give_up_at {
                    self.stopped(cause);
                } else if now >= self.rest_at {
                    self.kill(now);
                }
            }
        }
    }

    /// Once is not enough where a process can fork between the walk and its end.
    fn kill(&mut self, now: Duration) {
        self.contain.signal(self.main, Signal::KILL);
        self.rest_at = now + LOOK_FOR_REST;
    }

    fn all_gone(&mut self, now: Duration) -> bool {
        if self.exit.is_none() || now < self.rest_at {
            return false;
        }
        self.rest_at = now + LOOK_FOR_REST;
        self.contain.count(self.main) == 0
    }

    fn stopped(&mut self, cause: Cause) {
        self.finished_at = Some(self.desk.clock.now());
        self.desk.output.allow(READ as u64 * 2);
        self.drain(cause);
    }

    fn conclude(self) -> Over {
        let cause = match self.phase {
            Phase::Running { .. } => Cause::Exited,
            Phase::Stopping { cause, .. }
            | Phase::Killing { cause, .. }
            | Phase::Draining { cause, .. } => cause,
        };
        let left_behind = self.contain.count(self.main);
        self.contain.remove();
        Over {
            cause,
            exit_code: self.exit.and_then(|exit| exit.exit_status()),
            signal: self.exit.and_then(|exit| exit.terminating_signal()),
            started_at: self.started_at,
            finished_at: self.finished_at.unwrap_or_else(|| self.desk.clock.now()),
            left_behind,
        }
    }
}

/// What poll found ready. The main process needs no mark: children are always looked for.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    control: bool,
    stdout: bool,
    stderr: bool,
}

/// A descriptor that becomes readable when the process ends (`pidfd_open(2)`, Linux 5.3).
fn process_descriptor(pid: Pid) -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
    }
}

/// Waits on `control` until the time is over; whether the agent has said something before.
pub(super) fn wait_for(control: &OwnedFd, time: Duration) -> bool {
    let mut fds = [PollFd::new(control, PollFlags::IN)];
    let timeout = Timespec::try_from(time).ok();
    poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Collects children that ended while no command is watched.
pub(super) fn reap_orphans() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// The directory of a task's spool, and the one above it.
pub(super) fn above(dir: &std::path::Path) -> PathBuf {
    dir.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}
