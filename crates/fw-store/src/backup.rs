//! Backups: one tar file with both databases, what makes up the server's identity, and a
//! manifest with the SHA-256 of each part.
//!
//! A backup holds the server's keys: it is written readable by its owner only, and is to be
//! kept like a key. The databases are copied online, `main.db` before `logs.db`: output is
//! stored before the event that counts it, so nothing that the first one counts is missing
//! in the second.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use fw_proto::{Incarnation, Timestamp};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::lock::{LOCK, Lock};
use crate::scratch::{self, Scratch};
use crate::sqlite::{Schema, check_schema, connect, copy};
use crate::{Error, LOGS, MAIN, Store, row, upkeep};

/// A backup that was made or verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// The file.
    pub file: PathBuf,
    /// When it was made.
    pub created_at: Timestamp,
    /// Of which life of the store.
    pub incarnation: Incarnation,
    /// Bytes of the file.
    pub bytes: u64,
    /// What it holds, by path in the data directory.
    pub parts: BTreeMap<String, Part>,
}

/// A part of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// For a database: its last migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
}

/// The first entry of the file.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    created_at: Timestamp,
    incarnation: Incarnation,
    parts: BTreeMap<String, Part>,
}

const MANIFEST: &str = "manifest.json";

/// The second entry: the manifest's own SHA-256, in hexadecimal.
const MANIFEST_SUM: &str = "manifest.sha256";
const FORMAT: u32 = 1;

/// No manifest is longer: each part takes about 150 bytes, and there are a handful.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// Files and directories of the data directory that make up the server's identity: its link
/// keys, the key of its secrets, the first admin's token.
const IDENTITY: [&str; 3] = ["keys", "secrets.key", "admin.token"];

const DATABASES: [&Schema; 2] = [&MAIN, &LOGS];

impl Store {
    /// Writes a backup to `to` while the store is in use, and verifies it. A backup that is
    /// there already is replaced when the new one is whole.
    ///
    /// # Errors
    /// What files and databases can do. Nothing half written is left at `to`.
    pub async fn backup(&self, to: &Path) -> Result<BackupInfo, Error> {
        let beside = parent(to);
        let make = {
            let beside = beside.clone();
            move || Scratch::beside(&beside)
        };
        let scratch = blocking(make).await?;
        for (database, schema) in [(self.main().db, &MAIN), (self.logs(), &LOGS)] {
            let target = scratch.path().join(schema.file);
            database.read(move |db| copy(db, &target)).await?;
        }
        let (dir, to) = (self.inner.dir.clone(), to.to_owned());
        let (created_at, incarnation) = (self.now(), self.incarnation());
        blocking(move || {
            let part = scratch.path().join("backup.tar");
            pack(&dir, scratch.path(), &part, created_at, incarnation)?;
            let mut info = verify_backup(&part)?;
            fs::rename(&part, &to).map_err(Error::io(format!("write {}", to.display())))?;
            sync_dir(&beside)?;
            info.file = to;
            Ok(info)
        })
        .await
    }
}

/// Reads a whole backup and checks every sum and both databases. Blocks; needs room for the
/// databases beside the file.
///
/// # Errors
/// [`Error::BadBackup`] says what is wrong; [`Error::NewerSchema`] that this build is too old for it.
pub fn verify_backup(file: &Path) -> Result<BackupInfo, Error> {
    let scratch = Scratch::beside(&parent(file))?;
    unpack(file, scratch.path())
}

/// Makes a data directory of a backup, as a new life of the store: servers ask the hosts before
/// they do anything that an older life decided. Blocks.
///
/// With `force` what the backup replaces is moved aside, to `before-restore-…` in the directory:
/// the databases, the keys, the first token. Whatever else is there (backups, job files, this
/// machine's agent) belongs to no backup and stays.
///
/// # Errors
/// [`Error::InUse`], [`Error::NotEmpty`] without `force`, and what [`verify_backup`] says. The
/// directory is changed only when the backup is whole.
pub fn restore_backup(
    file: &Path,
    data_dir: &Path,
    force: bool,
    now: Timestamp,
) -> Result<BackupInfo, Error> {
    let lock = Lock::take(data_dir)?;
    let mut there = entries(data_dir)?;
    there.retain(|name| is_replaced(&name.to_string_lossy()));
    if !there.is_empty() && !force {
        return Err(Error::NotEmpty { dir: data_dir.to_owned() });
    }
    let scratch = Scratch::beside(data_dir)?;
    let info = unpack(file, scratch.path())?;
    let main = scratch.path().join(MAIN.file);
    begin_life(&main).map_err(|error| error.in_file(&main))?;
    if let Some(name) = info.parts.keys().find(|name| !is_replaced(top(name))) {
        let what = format!("{name:?} is no part of a server's identity");
        return Err(Error::BadBackup { file: file.to_owned(), what });
    }
    if !there.is_empty() {
        let aside = data_dir.join(format!("before-restore-{}", now.as_millis()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&aside)
            .map_err(Error::io(format!("create {}", aside.display())))?;
        move_all(data_dir, there, &aside)?;
    }
    move_all(scratch.path(), entries(scratch.path())?, data_dir)?;
    sync_dir(data_dir)?;
    drop(lock);
    Ok(info)
}

/// Names in a data directory, but for the lock and what earlier restores moved aside.
fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let mut names: Vec<std::ffi::OsString> =
        read().map_err(Error::io(format!("read {}", dir.display())))?;
    names.retain(|name| {
        let name = name.to_string_lossy();
        name != LOCK && !name.starts_with("before-restore-") && !name.starts_with(scratch::PREFIX)
    });
    Ok(names)
}

