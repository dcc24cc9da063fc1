//! Secrets at rest: encrypted with age (age-encryption.org/v1) to an X25519 identity of the server.
//!
//! The identity lies in `<data-dir>/keys/secrets.age`; without it a stolen database tells no secret.
//! Values are decrypted when a start is sent, and are never logged.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use age::x25519::{Identity, Recipient};
use fw_store::Store;

use crate::private_file;

/// Encrypts and decrypts secrets. Clones share the identity.
#[derive(Clone)]
pub struct Vault(Arc<Keys>);

struct Keys {
    identity: Identity,
    recipient: Recipient,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

/// Why secrets cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The identity file.
    #[error("secrets identity {path}")]
    File {
        /// Which file.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The identity file holds something else.
    #[error(
        "{0} holds no age identity; restore it from a backup, or move it away and set all secrets again"
    )]
    Identity(String),
    /// age would not encrypt.
    #[error("encrypt secret")]
    Encrypt(#[from] age::EncryptError),
    /// Damaged, or encrypted to another identity.
    #[error("decrypt secret")]
    Decrypt(#[from] age::DecryptError),
    /// The decrypted bytes are no text.
    #[error("secret is no UTF-8 text")]
    NotText,
    /// The store.
    #[error("read secret")]
    Store(#[from] fw_store::Error),
}

impl Vault {
    /// Opens the vault of a key directory; makes the identity at first.
    ///
    /// # Errors
    /// The identity file cannot be read, written or understood.
    pub fn open(keys: &Path) -> Result<Self, Error> {
        let path = keys.join("secrets.age");
        let shown = || path.display().to_string();
        let file = |source| Error::File { path: shown(), source };
        let identity = match std::fs::read_to_string(&path) {
            Ok(text) => Identity::from_str(text.trim()).map_err(|_| Error::Identity(shown()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let identity = Identity::generate();
                let text = identity.to_string();
                private_file::create(&path, text.expose_secret().as_bytes()).map_err(file)?;
                identity
            }
            Err(error) => return Err(file(error)),
        };
        let recipient = identity.to_public();
        Ok(Self(Arc::new(Keys { identity, recipient })))
    }

    /// Encrypts a value.
    ///
    /// # Errors
    /// age would not.
    pub fn encrypt(&self, value: &str) -> Result<Vec<u8>, Error> {
        Ok(age::encrypt(&self.0.recipient, value.as_bytes())?)
    }

    /// Decrypts a value.
    ///
    /// # Errors
    /// It is damaged, or encrypted to another identity.
    pub fn decrypt(&self, ciphertext: &[u8]) -> Result<String, Error> {
        let plain = age::decrypt(&self.0.identity, ciphertext)?;
        String::from_utf8(plain).map_err(|_| Error::NotText)
    }

    /// The value of a stored secret; `None` when there is none of this name.
    ///
    /// # Errors
    /// The store cannot be read, or as [`Vault::decrypt`].
    pub async fn get(&self, store: &Store, name: &str) -> Result<Option<String>, Error> {
        let sealed = store.secret(name).await?;
        sealed.map(|sealed| self.decrypt(&sealed)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_a_restart_and_only_its_own_identity_reads_it() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealed = Vault::open(ours.path()).unwrap().encrypt("s3cret €").unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("s3cret"));
        assert_eq!(Vault::open(ours.path()).unwrap().decrypt(&sealed).unwrap(), "s3cret €");
        assert!(Vault::open(theirs.path()).unwrap().decrypt(&sealed).is_err());
        let mut damaged = sealed;
        *damaged.last_mut().unwrap() ^= 1;
        assert!(Vault::open(ours.path()).unwrap().decrypt(&damaged).is_err());
    }

    #[test]
    fn an_identity_that_is_none_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secrets.age"), "hello").unwrap();
        assert!(matches!(Vault::open(dir.path()), Err(Error::Identity(_))));
        assert_eq!(std::fs::read_to_string(dir.path().join("secrets.age")).unwrap(), "hello");
    }
}
