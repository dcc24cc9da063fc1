//! An agent on this machine.

use std::path::absolute;
use std::time::Duration;

use anyhow::Context as _;
use fw_agent::identity::{Identity, StateDir};
use fw_agent::journal::Lock;
use fw_agent::status::Status;
use fw_agent::{Error, Options};
use fw_proto::{HostName, Join};
use fw_rt::noise::Keypair;
use fw_rt::{Backoff, Clock, Tasks};
use tracing::{info, warn};

use super::proxy::proxy;
use super::told_to_stop;
use crate::config::{AgentConfig, environment};

/// The agent's own tasks end at their next await.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Runs an agent until it is told to stop. A host that has not joined joins first, with the join
/// string of the configuration.
pub(crate) fn run(config: &AgentConfig, name: Option<HostName>) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let tasks = Tasks::new();
        let known = match (identity(config)?, &config.join) {
            (None, Some(join)) => {
                let (join, name): (Join, _) = (join.0.parse()?, name_or_own(name)?);
                let options = options(config, &join.url)?;
                tokio::select! {
                    joined = join_until_answered(&join, &name, &options) => Some(joined?),
                    stop = told_to_stop() => { stop?; return Ok(()) }
                }
            }
            (known, _) => known,
        };
        let options = options(config, &known.ok_or(Error::NotJoined)?.server)?;
        tokio::select! {
            ended = fw_agent::run(options, Clock::system(), &tasks) => ended?,
            stop = told_to_stop() => info!("{}: stopping; commands that run go on", stop?),
        }
        tasks.shutdown(ENDS_WITHIN).await;
        Ok(())
    })
}

/// Enrols this host.
pub(crate) fn join(
    join: &Join,
    name: Option<HostName>,
    config: &AgentConfig,
) -> anyhow::Result<Identity> {
    if let Some(identity) = identity(config)? {
        anyhow::bail!(
            "this host has joined {} as {} already; to join anew, stop the agent and remove {}",
            identity.server,
            identity.name,
            config.state_dir.display()
        );
    }
    let (name, options) = (name_or_own(name)?, options(config, &join.url)?);
    runtime()?
        .block_on(async { Ok(fw_agent::join(join, &name, &options, &Clock::system()).await?) })
}

/// Makes a key for the agent to take up. One that waits already is kept: the server may know it.
pub(crate) fn rotate_key(config: &AgentConfig) -> anyhow::Result<()> {
    anyhow::ensure!(identity(config)?.is_some(), "this host has not joined a fleet");
    let state_dir = StateDir::open(&config.state_dir)?;
    if state_dir.next_key()?.is_none() {
        state_dir.set_next_key(&Keypair::generate()?.private)?;
    }
    Ok(())
}

/// What the agent of this configuration last said of itself.
pub(crate) fn status(config: &AgentConfig) -> anyhow::Result<Option<Status>> {
    Status::read(&config.state_dir).context("read the agent's status")
}

/// Whether the agent of this configuration runs now: it holds the lock of its state directory. The
/// question takes that lock for a moment, if nobody has it.
pub(crate) fn runs(config: &AgentConfig) -> anyhow::Result<bool> {
    if !config.state_dir.is_dir() {
        return Ok(false);
    }
    match Lock::take(&config.state_dir) {
        Ok(_) => Ok(false),
        Err(fw_agent::journal::Error::Locked(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Who the agent of this configuration is; `None` before it has joined. Asking makes no directory.
pub(crate) fn identity(config: &AgentConfig) -> anyhow::Result<Option<Identity>> {
    if !config.state_dir.is_dir() {
        return Ok(None);
    }
    Ok(StateDir::open(&config.state_dir)?.identity()?)
}

/// One thread is enough, and the smallest.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    fw_agent::supervise::keep_little_memory();
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A machine that boots before its server should not need a second try by hand.
async fn join_until_answered(
    join: &Join,
    name: &HostName,
    options: &Options,
) -> Result<Identity, Error> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        match fw_agent::join(join, name, options, &Clock::system()).await {
            Err(Error::Connect(error)) => {
                warn!("cannot join yet: {:#}", anyhow::Error::from(error));
                tokio::time::sleep(backoff.next_wait()).await;
            }
            Err(Error::Busy { retry_after }) => {
                warn!("the server is busy letting hosts in; trying again in {retry_after}");
                tokio::time::sleep(retry_after.duration()).await;
            }
            joined => return joined,
        }
    }
}

/// The agent's part of the configuration, as the agent of this server takes it.
pub(super) fn options(config: &AgentConfig, server: &str) -> anyhow::Result<Options> {
    let default_policy = config.policy == std::path::Path::new(fw_agent::policy::DEFAULT_PATH);
    Ok(Options {
        state_dir: config.state_dir.clone(),
        // Executable facts are started in another directory.
        facts_dir: Some(absolute(&config.facts_dir).unwrap_or_else(|_| config.facts_dir.clone())),
        policy: (!default_policy).then(|| config.policy.clone()),
        max_tasks: usize::try_from(config.max_tasks.get()).unwrap_or(usize::MAX),
        spool_bytes: config.spool_bytes.0.0,
        proxy: proxy(&config.proxy, &environment(), server)?,
        supervisor: None,
    })
}

/// The name given, or that of this machine, without what no host name may have.
pub(super) fn name_or_own(name: Option<HostName>) -> anyhow::Result<HostName> {
    if let Some(name) = name {
        return Ok(name);
    }
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fits =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    let name: String = own.chars().map(fits).collect();
    name.parse().with_context(|| format!("this machine is called {own:?}: give --name"))
}
