//! The release binary, with its SHA-256 beside it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::run::{cargo, heading, output, run};

/// Builds `dist/fleetwright-<target>` and its checksum in the form that `sha256sum --check` reads.
pub(crate) fn dist() -> anyhow::Result<()> {
    heading("build of the binary to give away");
    run(&mut cargo(&["build", "--profile", "dist", "--locked", "--package", "fleetwright"]))?;
    let metadata =
        output(&mut cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let target = metadata
        .get("target_directory")
        .and_then(|dir| dir.as_str())
        .context("cargo names its target")?;
    let name = format!("fleetwright-{}", host()?);
    let to = Path::new("dist").join(&name);
    std::fs::create_dir_all("dist")?;
    std::fs::copy(Path::new(target).join("dist/fleetwright"), &to).context("copy the binary")?;
    let sum = sha256(&std::fs::read(&to)?);
    std::fs::write(to.with_extension("sha256"), format!("{sum}  {name}\n"))?;
    println!("{}\n{sum}", to.display());
    Ok(())
}

/// The triple that this toolchain builds for.
fn host() -> anyhow::Result<String> {
    let about = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names its host")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standard() {
        // FIPS 180-4, example "abc".
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
