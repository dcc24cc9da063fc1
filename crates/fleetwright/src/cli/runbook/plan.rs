//! `fleetwright runbook plan`: what a runbook would do with these values on these hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fw_core::runbook::plan::{self, Values};
use fw_core::runbook::{self, Action, Kind, Runbook, Step, Template};
use fw_core::select::Selector;
use fw_proto::HostName;
use fw_proto::api::{RunbookText, Selected};
use serde::Serialize;

use super::{PlanArgs, tell};
use crate::cli::{Connection, Refusal, ask, select, talk};
use crate::exit::Code;
use crate::output::{self, Format, line, text};

/// The plan as data.
#[derive(Debug, Serialize)]
struct Plan {
    title: String,
    owner: Option<String>,
    inputs: BTreeMap<String, String>,
    /// Whether an undo of just this text has ever run to its end; `null` when no server was asked.
    rehearsed: Option<bool>,
    phases: Vec<Phase>,
    steps: Vec<Planned>,
    /// Which steps are taken back, in this order.
    undo_order: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Phase {
    title: String,
    level: u8,
    line: u32,
}

#[derive(Debug, Serialize)]
struct Planned {
    id: String,
    line: u32,
    kind: &'static str,
    /// Place in the phases.
    phase: Option<usize>,
    title: String,
    command: Option<Command>,
    /// The selector; `null` when nobody said any.
    selector: Option<String>,
    /// Whether the step names no hosts itself, so that `--hosts` says which.
    unnamed: bool,
    hosts: Vec<HostName>,
    undecided: Vec<HostName>,
    user: Option<String>,
    timeout: Option<String>,
    retries: u32,
    expect: Option<String>,
    approve: Option<Approve>,
    armed: Option<String>,
    verify: Option<Command>,
    undo: Option<Command>,
    needs: Option<String>,
}

#[derive(Debug, Serialize)]
struct Command {
    /// The block it stands in, when that is another one.
    step: Option<String>,
    text: String,
    /// Whether all values are known; the others are what earlier steps print.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Approve {
    by: Option<String>,
    people: u32,
    expires: Option<String>,
}

/// Prints the plan.
pub(super) fn run(args: &PlanArgs, connection: &Connection) -> anyhow::Result<Code> {
    let (source, name) = ask::text_of(&args.file)?;
    let parsed = runbook::parse(&name, &source);
    tell(&parsed, true);
    if !parsed.errors.is_empty() {
        return Ok(Code::Error);
    }
    let values = plan::values(&parsed.runbook.inputs, &args.input).map_err(|wrong| {
        Refusal::usage(format!(
            "inputs; give them with --input NAME=VALUE\n  {}",
            wrong.join("\n  ")
        ))
    })?;
    let wrong = |error| Refusal::usage(format!("invalid selector in --hosts\n{error}"));
    let given = args.hosts.as_deref().map(Selector::parse).transpose().map_err(wrong)?;
    let planning = Planning { runbook: &parsed.runbook, values: &values, given: given.as_ref() };
    let known = planning.known(args, connection, source)?;
    let plan = planning.planned(&known)?;
    match args.output {
        Format::Table | Format::Wide => output::print(&page(&plan))?,
        Format::Name => {
            let names = plan.steps.iter().map(|step| format!("{}\n", step.id));
            output::print(&names.collect::<String>())?;
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            output::print(&output::item(&plan, "", args.output, String::new)?)?;
        }
    }
    Ok(empty(&plan))
}

/// Tells which steps have no host.
fn empty(plan: &Plan) -> Code {
    let mut code = Code::Success;
    let homeless = plan.steps.iter().filter(|step| step.unnamed && step.selector.is_none());
    let homeless: Vec<_> = homeless.map(|step| step.id.as_str()).collect();
    if !homeless.is_empty() {
        let names = super::some(&homeless);
        output::say(&format!("warning: no hosts are named for {names}; give them with --hosts"));
    }
    for step in &plan.steps {
        if let Some(selector) = step.selector.as_ref().filter(|_| step.hosts.is_empty()) {
            output::say(&format!(
                "warning: no host matches {} for step {}",
                line(selector),
                step.id
            ));
            code = Code::NothingMatched;
        }
    }
    code
}

/// What the fleet has to say to a plan.
#[derive(Default)]
struct Known {
    /// The hosts of each selector.
    chosen: BTreeMap<String, Selected>,
    /// As in [`Plan`].
    rehearsed: Option<bool>,
}

/// What a plan is made of.
struct Planning<'a> {
    runbook: &'a Runbook,
    values: &'a Values,
    /// Where steps run that name no hosts.
    given: Option<&'a Selector>,
}

