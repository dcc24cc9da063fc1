//! `fleetwright jobs check --dialect saltpeter`: what a directory of Saltpeter means.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use fw_proto::Timestamp;
use fw_proto::api::SourceError;
use fw_rt::Clock;
use fw_server::dialects::saltpeter::files::{self, Directory, Job, Level, Timeout};
use serde::Serialize;

use super::Refusal;
use crate::exit::Code;
use crate::output::{self, Format, line};

/// The answer as data.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    jobs: Vec<Line<'a>>,
    errors: Vec<&'a SourceError>,
    warnings: Vec<&'a SourceError>,
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
    /// In seconds; `null` is no limit.
    timeout: Option<u64>,
    command: &'a str,
}

/// Checks one directory.
pub(super) fn check(paths: &[String], format: Format) -> anyhow::Result<Code> {
    let [path] = paths else {
        return Err(Refusal::usage("give one directory with --dialect saltpeter"));
    };
    let directory = files::read(Path::new(path)).with_context(|| format!("read {path}"))?;
    let now = Clock::system().now();
    let answer = answer(&directory, now);
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

fn answer(directory: &Directory, now: Timestamp) -> Answer<'_> {
    let of = |level: Level| {
        let notes = directory.notes.iter().filter(move |note| note.level == level);
        notes.map(|note| &note.what).collect()
    };
    let mut jobs: Vec<_> = directory.jobs.values().map(|job| job_line(job, now)).collect();
    jobs.sort_by_key(|job| (job.group, job.name));
    Answer { jobs, errors: of(Level::Error), warnings: of(Level::Warning) }
}

fn job_line(job: &Job, now: Timestamp) -> Line<'_> {
    let fires = std::iter::successors(job.times.next_after(now), |at| job.times.next_after(*at));
    Line {
        name: &job.name,
        group: &job.group,
        file: &job.file,
        line: job.place.line,
        next_fires: fires.take(3).collect(),
        target_type: &job.target_type,
        targets: &job.targets,
        timeout: match job.timeout {
            Timeout::Seconds(seconds) => Some(seconds),
            Timeout::Unlimited => None,
        },
        command: &job.command,
    }
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
        writeln!(
            page,
            "  {}\n    next     {fires}\n    targets  {} {}\n    timeout  {timeout}\n    command  {}",
            line(job.name),
            line(job.target_type),
            line(job.targets),
            line(job.command),
        )
        .expect("writing to memory");
    }
    page
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
        insta::assert_snapshot!(page(&answer(&directory, Timestamp::EPOCH)));
    }
}
