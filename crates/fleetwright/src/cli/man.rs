//! `fleetwright man`: man pages, made at run time so that packagers need no build step.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::exit::Code;
use crate::output;

/// Write man pages.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory to write them to; made when it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Writes them.
pub(crate) fn run(args: &Args) -> anyhow::Result<Code> {
    let shown = args.dir.display();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("make {shown}"))?;
    clap_mangen::generate_to(super::command(), &args.dir)
        .with_context(|| format!("write to {shown}"))?;
    output::say(&format!("man pages are in {shown}"));
    Ok(Code::Success)
}
