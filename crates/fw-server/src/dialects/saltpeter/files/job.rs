//! A job of Saltpeter: its keys, and what in them is ignored or dangerous.

use std::collections::BTreeMap;

use fw_core::caret::{self, nearest};
use fw_core::job::yaml::{Node, Place, Value};

use super::scalar::{self, Scalar};
use super::{Job, Read, Timeout};
use crate::dialects::saltpeter::json::Json;
use crate::dialects::saltpeter::schedule::{self, Error, Field, Fields, Times};
use crate::dialects::saltpeter::target;

/// What allows runs to overlap, and nothing else does.
const OVERLAP: &str = "i know what i am doing!";

/// Seconds that a run may take when a job does not say.
const TIMEOUT: u64 = 3600;

const KEYS: [&str; 17] = [
    "command",
    "targets",
    "target_type",
    "timeout",
    "user",
    "cwd",
    "env",
    "number_of_targets",
    "batch_size",
    "allow_overlap",
    "lockfile",
    "use_wrapper",
    "wrapper_path",
    "saltpeter_server_host",
    "wrapper_loglevel",
    "wrapper_logdir",
    "group",
];

type Keys<'a> = BTreeMap<String, &'a Node>;

/// Reads a job; `None` when it cannot be used, which is then noted.
pub(super) fn read(read: &mut Read<'_>, place: Place, name: &str, value: &Node) -> Option<Job> {
    if name.contains('/') {
        read.warn(place, "a name with '/' has no log file in Saltpeter");
    }
    let Value::Map(entries) = &value.value else {
        read.error(place, "a job should be a map; Saltpeter leaves out the whole file");
        return None;
    };
    let keys = keys(read, entries);
    let times = times(read, place, &keys);
    let command = required(read, place, &keys, "command");
    let targets = required(read, place, &keys, "targets");
    let target_type = required(read, place, &keys, "target_type");
    if let (Some(command), Some(node)) = (&command, keys.get("command")) {
        through_salt(read, node.place, command);
    }
    let job = Job {
        name: name.to_owned(),
        group: read.file.strip_suffix(".yaml").unwrap_or(read.file).to_owned(),
        file: read.file.to_owned(),
        place,
        timeout: timeout(read, &keys),
        number_of_targets: count(read, &keys, "number_of_targets"),
        batch_size: count(read, &keys, "batch_size"),
        allow_overlap: overlap(read, &keys),
        user: text(read, &keys, "user"),
        cwd: text(read, &keys, "cwd"),
        env: env(read, &keys),
        use_wrapper: keys.get("use_wrapper").and_then(|node| scalar::of(node))
            != Some(Scalar::Bool(false)),
        fields: Fields::new(),
        times: Times { text: String::new(), schedule: None },
        selector: String::new(),
        raw: raw(entries),
        command: String::new(),
        targets: String::new(),
        target_type: String::new(),
    };
    let selector = selector(read, &keys, target_type.as_deref()?, targets.as_deref()?);
    let (fields, times) = times?;
    Some(Job {
        selector: selector?,
        fields,
        times,
        command: command?,
        targets: targets?,
        target_type: target_type?,
        ..job
    })
}

/// The keys by name; those that do nothing are noted.
fn keys<'a>(read: &mut Read<'_>, entries: &'a [(Node, Node)]) -> Keys<'a> {
    let mut keys = Keys::new();
    for (key, value) in entries {
        let name = scalar::of(key).map(|key| key.to_string()).unwrap_or_default();
        if matches!(scalar::of(value), Some(Scalar::Date(_))) {
            read.warn(value.place, "a date; put it in quotes, for Saltpeter's /config fails on it");
        }
        match name.as_str() {
            "utc" => read.warn(key.place, "utc is ignored: the schedule is in UTC always"),
            "hard_timeout" | "soft_timeout" => {
                read.warn(key.place, format!("{name} is ignored; write timeout"));
            }
            "group" => read.warn(key.place, "group is ignored: it is the name of the file"),
            known if KEYS.contains(&known) || known.parse::<Field>().is_ok() => {}
            unknown => {
                let hint = nearest(unknown, &KEYS)
                    .map_or(String::new(), |near| format!("; did you mean {near}?"));
                read.warn(key.place, format!("{unknown:?} is ignored{hint}"));
            }
        }
        keys.insert(name, value);
    }
    keys
}

/// All keys as they are written; of one that stands twice, the last.
fn raw(entries: &[(Node, Node)]) -> Vec<(String, Json)> {
    let mut raw: Vec<(String, Json)> = Vec::new();
    for (key, value) in entries {
        let key = scalar::of(key).map(|key| key.to_string()).unwrap_or_default();
        let value = scalar::json(value);
        match raw.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => raw.push((key, value)),
        }
    }
    raw
}

/// The targets in our words.
fn selector(read: &mut Read<'_>, keys: &Keys<'_>, kind: &str, targets: &str) -> Option<String> {
    let place = |key: &str| keys.get(key).map_or(Place { line: 0, column: 0 }, |node| node.place);
    let told =
        |error: &caret::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let kind: target::Kind = match kind.parse() {
        Ok(kind) => kind,
        Err(error) => {
            read.error(place("target_type"), told(&error));
            return None;
        }
    };
    match target::translate(kind, targets, &target::Groups::new()) {
        Ok(selector) => Some(selector.to_string()),
        Err(error) => {
            read.error(place("targets"), format!("targets: {}", told(&error)));
            None
        }
    }
}

