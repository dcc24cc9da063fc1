//! What an import writes, and takes back: files, and beside them a note of what they were.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Refusal;
use crate::exit::Code;
use crate::output;

/// The note of a directory. It ends with nothing that a server reads as jobs.
const NOTE: &str = ".fleetwright-import.json";

/// What was written.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The directory of Saltpeter.
    from: String,
    /// Each file by name.
    files: BTreeMap<String, Written>,
}

/// A file that was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    /// Of its text, in hex.
    sha256: String,
    /// What was there before it is kept in this file.
    kept: Option<String>,
}

/// The name of the file when all goes to one.
pub(super) fn single(to: &Path) -> Option<String> {
    let is_file = to.extension().is_some_and(|end| end == "yaml" || end == "yml") && !to.is_dir();
    is_file.then(|| to.file_name()?.to_str().map(str::to_owned)).flatten()
}

/// The directory, and the note in it.
fn places(to: &Path) -> (PathBuf, PathBuf) {
    match single(to) {
        Some(name) => {
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
            let dir = parent.unwrap_or_else(|| Path::new(".")).to_owned();
            let note = dir.join(format!(".{name}{NOTE}"));
            (dir, note)
        }
        None => (to.to_owned(), to.join(NOTE)),
    }
}

/// Writes the files: all of them, or none when one is in the way.
pub(super) fn write(
    to: &Path,
    from: &Path,
    texts: &BTreeMap<String, String>,
    force: bool,
) -> anyhow::Result<()> {
    let (dir, note_path) = places(to);
    let there: Vec<_> =
        texts.keys().filter(|name| dir.join(name).symlink_metadata().is_ok()).collect();
    let known = note_path.exists();
    if !force && (known || !there.is_empty()) {
        let what = there.first().map_or_else(
            || note_path.display().to_string(),
            |name| dir.join(name).display().to_string(),
        );
        return Err(Refusal::conflict(format!(
            "{what} is there already; choose another place, take an earlier import back with --undo, or write over it with --force"
        )));
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let before = read(&note_path)?.map(|note| note.files).unwrap_or_default();
    let mut files = before.clone();
    for (name, text) in texts {
        let path = dir.join(name);
        let kept = match before.get(name) {
            // Our own of an earlier time is no one's loss; what that had put aside stays aside.
            Some(written) if digest_of(&path)?.as_ref() == Some(&written.sha256) => {
                written.kept.clone()
            }
            Some(_) | None => keep(&dir, name)?,
        };
        files.insert(name.clone(), Written { sha256: digest(text.as_bytes()), kept });
    }
    // Before the files: what an undo does not find is not there.
    let note = Note { from: from.display().to_string(), files };
    put(&note_path, &serde_json::to_vec_pretty(&note)?)?;
    texts.iter().try_for_each(|(name, text)| put(&dir.join(name), text.as_bytes()))
}

/// Puts what is in the way aside; says where.
fn keep(dir: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let path = dir.join(name);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    for n in 1.. {
        let aside = format!("{name}.before-import-{n}");
        if dir.join(&aside).symlink_metadata().is_err() {
            std::fs::rename(&path, dir.join(&aside))
                .with_context(|| format!("put {} aside", path.display()))?;
            return Ok(Some(aside));
        }
    }
    Ok(None)
}

/// Removes what was written and not changed since, and puts back what had been there.
pub(super) fn undo(to: &Path) -> anyhow::Result<Code> {
    let (dir, note_path) = places(to);
    let Some(mut note) = read(&note_path)? else {
        return Err(Refusal::not_found(format!(
            "no import is noted in {}; name the place that it wrote to",
            note_path.display()
        )));
    };
    let mut gone = 0;
    for (name, written) in note.files.clone() {
        let path = dir.join(&name);
        match digest_of(&path)? {
            Some(now) if now != written.sha256 => {
                output::say(&format!("{} was changed since and stays", path.display()));
                continue;
            }
            Some(_) => {
                std::fs::remove_file(&path)
                    .with_context(|| format!("remove {}", path.display()))?;
                gone += 1;
            }
            None => {}
        }
        if let Some(kept) = &written.kept {
            std::fs::rename(dir.join(kept), &path)
                .with_context(|| format!("put {} back", path.display()))?;
        }
        note.files.remove(&name);
        put(&note_path, &serde_json::to_vec_pretty(&note)?)?;
    }
    output::say(&format!("{gone} files removed"));
    if !note.files.is_empty() {
        return Ok(Code::Conflict);
    }
    std::fs::remove_file(&note_path).with_context(|| format!("remove {}", note_path.display()))?;
    Ok(Code::Success)
}

fn read(path: &Path) -> anyhow::Result<Option<Note>> {
    match std::fs::read(path) {
        Ok(text) => {
            let note = serde_json::from_slice(&text);
            Ok(Some(note.with_context(|| format!("read {}", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn digest(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of a file; `None` when it is not there.
fn digest_of(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(digest(&text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes a file, whole or not at all. A server that reads the directory meanwhile sees no half.
fn put(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(".next");
    let temporary = path.with_file_name(hidden);
    let written = std::fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    written
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("write {}", path.display()))
}
