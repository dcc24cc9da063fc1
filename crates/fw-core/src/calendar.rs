//! Calendars: days on which a job does not run, and the hours in which it may.
//!
//! ```text
//! 2026-12-25           a day
//! 12-25                that day of every year
//! Sat                  a day of every week
//!
//! 22:00-06:00          hours, every day; beyond midnight they belong to the day on which they begin
//! Mon-Fri 22:00-06:00  on these days
//! Sat,Sun 00:00-24:00
//! ```
//!
//! The wall clock of the job's time zone decides.

use std::collections::BTreeSet;

use fw_proto::api::FireReason;
use fw_proto::{Span, Timestamp};
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::caret;
use crate::schedule::Schedule;

/// When a job's fires are skipped although it is due.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
    dates: BTreeSet<Date>,
    /// Month and day.
    yearly: BTreeSet<(i8, i8)>,
    weekdays: Weekdays,
    windows: Vec<Window>,
}

/// Why a text is part of no calendar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] pub caret::Error);

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weekdays(u8);

/// Hours of some days of the week, in minutes since midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    days: Weekdays,
    from: i32,
    /// Of the next day when it is not later than `from`.
    to: i32,
}

const DAY: i32 = 24 * 60;

impl Calendar {
    /// A calendar in this time zone, which is known to exist; `None` when it skips nothing.
    ///
    /// # Errors
    /// A day or a window is none.
    pub fn parse(
        skip_on: &[String],
        windows: &[String],
        timezone: &str,
    ) -> Result<Option<Self>, Error> {
        if skip_on.is_empty() && windows.is_empty() {
            return Ok(None);
        }
        let mut calendar = Self {
            zone: TimeZoneDatabase::bundled().get(timezone).unwrap_or(TimeZone::UTC),
            dates: BTreeSet::new(),
            yearly: BTreeSet::new(),
            weekdays: Weekdays(0),
            windows: Vec::new(),
        };
        for day in skip_on {
            calendar.skip(day)?;
        }
        for window in windows {
            calendar.windows.push(Window::parse(window)?);
        }
        Ok(Some(calendar))
    }

    /// Why a job that is due at this instant does not run.
    #[must_use]
    pub fn refuses(&self, at: Timestamp) -> Option<FireReason> {
        let wall = self.wall(at)?;
        let date = wall.date();
        let skipped = self.dates.contains(&date)
            || self.yearly.contains(&(date.month(), date.day()))
            || self.weekdays.has(date.weekday());
        if skipped {
            return Some(FireReason::Calendar);
        }
        let open = self.windows.is_empty() || self.windows.iter().any(|window| window.holds(wall));
        (!open).then_some(FireReason::Window)
    }

    /// The instant after `at` until which [`Self::refuses`] says the same: at most a day later.
    #[must_use]
    pub fn same_until(&self, at: Timestamp) -> Option<Timestamp> {
        let now = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
        let offset = self.zone.to_offset(now);
        let wall = offset.to_datetime(now);
        let minute = minute_of(wall);
        let ends = self.windows.iter().flat_map(|window| [window.from, window.to]);
        let next = ends.filter(|end| *end > minute).fold(DAY, i32::min);
        let midnight = wall.date().to_datetime(jiff::civil::Time::midnight());
        let next = midnight.checked_add(jiff::SignedDuration::from_mins(next.into())).ok()?;
        // While the clock does not change, the wall shows what follows from here.
        let next = offset.to_timestamp(next).ok()?;
        let change = self.zone.following(now).next().map(|change| change.timestamp());
        let until = change.map_or(next, |change| change.min(next));
        Some(Timestamp::from_millis(until.as_millisecond()))
    }

    fn wall(&self, at: Timestamp) -> Option<DateTime> {
        let at = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
        Some(self.zone.to_offset(at).to_datetime(at))
    }

    fn skip(&mut self, text: &str) -> Result<(), Error> {
        let day = text.trim();
        if let Some(weekday) = weekday(day) {
            self.weekdays.0 |= bit(weekday);
            return Ok(());
        }
        // A leap year, so that 29 February is a day.
        let yearly = format!("2000-{day}").parse::<Date>();
        match (day.parse::<Date>(), yearly) {
            (Ok(date), _) => drop(self.dates.insert(date)),
            (Err(_), Ok(date)) => drop(self.yearly.insert((date.month(), date.day()))),
            (Err(_), Err(_)) => {
                let message = "write a day such as 2026-12-25, 12-25 (of every year) or Sat";
                return Err(caret::Error::new(text, 0, message).into());
            }
        }
        Ok(())
    }
}

