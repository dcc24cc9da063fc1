//! What a backup holds, so exactly that it can be told whether it still does.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, ensure};
use fw_proto::Timestamp;
use fw_store::Contents;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::progress::Progress;
use crate::on_host::state::{Entry, Mode};
use crate::on_host::{hex, sum};

/// The manifest's name in a backup.
pub(super) const MANIFEST: &str = "manifest.json";

/// Its SHA-256, in hexadecimal.
const SEAL: &str = "manifest.sha256";

/// The form of backups.
const FORMAT: u32 = 1;

/// About 200 bytes a file: a million files.
const LONGEST_MANIFEST: u64 = 256 * 1024 * 1024;

/// What a backup is and holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// When it was begun.
    pub(crate) made_at: Timestamp,
    /// When it had been restored and compared.
    pub(crate) proved_at: Timestamp,
    /// The weakest proof of its parts.
    pub(crate) proof: Proof,
    /// What was asked for. Backups of the same sources make up a set.
    pub(crate) sources: Sources,
    pub(crate) parts: Vec<Part>,
}

/// How it is known that a backup can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proof {
    /// It was read to its end, which is less.
    ReadThrough,
    /// It was restored into a scratch place, and was the same there.
    Restored,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadThrough => "read through",
            Self::Restored => "restored",
        })
    }
}

/// What is backed up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub(crate) struct Sources {
    /// A file, a directory with all that is in it, or a glob; repeat for more.
    #[arg(long = "path", value_name = "PATH|GLOB")]
    pub(crate) paths: Vec<String>,
    /// A `SQLite` database, copied while it is in use; repeat for more.
    #[arg(long, value_name = "FILE")]
    pub(crate) sqlite: Vec<String>,
    /// A `PostgreSQL` database, by name or by a URL without a password; repeat for more.
    #[arg(long, value_name = "NAME|URL", value_parser = super::postgres::database)]
    pub(crate) postgres: Vec<String>,
}

impl Sources {
    /// Absolute and in order, so that the same sources are equal.
    ///
    /// # Errors
    /// A path is none.
    pub(crate) fn settled(mut self) -> anyhow::Result<Self> {
        for path in self.paths.iter_mut().chain(&mut self.sqlite) {
            let absolute =
                std::path::absolute(&*path).with_context(|| format!("{path:?} is no path"))?;
            *path = absolute.into_os_string().into_string().ok().context("a path is no UTF-8")?;
        }
        for list in [&mut self.paths, &mut self.sqlite, &mut self.postgres] {
            list.sort();
            list.dedup();
        }
        Ok(self)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        self.paths.iter().chain(&self.sqlite).chain(&self.postgres)
    }

    /// Whether all of `wanted` is among them.
    pub(crate) fn include(&self, wanted: &Self) -> bool {
        let lists = [
            (&self.paths, &wanted.paths),
            (&self.sqlite, &wanted.sqlite),
            (&self.postgres, &wanted.postgres),
        ];
        lists.into_iter().all(|(have, wanted)| wanted.iter().all(|one| have.contains(one)))
    }
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its name.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    #[serde(flatten)]
    pub(crate) holds: Holds,
}

/// What is in such a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "holds", rename_all = "snake_case")]
pub(crate) enum Holds {
    /// A tar file, compressed with zstd.
    Files(Files),
    /// A database, compressed with zstd.
    Sqlite(Sqlite),
    /// What `pg_dump` wrote in its custom format.
    Postgres(Postgres),
}

/// Files, directories and symlinks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    /// By absolute path.
    pub(crate) entries: BTreeMap<String, Kept>,
    /// Sockets, FIFOs and devices: programs make them anew.
    pub(crate) left_out: Vec<String>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) entry: Entry,
    /// Seconds and nanoseconds since the Unix epoch.
    pub(crate) modified: (i64, u32),
    /// Another name of this file, whose bytes are in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) same_as: Option<String>,
}

/// A `SQLite` database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sqlite {
    pub(crate) path: String,
    pub(crate) mode: Mode,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) journal_mode: String,
    pub(crate) contents: Contents,
}

/// A `PostgreSQL` database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Postgres {
    pub(crate) database: String,
    pub(crate) proof: Proof,
}

