//! Cron patterns: the fields, the search on the wall clock, and from there to instants.

use croner::parser::{CronParser, Seconds, Year};
use croner::{CronComponent, CronPattern, Weekday};
use fw_proto::Timestamp;
use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::Fire;
use super::zone::{self, Place};
use crate::caret;

/// How far to look for a next day. The longest pause of the calendar: 29 February falls on a given
/// weekday every 28 years, or after 40 where a century year is no leap year.
const HORIZON_YEARS: i16 = 45;

/// A pattern in its time zone.
#[derive(Debug)]
pub(super) struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    /// The years, rising; `None` for all.
    years: Option<Vec<i16>>,
    /// Know which days match; their other fields are emptied. One for all months, or one for each
    /// length of a month, from 28 days on, where a day counts from the month's end (`L-3`).
    days: Box<[CronPattern]>,
    /// Has `*` or a step in second, minute or hour.
    wildcard: bool,
    zone: TimeZone,
}

impl Cron {
    /// Reads a pattern or one of the words for common ones.
    pub(super) fn parse(text: &str, zone: TimeZone) -> Result<Self, caret::Error> {
        let expanded = expand(text)?;
        let fields = fields(expanded)?;
        let all_years = fields.last().is_none_or(|year| year.text == "*");
        let mut patterns = Vec::new();
        for length in lengths(&fields) {
            let parsed = parser().parse(&joined(&fields, all_years, length));
            let parsed = parsed.map_err(|error| caret::Error::new(text, 0, error.to_string()))?;
            patterns.push(parsed.pattern);
        }
        let Some(pattern) = patterns.first() else {
            return Err(caret::Error::new(text, 0, "a schedule has at least one pattern"));
        };
        let wildcard = fields.iter().take(3).any(|field| field.text.contains(['*', '/']));
        let cron = Self {
            seconds: mask(&pattern.seconds),
            minutes: mask(&pattern.minutes),
            hours: mask(&pattern.hours),
            months: mask(&pattern.months),
            years: (!all_years).then(|| years(pattern)),
            wildcard,
            zone,
            days: patterns.into_iter().map(days_only).collect(),
        };
        Ok(cron)
    }