/// When a job runs next, after an instant: due, and not kept from it. `None` when that is never, or
/// not within so many changes of the calendar that it is nothing to wait for.
#[must_use]
pub fn next_run(
    schedule: &Schedule,
    calendar: Option<&Calendar>,
    after: Timestamp,
) -> Option<Timestamp> {
    let mut fire = schedule.next_after(after)?.nominal;
    let Some(calendar) = calendar else { return Some(fire) };
    for _ in 0..MOST_CHANGES {
        if calendar.refuses(fire).is_none() {
            return Some(fire);
        }
        let until = calendar.same_until(fire)?;
        fire = schedule.next_after(until - Span::from_millis(1))?.nominal;
    }
    None
}

/// A few years of days and windows.
const MOST_CHANGES: u32 = 4000;

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        (self.zone.iana_name(), &self.dates, &self.yearly, self.weekdays, &self.windows)
            == (other.zone.iana_name(), &other.dates, &other.yearly, other.weekdays, &other.windows)
    }
}

impl Window {
    fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |part: &str, message: &str| {
            let at = text.find(part).map_or(0, |at| text[..at].chars().count());
            Error(caret::Error::new(text, at, message))
        };
        let (days, hours) = match text.split_whitespace().collect::<Vec<_>>()[..] {
            [hours] if hours.contains(':') => (None, hours),
            [days, hours] => (Some(days), hours),
            [..] => return Err(wrong("", "write hours such as Mon-Fri 22:00-06:00")),
        };
        let hint = "write hours such as 22:00-06:00";
        let (from, to) = hours.split_once('-').ok_or_else(|| wrong(hours, hint))?;
        let minute = |part: &str| {
            minute_in(part).ok_or_else(|| wrong(part, "write a time such as 06:30, up to 24:00"))
        };
        let (from, to) = (minute(from)?, minute(to)?);
        if from == DAY || from == to {
            return Err(wrong(hours, "these hours are none; for a whole day write 00:00-24:00"));
        }
        let days = match days {
            None => Weekdays::ALL,
            Some(days) => Weekdays::parse(days)
                .ok_or_else(|| wrong(days, "write days such as Mon-Fri or Sat,Sun"))?,
        };
        Ok(Self { days, from, to })
    }

    fn holds(&self, wall: DateTime) -> bool {
        let (today, minute) = (wall.weekday(), minute_of(wall));
        if self.from < self.to {
            return self.days.has(today) && (self.from..self.to).contains(&minute);
        }
        let began_today = self.days.has(today) && minute >= self.from;
        began_today || (self.days.has(today.previous()) && minute < self.to)
    }
}

impl Weekdays {
    const ALL: Self = Self(0x7f);

