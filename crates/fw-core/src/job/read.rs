//! From the tree to jobs: each key with its own rule, each error at its own place.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_proto::api::{CatchUp, Hook, JobSpec, OnFull, Overlap, RETRY_BACKOFF};
use fw_proto::{JobName, Span};

use super::fields::{Fields, Outcome, Read, inside};
use super::url::wrong_url;
use super::yaml::{Document, Node, Place, Value};
use super::{JobDef, MOST_JOBS, Parsed};
use crate::calendar::Calendar;
use crate::caret::nearest;
use crate::schedule::{self, Schedule};
use crate::select::Selector;

/// From TERM to KILL, when a job does not say.
const KILL_AFTER: Span = Span::from_secs(10);

/// How late a fire may start, when a job does not say: a minute is what cron's own grid forgives.
const START_WITHIN: Span = Span::from_secs(60);

const KEYS: [&str; 28] = [
    "schedule",
    "timezone",
    "hosts",
    "run",
    "argv",
    "user",
    "cwd",
    "env",
    "timeout",
    "kill_after",
    "start_within",
    "calendar",
    "skip_on",
    "window",
    "overlap",
    "catch_up",
    "catch_up_window",
    "catch_up_max",
    "retries",
    "retry_backoff",
    "spread",
    "pick",
    "max_parallel",
    "max_failures",
    "enabled",
    "on_full",
    "on_failure",
    "on_recovery",
];

const OVERLAPS: [(&str, Overlap); 4] = [
    ("skip", Overlap::Skip),
    ("queue", Overlap::Queue),
    ("replace", Overlap::Replace),
    ("allow", Overlap::Allow),
];

