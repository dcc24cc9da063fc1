//! Packs the assets of the pages: one style sheet of its parts, each file also gzipped, and a hash over all
//! of them that is part of their addresses, so that browsers may keep them for ever.
//!
//! The hash is of the set, not of each file: then modules import each other by relative names.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// The parts of the style sheet, in their order.
const STYLES: &[&str] = &["tokens", "base", "frame", "parts", "pages", "run", "change"];

/// Where the colours of the dark theme begin in `tokens.css`.
const DARK: &str = "[data-theme=\"dark\"] {";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=assets");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=templates");
    let mut files = vec![("app.css".to_owned(), styles()?.into_bytes())];
    for (kind, extension) in [("js", "js"), ("fonts", "woff2"), ("img", "svg")] {
        for path in listed(&Path::new("assets").join(kind), extension)? {
            let name =
                path.file_name().and_then(|name| name.to_str()).ok_or("a file without name")?;
            files.push((format!("{kind}/{name}"), std::fs::read(&path)?));
        }
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo says where output goes")?);
    let mut table = format!(
        "/// Names this set of assets.\npub(super) const SET: &str = \"{}\";\n",
        hash(&files)
    );
    table.push_str("/// All of them, by name.\npub(super) const ASSETS: &[Asset] = &[\n");
    files.sort();
    for (at, (name, bytes)) in files.iter().enumerate() {
        let (plain, packed) = (out.join(format!("{at}.plain")), out.join(format!("{at}.gz")));
        std::fs::write(&plain, bytes)?;
        std::fs::write(&packed, gzip(bytes)?)?;
        writeln!(
            table,
            "    Asset {{ name: {name:?}, plain: include_bytes!({plain:?}), gzip: include_bytes!({packed:?}) }},"
        )?;
    }
    table.push_str("];\n");
    std::fs::write(out.join("assets.rs"), table)?;
    Ok(())
}

/// The files of a directory with this extension, by name.
fn listed(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|one| one == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The style sheet. Whoever follows the system's theme gets the dark colours when the system is dark.
fn styles() -> Result<String> {
    let mut all = String::new();
    for part in STYLES {
        all.push_str(&std::fs::read_to_string(format!("assets/css/{part}.css"))?);
        if *part == "tokens" {
            let (_, dark) = all.split_once(DARK).ok_or("tokens.css has no dark theme")?;
            let (dark, _) =
                dark.split_once('}').ok_or("the dark theme of tokens.css does not end")?;
            let system = format!(
                "@media (prefers-color-scheme: dark) {{\n[data-theme=\"system\"] {{{dark}}}\n}}\n"
            );
            all.push_str(&system);
        }
    }
    Ok(all)
}

fn hash(files: &[(String, Vec<u8>)]) -> String {
    let mut digest = Sha256::new();
    for (name, bytes) in files {
        digest.update(name);
        digest.update(bytes);
    }
    digest.finalize().iter().take(6).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}