    /// The first fire strictly after an instant.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Fire> {
        let after = jiff::Timestamp::from_millisecond(after.as_millis()).ok()?;
        if self.wildcard { self.next_elapsed(after) } else { self.next_fixed(after) }
    }

    /// By elapsed time: stretch by stretch, each with a steady clock.
    fn next_elapsed(&self, after: jiff::Timestamp) -> Option<Fire> {
        let mut stretch = zone::stretch(&self.zone, after);
        let mut from = second_after(stretch.offset.to_datetime(after))?;
        loop {
            let wall = self.next_wall(from)?;
            let at = stretch.offset.to_timestamp(wall).ok()?;
            match stretch.end.filter(|end| *end <= at) {
                None => return Some(Fire { nominal: timestamp(at), dst_gap: false }),
                Some(end) => {
                    stretch = zone::stretch(&self.zone, end);
                    from = stretch.offset.to_datetime(end);
                }
            }
        }
    }

    /// By wall time: each names one instant, and later ones name no earlier instants.
    fn next_fixed(&self, after: jiff::Timestamp) -> Option<Fire> {
        let mut from = second_after(self.zone.to_datetime(after))?;
        if let Some(new) = zone::new_from(&self.zone, after) {
            from = from.max(new);
        }
        loop {
            let wall = self.next_wall(from)?;
            let (at, dst_gap) = match zone::place(&self.zone, wall)? {
                Place::At(at) => (at, false),
                Place::Gap(at) => (at, !self.matches(self.zone.to_datetime(at))),
            };
            if at > after {
                return Some(Fire { nominal: timestamp(at), dst_gap });
            }
            from = second_after(wall)?;
        }
    }

    /// How many fires lie after `after` and not later than `until`.
    pub(super) fn count(&self, after: Timestamp, until: Timestamp) -> u64 {
        self.count_stretches(after, until).unwrap_or_default()
    }

    fn count_stretches(&self, after: Timestamp, until: Timestamp) -> Option<u64> {
        let after = jiff::Timestamp::from_millisecond(after.as_millis()).ok()?;
        let until = jiff::Timestamp::from_millisecond(until.as_millis()).ok()?;
        let mut stretch = zone::stretch(&self.zone, after);
        let mut from = second_after(stretch.offset.to_datetime(after))?;
        if let Some(new) = zone::new_from(&self.zone, after).filter(|_| !self.wildcard) {
            from = from.max(new);
        }
        let mut count = 0;
        while let Some(end) = stretch.end.filter(|end| *end <= until) {
            let before = stretch.offset.to_datetime(end);
            count += self.count_walls(from, before);
            stretch = zone::stretch(&self.zone, end);
            from = stretch.offset.to_datetime(end);
            if !self.wildcard {
                let skipped = self.count_walls(before, from) > 0 && !self.matches(from);
                count += u64::from(skipped);
                from = from.max(before);
            }
        }
        Some(count + self.count_walls(from, second_after(stretch.offset.to_datetime(until))?))
    }

    /// How many wall times match from `from` on and before `to`; none where `to` lies before.
    fn count_walls(&self, from: DateTime, to: DateTime) -> u64 {
        let mut count = 0;
        let mut date = from.date();
        while date <= to.date() {
            match self.next_date(date) {
                Some(next) if next <= to.date() => date = next,
                Some(_) | None => break,
            }
            let first = if date == from.date() { second_of_day(from.time()) } else { 0 };
            let end = if date == to.date() { second_of_day(to.time()) } else { 24 * 3600 };
            count += self.times_before(end).saturating_sub(self.times_before(first));
            let Ok(tomorrow) = date.tomorrow() else { break };
            date = tomorrow;
        }
        count
    }

    /// How many times of a day match before this second of it.
    fn times_before(&self, second: u32) -> u64 {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let below = |mask: u64, value: u32| u64::from((mask & ((1 << value) - 1)).count_ones());
        let has = |mask: u64, value: u32| mask >> value & 1;
        let (minutes, seconds) = (below(self.minutes, 60), below(self.seconds, 60));
        let in_minute = has(self.minutes, minute) * below(self.seconds, second);
        let in_hour = below(self.minutes, minute) * seconds + in_minute;
        below(self.hours, hour) * minutes * seconds + has(self.hours, hour) * in_hour
    }

    /// The first wall time that matches, not before `from` (in whole seconds).
    fn next_wall(&self, from: DateTime) -> Option<DateTime> {
        let mut date = self.next_date(from.date())?;
        if date == from.date() {
            if let Some(time) = self.next_time(from.time()) {
                return Some(date.to_datetime(time));
            }
            date = self.next_date(date.tomorrow().ok()?)?;
        }
        self.next_time(Time::midnight()).map(|time| date.to_datetime(time))
    }

    /// The first time of day that matches, not before `from`.
    fn next_time(&self, from: Time) -> Option<Time> {
        let (hour, minute) = (from.hour().unsigned_abs(), from.minute().unsigned_abs());
        let earliest = |mask: u64| next_bit(mask, 0);
        let here = self.hours >> hour & 1 == 1;
        if here
            && self.minutes >> minute & 1 == 1
            && let Some(second) = next_bit(self.seconds, from.second().unsigned_abs())
        {
            return Time::new(from.hour(), from.minute(), second, 0).ok();
        }
        let second = earliest(self.seconds)?;
        if here && let Some(minute) = next_bit(self.minutes, minute + 1) {
            return Time::new(from.hour(), minute, second, 0).ok();
        }
        let hour = next_bit(self.hours, hour + 1)?;
        Time::new(hour, earliest(self.minutes)?, second, 0).ok()
    }

    /// The first date that matches, not before `from`.
    fn next_date(&self, from: Date) -> Option<Date> {
        let mut date = from;
        let mut last_year = from.year().saturating_add(HORIZON_YEARS);
        if let Some(years) = &self.years {
            last_year = *years.last()?;
        }
        while date.year() <= last_year {
            if let Some(years) = &self.years
                && years.binary_search(&date.year()).is_err()
            {
                let year = *years.iter().find(|year| **year > date.year())?;
                date = Date::new(year, 1, 1).ok()?;
            } else if self.months >> date.month() & 1 == 0 {
                date = date.first_of_month().checked_add(1.month()).ok()?;
            } else if self.day_matches(date) {
                return Some(date);
            } else {
                date = date.tomorrow().ok()?;
            }
        }
        None
    }

    fn day_matches(&self, date: Date) -> bool {
        let part = |value: i8| u32::from(value.unsigned_abs());
        let weekday = match date.weekday() {
            jiff::civil::Weekday::Monday => Weekday::Monday,
            jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
            jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
            jiff::civil::Weekday::Thursday => Weekday::Thursday,
            jiff::civil::Weekday::Friday => Weekday::Friday,
            jiff::civil::Weekday::Saturday => Weekday::Saturday,
            jiff::civil::Weekday::Sunday => Weekday::Sunday,
        };
        let (year, month, day) = (i32::from(date.year()), part(date.month()), part(date.day()));
        let by_length = usize::from(date.days_in_month().unsigned_abs()).saturating_sub(SHORTEST);
        let days = self.days.get(by_length).or_else(|| self.days.first());
        // It errs on dates that do not exist only; this one does.
        days.is_some_and(|days| days.day_match(year, month, day, weekday).unwrap_or(false))
    }

    fn matches(&self, wall: DateTime) -> bool {
        self.next_wall(wall) == Some(wall)
    }
}

