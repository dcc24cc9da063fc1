//! A runbook on its way, as the API and pages show it.

use fw_proto::HostName;
use fw_proto::api::{Runbook, RunbookPhase, RunbookStep, RunbookSummary, StepGate, StepState};

use super::{Kind, Step};
use crate::change::{Act, Approve, Change, Node, Progress, Stand, Way};
use crate::run::Actor;

/// A node and how far it is.
type Stage<'a> = (&'a Node, &'a Progress);

/// What a change that was compiled from a runbook amounts to, step by step. `rehearsed`: an undo of this
/// document has run before.
#[must_use]
pub fn view(change: &Change, rehearsed: bool) -> Runbook {
    let document = super::parse("runbook", &change.plan.source).runbook;
    let written = |id: &str, line: Option<u32>| {
        let same = |step: &&super::Step| step.id.as_str() == id && Some(step.line) == line;
        document.steps.iter().find(same)
    };
    let phase = |phase: &super::Phase| RunbookPhase {
        title: phase.title.clone(),
        level: phase.level,
        line: phase.line,
    };
    Runbook {
        summary: summary(change),
        rehearsed,
        phases: document.phases.iter().map(phase).collect(),
        steps: steps(change).iter().map(|stages| step(change, stages, written)).collect(),
        source: change.plan.source.clone(),
    }
}

/// What a list says of a change that was compiled from a runbook.
#[must_use]
pub fn summary(change: &Change) -> RunbookSummary {
    RunbookSummary {
        id: change.id,
        title: change.plan.title.clone(),
        state: change.state(),
        why: change.why(),
        by: change.by.to_string(),
        by_kind: Some(change.by.kind()),
        created_at: change.created_at,
        finished_at: change.finished_at,
    }
}

/// The nodes of each step, in their order; those of one step follow one another.
fn steps(change: &Change) -> Vec<Vec<Stage<'_>>> {
    let mut steps: Vec<Vec<Stage<'_>>> = Vec::new();
    for stage in change.plan.nodes.iter().zip(&change.nodes) {
        match steps.last_mut().filter(|step| step.iter().all(|(node, _)| node.id == stage.0.id)) {
            Some(step) => step.push(stage),
            None => steps.push(vec![stage]),
        }
    }
    steps
}

fn step<'d>(
    change: &Change,
    stages: &[Stage<'_>],
    written: impl Fn(&str, Option<u32>) -> Option<&'d Step>,
) -> RunbookStep {
    let first = stages.first().map(|(node, _)| *node);
    let (id, line) = first.map_or_else(Default::default, |node| (node.id.clone(), node.line));
    let written = written(&id, line);
    let kind = written.map_or_else(|| kind_of(stages), |step| step.kind);
    let state = state(change, stages);
    let said = stages.iter().rev().find_map(|(_, progress)| progress.note.clone());
    let exec = stages.iter().find_map(|(node, progress)| Some((node.work()?, *node, *progress)));
    let runs = exec.map_or_else(Vec::new, |(_, _, progress)| {
        progress.tries.iter().map(|one| one.run).collect()
    });
    let undo_run = exec.and_then(|(_, _, progress)| progress.undo_tries.last()).map(|one| one.run);
    // Who was asked is who did it; a command that asked nobody was begun by the server.
    let person = stages.iter().find(|(node, _)| matches!(node.act, Act::Tick | Act::Confirm));
    let person = person.and_then(|(_, progress)| progress.by.as_ref());
    let last = stages.last().map(|(_, progress)| *progress);
    let by = person.or_else(|| last?.by.as_ref());
    RunbookStep {
        line,
        kind: kind.name().to_owned(),
        title: first.map_or_else(String::new, |node| node.title.clone()),
        phase: first.and_then(|node| node.group),
        state,
        hosts: exec.map_or_else(Vec::new, |(work, _, _)| {
            work.hosts.iter().map(|host| host.name.clone()).collect()
        }),
        failed: failed(stages),
        output_run: runs.last().copied(),
        runs,
        undo_run,
        has_undo: exec.is_some_and(|(_, node, _)| node.undo.is_some()),
        by: by.map(ToString::to_string),
        by_kind: by.map(Actor::kind),
        started_at: stages.iter().find_map(|(_, progress)| progress.began_at),
        finished_at: last.and_then(|progress| progress.ended_at),
        gate: stages.iter().find_map(gate),
        note: said.or_else(|| (state == StepState::Failed).then(|| expected(written?))?),
        id,
    }
}

