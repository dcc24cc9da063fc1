//! What the commands of a change printed: for later ones that use it, and to judge them by.

use std::collections::BTreeMap;

use fw_core::change::{Change, Part, Way, Work};
use fw_core::runbook::Output;
use fw_proto::HostId;
use fw_proto::api::Command;
use fw_proto::record::Stream;
use fw_store::Store;

use crate::output::{self, Printed, Task};

/// What a later command gets of a step's output, in bytes: more does not fit into a command.
const MOST_FILLED: usize = 64 * 1024;

/// What is looked at to judge a command by its output, in bytes.
const MOST_JUDGED: usize = 1024 * 1024;

/// What the steps before `node` left behind, as far as this work's command may name them; or why that
/// cannot be put into a command. What takes a step back may also use what that step printed. Of a step on
/// several hosts it is the first one, in the order of its hosts, on which it was done.
pub(super) async fn of_earlier(
    store: &Store,
    change: &Change,
    node: u32,
    way: Way,
    work: &Work,
) -> Result<Result<BTreeMap<String, Output>, String>, fw_store::Error> {
    let own = usize::from(way == Way::Undo);
    let before = usize::try_from(node).unwrap_or(usize::MAX).saturating_add(own);
    let mut outputs = BTreeMap::new();
    for (at, earlier) in change.plan.nodes.iter().enumerate().take(before) {
        if earlier.work().is_none() || !names(work, &earlier.id) {
            continue;
        }
        match of_node(store, change, at).await? {
            None => {}
            Some((Printed { whole: false, .. }, _)) => return Ok(Err(not_whole(&earlier.id))),
            Some((Printed { bytes, .. }, exit_code)) => {
                let stdout = String::from_utf8_lossy(&bytes).into_owned();
                outputs.insert(earlier.id.clone(), Output { stdout, exit_code });
            }
        }
    }
    Ok(Ok(outputs))
}

/// A part of a value may mean something else than the whole.
fn not_whole(step: &str) -> String {
    format!(
        "what step {step} printed is not all there, or longer than {} KiB, and is put into no command; \
         let it print less",
        MOST_FILLED / 1024
    )
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
) -> Result<Option<(Printed, i64)>, fw_store::Error> {
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
    let Some(ended) = store.task(last.run, host).await? else { return Ok(None) };
    let task = Task { run: last.run, host, attempt: ended.attempt };
    let printed = output::read(store, task, Some(Stream::Stdout), MOST_FILLED).await?;
    Ok(Some((printed, i64::from(ended.exit_code.unwrap_or(-1)))))
}

/// The beginning of what a task wrote to its standard output, to look for something in it. Bytes that are
/// no UTF-8 are replaced.
pub(super) async fn to_judge(store: &Store, task: Task) -> Result<String, fw_store::Error> {
    let printed = output::read(store, task, Some(Stream::Stdout), MOST_JUDGED).await?;
    Ok(String::from_utf8_lossy(&printed.bytes).into_owned())
}
