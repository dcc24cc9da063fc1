//! The fork server: what it forks is what would have been executed, and its death at any step
//! neither loses a command nor starts one twice.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds something else than it expects has failed"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSlice, PipeWriter, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fw_agent::spool::{Found, SpawnError, Spool};
use fw_proto::frame::{Command, OnFull, RefusalReason, Spec};
use fw_proto::record::{self, Body, MAX_CHUNK, Offsets};
use fw_proto::{NodeId, RunId, Span, TaskKey};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_fw-supervise");

/// Far longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn shell(text: &str) -> Spec {
    Spec {
        command: Command::Shell(text.to_owned()),
        user: None,
        cwd: Some("/".to_owned()),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        timeout: None,
        kill_after: Span::from_secs(5),
        on_full: OnFull::Block,
        spool_bytes: 64 * 1024 * 1024,
        nice: None,
        umask: None,
        armed: None,
    }
}

fn key() -> TaskKey {
    TaskKey { run: RunId(uuid::Uuid::from_bytes(rand::random())), node: NodeId(0), attempt: 1 }
}

/// Asks until there is an answer. What is asked for is in `/proc` or on the disk, and takes the
/// system some microseconds.
#[track_caller]
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

fn open(dir: &Path) -> Spool {
    Spool::open(dir).unwrap().with_supervisor(PathBuf::from(BINARY))
}

/// How a task that was spawned has ended.
fn end(spool: &Spool, key: TaskKey) -> Found {
    until("the end", || match spool.state(key).unwrap() {
        Found::Starting | Found::Running { .. } => None,
        found => Some(found),
    })
}

fn run(spool: &Spool, command: &str) -> String {
    let key = key();
    spool.spawn(key, &shell(command)).unwrap();
    let found = end(spool, key);
    assert!(matches!(found, Found::Ended(_)), "{found:?}");
    output(spool, key)
}

fn output(spool: &Spool, key: TaskKey) -> String {
    let (mut text, mut chunk) = (Vec::new(), Vec::new());
    let mut reader = spool.reader(key, Offsets::default());
    while reader.next(MAX_CHUNK, &mut chunk).unwrap().is_some() {
        for record in record::records(&chunk) {
            if let Body::Bytes(bytes) = record.unwrap().body {
                text.extend_from_slice(bytes);
            }
        }
    }
    String::from_utf8(text).unwrap()
}

/// A process, as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Proc(i32);

impl Proc {
    fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|entry| Some(Self(entry.file_name().to_str()?.parse().ok()?))).collect()
    }

    fn read(self, file: &str) -> String {
        fs::read(format!("/proc/{}/{file}", self.0))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// State and parent, session and group: what follows the name.
    fn stat(self) -> Vec<String> {
        let stat = self.read("stat");
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        rest.split_ascii_whitespace().map(str::to_owned).collect()
    }

    fn parent(self) -> Option<Self> {
        Some(Self(self.stat().get(1)?.parse().ok()?))
    }

    fn is_zombie(self) -> bool {
        self.stat().first().is_some_and(|state| state == "Z")
    }

    fn is_alive(self) -> bool {
        self.stat().first().is_some_and(|state| state != "Z" && state != "X")
    }

    fn arguments(self) -> Vec<String> {
        let line = self.read("cmdline");
        line.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
    }

    fn status(self, name: &str) -> String {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// Each descriptor and what it leads to.
    fn descriptors(self) -> BTreeMap<i32, PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap().flatten();
        let name = |entry: fs::DirEntry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        };
        entries.filter_map(name).collect()
    }

    fn send(self, signal: Signal) {
        // It may be gone already.
        let _ = kill_process(Pid::from_raw(self.0).unwrap(), signal);
    }
}

fn own() -> Proc {
    Proc(std::process::id().try_into().unwrap())
}

