//! From the tree to a rollout: each key with its own rule, each error at its own place.

use std::collections::BTreeSet;

use fw_proto::Span;
use fw_proto::api::{Offline, OnFull, Role, SourceError};

use super::{
    Amount, Approve, Before, MOST_ITEMS, MOST_WAVES, Name, Picked, Rollout, Share, State, check,
};
use crate::change::{OnFailure, Windows};
use crate::command::{self, LONGEST};
use crate::job::Parsed;
use crate::job::fields::{Fields, Outcome, Read, Reported};
use crate::job::yaml::{Document, Node, Place, Value};
use crate::plan::{Exec, KILL_AFTER, START_WITHIN};
use crate::schedule;

const KEYS: [&str; 17] = [
    "rollout",
    "hosts",
    "waves",
    "max_parallel",
    "max_failures",
    "do",
    "verify",
    "soak",
    "approve",
    "window",
    "timezone",
    "undo",
    "on_failure",
    "offline",
    "start_within",
    "rehearse",
    "state",
];

/// Keys of an undo; `do` has those of [`DO_KEYS`] as well.
const UNDO_KEYS: [&str; 10] =
    ["run", "argv", "timeout", "user", "cwd", "env", "kill_after", "on_full", "nice", "umask"];

const DO_KEYS: [&str; 12] = [
    "run",
    "argv",
    "timeout",
    "armed",
    "user",
    "cwd",
    "env",
    "retries",
    "kill_after",
    "on_full",
    "nice",
    "umask",
];

/// The longest name.
const LONGEST_NAME: usize = 64;

/// The most people that may be asked to approve.
const MOST_PEOPLE: u32 = 20;

/// Reads a whole file.
pub(super) fn file(
    file: &str,
    lines: &[&str],
    document: &Document,
) -> Result<Rollout, Vec<SourceError>> {
    let mut read = Read::new(file, lines);
    let rollout = rollout(&mut read, &document.root);
    if let Some(duplicate) = document.duplicate.as_ref().filter(|_| read.errors.is_empty()) {
        let place = Place { line: duplicate.line, column: duplicate.column };
        read.error(place, "this key stands twice; remove one");
    }
    let good = rollout.filter(|_| read.errors.is_empty());
    good.ok_or_else(|| Parsed::default().with_errors(read.errors).errors)
}

/// Reads every key, so that all errors are reported at once.
fn rollout(read: &mut Read<'_>, root: &Node) -> Option<Rollout> {
    let Value::Map(_) = &root.value else {
        read.error(root.place, "a rollout file begins with 'rollout: NAME'");
        return None;
    };
    let fields = read.map(root, &KEYS, "key of a rollout").ok()?;
    let place = root.place;
    let (line, name) = name(read, place, &fields).ok().unzip();
    let hosts =
        read.required(place, &fields, "hosts", "on which hosts, such as web* or \"*\"").ok();
    let hosts = hosts.and_then(|node| picked(read, node).ok());
    let what = "how many hosts at a time, such as [1, 10%, 50%, 100%]";
    let waves = read.required(place, &fields, "waves", what).ok();
    let waves = waves.and_then(|node| self::waves(read, node).ok());
    let max_parallel = read.optional(&fields, "max_parallel", Read::count);
    let max_failures = read.optional(&fields, "max_failures", failures);
    let act = read.required(place, &fields, "do", "what to do: {run: COMMAND}").ok();
    let act = act.and_then(|node| act_of(read, node).ok());
    let verify = read.optional(&fields, "verify", check::all).unwrap_or_default();
    let soak = read.optional(&fields, "soak", span);
    let approve = read.optional(&fields, "approve", approve);
    let windows = windows(read, &fields);
    let undo = match &act {
        Some(act) => read.optional(&fields, "undo", |read, node| undo_of(read, node, &act.exec)),
        None => None,
    };
    let on_failure = read.optional(&fields, "on_failure", |read, node| {
        let known =
            [("pause", OnFailure::Pause), ("undo", OnFailure::Undo), ("stop", OnFailure::Stop)];
        read.one_of(node, &known)
    });
    let start_within = read.optional(&fields, "start_within", span).unwrap_or(START_WITHIN);
    let offline = read.optional(&fields, "offline", offline).unwrap_or(Offline::Wait(start_within));
    let rehearse = read.optional(&fields, "rehearse", Read::yes_or_no).unwrap_or_default();
    let state = read.optional(&fields, "state", state);
    let act = act?;
    let rollout = Rollout {
        name: name?,
        line: line?,
        hosts: hosts?,
        waves: waves?,
        max_parallel,
        max_failures: max_failures.unwrap_or(Amount::Count(1)),
        act: act.exec,
        retries: act.retries,
        armed: act.armed,
        verify,
        soak,
        approve,
        windows,
        undo,
        on_failure: on_failure.unwrap_or(OnFailure::Pause),
        offline,
        start_within: match offline {
            // Who waits for a host an hour wants it to start then, too.
            Offline::Wait(wait) => start_within.max(wait),
            Offline::Fail | Offline::Skip => start_within,
        },
        rehearse,
        state,
    };
    together(read, &fields, &rollout);
    Some(rollout)
}

