//! `Change::step`: the only way a change moves.
//!
//! Events that come late or twice move nothing: an end is heard once, and a node that is done
//! stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_proto::{ChangeId, HostId, RunId, Timestamp};

use super::event::{Event, Kind};
use super::part::Part;
use super::plan::{Act, OnFailure, Origin, UndoWhen};
use super::state::{Cause, Change, Course, Pause, Progress, Stand, Try, Way};
use crate::run::Actor;

/// A history that does not begin with [`Kind::Planned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change's first event must be its plan")]
pub struct NotPlanned;

/// What a run amounts to.
struct Outcome<'e> {
    run: RunId,
    parts: &'e [(HostId, Part)],
    cancelled: bool,
}

impl Outcome<'_> {
    /// What became of each host of the run; of one that is not named nobody can tell.
    fn each(&self, hosts: &[HostId]) -> Vec<(HostId, Part)> {
        let parts: BTreeMap<_, _> = self.parts.iter().copied().collect();
        let part = |host: &HostId| parts.get(host).copied().unwrap_or(Part::Unknown);
        hosts.iter().map(|host| (*host, part(host))).collect()
    }
}

impl Change {
    /// Begins a change with its first event.
    ///
    /// # Errors
    /// The event is not [`Kind::Planned`].
    pub fn begin(id: ChangeId, first: &Event) -> Result<Self, NotPlanned> {
        let Kind::Planned(plan) = &first.kind else { return Err(NotPlanned) };
        let mut change = Self {
            id,
            by: first.by.clone(),
            created_at: first.at,
            seq: 1,
            nodes: plan.nodes.iter().map(|_| Progress::default()).collect(),
            course: Course::Forward,
            at: 0,
            pause: None,
            failed: BTreeSet::new(),
            stuck: BTreeSet::new(),
            broken: None,
            finished_at: None,
            plan: Arc::new(super::Plan::clone(plan)),
        };
        change.go_on(first.at);
        Ok(change)
    }

    /// Folds a whole history.
    ///
    /// # Errors
    /// It does not begin with [`Kind::Planned`].
    pub fn fold<'a>(
        id: ChangeId,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, NotPlanned> {
        let mut events = events.into_iter();
        let mut change = Self::begin(id, events.next().ok_or(NotPlanned)?)?;
        events.for_each(|event| change.step(event));
        Ok(change)
    }

    /// Applies one event.
    pub fn step(&mut self, event: &Event) {
        self.seq += 1;
        let (at, by) = (event.at, &event.by);
        match &event.kind {
            Kind::Planned(_) => {}
            Kind::Opened { node, until } => self.opened(*node, *until, at),
            Kind::Passed { node, note } => self.passed(*node, by, note.as_ref(), at),
            Kind::Approved { node } => self.approved(*node, by, at),
            Kind::Expired { node } => self.expired(*node, by, at),
            Kind::Skipped { node, note } => self.skipped(*node, by, note.as_ref(), at),
            Kind::Began { node, way, run, hosts } => self.began(*node, *way, *run, hosts, at),
            Kind::Ended { node, way, run, parts, cancelled } => {
                let outcome = Outcome { run: *run, parts, cancelled: *cancelled };
                match way {
                    Way::Do => self.done(*node, &outcome, by, at),
                    Way::Undo => self.undone(*node, &outcome, at),
                }
            }
            Kind::NotBegun { node, way, why } => self.not_begun(*node, *way, why, by, at),
            Kind::PauseRequested => self.wait_for_a_person(Cause::Asked, by, at),
            Kind::Resumed => self.resumed(),
            Kind::AbortRequested => self.head(Course::Aborting),
            Kind::UndoRequested => self.turn_back(),
        }
        self.go_on(at);
    }

    /// A node of the plan, if it is the one whose turn it is.
    fn current(&mut self, node: u32) -> Option<&mut Progress> {
        let at = usize::try_from(node).ok().filter(|at| *at == self.at)?;
        self.nodes.get_mut(at)
    }

    fn opened(&mut self, node: u32, until: Option<Timestamp>, at: Timestamp) {
        let Some(progress) = self.current(node).filter(|one| one.stand == Stand::Ahead) else {
            return;
        };
        progress.stand = Stand::Open;
        progress.began_at.get_or_insert(at);
        progress.until = until;
    }

