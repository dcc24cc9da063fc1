//! The agent's side of starting supervisors.
//!
//! On Linux they are forked by the fork server (see `fork_server.rs`), which is started with the
//! first one and again whenever it is found gone. Elsewhere a process that was forked and not
//! executed may not use all of the system's libraries, so each supervisor is executed.
//!
//! What is handed over, and when, makes it certain that a start is never made twice:
//!
//! 1. The supervisor's streams are sent, among them the reading end of a pipe for the spec.
//! 2. The answer says that it was forked. Only then is the spec written.
//! 3. Whoever dies before that (agent, fork server, supervisor), the last writing end of the pipe
//!    closes without a spec, and a supervisor without one ends without starting anything.
//!
//! So a request without an answer may be made again, with another pipe.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError, TryLockError};

#[cfg(not(target_os = "linux"))]
use by_exec::Running;
#[cfg(target_os = "linux")]
use by_fork::Running;

use super::SUBCOMMAND;

/// Starts the supervisors of one agent.
#[derive(Debug)]
pub(crate) struct Starter {
    how: How,
    running: Mutex<Running>,
}

/// How a process of ours is executed.
#[derive(Debug)]
struct How {
    /// The binary; it calls [`super::entry`].
    binary: PathBuf,
    /// The directory of all tasks, for people who see a fork server to know whose it is.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there is no fork server"))]
    spool: PathBuf,
}

impl Starter {
    pub(crate) fn new(binary: PathBuf, spool: PathBuf) -> Self {
        Self { how: How { binary, spool }, running: Mutex::default() }
    }

    /// Uses another binary from now on.
    pub(crate) fn execute(&mut self, binary: PathBuf) {
        self.how.binary = binary;
        self.running = Mutex::default();
    }

    /// Starts the supervisor of the task whose directory is `dir`. It has done nothing, and will do
    /// nothing before its spec, whole, is written into what this returns.
    ///
    /// # Errors
    /// There is no supervisor, or there is one that never gets a spec.
    pub(crate) fn start(&self, dir: &Path, control: &File, log: &File) -> io::Result<PipeWriter> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.start(&self.how, dir, control, log)
    }

    /// Collects what has ended, so that none stays a zombie. Never waits.
    pub(crate) fn reap(&self) {
        match self.running.try_lock() {
            Ok(mut running) => running.reap(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().reap(),
            // Something is being started; the next look will do.
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl How {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg0("fleetwright").arg(SUBCOMMAND).env_clear().current_dir("/");
        command.envs(std::env::var_os("LANG").map(|lang| ("LANG", lang)));
        command
    }
}

#[cfg(target_os = "linux")]
mod by_fork {
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::process::{Child, Stdio};
    use std::time::Duration;

    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use tracing::warn;

    use super::{File, How, Path, PipeWriter, io};
    use crate::supervise::fork_server;

    /// How often a supervisor is asked for: the fork server may have been killed since the last
    /// time, and the next one just now.
    const TRIES: usize = 3;

    /// A fork takes a fraction of a millisecond, on a host that swaps perhaps seconds. A server
    /// that takes longer was stopped; it is killed.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// The last argument of a fork server. It tells people what they see, and is room for what its
    /// copies are called: the name of a task takes the place of all arguments after the first.
    const WHAT_IT_IS: &str = "(forks a supervisor for each command that the agent starts)";

    /// The fork server, once there is one.
    #[derive(Debug, Default)]
    pub(super) struct Running(Option<Server>);

    impl Running {
        pub(super) fn start(
            &mut self,
            how: &How,
            dir: &Path,
            control: &File,
            log: &File,
        ) -> io::Result<PipeWriter> {
            let mut tries = 1;
            loop {
                let server = match &mut self.0 {
                    Some(server) => server,
                    none @ None => none.insert(Server::start(how)?),
                };
                match server.fork(dir, control, log) {
                    Ok(spec) => return Ok(spec),
                    Err(Failure::Refused(error)) => return Err(error),
                    Err(Failure::Gone(error)) => {
                        self.0 = None;
                        if tries == TRIES {
                            return Err(error);
                        }
                        warn!("the fork server is gone, another is started: {error}");
                        tries += 1;
                    }
                }
            }
        }

        pub(super) fn reap(&mut self) {
            if let Some(server) = &mut self.0
                && !matches!(server.process.try_wait(), Ok(None))
            {
                self.0 = None;
            }
        }
    }

    /// A fork server and the socket to it. It ends with this.
    #[derive(Debug)]
    struct Server {
        process: Child,
        socket: OwnedFd,
    }

    /// Why there is no supervisor.
    enum Failure {
        /// The system does not let one be made.
        Refused(io::Error),
        /// The fork server does not answer.
        Gone(io::Error),
    }

    impl Server {
        fn start(how: &How) -> io::Result<Self> {
            let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
            let (socket, theirs) = socketpair(family, SocketType::SEQPACKET, flags, None)?;
            for timeout in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
            }
            let mut command = how.command();
            command.arg(fork_server::OPTION).arg(&how.spool).arg(WHAT_IT_IS);
            // What goes wrong there is said where the agent says what goes wrong.
            command.stdin(theirs).stdout(Stdio::null());
            Ok(Self { process: command.spawn()?, socket })
        }

        fn fork(&self, dir: &Path, control: &File, log: &File) -> Result<PipeWriter, Failure> {
            // One for each try: the supervisor of a server that died before it answered must not
            // find the spec of the next.
            let (theirs, spec) = io::pipe().map_err(Failure::Refused)?;
            let streams = [theirs.as_fd(), control.as_fd(), log.as_fd()];
            fork_server::ask(&self.socket, dir, streams).map_err(Failure::Gone)?;
            // A supervisor that ends early is noticed when nobody else can read.
            drop(theirs);
            let answer = fork_server::hear(&self.socket).map_err(Failure::Gone)?;
            answer.map(|()| spec).map_err(Failure::Refused)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            // Nothing in it can be torn, and a stopped one would not notice its end otherwise.
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod by_exec {
    use std::os::fd::OwnedFd;
    use std::process::Child;

    use super::{File, How, Path, PipeWriter, io};

    /// The supervisors that are to be collected.
    #[derive(Debug, Default)]
    pub(super) struct Running(Vec<Child>);

    impl Running {
        pub(super) fn start(
            &mut self,
            how: &How,
            dir: &Path,
            control: &File,
            log: &File,
        ) -> io::Result<PipeWriter> {
            self.reap();
            let (theirs, spec) = io::pipe()?;
            let mut command = how.command();
            command.arg(dir).stdin(OwnedFd::from(theirs));
            command.stdout(control.try_clone()?).stderr(log.try_clone()?);
            self.0.push(command.spawn()?);
            Ok(spec)
        }

        pub(super) fn reap(&mut self) {
            self.0.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        }
    }
}