/// Rules of several keys.
fn together(read: &mut Read<'_>, fields: &Fields<'_>, rollout: &Rollout) {
    let at = |key: &str| fields.get(key).map_or(Place { line: 1, column: 1 }, |(place, _)| *place);
    // What stands there and is wrong was reported before.
    let said =
        |key: &str| fields.get(key).is_some_and(|(_, node)| !matches!(node.value, Value::Null));
    let no_undo = rollout.undo.is_none() && !said("undo");
    if no_undo && rollout.on_failure == OnFailure::Undo {
        read.error(at("on_failure"), "there is nothing to undo with; say 'undo: {run: COMMAND}'");
    }
    if no_undo && rollout.armed.is_some() {
        read.error(at("do"), "what is armed undoes itself; say with what: 'undo: {run: COMMAND}'");
    }
    if no_undo && rollout.rehearse {
        read.error(at("rehearse"), "the undo is rehearsed; say 'undo: {run: COMMAND}'");
    }
    if rollout.rehearse && rollout.state.is_none() && !said("state") {
        let message = "a rehearsal compares the state of a host before and after; say 'state: {files: [PATH], commands: [COMMAND]}'";
        read.error(at("rehearse"), message);
    }
    if let (Some(undo), Some(_)) = (&rollout.undo, &rollout.state)
        && undo.user != rollout.act.user
    {
        let message =
            "with 'state', undo runs as the same user as do, who keeps the state on the host";
        read.error(at("undo"), message);
    }
    let waves = rollout.waves.len();
    if let Some(Approve { before: Before::Waves(numbers), .. }) = &rollout.approve
        && let Some(beyond) =
            numbers.iter().find(|one| usize::try_from(**one).is_ok_and(|one| one > waves))
    {
        read.error(at("approve"), format!("before_wave is {beyond}, and there are {waves} waves"));
    }
}

fn name(read: &mut Read<'_>, place: Place, fields: &Fields<'_>) -> Outcome<(u32, Name)> {
    let node = read.required(place, fields, "rollout", "what it is called, such as nginx-1.27")?;
    let text = read.words(node)?;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || text.len() > LONGEST_NAME || !text.chars().all(letter) {
        let message = format!(
            "a name has letters, digits, '-', '_' and '.', begins with a letter or digit, and has at most {LONGEST_NAME} of them"
        );
        return Err(read.error(node.place, message));
    }
    Ok((node.place.line, Name(text)))
}

fn picked(read: &mut Read<'_>, node: &Node) -> Outcome<Picked> {
    read.selector(node).map(|(text, selector)| Picked { text, selector })
}

/// One wave or a list of them.
fn waves(read: &mut Read<'_>, node: &Node) -> Outcome<Vec<Share>> {
    let nodes = items(read, node, MOST_WAVES, "waves")?;
    if nodes.is_empty() {
        return Err(read.error(node.place, "this list is empty; write [1, 10%, 50%, 100%]"));
    }
    let mut waves = Vec::new();
    let mut before = 0;
    for node in nodes {
        let share = share(read, node)?;
        if let Share::Percent(percent) = share {
            if percent <= before {
                let message = format!(
                    "a percentage says how many of all hosts have it after this wave, so it goes beyond the {before}% before"
                );
                return Err(read.error(node.place, message));
            }
            before = percent;
        }
        waves.push(share);
    }
    Ok(waves)
}

/// `5`, `10%`, or a selector.
fn share(read: &mut Read<'_>, node: &Node) -> Outcome<Share> {
    let text = read.words(node)?;
    let number = text.trim().trim_end_matches('%');
    if number.chars().all(|c| c.is_ascii_digit()) && !number.is_empty() {
        return amount(read, node).map(|amount| match amount {
            Amount::Count(count) => Share::Count(count),
            Amount::Percent(percent) => Share::Percent(percent),
        });
    }
    picked(read, node).map(Share::Picked)
}

