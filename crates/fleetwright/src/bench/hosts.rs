//! The simulated agents as the benchmark sees them: a process, and how it says it stands.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use fw_rt::Tasks;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;

use super::process;
use super::progress::Progress;
use super::swarm::Status;

/// All agents are linked within this, or something is wrong.
const LINKED_WITHIN: Duration = Duration::from_secs(300);

/// A process full of simulated agents.
#[derive(Debug)]
pub(crate) struct Hosts {
    count: u32,
    status: watch::Receiver<Status>,
    child: Child,
}

impl Hosts {
    /// Starts it: `count` agents that join with this string and dial at once.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(
        count: u32,
        join: &str,
        prefix: &str,
        dir: &Path,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let join_file = dir.join("join");
        std::fs::write(&join_file, join).context("write the join string")?;
        let args: [OsString; 8] = [
            "bench".into(),
            "swarm".into(),
            "--agents".into(),
            count.to_string().into(),
            "--prefix".into(),
            prefix.into(),
            "--join-file".into(),
            join_file.into(),
        ];
        let mut command = process::command(dir, &args)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("start the simulated agents")?;
        let out = child.stdout.take().context("the simulated agents have no stdout")?;
        let (told, status) = watch::channel(Status::default());
        tasks.spawn("swarm-status", listen(out, told));
        Ok(Self { count, status, child })
    }

    /// Waits until all are linked, and for such that `fits`; shows how many are.
    ///
    /// # Errors
    /// They are not, in minutes, or their process has ended.
    pub(crate) async fn all_linked(
        &mut self,
        progress: &Progress,
        fits: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let all = async {
            loop {
                let status = *self.status.borrow_and_update();
                progress.at(u64::from(status.linked), u64::from(self.count));
                if status.all_since.is_some() && fits(&status) {
                    return Ok(status);
                }
                if self.status.changed().await.is_err() {
                    let ended = self.child.wait().await.context("wait for the simulated agents")?;
                    bail!("the simulated agents have ended: {ended}");
                }
            }
        };
        let linked = tokio::time::timeout(LINKED_WITHIN, all).await;
        linked.unwrap_or_else(|_| {
            let status = *self.status.borrow();
            bail!(
                "after {} s only {} of {} agents are linked, {} were refused",
                LINKED_WITHIN.as_secs(),
                status.linked,
                self.count,
                status.refused
            )
        })
    }
}

async fn listen(out: ChildStdout, told: watch::Sender<Status>) {
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(status) = serde_json::from_str(&line) {
            told.send_replace(status);
        }
    }
}
