//! What proves a rollout, as it is read.

use fw_proto::api::Command;

use super::read::{items, path, span};
use super::{Check, MOST_ITEMS, What};
use crate::job::fields::{Fields, Outcome, Read, Reported};
use crate::job::yaml::{Node, Value};
use crate::runbook::Expect;

const KEYS: [&str; 10] =
    ["run", "argv", "http", "tcp", "file", "metric", "expect", "body", "sha256", "within"];

/// One check or a list of them.
pub(super) fn all(read: &mut Read<'_>, node: &Node) -> Outcome<Vec<Check>> {
    let nodes = items(read, node, MOST_ITEMS, "checks")?;
    nodes.iter().map(|node| one(read, node)).collect()
}

fn one(read: &mut Read<'_>, node: &Node) -> Outcome<Check> {
    let fields = read.map(node, &KEYS, "key of a check")?;
    let kinds = ["run", "argv", "http", "tcp", "file", "metric"];
    let kind = kinds.into_iter().filter(|kind| fields.contains_key(kind)).collect::<Vec<_>>();
    let [kind] = kind[..] else {
        let message = "a check has one of run, argv, http, tcp, file and metric";
        return Err(read.error(node.place, message));
    };
    only(read, &fields, kind)?;
    let within = read.optional(&fields, "within", span);
    let what = what(read, node, &fields, kind)?;
    if fields.contains_key("within") && within.is_none() {
        return Err(Reported);
    }
    Ok(Check { what, within, line: node.place.line })
}

/// Keys that belong to checks of another kind are refused.
fn only(read: &mut Read<'_>, fields: &Fields<'_>, kind: &str) -> Outcome<()> {
    let mine: &[&str] = match kind {
        "run" | "argv" => &["expect", "within"],
        "http" => &["expect", "body", "within"],
        "file" => &["sha256", "within"],
        _ => &["within"],
    };
    for (key, (place, _)) in fields {
        if *key != kind && !mine.contains(key) {
            let message = format!("'{key}' says nothing of a check by {kind}; take it out");
            return Err(read.error(*place, message));
        }
    }
    Ok(())
}

fn what(read: &mut Read<'_>, node: &Node, fields: &Fields<'_>, kind: &str) -> Outcome<What> {
    let value = fields.get(kind).map_or(node, |(_, value)| value);
    Ok(match kind {
        "run" | "argv" => {
            let command = read.command(node.place, fields)?;
            What::Run(command, expect(read, fields)?)
        }
        "http" => What::Http {
            url: url(read, value)?,
            expect: status(read, fields)?,
            body: body(read, fields)?,
        },
        "tcp" => What::Tcp(address(read, value)?),
        "file" => {
            let path = path(read, value)?;
            let what = "the SHA-256 of its bytes in hexadecimal";
            let sum = read.required(node.place, fields, "sha256", what)?;
            What::File { path, sha256: sha256(read, sum)? }
        }
        // The only one left of those there are.
        _ => What::Metric(read.words(value)?),
    })
}

/// What is said under a key, where that has no default but this.
fn said<'n>(fields: &Fields<'n>, key: &str) -> Option<&'n Node> {
    fields.get(key).map(|(_, node)| *node).filter(|node| !matches!(node.value, Value::Null))
}

/// Exit codes, a text or `~` and a pattern.
fn expect(read: &mut Read<'_>, fields: &Fields<'_>) -> Outcome<Expect> {
    let Some(node) = said(fields, "expect") else { return Ok(Expect::Exit(vec![0])) };
    if let Value::List(nodes) = &node.value {
        let codes = nodes.iter().map(|node| exit_code(read, node));
        let codes: Vec<u8> = codes.collect::<Outcome<_>>()?;
        if codes.is_empty() {
            return Err(read.error(node.place, "this list is empty; write exit codes"));
        }
        return Ok(Expect::Exit(codes));
    }
    let text = read.words(node)?;
    if let Some(pattern) = text.strip_prefix('~') {
        return match wrong_pattern(pattern) {
            Some(why) => Err(read.error(node.place, why)),
            None => Ok(Expect::Pattern(pattern.to_owned())),
        };
    }
    let number = matches!(&node.value, Value::Scalar { plain: true, .. });
    if number && text.chars().all(|c| c.is_ascii_digit()) {
        return exit_code(read, node).map(|code| Expect::Exit(vec![code]));
    }
    Ok(Expect::Text(text))
}

