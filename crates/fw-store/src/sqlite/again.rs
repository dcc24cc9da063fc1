//! Tests that need a process of their own: to be killed, or to see a disk that nobody else sees.
//! Such a test runs itself again, as a child; these are its words.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the child: the directory to work in.
const MARK: &str = "FLEETWRIGHT_TEST_DIR";

/// In the child, the directory to work in; `None` in the test that is to start it.
pub(super) fn inside() -> Option<PathBuf> {
    std::env::var_os(MARK).map(PathBuf::from)
}

/// This test binary, told to run only `test` and to work in `dir`; started by `wrap` if that is
/// not empty.
pub(super) fn again(test: &str, dir: &Path, wrap: &[&str]) -> Command {
    let binary = std::env::current_exe().expect("the path of this binary");
    let words = wrap.iter().map(OsStr::new).chain([binary.as_os_str()]);
    let mut words =
        words.chain(["--exact", test, "--nocapture", "--test-threads=1"].map(OsStr::new));
    let mut command = Command::new(words.next().expect("at least the binary"));
    command.args(words).env(MARK, dir);
    command
}

/// What a child says at its end, so that a test that was not found does not pass as one that held.
const HELD: &str = "all of it held";

/// Says that the child's test held.
pub(super) fn held() {
    println!("\n{HELD}");
}

/// Runs the child to its end; it must say that its test held.
pub(super) fn holds(mut child: Command) {
    let ended = child.output().expect("the child starts");
    let said = String::from_utf8_lossy(&ended.stdout);
    let whole = ended.status.success() && said.lines().any(|line| line == HELD);
    assert!(whole, "{}\n{said}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr));
}
