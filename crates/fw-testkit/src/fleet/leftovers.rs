//! What a fleet's commands leave on the machine: found by the fleet's directory, and ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// Rounds of looking and ending: a process may fork while it is looked for.
const ROUNDS: usize = 20;

/// Ends every process that belongs to the fleet in `dir`: those that run in it, name it in their
/// arguments or environment, their descendants, and what is in their control groups.
pub(crate) fn end(dir: &Path) {
    for _ in 0..ROUNDS {
        let found = belonging_to(dir);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // Gone already is as good as ended.
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// The living processes of a fleet.
pub(crate) fn belonging_to(dir: &Path) -> Vec<Pid> {
    let own = std::process::id().cast_signed();
    // The suite may itself be run by a task of some fleet.
    let outer = Process { pid: own, parent: 0 }.task_group();
    let all: Vec<_> = processes().into_iter().filter(|process| process.pid != own).collect();
    let inner =
        |process: &Process| process.task_group().filter(|group| Some(group) != outer.as_ref());
    let name = dir.as_os_str().as_encoded_bytes();
    let mut found: BTreeSet<i32> =
        all.iter().filter(|process| process.names(name, dir)).map(|process| process.pid).collect();
    loop {
        let before = found.len();
        let groups: BTreeSet<_> =
            all.iter().filter(|process| found.contains(&process.pid)).filter_map(inner).collect();
        let more = all.iter().filter(|process| {
            found.contains(&process.parent)
                || inner(process).is_some_and(|group| groups.contains(&group))
        });
        found.extend(more.map(|process| process.pid).collect::<Vec<_>>());
        if found.len() == before {
            return found.into_iter().filter_map(Pid::from_raw).collect();
        }
    }
}

struct Process {
    pid: i32,
    parent: i32,
}

impl Process {
    fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }

    fn names(&self, name: &[u8], dir: &Path) -> bool {
        let says = |file| {
            let text = fs::read(self.path(file)).unwrap_or_default();
            text.windows(name.len()).any(|part| part == name)
        };
        says("cmdline")
            || says("environ")
            || fs::read_link(self.path("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    }

    /// The control group, if it is one of a task.
    fn task_group(&self) -> Option<String> {
        let groups = fs::read_to_string(self.path("cgroup")).ok()?;
        groups.lines().find(|line| line.contains("/fleetwright-")).map(str::to_owned)
    }
}

/// All processes but the dead ones that nobody has waited for.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        (state != "Z").then_some(Process { pid, parent })
    })
    .collect()
}
