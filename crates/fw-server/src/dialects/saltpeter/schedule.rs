//! Schedules of Saltpeter: seven fields by name, translated into a schedule of ours in UTC.
//!
//! It reads them with the Python package `crontab`, whose rules are kept here to the letter: day of
//! the month *and* weekday must match, `L` is the month's last day, `Z3` the third before it, `L5`
//! the last Friday; a step must leave room for a second value. Its time zone is UTC whatever a
//! job's `utc` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use fw_core::caret;
use fw_core::schedule::{self, Schedule};
use fw_proto::Timestamp;

mod item;

use item::Item;

/// One of the seven fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Second; `0` when absent.
    Sec,
    /// Minute.
    Min,
    /// Hour.
    Hour,
    /// Day of the month.
    Dom,
    /// Month.
    Mon,
    /// Weekday.
    Dow,
    /// Year; `*` when absent.
    Year,
}

/// What the fields say, by field.
pub type Fields = BTreeMap<Field, String>;

/// A schedule of Saltpeter in our language.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// The text, for UTC. Where the fields can never match it names 30 February.
    pub text: String,
    /// The same, read; `None` when it is never due.
    pub schedule: Option<Schedule>,
}

/// Why fields are no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field without a default is not there.
    #[error("the field '{0}' is missing")]
    Missing(Field),
    /// A field is wrong.
    #[error("{field}: {error}")]
    Wrong {
        /// Which.
        field: Field,
        /// What, and at which character of its text.
        error: caret::Error,
    },
}

/// A name that is none of the fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no field of a schedule; use sec, min, hour, dom, mon, dow or year")]
pub struct UnknownField {
    /// The name.
    pub name: String,
}

/// The fields that a job must have, in the order in which Saltpeter misses them.
pub const REQUIRED: [Field; 5] = [Field::Dow, Field::Dom, Field::Mon, Field::Hour, Field::Min];

impl Field {
    /// All, in the order of a schedule.
    pub const ALL: [Self; 7] =
        [Self::Sec, Self::Min, Self::Hour, Self::Dom, Self::Mon, Self::Dow, Self::Year];

    /// Its key in a job.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sec => "sec",
            Self::Min => "min",
            Self::Hour => "hour",
            Self::Dom => "dom",
            Self::Mon => "mon",
            Self::Dow => "dow",
            Self::Year => "year",
        }
    }

    /// The values that it may have.
    const fn range(self) -> (u16, u16) {
        match self {
            Self::Sec | Self::Min => (0, 59),
            Self::Hour => (0, 23),
            Self::Dom => (1, 31),
            Self::Mon => (1, 12),
            Self::Dow => (0, 6),
            Self::Year => (1970, 2099),
        }
    }

    /// The largest number that may be written: 7 is Sunday as well.
    const fn largest(self) -> u16 {
        match self {
            Self::Dow => 7,
            Self::Sec | Self::Min | Self::Hour | Self::Dom | Self::Mon | Self::Year => {
                self.range().1
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Field {
    type Err = UnknownField;
    fn from_str(name: &str) -> Result<Self, UnknownField> {
        let found = Self::ALL.into_iter().find(|field| field.name() == name);
        found.ok_or_else(|| UnknownField { name: name.to_owned() })
    }
}

impl Times {
    /// The first fire strictly after an instant; `None` when there is none any more.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.as_ref()?.next_after(after).map(|fire| fire.nominal)
    }
}

/// Reads the fields of a job.
///
/// # Errors
/// A field is missing or wrong; the first one is named.
pub fn read(fields: &Fields) -> Result<Times, Error> {
    if let Some(missing) = REQUIRED.into_iter().find(|field| !fields.contains_key(field)) {
        return Err(Error::Missing(missing));
    }
    let mut texts = BTreeMap::new();
    for (place, word) in Field::ALL.into_iter().zip(words(fields)?) {
        let items =
            items(place, word).map_err(|error| Error::Wrong { field: word.field, error })?;
        texts.insert(place, written(place, &items));
    }
    times(&texts, fields)
}

/// A word of a field, and where it was found.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    field: Field,
    /// All of the field.
    text: &'a str,
    word: &'a str,
}

/// The seven words that Saltpeter makes of the fields.
///
/// It puts them into one line and splits that, so an empty field moves all before it one place to
/// the right, with `0` for the second; two words in a field make one too many.
fn words(fields: &Fields) -> Result<Vec<Word<'_>>, Error> {
    let default = |field: Field| if field == Field::Sec { "0" } else { "*" };
    let text = |field: Field| fields.get(&field).map_or_else(|| default(field), String::as_str);
    let in_field = |field: Field| {
        text(field).split_whitespace().map(move |word| Word { field, text: text(field), word })
    };
    let mut words: Vec<Word<'_>> = Field::ALL.into_iter().flat_map(in_field).collect();
    let written = words.len();
    let counted = |want: fn(usize) -> bool| {
        Field::ALL.into_iter().find(|field| want(in_field(*field).count())).unwrap_or(Field::Min)
    };
    let wrong = |field: Field, at: usize, message: &str| {
        let error = caret::Error::new(text(field), at, message);
        Err(Error::Wrong { field, error })
    };
    if written > Field::ALL.len() {
        let field = counted(|words| words > 1);
        let second = in_field(field).nth(1).map_or(0, |second| place(second.text, second.word));
        return wrong(
            field,
            second,
            "a blank ends the field; write a list without blanks, such as 1,2",
        );
    }
    if written < 5 {
        return wrong(counted(|words| words == 0), 0, "this is empty; write * for any");
    }
    if written < 7 {
        words.insert(0, Word { field: Field::Sec, text: "0", word: "0" });
    }
    if written == 5 {
        words.push(Word { field: Field::Year, text: "*", word: "*" });
    }
    Ok(words)
}

