//! Writing below a directory, and nowhere else: no step of the way to a file follows a symlink, whoever
//! puts one there and when. Each thing is made beside its place and renamed into it.

use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, fstat, fsync,
    futimens, linkat, mkdirat, openat, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::manifest::Kept;
use crate::on_host::Hashing;
use crate::on_host::state::Entry;

/// What a file is called before it is whole. A restore does one at a time.
const PART: &str = ".fleetwright-restore";

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Of directories that a restore needs and does not know.
const USUAL: Mode = Mode::from_raw_mode(0o755);

/// A directory below which files are restored.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// A directory below it and a name in that.
pub(super) struct Place<'a> {
    dir: OwnedFd,
    name: &'a std::ffi::OsStr,
}

impl Tree {
    /// Opens it; it must be there.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root, flags, Mode::empty());
        Ok(Self { root: opened.with_context(|| format!("open {}", root.display()))? })
    }

    /// Where an absolute path is below it. Directories on the way are made when they are missing.
    ///
    /// # Errors
    /// The path is no plain one, or something on the way is no directory.
    pub(super) fn place<'a>(&self, path: &'a Path) -> anyhow::Result<Place<'a>> {
        let names = plain(path).with_context(|| format!("{} is no plain path", path.display()))?;
        let Some((name, above)) = names.split_last() else { bail!("the root is no file") };
        let mut dir = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for name in above {
            let next = match openat(&dir, *name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {
                    mkdirat(&dir, *name, USUAL)?;
                    openat(&dir, *name, DIRECTORY, Mode::empty())
                }
                opened => opened,
            };
            let what = || format!("{} is no directory (symlinks are not followed)", name.display());
            dir = next.with_context(what)?;
        }
        Ok(Place { dir, name })
    }
}

/// The names of an absolute path; none when it has anything else in it.
pub(super) fn plain(path: &Path) -> Option<Vec<&std::ffi::OsStr>> {
    let mut components = path.components();
    components.next().filter(|first| *first == Component::RootDir)?;
    components
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        })
        .collect()
}

impl Place<'_> {
    /// Writes a file, whose bytes must be those that `kept` says, and renames it into its place.
    ///
    /// # Errors
    /// They are others, or it cannot be written; then what was there is there still.
    pub(super) fn file(
        &self,
        kept: &Kept,
        sha256: &str,
        bytes: &mut impl Read,
    ) -> anyhow::Result<()> {
        self.clear()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, PART, flags, Mode::from_raw_mode(0o600))?;
        let mut file = Hashing::new(std::fs::File::from(file));
        io::copy(bytes, &mut file)?;
        file.flush()?;
        let (file, _, found) = file.end();
        ensure!(found == sha256, "its bytes in the archive are not those of the manifest");
        dress(&file, kept)?;
        fsync(&file)?;
        self.take()
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn symlink(&self, kept: &Kept, target: &Path) -> anyhow::Result<()> {
        self.clear()?;
        symlinkat(target, &self.dir, PART)?;
        let (uid, gid) = owner(&kept.entry);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(&self.dir, PART, Some(uid), Some(gid), flags).context("give it to its owner")?;
        utimensat(&self.dir, PART, &times(kept), flags)?;
        self.take()
    }

    /// Makes this another name of the file at `first`.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn link(&self, first: &Place<'_>) -> anyhow::Result<()> {
        self.clear()?;
        linkat(&first.dir, first.name, &self.dir, PART, AtFlags::empty())?;
        self.take()?;
        // When both names were of one file already, renaming has done nothing (rename(2)).
        self.clear()
    }

    /// Makes a directory, or takes the one that is there. Its mode is set by [`Place::dress_directory`], when
    /// all that is in it has been written.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn directory(&self) -> anyhow::Result<()> {
        let make = || mkdirat(&self.dir, self.name, Mode::from_raw_mode(0o700));
        match (make(), self.opened()) {
            (Ok(()), _) => Ok(()),
            (Err(Errno::EXIST), Ok(dir)) => Ok(make_writable(&dir)?),
            (Err(Errno::EXIST), Err(_)) => {
                let removed = unlinkat(&self.dir, self.name, AtFlags::empty());
                removed.context("remove what is in its place")?;
                Ok(make()?)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Gives a directory its owner, mode and time.
    ///
    /// # Errors
    /// It may not be given.
    pub(super) fn dress_directory(&self, kept: &Kept) -> anyhow::Result<()> {
        let dir = self.opened()?;
        dress(&dir, kept)?;
        Ok(fsync(&dir)?)
    }

    fn opened(&self) -> rustix::io::Result<OwnedFd> {
        openat(&self.dir, self.name, DIRECTORY, Mode::empty())
    }

    /// Removes what a restore that was cut short has left.
    fn clear(&self) -> anyhow::Result<()> {
        match unlinkat(&self.dir, PART, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).context("remove what an earlier restore has left"),
        }
    }

    fn take(&self) -> anyhow::Result<()> {
        match renameat(&self.dir, PART, &self.dir, self.name) {
            Err(Errno::ISDIR) => bail!("there is a directory in its place; move that away"),
            renamed => renamed?,
        }
        Ok(fsync(&self.dir)?)
    }
}

/// Owner first: giving a file away takes its set-user-id bit (chown(2)).
fn dress(file: &impl std::os::fd::AsFd, kept: &Kept) -> anyhow::Result<()> {
    let (uid, gid) = owner(&kept.entry);
    fchown(file, Some(uid), Some(gid)).with_context(|| {
        format!("give it to {}:{}, which takes root", kept.entry.uid, kept.entry.gid)
    })?;
    fchmod(file, Mode::from_raw_mode(kept.entry.mode.0))?;
    Ok(futimens(file, &times(kept))?)
}

/// Its owner must be able to write in it until it is dressed; who else may do what stays as it is.
fn make_writable(dir: &OwnedFd) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(fstat(dir)?.st_mode & 0o7777);
    if mode.contains(Mode::RWXU) { Ok(()) } else { fchmod(dir, mode | Mode::RWXU) }
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

fn times(kept: &Kept) -> Timestamps {
    let (tv_sec, nanos) = kept.modified;
    let at = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: at, last_modification: at }
}