/// The fork servers of the agent with this state directory. A copy is called as they are for its first moment.
fn fork_servers(state_dir: &Path) -> Vec<Proc> {
    let spool = state_dir.canonicalize().unwrap().join("spool").display().to_string();
    let is_it = |process: &Proc| {
        let arguments = process.arguments();
        process.parent() == Some(own())
            && arguments.get(2).is_some_and(|arg| arg == "--fork-server")
            && arguments.get(3) == Some(&spool)
    };
    Proc::all().into_iter().filter(is_it).collect()
}

fn fork_server(state_dir: &Path) -> Proc {
    let servers = fork_servers(state_dir);
    let [server] = servers.as_slice() else { panic!("{servers:?}") };
    *server
}

fn supervisor(spool: &Spool, key: TaskKey) -> Proc {
    let file = spool.task_dir(key).join("started");
    until("the supervisor", || {
        let started: serde_json::Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        Some(Proc(started.get("supervisor")?.as_i64()?.try_into().ok()?))
    })
}

/// A task's directory as the agent makes it, for tests that speak to supervisors themselves.
struct Bare {
    dir: PathBuf,
    control: fs::File,
    log: fs::File,
}

impl Bare {
    fn new(spool: &Spool, key: TaskKey) -> Self {
        let dir = spool.task_dir(key);
        fs::create_dir(&dir).unwrap();
        assert!(Process::new("mkfifo").arg(dir.join("control")).status().unwrap().success());
        let control = fs::File::options().read(true).write(true).open(dir.join("control")).unwrap();
        let log = fs::File::create(dir.join("supervisor.log")).unwrap();
        Self { dir, control, log }
    }

    /// Executes a supervisor.
    fn execute(&self) -> (Child, PipeWriter) {
        let (theirs, spec) = io::pipe().unwrap();
        let mut command = Process::new(BINARY);
        command.arg("supervise-task").arg(&self.dir).env_clear().current_dir("/");
        command.envs(std::env::var_os("LANG").map(|lang| ("LANG", lang)));
        command.stdin(OwnedFd::from(theirs)).stdout(self.control.try_clone().unwrap());
        command.stderr(self.log.try_clone().unwrap());
        (command.spawn().unwrap(), spec)
    }
}

/// A fork server of a test that speaks to it itself.
struct Bold {
    process: Child,
    socket: OwnedFd,
}

impl Bold {
    fn start() -> Self {
        let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let (socket, theirs) = socketpair(family, SocketType::SEQPACKET, flags, None).unwrap();
        let mut command = Process::new(BINARY);
        command.args(["supervise-task", "--fork-server"]).env_clear().current_dir("/");
        command.stdin(theirs).stdout(Stdio::null());
        Self { process: command.spawn().unwrap(), socket }
    }

