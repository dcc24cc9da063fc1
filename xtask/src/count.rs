//! Counts the instructions of hot paths, and compares them with the counts that are kept.
//!
//! Time on a shared machine says little; the number of instructions is the same at every run. The
//! scenarios are those of `cargo bench`. Each runs alone under valgrind, which counts while it is
//! inside one function of `fw-bench`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, bail, ensure};

use crate::run::{cargo, heading, output, run};
use crate::setup;

/// The counts that are kept, one a line.
const KEPT: &str = "crates/fw-bench/instructions.json";

/// Counting begins and ends with this function.
const MEASURED: &str = "fw_bench::measured*";

/// A rise or fall by more is not by chance: another release of the C library or another name of a
/// directory moves counts by less than 1%.
const TOLERATED_PERCENT: f64 = 10.0;

/// The C library copies memory as the processor likes best. Here always in the way that every
/// processor of this kind knows, so that counts do not tell machines apart.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-ERMS,-AVX_Fast_Unaligned_Load";

type Counts = BTreeMap<String, u64>;

/// A scenario, and what its count is divided by for people.
struct Scenario {
    name: String,
    size: u64,
}

/// How a count compares with the one that is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Same,
    Rose,
    Fell,
    New,
    Gone,
}

/// Counts and compares; `--accept` keeps the new counts, other words choose scenarios by name.
pub(crate) fn count(args: &[String]) -> anyhow::Result<()> {
    if let Some(why) = why_not_here() {
        println!("nothing is counted: {why}");
        return Ok(());
    }
    setup::require_valgrind()?;
    let accept = args.iter().any(|arg| arg == "--accept");
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    ensure!(
        args.iter().all(|arg| arg == "--accept" || !arg.starts_with("--")),
        "cargo xtask count [--accept] [NAME…]"
    );
    heading("count of instructions: build");
    run(&mut cargo(&["build", "--locked", "--profile", "count", "--package", "fw-bench"]))?;
    let directory = target()?.join("count");
    let binary = directory.join("fw-bench");
    let mut scenarios = list(&binary)?;
    let all = words.is_empty();
    scenarios.retain(|scenario| all || words.iter().any(|word| scenario.name.contains(*word)));
    ensure!(!scenarios.is_empty(), "no scenario has such a name");
    heading("count of instructions");
    let now = count_all(&binary, &directory, &scenarios)?;
    let mut kept = read(Path::new(KEPT))?;
    if !all {
        kept.retain(|name, _| now.contains_key(name));
    }
    print!("{}", table(&kept, &now, &scenarios));
    if accept {
        let mut all = read(Path::new(KEPT))?;
        if words.is_empty() {
            all.clear();
        }
        all.extend(now);
        std::fs::write(KEPT, written(&all)).context("write the counts that are kept")?;
        println!(
            "kept in {KEPT}: commit it with the change, and say there why it costs what it costs"
        );
        return Ok(());
    }
    judge(&kept, &now)
}

/// Why counts of this machine could not be compared with those that are kept.
pub(crate) fn why_not_here() -> Option<&'static str> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some("the counts that are kept are of Linux on x86-64");
    }
    // Encryption is as quick as the processor allows, and valgrind shows it the processor's kind.
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    (!flags.contains(" avx2 ")).then_some("the counts that are kept are of a processor with AVX2")
}

