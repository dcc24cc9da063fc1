//! One item of a field: between the commas.

use super::Field;

/// What an item means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// `*`, and `?` for days.
    Any,
    /// A number, a range or steps.
    Values {
        /// The first.
        first: u16,
        /// Not beyond this.
        last: u16,
        /// From one to the next.
        step: u16,
        /// Begins with `*`.
        star: bool,
    },
    /// `L`: the last day of the month.
    LastDay,
    /// `Z3`, `Z1-3`: so many days before the last.
    BeforeLast {
        /// The fewest.
        first: u16,
        /// The most.
        last: u16,
        /// Written as a range.
        range: bool,
    },
    /// `L5`, `L1-3`: the last of these weekdays in the month.
    LastWeekday {
        /// The first.
        first: u16,
        /// The last; with one before `first` the item matches nothing.
        last: u16,
    },
}

impl Item {
    /// Reads an item in small letters.
    pub(super) fn read(field: Field, item: &str) -> Result<Self, String> {
        match item {
            "" => return Err("a list has a value on both sides of each ','".to_owned()),
            "*" => return Ok(Self::Any),
            "?" if matches!(field, Field::Dom | Field::Dow) => return Ok(Self::Any),
            "l" if field == Field::Dom => return Ok(Self::LastDay),
            _ => {}
        }
        match (field, item.strip_prefix('z'), item.strip_prefix('l')) {
            (Field::Dom, Some(back), _) => before_last(back),
            (Field::Dow, _, Some(days)) => last_weekday(days),
            (
                Field::Sec
                | Field::Min
                | Field::Hour
                | Field::Dom
                | Field::Mon
                | Field::Dow
                | Field::Year,
                ..,
            ) => values(field, item),
        }
    }

    /// The item in our language; several where it takes several.
    pub(super) fn written(self, field: Field) -> Vec<String> {
        match self {
            Self::Any => vec!["*".to_owned()],
            Self::LastDay => vec!["L".to_owned()],
            Self::BeforeLast { first, last, .. } => (first..=last).map(from_end).collect(),
            Self::LastWeekday { first, last } => {
                (first..=last).map(|day| format!("{}L", day % 7)).collect()
            }
            Self::Values { first, last, step, star } => vec![steps(field, first, last, step, star)],
        }
    }
}

fn from_end(back: u16) -> String {
    if back == 0 { "L".to_owned() } else { format!("L-{back}") }
}

fn steps(field: Field, first: u16, last: u16, step: u16, star: bool) -> String {
    // Our weekdays go to 7, and our years from 1 to 9999.
    let same_star = star && !matches!(field, Field::Dow | Field::Year);
    match (first == last || first.saturating_add(step) > last, step) {
        (true, _) => first.to_string(),
        (false, step) if same_star => format!("*/{step}"),
        (false, 1) => format!("{first}-{last}"),
        (false, step) => format!("{first}-{last}/{step}"),
    }
}

/// Numbers, ranges, steps.
fn values(field: Field, item: &str) -> Result<Item, String> {
    let (start, end) = field.range();
    let (piece, step) = match item.split_once('/') {
        Some((piece, step)) => (piece, Some(step_of(field, step)?)),
        None => (item, None),
    };
    let star = piece == "*";
    let (first, last) = match piece.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (number(field, first)?, number(field, last)?);
            (first, if field == Field::Dow && last == 0 { 7 } else { last })
        }
        None if star => (start, end),
        None => {
            let first = number(field, piece)?;
            // A step from one number goes to the end of the field: for 7 that lies before it.
            (first, if step.is_some() { end } else { first })
        }
    };
    if first > last {
        return Err(format!("{item:?} goes down; a range goes up, so split it in two with ','"));
    }
    if step.is_some_and(|step| first.saturating_add(step) > field.largest()) {
        return Err(format!(
            "{item:?} has no second value; a step must lead to one that is at most {}",
            field.largest()
        ));
    }
    Ok(Item::Values { first, last, step: step.unwrap_or(1), star })
}

fn step_of(field: Field, text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let step = digits.parse().ok().filter(|_| is_number(digits));
    step.filter(|step| (1..=field.largest()).contains(step)).ok_or_else(|| {
        format!("the step {text:?} should be a number from 1 to {}", field.largest())
    })
}

/// A number of the field, or a name of three letters.
fn number(field: Field, text: &str) -> Result<u16, String> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let (start, _) = field.range();
    let (names, first): (&[&str], u16) = match field {
        Field::Mon => (&MONTHS, 1),
        Field::Dow => (&DAYS, 0),
        Field::Sec | Field::Min | Field::Hour | Field::Dom | Field::Year => (&[], 0),
    };
    let named = (first..).zip(names).find(|(_, name)| **name == text).map(|(number, _)| number);
    if let Some(number) = named {
        return Ok(number);
    }
    let number = text.parse().ok().filter(|_| is_number(text));
    number.filter(|number| (start..=field.largest()).contains(number)).ok_or_else(|| {
        let names = match field {
            Field::Mon => " or jan-dec",
            Field::Dow => " or sun-sat",
            Field::Sec | Field::Min | Field::Hour | Field::Dom | Field::Year => "",
        };
        format!("{text:?} is outside {start}-{}{names}", field.largest())
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A digit from 0 to 7, also with zeros before it.
fn digit(text: &str) -> Option<u16> {
    text.parse().ok().filter(|number| is_number(text) && *number <= 7)
}

fn before_last(text: &str) -> Result<Item, String> {
    if let Some(back) = digit(text) {
        return Ok(Item::BeforeLast { first: back, last: back, range: false });
    }
    let ends = text.split_once('-').filter(|(first, last)| first <= last);
    let ends = ends.and_then(|(first, last)| digit(first).zip(digit(last).filter(|end| *end > 0)));
    let (first, last) = ends.ok_or_else(|| {
        format!("'Z{text}' should be Z0 to Z7 or a range such as Z1-3: days before the last")
    })?;
    Ok(Item::BeforeLast { first, last, range: true })
}

fn last_weekday(text: &str) -> Result<Item, String> {
    if let Some(day) = digit(text) {
        // Only a 7 that is written as one digit means Sunday; `L07` means a day that there is not.
        let last = if day == 7 && text != "7" { 0 } else { day };
        return Ok(Item::LastWeekday { first: day, last });
    }
    let ends = text.split_once('-').and_then(|(first, last)| digit(first).zip(digit(last)));
    let (first, last) = ends.ok_or_else(|| {
        format!("'L{text}' should be L0 to L7 or a range such as L1-3: a weekday by its number")
    })?;
    Ok(Item::LastWeekday { first, last })
}
