//! `fleetwright jobs check --dialect saltpeter`: what a directory of Saltpeter means.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use fw_core::overlaps::{Forecast, forecast};
use fw_proto::api::SourceError;
use fw_proto::{HostName, Timestamp};
use fw_rt::Clock;
use fw_server::dialects::saltpeter::beside;
use fw_server::dialects::saltpeter::files::{self, Directory, Job, Level, Timeout};
use fw_server::dialects::saltpeter::target::{Groups, translate};
use serde::Serialize;

use super::Refusal;
use super::durations::Past;
use super::select::{Machines, selected};
use crate::exit::Code;
use crate::output::{self, Format, line};

/// The answer as data.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    jobs: Vec<Line<'a>>,
    errors: Vec<SourceError>,
    warnings: Vec<SourceError>,
}

/// A job of the answer.
#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'a str,
    group: &'a str,
    file: &'a str,
    line: u32,
    /// At most three; none when it is never due.
    next_fires: Vec<Timestamp>,
    target_type: &'a str,
    targets: &'a str,
    /// Those of the facts file; `null` without one, or when the target is wrong.
    hosts: Option<Vec<HostName>>,
    /// In seconds; `null` is no limit.
    timeout: Option<u64>,
    command: &'a str,
}

/// Checks one directory, and its targets on these machines.
pub(super) fn check(
    paths: &[String],
    machines: Option<&Machines>,
    past: &Past,
    format: Format,
) -> anyhow::Result<Code> {
    let [path] = paths else {
        return Err(Refusal::usage("give one directory with --dialect saltpeter"));
    };
    let directory = files::read(Path::new(path)).with_context(|| format!("read {path}"))?;
    let now = Clock::system().now();
    let answer = answer(&directory, machines, past, now);
    match format {
        Format::Table | Format::Wide => {
            output::print(&page(&answer))?;
            tell(&answer);
        }
        Format::Name => {
            let names = answer.jobs.iter().map(|job| format!("{}\n", line(job.name)));
            output::print(&names.collect::<String>())?;
            tell(&answer);
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            output::print(&output::item(&answer, "", format, String::new)?)?;
        }
    }
    Ok(if answer.errors.is_empty() { Code::Success } else { Code::Error })
}

fn tell(answer: &Answer<'_>) {
    for (level, notes) in [("error", &answer.errors), ("warning", &answer.warnings)] {
        for note in notes {
            output::say(&format!("{level}: {}", output::error_text(note)));
        }
    }
}

fn answer<'a>(
    directory: &'a Directory,
    machines: Option<&Machines>,
    past: &Past,
    now: Timestamp,
) -> Answer<'a> {
    let of = |level: Level| {
        let notes = directory.notes.iter().filter(move |note| note.level == level);
        notes.map(|note| note.what.clone()).collect()
    };
    let (errors, mut warnings): (Vec<_>, Vec<_>) = (of(Level::Error), of(Level::Warning));
    let mut jobs = Vec::new();
    for job in directory.jobs.values() {
        let line = job_line(job, machines, now);
        if line.hosts.as_ref().is_some_and(Vec::is_empty) {
            warnings.push(about(job, format!("job {} matches no host", job.name)));
        }
        if let Some(told) = overlaps(job, past, now) {
            warnings.push(about(job, format!("job {} {told}", job.name)));
        }
        jobs.push(line);
    }
    jobs.sort_by_key(|job| (job.group, job.name));
    warnings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Answer { jobs, errors, warnings }
}

/// What is to be expected when runs take as long as they did. Where overlap is wanted there is nothing to warn of.
fn overlaps(job: &Job, past: &Past, now: Timestamp) -> Option<Forecast> {
    let past = past.get(&beside::our_name(&job.name)).filter(|_| !job.allow_overlap)?;
    let fires = std::iter::successors(job.times.next_after(now), |at| job.times.next_after(*at));
    forecast(fires, past)
}

/// Something to tell about a job, at its name.
fn about(job: &Job, message: String) -> SourceError {
    SourceError {
        file: job.file.clone(),
        line: job.place.line,
        column: job.place.column,
        job: Some(job.name.clone()),
        message,
        snippet: None,
    }
}

fn job_line<'a>(job: &'a Job, machines: Option<&Machines>, now: Timestamp) -> Line<'a> {
    let fires = std::iter::successors(job.times.next_after(now), |at| job.times.next_after(*at));
    Line {
        name: &job.name,
        group: &job.group,
        file: &job.file,
        line: job.place.line,
        next_fires: fires.take(3).collect(),
        target_type: &job.target_type,
        targets: &job.targets,
        hosts: machines.and_then(|machines| hosts(job, machines)),
        timeout: match job.timeout {
            Timeout::Seconds(seconds) => Some(seconds),
            Timeout::Unlimited => None,
        },
        command: &job.command,
    }
}

