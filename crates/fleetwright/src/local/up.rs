//! Both at once, for the first minute: a server, and an agent for this machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;
use fw_agent::Options;
use fw_agent::identity::{Identity, StateDir};
use fw_core::job::EXAMPLE;
use fw_proto::{HostName, Join};
use fw_rt::{Clock, Tasks};
use fw_server::Running;
use tracing::info;

use super::{agent, server, told_to_stop};
use crate::config::{Loaded, Origin};

/// The example's name in the job directory.
const EXAMPLE_FILE: &str = "example.yaml";

/// Runs both until told to stop.
pub(crate) fn up(mut loaded: Loaded, name: Option<HostName>) -> anyhow::Result<()> {
    let data_dir = loaded.config.server.data_dir.clone();
    if matches!(loaded.origin("agent.state_dir"), Origin::Default) {
        loaded.config.agent.state_dir = data_dir.join("agent");
    }
    let own_jobs = loaded.config.server.jobs.is_none();
    if own_jobs {
        let jobs = data_dir.join("jobs");
        write_example(&jobs)?;
        loaded.config.server.jobs = Some(jobs);
    }
    loaded.config.server.check()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&loaded, name))
}

async fn run(loaded: &Loaded, name: Option<HostName>) -> anyhow::Result<()> {
    let config = &loaded.config;
    let running = server::start(config).await?;
    let options = agent::options(&config.agent, &running.local_url())?;
    match agent::identity(&config.agent)? {
        None => enrol(&running, name, &options).await?,
        Some(identity) => find_again(&running, identity, &config.agent.state_dir)?,
    }
    welcome(&running, &config.server.data_dir, config.server.jobs.as_deref())?;
    let tasks = Tasks::new();
    let ended = tokio::select! {
        ended = fw_agent::run(options, Clock::system(), &tasks) => ended.map_err(anyhow::Error::from),
        stop = told_to_stop() => stop.map_err(anyhow::Error::from).map(|why| info!("{why}: stopping; commands that run go on")),
    };
    tasks.shutdown(std::time::Duration::from_secs(2)).await;
    running.stop().await;
    ended
}

/// Enrols this machine.
async fn enrol(running: &Running, name: Option<HostName>, options: &Options) -> anyhow::Result<()> {
    let join: Join = running.invite_local().await?.parse()?;
    let joined = fw_agent::join(&join, &agent::name_or_own(name)?, options, &Clock::system()).await;
    joined.map(drop).context("enrol this machine")
}

/// Tells our agent where the server listens this time: `--listen` may have changed. An agent
/// that knows none of our keys belongs to another fleet and stays there.
fn find_again(running: &Running, mut identity: Identity, state_dir: &Path) -> anyhow::Result<()> {
    let keys = running.app.keys.public();
    let url = running.local_url();
    if identity.server != url && identity.server_keys.iter().any(|key| keys.contains(key)) {
        identity.server = url;
        StateDir::open(state_dir)?.set_identity(&identity)?;
    }
    Ok(())
}

/// What a person needs to know in the first minute.
fn welcome(running: &Running, data_dir: &Path, jobs: Option<&Path>) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "Fleetwright listens on {}", running.url)?;
    if let Some(token) = &running.first_token {
        writeln!(out, "First admin token:      {token}")?;
        writeln!(
            out,
            "                        shown this once; kept in {}",
            data_dir.join("admin.token").display()
        )?;
    }
    if let Some(link) = &running.set_up_link {
        writeln!(out, "Open once, to sign in:  {link}")?;
    }
    if let Some(jobs) = jobs {
        writeln!(out, "Job files:              {}", jobs.display())?;
    }
    writeln!(out, "Try in another terminal, from this directory:")?;
    writeln!(out, "  fleetwright hosts list")?;
    writeln!(out, "  fleetwright run '*' -- uptime")?;
    out.flush()?;
    Ok(())
}

/// Makes the job directory and an example in it, once.
fn write_example(jobs: &Path) -> anyhow::Result<()> {
    if jobs.exists() {
        return Ok(());
    }
    // What is in it runs on the hosts: nobody else may write there, whatever the umask.
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(jobs);
    made.with_context(|| format!("make {}", jobs.display()))?;
    let path = jobs.join(EXAMPLE_FILE);
    fs::write(&path, EXAMPLE).with_context(|| format!("write {}", path.display()))
}
