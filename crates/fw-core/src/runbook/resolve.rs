//! All steps together: ids, what refers to what, and which values are there when.

use std::collections::{BTreeMap, BTreeSet};

use super::attribute::{self, Attribute};
use super::markdown::{Block, Part};
use super::names::{Known, template_in};
use super::source::Source;
use super::step::{self, Said};
use super::template::Template;
use super::{
    Action, Front, Input, Kind, Language, Phase, Runbook, Step, StepId, Type, Where, backup,
};
use crate::caret::nearest;

/// The longest id that is made of a text.
const LONGEST_MADE: usize = 40;

/// A step that is being made.
struct Draft {
    at: usize,
    step: Step,
    block: Option<Block>,
    /// What is still to be looked up: its id, its undo and its proof.
    id: Option<(usize, String)>,
    undo: Option<Attribute>,
    verify: Option<Attribute>,
    /// Where it says on which hosts, and that it is armed.
    hosts_at: usize,
    armed_at: usize,
}

/// Puts all together. `front` is `None` in a document without front matter, where nothing is a template.
pub(super) fn runbook(source: &mut Source<'_>, front: Option<Front>, parts: Vec<Part>) -> Runbook {
    let filled = front.is_some();
    let front = front.unwrap_or_default();
    let mut runbook = Runbook {
        title: front.title.unwrap_or_default(),
        owner: front.owner,
        hosts: front.hosts.map(|(hosts, _)| hosts),
        inputs: front.inputs,
        ..Runbook::default()
    };
    let mut drafts = drafts(source, &mut runbook, parts, filled);
    names(source, &mut drafts);
    references(source, &mut drafts, filled);
    belonging(source, runbook.hosts.as_ref(), &drafts);
    rules(source, &runbook, &mut drafts);
    unnamed(source, &runbook, &drafts);
    templates(source, &runbook.inputs, &drafts);
    runbook.steps = drafts.into_iter().map(|draft| draft.step).collect();
    if runbook.title.is_empty() {
        let name = source.file.rsplit('/').next().unwrap_or_default();
        runbook.title = name.strip_suffix(".md").unwrap_or(name).to_owned();
    }
    runbook
}

fn drafts(
    source: &mut Source<'_>,
    runbook: &mut Runbook,
    parts: Vec<Part>,
    filled: bool,
) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut headed = false;
    for part in parts {
        let phase = runbook.phases.len().checked_sub(1);
        let heading =
            phase.and_then(|phase| runbook.phases.get(phase)).map(|phase| phase.title.clone());
        match part {
            Part::Heading { at, level, text } => {
                if level == 1 && !headed && runbook.phases.is_empty() {
                    headed = true;
                    if runbook.title.is_empty() {
                        runbook.title = text;
                    }
                } else {
                    runbook.phases.push(Phase { title: text, level, line: source.line(at) });
                }
            }
            Part::Item { at, text } => {
                let step = blank(source.line(at), phase, text);
                drafts.push(draft(at, step, None, Said::default()));
            }
            Part::Block(block) => {
                let title = block.item.clone().or(heading).unwrap_or_default();
                drafts.push(of_block(source, block, phase, title, filled));
            }
        }
    }
    drafts
}

fn blank(line: u32, phase: Option<usize>, title: String) -> Step {
    Step {
        id: StepId(String::new()),
        line,
        phase,
        title,
        kind: Kind::Manual,
        block: None,
        language: Language::Sh,
        hosts: None,
        user: None,
        timeout: None,
        retries: 0,
        expect: None,
        undo: None,
        verify: None,
        approve: None,
        armed: None,
        needs: None,
    }
}

