//! Fuzzing: needs the nightly toolchain and cargo-fuzz, hence apart from everything else.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::run::{heading, run, works};

/// How long each target runs when nobody says.
const MINUTES: u64 = 10;

/// An input that takes so many seconds is a bug of its own.
const TIMEOUT: &str = "-timeout=10";

/// So is one that takes so much memory, in MB.
const MEMORY: &str = "-rss_limit_mb=1024";

/// Runs one target, or all one after another, for so many minutes each. What is found goes to
/// `fuzz/artifacts`; inputs that reach new code go to `fuzz/corpus`, which is then made small again.
pub(crate) fn fuzz(args: &[String]) -> anyhow::Result<()> {
    let (chosen, minutes) = read(args)?;
    require()?;
    let all = targets()?;
    let targets = match chosen {
        None => all,
        Some(name) if all.contains(&name) => vec![name],
        Some(name) => bail!("there is no target {name:?}; there are: {}", all.join(", ")),
    };
    for target in targets {
        heading(&format!("fuzz {target} for {minutes} min"));
        one(&target, minutes)?;
    }
    Ok(())
}

/// `[TARGET] [--minutes N]`.
fn read(args: &[String]) -> anyhow::Result<(Option<String>, u64)> {
    let (mut target, mut minutes) = (None, MINUTES);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--minutes" => {
                let number = args.next().context("--minutes takes a number")?;
                minutes = number.parse().context("--minutes takes a whole number")?;
                ensure!(minutes > 0, "--minutes takes a number from 1 on");
            }
            flag if flag.starts_with('-') => bail!("{flag} is not known; there is --minutes N"),
            name => {
                ensure!(target.is_none(), "give one target, or none for all");
                target = Some(name.to_owned());
            }
        }
    }
    Ok((target, minutes))
}

/// Says what is missing. It is not installed unasked: nothing else needs a nightly compiler.
fn require() -> anyhow::Result<()> {
    if !works(nightly(&["rustc", "--version"]).arg("--verbose")) {
        bail!("the nightly toolchain is missing; run: rustup toolchain install nightly");
    }
    if !works(&mut nightly(&["cargo", "fuzz", "--version"])) {
        bail!("cargo-fuzz is missing; run: cargo install --locked cargo-fuzz");
    }
    Ok(())
}

/// A command of the nightly toolchain.
fn nightly(args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).args(args);
    // Cargo of another toolchain runs this task, and has said so to its children.
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn targets() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("fuzz/fuzz_targets").context("read fuzz/fuzz_targets")? {
        names.extend(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn one(target: &str, minutes: u64) -> anyhow::Result<()> {
    let dictionary = PathBuf::from(format!("fuzz/dictionaries/{target}.dict"));
    // Our code has no unsafe to watch, and without a sanitizer twice as many inputs are tried.
    let mut fuzz = nightly(&["cargo", "fuzz", "run", "--sanitizer", "none", target, "--"]);
    fuzz.args([TIMEOUT, MEMORY, "-print_final_stats=1"]);
    fuzz.arg(format!("-max_total_time={}", minutes * 60));
    if dictionary.is_file() {
        fuzz.arg(format!("-dict={}", dictionary.display()));
    }
    run(&mut fuzz).with_context(|| {
        format!(
            "{target} broke a rule. Its input is in fuzz/artifacts/{target}: mend the bug with a test of its own, \
             and put the input into fuzz/corpus/{target}"
        )
    })?;
    // One input for each branch is enough to keep.
    let minimise =
        ["cargo", "fuzz", "cmin", "--sanitizer", "none", target, "--", "-use_counters=0"];
    run(&mut nightly(&minimise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_and_minutes_are_read_in_any_order() {
        let read = |text: &str| {
            let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            read(&words).map_err(|error| error.to_string())
        };
        assert_eq!(read(""), Ok((None, 10)));
        assert_eq!(read("frames --minutes 3"), Ok((Some("frames".to_owned()), 3)));
        assert_eq!(read("--minutes 3 frames"), Ok((Some("frames".to_owned()), 3)));
        for bad in ["--minutes", "--minutes x", "--minutes 0", "a b", "--hours 1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
