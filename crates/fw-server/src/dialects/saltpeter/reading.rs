//! Looks at the directory again and again, and publishes what it amounts to.
//!
//! A look costs a `stat` a file; only a file that changed is read. A hint of the system makes the
//! next look come at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fw_rt::{Clock, Tasks};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::files::{self, Level};
use super::served::{Served, Watch, seconds};
use super::{Error, Options};
use crate::state::App;

/// Without a hint a change is seen this late; Saltpeter reads all files 20 times a second.
const LOOK: Duration = Duration::from_secs(1);

/// An editor writes a file in several steps: look once they are done.
const QUIET: Duration = Duration::from_millis(100);

/// A file that changed so recently may change again within the tick of its file system's clock.
const SETTLED: Duration = Duration::from_secs(2);

/// Reads the directory and goes on looking at it.
///
/// # Errors
/// It cannot be listed now. Later that is reported, and what was in force stays.
pub(super) fn start(options: &Options, app: &App, tasks: &Tasks) -> Result<Watch, Error> {
    let mut texts = Texts::new(options.dir.clone());
    let failed = |source| Error::Directory { path: options.dir.clone(), source };
    texts.look().map_err(failed)?;
    let directory = files::of_texts(&texts.texts());
    let mut told = BTreeSet::new();
    tell(&directory, &mut told);
    let (served, wrong) = Served::of(directory, seconds(app.clock.now()));
    wrong.iter().for_each(|why| warn!("{why}"));
    info!(
        dir = %options.dir.display(), jobs = served.directory.jobs.len(),
        "serves a directory of Saltpeter"
    );
    let (publish, watch) = watch::channel(Arc::new(served));
    let reading =
        Reading { texts, publish, told, clock: app.clock.clone(), app: app.clone(), trouble: None };
    tasks.spawn("saltpeter directory", reading.run());
    Ok(watch)
}

/// The task that looks.
struct Reading {
    texts: Texts,
    publish: watch::Sender<Arc<Served>>,
    /// What was logged of the files as they are.
    told: BTreeSet<String>,
    clock: Clock,
    app: App,
    trouble: Option<String>,
}

impl Reading {
    async fn run(mut self) {
        let (hint, mut hints) = mpsc::channel(1);
        let _watcher = watcher(&self.texts.dir, hint.clone());
        loop {
            if let Ok(Some(())) = tokio::time::timeout(LOOK, hints.recv()).await {
                tokio::time::sleep(QUIET).await;
                // What came meanwhile is seen by this look.
                let _ = hints.try_recv();
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let mut texts = std::mem::take(&mut self.texts);
        let looked = tokio::task::spawn_blocking(move || {
            let looked = texts.look();
            (texts, looked)
        })
        .await;
        let Ok((texts, looked)) = looked else { return };
        self.texts = texts;
        match looked {
            Ok(changed) => {
                self.trouble_is_over();
                if changed {
                    self.take();
                }
            }
            Err(error) => self.report(&error),
        }
    }

    fn take(&mut self) {
        let directory = files::of_texts(&self.texts.texts());
        tell(&directory, &mut self.told);
        let before = Arc::clone(&self.publish.borrow());
        let same = before.directory.says_the_same(&directory);
        let serial = if same { before.serial } else { seconds(self.clock.now()) };
        let (served, wrong) = Served::of(directory, serial);
        if before.settings != served.settings {
            wrong.iter().for_each(|why| warn!("{why}"));
        }
        info!(jobs = served.directory.jobs.len(), "files of Saltpeter changed");
        self.publish.send_replace(Arc::new(served));
    }

    fn report(&mut self, error: &io::Error) {
        let dir = self.texts.dir.display();
        let trouble = format!(
            "directory of Saltpeter {dir} cannot be read: {error}; its jobs go on as they were"
        );
        if self.trouble.as_ref() != Some(&trouble) {
            error!("{trouble}");
            self.app.health.report("saltpeter", trouble.as_str());
            self.trouble = Some(trouble);
        }
    }

    fn trouble_is_over(&mut self) {
        if self.trouble.take().is_some() {
            info!("directory of Saltpeter is there again");
            self.app.health.clear("saltpeter");
        }
    }
}

/// Logs what is newly wrong, once; what is told once more when it was in order in between.
fn tell(directory: &files::Directory, told: &mut BTreeSet<String>) {
    let mut now = BTreeSet::new();
    for note in &directory.notes {
        let place = format!("{}:{}:{}", note.what.file, note.what.line, note.what.column);
        let text = note.what.to_string();
        if !told.contains(&text) {
            match note.level {
                Level::Error => error!(place, "{place}: {}", note.what.message),
                Level::Warning => warn!(place, "{place}: {}", note.what.message),
            }
        }
        now.insert(text);
    }
    *told = now;
}

/// Hints that something changed. Without them changes are seen by looking.
fn watcher(dir: &Path, hint: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // One hint that waits is as good as many.
            let _ = hint.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher.map_err(|error| debug!(%error, "directory of Saltpeter cannot be watched")).ok()
}

/// The files as they were last read.
#[derive(Debug, Default)]
struct Texts {
    dir: PathBuf,
    files: BTreeMap<String, File>,
}

#[derive(Debug)]
struct File {
    /// `None` when it is to be read again whatever it says of itself.
    stamp: Option<Stamp>,
    text: Result<String, String>,
}

/// What a file says of itself: device, number, size and when it and its entry last changed.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Texts {
    fn new(dir: PathBuf) -> Self {
        Self { dir, files: BTreeMap::new() }
    }

    fn texts(&self) -> BTreeMap<String, Result<String, String>> {
        self.files.iter().map(|(name, file)| (name.clone(), file.text.clone())).collect()
    }

    /// Reads what changed; says whether anything did.
    fn look(&mut self) -> io::Result<bool> {
        let mut before = std::mem::take(&mut self.files);
        let names = match files::names(&self.dir) {
            Ok(names) => names,
            Err(error) => {
                self.files = before;
                return Err(error);
            }
        };
        let mut changed = false;
        for name in names {
            let path = self.dir.join(&name);
            let stamp = stamp(&path);
            let known = before.remove(&name);
            let file = match known {
                Some(file) if stamp.is_some() && file.stamp == stamp => file,
                known => {
                    let text = files::text_of(&path);
                    changed |= known.is_none_or(|known| known.text != text);
                    File { stamp: stamp.filter(is_settled), text }
                }
            };
            self.files.insert(name, file);
        }
        Ok(changed || !before.is_empty())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    let (modified, changed) =
        ((about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec()));
    Some((about.dev(), about.ino(), about.len(), modified, changed))
}

/// Whether a further change would show.
fn is_settled(stamp: &Stamp) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let changed = u64::try_from(stamp.4.0).unwrap_or(u64::MAX);
    changed.saturating_add(SETTLED.as_secs()) < now.as_secs()
}
