//! Which of the runs that are due can begin, and on which hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_core::job::JobDef;
use fw_core::plan::Chosen;
use fw_proto::api::{Code, EnvValue, FireReason, Problem, Verdict};
use fw_proto::{MaintenanceId, RunId};
use fw_store::NewFire;
use tracing::debug;

use super::steps::{Step, Steps};
use super::{Due, Fleet, Ready, Work, row};
use crate::fleet::{self, choose};

/// Finds out which runs can begin, and puts all of it in order.
pub(super) fn prepare(work: Vec<Work>, fleet: &Fleet) -> (Vec<Step>, Vec<RunId>) {
    let mut steps = Steps::default();
    let mut over = Vec::new();
    let mut picks = Picks { fleet, chosen: BTreeMap::new(), free: BTreeMap::new() };
    for work in work {
        let due = match work {
            Work::Verdict(row) => {
                steps.row(row);
                continue;
            }
            Work::Begin(due) => due,
            Work::GiveUp(_) | Work::Retry(_) | Work::Cancel(..) => continue,
        };
        let hosts = picks.hosts(&due.job);
        let free = picks.free(&due);
        match obstacle(&due.job, &hosts, &free, fleet) {
            None => {
                let hosts = match due.job.spec.pick {
                    None => free,
                    Some(most) => fleet::draw(&free, most, &fleet.online, due.run).into(),
                };
                if due.shadow {
                    over.push(due.run);
                    steps.row(shadow(&due, &hosts));
                } else {
                    steps.begin(Ready { due, hosts });
                }
            }
            Some((reason, problem)) => {
                over.push(due.run);
                debug!(job = %due.job.name, ?reason, "nothing to run");
                match due.manual {
                    // Whoever asked may have gone away.
                    Some(manual) => drop(manual.reply.send(Err(problem))),
                    None => steps.row(row(&due, Verdict::Skipped, Some(reason))),
                }
            }
        }
    }
    (steps.steps, over)
}

/// The hosts of jobs, found once for all that say the same.
struct Picks<'f> {
    fleet: &'f Fleet,
    /// By selector.
    chosen: BTreeMap<String, Arc<[Chosen]>>,
    /// Those that are in none of these maintenances.
    free: BTreeMap<(String, Vec<MaintenanceId>), Arc<[Chosen]>>,
}

impl Picks<'_> {
    fn hosts(&mut self, job: &JobDef) -> Arc<[Chosen]> {
        let found = || choose(&self.fleet.hosts, &job.selector).into();
        Arc::clone(self.chosen.entry(job.spec.hosts.clone()).or_insert_with(found))
    }

    /// Without those that are in maintenance when its turn comes.
    fn free(&mut self, due: &Due) -> Arc<[Chosen]> {
        let hosts = self.hosts(&due.job);
        let Fleet { hosts: rows, maintenances, .. } = self.fleet;
        let held = maintenances.in_force(due.at).filter(|(_, one)| one.holds(due.asking()));
        let held: Vec<_> = held.map(|(id, _)| id).collect();
        if held.is_empty() {
            return hosts;
        }
        let found = || fleet::free(rows, &hosts, maintenances, due.asking(), due.at).into();
        let key = (due.job.spec.hosts.clone(), held);
        Arc::clone(self.free.entry(key).or_insert_with(found))
    }
}

/// Why a job that is due cannot run on those of its hosts that are free.
fn obstacle(
    job: &JobDef,
    hosts: &[Chosen],
    free: &[Chosen],
    fleet: &Fleet,
) -> Option<(FireReason, Problem)> {
    if hosts.is_empty() {
        let detail = format!(
            "`fleetwright hosts select '{}'` shows what its selector picks",
            job.spec.hosts
        );
        let problem = Problem::new(
            Code::NoHosts,
            format!("the selector of job {} matched no host", job.name),
        );
        return Some((FireReason::NoHosts, problem.detail(detail)));
    }
    if free.is_empty() {
        let title = format!("all hosts of job {} are in maintenance", job.name);
        return Some((FireReason::Maintenance, Problem::new(Code::NoHosts, title)));
    }
    let secrets = job.spec.env.values().filter_map(|value| match value {
        EnvValue::Secret(name) => Some(name),
        EnvValue::Value(_) => None,
    });
    let missing = secrets.into_iter().find(|name| !fleet.secrets.contains(*name))?;
    let shown: String = missing.chars().take(80).collect();
    let problem = Problem::new(Code::NoSecret, format!("there is no secret {shown:?}"));
    Some((FireReason::NoSecret, problem.detail("set it with `fleetwright secrets set`")))
}

/// What is said in place of a run. A gap of the clock stays the reason.
fn shadow(due: &Due, hosts: &[Chosen]) -> NewFire {
    let names = hosts.iter().map(|host| host.name.clone()).collect();
    NewFire { hosts: Some(names), ..row(due, Verdict::Shadow, due.reason) }
}
