//! What all commands of one task share: the agent's ear, the output, the bell.
//!
//! An ordinary task has one command. An armed one has several, one after the other (the change, its
//! probe, its undo), whose output is one stream.

use std::os::fd::OwnedFd;
use std::time::Duration;

use fw_proto::frame::{Ended, Fate};
use fw_proto::record::Stream;
use fw_rt::Clock;

use super::files;
use super::output::Output;
use super::run::{self, Over, monotonic};
use super::wake::Wake;

/// A read takes at most what a pipe holds by default (`pipe(7)`).
pub(super) const READ: usize = 64 * 1024;

/// What the commands of a task share.
pub(super) struct Desk {
    pub(super) clock: Clock,
    pub(super) control: OwnedFd,
    pub(super) output: Output,
    pub(super) wake: Wake,
    pub(super) buffer: Vec<u8>,
    cancelled: bool,
    word: bool,
}

impl Desk {
    pub(super) fn new(control: OwnedFd, output: Output, wake: Wake) -> Self {
        let buffer = vec![0; READ];
        let (cancelled, word) = (false, false);
        Self { clock: Clock::system(), control, output, wake, buffer, cancelled, word }
    }

    /// Goes on where a supervisor that is gone has left off.
    ///
    /// # Errors
    /// What it wrote cannot be read now.
    pub(super) fn resume(&mut self) -> std::io::Result<()> {
        self.output.resume()
    }

    /// Hears what the agent asks; whether it has said anything.
    pub(super) fn listen(&mut self) -> bool {
        let mut bytes = [0; 64];
        let taken = rustix::io::read(&self.control, &mut bytes).unwrap_or(0);
        let asked = bytes.get(..taken).unwrap_or_default();
        if asked.contains(&files::FREED) && self.output.is_full() {
            self.output.refresh();
        }
        self.cancelled |= asked.contains(&files::CANCEL);
        self.word |= asked.contains(&files::KEEP);
        taken > 0
    }

    /// Whether the end of the task was asked for.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// Whether the server's word is there: keep the change.
    pub(super) fn has_word(&self) -> bool {
        self.word
    }

    /// A word that came before the change was made says nothing about it.
    pub(super) fn forget_word(&mut self) {
        while self.listen() {}
        self.word = false;
    }

    /// Waits for so long, or until the agent says something.
    pub(super) fn pause(&mut self, time: Duration) {
        if run::wait_for(&self.control, time) {
            self.listen();
        }
        run::reap_orphans();
        self.told();
    }

    /// Waits for so long, whatever the agent says.
    pub(super) fn rest(&mut self, time: Duration) {
        let end = monotonic() + time;
        while let Some(left) = end.checked_sub(monotonic()).filter(|left| !left.is_zero()) {
            self.pause(left);
        }
    }

    /// One of the commands is over: what was held back of its output is written.
    pub(super) fn finish_command(&mut self) {
        let at = self.clock.now();
        self.output.finish(at);
    }

    /// A line of ours among the output, so that people see what comes next and from whom.
    pub(super) fn say(&mut self, line: &str) {
        let at = self.clock.now();
        self.output.allow(line.len() as u64 + READ as u64);
        self.output.take(Stream::Stderr, format!("[fleetwright] {line}\n").as_bytes(), at);
        self.told();
    }

    /// Output may have come: rings, now or soon.
    pub(super) fn told(&mut self) {
        let now = monotonic();
        if self.output.take_news() {
            self.wake.ring_soon(now);
        }
        self.wake.ring_if_due(now);
    }

    /// The task is over: what its command, or the change and what became of it, amounts to.
    pub(super) fn conclude(&mut self, over: Over, fate: Option<Fate>) -> Ended {
        let now = self.clock.now();
        self.output.finish(now);
        let (stdout, stderr) = self.output.hashes().unzip();
        Ended {
            output: self.output.offsets(),
            stdout_sha256: stdout,
            stderr_sha256: stderr,
            finished_at: if fate.is_some() { now } else { over.finished_at },
            armed: fate,
            ..over.ended()
        }
    }
}
