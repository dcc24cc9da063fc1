//! Files that are not as they were left: overwritten, cut short, added to, or gone.
//!
//! What comes of it is a clear error, or the store as it was up to some commit; never a panic
//! (which would come out as [`Error::Closed`]), and never something else in silence.

use std::fs;
use std::path::Path;

use fw_core::run::Run;
use fw_proto::api;
use fw_rt::Clock;

use crate::conformance::fixture::{Story, at, chunk, host_id, noise, run_id, task};
use crate::{Error, RunQuery, Store, StoredChunk};

const RUNS: u128 = 60;

async fn opened(dir: &Path) -> Result<Store, Error> {
    Store::open(dir, Clock::system()).await
}

/// A store with ended and unfinished runs, and output on pages of their own.
async fn inhabit(dir: &Path) -> Store {
    let store = opened(dir).await.unwrap();
    for n in 0..RUNS {
        let mut story = Story::begin(n, 20, Some("job"), at(0));
        if n % 3 > 0 {
            story = story.ended(at(1), 0);
        }
        store.commit(vec![story.append()]).await.unwrap();
        store.append_chunk(chunk(task(n), 0, &noise(n as u64, 9000))).await.unwrap();
    }
    store
}

/// All that was written, as the reads give it.
#[derive(Debug, PartialEq)]
struct All {
    runs: Vec<Option<api::Run>>,
    unfinished: Vec<Run>,
    output: Vec<Vec<StoredChunk>>,
}

async fn read(store: &Store) -> Result<All, Error> {
    let mut all =
        All { runs: Vec::new(), unfinished: store.unfinished().await?, output: Vec::new() };
    for n in 0..RUNS {
        all.runs.push(store.run(run_id(n)).await?);
        store.plan(run_id(n)).await?;
        all.output.push(store.log_chunks(run_id(n), host_id(0), 1, 0, 100).await?);
    }
    store.runs(RunQuery { limit: 1000, ..RunQuery::default() }).await?;
    Ok(all)
}

async fn write(store: &Store) -> Result<(), Error> {
    store.commit(vec![Story::begin(1000, 20, None, at(0)).append()]).await?;
    store.append_chunk(chunk(task(1000), 0, &noise(1, 9000))).await.map(drop)
}

/// An error that names the file and says that it is damaged.
#[track_caller]
fn assert_clear(error: &Error, file: &str, what: &str) {
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
    assert!(text.contains(file) && text.ends_with("restore a backup"), "{what}: {text}");
}

/// Everything a server may do with a damaged file: each step works or says clearly why not, and
/// what cannot be read, or is not as it was, is found by the check. Says whether it was noticed.
async fn suffer(dir: &Path, file: &str, expected: &All, what: &str) -> bool {
    let store = match opened(dir).await {
        Ok(store) => store,
        Err(error) => {
            assert_clear(&error, file, what);
            return true;
        }
    };
    let found = read(&store).await;
    let wrong = store.integrity().await;
    let wrote = write(&store).await;
    for error in [wrote.as_ref().err(), found.as_ref().err()].into_iter().flatten() {
        assert_clear(error, file, what);
    }
    let noticed = match wrong {
        Ok(wrong) => !wrong.is_empty(),
        Err(error) => {
            assert_clear(&error, file, what);
            true
        }
    };
    assert!(noticed || found.is_ok_and(|found| found == *expected), "{what}: damaged in silence");
    store.close().await;
    noticed
}

