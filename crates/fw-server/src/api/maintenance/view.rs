//! A maintenance as the API shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_core::maintenance::{Maintenances, Scope};
use fw_proto::api::{Maintenance, MaintenanceWindow, Recurrence, StillRunning};
use fw_proto::{HostId, MaintenanceId, RunId, Timestamp};
use fw_store::{HostRow, StoredMaintenance};

use crate::fleet;
use crate::problem::Result;
use crate::state::App;

/// So many hosts on which something runs are named.
const NAMED: usize = 10;

/// All that is looked at to show them.
pub(super) struct Look {
    rows: Arc<[Arc<HostRow>]>,
    held: Arc<Maintenances>,
    /// What has not ended, by host.
    open: BTreeMap<HostId, Vec<RunId>>,
    now: Timestamp,
}

impl Look {
    pub(super) async fn of(app: &App) -> Result<Self> {
        let (rows, held, now) = (app.store.hosts(), app.jobs.held(), app.clock.now());
        let open = if held.in_force(now).next().is_some() {
            app.hub.open(rows.iter().map(|row| row.id).collect()).await?
        } else {
            BTreeMap::new()
        };
        Ok(Self { rows, held, open, now })
    }

    pub(super) fn view(&self, known: StoredMaintenance) -> Maintenance {
        let StoredMaintenance { id, said, ended_by, ended_by_kind } = known;
        let one = self.held.get(id).filter(|one| !one.is_over(self.now));
        let in_force = one.is_some_and(|one| one.in_force(self.now));
        let covered = one.map(|one| self.covered(&one.scope));
        let holds_all = said.source.is_none();
        let running = covered.as_ref().filter(|_| in_force && holds_all);
        Maintenance {
            id,
            covers: covered.as_ref().and_then(|hosts| u32::try_from(hosts.len()).ok()),
            running: running.map(|hosts| self.running(hosts)),
            hosts: said.selector,
            source: said.source,
            reason: said.reason,
            message: said.message,
            by: said.by,
            by_kind: said.by_kind,
            since: said.since,
            until: said.until,
            windows: said.windows.map(|windows| Recurrence {
                every: windows.every,
                timezone: windows.timezone,
                lasts: windows.lasts,
                next: self.next_window(id),
            }),
            in_force,
            ended_by,
            ended_by_kind,
        }
    }

    fn next_window(&self, id: MaintenanceId) -> Option<MaintenanceWindow> {
        let window = self.held.get(id)?.window(self.now)?;
        Some(MaintenanceWindow { from: window.from, until: window.until })
    }

    fn covered(&self, scope: &Scope) -> BTreeSet<HostId> {
        match scope {
            Scope::Everything => self.rows.iter().map(|row| row.id).collect(),
            Scope::Hosts(selector) => {
                fleet::choose(&self.rows, selector).into_iter().map(|host| host.id).collect()
            }
        }
    }

    fn running(&self, covered: &BTreeSet<HostId>) -> StillRunning {
        let open =
            |row: &&Arc<HostRow>| covered.contains(&row.id) && self.open.contains_key(&row.id);
        let busy: Vec<_> = self.rows.iter().filter(open).collect();
        let tasks: usize = busy.iter().filter_map(|row| self.open.get(&row.id)).map(Vec::len).sum();
        StillRunning {
            tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
            hosts: u32::try_from(busy.len()).unwrap_or(u32::MAX),
            on: busy.iter().take(NAMED).map(|row| row.name.clone()).collect(),
        }
    }
}