/// Puts the translated fields together; a field is `None` when it matches nothing.
fn times(texts: &BTreeMap<Field, Option<String>>, fields: &Fields) -> Result<Times, Error> {
    let of = |field: Field| texts.get(&field).and_then(Option::as_deref);
    let mut words = Vec::new();
    for field in Field::ALL {
        let Some(text) = of(field) else {
            return Ok(Times { text: NEVER.to_owned(), schedule: None });
        };
        let and = field == Field::Dow && text != "*" && of(Field::Dom) != Some("*");
        match field {
            Field::Sec if text == "0" && of(Field::Year) == Some("*") => {}
            Field::Year if text == "*" => {}
            Field::Sec
            | Field::Min
            | Field::Hour
            | Field::Dom
            | Field::Mon
            | Field::Dow
            | Field::Year => words.push(format!("{}{text}", if and { "+" } else { "" })),
        }
    }
    let text = words.join(" ");
    match Schedule::parse(&text, "UTC") {
        Ok(schedule) => Ok(Times { text, schedule: Some(schedule) }),
        Err(schedule::Error::Never(_)) => Ok(Times { text, schedule: None }),
        Err(schedule::Error::Text(_) | schedule::Error::Zone { .. }) => {
            let written = fields.get(&Field::Min).map_or("", String::as_str);
            let message = format!("this has no counterpart here ({text})");
            Err(Error::Wrong { field: Field::Min, error: caret::Error::new(written, 0, message) })
        }
    }
}

/// A day that no calendar has.
const NEVER: &str = "0 0 30 2 *";

/// The items of a word that stands in the place of a field.
fn items(field: Field, word: Word<'_>) -> Result<Vec<Item>, caret::Error> {
    let mut at = place(word.text, word.word);
    let mut items = Vec::new();
    for item in word.word.to_ascii_lowercase().split(',') {
        let read = Item::read(field, item);
        items.push(read.map_err(|message| caret::Error::new(word.text, at, message))?);
        at += item.chars().count() + 1;
    }
    Ok(items)
}

/// Where a part of a text begins, in characters.
fn place(text: &str, part: &str) -> usize {
    let byte = part.as_ptr() as usize - text.as_ptr() as usize;
    text.get(..byte).unwrap_or_default().chars().count()
}

/// A field in our language; `None` when it matches nothing.
fn written(field: Field, items: &[Item]) -> Option<String> {
    if let Some(counted) = counted_alone(items) {
        return Some(counted);
    }
    if items.contains(&Item::Any) {
        return Some("*".to_owned());
    }
    let mut seen = BTreeSet::new();
    let words = items.iter().flat_map(|item| item.written(field));
    let words: Vec<String> = words.filter(|word| seen.insert(word.clone())).collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// A single `Z3` in a list of days ends the search of the package: of what stands beside it only
/// an `L` or `Z1-3` before it counts.
fn counted_alone(items: &[Item]) -> Option<String> {
    let single = |item: &Item| matches!(item, Item::BeforeLast { range: false, .. });
    let first = items.iter().position(single)?;
    let counts = |item: &&Item| matches!(item, Item::LastDay | Item::BeforeLast { .. });
    let heard = items.iter().take(first + 1).filter(counts);
    let words: Vec<String> = heard.flat_map(|item| item.written(Field::Dom)).collect();
    Some(words.join(","))
}

#[cfg(test)]
mod tests;
