//! kill -9 in the middle of writes: a child process writes and says what was acknowledged; all
//! of that must be there afterwards, and the databases sound.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fw_core::run::Kind;
use fw_rt::Clock;
use tokio::task::JoinSet;

use crate::conformance::fixture::{Story, at, chunk, host_id, run_id, task};
use crate::{Error, Store};

/// How often the child is killed.
const KILLS: u32 = 24;

/// Writers in the child.
const WRITERS: u32 = 16;

const CHILD: &str = "sqlite::kill_tests::the_child";

/// Set in the process that is to be killed.
const MARK: &str = "FLEETWRIGHT_TEST_CHILD";

fn spawn(dir: &Path, round: u32) -> Child {
    let binary = std::env::current_exe().unwrap();
    let mut child = Command::new(binary)
        .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{round} {}", dir.display()).unwrap();
    child
}

/// What the child said before it was killed: the events acknowledged of each run, and how
/// much of its output.
fn acknowledged(child: Child, after: usize) -> BTreeMap<u128, (u64, u64)> {
    let mut child = child;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = BTreeMap::new();
    let mut count = 0;
    for line in lines.map_while(Result::ok) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        // Lines of the test harness, and one cut off by the kill.
        let ["ack", run, events, bytes, "."] = words.as_slice() else { continue };
        said.insert(run.parse().unwrap(), (events.parse().unwrap(), bytes.parse().unwrap()));
        count += 1;
        if count == after {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(count >= after, "the child ended by itself after {count} lines: {status}");
    said
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = BTreeMap::new();
    for round in 0..KILLS {
        let child = spawn(dir.path(), round);
        let after = 1 + (round as usize * 37) % 400;
        said.extend(tokio::task::spawn_blocking(move || acknowledged(child, after)).await.unwrap());

        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        assert_eq!(store.integrity().await.unwrap(), [""; 0], "round {round}");
        let unfinished = store.unfinished().await.unwrap();
        let seqs: BTreeMap<_, _> = unfinished.iter().map(|run| (run.id, run.seq)).collect();
        for (run, (events, bytes)) in &said {
            let ended = store.run(run_id(*run)).await.unwrap();
            let ended = ended.is_some_and(|run| run.summary.finished_at.is_some());
            let seq = seqs.get(&run_id(*run)).copied();
            assert!(
                ended || seq >= Some(*events),
                "round {round}: run {run} has {seq:?} of {events}"
            );
            let durable = store.durable(host_id(0), vec![task(*run)]).await.unwrap();
            assert!(durable[0].stdout >= *bytes, "round {round}: output of run {run}: {durable:?}");
        }
        store.close().await;
    }
    assert!(said.len() > 100, "only {} runs were written", said.len());
}

/// The other half of [`nothing_acknowledged_is_lost_when_the_process_is_killed`]: does its work only in
/// the process that is to be killed.
#[tokio::test]
async fn the_child() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let Some((round, dir)) = line.trim().split_once(' ') else { return };
    let round: u32 = round.parse().unwrap();
    let store = Store::open(Path::new(dir), Clock::system()).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move { write(&store, round, writer).await });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap().unwrap();
    }
}

async fn write(store: &Store, round: u32, writer: u32) -> Result<(), Error> {
    for turn in 0..10_000_u32 {
        let run = (u128::from(round) << 64) | (u128::from(writer) << 32) | u128::from(turn);
        let mut story = Story::begin(run, 3, None, at(0));
        store.commit(vec![story.append()]).await?;
        say(run, story.run.seq, 0);
        let text = vec![b'x'; 1 + turn as usize % 5000];
        let durable = store.append_chunk(chunk(task(run), 0, &text)).await?;
        say(run, story.run.seq, durable.stdout);
        story = story.then(at(1), Kind::Asked { hosts: vec![host_id(1)] });
        if turn % 3 == 0 {
            story = story.ended(at(2), 0);
        }
        store.commit(vec![story.append()]).await?;
        say(run, story.run.seq, durable.stdout);
    }
    Ok(())
}

fn say(run: u128, events: u64, bytes: u64) {
    let line = format!("\nack {run} {events} {bytes} .\n");
    let mut out = std::io::stdout().lock();
    // The parent has killed us when this does not work.
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).ok();
}
