//! What building and testing needs beside Rust: a C compiler (`SQLite`, zstd and aws-lc are C), a
//! browser and its driver, `PostgreSQL`, valgrind to count instructions, and cargo-nextest for quicker tests.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::run::{cargo, run, works};

/// What the system's packages bring.
struct Needed {
    name: &'static str,
    /// As Debian calls them.
    packages: &'static [&'static str],
    /// On other systems.
    elsewhere: &'static str,
}

const C_COMPILER: Needed = Needed {
    name: "a C compiler",
    packages: &["gcc", "libc6-dev"],
    elsewhere: "install gcc or clang and the headers of the C library",
};

const VALGRIND: Needed =
    Needed { name: "valgrind", packages: &["valgrind"], elsewhere: "install valgrind" };

/// The fonts, because a page without any has texts without width.
const BROWSER: Needed = Needed {
    name: "Chromium or its driver",
    packages: &["chromium", "chromium-driver", "fonts-liberation"],
    elsewhere: "install chromium and chromedriver of the same version, so that both are in PATH",
};

/// The server for tests of backups, and the programs that dump and restore.
const POSTGRES: Needed = Needed {
    name: "PostgreSQL",
    packages: &["postgresql"],
    elsewhere: "install the PostgreSQL server and its client programs, so that both are in PATH",
};

/// Where Debian keeps the programs of the server, in a directory a version.
const POSTGRES_DIR: &str = "/usr/lib/postgresql";

/// Installed when it is absent. A version, because a later one may need a later Rust.
const NEXTEST: &str = "0.9.143";

/// Says what is missing, and installs what it can.
pub(crate) fn setup() -> anyhow::Result<()> {
    if !has_c_compiler()? {
        install(&C_COMPILER)?;
    }
    if !has_nextest() {
        run(&mut cargo(&["install", "--locked", "--version", NEXTEST, "cargo-nextest"]))?;
    }
    require_browser()?;
    require_postgres()?;
    if crate::count::why_not_here().is_none() {
        require_valgrind()?;
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

/// Whether instructions can be counted here. Installs what is missing where it may: nobody should
/// have to prepare a machine of CI by hand.
pub(crate) fn require_valgrind() -> anyhow::Result<()> {
    if has_valgrind() { Ok(()) } else { install(&VALGRIND) }
}

/// Whether pages can be tried here. Installs what is missing where it may, as for valgrind: without a
/// browser its tests fail, and none of them is left out.
pub(crate) fn require_browser() -> anyhow::Result<()> {
    if has_browser() { Ok(()) } else { install(&BROWSER) }
}

/// Whether databases can be backed up here; as for the browser.
pub(crate) fn require_postgres() -> anyhow::Result<()> {
    if has_postgres() { Ok(()) } else { install(&POSTGRES) }
}

fn has_postgres() -> bool {
    let versions = std::fs::read_dir(POSTGRES_DIR).into_iter().flatten().flatten();
    let server =
        versions.map(|version| version.path().join("bin/initdb")).any(|path| path.exists())
            || works(Command::new("initdb").arg("--version"));
    server && works(Command::new("pg_dump").arg("--version"))
}

fn has_browser() -> bool {
    ["chromium", "chromedriver"].iter().all(|name| works(Command::new(name).arg("--version")))
}

fn has_valgrind() -> bool {
    works(Command::new("valgrind").arg("--version"))
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

fn install(needed: &Needed) -> anyhow::Result<()> {
    let Needed { name, packages, elsewhere } = needed;
    let debian = works(Command::new("apt-get").arg("--version"));
    let root = crate::run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    match (debian, root) {
        (true, true) => {
            eprintln!("{name} is missing, and is installed with apt-get: {}", packages.join(" "));
            run(Command::new("apt-get").arg("update"))?;
            let install = ["install", "-y", "--no-install-recommends"];
            run(Command::new("apt-get").args(install).args(*packages))
        }
        (true, false) => {
            bail!("{name} is missing; run: sudo apt-get install {}", packages.join(" "))
        }
        (false, _) => bail!("{name} is missing; {elsewhere}"),
    }
}
