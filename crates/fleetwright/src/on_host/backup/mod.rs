//! Backups of what is on a host, each proved when it is made: restored into a scratch place and compared.
//!
//! A backup is a directory with its parts and a manifest. It is made under another name, and renamed when it
//! is proved and on the disk: so what has the name of a backup is a whole one. Who is killed on the way leaves
//! what the next one clears away.

mod keep;
mod manifest;
mod pack;
mod postgres;
mod progress;
mod prove;
mod tree;
mod unpack;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use fw_proto::Timestamp;
use fw_rt::Clock;
use tempfile::TempDir;

pub(crate) use keep::Keep;
pub(crate) use manifest::{Backup, Holds, Manifest, Proof, Sources, all};
pub(crate) use progress::Progress;

use super::state::{Mode, open};
use super::sum;
use crate::output;
use manifest::{Part, Postgres, Sqlite, new_file};
use pack::Taken;

/// What a backup is called until it is one.
const PART: &str = ".part-";

/// What a scratch place is called.
const SCRATCH: &str = ".scratch-";

/// zstd's own default: fast, and small enough.
const LEVEL: i32 = 3;

/// What is to be backed up, and where.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) sources: Sources,
    /// Paths and globs that are left out.
    pub(crate) exclude: Vec<String>,
    /// The directory of the backups.
    pub(crate) to: PathBuf,
    /// Where it is restored for the proof; in `to` when it is not said.
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) keep: Keep,
}

/// Makes a backup and proves it, then removes those that need not be kept.
///
/// # Errors
/// Something cannot be read, written or restored, or is another when it is restored. Then there is no new
/// backup, and the older ones are all there.
pub(crate) fn create(order: Order) -> anyhow::Result<Backup> {
    let (clock, progress) = (Clock::system(), Progress::new());
    let to = std::path::absolute(&order.to)?;
    let _lock = take(&to)?;
    let made_at = clock.now();
    let part = temporary(PART, &to)?;
    let taken = Taken::find(&order.sources, &order.exclude, &to)?;
    let parts = write(&order.sources, &taken, part.path(), &to, &progress)?;
    let manifest = Manifest::new(made_at, clock.now(), order.sources, parts);
    let draft = Backup { dir: part.path().to_owned(), manifest };
    let scratch = temporary(SCRATCH, order.scratch.as_deref().unwrap_or(&to))?;
    prove(&draft, &taken, scratch.path(), &progress)?;
    drop(scratch);
    let manifest =
        Manifest::new(made_at, clock.now(), draft.manifest.sources, draft.manifest.parts);
    manifest.write(part.path())?;
    sync(part.path())?;
    let dir = to.join(name(made_at));
    fs::rename(part.path(), &dir).with_context(|| format!("name it {}", dir.display()))?;
    // It has moved; there is nothing to remove.
    drop(part.keep());
    sync(&to)?;
    let made = Backup { dir, manifest };
    tidy(&made, order.keep, &to, clock.now())?;
    Ok(made)
}

/// Locks the directory of backups, so that one is made at a time, and clears it.
fn take(to: &Path) -> anyhow::Result<File> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(to);
    made.with_context(|| format!("make {}", to.display()))?;
    let lock = File::open(to).with_context(|| format!("open {}", to.display()))?;
    match lock.try_lock() {
        Err(fs::TryLockError::WouldBlock) => {
            bail!("another backup to {} is being made; wait for its end", to.display())
        }
        Err(fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", to.display()));
        }
        Ok(()) => {}
    }
    keep::clear(to, &[PART, SCRATCH])?;
    Ok(lock)
}

fn temporary(prefix: &str, beside: &Path) -> anyhow::Result<TempDir> {
    // What is restored there is as secret as what it was made of.
    let owner_only = fs::Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix(prefix).permissions(owner_only).tempdir_in(beside);
    made.with_context(|| format!("make a directory in {}", beside.display()))
}

/// A name in the order of time, such as `20261127T093000.000Z`.
fn name(at: Timestamp) -> String {
    at.to_string().replace(['-', ':'], "")
}