    fn parse(text: &str) -> Option<Self> {
        let mut days = Self(0);
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut day, last) = (weekday(first)?, weekday(last)?);
            days.0 |= bit(day);
            while day != last {
                day = day.next();
                days.0 |= bit(day);
            }
        }
        Some(days)
    }

    fn has(self, day: Weekday) -> bool {
        self.0 & bit(day) != 0
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

fn weekday(text: &str) -> Option<Weekday> {
    const NAMES: [(&str, Weekday); 7] = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let text = text.trim().to_ascii_lowercase();
    let named = |(name, _): &&(&str, Weekday)| *name == text || name.get(..3) == Some(&text);
    NAMES.iter().find(named).map(|(_, day)| *day)
}

fn minute_in(text: &str) -> Option<i32> {
    let (hours, minutes) = text.split_once(':')?;
    let plain = |part: &str| part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(hours) || !plain(minutes) || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

fn minute_of(wall: DateTime) -> i32 {
    i32::from(wall.hour()) * 60 + i32::from(wall.minute())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn calendar(skip_on: &[&str], windows: &[&str], zone: &str) -> Calendar {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Calendar::parse(&owned(skip_on), &owned(windows), zone).unwrap().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_millis(at.as_millisecond())
    }

    #[track_caller]
    fn check(calendar: &Calendar, when: &str, expected: Option<FireReason>) {
        assert_eq!(calendar.refuses(at(when)), expected, "{when}");
    }

    #[test]
    fn days_are_skipped() {
        let days = calendar(&["2026-12-25", "01-01", "Sunday"], &[], "Europe/Athens");
        let skipped = Some(FireReason::Calendar);
        check(&days, "2026-12-24T21:59:59Z", None);
        check(&days, "2026-12-24T22:00:00Z", skipped);
        check(&days, "2026-12-25T21:59:59Z", skipped);
        check(&days, "2027-12-25T12:00:00Z", None);
        check(&days, "2030-01-01T12:00:00Z", skipped);
        check(&days, "2026-11-29T12:00:00Z", skipped);
        check(&days, "2026-11-30T12:00:00Z", None);
    }

    #[test]
    fn hours_beyond_midnight_belong_to_the_day_before() {
        let nights = calendar(&[], &["Mon-Fri 22:00-06:00"], "UTC");
        let closed = Some(FireReason::Window);
        check(&nights, "2026-11-23T05:59:00Z", closed);
        check(&nights, "2026-11-23T22:00:00Z", None);
        check(&nights, "2026-11-24T05:59:59Z", None);
        check(&nights, "2026-11-24T06:00:00Z", closed);
        check(&nights, "2026-11-28T05:00:00Z", None);
        check(&nights, "2026-11-28T22:30:00Z", closed);
        let both = calendar(&["Tue"], &["08:00-12:00", "Sat,Sun 00:00-24:00"], "UTC");
        check(&both, "2026-11-24T09:00:00Z", Some(FireReason::Calendar));
        check(&both, "2026-11-25T09:00:00Z", None);
        check(&both, "2026-11-25T13:00:00Z", closed);
        check(&both, "2026-11-29T23:59:59Z", None);
    }

    #[test]
    fn what_is_no_day_or_window_is_refused() {
        let refused = |skip_on: &[&str], windows: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
            Calendar::parse(&owned(skip_on), &owned(windows), "UTC").unwrap_err().to_string()
        };
        let texts = [
            refused(&["2026-02-30"], &[]),
            refused(&["Xmas"], &[]),
            refused(&[], &["Mon-Fri"]),
            refused(&[], &["Mon-Fry 10:00-12:00"]),
            refused(&[], &["Mon 10:00-25:00"]),
            refused(&[], &["10:00-10:00"]),
            refused(&[], &["a b c"]),
        ];
        insta::assert_snapshot!(texts.join("\n"), @r"
        write a day such as 2026-12-25, 12-25 (of every year) or Sat
        2026-02-30
        ^
        write a day such as 2026-12-25, 12-25 (of every year) or Sat
        Xmas
        ^
        write hours such as Mon-Fri 22:00-06:00
        Mon-Fri
        ^
        write days such as Mon-Fri or Sat,Sun
        Mon-Fry 10:00-12:00
        ^
        write a time such as 06:30, up to 24:00
        Mon 10:00-25:00
                  ^
        these hours are none; for a whole day write 00:00-24:00
        10:00-10:00
        ^
        write hours such as Mon-Fri 22:00-06:00
        a b c
        ^
        ");
    }

    proptest! {
        /// What is counted by stretches is what would be found by looking at each minute, also
        /// where the clock changes.
        #[test]
        fn the_answer_stays_until_it_says(
            day in 0..1000_i64,
            from in 0..48_i32,
            length in 1..47_i32,
            zone in prop::sample::select(&["Europe/Athens", "Australia/Lord_Howe", "UTC", "America/New_York"][..]),
        ) {
            let to = (from + length) % 48;
            let time = |half: i32| format!("{:02}:{:02}", half / 2, half % 2 * 30);
            let window = format!("Mon-Sat {}-{}", time(from), time(to));
            let calendar = calendar(&["03-29", "Thu"], &[&window], zone);
            let begin = Timestamp::from_millis(1_770_000_000_000 + day * 86_400_000);
            let mut now = begin;
            while now < begin + Span::from_secs(3 * 86_400) {
                let (answer, until) = (calendar.refuses(now), calendar.same_until(now).unwrap());
                prop_assert!(until > now && until <= now + Span::from_secs(86_400));
                let mut minute = now;
                while minute < until {
                    prop_assert_eq!(calendar.refuses(minute), answer, "{} from {}", minute, now);
                    minute = minute + Span::from_secs(600);
                }
                now = until;
            }
        }
    }
}