/// `5` or `10%`. Who writes 0 means that none may fail.
fn failures(read: &mut Read<'_>, node: &Node) -> Outcome<Amount> {
    if matches!(read.words(node)?.trim(), "0" | "0%") {
        return Err(read.error(node.place, "write 1: then the first host that fails ends it"));
    }
    amount(read, node)
}

/// `5` or `10%`.
fn amount(read: &mut Read<'_>, node: &Node) -> Outcome<Amount> {
    let text = read.words(node)?;
    let amount = match text.trim().strip_suffix('%') {
        Some(number) => {
            let percent = number.parse().ok().filter(|number| (1..=100).contains(number));
            percent.map(Amount::Percent)
        }
        None => text.trim().parse().ok().filter(|count| *count >= 1).map(Amount::Count),
    };
    let message = "a number of hosts such as 5, or a share such as 10%, should stand here; at least 1, and whole";
    amount.ok_or_else(|| read.error(node.place, message))
}

/// What `do` says.
struct Act {
    exec: Exec,
    armed: Option<Span>,
    retries: u32,
}

fn act_of(read: &mut Read<'_>, node: &Node) -> Outcome<Act> {
    let fields = read.map(node, &DO_KEYS, "key of 'do'")?;
    let before = read.errors.len();
    let command = read.command(node.place, &fields);
    let armed = read.optional(&fields, "armed", span);
    let retries = read.optional(&fields, "retries", Read::few).unwrap_or_default();
    let empty = Exec {
        command: command?,
        user: None,
        cwd: None,
        env: std::collections::BTreeMap::new(),
        timeout: None,
        kill_after: KILL_AFTER,
        on_full: OnFull::default(),
        nice: None,
        umask: None,
        armed: None,
    };
    let exec = exec(read, node, &fields, empty)?;
    if read.errors.len() > before { Err(Reported) } else { Ok(Act { exec, armed, retries }) }
}

/// An undo runs as `do` does, but for what it says itself.
fn undo_of(read: &mut Read<'_>, node: &Node, act: &Exec) -> Outcome<Exec> {
    let fields = read.map(node, &UNDO_KEYS, "key of 'undo'")?;
    let command = read.command(node.place, &fields)?;
    exec(read, node, &fields, Exec { command, ..act.clone() })
}

/// How a command is started: what is said, else as in `base`.
fn exec(read: &mut Read<'_>, node: &Node, fields: &Fields<'_>, base: Exec) -> Outcome<Exec> {
    let timeout = read.optional(fields, "timeout", Read::span);
    let on_full = read.optional(fields, "on_full", |read, node| {
        read.one_of(node, &[("block", OnFull::Block), ("drop", OnFull::Drop)])
    });
    let exec = Exec {
        user: read.optional(fields, "user", Read::words).or(base.user),
        cwd: read.optional(fields, "cwd", Read::words).or(base.cwd),
        env: read.optional(fields, "env", Read::env).unwrap_or(base.env),
        timeout: timeout.or(base.timeout).filter(|timeout| *timeout != Span::ZERO),
        kill_after: read.optional(fields, "kill_after", Read::span).unwrap_or(base.kill_after),
        on_full: on_full.unwrap_or(base.on_full),
        nice: read.optional(fields, "nice", nice).or(base.nice),
        umask: read.optional(fields, "umask", umask).or(base.umask),
        ..base
    };
    match command::check(&exec) {
        Ok(()) => Ok(exec),
        Err(why) => Err(read.error(node.place, why.to_string())),
    }
}

fn nice(read: &mut Read<'_>, node: &Node) -> Outcome<i8> {
    let text = read.text(node)?;
    text.parse().map_err(|_| read.error(node.place, "a number from -20 to 19 should stand here"))
}

fn umask(read: &mut Read<'_>, node: &Node) -> Outcome<u16> {
    let text = read.text(node)?;
    let mask = u16::from_str_radix(&text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| read.error(node.place, "an octal mask such as 027 should stand here"))
}

/// At least a second and at most a year.
pub(super) fn span(read: &mut Read<'_>, node: &Node) -> Outcome<Span> {
    let span = read.positive_span(node)?;
    if span > LONGEST {
        return Err(read.error(node.place, "this is longer than 366 days; give less"));
    }
    Ok(span)
}

