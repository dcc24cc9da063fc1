//! What there is, as Saltpeter writes it: the same keys in the same order, times as Python writes them.

use std::collections::BTreeMap;

use fw_core::plan::Plan;
use fw_proto::Timestamp;
use fw_proto::api::{Run, RunState, Task};

use super::super::codes::{self, Limits};
use super::super::files::{Job, Timeout};
use super::super::json::Json;
use super::super::schedule::Field;
use super::super::served::Served;
use super::super::{names, python};
use super::state::Snapshot;

/// The version of Saltpeter whose messages these are; its pages show it.
pub(super) const SP_VERSION: &str = "0.9.31";

/// `/config`, and in the message of that name.
pub(super) fn config(served: &Served) -> Json {
    let crons = served.directory.jobs.values().map(|job| (job.name.clone(), cron(job)));
    Json::map([
        ("crons", Json::Map(crons.collect())),
        ("maintenance", maintenance(served)),
        ("serial", Json::Float(served.serial)),
        ("saltpeter_config", settings(served)),
    ])
}

/// A job as it is written, and the defaults that Saltpeter puts in.
fn cron(job: &Job) -> Json {
    let mut keys = job.raw.clone();
    set(&mut keys, "group", Json::text(&job.group));
    let defaults = [
        (Field::Sec.name(), Json::Int(0)),
        (Field::Year.name(), Json::text("*")),
        ("utc", Json::Bool(false)),
    ];
    for (key, value) in defaults {
        if !keys.iter().any(|(known, _)| known == key) {
            set(&mut keys, key, value);
        }
    }
    let timeout = match job.timeout {
        Timeout::Seconds(seconds) => Json::count(seconds),
        Timeout::Unlimited => Json::Int(0),
    };
    if !keys.iter().any(|(known, _)| known == "timeout") {
        set(&mut keys, "timeout", timeout);
    }
    Json::Map(keys)
}

fn set(keys: &mut Vec<(String, Json)>, key: &str, value: Json) {
    match keys.iter_mut().find(|(known, _)| known == key) {
        Some((_, known)) => *known = value,
        None => keys.push((key.to_owned(), value)),
    }
}

fn maintenance(served: &Served) -> Json {
    let maintenance = &served.directory.maintenance;
    let machines = maintenance.machines.iter().map(Json::text).collect();
    Json::map([("global", Json::Bool(maintenance.global)), ("machines", Json::List(machines))])
}

/// All settings, those that nobody knows too. Passwords in URLs are not shown: Saltpeter shows them to anyone.
fn settings(served: &Served) -> Json {
    let of = &served.settings;
    let address =
        |ip: Option<std::net::IpAddr>| ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
    let url =
        |url: &Option<String>| Json::text(url.as_deref().map(without_password).unwrap_or_default());
    let known = [
        ("logdir", Json::text(of.logdir.display().to_string())),
        ("debug", Json::Bool(of.debug)),
        ("api_ws", Json::Bool(of.api_ws)),
        ("api_ws_port", Json::Int(of.api_ws_port.into())),
        ("api_ws_bind_addr", Json::text(address(of.api_ws_bind_addr))),
        ("machines_ws_port", Json::Int(of.machines_ws_port.into())),
        ("machines_ws_bind_addr", Json::text(of.machines_ws_bind_addr.to_string())),
        ("default_saltpeter_server_host", Json::text(&of.default_saltpeter_server_host)),
        ("default_wrapper_path", Json::text(&of.default_wrapper_path)),
        ("default_wrapper_logdir", Json::text(&of.default_wrapper_logdir)),
        ("default_wrapper_loglevel", Json::text(&of.default_wrapper_loglevel)),
        ("elasticsearch", url(&of.elasticsearch)),
        ("opensearch", url(&of.opensearch)),
        ("elasticsearch_index", Json::text(&of.elasticsearch_index)),
        ("opensearch_index", Json::text(&of.opensearch_index)),
    ];
    let mut all: Vec<_> = known.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    for (key, value) in &served.directory.raw_config {
        if !all.iter().any(|(known, _)| known == key) {
            all.push((key.clone(), value.clone()));
        }
    }
    Json::Map(all)
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, _) | (_, None) => url.to_owned(),
    }
}

/// The name of a run.
pub(super) fn instance(job: &str, run: &Run) -> String {
    names::instance(job, run.summary.created_at)
}

