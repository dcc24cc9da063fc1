//! Lines on stderr while something takes long.

use std::cell::Cell;
use std::io::{self, Read};

use fw_proto::{Span, Timestamp};
use fw_rt::Clock;

use crate::output;

/// As often as a run says how far it is.
const EVERY: Span = Span::from_secs(10);

/// Says how far something is, at most every ten seconds.
#[derive(Debug)]
pub(crate) struct Progress {
    clock: Clock,
    said_at: Cell<Timestamp>,
    bytes: Cell<u64>,
}

impl Progress {
    /// Begins; nothing is said before ten seconds have passed.
    pub(crate) fn new() -> Self {
        let clock = Clock::system();
        let said_at = Cell::new(clock.steady());
        Self { clock, said_at, bytes: Cell::new(0) }
    }

    /// Counts what is read, and says it.
    pub(super) fn watch<'a, R>(&'a self, inner: R, what: &'a str) -> Watched<'a, R> {
        Watched { inner, what, progress: self }
    }

    fn count(&self, bytes: usize, what: &str) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        let now = self.clock.steady();
        if now.since(self.said_at.get()) >= EVERY {
            self.said_at.set(now);
            output::say(&format!("{} read, at {what}", output::bytes(self.bytes.get())));
        }
    }
}

/// A reader whose bytes are counted.
pub(super) struct Watched<'a, R> {
    inner: R,
    what: &'a str,
    progress: &'a Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.inner.read(into)?;
        self.progress.count(taken, self.what);
        Ok(taken)
    }
}
