//! Connections that read, each used by one blocking thread at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::Error;

/// A few connections; callers beyond their number wait for one.
pub(super) struct Readers {
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn open(path: &Path, count: usize) -> Result<Self, Error> {
        let count = count.max(1);
        let idle: Vec<_> =
            (0..count).map(|_| super::open::reading(path)).collect::<Result<_, _>>()?;
        Ok(Self { free: Arc::new(Semaphore::new(count)), idle: Arc::new(Mutex::new(idle)) })
    }

    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| Error::Closed)?;
        let idle = Arc::clone(&self.idle);
        // The blocking thread gives the connection back: the caller may be gone by then.
        let read = move || {
            let lease = Lease::take(idle)?;
            let result = in_transaction(lease.connection()?, work);
            drop(lease);
            drop(permit);
            result
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Error::Closed)?
    }

    pub(super) fn close(&self) {
        self.free.close();
        lock(&self.idle).clear();
    }
}

fn in_transaction<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    if !connection.is_autocommit() {
        // The last reader panicked.
        connection.prepare_cached("ROLLBACK")?.execute([])?;
    }
    connection.prepare_cached("BEGIN")?.execute([])?;
    let result = work(connection);
    // Nothing was written, so it may end either way.
    connection.prepare_cached("ROLLBACK")?.execute([])?;
    result
}

/// A connection that goes back to the idle ones, also when the reader panics.
struct Lease {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Lease {
    fn take(idle: Arc<Mutex<Vec<Connection>>>) -> Result<Self, Error> {
        let connection = lock(&idle).pop().ok_or(Error::Closed)?;
        Ok(Self { connection: Some(connection), idle })
    }

    fn connection(&self) -> Result<&Connection, Error> {
        self.connection.as_ref().ok_or(Error::Closed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.idle).extend(self.connection.take());
    }
}

fn lock(idle: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