/// Writes all parts of a backup into `into`.
fn write(
    sources: &Sources,
    taken: &Taken,
    into: &Path,
    to: &Path,
    progress: &Progress,
) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut add = |file: String, holds: Holds| {
        let path = into.join(&file);
        let written = File::open(&path).and_then(|part| {
            part.sync_all()?;
            sum(progress.watch(part, &file))
        });
        let (bytes, sha256) = written.with_context(|| format!("read {}", path.display()))?;
        parts.push(Part { file, bytes, sha256, holds });
        anyhow::Ok(())
    };
    if !sources.paths.is_empty() {
        let file = "files.tar.zst".to_owned();
        let files = pack::pack(taken, &into.join(&file), progress)?;
        let left = files.left_out.len();
        if left > 0 {
            output::say(&format!("{left} sockets, FIFOs and devices are left out"));
        }
        add(file, Holds::Files(files))?;
    }
    for (n, path) in (1..).zip(&sources.sqlite) {
        let file = format!("sqlite-{n}.db.zst");
        let sqlite = sqlite(Path::new(path), &into.join(&file), progress)?;
        add(file, Holds::Sqlite(sqlite))?;
    }
    for (n, database) in (1..).zip(&sources.postgres) {
        let (file, database) = (format!("postgres-{n}.dump"), database.clone());
        let dump = into.join(&file);
        let backup = || {
            postgres::dump(&database, &dump)?;
            postgres::prove(&database, &dump, &format!("{}\n{database}", to.display()))
        };
        let proof = backup().with_context(|| format!("back up the database {database}"))?;
        add(file, Holds::Postgres(Postgres { database, proof }))?;
    }
    Ok(parts)
}

/// Copies a database, which may be in use, and compresses the copy.
fn sqlite(path: &Path, to: &Path, progress: &Progress) -> anyhow::Result<Sqlite> {
    let shown = path.display().to_string();
    let real = fs::canonicalize(path).with_context(|| format!("find {shown}"))?;
    let copy = to.with_extension("copy");
    let (contents, journal_mode) = fw_store::copy_database(&real, &copy)?;
    let pack = || {
        let mut from = progress.watch(File::open(&copy)?, &shown);
        let mut zstd = zstd::Encoder::new(new_file(to)?, LEVEL)?;
        io::copy(&mut from, &mut zstd)?;
        zstd.finish()?.sync_all()?;
        fs::remove_file(&copy)
    };
    pack().with_context(|| format!("write {}", to.display()))?;
    let metadata = fs::metadata(&real).with_context(|| format!("read {shown}"))?;
    let path = real.into_os_string().into_string().ok().context("its path is no UTF-8")?;
    let (uid, gid) = (metadata.uid(), metadata.gid());
    Ok(Sqlite { path, mode: Mode::of(&metadata), uid, gid, journal_mode, contents })
}

/// Restores a backup that is not one yet into a scratch place and compares.
fn prove(draft: &Backup, taken: &Taken, scratch: &Path, progress: &Progress) -> anyhow::Result<()> {
    output::say(&format!("restoring it into {} to compare", scratch.display()));
    check(draft, progress)?;
    for part in &draft.manifest.parts {
        // A place for each, because a database may be below a path as well.
        let root = scratch.join(&part.file);
        fs::create_dir(&root).with_context(|| format!("make {}", root.display()))?;
        restore_part(draft, part, &root, progress)?;
        match &part.holds {
            Holds::Files(files) => prove::files(&root, &taken.roots, files)?,
            Holds::Sqlite(sqlite) => {
                prove::sqlite(&prove::below(&root, Path::new(&sqlite.path)), sqlite)?;
            }
            // Its scratch place is a database, and it was compared there.
            Holds::Postgres(_) => {}
        }
    }
    Ok(())
}

/// Reads a backup and says whether it is whole, and leads nowhere that it must not. Nothing is written.
///
/// # Errors
/// It is not.
pub(crate) fn check(backup: &Backup, progress: &Progress) -> anyhow::Result<()> {
    backup.holds(progress)?;
    for part in &backup.manifest.parts {
        match &part.holds {
            Holds::Files(files) => unpack::check(&backup.file(part), files, progress)?,
            Holds::Sqlite(sqlite) => {
                let plain = tree::plain(Path::new(&sqlite.path)).is_some();
                ensure!(plain, "{:?} is no path of a backup", sqlite.path);
            }
            Holds::Postgres(postgres) => drop(
                postgres::database(&postgres.database).map_err(|what| anyhow::anyhow!("{what}"))?,
            ),
        }
    }
    Ok(())
}

