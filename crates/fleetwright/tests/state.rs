//! `fleetwright state`, as a rehearsed undo calls it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

fn state(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright"));
    command.arg("state").args(args).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Captures the state of a directory and a command into a file, and gives its text.
fn capture(dir: &Path, command: &str, to: &Path) -> String {
    let path = dir.display().to_string();
    let output = state(&["capture", "--file", &path, "--command", command, "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    fs::write(to, &output.stdout).expect("a new file");
    text(&output.stdout)
}

#[test]
fn the_same_state_has_the_same_text_and_another_is_told_in_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let (etc, before, after) =
        (dir.path().join("etc"), dir.path().join("before"), dir.path().join("after"));
    fs::create_dir(&etc).expect("a new directory");
    for name in ["a", "b", "c"] {
        fs::write(etc.join(name), name).expect("a new file");
    }
    symlink("a", etc.join("link")).expect("a new symlink");
    let (counted, here) = (dir.path().join("count"), etc.display());
    let command = format!("cat {} 2>/dev/null; exit 3", counted.display());
    let first = capture(&etc, &command, &before);
    assert_eq!(first, capture(&etc, &command, &after));
    assert!(first.contains("\"exit_code\": 3"), "{first}");
    let (before, after) = (before.display().to_string(), after.display().to_string());
    let same = state(&["compare", &before, &after]);
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), String::new()));
    assert_eq!(state(&["compare", &before]).status.code(), Some(0), "and now");

    fs::write(etc.join("a"), "A").expect("our file");
    fs::set_permissions(etc.join("b"), fs::Permissions::from_mode(0o600)).expect("our file");
    fs::remove_file(etc.join("c")).expect("our file");
    fs::remove_file(etc.join("link")).expect("our symlink");
    symlink("b", etc.join("link")).expect("a new symlink");
    fs::write(etc.join("new"), "").expect("a new file");
    fs::write(&counted, "1").expect("a new file");
    let different = state(&["compare", &before]);
    assert_eq!(different.status.code(), Some(1));
    let said = text(&different.stdout);
    for line in [
        format!("{here}/a: other bytes (sha256 "),
        format!("{here}/b: mode 0644 before, 0600 now"),
        format!("{here}/c: a file before, absent now"),
        format!("{here}/link: leads to a before, b now"),
        format!("{here}/new: absent before, a file now"),
        format!("command \"{command}\": other output (sha256 "),
    ] {
        assert!(said.contains(&line), "{line}\nis not in\n{said}");
    }
    assert_eq!(said.lines().count(), 6, "{said}");
}

#[test]
fn too_much_and_nothing_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a"), "1234").expect("a new file");
    let path = dir.path().display().to_string();
    let much = state(&["capture", "--file", &path, "--max-bytes", "3"]);
    assert_eq!(much.status.code(), Some(1));
    assert!(text(&much.stderr).contains("raise --max-bytes"), "{}", text(&much.stderr));
    assert_eq!(state(&["capture"]).status.code(), Some(2));
    let none = dir.path().join("a").display().to_string();
    let none = state(&["compare", &none]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no state of"), "{}", text(&none.stderr));
}

#[test]
fn people_read_a_line_for_each_thing() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a.conf"), "").expect("a new file");
    let glob = dir.path().join("*.conf").display().to_string();
    let output = state(&["capture", "--file", &glob, "--command", "true"]);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let said = text(&output.stdout);
    assert!(said.contains(&format!("/a.conf: 0 bytes, sha256 {empty}\n")), "{said}");
    assert!(said.ends_with(&format!("true: exit code 0, sha256 {empty}\n")), "{said}");
}
