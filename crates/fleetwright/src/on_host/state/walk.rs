//! Everything at and below paths, in an order that is always the same, and within bounds.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use fw_core::select::Glob;

/// How much is looked at, at most.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Bounds {
    /// Look at so many files and directories at most.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) max_files: u64,
    /// Read so many bytes of files at most.
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024 * 1024 * 1024)]
    pub(crate) max_bytes: u64,
}

/// Whether what is in a directory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    Look,
    Skip,
}

/// What is left of the bounds.
#[derive(Debug)]
pub(crate) struct Walk {
    bounds: Bounds,
    files: u64,
    bytes: u64,
}

impl Bounds {
    /// As much as there is.
    pub(crate) const NONE: Self = Self { max_files: u64::MAX, max_bytes: u64::MAX };
}

impl Walk {
    /// Begins within these bounds.
    pub(crate) fn within(bounds: Bounds) -> Self {
        Self { bounds, files: 0, bytes: 0 }
    }

    /// What is at `path` and below it, parents first; nothing when there is nothing. What goes while it
    /// is looked for is absent.
    ///
    /// # Errors
    /// A directory cannot be read, a bound is reached, or `visit` says so.
    pub(crate) fn each(
        &mut self,
        path: &Path,
        visit: &mut impl FnMut(&Path, &Metadata) -> anyhow::Result<Below>,
    ) -> anyhow::Result<()> {
        let Some(metadata) = there(fs::symlink_metadata(path), path)? else { return Ok(()) };
        self.count(path, &metadata)?;
        if visit(path, &metadata)? == Below::Skip || !metadata.is_dir() {
            return Ok(());
        }
        for name in names(path)? {
            self.each(&path.join(name), visit)?;
        }
        Ok(())
    }

    fn count(&mut self, path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
        self.files += 1;
        if metadata.is_file() {
            self.bytes = self.bytes.saturating_add(metadata.len());
        }
        let Bounds { max_files, max_bytes } = self.bounds;
        let (bound, flag) = match self {
            Self { files, .. } if *files > max_files => {
                (format!("{max_files} files"), "--max-files")
            }
            Self { bytes, .. } if *bytes > max_bytes => {
                (format!("{max_bytes} bytes"), "--max-bytes")
            }
            Self { .. } => return Ok(()),
        };
        bail!(
            "there are more than {bound} ({} goes beyond that); name less, or raise {flag}",
            path.display()
        )
    }
}

/// The names in a directory, sorted; none when it is gone.
fn names(dir: &Path) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let mut names = there(read(), dir)?.unwrap_or_default();
    names.sort();
    Ok(names)
}

/// Tells absence from other errors. A parent that is no directory any more is absence too.
fn there<T>(answer: io::Result<T>, path: &Path) -> anyhow::Result<Option<T>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match answer {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        answer => answer.map(Some).with_context(|| format!("read {}", path.display())),
    }
}

/// The paths that a pattern stands for, absolute and sorted. A path without signs, or one that exists as
/// it is written, stands for itself, whether it exists or not.
///
/// # Errors
/// It is no pattern, or a directory cannot be read.
pub(crate) fn expand(pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    let path = std::path::absolute(pattern).with_context(|| format!("{pattern:?} is no path"))?;
    if !pattern.contains(['*', '?', '[']) || fs::symlink_metadata(&path).is_ok() {
        return Ok(vec![path]);
    }
    let mut found = vec![PathBuf::from("/")];
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let name = name.to_str().with_context(|| format!("{pattern:?} is no UTF-8"))?;
        let glob = Glob::new(name).map_err(|what| anyhow::anyhow!("{pattern:?}: {what}"))?;
        let mut next = Vec::new();
        for dir in &found {
            next.extend(inside(dir, &glob)?.into_iter().map(|name| dir.join(name)));
        }
        found = next;
    }
    found.retain(|path| fs::symlink_metadata(path).is_ok());
    Ok(found)
}

/// The names in `dir` that fit. As in shells, a name with a dot fits only a pattern that has it.
fn inside(dir: &Path, glob: &Glob) -> anyhow::Result<Vec<String>> {
    if glob.is_literal() {
        return Ok(vec![glob.as_str().to_owned()]);
    }
    let fits = |name: &String| {
        (!name.starts_with('.') || glob.as_str().starts_with('.')) && glob.matches(name)
    };
    let names = names(dir)?.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(fits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.conf", "b.conf", ".hidden.conf", "c.txt", "[x].conf"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir_all(dir.path().join("sites/one")).unwrap();
        let check = |pattern: &str, expected: &[&str]| {
            let pattern = dir.path().join(pattern).display().to_string();
            let found = expand(&pattern).unwrap();
            let expected: Vec<PathBuf> =
                expected.iter().map(|name| dir.path().join(name)).collect();
            assert_eq!(found, expected, "{pattern}");
        };
        check("*.conf", &["[x].conf", "a.conf", "b.conf"]);
        check(".*.conf", &[".hidden.conf"]);
        check("[ab].conf", &["a.conf", "b.conf"]);
        check("[x].conf", &["[x].conf"]);
        check("s*/o*", &["sites/one"]);
        check("s*/none", &[]);
        check("none*", &[]);
        check("none", &["none"]);
        assert!(expand("/tmp/[").is_err());
    }

    #[test]
    fn a_bound_says_which_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1234").unwrap();
        let walk = |max_files, max_bytes| {
            let mut walk = Walk::within(Bounds { max_files, max_bytes });
            walk.each(dir.path(), &mut |_, _| Ok(Below::Look)).map_err(|error| error.to_string())
        };
        assert_eq!(walk(2, 4), Ok(()));
        assert!(walk(1, 4).unwrap_err().contains("--max-files"));
        assert!(walk(2, 3).unwrap_err().contains("more than 3 bytes"));
    }
}
