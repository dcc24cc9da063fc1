//! Windows that recur: they begin when a schedule says so, and last so long by the clock's own seconds.

use fw_proto::{Span, Timestamp};

use crate::schedule::Schedule;

/// When windows begin, and how long each lasts. On a night when clocks change a window begins at its wall
/// time, and lasts as long as ever.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    /// When they begin.
    pub every: Schedule,
    /// How long each lasts.
    pub lasts: Span,
}

/// One of them, or several that run into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first instant.
    pub from: Timestamp,
    /// The first instant after it.
    pub until: Timestamp,
}

/// Windows that count for a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Recurring {
    /// None before this.
    pub since: Timestamp,
    /// None from this on.
    pub until: Option<Timestamp>,
    /// The windows.
    pub windows: Windows,
}

/// So many of a stretch are looked at, the last: each costs a look at the schedule, for each job that was
/// due in a downtime. With a window a day it is almost three years.
const MOST: u64 = 1000;

/// So many that run into each other are shown as one.
const JOINED: usize = 100;

impl Windows {
    /// Whether an instant lies in one.
    #[must_use]
    pub fn cover(&self, at: Timestamp) -> bool {
        self.first(at).is_some_and(|window| window.from <= at)
    }

    /// Whether the next one begins before the first after this instant has ended.
    #[must_use]
    pub fn run_together(&self, after: Timestamp) -> bool {
        let first = self.after(after);
        let next = first.and_then(|first| self.after(first.from));
        first.zip(next).is_some_and(|(first, next)| next.from <= first.until)
    }

    /// The one that an instant lies in, or the next.
    #[must_use]
    pub fn next(&self, at: Timestamp) -> Option<Window> {
        let mut window = self.first(at)?;
        for _ in 0..JOINED {
            match self.after(window.from).filter(|next| next.from <= window.until) {
                Some(next) => window = Window { from: window.from, until: next.until },
                None => break,
            }
        }
        Some(window)
    }

    /// The first instant after this one at which a window begins or ends.
    pub(super) fn next_edge(&self, at: Timestamp) -> Option<Timestamp> {
        let ends = self.first(at).map(|window| window.until);
        let begins = self.after(at).map(|window| window.from);
        ends.into_iter().chain(begins).min()
    }

    /// The first that is not over then.
    fn first(&self, at: Timestamp) -> Option<Window> {
        self.after(at - self.lasts)
    }

    /// The first that begins after that.
    fn after(&self, at: Timestamp) -> Option<Window> {
        let from = self.every.next_after(at)?.nominal;
        Some(Window { from, until: from + self.lasts })
    }
}

impl Recurring {
    /// Whether an instant lies in a window that counts.
    #[must_use]
    pub fn covers(&self, at: Timestamp) -> bool {
        let on = self.since <= at && self.until.is_none_or(|until| at < until);
        on && self.windows.cover(at)
    }

    /// Those that have instants after one and not later than another: all, or the last thousand.
    pub(super) fn between(&self, after: Timestamp, until: Timestamp) -> Vec<Window> {
        let Windows { every, lasts } = &self.windows;
        let first = after.max(self.since) - *lasts;
        let last = self.until.map_or(until, |end| end.min(until));
        let cut = |from: Timestamp| Window {
            from: from.max(self.since),
            until: self.until.map_or(from + *lasts, |end| end.min(from + *lasts)),
        };
        every.last(MOST, first, last).into_iter().map(|fire| cut(fire.nominal)).collect()
    }
}
