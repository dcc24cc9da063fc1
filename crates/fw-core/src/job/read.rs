//! From the tree to jobs: each key with its own rule, each error at its own place.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_proto::api::{
    CatchUp, Command, EnvValue, Hook, JobSpec, OnFull, Overlap, RETRY_BACKOFF, SourceError,
};
use fw_proto::{JobName, Span};

use super::url::wrong_url;
use super::yaml::{self, Document, Node, Place, Value};
use super::{JobDef, MOST_JOBS, Parsed};
use crate::calendar::{self, Calendar};
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
    let calendars = BTreeMap::new();
    let mut read = Read { file, lines, job: None, calendars, errors: Vec::new() };
    let jobs = read.document(&document.root);
    if let Some(duplicate) = document.duplicate.as_ref().filter(|_| read.errors.is_empty()) {
        let place = Place { line: duplicate.line, column: duplicate.column };
        read.error(place, "this key stands twice; remove one");
    }
    let parsed =
        Parsed { readable: jobs.is_some(), jobs: jobs.unwrap_or_default(), ..Parsed::default() };
    parsed.with_errors(read.errors)
}

/// Something was reported, and no value came of it.
#[derive(Debug)]
struct Reported;

type Outcome<T> = Result<T, Reported>;

struct Read<'a> {
    file: &'a str,
    lines: &'a [&'a str],
    /// The job that is being read.
    job: Option<String>,
    /// The days of each calendar of the file.
    calendars: BTreeMap<String, Vec<String>>,
    errors: Vec<SourceError>,
}

