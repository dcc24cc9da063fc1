//! What building and testing needs beside Rust: a C compiler (`SQLite`, zstd and aws-lc are C), and
//! cargo-nextest for quicker tests.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::run::{cargo, run, works};

/// Installed when it is absent. A version, because a later one may need a later Rust.
const NEXTEST: &str = "0.9.143";

/// Says what is missing, and installs what it can.
pub(crate) fn setup() -> anyhow::Result<()> {
    if !has_c_compiler()? {
        install_c_compiler()?;
    }
    if !has_nextest() {
        run(&mut cargo(&["install", "--locked", "--version", NEXTEST, "cargo-nextest"]))?;
    }
    println!("all is there: cargo xtask test");
    Ok(())
}

/// Whether tests can be run here; what is missing is an error that says how to get it.
pub(crate) fn require() -> anyhow::Result<()> {
    if !has_c_compiler()? {
        bail!("no C compiler with its headers was found; run: cargo xtask setup");
    }
    Ok(())
}

/// Whether cargo-nextest is here.
pub(crate) fn has_nextest() -> bool {
    works(&mut cargo(&["nextest", "--version"]))
}

/// Compiles a file that includes a header of the C library: a compiler without headers is not enough.
fn has_c_compiler() -> anyhow::Result<bool> {
    let directory = std::env::temp_dir().join(format!("fleetwright-setup-{}", std::process::id()));
    std::fs::create_dir_all(&directory).context("make a temporary directory")?;
    let source = directory.join("try.c");
    std::fs::write(&source, "#include <stdlib.h>\nint main(void) { return 0; }\n")?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let good =
        works(Command::new(compiler).arg("-c").arg(&source).arg("-o").arg(directory.join("try.o")));
    std::fs::remove_dir_all(&directory)?;
    Ok(good)
}

fn install_c_compiler() -> anyhow::Result<()> {
    let debian = works(Command::new("apt-get").arg("--version"));
    let root = crate::run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    match (debian, root) {
        (true, true) => {
            run(Command::new("apt-get").arg("update"))?;
            run(Command::new("apt-get").args([
                "install",
                "-y",
                "--no-install-recommends",
                "gcc",
                "libc6-dev",
            ]))
        }
        (true, false) => bail!("a C compiler is missing; run: sudo apt-get install gcc libc6-dev"),
        (false, _) => {
            bail!("a C compiler is missing; install gcc or clang and the headers of the C library")
        }
    }
}