/// The first set bit of a mask, not below `from`.
fn next_bit(mask: u64, from: u8) -> Option<i8> {
    let rest = mask.checked_shr(u32::from(from)).filter(|rest| *rest != 0)?;
    i8::try_from(u32::from(from) + rest.trailing_zeros()).ok()
}

fn mask(component: &CronComponent) -> u64 {
    component.values().into_iter().fold(0, |mask, value| mask | 1 << (value & 63))
}

/// Costs a look at each year that there could be.
fn years(pattern: &CronPattern) -> Vec<i16> {
    let years = pattern.years.values();
    years.into_iter().filter_map(|year| i16::try_from(year).ok()).collect()
}

fn second_of_day(time: Time) -> u32 {
    let part = |value: i8| u32::from(value.unsigned_abs());
    part(time.hour()) * 3600 + part(time.minute()) * 60 + part(time.second())
}

/// The next whole second of the wall clock.
fn second_after(wall: DateTime) -> Option<DateTime> {
    let time = wall.time().with().subsec_nanosecond(0).build().ok()?;
    wall.date().to_datetime(time).checked_add(1.second()).ok()
}

fn timestamp(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millisecond())
}

/// A field of a pattern.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    text: &'a str,
    /// Where it begins, in characters.
    at: usize,
}

/// Which of the seven fields is the day of the month.
const DAY_OF_MONTH: usize = 3;

/// What the fields are called and hold, in the order of seven fields.
const FIELDS: [(&str, &str); 7] = [
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31, L for the last or L-3 for the third before it"),
    ("month", "1-12 or JAN-DEC"),
    ("weekday", "0-7 (0 and 7 are Sunday) or SUN-SAT"),
    ("year", "four digits"),
];

/// Stands for the year where the year does not matter: `croner` sets 5,000 flags for a star.
const ANY_YEAR: &str = "1";

/// The days of the shortest month.
const SHORTEST: usize = 28;

/// The lengths of months that need a pattern of their own; 31 alone where all are alike.
fn lengths(fields: &[Field<'_>]) -> std::ops::RangeInclusive<usize> {
    let counts_back =
        |field: &Field<'_>| field.text.split(',').any(|item| before_last(item).is_some());
    if fields.get(DAY_OF_MONTH).is_some_and(counts_back) { SHORTEST..=31 } else { 31..=31 }
}

/// The pattern for months of this length.
fn joined(fields: &[Field<'_>], all_years: bool, length: usize) -> String {
    let mut texts: Vec<String> = fields.iter().map(|field| field.text.to_owned()).collect();
    if let Some(days) = texts.get_mut(DAY_OF_MONTH) {
        let item = |item: &str| match before_last(item) {
            // A month without this day is shorter than 31 days and has no 31st either.
            Some(back) => length.checked_sub(back).filter(|day| *day > 0).unwrap_or(31).to_string(),
            None => item.to_owned(),
        };
        *days = days.split(',').map(item).collect::<Vec<_>>().join(",");
    }
    if let Some(year) = texts.last_mut().filter(|_| all_years) {
        ANY_YEAR.clone_into(year);
    }
    texts.join(" ")
}

/// How many days before the last of the month an item such as `L-3` means.
fn before_last(item: &str) -> Option<usize> {
    let (last, back) = item.split_once('-')?;
    let digits = last.eq_ignore_ascii_case("L") && back.bytes().all(|byte| byte.is_ascii_digit());
    back.parse().ok().filter(|back| digits && (1..=30).contains(back))
}

/// A pattern without the fields that are kept elsewhere.
fn days_only(mut pattern: CronPattern) -> CronPattern {
    let none = || CronComponent::new(0, 0, 0, 0);
    (pattern.seconds, pattern.minutes, pattern.hours) = (none(), none(), none());
    (pattern.months, pattern.years) = (none(), none());
    pattern
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Required).year(Year::Required).build()
}

/// The pattern behind a word such as `@daily`, or the text itself.
fn expand(text: &str) -> Result<&str, caret::Error> {
    let word = text.trim();
    if !word.starts_with('@') {
        return Ok(text);
    }
    let known = [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ];
    let found = known.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    found.map(|(_, pattern)| *pattern).ok_or_else(|| {
        let message = "use @every 90s, @hourly, @daily, @weekly, @monthly, @yearly or five fields";
        caret::Error::new(text, text.chars().take_while(|c| c.is_whitespace()).count(), message)
    })
}

/// The seven fields, each checked; second and year are added where they are not written.
fn fields(text: &str) -> Result<Vec<Field<'_>>, caret::Error> {
    let mut fields = Vec::new();
    for (index, part) in text.split_whitespace().enumerate() {
        let byte = part.as_ptr() as usize - text.as_ptr() as usize;
        let at = text.get(..byte).unwrap_or_default().chars().count();
        if index == 7 {
            return Err(caret::Error::new(text, at, "a schedule has at most 7 fields"));
        }
        fields.push(Field { text: part, at });
    }
    let written = fields.len();
    if written < 5 {
        let message = format!(
            "a schedule has 5 fields (minute hour day month weekday), or 6 with seconds first; \
             this one has {written}"
        );
        return Err(caret::Error::new(text, text.trim_end().chars().count(), message));
    }
    if written == 5 {
        fields.insert(0, Field { text: "0", at: 0 });
    }
    if written < 7 {
        fields.push(Field { text: "*", at: 0 });
    }
    for (index, field) in fields.iter().enumerate() {
        check_field(text, index, *field)?;
    }
    Ok(fields)
}

