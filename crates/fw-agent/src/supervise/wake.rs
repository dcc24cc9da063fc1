//! Tells the agent that a task has news: a line in a FIFO that nobody may be reading.
//!
//! A hint only. The agent also looks by itself, so a line that is lost costs time and nothing else.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// The least time between two lines: the agent gains nothing from more, and a command that
/// writes byte by byte must not keep it busy.
const AT_MOST_EVERY: Duration = Duration::from_millis(10);

/// The bell of one task.
pub(super) struct Wake {
    fifo: PathBuf,
    line: Vec<u8>,
    rung: Option<Duration>,
    due: Option<Duration>,
}

impl Wake {
    /// For the task whose key has this text.
    pub(super) fn new(fifo: PathBuf, key: &str) -> Self {
        Self { fifo, line: format!("{key}\n").into_bytes(), rung: None, due: None }
    }

    /// There is news: rings now, or when enough time has passed since the last time.
    pub(super) fn ring_soon(&mut self, now: Duration) {
        let earliest = self.rung.map_or(now, |rung| rung + AT_MOST_EVERY);
        self.due.get_or_insert(earliest);
    }

    /// When the next ring is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Rings when it is due.
    pub(super) fn ring_if_due(&mut self, now: Duration) {
        if self.due.is_some_and(|due| now >= due) {
            self.ring();
            (self.rung, self.due) = (Some(now), None);
        }
    }

    /// Rings. No reader, and a reader that is behind, are both no reason to wait.
    pub(super) fn ring(&self) {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        if let Ok(mut fifo) =
            std::fs::File::options().write(true).custom_flags(flags).open(&self.fifo)
        {
            drop(fifo.write(&self.line));
        }
    }
}