fn draft(at: usize, mut step: Step, block: Option<Block>, said: Said) -> Draft {
    let hosts_at = said.hosts.as_ref().map_or(at, |(place, _)| *place);
    let armed_at = said.armed.map_or(at, |(place, _)| place);
    step.hosts = said.hosts.map(|(_, hosts)| hosts);
    step.armed = said.armed.map(|(_, span)| span);
    (step.user, step.timeout, step.retries) = (said.user, said.timeout, said.retries);
    (step.expect, step.approve, step.needs) = (said.expect, said.approve, said.needs);
    step.kind = match (said.manual, step.approve.is_some()) {
        (true, true) => Kind::Approval,
        (true, false) => Kind::Manual,
        (false, _) => step.kind,
    };
    let (id, undo, verify) = (said.id, said.undo, said.verify);
    Draft { at, step, block, id, undo, verify, hosts_at, armed_at }
}

fn of_block(
    source: &mut Source<'_>,
    block: Block,
    phase: Option<usize>,
    title: String,
    filled: bool,
) -> Draft {
    let mut step = blank(source.line(block.at), phase, title);
    let info = block.info.clone().unwrap_or(block.at..block.at);
    let text = source.text.get(info.clone()).unwrap_or_default().trim_end();
    let (language, attributes) = attribute::read(source, text, info.start);
    let marked = !attributes.is_empty();
    let said = step::said(source, attributes);
    if language == backup::LANGUAGE && !said.manual {
        return of_backup(source, block, step, said, filled);
    }
    if let Some((at, _)) = said.fresh {
        source.error(at, "fresh belongs to a block of backup, which says of what");
    }
    step.language = step::language(&language);
    let shell = !matches!(step.language, Language::Other(_));
    step.block =
        Some(Template { text: block.text.clone(), filled: filled && shell && !said.manual });
    step.kind = if marked { Kind::Command } else { Kind::Ask };
    let draft = draft(block.at, step, Some(block), said);
    readable(source, &draft);
    draft
}

/// A block of `backup`: its command, and its restore as its undo.
fn of_backup(
    source: &mut Source<'_>,
    block: Block,
    mut step: Step,
    said: Said,
    filled: bool,
) -> Draft {
    step.kind = Kind::Backup;
    let keeps = said.undo.as_ref().map(|undo| (undo.value_at, undo.value.trim() == "none"));
    if let Some((at, false)) = keeps {
        source.error(at, "the undo of a backup is its restore; say undo=none to leave that out");
    }
    let commands = backup::read(&block, step.line, filled, said.fresh.map(|(_, span)| span));
    let block = match commands {
        Ok(commands) => {
            step.block = Some(Template { text: commands.block.text.clone(), filled });
            let restore = commands.restore.filter(|_| keeps.is_none());
            step.undo = restore.map(|text| Action::Command(Template { text, filled }));
            commands.block
        }
        Err(wrong) => {
            wrong.into_iter().for_each(|(at, why)| source.error(at, why));
            block
        }
    };
    draft(block.at, step, Some(block), Said { undo: None, ..said })
}

/// Whether the block can be run, if it is to be.
fn readable(source: &mut Source<'_>, draft: &Draft) {
    match (&draft.step.language, draft.step.kind) {
        (Language::Other(word), Kind::Command) => {
            source
                .error(draft.at, format!("nothing runs {word:?}; write sh or bash, or add manual"));
        }
        (Language::Other(word), Kind::Ask) => {
            source.warning(draft.at, format!("nothing runs {word:?}; the step shows it and asks"));
        }
        (Language::Sh | Language::Bash, Kind::Command) => {
            if let Some(Err((at, message))) = draft.block.as_ref().map(step::check_text) {
                source.error(at, message);
            }
        }
        (
            _,
            Kind::Ask | Kind::Manual | Kind::Approval | Kind::Backup | Kind::Undo | Kind::Verify,
        ) => {}
    }
}

