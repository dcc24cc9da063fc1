//! How long runs of jobs took, for those who check files: from a server, or from log files of Saltpeter.

use std::collections::BTreeMap;
use std::path::Path;

use fw_core::job::JobDef;
use fw_core::overlaps::forecast;
use fw_proto::api::{Overlap, RunState, RunSummary, SourceError};
use fw_proto::{JobName, Span, Timestamp};
use fw_server::dialects::saltpeter::beside;
use fw_server::dialects::saltpeter::history::History;

use super::Session;
use super::import::histories;
use crate::client::RunFilter;

/// Of each job so many runs are looked at, the last.
const RUNS: usize = 100;

/// How long runs took, by job.
pub(super) type Past = BTreeMap<JobName, Vec<Span>>;

/// As the server remembers it.
pub(super) async fn of_server(session: &Session) -> anyhow::Result<Past> {
    let mut past = Past::new();
    for job in session.client.jobs(None).await? {
        let filter = RunFilter { job: Some(job.name.clone()), state: None, host: None };
        let runs = session.client.runs(&filter, Some(RUNS)).await?;
        past.insert(job.name, runs.iter().filter_map(took).collect());
    }
    Ok(past)
}

/// A run that someone cancelled says nothing of how long one takes.
fn took(run: &RunSummary) -> Option<Span> {
    match run.state {
        RunState::Succeeded | RunState::Failed => Some(run.finished_at?.since(run.created_at)),
        RunState::Planned | RunState::Running | RunState::Cancelling | RunState::Cancelled => None,
    }
}

/// As log files of Saltpeter say it.
pub(super) fn of_logs(dir: &Path) -> anyhow::Result<Past> {
    let last = |(name, mut history): (String, History)| {
        let too_many = history.took.len().saturating_sub(RUNS);
        (beside::our_name(&name), history.took.split_off(too_many))
    };
    Ok(histories(dir)?.into_iter().map(last).collect())
}

/// What to warn of a job in a file of ours; nothing where overlap is wanted, or it does not fire.
pub(super) fn warning(
    file: &str,
    job: &JobDef,
    past: &Past,
    now: Timestamp,
) -> Option<SourceError> {
    let minds = match job.spec.overlap {
        Overlap::Skip | Overlap::Queue | Overlap::Replace => job.spec.enabled,
        Overlap::Allow => false,
    };
    let past = past.get(&job.name).filter(|_| minds)?;
    let fires = std::iter::successors(job.next_run(now), |at| job.next_run(*at));
    let told = forecast(fires, past)?;
    Some(SourceError {
        file: file.to_owned(),
        line: job.line,
        column: job.column,
        job: Some(job.name.to_string()),
        message: format!("job {} {told}", job.name),
        snippet: None,
    })
}

#[cfg(test)]
mod tests {
    use fw_core::job::parse_jobs;

    use super::*;

    #[test]
    fn a_job_of_ours_is_warned_of_at_its_line() {
        let text = "jobs:\n  a: {schedule: '@every 60s', hosts: '*', run: x}\n  b: {schedule: '@every 60s', hosts: '*', run: x, overlap: allow}\n";
        let jobs = parse_jobs("a.yaml", text).jobs;
        let names = ["a", "b"].map(|name| name.parse().unwrap());
        let past: Past = names.into_iter().map(|name| (name, vec![Span::from_secs(70)])).collect();
        let told = |at: usize| warning("a.yaml", &jobs[at], &past, Timestamp::EPOCH);
        let wanted = "a.yaml:2:3: job a fires every 1m and took 1m 10s at p95 over its last 1 runs: 50 of its next 100 fires would overlap";
        assert_eq!(told(0).unwrap().to_string(), wanted);
        assert_eq!(told(1), None);
        assert_eq!(warning("a.yaml", &jobs[0], &Past::new(), Timestamp::EPOCH), None);
    }

    #[test]
    fn logs_say_how_long_runs_took() {
        let dir = tempfile::tempdir().unwrap();
        let line = |what: &str, at: &str| {
            format!("###### {what} j_1 at 2026-11-20 10:{at}+00:00 ################\n")
        };
        let text = line("Starting", "00:00") + &line("Finished", "01:35.5");
        std::fs::write(dir.path().join("night sweep.log"), text).unwrap();
        std::fs::write(dir.path().join("other.txt"), "x").unwrap();
        let past = of_logs(dir.path()).unwrap();
        assert_eq!(
            past,
            [(beside::our_name("night sweep"), vec![Span::from_millis(95_500)])].into()
        );
        assert!(of_logs(&dir.path().join("none")).is_err());
    }
}
