//! The rules of changes, and what is known of each: waves come in their order and within the budget, and an
//! undo takes back exactly what was done.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::change::{
    Change, Course, Event, Kind, Node, Part, Try, UndoWhen, Way, judge as judged,
};
use fw_core::run::Run;
use fw_proto::api::{Armed, TaskState};
use fw_proto::{ChangeId, HostId, RunId, TaskKey};

use super::history::{History, Sight};
use super::host::short;
use super::rules::{Judgement, Rule, judge};
use super::store::Store;

/// All changes, as they are committed, and what hosts did for them.
#[derive(Debug, Default)]
pub(super) struct Waves {
    /// What each announced run is for.
    runs: BTreeMap<RunId, (ChangeId, u32, Way)>,
    /// Where an undo was started.
    undone: BTreeSet<(ChangeId, u32, HostId)>,
}

impl Waves {
    /// The store is an older one now.
    pub(super) fn restored(&mut self) {
        (self.runs, self.undone) = (BTreeMap::new(), BTreeSet::new());
    }

    /// A task was started on its host.
    pub(super) fn started(&mut self, host: HostId, key: TaskKey) -> Judgement {
        let Some((change, node, way)) = self.runs.get(&key.run).copied() else { return Ok(()) };
        match way {
            Way::Undo => {
                self.undone.insert((change, node, host));
                Ok(())
            }
            Way::Do => {
                let undone = self.undone.contains(&(change, node, host));
                judge(!undone, Rule::UndoesTheDone, || {
                    format!("{} starts {key} of {change} after its undo", short(host))
                })
            }
        }
    }

    /// An event of a change was committed, its last.
    pub(super) fn committed(
        &mut self,
        history: &mut History,
        store: &Store,
        id: ChangeId,
    ) -> Judgement {
        let Some(events) = store.changes.get(&id).map(|stored| &stored.events) else {
            return Ok(());
        };
        let Some((last, before)) = events.split_last() else { return Ok(()) };
        let Ok(before) = Change::fold(id, before) else { return Ok(()) };
        let mut after = before.clone();
        after.step(last);
        see(history, &before, &after);
        let ended_before = before.finished_at.is_some();
        let again = matches!(last.kind, Kind::UndoRequested);
        judge(!ended_before || again, Rule::EndsOnce, || {
            format!("{id} has ended, and then: {:?}", last.kind)
        })?;
        if let Kind::Began { node, way, run, hosts } = &last.kind {
            self.runs.insert(*run, (id, *node, *way));
            in_order(id, &before, (*node, *way), hosts, store)?;
        }
        Ok(())
    }

    /// The first events of a run were committed.
    pub(super) fn begun(&self, run: &Run, store: &Store, restored: bool) -> Judgement {
        let Some(id) = run.plan.origin.change else { return Ok(()) };
        let events = store.changes.get(&id).map(|stored| stored.events.as_slice());
        let events = events.unwrap_or_default();
        let last = Change::fold(id, events).ok().and_then(|change| {
            let (node, way, open) = change.open_try()?;
            Some((open.run, node, way))
        });
        let announced = last.filter(|(of, ..)| *of == run.id);
        // A restored store may know less of it than the hub of its former life had begun.
        judge(announced.is_some() || restored, Rule::WavesInOrder, || {
            format!("{} of {id} begins, and it waits for {last:?}", run.id)
        })?;
        match announced {
            Some((.., Way::Do)) if !restored => within_budget(id, run, events, store),
            Some(_) | None => Ok(()),
        }
    }

    /// Once all is at rest: changes have ended, and what was taken back is exactly what was done.
    pub(super) fn at_rest(
        store: &Store,
        restored: bool,
        started: impl Fn(HostId, RunId) -> Start,
    ) -> Judgement {
        for (id, stored) in &store.changes {
            let Ok(change) = Change::fold(*id, &stored.events) else { continue };
            judge(change.finished_at.is_some(), Rule::EveryRunEnds, || {
                format!("{id} goes on: {:?} at {}, {:?}", change.course, change.at, change.pause)
            })?;
            if !restored {
                let truth = Truth { change: &change, store, started: &started };
                (0..change.nodes.len()).try_for_each(|node| truth.undoes_the_done(node))?;
            }
        }
        Ok(())
    }
}

