//! Values in commands: `{{ inputs.version }}`, `{{ steps.stop.stdout }}`.
//!
//! A value is quoted as one word of the shell where it stands, and is refused where it cannot be
//! ([`super::shell`]); `| raw` lets it through as it is. `{% if %}` and `{% for %}` are there, and
//! `{% raw %}` for text that has braces of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use minijinja::value::{Object, Value as Any};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use super::Output;
use super::input::Value;
use super::shell::{self, MARK};

/// A command in which values may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its text.
    pub text: String,
    /// Whether values are put into it; in a document without front matter braces are letters.
    pub filled: bool,
}

/// A command with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// What the shell is given.
    pub text: String,
    /// The variables of the environment that hold secrets, and the names of these.
    pub secrets: BTreeMap<String, String>,
}

/// Steps of the engine that filling one command may take; a command of 100 lines takes some hundreds.
const FUEL: u64 = 200_000;

/// The statements that may stand in a command.
const STATEMENTS: [&str; 8] = ["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];

/// Something wrong in a template, and at which byte of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) message: String,
}

/// What a template says.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The names it uses, such as `inputs.version`.
    pub(super) names: BTreeSet<String>,
    /// Where a value goes in as it is.
    pub(super) raw: Option<usize>,
}

impl Template {
    /// What is said in it, without any values.
    ///
    /// # Errors
    /// It is no template, or a value stands where it cannot be quoted.
    pub(super) fn read(&self) -> Result<Said, Wrong> {
        if !self.filled || !self.has_tags() {
            return Ok(Said::default());
        }
        let outline = Outline::of(&self.text)?;
        let environment = environment();
        let compiled = environment
            .template_from_str(&self.text)
            .map_err(|error| Wrong { at: self.line_start(error.line()), message: told(&error) })?;
        if let Some((at, wrong)) = shell::misplaced(&outline.shell) {
            let marks = outline.shell.get(..at).unwrap_or_default().matches(MARK).count();
            let at = outline.values.get(marks).copied().unwrap_or_default();
            return Err(Wrong { at, message: wrong.message().to_owned() });
        }
        let names: BTreeSet<String> = compiled.undeclared_variables(true).into_iter().collect();
        Ok(Said { names, raw: outline.raw })
    }

    fn has_tags(&self) -> bool {
        ["{{", "{%", "{#"].iter().any(|tag| self.text.contains(tag))
    }

    /// Where a name stands, for a caret.
    pub(super) fn place(&self, name: &str) -> usize {
        let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let found = self.text.match_indices(name).find(|(at, _)| {
            let after = self.text.get(at + name.len()..).unwrap_or_default();
            let before = self.text.get(..*at).unwrap_or_default();
            !after.starts_with(part) && !before.ends_with(part)
        });
        found.map_or_else(|| self.text.find("{{").unwrap_or_default(), |(at, _)| at)
    }

    fn line_start(&self, line: Option<usize>) -> usize {
        let before = line.unwrap_or(1).saturating_sub(1);
        self.text.split_inclusive('\n').take(before).map(str::len).sum()
    }

    /// Puts values in.
    ///
    /// # Errors
    /// A value is missing or stands where it cannot be quoted; the text says which and what to do.
    pub fn fill(
        &self,
        inputs: &BTreeMap<String, Value>,
        outputs: &BTreeMap<String, Output>,
    ) -> Result<Filled, String> {
        if !self.filled || !self.has_tags() {
            return Ok(Filled { text: self.text.clone(), secrets: BTreeMap::new() });
        }
        if self.text.contains(MARK) {
            return Err("the command contains a NUL byte; take it out".to_owned());
        }
        let written = Arc::new(Mutex::new(Vec::new()));
        let rendered = self.render(inputs, outputs, &written)?;
        let words =
            std::mem::take(&mut *written.lock().map_err(|_| "a value was lost".to_owned())?);
        put(&rendered, &words)
    }

