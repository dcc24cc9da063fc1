//! What a rollout amounts to on its way: the one value that API, command line and pages show.

use std::collections::BTreeSet;

use fw_proto::api::{
    Budget, ChangeRun, Gate, Proof, Rehearsal, Rollout, RolloutHost, RolloutHostState,
    RolloutSummary, Wave, WaveState,
};
use fw_proto::{HostId, Timestamp};

use super::compile::{Part, REHEARSAL};
use super::waves;
use crate::change::{Act, Change, Course, Node, Part as Outcome, Progress, Stand, Try, Way};

/// What the file asked for that a plan does not say by itself.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    verified: bool,
    compared: bool,
}

/// A rollout as a list shows it.
#[must_use]
pub fn summary(change: &Change) -> RolloutSummary {
    RolloutSummary {
        id: change.id,
        name: change.plan.title.clone(),
        state: change.state(),
        why: change.why(),
        wave: wave(change),
        by: change.by.to_string(),
        by_kind: Some(change.by.kind()),
        created_at: change.created_at,
        finished_at: change.finished_at,
    }
}

/// A rollout with its waves and hosts. `under_way` are the hosts of its open run that were told to
/// begin and have not ended.
#[must_use]
pub fn view(change: &Change, under_way: &BTreeSet<HostId>) -> Rollout {
    let asked = asked(&change.plan.source);
    let waves = numbers(change);
    let waves = waves.iter().filter_map(|number| Nodes::of(change, *number));
    let waves: Vec<_> = waves.collect();
    let (failed, in_flight) = (change.failed.len(), under_way.len());
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let budget = Budget {
        max: change.plan.failures_allowed(),
        failed: count(failed),
        in_flight: count(in_flight),
    };
    Rollout {
        summary: summary(change),
        hosts: waves.iter().flat_map(|wave| wave.hosts(change, under_way, asked)).collect(),
        waves: waves.iter().map(|nodes| nodes.wave(change)).collect(),
        budget,
        gate: open_gate(change),
        soaks_until: soaks_until(change),
        rehearsal: rehearsal(change),
        runs: runs(change),
        source: change.plan.source.clone(),
    }
}

/// By the text itself: a text that a later version reads otherwise proves less, never more.
fn asked(source: &str) -> Asked {
    super::parse("", source).map_or_else(
        |_| Asked::default(),
        |rollout| Asked { verified: !rollout.verify.is_empty(), compared: rollout.state.is_some() },
    )
}

/// The numbers of its waves.
fn numbers(change: &Change) -> BTreeSet<u32> {
    change.plan.nodes.iter().filter_map(|node| Part::of(&node.id)).map(|(wave, _)| wave).collect()
}

/// The number of the wave that it is in, or was in last, counted from 1.
#[must_use]
pub fn wave(change: &Change) -> Option<u32> {
    let last = change.plan.nodes.len().checked_sub(1)?;
    let rest = change.plan.nodes.get(change.at.min(last)..)?;
    // A rehearsal is before the first wave, and belongs to it.
    rest.iter().find_map(|node| Part::of(&node.id)).map(|(wave, _)| wave)
}

/// A node with how far it is, and its place in the plan.
#[derive(Debug, Clone, Copy)]
struct At<'c> {
    place: usize,
    node: &'c Node,
    progress: &'c Progress,
}

/// The nodes of a wave.
#[derive(Debug)]
struct Nodes<'c> {
    number: u32,
    approve: Option<At<'c>>,
    act: At<'c>,
    soak: Option<At<'c>>,
    verify: Option<At<'c>>,
    all: Vec<(Part, At<'c>)>,
}

impl<'c> Nodes<'c> {
    fn of(change: &'c Change, number: u32) -> Option<Self> {
        let nodes = change.plan.nodes.iter().zip(&change.nodes).enumerate();
        let all: Vec<_> = nodes
            .filter_map(|(place, (node, progress))| {
                let (wave, part) = Part::of(&node.id)?;
                (wave == number).then_some((part, At { place, node, progress }))
            })
            .collect();
        let part = |wanted: Part| all.iter().find(|(part, _)| *part == wanted).map(|(_, at)| *at);
        Some(Self {
            number,
            approve: part(Part::Approve),
            act: part(Part::Act)?,
            soak: part(Part::Soak),
            verify: part(Part::Verify),
            all,
        })
    }

