//! Jobs and their fires, for people.

use std::fmt::Write as _;

use fw_proto::api::{
    CatchUp, CheckedJob, Command, EnvValue, Fire, FireReason, Hook, Job, JobSource, JobSpec,
    JobWaiting, OnFull, Overlap, SourceError, Verdict,
};
use fw_proto::{HostName, Timestamp};

use super::line;
use super::run::command;
use super::table::{Row, Width, ago};

impl Row for Job {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("NAME", Width::Always),
        ("SCHEDULE", Width::Always),
        ("HOSTS", Width::Always),
        ("STATE", Width::Always),
        ("NEXT", Width::Always),
        ("COMMAND", Width::Always),
        ("TIME ZONE", Width::Wide),
        ("FROM", Width::Wide),
        ("LAST RUN", Width::Wide),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.spec.schedule.clone(),
            self.spec.hosts.clone(),
            state(self).to_owned(),
            self.next_fire.map(|at| ago(at, now)).unwrap_or_default(),
            command(&self.spec.command),
            self.spec.timezone.clone(),
            source(&self.source),
            self.last_run.map(|id| id.to_string()).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl Row for Fire {
    const COLUMNS: &'static [(&'static str, Width)] = &[
        ("VERDICT", Width::Always),
        ("REASON", Width::Always),
        ("FROM", Width::Always),
        ("TO", Width::Always),
        ("COUNT", Width::Number),
        ("LAG", Width::Number),
        ("RUN", Width::Always),
    ];

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        let same = self.from == self.to;
        vec![
            verdict(self.verdict).to_owned(),
            self.reason.map(reason).unwrap_or_default().to_owned(),
            self.from.to_string(),
            if same { String::new() } else { self.to.to_string() },
            self.count.to_string(),
            self.lag_ms.map(|ms| format!("{ms}ms")).unwrap_or_default(),
            self.run_id
                .map(|id| id.to_string())
                .or_else(|| self.hosts.as_deref().map(would_run))
                .unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.from.to_string()
    }
}

impl Row for CheckedJob {
    const COLUMNS: &'static [(&'static str, Width)] =
        &[("NAME", Width::Always), ("NEXT", Width::Always)];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let next = self.next_fire.map(|at| format!("{at} ({})", ago(at, now)));
        vec![self.name.to_string(), next.unwrap_or_else(|| "never".to_owned())]
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

/// A job on a page of its own.
pub(crate) fn page(job: &Job, now: Timestamp) -> String {
    let spec = &job.spec;
    let mut page = String::new();
    let mut put = |key: &str, value: String| {
        let shown = if value.is_empty() { "-".into() } else { line(&value) };
        writeln!(page, "{key:12} {shown}").expect("writing to memory");
    };
    let next = job.next_fire.map(|at| format!("{at} ({})", ago(at, now)));
    put("name", job.name.to_string());
    put("state", state(job).to_owned());
    put("from", source(&job.source));
    put("schedule", format!("{} ({})", spec.schedule, spec.timezone));
    put("next", next.unwrap_or_else(|| "never".to_owned()));
    job.waiting.iter().for_each(|what| put("waits", waiting(what, now)));
    put("last run", job.last_run.map(|id| id.to_string()).unwrap_or_default());
    put("hosts", spec.hosts.clone());
    put("command", command(&spec.command));
    put("user", spec.user.clone().unwrap_or_default());
    put("cwd", spec.cwd.clone().unwrap_or_default());
    put("env", env(&spec.env));
    put("timeout", spec.timeout.map(|span| span.to_string()).unwrap_or_default());
    put("kill after", spec.kill_after.to_string());
    put("start within", spec.start_within.to_string());
    put("not on", spec.skip_on.join(", "));
    put("window", spec.window.join("; "));
    put("overlap", overlap(spec.overlap).to_owned());
    put("catch up", catch_up(spec));
    put("retries", retries(spec));
    put("spread", spec.spread.map(|span| span.to_string()).unwrap_or_default());
    put("pick", spec.pick.map(|hosts| hosts.to_string()).unwrap_or_default());
    put("max parallel", spec.max_parallel.map(|hosts| hosts.to_string()).unwrap_or_default());
    put("max failures", spec.max_failures.map(|hosts| hosts.to_string()).unwrap_or_default());
    put("on full", on_full(spec.on_full).to_owned());
    put("on failure", hooks(&spec.on_failure));
    put("on recovery", hooks(&spec.on_recovery));
    if let Some(error) = &job.error {
        page.push('\n');
        page.push_str(&super::text(&error_text(error)));
        page.push_str("\nThe last good version goes on.\n");
    }
    page
}

fn env(env: &std::collections::BTreeMap<String, EnvValue>) -> String {
    let pair = |(key, value): (&String, &EnvValue)| match value {
        EnvValue::Value(value) => format!("{key}={value}"),
        EnvValue::Secret(name) => format!("{key}=<secret {name}>"),
    };
    env.iter().map(pair).collect::<Vec<_>>().join(" ")
}