    fn render(
        &self,
        inputs: &BTreeMap<String, Value>,
        outputs: &BTreeMap<String, Output>,
        written: &Arc<Mutex<Vec<Word>>>,
    ) -> Result<String, String> {
        // The same statements as `read` allows: others could move what was written already.
        Outline::of(&self.text).map_err(|wrong| wrong.message)?;
        let mut environment = environment();
        let words = Arc::clone(written);
        environment.set_formatter(move |out, _, value| {
            let word = word(value)?;
            if let Ok(mut words) = words.lock() {
                words.push(word);
            }
            out.write_char(MARK).map_err(minijinja::Error::from)
        });
        let inputs: BTreeMap<_, _> =
            inputs.iter().map(|(name, value)| (name.clone(), any(name, value))).collect();
        let steps: BTreeMap<_, _> =
            outputs.iter().map(|(id, output)| (id.replace('-', "_"), fields(output))).collect();
        let values = BTreeMap::from([("inputs", Any::from(inputs)), ("steps", Any::from(steps))]);
        let compiled = environment.template_from_str(&self.text).map_err(|error| told(&error))?;
        compiled.render(Any::from(values)).map_err(|error| told(&error))
    }
}

/// A value that was written, in its place.
#[derive(Debug)]
enum Word {
    /// To be quoted.
    Value(String),
    /// To be put in as it is.
    Raw(String),
    /// A variable of the environment that holds a secret, and its name.
    Secret(String, String),
}

/// Puts words in place of marks. What is raw comes first: it may change what the marks after it mean.
fn put(rendered: &str, words: &[Word]) -> Result<Filled, String> {
    let join = |of: &dyn Fn(&Word) -> String| {
        let mut parts = rendered.split(MARK);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for (part, word) in parts.zip(words) {
            text.push_str(&of(word));
            text.push_str(part);
        }
        text
    };
    let marked = join(&|word| match word {
        Word::Raw(text) => text.clone(),
        Word::Value(_) | Word::Secret(..) => MARK.to_string(),
    });
    if let Some((_, wrong)) = shell::misplaced(&marked) {
        return Err(wrong.message().to_owned());
    }
    let text = join(&|word| match word {
        Word::Raw(text) => text.clone(),
        Word::Value(text) => shell::quote(text),
        Word::Secret(variable, _) => format!("\"${variable}\""),
    });
    let secrets = words.iter().filter_map(|word| match word {
        Word::Secret(variable, name) => Some((variable.clone(), name.clone())),
        Word::Value(_) | Word::Raw(_) => None,
    });
    Ok(Filled { text, secrets: secrets.collect() })
}

fn word(value: &Any) -> Result<Word, minijinja::Error> {
    if let Some(secret) = value.downcast_object_ref::<Secret>() {
        return Ok(Word::Secret(secret.variable.clone(), secret.name.clone()));
    }
    let refused = |why: &'static str| minijinja::Error::new(ErrorKind::InvalidOperation, why);
    if value.is_undefined() || value.is_none() {
        return Err(minijinja::Error::new(ErrorKind::UndefinedError, "a value is missing"));
    }
    if matches!(value.kind(), minijinja::value::ValueKind::Map | minijinja::value::ValueKind::Seq) {
        return Err(refused("this is more than one value; take one of them, or use join"));
    }
    let text = match (value.is_safe(), value.is_true()) {
        (false, flag) if value.kind() == minijinja::value::ValueKind::Bool => {
            if flag {
                "yes".to_owned()
            } else {
                "no".to_owned()
            }
        }
        (_, _) => value.to_string(),
    };
    if text.contains(MARK) {
        return Err(refused("a value contains a NUL byte, which no command can hold"));
    }
    Ok(if value.is_safe() { Word::Raw(text) } else { Word::Value(text) })
}

/// Stands for a secret: its text is nowhere in a template.
#[derive(Debug)]
struct Secret {
    variable: String,
    name: String,
}

impl Object for Secret {
    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a secret)")
    }
}

fn any(input: &str, value: &Value) -> Any {
    match value {
        Value::Text(text) => Any::from(text.clone()),
        Value::Whole(number) => Any::from(*number),
        Value::Decimal(number) => Any::from(*number),
        Value::Flag(flag) => Any::from(*flag),
        Value::Duration(_) | Value::Hosts(_) => Any::from(value.to_string()),
        Value::Secret(name) => {
            let variable = format!("FLEETWRIGHT_{}", input.to_ascii_uppercase());
            Any::from_object(Secret { variable, name: name.clone() })
        }
    }
}

fn fields(output: &Output) -> Any {
    let stdout = Any::from(output.stdout.clone());
    Any::from(BTreeMap::from([("stdout", stdout), ("exit_code", Any::from(output.exit_code))]))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    // One name says that a value goes in as it is, so that it can be found.
    for name in ["safe", "escape", "e"] {
        environment.remove_filter(name);
    }
    environment.add_filter("raw", |value: String| Any::from_safe_string(value));
    environment
}

