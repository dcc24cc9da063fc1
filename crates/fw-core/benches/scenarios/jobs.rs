//! Jobs: their files, when each is due, and 10,000 that are due in the same second.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use fw_core::fires::{CatchUp, Job, Known, Scheduler};
use fw_core::job::parse_jobs;
use fw_core::schedule::Schedule;
use fw_proto::api::Overlap;
use fw_proto::{JobName, Timestamp};

use super::at;
use crate::scenario::{Scenario, Size};

const JOBS: u32 = 10_000;

/// Fires that one turn looks for, one after the other: they fall on different days.
const FIRES: u32 = 100;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        next("schedule-next-simple", "*/5 * * * *", "UTC"),
        next("schedule-next-zone", "30 2 * * *", "Europe/Berlin"),
        next("schedule-next-dense", "* * * * * *", "Europe/Berlin"),
        next("schedule-next-sparse", "0 0 29 2 *", "UTC"),
        Scenario::again("schedule-parse", Size::Items(1), || {
            || Schedule::parse(black_box("30 3 * * MON-FRI"), "Europe/Athens")
        }),
        Scenario::once("fires-10000-due", Size::Items(u64::from(JOBS)), || {
            let mut scheduler = scheduler();
            move || {
                let decisions = scheduler.tick(at(HOUR + 1));
                assert_eq!(decisions.len(), JOBS as usize, "each job fires once");
                (decisions, scheduler)
            }
        }),
        Scenario::once("fires-10000-ended", Size::Items(u64::from(JOBS)), || {
            let mut scheduler = scheduler();
            scheduler.tick(at(HOUR + 1));
            let names: Vec<JobName> = (0..JOBS).map(job_name).collect();
            move || {
                for name in &names {
                    black_box(scheduler.ended(name, at(HOUR + 2)));
                }
                scheduler
            }
        }),
        read("job-yaml-1", 1),
        read("job-yaml-100", 100),
    ]
}

/// Seconds after [`at`] zero at which an hour is full, less a second.
const HOUR: i64 = 3599;

fn next(label: &'static str, text: &'static str, zone: &'static str) -> Scenario {
    Scenario::again(label, Size::Items(u64::from(FIRES)), move || {
        let schedule = Schedule::parse(text, zone).expect("a schedule");
        move || {
            let follow = |after: Timestamp, _| {
                schedule.next_after(black_box(after)).map_or(after, |fire| fire.nominal)
            };
            (0..FIRES).fold(at(0), follow)
        }
    })
}

/// Jobs that are due at the full hour, and were last decided just before.
fn scheduler() -> Scheduler {
    let mut scheduler = Scheduler::new(at(HOUR));
    let schedule = Schedule::parse("0 * * * *", "Europe/Berlin").expect("a schedule");
    for n in 0..JOBS {
        let (schedule, overlap, catch_up) = (schedule.clone(), Overlap::Skip, CatchUp::NONE);
        let job = Job { schedule, calendar: None, overlap, catch_up, enabled: true, source: None };
        let (behind, retries) = (BTreeMap::new(), BTreeMap::new());
        let decided_to = at(HOUR);
        let known = Known { decided_to, paused: false, active: 0, queued: None, behind, retries };
        scheduler.restore(&job_name(n), job, known);
    }
    scheduler
}

fn job_name(n: u32) -> JobName {
    format!("nightly-backup-{n:05}").parse().expect("a name")
}

fn read(label: &'static str, jobs: u32) -> Scenario {
    let text = file(jobs);
    Scenario::again(label, Size::Bytes(text.len() as u64), move || {
        let text = text.clone();
        move || parse_jobs("jobs.yaml", black_box(&text))
    })
}

fn file(jobs: u32) -> String {
    let mut text = "jobs:\n".to_owned();
    for n in 0..jobs {
        write!(text, "  {}:\n{JOB}", job_name(n)).expect("writing to a string cannot go wrong");
    }
    let parsed = parse_jobs("jobs.yaml", &text);
    assert!(parsed.errors.is_empty() && parsed.jobs.len() == jobs as usize, "{parsed:?}");
    text
}

const JOB: &str = r#"    schedule: "30 3 * * *"
    timezone: Europe/Athens
    hosts: db* and os:Debian and not label:stage=canary
    argv: [/usr/local/bin/backup, --target, s3]
    user: backup
    env:
      RETENTION: 30
      AWS_SECRET: {secret: aws}
    timeout: 2h
    max_failures: 2
    on_failure: {webhook: "https://chat.example.com/hook"}
"#;
