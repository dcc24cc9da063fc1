//! Who this agent is: the files of its state directory, and the ids of machine and boot.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fw_proto::{HostId, HostName, PublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a host knows of its fleet once it has joined (`identity.toml`). Its key is apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Where the server listens.
    pub server: String,
    /// The server's keys, of which any one will do.
    pub server_keys: Vec<PublicKey>,
    /// The host's id.
    pub host: HostId,
    /// The host's name.
    pub name: HostName,
}

/// Why the state directory is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what this program writes.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
}

/// The host's private key, in the state directory.
const KEY: &str = "key";

/// The key that is to follow it.
const NEXT_KEY: &str = "key.next";

/// The state directory of one agent.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory, made (0700) when it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| Error::File { what: "make", path: path.to_owned(), source })?;
        Ok(Self(path.to_owned()))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The host's private key (X25519); `None` before it was made.
    ///
    /// # Errors
    /// The file cannot be read, or is no key.
    pub fn key(&self) -> Result<Option<[u8; 32]>, Error> {
        self.read_key(KEY)
    }

    fn read_key(&self, name: &str) -> Result<Option<[u8; 32]>, Error> {
        let path = self.0.join(name);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let message = "not a private key of 32 bytes; restore it, or remove the state directory and join again";
        bytes.try_into().map(Some).map_err(|_| Error::Invalid { path, message: message.to_owned() })
    }

    /// Keeps the host's private key, readable by its owner only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_key(&self, key: &[u8; 32]) -> Result<(), Error> {
        self.write(KEY, key)
    }

    /// The key that the host wants to be known by from now on; `None` when it is content.
    ///
    /// # Errors
    /// The file cannot be read, or is no key.
    pub fn next_key(&self) -> Result<Option<[u8; 32]>, Error> {
        self.read_key(NEXT_KEY)
    }

    /// Asks the agent to take up another key. It tells the server on its present link, and uses
    /// the key once the server has recorded it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_next_key(&self, key: &[u8; 32]) -> Result<(), Error> {
        self.write(NEXT_KEY, key)
    }

    /// The next key takes the place of the present one.
    ///
    /// # Errors
    /// The files cannot be changed.
    pub fn promote_next_key(&self) -> Result<(), Error> {
        let (from, to) = (self.0.join(NEXT_KEY), self.0.join(KEY));
        let fail = |source| Error::File { what: "rename", path: from.clone(), source };
        fs::rename(&from, to).map_err(fail)?;
        File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(fail)
    }

    /// What the host knows of its fleet; `None` before it has joined.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        let path = self.0.join("identity.toml");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let identity = toml::from_str(&text);
        identity.map(Some).map_err(|error| Error::Invalid { path, message: error.to_string() })
    }

    /// Keeps what the host knows of its fleet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), Error> {
        let text = toml::to_string(identity).expect("an identity is a plain table");
        self.write("identity.toml", text.as_bytes())
    }

    /// The machine's id, hashed so that it can be shown: `/etc/machine-id` must not be
    /// (`machine-id(5)`). A machine without one gets a random id, kept here.
    ///
    /// # Errors
    /// The random id cannot be read or kept.
    pub fn machine_id(&self) -> Result<String, Error> {
        let system = ["/etc/machine-id", "/var/lib/dbus/machine-id"].into_iter();
        let mut ids = system.filter_map(|path| fs::read_to_string(path).ok());
        if let Some(id) = ids.find(|id| id.trim().len() >= 32) {
            return Ok(hashed(id.trim()));
        }
        let path = self.0.join("machine-id");
        if let Some(id) = read(&path)? {
            return Ok(hashed(&String::from_utf8_lossy(&id)));
        }
        let id = uuid::Uuid::from_bytes(rand::random()).simple().to_string();
        self.write("machine-id", id.as_bytes())?;
        Ok(hashed(&id))
    }

    /// Writes a file of 0600 that is all there or not at all, also after a power cut.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.0.join(name);
        let written = write_whole(&self.0, name, bytes);
        written.map_err(|source| Error::File { what: "write", path, source })
    }
}

/// Writes `dir/name` by way of a temporary file of its own.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    put(dir, name, bytes)?;
    sync_dir(dir)
}

/// Puts a file in the place of another, whole or not at all, and gives it back open for appending.
/// It outlives a power cut only after [`sync_dir`]; before, the former one may come back.
pub(crate) fn put(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().append(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o600)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, dir.join(name)));
    if written.is_err() {
        // What a full disk took may be what another file needs.
        drop(fs::remove_file(&temporary));
    }
    written.map(|()| file)
}

/// Removes what processes that were killed left of [`put`].
pub(crate) fn sweep(dir: &Path, name: &str) {
    let begin = format!(".{name}.");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        if file.starts_with(&begin) && file.ends_with(".tmp") {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Takes the names in a directory through a power cut.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { what: "read", path: path.to_owned(), source }),
    }
}

/// Salted with a text of our own, so that it equals nobody else's hash of the same id.
fn hashed(id: &str) -> String {
    let digest =
        Sha256::new().chain_update(b"fleetwright machine id\0").chain_update(id).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A test that plays a restart of the host sets another id of the boot by this. Builds for release know
/// nothing of it.
#[cfg(debug_assertions)]
const TEST_BOOT_ID: &str = "FLEETWRIGHT_TEST_BOOT_ID";

/// The id of this boot; empty where the system has none (then nothing can be told from it).
#[must_use]
pub fn boot_id() -> String {
    #[cfg(debug_assertions)]
    if let Some(id) = std::env::var_os(TEST_BOOT_ID) {
        return id.to_string_lossy().into_owned();
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_identity_survive_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        assert_eq!((state.key().unwrap(), state.identity().unwrap()), (None, None));
        let identity = Identity {
            server: "https://fleet.example".to_owned(),
            server_keys: vec![PublicKey([1; 32]), PublicKey([2; 32])],
            host: HostId(uuid::Uuid::from_u128(5)),
            name: "web1".parse().unwrap(),
        };
        state.set_key(&[9; 32]).unwrap();
        state.set_key(&[8; 32]).unwrap();
        state.set_identity(&identity).unwrap();
        assert_eq!(state.key().unwrap(), Some([8; 32]));
        assert_eq!(state.identity().unwrap(), Some(identity));
        for name in ["key", "identity.toml"] {
            let mode = fs::metadata(state.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(state.machine_id().unwrap(), state.machine_id().unwrap());
        assert_eq!(state.machine_id().unwrap().len(), 64);
    }

    #[test]
    fn what_could_not_be_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        // In the place of the file, so that the last step fails.
        fs::create_dir_all(dir.path().join("key/in")).unwrap();
        assert!(StateDir::open(dir.path()).unwrap().set_key(&[1; 32]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        fs::write(dir.path().join("key"), "short").unwrap();
        fs::write(dir.path().join("identity.toml"), "server = 1").unwrap();
        assert!(state.key().unwrap_err().to_string().contains("join again"));
        assert!(state.identity().unwrap_err().to_string().contains("identity.toml"));
    }
}