    fn send(&self, path: &[u8], streams: &[&dyn std::os::fd::AsFd]) {
        let streams: Vec<_> = streams.iter().map(|stream| stream.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(streams.is_empty() || control.push(SendAncillaryMessage::ScmRights(&streams)));
        sendmsg(&self.socket, &[IoSlice::new(path)], &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    /// Asks for a supervisor and hears no answer.
    fn ask(&self, bare: &Bare) -> PipeWriter {
        let (theirs, spec) = io::pipe().unwrap();
        self.send(bare.dir.as_os_str().as_bytes(), &[&theirs, &bare.control, &bare.log]);
        spec
    }

    fn hear(&self) -> i32 {
        let mut answer = [0; 4];
        assert_eq!(rustix::io::read(&self.socket, &mut answer).unwrap(), 4);
        i32::from_ne_bytes(answer)
    }

    fn pid(&self) -> Proc {
        Proc(self.process.id().try_into().unwrap())
    }
}

#[test]
fn a_forked_supervisor_is_what_an_executed_one_is() {
    let dir = tempfile::tempdir().unwrap();
    // What the agent was itself started with must reach neither supervisor nor command.
    let leak = fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let spool = open(dir.path());
    let spec = shell("exec sleep 300");
    let (forked, executed) = (key(), key());
    spool.spawn(forked, &spec).unwrap();
    let bare = Bare::new(&spool, executed);
    let (mut child, mut to) = bare.execute();
    to.write_all(&minicbor::to_vec(&spec).unwrap()).unwrap();
    drop(to);
    let [a, b] = [forked, executed].map(|key| {
        until("the start", || {
            matches!(spool.state(key).unwrap(), Found::Running { .. }).then_some(())
        });
        supervisor(&spool, key)
    });
    for name in ["SigBlk", "SigIgn", "SigCgt", "Umask", "Uid", "Gid", "Groups", "Threads", "CapEff"]
    {
        assert_eq!(a.status(name), b.status(name), "{name}");
    }
    for file in ["environ", "limits", "cgroup", "oom_score_adj"] {
        assert_eq!(a.read(file), b.read(file), "{file}");
    }
    let link = |process: Proc, name: &str| fs::read_link(format!("/proc/{}/{name}", process.0));
    for name in ["cwd", "exe", "root", "ns/mnt"] {
        assert_eq!(link(a, name).unwrap(), link(b, name).unwrap(), "{name}");
    }
    // The executed one was given what leaks, the forked one not even that.
    let leaks = |number: &i32| {
        let about = own().read(&format!("fdinfo/{number}"));
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap_or_default().trim(), 8).unwrap_or_default();
        flags & libc::O_CLOEXEC.cast_unsigned() == 0
    };
    let mut own = own().descriptors();
    own.retain(|number, _| leaks(number));
    assert!(b.descriptors().values().any(|what| what == Path::new("/dev/zero")));
    let kinds = |process: Proc| {
        let all = process.descriptors().into_iter();
        let rest = all.filter(|(number, what)| *number < 3 || own.get(number) != Some(what));
        let kind = |what: PathBuf| {
            let what = what.display().to_string();
            let end = what.rsplit('/').next().unwrap_or_default();
            end.split(":[").next().unwrap_or_default().to_owned()
        };
        rest.map(|(_, what)| kind(what)).collect::<Vec<_>>()
    };
    // One may just be writing down who it is.
    until("the same descriptors", || (kinds(a) == kinds(b)).then_some(()));
    for (process, key) in [(a, forked), (b, executed)] {
        let task = spool.task_dir(key).display().to_string();
        assert_eq!(process.arguments()[1..], ["supervise-task".to_owned(), task]);
        let session = process.stat()[3].clone();
        assert_eq!(session, process.0.to_string(), "it leads a session of its own");
        assert!(spool.cancel(key).unwrap());
        assert!(matches!(end(&spool, key), Found::Ended(_)));
    }
    assert_eq!(a.read("comm").trim(), if a.is_alive() { "fw-supervisor" } else { "" });
    child.wait().unwrap();
}

#[test]
fn a_command_has_three_descriptors_and_none_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for _ in 0..2 {
        // The fourth is that by which the directory is read.
        assert_eq!(run(&spool, "exec ls /proc/self/fd"), "0\n1\n2\n3\n");
        let text = run(&spool, "exec grep ^Sig /proc/self/status");
        let mask = |name: &str| {
            let line = text.lines().find_map(|line| line.split_once(name)).unwrap().1;
            // Signals 32 and 33 belong to the C library.
            u64::from_str_radix(line.trim(), 16).unwrap() & !0x1_8000_0000
        };
        assert_eq!((mask("SigBlk:"), mask("SigIgn:")), (0, 0), "{text}");
    }
    assert_eq!(fork_server(dir.path()).descriptors().into_keys().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn there_are_no_zombies_and_no_server_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for _ in 0..5 {
        run(&spool, "true");
    }
    let server = fork_server(dir.path());
    until("all supervisors to be gone", || {
        let children = Proc::all().into_iter().filter(|process| process.parent() == Some(server));
        let children: Vec<_> = children.collect();
        assert!(!children.iter().any(|child| child.is_zombie()), "{children:?}");
        children.is_empty().then_some(())
    });
    server.send(Signal::KILL);
    until("the dead server to be collected", || {
        spool.reap();
        (!Path::new(&format!("/proc/{}", server.0)).exists()).then_some(())
    });
    run(&spool, "true");
    assert_ne!(fork_server(dir.path()), server);
    drop(spool);
    assert_eq!(fork_servers(dir.path()), []);
}

#[test]
fn a_terminal_and_a_service_manager_do_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    run(&spool, "true");
    let server = fork_server(dir.path());
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        server.send(signal);
    }
    run(&spool, "true");
    assert_eq!(fork_server(dir.path()), server);
    assert_eq!(server.stat()[3], server.0.to_string(), "it leads a session of its own");
}

