//! One command out of what a step does and what proves it.
//!
//! Each stays a text of its own that its own shell reads: what one of them says (`exit`, `set -e`, a
//! here-document that never ends) means nothing to the other. Both are words of the command's own
//! arguments, so nothing has to be quoted a second time.

use std::collections::BTreeSet;

use fw_proto::api::Command;

use super::{Expect, Language, Template};

/// The exit code of a step that was done and is not proved. No shell and no common program uses it.
pub const NOT_PROVED: u8 = 86;

/// Does `$2` in the shell `$1`; if its exit code is among those of `$5`, `$4` in the shell `$3` proves it.
/// What a proof prints is no output of the step, so it goes to stderr.
const PROVED: &str = r#""$1" -c "$2"
code=$?
case "$5" in *" $code "*) ;; *) exit "$code" ;; esac
printf 'verify: %s\n' "$4" >&2
"$3" -c "$4" >&2 || {
  printf 'verify: it does not hold, exit code %s\n' "$?" >&2
  exit 86
}
exit "$code""#;

/// A text and the shell that reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) template: &'a Template,
    bash: bool,
}

impl<'a> Part<'a> {
    pub(super) const fn of(template: &'a Template, language: &Language) -> Self {
        Self { template, bash: matches!(language, Language::Bash) }
    }

    const fn shell(&self) -> &'static str {
        if self.bash { "bash" } else { "/bin/sh" }
    }
}

/// The command that does `main` and then proves it. Values are not in it yet: [`words`] are templates.
pub(super) fn proved(
    main: &Part<'_>,
    proof: Option<&Part<'_>>,
    expect: Option<&Expect>,
) -> Command {
    let text = main.template.text.clone();
    let Some(proof) = proof else {
        return if main.bash {
            Command::Argv(vec![main.shell().to_owned(), "-c".to_owned(), text])
        } else {
            Command::Shell(text)
        };
    };
    Command::Argv(vec![
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        PROVED.to_owned(),
        "step".to_owned(),
        main.shell().to_owned(),
        text,
        proof.shell().to_owned(),
        proof.template.text.clone(),
        codes(expect),
    ])
}

/// Exit codes with which a step goes on to its proof.
fn codes(expect: Option<&Expect>) -> String {
    match expect {
        Some(Expect::Exit(codes)) => {
            codes.iter().fold(" ".to_owned(), |text, code| format!("{text}{code} "))
        }
        Some(Expect::Text(_) | Expect::Pattern(_)) | None => " 0 ".to_owned(),
    }
}

/// The places of the texts that people wrote, in a command that [`proved`] made.
const TEXTS: [usize; 2] = [5, 7];

/// The texts that people wrote, in a command that [`proved`] made.
pub(super) fn words(command: &mut Command) -> Vec<&mut String> {
    match command {
        Command::Shell(text) => vec![text],
        Command::Argv(argv) => {
            let texts: &[usize] = if argv.len() == 3 { &[2] } else { &TEXTS };
            let named = argv.iter_mut().enumerate().filter(|(at, _)| texts.contains(at));
            named.map(|(_, text)| text).collect()
        }
    }
}

/// The text of what is done, without its proof.
pub(super) fn main(command: &Command) -> &str {
    match command {
        Command::Shell(text) => text,
        Command::Argv(argv) => {
            let at = if argv.len() == 3 { 2 } else { TEXTS[0] };
            argv.get(at).map(String::as_str).unwrap_or_default()
        }
    }
}

/// The names that its texts use, such as `inputs.version`.
pub(super) fn names(command: &Command) -> Result<Vec<String>, String> {
    let mut names = BTreeSet::new();
    for text in words(&mut command.clone()) {
        let template = Template { text: std::mem::take(text), filled: true };
        names.extend(template.read().map_err(|wrong| wrong.message)?.names);
    }
    Ok(names.into_iter().collect())
}

/// How large it is.
pub(super) fn bytes(command: &Command) -> usize {
    match command {
        Command::Shell(text) => text.len(),
        Command::Argv(argv) => argv.iter().map(String::len).sum(),
    }
}
