//! Looks at the directory again and again, hands its jobs over and publishes what is in force.
//!
//! A look costs a `stat` a file; only a file that changed is read. A hint of the system makes the
//! next look come at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fw_proto::{Span, Timestamp};
use fw_rt::Tasks;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::files::{self, Level, Part};
use super::served::{Served, Watch, seconds};
use super::{Error, Options, names, translate};
use crate::drive::jobs::{Dialect, Given};
use crate::state::App;

/// Without a hint a change is seen this late; Saltpeter reads all files 20 times a second.
const LOOK: Duration = Duration::from_secs(1);

/// An editor writes a file in several steps: look once they are done.
const QUIET: Duration = Duration::from_millis(100);

/// A file that changed so recently may change again within the tick of its file system's clock.
const SETTLED: Span = Span::from_secs(2);

/// The directory as it was found, before anything follows from it.
pub(crate) struct Prepared {
    options: Options,
    texts: Texts,
    served: Served,
    told: BTreeSet<String>,
    given: Given,
}

/// Reads the directory.
///
/// # Errors
/// It cannot be listed. A bad file in it harms nothing.
pub(crate) fn prepare(options: Options, now: Timestamp) -> Result<Prepared, Error> {
    refuse_served(&options)?;
    let mut texts = Texts::new(options.dir.clone());
    let failed = |source| Error::Directory { path: options.dir.clone(), source };
    texts.look(now).map_err(failed)?;
    let directory = texts.directory();
    let mut told = BTreeSet::new();
    let given = given(&directory, &mut told);
    let (served, wrong) = Served::of(directory, seconds(now));
    wrong.iter().for_each(|why| warn!("{why}"));
    Ok(Prepared { options, texts, served, told, given })
}

/// In the shadow of Saltpeter its ports are Saltpeter's.
fn refuse_served(options: &Options) -> Result<(), Error> {
    let asked = [("its API", options.api), ("the port of wrappers", options.machines)];
    let asked = asked.into_iter().find_map(|(what, at)| Some((what, at?)));
    match asked.filter(|_| options.shadow) {
        Some((what, address)) => Err(Error::Shadow { what, address }),
        None => Ok(()),
    }
}

impl Prepared {
    /// Its jobs, for who owns jobs.
    pub(crate) fn dialect(&self) -> Dialect {
        let (given, shadow) = (self.given.clone(), self.options.shadow);
        Dialect { name: translate::NAME, given, complete: translate::complete, shadow }
    }

    /// Goes on looking.
    pub(super) fn start(self, app: &App, tasks: &Tasks) -> (Options, Watch) {
        let Self { options, texts, served, told, given } = self;
        info!(
            dir = %options.dir.display(), jobs = served.directory.jobs.len(),
            "serves a directory of Saltpeter"
        );
        if options.shadow {
            info!(
                "shadow mode: Saltpeter runs these jobs; here the ledger says what would have been started"
            );
        }
        let (publish, watch) = watch::channel(Arc::new(served));
        // Who owns the jobs has them already; that some names are taken is told at the first look.
        let unsettled = Some(given);
        let reading = Reading { texts, publish, told, app: app.clone(), trouble: None, unsettled };
        tasks.spawn("saltpeter directory", reading.run());
        (options, watch)
    }
}

/// The task that looks.
struct Reading {
    texts: Texts,
    publish: watch::Sender<Arc<Served>>,
    /// What was logged of the files as they are.
    told: BTreeSet<String>,
    app: App,
    trouble: Option<String>,
    /// Jobs that were not taken up yet.
    unsettled: Option<Given>,
}