impl Planning<'_> {
    /// The hosts of a step; `None` when nothing of it runs on any, or nobody said which.
    fn selector<'s>(&'s self, step: &'s Step) -> Option<&'s Selector> {
        let own = plan::selector(self.runbook, step, self.values).or(self.given);
        own.filter(|_| step.acts())
    }

    /// What the fleet has to say to it.
    fn known(
        &self,
        args: &PlanArgs,
        connection: &Connection,
        source: String,
    ) -> anyhow::Result<Known> {
        let selectors = self.runbook.steps.iter().filter_map(|step| self.selector(step));
        let selectors: BTreeMap<String, &Selector> =
            selectors.map(|selector| (selector.to_string(), selector)).collect();
        let mut known = Known::default();
        if let Some(file) = &args.facts_file {
            let machines = select::facts(file)?;
            for (text, selector) in selectors {
                known.chosen.insert(text, select::selected(selector, &machines));
            }
        } else if !selectors.is_empty() {
            let texts: Vec<String> = selectors.into_keys().collect();
            let text = RunbookText { source };
            talk(connection, async |session| {
                for text in &texts {
                    known.chosen.insert(text.clone(), session.client.select(text).await?);
                }
                known.rehearsed = Some(session.client.rehearsal(&text).await?.rehearsed);
                Ok(Code::Success)
            })?;
        }
        Ok(known)
    }

    fn planned(&self, known: &Known) -> anyhow::Result<Plan> {
        let runbook = self.runbook;
        let phase = |phase: &fw_core::runbook::Phase| Phase {
            title: phase.title.clone(),
            level: phase.level,
            line: phase.line,
        };
        let unnamed: BTreeSet<&str> = plan::unnamed(runbook).map(|step| step.id.as_str()).collect();
        let steps = runbook.steps.iter().filter(|step| step.kind.has_its_turn());
        let steps =
            steps.map(|step| self.step(step, unnamed.contains(step.id.as_str()), &known.chosen));
        let values = self.values.iter();
        Ok(Plan {
            title: runbook.title.clone(),
            owner: runbook.owner.clone(),
            inputs: values.map(|(name, value)| (name.clone(), value.to_string())).collect(),
            rehearsed: known.rehearsed,
            phases: runbook.phases.iter().map(phase).collect(),
            steps: steps.collect::<anyhow::Result<_>>()?,
            undo_order: plan::undo_order(runbook).into_iter().map(ToString::to_string).collect(),
        })
    }

    fn step(
        &self,
        step: &Step,
        unnamed: bool,
        chosen: &BTreeMap<String, Selected>,
    ) -> anyhow::Result<Planned> {
        let selector = self.selector(step).map(ToString::to_string);
        let hosts = selector.as_ref().and_then(|selector| chosen.get(selector)).cloned();
        let hosts = hosts.unwrap_or_default();
        let values = self.values;
        let command =
            step.block.as_ref().map(|block| command(step, None, block, values)).transpose()?;
        let part = |action: Option<&Action>| part(self.runbook, step, action, values);
        Ok(Planned {
            id: step.id.to_string(),
            line: step.line,
            kind: step.kind.name(),
            phase: step.phase,
            title: step.title.clone(),
            command,
            selector,
            unnamed,
            hosts: hosts.hosts,
            undecided: hosts.undecided,
            user: step.user.clone(),
            timeout: step.timeout.map(|span| span.to_string()),
            retries: step.retries,
            expect: step.expect.as_ref().map(ToString::to_string),
            approve: step.approve.as_ref().map(|approve| Approve {
                by: approve.by.map(|role| role.to_string()),
                people: approve.people,
                expires: approve.expires.map(|span| span.to_string()),
            }),
            armed: step.armed.map(|span| span.to_string()),
            verify: part(step.verify.as_ref())?,
            undo: part(step.undo.as_ref())?,
            needs: step.needs.clone(),
        })
    }
}

fn command(
    step: &Step,
    from: Option<&Step>,
    template: &Template,
    values: &Values,
) -> anyhow::Result<Command> {
    let shown = plan::shown(template, values)
        .map_err(|why| anyhow::anyhow!("step {} at line {}: {why}", step.id, step.line))?;
    Ok(Command {
        step: from.map(|from| from.id.to_string()),
        text: shown.text().to_owned(),
        complete: shown.is_filled(),
    })
}

