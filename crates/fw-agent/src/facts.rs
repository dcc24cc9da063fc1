//! What this host is like: facts that selectors ask for. Claims of the host, never proofs.
//!
//! | fact | meaning |
//! |---|---|
//! | `id` | the host's id in its fleet |
//! | `host`, `fqdn` | the system's name up to the first dot; the whole, from itself or `/etc/hosts` |
//! | `os`, `osrelease` | family word of `os-release(5)` such as `Ubuntu`; its `VERSION_ID` |
//! | `kernel`, `kernelrelease`, `arch` | `uname(2)`: `Linux`, `6.12.3`, `x86_64` |
//! | `cpus`, `memory` | logical processors; MiB of memory |
//! | `ipv4`, `ipv6` | addresses, without loopback and link-local ones |
//! | `virtual` | `physical`, `kvm`, `vmware`, `lxc`, `docker`, … |
//! | `roles` | as configured, or as a custom fact |
//!
//! Custom facts come from files: `*.toml` and `*.json` hold a table, an executable prints one as
//! JSON. What is wrong with one file harms no other.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use fw_proto::frame::MAX_FACTS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value, json};

/// Where custom facts are when nobody says otherwise.
pub const DEFAULT_DIR: &str = "/etc/fleetwright/facts.d";

/// How long an executable may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The largest file, and the most that an executable may print.
const LARGEST: u64 = 64 * 1024;

/// What the facts are made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The host's id in its fleet.
    pub id: String,
    /// Its roles, as configured.
    pub roles: Vec<String>,
    /// Where custom facts are; none when absent.
    pub dir: Option<PathBuf>,
}

/// The facts, and what was wrong on the way, to be logged when it changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// The facts.
    pub facts: Map<String, Value>,
    /// One line for each file that was left out, with the reason.
    pub problems: Vec<String>,
}

/// Gathers the facts. Runs executables one after the other, so it may take seconds: for
/// `spawn_blocking`.
#[must_use]
pub fn gather(sources: &Sources) -> Facts {
    let mut facts = Facts { facts: built_in(sources), problems: Vec::new() };
    if let Some(dir) = &sources.dir {
        facts.add_custom(dir);
    }
    facts
}