    /// What waits for people's approval is passed by that alone, and nothing while a run goes on.
    fn passed(&mut self, node: u32, by: &Actor, note: Option<&String>, at: Timestamp) {
        let gate = matches!(self.act(node), Some(Act::Approve(_)));
        if !gate && self.pause.is_none() && self.open_try().is_none() {
            self.close(node, Stand::Done, by, note, at);
        }
    }

    fn act(&self, node: u32) -> Option<&Act> {
        let node = usize::try_from(node).ok().and_then(|at| self.plan.nodes.get(at));
        node.map(|node| &node.act)
    }

    fn close(&mut self, node: u32, stand: Stand, by: &Actor, note: Option<&String>, at: Timestamp) {
        if self.course != Course::Forward {
            return;
        }
        let Some(progress) = self.current(node) else { return };
        progress.stand = stand;
        progress.began_at.get_or_insert(at);
        progress.ended_at = Some(at);
        progress.by = Some(by.clone());
        progress.note = note.cloned();
    }

    fn approved(&mut self, node: u32, by: &Actor, at: Timestamp) {
        let Some(Act::Approve(gate)) = self.act(node) else { return };
        let people = usize::try_from(gate.people).unwrap_or(usize::MAX);
        let open = |one: &&mut Progress| one.stand == Stand::Open;
        let Some(progress) = self.current(node).filter(open) else { return };
        if progress.approvals.iter().all(|(who, _)| who != by) {
            progress.approvals.push((by.clone(), at));
        }
        if progress.approvals.len() >= people {
            self.close(node, Stand::Done, by, None, at);
        }
    }

    fn expired(&mut self, node: u32, by: &Actor, at: Timestamp) {
        let open = |one: &&mut Progress| one.stand == Stand::Open;
        let Some(progress) = self.current(node).filter(open) else { return };
        progress.stand = Stand::Ahead;
        progress.until = None;
        progress.approvals.clear();
        self.wait_for_a_person(Cause::Expired(node), by, at);
    }

    /// Goes on without a node, and without what it would let run. Hosts that failed in it take part again: a
    /// person has looked.
    fn skipped(&mut self, node: u32, by: &Actor, note: Option<&String>, at: Timestamp) {
        if self.open_try().is_some() {
            return;
        }
        self.close(node, Stand::Skipped, by, note, at);
        let skipped = |one: &&mut Progress| one.stand == Stand::Skipped;
        let Some(progress) = self.current(node).filter(skipped) else { return };
        progress.again.clear();
        let failed: BTreeSet<_> = failed_in(progress).collect();
        self.broken = None;
        self.failed.retain(|host| !failed.contains(host));
        if self.pause.as_ref().is_some_and(|pause| pause.cause != Cause::Asked) {
            self.pause = None;
        }
        self.skip_rest(by, at);
    }

    /// What comes after in the same step: the command that it asks about, the proof of what a person does.
    fn skip_rest(&mut self, by: &Actor, at: Timestamp) {
        let plan = Arc::clone(&self.plan);
        let Some(step) = plan.nodes.get(self.at).map(|node| &node.id) else { return };
        let rest = plan.nodes.iter().zip(&mut self.nodes).skip(self.at + 1);
        for (_, progress) in rest.take_while(|(node, _)| node.id == *step) {
            progress.stand = Stand::Skipped;
            progress.began_at = Some(at);
            progress.ended_at = Some(at);
            progress.by = Some(by.clone());
        }
    }

    fn began(&mut self, node: u32, way: Way, run: RunId, hosts: &[HostId], at: Timestamp) {
        let due = match way {
            Way::Do => self.course == Course::Forward,
            Way::Undo => self.course == Course::Undoing,
        };
        if !due || self.open_try().is_some() {
            return;
        }
        let Some(progress) = self.current(node) else { return };
        let begun = Try { run, hosts: hosts.to_vec(), ended: false };
        match way {
            Way::Do => {
                progress.stand = Stand::Open;
                progress.began_at.get_or_insert(at);
                progress.tries.push(begun);
            }
            Way::Undo => progress.undo_tries.push(begun),
        }
    }