/// Gives every step its name.
fn names(source: &mut Source<'_>, drafts: &mut [Draft]) {
    let mut taken: BTreeMap<String, u32> = BTreeMap::new();
    for draft in drafts.iter_mut() {
        let Some((at, id)) = draft.id.clone() else { continue };
        if let Some(line) = taken.get(&id.replace('-', "_")) {
            source.error(at, format!("there is a step {id:?} already, at line {line}; rename one"));
            continue;
        }
        taken.insert(id.replace('-', "_"), draft.step.line);
        draft.step.id = StepId(id);
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for draft in drafts.iter_mut().filter(|draft| draft.step.id.0.is_empty()) {
        let base = made(&draft.step.title);
        let count = counts.entry(base.clone()).or_default();
        let id = loop {
            *count += 1;
            let id = if *count == 1 { base.clone() } else { format!("{base}-{count}") };
            if !taken.contains_key(&id.replace('-', "_")) {
                break id;
            }
        };
        taken.insert(id.replace('-', "_"), draft.step.line);
        draft.step.id = StepId(id);
    }
}

/// A name made of a text: its letters and digits, lower case, with `-` between words.
fn made(text: &str) -> String {
    let mut id = String::new();
    for c in text.chars() {
        if id.len() >= LONGEST_MADE {
            break;
        }
        if c.is_ascii_alphanumeric() {
            id.push(c.to_ascii_lowercase());
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
    }
    let id = id.trim_end_matches('-');
    if id.is_empty() || id == "none" { "step".to_owned() } else { id.to_owned() }
}

/// Which of two an attribute is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Undo,
    Verify,
}

impl Role {
    const fn key(self) -> &'static str {
        match self {
            Self::Undo => "undo",
            Self::Verify => "verify",
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Undo => Kind::Undo,
            Self::Verify => Kind::Verify,
        }
    }
}

/// Looks up what undoes and proves each step. Whatever another step refers to is a part of that one.
fn references(source: &mut Source<'_>, drafts: &mut [Draft], filled: bool) {
    let ids: BTreeMap<String, usize> =
        drafts.iter().enumerate().map(|(at, draft)| (draft.step.id.0.clone(), at)).collect();
    let mut parts: Vec<(usize, Role, usize)> = Vec::new();
    for index in 0..drafts.len() {
        for role in [Role::Undo, Role::Verify] {
            let Some(draft) = drafts.get_mut(index) else { continue };
            let attribute = match role {
                Role::Undo => draft.undo.clone(),
                Role::Verify => draft.verify.clone(),
            };
            let Some(attribute) = attribute else { continue };
            let action = action(source, &attribute, &ids, filled);
            if let Some(Action::Step(id)) = &action {
                parts.extend(ids.get(&id.0).map(|part| (*part, role, attribute.value_at)));
            }
            match role {
                Role::Undo => draft.step.undo = action,
                Role::Verify => draft.step.verify = action,
            }
        }
    }
    for (part, role, at) in parts {
        let Some(draft) = drafts.get_mut(part) else { continue };
        if let Err(message) = become_part(draft, role) {
            source.error(at, message);
        }
    }
}

/// One word is an id, or `none`; all else is a command.
fn action(
    source: &mut Source<'_>,
    attribute: &Attribute,
    ids: &BTreeMap<String, usize>,
    filled: bool,
) -> Option<Action> {
    let value = attribute.value.trim();
    if value == "none" {
        return Some(Action::Nothing);
    }
    if !step::is_id(value) {
        return Some(Action::Command(step::command_of(attribute, filled)));
    }
    if ids.contains_key(value) {
        return Some(Action::Step(StepId(value.to_owned())));
    }
    source.error_with(attribute.value_at, || {
        let known: Vec<&str> = ids.keys().map(String::as_str).collect();
        let hint = nearest(value, &known).map_or_else(
            || {
                "one word is the id of a block; for a command of one word put it into a block"
                    .to_owned()
            },
            |near| format!("did you mean {near}?"),
        );
        format!("{}: there is no step {value:?}; {hint}", attribute.key)
    });
    None
}

fn become_part(draft: &mut Draft, role: Role) -> Result<(), String> {
    let id = draft.step.id.clone();
    let key = role.key();
    match draft.step.kind {
        Kind::Command | Kind::Ask if matches!(draft.step.language, Language::Other(_)) => {
            Err(format!("{key}: nothing runs the block {id}; write sh or bash"))
        }
        Kind::Command | Kind::Ask if draft.undo.is_some() || draft.verify.is_some() => {
            Err(format!("{key}: {id} has an undo or a proof of its own; an undo is not undone"))
        }
        Kind::Command | Kind::Ask => {
            draft.step.kind = role.kind();
            Ok(())
        }
        kind if kind == role.kind() => Ok(()),
        Kind::Undo | Kind::Verify => {
            Err(format!("{key}: {id} is {} elsewhere; make two blocks", draft.step.kind.name()))
        }
        Kind::Manual | Kind::Approval | Kind::Backup => {
            Err(format!("{key}: {id} has no command of its own; refer to a block of sh or bash"))
        }
    }
}

