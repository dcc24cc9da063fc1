//! One long-lived process of a fleet: a server or an agent, and its log.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// An orderly end takes no longer, also on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// A process that can be killed, told to end, and started again with the same arguments.
#[derive(Debug)]
pub struct Process {
    /// Program and arguments.
    command: Vec<OsString>,
    /// Everything that it writes, of all its lives.
    log: PathBuf,
    home: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub(super) fn new(command: Vec<OsString>, log: PathBuf, home: PathBuf) -> Self {
        Self { command, log, home, child: None }
    }

    /// What a command line of the fleet may see of the outer world: nothing but programs.
    pub(super) fn prepare(command: &[OsString], home: &Path) -> Command {
        let (program, arguments) = command.split_first().expect("a command has a program");
        let mut prepared = Command::new(program);
        prepared.args(arguments).env_clear().current_dir(home).kill_on_drop(true);
        prepared.env("HOME", home);
        prepared.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        prepared
    }

    /// Starts it; says how much its log held before.
    pub(super) fn spawn(&mut self) -> usize {
        assert!(self.child.is_none(), "{:?} runs already", self.command);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let before = self.log().len();
        let mut command = Self::prepare(&self.command, &self.home);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.child = Some(command.spawn().expect("the program starts"));
        before
    }

    /// What it has written since it was first started.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("a child can be waited for"))
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub async fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("a child can be killed");
    }

    /// Asks it to end, and waits until it has.
    pub async fn term(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.expect("it runs"), Signal::TERM).expect("a child can be signalled");
        let ended = tokio::time::timeout(ENDS_WITHIN, child.wait()).await;
        ended.expect("it ends in time").expect("a child can be waited for")
    }
}
