//! Side by side: what a Saltpeter did, against what this server's ledger says that it would have done.
//!
//! `heard` gathers what its API tells; here the two are compared, job by job. Both are pure.

pub mod heard;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use fw_proto::api::{EnvValue, Fire, FireReason, Job, JobSource, Verdict};
use fw_proto::{JobName, Span, Timestamp};
use serde::Serialize;

use self::heard::{Heard, Ran};
use super::{names, translate};

/// A run that is off by more than this is not the same fire at another time.
const FAR: Span = Span::from_secs(60 * 60);

/// The stretch that is compared, and how exactly.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// From here.
    pub from: Timestamp,
    /// To here; fires just before it may still begin there.
    pub to: Timestamp,
    /// A run may begin so much earlier or later than it is due.
    pub tolerance: Span,
}

/// What this server knows of a job.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// Saltpeter's name of it.
    pub name: &'a str,
    /// Its ledger, in any order.
    pub fires: &'a [Fire],
    /// It runs on so many of its hosts, which each side draws by itself.
    pub pick: Option<u32>,
}

/// How the two compare on one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Saltpeter's name of it.
    pub job: String,
    /// Fires that both had, at the same time on the same hosts as far as is known.
    pub same: u64,
    /// Of those, how many whose hosts are known on both sides.
    pub same_hosts: u64,
    /// Fires that Saltpeter held back since its earlier run went on; here nothing runs that could.
    pub overlapped: u64,
    /// Fires of which Saltpeter does not tell, or during which this server was down.
    pub untold: u64,
    /// What is not the same, the earliest first.
    pub differences: Vec<Difference>,
}

/// A fire that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs.
    pub what: What,
    /// When it was due here, else when it began there.
    pub at: Timestamp,
    /// When it began there, if it did.
    pub there: Option<Timestamp>,
    /// Hosts that only we would have chosen.
    pub only_here: Vec<String>,
    /// Hosts that only Saltpeter chose.
    pub only_there: Vec<String>,
    /// What may be the reason, as far as is known.
    pub why: Vec<Why>,
}

/// What can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// We would have run it, Saltpeter did not.
    Missing,
    /// Saltpeter ran it, we would not have.
    Extra,
    /// Both, at different times.
    Time,
    /// Both, on different hosts.
    Hosts,
}

/// What may be the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Saltpeter says that everything is in maintenance.
    Maintenance,
    /// Saltpeter says that the hosts are in maintenance.
    HostsInMaintenance,
    /// Saltpeter's files changed around that time, or it was started.
    Changed,
    /// Saltpeter knows no such job.
    NoSuchJob,
    /// Here the fire was held back, for this reason.
    Here(FireReason),
    /// Here nothing was due: someone ran it there, or the files are others.
    NotDue,
}

/// What a job of Saltpeter is called here.
#[must_use]
pub fn our_name(theirs: &str) -> JobName {
    names::job_name(theirs)
}

/// Saltpeter's name of a job of ours that it does not tell of.
#[must_use]
pub fn their_name(job: &Job) -> String {
    match job.spec.env.get(translate::JOB_NAME) {
        Some(EnvValue::Value(name)) => name.clone(),
        Some(EnvValue::Secret(_)) | None => job.name.to_string(),
    }
}

/// Whether a job of this server comes from a directory of Saltpeter.
#[must_use]
pub fn is_of_saltpeter(job: &Job) -> bool {
    match &job.source {
        JobSource::Dialect { name, .. } => name == translate::NAME,
        JobSource::File(_) | JobSource::Api => false,
    }
}

/// A fire that we would have run.
struct Due<'a> {
    at: Timestamp,
    hosts: Option<BTreeSet<&'a str>>,
}

/// Compares one job.
#[must_use]
pub fn compare(ours: &Ours<'_>, heard: &Heard, frame: Frame) -> Compared {
    let mut due = due(ours.fires, frame);
    let mut ran: Vec<_> = heard.of(ours.name).filter(|ran| is_within(ran.began, frame)).collect();
    let mut compared = Compared { job: ours.name.to_owned(), ..Compared::default() };
    for (due, ran) in pairs(&mut due, &mut ran, frame.tolerance) {
        compared.both(ours, heard, &due, ran);
    }
    for (due, ran) in pairs(&mut due, &mut ran, FAR) {
        let why = reasons(ours.name, heard, frame, due.at, None);
        let there = Some(ran.began);
        compared.differences.push(Difference { there, why, ..different(What::Time, due.at) });
    }
    for due in due {
        compared.missing(ours.name, heard, frame, &due);
    }
    for ran in ran {
        compared.extra(ours, heard, frame, ran);
    }
    compared.differences.sort_by_key(|one| (one.at, one.what));
    compared
}

fn is_within(at: Timestamp, frame: Frame) -> bool {
    (frame.from..=frame.to).contains(&at)
}

fn due(fires: &[Fire], frame: Frame) -> Vec<Due<'_>> {
    let would_run = |fire: &&Fire| match fire.verdict {
        Verdict::Shadow | Verdict::Ran | Verdict::CaughtUp => {
            fire.reason != Some(FireReason::Manual) && is_within(fire.from, frame)
        }
        Verdict::Pending | Verdict::Skipped | Verdict::Coalesced | Verdict::Missed => false,
    };
    let due = fires.iter().filter(would_run).map(|fire| Due {
        at: fire.from,
        hosts: fire.hosts.as_ref().map(|hosts| hosts.iter().map(|host| host.as_str()).collect()),
    });
    due.collect()
}

