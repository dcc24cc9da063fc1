//! Time zones: from the data in this binary, never from the machine, so that every server and
//! every test agrees.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

use super::Error;
use crate::caret::nearest;

/// The time zone of this name, and the name as IANA spells it. An empty name is UTC.
pub(super) fn named(name: &str) -> Result<(String, TimeZone), Error> {
    let name = name.trim();
    if name.is_empty() || name.eq_ignore_ascii_case("UTC") {
        return Ok(("UTC".to_owned(), TimeZone::UTC));
    }
    let database = TimeZoneDatabase::bundled();
    match database.get(name) {
        Ok(zone) => Ok((zone.iana_name().unwrap_or(name).to_owned(), zone)),
        Err(_) => Err(Error::Zone { name: name.chars().take(80).collect(), hint: hint(name) }),
    }
}

/// A name close to this one, or one whose last part it is.
fn hint(name: &str) -> Option<String> {
    let known: Vec<String> =
        TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect();
    let place = |known: &&String| {
        known.rsplit('/').next().is_some_and(|place| place.eq_ignore_ascii_case(name))
    };
    if let Some(found) = known.iter().find(place) {
        return Some(found.clone());
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    nearest(name, &known).map(str::to_owned)
}

/// A stretch of time without a change of the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    /// From UTC to the wall clock.
    pub(super) offset: Offset,
    /// When the clock changes next; `None` when never.
    pub(super) end: Option<jiff::Timestamp>,
}

/// The stretch that holds an instant.
pub(super) fn stretch(zone: &TimeZone, at: jiff::Timestamp) -> Stretch {
    Stretch {
        offset: zone.to_offset(at),
        end: zone.following(at).next().map(|change| change.timestamp()),
    }
}

/// Where a wall time lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// At this instant; the first of two where the clock goes back.
    At(jiff::Timestamp),
    /// Nowhere: the clock goes forward over it, at this instant.
    Gap(jiff::Timestamp),
}

/// Where a wall time lies; `None` at the end of the calendar.
pub(super) fn place(zone: &TimeZone, wall: DateTime) -> Option<Place> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok().map(Place::At),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok().map(Place::At),
        AmbiguousOffset::Gap { after, .. } => {
            let before = after.to_timestamp(wall).ok()?;
            zone.following(before).next().map(|change| Place::Gap(change.timestamp()))
        }
    }
}

/// Where the wall clock shows for the second time what it showed before it went back: the wall
/// time from which on all is new. `None` at any other instant.
pub(super) fn new_from(zone: &TimeZone, at: jiff::Timestamp) -> Option<DateTime> {
    let offset = zone.to_offset(at);
    match zone.to_ambiguous_timestamp(offset.to_datetime(at)).offset() {
        AmbiguousOffset::Fold { before, after } if after == offset => {
            let later = at.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
            zone.preceding(later).next().map(|change| before.to_datetime(change.timestamp()))
        }
        AmbiguousOffset::Fold { .. }
        | AmbiguousOffset::Gap { .. }
        | AmbiguousOffset::Unambiguous { .. } => None,
    }
}
