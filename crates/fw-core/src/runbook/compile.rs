//! From a runbook, its values and the hosts there are to the plan of a [change](crate::change).
//!
//! Each step that has a turn becomes one to three nodes under its id: the approval it waits for, the
//! question whether it may run, and the command. What proves a step is part of its command, so a host
//! counts as done only when it is proved; see `script`.

use std::collections::BTreeMap;

use fw_proto::api::{EnvValue, Offline, OnFull, Role};
use fw_proto::{ChangeId, Incarnation, Span};

use super::plan::{self, Values};
use super::script::{self, Part};
use super::{Action, Kind, Language, Runbook, Step, Template, Value};
use crate::change::{Act, Approve, Fill, Node, OnFailure, Origin, Plan, Undo, UndoWhen, Work};
use crate::command;
use crate::plan::{Armed, Chosen, Exec, KILL_AFTER};
use crate::select::Selector;

/// The variable of the environment in which every command of a runbook finds the id of its change.
pub const CHANGE_ID: &str = "FLEETWRIGHT_CHANGE_ID";

/// How long a step waits for a host that is offline: a host that the step before has restarted is back
/// by then.
pub const STEP_WAITS: Span = Span::from_secs(5 * 60);

/// How long an undo does: what it cannot reach, a person has to mend.
pub const UNDO_WAITS: Span = Span::from_secs(15 * 60);

/// The most bytes that commands and hosts of a plan may take in memory and in the store.
pub const LARGEST_PLAN: usize = 16 * 1024 * 1024;

/// About so many bytes a host takes in each of its steps.
const HOST_BYTES: usize = 64;

/// What a runbook is compiled with.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The document, as it was given.
    pub source: &'a str,
    /// The values of its inputs; see [`plan::values`].
    pub values: &'a Values,
    /// Where steps run that name no hosts.
    pub hosts: Option<&'a Selector>,
    /// The change that it becomes.
    pub change: ChangeId,
    /// The store's life in which it is decided.
    pub incarnation: Incarnation,
}

/// Compiles a runbook that was read without errors. `choose` picks the hosts of a selector, in the order
/// in which they are served.
///
/// # Errors
/// What is wrong, all at once, a line for each: a step without hosts, a value that cannot stand where it
/// stands.
pub fn compile(
    runbook: &Runbook,
    given: &Given<'_>,
    choose: impl FnMut(&Selector) -> Result<Vec<Chosen>, String>,
) -> Result<Plan, Vec<String>> {
    let mut compiler = Compiler { runbook, given, choose, chosen: BTreeMap::new(), bytes: 0 };
    let (mut nodes, mut wrong) = (Vec::new(), Vec::new());
    for step in runbook.steps.iter().filter(|step| step.kind.has_its_turn()) {
        match compiler.step(step) {
            Ok(more) => nodes.extend(more),
            Err(why) => wrong.push(format!("step {} at line {}: {why}", step.id, step.line)),
        }
    }
    if nodes.is_empty() && wrong.is_empty() {
        wrong.push("there is no step in it: no block of code and no item with a box".to_owned());
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Plan {
        origin: Origin::Runbook,
        title: runbook.title.clone(),
        source: given.source.to_owned(),
        inputs: given.values.clone(),
        nodes,
        max_failures: None,
        on_failure: OnFailure::Pause,
        incarnation: given.incarnation,
    })
}

struct Compiler<'a, F> {
    runbook: &'a Runbook,
    given: &'a Given<'a>,
    choose: F,
    /// The hosts of each selector, so that all steps see the same.
    chosen: BTreeMap<String, Vec<Chosen>>,
    bytes: usize,
}

