//! Jobs of Saltpeter, said as ours.
//!
//! A job becomes an ordinary job: due by the same fields in UTC, on the hosts of its target, without
//! overlap unless the magic words allow it, and nothing is caught up. `saltpeter_maintenance` becomes a
//! maintenance of these jobs.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::job::JobDef;
use fw_core::plan::{KILL_AFTER, Plan};
use fw_proto::api::{CatchUp, Command, EnvValue, JobSpec, OnFull, Overlap, RETRY_BACKOFF};
use fw_proto::{HostName, Span, Timestamp};

use super::files::{Directory, Job, Maintenance, Timeout};
use super::{names, target};
use crate::drive::jobs::Said;
use crate::drive::jobs::text::runnable;
use crate::problem::Chain;

/// What Saltpeter calls itself in the store and in what people read.
pub(super) const NAME: &str = "saltpeter";

/// A wrapper that has not connected by then counts as one that could not be started.
const START_WITHIN: Span = Span::from_secs(30);

/// The variable that holds the job's name.
pub(super) const JOB_NAME: &str = "SP_JOB_NAME";

/// The variable that holds the name of the run.
const JOB_INSTANCE: &str = "SP_JOB_INSTANCE";

/// All jobs, each with its file; and those that cannot be said in our words, with the reason.
pub(super) fn jobs(directory: &Directory) -> (Vec<(String, JobDef)>, Vec<String>) {
    let (mut good, mut bad, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for job in directory.jobs.values() {
        match translate(job) {
            Ok(def) if names.insert(def.name.clone()) => good.push((job.file.clone(), def)),
            Ok(def) => bad.push(format!(
                "{}:{}: job {}: another one is called {} here; rename one",
                job.file, job.place.line, job.name, def.name
            )),
            Err(why) => {
                bad.push(format!("{}:{}: job {}: {why}", job.file, job.place.line, job.name));
            }
        }
    }
    (good, bad)
}

/// What is in maintenance, for these jobs alone. What is no name of a host names none.
pub(super) fn maintenance(said: &Maintenance) -> Vec<Said> {
    let reason = |what| format!("saltpeter_maintenance: {what}");
    let global = said.global.then(|| Said { hosts: None, reason: reason("global") });
    let names = said.machines.iter().filter(|name| name.parse::<HostName>().is_ok());
    let list = names.map(String::as_str).collect::<Vec<_>>().join(",");
    let machines = target::translate(target::Kind::List, &list, &target::Groups::new()).ok();
    let machines =
        machines.map(|hosts| Said { hosts: Some(hosts.to_string()), reason: reason("machines") });
    global.into_iter().chain(machines).collect()
}

fn translate(job: &Job) -> Result<JobDef, String> {
    let def = JobDef::of(names::job_name(&job.name), spec(job))
        .map_err(|error| Chain(&error).to_string())?;
    runnable(&def).map_err(|invalid| invalid.to_string())?;
    Ok(JobDef { line: job.place.line, column: job.place.column, ..def })
}

fn spec(job: &Job) -> JobSpec {
    let few = |count: u64| u32::try_from(count).ok().filter(|count| *count > 0);
    JobSpec {
        schedule: job.times.text.clone(),
        timezone: "UTC".to_owned(),
        hosts: job.selector.clone(),
        command: Command::Shell(job.command.clone()),
        user: job.user.clone(),
        cwd: job.cwd.clone(),
        env: env(job),
        timeout: match job.timeout {
            Timeout::Seconds(seconds) => Some(Span::from_secs(seconds)),
            Timeout::Unlimited => None,
        },
        kill_after: KILL_AFTER,
        start_within: START_WITHIN,
        overlap: if job.allow_overlap { Overlap::Allow } else { Overlap::Skip },
        skip_on: Vec::new(),
        window: Vec::new(),
        catch_up: CatchUp::None,
        catch_up_window: CatchUp::WINDOW,
        catch_up_max: CatchUp::MAX,
        retries: 0,
        retry_backoff: RETRY_BACKOFF,
        spread: None,
        pick: few(job.number_of_targets),
        max_parallel: few(job.batch_size),
        max_failures: None,
        enabled: true,
        on_full: OnFull::Block,
        on_failure: Vec::new(),
        on_recovery: Vec::new(),
    }
}

/// What a command finds in its environment: the job's own goes over ours, as there.
fn env(job: &Job) -> BTreeMap<String, EnvValue> {
    let ours = [(JOB_NAME, job.name.clone()), (JOB_INSTANCE, String::new())];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value));
    let own = job.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    ours.chain(own).map(|(name, value)| (name, EnvValue::Value(value))).collect()
}

/// Gives a run that begins now its name.
pub(super) fn complete(plan: &mut Plan, begun: Timestamp) {
    let Some(EnvValue::Value(job)) = plan.exec.env.get(JOB_NAME).cloned() else { return };
    if let Some(EnvValue::Value(instance)) = plan.exec.env.get_mut(JOB_INSTANCE)
        && instance.is_empty()
    {
        *instance = names::instance(&job, begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::saltpeter::files;

    fn read(text: &str) -> Directory {
        files::of_texts(&BTreeMap::from([("night.yaml".to_owned(), Ok(text.to_owned()))]))
    }

    #[test]
    fn a_job_says_the_same_in_our_words() {
        let text = "Night sweep:\n  min: '*/5'\n  hour: '*'\n  dom: 1\n  mon: '*'\n  dow: mon\n  command: sweep --all\n  targets: G@os:Debian and not web1\n  target_type: compound\n  number_of_targets: 2\n  batch_size: 1\n  timeout: 0\n  user: www\n  cwd: /srv\n  env: {A: yes, SP_JOB_NAME: mine}\n";
        let (jobs, bad) = jobs(&read(text));
        assert_eq!(bad, Vec::<String>::new());
        let (file, def) = &jobs[0];
        assert_eq!((file.as_str(), def.line), ("night.yaml", 1));
        insta::assert_json_snapshot!(def.spec);
    }

    #[test]
    fn maintenance_is_of_everything_and_of_machines() {
        let check = |text: &str| {
            let said = maintenance(&read(&format!("saltpeter_maintenance: {text}\n")).maintenance);
            said.into_iter().map(|one| one.hosts).collect::<Vec<_>>()
        };
        assert_eq!(check("{global: true}"), [None]);
        assert_eq!(check("{machines: []}"), [None::<String>; 0]);
        let machines = Some("web1,db1".to_owned());
        assert_eq!(check("{machines: [web1, no name, db1]}"), std::slice::from_ref(&machines));
        assert_eq!(check("{global: true, machines: [web1, db1]}"), [None, machines]);
    }

    #[test]
    fn a_job_that_no_host_could_start_is_told_at_its_place() {
        let text = "a: {min: 0, hour: 0, dom: 1, mon: 1, dow: '*', command: x, targets: '*', target_type: glob, env: {'A=B': c}}\n";
        let (jobs, bad) = jobs(&read(text));
        assert!(jobs.is_empty());
        assert!(bad[0].starts_with("night.yaml:1: job a: "), "{bad:?}");
    }
}
