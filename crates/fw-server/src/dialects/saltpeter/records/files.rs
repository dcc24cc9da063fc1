//! Appends lines to log files, one file a job, each line once.
//!
//! Before anything is written, the place in the journal and the length of each file are noted. After a crash
//! what stands beyond that length says how far the lines had come, and the rest follows. A file that was
//! rotated meanwhile is another file; then the lines are written again rather than lost.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::{Cursor, Journal, Most};
use super::record::{self, Record};

/// So much is appended at a time.
const BATCH: Most = Most { bytes: 1024 * 1024, records: 500 };

/// The reader's name in the journal.
const READER: &str = "files";

/// What is kept beside the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// All before it is in the files.
    at: Cursor,
    /// What is being appended: where to, and how long each file was before.
    under_way: Option<UnderWay>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UnderWay {
    dir: PathBuf,
    files: BTreeMap<String, Before>,
    /// Records in it, so that the same ones are read again.
    records: usize,
}

/// A file before it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// Which file of that name; none when it was not there.
    inode: Option<u64>,
    length: u64,
}

/// Appends what the journal holds.
#[derive(Debug)]
pub(crate) struct Files {
    journal: Journal,
    path: PathBuf,
    note: Note,
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Round {
    /// Records appended; zero when there were none.
    pub appended: usize,
    /// Records that cannot be written, ever, and are left out.
    pub dropped: u64,
}

/// Why lines are not in their file yet.
#[derive(Debug, thiserror::Error)]
#[error("write {path}")]
pub(crate) struct Error {
    path: String,
    source: io::Error,
}

impl Files {
    /// Takes up where it was left; a journal that has no such reader yet is read from its start.
    pub(crate) fn open(journal: Journal, beside: &Path) -> Self {
        let path = beside.join("files.cursor");
        let read = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let note = read.unwrap_or_else(|| Note { at: journal.start(), under_way: None });
        journal.moved(READER, note.at);
        Self { journal, path, note }
    }

    /// Appends the next records to the files in `dir`.
    pub(crate) fn round(&mut self, dir: &Path) -> Result<Round, Error> {
        let again = self.note.under_way.clone();
        let most = again.as_ref().map_or(BATCH, |again| Most { records: again.records, ..BATCH });
        let batch =
            self.journal.read(self.note.at, most).map_err(|source| failed(&self.path, source))?;
        let mut round = Round { appended: batch.records.len(), dropped: batch.missed };
        if batch.records.is_empty() {
            return Ok(round);
        }
        let texts = texts(&batch.records);
        let under_way =
            match again.filter(|again| batch.missed == 0 && again.records == batch.records.len()) {
                Some(again) => again,
                None => self.begin(dir, &texts, batch.records.len())?,
            };
        for (name, text) in &texts {
            let before = under_way.files.get(name).copied();
            let path = under_way.dir.join(name);
            match append(&path, text.as_bytes(), before) {
                Ok(()) => {}
                Err(error) if is_hopeless(&error) => {
                    let lost =
                        batch.records.iter().filter(|one| record::file_name(&one.job) == *name);
                    round.dropped += lost.count() as u64;
                    tracing::error!(%error, file = %path.display(), "lines of a job's log file cannot be written there and are left out");
                }
                Err(source) => return Err(failed(&path, source)),
            }
        }
        self.keep(Note { at: batch.next, under_way: None })?;
        self.journal.moved(READER, batch.next);
        Ok(round)
    }

    /// Notes what is about to be appended.
    fn begin(
        &mut self,
        dir: &Path,
        texts: &BTreeMap<String, String>,
        records: usize,
    ) -> Result<UnderWay, Error> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(|source| failed(dir, source))?;
        let mut files = BTreeMap::new();
        for name in texts.keys() {
            let path = dir.join(name);
            let before = match std::fs::metadata(&path) {
                Ok(about) => Before { inode: Some(about.ino()), length: about.len() },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Before { inode: None, length: 0 }
                }
                Err(error) if is_hopeless(&error) => continue,
                Err(source) => return Err(failed(&path, source)),
            };
            files.insert(name.clone(), before);
        }
        let under_way = UnderWay { dir: dir.to_owned(), files, records };
        self.keep(Note { at: self.note.at, under_way: Some(under_way.clone()) })?;
        Ok(under_way)
    }

    fn keep(&mut self, note: Note) -> Result<(), Error> {
        let text = serde_json::to_vec(&note).expect("there are only texts and numbers");
        replace(&self.path, &text).map_err(|source| failed(&self.path, source))?;
        self.note = note;
        Ok(())
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error { path: path.display().to_string(), source }
}

/// Whether the name itself is the trouble, so that waiting does not help.
fn is_hopeless(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::InvalidFilename)
}

/// What each file gets.
fn texts(records: &[Record]) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for record in records {
        texts.entry(record::file_name(&record.job)).or_default().push_str(&record::lines(record));
    }
    texts
}

/// Appends what is not there yet of a text.
fn append(path: &Path, text: &[u8], before: Option<Before>) -> io::Result<()> {
    let options = &mut OpenOptions::new();
    let mut file = options.append(true).read(true).create(true).mode(0o640).open(path)?;
    let there = written(&mut file, text, before)?;
    file.write_all(text.get(there..).unwrap_or_default())
}