const CATCH_UPS: [(&str, CatchUp); 3] =
    [("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)];

/// Reads a whole file.
pub(super) fn file(file: &str, lines: &[&str], document: &Document) -> Parsed {
    let mut read = Read::new(file, lines);
    let jobs = read.document(&document.root);
    if let Some(duplicate) = document.duplicate.as_ref().filter(|_| read.errors.is_empty()) {
        let place = Place { line: duplicate.line, column: duplicate.column };
        read.error(place, "this key stands twice; remove one");
    }
    let parsed =
        Parsed { readable: jobs.is_some(), jobs: jobs.unwrap_or_default(), ..Parsed::default() };
    parsed.with_errors(read.errors)
}

impl Read<'_> {
    /// The jobs; `None` when the file as a whole makes no sense.
    fn document(&mut self, root: &Node) -> Option<Vec<JobDef>> {
        let hint = "a job file begins with 'jobs:' and has a name and a map for each job below it";
        if matches!(root.value, Value::Null) {
            self.error(root.place, hint);
            return None;
        }
        let Value::Map(entries) = &root.value else {
            self.error(root.place, hint);
            return None;
        };
        // Before the jobs, wherever they stand.
        for (key, value) in entries {
            if matches!(&key.value, Value::Scalar { text, .. } if text == "calendars") {
                self.calendars(value);
            }
        }
        let mut jobs = None;
        for (key, value) in entries {
            match &key.value {
                Value::Scalar { text, .. } if text == "calendars" => {}
                Value::Scalar { text, .. } if text == "jobs" && jobs.is_none() => {
                    jobs = Some(self.jobs(value));
                }
                Value::Scalar { text, .. } if text == "jobs" => {
                    self.error(key.place, "'jobs' stands twice; put all jobs under the first");
                }
                Value::Scalar { text, .. } if text.starts_with("x-") => {}
                Value::Scalar { .. } | Value::Null | Value::List(_) | Value::Map(_) => {
                    self.error(
                        key.place,
                        "only 'jobs', 'calendars' and keys that begin with 'x-' may stand here",
                    );
                }
            }
        }
        if jobs.is_none() {
            self.error(root.place, hint);
        }
        jobs.flatten()
    }

    /// Named lists of days.
    fn calendars(&mut self, value: &Node) {
        let Ok(fields) = self.map(value, &[], "calendar") else { return };
        for (name, (_, days)) in fields {
            if let Ok(days) = self.days(days) {
                self.calendars.insert(name.to_owned(), days);
            }
        }
    }

    /// The days of the calendars that a job names: one or a list.
    fn named_days(&mut self, node: &Node) -> Outcome<Vec<String>> {
        let nodes = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Null | Value::Scalar { .. } | Value::Map(_) => std::slice::from_ref(node),
        };
        let mut days = Vec::new();
        for node in nodes {
            let name = self.words(node)?;
            match self.calendars.get(&name) {
                Some(more) => days.extend(more.iter().cloned()),
                None => {
                    let known: Vec<&str> = self.calendars.keys().map(String::as_str).collect();
                    let hint = match nearest(&name, &known) {
                        Some(nearest) => format!("did you mean {nearest}?"),
                        None => "name its days under 'calendars:' at the top".to_owned(),
                    };
                    let message = format!("this file has no calendar {name:?}; {hint}");
                    return Err(self.error(node.place, message));
                }
            }
        }
        Ok(days)
    }

    fn jobs(&mut self, value: &Node) -> Option<Vec<JobDef>> {
        let entries = match &value.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            Value::Scalar { .. } | Value::List(_) => {
                self.error(value.place, "'jobs' should hold a name and a map for each job");
                return None;
            }
        };
        if entries.len() > MOST_JOBS {
            self.error(value.place, format!("a file has at most {MOST_JOBS} jobs; split this one"));
            return None;
        }
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        let mut jobs = Vec::new();
        for (key, value) in entries {
            let Value::Scalar { text, .. } = &key.value else {
                self.error(key.place, "a job's name should be text");
                continue;
            };
            self.job = Some(text.clone());
            if let Some(first) = seen.get(text.as_str()) {
                let line = first.line;
                self.error(
                    key.place,
                    format!("a job {text} stands on line {line} already; rename one"),
                );
            } else {
                seen.insert(text, key.place);
                jobs.extend(self.job(key.place, text, value));
            }
        }
        self.job = None;
        Some(jobs)
    }

    fn job(&mut self, place: Place, name: &str, value: &Node) -> Option<JobDef> {
        let before = self.errors.len();
        let name = name.parse::<JobName>().map_err(|error| self.error(place, error.to_string()));
        let fields = self.map(value, &KEYS, "key of a job");
        let job = self.read_job(place, name.ok(), &fields.ok()?);
        job.filter(|_| self.errors.len() == before)
    }

    /// Reads every key, so that all errors of a job are reported at once.
    fn read_job(
        &mut self,
        place: Place,
        name: Option<JobName>,
        fields: &Fields<'_>,
    ) -> Option<JobDef> {
        let schedule = self.schedule(place, fields);
        let selector = self.hosts(place, fields);
        let command = self.command(place, fields);
        let user = self.optional(fields, "user", Self::words);
        let cwd = self.optional(fields, "cwd", Self::words);
        let env = self.optional(fields, "env", Self::env);
        let timeout = self.optional(fields, "timeout", Self::span);
        let kill_after = self.optional(fields, "kill_after", Self::span);
        let start_within = self.optional(fields, "start_within", Self::positive_span);
        let named = self.optional(fields, "calendar", Self::named_days);
        let mut skip_on = self.optional(fields, "skip_on", Self::days).unwrap_or_default();
        skip_on.extend(named.unwrap_or_default());
        let window = self.optional(fields, "window", Self::windows).unwrap_or_default();
        let overlap = self.optional(fields, "overlap", |read, node| read.one_of(node, &OVERLAPS));
        let catch_up =
            self.optional(fields, "catch_up", |read, node| read.one_of(node, &CATCH_UPS));
        let catch_up_window = self.optional(fields, "catch_up_window", Self::positive_span);
        let catch_up_max = self.optional(fields, "catch_up_max", Self::at_most_a_thousand);
        let retries = self.optional(fields, "retries", Self::few);
        let retry_backoff = self.optional(fields, "retry_backoff", Self::at_most_a_day);
        let spread = self.optional(fields, "spread", Self::at_most_a_day);
        let pick = self.optional(fields, "pick", Self::count);
        let max_parallel = self.optional(fields, "max_parallel", Self::count);
        let max_failures = self.optional(fields, "max_failures", Self::count);
        let enabled = self.optional(fields, "enabled", Self::yes_or_no);
        let on_full = self.optional(fields, "on_full", |read, node| {
            read.one_of(node, &[("block", OnFull::Block), ("drop", OnFull::Drop)])
        });
        let on_failure = self.optional(fields, "on_failure", Self::hooks);
        let on_recovery = self.optional(fields, "on_recovery", Self::hooks);
        let (schedule, (hosts, selector)) = (schedule.ok()?, selector.ok()?);
        let spec = JobSpec {
            schedule: schedule.as_str().to_owned(),
            timezone: schedule.timezone().to_owned(),
            hosts,
            command: command.ok()?,
            user,
            cwd,
            env: env.unwrap_or_default(),
            timeout: timeout.filter(|timeout| *timeout != Span::ZERO),
            kill_after: kill_after.unwrap_or(KILL_AFTER),
            start_within: start_within.unwrap_or(START_WITHIN),
            skip_on,
            window,
            overlap: overlap.unwrap_or_default(),
            catch_up: catch_up.unwrap_or_default(),
            catch_up_window: catch_up_window.unwrap_or(CatchUp::WINDOW),
            catch_up_max: catch_up_max.unwrap_or(CatchUp::MAX),
            retries: retries.unwrap_or_default(),
            retry_backoff: retry_backoff.unwrap_or(RETRY_BACKOFF),
            spread,
            pick,
            max_parallel,
            max_failures,
            enabled: enabled.unwrap_or(true),
            on_full: on_full.unwrap_or_default(),
            on_failure: on_failure.unwrap_or_default(),
            on_recovery: on_recovery.unwrap_or_default(),
        };
        let Place { line, column } = place;
        let calendar = Calendar::parse(&spec.skip_on, &spec.window, schedule.timezone());
        let calendar = calendar.ok()?.map(Arc::new);
        Some(JobDef { name: name?, spec, line, column, schedule, selector, calendar })
    }

    fn schedule(&mut self, place: Place, fields: &Fields<'_>) -> Outcome<Schedule> {
        let zone = self.optional(fields, "timezone", Self::words);
        let node =
            self.required(place, fields, "schedule", "when it is due, such as \"*/5 * * * *\"")?;
        let text = self.text(node)?;
        match Schedule::parse(&text, zone.as_deref().unwrap_or_default()) {
            Ok(schedule) => Ok(schedule),
            Err(schedule::Error::Text(error) | schedule::Error::Never(error)) => {
                Err(self.error(inside(node, error.offset), error.message))
            }
            Err(error @ schedule::Error::Zone { .. }) => {
                let zone = fields.get("timezone").map_or(node, |(_, node)| node);
                Err(self.error(zone.place, error.to_string()))
            }
        }
    }

    fn hosts(&mut self, place: Place, fields: &Fields<'_>) -> Outcome<(String, Selector)> {
        let node =
            self.required(place, fields, "hosts", "on which hosts, such as web* or \"*\"")?;
        self.selector(node)
    }

    /// Each that waits is a row of the ledger.
    fn at_most_a_thousand(&mut self, node: &Node) -> Outcome<u32> {
        let count = self.count(node)?;
        if count > 1000 {
            return Err(self.error(node.place, "at most 1000 can be caught up"));
        }
        Ok(count)
    }

    /// One hook or a list of them.
    fn hooks(&mut self, node: &Node) -> Outcome<Vec<Hook>> {
        match &node.value {
            Value::List(items) => items.iter().map(|item| self.hook(item)).collect(),
            Value::Null | Value::Scalar { .. } | Value::Map(_) => {
                self.hook(node).map(|hook| vec![hook])
            }
        }
    }

    fn hook(&mut self, node: &Node) -> Outcome<Hook> {
        let fields = self.map(node, &["webhook", "command"], "kind of hook")?;
        match (fields.get("webhook"), fields.get("command")) {
            (Some((_, url)), None) => {
                let text = self.words(url)?;
                if let Some(why) = wrong_url(&text) {
                    return Err(self.error(url.place, why));
                }
                Ok(Hook::Webhook(text))
            }
            (None, Some((_, command))) => self.list(command).map(Hook::Command),
            (None, None) | (Some(_), Some(_)) => {
                Err(self
                    .error(node.place, "write {webhook: URL} or {command: [program, argument]}"))
            }
        }
    }
}
