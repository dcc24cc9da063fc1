//! The system calls that no safe wrapper exists for. The only file with `unsafe` in it.
#![expect(
    unsafe_code,
    reason = "signal dispositions, the user database and what runs between fork and exec"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use rustix::fs::Mode;

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
    /// `cgroup.procs` of the group that it joins.
    pub(crate) join: Option<OwnedFd>,
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
}

/// A step of [`Entry`], to say at which one a start went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Fork, or before.
    Fork = 0,
    /// Joining the group.
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

/// Starts the command; on failure says at which step.
pub(crate) fn spawn(command: &mut Command, entry: Entry) -> Result<Child, (Step, io::Error)> {
    use rustix::pipe::{PipeFlags, pipe_with};
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| (Step::Fork, errno.into()))?;
    // SAFETY: the closure runs in the only thread of the forked child. It makes system calls on
    // values made before the fork and allocates nothing.
    unsafe { command.pre_exec(move || entry.perform(&write)) };
    command.spawn().map_err(|error| (last_step(&read), error))
}

/// The last step that the child announced. It wrote at most five bytes into an empty pipe, and
/// has ended by the time this is asked.
fn last_step(pipe: &OwnedFd) -> Step {
    let mut steps = [0; 8];
    let taken = rustix::io::read(pipe, &mut steps).unwrap_or(0);
    match steps.get(..taken).and_then(<[u8]>::last) {
        Some(1) => Step::Join,
        Some(2) => Step::Nice,
        Some(3) => Step::Become,
        Some(4) => Step::Directory,
        Some(5) => Step::Exec,
        _ => Step::Fork,
    }
}

impl Entry {
    fn perform(&self, steps: &OwnedFd) -> io::Result<()> {
        let at = |step: Step| rustix::io::write(steps, &[step as u8]).map(drop);
        at(Step::Join)?;
        if let Some(group) = &self.join {
            rustix::io::write(group.as_fd(), b"0")?;
        }
        rustix::process::setpgid(None, None)?;
        at(Step::Nice)?;
        if let Some(nice) = self.nice {
            rustix::process::setpriority_process(None, nice)?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.umask.into()));
        at(Step::Become)?;
        if let Some(user) = &self.user {
            user.perform()?;
        }
        at(Step::Directory)?;
        match rustix::process::chdir(self.cwd.as_c_str()) {
            Err(_) if self.or_root => rustix::process::chdir(c"/")?,
            done => done?,
        }
        default_signals();
        at(Step::Exec)?;
        Ok(())
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

/// A command starts with default dispositions; its mask is emptied by the standard library.
fn default_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: SIG_DFL installs no code; those that cannot be set refuse, which changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
