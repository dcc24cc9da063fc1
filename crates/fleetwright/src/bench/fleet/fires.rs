//! Many jobs that are due in the same second.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use fw_proto::api::{JobsText, Verdict};
use fw_proto::{JobName, RunId, Span, Timestamp};
use tokio::time::Instant;

use super::Bench;
use crate::bench::figures::Quantiles;

/// Jobs of one text.
const TEXT: u32 = 1000;

/// How long a text takes to be applied at most: the jobs must be there before they are due.
const TEXT_TAKES: Span = Span::from_secs(2);

/// All runs have begun so long after they were due, or something is wrong.
const BEGIN_WITHIN: Duration = Duration::from_secs(120);

/// The ledger is left alone for so long after the second.
const SETTLE: Duration = Duration::from_secs(5);

/// Between two looks at a ledger that has no verdict yet.
const LOOK: Duration = Duration::from_millis(250);

/// How late each run was written, and how late it began on its host, milliseconds.
type Lags = (Vec<f64>, Vec<f64>);

/// What is measured here.
const BOTH: [&str; 2] = ["fire_lag_ms", "fire_start_ms"];

/// Ledgers that are read at once.
const READERS: usize = 8;

impl Bench {
    /// Fires of many jobs in one second: how late each run's commit was.
    pub(super) async fn fires(&mut self) {
        if self.options.jobs == 0 {
            return self.because(&BOTH, "--jobs 0");
        }
        match self.fire().await {
            Ok((lag, start)) => {
                self.figures.fire_lag_ms = Quantiles::of(lag);
                self.figures.fire_start_ms = Quantiles::of(start);
            }
            Err(error) => self.because(&BOTH, format!("{error:#}")),
        }
    }

    async fn fire(&self) -> anyhow::Result<Lags> {
        let texts = u64::from(self.options.jobs.div_ceil(TEXT));
        let ahead = Span::from_millis(TEXT_TAKES.as_millis() * (texts + 3));
        let due = Timestamp::from_millis((self.clock.now() + ahead).as_millis() / 1000 * 1000);
        self.progress.step("applying jobs");
        for first in (0..self.options.jobs).step_by(TEXT as usize) {
            self.progress.at(u64::from(first), u64::from(self.options.jobs));
            let text = self.text(first, due)?;
            let applied =
                self.client.apply_jobs(&JobsText { text, name: None, dry_run: false }).await?;
            ensure!(applied.errors.is_empty(), "a job was refused: {:?}", applied.errors.first());
        }
        ensure!(self.clock.now() < due, "the jobs were not applied in {ahead}: use fewer");
        self.progress.step("jobs are due");
        tokio::time::sleep(due.since(self.clock.now()).duration()).await;
        // Questions now would take their part of the processors.
        tokio::time::sleep(SETTLE).await;
        self.progress.step("reading the fire ledger");
        self.lags(due, Instant::now() + BEGIN_WITHIN).await
    }

    /// Jobs that are due once, at this second of this day, each on one host.
    fn text(&self, first: u32, due: Timestamp) -> anyhow::Result<String> {
        let schedule = cron(due).context("a time of day")?;
        let mut text = "jobs:\n".to_owned();
        for number in first..self.options.jobs.min(first + TEXT) {
            let (job, host) = (self.job(number), self.host(number % self.options.agents));
            writeln!(
                text,
                "  {job}:\n    schedule: \"{schedule}\"\n    hosts: {host}\n    argv: [\"true\"]"
            )?;
        }
        Ok(text)
    }

    fn job(&self, number: u32) -> String {
        format!("{}{number:05}", self.name)
    }

    async fn lags(&self, due: Timestamp, until: Instant) -> anyhow::Result<Lags> {
        let lag = async |number| -> anyhow::Result<(f64, f64)> {
            let name: JobName = self.job(number).parse()?;
            self.progress.at(u64::from(number), u64::from(self.options.jobs));
            loop {
                let rows = self.client.ledger(&name, Some(4)).await?;
                if let Some(fire) = rows.iter().find(|fire| fire.nominal == Some(due)) {
                    ensure!(
                        fire.verdict == Verdict::Ran,
                        "a fire of job {name} was {:?}",
                        fire.verdict
                    );
                    let lag = fire.lag_ms.context("a fire without lag")?;
                    let run = fire.run_id.context("a fire without run")?;
                    return Ok((lag as f64, self.started(run, due, until).await?));
                }
                ensure!(Instant::now() < until, "job {name} did not fire");
                tokio::time::sleep(LOOK).await;
            }
        };
        let lags =
            futures_util::stream::iter(0..self.options.jobs).map(lag).buffer_unordered(READERS);
        let lags: Vec<_> = lags.collect().await;
        lags.into_iter().collect()
    }

    /// How long after that second the run's command began on its host, in milliseconds.
    async fn started(&self, run: RunId, due: Timestamp, until: Instant) -> anyhow::Result<f64> {
        loop {
            let run = self.client.run(run).await?;
            if let Some(at) = run.tasks.first().and_then(|task| task.started_at) {
                return Ok(at.since(due).as_millis() as f64);
            }
            ensure!(Instant::now() < until, "run {} did not start", run.summary.id);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes the jobs away again.
    pub(super) async fn delete_jobs(&self) -> anyhow::Result<()> {
        let mut deleted = Ok(());
        for job in self.client.jobs(None).await? {
            if job.name.as_str().starts_with(&self.name) {
                // One that cannot be deleted keeps none of the others.
                deleted = deleted.and(self.client.delete_job(&job.name).await);
            }
        }
        Ok(deleted?)
    }
}

/// The cron expression, seconds first, of one second of one day in the year (UTC).
fn cron(at: Timestamp) -> Option<String> {
    // 2026-11-20T09:30:00.000Z
    let text = at.to_string();
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-').skip(1);
    let (month, day) = (date.next()?, date.next()?);
    let mut time = time.get(..8)?.split(':');
    let (hour, minute, second) = (time.next()?, time.next()?, time.next()?);
    let number = |digits: &str| digits.parse::<u32>().ok();
    Some(format!(
        "{} {} {} {} {} *",
        number(second)?,
        number(minute)?,
        number(hour)?,
        number(day)?,
        number(month)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_the_year_as_cron() {
        let at: Timestamp = "2026-11-20T09:05:07.000Z".parse().unwrap();
        assert_eq!(cron(at).unwrap(), "7 5 9 20 11 *");
    }
}
