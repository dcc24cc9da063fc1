//! Everything of a task: what holds its processes together so that all of them can be ended.
//!
//! Best is a control group of its own (`cgroups(7)`, version 2): nothing leaves it, and one
//! write ends all of it. Where none can be made, the supervisor declares itself reaper of
//! orphans (`PR_SET_CHILD_SUBREAPER`), so that every descendant stays in its tree and is found
//! by walking `/proc`. Elsewhere there is the process group, which `setsid` escapes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

/// What holds everything of a task together on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// A control group of its own.
    Cgroup,
    /// The tree below the supervisor, which adopts its orphans.
    Subreaper,
    /// The process group; a command that starts a session of its own escapes.
    ProcessGroup,
}

impl std::fmt::Display for Containment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup",
            Self::Subreaper => "subreaper",
            Self::ProcessGroup => "process group",
        })
    }
}

/// Begins the names of tasks' control groups; they end in the supervisor's process number.
const CGROUP: &str = "fleetwright-";

/// What a task started now, by this process, would be held together by.
#[must_use]
pub fn containment() -> Containment {
    match Contain::cgroup(&format!("probe-{}", std::process::id())) {
        Some(contain) => {
            contain.remove();
            Containment::Cgroup
        }
        None if cfg!(target_os = "linux") => Containment::Subreaper,
        None => Containment::ProcessGroup,
    }
}

/// The containment of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contain {
    /// Everything in this control group.
    Cgroup(PathBuf),
    /// Everything below this process.
    Subreaper,
    /// The main process's group.
    ProcessGroup,
}

impl Contain {
    /// A new control group, a child of our own; `None` where none can be made and joined.
    pub(super) fn cgroup(name: &str) -> Option<Self> {
        let own = own_cgroup()?;
        // To move a process, one must be able to write in the nearest common ancestor too.
        rustix::fs::access(own.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).ok()?;
        let path = own.join(format!("{CGROUP}{name}"));
        fs::create_dir(&path).ok()?;
        Some(Self::Cgroup(path))
    }

    /// The best after a control group.
    pub(super) fn without_cgroup() -> Self {
        #[cfg(target_os = "linux")]
        {
            let own = rustix::process::getpid();
            if rustix::process::set_child_subreaper(Some(own)).is_ok()
                && fs::metadata("/proc/self").is_ok()
            {
                return Self::Subreaper;
            }
        }
        Self::ProcessGroup
    }

    pub(super) fn kind(&self) -> Containment {
        match self {
            Self::Cgroup(_) => Containment::Cgroup,
            Self::Subreaper => Containment::Subreaper,
            Self::ProcessGroup => Containment::ProcessGroup,
        }
    }

    /// The control group's directory.
    pub(super) fn cgroup_path(&self) -> Option<&Path> {
        match self {
            Self::Cgroup(path) => Some(path),
            Self::Subreaper | Self::ProcessGroup => None,
        }
    }

    /// Sends a signal to everything of the task whose main process is (or was) `main`.
    pub(super) fn signal(&self, main: Pid, signal: Signal) {
        if signal == Signal::KILL && self.kill_cgroup() {
            return;
        }
        let members = match self {
            Self::Cgroup(path) => cgroup_members(path),
            Self::Subreaper => descendants(rustix::process::getpid()),
            Self::ProcessGroup => {
                // Gone already is as good as ended.
                let _ = kill_process_group(main, signal);
                return;
            }
        };
        for member in members {
            let _ = kill_process(member, signal);
        }
    }

    /// `cgroup.kill` (Linux 5.14) ends all of a group, also what forks meanwhile.
    fn kill_cgroup(&self) -> bool {
        self.cgroup_path().is_some_and(kill_all)
    }

