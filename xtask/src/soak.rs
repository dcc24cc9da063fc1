//! The soak: a server and agents under load for a while, watched for what creeps.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use crate::run::{cargo, heading, run};

/// How long, when nobody says. Memory that levels off does so within the first half.
const MINUTES: u64 = 15;

/// `[--minutes N] [--binary PATH]`: without a binary the release one is built.
pub(crate) fn soak(args: &[String]) -> anyhow::Result<()> {
    let (minutes, binary) = read(args)?;
    let binary = match binary {
        Some(binary) => binary,
        None => {
            heading("build");
            run(&mut cargo(&["build", "--release", "--package", "fleetwright"]))?;
            let target =
                std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
            target.join("release/fleetwright")
        }
    };
    let binary = binary.canonicalize().with_context(|| format!("find {}", binary.display()))?;
    heading(&format!("soak for {minutes} min"));
    let example = ["run", "--quiet", "--package", "fw-testkit", "--example", "soak", "--"];
    run(cargo(&example).arg(binary).arg(minutes.to_string()).arg("target/soak"))
}

fn read(args: &[String]) -> anyhow::Result<(u64, Option<PathBuf>)> {
    let (mut minutes, mut binary) = (MINUTES, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().with_context(|| format!("{arg} takes a value"))?;
        match arg.as_str() {
            "--minutes" => minutes = value.parse().context("--minutes takes a whole number")?,
            "--binary" => binary = Some(PathBuf::from(value)),
            _ => bail!("{arg} is not known; there are --minutes N and --binary PATH"),
        }
    }
    ensure!(minutes > 0, "--minutes takes a number from 1 on");
    Ok((minutes, binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_and_binary_are_read() {
        let read = |text: &str| {
            let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            read(&words).map_err(|error| error.to_string())
        };
        assert_eq!(read(""), Ok((15, None)));
        assert_eq!(read("--binary x --minutes 2"), Ok((2, Some("x".into()))));
        for bad in ["--minutes", "--minutes x", "--minutes 0", "--hours 1", "x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