/// `/running`: the runs that go on, by name.
pub(super) fn running(snapshot: &Snapshot) -> Json {
    let entry = |(job, run): &(String, Run)| {
        let unfinished = |task: &&Task| codes::ending(task, Limits::default()).is_none();
        let machines =
            run.tasks.iter().filter(unfinished).map(|task| Json::text(task.host.as_str()));
        let of = Json::map([
            ("started", Json::text(python::iso_time(run.summary.created_at))),
            ("name", Json::text(job)),
            ("machines", Json::List(machines.collect())),
            ("stop_signal", Json::Bool(run.summary.state == RunState::Cancelling)),
        ]);
        (instance(job, run), of)
    };
    // Two that began in one second share a name, as there.
    let by_name: BTreeMap<_, _> = snapshot.running.iter().map(entry).collect();
    Json::Map(by_name.into_iter().collect())
}

/// The message `status`.
pub(super) fn status(snapshot: &Snapshot) -> Json {
    let last = snapshot.last.iter().map(|(job, summary)| {
        // While it goes on nothing is wrong with it.
        let ok = match summary.state {
            RunState::Planned | RunState::Running | RunState::Cancelling | RunState::Succeeded => {
                true
            }
            RunState::Failed | RunState::Cancelled => false,
        };
        let of = Json::map([
            ("last_run", Json::text(python::iso_time(summary.created_at))),
            ("result_ok", Json::Bool(ok)),
        ]);
        (job.clone(), of)
    });
    Json::map([
        ("type", Json::text("status")),
        ("running", running(snapshot)),
        ("last_state", Json::Map(last.collect())),
        ("sp_version", Json::text(SP_VERSION)),
    ])
}

/// What is known of a job beside its files.
pub(super) struct Details<'a> {
    pub(super) job: &'a Job,
    /// In global maintenance nothing is due.
    pub(super) next_run: Option<Timestamp>,
    /// Its last run, and the plan of that.
    pub(super) last: Option<(&'a Run, &'a Plan)>,
    pub(super) overlap: bool,
    /// Output by machine, where it is wanted.
    pub(super) output: &'a BTreeMap<String, String>,
    /// Its length in UTF-16 units, where it is known.
    pub(super) lengths: &'a BTreeMap<String, u64>,
}

/// The state of a job; what there is only after a run comes with the first.
pub(super) fn details(of: &Details<'_>) -> Json {
    let mut entries = Vec::new();
    let mut put = |key: &str, value: Json| entries.push((key.to_owned(), value));
    if let Some(at) = of.next_run {
        put("next_run", Json::text(python::iso_time(at)));
    }
    let Some((run, plan)) = of.last else { return Json::Map(entries) };
    put("last_run", Json::text(python::iso_time(run.summary.created_at)));
    put("overlap", Json::Bool(of.overlap));
    put("group", Json::text(&of.job.group));
    let up = run.tasks.iter().filter(|task| !codes::is_down(task));
    put("targets", Json::List(up.map(|task| Json::text(task.host.as_str())).collect()));
    let limits = limits(plan);
    let results =
        run.tasks.iter().map(|task| (task.host.to_string(), result(of, task, run, limits)));
    put("results", Json::Map(results.collect()));
    if run.summary.state.is_final() {
        let failed = run.tasks.iter().filter(|task| has_failed(task, limits)).count();
        let (failed, total) = (failed as u64, run.tasks.len() as u64);
        put("last_success", Json::Bool(run.summary.state == RunState::Succeeded && failed == 0));
        put("last_failed_count", Json::count(failed));
        put("last_total_count", Json::count(total));
    }
    Json::Map(entries)
}

/// What limits a run's tasks.
pub(super) const fn limits(plan: &Plan) -> Limits {
    Limits { timeout: plan.exec.timeout, lost_after: plan.limits.lost_after }
}

fn has_failed(task: &Task, limits: Limits) -> bool {
    codes::ending(task, limits).is_some_and(|ending| ending.code != 0)
}

fn result(of: &Details<'_>, task: &Task, run: &Run, limits: Limits) -> Json {
    let host = task.host.as_str();
    let ending = codes::ending(task, limits);
    let time = |at: Option<Timestamp>| Json::text(at.map(python::time).unwrap_or_default());
    let ended = task.finished_at.or(run.summary.finished_at).filter(|_| ending.is_some());
    let mut entries = vec![
        ("ret".to_owned(), Json::text(of.output.get(host).cloned().unwrap_or_default())),
        (
            "retcode".to_owned(),
            ending.map_or_else(|| Json::text(""), |ending| Json::Int(ending.code.into())),
        ),
        ("starttime".to_owned(), time(task.started_at.or(Some(run.summary.created_at)))),
        ("endtime".to_owned(), time(ended)),
    ];
    if let Some(length) = of.lengths.get(host) {
        entries.push(("output_length".to_owned(), Json::count(*length)));
    }
    Json::Map(entries)
}

/// When a job is due next, as Saltpeter shows it.
pub(super) fn next_run(served: &Served, job: &Job, now: Timestamp) -> Option<Timestamp> {
    if served.directory.maintenance.global { None } else { job.times.next_after(now) }
}
