//! What runs on hosts, tried with a real shell.

use std::path::Path;
use std::process::{Command as Process, Output};

use proptest::prelude::*;

use super::*;
use crate::rollout::script;

fn sh(text: &str, dir: &Path) -> Output {
    Process::new("/bin/sh")
        .args(["-c", text])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", dir)
        .env("FLEETWRIGHT", dir.join("fleetwright"))
        .env("FLEETWRIGHT_ROLLOUT", "x-1")
        .current_dir(dir)
        .output()
        .expect("a shell")
}

/// A directory that is removed with it.
struct Dir(std::path::PathBuf);

impl Dir {
    /// With a binary that stands for ours: it captures one file, compares two states, and a probe
    /// holds when a file of its kind is there.
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("rollout-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).expect("a directory");
        let binary = dir.join("fleetwright");
        let text = r#"#!/bin/sh
case "$1 $2" in
  "state capture") cat "$TMPDIR/it" 2>/dev/null; exit 0;;
  "state compare") if [ $# -eq 4 ]; then cmp -s "$3" "$4"; else cmp -s "$3" "$TMPDIR/it"; fi;;
  "probe "*) shift 2; printf '%s\n' "$@" >> "$TMPDIR/probes"; [ -e "$TMPDIR/good" ];;
  *) exit 99;;
esac
"#;
        std::fs::write(&binary, text).expect("written");
        let status = Process::new("chmod").arg("755").arg(&binary).status().expect("chmod");
        assert!(status.success());
        Self(dir)
    }

    fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn text(command: Command) -> String {
    match command {
        Command::Shell(text) => text,
        Command::Argv(argv) => panic!("a text: {argv:?}"),
    }
}

fn shell(text: &str) -> Command {
    Command::Shell(text.to_owned())
}

fn check(what: What, within: Option<u64>) -> Check {
    Check { what, within: within.map(Span::from_secs), line: 1 }
}

fn runs(text: &str, expect: Expect) -> Check {
    check(What::Run(shell(text), expect), None)
}

fn code(dir: &Dir, act: &str, checks: &[Check]) -> Option<i32> {
    sh(&text(script::act(&shell(act), checks, None)), &dir.0).status.code()
}

#[test]
fn a_host_is_proved_only_after_all_held() {
    let dir = Dir::new("act");
    let holds = runs("echo version 1.27", Expect::Text("1.27".into()));
    assert_eq!(code(&dir, "true", std::slice::from_ref(&holds)), Some(0));
    assert_eq!(
        code(&dir, "exit 3", std::slice::from_ref(&holds)),
        Some(3),
        "the command's own code"
    );
    let touched = runs("touch later", Expect::Exit(vec![0]));
    assert_eq!(code(&dir, "exit 0", &[touched]), Some(0));
    assert!(dir.has("later"), "an exit of the command ends no proof");
    let old = runs("echo version 1.26", Expect::Text("1.27".into()));
    assert_eq!(code(&dir, "true", &[holds, old]), Some(86));
    let failing = runs("echo 1.27; exit 1", Expect::Text("1.27".into()));
    assert_eq!(code(&dir, "true", &[failing]), Some(86), "output counts with exit code 0 only");
    assert_eq!(code(&dir, "true", &[runs("exit 3", Expect::Exit(vec![0, 3]))]), Some(0));
    assert_eq!(code(&dir, "true", &[runs("exit 4", Expect::Exit(vec![0, 3]))]), Some(86));
    let pattern = |pattern: &str| runs("echo a1; echo b2", Expect::Pattern(pattern.into()));
    assert_eq!(code(&dir, "true", &[pattern("^b[0-9]$")]), Some(0));
    assert_eq!(code(&dir, "true", &[pattern("^-b[0-9]$")]), Some(86));
    let probe = check(What::Tcp("localhost:80".into()), Some(5));
    assert_eq!(code(&dir, "true", std::slice::from_ref(&probe)), Some(86));
    dir.write("good", "");
    assert_eq!(code(&dir, "true", &[probe]), Some(0));
    assert_eq!(dir.read("probes"), "localhost:80\n--within\n5s\n".repeat(2));
}