fn hooks(hooks: &[Hook]) -> String {
    let shown = |hook: &Hook| match hook {
        Hook::Webhook(url) => format!("webhook {url}"),
        Hook::Command(argv) => format!("command {}", command(&Command::Argv(argv.clone()))),
    };
    hooks.iter().map(shown).collect::<Vec<_>>().join("; ")
}

const fn overlap(overlap: Overlap) -> &'static str {
    match overlap {
        Overlap::Skip => "skip",
        Overlap::Queue => "queue",
        Overlap::Replace => "replace",
        Overlap::Allow => "allow",
    }
}

fn retries(spec: &JobSpec) -> String {
    match spec.retries {
        0 => "none".to_owned(),
        most => format!("{most}, the first after {}", spec.retry_backoff),
    }
}

fn catch_up(spec: &JobSpec) -> String {
    let within = spec.catch_up_window;
    match spec.catch_up {
        CatchUp::None => "none".to_owned(),
        CatchUp::Last => format!("last within {within}"),
        CatchUp::All => format!("all within {within}, at most {}", spec.catch_up_max),
    }
}

/// What waits, and on what.
fn waiting(waiting: &JobWaiting, now: Timestamp) -> String {
    match waiting {
        JobWaiting::Retry { run, at } => {
            format!("run {run} failed and is tried again at {at} ({})", ago(*at, now))
        }
        JobWaiting::Queued { nominal } => {
            format!("the fire of {nominal}, for the end of the earlier run")
        }
        JobWaiting::CatchUp { fires: 1, from, .. } => {
            format!("the lost fire of {from}, to be caught up after the earlier run")
        }
        JobWaiting::CatchUp { fires, from, to } => {
            format!("{fires} lost fires from {from} to {to}, to be caught up one after the other")
        }
    }
}

const fn on_full(on_full: OnFull) -> &'static str {
    match on_full {
        OnFull::Block => "block",
        OnFull::Drop => "drop",
    }
}

/// An error in a job file, for a message of several lines: its file cannot forge one of them.
pub(crate) fn error_text(error: &SourceError) -> String {
    let mut shown = error.clone();
    shown.file = line(&error.file).into_owned();
    shown.to_string()
}

/// Where a fire would have run, as far as a line has room.
fn would_run(hosts: &[HostName]) -> String {
    format!("would run on {}", few(hosts))
}

