//! How a task ended, as Saltpeter says it: a number, and words at the end of its output.
//!
//! The numbers are the promised ones: 124 for a timeout and 143 for a kill, where Saltpeter's own
//! wrapper mostly says -15 for both.

use fw_proto::Span;
use fw_proto::api::{Task, TaskReason, TaskState};

/// Ended by its timeout.
pub const TIMED_OUT: i32 = 124;

/// Ended because someone wanted it.
pub const KILLED: i32 = 143;

/// Begun, and its machine was not heard of again.
pub const LOST: i32 = 253;

/// Could not be begun.
pub const NOT_BEGUN: i32 = 254;

/// Its machine did not answer.
pub const DOWN: i32 = 255;

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The exit code of the command, minus the signal that ended it, or one of the numbers above.
    pub code: i32,
    /// What follows the output.
    pub note: String,
}

/// What limits a task, as its run was planned; said in notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// How long it may take.
    pub timeout: Option<Span>,
    /// How long its machine may be unheard of beyond that.
    pub lost_after: Span,
}

/// How the task ended; `None` while it has not.
#[must_use]
pub fn ending(task: &Task, limits: Limits) -> Option<Ending> {
    let ending = |code, note: String| Some(Ending { code, note });
    match task.state {
        TaskState::Queued | TaskState::Starting | TaskState::Running => None,
        TaskState::Succeeded => ending(task.exit_code.unwrap_or(0), String::new()),
        TaskState::Failed => Some(failed(task)),
        TaskState::TimedOut => ending(TIMED_OUT, unsaid(task, timed_out(limits))),
        TaskState::Cancelled if task.started_at.is_none() => {
            ending(KILLED, "[Job killed before execution]".to_owned())
        }
        TaskState::Cancelled => {
            ending(KILLED, unsaid(task, "\n[Job terminated by user request]\n".to_owned()))
        }
        TaskState::Lost | TaskState::Unknown => ending(LOST, lost(limits)),
        TaskState::Refused => Some(not_begun(task)),
        TaskState::Skipped if is_down(task) => Some(down()),
        TaskState::Skipped => Some(not_begun(task)),
    }
}

/// A note that Saltpeter's wrapper writes itself. Output that came through it has no hash.
fn unsaid(task: &Task, note: String) -> String {
    if task.stdout_sha256.is_some() { note } else { String::new() }
}

/// Whether the machine did not answer when its turn came, so that Saltpeter would not have begun there.
#[must_use]
pub fn is_down(task: &Task) -> bool {
    let away = matches!(task.reason, Some(TaskReason::Offline | TaskReason::Revoked));
    let ended = matches!(task.state, TaskState::Failed | TaskState::Skipped);
    away && ended && task.started_at.is_none()
}

fn failed(task: &Task) -> Ending {
    if is_down(task) {
        return down();
    }
    match (task.exit_code, task.signal) {
        (Some(code), _) => Ending { code, note: String::new() },
        (None, Some(signal)) => Ending { code: signal.saturating_neg(), note: String::new() },
        (None, None) => not_begun(task),
    }
}

fn down() -> Ending {
    Ending { code: DOWN, note: "Target did not respond".to_owned() }
}

fn not_begun(task: &Task) -> Ending {
    let why = task.message.as_deref().or_else(|| task.reason.map(why)).unwrap_or("no reason given");
    Ending { code: NOT_BEGUN, note: format!("Wrapper failed to start - {why}") }
}

fn timed_out(limits: Limits) -> String {
    match limits.timeout {
        Some(timeout) => {
            format!("\n[Job exceeded timeout of {} seconds]\n", timeout.as_millis() / 1000)
        }
        None => "\n[SALTPETER ERROR: Job exceeded timeout]\n".to_owned(),
    }
}

fn lost(limits: Limits) -> String {
    let silent = limits.timeout.unwrap_or_default().as_millis() + limits.lost_after.as_millis();
    format!(
        "\n[SALTPETER ERROR: Job lost connection - no heartbeat for {} seconds]\n",
        silent / 1000
    )
}

