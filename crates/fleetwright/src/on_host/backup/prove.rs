//! Whether what was restored into a scratch place is what was backed up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::manifest::{Files, Kept, Sqlite};
use super::pack::modified;
use crate::on_host::state::{Below, Bounds, Entry, Mode, Walk, changes};
use crate::on_host::text_of;

/// So many differences are told; more say no more.
const TOLD: usize = 10;

/// Compares all files below `scratch`, where `roots` were restored, with those of the backup: bytes, modes,
/// owners, times, symlinks, and which names are of one file.
///
/// # Errors
/// Something is different.
pub(super) fn files(scratch: &Path, roots: &[PathBuf], wanted: &Files) -> anyhow::Result<()> {
    let mut different = Vec::new();
    let mut missing: BTreeSet<&String> = wanted.entries.keys().collect();
    let mut inodes = BTreeMap::new();
    let mut walk = Walk::within(Bounds::NONE);
    for root in roots {
        walk.each(&below(scratch, root), &mut |path, metadata| {
            let inner = path.strip_prefix(scratch).context("a walk stays below its root")?;
            let text = text_of(&Path::new("/").join(inner));
            if text == "/" {
                return Ok(Below::Look);
            }
            let Some(kept) = wanted.entries.get(&text) else {
                different.push(format!("{text}: it was not backed up, and is there"));
                return Ok(Below::Skip);
            };
            // A root below another is seen twice.
            missing.remove(&text);
            inodes.insert(text.clone(), (metadata.dev(), metadata.ino()));
            let found = Entry::read(path, metadata).with_context(|| format!("read {text}"))?;
            let mut told = changes(&kept.entry, &found);
            if modified(metadata) != kept.modified {
                told.push("another time of change".to_owned());
            }
            different.extend(told.into_iter().map(|what| format!("{text}: {what}")));
            Ok(Below::Look)
        })?;
    }
    different.extend(missing.into_iter().map(|path| format!("{path}: it is missing")));
    different.extend(names(&wanted.entries, &inodes));
    say(&different)
}

/// Names that were of one file and are of two now, or the other way round.
fn names(wanted: &BTreeMap<String, Kept>, found: &BTreeMap<String, (u64, u64)>) -> Vec<String> {
    let mut first_of: BTreeMap<(u64, u64), &String> = BTreeMap::new();
    let firsts = found
        .iter()
        .filter(|(path, _)| wanted.get(*path).is_some_and(|kept| kept.same_as.is_none()));
    let mut different = Vec::new();
    for (path, inode) in firsts {
        if let Some(other) = first_of.insert(*inode, path) {
            different.push(format!("{path}: it is one file with {other}"));
        }
    }
    for (path, kept) in wanted {
        let Some(first) = &kept.same_as else { continue };
        if found.get(path) != found.get(first) {
            different.push(format!("{path}: it is no longer one file with {first}"));
        }
    }
    different
}

/// Checks a restored database: it is sound, and holds table by table what the first one held.
///
/// # Errors
/// It is not, or does not.
pub(super) fn sqlite(restored: &Path, wanted: &Sqlite) -> anyhow::Result<()> {
    let found = fw_store::database_contents(restored)?;
    let mut different = Vec::new();
    let all: BTreeSet<&String> = found.tables.keys().chain(wanted.contents.tables.keys()).collect();
    for table in all {
        if found.tables.get(table) != wanted.contents.tables.get(table) {
            different.push(format!("{}: other rows in table {table:?}", wanted.path));
        }
    }
    if different.is_empty() && found != wanted.contents {
        different.push(format!("{}: another schema", wanted.path));
    }
    say(&different)?;
    let metadata = fs::metadata(restored).context("read the restored database")?;
    let (mode, owner) = (Mode::of(&metadata), (metadata.uid(), metadata.gid()));
    ensure!(
        mode == wanted.mode && owner == (wanted.uid, wanted.gid),
        "{}: another mode or owner",
        wanted.path
    );
    Ok(())
}

fn say(different: &[String]) -> anyhow::Result<()> {
    if different.is_empty() {
        return Ok(());
    }
    let more = different.len().saturating_sub(TOLD);
    let mut told: Vec<_> = different.iter().take(TOLD).map(String::as_str).collect();
    let rest = format!("and {more} more");
    if more > 0 {
        told.push(&rest);
    }
    bail!("what was restored is not what was backed up:\n{}", told.join("\n"))
}

/// Where an absolute path is below another root.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::pack::{Taken, pack};
    use super::super::progress::Progress;
    use super::super::unpack::restore;
    use super::*;
    use crate::on_host::backup::manifest::Sources;

    /// A proof that has never failed proves nothing: whatever of a restored tree is another is told.
    #[test]
    fn every_difference_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let live = fs::canonicalize(dir.path()).unwrap().join("live");
        fs::create_dir_all(live.join("inner")).unwrap();
        fs::write(live.join("a"), "one").unwrap();
        fs::hard_link(live.join("a"), live.join("b")).unwrap();
        fs::write(live.join("inner/c"), "two").unwrap();
        symlink("a", live.join("link")).unwrap();
        let sources =
            Sources { paths: vec![live.to_str().unwrap().to_owned()], ..Sources::default() };
        let taken = Taken::find(&sources, &[], &dir.path().join("none")).unwrap();
        let (archive, progress) = (dir.path().join("x.tar.zst"), Progress::new());
        let kept = pack(&taken, &archive, &progress).unwrap();
        let check = |change: &dyn Fn(&Path), expected: &str| {
            let scratch = tempfile::tempdir().unwrap();
            restore(&archive, &kept, scratch.path(), &progress).unwrap();
            assert!(files(scratch.path(), &taken.roots, &kept).is_ok());
            change(&below(scratch.path(), &live));
            let error = files(scratch.path(), &taken.roots, &kept).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&|at| fs::write(at.join("inner/c"), "TWO").unwrap(), "inner/c: other bytes");
        check(&|at| fs::remove_file(at.join("link")).unwrap(), "link: it is missing");
        check(&|at| fs::write(at.join("new"), "").unwrap(), "new: it was not backed up");
        let mode = fs::Permissions::from_mode(0o711);
        check(&|at| fs::set_permissions(at.join("inner"), mode.clone()).unwrap(), "inner: mode");
        let time = |at: &Path| {
            let file = fs::File::options().write(true).open(at.join("inner/c")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        check(&time, "inner/c: another time");
        let copy = |at: &Path| {
            let bytes = fs::read(at.join("b")).unwrap();
            fs::remove_file(at.join("b")).unwrap();
            fs::write(at.join("b"), bytes).unwrap();
        };
        check(&copy, "b: it is no longer one file");
        let merge = |at: &Path| {
            fs::remove_file(at.join("inner/c")).unwrap();
            fs::hard_link(at.join("a"), at.join("inner/c")).unwrap();
        };
        check(&merge, "it is one file with");
    }
}