/// Whether a restore replaces what has this name in a data directory. `SQLite` keeps up to three
/// files beside a database, which belong to it alone.
fn is_replaced(name: &str) -> bool {
    let of = |schema: &Schema| {
        name.strip_prefix(schema.file)
            .is_some_and(|rest| matches!(rest, "" | "-wal" | "-shm" | "-journal"))
    };
    IDENTITY.contains(&name) || DATABASES.into_iter().any(of)
}

/// The first part of a path in a backup.
fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

fn move_all(from: &Path, names: Vec<std::ffi::OsString>, to: &Path) -> Result<(), Error> {
    for name in names {
        fs::rename(from.join(&name), to.join(&name)).map_err(Error::io(format!(
            "move {} to {}",
            name.display(),
            to.display()
        )))?;
    }
    Ok(())
}

/// Gives the restored database a life of its own.
fn begin_life(main: &Path) -> Result<(), Error> {
    let db = connect(main)?;
    db.execute("UPDATE store SET incarnation = ?1", [row::blob(&Uuid::now_v7())])?;
    db.close().map_err(|(_, error)| Error::from(error))?;
    sync_file(main)
}

/// Writes the tar file.
fn pack(
    dir: &Path,
    copies: &Path,
    to: &Path,
    created_at: Timestamp,
    incarnation: Incarnation,
) -> Result<(), Error> {
    let mut sources = BTreeMap::new();
    for schema in DATABASES {
        sources.insert(schema.file.to_owned(), copies.join(schema.file));
    }
    for name in IDENTITY {
        collect(dir, name, &mut sources)?;
    }
    let mut parts = BTreeMap::new();
    for (name, path) in &sources {
        parts.insert(name.clone(), describe(name, path)?);
    }
    let manifest = row::json(&Manifest { format: FORMAT, created_at, incarnation, parts });
    let write = || -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let mut tar = tar::Builder::new(io::BufWriter::new(file));
        let sum = row::hex(&Sha256::digest(&manifest));
        for (name, text) in [(MANIFEST, &manifest), (MANIFEST_SUM, &sum)] {
            tar.append_data(&mut header(text.len() as u64), name, text.as_bytes())?;
        }
        for (name, path) in &sources {
            let mut file = File::open(path)?;
            tar.append_data(&mut header(file.metadata()?.len()), name, &mut file)?;
        }
        let mut writer = tar.into_inner()?;
        writer.flush()?;
        writer.get_ref().sync_all()
    };
    write().map_err(Error::io(format!("write {}", to.display())))
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header
}

/// Adds the regular files at and below `name`.
fn collect(dir: &Path, name: &str, found: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    let path = dir.join(name);
    let what = || format!("read {}", path.display());
    let kind = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::io(what()))?,
    };
    if kind.is_dir() {
        for entry in fs::read_dir(&path).map_err(Error::io(what()))? {
            let child = entry.map_err(Error::io(what()))?.file_name();
            collect(dir, &format!("{name}/{}", child.to_string_lossy()), found)?;
        }
    } else if kind.is_file() {
        found.insert(name.to_owned(), path);
    }
    Ok(())
}

fn describe(name: &str, path: &Path) -> Result<Part, Error> {
    let what = || format!("read {}", path.display());
    let mut file = File::open(path).map_err(Error::io(what()))?;
    let mut hash = Hashing { inner: io::sink(), hash: Sha256::new() };
    let bytes = io::copy(&mut file, &mut hash).map_err(Error::io(what()))?;
    let schema = DATABASES.into_iter().find(|schema| schema.file == name).map(Schema::version);
    Ok(Part { bytes, sha256: row::hex(&hash.hash.finalize()), schema })
}