/// A reason in plain words, for when the host gave no message.
const fn why(reason: TaskReason) -> &'static str {
    match reason {
        TaskReason::Offline => "the host was offline",
        TaskReason::Budget => "too many hosts had failed before",
        TaskReason::Revoked => "the host was revoked",
        TaskReason::Expired => "the start came too late",
        TaskReason::Fenced => "another server has taken over the host",
        TaskReason::Policy => "the host's policy does not allow it",
        TaskReason::QueueFull => "too many tasks wait on the host",
        TaskReason::User => "the user does not exist there, or cannot be become",
        TaskReason::Spawn => "the program or the directory could not be used",
        TaskReason::Disk => "the host's disk could not be written",
        TaskReason::NoSecret => "a secret that it needs is gone",
        TaskReason::Overlap => "an earlier run went on",
        TaskReason::Replaced => "the next run took its place",
        TaskReason::AgentOld => "the agent is too old to undo a change by itself",
        TaskReason::Kept => "the change was kept",
        TaskReason::Undone => "the change was undone",
        TaskReason::UndoFailed => "the change could not be undone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fw_proto::Timestamp;

    fn task(state: TaskState) -> Task {
        Task {
            host: "web-1".parse().unwrap(),
            state,
            reason: None,
            message: None,
            attempt: 1,
            exit_code: None,
            signal: None,
            started_at: Some(Timestamp::from_millis(1)),
            finished_at: Some(Timestamp::from_millis(2)),
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_sha256: Some("e3b0c442".to_owned()),
            stderr_sha256: None,
            stdout_dropped_bytes: 0,
            stderr_dropped_bytes: 0,
            left_behind: 0,
            armed: None,
            late: None,
        }
    }

    fn code(task: &Task) -> Option<i32> {
        ending(task, Limits::default()).map(|ending| ending.code)
    }

    #[test]
    fn each_ending_has_the_number_that_users_were_promised() {
        for state in [TaskState::Queued, TaskState::Starting, TaskState::Running] {
            assert_eq!(code(&task(state)), None);
        }
        let exited = Task { exit_code: Some(3), ..task(TaskState::Failed) };
        let killed = Task { signal: Some(9), ..task(TaskState::Failed) };
        let reason = |state, reason| Task { reason: Some(reason), started_at: None, ..task(state) };
        let cases = [
            (task(TaskState::Succeeded), 0),
            (exited, 3),
            (killed, -9),
            (task(TaskState::TimedOut), 124),
            (task(TaskState::Cancelled), 143),
            (task(TaskState::Lost), 253),
            (task(TaskState::Unknown), 253),
            (reason(TaskState::Refused, TaskReason::Policy), 254),
            (reason(TaskState::Failed, TaskReason::Spawn), 254),
            (reason(TaskState::Skipped, TaskReason::Overlap), 254),
            (reason(TaskState::Failed, TaskReason::Offline), 255),
            (reason(TaskState::Skipped, TaskReason::Offline), 255),
        ];
        for (task, number) in cases {
            assert_eq!(code(&task), Some(number), "{task:?}");
        }
    }

    #[test]
    fn words_say_what_the_number_means() {
        let limits =
            Limits { timeout: Some(Span::from_secs(90)), lost_after: Span::from_secs(600) };
        let note = |state| ending(&task(state), limits).unwrap().note;
        assert_eq!(note(TaskState::TimedOut), "\n[Job exceeded timeout of 90 seconds]\n");
        let by_wrapper = Task { stdout_sha256: None, ..task(TaskState::TimedOut) };
        assert_eq!(ending(&by_wrapper, limits).unwrap().note, "");
        assert_eq!(
            note(TaskState::Lost),
            "\n[SALTPETER ERROR: Job lost connection - no heartbeat for 690 seconds]\n"
        );
        let refused = Task { message: Some("no such user".to_owned()), ..task(TaskState::Refused) };
        assert_eq!(
            ending(&refused, limits).unwrap().note,
            "Wrapper failed to start - no such user"
        );
    }
}