/// How much of the text stands in the file beyond its length before. Nothing counts that is followed by
/// something else.
fn written(file: &mut File, text: &[u8], before: Option<Before>) -> io::Result<usize> {
    let about = file.metadata()?;
    let Some(before) = before else { return Ok(0) };
    let same = before.inode.is_none_or(|inode| inode == about.ino());
    if !same || about.len() <= before.length {
        return Ok(0);
    }
    let mut there = Vec::new();
    file.seek(SeekFrom::Start(before.length))?;
    file.take(text.len() as u64).read_to_end(&mut there)?;
    let whole = about.len() - before.length >= text.len() as u64;
    let ours = if whole { there == text } else { text.starts_with(&there) };
    Ok(if ours { there.len() } else { 0 })
}

/// Puts a small file in the place of another, whole or not at all.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("next");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    file.sync_data()?;
    std::fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::super::journal::Entry;
    use super::super::progress::{Progress, Step};
    use super::super::record::What;
    use super::super::record::tests::record;
    use super::*;
    use fw_proto::{Incarnation, Timestamp};
    use std::os::unix::fs::PermissionsExt as _;

    fn fresh() -> Progress {
        Progress::new(Incarnation(uuid::Uuid::nil()), 0)
    }

    fn entry(what: What, job: &str) -> Entry {
        let step = Step::Fires { job: "backup".parse().unwrap(), to: Timestamp::EPOCH };
        Entry { step, records: vec![Record { job: job.to_owned(), ..record(what) }] }
    }

    struct Place {
        dir: tempfile::TempDir,
        journal: Journal,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (journal, _) = Journal::open(&dir.path().join("j"), 1 << 20, fresh).unwrap();
            let entries = [
                entry(What::Start, "backup"),
                entry(What::MachineResult, "backup"),
                entry(What::End, "a/b"),
            ];
            journal.append(&entries).unwrap();
            Self { dir, journal }
        }

        fn files(&self) -> Files {
            Files::open(self.journal.clone(), &self.dir.path().join("j"))
        }

        fn logs(&self) -> PathBuf {
            self.dir.path().join("not/there/yet")
        }

        fn log(&self, name: &str) -> String {
            std::fs::read_to_string(self.logs().join(name)).unwrap()
        }
    }

    fn whole() -> String {
        record::lines(&record(What::Start)) + &record::lines(&record(What::MachineResult))
    }

    #[test]
    fn lines_come_once_into_files_of_a_directory_that_is_made() {
        let place = Place::new();
        let mut files = place.files();
        assert_eq!(files.round(&place.logs()).unwrap(), Round { appended: 3, dropped: 0 });
        assert_eq!(files.round(&place.logs()).unwrap(), Round::default());
        assert_eq!(place.files().round(&place.logs()).unwrap(), Round::default());
        assert_eq!(place.log("backup.log"), whole());
        assert_eq!(place.log("a%2Fb.log"), record::lines(&record(What::End)));
        let mode = std::fs::metadata(place.logs().join("backup.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o640, 0);
    }

    #[test]
    fn after_a_crash_at_any_byte_the_rest_follows_and_nothing_comes_twice() {
        for cut in (0..=whole().len()).step_by(13) {
            let place = Place::new();
            std::fs::create_dir_all(place.logs()).unwrap();
            let log = place.logs().join("backup.log");
            std::fs::write(&log, "before\n").unwrap();
            let mut files = place.files();
            let records = place.journal.read(files.note.at, BATCH).unwrap().records;
            files.begin(&place.logs(), &texts(&records), records.len()).unwrap();
            let mut file = OpenOptions::new().append(true).open(&log).unwrap();
            file.write_all(whole().get(..cut).unwrap_or_default().as_bytes()).unwrap();
            // What came to the journal meanwhile is for the next round.
            place.journal.append(&[entry(What::End, "backup")]).unwrap();
            let mut files = place.files();
            assert_eq!(files.round(&place.logs()).unwrap().appended, 3);
            assert_eq!(place.log("backup.log"), "before\n".to_owned() + &whole(), "cut at {cut}");
            assert_eq!(files.round(&place.logs()).unwrap().appended, 1);
            assert!(place.log("backup.log").ends_with(&record::lines(&record(What::End))));
        }
    }

    #[test]
    fn a_file_that_was_rotated_is_made_anew() {
        let place = Place::new();
        let mut files = place.files();
        files.round(&place.logs()).unwrap();
        std::fs::rename(place.logs().join("backup.log"), place.logs().join("backup.log.1"))
            .unwrap();
        place.journal.append(&[entry(What::End, "backup")]).unwrap();
        files.round(&place.logs()).unwrap();
        assert_eq!(place.log("backup.log"), record::lines(&record(What::End)));
        assert_eq!(place.log("backup.log.1"), whole());
    }

    #[test]
    fn a_directory_in_the_place_of_a_file_costs_only_its_own_lines() {
        let place = Place::new();
        std::fs::create_dir_all(place.logs().join("backup.log")).unwrap();
        let round = place.files().round(&place.logs()).unwrap();
        assert_eq!(round, Round { appended: 3, dropped: 2 });
        assert_eq!(place.log("a%2Fb.log"), record::lines(&record(What::End)));
    }

    #[test]
    fn a_log_directory_that_cannot_be_had_loses_nothing() {
        let place = Place::new();
        std::fs::write(place.dir.path().join("not"), "a file").unwrap();
        let mut files = place.files();
        let error = files.round(&place.logs()).unwrap_err();
        assert!(error.to_string().contains("not/there/yet"), "{error}");
        std::fs::remove_file(place.dir.path().join("not")).unwrap();
        files.round(&place.logs()).unwrap();
        assert_eq!(place.log("backup.log"), whole());
    }
}
