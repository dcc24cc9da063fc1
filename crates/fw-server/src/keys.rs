//! The keys that hosts know this server by: Noise static keys in `<data-dir>/keys/link-N.key`.
//!
//! Hosts pin all of them and use the newest. Rotation adds one and keeps the old ones, so that a
//! host that was away for long still finds a key that it knows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fw_proto::PublicKey;
use fw_rt::noise::Keypair;

use crate::private_file;

/// The server's keys. Clones share them.
#[derive(Debug, Clone)]
pub struct ServerKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    keys: Mutex<Numbered>,
}

/// The number of the newest key, and all keys, newest first.
#[derive(Debug)]
struct Numbered {
    newest: u32,
    pairs: Vec<Keypair>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key file or the directory.
    #[error("server key {path}")]
    File {
        /// Which.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// A file that holds no key.
    #[error("{0} holds no key; restore it from a backup, or move it away when other keys are left")]
    NoKey(String),
    /// The system gives no randomness.
    #[error("make server key")]
    Generate(#[source] fw_rt::noise::Error),
}

impl ServerKeys {
    /// Opens the keys of a key directory; makes the first one at first.
    ///
    /// # Errors
    /// A file cannot be read, written or understood.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let mut numbered = read_all(dir)?;
        numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let newest = numbered.first().map_or(0, |(number, _)| *number);
        let pairs = numbered.into_iter().map(|(_, pair)| pair).collect();
        let keys = Mutex::new(Numbered { newest, pairs });
        let opened = Self(Arc::new(Inner { dir: dir.to_owned(), keys }));
        if opened.all().is_empty() {
            opened.rotate()?;
        }
        Ok(opened)
    }

    /// All keys, newest first; never empty.
    #[must_use]
    pub fn all(&self) -> Vec<Keypair> {
        self.lock().pairs.clone()
    }

    /// The public halves, newest first.
    #[must_use]
    pub fn public(&self) -> Vec<PublicKey> {
        self.all().iter().map(|pair| pair.public).collect()
    }

    /// The key that new join strings name.
    #[must_use]
    pub fn newest(&self) -> PublicKey {
        self.all().first().map(|pair| pair.public).expect("opening makes a first key")
    }

    /// Adds a key and puts it first; blocks for a write to the disk.
    ///
    /// # Errors
    /// It cannot be made or written; then nothing has changed.
    pub fn rotate(&self) -> Result<Vec<PublicKey>, Error> {
        let pair = Keypair::generate().map_err(Error::Generate)?;
        let mut keys = self.lock();
        let number = keys.newest + 1;
        let path = self.0.dir.join(format!("link-{number}.key"));
        let file = |source| Error::File { path: path.display().to_string(), source };
        let text = URL_SAFE_NO_PAD.encode(pair.private);
        private_file::create(&path, text.as_bytes()).map_err(file)?;
        let pairs = std::iter::once(pair).chain(keys.pairs.iter().cloned()).collect();
        *keys = Numbered { newest: number, pairs };
        Ok(keys.pairs.iter().map(|pair| pair.public).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Numbered> {
        // The value is replaced whole, so a panic elsewhere leaves nothing half done.
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_all(dir: &Path) -> Result<Vec<(u32, Keypair)>, Error> {
    let shown = |path: &Path| path.display().to_string();
    let file = |path: &Path, source| Error::File { path: shown(path), source };
    let mut numbered = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|source| file(dir, source))? {
        let path = entry.map_err(|source| file(dir, source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.strip_prefix("link-").and_then(|rest| rest.strip_suffix(".key"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
        let text = std::fs::read_to_string(&path).map_err(|source| file(&path, source))?;
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok();
        let private = bytes.and_then(|bytes| bytes.try_into().ok());
        let private = private.ok_or_else(|| Error::NoKey(shown(&path)))?;
        numbered.push((number, Keypair::from_private(private)));
    }
    Ok(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_puts_a_new_key_first_keeps_the_old_ones_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ServerKeys::open(dir.path()).unwrap();
        let first = keys.newest();
        let rotated = keys.rotate().unwrap();
        assert_eq!((rotated.len(), rotated[1]), (2, first));
        assert_eq!(keys.public(), rotated);
        // Past 9, numbers do not sort as text.
        for _ in 0..9 {
            keys.rotate().unwrap();
        }
        assert_eq!(ServerKeys::open(dir.path()).unwrap().public(), keys.public());
    }

    #[test]
    fn a_damaged_key_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        ServerKeys::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("link-2.key"), "??").unwrap();
        assert!(matches!(ServerKeys::open(dir.path()), Err(Error::NoKey(_))));
    }
}
