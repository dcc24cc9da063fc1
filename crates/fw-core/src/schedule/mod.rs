//! Schedules: at which instants a job is due.
//!
//! ```text
//! */5 * * * *          minute hour day-of-month month weekday
//! 30 */5 * * * *       seconds first
//! 0 0 12 1 1 * 2030    seconds first, year last
//! 0 0 L-3 * *          three days before the last of the month
//! 0 0 1 * +MON         the day of the month *and* the weekday; without `+` either is enough
//! @every 90s           counted from the Unix epoch
//! @hourly @daily @weekly @monthly @yearly
//! ```
//!
//! The wall clock of the time zone decides, and where it jumps, one of two rules:
//!
//! - A **fixed** wall time runs once: at its first occurrence where the clock goes back, at the
//!   first instant after the gap where the clock goes forward.
//! - A **wildcard** (`*` or a step in second, minute or hour) follows elapsed time: it runs in both
//!   of the hours that look alike, and in none that does not exist.
//!
//! `croner` reads the fields and knows the calendar. Its own search differs from these rules where
//! a field lists several fixed values, and keeps 5 KiB a pattern for the years; the search here is
//! over bit masks.

mod cron;
mod zone;

use std::sync::Arc;

use fw_proto::{Span, Timestamp};

use crate::caret;
use cron::Cron;

/// A schedule in its time zone. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: Arc<str>,
    timezone: Arc<str>,
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    /// Every so many milliseconds since the Unix epoch.
    Every(i64),
    Cron(Cron),
}

/// An instant at which a job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fire {
    /// When.
    pub nominal: Timestamp,
    /// The wall time that was asked for does not exist on that day; this is the first instant
    /// after the gap.
    pub dst_gap: bool,
}

/// Several fires, by their ends and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
    /// How many; at least 1.
    pub count: u64,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The schedule itself is wrong.
    #[error(transparent)]
    Text(#[from] caret::Error),
    /// It is well written, and names no instant that there is: 30 February, or years that are over
    /// since before 1970.
    #[error(transparent)]
    Never(caret::Error),
    /// The time zone is not known.
    #[error("there is no time zone {name:?}{}", hint.as_ref().map_or_else(
        || "; write its IANA name, such as Europe/Athens".to_owned(),
        |hint| format!("; did you mean {hint}?"),
    ))]
    Zone {
        /// What was written.
        name: String,
        /// What may have been meant.
        hint: Option<String>,
    },
}

/// The shortest period of `@every`.
const SHORTEST_PERIOD: Span = Span::from_secs(1);

/// The name of a time zone, as IANA spells it; an empty one is UTC.
///
/// # Errors
/// There is no such zone.
pub fn timezone(name: &str) -> Result<String, Error> {
    zone::named(name).map(|(name, _)| name)
}

impl Schedule {
    /// Reads a schedule. An empty time zone is UTC.
    ///
    /// # Errors
    /// The text is no schedule or would never be due (30 February), or there is no such time zone.
    pub fn parse(text: &str, timezone: &str) -> Result<Self, Error> {
        let (timezone, zone) = zone::named(timezone)?;
        let kind = match text.trim().strip_prefix("@every") {
            Some(period) => Kind::Every(period_of(text, period)?),
            None => Kind::Cron(Cron::parse(text, zone)?),
        };
        let schedule =
            Self { text: text.trim().into(), timezone: timezone.into(), kind: Arc::new(kind) };
        if schedule.next_after(Timestamp::EPOCH).is_none() {
            let message = "this is never due: no such day is in the calendar";
            return Err(Error::Never(caret::Error::new(text, 0, message)));
        }
        Ok(schedule)
    }

    /// The text it was read from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// IANA name of its time zone.
    #[must_use]
    pub fn timezone(&self) -> &str {
        &self.timezone
    }

    /// What the clock on the wall of its time zone shows at an instant, with the offset from UTC.
    #[must_use]
    pub fn wall(&self, at: Timestamp) -> String {
        let zone = zone::named(&self.timezone).map_or(jiff::tz::TimeZone::UTC, |(_, zone)| zone);
        jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(
            |_| String::new(),
            |at| at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        )
    }