fn hosts(job: &Job, machines: &Machines) -> Option<Vec<HostName>> {
    let selector = translate(job.target_type.parse().ok()?, &job.targets, &Groups::new()).ok()?;
    Some(selected(&selector, machines).hosts)
}

/// The jobs, group by group.
fn page(answer: &Answer<'_>) -> String {
    let mut page = String::new();
    let mut group = None;
    for job in &answer.jobs {
        if group.replace(job.group) != Some(job.group) {
            writeln!(page, "{} ({})", line(job.group), line(job.file)).expect("writing to memory");
        }
        let fires: Vec<String> = job.next_fires.iter().map(ToString::to_string).collect();
        let fires = if fires.is_empty() { "never".to_owned() } else { fires.join(", ") };
        let timeout =
            job.timeout.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds}s"));
        let hosts = job.hosts.as_ref().map_or_else(String::new, |hosts| few(hosts));
        writeln!(
            page,
            "  {}\n    next     {fires}\n    targets  {} {}\n{hosts}    timeout  {timeout}\n    command  {}",
            line(job.name),
            line(job.target_type),
            line(job.targets),
            line(job.command),
        )
        .expect("writing to memory");
    }
    page
}

/// The line of hosts that match, by name as far as a line has room.
fn few(hosts: &[HostName]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<_> = hosts.iter().take(SHOWN).map(HostName::as_str).collect();
    let more = match hosts.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("    hosts    {names}{more}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn jobs_are_shown_group_by_group() {
        let text = "sweep: {min: 30, hour: 3, dom: '*', mon: '*', dow: '*', command: sweep --all, targets: 'G@role:db and web*', target_type: compound, timeout: 1800}\nlate: {min: 0, hour: 0, dom: 30, mon: 2, dow: '*', command: 'true', targets: '*', target_type: glob, timeout: 0}\n";
        let files = BTreeMap::from([("night.yaml".to_owned(), Ok(text.to_owned()))]);
        let directory = files::of_texts(&files);
        insta::assert_snapshot!(page(&answer(&directory, None, &Past::new(), Timestamp::EPOCH)));
    }

    #[test]
    fn hosts_are_named_when_they_are_known() {
        let job = |name: &str, kind: &str, targets: &str| {
            format!(
                "{name}: {{min: 0, hour: 3, dom: '*', mon: '*', dow: '*', command: x, targets: '{targets}', target_type: {kind}, timeout: 9}}\n"
            )
        };
        let text = [
            job("some", "glob", "web*"),
            job("none", "grain", "os:Plan9"),
            job("wrong", "compound", "web* and"),
        ];
        let files = BTreeMap::from([("night.yaml".to_owned(), Ok(text.concat()))]);
        let machines = (0..10).map(|n| (format!("web{n}").parse().unwrap(), Default::default()));
        let (directory, machines) = (files::of_texts(&files), machines.collect());
        let answer = answer(&directory, Some(&machines), &Past::new(), Timestamp::EPOCH);
        let warnings: Vec<_> = answer.warnings.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(format!("{}\n{}", page(&answer), warnings.join("\n")));
    }

    #[test]
    fn fires_that_would_overlap_are_warned_of() {
        let job = |name: &str, more: &str| {
            format!(
                "{name}: {{min: '*', hour: '*', dom: '*', mon: '*', dow: '*', command: x, targets: '*', target_type: glob, timeout: 9{more}}}\n"
            )
        };
        let wanted = ", allow_overlap: i know what i am doing!";
        let text = [job("a job", ""), job("free", wanted), job("quick", "")].concat();
        let files = BTreeMap::from([("night.yaml".to_owned(), Ok(text))]);
        let span = |secs| vec![fw_proto::Span::from_secs(secs)];
        let past = [("a job", 95), ("free", 95), ("quick", 59)];
        let past: Past =
            past.into_iter().map(|(name, secs)| (beside::our_name(name), span(secs))).collect();
        let directory = files::of_texts(&files);
        let answer = answer(&directory, None, &past, Timestamp::EPOCH);
        let told: Vec<_> = answer.warnings.iter().map(ToString::to_string).collect();
        assert!(
            told.contains(&"night.yaml:1:1: job a job fires every 1m and took 1m 35s at p95 over its last 1 runs: 50 of its next 100 fires would overlap".to_owned()),
            "{told:?}"
        );
        assert_eq!(
            told.iter().filter(|told| told.contains("would overlap")).count(),
            1,
            "{told:?}"
        );
    }
}