fn built_in(sources: &Sources) -> Map<String, Value> {
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let name = text(system.nodename());
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let (os, osrelease) = os(&read_first(&["/etc/os-release", "/usr/lib/os-release"]));
    let (cpus, memory) = size();
    let (ipv4, ipv6) = addresses();
    let facts = json!({
        "id": sources.id,
        "host": name.split('.').next().unwrap_or_default(),
        "fqdn": fqdn(&name, &hosts),
        "os": os,
        "osrelease": osrelease,
        "kernel": text(system.sysname()),
        "kernelrelease": text(system.release()),
        "arch": text(system.machine()),
        "cpus": cpus,
        "memory": memory,
        "ipv4": ipv4,
        "ipv6": ipv6,
        "virtual": virtualisation(Path::new("/")),
        "roles": sources.roles,
    });
    match facts {
        Value::Object(facts) => facts,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

fn read_first(paths: &[&str]) -> String {
    paths.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}

/// Families whose word in selectors is not the first word of their name. Salt's words, since
/// people bring their selectors along.
const FAMILIES: [(&str, &str); 5] = [
    ("Red Hat", "RedHat"),
    ("CentOS Stream", "CentOS Stream"),
    ("openSUSE Leap", "Leap"),
    ("openSUSE Tumbleweed", "Tumbleweed"),
    ("Oracle Linux", "OEL"),
];

/// Family word and version from the text of `os-release(5)`.
fn os(os_release: &str) -> (String, String) {
    let field = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    let name = field("NAME");
    let known = FAMILIES.iter().find(|(begins, _)| name.starts_with(begins)).map(|(_, word)| *word);
    let fallback = if cfg!(target_os = "macos") { "MacOS" } else { "unknown" };
    let word = known
        .or_else(|| name.split(' ').next().filter(|word| !word.is_empty()))
        .unwrap_or(fallback);
    (word.to_owned(), field("VERSION_ID"))
}

/// The full name: the system's own when it has a dot, else the one `/etc/hosts` knows. The
/// network is not asked: facts must not hang on a name server.
fn fqdn(name: &str, hosts: &str) -> String {
    if name.contains('.') {
        return name.to_owned();
    }
    let names = |line: &str| -> Vec<String> {
        let line = line.split('#').next().unwrap_or_default();
        line.split_ascii_whitespace().skip(1).map(str::to_owned).collect()
    };
    let mut lines = hosts.lines().map(names).filter(|names| names.iter().any(|one| one == name));
    let full =
        lines.find_map(|names| names.into_iter().find(|one| one.starts_with(&format!("{name}."))));
    full.unwrap_or_else(|| name.to_owned())
}

/// Logical processors, and memory in MiB.
fn size() -> (usize, u64) {
    let Ok(mut system) = sysinfo::System::new() else { return (0, 0) };
    system.refresh_memory();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    (cpus, system.total_memory() / (1024 * 1024))
}

/// The addresses of both families, sorted.
fn addresses() -> (Vec<String>, Vec<String>) {
    let (mut ipv4, mut ipv6) = (BTreeSet::new(), BTreeSet::new());
    if let Ok(networks) = sysinfo::Networks::new_with_refreshed_list() {
        for network in networks.values().flat_map(|network| network.ip_networks()) {
            match network.addr {
                IpAddr::V4(addr) => drop(ipv4.insert(addr)),
                IpAddr::V6(addr) => drop(ipv6.insert(addr)),
            }
        }
    }
    ipv4.retain(|addr| !addr.is_loopback() && !addr.is_link_local());
    ipv6.retain(|addr| !addr.is_loopback() && !addr.is_unicast_link_local());
    (ipv4.iter().map(ToString::to_string).collect(), ipv6.iter().map(ToString::to_string).collect())
}

/// How the firmware of a virtual machine calls itself, and what we call it.
const MACHINES: [(&str, &str); 11] = [
    ("QEMU", "kvm"),
    ("KVM", "kvm"),
    ("Amazon EC2", "kvm"),
    ("Google", "kvm"),
    ("OpenStack", "kvm"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("Microsoft Corporation Virtual Machine", "hyperv"),
    ("Xen", "xen"),
    ("Parallels", "parallels"),
    ("Apple Virtualization", "apple"),
];

/// What the host is made of, from the files below `root`.
fn virtualisation(root: &Path) -> String {
    let read =
        |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_owned();
    let container = read("run/systemd/container");
    if !container.is_empty() {
        return container;
    }
    for (mark, kind) in
        [(".dockerenv", "docker"), ("run/.containerenv", "podman"), ("dev/lxd/sock", "lxc")]
    {
        if root.join(mark).exists() {
            return kind.to_owned();
        }
    }
    let firmware = format!(
        "{} {}",
        read("sys/class/dmi/id/sys_vendor"),
        read("sys/class/dmi/id/product_name")
    );
    if let Some((_, kind)) = MACHINES.iter().find(|(name, _)| firmware.contains(name)) {
        return (*kind).to_owned();
    }
    let hypervisor = read("sys/hypervisor/type");
    if !hypervisor.is_empty() {
        return hypervisor;
    }
    let flags = read("proc/cpuinfo");
    let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let guest = flags.split_ascii_whitespace().any(|flag| flag == "hypervisor");
    if guest { "vm" } else { "physical" }.to_owned()
}

impl Facts {
    fn add_custom(&mut self, dir: &Path) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.problems.push(format!("{}: {error}", dir.display())),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            let hidden =
                path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            let added = if hidden {
                Ok(())
            } else {
                read_custom(&path).and_then(|custom| self.add(custom))
            };
            if let Err(why) = added {
                self.problems.push(format!("{}: {why}", path.display()));
            }
        }
    }

    /// Adds the facts of one file, or none of them.
    fn add(&mut self, custom: Map<String, Value>) -> Result<(), String> {
        if let Some(name) =
            custom.keys().find(|name| *name != "roles" && self.facts.contains_key(*name))
        {
            return Err(format!("{name:?} is a fact already; use another name"));
        }
        let size = |facts: &Map<String, Value>| {
            serde_json::to_string(facts).map_or(usize::MAX, |text| text.len())
        };
        if size(&self.facts).saturating_add(size(&custom)) > MAX_FACTS {
            return Err(format!("with these, the facts are more than {} KiB", MAX_FACTS / 1024));
        }
        self.facts.extend(custom);
        Ok(())
    }
}

fn read_custom(path: &Path) -> Result<Map<String, Value>, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Ok(Map::new());
    }
    if about.mode() & 0o111 != 0 {
        let own = rustix::process::geteuid().as_raw();
        if about.mode() & 0o022 != 0 || (about.uid() != 0 && about.uid() != own) {
            return Err("not run, because others may write it; run chmod go-w on it, or make root its owner".to_owned());
        }
        return as_json(&run(path).map_err(|error| error.to_string())?);
    }
    let read = || {
        let mut text = Vec::new();
        fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
        within_bound(text)
    };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => as_json(&read().map_err(|error: io::Error| error.to_string())?),
        Some("toml") => as_toml(&read().map_err(|error: io::Error| error.to_string())?),
        Some(_) | None => Ok(Map::new()),
    }
}

