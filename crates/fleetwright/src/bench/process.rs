//! Processes that a benchmark starts: of this binary, in a directory of its own, ended with it.

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::machine;
use crate::client::{Client, Credential};

/// A server on embedded defaults is up well within this, whatever its store holds.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// An orderly end takes no longer.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at whether something is there: a millisecond is what times are counted in.
pub(crate) const LOOK: Duration = Duration::from_millis(2);

/// Begins a command of this binary that sees nothing of the caller's configuration.
///
/// # Errors
/// This binary cannot be found.
pub(crate) fn command(home: &Path, args: &[OsString]) -> anyhow::Result<Command> {
    let binary = std::env::current_exe().context("find this binary")?;
    let mut command = Command::new(binary);
    command.args(args).env_clear().env("HOME", home).current_dir(home).kill_on_drop(true);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null());
    Ok(command)
}

/// A server of the benchmark's own: a process, and its directory.
#[derive(Debug)]
pub(crate) struct Server {
    /// Ended before its files are removed: fields are dropped in this order.
    child: Option<Child>,
    dir: TempDir,
    listen: SocketAddr,
    /// Processor time of its former lives.
    spent: Duration,
    /// More arguments.
    more: Vec<OsString>,
}

impl Server {
    /// Makes a directory under `parent` and starts a server in it, with the defaults that everybody has.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn start(parent: &Path) -> anyhow::Result<Self> {
        Self::start_with(parent, |_| Ok(Vec::new())).await
    }

    /// Likewise, with more arguments, of what is prepared in its directory.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn start_with(
        parent: &Path,
        prepare: impl FnOnce(&Path) -> anyhow::Result<Vec<OsString>>,
    ) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix_in("fleetwright-bench-", parent);
        let dir = dir.with_context(|| {
            format!("make a directory in {}; choose another with --dir", parent.display())
        })?;
        let listen = free_address()?;
        let more = prepare(dir.path())?;
        let mut server = Self { child: None, dir, listen, spent: Duration::ZERO, more };
        server.spawn().await?;
        Ok(server)
    }

    /// Where files of the benchmark go.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// A client with the first admin's token.
    ///
    /// # Errors
    /// The token cannot be read.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let token = self.token()?;
        let url = self.url().parse().context("the server's own address")?;
        Ok(Client::new(url, Some(Credential::Token(token)), "bench".to_owned(), Vec::new())?)
    }

    /// The first admin's token.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let path = self.data_dir().join("admin.token");
        let token = crate::config::read_text(&path).context("read the first admin's token")?;
        Ok(token.trim().to_owned())
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Its resident memory.
    pub(crate) fn rss(&self) -> Option<u64> {
        self.pid().and_then(machine::rss)
    }

    /// Its processor time, former lives included.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.pid().and_then(machine::cpu_time).map(|now| self.spent + now)
    }

    /// Ends it as a restart does.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        self.spent = self.cpu_time().unwrap_or(self.spent);
        if let Some(mut child) = self.child.take() {
            let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            let pid = pid.context("the server has ended by itself")?;
            kill_process(pid, Signal::TERM).context("end the server")?;
            let ended = tokio::time::timeout(ENDS_WITHIN, child.wait()).await;
            ended.context("the server does not end")?.context("wait for the server")?;
        }
        Ok(())
    }

    /// Starts it, on what it has on disk.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .context("open the server's log")?;
        let data = self.data_dir();
        let mut args: Vec<OsString> = vec![
            "serve".into(),
            "--listen".into(),
            self.listen.to_string().into(),
            "--data-dir".into(),
            data.into(),
        ];
        args.extend(self.more.iter().cloned());
        let mut command = command(self.dir(), &args)?;
        command.stdout(log.try_clone().context("open the server's log")?).stderr(log);
        let child = self.child.insert(command.spawn().context("start the server")?);
        let http = reqwest::Client::builder().no_proxy().build().context("make a client")?;
        let ready = async {
            loop {
                if let Some(status) = child.try_wait().context("wait for the server")? {
                    bail!("the server ended at its start: {status}");
                }
                if is_ready(&http, self.listen).await {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let ready = tokio::time::timeout(STARTS_WITHIN, ready).await;
        let ready = ready.unwrap_or_else(|_| {
            bail!("the server is not ready after {} s", STARTS_WITHIN.as_secs())
        });
        ready.with_context(|| crate::config::read_text(&self.log()).unwrap_or_default())
    }
}

/// Whether a server there is ready.
async fn is_ready(http: &reqwest::Client, address: SocketAddr) -> bool {
    let answer = http.get(format!("http://{address}/readyz")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// An address of this machine that nobody listens on now.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    listener.local_addr().context("find a free port")
}
