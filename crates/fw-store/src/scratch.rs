//! Directories for work in progress, which are removed however the work ends: by whoever made
//! them, or after a crash by the next who works there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use crate::Error;

/// What the directories are called.
pub(crate) const PREFIX: &str = ".fleetwright-";

/// A directory of our own, for its owner only.
#[derive(Debug)]
pub(crate) struct Scratch {
    // Removed before the lock is let go.
    dir: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one in `beside`, so that results can be renamed into place on the same file system.
    ///
    /// # Errors
    /// What files can do.
    pub(crate) fn beside(beside: &Path) -> Result<Self, Error> {
        // Whatever lies in it are keys and what commands wrote.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(beside)
            .map_err(Error::io(format!("create {}", beside.display())))?;
        clear(beside);
        let what = || format!("create a directory in {}", beside.display());
        loop {
            if let Some(made) = make(beside).map_err(Error::io(what()))? {
                return Ok(made);
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Makes a directory and locks it; `None` when another took it for a stale one in between.
fn make(beside: &Path) -> io::Result<Option<Scratch>> {
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(beside)?;
    let lock = match File::open(dir.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    lock.lock()?;
    let ours = lock.metadata()?.ino();
    let there = fs::metadata(dir.path()).is_ok_and(|there| there.ino() == ours);
    Ok(there.then_some(Scratch { dir, _lock: lock }))
}

/// Removes what crashed work has left in `beside`: what nobody has locked. What cannot be removed
/// is left for the next time.
pub(crate) fn clear(beside: &Path) {
    let Ok(entries) = fs::read_dir(beside) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(dir) = File::open(entry.path()) else { continue };
        if dir.try_lock().is_ok() {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crashed_work_has_left_is_cleared_and_what_is_in_use_is_not() {
        let beside = tempfile::tempdir().unwrap();
        let in_use = Scratch::beside(beside.path()).unwrap();
        fs::write(in_use.path().join("main.db"), "a copy").unwrap();
        let left = beside.path().join(".fleetwright-crashed");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("main.db"), "half a copy").unwrap();
        let next = Scratch::beside(beside.path()).unwrap();
        assert!(in_use.path().join("main.db").exists() && next.path().exists());
        assert!(!left.exists());
        drop((in_use, next));
        assert_eq!(fs::read_dir(beside.path()).unwrap().count(), 0);
    }
}
