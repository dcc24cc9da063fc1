//! Plays what fuzzing has found to the rules that it was found with, on every machine and without a
//! fuzzer: a bug that was mended stays mended, and a rule is tried with inputs that reach far.

use std::fs;
use std::path::{Path, PathBuf};

use fw_testkit::fuzz::{TARGETS, Target};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

/// Plays the corpus of one target; an input that breaks a rule is named.
fn play(name: &str) {
    let target: Option<Target> =
        TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target);
    let target = target.expect("a target of this name");
    let mut played = 0;
    for entry in fs::read_dir(corpus().join(name)).expect("a corpus") {
        let path = entry.expect("readable").path();
        let input = fs::read(&path).expect("readable");
        let harmless = std::panic::catch_unwind(|| target(&input));
        assert!(harmless.is_ok(), "{} breaks a rule of {name}: {input:?}", path.display());
        played += 1;
    }
    assert!(played > 100, "{played} inputs are no corpus");
}

#[test]
fn frames() {
    play("frames");
}

#[test]
fn selectors() {
    play("selectors");
}

#[test]
fn schedules() {
    play("schedules");
}

#[test]
fn job_yaml() {
    play("job_yaml");
}

#[test]
fn rollout_yaml() {
    play("rollout_yaml");
}

#[test]
fn join() {
    play("join");
}

#[test]
fn runbooks() {
    play("runbooks");
}

/// Whoever adds a target adds it here too, and a directory without one is left over.
#[test]
fn each_target_has_its_corpus_and_its_program() {
    let mut known: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort();
    let names = |dir: PathBuf| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let stems = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
        let mut names: Vec<_> = stems.collect();
        names.sort();
        names
    };
    assert_eq!(names(corpus()), known);
    assert_eq!(names(corpus().join("../fuzz_targets")), known);
}