/// What is worth seeing of a step.
fn see(history: &mut History, before: &Change, after: &Change) {
    if before.pause.is_none() && after.pause.is_some() {
        history.sight(Sight::ChangePaused);
    }
    if before.course == after.course {
        return;
    }
    match after.course {
        Course::Succeeded => history.sight(Sight::ChangeSucceeded),
        Course::Undone => history.sight(Sight::ChangeUndone),
        Course::UndoFailed => history.sight(Sight::ChangeUndoFailed),
        Course::Undoing if before.finished_at.is_some() => history.sight(Sight::UndoneAfterEnd),
        Course::Forward | Course::Aborting | Course::Undoing | Course::Failed => {}
    }
}

/// Nothing begins before what it follows is over: forwards all earlier nodes, backwards all later ones.
fn in_order(
    id: ChangeId,
    before: &Change,
    (node, way): (u32, Way),
    hosts: &[HostId],
    store: &Store,
) -> Judgement {
    let at = usize::try_from(node).unwrap_or(usize::MAX);
    let tries = |of: usize| before.nodes.get(of).into_iter().flat_map(|one| &one.tries);
    // What the change says of its runs is not asked: those of the store that have not ended go on.
    let open = all_tries(before).any(|one| store.open.contains_key(&one.run));
    let later = (at + 1..before.nodes.len()).any(|of| tries(of).next().is_some());
    let order = match way {
        Way::Do => !later,
        Way::Undo => {
            let earlier = before.nodes.iter().take(at);
            earlier.flat_map(|one| &one.undo_tries).next().is_none()
        }
    };
    let twice = way == Way::Undo && {
        let undone = before.nodes.get(at).into_iter().flat_map(|one| &one.undo_tries);
        undone.flat_map(|one| &one.hosts).any(|host| hosts.contains(host))
    };
    judge(!open && order, Rule::WavesInOrder, || {
        format!("{id}: {way:?} of {node} begins: open {open}, in order {order}")
    })?;
    judge(!twice, Rule::UndoesTheDone, || format!("{id}: {node} is undone twice on a host"))
}

fn all_tries(change: &Change) -> impl Iterator<Item = &Try> {
    change.nodes.iter().flat_map(|one| one.tries.iter().chain(&one.undo_tries))
}

/// The failures that a run may have, and those that its change has had elsewhere, are no more than it may
/// have. Counted anew, from what became of its runs since a person last let it go on.
fn within_budget(id: ChangeId, run: &Run, events: &[Event], store: &Store) -> Judgement {
    let Some(Kind::Planned(plan)) = events.first().map(|event| &event.kind) else { return Ok(()) };
    let Some(most) = plan.max_failures else { return Ok(()) };
    let mut failed = BTreeSet::new();
    for event in events {
        match &event.kind {
            Kind::Resumed | Kind::Skipped { .. } => failed.clear(),
            Kind::Ended { node, way: Way::Do, run, .. } => {
                let node = usize::try_from(*node).ok().and_then(|at| plan.nodes.get(at));
                let ended = node.zip(store.ended.get(run));
                for (host, part) in ended.into_iter().flat_map(|(node, run)| parts(node, run)) {
                    // Who failed and was tried again may have succeeded then.
                    if part.is_failure() {
                        failed.insert(host)
                    } else {
                        failed.remove(&host)
                    };
                }
            }
            Kind::Planned(_)
            | Kind::Opened { .. }
            | Kind::Passed { .. }
            | Kind::Approved { .. }
            | Kind::Expired { .. }
            | Kind::Began { .. }
            | Kind::Ended { way: Way::Undo, .. }
            | Kind::NotBegun { .. }
            | Kind::PauseRequested
            | Kind::AbortRequested
            | Kind::UndoRequested => {}
        }
    }
    // Who is tried again has its turn.
    failed.retain(|host| !run.tasks.contains_key(host));
    let may = run.plan.limits.max_failures.unwrap_or(u32::MAX);
    let sum = u64::from(may) + failed.len() as u64;
    judge(sum <= u64::from(most), Rule::WithinBudget, || {
        format!("{} of {id} may fail on {may} hosts beside {failed:?}, and {most} are all", run.id)
    })
}