/// Restores a backup to where it came from, or below `root`. Nothing is touched when it is not whole.
///
/// # Errors
/// It is not whole, or something cannot be written; then it is to be done again.
pub(crate) fn restore(backup: &Backup, root: Option<&Path>) -> anyhow::Result<()> {
    let progress = Progress::new();
    check(backup, &progress)?;
    for part in &backup.manifest.parts {
        match (&part.holds, root) {
            (Holds::Postgres(postgres), None) => {
                let restored = postgres::restore(&postgres.database, &backup.file(part));
                restored.with_context(|| format!("restore the database {}", postgres.database))?;
            }
            (Holds::Postgres(postgres), Some(_)) => output::say(&format!(
                "left out: the database {}, which has no place below a directory; its dump is {}",
                postgres.database,
                backup.file(part).display()
            )),
            (Holds::Files(_) | Holds::Sqlite(_), root) => {
                restore_part(backup, part, root.unwrap_or_else(|| Path::new("/")), &progress)?;
            }
        }
    }
    Ok(())
}

fn restore_part(
    backup: &Backup,
    part: &Part,
    root: &Path,
    progress: &Progress,
) -> anyhow::Result<()> {
    let from = backup.file(part);
    match &part.holds {
        Holds::Files(files) => unpack::restore(&from, files, root, progress),
        Holds::Sqlite(sqlite) => {
            let put = || put_sqlite(sqlite, &from, root, progress);
            put().with_context(|| {
                format!("restore the database {} (stop what uses it)", sqlite.path)
            })
        }
        Holds::Postgres(_) => Ok(()),
    }
}

/// Writes a database of a backup into its place.
fn put_sqlite(
    sqlite: &Sqlite,
    from: &Path,
    root: &Path,
    progress: &Progress,
) -> anyhow::Result<()> {
    let path = Path::new(&sqlite.path);
    // Makes the directories on the way, and refuses to follow a symlink.
    let _place = tree::Tree::open(root)?.place(path)?;
    let target = prove::below(root, path);
    if let Ok(there) = fs::symlink_metadata(&target) {
        ensure!(there.is_file(), "there is something else than a file in its place");
    }
    let beside = target.parent().context("a file is in a directory")?;
    let copy = tempfile::Builder::new().prefix(".fleetwright-restore-").tempfile_in(beside)?;
    let mut unpacked = zstd::Decoder::new(progress.watch(File::open(from)?, &sqlite.path))?;
    io::copy(&mut unpacked, &mut copy.as_file())?;
    ensure!(
        fw_store::database_contents(copy.path())? == sqlite.contents,
        "it is not what the manifest says"
    );
    fw_store::put_database(copy.path(), &target, &sqlite.journal_mode)?;
    let file = open(&target)?;
    std::os::unix::fs::fchown(&file, Some(sqlite.uid), Some(sqlite.gid))
        .with_context(|| format!("give it to {}:{}, which takes root", sqlite.uid, sqlite.gid))?;
    file.set_permissions(fs::Permissions::from_mode(sqlite.mode.0))?;
    Ok(file.sync_all()?)
}

/// Removes backups of the same sources that need not be kept.
fn tidy(made: &Backup, keep: Keep, to: &Path, now: Timestamp) -> anyhow::Result<()> {
    let found = all(to)?;
    let same = |backup: &&Backup| backup.manifest.sources == made.manifest.sources;
    let set: Vec<&Backup> = found.iter().flatten().filter(same).rev().collect();
    for backup in keep.surplus(&set, now) {
        keep::remove(backup)?;
        output::say(&format!("removed {}", backup.dir.display()));
    }
    Ok(())
}

/// The backup at `path`, or the newest in it that was restored for proof.
///
/// # Errors
/// There is none.
pub(crate) fn find(path: &Path) -> anyhow::Result<Backup> {
    if path.join(manifest::MANIFEST).exists() {
        return Backup::read(&std::path::absolute(path)?);
    }
    let found = all(path)?;
    let newest =
        found.into_iter().flatten().rfind(|backup| backup.manifest.proof == Proof::Restored);
    newest.with_context(|| format!("there is no proved backup in {}", path.display()))
}

fn sync(dir: &Path) -> anyhow::Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("sync {}", dir.display()))
}
