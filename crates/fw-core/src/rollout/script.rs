//! What a host runs: shell texts of what a rollout does, proves and takes back.
//!
//! Each command of the file is a shell of its own, as it would be without a rollout: its `exit`
//! ends no proof, and what it opens is closed behind it.

use std::fmt::Write as _;

use fw_proto::Span;
use fw_proto::api::Command;

use super::check::shown;
use super::{Check, State, What};
use crate::runbook::{Expect, quote};

/// The exit code of a host where the command did its work and a check does not hold, or the state
/// is not what it was.
pub(super) const NOT_PROVED: u8 = 86;

/// How this binary is called on a host.
const BINARY: &str = r#""${FLEETWRIGHT:?this agent is too old for probes}""#;

/// Looks again each second, until the time is over.
const TRY: &str = r#"try() {
  end=$(( $(date +%s) + $1 )); shift
  until "$@"; do
    [ "$(date +%s)" -lt "$end" ] || return 1
    sleep 1
  done
}
"#;

/// The whole of what is done on a host: keep the state, do, verify.
pub(super) fn act(command: &Command, checks: &[Check], kept: Option<&Kept<'_>>) -> Command {
    if checks.is_empty() && kept.is_none() {
        return command.clone();
    }
    let mut text = String::new();
    if let Some(kept) = kept {
        text.push_str(&kept.keep());
    }
    let last = if checks.is_empty() { "" } else { " || exit $?" };
    writeln!(text, "{}{last}", words(command)).expect("writing to memory");
    text.push_str(&verify(checks));
    Command::Shell(text)
}

/// Only the proof, such as after a soak.
pub(super) fn prove(checks: &[Check]) -> Command {
    Command::Shell(verify(checks))
}

/// What takes it back: undo, then compare.
pub(super) fn undo(command: &Command, compared: bool) -> Command {
    if !compared {
        return command.clone();
    }
    Command::Shell(format!("{} || exit $?\n{}", words(command), Kept::compare()))
}

/// Does and undoes it, and compares how the host was and is. How it was is kept until it is so again: a rehearsal
/// that is tried again must not take what the one before left behind for the state that there was.
pub(super) fn rehearsal(act: &Command, undo: &Command, kept: &Kept<'_>) -> Command {
    let (keep, compare) = (kept.keep(), Kept::compare());
    let (act, undo) = (words(act), words(undo));
    Command::Shell(format!(
        "echo 'rehearsal: how the host is'\n\
         {keep}\
         echo 'rehearsal: do'\n\
         {act} || exit $?\n\
         echo 'rehearsal: undo'\n\
         {undo} || exit $?\n\
         echo 'rehearsal: compare'\n\
         {compare}"
    ))
}

/// A state that is kept on the host until the change is taken back.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    /// What makes it up.
    pub(super) state: &'a State,
}

/// The variable that says which rollout it is: its name and when it was begun, so that no rollout
/// finds what another one kept. It is no part of the text, by which earlier runs are found.
pub(super) const KEY: &str = "FLEETWRIGHT_ROLLOUT";

/// Where the state is kept. The directory lies where everybody may write, so it has to be our own. Each host has one,
/// also where several agents are on one machine; agents that do not say which host it is share one.
const DIRECTORY: &str = concat!(
    "dir=\"${TMPDIR:-/var/tmp}/fleetwright-${FLEETWRIGHT_ROLLOUT:?begin the rollout again}",
    "${FLEETWRIGHT_HOST_ID:+-$FLEETWRIGHT_HOST_ID}\"\n"
);

impl Kept<'_> {
    /// Keeps the state as it is before the first try, and never again.
    fn keep(&self) -> String {
        let capture = capture(self.state);
        format!(
            "umask_before=$(umask); umask 077\n\
             {DIRECTORY}\
             [ -d \"$dir\" ] || mkdir \"$dir\" || exit 1\n\
             if [ -L \"$dir\" ] || ! [ -O \"$dir\" ]; then\n\
             \x20 echo \"$dir belongs to somebody else; remove it\" >&2; exit 1\n\
             fi\n\
             if ! [ -e \"$dir/before.json\" ]; then\n\
             \x20 {capture} > \"$dir/new.json\" || exit $?\n\
             \x20 mv \"$dir/new.json\" \"$dir/before.json\" || exit 1\n\
             fi\n\
             umask \"$umask_before\"\n"
        )
    }

    /// Compares it with how the host is now, and forgets it when that is the same.
    fn compare() -> String {
        format!(
            "{DIRECTORY}\
             if [ -L \"$dir\" ] || ! [ -O \"$dir\" ] || ! [ -e \"$dir/before.json\" ]; then\n\
             \x20 echo \"it is taken back, and there is nothing to compare with in $dir\" >&2\n\
             \x20 exit {NOT_PROVED}\n\
             fi\n\
             {BINARY} state compare \"$dir/before.json\" || exit {NOT_PROVED}\n\
             rm -rf \"$dir\"\n"
        )
    }
}