fn within_bound(text: Vec<u8>) -> io::Result<Vec<u8>> {
    let fits = text.len() as u64 <= LARGEST;
    fits.then_some(text)
        .ok_or_else(|| io::Error::other(format!("more than {} KiB", LARGEST / 1024)))
}

fn as_json(text: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(text).map_err(|error| format!("not a JSON object: {error}"))
}

fn as_toml(text: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let table: toml::Table =
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    Ok(table.into_iter().map(|(name, value)| (name, from_toml(value))).collect())
}

/// TOML has dates where JSON has none; they become text.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(name, value)| (name, from_toml(value))).collect())
        }
    }
}

/// Runs an executable and takes what it prints. It is ended, with what it started, when it takes
/// too long or prints too much.
fn run(path: &Path) -> io::Result<Vec<u8>> {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let printed = child.stdout.take().map_or_else(|| Ok(Vec::new()), read_in_time);
    finish(&mut child, printed)
}

fn read_in_time(mut stdout: ChildStdout) -> io::Result<Vec<u8>> {
    let start = monotonic();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = DEADLINE.saturating_sub(monotonic().saturating_sub(start));
        let mut fds = [PollFd::new(&stdout, PollFlags::IN)];
        if poll(&mut fds, Timespec::try_from(left).ok().as_ref())? == 0 {
            return Err(io::Error::other(format!(
                "ended, because it took more than {} s",
                DEADLINE.as_secs()
            )));
        }
        match stdout.read(&mut buffer)? {
            0 => return Ok(text),
            taken => text.extend_from_slice(buffer.get(..taken).unwrap_or_default()),
        }
        text = within_bound(text)?;
    }
}

/// Collects the child. One that went wrong is ended with all its group; one that has closed its
/// output but does not end is waited for, and then ended likewise.
fn finish(child: &mut Child, printed: io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    // Gone already is as good as ended.
    let end =
        |child: &Child| kill_process_group(Pid::from_child(child), Signal::KILL).unwrap_or(());
    match &printed {
        Ok(_) => wait_a_while(child),
        Err(_) => end(child),
    }
    if child.try_wait()?.is_none() {
        end(child);
    }
    let status = child.wait()?;
    match printed {
        Ok(_) if !status.success() => Err(io::Error::other(format!("it ended with {status}"))),
        printed => printed,
    }
}

