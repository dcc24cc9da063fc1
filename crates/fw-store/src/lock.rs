//! One server for one data directory: the lock that says so.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::Error;

/// The file whose lock says that a server uses the directory.
pub(crate) const LOCK: &str = "lock";

/// A directory that is ours until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Makes the directory and takes its lock.
    ///
    /// # Errors
    /// [`Error::InUse`], and what files can do.
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(Error::io(format!("create {}", dir.display())))?;
        let path = dir.join(LOCK);
        let file = std::fs::OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io(format!("open {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => {
                // For people only: what cannot be written, as on a full disk, is not missed.
                file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id())).ok();
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                Err(Error::InUse { dir: dir.to_owned(), pid: owner(&file) })
            }
            Err(TryLockError::Error(error)) => {
                Err(Error::io(format!("lock {}", path.display()))(error))
            }
        }
    }
}

/// Who has the lock, if it had the time to say so.
fn owner(file: &File) -> Option<u32> {
    let mut text = String::new();
    // No process id is longer.
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

impl Drop for Lock {
    /// A command that is being started shares the descriptor, and with it the lock (flock(2)),
    /// until it begins: closing ours would not let go.
    fn drop(&mut self) {
        // The kernel does it at the end of the process otherwise.
        self.0.unlock().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_being_started_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let shared = lock.0.try_clone().unwrap();
        let refused = Lock::take(dir.path()).unwrap_err();
        let pid = std::process::id();
        assert!(
            matches!(refused, Error::InUse { pid: Some(who), .. } if who == pid),
            "{refused:?}"
        );
        drop(lock);
        drop(Lock::take(dir.path()).unwrap());
        drop(shared);
    }
}