impl<F: FnMut(&Selector) -> Result<Vec<Chosen>, String>> Compiler<'_, F> {
    fn step(&mut self, step: &Step) -> Result<Vec<Node>, String> {
        let gate = step.approve.as_ref().map(|gate| {
            let by = gate.by.unwrap_or(Role::Operator);
            Act::Approve(Approve { by, people: gate.people, expires: gate.expires })
        });
        let shell = !matches!(step.language, Language::Other(_));
        let before = match step.kind {
            Kind::Ask if shell => Some(Act::Confirm),
            // Nothing runs the block, so a person does what it says.
            Kind::Ask | Kind::Manual => Some(Act::Tick),
            Kind::Command | Kind::Backup | Kind::Approval | Kind::Undo | Kind::Verify => None,
        };
        let mut nodes: Vec<Node> =
            gate.into_iter().chain(before).map(|act| node(step, act, None)).collect();
        if let Some(work) = self.work(step)? {
            let undo = self.undo(step, &work)?;
            let work = self.arm(step, work, undo.as_ref())?;
            nodes.push(node(step, Act::Exec(Box::new(work)), undo));
        }
        Ok(nodes)
    }

    /// What a step does on hosts: its block and what proves it. What a person does can be proved too.
    fn work(&mut self, step: &Step) -> Result<Option<Work>, String> {
        let shell = !matches!(step.language, Language::Other(_));
        let block = step.block.as_ref().filter(|_| match step.kind {
            Kind::Command | Kind::Backup => true,
            Kind::Ask => shell,
            Kind::Manual | Kind::Approval | Kind::Undo | Kind::Verify => false,
        });
        let block = block.map(|template| Part::of(template, &step.language));
        let proof = self.part(step.verify.as_ref(), step)?;
        let (main, proof, proof_step) = match (block, proof) {
            (Some(block), None) => (block, None, None),
            // Of an armed step the host proves it, before it keeps it.
            (Some(block), Some(_)) if step.armed.is_some() => (block, None, None),
            (Some(block), Some((proof, of))) => (block, Some(proof), of),
            (None, Some((proof, of))) => (proof, None, of),
            (None, None) => return Ok(None),
        };
        let command = script::proved(&main, proof.as_ref(), step.expect.as_ref());
        let filled = main.template.filled || proof.is_some_and(|proof| proof.template.filled);
        let mut work = self.command(command, filled, step, STEP_WAITS)?;
        let more = proof_step.and_then(|proof| proof.timeout);
        // The time of the proof is part of the step's.
        work.exec.timeout = match (work.exec.timeout, more) {
            (Some(own), Some(more)) => Some(own + more),
            (own, _) => own,
        };
        (work.selector, work.hosts) = self.hosts(step)?;
        self.weigh(&work)?;
        Ok(Some(work))
    }

    fn undo(&mut self, step: &Step, work: &Work) -> Result<Option<Undo>, String> {
        let Some((part, of)) = self.part(step.undo.as_ref(), step)? else { return Ok(None) };
        let of = of.unwrap_or(step);
        let command = script::proved(&part, None, None);
        let mut undo = self
            .command(command, part.template.filled, of, UNDO_WAITS)
            .map_err(|why| format!("its undo: {why}"))?;
        undo.exec.user = undo.exec.user.or_else(|| step.user.clone());
        undo.exec.timeout = undo.exec.timeout.or(step.timeout);
        if of.id == step.id {
            // What counts as success of the step says nothing of its undo.
            (undo.expect, undo.retries) = (None, 0);
        }
        (undo.selector, undo.hosts) = (work.selector.clone(), work.hosts.clone());
        self.weigh(&undo)?;
        Ok(Some(Undo { work: Box::new(undo), when: UndoWhen::Begun }))
    }

    /// Arms a step: the host takes it back by itself unless it is confirmed in time. Both are on the host before
    /// the step begins, so neither can use what the step prints.
    fn arm(&self, step: &Step, mut work: Work, undo: Option<&Undo>) -> Result<Work, String> {
        let Some(within) = step.armed else { return Ok(work) };
        let ready = |what: &str, work: &Work| match work.fill {
            None => Ok(work.exec.command.clone()),
            Some(_) => {
                Err(format!("it is armed, and its {what} uses what a step prints; use inputs"))
            }
        };
        let undo = undo.ok_or("it is armed, and has no undo")?;
        let proof = match self.part(step.verify.as_ref(), step)? {
            None => None,
            Some((part, _)) => {
                let command = script::proved(&part, None, None);
                Some(self.command(command, part.template.filled, step, STEP_WAITS)?)
            }
        };
        let probe = proof.as_ref().map(|proof| ready("proof", proof)).transpose()?;
        let more = proof.into_iter().flat_map(|proof| proof.exec.env);
        work.exec.env.extend(undo.work.exec.env.clone());
        work.exec.env.extend(more);
        work.exec.armed = Some(Armed { undo: ready("undo", &undo.work)?, within, probe });
        Ok(work)
    }

    /// What an attribute refers to, and the step whose block that is.
    fn part<'s>(
        &self,
        action: Option<&'s Action>,
        step: &'s Step,
    ) -> Result<Option<(Part<'s>, Option<&'s Step>)>, String>
    where
        Self: 's,
    {
        match action {
            None | Some(Action::Nothing) => Ok(None),
            Some(Action::Command(template)) => {
                let language = match step.language {
                    Language::Sh | Language::Other(_) => &Language::Sh,
                    Language::Bash => &Language::Bash,
                };
                Ok(Some((Part::of(template, language), None)))
            }
            Some(Action::Step(id)) => {
                let of = plan::part(self.runbook, id);
                let found =
                    of.and_then(|of| Some((Part::of(of.block.as_ref()?, &of.language), Some(of))));
                found.map(Some).ok_or_else(|| format!("there is no block {id}"))
            }
        }
    }

    /// A command without hosts, filled in as far as can be.
    fn command(
        &self,
        command: fw_proto::api::Command,
        filled: bool,
        step: &Step,
        waits: Span,
    ) -> Result<Work, String> {
        let change = EnvValue::Value(self.given.change.to_string());
        let exec = Exec {
            command,
            user: step.user.clone(),
            cwd: None,
            env: BTreeMap::from([(CHANGE_ID.to_owned(), change)]),
            timeout: step.timeout,
            kill_after: KILL_AFTER,
            on_full: OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        };
        let mut work = Work {
            exec,
            fill: None,
            selector: String::new(),
            hosts: Vec::new(),
            parallel: None,
            offline: Offline::Wait(waits),
            start_within: waits,
            expect: step.expect.clone(),
            retries: step.retries,
        };
        if filled {
            let names = script::names(&work.exec.command)?;
            let template = script::main(&work.exec.command).to_owned();
            work.fill = Some(Fill { template, inputs: used(&names, self.given.values) });
            if !names.iter().any(|name| name.starts_with("steps.")) {
                work.exec = work.filled(&BTreeMap::new())?;
                work.fill = None;
            }
        }
        if work.fill.is_none() {
            command::check(&work.exec).map_err(|error| error.to_string())?;
        }
        Ok(work)
    }

    fn hosts(&mut self, step: &Step) -> Result<(String, Vec<Chosen>), String> {
        let own = plan::selector(self.runbook, step, self.given.values);
        let selector = own
            .or(self.given.hosts)
            .ok_or("it names no hosts; say with --hosts on which hosts such steps run")?;
        let text = selector.to_string();
        if !self.chosen.contains_key(&text) {
            let hosts = (self.choose)(selector)?;
            self.chosen.insert(text.clone(), hosts);
        }
        match self.chosen.get(&text) {
            Some(hosts) if !hosts.is_empty() => Ok((text, hosts.clone())),
            Some(_) | None => Err(format!("no host matches {text}")),
        }
    }

    fn weigh(&mut self, work: &Work) -> Result<(), String> {
        self.bytes += script::bytes(&work.exec.command) + work.hosts.len() * HOST_BYTES;
        if self.bytes > LARGEST_PLAN {
            return Err(format!(
                "with it the plan is larger than {} MiB; choose fewer hosts, or split the runbook",
                LARGEST_PLAN / (1024 * 1024)
            ));
        }
        Ok(())
    }
}

