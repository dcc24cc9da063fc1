//! Files into an archive: a tar file that any system can open, compressed with zstd.
//!
//! The manifest says more than tar can (nanoseconds, times before 1970), and is what a restore goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::manifest::{Files, Kept, Sources, new_file};
use super::progress::Progress;
use crate::on_host::state::{Below, Bounds, Entry, Kind, Walk, expand, open};
use crate::on_host::{Hashing, path_of, text_of};
use crate::output;

/// What changes while it is read is read anew so often. It would be no state that there ever was.
const TRIES: usize = 3;

/// zstd's own default: fast, and small enough.
const LEVEL: i32 = 3;

/// A file was written while it was read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} changes while it is read; stop what writes it, leave it out with --exclude, or use --sqlite or --postgres for a database"
)]
struct Changing(String);

/// Where files are taken from.
#[derive(Debug)]
pub(super) struct Taken {
    /// Absolute, without a symlink before the last name.
    pub(super) roots: Vec<PathBuf>,
    /// What is left out with all that is below.
    excluded: BTreeSet<PathBuf>,
}

impl Taken {
    /// Finds what the sources stand for; `excluded` are paths or globs, `own` is never taken.
    ///
    /// # Errors
    /// A source stands for nothing.
    pub(super) fn find(sources: &Sources, excluded: &[String], own: &Path) -> anyhow::Result<Self> {
        let mut roots = Vec::new();
        for pattern in &sources.paths {
            let found = expand(pattern)?;
            let there = found.iter().all(|path| fs::symlink_metadata(path).is_ok());
            if found.is_empty() || !there {
                bail!("there is nothing at {pattern}; a backup of nothing would prove nothing");
            }
            roots.extend(found.iter().map(|path| real(path)).collect::<Result<Vec<_>, _>>()?);
        }
        roots.sort();
        roots.dedup();
        let mut left = BTreeSet::from([real(own)?]);
        // A database is not both: as a file it would come back beside a log that belongs to another.
        for database in &sources.sqlite {
            let Ok(database) = fs::canonicalize(database) else { continue };
            let with = |suffix| PathBuf::from(format!("{}{suffix}", database.display()));
            left.extend(["", "-wal", "-shm", "-journal"].map(with));
        }
        for pattern in excluded {
            for path in expand(pattern)? {
                left.insert(real(&path).unwrap_or(path));
            }
        }
        Ok(Self { roots, excluded: left })
    }
}

/// A path whose last name alone may be a symlink: what is restored goes through none.
fn real(path: &Path) -> anyhow::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_owned());
    };
    let parent = fs::canonicalize(parent).with_context(|| format!("find {}", parent.display()))?;
    Ok(parent.join(name))
}

/// Writes an archive of all that is at and below `taken` to `to`, and says what is in it.
///
/// # Errors
/// Something cannot be read, does not stop changing, or the archive cannot be written.
pub(super) fn pack(taken: &Taken, to: &Path, progress: &Progress) -> anyhow::Result<Files> {
    let mut tries = 1;
    loop {
        let written = write(taken, to, progress);
        let changing = written.as_ref().err().and_then(|error| error.downcast_ref::<Changing>());
        match changing {
            Some(Changing(path)) if tries < TRIES => {
                output::say(&format!("{path} has changed while it was read; trying again"));
                fs::remove_file(to).with_context(|| format!("remove {}", to.display()))?;
                tries += 1;
            }
            Some(_) | None => return written,
        }
    }
}

fn write(taken: &Taken, to: &Path, progress: &Progress) -> anyhow::Result<Files> {
    let what = || format!("write {}", to.display());
    let zstd = zstd::Encoder::new(new_file(to).with_context(what)?, LEVEL).with_context(what)?;
    let mut archive = Archive {
        tar: tar::Builder::new(zstd),
        files: Files::default(),
        inodes: BTreeMap::new(),
        progress,
    };
    let mut walk = Walk::within(Bounds::NONE);
    for root in &taken.roots {
        walk.each(root, &mut |path, metadata| {
            if taken.excluded.contains(path) {
                return Ok(Below::Skip);
            }
            archive.add(path, metadata)?;
            Ok(Below::Look)
        })?;
    }
    let end = || archive.tar.into_inner()?.finish()?.sync_all();
    end().with_context(what)?;
    Ok(archive.files)
}

struct Archive<'a> {
    tar: tar::Builder<zstd::Encoder<'static, File>>,
    files: Files,
    /// The first name of each file that has several, by device and number.
    inodes: BTreeMap<(u64, u64), (String, Entry)>,
    progress: &'a Progress,
}

impl Archive<'_> {
    fn add(&mut self, path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
        let text = text_of(path);
        if self.files.entries.contains_key(&text) {
            return Ok(());
        }
        let kind = metadata.file_type();
        let mut header = header(metadata);
        let name = path.strip_prefix("/").with_context(|| format!("{text} is not absolute"))?;
        let (mut same_as, mut modified) = (None, modified(metadata));
        let entry = if kind.is_dir() {
            if name == Path::new("") {
                return Ok(());
            }
            header.set_entry_type(tar::EntryType::Directory);
            self.tar.append_data(&mut header, name, io::empty()).context("write the archive")?;
            Entry::with(Kind::Directory, metadata)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).with_context(|| format!("read {text}"))?;
            header.set_entry_type(tar::EntryType::Symlink);
            self.tar.append_link(&mut header, name, &target).context("write the archive")?;
            Entry::with(Kind::Symlink { target: text_of(&target) }, metadata)
        } else if !kind.is_file() {
            self.files.left_out.push(text);
            return Ok(());
        } else if let Some((first, entry)) = self.inodes.get(&(metadata.dev(), metadata.ino())) {
            header.set_entry_type(tar::EntryType::Link);
            let first_path = path_of(first).context("a text of ours is a path")?;
            let first_name = first_path.strip_prefix("/").context("paths are absolute here")?;
            self.tar.append_link(&mut header, name, first_name).context("write the archive")?;
            same_as = Some(first.clone());
            entry.clone()
        } else {
            let entry;
            (entry, modified) = self.add_file(path, name)?;
            if metadata.nlink() > 1 {
                self.inodes.insert((metadata.dev(), metadata.ino()), (text.clone(), entry.clone()));
            }
            entry
        };
        self.files.entries.insert(text, Kept { entry, modified, same_as });
        Ok(())
    }

    fn add_file(&mut self, path: &Path, name: &Path) -> anyhow::Result<(Entry, (i64, u32))> {
        let text = text_of(path);
        let what = || format!("read {text}");
        let file = open(path).with_context(what)?;
        let before = file.metadata().with_context(what)?;
        let size = before.len();
        let mut header = header(&before);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(size);
        let mut reader = Hashing::new(self.progress.watch((&file).take(size), &text));
        self.tar.append_data(&mut header, name, &mut reader).with_context(what)?;
        let (_, bytes, sha256) = reader.end();
        let after = file.metadata().with_context(what)?;
        if bytes != size || version(&before) != version(&after) {
            return Err(Changing(text).into());
        }
        Ok((Entry::with(Kind::File { bytes, sha256 }, &after), modified(&after)))
    }
}

/// What is another once a file was written to.
fn version(metadata: &Metadata) -> (u64, (i64, u32), i64, i64) {
    (metadata.len(), modified(metadata), metadata.ctime(), metadata.ctime_nsec())
}

/// When it was changed last, as the manifest says it.
pub(super) fn modified(metadata: &Metadata) -> (i64, u32) {
    (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or_default())
}

fn header(metadata: &Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    header.set_size(0);
    header
}
