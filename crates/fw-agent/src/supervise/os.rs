//! The system calls that no safe wrapper exists for. The only file with `unsafe` in it.
#![expect(
    unsafe_code,
    reason = "signal dispositions, the user database and what runs between fork and exec"
)]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::Pid;

/// Signals that a supervisor outlives: those that a shutdown, a terminal or a careless `kill`
/// sends. KILL alone ends it before its time.
const IGNORED: [libc::c_int; 7] = [
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Ignores the signals that a supervisor outlives.
pub(crate) fn ignore_signals() {
    for signal in IGNORED {
        // SAFETY: SIG_IGN is a valid disposition for each of these; no handler code is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Marks every descriptor but the first three close-on-exec, so that nothing which the agent
/// was itself started with reaches a command.
pub(crate) fn seal_descriptors() {
    #[cfg(target_os = "linux")]
    {
        let (first, last, flags) = (3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC closes nothing now and takes no pointers.
        // Kernels before 5.11 refuse it, and then the agent's own care (all CLOEXEC) must do.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    }
}

/// Closes every descriptor but the first three.
#[cfg(target_os = "linux")]
pub(crate) fn close_descriptors() {
    // SAFETY: takes no pointers. Callers own no descriptor but the first three. Kernels before 5.9
    // refuse it, and then the agent's own care (all CLOEXEC) must do.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0) };
}

/// Makes these the standard streams and closes all else.
#[cfg(target_os = "linux")]
pub(crate) fn take_streams(streams: [OwnedFd; 3]) -> io::Result<()> {
    for (stream, target) in streams.iter().zip(0..) {
        // SAFETY: both are descriptors of this process; the target's old one is not used again.
        if unsafe { libc::dup2(stream.as_raw_fd(), target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    drop(streams);
    close_descriptors();
    Ok(())
}

/// Leaves children that end to the system, which then keeps no zombie (`SIGCHLD` in `signal(7)`).
#[cfg(target_os = "linux")]
pub(crate) fn forget_children() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Takes [`forget_children`] back.
#[cfg(target_os = "linux")]
pub(crate) fn remember_children() {
    // SAFETY: SIG_DFL installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Where the system reads the arguments of this process, to show them to people (`ps(1)`).
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Title {
    start: usize,
    room: usize,
}

#[cfg(target_os = "linux")]
impl Title {
    /// From `arg_start` and `arg_end` of `/proc/self/stat`. The name before them may hold anything.
    pub(crate) fn find() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(45);
        let start: usize = fields.next()?.parse().ok()?;
        let end: usize = fields.next()?.parse().ok()?;
        let room = end.checked_sub(start).filter(|room| start > 0 && *room > 0)?;
        Some(Self { start, room })
    }

    /// Shows other arguments from now on, as far as there is room. The own ones must not be asked
    /// for any more.
    pub(crate) fn set(self, args: &[&[u8]]) {
        let mut text = args.join(&0);
        text.resize(self.room - 1, 0);
        text.push(0);
        let at = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
        // SAFETY: the kernel put the arguments there, on the stack, where a process may write; the
        // text is as long as they were, and nobody reads them any more.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), at, self.room) };
    }
}

/// Makes the C library give back what was freed (`mallopt(3)`).
///
/// For a process that lives for months and is to stay small. By itself the library keeps a heap for each of up to eight threads a processor, and once a
/// block of a megabyte was freed it takes the next from those heaps, which never shrink again.
pub fn keep_little_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, value) in [(libc::M_ARENA_MAX, HEAPS), (libc::M_MMAP_THRESHOLD, OWN_MAPPING)] {
        // SAFETY: plain numbers; what the C library does not know it refuses, which changes nothing.
        unsafe { libc::mallopt(what, value) };
    }
}

/// One heap for the agent's own thread, one for those that read and compress.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: libc::c_int = 2;

/// A block of so many bytes is a mapping of its own, gone when it is freed: pieces of output and what
/// compresses them. To set it, though it is the default, keeps it from growing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_MAPPING: libc::c_int = 128 * 1024;

/// Gives back the pages of the program's own file that are mapped: what is needed again is mapped again, from
/// memory as a rule (`madvise(2)`). A start runs code of all sorts that is not needed later, and the kernel maps much around it.
#[cfg(target_os = "linux")]
pub(crate) fn give_back_program() {
    let program = std::env::current_exe().map(PathBuf::into_os_string);
    let maps = std::fs::read_to_string("/proc/self/maps");
    let (Ok(program), Ok(maps)) = (program, maps) else { return };
    for range in program.to_str().iter().flat_map(|program| super::maps::unwritten(&maps, program))
    {
        let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(range.start);
        // SAFETY: nobody may write there or ever has, so the file says what was there; while a program runs, the
        // kernel lets nobody change its file (ETXTBSY).
        unsafe { libc::madvise(at, range.len(), libc::MADV_DONTNEED) };
    }
}

/// Elsewhere nothing is known of what is mapped.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_back_program() {}

/// Makes a FIFO that only its owner may use (`mkfifo(3)`).
///
/// # Errors
/// As `mkfifo(3)`.
pub(crate) fn mkfifo(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a valid C string for the length of the call.
    match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An entry of the user database (`passwd(5)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Which entry.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who<'a> {
    Name(&'a str),
    Uid(u32),
}

/// The most room that an entry of the user database is given.
const LARGEST_ENTRY: usize = 1024 * 1024;

/// Looks into the user database; `None` when there is no such user.
///
/// # Errors
/// The database cannot be asked.
pub(crate) fn account(who: Who<'_>) -> io::Result<Option<Account>> {
    let mut room = 4096;
    loop {
        match account_within(who, room) {
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && room < LARGEST_ENTRY => {
                room *= 4;
            }
            answer => return answer,
        }
    }
}

fn account_within(who: Who<'_>, room: usize) -> io::Result<Option<Account>> {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut buffer = vec![0_u8; room];
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    let (entry, into) = (entry.as_mut_ptr(), buffer.as_mut_ptr().cast());
    let code = match who {
        Who::Name(name) => {
            let name = CString::new(name)?;
            // SAFETY: all pointers are valid for the call, and `into` for `room` bytes.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, into, room, &raw mut found) }
        }
        // SAFETY: as above.
        Who::Uid(uid) => unsafe { libc::getpwuid_r(uid, entry, into, room, &raw mut found) },
    };
    // Some databases say "no such user" by these codes (getpwnam(3)).
    if found.is_null() {
        return match code {
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(None),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    // SAFETY: when `found` is set, it points to `entry`, which the call filled in; its texts are C
    // strings inside `buffer`, which still lives.
    Ok(Some(unsafe {
        let entry = &*found;
        let text = |at: *const libc::c_char| match at.is_null() {
            true => String::new(),
            false => CStr::from_ptr(at).to_string_lossy().into_owned(),
        };
        Account {
            name: text(entry.pw_name),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            home: text(entry.pw_dir),
            shell: text(entry.pw_shell),
        }
    }))
}

/// The groups of a user, the main one among them (`getgrouplist(3)`).
///
/// # Errors
/// The name holds a NUL, or the user is in more than 65,536 groups (the kernel's limit).
pub(crate) fn groups(account: &Account) -> io::Result<Vec<libc::gid_t>> {
    let name = CString::new(account.name.as_str())?;
    let mut room: libc::c_int = 32;
    while room <= 65_536 {
        let mut count = room;
        let mut groups: Vec<libc::gid_t> = vec![0; usize::try_from(room).unwrap_or(0)];
        // The types of the main group and the list differ between systems, hence the casts.
        let (gid, into) = (account.gid, groups.as_mut_ptr());
        // SAFETY: the name is a C string and `into` has room for `count` groups.
        let code =
            unsafe { libc::getgrouplist(name.as_ptr(), gid as _, into.cast(), &raw mut count) };
        if code >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        room = room.saturating_mul(4);
    }
    Err(io::Error::other("too many groups"))
}

/// The user that a command becomes.
#[derive(Debug, Clone)]
pub(crate) struct Become {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<libc::gid_t>,
}

/// What a command does between fork and exec, in this order.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The control group that it is in from its first moment on.
    pub(crate) cgroup: Option<PathBuf>,
    /// Its niceness.
    pub(crate) nice: Option<i32>,
    /// Its file mode creation mask.
    pub(crate) umask: u16,
    /// Whom it becomes.
    pub(crate) user: Option<Become>,
    /// Where it starts.
    pub(crate) cwd: CString,
    /// Whether it starts in `/` when that place cannot be entered.
    pub(crate) or_root: bool,
    /// Whether it is killed with its supervisor, so that it does not change what was undone since.
    pub(crate) tied: bool,
}

/// What a command executes.
#[derive(Debug)]
pub(crate) struct Image {
    /// The files that the program may be, tried in this order.
    pub(crate) candidates: Vec<CString>,
    /// The arguments, the program's name first.
    pub(crate) argv: Vec<CString>,
    /// `NAME=VALUE`.
    pub(crate) env: Vec<CString>,
}

/// A step of [`Entry`], to say at which one a start went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Fork, or before.
    Fork = 0,
    /// Joining the control group.
    Join = 1,
    /// Setting the niceness.
    Nice = 2,
    /// Becoming the user.
    Become = 3,
    /// Entering the directory.
    Directory = 4,
    /// Executing the program.
    Exec = 5,
}

/// A command that was executed.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts the command and waits until it is executed; on failure says at which step.
///
/// Not by the standard library, because that cannot put a child into a control group as it is
/// made. To move it there later takes a lock of the whole system, which costs ten milliseconds
/// (`cgroup_threadgroup_rwsem`); to be born there costs nothing.
pub(crate) fn spawn(image: &Image, entry: &Entry) -> Result<Spawned, (Step, io::Error)> {
    let before = |error: io::Error| (Step::Fork, error);
    let null = OpenOptions::new().read(true).open("/dev/null").map_err(before)?;
    let pipe = || std::io::pipe().map(|(read, write)| (OwnedFd::from(read), OwnedFd::from(write)));
    let ((stdout, child_stdout), (stderr, child_stderr), (report, child_report)) =
        (pipe().map_err(before)?, pipe().map_err(before)?, pipe().map_err(before)?);
    let streams = [null.as_raw_fd(), child_stdout.as_raw_fd(), child_stderr.as_raw_fd()];
    let exec = Exec::new(image);
    let (pid, join) = match &entry.cgroup {
        Some(path) => fork_into(path)?,
        None => (fork().map_err(before)?, None),
    };
    let Some(pid) = Pid::from_raw(pid) else {
        // The child. It makes system calls on what was made before, allocates nothing, and never
        // returns from here.
        let Err((step, error)) =
            entry.perform(join.as_ref(), streams).and_then(|()| exec.perform());
        let code = error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes();
        let [a, b, c, d] = code;
        let _ = rustix::io::write(&child_report, &[step as u8, a, b, c, d]);
        // SAFETY: ends the process at once, without running anything of the parent's.
        unsafe { libc::_exit(127) }
    };
    drop((child_stdout, child_stderr, child_report));
    match read_report(&report) {
        None => Ok(Spawned { pid, stdout, stderr }),
        Some(failure) => {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(failure)
        }
    }
}

/// What the child has to say: nothing, once it is executed and its end of the pipe closed.
fn read_report(report: &OwnedFd) -> Option<(Step, io::Error)> {
    let mut said = [0; 5];
    let taken = loop {
        match rustix::io::read(report, &mut said) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.unwrap_or(0),
        }
    };
    let [step, code @ ..] = said;
    let step = match step {
        1 => Step::Join,
        2 => Step::Nice,
        3 => Step::Become,
        4 => Step::Directory,
        5 => Step::Exec,
        _ => Step::Fork,
    };
    (taken > 0).then(|| (step, io::Error::from_raw_os_error(i32::from_ne_bytes(code))))
}

/// `fork(2)`: 0 in the child.
pub(crate) fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: a supervisor and a fork server have one thread, so the child's memory is in order.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Forks into a control group; where the kernel cannot (before 5.7, or forbidden), forks and
/// gives the child the file through which it joins.
fn fork_into(cgroup: &Path) -> Result<(libc::pid_t, Option<OwnedFd>), (Step, io::Error)> {
    let join = |error: io::Error| (Step::Join, error);
    #[cfg(target_os = "linux")]
    {
        let dir = OpenOptions::new().read(true).open(cgroup).map_err(join)?;
        if let Some(pid) = clone_into(&dir.into()) {
            return Ok((pid, None));
        }
    }
    let procs = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs")).map_err(join)?;
    Ok((fork().map_err(|error| (Step::Fork, error))?, Some(procs.into())))
}

/// `clone3(2)` with `CLONE_INTO_CGROUP`, otherwise like fork.
#[cfg(target_os = "linux")]
fn clone_into(cgroup: &OwnedFd) -> Option<libc::pid_t> {
    // SAFETY: all zeros are a valid value of this structure of numbers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    args.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    // SAFETY: neither memory nor stack is shared, so the child goes on here in a copy, as after
    // fork(2). The C library does not know of it; the child calls nothing that would mind
    // (only system calls, then exec or _exit), and this process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    libc::pid_t::try_from(pid).ok().filter(|pid| *pid >= 0)
}

/// From `linux/sched.h`; the `libc` crate has it in a type too small for it on some systems.
#[cfg(target_os = "linux")]
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl Entry {
    fn perform(
        &self,
        join: Option<&OwnedFd>,
        streams: [RawFd; 3],
    ) -> Result<(), (Step, io::Error)> {
        let at = |step: Step| move |errno: rustix::io::Errno| (step, io::Error::from(errno));
        if let Some(procs) = join {
            rustix::io::write(procs, b"0").map_err(at(Step::Join))?;
        }
        for (stream, target) in streams.into_iter().zip(0..) {
            // SAFETY: both are descriptors of this process; the target's old one is not used again.
            if unsafe { libc::dup2(stream, target) } < 0 {
                return Err((Step::Fork, io::Error::last_os_error()));
            }
        }
        rustix::process::setpgid(None, None).map_err(at(Step::Fork))?;
        if let Some(nice) = self.nice {
            rustix::process::setpriority_process(None, nice).map_err(at(Step::Nice))?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.umask.into()));
        if let Some(user) = &self.user {
            user.perform().map_err(|error| (Step::Become, error))?;
        }
        match rustix::process::chdir(self.cwd.as_c_str()) {
            Err(_) if self.or_root => rustix::process::chdir(c"/"),
            done => done,
        }
        .map_err(at(Step::Directory))?;
        default_signals();
        // After the change of user, which would take it back (PR_SET_PDEATHSIG, prctl(2)).
        #[cfg(target_os = "linux")]
        if self.tied {
            let signal = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal).map_err(at(Step::Fork))?;
        }
        Ok(())
    }
}

/// An [`Image`] in the form that `execve(2)` takes, made before the fork.
struct Exec<'a> {
    image: &'a Image,
    /// `/bin/sh`, room for the file, the arguments after the program's name.
    shell: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
}

impl<'a> Exec<'a> {
    fn new(image: &'a Image) -> Self {
        let pointers =
            |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let mut argv = pointers(&image.argv);
        let mut shell = vec![c"/bin/sh".as_ptr(), std::ptr::null()];
        shell.extend(argv.iter().skip(1));
        let mut env = pointers(&image.env);
        for list in [&mut argv, &mut shell, &mut env] {
            list.push(std::ptr::null());
        }
        Self { image, shell, argv, env }
    }

    /// Executes the first candidate that can be; returns only if none can.
    fn perform(mut self) -> Result<Infallible, (Step, io::Error)> {
        let mut why = io::Error::from_raw_os_error(libc::ENOENT);
        for candidate in &self.image.candidates {
            // SAFETY: all are C strings and lists of such that end with null, and live on.
            unsafe { libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOEXEC) {
                // A script without a first line that names its interpreter, as execvp(3) has it.
                if let Some(file) = self.shell.get_mut(1) {
                    *file = candidate.as_ptr();
                }
                // SAFETY: as above.
                unsafe {
                    libc::execve(c"/bin/sh".as_ptr(), self.shell.as_ptr(), self.env.as_ptr())
                };
            }
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                // There may be one further on that can be executed.
                Some(libc::EACCES) => why = error,
                _ => return Err((Step::Exec, error)),
            }
        }
        Err((Step::Exec, why))
    }
}

impl Become {
    fn perform(&self) -> io::Result<()> {
        let ok =
            |code: libc::c_int| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        // SAFETY: the list is valid for the call and as long as it says.
        ok(unsafe { libc::setgroups(self.groups.len() as _, self.groups.as_ptr()) })?;
        // SAFETY: plain numbers.
        ok(unsafe { libc::setgid(self.gid) })?;
        // SAFETY: plain numbers. As root this sets the saved id too, so there is no way back.
        ok(unsafe { libc::setuid(self.uid) })
    }
}

/// The last signal there is (`signal(7)`).
const LAST_SIGNAL: libc::c_int = if cfg!(target_os = "linux") { 64 } else { 31 };

/// A command starts with default dispositions and nothing blocked.
fn default_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: SIG_DFL installs no code; those that cannot be set refuse, which changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is made by the first call before the second reads it.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::supervise::maps;

    /// KiB of the program's code that are mapped.
    fn mapped(program: &str) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("what is mapped");
        let mut lines = smaps.lines();
        let code = |line: &&str| line.contains(" r-xp ") && line.ends_with(program);
        lines.find(code).expect("the program is mapped");
        let resident = lines.find_map(|line| line.strip_prefix("Rss:")).expect("smaps(5)");
        resident.trim_end_matches("kB").trim().parse().expect("a number")
    }

    #[test]
    fn a_program_that_gives_its_pages_back_goes_on_with_fewer() {
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        for at in maps::unwritten(&maps, program).flat_map(|range| range.step_by(4096)) {
            // SAFETY: the page is mapped and may be read.
            unsafe { std::ptr::read_volatile(std::ptr::with_exposed_provenance::<u8>(at)) };
        }
        let before = mapped(program);
        give_back_program();
        let after = mapped(program);
        assert!(after < before / 2, "{before} KiB, then {after}");
    }
}
