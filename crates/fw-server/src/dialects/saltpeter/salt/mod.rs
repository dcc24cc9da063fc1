//! `dispatch: salt`: minions of Salt are hosts, each with a link inside this process.
//!
//! `discover` asks Salt which minions there are and enrols them under a key that nobody holds; `minion`
//! is what a host does, in place of an agent; `starter` calls `salt` to start wrappers, whose
//! `environment` is that of the original.
//! An agent that joins under a minion's name takes its place, once nothing runs there: so hosts move
//! one by one.

mod call;
mod discover;
mod environment;
pub(crate) mod minion;
mod starter;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use fw_core::plan::ONLY_NODE;
use fw_core::run::Run;
use fw_proto::api::{LabelChange, TaskState};
use fw_proto::frame::DeniedReason;
use fw_proto::{HostId, HostName, TaskKey};
use fw_rt::Tasks;
use fw_store::HostRow;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use self::discover::Discovery;
use self::minion::{Left, Minions, Shared};
use self::starter::Starter;
use super::machines::instance::Key;
use super::served;
use crate::state::App;

/// The label of hosts that are minions; only this module sets it.
const LABEL: &str = "saltpeter";

/// A minion that is reached through Salt.
const SALT: &str = "salt";

/// A minion that is to make room for an agent.
const RETIRING: &str = "retiring";

/// What is needed to reach minions.
pub(crate) struct Parts {
    pub(crate) app: App,
    pub(crate) names: Key,
    /// The program.
    pub(crate) salt: PathBuf,
    pub(crate) served: served::Watch,
    /// What wrappers must show.
    pub(crate) key: Option<String>,
    /// The port where they connect.
    pub(crate) port: u16,
    /// Where it is said who owns what.
    pub(crate) minions: watch::Sender<Arc<Minions>>,
}

/// Takes up what an earlier life of this server left, and looks for minions from now on.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn start(parts: Parts, tasks: &Tasks) -> Result<(), fw_store::Error> {
    let Parts { app, names, salt, served, key, port, minions } = parts;
    let left = left(app.store.unfinished().await?);
    let (starter, wanted) = mpsc::channel(starter::INBOX);
    let shared = Shared { app: app.clone(), starter };
    let calls = starter::calls();
    let starting =
        Starter { app, names, salt: salt.clone(), served, key, port, calls, tasks: tasks.clone() };
    tasks.spawn("salt starter", starting.run(wanted));
    let discovery = Discovery::new(shared, salt, minions, tasks.clone());
    tasks.spawn("salt minions", discovery.run(left));
    Ok(())
}

/// What minions may be running: all that they were seen to hold. What was only sent to one was not
/// started, and is sent again.
fn left(runs: Vec<Run>) -> BTreeMap<HostId, Vec<Left>> {
    let mut left: BTreeMap<HostId, Vec<Left>> = BTreeMap::new();
    for run in runs {
        for (host, task) in &run.tasks {
            let held = match task.state {
                TaskState::Running => true,
                TaskState::Queued => !run.undispatched.contains(&(task.place, *host)),
                TaskState::Starting
                | TaskState::Succeeded
                | TaskState::Failed
                | TaskState::TimedOut
                | TaskState::Refused
                | TaskState::Cancelled
                | TaskState::Skipped
                | TaskState::Lost
                | TaskState::Unknown => false,
            };
            if held {
                left.entry(*host).or_default().push(Left {
                    key: TaskKey { run: run.id, node: ONLY_NODE, attempt: task.attempt },
                    timeout: run.plan.exec.timeout,
                    started_at: task.started_at,
                    cancelled: run.is_cancelled(*host),
                });
            }
        }
    }
    left
}

/// Whether a host is a minion.
fn is_minion(row: &HostRow) -> bool {
    row.labels.get(LABEL).is_some_and(|label| label == SALT || label == RETIRING)
}

/// What becomes of a minion whose name an agent wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The name is another agent's.
    Taken,
    /// The minion makes room as soon as nothing runs there.
    Soon,
    /// It has made room.
    Made,
}

/// Makes a minion give its name to an agent that was invited.
pub(crate) async fn make_room(app: &App, name: &HostName, dispatched: bool) -> Room {
    let Some(row) = app.store.host_named(name).filter(|row| is_minion(row)) else {
        return Room::Taken;
    };
    if dispatched {
        let set = [(LABEL.to_owned(), RETIRING.to_owned())].into();
        let change = LabelChange { set, ..LabelChange::default() };
        if let Err(error) = app.store.label_host(row.id, change).await {
            warn!(error = &error as &dyn std::error::Error, "a minion is not told to make room");
        }
        app.live.host_changed(row.id);
        info!(host.id = %row.id, host.name = %name, "minion makes room for an agent once nothing runs there");
        return Room::Soon;
    }
    // Nobody reaches minions any more, so that nothing can run there.
    let forgotten = app.hub.forget_host(row.id, DeniedReason::UnknownKey).await;
    match app.store.remove_host(row.id).await {
        Ok(_) if forgotten.is_ok() => Room::Made,
        Ok(_) | Err(_) => Room::Soon,
    }
}
