//! Running other programs, and saying what is run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo: the one that runs this task, so that both are of one toolchain.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Prints the heading of a step.
pub(crate) fn heading(text: &str) {
    eprintln!("\n== {text}");
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let text = text_of(command);
    eprintln!("$ {text}");
    let status = command.status().with_context(|| format!("start {text}"))?;
    ensure!(status.success(), "{text}: {status}");
    Ok(())
}

/// What a command prints on standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let text = text_of(command);
    let out = command.stderr(Stdio::inherit()).output().with_context(|| format!("start {text}"))?;
    ensure!(out.status.success(), "{text}: {}", out.status);
    String::from_utf8(out.stdout).with_context(|| format!("read what {text} printed"))
}

/// Whether a command can be started and succeeds; what it prints is left out.
pub(crate) fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs a test runner and gives back its closing lines: all that it prints on standard error from
/// the last line on for which `opens` holds.
pub(crate) fn run_keeping_end(
    command: &mut Command,
    opens: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<String>> {
    let text = text_of(command);
    eprintln!("$ {text}");
    let mut child =
        command.stderr(Stdio::piped()).spawn().with_context(|| format!("start {text}"))?;
    let stderr = child.stderr.take().context("standard error is piped")?;
    let mut end = Vec::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        // Written past the lock of `eprintln!`, which panics when nobody reads any more.
        writeln!(std::io::stderr(), "{line}")?;
        if opens(&line) {
            end.clear();
            end.push(line);
        } else if !end.is_empty() {
            end.push(line);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(end)
}

fn text_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
