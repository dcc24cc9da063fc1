//! Questions to the person at the terminal. Without one, nothing is asked: flags decide.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;

use super::Refusal;
use crate::config::read_text;
use crate::output;

/// The longest secret that is read: certificates and keys fit, a mistaken file does not.
const LONGEST_SECRET: u64 = 64 * 1024;

/// `--yes` of commands that cannot be taken back.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Sure {
    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Sure {
    /// Goes on only if `--yes` was given or the person says yes.
    ///
    /// # Errors
    /// The answer is no, or there is nobody to ask.
    pub(crate) fn confirm(self, question: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        if !output::interactive() {
            return Err(Refusal::usage(format!(
                "{question} There is nobody to ask here; add --yes."
            )));
        }
        write!(std::io::stderr(), "{} [y/N] ", output::text(question))
            .context("write to stderr")?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        anyhow::bail!("nothing was changed")
    }
}

/// Reads one line that may be seen.
///
/// # Errors
/// stdin cannot be read, or nothing was typed.
pub(crate) fn line(prompt: &str) -> anyhow::Result<String> {
    write!(std::io::stderr(), "{prompt}: ").context("write to stderr")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the answer")?;
    let line = line.trim().to_owned();
    if line.is_empty() {
        return Err(Refusal::usage(format!("{}: nothing was typed", prompt.to_lowercase())));
    }
    Ok(line)
}

/// Reads a secret: typed without echo on a terminal, else all of stdin.
///
/// # Errors
/// stdin cannot be read, is empty, too long or no UTF-8.
pub(crate) fn secret(prompt: &str) -> anyhow::Result<String> {
    let typed = output::interactive();
    let bytes = if typed { typed_line(prompt)? } else { piped()? };
    let text = String::from_utf8(bytes)
        .context("the value is not UTF-8; encode it, with base64 for example")?;
    let value = match text.strip_suffix('\n') {
        Some(value) => {
            if !typed {
                output::say("one newline at the end was left out");
            }
            value.strip_suffix('\r').filter(|_| typed).unwrap_or(value).to_owned()
        }
        None => text,
    };
    if value.is_empty() {
        return Err(Refusal::usage("the value is empty; give it on stdin"));
    }
    Ok(value)
}

fn piped() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(LONGEST_SECRET + 1)
        .read_to_end(&mut bytes)
        .context("read stdin")?;
    if bytes.len() as u64 > LONGEST_SECRET {
        return Err(Refusal::usage("the value is longer than 64 KiB"));
    }
    Ok(bytes)
}

fn typed_line(prompt: &str) -> anyhow::Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let before = rustix::termios::tcgetattr(&stdin).context("read the terminal's settings")?;
    let mut silent = before.clone();
    silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
    write!(std::io::stderr(), "{prompt}: ").context("write to stderr")?;
    let set = |settings| {
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, settings)
    };
    set(&silent).context("turn the echo off")?;
    let mut line = Vec::new();
    let read = stdin.lock().take(LONGEST_SECRET).read_until(b'\n', &mut line);
    set(&before).context("turn the echo on again")?;
    writeln!(std::io::stderr()).context("write to stderr")?;
    read.context("read the value")?;
    Ok(line)
}

/// Reads a text from a file, or from stdin when the path is `-`; with the name it has in errors.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub(crate) fn text_of(path: &str) -> anyhow::Result<(String, String)> {
    if path == "-" {
        let text = std::io::read_to_string(std::io::stdin()).context("read stdin")?;
        return Ok((text, "stdin".to_owned()));
    }
    let text = read_text(Path::new(path)).with_context(|| format!("read {path}"))?;
    Ok((text, path.to_owned()))
}