#[test]
fn a_list_is_a_program_whatever_its_name() {
    let dir = Dir::new("argv");
    let holds = [runs("true", Expect::Exit(vec![0]))];
    for name in ["if", "exit", "check_1", "A=b"] {
        let argv = Command::Argv(vec![name.into(), "0".into()]);
        let output = sh(&text(script::act(&argv, &holds, None)), &dir.0);
        assert_eq!(output.status.code(), Some(127), "{name}: {output:?}");
    }
}

#[test]
fn a_command_is_looked_at_again_within_its_time() {
    let dir = Dir::new("within");
    let counts = "echo x >> tries; [ $(wc -l < tries) -ge 2 ]";
    let check = check(What::Run(shell(counts), Expect::Exit(vec![0])), Some(30));
    let output = sh(&text(script::prove(&[check])), &dir.0);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(dir.read("tries"), "x\nx\n");
    let never = Check { within: Some(Span::from_secs(1)), ..runs("false", Expect::Exit(vec![0])) };
    assert_eq!(sh(&text(script::prove(&[never])), &dir.0).status.code(), Some(86));
}

#[test]
fn without_the_binary_a_probe_does_not_hold() {
    let dir = Dir::new("old");
    let probe = check(What::File { path: "/x".into(), sha256: "0".repeat(64) }, None);
    let script = format!("unset FLEETWRIGHT\n{}", text(script::prove(&[probe])));
    let output = sh(&script, &dir.0);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("too old for probes"));
}

#[test]
fn an_undo_is_proved_by_the_state_from_before() {
    let dir = Dir::new("undo");
    let state = State { files: vec!["/it".into()], commands: vec!["-x".into()] };
    let kept = Kept { state: &state };
    dir.write("it", "old");
    let act = text(script::act(&shell("printf new > it; exit 1"), &[], Some(&kept)));
    assert_eq!(sh(&act, &dir.0).status.code(), Some(1));
    assert_eq!(sh(&act, &dir.0).status.code(), Some(1), "tried again, it keeps what it kept");
    assert_eq!(dir.read("fleetwright-x-1/before.json"), "old");
    let undo = |command: &str| text(script::undo(&shell(command), true));
    assert_eq!(sh(&undo("exit 4"), &dir.0).status.code(), Some(4));
    assert_eq!(sh(&undo("printf other > it"), &dir.0).status.code(), Some(86));
    assert_eq!(sh(&undo("printf old > it"), &dir.0).status.code(), Some(0));
    assert!(!dir.has("fleetwright-x-1"), "what was compared is not needed any more");
    let output = sh(&undo("true"), &dir.0);
    assert_eq!(output.status.code(), Some(86), "there is nothing to compare with");
}

#[test]
fn hosts_of_one_machine_do_not_share_what_is_kept() {
    let dir = Dir::new("shared");
    let state = State { files: vec!["/it".into()], commands: Vec::new() };
    let act = text(script::act(&shell("true"), &[], Some(&Kept { state: &state })));
    let on = |host: &str, script: &str| {
        sh(&format!("FLEETWRIGHT_HOST_ID={host}\n{script}"), &dir.0).status.code()
    };
    dir.write("it", "a");
    assert_eq!(on("a", &act), Some(0));
    dir.write("it", "b");
    assert_eq!(on("b", &act), Some(0));
    let undo = text(script::undo(&shell("true"), true));
    assert_eq!(on("b", &undo), Some(0), "compared with its own");
    assert_eq!(on("a", &undo), Some(86), "it is not as it was on this one");
    dir.write("it", "a");
    assert_eq!(on("a", &undo), Some(0), "its own is still there");
}

