//! Passwords: hashed with argon2id, verified in whatever form they were brought along.
//!
//! Hashing takes 19 MiB and tens of milliseconds, so it has threads of its own kind and a bound. Whatever is not
//! our own form and cost is replaced when the password is next known to be right.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, Params};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::problem::{Failure, Result, fault};

/// The shortest password: what people are asked for at first; length is what counts (NIST SP 800-63B).
const SHORTEST: usize = 12;

/// The longest: hashing takes as long as its input.
const LONGEST: usize = 1024;

/// Hashes at one time; further ones wait. Each takes 19 MiB.
const AT_ONCE: usize = 4;

/// What a name without a hash is compared with, so that it takes as long. Of 32 random bytes that nobody knows.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$ZmxlZXR3cmlnaHQgbm9ib2R5$OMQqUbpQZHi7cXyOTsLb4y8nBbxq0zz4ksWUdyLlt4E";

/// What the form of ATLAS begins with: SHA-256 of password and salt.
const SALTED: &str = "$sha256-salted$";

/// Hashes and verifies, so many at a time. Clones share the bound.
#[derive(Debug, Clone)]
pub(crate) struct Hasher(Arc<Semaphore>);

/// What became of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is wrong.
    Wrong,
    /// It is right.
    Right,
    /// It is right, and this hash is better than the one that there was.
    Better(String),
}

impl Default for Hasher {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Hasher {
    /// Hashes a password.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        self.work(move || make(&password)).await
    }

    /// Verifies a password; without a hash it is wrong after as long a time.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<Verdict> {
        self.work(move || verify(&password, hash.as_deref())).await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|error| fault(&error))
    }
}

/// Refuses what is no password.
pub(crate) fn check(password: &str, name: Option<&str>) -> Result<()> {
    if password.chars().count() < SHORTEST {
        let why =
            format!("password: use at least {SHORTEST} characters; a few unrelated words do well");
        return Err(Failure::invalid(why));
    }
    if password.len() > LONGEST {
        return Err(Failure::invalid(format!("password: use at most {LONGEST} bytes")));
    }
    let is_name = |name: &str| {
        password.to_lowercase().contains(&name.to_lowercase())
            && password.len() < name.len() + SHORTEST
    };
    if name.is_some_and(is_name) {
        return Err(Failure::invalid("password: leave your name out of it"));
    }
    Ok(())
}

/// Whether a hash that was brought along is one that can be verified.
pub(crate) fn is_known(hash: &str) -> bool {
    let bcrypt =
        ["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) && hash.len() == 60;
    bcrypt
        || salted(hash).is_some()
        || PasswordHash::new(hash).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id")
}

fn make(password: &str) -> String {
    Argon2::default()
        .hash_password(password.as_bytes())
        .expect("the salt is as long as it should be")
        .to_string()
}

fn verify(password: &str, hash: Option<&str>) -> Verdict {
    let right = match hash {
        None => {
            argon2(password, NOBODY);
            false
        }
        Some(hash) if hash.starts_with("$2") => bcrypt::verify(password, hash).unwrap_or(false),
        Some(hash) => match salted(hash) {
            Some((salt, digest)) => same(&Sha256::digest(format!("{password}{salt}")), &digest),
            None => argon2(password, hash),
        },
    };
    match (right, hash) {
        (true, Some(hash)) if is_old(hash) => Verdict::Better(make(password)),
        (true, _) => Verdict::Right,
        (false, _) => Verdict::Wrong,
    }
}

fn argon2(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Whether a hash has another form or cost than ours.
fn is_old(hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return true };
    let cost = Params::try_from(&hash);
    let ours = Params::default();
    let same = |cost: Params| {
        (cost.m_cost(), cost.t_cost(), cost.p_cost())
            == (ours.m_cost(), ours.t_cost(), ours.p_cost())
    };
    hash.algorithm.as_str() != "argon2id" || !cost.is_ok_and(same)
}

/// Salt and digest of the form of ATLAS.
fn salted(hash: &str) -> Option<(&str, [u8; 32])> {
    let (salt, hex) = hash.strip_prefix(SALTED)?.split_once('$')?;
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let digest: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    Some((salt, digest?.try_into().ok()?))
}

/// Compares in a time that says nothing of where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_brought(hash: &str, password: &str) {
        assert!(is_known(hash), "{hash}");
        assert_eq!(verify("wrong", Some(hash)), Verdict::Wrong);
        let Verdict::Better(better) = verify(password, Some(hash)) else {
            panic!("{hash} is right and old");
        };
        assert_eq!(verify(password, Some(&better)), Verdict::Right);
    }

    #[test]
    fn hashes_that_were_brought_along_are_verified_and_replaced() {
        let bcrypt = bcrypt::hash("correct horse battery", 4).unwrap();
        check_brought(&bcrypt, "correct horse battery");
        check_brought(&bcrypt.replacen("$2b$", "$2y$", 1), "correct horse battery");
        let salt = "ab".repeat(32);
        let digest: String = Sha256::digest(format!("Fleet-Password-1{salt}"))
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        check_brought(&format!("{SALTED}{salt}${digest}"), "Fleet-Password-1");
        let params = Params::new(8, 1, 1, None).unwrap();
        let weak = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let weak = weak.hash_password(b"correct horse battery").unwrap().to_string();
        check_brought(&weak, "correct horse battery");
    }

    #[test]
    fn nobody_costs_what_everybody_costs() {
        assert!(!is_old(NOBODY), "an unknown name must take as long as a known one");
        assert_eq!(verify("fleetwright", None), Verdict::Wrong);
    }

    #[test]
    fn rubbish_is_no_hash() {
        for bad in [
            "",
            "x",
            "$2b$12$short",
            "$sha256-salted$salt",
            "$sha256-salted$s$zz",
            "$argon2id$",
            "$5$x$y",
        ] {
            assert!(!is_known(bad), "{bad}");
            assert_eq!(verify("", Some(bad)), Verdict::Wrong, "{bad}");
        }
    }

    #[test]
    fn short_passwords_are_refused() {
        assert!(check("short", Some("alice")).is_err());
        assert!(check("alice-2026-xy", Some("alice")).is_err());
        assert!(check("correct horse battery", Some("alice")).is_ok());
    }
}