/// An error of the engine on one line.
fn told(error: &minijinja::Error) -> String {
    let detail = error.detail().unwrap_or_default().replace(['\n', '\r'], " ");
    if error.kind() == ErrorKind::OutOfFuel {
        return "the template takes too many steps; say less in loops".to_owned();
    }
    if error.kind() == ErrorKind::SyntaxError {
        return format!(
            "not a template: {detail}; text with braces of its own stands between {{% raw %}} and {{% endraw %}}"
        );
    }
    let between = if detail.is_empty() { "" } else { ": " };
    format!("template: {}{between}{detail}", error.kind())
}

/// The shell text of a template as far as it can be told without values.
#[derive(Debug, Default)]
struct Outline {
    /// The text, with a mark for each value and without statements.
    shell: String,
    /// Where each value begins in the template.
    values: Vec<usize>,
    /// Where a value goes in as it is.
    raw: Option<usize>,
}

impl Outline {
    fn of(text: &str) -> Result<Self, Wrong> {
        let mut outline = Self::default();
        let mut at = 0;
        while let Some(open) = text.get(at..).and_then(next_tag).map(|open| at + open) {
            outline.shell.push_str(text.get(at..open).unwrap_or_default());
            let kind = text.get(open..open + 2).unwrap_or_default();
            let Some(length) = length(text.get(open..).unwrap_or_default()) else {
                return Err(Wrong { at: open, message: format!("this {kind} is never closed") });
            };
            at = open + length;
            let code = text.get(open + 2..at - 2).unwrap_or_default();
            match kind {
                "{{" => outline.value(open, code),
                "{%" => at = outline.statement(text, open, at, code)?,
                _ => {}
            }
        }
        outline.shell.push_str(text.get(at..).unwrap_or_default());
        Ok(outline)
    }

    fn value(&mut self, at: usize, code: &str) {
        let last = code.trim_end_matches('-').rsplit('|').next().unwrap_or_default();
        if code.contains('|') && last.trim() == "raw" {
            self.raw.get_or_insert(at);
            return;
        }
        self.values.push(at);
        self.shell.push(MARK);
    }

    /// Gives where the template goes on.
    fn statement(
        &mut self,
        text: &str,
        open: usize,
        at: usize,
        code: &str,
    ) -> Result<usize, Wrong> {
        let code = code.trim_matches(['-', '+']).trim();
        let word = code.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        if !STATEMENTS.contains(&word) {
            let shown: String = word.chars().take(40).collect();
            let message = format!("there is no statement {shown:?}; there are if, for and raw");
            return Err(Wrong { at: open, message });
        }
        if word != "raw" {
            return Ok(at);
        }
        // As the engine reads it: up to the next `{% endraw %}`.
        let rest = text.get(at..).unwrap_or_default();
        let end = rest.match_indices("{%").find_map(|(end, _)| {
            let after = rest.get(end + 2..)?.trim_start_matches(['-', '+']).trim_start();
            let after = after.strip_prefix("endraw")?.trim_start().trim_start_matches(['-', '+']);
            after.starts_with("%}").then(|| (end, rest.len() - after.len() + 2))
        });
        let never =
            || Wrong { at: open, message: "this raw is never ended with {% endraw %}".to_owned() };
        let (end, after) = end.ok_or_else(never)?;
        self.shell.push_str(rest.get(..end).unwrap_or_default());
        Ok(at + after)
    }
}

/// Where the next tag begins.
pub(super) fn next_tag(text: &str) -> Option<usize> {
    let next =
        |at: &usize| text.get(at + 1..).is_some_and(|rest| rest.starts_with(['{', '%', '#']));
    text.match_indices('{').map(|(at, _)| at).find(next)
}

/// How long the tag is that a text begins with; texts in quotes are passed over.
pub(super) fn length(text: &str) -> Option<usize> {
    let close = match text.get(..2)? {
        "{{" => "}}",
        "{%" => "%}",
        _ => return text.find("#}").map(|at| at + 2),
    };
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if text.get(at..).is_some_and(|rest| rest.starts_with(close)) => {
                return Some(at + 2);
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None => {}
        }
    }
    None
}