    fn wave(&self, change: &Change) -> Wave {
        let work = self.act.node.work();
        let hosts = work.map(|work| work.hosts.iter().map(|host| host.name.clone()).collect());
        let began = self.all.iter().filter_map(|(_, at)| at.progress.began_at).min();
        let last = self.all.last().and_then(|(_, at)| at.progress.ended_at);
        Wave {
            name: waves::name(self.number),
            number: self.number,
            state: self.state(change),
            hosts: hosts.unwrap_or_default(),
            began_at: began,
            ended_at: last,
            approval: self.approve.and_then(gate),
            soak: self.soak.and_then(|at| match &at.node.act {
                Act::Wait(span) => Some(*span),
                Act::Exec(_) | Act::Approve(_) | Act::Window(_) | Act::Tick | Act::Confirm => None,
            }),
        }
    }

    fn state(&self, change: &Change) -> WaveState {
        let stands = |wanted: Stand| self.all.iter().any(|(_, at)| at.progress.stand == wanted);
        if stands(Stand::UndoFailed) {
            return WaveState::UndoFailed;
        }
        if self.act.progress.stand == Stand::Undone {
            return WaveState::Undone;
        }
        if change.course == Course::Undoing && !change.to_undo(self.act.place).is_empty() {
            return WaveState::Undoing;
        }
        if stands(Stand::Failed) {
            return WaveState::Failed;
        }
        if self.act.progress.stand == Stand::Skipped {
            return WaveState::Skipped;
        }
        let is_over = |at: &At<'_>| matches!(at.progress.stand, Stand::Done | Stand::Skipped);
        let Some((part, _)) = self.all.iter().find(|(_, at)| !is_over(at)) else {
            return WaveState::Done;
        };
        if self.all.iter().all(|(_, at)| at.progress.began_at.is_none()) {
            return WaveState::Waiting;
        }
        match (part, change.course) {
            // Nothing of it is on its hosts.
            (Part::Approve | Part::Window, course) if course != Course::Forward => {
                WaveState::Waiting
            }
            (_, course) if course.is_end() => WaveState::Failed,
            (Part::Approve, _) => WaveState::AwaitingApproval,
            (Part::Window, _) => WaveState::AwaitingWindow,
            (Part::Act, _) => WaveState::Running,
            (Part::Soak, _) => WaveState::Soaking,
            (Part::Verify, _) => WaveState::Verifying,
        }
    }

    fn hosts(
        &self,
        change: &Change,
        under_way: &BTreeSet<HostId>,
        asked: Asked,
    ) -> Vec<RolloutHost> {
        let hosts = self.act.node.work().map(|work| work.hosts.as_slice()).unwrap_or_default();
        hosts
            .iter()
            .map(|host| {
                let (state, proof) = self.host(change, host.id, under_way, asked);
                RolloutHost { host: host.name.clone(), wave: self.number, state, proof }
            })
            .collect()
    }

    fn host(
        &self,
        change: &Change,
        host: HostId,
        under_way: &BTreeSet<HostId>,
        asked: Asked,
    ) -> (RolloutHostState, Option<Proof>) {
        let progress = self.act.progress;
        if let Some(undone) = progress.undo_parts.get(&host) {
            let proof = if asked.compared { Proof::StateCompared } else { Proof::UndoExitCode };
            return match undone {
                Outcome::Done => (RolloutHostState::Undone, Some(proof)),
                Outcome::NotBegun
                | Outcome::Skipped
                | Outcome::Refused
                | Outcome::Failed
                | Outcome::Unknown
                | Outcome::TakenBack
                | Outcome::NotTakenBack => (RolloutHostState::UndoFailed, None),
            };
        }
        if change.stuck.contains(&host) {
            return (RolloutHostState::UndoFailed, None);
        }
        if let Some((_, way, open)) = change.open_try()
            && open.hosts.contains(&host)
            && under_way.contains(&host)
        {
            return match way {
                Way::Do => (RolloutHostState::Running, None),
                Way::Undo => (RolloutHostState::Undoing, None),
            };
        }
        let proved = self.verify.and_then(|at| at.progress.parts.get(&host));
        match proved {
            Some(part) if part.is_failure() => said(*part, None),
            Some(Outcome::Done) => (RolloutHostState::Done, Some(Proof::VerifiedAfterSoak)),
            Some(_) | None => {
                let proof = if asked.verified { Proof::Verified } else { Proof::ExitCode };
                said(progress.parts.get(&host).copied().unwrap_or(Outcome::NotBegun), Some(proof))
            }
        }
    }
}