    fn done(&mut self, node: u32, outcome: &Outcome<'_>, by: &Actor, at: Timestamp) {
        let (most, rehearsal) = (self.retries(node), self.is_rehearsal(node));
        let Some(progress) = self.current(node) else { return };
        let Some(hosts) = heard(&mut progress.tries, outcome.run) else { return };
        let mut failed = Vec::new();
        for (host, part) in outcome.each(&hosts) {
            let fails = progress.note_part(host, part);
            if fails && !progress.is_tried_again(host, most) {
                failed.push(host);
            }
        }
        self.failed.extend(failed.iter().copied());
        if self.course != Course::Forward {
            return;
        }
        let paused = self.pause.is_some();
        if outcome.cancelled && !paused {
            self.wait_for_a_person(Cause::Cancelled(node), by, at);
        } else if !failed.is_empty() && (rehearsal || self.failures_left() == 0) {
            self.fail(node, by, at);
        } else if usize::try_from(node).is_ok_and(|node| self.remaining(node).is_empty()) {
            // A wave that went well nowhere has proved nothing, whatever failures are left.
            if self.current(node).is_some_and(|progress| progress.went_well_nowhere()) {
                self.fail(node, by, at);
            } else {
                self.close(node, Stand::Done, by, None, at);
            }
        }
    }

    fn undone(&mut self, node: u32, outcome: &Outcome<'_>, at: Timestamp) {
        let Some(progress) = self.current(node) else { return };
        let Some(hosts) = heard(&mut progress.undo_tries, outcome.run) else { return };
        progress.ended_at = Some(at);
        let parts = outcome.each(&hosts);
        progress.undo_parts.extend(parts.iter().copied());
        let failed = parts.iter().filter(|(_, part)| *part != Part::Done);
        self.stuck.extend(failed.map(|(host, _)| *host));
    }

    fn not_begun(&mut self, node: u32, way: Way, why: &str, by: &Actor, at: Timestamp) {
        let due = match way {
            Way::Do => self.course == Course::Forward && self.pause.is_none(),
            Way::Undo => self.course == Course::Undoing,
        };
        if !due || self.open_try().is_some() {
            return;
        }
        let Some(progress) = self.current(node) else { return };
        progress.note = Some(why.to_owned());
        match way {
            Way::Do => self.fail(node, by, at),
            Way::Undo => {
                let hosts = self.to_undo(self.at);
                self.stuck.extend(hosts);
            }
        }
    }

    fn retries(&self, node: u32) -> u32 {
        let node = usize::try_from(node).ok().and_then(|at| self.plan.nodes.get(at));
        node.and_then(super::Node::work).map_or(0, |work| work.retries)
    }

    /// Whether a node takes itself back where it succeeds. Then it is there to find out whether the rest
    /// may begin, so the failures that are left do not matter.
    pub(super) fn is_rehearsal(&self, node: u32) -> bool {
        let node = usize::try_from(node).ok().and_then(|at| self.plan.nodes.get(at));
        node.and_then(|node| node.undo.as_ref()).is_some_and(|undo| undo.when == UndoWhen::Failed)
    }

    fn fail(&mut self, node: u32, by: &Actor, at: Timestamp) {
        self.broken = Some(node);
        if let Some(progress) = self.current(node) {
            progress.stand = Stand::Failed;
            progress.ended_at = Some(at);
        }
        match self.plan.on_failure {
            OnFailure::Pause => {
                // Whoever asked for a pause before did not know of this.
                self.pause = None;
                self.wait_for_a_person(Cause::Failed(node), by, at);
            }
            OnFailure::Undo => self.turn_back(),
            OnFailure::Stop => self.head(Course::Aborting),
        }
    }

    fn wait_for_a_person(&mut self, cause: Cause, by: &Actor, at: Timestamp) {
        if self.course == Course::Forward && self.pause.is_none() {
            self.pause = Some(Pause { at, by: by.clone(), cause });
        }
    }

    /// Lets it go on. What failed, or was cancelled, is tried again.
    fn resumed(&mut self) {
        let Some(pause) = self.pause.take() else { return };
        let node = match pause.cause {
            Cause::Failed(node) | Cause::Cancelled(node) => node,
            Cause::Asked | Cause::Expired(_) => return,
        };
        let Some(progress) = self.current(node) else { return };
        progress.stand = Stand::Open;
        progress.ended_at = None;
        progress.note = None;
        let failed: BTreeSet<_> = failed_in(progress).collect();
        progress.again.extend(failed.iter().copied());
        self.broken = None;
        self.failed.retain(|host| !failed.contains(host));
    }

    fn head(&mut self, course: Course) {
        if self.course == Course::Forward {
            self.course = course;
            self.pause = None;
        }
    }