    /// How many processes of the task there are, its dead ones that nobody waited for aside.
    pub(super) fn count(&self, main: Pid) -> u32 {
        let count = match self {
            Self::Cgroup(path) => cgroup_members(path).len(),
            Self::Subreaper => descendants(rustix::process::getpid()).len(),
            Self::ProcessGroup => {
                usize::from(rustix::process::test_kill_process_group(main).is_ok())
            }
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Removes the control group, unless something left behind is still in it.
    pub(super) fn remove(&self) {
        if let Some(path) = self.cgroup_path() {
            remove_cgroup(path);
        }
    }
}

fn kill_all(cgroup: &Path) -> bool {
    fs::write(cgroup.join("cgroup.kill"), "1").is_ok()
}

/// Ends what a supervisor that is gone has left of the task with this key in its control group.
pub(crate) fn end_rest(cgroup: &Path, key: &str) {
    let name = cgroup.file_name().unwrap_or_default().to_string_lossy();
    // Only a group that was made for this task.
    if !name.starts_with(&format!("{CGROUP}{key}-")) || kill_all(cgroup) {
        return;
    }
    for member in cgroup_members(cgroup) {
        let _ = kill_process(member, Signal::KILL);
    }
}

/// Removes a control group and those the task made inside it, as far as nothing lives in them.
pub(crate) fn remove_cgroup(path: &Path) {
    for inner in subgroups(path) {
        remove_cgroup(&inner);
    }
    // A group in use refuses; it is tried again when the task is removed.
    drop(fs::remove_dir(path));
}

/// Removes the empty control groups of supervisors that are gone: those in which something was
/// left behind that has ended since.
pub(crate) fn sweep_cgroups() {
    let supervisor = |path: &PathBuf| -> Option<u32> {
        let name = path.file_name()?.to_str()?.strip_prefix(CGROUP)?;
        name.rsplit('-').next()?.parse().ok()
    };
    let groups = own_cgroup().map(|own| subgroups(&own)).unwrap_or_default();
    for group in groups {
        let gone =
            supervisor(&group).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if gone {
            remove_cgroup(&group);
        }
    }
}

fn subgroups(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let entries =
        entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    entries.map(|entry| entry.path()).collect()
}

/// The processes in a control group and in those inside it.
fn cgroup_members(path: &Path) -> Vec<Pid> {
    let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // A process of another pid namespace reads as 0, which is no pid.
    let mut members: Vec<Pid> =
        procs.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
    members.extend(subgroups(path).iter().flat_map(|inner| cgroup_members(inner)));
    members
}

/// Where our own control group of version 2 is mounted, also when version 1 is mounted beside it.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    locate_cgroup(&mounts, &groups)
}

/// Finds the directory in the texts of `mountinfo` (`proc_pid_mountinfo(5)`) and `cgroup`.
fn locate_cgroup(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then_some(())?;
        let mut fields = fields.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(&unescape(at)).join(below))
    })
}

/// Mount points have blanks and the like written as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// All living processes below `root`, from one walk of `/proc`.
fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, parent) in processes().unwrap_or_default() {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = Vec::new();
    let mut ahead = vec![root.as_raw_pid()];
    while let Some(parent) = ahead.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        found.extend(below.iter().copied().filter_map(Pid::from_raw));
        ahead.extend(below);
    }
    found
}

/// Each living process and its parent.
fn processes() -> io::Result<Vec<(i32, i32)>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since it was listed.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        processes.extend(parent(&stat).map(|parent| (pid, parent)));
    }
    Ok(processes)
}

/// The parent in the text of `/proc/PID/stat` (`proc_pid_stat(5)`), unless the process is dead.
/// The name before it may hold anything, also parentheses and blanks.
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_on_pure_hybrid_and_nested_mounts() {
        let check = |mounts: &str, groups: &str, expected: Option<&str>| {
            assert_eq!(
                locate_cgroup(mounts, groups),
                expected.map(PathBuf::from),
                "{mounts} {groups}"
            );
        };
        let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let nested = "30 23 0:26 /box /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n";
        check(pure, "0::/system.slice/a.service\n", Some("/sys/fs/cgroup/system.slice/a.service"));
        check(hybrid, "8:pids:/\n0::/x\n", Some("/sys/fs/cgroup/unified/x"));
        check(nested, "0::/box/in\n", Some("/mnt/my groups/in"));
        check(nested, "0::/elsewhere\n", None);
        check("", "0::/\n", None);
        check(pure, "8:pids:/\n", None);
    }

    #[test]
    fn a_process_name_cannot_pretend_another_parent() {
        assert_eq!(parent("7 (x) S 1 7 (y) R 99 0"), Some(99));
        assert_eq!(parent("7 (a b) S 42 7"), Some(42));
        assert_eq!(parent("7 (dead) Z 42 7"), None);
        assert_eq!(parent("nonsense"), None);
    }
}