fn exit_code(read: &mut Read<'_>, node: &Node) -> Outcome<u8> {
    let text = read.text(node)?;
    text.parse().map_err(|_| {
        read.error(node.place, "exit codes are 0 to 255; for output write a text or ~REGEX")
    })
}

/// What a pattern has that `grep -E` on the host would read otherwise, or not at all.
fn wrong_pattern(pattern: &str) -> Option<String> {
    if pattern.is_empty() || pattern.contains(char::is_control) {
        return Some("a pattern is one line, and not empty".to_owned());
    }
    if let Err(error) = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build() {
        let said = error.to_string();
        let last = said.lines().last().unwrap_or_default();
        return Some(format!("no regular expression: {last}"));
    }
    let bytes = pattern.as_bytes();
    let two = |a: fn(u8) -> bool, b: fn(u8) -> bool| {
        bytes.windows(2).any(|pair| matches!(*pair, [one, other] if a(one) && b(other)))
    };
    let letter = two(|one| one == b'\\', |other| other.is_ascii_alphanumeric());
    let lazy = two(|one| matches!(one, b'*' | b'+' | b'?' | b'}'), |other| other == b'?');
    let group = two(|one| one == b'(', |other| other == b'?');
    (letter || lazy || group).then(|| {
        "grep -E reads this on the host, which knows no \\d, *? and (?: write [0-9] and the like"
            .to_owned()
    })
}

fn url(read: &mut Read<'_>, node: &Node) -> Outcome<String> {
    let text = read.words(node)?;
    match crate::job::wrong_url(&text) {
        Some(why) => Err(read.error(node.place, why)),
        None => Ok(text),
    }
}

fn status(read: &mut Read<'_>, fields: &Fields<'_>) -> Outcome<u16> {
    let Some(node) = said(fields, "expect") else { return Ok(200) };
    let text = read.text(node)?;
    let status = text.parse().ok().filter(|status| (100..=599).contains(status));
    status.ok_or_else(|| read.error(node.place, "a status from 100 to 599 should stand here"))
}

fn body(read: &mut Read<'_>, fields: &Fields<'_>) -> Outcome<Option<String>> {
    let Some(node) = said(fields, "body") else { return Ok(None) };
    let text = read.words(node)?;
    let pattern = text.strip_prefix('~').map(regex::Regex::new);
    if let Some(Err(error)) = pattern {
        let said = error.to_string();
        let last = said.lines().last().unwrap_or_default();
        return Err(read.error(node.place, format!("no regular expression: {last}")));
    }
    Ok(Some(text))
}

/// `HOST:PORT`.
fn address(read: &mut Read<'_>, node: &Node) -> Outcome<String> {
    let text = read.words(node)?;
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        let plain = !host.contains(|c: char| c.is_whitespace() || c.is_control());
        !host.is_empty() && bare && plain && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good {
        return Ok(text);
    }
    Err(read.error(node.place, "write HOST:PORT, such as localhost:80 or [::1]:80"))
}

fn sha256(read: &mut Read<'_>, node: &Node) -> Outcome<String> {
    let text = read.words(node)?;
    if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(read.error(node.place, "a SHA-256 has 64 hexadecimal digits; put it in quotes"))
}

/// A command as people read it.
pub(super) fn shown(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.clone(),
        Command::Argv(argv) => argv.join(" "),
    }
}
