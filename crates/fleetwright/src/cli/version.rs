//! `fleetwright version`: which build this is.

use serde::Serialize;

use crate::exit::Code;
use crate::output;

/// Print the version.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// As JSON, with the commit, the platform and the protocol versions it speaks.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    /// Set by the build of a release.
    commit: Option<&'static str>,
    target: String,
    protocol: Protocol,
}

#[derive(Debug, Serialize)]
struct Protocol {
    first: u16,
    last: u16,
}

/// Prints it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Code> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("FLEETWRIGHT_COMMIT"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        protocol: Protocol { first: *fw_proto::PROTOCOL.start(), last: *fw_proto::PROTOCOL.end() },
    };
    if args.json {
        output::print(&format!("{}\n", serde_json::to_string_pretty(&version)?))?;
    } else {
        output::print(&format!("fleetwright {}\n", version.version))?;
    }
    Ok(Code::Success)
}
