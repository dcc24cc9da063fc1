//! All hosts, in memory: every link, every run, every page and every job that is due asks for them.
//!
//! The database has them first. The thread that writes brings each change here once it is
//! committed, in the order of the commits and before whoever asked for it hears back, so
//! nobody sees here what a crash could undo, nor misses what he has just done himself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fw_proto::{HostId, HostName};

use crate::host::HostRow;

/// The hosts. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster(Arc<Mutex<Hosts>>);

#[derive(Debug, Default)]
struct Hosts {
    by_id: BTreeMap<HostId, Arc<HostRow>>,
    by_name: BTreeMap<HostName, HostId>,
    by_key: BTreeMap<[u8; 32], HostId>,
    /// All of them, by name, since somebody last asked for that; `None` when one has changed since.
    all: Option<Arc<[Arc<HostRow>]>>,
}

impl Roster {
    pub(crate) fn load(rows: Vec<HostRow>) -> Self {
        let mut hosts = Hosts::default();
        rows.into_iter().for_each(|row| hosts.put(Arc::new(row)));
        Self(Arc::new(Mutex::new(hosts)))
    }

    fn lock(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Arc<[Arc<HostRow>]> {
        let mut hosts = self.lock();
        let all = hosts.all.take().unwrap_or_else(|| {
            hosts.by_name.values().filter_map(|id| hosts.by_id.get(id)).cloned().collect()
        });
        Arc::clone(hosts.all.insert(all))
    }

    pub(crate) fn by_id(&self, id: HostId) -> Option<Arc<HostRow>> {
        self.lock().by_id.get(&id).cloned()
    }

    pub(crate) fn by_name(&self, name: &HostName) -> Option<Arc<HostRow>> {
        let hosts = self.lock();
        hosts.by_name.get(name).and_then(|id| hosts.by_id.get(id)).cloned()
    }

    pub(crate) fn by_key(&self, key: [u8; 32]) -> Option<Arc<HostRow>> {
        let hosts = self.lock();
        hosts.by_key.get(&key).and_then(|id| hosts.by_id.get(id)).cloned()
    }

    /// A host as it is now.
    pub(crate) fn put(&self, row: HostRow) {
        let mut hosts = self.lock();
        hosts.remove(row.id);
        hosts.put(Arc::new(row));
    }

    /// Changes a host, if it is there.
    pub(crate) fn change(&self, id: HostId, change: impl FnOnce(&mut HostRow)) {
        let mut hosts = self.lock();
        if let Some(mut row) = hosts.remove(id) {
            change(Arc::make_mut(&mut row));
            hosts.put(row);
        }
    }

    pub(crate) fn remove(&self, id: HostId) {
        self.lock().remove(id);
    }
}

impl Hosts {
    fn put(&mut self, row: Arc<HostRow>) {
        self.all = None;
        self.by_name.insert(row.name.clone(), row.id);
        self.by_key.insert(row.key.0, row.id);
        self.by_id.insert(row.id, row);
    }

    fn remove(&mut self, id: HostId) -> Option<Arc<HostRow>> {
        let row = self.by_id.remove(&id)?;
        self.all = None;
        self.by_name.remove(&row.name);
        self.by_key.remove(&row.key.0);
        Some(row)
    }
}