/// Takes those out of both that are at most so far apart, the closest first.
fn pairs<'d, 'r>(
    due: &mut Vec<Due<'d>>,
    ran: &mut Vec<&'r Ran>,
    within: Span,
) -> Vec<(Due<'d>, &'r Ran)> {
    due.sort_by_key(|due| due.at);
    ran.sort_by_key(|ran| ran.began);
    let mut near = Vec::new();
    let mut first = 0;
    for (d, one) in due.iter().enumerate() {
        while ran.get(first).is_some_and(|ran| ran.began + within < one.at) {
            first += 1;
        }
        let candidates = ran.iter().enumerate().skip(first);
        let close = candidates.take_while(|(_, ran)| ran.began <= one.at + within);
        near.extend(close.map(|(r, ran)| (apart(one.at, ran.began), d, r)));
    }
    near.sort_unstable();
    let (mut taken_due, mut taken_ran) = (BTreeSet::new(), BTreeSet::new());
    let mut chosen = Vec::new();
    for (_, d, r) in near {
        if !taken_due.contains(&d) && !taken_ran.contains(&r) {
            taken_due.insert(d);
            taken_ran.insert(r);
            chosen.push((d, r));
        }
    }
    chosen.sort_unstable();
    let mut all: Vec<_> = std::mem::take(due).into_iter().map(Some).collect();
    let took = chosen.iter().filter_map(|(d, r)| Some((all.get_mut(*d)?.take()?, *ran.get(*r)?)));
    let took: Vec<_> = took.collect();
    *due = all.into_iter().flatten().collect();
    let left = ran.iter().enumerate().filter(|(r, _)| !taken_ran.contains(r));
    *ran = left.map(|(_, ran)| *ran).collect();
    took
}

fn apart(one: Timestamp, other: Timestamp) -> u64 {
    one.since(other).as_millis().max(other.since(one).as_millis())
}

fn different(what: What, at: Timestamp) -> Difference {
    let (only_here, only_there) = (Vec::new(), Vec::new());
    Difference { what, at, there: None, only_here, only_there, why: Vec::new() }
}

impl Compared {
    /// A fire that both had.
    fn both(&mut self, ours: &Ours<'_>, heard: &Heard, due: &Due<'_>, ran: &Ran) {
        let Some((here, there)) = due.hosts.as_ref().zip(ran.hosts.as_ref()) else {
            self.same += 1;
            return;
        };
        let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
        // Each draws its own; that it is so many is all that can be the same.
        let drawn = ours.pick.is_some() && here.len() == there.len();
        if *here == there || drawn {
            self.same += 1;
            self.same_hosts += 1;
            return;
        }
        let list = |hosts: Vec<&&str>| hosts.into_iter().map(|host| (*host).to_owned()).collect();
        let only_here: Vec<String> = list(here.difference(&there).collect());
        let held = !only_here.is_empty() && only_here.iter().all(|host| heard.holds(host));
        self.differences.push(Difference {
            there: Some(ran.began),
            only_there: list(there.difference(here).collect()),
            only_here,
            why: if held { vec![Why::HostsInMaintenance] } else { Vec::new() },
            ..different(What::Hosts, due.at)
        });
    }

    /// A fire that only we had.
    fn missing(&mut self, name: &str, heard: &Heard, frame: Frame, due: &Due<'_>) {
        let recent = due.at + frame.tolerance > frame.to;
        if heard.of(name).any(|ran| ran.goes_on_at(due.at)) {
            self.overlapped += 1;
        } else if recent || !heard.would_tell(name, due.at) {
            self.untold += 1;
        } else {
            let why = reasons(name, heard, frame, due.at, None);
            self.differences.push(Difference { why, ..different(What::Missing, due.at) });
        }
    }

    /// A run that only Saltpeter had.
    fn extra(&mut self, ours: &Ours<'_>, heard: &Heard, frame: Frame, ran: &Ran) {
        let covers = |fire: &&Fire| {
            fire.from <= ran.began + frame.tolerance && ran.began <= fire.to + frame.tolerance
        };
        let row = ours.fires.iter().find(covers);
        let first = ours.fires.iter().map(|fire| fire.from).min();
        let told = first.is_some_and(|first| first <= ran.began + frame.tolerance);
        let down = row.is_some_and(|row| row.verdict == Verdict::Missed);
        if down || !told || ran.began < frame.from + frame.tolerance {
            self.untold += 1;
            return;
        }
        if ran.began + frame.tolerance > frame.to {
            self.untold += 1;
            return;
        }
        let held = row.and_then(|row| row.reason).map_or(Why::NotDue, Why::Here);
        let why = reasons(ours.name, heard, frame, ran.began, Some(held));
        let there = Some(ran.began);
        self.differences.push(Difference { there, why, ..different(What::Extra, ran.began) });
    }
}

/// What is known that may explain it.
fn reasons(name: &str, heard: &Heard, frame: Frame, at: Timestamp, first: Option<Why>) -> Vec<Why> {
    let mut why: Vec<_> = first.into_iter().collect();
    let extra = first.is_some();
    why.extend((!extra && heard.maintenance).then_some(Why::Maintenance));
    why.extend((!extra && !heard.knows(name)).then_some(Why::NoSuchJob));
    let changed = heard.changed.is_some_and(|changed| at <= changed + frame.tolerance);
    why.extend(changed.then_some(Why::Changed));
    why
}