fn target() -> anyhow::Result<PathBuf> {
    let metadata =
        output(&mut cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let target = metadata.get("target_directory").and_then(|directory| directory.as_str());
    target.map(PathBuf::from).context("cargo names its target")
}

fn list(binary: &Path) -> anyhow::Result<Vec<Scenario>> {
    let text = output(&mut Command::new(binary))?;
    let scenario = |line: &str| {
        let (name, size) = line.split_once(' ')?;
        Some(Scenario { name: name.to_owned(), size: size.parse().ok()? })
    };
    text.lines().map(|line| scenario(line).with_context(|| format!("read {line:?}"))).collect()
}

/// Counts each scenario, as many at once as there are processors.
fn count_all(binary: &Path, directory: &Path, scenarios: &[Scenario]) -> anyhow::Result<Counts> {
    let waiting = Mutex::new(scenarios.iter());
    let counted = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
            let Some(Scenario { name, .. }) = next else { return };
            let count = count_one(binary, directory, name);
            if let Ok(mut counted) = counted.lock() {
                counted.push(count.map(|count| (name.clone(), count)));
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let counted = counted.into_inner().ok().context("a thread that counts panicked")?;
    counted.into_iter().collect()
}

/// Counts one scenario. What was counted where is left for `callgrind_annotate`.
fn count_one(binary: &Path, directory: &Path, name: &str) -> anyhow::Result<u64> {
    let profile = directory.join(format!("{name}.callgrind"));
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(&profile);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    valgrind.arg(format!("--toggle-collect={MEASURED}")).arg(out).arg(binary).arg(name);
    // The environment lies on the stack: the same everywhere.
    valgrind.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    valgrind.env("GLIBC_TUNABLES", TUNABLES).stdin(Stdio::null());
    let ended = valgrind.output().context("start valgrind")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "scenario {name}: {}\n{said}", ended.status);
    let text = std::fs::read_to_string(&profile).context("read what valgrind counted")?;
    counted(&text).with_context(|| format!("scenario {name} was not counted\n{said}"))
}

/// The count in valgrind's profile; `None` when nothing was counted.
fn counted(profile: &str) -> Option<u64> {
    let line = profile.lines().find_map(|line| line.strip_prefix("summary: "))?;
    line.trim().parse().ok().filter(|count| *count > 0)
}

/// The counts that are kept; none when there is no such file yet.
fn read(path: &Path) -> anyhow::Result<Counts> {
    if !path.exists() {
        return Ok(Counts::new());
    }
    let text = std::fs::read_to_string(path).context("read the counts that are kept")?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

fn written(counts: &Counts) -> String {
    let lines: Vec<String> =
        counts.iter().map(|(name, count)| format!("  \"{name}\": {count}")).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn percent(kept: u64, now: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count has fewer than 53 bits")]
    let (kept, now) = (kept as f64, now as f64);
    (now - kept) / kept * 100.0
}

fn verdict(kept: Option<u64>, now: Option<u64>) -> Verdict {
    match (kept, now) {
        (Some(kept), Some(now)) if percent(kept, now) > TOLERATED_PERCENT => Verdict::Rose,
        (Some(kept), Some(now)) if percent(kept, now) < -TOLERATED_PERCENT => Verdict::Fell,
        (Some(_), Some(_)) => Verdict::Same,
        (None, _) => Verdict::New,
        (Some(_), None) => Verdict::Gone,
    }
}

/// All names of both, with what is kept and what is now.
fn pairs<'a>(kept: &'a Counts, now: &'a Counts) -> BTreeMap<&'a str, (Option<u64>, Option<u64>)> {
    let names = kept.keys().chain(now.keys());
    names.map(|name| (name.as_str(), (kept.get(name).copied(), now.get(name).copied()))).collect()
}

fn table(kept: &Counts, now: &Counts, scenarios: &[Scenario]) -> String {
    let sizes: BTreeMap<&str, u64> =
        scenarios.iter().map(|scenario| (scenario.name.as_str(), scenario.size)).collect();
    let mut text = row("scenario", "kept", "now", "change", "each");
    let number =
        |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for (name, (kept, now)) in pairs(kept, now) {
        let change = match (kept, now) {
            (Some(kept), Some(now)) => format!("{:+.2}%", percent(kept, now)),
            (Some(_), None) => "gone".to_owned(),
            (None, _) => "new".to_owned(),
        };
        let each = now.zip(sizes.get(name)).map(|(now, size)| now / size.max(&1));
        text += &row(name, &number(kept), &number(now), &change, &number(each));
    }
    text
}

fn row(name: &str, kept: &str, now: &str, change: &str, each: &str) -> String {
    let mut row = String::new();
    writeln!(row, "{name:26} {kept:>13} {now:>13} {change:>9} {each:>9}")
        .expect("writing to a string cannot go wrong");
    row
}

/// Fails where a count rose; says what else is to be accepted.
fn judge(kept: &Counts, now: &Counts) -> anyhow::Result<()> {
    let of = |which: Verdict| -> Vec<String> {
        let found =
            pairs(kept, now).into_iter().filter(|(_, (kept, now))| verdict(*kept, *now) == which);
        found
            .map(|(name, (kept, now))| match (kept, now) {
                (Some(kept), Some(now)) => {
                    format!("{name} {kept} -> {now} ({:+.1}%)", percent(kept, now))
                }
                (Some(_), None) | (None, _) => name.to_owned(),
            })
            .collect()
    };
    let accept = "cargo xtask count --accept";
    for (which, said) in [
        (Verdict::Fell, "these got cheaper; so that a later rise is seen, run"),
        (Verdict::Gone, "these are no scenarios any more; run"),
    ] {
        let found = of(which);
        if !found.is_empty() {
            println!("{said} {accept}:\n  {}", found.join("\n  "));
        }
    }
    let new = of(Verdict::New);
    if !new.is_empty() {
        bail!(
            "these scenarios have no count to compare with; run {accept}:\n  {}",
            new.join("\n  ")
        );
    }
    let rose = of(Verdict::Rose);
    if rose.is_empty() {
        return Ok(());
    }
    bail!(
        "these take over {TOLERATED_PERCENT}% more instructions than before:\n  {}\n\
         If that is what the change is worth, run {accept} and commit {KEPT}.\n\
         callgrind_annotate target/count/NAME.callgrind says where they are.",
        rose.join("\n  ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_rise_fails_with_both_numbers() {
        let said =
            judge(&counts(&[("a", 1000), ("b", 1000)]), &counts(&[("a", 1101), ("b", 1100)]));
        let said = said.unwrap_err().to_string();
        assert!(said.contains("a 1000 -> 1101 (+10.1%)"), "{said}");
        assert!(said.contains("cargo xtask count --accept") && !said.contains("b 1000"), "{said}");
    }

    #[test]
    fn a_fall_passes_and_a_new_scenario_does_not() {
        let kept = counts(&[("a", 1000), ("gone", 5)]);
        assert!(judge(&kept, &counts(&[("a", 500)])).is_ok());
        assert!(judge(&kept, &counts(&[("a", 1000), ("b", 1)])).is_err());
    }

    #[test]
    fn what_is_kept_has_a_line_for_each_and_is_read_again() {
        let counts = counts(&[("b", 2), ("a", 1)]);
        let text = written(&counts);
        assert_eq!(text, "{\n  \"a\": 1,\n  \"b\": 2\n}\n");
        assert_eq!(serde_json::from_str::<Counts>(&text).unwrap(), counts);
    }

    #[test]
    fn a_profile_without_a_count_is_noticed() {
        assert_eq!(counted("events: Ir\nfn=(1) main\nsummary: 42\n"), Some(42));
        assert_eq!(counted("events: Ir\nsummary: 0\n"), None);
        assert_eq!(counted("events: Ir\n"), None);
    }

    #[test]
    fn the_table_says_what_one_item_costs() {
        let scenarios = [Scenario { name: "a".to_owned(), size: 10 }];
        let text = table(&counts(&[("a", 900)]), &counts(&[("a", 1000)]), &scenarios);
        assert_eq!(
            text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["a", "900", "1000", "+11.11%", "100"]
        );
    }
}