#[test]
fn supervisors_outlive_agent_and_server_and_the_server_ends_with_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut server = Bold::start();
    let go = dir.path().join("go");
    let mut spec = shell("echo begin; while ! [ -e \"$GO\" ]; do sleep 0.02; done; echo end");
    spec.env.insert("GO".to_owned(), go.display().to_string());
    let key = key();
    let bare = Bare::new(&spool, key);
    let mut to = server.ask(&bare);
    assert_eq!(server.hear(), 0);
    to.write_all(&minicbor::to_vec(&spec).unwrap()).unwrap();
    drop((to, bare));
    until("the start", || matches!(spool.state(key).unwrap(), Found::Running { .. }).then_some(()));
    // All that a server sees of an agent's death.
    drop(server.socket);
    assert!(server.process.wait().unwrap().success());
    assert!(matches!(spool.state(key).unwrap(), Found::Running { .. }));
    fs::write(&go, "").unwrap();
    assert!(matches!(end(&spool, key), Found::Ended(_)));
    assert_eq!(output(&spool, key), "begin\nend\n");
}

#[test]
fn a_server_that_dies_before_it_answers_starts_nothing() {
    // After the fork: its supervisor is there, and ends without a spec.
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let (mut server, after) = (Bold::start(), key());
    let bare = Bare::new(&spool, after);
    let spec = server.ask(&bare);
    let pid = server.pid();
    let supervisor = until("the supervisor", || {
        Proc::all().into_iter().find(|process| process.parent() == Some(pid))
    });
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    drop(bare);
    assert!(supervisor.is_alive() && spool.state(after).unwrap() == Found::Starting);
    drop(spec);
    assert_eq!(end(&spool, after), Found::NotStarted);
    let log = fs::read_to_string(spool.task_dir(after).join("supervisor.log")).unwrap();
    assert!(log.contains("read the spec"), "{log}");
    spool.remove(after).unwrap();

    // Before the fork: the request is lost with it, and with it what it carried.
    let (mut server, before) = (Bold::start(), key());
    server.pid().send(Signal::STOP);
    let bare = Bare::new(&spool, before);
    let mut spec = server.ask(&bare);
    drop(bare);
    assert_eq!(spool.state(before).unwrap(), Found::Starting);
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    assert_eq!(spool.state(before).unwrap(), Found::NotStarted);
    assert_eq!(spec.write_all(b"spec").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_request_that_cannot_be_met_is_answered_and_the_next_one_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let (mut server, key) = (Bold::start(), key());
    server.send(b"/nowhere", &[&io::stdin()]);
    assert_eq!(server.hear(), libc::EMFILE);
    server.send(&[b'/'; 5000], &[]);
    assert_eq!(server.hear(), libc::ENAMETOOLONG);
    let bare = Bare::new(&spool, key);
    let mut to = server.ask(&bare);
    assert_eq!(server.hear(), 0);
    to.write_all(&minicbor::to_vec(shell("echo met")).unwrap()).unwrap();
    drop((to, bare));
    assert!(matches!(end(&spool, key), Found::Ended(_)));
    assert_eq!(output(&spool, key), "met\n");
    drop(server.socket);
    assert!(server.process.wait().unwrap().success());
}

#[test]
fn a_server_that_was_stopped_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    run(&spool, "true");
    let server = fork_server(dir.path());
    server.send(Signal::STOP);
    let file = dir.path().join("ran");
    run(&spool, &format!("echo ran >> {}", file.display()));
    assert_eq!(fs::read_to_string(file).unwrap(), "ran\n");
    assert!(!server.is_alive());
}