fn capture(state: &State) -> String {
    let mut text = format!("{BINARY} state capture -o json");
    for file in &state.files {
        write!(text, " --file {}", quote(file)).expect("writing to memory");
    }
    for command in &state.commands {
        // With `=`, so that a text that begins with a dash is no flag.
        write!(text, " {}", quote(&format!("--command={command}"))).expect("writing to memory");
    }
    text
}

/// A command as words of a shell.
fn words(command: &Command) -> String {
    match command {
        Command::Shell(text) => format!("/bin/sh -c {}", quote(text)),
        Command::Argv(argv) => {
            // A program of the name of a keyword or of something built in is a program all the same.
            let words = argv.iter().map(|word| quote(word)).collect::<Vec<_>>();
            format!("/bin/sh -c 'exec \"$@\"' sh {}", words.join(" "))
        }
    }
}

/// All checks, one after the other, each with what it looks at.
fn verify(checks: &[Check]) -> String {
    let mut text = String::new();
    let tries = |check: &Check| matches!(check.what, What::Run(..)) && check.within.is_some();
    if checks.iter().any(tries) {
        text.push_str(TRY);
    }
    for (number, check) in (1..).zip(checks) {
        let what = quote(&check.to_string());
        writeln!(text, "printf 'verify: %s\\n' {what}").expect("writing to memory");
        let command = looks(number, check, &mut text);
        writeln!(
            text,
            "{command} || {{ printf 'this does not hold: %s\\n' {what} >&2; exit {NOT_PROVED}; }}"
        )
        .expect("writing to memory");
    }
    text
}

/// The command that looks; what it needs before is written to `text`.
fn looks(number: u32, check: &Check, text: &mut String) -> String {
    let within = check.within.map(seconds);
    let patience = within.map_or_else(String::new, |secs| format!(" --within {secs}s"));
    match &check.what {
        What::Run(command, expect) => {
            let name = format!("check_{number}");
            writeln!(text, "{name}() {{\n{}}}", holds(command, expect)).expect("writing to memory");
            within.map_or_else(|| name.clone(), |secs| format!("try {secs} {name}"))
        }
        What::Http { url, expect, body } => {
            let body = body.as_ref();
            let body = body
                .map_or_else(String::new, |body| format!(" {}", quote(&format!("--body={body}"))));
            format!("{BINARY} probe http {} --expect {expect}{body}{patience}", quote(url))
        }
        What::Tcp(address) => format!("{BINARY} probe tcp {}{patience}", quote(address)),
        What::File { path, sha256 } => {
            format!("{BINARY} probe file {} --sha256 {sha256}{patience}", quote(path))
        }
        // Refused before; nothing that holds stands for it.
        What::Metric(_) => "false".to_owned(),
    }
}

/// The body of a function that says whether a command does what is expected of it.
fn holds(command: &Command, expect: &Expect) -> String {
    let command = words(command);
    match expect {
        Expect::Exit(codes) => {
            let codes: Vec<_> = codes.iter().map(ToString::to_string).collect();
            let codes = codes.join("|");
            format!("  {command}\n  case $? in {codes}) return 0;; esac\n  return 1\n")
        }
        Expect::Text(expected) => {
            let expected = quote(expected);
            format!(
                "  said=$({command}) || return 1\n  printf '%s\\n' \"$said\"\n  expected={expected}\n  case $said in *\"$expected\"*) return 0;; esac\n  return 1\n"
            )
        }
        Expect::Pattern(pattern) => {
            let pattern = quote(pattern);
            format!(
                "  said=$({command}) || return 1\n  printf '%s\\n' \"$said\"\n  printf '%s\\n' \"$said\" | grep -Eqe {pattern}\n"
            )
        }
    }
}

/// Whole seconds, at least one.
fn seconds(span: Span) -> u64 {
    (span.as_millis() / 1000).max(1)
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let within = self.within.map_or_else(String::new, |span| format!(", within {span}"));
        match &self.what {
            What::Run(command, expect) => {
                write!(f, "{} {}{within}", shown(command), expected(expect))
            }
            What::Http { url, expect, body } => {
                let body = body.as_ref().map_or_else(String::new, |body| format!(" with {body}"));
                write!(f, "{url} answers {expect}{body}{within}")
            }
            What::Tcp(address) => write!(f, "{address} takes connections{within}"),
            What::File { path, sha256 } => write!(f, "{path} has sha256 {sha256}{within}"),
            What::Metric(metric) => write!(f, "metric {metric}{within}"),
        }
    }
}

fn expected(expect: &Expect) -> String {
    match expect {
        Expect::Exit(codes) => {
            let codes: Vec<_> = codes.iter().map(ToString::to_string).collect();
            format!("exits with {}", codes.join(" or "))
        }
        Expect::Text(text) => format!("prints {text:?}"),
        Expect::Pattern(pattern) => format!("prints what matches {pattern:?}"),
    }
}

#[cfg(test)]
mod tests;
