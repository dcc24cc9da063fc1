//! The one task that looks for changes and sends them to whoever follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fw_proto::{ChangeId, HostId, RunId};
use fw_rt::Tasks;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::Instant;

use super::rows::{self, run_row, run_rows};
use super::{Counts, Rows, Topic};
use crate::live::RunChange;
use crate::problem::Result;
use crate::state::App;

/// Changes that come together are sent together: ten times a second is as fast as people read.
const TOGETHER: Duration = Duration::from_millis(100);

/// Changes are hints: this often all that is followed is looked at without one.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What nobody follows any more is kept so long for those who come back: a reload, a connection that broke.
const KEEP_FOR: Duration = Duration::from_secs(60);

/// Begins to publish.
pub(crate) fn start(app: App, tasks: &Tasks) {
    tasks.spawn("feed", async move {
        let mut hints = Hints::of(&app);
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            let mut changed = Changed::default();
            let woken = tokio::time::timeout_at(look_at, changed.take(&mut hints)).await;
            if woken.is_err() {
                look_at = Instant::now() + LOOK_EVERY;
                app.feed.forget(Instant::now().checked_sub(KEEP_FOR).unwrap_or(look_at));
                for topic in app.feed.followed() {
                    send(&app, topic, rows::all(&app, topic).await);
                }
                continue;
            }
            let until = Instant::now() + TOGETHER;
            while tokio::time::timeout_at(until, changed.take(&mut hints)).await.is_ok() {}
            app.feed.count(changed.kinds());
            if changed.lost {
                // Whoever asks for a snapshot now reads what the store has now.
                app.feed.lose();
            } else {
                changed.publish(&app).await;
            }
        }
    });
}

fn send(app: &App, topic: Topic, rows: Result<Rows>) {
    match rows {
        Ok(rows) => app.feed.publish(topic, rows),
        // It is looked at again, and what is wrong with the store is told elsewhere.
        Err(error) => tracing::debug!(%topic, error = %error.into_problem(), "rows not read"),
    }
}

/// Where changes are told.
struct Hints {
    hosts: Receiver<HostId>,
    fires: Receiver<fw_proto::JobName>,
    changes: Receiver<ChangeId>,
    runs: Receiver<Arc<RunChange>>,
    logs: Receiver<crate::live::LogChange>,
    audit: watch::Receiver<i64>,
}

impl Hints {
    fn of(app: &App) -> Self {
        let live = &app.live;
        Self {
            hosts: live.hosts(),
            fires: live.fires(),
            changes: live.changes(),
            runs: live.runs(),
            logs: live.logs(),
            audit: app.store.audited(),
        }
    }
}

/// What has changed since it was last published.
#[derive(Default)]
struct Changed {
    hosts: BTreeSet<HostId>,
    jobs: bool,
    changes: BTreeSet<ChangeId>,
    audit: bool,
    /// Each run's changes, in their order.
    runs: BTreeMap<RunId, Vec<Arc<RunChange>>>,
    logs: BTreeSet<RunId>,
    /// So much came that some was missed.
    lost: bool,
}

impl Changed {
    /// Waits for a change and notes it. Nothing is taken that is not noted.
    async fn take(&mut self, hints: &mut Hints) {
        let lagged = tokio::select! {
            hint = hints.hosts.recv() => hint.map(|host| self.hosts.extend([host])),
            hint = hints.fires.recv() => hint.map(|_| self.jobs = true),
            hint = hints.changes.recv() => hint.map(|change| self.changes.extend([change])),
            hint = hints.runs.recv() => hint.map(|change| self.run(change)),
            hint = hints.logs.recv() => hint.map(|change| self.logs.extend([change.run])),
            hint = hints.audit.changed() => {
                // Jobs are paused, applied and deleted without a fire or a run.
                hint.map(|()| (self.audit, self.jobs) = (true, true)).map_err(|_| RecvError::Closed)
            }
        };
        match lagged {
            Ok(()) => {}
            Err(RecvError::Lagged(_)) => self.lost = true,
            // The server ends, and this task with it.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    fn run(&mut self, change: Arc<RunChange>) {
        self.jobs |= change.summary.job.is_some();
        // What of its hosts is under way.
        self.changes.extend(change.summary.change);
        self.runs.entry(change.summary.id).or_default().push(change);
    }

    /// Of which kind something has changed.
    fn kinds(&self) -> Counts {
        let count = |changed: bool| u64::from(changed || self.lost);
        Counts {
            hosts: count(!self.hosts.is_empty()),
            jobs: count(self.jobs),
            runs: count(!self.runs.is_empty()),
            changes: count(!self.changes.is_empty()),
            audit: count(self.audit),
        }
    }

    async fn publish(self, app: &App) {
        for topic in app.feed.followed() {
            match topic {
                Topic::Hosts if self.hosts.is_empty() => {}
                Topic::Hosts => send(app, topic, rows::hosts(app, Some(&self.hosts)).await),
                Topic::Jobs if !self.jobs => {}
                Topic::Jobs => send(app, topic, Ok(rows::jobs(app).await)),
                Topic::Touched => app.feed.publish(topic, rows::touched(app)),
                Topic::Runs => {
                    let last = self.runs.values().filter_map(|changes| changes.last());
                    app.feed.publish(topic, last.map(|run| run_row(&run.summary)).collect());
                }
                Topic::Run(id) => {
                    let changes = self.runs.get(&id).map(Vec::as_slice).unwrap_or_default();
                    let Some(last) = changes.last() else { continue };
                    let tasks = changes.iter().flat_map(|change| &change.tasks);
                    let tasks: BTreeMap<_, _> = tasks.map(|task| (&task.host, task)).collect();
                    let tasks: Vec<_> = tasks.into_values().cloned().collect();
                    app.feed.publish(topic, run_rows(&last.summary, &tasks));
                }
                Topic::Changes if self.changes.is_empty() => {}
                Topic::Changes => {
                    send(app, topic, rows::changes(app, Some(&self.changes)).await);
                }
                Topic::Change(id) if !self.changes.contains(&id) => {}
                Topic::Change(_) => send(app, topic, rows::all(app, topic).await),
                Topic::Log(id) if !self.logs.contains(&id) => {}
                Topic::Log(id) => send(app, topic, rows::log(app, id).await),
            }
        }
    }
}
