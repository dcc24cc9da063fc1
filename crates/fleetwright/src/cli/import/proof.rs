//! Whether a job means the same here as there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fw_core::host::Seen;
use fw_core::job::JobDef;
use fw_core::select::Selector;
use fw_proto::{HostName, Timestamp};
use fw_server::dialects::saltpeter::native::{Carried, differing_fire};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Job;
use crate::output::line;

/// Fires that are compared. An hourly job has them for six weeks, a yearly one until the calendar ends.
const FIRES: usize = 1000;

/// Hosts that are named of a difference.
const NAMED: usize = 5;

/// What was compared, and what differs.
#[derive(Debug, Serialize)]
pub(super) struct Proof {
    /// The next fire.
    next_fire: Option<Timestamp>,
    /// How many hosts it is for; absent without facts.
    hosts: Option<usize>,
    /// What differs.
    differences: Vec<String>,
}

impl Proof {
    pub(super) fn alike(&self) -> bool {
        self.differences.is_empty()
    }
}

type Facts = BTreeMap<HostName, Map<String, Value>>;

/// Compares a job as it is there with what was written here.
pub(super) fn compare(
    there: &Carried,
    here: &JobDef,
    facts: Option<&Facts>,
    now: Timestamp,
) -> Proof {
    let mut differences = Vec::new();
    if let Some((one, other)) = differing_fire(&there.times, here, now, FIRES) {
        let shown =
            |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        differences.push(format!("fires at {} there and at {} here", shown(one), shown(other)));
    }
    let hosts = facts.map(|facts| {
        let (one, other) = (chosen(&there.selector, facts), chosen(&here.selector, facts));
        let only = |these: &[&HostName], those: &[&HostName]| {
            let only = these.iter().filter(|host| !those.contains(host)).take(NAMED);
            only.map(|host| host.as_str()).collect::<Vec<_>>().join(", ")
        };
        if one != other {
            let (there, here) = (only(&one, &other), only(&other, &one));
            differences.push(format!("other hosts; only there: {there}; only here: {here}"));
        }
        one.len()
    });
    Proof { next_fire: here.next_run(now), hosts, differences }
}

fn chosen<'f>(selector: &Selector, facts: &'f Facts) -> Vec<&'f HostName> {
    let labels = BTreeMap::new();
    let meant = |(name, facts): &(&HostName, &Map<String, Value>)| {
        selector.matches(Seen { name, labels: &labels, facts })
    };
    facts.iter().filter(meant).map(|(name, _)| name).collect()
}

/// A line a job.
pub(super) fn page(jobs: &[Job]) -> String {
    let mut page = String::new();
    for job in jobs {
        let next = job.proof.next_fire.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let hosts = match job.proof.hosts {
            Some(1) => ", 1 host".to_owned(),
            Some(hosts) => format!(", {hosts} hosts"),
            None => String::new(),
        };
        let name = line(&job.name);
        writeln!(page, "{name}: next {next}{hosts}").expect("writing to memory");
        for difference in &job.proof.differences {
            writeln!(page, "  differs: {}", line(difference)).expect("writing to memory");
        }
    }
    page
}