/// A map: its keys and values, each key once.
type Fields<'a> = BTreeMap<&'a str, (Place, &'a Node)>;

impl Read<'_> {
    fn error(&mut self, place: Place, message: impl Into<String>) -> Reported {
        let job = self.job.as_deref();
        self.errors.push(yaml::error(self.file, self.lines, place, job, message.into()));
        Reported
    }

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

    /// One day or a list of them.
    fn days(&mut self, node: &Node) -> Outcome<Vec<String>> {
        self.each(node, |text| Calendar::parse(&[text], &[], "").map(drop))
    }

    fn windows(&mut self, node: &Node) -> Outcome<Vec<String>> {
        self.each(node, |text| Calendar::parse(&[], &[text], "").map(drop))
    }

    /// One text or a list of them, each of which is checked.
    fn each(
        &mut self,
        node: &Node,
        check: impl Fn(String) -> Result<(), calendar::Error>,
    ) -> Outcome<Vec<String>> {
        let nodes = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Null | Value::Scalar { .. } | Value::Map(_) => std::slice::from_ref(node),
        };
        let mut texts = Vec::new();
        for node in nodes {
            let text = self.words(node)?.trim().to_owned();
            if let Err(calendar::Error(error)) = check(text.clone()) {
                return Err(self.error(inside(node, error.offset), error.message));
            }
            texts.push(text);
        }
        Ok(texts)
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
        let text = self.text(node)?;
        match Selector::parse(&text) {
            Ok(selector) => Ok((text, selector)),
            Err(error) => Err(self.error(inside(node, error.offset), error.message)),
        }
    }

    fn command(&mut self, place: Place, fields: &Fields<'_>) -> Outcome<Command> {
        match (fields.get("run"), fields.get("argv")) {
            (Some((_, run)), None) => self.words(run).map(Command::Shell),
            (None, Some((_, argv))) => self.list(argv).map(Command::Argv),
            (None, None) => {
                Err(self
                    .error(place, "say what to run: 'run' (text for the shell) or 'argv' (a list)"))
            }
            (Some(_), Some((argv, _))) => {
                Err(self.error(*argv, "a job has 'run' or 'argv', not both"))
            }
        }
    }

    fn required<'n>(
        &mut self,
        place: Place,
        fields: &Fields<'n>,
        key: &str,
        what: &str,
    ) -> Outcome<&'n Node> {
        match fields.get(key) {
            Some((_, node)) => Ok(node),
            None => Err(self.error(place, format!("'{key}' is missing: say {what}"))),
        }
    }

    /// The value of a key, if it has one and it is in order.
    fn optional<T>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node) -> Outcome<T>,
    ) -> Option<T> {
        let (_, node) = fields.get(key)?;
        if matches!(node.value, Value::Null) { None } else { read(self, node).ok() }
    }

    /// A map with known keys; `what` is what its keys are called.
    fn map<'n>(&mut self, node: &'n Node, known: &[&str], what: &str) -> Outcome<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            let known = known.iter().take(4).copied().collect::<Vec<_>>().join(", ");
            return Err(self.error(node.place, format!("keys should stand here, such as {known}")));
        };
        let mut fields = Fields::new();
        for (key, value) in entries {
            let Value::Scalar { text, .. } = &key.value else {
                self.error(key.place, "a key should be text");
                continue;
            };
            if !known.is_empty() && !known.contains(&text.as_str()) {
                let hint = match nearest(text, known) {
                    Some(nearest) => format!("did you mean {nearest}?"),
                    None => format!("use {}", known.join(", ")),
                };
                self.error(key.place, format!("{text:?} is no {what}; {hint}"));
            } else if fields.insert(text, (key.place, value)).is_some() {
                self.error(key.place, format!("{text:?} stands twice; remove one"));
            }
        }
        Ok(fields)
    }

    /// Any scalar, as it is written.
    fn text(&mut self, node: &Node) -> Outcome<String> {
        match &node.value {
            Value::Scalar { text, .. } if text.contains('\0') => {
                Err(self.error(node.place, "a zero byte cannot stand in a command"))
            }
            Value::Scalar { text, .. } => Ok(text.clone()),
            Value::Null => Err(self.error(node.place, "a value is missing")),
            Value::List(_) | Value::Map(_) => {
                Err(self.error(node.place, "a single value should stand here; put it in quotes"))
            }
        }
    }

    /// Text that is not empty.
    fn words(&mut self, node: &Node) -> Outcome<String> {
        let text = self.text(node)?;
        if text.trim().is_empty() {
            return Err(self.error(node.place, "this is empty"));
        }
        Ok(text)
    }

    fn span(&mut self, node: &Node) -> Outcome<Span> {
        let text = self.text(node)?;
        text.parse()
            .map_err(|error: fw_proto::InvalidTime| self.error(node.place, error.to_string()))
    }

    fn positive_span(&mut self, node: &Node) -> Outcome<Span> {
        let span = self.span(node)?;
        if span < Span::from_secs(1) {
            return Err(self.error(node.place, "this should be at least 1s"));
        }
        Ok(span)
    }

    fn count(&mut self, node: &Node) -> Outcome<u32> {
        let text = self.text(node)?;
        let count = text.parse().ok().filter(|count| *count >= 1);
        count
            .ok_or_else(|| self.error(node.place, "a whole number of at least 1 should stand here"))
    }

    /// Each that waits is a row of the ledger.
    fn at_most_a_thousand(&mut self, node: &Node) -> Outcome<u32> {
        let count = self.count(node)?;
        if count > 1000 {
            return Err(self.error(node.place, "at most 1000 can be caught up"));
        }
        Ok(count)
    }

    /// What fails a hundred times is not mended by trying.
    fn few(&mut self, node: &Node) -> Outcome<u32> {
        let text = self.text(node)?;
        let count = text.parse().ok().filter(|count| *count <= 100);
        count
            .ok_or_else(|| self.error(node.place, "a whole number from 0 to 100 should stand here"))
    }

    fn at_most_a_day(&mut self, node: &Node) -> Outcome<Span> {
        let span = self.positive_span(node)?;
        if span > Span::from_secs(24 * 60 * 60) {
            return Err(self.error(node.place, "this should be at most 24h"));
        }
        Ok(span)
    }

    fn yes_or_no(&mut self, node: &Node) -> Outcome<bool> {
        let text = self.text(node)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(self.error(node.place, "true or false should stand here")),
        }
    }

    fn one_of<T: Copy>(&mut self, node: &Node, known: &[(&str, T)]) -> Outcome<T> {
        let text = self.text(node)?;
        match known.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                Err(self.error(node.place, format!("{text:?} is none of {}", names.join(", "))))
            }
        }
    }

    /// A list of texts, the first of which is a program.
    fn list(&mut self, node: &Node) -> Outcome<Vec<String>> {
        let Value::List(items) = &node.value else {
            return Err(self.error(node.place, "a list should stand here: [program, argument]"));
        };
        let Some(program) = items.first() else {
            return Err(self.error(node.place, "this list is empty; name a program"));
        };
        self.words(program)?;
        items.iter().map(|item| self.text(item)).collect()
    }

    fn env(&mut self, node: &Node) -> Outcome<BTreeMap<String, EnvValue>> {
        let mut env = BTreeMap::new();
        for (name, (place, value)) in self.map(node, &[], "variable")? {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.error(place, "a variable's name has no '=' and is not empty");
                continue;
            }
            if let Ok(value) = self.env_value(value) {
                env.insert(name.to_owned(), value);
            }
        }
        Ok(env)
    }

    fn env_value(&mut self, node: &Node) -> Outcome<EnvValue> {
        match &node.value {
            Value::Map(_) => {
                let fields = self.map(node, &["secret"], "kind of value")?;
                let secret =
                    self.required(node.place, &fields, "secret", "the name of a secret")?;
                self.words(secret).map(EnvValue::Secret)
            }
            Value::Null => Ok(EnvValue::Value(String::new())),
            Value::Scalar { .. } | Value::List(_) => self.text(node).map(EnvValue::Value),
        }
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

/// The place of a character inside a scalar; its beginning where that cannot be said.
fn inside(node: &Node, offset: usize) -> Place {
    let Value::Scalar { shift: Some(shift), .. } = &node.value else { return node.place };
    let offset = u32::try_from(offset).unwrap_or_default();
    let Place { line, column } = node.place;
    Place { line, column: column.saturating_add(shift.saturating_add(offset)) }
}
