//! Licences and banned crates, from cargo's own data: no network, no further tool.
//!
//! Both lists are those of `deny.toml`. What cargo-deny does beyond this, reading the licence
//! texts and asking the advisories, it does where it is installed.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::run::{cargo, output};

/// What `deny.toml` says.
struct Lists {
    allowed: BTreeSet<String>,
    banned: BTreeSet<String>,
}

/// Checks every crate of the graph, on all platforms.
pub(crate) fn check() -> anyhow::Result<()> {
    let lists = Lists::read(&std::fs::read_to_string("deny.toml").context("read deny.toml")?)?;
    let metadata = output(&mut cargo(&["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let tree = ["tree", "--workspace", "--locked", "--target", "all", "--prefix", "none"];
    let tree = output(cargo(&tree).args(["--edges", "normal,build"]))?;
    let mut wrong = wrong_licences(&metadata, &lists.allowed);
    wrong.extend(banned_in(&tree, &lists.banned));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count = metadata.get("packages").and_then(Value::as_array).map_or(0, Vec::len);
    eprintln!("{count} crates, all licences allowed, none banned");
    Ok(())
}

impl Lists {
    fn read(text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = text.parse().context("read deny.toml")?;
        let list = |section: &str, key: &str| {
            let list = table
                .get(section)
                .and_then(|section| section.get(key))
                .and_then(toml::Value::as_array);
            list.cloned().with_context(|| format!("deny.toml has no list {section}.{key}"))
        };
        let words = |items: Vec<toml::Value>| {
            let word =
                |item: &toml::Value| item.get("name").unwrap_or(item).as_str().map(str::to_owned);
            items.iter().filter_map(word).collect()
        };
        Ok(Self {
            allowed: words(list("licenses", "allow")?),
            banned: words(list("bans", "deny")?),
        })
    }
}

/// Crates whose licence is not allowed, or that name none.
fn wrong_licences(metadata: &Value, allowed: &BTreeSet<String>) -> Vec<String> {
    let packages =
        metadata.get("packages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |package: &Value, key: &str| {
        package.get(key).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    let named = packages.iter().map(|package| (text(package, "name"), text(package, "license")));
    let wrong = named.filter(|(_, licence)| !is_allowed(licence, allowed));
    wrong
        .map(|(name, licence)| {
            format!("{name}: licence {licence:?} is not in deny.toml's licenses.allow")
        })
        .collect()
}

/// Banned crates in the output of `cargo tree`, whose lines are `name v1.2.3 …`.
fn banned_in(tree: &str, banned: &BTreeSet<String>) -> BTreeSet<String> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let found = names.filter(|name| banned.contains(*name));
    found
        .map(|name| {
            format!("{name} is banned by deny.toml; `cargo tree -i {name}` says who brings it in")
        })
        .collect()
}

/// Whether an SPDX expression can be met with these licences. `/` is the older way to write `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed).is_some_and(|good| good && rest.is_empty())
}

/// `a OR b`; `None` when it is no expression.
fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut good = both(rest, allowed)?;
    while take(rest, "OR") {
        good |= both(rest, allowed)?;
    }
    Some(good)
}

/// `a AND b`, which binds tighter.
fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut good = one(rest, allowed)?;
    while take(rest, "AND") {
        good &= one(rest, allowed)?;
    }
    Some(good)
}

/// A licence, one with an exception, or an expression in parentheses.
fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    if take(rest, "(") {
        let good = either(rest, allowed)?;
        return take(rest, ")").then_some(good);
    }
    let (name, after) = rest.split_first()?;
    *rest = after;
    let mut licence = (*name).to_owned();
    if take(rest, "WITH") {
        let (exception, after) = rest.split_first()?;
        *rest = after;
        licence = format!("{licence} WITH {exception}");
    }
    Some(allowed.contains(&licence))
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    match rest.split_first() {
        Some((first, after)) if *first == word => {
            *rest = after;
            true
        }
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Lists {
        Lists::read("[licenses]\nallow = [\"MIT\", \"ISC\", \"Apache-2.0 WITH LLVM-exception\"]\n[bans]\ndeny = [{ name = \"ring\" }]\n").unwrap()
    }

    #[test]
    fn expressions_are_met_or_not() {
        let allowed = lists().allowed;
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "MIT AND ISC",
            "GPL-3.0 OR MIT AND ISC",
            "(GPL-3.0 OR MIT) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "GPL-3.0 OR GPL-2.0 AND MIT",
            "(MIT OR ISC) AND GPL-3.0",
            "Apache-2.0",
            "MIT OR",
            "(MIT",
            "MIT ISC",
        ] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn a_crate_with_another_licence_or_none_is_named() {
        let metadata = serde_json::json!({"packages": [
            {"name": "good", "license": "MIT"}, {"name": "gpl", "license": "GPL-3.0"}, {"name": "none", "license": null},
        ]});
        let wrong = wrong_licences(&metadata, &lists().allowed);
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].starts_with("gpl:") && wrong[1].starts_with("none:"), "{wrong:?}");
    }

    #[test]
    fn a_banned_crate_is_named_once() {
        let tree = "ring v0.17.14\nserde v1.0.0\nring v0.17.14 (*)\nstring v0.3.1\n";
        assert_eq!(banned_in(tree, &lists().banned).len(), 1);
        assert_eq!(banned_in("serde v1.0.0\n", &lists().banned).len(), 0);
    }
}
