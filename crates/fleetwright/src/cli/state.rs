//! `fleetwright state`: how a host is, to be compared with how it was.

use std::fmt::Write as _;

use anyhow::Context as _;

use super::{Refusal, ask};
use crate::exit::Code;
use crate::on_host::state::{Bounds, Entry, Kind, State, Wanted, differences};
use crate::output::{self, Format, line};

/// See how files and commands are on this host, and what has changed since.
///
/// A rehearsed undo compares by it. Symlinks are recorded, not followed.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Print the present state: bytes, mode and owner of files, and what commands say.
    ///
    /// The same state has the same text, so two of them can be compared byte by byte.
    Capture(CaptureArgs),
    /// Say what is different from a state that was captured; exit code 1 when anything is.
    Compare(CompareArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CaptureArgs {
    #[command(flatten)]
    of: Wanted,
    #[command(flatten)]
    bounds: Bounds,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The state before, as JSON; `-` is stdin.
    before: String,
    /// The state after; without it, what the first one holds is looked at now.
    after: Option<String>,
    #[command(flatten)]
    bounds: Bounds,
}

/// Does it.
pub(super) fn run(verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::Capture(args) => capture(args),
        Verb::Compare(args) => compare(&args),
    }
}

fn capture(args: CaptureArgs) -> anyhow::Result<Code> {
    if args.of.files.is_empty() && args.of.commands.is_empty() {
        return Err(Refusal::usage("say what makes up the state: --file PATH, --command CMD"));
    }
    let state = State::capture(args.of, args.bounds)?;
    output::print(&output::item(&state, "state", args.output, || page(&state))?)?;
    Ok(Code::Success)
}

fn compare(args: &CompareArgs) -> anyhow::Result<Code> {
    let before = read(&args.before)?;
    let now = match &args.after {
        Some(after) => read(after)?,
        None => State::capture(before.of.clone(), args.bounds)?,
    };
    let different = differences(&before, &now);
    if different.is_empty() {
        let (files, commands) = (before.files.len(), before.commands.len());
        output::say(&format!("the same: {files} files and directories, {commands} commands"));
        return Ok(Code::Success);
    }
    let lines = different.iter().map(|what| format!("{}\n", line(what)));
    output::print(&lines.collect::<String>())?;
    Ok(Code::Error)
}

fn read(path: &str) -> anyhow::Result<State> {
    let (text, name) = ask::text_of(path)?;
    State::parse(&text).with_context(|| format!("read {name}"))
}

/// A line for each thing.
fn page(state: &State) -> String {
    let mut page = String::new();
    for (path, Entry { kind, mode, uid, gid }) in &state.files {
        let what = match kind {
            Kind::File { bytes, sha256 } => format!("{bytes} bytes, sha256 {sha256}"),
            Kind::Symlink { target } => format!("a symlink to {target}"),
            Kind::Directory | Kind::Fifo | Kind::Socket | Kind::Device { .. } => {
                kind.name().to_owned()
            }
        };
        let told = line(&format!("{path}: {what}")).into_owned();
        writeln!(page, "{mode} {uid}:{gid} {told}").expect("writing to memory");
    }
    for (command, outcome) in &state.commands {
        let (code, sum) = (outcome.exit_code, &outcome.stdout_sha256);
        let told = line(&format!("{command}: exit code {code}, sha256 {sum}")).into_owned();
        writeln!(page, "{told}").expect("writing to memory");
    }
    page
}
