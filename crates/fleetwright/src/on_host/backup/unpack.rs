//! Files out of an archive, which is believed in nothing that its manifest does not say.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::manifest::{Files, Kept};
use super::progress::Progress;
use super::tree::{Tree, plain};
use crate::on_host::state::Kind;
use crate::on_host::{path_of, sum, text_of};

/// Reads an archive to its end and says whether it is what the manifest says. Nothing is written.
///
/// # Errors
/// It is not, or it leads somewhere that it must not.
pub(super) fn check(archive: &Path, files: &Files, progress: &Progress) -> anyhow::Result<()> {
    files.entries.keys().try_for_each(|path| safe(path, files))?;
    each(archive, files, progress, &mut |_, kept, bytes| {
        let Some(wanted) = content(kept) else { return Ok(()) };
        let (_, found) = sum(bytes)?;
        ensure!(found == wanted, "its bytes are not those of the manifest");
        Ok(())
    })
}

/// Writes all files of an archive below `root`. What is there already is replaced one by one; what the
/// archive does not know is left alone.
///
/// # Errors
/// A file cannot be written; those before it are restored, and doing it again does all.
pub(super) fn restore(
    archive: &Path,
    files: &Files,
    root: &Path,
    progress: &Progress,
) -> anyhow::Result<()> {
    let tree = Tree::open(root)?;
    each(archive, files, progress, &mut |path, kept, mut bytes| {
        let place = tree.place(path)?;
        match (&kept.entry.kind, &kept.same_as) {
            (Kind::File { .. }, Some(first)) => {
                let first = path_of(first).context("no path of a backup")?;
                place.link(&tree.place(&first)?)
            }
            (Kind::File { sha256, .. }, None) => place.file(kept, sha256, &mut bytes),
            (Kind::Directory, _) => place.directory(),
            (Kind::Symlink { target }, _) => {
                place.symlink(kept, &path_of(target).context("no target of a backup")?)
            }
            (Kind::Fifo | Kind::Socket | Kind::Device { .. }, _) => bail!("no kind of a backup"),
        }
    })?;
    // What is deepest first: a directory that may not be written is complete by then.
    for (path, kept) in
        files.entries.iter().rev().filter(|(_, kept)| kept.entry.kind == Kind::Directory)
    {
        let dress =
            || tree.place(&path_of(path).context("no path of a backup")?)?.dress_directory(kept);
        dress().with_context(|| format!("restore {path}"))?;
    }
    Ok(())
}

/// The hash of the bytes that the archive has for a file; none for another kind, and for another name.
fn content(kept: &Kept) -> Option<&str> {
    match (&kept.entry.kind, &kept.same_as) {
        (Kind::File { sha256, .. }, None) => Some(sha256),
        (Kind::File { .. }, Some(_)) => None,
        (
            Kind::Directory
            | Kind::Symlink { .. }
            | Kind::Fifo
            | Kind::Socket
            | Kind::Device { .. },
            _,
        ) => None,
    }
}

/// Whether a path of a manifest may be restored: it is plain, and no way to it or to its other name leads
/// through what the backup itself makes something else than a directory.
fn safe(path: &str, files: &Files) -> anyhow::Result<()> {
    let check = |path: &str| {
        let names = path_of(path);
        ensure!(names.as_deref().and_then(plain).is_some(), "{path:?} is no path of a backup");
        let above = names.iter().flat_map(|path| path.ancestors().skip(1)).map(text_of);
        for above in above {
            let kept = files.entries.get(&above);
            let leads = kept.is_some_and(|kept| kept.entry.kind != Kind::Directory);
            ensure!(!leads, "{path:?} is below {above:?}, which is no directory");
        }
        Ok(())
    };
    check(path)?;
    let kept = files.entries.get(path).context("a path of the manifest")?;
    let Some(first) = &kept.same_as else { return Ok(()) };
    let first_kept = files.entries.get(first).with_context(|| format!("{first:?} is missing"))?;
    let same = first_kept.same_as.is_none() && first_kept.entry == kept.entry;
    ensure!(same, "{path:?} is said to be {first:?} and is another");
    Ok(())
}

/// Calls `visit` for each entry that the manifest has in this form, and refuses every other.
fn each(
    archive: &Path,
    files: &Files,
    progress: &Progress,
    visit: &mut impl FnMut(&Path, &Kept, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let shown = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let mut tar = tar::Archive::new(zstd::Decoder::new(progress.watch(file, &shown))?);
    let mut missing: std::collections::BTreeSet<&String> = files.entries.keys().collect();
    for entry in tar.entries().with_context(|| format!("read {shown}"))? {
        let mut entry = entry.with_context(|| format!("read {shown}"))?;
        let path = Path::new("/").join(entry.path().with_context(|| format!("read {shown}"))?);
        let text = text_of(&path);
        let kept = files.entries.get_key_value(&text).filter(|(key, _)| missing.remove(key));
        let (_, kept) =
            kept.with_context(|| format!("{shown}: {text:?} is not in the manifest"))?;
        let what = || format!("{shown}: {text}");
        ensure!(fits(&entry, kept), "{shown}: {text:?} is not what the manifest says");
        visit(&path, kept, &mut entry).with_context(what)?;
    }
    match missing.into_iter().next() {
        Some(path) => bail!("{shown}: {path:?} is missing"),
        None => Ok(()),
    }
}

fn fits<R: Read>(entry: &tar::Entry<'_, R>, kept: &Kept) -> bool {
    use tar::EntryType;
    let (kind, size) = (entry.header().entry_type(), entry.size());
    match (&kept.entry.kind, &kept.same_as) {
        (Kind::File { .. }, Some(_)) => kind == EntryType::Link && size == 0,
        (Kind::File { bytes, .. }, None) => kind == EntryType::Regular && size == *bytes,
        (Kind::Directory, _) => kind == EntryType::Directory,
        (Kind::Symlink { .. }, _) => kind == EntryType::Symlink,
        (Kind::Fifo | Kind::Socket | Kind::Device { .. }, _) => false,
    }
}

#[cfg(test)]
mod tests;