    /// The first fire strictly after an instant; `None` when there is none any more.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Fire> {
        match &*self.kind {
            Kind::Every(period) => {
                let next = (after.as_millis() / period).checked_add(1)?.checked_mul(*period)?;
                let nominal = Timestamp::from_millis(next);
                (nominal.as_millis() == next).then_some(Fire { nominal, dst_gap: false })
            }
            Kind::Cron(cron) => cron.next_after(after),
        }
    }

    /// The fires after `after` and not later than `until`, in order, found as they are asked for.
    pub fn between(&self, after: Timestamp, until: Timestamp) -> impl Iterator<Item = Fire> + '_ {
        let mut last = after;
        std::iter::from_fn(move || {
            let fire = self.next_after(last).filter(|fire| fire.nominal <= until)?;
            last = fire.nominal;
            Some(fire)
        })
    }

    /// The last fires after `after` and not later than `until`, at most so many, in order. Costs about as
    /// much as to count them.
    #[must_use]
    pub fn last(&self, most: u64, after: Timestamp, until: Timestamp) -> Vec<Fire> {
        let mut fires: Vec<_> = self.between(self.last_with(most, after, until), until).collect();
        let surplus = fires.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
        fires.drain(..surplus);
        fires
    }

    /// After which instant, `after` or later, there are just about `most` fires until `until`: halves the
    /// stretch until a second is left, in which lie few.
    fn last_with(&self, most: u64, after: Timestamp, until: Timestamp) -> Timestamp {
        if self.count(after, until) <= most {
            return after;
        }
        let (mut low, mut high) = (after, until);
        while high.since(low) > Span::from_secs(1) {
            let middle = low + Span::from_millis(high.since(low).as_millis() / 2);
            if self.count(middle, until) >= most {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// How many fires lie after `after` and not later than `until`. Costs a few nanoseconds for
    /// each *day* between them, however often the schedule is due.
    #[must_use]
    pub fn count(&self, after: Timestamp, until: Timestamp) -> u64 {
        if until <= after {
            return 0;
        }
        match &*self.kind {
            Kind::Every(period) => {
                let count = until.as_millis() / period - after.as_millis() / period;
                u64::try_from(count).unwrap_or_default()
            }
            Kind::Cron(cron) => cron.count(after, until),
        }
    }

    /// The fires after `after` and not later than `until`, summed up; `None` when there are none.
    #[must_use]
    pub fn tally(&self, after: Timestamp, until: Timestamp) -> Option<Tally> {
        let from = self.next_after(after).filter(|fire| fire.nominal <= until)?.nominal;
        let count = self.count(after, until);
        Some(Tally { from, to: self.last_between(from, until), count })
    }

    /// The last fire not later than `until`, where `from` is one: halves the stretch in which it
    /// lies until a second is left.
    fn last_between(&self, from: Timestamp, until: Timestamp) -> Timestamp {
        let (mut low, mut high) = (from, until);
        while high.since(low) > Span::from_secs(1) {
            let middle = low + Span::from_millis(high.since(low).as_millis() / 2);
            if self.count(middle, high) > 0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.between(low, high).last().map_or(low, |fire| fire.nominal)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.timezone) == (&other.text, &other.timezone)
    }
}

/// The period of `@every` in milliseconds; `rest` is what follows the word.
fn period_of(text: &str, rest: &str) -> Result<i64, caret::Error> {
    let leading = text.chars().count() - text.trim_start().chars().count();
    let at = leading + "@every".len() + usize::from(rest.starts_with(char::is_whitespace));
    if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
        return Err(caret::Error::new(text, at, "a space should follow '@every'"));
    }
    let period: Span =
        rest.parse().map_err(|_| caret::Error::new(text, at, why_no_period(rest)))?;
    if period < SHORTEST_PERIOD {
        return Err(caret::Error::new(text, at, "the shortest period is 1s"));
    }
    i64::try_from(period.as_millis())
        .map_err(|_| caret::Error::new(text, at, "this period is too long"))
}

/// A text that would be a period with smaller numbers is one that is too long.
fn why_no_period(rest: &str) -> &'static str {
    let mut before = ' ';
    let mut smaller = rest.to_owned();
    smaller.retain(|c| {
        let again = before.is_ascii_digit() && c.is_ascii_digit();
        before = c;
        !again
    });
    if smaller.parse::<Span>().is_ok() {
        "this period is too long"
    } else {
        "write a period such as 90s or 1h30m"
    }
}

#[cfg(test)]
mod tests;
