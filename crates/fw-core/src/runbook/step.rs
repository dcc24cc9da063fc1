//! From a block and its attributes to a step, each value by its own rule.

use fw_proto::Span;
use fw_proto::api::Role;

use super::attribute::Attribute;
use super::markdown::Block;
use super::source::Source;
use super::{Approve, Expect, Language, Template, Where};
use crate::command::{self, MAX_ARGUMENT};

/// The most tries after the first.
const MOST_RETRIES: u32 = 100;

/// The most people that one step may ask.
const MOST_PEOPLE: u32 = 20;

/// The longest id.
const LONGEST_ID: usize = 64;

/// The most memory that a compiled pattern may take, and its deepest nesting.
const PATTERN_BYTES: usize = 1 << 20;
const DEEPEST_PATTERN: u32 = 64;

/// What the attributes of a block say; what is wrong was told and is left out.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) id: Option<(usize, String)>,
    pub(super) hosts: Option<(usize, Where)>,
    pub(super) user: Option<String>,
    pub(super) timeout: Option<Span>,
    pub(super) retries: u32,
    pub(super) expect: Option<Expect>,
    pub(super) undo: Option<Attribute>,
    pub(super) verify: Option<Attribute>,
    pub(super) approve: Option<Approve>,
    pub(super) armed: Option<(usize, Span)>,
    pub(super) fresh: Option<(usize, Span)>,
    pub(super) manual: bool,
    pub(super) needs: Option<String>,
}

/// Reads attributes.
pub(super) fn said(source: &mut Source<'_>, attributes: Vec<Attribute>) -> Said {
    let mut said = Said::default();
    for attribute in attributes {
        if let Err((at, message)) = take(&mut said, attribute) {
            source.error(at, message);
        }
    }
    said
}

type Outcome<T> = Result<T, (usize, String)>;

fn take(said: &mut Said, attribute: Attribute) -> Outcome<()> {
    match attribute.key {
        "id" => said.id = Some((attribute.value_at, id(&attribute)?)),
        "on" => said.hosts = Some((attribute.value_at, hosts(&attribute)?)),
        "as" => said.user = Some(user(&attribute)?),
        "timeout" => said.timeout = Some(span(&attribute)?),
        "retries" => said.retries = number(&attribute, MOST_RETRIES)?,
        "expect" => said.expect = Some(expect(&attribute)?),
        "approve" => said.approve = Some(approve(&attribute)?),
        "armed" => said.armed = Some((attribute.at, span(&attribute)?)),
        "fresh" => said.fresh = Some((attribute.at, span(&attribute)?)),
        "needs" => said.needs = Some(attribute.value),
        "undo" => said.undo = Some(attribute),
        "verify" => said.verify = Some(attribute),
        // The only one left of those there are.
        _ => said.manual = true,
    }
    Ok(())
}

/// Whether a text can be an id.
pub(super) fn is_id(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !text.is_empty() && text.len() <= LONGEST_ID && text.chars().all(letter)
}

fn id(attribute: &Attribute) -> Outcome<String> {
    let value = &attribute.value;
    if !is_id(value) || value == "none" {
        let message = format!(
            "an id has letters, digits, '-' and '_', at most {LONGEST_ID}, and is not 'none'"
        );
        return Err((attribute.value_at, message));
    }
    Ok(value.clone())
}

fn hosts(attribute: &Attribute) -> Outcome<Where> {
    Where::parse(&attribute.value).map_err(|error| {
        let before = attribute.value.chars().take(error.offset).map(char::len_utf8).sum::<usize>();
        let offset = if attribute.verbatim { before } else { 0 };
        (attribute.value_at + offset, error.message)
    })
}

fn user(attribute: &Attribute) -> Outcome<String> {
    let wrong =
        |error: command::Invalid| (attribute.value_at, error.to_string().replacen("user", "as", 1));
    command::check_user(&attribute.value).map_err(wrong)?;
    Ok(attribute.value.clone())
}