fn node(step: &Step, act: Act, undo: Option<Undo>) -> Node {
    let title = if step.title.is_empty() { step.id.as_str() } else { &step.title };
    Node {
        id: step.id.to_string(),
        title: title.to_owned(),
        line: Some(step.line),
        group: step.phase.and_then(|phase| u32::try_from(phase).ok()),
        act,
        undo,
    }
}

/// The values that a command uses.
fn used(names: &[String], values: &Values) -> BTreeMap<String, Value> {
    let named = |name: &String| names.iter().any(|used| used.strip_prefix("inputs.") == Some(name));
    values
        .iter()
        .filter(|(name, _)| named(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

impl Work {
    /// The command with its values, once earlier nodes have printed theirs. `outputs` are theirs by
    /// the ids of their steps.
    ///
    /// # Errors
    /// A value is missing, cannot stand where it stands, or makes the command too large.
    pub fn filled(&self, outputs: &BTreeMap<String, super::Output>) -> Result<Exec, String> {
        let Some(fill) = &self.fill else { return Ok(self.exec.clone()) };
        let mut exec = self.exec.clone();
        for word in script::words(&mut exec.command) {
            let template = Template { text: std::mem::take(word), filled: true };
            let filled = template.fill(&fill.inputs, outputs)?;
            *word = filled.text;
            let secrets = filled.secrets.into_iter();
            exec.env.extend(secrets.map(|(name, secret)| (name, EnvValue::Secret(secret))));
        }
        command::check(&exec).map_err(|error| error.to_string())?;
        Ok(exec)
    }
}

#[cfg(test)]
mod tests;