/// What became of a host; `proof` is what its success proves.
fn said(part: Outcome, proof: Option<Proof>) -> (RolloutHostState, Option<Proof>) {
    match part {
        Outcome::NotBegun => (RolloutHostState::Waiting, None),
        Outcome::Skipped => (RolloutHostState::Skipped, None),
        Outcome::Done => (RolloutHostState::Done, proof),
        Outcome::Refused => (RolloutHostState::Refused, None),
        Outcome::Failed => (RolloutHostState::Failed, None),
        Outcome::Unknown => (RolloutHostState::Unknown, None),
        Outcome::TakenBack => (RolloutHostState::Undone, Some(Proof::TakenBackByHost)),
        Outcome::NotTakenBack => (RolloutHostState::UndoFailed, None),
    }
}

fn current(change: &Change) -> Option<At<'_>> {
    let (node, progress) = (change.plan.nodes.get(change.at)?, change.nodes.get(change.at)?);
    let open = change.course == Course::Forward && progress.stand == Stand::Open;
    open.then_some(At { place: change.at, node, progress })
}

fn open_gate(change: &Change) -> Option<Gate> {
    current(change).and_then(gate)
}

fn soaks_until(change: &Change) -> Option<Timestamp> {
    let at = current(change)?;
    at.progress.until.filter(|_| matches!(at.node.act, Act::Wait(_)))
}

fn gate(at: At<'_>) -> Option<Gate> {
    let Act::Approve(asked) = &at.node.act else { return None };
    Some(Gate {
        role: asked.by,
        people: asked.people,
        approvals: at.progress.approved(),
        expires_at: at.progress.until.filter(|_| at.progress.stand == Stand::Open),
    })
}

fn rehearsal(change: &Change) -> Option<Rehearsal> {
    let place = change.plan.nodes.iter().position(|node| node.id == REHEARSAL)?;
    let (node, progress) = (change.plan.nodes.get(place)?, change.nodes.get(place)?);
    let state = match progress.stand {
        Stand::Ahead => WaveState::Waiting,
        Stand::Open if change.course == Course::Undoing => WaveState::Undoing,
        Stand::Open if change.course.is_end() => WaveState::Failed,
        Stand::Open => WaveState::Running,
        Stand::Done => WaveState::Done,
        Stand::Failed => WaveState::Failed,
        Stand::Skipped => WaveState::Skipped,
        Stand::Undone => WaveState::Undone,
        Stand::UndoFailed => WaveState::UndoFailed,
    };
    let host = node.work()?.hosts.first()?.name.clone();
    Some(Rehearsal { host, state })
}

/// Its runs. Their ids are sortable by time.
fn runs(change: &Change) -> Vec<ChangeRun> {
    let run = |node: &Node, undo: bool, one: &Try| ChangeRun {
        run: one.run,
        node: node.id.clone(),
        undo,
        hosts: u32::try_from(one.hosts.len()).unwrap_or(u32::MAX),
        ended: one.ended,
    };
    let mut runs = Vec::new();
    for (node, progress) in change.plan.nodes.iter().zip(&change.nodes) {
        runs.extend(progress.tries.iter().map(|one| run(node, false, one)));
        runs.extend(progress.undo_tries.iter().map(|one| run(node, true, one)));
    }
    runs.sort_by_key(|run| run.run);
    runs
}