/// Waits for the end of a process by its descriptor, at most [`DEADLINE`].
fn wait_a_while(child: &Child) {
    #[cfg(target_os = "linux")]
    if let Ok(fd) =
        rustix::process::pidfd_open(Pid::from_child(child), rustix::process::PidfdFlags::empty())
    {
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(DEADLINE).ok().as_ref());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = child;
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (secs, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(secs.unwrap_or_default(), nanos.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(dir: &Path, name: &str, text: &str, mode: u32) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn this_host_has_the_facts_that_are_promised() {
        let facts =
            gather(&Sources { id: "x1".to_owned(), roles: vec!["web".to_owned()], dir: None })
                .facts;
        let system = rustix::system::uname();
        assert_eq!(facts["id"], "x1");
        assert_eq!(facts["roles"], json!(["web"]));
        assert_eq!(facts["arch"], system.machine().to_str().unwrap());
        assert_eq!(facts["kernel"], system.sysname().to_str().unwrap());
        assert!(
            facts["cpus"].as_u64().unwrap() > 0 && facts["memory"].as_u64().unwrap() > 16,
            "{facts:?}"
        );
        for name in ["host", "fqdn", "os", "virtual"] {
            assert!(!facts[name].as_str().unwrap().is_empty(), "{name}");
        }
        for name in ["ipv4", "ipv6"] {
            for addr in facts[name].as_array().unwrap() {
                assert!(addr.as_str().unwrap().parse::<std::net::IpAddr>().is_ok(), "{addr}");
            }
        }
    }

    #[test]
    fn systems_are_called_as_their_people_call_them() {
        let check = |name: &str, expected: &str| {
            let text = format!("PRETTY_NAME=\"x\"\nNAME=\"{name}\"\nVERSION_ID=\"12\"\n");
            assert_eq!(os(&text), (expected.to_owned(), "12".to_owned()));
        };
        check("Ubuntu", "Ubuntu");
        check("Debian GNU/Linux", "Debian");
        check("Red Hat Enterprise Linux", "RedHat");
        check("Rocky Linux", "Rocky");
        check("Alpine Linux", "Alpine");
        check("NixOS", "NixOS");
    }

    #[test]
    fn the_full_name_is_found_without_the_network() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 web1.example.com web1 # here\n";
        assert_eq!(fqdn("web1", hosts), "web1.example.com");
        assert_eq!(fqdn("web2.example.com", hosts), "web2.example.com");
        assert_eq!(fqdn("web", hosts), "web");
    }

    #[test]
    fn virtual_machines_and_containers_are_told_apart() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let root = tempfile::tempdir().unwrap();
            for (name, text) in files {
                write(root.path(), name, text, 0o644);
            }
            assert_eq!(virtualisation(root.path()), expected);
        };
        check(&[], "physical");
        check(&[(".dockerenv", "")], "docker");
        check(&[("run/systemd/container", "lxc\n")], "lxc");
        check(&[("sys/class/dmi/id/sys_vendor", "QEMU\n")], "kvm");
        check(
            &[("sys/class/dmi/id/sys_vendor", "Dell Inc."), ("proc/cpuinfo", "flags : fpu vme\n")],
            "physical",
        );
        check(&[("proc/cpuinfo", "flags : fpu hypervisor\n")], "vm");
    }

    #[test]
    fn custom_facts_are_added_and_a_bad_file_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let add = |name: &str, text: &str, mode: u32| write(dir.path(), name, text, mode);
        add("10-rack.toml", "rack = \"b7\"\nbuilt = 2024-05-01\n[disk]\nsize = 3\n", 0o644);
        add("20-role.json", "{\"roles\": [\"db\"]}", 0o644);
        add("30-run", "#!/bin/sh\necho '{\"ran\": true}'\n", 0o755);
        add("40-bad.json", "{", 0o644);
        add("41-id.json", "{\"id\": \"me\", \"new\": 1}", 0o644);
        add("42-open", "#!/bin/sh\necho '{\"open\": true}'\n", 0o777);
        add("43-fails", "#!/bin/sh\necho '{}'; exit 3\n", 0o755);
        add("44-large", "#!/bin/sh\nhead -c 100000 /dev/zero\n", 0o755);
        add("45-bad.toml", "a = \n", 0o644);
        add("README", "not a fact", 0o644);
        let sources =
            Sources { id: "x1".to_owned(), roles: Vec::new(), dir: Some(dir.path().to_owned()) };
        let Facts { facts, problems } = gather(&sources);
        assert_eq!(facts["rack"], "b7");
        assert_eq!(facts["built"], "2024-05-01");
        assert_eq!(facts["disk"], json!({"size": 3}));
        assert_eq!(
            (&facts["roles"], &facts["ran"], &facts["id"]),
            (&json!(["db"]), &json!(true), &json!("x1"))
        );
        assert!(!facts.contains_key("new") && !facts.contains_key("open"));
        let folder = format!("{}/", dir.path().display());
        insta::assert_snapshot!(problems.join("\n").replace(&folder, ""), @r#"
        40-bad.json: not a JSON object: EOF while parsing an object at line 1 column 1
        41-id.json: "id" is a fact already; use another name
        42-open: not run, because others may write it; run chmod go-w on it, or make root its owner
        43-fails: it ended with exit status: 3
        44-large: more than 64 KiB
        45-bad.toml: TOML parse error at line 1, column 5
          |
        1 | a = 
          |     ^
        string values must be quoted, expected literal string
        "#);
    }
}