/// Checks that a step and what undoes or proves it can be performed together.
fn belonging(source: &mut Source<'_>, hosts: Option<&Where>, drafts: &[Draft]) {
    let ids: BTreeMap<&StepId, &Draft> =
        drafts.iter().map(|draft| (&draft.step.id, draft)).collect();
    for draft in drafts.iter().filter(|draft| draft.step.kind.has_its_turn()) {
        for (role, action, attribute) in [
            (Role::Undo, &draft.step.undo, &draft.undo),
            (Role::Verify, &draft.step.verify, &draft.verify),
        ] {
            let (Some(action), Some(attribute)) = (action, attribute) else { continue };
            let part = match action {
                Action::Nothing => continue,
                Action::Command(_) => None,
                Action::Step(id) => ids.get(id).map(|part| &part.step),
            };
            if let Err(why) = belongs(&draft.step, hosts, part, role) {
                source.error(attribute.at, why);
            }
        }
    }
}

fn belongs(
    step: &Step,
    hosts: Option<&Where>,
    part: Option<&Step>,
    role: Role,
) -> Result<(), String> {
    let key = role.key();
    let proved = matches!(step.verify, Some(Action::Step(_) | Action::Command(_)));
    let unproved = Some(super::NOT_PROVED);
    let expects = match &step.expect {
        Some(super::Expect::Exit(codes)) => {
            codes.iter().copied().find(|code| Some(*code) == unproved)
        }
        Some(super::Expect::Text(_) | super::Expect::Pattern(_)) | None => None,
    };
    match (step.kind, role) {
        (Kind::Approval, _) => return Err(format!("an approval has no {key}; take it away")),
        (Kind::Manual, Role::Undo) if !proved => {
            return Err("undo: nothing runs here; add verify=, or say in words what takes it back"
                .to_owned());
        }
        (_, Role::Verify) if expects.is_some() => {
            return Err(
                "expect: 86 says that a step is not proved; let the command exit otherwise"
                    .to_owned(),
            );
        }
        (
            Kind::Command | Kind::Ask | Kind::Backup | Kind::Manual | Kind::Undo | Kind::Verify,
            Role::Undo | Role::Verify,
        ) => {}
    }
    let Some(part) = part else { return Ok(()) };
    if part.hosts.is_some() && part.hosts.as_ref() != step.hosts.as_ref().or(hosts) {
        return Err(format!(
            "{key}: {} has other hosts, and runs on those of this step; take its on= away",
            part.id
        ));
    }
    if role == Role::Verify && part.user.is_some() && part.user != step.user {
        return Err(format!(
            "verify: {} has another user, and runs as that of this step; take its as= away",
            part.id
        ));
    }
    Ok(())
}

/// The rules that need the whole document.
fn rules(source: &mut Source<'_>, runbook: &Runbook, drafts: &mut [Draft]) {
    for draft in drafts {
        let step = &draft.step;
        if let Some(Where::Input(name)) = &step.hosts {
            let named = runbook.inputs.iter().find(|input| input.name == *name);
            if named.is_none_or(|input| input.kind != Type::Hosts) {
                source.error(draft.hosts_at, format!("there is no input {name:?} of type hosts"));
            }
        }
        if step.armed.is_some() && !matches!(step.undo, Some(Action::Step(_) | Action::Command(_)))
        {
            source.error(draft.armed_at, "an armed step needs its undo: undo=…");
        }
        let runs = matches!(step.kind, Kind::Command | Kind::Backup);
        if let Some(needs) = &step.needs {
            let what: String = needs.chars().take(80).collect();
            if step.kind.runs() {
                source.error(
                    draft.at,
                    format!("it needs {what}, which is not there yet; add manual until it is"),
                );
            } else {
                source.warning(
                    draft.at,
                    format!("it needs {what}, which is not there yet; a person does it"),
                );
            }
        }
        if runs && step.timeout.is_none() {
            source.warning(draft.at, format!("{} has no timeout; add timeout=5m", step.id));
        }
        if step.kind == Kind::Command && draft.undo.is_none() {
            source.warning(
                draft.at,
                format!("{} has no undo; add undo=…, or undo=none if it changes nothing", step.id),
            );
        }
    }
}

