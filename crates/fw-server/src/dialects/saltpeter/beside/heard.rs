//! What a Saltpeter tells of its runs, gathered message by message from the socket of its pages.
//!
//! Its history is short: of each job it tells the last run, every two seconds, and of older ones only
//! what its search server has (`timeline`). So of a fire that left no trace it can be said only sometimes
//! that it did not happen ([`Heard::would_tell`]).

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::{Span, Timestamp};
use serde_json::Value;

/// A run has its name before it has its time; between the two lies the start of a process.
const SAME: Span = Span::from_secs(3);

/// A run of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// When it began.
    pub began: Timestamp,
    /// When its process said so.
    started: Option<Timestamp>,
    /// When it was seen to be over; `None` while it goes on, or when nothing is known.
    pub ended: Option<Timestamp>,
    /// Whether it goes on by what was last heard.
    going_on: bool,
    /// Where, once all of them are known.
    pub hosts: Option<BTreeSet<String>>,
}

impl Ran {
    fn new(began: Timestamp, started: Option<Timestamp>) -> Self {
        Self { began, started, ended: None, going_on: false, hosts: None }
    }

    /// Whether it had begun by then, and was not over.
    #[must_use]
    pub fn goes_on_at(&self, at: Timestamp) -> bool {
        self.began < at && (self.going_on || self.ended.is_some_and(|ended| at <= ended))
    }
}

/// What was heard.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// By job and name of the run.
    runs: BTreeMap<String, BTreeMap<String, Ran>>,
    jobs: BTreeSet<String>,
    /// Whether everything is in maintenance.
    pub maintenance: bool,
    machines: BTreeSet<String>,
    /// When its files last changed, or it was started.
    pub changed: Option<Timestamp>,
    /// When it told its state.
    looks: BTreeSet<Timestamp>,
    /// All runs from here on are known from its search server, up to there.
    timeline: Option<(Timestamp, Timestamp)>,
}

impl Heard {
    /// Takes a message that came now.
    pub fn take(&mut self, message: &Value, now: Timestamp) {
        if let Some(config) = message.get("config") {
            self.config(config);
        }
        if let Some(running) = message.get("running").and_then(Value::as_object) {
            self.status(running, message.get("last_state"), now);
        }
        if let Some((job, data)) = text(message, "cron").zip(message.get("data")) {
            self.details(job, data);
        }
        let content = message.get("timeline").and_then(|timeline| timeline.get("content"));
        content.and_then(Value::as_array).into_iter().flatten().for_each(|mark| self.mark(mark));
    }

    /// Its search server has told of all runs between.
    pub fn told_all(&mut self, from: Timestamp, to: Timestamp) {
        self.timeline = Some((from, to));
    }

    /// Whether older runs are known.
    #[must_use]
    pub const fn has_timeline(&self) -> bool {
        self.timeline.is_some()
    }

    /// The jobs that it knows, and those that it ran.
    #[must_use]
    pub fn jobs(&self) -> BTreeSet<&str> {
        self.jobs.iter().chain(self.runs.keys()).map(String::as_str).collect()
    }

    /// Whether it knows a job.
    #[must_use]
    pub fn knows(&self, job: &str) -> bool {
        self.jobs.contains(job)
    }

    /// Whether it says that a machine is in maintenance.
    #[must_use]
    pub fn holds(&self, machine: &str) -> bool {
        self.machines.contains(machine)
    }

    /// The runs of a job.
    pub fn of(&self, job: &str) -> impl Iterator<Item = &Ran> {
        self.runs.get(job).into_iter().flat_map(BTreeMap::values)
    }

    /// Whether a run that had begun then would have left a trace.
    #[must_use]
    pub fn would_tell(&self, job: &str, at: Timestamp) -> bool {
        if self.timeline.is_some_and(|(from, to)| (from..=to).contains(&at)) {
            return true;
        }
        let Some(look) = self.looks.range(at..).next() else { return false };
        // A look shows the last run only.
        let hidden = self.of(job).any(|ran| at < ran.began && ran.began <= *look);
        let before = self.of(job).any(|ran| ran.began <= at);
        let known = before || self.looks.first().is_some_and(|first| *first <= at);
        // It forgets runs when it is started, and its files are new to it then.
        let since_start = self.changed.is_some_and(|changed| changed <= at);
        !hidden && (known || since_start)
    }