fn parts(node: &Node, run: &Run) -> impl Iterator<Item = (HostId, Part)> {
    let expect = node.work().and_then(|work| work.expect.as_ref());
    run.tasks.iter().map(move |(host, task)| {
        (*host, Part::of(&task.view(), judged(expect, task.exit_code, "")))
    })
}

/// Whether a command was started on its host, and whether a fault asked for it again, perhaps after its verdict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) was: bool,
    pub(super) asked_again: bool,
}

/// A change, and what really happened.
struct Truth<'t, S> {
    change: &'t Change,
    store: &'t Store,
    started: &'t S,
}

impl<S: Fn(HostId, RunId) -> Start> Truth<'_, S> {
    /// An undone step was done before, and when all is undone then everything that was done.
    fn undoes_the_done(&self, node: usize) -> Judgement {
        let (Some(planned), Some(progress)) =
            (self.change.plan.nodes.get(node), self.change.nodes.get(node))
        else {
            return Ok(());
        };
        let (Some(work), Some(undo)) = (planned.work(), &planned.undo) else { return Ok(()) };
        for host in work.hosts.iter().map(|host| host.id) {
            let done = self.any(&progress.tries, host);
            let undone = self.any(&progress.undo_tries, host);
            let unknown = progress.tries.iter().any(|one| self.is_unknown(one.run, host));
            judge(done || unknown || !undone, Rule::UndoesTheDone, || {
                format!("{} of {} is undone on {} and was not done", node, self.id(), short(host))
            })?;
            let asked_again = |one: &Try| (self.started)(host, one.run).asked_again;
            let known = done && !progress.tries.iter().any(asked_again);
            let left = known && !self.took_itself_back(&progress.tries, host);
            let due = match undo.when {
                UndoWhen::Begun => left,
                UndoWhen::Failed => left && progress.parts.get(&host) != Some(&Part::Done),
            };
            let taken_back = progress.undo_tries.iter().any(|one| self.succeeded(one.run, host));
            let whole = self.change.course == Course::Undone;
            judge(!whole || !due || taken_back, Rule::UndoesTheDone, || {
                let (id, host) = (self.id(), short(host));
                format!("{id} is called undone, and {node} was done on {host} and not undone")
            })?;
        }
        Ok(())
    }

    fn id(&self) -> ChangeId {
        self.change.id
    }

    fn any(&self, tries: &[Try], host: HostId) -> bool {
        tries.iter().any(|one| (self.started)(host, one.run).was)
    }

    fn task(&self, run: RunId, host: HostId) -> Option<&fw_core::run::Task> {
        self.store.ended.get(&run)?.tasks.get(&host)
    }

    fn is_unknown(&self, run: RunId, host: HostId) -> bool {
        let state = self.task(run, host).map(|task| task.state);
        matches!(state, Some(TaskState::Lost | TaskState::Unknown))
    }

    fn succeeded(&self, run: RunId, host: HostId) -> bool {
        self.task(run, host).is_some_and(|task| task.state == TaskState::Succeeded)
    }

    /// The last try that was started there is an armed change that its host has undone.
    fn took_itself_back(&self, tries: &[Try], host: HostId) -> bool {
        let mut started = tries.iter().filter(|one| (self.started)(host, one.run).was);
        let last = started.next_back().and_then(|one| self.task(one.run, host));
        last.is_some_and(|task| task.armed == Some(Armed::Undone))
    }
}