fn copy_dir(from: &Path, to: &Path) {
    fs::remove_dir_all(to).ok();
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_page_is_said_and_does_no_more_harm() {
    let dirs = tempfile::tempdir().unwrap();
    let (good, bad) = (dirs.path().join("good"), dirs.path().join("bad"));
    let store = inhabit(&good).await;
    let expected = read(&store).await.unwrap();
    store.close().await;
    for file in ["main.db", "logs.db"] {
        let bytes = fs::read(good.join(file)).unwrap();
        let pages = bytes.len() / 8192;
        let mut noticed = 0;
        // Every page of a small file, some of a larger one.
        let some = (0..pages).step_by(1 + pages / 24);
        let tried = some.clone().count();
        for page in some {
            copy_dir(&good, &bad);
            let mut bytes = bytes.clone();
            bytes[page * 8192..][..8192].copy_from_slice(&noise(page as u64, 8192));
            fs::write(bad.join(file), bytes).unwrap();
            let what = format!("page {page} of {pages} of {file}");
            noticed += usize::from(suffer(&bad, file, &expected, &what).await);
        }
        assert!(noticed * 10 > tried * 9, "{file}: {noticed} of {tried} noticed");
    }
}

#[tokio::test]
async fn a_database_cut_short_is_said() {
    let dirs = tempfile::tempdir().unwrap();
    let (good, bad) = (dirs.path().join("good"), dirs.path().join("bad"));
    let store = inhabit(&good).await;
    let expected = read(&store).await.unwrap();
    store.close().await;
    for file in ["main.db", "logs.db"] {
        let bytes = fs::read(good.join(file)).unwrap();
        let whole = bytes.len();
        for len in [1, 15, 16, 99, 100, 512, 4096, 8191, 8192, whole / 2, whole - 8192, whole - 1] {
            copy_dir(&good, &bad);
            fs::write(bad.join(file), &bytes[..len]).unwrap();
            let what = format!("{file} cut to {len} of {whole}");
            assert!(suffer(&bad, file, &expected, &what).await, "{what}: not noticed");
        }
    }
}

/// What a log holds is a row of commits, each with its sum: whatever is wrong with it, the store
/// is as it was up to some commit, and goes on from there.
#[tokio::test]
async fn a_damaged_log_gives_all_up_to_some_commit() {
    let dirs = tempfile::tempdir().unwrap();
    let (good, bad) = (dirs.path().join("good"), dirs.path().join("bad"));
    let store = opened(&dirs.path().join("live")).await.unwrap();
    store.clone().close().await;
    let store = opened(&dirs.path().join("live")).await.unwrap();
    for n in 0..30 {
        store.commit(vec![Story::begin(n, 1, None, at(0)).append()]).await.unwrap();
    }
    // As kill -9 leaves it.
    copy_dir(&dirs.path().join("live"), &good);
    fs::remove_file(good.join("main.db-shm")).unwrap();
    let log = fs::read(good.join("main.db-wal")).unwrap();
    assert!(log.len() > 30 * 8192, "the log holds the commits");

    let mut counts = std::collections::BTreeSet::new();
    let mut try_with = async |log: &[u8], what: &str| {
        copy_dir(&good, &bad);
        fs::write(bad.join("main.db-wal"), log).unwrap();
        let store = opened(&bad).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let runs: Vec<_> = store.unfinished().await.unwrap().iter().map(|run| run.id).collect();
        let expected: Vec<_> = (0..runs.len()).map(|n| run_id(n as u128)).collect();
        assert_eq!(runs, expected, "{what}: not a beginning");
        assert_eq!(store.integrity().await.unwrap(), [""; 0], "{what}");
        write(&store).await.unwrap();
        store.close().await;
        counts.insert(runs.len());
        runs.len()
    };
    assert_eq!(try_with(&log, "the whole log").await, 30);
    let mut longer = log.clone();
    longer.extend(noise(3, 20_000));
    assert_eq!(try_with(&longer, "garbage at its end").await, 30);
    longer.extend(vec![0; 20_000]);
    assert_eq!(try_with(&longer, "zeros at its end").await, 30);
    for cut in 0..20 {
        let len = log.len() * cut / 20 + cut % 3;
        try_with(&log[..len], &format!("cut to {len}")).await;
        let mut bent = log.clone();
        bent[len] ^= 0x10;
        try_with(&bent, &format!("a bit of byte {len}")).await;
    }
    assert!(counts.len() > 10, "{counts:?}");
    store.close().await;
}

#[tokio::test]
async fn a_missing_database_is_said_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let store = inhabit(dir.path()).await;
    let expected = read(&store).await.unwrap();
    store.close().await;
    for file in ["main.db", "logs.db"] {
        let (there, aside) = (dir.path().join(file), kept.path().join(file));
        fs::rename(&there, &aside).unwrap();
        for _ in 0..2 {
            let refused = opened(dir.path()).await.unwrap_err();
            let begin = format!(
                "{} is missing or empty; put it back, or restore a backup, or ",
                there.display()
            );
            assert!(refused.to_string().starts_with(&begin), "{refused}");
            assert!(!there.exists());
        }
        fs::rename(&aside, &there).unwrap();
        let store = opened(dir.path()).await.unwrap();
        assert_eq!(read(&store).await.unwrap(), expected);
        store.close().await;
    }
    // The way out that the error names.
    fs::write(dir.path().join("logs.db"), "").unwrap();
    let store = opened(dir.path()).await.unwrap();
    let found = read(&store).await.unwrap();
    assert_eq!((found.runs, found.unfinished), (expected.runs, expected.unfinished));
    assert!(found.output.iter().all(Vec::is_empty));
    write(&store).await.unwrap();
}
