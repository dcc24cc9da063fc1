//! Names of instances, as wrappers are told them: nobody can make one up.
//!
//! `<job>_<unix seconds>_<run><proof>`: the run's id and a keyed hash of it, so that a name that
//! comes back tells its run without any memory, also to the next process.

use std::io;
use std::path::Path;

use fw_proto::{RunId, Timestamp};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::private_file;

/// Bytes of the proof: nobody guesses 96 bits at a server.
const PROOF: usize = 12;

/// The key that the proofs are made with.
#[derive(Clone)]
pub(crate) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    /// Opens the key of a key directory; makes it at first.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no key.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("wrappers.key");
        match std::fs::read_to_string(&path) {
            Ok(text) => bytes(text.trim()).map(Self).ok_or_else(|| {
                let what = format!("{} holds no key; move it away", path.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; 32] = rand::random();
                private_file::create(&path, hex(&key).as_bytes())?;
                Ok(Self(key))
            }
            Err(error) => Err(error),
        }
    }

    /// The name of a run's instance.
    #[must_use]
    pub(crate) fn name(&self, job: &str, begun: Timestamp, run: RunId) -> String {
        let seconds = begun.as_millis() / 1000;
        format!("{job}_{seconds}_{}{}", hex(run.0.as_bytes()), hex(&self.proof(run)))
    }

    /// The run that a name is of; `None` for a name that was not made with this key.
    #[must_use]
    pub(crate) fn run(&self, name: &str) -> Option<RunId> {
        let (_, secret) = name.rsplit_once('_')?;
        let secret: [u8; 16 + PROOF] = bytes(secret)?;
        let (run, proof) = secret.split_first_chunk::<16>()?;
        let run = RunId(Uuid::from_bytes(*run));
        // In constant time, so that a proof cannot be found byte by byte.
        let differ = self.proof(run).iter().zip(proof).fold(0, |sum, (a, b)| sum | (a ^ b));
        (differ == 0).then_some(run)
    }

    /// Both inputs have a fixed length and most of the hash is kept back, so that nothing can be appended.
    fn proof(&self, run: RunId) -> [u8; PROOF] {
        let mut hash = Sha256::new();
        hash.update(b"fleetwright wrapper instance");
        hash.update(self.0);
        hash.update(run.0.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        *hash.first_chunk().expect("a hash is longer")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if hex.len() != 2 * N || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_run_to_the_next_process_and_no_other_name_does() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::open(dir.path()).unwrap();
        let run = RunId(Uuid::now_v7());
        let name = key.name("nightly_backup", Timestamp::from_millis(1_795_182_750_999), run);
        assert!(name.starts_with("nightly_backup_1795182750_"), "{name}");
        let again = Key::open(dir.path()).unwrap();
        assert_eq!(again.run(&name), Some(run));
        let last = if name.ends_with('0') { '1' } else { '0' };
        let changed = format!("{}{last}", name.get(..name.len() - 1).unwrap());
        let other = tempfile::tempdir().unwrap();
        assert_eq!(Key::open(other.path()).unwrap().run(&name), None);
        for bad in [changed.as_str(), "", "x", "backup_1795182750", "a_1_ä", "_"] {
            assert_eq!(again.run(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_that_holds_no_key_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("wrappers.key"), "??").unwrap();
        assert_eq!(Key::open(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