/// Hosts by name, as far as a line has room.
fn few(hosts: &[HostName]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<_> = hosts.iter().take(SHOWN).map(HostName::as_str).collect();
    match hosts.len().saturating_sub(SHOWN) {
        0 if names.is_empty() => "none".to_owned(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The most important thing to know of a job, in a word.
fn state(job: &Job) -> &'static str {
    let retrying = job.waiting.iter().any(|what| matches!(what, JobWaiting::Retry { .. }));
    match (job.error.is_some(), job.paused, job.spec.enabled, job.last_failed) {
        (false, false, true, _) if retrying => "retrying",
        (true, ..) => "file error",
        (_, true, ..) => "paused",
        (_, _, false, _) => "disabled",
        (_, _, _, Some(true)) => "failed",
        (_, _, _, Some(false)) => "ok",
        (_, _, _, None) if job.last_run.is_some() => "running",
        (_, _, _, None) => "new",
    }
}

fn source(source: &JobSource) -> String {
    match source {
        JobSource::File(path) => path.clone(),
        JobSource::Api => "jobs apply".to_owned(),
        JobSource::Dialect { name, file } => format!("{name}:{file}"),
    }
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "pending",
        Verdict::Ran => "ran",
        Verdict::Skipped => "skipped",
        Verdict::Coalesced => "coalesced",
        Verdict::CaughtUp => "caught_up",
        Verdict::Missed => "missed",
        Verdict::Shadow => "shadow",
    }
}

/// Why a fire has its verdict, in the words of tables.
pub(crate) const fn reason(reason: FireReason) -> &'static str {
    match reason {
        FireReason::Overlap => "overlap",
        FireReason::Paused => "paused",
        FireReason::NoHosts => "no_hosts",
        FireReason::Downtime => "downtime",
        FireReason::ClockJump => "clock_jump",
        FireReason::DstGap => "dst_gap",
        FireReason::NoSecret => "no_secret",
        FireReason::Changed => "changed",
        FireReason::Manual => "manual",
        FireReason::Calendar => "calendar",
        FireReason::Window => "window",
        FireReason::Maintenance => "maintenance",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, list};
    use super::*;

    const RUN: &str = "0190a5c2-0000-7000-8000-000000000001";

    #[test]
    fn a_job_is_a_page() {
        let text = r#"
jobs:
  nightly:
    schedule: "0 3 * * *"
    hosts: "*"
    argv: ["true"]
    max_parallel: 2
    skip_on: [12-25, Sun]
    window: 22:00-06:00
    overlap: queue
    catch_up: all
    retries: 2
    on_failure: {webhook: "https://x.example/hook"}
    on_recovery: {command: [/bin/mail, "a b"]}
"#;
        let parsed = fw_core::job::parse_jobs("jobs.yaml", text);
        assert_eq!(parsed.errors, []);
        let job = Job {
            name: "nightly".parse().unwrap(),
            spec: parsed.jobs.into_iter().next().unwrap().spec,
            source: JobSource::File("jobs.yaml".to_owned()),
            paused: false,
            next_fire: None,
            waiting: vec![
                JobWaiting::Retry { run: RUN.parse().unwrap(), at: Timestamp::EPOCH },
                JobWaiting::CatchUp { fires: 3, from: Timestamp::EPOCH, to: Timestamp::EPOCH },
                JobWaiting::Queued { nominal: Timestamp::EPOCH },
            ],
            last_run: None,
            last_failed: None,
            error: Some(SourceError {
                file: "a\nb.yaml".to_owned(),
                line: 0,
                column: 0,
                job: None,
                message: "it is gone".to_owned(),
                snippet: None,
            }),
        };
        insta::assert_snapshot!(page(&job, Timestamp::EPOCH), @r"
        name         nightly
        state        file error
        from         jobs.yaml
        schedule     0 3 * * * (UTC)
        next         never
        waits        run 0190a5c2-0000-7000-8000-000000000001 failed and is tried again at 1970-01-01T00:00:00.000Z (0s ago)
        waits        3 lost fires from 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:00.000Z, to be caught up one after the other
        waits        the fire of 1970-01-01T00:00:00.000Z, for the end of the earlier run
        last run     -
        hosts        *
        command      true
        user         -
        cwd          -
        env          -
        timeout      -
        kill after   10s
        start within 1m
        not on       12-25, Sun
        window       22:00-06:00
        overlap      queue
        catch up     all within 1day, at most 100
        retries      2, the first after 10s
        spread       -
        pick         -
        max parallel 2
        max failures -
        on full      block
        on failure   webhook https://x.example/hook
        on recovery  command /bin/mail 'a b'

        a\nb.yaml: it is gone
        The last good version goes on.
        ");
    }

    #[test]
    fn a_row_of_an_older_server_has_no_hosts() {
        let row = r#"{"verdict":"ran","reason":null,"nominal":null,"from":"1970-01-01T00:00:00Z","to":"1970-01-01T00:00:00Z","count":1,"run_id":null,"lag_ms":12}"#;
        assert_eq!(serde_json::from_str::<Fire>(row).unwrap().hosts, None);
    }

    #[test]
    fn the_ledger_is_a_table() {
        let shadowed = || (1..=3).map(|n| format!("web{n}").parse().unwrap()).collect();
        let fire = |verdict, reason, to: i64| Fire {
            verdict,
            reason,
            nominal: (to == 0).then_some(Timestamp::EPOCH),
            from: Timestamp::EPOCH,
            to: Timestamp::from_millis(to),
            count: 1 + u64::try_from(to).unwrap() / 60_000,
            run_id: None,
            lag_ms: (to == 0).then_some(12),
            hosts: (verdict == Verdict::Shadow).then(shadowed),
        };
        let fires = [
            fire(Verdict::Ran, None, 0),
            fire(Verdict::Missed, Some(FireReason::Downtime), 600_000),
            fire(Verdict::Shadow, None, 0),
        ];
        insta::assert_snapshot!(list(&fires, Format::Table, Timestamp::EPOCH).unwrap(), @"
            VERDICT  REASON    FROM                      TO                        COUNT   LAG  RUN
            ran      -         1970-01-01T00:00:00.000Z  -                             1  12ms  -
            missed   downtime  1970-01-01T00:00:00.000Z  1970-01-01T00:10:00.000Z     11     -  -
            shadow   -         1970-01-01T00:00:00.000Z  -                             1  12ms  would run on web1, web2, web3
            ");
        insta::assert_snapshot!(list(&fires, Format::Jsonl, Timestamp::EPOCH).unwrap(), @r#"
            {"verdict":"ran","reason":null,"nominal":"1970-01-01T00:00:00.000Z","from":"1970-01-01T00:00:00.000Z","to":"1970-01-01T00:00:00.000Z","count":1,"run_id":null,"lag_ms":12,"hosts":null}
            {"verdict":"missed","reason":"downtime","nominal":null,"from":"1970-01-01T00:00:00.000Z","to":"1970-01-01T00:10:00.000Z","count":11,"run_id":null,"lag_ms":null,"hosts":null}
            {"verdict":"shadow","reason":null,"nominal":"1970-01-01T00:00:00.000Z","from":"1970-01-01T00:00:00.000Z","to":"1970-01-01T00:00:00.000Z","count":1,"run_id":null,"lag_ms":12,"hosts":["web1","web2","web3"]}
            "#);
    }
}
