//! What somebody wants of a maintenance, and whether it makes sense.

use fw_core::maintenance::Windows;
use fw_core::schedule::Schedule;
use fw_proto::api::NewMaintenance;
use fw_proto::{Span, Timestamp};

use crate::drive::jobs::Wanted;
use crate::fleet;
use crate::problem::{Failure, Result};

/// The longest reason: it stands in a column.
const MAX_REASON: usize = 200;

/// The longest message.
const MAX_MESSAGE: usize = 2000;

/// The longest maintenance with an end; longer is a slip of the keyboard.
const LONGEST: Span = Span::from_secs(10 * 366 * 24 * 60 * 60);

/// The shortest window of one that recurs: shorter ones are a slip of the keyboard, too.
const SHORTEST_WINDOW: Span = Span::from_secs(60);

/// The longest window.
const LONGEST_WINDOW: Span = Span::from_secs(31 * 24 * 60 * 60);

/// Reads it.
pub(super) fn read(new: NewMaintenance, now: Timestamp) -> Result<Wanted> {
    check(&new)?;
    let windows = windows(&new, now)?;
    let until = if windows.is_some() { None } else { end_of(&new, now)? };
    let NewMaintenance { hosts, reason, message, .. } = new;
    Ok(Wanted { hosts, reason, message, until, windows })
}

fn check(new: &NewMaintenance) -> Result<()> {
    if new.everything == new.hosts.is_some() {
        return Err(Failure::invalid("give either `hosts`, a selector, or `everything: true`"));
    }
    new.hosts.as_deref().map(fleet::selector).transpose()?;
    if new.reason.trim().is_empty() || new.reason.len() > MAX_REASON {
        return Err(Failure::invalid(format!("reason: use 1 to {MAX_REASON} bytes")));
    }
    if new.message.as_ref().is_some_and(|message| message.len() > MAX_MESSAGE) {
        return Err(Failure::invalid(format!("message: use at most {MAX_MESSAGE} bytes")));
    }
    Ok(())
}

/// When it recurs, if it does.
fn windows(new: &NewMaintenance, now: Timestamp) -> Result<Option<Windows>> {
    let Some(every) = &new.every else {
        let alone = "timezone: it goes with `every`; leave it out";
        return if new.timezone.is_some() { Err(Failure::invalid(alone)) } else { Ok(None) };
    };
    let Some(lasts) = new.lasts else {
        return Err(Failure::invalid("for: say how long each window lasts"));
    };
    if new.until.is_some() {
        let rule = "until: one that recurs ends when it is switched off; leave it out";
        return Err(Failure::invalid(rule));
    }
    if new.stop_running {
        let rule = "stop_running: one that recurs ends nothing; switch one on that begins now";
        return Err(Failure::invalid(rule));
    }
    if lasts < SHORTEST_WINDOW || lasts > LONGEST_WINDOW {
        return Err(Failure::invalid("for: a window lasts from 1m to 31d"));
    }
    let every = Schedule::parse(every, new.timezone.as_deref().unwrap_or_default())
        .map_err(|why| Failure::invalid(format!("every: {why}")))?;
    let windows = Windows { every, lasts };
    if windows.next(now).is_none() {
        return Err(Failure::invalid("every: no window is ahead any more"));
    }
    if windows.run_together(now) {
        let rule = format!("for: the next window begins before {lasts} are over; make it shorter");
        return Err(Failure::invalid(rule));
    }
    Ok(Some(windows))
}

/// When it is to end; `None` when it goes on until it is switched off.
fn end_of(new: &NewMaintenance, now: Timestamp) -> Result<Option<Timestamp>> {
    let (key, until) = match (new.lasts, new.until) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Failure::invalid("give either `for` or `until`")),
        (Some(lasts), None) => ("for", now + lasts),
        (None, Some(until)) => ("until", until),
    };
    if until <= now {
        let rule = format!("{key}: it would end at once; on the server it is {now}");
        return Err(Failure::invalid(rule));
    }
    if until.since(now) > LONGEST {
        let rule = format!("{key}: it is longer than 10 years; leave it out for no end");
        return Err(Failure::invalid(rule));
    }
    Ok(Some(until))
}
