//! Upkeep: the alive mark, retention, backups, and forgetting who has not come for a while.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fw_proto::{Span, Timestamp};
use fw_rt::{Clock, Tasks};
use fw_store::{Retention, Store};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tracing::{error, info, warn};

use crate::BackupConfig;
use crate::gateway::admit::Admission;
use crate::problem::Chain;
use crate::state::{App, Health};

/// The alive mark is set so often: no more than this is in doubt after a crash.
const ALIVE: Duration = Duration::from_secs(60);

/// What is too old or too much is swept so often.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// Whether a backup is due is asked so often.
const BACKUP: Duration = Duration::from_secs(60);

/// A backup that did not come about is tried again after this.
const BACKUP_AGAIN: Duration = Duration::from_secs(10 * 60);

/// Scheduled backups are told by their names from those that people make and keep.
const PREFIX: &str = "nightly-";
const SUFFIX: &str = ".backup";

/// What upkeep needs.
#[derive(Debug, Clone)]
pub struct Parts {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) health: Health,
    pub(crate) admission: Admission,
    pub(crate) retention: Retention,
    pub(crate) backup: BackupConfig,
}

impl Parts {
    /// What upkeep needs of a server.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self {
            store: app.store.clone(),
            clock: app.clock.clone(),
            health: app.health.clone(),
            admission: app.admission.clone(),
            retention: app.config.retention,
            backup: app.config.backup.clone(),
        }
    }
}

/// Starts the tasks. Nothing waits for them.
pub fn start(parts: Parts, tasks: &Tasks) {
    tasks.spawn("upkeep.alive", alive(parts.clone()));
    tasks.spawn("upkeep.sweep", sweep(parts.clone()));
    tasks.spawn("upkeep.backup", backups(parts));
}

/// An interval that does not make up for what it missed: the machine may have slept.
fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn alive(parts: Parts) {
    let mut minutes = every(ALIVE);
    loop {
        minutes.tick().await;
        parts.admission.tidy();
        if let Err(error) = parts.store.touch_alive(parts.clock.now()).await {
            warn!(error = %Chain(&error), "alive mark cannot be set");
        }
    }
}

async fn sweep(parts: Parts) {
    let mut hours = every(SWEEP);
    loop {
        hours.tick().await;
        match parts.store.sweep(parts.retention).await {
            Ok(swept) => {
                parts.health.clear("retention");
                if swept.runs + swept.rows > 0 {
                    info!(swept.runs, swept.rows, swept.used, "old runs and rows deleted");
                }
            }
            Err(error) => {
                error!(error = %Chain(&error), "old runs cannot be deleted");
                parts
                    .health
                    .report("retention", format!("old runs cannot be deleted: {}", Chain(&error)));
            }
        }
    }
}

async fn backups(parts: Parts) {
    let Some(period) = parts.backup.every else { return };
    // Not at once: a server that starts has other things to do.
    let mut minutes = interval_at(Instant::now() + BACKUP, BACKUP);
    loop {
        minutes.tick().await;
        if let Err(why) = backup_if_due(&parts, period).await {
            let dir = parts.backup.dir.display();
            error!("backup in {dir} cannot be made: {why}; trying again in {BACKUP_AGAIN:?}");
            parts.health.report("backup", format!("backup in {dir} cannot be made: {why}"));
            minutes = interval_at(Instant::now() + BACKUP_AGAIN, BACKUP);
        }
    }
}

/// Makes a backup when the last one is old enough, then deletes the oldest ones. What there is
/// is read from the directory: a restart neither forgets nor repeats a backup.
async fn backup_if_due(parts: &Parts, period: Span) -> Result<(), String> {
    let BackupConfig { dir, keep, .. } = &parts.backup;
    let now = parts.clock.now();
    let there = list(dir).await?;
    // One from the future was made by a wrong clock; it proves nothing.
    let last = there.iter().map(|(at, _)| *at).filter(|at| *at <= now).max();
    if last.is_some_and(|last| now.since(last) < period) {
        return Ok(());
    }
    let path = dir.join(format!("{PREFIX}{}{SUFFIX}", now.to_string().replace(':', "")));
    let made = parts.store.backup(&path).await.map_err(|error| Chain(&error).to_string())?;
    info!(backup.file = %path.display(), backup.bytes = made.bytes, "backup made");
    parts.health.clear("backup");
    prune(list(dir).await?, *keep).await
}

/// Deletes all but the newest; at least one stays.
async fn prune(mut there: Vec<(Timestamp, PathBuf)>, keep: u32) -> Result<(), String> {
    there.sort();
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
    let old = there.len().saturating_sub(keep);
    for (_, path) in there.into_iter().take(old) {
        let gone = tokio::fs::remove_file(&path).await;
        gone.map_err(|error| format!("old backup {} cannot be deleted: {error}", path.display()))?;
        info!(backup.file = %path.display(), "old backup deleted");
    }
    Ok(())
}

/// The scheduled backups in a directory, which need not be there.
async fn list(dir: &Path) -> Result<Vec<(Timestamp, PathBuf)>, String> {
    let failed = |error: std::io::Error| format!("read {}: {error}", dir.display());
    let mut entries = match tokio::fs::read_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        let at = entry.file_name().to_str().and_then(made_at);
        found.extend(at.map(|at| (at, entry.path())));
    }
    Ok(found)
}

/// When the scheduled backup of this name was made: `nightly-2026-11-20T033000.000Z.backup`.
fn made_at(name: &str) -> Option<Timestamp> {
    let text = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (date, time) = text.split_once('T')?;
    let (hours, minutes, rest) = (time.get(..2)?, time.get(2..4)?, time.get(4..)?);
    format!("{date}T{hours}:{minutes}:{rest}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Span = Span::from_secs(24 * 60 * 60);
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    async fn parts(dir: &Path) -> Parts {
        let clock = Clock::system();
        Parts {
            store: Store::open(&dir.join("data"), clock.clone()).await.unwrap(),
            clock,
            health: Health::default(),
            admission: Admission::new(500),
            retention: Retention { age: DAY, bytes: 1 },
            backup: BackupConfig { dir: dir.join("backups"), every: Some(DAY), keep: 2 },
        }
    }

    #[tokio::test]
    async fn a_backup_a_day_and_the_newest_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path()).await;
        for day in 1..=4 {
            backup_if_due(&parts, DAY).await.unwrap();
            // It is not due again, whoever asks.
            backup_if_due(&parts, DAY).await.unwrap();
            assert_eq!(list(&parts.backup.dir).await.unwrap().len(), day.min(2));
            parts.clock.shift(DAY_MS);
        }
        let by_hand = parts.backup.dir.join("fleetwright-2026-11-20T033000.000Z.backup");
        std::fs::write(&by_hand, "").unwrap();
        backup_if_due(&parts, DAY).await.unwrap();
        assert!(by_hand.exists(), "only scheduled ones are deleted");
        let mut there = list(&parts.backup.dir).await.unwrap();
        there.sort();
        assert!(fw_store::verify_backup(&there.last().unwrap().1).is_ok());
    }

    #[tokio::test]
    async fn a_backup_that_cannot_be_made_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path()).await;
        std::fs::write(&parts.backup.dir, "a file").unwrap();
        let why = backup_if_due(&parts, DAY).await.unwrap_err();
        assert!(why.contains("Not a directory"), "{why}");
    }
}
