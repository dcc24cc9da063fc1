//! The state of a host as far as it is asked for: files and directories, and what commands say.
//!
//! It says when nothing but the time has passed: it holds no time, and its text is the same for the
//! same state. So whoever has two of them can compare their bytes.

mod compare;
mod entry;
mod walk;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use compare::{changes, differences};
pub(crate) use entry::{Entry, Kind, Mode, open};
pub(crate) use walk::{Below, Bounds, Walk, expand};

use super::{sum, text_of};

/// The form of the text.
const SCHEMA: u32 = 1;

/// A state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    schema: u32,
    /// What was asked for.
    pub(crate) of: Wanted,
    /// What there is, by path; what is absent is left out.
    pub(crate) files: BTreeMap<String, Entry>,
    /// What was said, by command.
    pub(crate) commands: BTreeMap<String, Outcome>,
}

/// What makes up a state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub(crate) struct Wanted {
    /// A file, or a directory with all that is in it, or a glob for them; repeat for more.
    #[arg(long = "file", value_name = "PATH|GLOB")]
    pub(crate) files: Vec<String>,
    /// A command for the shell, whose exit code and output are part of the state; repeat for more.
    #[arg(long = "command", value_name = "CMD")]
    pub(crate) commands: Vec<String>,
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// 128 and the signal when one ended it, as shells have it.
    pub(crate) exit_code: i32,
    pub(crate) stdout_bytes: u64,
    pub(crate) stdout_sha256: String,
}

impl Default for State {
    fn default() -> Self {
        let (files, commands) = (BTreeMap::new(), BTreeMap::new());
        Self { schema: SCHEMA, of: Wanted::default(), files, commands }
    }
}

impl State {
    /// Looks.
    ///
    /// # Errors
    /// Something cannot be read or run, or there is more than the bounds allow.
    pub(crate) fn capture(of: Wanted, bounds: Bounds) -> anyhow::Result<Self> {
        let mut state = Self::default();
        let mut walk = Walk::within(bounds);
        for pattern in &of.files {
            for path in expand(pattern)? {
                walk.each(&path, &mut |path, metadata| {
                    match Entry::read(path, metadata) {
                        // It has gone since.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        read => {
                            let entry = read.with_context(|| format!("read {}", path.display()))?;
                            state.files.insert(text_of(path), entry);
                        }
                    }
                    Ok(Below::Look)
                })?;
            }
        }
        for command in &of.commands {
            state.commands.insert(command.clone(), Outcome::of(command)?);
        }
        state.of = of;
        Ok(state)
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// It is none, or one of a later version.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let state: Self =
            serde_json::from_str(text).context("it is no state of `state capture -o json`")?;
        let schema = state.schema;
        ensure!(
            schema == SCHEMA,
            "its schema {schema} is not known to this build; use the newer one"
        );
        Ok(state)
    }
}

impl Outcome {
    /// Runs a command to its end; what it says on stderr goes where ours goes.
    fn of(command: &str) -> anyhow::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut run = || {
            let mut child = shell.spawn()?;
            let stdout = child.stdout.take().map(sum).transpose()?.unwrap_or_default();
            Ok::<_, std::io::Error>((stdout, child.wait()?))
        };
        let ((stdout_bytes, stdout_sha256), status) =
            run().with_context(|| format!("run {command:?}"))?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
        let exit_code = status.code().unwrap_or(128 + signal);
        Ok(Self { exit_code, stdout_bytes, stdout_sha256 })
    }
}
