//! What the commands of a change printed: for later ones that use it, and to judge them by.

use std::collections::BTreeMap;

use fw_core::change::{Change, Part, Work};
use fw_core::runbook::Output;
use fw_proto::api::Command;
use fw_proto::record::{self, Body, MAX_CHUNK, Stream};
use fw_proto::{HostId, RunId};
use fw_store::{Store, StoredChunk};

/// What a later command gets of a step's output, in bytes: more does not fit into a command.
const MOST_FILLED: usize = 64 * 1024;

/// What is looked at to judge a command by its output, in bytes.
pub(super) const MOST_JUDGED: usize = 1024 * 1024;

/// Chunks that are read at a time; each has at most 256 KiB.
const CHUNKS: u32 = 4;

/// What the steps before `node` left behind, as far as this work's command may name them. Of a step on
/// several hosts that is the first one, in the order of its hosts, on which it was done.
pub(super) async fn of_earlier(
    store: &Store,
    change: &Change,
    node: u32,
    work: &Work,
) -> Result<BTreeMap<String, Output>, fw_store::Error> {
    let before = usize::try_from(node).unwrap_or(usize::MAX);
    let mut outputs = BTreeMap::new();
    for (at, earlier) in change.plan.nodes.iter().enumerate().take(before) {
        if earlier.work().is_none() || !names(work, &earlier.id) {
            continue;
        }
        if let Some(output) = of_node(store, change, at).await? {
            outputs.insert(earlier.id.clone(), output);
        }
    }
    Ok(outputs)
}

/// Whether a command may use what this step printed.
fn names(work: &Work, step: &str) -> bool {
    let name = format!("steps.{}", step.replace('-', "_"));
    let within = |text: &String| text.contains(&name);
    let template = work.fill.as_ref().map(|fill| &fill.template);
    let words = match &work.exec.command {
        Command::Shell(text) => std::slice::from_ref(text),
        Command::Argv(words) => words.as_slice(),
    };
    template.is_some_and(within) || words.iter().any(within)
}

async fn of_node(
    store: &Store,
    change: &Change,
    at: usize,
) -> Result<Option<Output>, fw_store::Error> {
    let (Some(node), Some(progress)) = (change.plan.nodes.get(at), change.nodes.get(at)) else {
        return Ok(None);
    };
    let Some(work) = node.work() else { return Ok(None) };
    let done = |host: &HostId| progress.parts.get(host) == Some(&Part::Done);
    let hosts = || work.hosts.iter().map(|host| host.id);
    let tried = |host: &HostId| progress.tries.iter().any(|one| one.hosts.contains(host));
    let Some(host) = hosts().find(done).or_else(|| hosts().find(tried)) else { return Ok(None) };
    let Some(last) = progress.tries.iter().rev().find(|one| one.hosts.contains(&host)) else {
        return Ok(None);
    };
    let Some(task) = store.task(last.run, host).await? else { return Ok(None) };
    let stdout = stdout(store, last.run, host, task.attempt, MOST_FILLED).await?;
    Ok(Some(Output { stdout, exit_code: i64::from(task.exit_code.unwrap_or(-1)) }))
}

/// The beginning of what a task wrote to its standard output. Bytes that are no UTF-8 are replaced.
pub(super) async fn stdout(
    store: &Store,
    run: RunId,
    host: HostId,
    attempt: u16,
    most: usize,
) -> Result<String, fw_store::Error> {
    let (mut bytes, mut after) = (Vec::new(), 0);
    while bytes.len() < most {
        let chunks = store.log_chunks(run, host, attempt, after, CHUNKS).await?;
        let Some(last) = chunks.last() else { break };
        after = last.n;
        for chunk in &chunks {
            take(chunk, &mut bytes);
        }
    }
    bytes.truncate(most);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn take(chunk: &StoredChunk, bytes: &mut Vec<u8>) {
    // The store has checked it against this bound when it came; what is damaged is told where it is shown.
    let Ok(raw) = zstd::bulk::decompress(&chunk.data, MAX_CHUNK) else { return };
    for record in record::records(&raw).map_while(Result::ok) {
        match (record.stream, record.body) {
            (Stream::Stdout, Body::Bytes(more)) => bytes.extend_from_slice(more),
            (Stream::Stdout, Body::Gap(_)) | (Stream::Stderr, Body::Bytes(_) | Body::Gap(_)) => {}
        }
    }
}