/// The items of a list, or the one that stands in its place.
pub(super) fn items<'n>(
    read: &mut Read<'_>,
    node: &'n Node,
    most: usize,
    what: &str,
) -> Outcome<&'n [Node]> {
    let nodes = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null | Value::Scalar { .. } | Value::Map(_) => std::slice::from_ref(node),
    };
    if nodes.len() > most {
        return Err(read.error(node.place, format!("there are at most {most} {what}")));
    }
    Ok(nodes)
}

fn approve(read: &mut Read<'_>, node: &Node) -> Outcome<Approve> {
    let fields = read.map(node, &["before_wave", "by", "people", "expires"], "key of 'approve'")?;
    let before = match fields.get("before_wave") {
        Some((_, node)) => before_wave(read, node)?,
        None => Before::Waves(BTreeSet::from([1])),
    };
    let roles = [("operator", Role::Operator), ("admin", Role::Admin)];
    let by = read.optional(&fields, "by", |read, node| read.one_of(node, &roles));
    let people = read.optional(&fields, "people", |read, node| {
        let people = read.count(node)?;
        if people > MOST_PEOPLE {
            return Err(read.error(node.place, format!("at most {MOST_PEOPLE} can be asked")));
        }
        Ok(people)
    });
    let expires = read.optional(&fields, "expires", span);
    Ok(Approve { before, by: by.unwrap_or(Role::Operator), people: people.unwrap_or(1), expires })
}

/// `2`, `[2, 3]` or `each`.
fn before_wave(read: &mut Read<'_>, node: &Node) -> Outcome<Before> {
    if matches!(&node.value, Value::Scalar { text, .. } if text == "each") {
        return Ok(Before::Each);
    }
    let nodes = items(read, node, MOST_WAVES, "waves")?;
    if nodes.is_empty() {
        return Err(read.error(node.place, "this list is empty; write 2, [2, 3] or each"));
    }
    let numbers = nodes.iter().map(|node| read.count(node));
    numbers.collect::<Outcome<_>>().map(Before::Waves)
}

fn windows(read: &mut Read<'_>, fields: &Fields<'_>) -> Option<Windows> {
    let windows = read.optional(fields, "window", |read, node| {
        let windows = read.windows(node)?;
        if windows.is_empty() {
            return Err(read.error(node.place, "this list is empty; write hours or leave it out"));
        }
        Ok(windows)
    });
    let zone = read.optional(fields, "timezone", |read, node| {
        let text = read.words(node)?;
        schedule::timezone(&text).map_err(|error| read.error(node.place, error.to_string()))
    });
    let Some(windows) = windows else {
        if let (Some((place, _)), false) = (fields.get("timezone"), fields.contains_key("window")) {
            read.error(*place, "a time zone is for 'window', and there is none");
        }
        return None;
    };
    Some(Windows { windows, timezone: zone.unwrap_or_else(|| "UTC".to_owned()) })
}

/// `fail`, `skip`, or how long it is waited for.
fn offline(read: &mut Read<'_>, node: &Node) -> Outcome<Offline> {
    let text = read.words(node)?;
    match text.as_str() {
        "fail" => return Ok(Offline::Fail),
        "skip" => return Ok(Offline::Skip),
        _ => {}
    }
    if text.parse::<Span>().is_err() {
        let message = "write fail, skip, or how long to wait, such as 10m";
        return Err(read.error(node.place, message));
    }
    span(read, node).map(Offline::Wait)
}

fn state(read: &mut Read<'_>, node: &Node) -> Outcome<State> {
    let fields = read.map(node, &["files", "commands"], "part of a state")?;
    let files = read.optional(&fields, "files", |read, node| {
        let nodes = items(read, node, MOST_ITEMS, "files")?;
        nodes.iter().map(|node| path(read, node)).collect::<Outcome<Vec<_>>>()
    });
    let commands = read.optional(&fields, "commands", |read, node| {
        let nodes = items(read, node, MOST_ITEMS, "commands")?;
        nodes.iter().map(|node| read.words(node)).collect::<Outcome<Vec<_>>>()
    });
    let state = State { files: files.unwrap_or_default(), commands: commands.unwrap_or_default() };
    if state == State::default() {
        return Err(read.error(node.place, "say 'files', 'commands' or both"));
    }
    Ok(state)
}

/// An absolute path.
pub(super) fn path(read: &mut Read<'_>, node: &Node) -> Outcome<String> {
    let path = read.words(node)?;
    if !path.starts_with('/') {
        return Err(read.error(node.place, "this is no absolute path; begin it with '/'"));
    }
    Ok(path)
}
