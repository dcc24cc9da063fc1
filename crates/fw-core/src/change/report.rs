//! What a change amounts to: where it stands, and why it does not go on.

use std::collections::BTreeSet;

use fw_proto::api::{Approval, ChangeState};
use fw_proto::{HostId, Timestamp};

use super::plan::{Act, Node};
use super::state::{Cause, Change, Course, Progress, Stand};
use crate::run::Actor;

/// So many hosts are named in a sentence, which has to fit into a list; a page has them all.
const MOST_NAMED: usize = 3;

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
            Course::Succeeded => {
                let hosts = self.named(|host| self.failed.contains(&host))?;
                Some(format!("it failed on {hosts}, and so many may"))
            }
            Course::Undone => self.broken.map(|node| self.failed_in(node)),
            Course::Failed => Some(self.broken.map_or_else(
                || "a person ended it before it was through".to_owned(),
                |node| self.failed_in(node),
            )),
            Course::UndoFailed => Some(match self.named(|host| self.stuck.contains(&host)) {
                Some(hosts) if self.stuck.len() == 1 => {
                    format!("it could not be taken back on {hosts}; look at it now")
                }
                Some(hosts) => format!("it could not be taken back on {hosts}; look at them now"),
                None => "it could not be taken back; look at it now".to_owned(),
            }),
        }
    }

    fn paused(&self) -> Option<String> {
        let pause = self.pause.as_ref()?;
        let title = |node: u32| self.title_at(place(node));
        Some(match pause.cause {
            Cause::Asked => format!("paused by {}", pause.by.shown()),
            Cause::Failed(node) => {
                let failed = self.failed_in(node);
                format!("{failed}; resume tries it again, undo takes all back")
            }
            Cause::Cancelled(node) => {
                format!("the run of {} was cancelled; resume goes on with it", title(node))
            }
            Cause::Expired(node) => {
                format!("{}: not approved in time; resume asks again", title(node))
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
                format!(
                    "{title}: {have} of {asked} approvals by role {}{}",
                    gate.by,
                    until(progress)
                )
            }
            Act::Window(hours) => {
                let hours = format!("{} {}", hours.windows.join(", "), hours.timezone);
                format!("{title}: waits for its hours, {hours}{}", until(progress))
            }
            Act::Tick => format!("{title}: a person does it and ticks it"),
            Act::Confirm => format!("{title}: a person says whether it runs"),
        })
    }

    /// That a node failed, and on which hosts; of a rehearsal its title says on which.
    fn failed_in(&self, node: u32) -> String {
        let title = self.title_at(place(node));
        let parts = self.nodes.get(place(node)).map(|progress| &progress.parts);
        let fails =
            |host| parts.and_then(|parts| parts.get(&host)).is_some_and(|part| part.is_failure());
        match self.named(fails) {
            Some(hosts) if !self.is_rehearsal(node) => format!("{title} failed on {hosts}"),
            Some(_) | None => format!("{title} failed"),
        }
    }

    /// The first few of the hosts that are meant, by name, and how many more there are.
    fn named(&self, meant: impl Fn(HostId) -> bool) -> Option<String> {
        let mut seen = BTreeSet::new();
        let hosts = self.plan.nodes.iter().filter_map(Node::work).flat_map(|work| &work.hosts);
        let meant = hosts.filter(|host| meant(host.id) && seen.insert(host.id));
        let names: Vec<_> = meant.map(|host| host.name.as_str()).collect();
        let (last, before) = names.split_last()?;
        Some(match names.get(MOST_NAMED..) {
            Some(more) if !more.is_empty() => {
                let first = names.get(..MOST_NAMED).unwrap_or_default();
                format!("{} and {} more", first.join(", "), more.len())
            }
            Some(_) | None if before.is_empty() => (*last).to_owned(),
            Some(_) | None => format!("{} and {last}", before.join(", ")),
        })
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

/// How long it waits at most, where that is known.
fn until(progress: &Progress) -> String {
    progress.until.map_or_else(String::new, |until| format!(", until {until}"))
}

fn place(node: u32) -> usize {
    usize::try_from(node).unwrap_or(usize::MAX)
}