    /// Back from here, also from an end at which everything stayed as it was done.
    fn turn_back(&mut self) {
        match self.course {
            Course::Forward | Course::Aborting | Course::Succeeded | Course::Failed => {
                self.course = Course::Undoing;
                self.pause = None;
                self.finished_at = None;
                self.at = self.at.min(self.nodes.len().saturating_sub(1));
            }
            Course::Undoing | Course::Undone | Course::UndoFailed => {}
        }
    }

    /// Moves on as far as nothing is to be done.
    fn go_on(&mut self, at: Timestamp) {
        if self.open_try().is_some() || self.finished_at.is_some() {
            return;
        }
        match self.course {
            Course::Forward => {
                let past = |one: &Progress| matches!(one.stand, Stand::Done | Stand::Skipped);
                while self.nodes.get(self.at).is_some_and(past) {
                    self.at += 1;
                }
                if self.at == self.nodes.len() {
                    self.end(Course::Succeeded, at);
                }
            }
            Course::Aborting => self.end(Course::Failed, at),
            Course::Undoing => self.go_back(at),
            Course::Succeeded | Course::Failed | Course::Undone | Course::UndoFailed => {}
        }
    }

    /// Backwards to the next node that is to be taken back. In a runbook later steps may need what
    /// earlier ones made, so there it ends where an undo fails; hosts of a rollout do not depend on
    /// one another.
    fn go_back(&mut self, at: Timestamp) {
        let stops = self.plan.origin == Origin::Runbook && !self.stuck.is_empty();
        loop {
            self.say_undone();
            if stops || (self.at == 0 && self.to_undo(0).is_empty()) {
                break;
            }
            if !self.to_undo(self.at).is_empty() {
                return;
            }
            self.at -= 1;
        }
        let end = if self.stuck.is_empty() { Course::Undone } else { Course::UndoFailed };
        self.end(end, at);
    }

    /// Says of the node at which the way back stands how that went, when it is over.
    fn say_undone(&mut self) {
        if !self.to_undo(self.at).is_empty() {
            return;
        }
        let Some(progress) = self.nodes.get_mut(self.at) else { return };
        let stuck = self
            .stuck
            .iter()
            .any(|host| progress.undo_parts.get(host).is_some_and(|part| *part != Part::Done));
        if stuck {
            progress.stand = Stand::UndoFailed;
        } else if !progress.undo_parts.is_empty() {
            progress.stand = Stand::Undone;
        }
    }

    fn end(&mut self, course: Course, at: Timestamp) {
        self.course = course;
        self.pause = None;
        self.finished_at = Some(at);
    }
}

impl Progress {
    /// Whether it failed on some hosts and was done on none.
    fn went_well_nowhere(&self) -> bool {
        let done = self.parts.values().any(|part| *part == Part::Done);
        !done && self.parts.values().any(|part| part.is_failure())
    }

    /// Notes what became of a host, and says whether it has failed. What an earlier try left there is
    /// not forgotten when a later one did not begin: who was skipped then has failed as before.
    fn note_part(&mut self, host: HostId, part: Part) -> bool {
        let before = self.parts.get(&host).copied();
        let keeps = matches!(part, Part::NotBegun | Part::Refused | Part::Skipped)
            && before.is_some_and(Part::leaves_something);
        if !keeps {
            self.parts.insert(host, part);
        }
        if part != Part::NotBegun {
            self.again.remove(&host);
        }
        part.is_failure() || (keeps && part == Part::Skipped)
    }

    /// Whether a host that failed is tried again by itself; counts it.
    fn is_tried_again(&mut self, host: HostId, most: u32) -> bool {
        let retried = self.retried.entry(host).or_default();
        let again = *retried < most;
        if again {
            *retried += 1;
            self.again.insert(host);
        }
        again
    }
}

/// The hosts that a node left failed.
fn failed_in(progress: &Progress) -> impl Iterator<Item = HostId> {
    progress.parts.iter().filter(|(_, part)| part.is_failure()).map(|(host, _)| *host)
}

/// Marks a run as ended and gives its hosts; `None` when that was known, or it is not of this node.
fn heard(tries: &mut [Try], run: RunId) -> Option<Vec<HostId>> {
    let open = tries.iter_mut().find(|one| one.run == run && !one.ended)?;
    open.ended = true;
    Some(open.hosts.clone())
}