/// Unpacks a backup into an empty directory and checks all of it.
fn unpack(file: &Path, into: &Path) -> Result<BackupInfo, Error> {
    let what = || format!("read {}", file.display());
    let bad = |what: String| Error::BadBackup { file: file.to_owned(), what };
    let opened = File::open(file).map_err(Error::io(what()))?;
    let bytes = opened.metadata().map_err(Error::io(what()))?.len();
    let mut tar = tar::Archive::new(io::BufReader::new(opened));
    let mut entries = tar.entries().map_err(|error| bad(error.to_string()))?;
    let manifest = read_manifest(&mut entries).map_err(bad)?;
    let mut missing = manifest.parts.clone();
    for entry in entries {
        let mut entry = entry.map_err(|error| bad(error.to_string()))?;
        let name =
            entry.path().map_err(|error| bad(error.to_string()))?.to_string_lossy().into_owned();
        let part =
            missing.remove(&name).ok_or_else(|| bad(format!("{name:?} is not in its manifest")))?;
        if !is_plain(Path::new(&name)) {
            return Err(bad(format!("{name:?} is no path in a data directory")));
        }
        if !extract(&mut entry, &name, &part, into)? {
            return Err(bad(format!("{name:?} is not what its manifest says")));
        }
    }
    if let Some(name) = missing.into_keys().next() {
        return Err(bad(format!("{name:?} is missing")));
    }
    for schema in DATABASES {
        if let Some(wrong) = unsound(&into.join(schema.file), schema)? {
            return Err(bad(format!("{}: {wrong}", schema.file)));
        }
    }
    let Manifest { created_at, incarnation, parts, .. } = manifest;
    Ok(BackupInfo { file: file.to_owned(), created_at, incarnation, bytes, parts })
}

fn read_manifest<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Manifest, String> {
    let text = read_text(entries, MANIFEST)?;
    if read_text(entries, MANIFEST_SUM)? != row::hex(&Sha256::digest(&text)) {
        return Err(format!("{MANIFEST} is damaged"));
    }
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| format!("{MANIFEST}: {error}"))?;
    if manifest.format != FORMAT {
        return Err(format!("format {} is not known to this build", manifest.format));
    }
    Ok(manifest)
}

/// The next entry, which must have this name.
fn read_text<R: Read>(entries: &mut tar::Entries<'_, R>, name: &str) -> Result<String, String> {
    let next = entries.next().ok_or_else(|| format!("{name} is missing"))?;
    let mut entry = next.map_err(|_| "it is no tar file".to_owned())?;
    if entry.path().map_err(|error| error.to_string())? != Path::new(name) {
        return Err(format!("{name} is not where it should be"));
    }
    let mut text = String::new();
    let mut bounded = entry.by_ref().take(MAX_MANIFEST);
    bounded.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// Nothing that leads out of the directory.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Writes a part to its place; says whether it is what the manifest says.
fn extract(entry: &mut impl Read, name: &str, part: &Part, into: &Path) -> Result<bool, Error> {
    let path = into.join(name);
    let what = || format!("write {}", path.display());
    let mut write = || -> io::Result<(u64, String)> {
        let dir = path.parent().unwrap_or(into);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut to = Hashing { inner: io::BufWriter::new(file), hash: Sha256::new() };
        let bytes = io::copy(entry, &mut to)?;
        to.inner.flush()?;
        to.inner.get_ref().sync_all()?;
        Ok((bytes, row::hex(&to.hash.finalize())))
    };
    let (bytes, sha256) = write().map_err(Error::io(what()))?;
    Ok(bytes == part.bytes && sha256 == part.sha256)
}

/// What is wrong with an unpacked database.
fn unsound(path: &Path, schema: &Schema) -> Result<Option<String>, Error> {
    if !path.is_file() {
        return Ok(Some("it is missing".to_owned()));
    }
    let check = || {
        let db: Connection = connect(path)?;
        if check_schema(&db, schema)? == 0 {
            return Ok(Some("it has no schema".to_owned()));
        }
        Ok(upkeep::check(&db)?.into_iter().next())
    };
    match check() {
        Err(Error::Corrupt { what, .. }) => Ok(Some(what)),
        checked => checked.map_err(|error| error.in_file(path)),
    }
}

/// Hashes what goes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn sync_file(path: &Path) -> Result<(), Error> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(Error::io(format!("sync {}", path.display())))
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    sync_file(path)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?
}
