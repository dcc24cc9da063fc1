//! What a change amounts to: where it stands, and why it does not go on.

use fw_proto::Timestamp;
use fw_proto::api::{Approval, ChangeState};

use super::plan::Act;
use super::state::{Cause, Change, Course, Progress, Stand};
use crate::run::Actor;

impl Change {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> ChangeState {
        match self.course {
            Course::Forward if self.pause.is_some() => ChangeState::Paused,
            Course::Forward => self.forward_state(),
            Course::Aborting => ChangeState::Running,
            Course::Undoing => ChangeState::Undoing,
            Course::Succeeded => ChangeState::Succeeded,
            Course::Failed => ChangeState::Failed,
            Course::Undone => ChangeState::Undone,
            Course::UndoFailed => ChangeState::UndoFailed,
        }
    }

    fn forward_state(&self) -> ChangeState {
        if self.seq == 1 {
            return ChangeState::Planned;
        }
        let open = self.nodes.get(self.at).is_some_and(|one| one.stand == Stand::Open);
        match self.plan.nodes.get(self.at).map(|node| &node.act) {
            Some(Act::Approve(_)) if open => ChangeState::AwaitingApproval,
            Some(Act::Tick | Act::Confirm) if open => ChangeState::AwaitingPerson,
            Some(
                Act::Exec(_)
                | Act::Wait(_)
                | Act::Window(_)
                | Act::Approve(_)
                | Act::Tick
                | Act::Confirm,
            )
            | None => ChangeState::Running,
        }
    }

    /// Why it does not go on, or what it does, in a sentence without its full stop.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        match self.course {
            Course::Forward => self.pause.as_ref().map_or_else(|| self.doing(), |_| self.paused()),
            Course::Aborting => {
                Some("it ends when the commands that are cancelled have".to_owned())
            }
            Course::Undoing => Some(format!("taking back {}", self.title_at(self.at))),
            Course::Succeeded | Course::Undone => None,
            Course::Failed => Some(self.failed_node().map_or_else(
                || "a person ended it before it was through".to_owned(),
                |at| format!("{} failed", self.title_at(at)),
            )),
            Course::UndoFailed => Some(match self.stuck.len() {
                1 => "it could not be taken back on 1 host; look at it now".to_owned(),
                hosts => format!("it could not be taken back on {hosts} hosts; look at them now"),
            }),
        }
    }

    fn paused(&self) -> Option<String> {
        let pause = self.pause.as_ref()?;
        let title = |node: u32| {
            usize::try_from(node).map_or_else(|_| String::new(), |at| self.title_at(at))
        };
        Some(match pause.cause {
            Cause::Asked => format!("paused by {}", pause.by.shown()),
            Cause::Failed(node) => {
                format!("{} failed; resume tries it again, undo takes all back", title(node))
            }
            Cause::Cancelled(node) => {
                format!("the run of {} was cancelled; resume goes on with it", title(node))
            }
            Cause::Expired(node) => {
                format!("nobody approved {} in time; resume asks again", title(node))
            }
        })
    }

    fn doing(&self) -> Option<String> {
        let (node, progress) = (self.plan.nodes.get(self.at)?, self.nodes.get(self.at)?);
        let title = self.title_at(self.at);
        Some(match &node.act {
            Act::Exec(_) => title,
            Act::Wait(span) => match progress.until {
                Some(until) => format!("{title}: waits until {until}"),
                None => format!("{title}: waits for {span}"),
            },
            Act::Approve(gate) => {
                let (have, asked) = (progress.approvals.len(), gate.people);
                format!("{title}: {have} of {asked} approvals by role {}", gate.by)
            }
            Act::Window(hours) => {
                let hours = format!("{} {}", hours.windows.join(", "), hours.timezone);
                format!("{title}: waits for its hours, {hours}")
            }
            Act::Tick => format!("{title}: done by a person, who says so"),
            Act::Confirm => format!("{title}: a person says whether it runs"),
        })
    }

    fn failed_node(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.stand == Stand::Failed)
    }

    fn title_at(&self, at: usize) -> String {
        self.plan.nodes.get(at).map_or_else(String::new, |node| node.title.clone())
    }
}

impl Progress {
    /// Who has approved it, as the API shows them.
    pub(crate) fn approved(&self) -> Vec<Approval> {
        let shown = |(by, at): &(Actor, Timestamp)| Approval {
            by: by.to_string(),
            by_kind: Some(by.kind()),
            at: *at,
        };
        self.approvals.iter().map(shown).collect()
    }
}
