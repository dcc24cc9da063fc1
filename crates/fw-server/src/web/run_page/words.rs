//! Why a run or a host waits, was left out or failed, in sentences.

use fw_proto::Timestamp;
use fw_proto::api::{Armed, RunState, RunSummary, Task, TaskReason, TaskState, WaitingOn};

use crate::web::time::about;

/// Why the run does not go on, or how it came to its end.
pub(super) fn explain(run: &RunSummary, tasks: &[Task], now: Timestamp) -> Vec<String> {
    if !run.state.is_final() {
        return run.report.waiting_on.iter().map(|on| waiting(on, now)).collect();
    }
    let left_out = tasks.iter().filter(|task| task.state == TaskState::Skipped).count();
    let mut said = Vec::new();
    if run.state == RunState::Failed
        && tasks.iter().any(|task| task.reason == Some(TaskReason::Budget))
    {
        said.push(
            "The run began no further hosts, because so many had failed as it allows.".to_owned(),
        );
    }
    if left_out > 0 {
        said.push(format!("{} left out; the table says why.", hosts(left_out, "was", "were")));
    }
    said
}

fn waiting(on: &WaitingOn, now: Timestamp) -> String {
    let until = |at: Timestamp| format!("for at most {} more", about(at.since(now)));
    match *on {
        WaitingOn::Running { hosts } => format!("The command runs on {}.", count(hosts)),
        WaitingOn::Starting { hosts } => {
            format!("{} told to start and not answered yet.", have(hosts, "has been", "have been"))
        }
        WaitingOn::Offline { hosts, until: at } => {
            format!("{} offline, and waited for, {}.", have(hosts, "is", "are"), until(at))
        }
        WaitingOn::Parallel { hosts } => {
            format!(
                "{} for others to end: the run takes only so many at once.",
                have(hosts, "waits", "wait")
            )
        }
        WaitingOn::Budget { hosts } => format!(
            "{}, because those under way could use up the failures that are left.",
            have(hosts, "waits", "wait")
        ),
        WaitingOn::Spread { hosts, until: at } => {
            format!(
                "{} for its turn; the last begins in {}.",
                have(hosts, "waits", "wait"),
                about(at.since(now))
            )
        }
        WaitingOn::Restored { hosts } => format!(
            "{} say first what happened there: the server was restored from a backup.",
            have(hosts, "must", "must")
        ),
    }
}

fn count(number: u32) -> String {
    if number == 1 { "1 host".to_owned() } else { format!("{number} hosts") }
}

fn have(number: u32, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

fn hosts(number: usize, one: &str, more: &str) -> String {
    have(u32::try_from(number).unwrap_or(u32::MAX), one, more)
}

/// Why a host is where it is, when its state alone does not say.
pub(super) fn why(task: &Task) -> String {
    let reason = task.reason.map(reason);
    let waits = (task.armed == Some(Armed::Waiting))
        .then_some("changed; the host undoes it unless the change is confirmed in time");
    let parts = [reason, waits, task.message.as_deref(), task.late.as_deref()];
    let mut said: Vec<String> = parts.into_iter().flatten().map(str::to_owned).collect();
    let dropped = task.stdout_dropped_bytes.saturating_add(task.stderr_dropped_bytes);
    if dropped > 0 {
        said.push(format!("{dropped} bytes of output were not kept"));
    }
    match task.left_behind {
        0 => {}
        1 => said.push("one process was left behind".to_owned()),
        more => said.push(format!("{more} processes were left behind")),
    }
    said.join("; ")
}

fn reason(reason: TaskReason) -> &'static str {
    match reason {
        TaskReason::Offline => "offline for as long as it was waited for",
        TaskReason::Budget => "not begun: too many hosts had failed",
        TaskReason::Revoked => "the host was revoked or removed",
        TaskReason::Expired => "the start came too late",
        TaskReason::Fenced => "a newer server has taken over this host",
        TaskReason::Policy => "the host's own policy does not allow it",
        TaskReason::QueueFull => "too many tasks waited on the host",
        TaskReason::User => "no such user there, or the agent may not become that user",
        TaskReason::Spawn => "the program or directory could not be used",
        TaskReason::Disk => "the host could not write to its disk",
        TaskReason::NoSecret => "a secret it needs is gone",
        TaskReason::Overlap => "the job's earlier run was still going on",
        TaskReason::Replaced => "the job's next fire took its place",
        TaskReason::AgentOld => "its agent is too old to undo a change by itself: upgrade it",
        TaskReason::Kept => "the change is kept",
        TaskReason::Undone => "the host has undone the change",
        TaskReason::UndoFailed => {
            "THE UNDO FAILED: the change is still there, wholly or in part; look at the host"
        }
    }
}