/// Checks one field, item by item, each alone among fields that are in order: `croner` would say that something is
/// wrong, but not where.
fn check_field(text: &str, index: usize, field: Field<'_>) -> Result<(), caret::Error> {
    let (name, range) = FIELDS.get(index).copied().unwrap_or_default();
    let mut at = field.at;
    for item in field.text.split(',') {
        let mut pattern = ["0", "0", "0", "1", "1", "0", ANY_YEAR];
        if let Some(slot) = pattern.get_mut(index) {
            *slot = item;
        }
        if is_plain(index, item) || (index == DAY_OF_MONTH && before_last(item).is_some()) {
            at += item.chars().count() + 1;
            continue;
        }
        let words_fit = !item.is_empty() && words(item).all(|word| word_fits(index, word));
        if !words_fit || parser().parse(&pattern.join(" ")).is_err() {
            let message = format!("{name} {item:?}: write {range}{}", hint(item));
            return Err(caret::Error::new(text, at, message));
        }
        at += item.chars().count() + 1;
    }
    Ok(())
}

/// Whether an item is `*` or a number that fits its field: most are, and need not be parsed to
/// find out. Numbers of years are not among them: they are rare.
fn is_plain(index: usize, item: &str) -> bool {
    const RANGES: [std::ops::RangeInclusive<u8>; 6] =
        [0..=59, 0..=59, 0..=23, 1..=31, 1..=12, 0..=7];
    let digits = item.len() <= 2 && item.bytes().all(|byte| byte.is_ascii_digit());
    let number = item.parse().ok().filter(|_| digits);
    item == "*"
        || RANGES.get(index).zip(number).is_some_and(|(range, number)| range.contains(&number))
}

/// What to write instead.
fn hint(item: &str) -> &'static str {
    if item.is_empty() {
        return "; a list has a value on both sides of each ','";
    }
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
    let mut ends = item.split(['-', '/']);
    let (first, second) = (number(ends.next()), number(ends.next()));
    match (item.contains('-'), item.contains('/')) {
        (true, _) if first > second && second.is_some() => {
            "; a range goes up, so split it in two with ','"
        }
        (false, true) if first.is_some() => "; a step follows '*' or a range: */5 or 10-50/5",
        (_, _) => ", a range 1-5, a list 1,3 or a step */2",
    }
}

fn words(item: &str) -> impl Iterator<Item = &str> {
    item.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty())
}

/// Whether a word may stand in this field; `croner` would read `MON` as a minute.
fn word_fits(index: usize, word: &str) -> bool {
    const MONTHS: [&str; 12] =
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
    const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let word = word.to_ascii_uppercase();
    match index {
        3 => matches!(word.as_str(), "L" | "W" | "LW"),
        4 => MONTHS.contains(&word.as_str()),
        5 => DAYS.contains(&word.strip_suffix('L').unwrap_or(&word)) || word == "L",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain_needs_no_parser() {
        let numbers = (0..=99).flat_map(|n| [format!("{n}"), format!("{n:02}")]);
        for item in numbers.chain(["*".to_owned()]) {
            for index in 0..FIELDS.len() {
                let mut pattern = ["0", "0", "0", "1", "1", "0", ANY_YEAR];
                pattern[index] = &item;
                let parsed = parser().parse(&pattern.join(" "));
                let plain = is_plain(index, &item);
                assert!(!plain || parsed.is_ok(), "{item} in field {index}");
                assert!(plain || parsed.is_err() || index == 6, "{item} in field {index}");
            }
        }
    }
}