fn times(read: &mut Read<'_>, place: Place, keys: &Keys<'_>) -> Option<(Fields, Times)> {
    let mut fields = Fields::new();
    let mut good = true;
    for field in Field::ALL {
        let Some(node) = keys.get(field.name()) else { continue };
        match scalar::of(node) {
            Some(value) => {
                let text = value.to_string();
                if text.trim().is_empty() {
                    read.warn(node.place, format!("{field} is empty, so the fields before it move one to the right; write '*' for any"));
                }
                fields.insert(field, text);
            }
            None => {
                read.error(node.place, format!("{field} should be text such as '1,2'"));
                good = false;
            }
        }
    }
    if !good {
        return None;
    }
    match schedule::read(&fields) {
        Ok(times) => {
            if times.schedule.is_none() {
                read.error(place, "this is never due, which ends Saltpeter's scheduler");
            }
            Some((fields, times))
        }
        Err(error) => {
            let at = match &error {
                Error::Missing(_) => place,
                Error::Wrong { field, .. } => {
                    keys.get(field.name()).map_or(place, |node| node.place)
                }
            };
            let said = error.to_string();
            read.error(at, said.lines().next().unwrap_or_default());
            None
        }
    }
}

fn required(read: &mut Read<'_>, place: Place, keys: &Keys<'_>, key: &str) -> Option<String> {
    if keys.contains_key(key) {
        return text(read, keys, key);
    }
    read.error(place, format!("{key} is missing; in Saltpeter each fire dies without a word"));
    None
}

/// A text; lists are joined with commas where Salt takes a list.
fn text(read: &mut Read<'_>, keys: &Keys<'_>, key: &str) -> Option<String> {
    let node = keys.get(key)?;
    if let (Value::List(items), "targets") = (&node.value, key) {
        let of_list = keys.get("target_type").and_then(|kind| scalar::of(kind));
        if of_list == Some(Scalar::Text("list".to_owned())) {
            let names = items.iter().filter_map(scalar::of).map(|name| name.to_string());
            return Some(names.collect::<Vec<_>>().join(","));
        }
    }
    match scalar::of(node) {
        Some(Scalar::Null) | None => {
            read.error(node.place, format!("{key} should be text"));
            None
        }
        Some(value) => Some(value.to_string()),
    }
}

fn timeout(read: &mut Read<'_>, keys: &Keys<'_>) -> Timeout {
    let Some(node) = keys.get("timeout") else { return Timeout::Seconds(TIMEOUT) };
    match scalar::of(node) {
        Some(Scalar::Null | Scalar::Number(0)) => {
            read.warn(node.place, "no timeout: no limit here; Saltpeter kills at once on 0, and watches for an hour only on null");
            Timeout::Unlimited
        }
        Some(Scalar::Number(seconds)) if seconds > 0 => Timeout::Seconds(seconds.unsigned_abs()),
        Some(Scalar::Number(_) | Scalar::Bool(_) | Scalar::Date(_) | Scalar::Text(_)) | None => {
            read.error(node.place, format!("timeout should be a number of seconds without quotes; {TIMEOUT} counts until then, and in Saltpeter the run has no result"));
            Timeout::Seconds(TIMEOUT)
        }
    }
}

fn count(read: &mut Read<'_>, keys: &Keys<'_>, key: &str) -> u64 {
    let Some(node) = keys.get(key) else { return 0 };
    if let Some(Scalar::Number(number)) = scalar::of(node)
        && let Ok(number) = u64::try_from(number)
    {
        return number;
    }
    read.error(node.place, format!("{key} should be a number; 0 is for all"));
    0
}

fn overlap(read: &mut Read<'_>, keys: &Keys<'_>) -> bool {
    let Some(node) = keys.get("allow_overlap") else { return false };
    if scalar::of(node) == Some(Scalar::Text(OVERLAP.to_owned())) {
        read.warn(node.place, "runs of this job may overlap");
        return true;
    }
    read.warn(node.place, format!("ignored: only {OVERLAP:?} allows overlap"));
    false
}

fn env(read: &mut Read<'_>, keys: &Keys<'_>) -> BTreeMap<String, String> {
    let Some(node) = keys.get("env") else { return BTreeMap::new() };
    let Value::Map(entries) = &node.value else {
        read.error(node.place, "env should be a map");
        return BTreeMap::new();
    };
    let pair = |(key, value): &(Node, Node)| {
        Some((scalar::of(key)?.to_string(), scalar::of(value)?.to_string()))
    };
    entries.iter().filter_map(pair).collect()
}

/// Saltpeter hands the command to Salt as a dictionary of Python, which Salt reads as YAML.
fn through_salt(read: &mut Read<'_>, place: Place, command: &str) {
    let breaks = [
        (command.contains('\n'), "a newline"),
        (command.contains('\t'), "a tab"),
        (command.ends_with('\\'), "a backslash at its end"),
        (command.contains('\'') && command.contains('"'), "both kinds of quotes"),
    ];
    for (_, what) in breaks.into_iter().filter(|(has, _)| *has) {
        read.warn(
            place,
            format!("the command has {what}, which breaks on Saltpeter's way through Salt"),
        );
    }
}