    fn config(&mut self, config: &Value) {
        let list = |value: Option<&Value>| -> BTreeSet<String> {
            let all = value.and_then(Value::as_array).into_iter().flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        if let Some(crons) = config.get("crons").and_then(Value::as_object) {
            self.jobs = crons.keys().cloned().collect();
        }
        if let Some(maintenance) = config.get("maintenance") {
            self.maintenance = maintenance.get("global").and_then(Value::as_bool).unwrap_or(false);
            self.machines = list(maintenance.get("machines"));
        }
        let serial = config.get("serial").and_then(Value::as_f64);
        self.changed = serial.and_then(millis).or(self.changed);
    }

    fn status(
        &mut self,
        running: &serde_json::Map<String, Value>,
        last: Option<&Value>,
        now: Timestamp,
    ) {
        self.looks.insert(now);
        for (instance, of) in running {
            let Some(job) = text(of, "name") else { continue };
            let started = text(of, "started").and_then(time);
            let Some(began) = second(instance).or(started) else { continue };
            let ran = self.entry(job, instance, began);
            (ran.started, ran.going_on, ran.ended) = (started.or(ran.started), true, None);
        }
        for (instance, ran) in self.runs.values_mut().flatten() {
            if ran.going_on && !running.contains_key(instance) {
                (ran.going_on, ran.ended) = (false, Some(now));
            }
        }
        for (job, of) in last.and_then(Value::as_object).into_iter().flatten() {
            if let Some(at) = text(of, "last_run").and_then(time) {
                self.at(job, at);
            }
        }
    }

    fn details(&mut self, job: &str, data: &Value) {
        let Some(last) = text(data, "last_run").and_then(time) else { return };
        let ran = self.at(job, last);
        let Some(results) = data.get("results").and_then(Value::as_object) else { return };
        // What is left of the run before began earlier.
        let own = results.iter().filter(|(_, result)| {
            text(result, "starttime").and_then(time).is_none_or(|at| last <= at + SAME)
        });
        let own: Vec<_> = own.collect();
        let ends = own.iter().map(|(_, result)| text(result, "endtime").and_then(time));
        let over = ends.collect::<Option<Vec<_>>>().filter(|ends| !ends.is_empty());
        // While it goes on there may be more to come; a machine that is down has no target.
        let Some(over) = over.filter(|_| !ran.going_on) else { return };
        ran.ended = over.into_iter().max().or(ran.ended);
        let targets = data.get("targets").and_then(Value::as_array).into_iter().flatten();
        let targets = targets.filter_map(Value::as_str);
        ran.hosts = Some(
            own.iter().map(|(host, _)| host.as_str()).chain(targets).map(str::to_owned).collect(),
        );
    }

    fn mark(&mut self, mark: &Value) {
        let of = text(mark, "cron").zip(text(mark, "job_instance"));
        let at = text(mark, "timestamp").and_then(time);
        let Some(((job, instance), at)) = of.zip(at) else { return };
        let began = second(instance).unwrap_or(at);
        let ran = self.entry(job, instance, began);
        if text(mark, "msg_type") == Some("machine_result") && !ran.going_on {
            ran.ended = ran.ended.max(Some(at));
        }
    }

    /// The run of that name; one that was known by its time alone has its name now.
    fn entry(&mut self, job: &str, instance: &str, began: Timestamp) -> &mut Ran {
        let of = self.runs.entry(job.to_owned()).or_default();
        let unnamed = of.iter().find(|(name, ran)| name.starts_with('@') && is_same(ran, began));
        let unnamed = unnamed.map(|(name, _)| name.clone());
        let before = unnamed.and_then(|name| of.remove(&name));
        of.entry(instance.to_owned()).or_insert_with(|| match before {
            Some(ran) => Ran { began, ..ran },
            None => Ran::new(began, None),
        })
    }

    /// The run that began then.
    fn at(&mut self, job: &str, at: Timestamp) -> &mut Ran {
        let of = self.runs.entry(job.to_owned()).or_default();
        let exact = of.iter().find(|(_, ran)| ran.started == Some(at));
        let near = || of.iter().find(|(_, ran)| ran.started.is_none() && is_same(ran, at));
        let name = exact.or_else(near).map(|(name, _)| name.clone());
        // No name of a run begins so.
        let name = name.unwrap_or_else(|| format!("@{}", at.as_millis()));
        let ran = of.entry(name).or_insert_with(|| Ran::new(at, None));
        ran.started = Some(at);
        ran
    }
}

/// Its name has the second before the process said that it began.
fn is_same(ran: &Ran, at: Timestamp) -> bool {
    let (one, other) = (ran.started.unwrap_or(ran.began), at);
    one.since(other) < SAME && other.since(one) < SAME
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

/// The second at the end of the name of a run.
fn second(instance: &str) -> Option<Timestamp> {
    let (_, seconds) = instance.rsplit_once('_')?;
    let seconds: i64 = seconds.parse().ok()?;
    Some(Timestamp::from_millis(seconds.checked_mul(1000)?))
}

/// Seconds of Unix time, as Python has them.
fn millis(seconds: f64) -> Option<Timestamp> {
    let ms = (seconds * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, reason = "checked on this line to be a time")]
    (0.0..4e15).contains(&ms).then_some(Timestamp::from_millis(ms as i64))
}

/// A time as Python writes it, with `T` or a blank, and six places or none.
fn time(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let (clock, zone) = rest.split_at_checked(rest.find(['+', '-', 'Z'])?)?;
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    format!("{date}T{seconds}.{fraction}{zone}").parse().ok()
}