#[test]
fn a_directory_of_somebody_else_is_not_used() {
    let dir = Dir::new("stolen");
    std::fs::create_dir(dir.0.join("theirs")).expect("made");
    std::os::unix::fs::symlink(dir.0.join("theirs"), dir.0.join("fleetwright-x-1")).expect("made");
    let state = State { files: vec!["/it".into()], commands: Vec::new() };
    let kept = Kept { state: &state };
    let act = text(script::act(&shell("touch done"), &[], Some(&kept)));
    assert_eq!(sh(&act, &dir.0).status.code(), Some(1));
    assert!(!dir.has("done") && !dir.has("theirs/before.json"));
    assert_eq!(sh(&text(script::undo(&shell("true"), true)), &dir.0).status.code(), Some(86));
}

#[test]
fn a_rehearsal_does_undoes_and_compares() {
    let dir = Dir::new("rehearsal");
    let state = State { files: vec!["/it".into()], commands: Vec::new() };
    let code = |act: &str, undo: &str| {
        let script = text(script::rehearsal(&shell(act), &shell(undo), &Kept { state: &state }));
        sh(&script, &dir.0).status.code()
    };
    let left = || {
        let left = std::fs::read_dir(&dir.0).expect("readable");
        left.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count()
    };
    dir.write("it", "old");
    assert_eq!(code("printf new > it", "printf old > it"), Some(0));
    assert_eq!(left(), 0, "it leaves nothing behind");
    assert_eq!(code("exit 5", "true"), Some(5));
    assert_eq!(code("true", "exit 6"), Some(6));
    assert_eq!(code("printf new > it", "true"), Some(86));
    assert_eq!(code("printf new > it", "true"), Some(86), "it is not what it was before the first");
    let back = |command: &str| sh(&text(script::undo(&shell(command), true)), &dir.0).status.code();
    assert_eq!(back("true"), Some(86), "an exit code alone takes nothing back");
    assert_eq!((back("printf old > it"), left()), (Some(0), 0));
}

/// Texts that would say something of their own, were they not quoted.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(
        &[
            "'",
            "\"",
            "`",
            "$(touch x)",
            "\\",
            "\n",
            ";",
            "&",
            "|",
            "<",
            "(",
            "#",
            " ",
            "-n",
            "%s",
            "*",
            "!",
            "{",
            "}",
            "~",
            "é",
            "\t",
            "$x",
            "EOF",
            "\r",
            "=",
            "'\\''",
        ][..],
    );
    prop::collection::vec(pieces, 1..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_text_escapes_from_its_quotes(word in hostile(), other in hostile()) {
        let dir = Dir::new("hostile");
        dir.write("good", "");
        // The word is printed, found in what is printed, asked of a probe and is a path of a state.
        let prints = Command::Argv(vec!["printf".into(), "%s".into(), word.clone()]);
        let http = What::Http { url: word.clone(), expect: 200, body: Some(other.clone()) };
        let trimmed = word.trim_end_matches('\n').to_owned();
        let checks = [
            check(What::Run(prints.clone(), Expect::Text(trimmed)), None),
            check(http, None),
        ];
        let state = State { files: vec![format!("/{word}")], commands: vec![other.clone()] };
        let kept = Kept { state: &state };
        let script = text(script::act(&prints, &checks, Some(&kept)));
        let parsed = Process::new("/bin/sh").args(["-n", "-c", &script]).status().expect("a shell");
        prop_assert!(parsed.success(), "{}", script);
        let output = sh(&script, &dir.0);
        prop_assert_eq!(output.status.code(), Some(0), "{}\n{:?}", script, output);
        prop_assert!(output.stdout.starts_with(word.as_bytes()));
        let asked = format!("{word}\n--expect\n200\n--body={other}\n");
        prop_assert_eq!(dir.read("probes"), asked);
        prop_assert!(!dir.has("x"), "a text ran");
    }
}
