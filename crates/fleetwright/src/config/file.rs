//! Reads the small files that a command line or a configuration names: tokens, certificates, job files.

use std::fs::{File, metadata};
use std::io::{self, Read as _};
use std::path::Path;

/// The largest that is read; a mistaken file is named before it fills the memory.
const LARGEST: u64 = 1024 * 1024;

/// The bytes of a regular file of at most 1 MiB. Anything else could block or never end.
///
/// # Errors
/// It is no such file, is larger, or cannot be read.
pub(crate) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let about = metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::other("this is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(io::Error::other("the file is larger than 1 MiB")),
        false => Ok(bytes),
    }
}

/// The text of such a file.
///
/// # Errors
/// As [`read_bytes`], or it is not UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read_bytes(path)?);
    text.map_err(|_| io::Error::other("the file is not text (UTF-8)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let say = |path: &Path| read_text(path).unwrap_err().to_string();
        std::fs::write(&path, vec![b'x'; 1024 * 1024]).unwrap();
        assert_eq!(read_text(&path).unwrap().len(), 1024 * 1024);
        std::fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(say(&path), "the file is larger than 1 MiB");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(say(&path), "the file is not text (UTF-8)");
        assert_eq!(say(dir.path()), "this is not a regular file");
        assert_eq!(say(Path::new("/dev/zero")), "this is not a regular file");
    }
}
