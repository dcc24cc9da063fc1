//! What steps of rollouts and runbooks call on a host, as ordinary commands: no server is asked.

pub(crate) mod backup;
pub(crate) mod probe;
pub(crate) mod state;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Hashes and counts what goes through.
#[derive(Debug)]
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// What it was around, the bytes, and their SHA-256 in hexadecimal.
    fn end(self) -> (T, u64, String) {
        (self.inner, self.bytes, hex(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.inner.read(into)?;
        self.count(into.get(..taken).unwrap_or_default());
        Ok(taken)
    }
}

/// The bytes and the SHA-256 of what a reader gives.
fn sum(from: impl Read) -> io::Result<(u64, String)> {
    let mut from = Hashing::new(from);
    io::copy(&mut from, &mut io::sink())?;
    let (_, bytes, sha256) = from.end();
    Ok((bytes, sha256))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory");
        text
    })
}

/// A path as text that no other path has: bytes that are no UTF-8 are `\xNN`, and a backslash is two.
fn text_of(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to memory");
        }
    }
    text
}

/// The path of a text that [`text_of`] made; none when it made no such text.
fn path_of(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = match (after.strip_prefix('\\'), after.strip_prefix('x')) {
            (Some(after), _) => {
                bytes.push(b'\\');
                after
            }
            (None, Some(after)) => {
                bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
                after.get(2..)?
            }
            (None, None) => return None,
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_paths_have_one_text(a in any::<Vec<u8>>(), b in any::<Vec<u8>>()) {
            let text = |bytes: &[u8]| text_of(Path::new(OsStr::from_bytes(bytes)));
            prop_assert_eq!(a == b, text(&a) == text(&b));
        }

        #[test]
        fn a_path_is_found_again_by_its_text(bytes in any::<Vec<u8>>(), text in "(\\\\|x|[0-9a-g]|é){0,8}") {
            let path = PathBuf::from(OsStr::from_bytes(&bytes));
            prop_assert_eq!(path_of(&text_of(&path)), Some(path));
            // Whatever a manifest has: read, or refused.
            drop(path_of(&text));
        }
    }

    #[test]
    fn paths_are_read_by_people() {
        let text = |bytes: &[u8]| text_of(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(text("/etc/grün".as_bytes()), "/etc/grün");
        assert_eq!(text(b"/a\\b\xffc"), "/a\\\\b\\xffc");
    }
}