/// A backup that is there.
#[derive(Debug, Clone)]
pub(crate) struct Backup {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
}

impl Manifest {
    /// One that is complete.
    pub(super) fn new(
        made_at: Timestamp,
        proved_at: Timestamp,
        sources: Sources,
        parts: Vec<Part>,
    ) -> Self {
        let proofs = parts.iter().map(|part| match &part.holds {
            Holds::Postgres(postgres) => postgres.proof,
            Holds::Files(_) | Holds::Sqlite(_) => Proof::Restored,
        });
        let proof = proofs.min().unwrap_or(Proof::Restored);
        Self { format: FORMAT, made_at, proved_at, proof, sources, parts }
    }

    /// Writes it and its seal, durably.
    ///
    /// # Errors
    /// What files can do.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("write the manifest")?;
        text.push('\n');
        let seal = format!("{}\n", hex(&Sha256::digest(&text)));
        for (name, text) in [(MANIFEST, text), (SEAL, seal)] {
            let path = dir.join(name);
            let write = || {
                let mut file = new_file(&path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            write().with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl Backup {
    /// Reads the manifest of the backup in `dir`.
    ///
    /// # Errors
    /// It is damaged, of a later version, or there is none.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let what = || format!("{} is no whole backup", dir.display());
        let read = || {
            let text = read_text(&dir.join(MANIFEST))?;
            let seal = read_text(&dir.join(SEAL))?;
            ensure!(
                seal.trim() == hex(&Sha256::digest(&text)),
                "{MANIFEST} is not what its seal says"
            );
            let manifest: Manifest = serde_json::from_str(&text).context(MANIFEST)?;
            let format = manifest.format;
            ensure!(
                format == FORMAT,
                "its format {format} is not known to this build; use the newer one"
            );
            for Part { file, .. } in &manifest.parts {
                ensure!(is_name(file), "{file:?} is no file of a backup");
            }
            Ok(manifest)
        };
        Ok(Self { dir: dir.to_owned(), manifest: read().with_context(what)? })
    }

    /// The path of a part.
    pub(crate) fn file(&self, part: &Part) -> PathBuf {
        self.dir.join(&part.file)
    }

    /// Reads all parts, and says whether they are still what was proved.
    ///
    /// # Errors
    /// One is not.
    pub(crate) fn holds(&self, progress: &Progress) -> anyhow::Result<()> {
        let what = || format!("{} is no whole backup", self.dir.display());
        for part in &self.manifest.parts {
            let check = || {
                let file =
                    File::open(self.file(part)).with_context(|| format!("open {}", part.file))?;
                let read = sum(progress.watch(file, &part.file));
                let (bytes, sha256) = read.with_context(|| format!("read {}", part.file))?;
                let same = (bytes, &sha256) == (part.bytes, &part.sha256);
                ensure!(same, "{} is not what the manifest says", part.file);
                Ok(())
            };
            check().with_context(what)?;
        }
        Ok(())
    }
}

/// A new file for its owner only.
pub(super) fn new_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(LONGEST_MANIFEST).read_to_string(&mut text));
    read.with_context(|| format!("read {}", path.display()))?;
    Ok(text)
}

/// Whether it leads nowhere else.
fn is_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

/// All backups in `dir`, the oldest first; what is no whole one is an error in its place.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn all(dir: &Path) -> anyhow::Result<Vec<anyhow::Result<Backup>>> {
    // What is printed is understood everywhere.
    let dir = std::path::absolute(dir)?;
    let read = || -> std::io::Result<Vec<_>> {
        fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut dirs = read().with_context(|| format!("read {}", dir.display()))?;
    // What is under way has a dot before its name.
    let hidden = |path: &PathBuf| {
        path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
    };
    dirs.retain(|path| !hidden(path) && path.join(MANIFEST).exists());
    dirs.sort();
    let mut found: Vec<_> = dirs.iter().map(|dir| Backup::read(dir)).collect();
    found.sort_by_key(|backup| {
        backup.as_ref().map_or(Timestamp::EPOCH, |found| found.manifest.made_at)
    });
    Ok(found)
}