fn part(
    runbook: &Runbook,
    step: &Step,
    action: Option<&Action>,
    values: &Values,
) -> anyhow::Result<Option<Command>> {
    match action {
        None | Some(Action::Nothing) => Ok(None),
        Some(Action::Command(template)) => command(step, None, template, values).map(Some),
        Some(Action::Step(id)) => {
            let from = plan::part(runbook, id);
            let block = from.and_then(|from| Some((from, from.block.as_ref()?)));
            block.map(|(from, block)| command(step, Some(from), block, values)).transpose()
        }
    }
}

/// The plan for people.
fn page(plan: &Plan) -> String {
    let mut page = format!("{}\n", line(&plan.title));
    if let Some(owner) = &plan.owner {
        writeln!(page, "owner      {}", line(owner)).expect("writing to memory");
    }
    for (name, value) in &plan.inputs {
        writeln!(page, "input      {name} = {}", line(value)).expect("writing to memory");
    }
    let mut phase = None;
    for step in &plan.steps {
        if step.phase != phase {
            phase = step.phase;
            let title = phase.and_then(|phase| plan.phases.get(phase));
            let title = title.map_or("", |phase| phase.title.as_str());
            writeln!(page, "\n{}", line(title)).expect("writing to memory");
        }
        step_page(&mut page, step);
    }
    if !plan.undo_order.is_empty() {
        let order = plan.undo_order.join(", ");
        writeln!(page, "\nUndo, in this order, of what was done: {order}")
            .expect("writing to memory");
        let rehearsed = match plan.rehearsed {
            Some(true) => "yes, an undo of this text has succeeded",
            Some(false) => "no, an undo of this text has never succeeded",
            None => "unknown, no server was asked",
        };
        writeln!(page, "Rehearsed: {rehearsed}").expect("writing to memory");
    }
    page.push_str("Nothing was run; `fleetwright runbook run` does it.\n");
    page
}

fn step_page(page: &mut String, step: &Planned) {
    writeln!(page, "  {} ({}): {}", step.id, step.kind, line(&step.title))
        .expect("writing to memory");
    let mut row = |name: &str, value: &str| {
        writeln!(page, "    {name:8} {}", line(value)).expect("writing to memory");
    };
    if step.kind == Kind::Ask.name() {
        row("asks", "before it runs");
    }
    if let Some(needs) = &step.needs {
        row("needs", &format!("{needs} (not there yet)"));
    }
    if let Some(approve) = &step.approve {
        row("approve", &approval(approve));
    }
    if step.unnamed || step.selector.is_some() {
        row("hosts", &hosts(step));
    }
    for (name, value) in [
        ("as", step.user.as_ref()),
        ("timeout", step.timeout.as_ref()),
        ("expect", step.expect.as_ref()),
        ("armed", step.armed.as_ref()),
    ] {
        value.iter().for_each(|value| row(name, value));
    }
    if step.retries > 0 {
        row("retries", &step.retries.to_string());
    }
    let runs = ![Kind::Manual.name(), Kind::Approval.name()].contains(&step.kind);
    let block = if runs { "command" } else { "text" };
    for (name, command) in [(block, &step.command), ("verify", &step.verify), ("undo", &step.undo)]
    {
        command.iter().for_each(|command| command_page(page, name, command));
    }
}

fn command_page(page: &mut String, name: &str, command: &Command) {
    let from = command.step.as_ref().map_or_else(String::new, |step| format!(" (block {step})"));
    let later = if command.complete { "" } else { ", with output of earlier steps" };
    writeln!(page, "    {name}{from}{later}").expect("writing to memory");
    for shown in text(&command.text).lines() {
        writeln!(page, "      | {shown}").expect("writing to memory");
    }
}

fn approval(approve: &Approve) -> String {
    let people = if approve.people == 1 {
        "one person".to_owned()
    } else {
        format!("{} people", approve.people)
    };
    let by = approve.by.as_ref().map_or_else(String::new, |by| format!(" ({by})"));
    let expires =
        approve.expires.as_ref().map_or_else(String::new, |span| format!(", within {span}"));
    format!("{people}{by}{expires}")
}

fn hosts(step: &Planned) -> String {
    const SHOWN: usize = 8;
    let Some(selector) = &step.selector else {
        return "none are named; give them with --hosts".to_owned();
    };
    let names: Vec<_> = step.hosts.iter().take(SHOWN).map(HostName::as_str).collect();
    let names = match (names.is_empty(), step.hosts.len().saturating_sub(SHOWN)) {
        (true, _) => "no host".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    };
    let by = if step.unnamed { " (by --hosts)" } else { "" };
    format!("{selector}{by}: {names}")
}