/// Kills the server at moments that follow no plan while many tasks are started by several
/// threads: each task runs once, or is refused and never runs.
#[test]
fn whenever_a_server_is_killed_each_task_runs_once_or_is_refused() {
    const TASKS: u32 = 100;
    const THREADS: u32 = 4;
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let ran = dir.path().join("ran");
    fs::create_dir(&ran).unwrap();
    let kills = AtomicU32::new(0);
    let refused = AtomicU32::new(0);
    let task = || {
        let key = key();
        let mark = ran.join(key.to_string());
        let spawned = spool.spawn(key, &shell(&format!("echo once >> {}", mark.display())));
        let found = end(&spool, key);
        let marks = fs::read_to_string(&mark).unwrap_or_default();
        match spawned {
            Ok(()) => assert!(
                matches!(&found, Found::Ended(ended) if ended.exit_code == Some(0))
                    && marks == "once\n",
                "{found:?} {marks:?}"
            ),
            Err(error) => {
                let refusal = error.refusal().unwrap();
                assert_eq!(refusal.reason, RefusalReason::Spawn);
                assert!(refusal.message.starts_with("start a process: "), "{}", refusal.message);
                assert_eq!((found, marks.as_str()), (Found::NotStarted, ""));
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|threads| {
        let starts = || (0..TASKS).for_each(|_| task());
        let threads: Vec<_> = (0..THREADS).map(|_| threads.spawn(starts)).collect();
        // Also when one of them has found something wrong.
        while threads.iter().any(|thread| !thread.is_finished()) {
            for server in fork_servers(dir.path()) {
                server.send(Signal::KILL);
                kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let (kills, refused) = (kills.into_inner(), refused.into_inner());
    eprintln!("{kills} kills, {refused} of {} tasks refused", TASKS * THREADS);
    assert!(kills > 20, "{kills} kills only");
    // Nothing that was refused runs later either.
    drop(spool);
    assert_eq!(fork_servers(dir.path()), []);
    for mark in fs::read_dir(ran).unwrap().flatten() {
        assert_eq!(fs::read_to_string(mark.path()).unwrap(), "once\n");
    }
}

#[test]
fn a_host_without_room_for_processes_refuses_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let copy = dir.path().join("supervisor");
    fs::copy(BINARY, &copy).unwrap();
    for path in [dir.path(), copy.as_path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // The limit does not hold for root, so the server is then someone who has no other process.
    let become_other = match rustix::process::geteuid().is_root() {
        true => "setpriv --reuid 61234 --regid 61234 --clear-groups",
        false => "env",
    };
    let script = dir.path().join("script");
    let text =
        format!("#!/bin/sh\nexec prlimit --nproc=1 {become_other} {} \"$@\"\n", copy.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let spool = spool.with_supervisor(script);
    let key = key();
    let error = spool.spawn(key, &shell("true")).unwrap_err();
    assert!(
        matches!(&error, SpawnError::Supervisor { source, .. } if source.raw_os_error() == Some(libc::EAGAIN)),
        "{error:?}"
    );
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.reason, RefusalReason::Spawn);
    assert!(refusal.message.contains("Resource temporarily unavailable"), "{}", refusal.message);
    assert_eq!(spool.state(key).unwrap(), Found::NotStarted);
}