fn span(attribute: &Attribute) -> Outcome<Span> {
    let span: Span =
        attribute.value.parse().map_err(|error| (attribute.value_at, format!("{error}")))?;
    let wrong = |message: &str| Err((attribute.value_at, format!("{}: {message}", attribute.key)));
    if span == Span::ZERO {
        return wrong("it is 0; give at least 1s");
    }
    if span > command::LONGEST {
        return wrong("it is longer than 366 days; give less");
    }
    Ok(span)
}

fn number(attribute: &Attribute, most: u32) -> Outcome<u32> {
    let number = attribute.value.parse().ok().filter(|number| *number <= most);
    let key = attribute.key;
    number.ok_or_else(|| (attribute.value_at, format!("{key} is a number from 0 to {most}")))
}

/// `0,2`, `~REGEX`, or a text.
fn expect(attribute: &Attribute) -> Outcome<Expect> {
    let value = &attribute.value;
    if let Some(pattern) = value.strip_prefix('~') {
        let built = regex::RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES)
            .nest_limit(DEEPEST_PATTERN)
            .build();
        built.map_err(|error| {
            let said = error.to_string();
            let last = said.lines().last().unwrap_or_default();
            (attribute.value_at, format!("expect: no regular expression: {last}"))
        })?;
        return Ok(Expect::Pattern(pattern.to_owned()));
    }
    if value.chars().any(|c| !(c.is_ascii_digit() || matches!(c, ',' | ' '))) {
        return Ok(Expect::Text(value.clone()));
    }
    let codes: Result<Vec<u8>, _> = value.split(',').map(|code| code.trim().parse()).collect();
    codes.map(Expect::Exit).map_err(|_| {
        (
            attribute.value_at,
            "expect: exit codes are 0 to 255, such as 0,2; for output put letters or ~".to_owned(),
        )
    })
}

/// A role, a number of people and a duration, in any order: `operator,2,4h`.
fn approve(attribute: &Attribute) -> Outcome<Approve> {
    let mut approve = Approve { by: None, people: 1, expires: None };
    let wrong = |message: String| (attribute.value_at, format!("approve: {message}"));
    for word in attribute.value.split(',').map(str::trim) {
        let people = word.chars().all(|c| c.is_ascii_digit());
        if let (true, Ok(people)) = (people, word.parse()) {
            if !(1..=MOST_PEOPLE).contains(&people) {
                return Err(wrong(format!("it asks 1 to {MOST_PEOPLE} people")));
            }
            approve.people = people;
        } else if word.starts_with(|c: char| c.is_ascii_digit()) {
            let span = word.parse().map_err(|error| wrong(format!("{error}")))?;
            approve.expires = Some(span);
        } else if is_id(word) && approve.by.is_none() {
            let role: Role = word.parse().map_err(|error| wrong(format!("{error}")))?;
            if role == Role::Viewer {
                return Err(wrong(
                    "a viewer may approve nothing; say operator or admin".to_owned(),
                ));
            }
            approve.by = Some(role);
        } else {
            return Err(wrong(format!(
                "{:?} is no role, number of people or duration, such as operator,2,4h",
                word.chars().take(40).collect::<String>()
            )));
        }
    }
    Ok(approve)
}

/// What reads a block of this language.
pub(super) fn language(word: &str) -> Language {
    match word {
        "" | "sh" | "shell" | "console" => Language::Sh,
        "bash" => Language::Bash,
        other => Language::Other(other.chars().take(40).collect()),
    }
}

/// The text of a block, if it can be run at all.
pub(super) fn check_text(block: &Block) -> Outcome<()> {
    if block.text.trim().is_empty() {
        return Err((
            block.at,
            "the block is empty; write a command into it, or take it out".to_owned(),
        ));
    }
    if let Some(nul) = block.text.find('\0') {
        return Err((block.place(nul), "the command contains a NUL byte; take it out".to_owned()));
    }
    if block.text.len() > MAX_ARGUMENT {
        let message = format!(
            "the block has {} bytes, and Linux takes at most {MAX_ARGUMENT} in one command; put it into a file on the hosts",
            block.text.len()
        );
        return Err((block.at, message));
    }
    Ok(())
}

/// A command in an attribute.
pub(super) fn command_of(attribute: &Attribute, filled: bool) -> Template {
    Template { text: attribute.value.clone(), filled }
}