impl Reading {
    async fn run(mut self) {
        let (hint, mut hints) = mpsc::channel(1);
        let _watcher = watcher(&self.texts.dir, hint.clone());
        loop {
            self.hand_over().await;
            if let Ok(Some(())) = tokio::time::timeout(LOOK, hints.recv()).await {
                tokio::time::sleep(QUIET).await;
                // What came meanwhile is seen by this look.
                let _ = hints.try_recv();
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let (mut texts, now) = (std::mem::take(&mut self.texts), self.app.clock.now());
        let looked = tokio::task::spawn_blocking(move || {
            let looked = texts.look(now);
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
        let directory = self.texts.directory();
        self.unsettled = Some(given(&directory, &mut self.told));
        let before = Arc::clone(&self.publish.borrow());
        let same = before.directory.says_the_same(&directory);
        let serial = if same { before.serial } else { seconds(self.app.clock.now()) };
        let (served, wrong) = Served::of(directory, serial);
        if before.settings != served.settings {
            wrong.iter().for_each(|why| warn!("{why}"));
        }
        match (before.directory.maintenance.global, served.directory.maintenance.global) {
            (false, true) => info!("maintenance mode active, no crons will be started"),
            (true, false) => info!("maintenance mode is over"),
            (false, false) | (true, true) => {}
        }
        info!(jobs = served.directory.jobs.len(), "files of Saltpeter changed");
        self.publish.send_replace(Arc::new(served));
    }

    /// Gives the jobs to who owns jobs; what fails is tried again at the next look.
    async fn hand_over(&mut self) {
        let Some(given) = &self.unsettled else { return };
        match self.app.jobs.serve(given.clone()).await {
            Ok(taken) => {
                for name in taken {
                    warn!(job = %name, "a job of this name is there already, which stays in force; rename one");
                }
                self.unsettled = None;
            }
            Err(problem) => warn!(%problem, "jobs of Saltpeter cannot be taken up; trying again"),
        }
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

/// The jobs in our words; what is wrong is logged.
fn given(directory: &files::Directory, told: &mut BTreeSet<String>) -> Given {
    let (jobs, bad) = translate::jobs(directory);
    tell(directory, &bad, told);
    let mut doubtful: BTreeSet<_> =
        directory.doubtful_jobs.iter().map(|name| names::job_name(name)).collect();
    let good: BTreeSet<_> = jobs.iter().map(|(_, def)| &def.name).collect();
    let all = directory.jobs.keys().map(|name| names::job_name(name));
    doubtful.extend(all.filter(|name| !good.contains(name)));
    Given {
        jobs,
        doubtful_files: directory.doubtful_files.clone(),
        doubtful,
        maintenance: translate::maintenance(&directory.maintenance),
        doubtful_maintenance: directory.doubtful_maintenance,
    }
}

/// Logs what is newly wrong, once; what is told once more when it was in order in between.
fn tell(directory: &files::Directory, bad: &[String], told: &mut BTreeSet<String>) {
    let mut now: BTreeSet<String> = bad.iter().cloned().collect();
    now.difference(told).for_each(|why| error!("{why}"));
    for note in &directory.notes {
        let place = format!("{}:{}:{}", note.what.file, note.what.line, note.what.column);
        let text = note.what.to_string();
        if !told.contains(&text) {
            match note.level {
                Level::Error => error!("{place}: {}", note.what.message),
                Level::Warning => warn!("{place}: {}", note.what.message),
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
    /// What it says, and where that is wrong what it said before.
    part: Part,
}

/// What a file says of itself: device, number, size and when it and its entry last changed.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Texts {
    fn new(dir: PathBuf) -> Self {
        Self { dir, files: BTreeMap::new() }
    }

    fn directory(&self) -> files::Directory {
        files::merge(self.files.iter().map(|(name, file)| (name.as_str(), &file.part)))
    }

    /// Reads what changed; says whether anything did.
    fn look(&mut self, now: Timestamp) -> io::Result<bool> {
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
                    let stamp = stamp.filter(|stamp| is_settled(stamp, now));
                    match known {
                        Some(file) if file.text == text => File { stamp, ..file },
                        known => {
                            changed = true;
                            let part = files::part(&name, &text);
                            let part = known.iter().fold(part, |part, file| part.over(&file.part));
                            File { stamp, text, part }
                        }
                    }
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
fn is_settled(stamp: &Stamp, now: Timestamp) -> bool {
    let changed = Timestamp::from_millis(stamp.4.0.saturating_mul(1000));
    changed + SETTLED < now
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "x: {min: 0, hour: 0, dom: 1, mon: 1, dow: '*', command: a, targets: '*', target_type: glob}\n";

    fn look(texts: &mut Texts) -> io::Result<bool> {
        texts.look(fw_rt::Clock::system().now())
    }

    #[test]
    fn every_change_is_seen_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let mut texts = Texts::new(dir.path().to_owned());
        assert!(!look(&mut texts).unwrap());
        std::fs::write(&path, JOB).unwrap();
        assert_eq!((look(&mut texts).unwrap(), look(&mut texts).unwrap()), (true, false));
        // As long as before, and within one tick of the file system's clock.
        std::fs::write(&path, JOB.replace("command: a", "command: b")).unwrap();
        assert!(look(&mut texts).unwrap());
        assert_eq!(texts.directory().jobs["x"].command, "b");
        std::fs::write(&path, "x: [").unwrap();
        assert!(look(&mut texts).unwrap());
        assert_eq!(texts.directory().jobs["x"].command, "b", "the last good version");
        std::fs::write(dir.path().join("b.yml"), JOB).unwrap();
        assert!(!look(&mut texts).unwrap(), "it is none of Saltpeter's");
        std::fs::remove_file(&path).unwrap();
        assert!(look(&mut texts).unwrap() && texts.directory().jobs.is_empty());
        std::fs::write(&path, JOB).unwrap();
        assert!(look(&mut texts).unwrap());
        drop(dir);
        assert!(look(&mut texts).is_err());
        assert_eq!(texts.directory().jobs.len(), 1, "what was known goes on");
    }
}
