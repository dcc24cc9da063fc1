//! The directory of job files: what is in it, and hints that it changed.
//!
//! Every look reads all files and compares their content: a few MB from the page cache at most, and
//! neither a coarse file system clock nor a lost hint can hide a change. Only what changed is parsed.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fw_core::job::{LARGEST_FILE, Parsed};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::text;

/// An editor writes a file in several steps, and a checkout many files: look once they are done.
const QUIET: Duration = Duration::from_millis(100);

/// But not later than this, should somebody write without pause.
const QUIET_AT_MOST: Duration = Duration::from_secs(1);

/// The job files as they were last read.
pub(super) struct Files {
    dir: PathBuf,
    digests: BTreeMap<String, Digest>,
    /// By file name.
    pub(super) parsed: Vec<(String, Parsed)>,
    /// Whether others than its owner may put files there, or take them away.
    pub(super) exposed: bool,
    watch: Option<RecommendedWatcher>,
    /// When the first hint since the last look came, and when to look.
    look_at: Option<(Instant, Instant)>,
    hints: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

type Digest = [u8; 32];

/// A file that was found.
#[derive(Debug)]
pub(super) struct Found {
    name: String,
    digest: Digest,
    /// `None` when it is as it was.
    parsed: Option<Parsed>,
}

impl Files {
    pub(super) fn new(dir: PathBuf) -> Self {
        let hints = mpsc::channel(1);
        Self {
            dir,
            digests: BTreeMap::new(),
            parsed: Vec::new(),
            exposed: false,
            watch: None,
            look_at: None,
            hints,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the directory.
    ///
    /// # Errors
    /// It cannot be read as a whole. A file that cannot is found, with an error.
    pub(super) async fn scan(&mut self) -> io::Result<Vec<Found>> {
        self.look_at = None;
        let (dir, known) = (self.dir.clone(), self.digests.clone());
        let found = tokio::task::spawn_blocking(move || scan(&dir, &known)).await;
        let found = found.map_err(io::Error::other)?;
        match found {
            Ok((found, exposed)) => {
                self.exposed = exposed;
                self.watch();
                Ok(found)
            }
            Err(error) => {
                // A watch on a directory that is gone would not see the one that comes in its place.
                self.watch = None;
                Err(error)
            }
        }
    }

    /// Remembers what was found; says whether anything changed.
    pub(super) fn take(&mut self, found: Vec<Found>) -> bool {
        let digests = found.iter().map(|file| (file.name.clone(), file.digest)).collect();
        if self.digests == digests {
            return false;
        }
        self.digests = digests;
        let mut before: BTreeMap<_, _> = std::mem::take(&mut self.parsed).into_iter().collect();
        self.parsed = found
            .into_iter()
            .filter_map(|Found { name, parsed, .. }| {
                let parsed = parsed.or_else(|| before.remove(&name))?;
                Some((name, parsed))
            })
            .collect();
        true
    }

    /// Returns when something changed in the directory. Safe to drop and call again.
    pub(super) async fn hint(&mut self) {
        // The other end is in `self`, so the channel never closes.
        self.hints.1.recv().await;
        let now = Instant::now();
        let (first, _) = self.look_at.unwrap_or((now, now));
        self.look_at = Some((first, (now + QUIET).min(first + QUIET_AT_MOST)));
    }

    /// When to look because of a hint.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at.map(|(_, due)| due)
    }

    /// Asks for hints. Without them, changes are found by looking every few seconds.
    fn watch(&mut self) {
        if self.watch.is_some() {
            return;
        }
        let hint = self.hints.0.clone();
        // One hint that waits is as good as many.
        let tell = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = hint.try_send(());
            }
        };
        let watch = notify::recommended_watcher(tell).and_then(|mut watch| {
            watch.watch(&self.dir, RecursiveMode::NonRecursive)?;
            Ok(watch)
        });
        match watch {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                tracing::debug!(%error, "job directory cannot be watched; it is read every few seconds");
            }
        }
    }
}

/// What is in the directory, and whether others may change that.
fn scan(dir: &Path, known: &BTreeMap<String, Digest>) -> io::Result<(Vec<Found>, bool)> {
    let mut found = Vec::new();
    let exposed = others_may_write(&std::fs::metadata(dir)?);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(name) = job_file_name(&entry.file_name()) else { continue };
        // Follows links: configuration is often mounted as links into a hidden directory. What is no file is none of ours.
        if std::fs::metadata(entry.path()).is_ok_and(|meta| !meta.is_file()) {
            continue;
        }
        found.push(look(dir, name, known));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, exposed))
}

/// Its owner may be anyone: job files are often kept under version control by a person, or mounted
/// from another machine, and whoever put the directory here chose that owner.
fn others_may_write(about: &std::fs::Metadata) -> bool {
    about.mode() & 0o022 != 0
}

/// Job files are `*.yaml` and `*.yml`, but not those that editors and deployments hide.
fn job_file_name(name: &std::ffi::OsStr) -> Option<String> {
    let name = name.to_str()?;
    let ours = [".yaml", ".yml"].iter().any(|end| name.ends_with(end)) && !name.starts_with('.');
    ours.then(|| name.to_owned())
}

fn look(dir: &Path, name: String, known: &BTreeMap<String, Digest>) -> Found {
    let content = read(dir, &name);
    let digest = match &content {
        Ok(bytes) => Sha256::digest(bytes),
        Err(why) => Sha256::digest(why),
    };
    let digest = Digest::from(digest);
    if known.get(&name) == Some(&digest) {
        return Found { name, digest, parsed: None };
    }
    let parsed = match content.map(String::from_utf8) {
        Ok(Ok(text)) => text::read(&name, &text),
        Ok(Err(error)) => {
            let at = error.utf8_error().valid_up_to();
            text::unreadable(&name, format!("it is no UTF-8 text: see byte {at}"))
        }
        Err(why) => text::unreadable(&name, why),
    };
    Found { name, digest, parsed: Some(parsed) }
}

/// The content of a job file, or why it is not read.
fn read(dir: &Path, name: &str) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("it cannot be read: {error}");
    let path = dir.join(name).canonicalize().map_err(failed)?;
    // A link to elsewhere would show what the server may read and its writer may not.
    if !path.starts_with(dir.canonicalize().map_err(failed)?) {
        let why = "it is a link that leads out of the directory; put the file itself there";
        return Err(why.to_owned());
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    if others_may_write(&file.metadata().map_err(failed)?) {
        let why =
            "not read, because others may write it and its jobs run as root; run chmod go-w on it";
        return Err(why.to_owned());
    }
    // One byte more than is allowed is enough to see that a file is too large.
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
