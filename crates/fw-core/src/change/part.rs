//! What became of a node on one host.

use fw_proto::api::{Armed, Task, TaskReason, TaskState};

use crate::runbook::Expect;

/// What became of a node on one host. Recorded, so that no later version judges again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It was not begun and may be later: the change was paused, or its failures were used up.
    NotBegun,
    /// It was left out on purpose: the host was offline, and such hosts are skipped.
    Skipped,
    /// It succeeded.
    Done,
    /// It could not be begun there. There is nothing to take back.
    Refused,
    /// It was begun and did not succeed.
    Failed,
    /// Nobody can tell whether it was begun, or how it ended.
    Unknown,
    /// It was begun, and the host itself has taken it back.
    TakenBack,
    /// It was begun, and the host tried to take it back and could not.
    NotTakenBack,
}

impl Part {
    /// What the end of a task amounts to. `expected` is what [`judge`] says, where a node says
    /// what counts as success.
    #[must_use]
    pub fn of(task: &Task, expected: Option<bool>) -> Self {
        let begun = task.started_at.is_some();
        match task.armed {
            Some(Armed::Undone) => return Self::TakenBack,
            Some(Armed::UndoFailed) => return Self::NotTakenBack,
            Some(Armed::Waiting | Armed::Kept) | None => {}
        }
        match (task.state, task.reason) {
            (TaskState::Queued | TaskState::Starting | TaskState::Running, _) => Self::Unknown,
            (TaskState::Skipped, Some(TaskReason::Offline)) => Self::Skipped,
            (TaskState::Skipped, _) => Self::NotBegun,
            (TaskState::Cancelled, _) if !begun => Self::NotBegun,
            (TaskState::Lost | TaskState::Unknown, _) => Self::Unknown,
            (TaskState::Succeeded, _) | (TaskState::Failed, None) if begun => {
                let good = expected.unwrap_or(task.state == TaskState::Succeeded);
                if good { Self::Done } else { Self::Failed }
            }
            (TaskState::Succeeded, _) => Self::Done,
            (TaskState::Failed | TaskState::TimedOut | TaskState::Cancelled, _) if begun => {
                Self::Failed
            }
            (
                TaskState::Failed | TaskState::TimedOut | TaskState::Cancelled | TaskState::Refused,
                _,
            ) => Self::Refused,
        }
    }

    /// Whether it counts against the budget.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::NotBegun | Self::Skipped | Self::Done => false,
            Self::Refused | Self::Failed | Self::Unknown | Self::TakenBack | Self::NotTakenBack => {
                true
            }
        }
    }

    /// Whether something may be left on the host that an undo has to take back.
    #[must_use]
    pub const fn leaves_something(self) -> bool {
        match self {
            Self::Done | Self::Failed | Self::Unknown | Self::NotTakenBack => true,
            Self::NotBegun | Self::Skipped | Self::Refused | Self::TakenBack => false,
        }
    }

    /// Its word, in API and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotBegun => "not_begun",
            Self::Skipped => "skipped",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::TakenBack => "taken_back",
            Self::NotTakenBack => "not_taken_back",
        }
    }
}

/// Whether a task did what was expected of it; `None` when nothing was said. `stdout` is what it
/// printed.
#[must_use]
pub fn judge(expect: Option<&Expect>, exit_code: Option<i32>, stdout: &str) -> Option<bool> {
    let zero = exit_code == Some(0);
    Some(match expect? {
        Expect::Exit(codes) => {
            exit_code.is_some_and(|code| codes.iter().any(|expected| i32::from(*expected) == code))
        }
        Expect::Text(text) => zero && stdout.contains(text.as_str()),
        Expect::Pattern(pattern) => {
            // By lines, as `grep -E` looks: what is printed ends with a line break.
            let built = regex::RegexBuilder::new(pattern).multi_line(true).build();
            zero && built.is_ok_and(|pattern| pattern.is_match(stdout))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_looked_for_line_by_line() {
        let holds = |pattern: &str, stdout: &str| {
            judge(Some(&Expect::Pattern(pattern.to_owned())), Some(0), stdout)
        };
        assert_eq!(holds("^v[0-9]+$", "v12\n"), Some(true), "a line break ends what is printed");
        assert_eq!(holds("^b$", "a\nb\nc\n"), Some(true));
        assert_eq!(holds("^v[0-9]+$", "v12 or so\n"), Some(false));
        assert_eq!(judge(Some(&Expect::Pattern("a".to_owned())), Some(1), "a"), Some(false));
    }
}