/// What a step that failed was to do, where its exit code does not say it.
fn expected(step: &Step) -> Option<String> {
    step.expect.as_ref().map(|expect| format!("expected: {expect}"))
}

fn kind_of(stages: &[Stage<'_>]) -> Kind {
    let has = |is: fn(&Act) -> bool| stages.iter().any(|(node, _)| is(&node.act));
    if has(|act| matches!(act, Act::Confirm)) {
        Kind::Ask
    } else if has(|act| matches!(act, Act::Tick)) {
        Kind::Manual
    } else if has(|act| matches!(act, Act::Exec(_))) {
        Kind::Command
    } else {
        Kind::Approval
    }
}

fn gate(stage: &Stage<'_>) -> Option<StepGate> {
    let (node, progress) = stage;
    let Act::Approve(Approve { by, people, .. }) = &node.act else { return None };
    let approvals = progress.approved();
    Some(StepGate { by: *by, people: *people, until: progress.until, approvals })
}

fn failed(stages: &[Stage<'_>]) -> Vec<HostName> {
    let mut failed = Vec::new();
    for (node, progress) in stages {
        let hosts = node.work().map_or(&[][..], |work| &work.hosts);
        let bad = |host: &&crate::plan::Chosen| {
            progress.parts.get(&host.id).is_some_and(|part| part.is_failure())
        };
        failed.extend(hosts.iter().filter(bad).map(|host| host.name.clone()));
    }
    failed
}

/// Where a step stands: at its first node that is not over, unless something was taken back.
fn state(change: &Change, stages: &[Stage<'_>]) -> StepState {
    let any = |stand: Stand| stages.iter().any(|(_, progress)| progress.stand == stand);
    if let Some((at, Way::Undo, _)) = change.open_try() {
        let node = usize::try_from(at).ok().and_then(|at| change.plan.nodes.get(at));
        if node.is_some_and(|node| stages.iter().any(|(own, _)| std::ptr::eq(*own, node))) {
            return StepState::Undoing;
        }
    }
    if any(Stand::UndoFailed) {
        return StepState::UndoFailed;
    }
    if any(Stand::Undone) {
        return StepState::Undone;
    }
    let over = |stand: Stand| matches!(stand, Stand::Done | Stand::Skipped);
    let Some((node, progress)) = stages.iter().find(|(_, progress)| !over(progress.stand)) else {
        let skipped = stages.last().is_some_and(|(_, progress)| progress.stand == Stand::Skipped);
        return if skipped { StepState::Skipped } else { StepState::Done };
    };
    match (progress.stand, &node.act) {
        (Stand::Failed, _) => StepState::Failed,
        // The server begins what comes after an answer in a moment.
        (Stand::Ahead, _) if stages.iter().any(|(_, one)| over(one.stand)) => StepState::Running,
        (Stand::Ahead, _) => StepState::Planned,
        (Stand::Open, Act::Approve(_)) => StepState::AwaitingApproval,
        (Stand::Open, Act::Tick | Act::Confirm) => StepState::AwaitingPerson,
        (Stand::Open, Act::Exec(_) | Act::Wait(_) | Act::Window(_)) => StepState::Running,
        (Stand::Done, _) | (Stand::Skipped, _) => StepState::Done,
        (Stand::Undone, _) => StepState::Undone,
        (Stand::UndoFailed, _) => StepState::UndoFailed,
    }
}