/// Says which steps run where whoever begins it says. A plain checklist does so without a word.
fn unnamed(source: &mut Source<'_>, runbook: &Runbook, drafts: &[Draft]) {
    /// More names than these nobody reads in a line.
    const SHOWN: usize = 5;
    let none = |draft: &&Draft| {
        draft.step.acts() && draft.step.kind != Kind::Ask && draft.step.hosts.is_none()
    };
    if runbook.hosts.is_some() {
        return;
    }
    let all: Vec<&Draft> = drafts.iter().filter(none).collect();
    let Some(first) = all.first() else { return };
    let mut names: Vec<&str> = all.iter().take(SHOWN).map(|one| one.step.id.as_str()).collect();
    let more = format!("{} more", all.len().saturating_sub(SHOWN));
    names.extend((all.len() > SHOWN).then_some(more.as_str()));
    let names = names.join(", ");
    source.warning(
        first.at,
        format!(
            "no hosts are named for {names}: begin it with --hosts, or add on=… or hosts: in front matter"
        ),
    );
}

/// Checks every name and every place of a value. What undoes or proves a step in a block of its own has the
/// names of that step, wherever the block stands.
fn templates(source: &mut Source<'_>, inputs: &[Input], drafts: &[Draft]) {
    let inputs: BTreeSet<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let all: BTreeSet<String> = drafts.iter().map(|draft| draft.step.id.in_templates()).collect();
    let blocks: BTreeMap<&StepId, &Draft> =
        drafts.iter().map(|draft| (&draft.step.id, draft)).collect();
    let mut earlier = BTreeSet::new();
    for draft in drafts.iter().filter(|draft| draft.step.kind.has_its_turn()) {
        let own = draft.step.id.in_templates();
        for role in [None, Some(Role::Verify), Some(Role::Undo)] {
            if role == Some(Role::Undo) && draft.step.acts() {
                // What takes a step back may use what it printed; what proves it is part of its command.
                earlier.insert(own.clone());
            }
            let known = Known { inputs: &inputs, earlier: &earlier, all: &all };
            let Some((template, of, attribute)) = text_of(draft, role, &blocks) else { continue };
            let place = |byte: usize| match (attribute, &of.block) {
                (Some(attribute), _) if attribute.verbatim => attribute.value_at + byte,
                (Some(attribute), _) => attribute.value_at,
                (None, Some(block)) => block.place(byte),
                (None, None) => of.at,
            };
            template_in(source, template, &known, place);
        }
    }
}

/// A text of a step, with the draft or the attribute in which it stands: its own block, or what proves or undoes it.
fn text_of<'d>(
    draft: &'d Draft,
    role: Option<Role>,
    blocks: &BTreeMap<&StepId, &'d Draft>,
) -> Option<(&'d Template, &'d Draft, Option<&'d Attribute>)> {
    let (action, attribute) = match role {
        None => return Some((draft.step.block.as_ref()?, draft, None)),
        Some(Role::Undo) => (&draft.step.undo, &draft.undo),
        Some(Role::Verify) => (&draft.step.verify, &draft.verify),
    };
    match action.as_ref()? {
        Action::Nothing => None,
        // The restore of a backup has no attribute, and no values but those of its block.
        Action::Command(template) => Some((template, draft, Some(attribute.as_ref()?))),
        Action::Step(id) => {
            let part = blocks.get(id)?;
            Some((part.step.block.as_ref()?, part, None))
        }
    }
}
