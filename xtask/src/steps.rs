//! The steps of `test` and `ci`, in the order in which they fail soonest.

use crate::run::{cargo, heading, run, run_keeping_end, works};
use crate::{count, licences, setup};

/// Builds the binary and runs all tests; `args` go to the runner.
pub(crate) fn test(args: &[String]) -> anyhow::Result<()> {
    setup::require()?;
    // Who names tests may mean others; those of pages say themselves what they miss.
    if args.is_empty() {
        setup::require_browser()?;
        setup::require_postgres()?;
    }
    heading("build");
    run(&mut cargo(&["build", "--package", "fleetwright"]))?;
    heading("tests");
    let end = if setup::has_nextest() {
        let mut runner = cargo(&["nextest", "run", "--workspace", "--profile", "ci"]);
        run_keeping_end(runner.args(args), |line| line.contains("Summary ["))?
    } else {
        eprintln!(
            "cargo-nextest is not here; the tests take longer without it (cargo xtask setup)"
        );
        run(cargo(&["test", "--workspace", "--bins", "--lib", "--tests"]).args(args))?;
        vec!["all tests passed".to_owned()]
    };
    heading("tests in the documentation");
    run(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]))?;
    eprintln!("\n{}", end.join("\n").trim_end());
    Ok(())
}

/// All that must hold before a change is taken in.
pub(crate) fn ci() -> anyhow::Result<()> {
    heading("formatting");
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    heading("licences and banned crates");
    licences::check()?;
    advisories()?;
    heading("lints");
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    heading("documentation");
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    count::count(&[])?;
    test(&[])?;
    eprintln!("\nall steps passed");
    Ok(())
}

/// Asks cargo-deny, where it is installed and has a copy of the advisories.
fn advisories() -> anyhow::Result<()> {
    heading("advisories");
    if !works(&mut cargo(&["deny", "--version"])) {
        eprintln!("left out: cargo-deny is not installed here");
        return Ok(());
    }
    // Fetching may be impossible; then an earlier copy does, and without one there is nothing to ask.
    if !works(&mut cargo(&["deny", "fetch", "db"])) {
        eprintln!(
            "the advisory database cannot be fetched; an earlier copy is used if there is one"
        );
        if !works(&mut cargo(&["deny", "--offline", "list"])) || !has_advisory_copy() {
            eprintln!("left out: there is no copy of the advisory database");
            return Ok(());
        }
    }
    run(&mut cargo(&["deny", "--offline", "check", "advisories", "licenses", "bans", "sources"]))
}

/// Whether cargo-deny has fetched the advisories before.
fn has_advisory_copy() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home =
        home.or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.is_some_and(|home| home.join("advisory-dbs").is_dir())
}
