//! `fleetwright run`: a command on hosts, now.

use std::collections::BTreeMap;

use fw_proto::Span;
use fw_proto::api::{Arm, Command, EnvValue, NewRun, Offline, OnFull};

use super::begin::Waiting;
use super::{Refusal, Session, parse};
use crate::exit::Code;

/// Run a command on hosts.
///
/// SELECTOR names hosts: a glob (`web*`), a list (`web1,web2`), a fact (`os:Ubuntu`), a label
/// (`label:stage=prod`), and these joined by `and`, `or`, `not` and parentheses.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "fleetwright run [OPTIONS] <SELECTOR> -- <CMD>...\n       fleetwright run [OPTIONS] <SELECTOR> --shell <TEXT>"
)]
#[command(group = clap::ArgGroup::new("what").args(["shell", "argv"]).required(true))]
pub(crate) struct Args {
    /// Which hosts.
    selector: String,
    /// Program and arguments, after `--`; no shell reads them.
    #[arg(last = true, value_name = "CMD")]
    argv: Vec<String>,
    /// Text for `/bin/sh -c`, in place of CMD.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    shell: Option<String>,
    /// User on the hosts; the agent's own when absent.
    #[arg(long)]
    user: Option<String>,
    /// Directory to run in; the user's home when absent.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Add to the environment.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::pair)]
    env: Vec<(String, String)>,
    /// Add a secret of the server to the environment.
    #[arg(long, value_name = "NAME=SECRET", value_parser = parse::pair)]
    secret: Vec<(String, String)>,
    /// End the command after so long; 0 for never.
    #[arg(long, value_name = "DUR")]
    timeout: Option<Span>,
    /// From TERM to KILL when it is ended; 10s when absent.
    #[arg(long, value_name = "DUR")]
    kill_after: Option<Span>,
    /// Do not start it later than so long from now; 60s when absent.
    #[arg(long, value_name = "DUR")]
    start_within: Option<Span>,
    /// What to do about hosts that are offline: wait=DUR, fail or skip; they are waited for as long
    /// as --start-within when absent.
    #[arg(long, value_name = "WHAT", value_parser = parse::offline)]
    offline: Option<Offline>,
    /// At most so many hosts at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    parallel: Option<u32>,
    /// Begin no further hosts once so many have failed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_failures: Option<u32>,
    /// Let hosts begin one after the other over this time, evenly, instead of all at once.
    #[arg(long, value_name = "DUR")]
    spread: Option<Span>,
    /// When output comes faster than it can be shipped: let the command wait, or drop output.
    #[arg(long, value_name = "WHAT", value_enum, default_value = "block")]
    on_full: WhenFull,
    /// Niceness.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i8).range(-20..=19))]
    nice: Option<i8>,
    /// File mode creation mask, in octal.
    #[arg(long, value_name = "MASK", value_parser = parse::umask)]
    umask: Option<u16>,
    /// The command is a change, and each host undoes it by itself with --undo unless it is confirmed within
    /// this time of its end: by the server, which says so while it is linked, and by --probe.
    #[arg(long, value_name = "DUR", requires = "undo")]
    armed: Option<Span>,
    /// Text for `/bin/sh -c` that undoes the change, also a half-made one, and also twice.
    #[arg(long, value_name = "CMD", requires = "armed", allow_hyphen_values = true)]
    undo: Option<String>,
    /// Text for `/bin/sh -c` that proves on the host that the change is good: tried until it exits with 0 or
    /// the time is over.
    #[arg(long, value_name = "CMD", requires = "armed", allow_hyphen_values = true)]
    probe: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WhenFull {
    Block,
    Drop,
}

/// Begins the run and does what the flags say with it.
pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Code> {
    args.waiting.check()?;
    let waiting = args.waiting.clone();
    let created = session.client.begin(&request(args)?).await?;
    waiting.go_on(session, created).await
}

fn request(args: Args) -> anyhow::Result<NewRun> {
    let command = match args.shell {
        Some(text) => Command::Shell(text),
        None => Command::Argv(args.argv),
    };
    let arm = |(within, undo)| Arm {
        undo: Command::Shell(undo),
        within,
        probe: args.probe.map(Command::Shell),
    };
    Ok(NewRun {
        hosts: args.selector,
        command,
        user: args.user,
        cwd: args.cwd,
        env: environment(args.env, args.secret)?,
        timeout: args.timeout,
        kill_after: args.kill_after,
        start_within: args.start_within,
        offline: args.offline,
        parallel: args.parallel,
        max_failures: args.max_failures,
        spread: args.spread,
        on_full: match args.on_full {
            WhenFull::Block => OnFull::Block,
            WhenFull::Drop => OnFull::Drop,
        },
        nice: args.nice,
        umask: args.umask,
        armed: args.armed.zip(args.undo).map(arm),
    })
}

fn environment(
    plain: Vec<(String, String)>,
    secret: Vec<(String, String)>,
) -> anyhow::Result<BTreeMap<String, EnvValue>> {
    let plain = plain.into_iter().map(|(key, value)| (key, EnvValue::Value(value)));
    let secret = secret.into_iter().map(|(key, name)| (key, EnvValue::Secret(name)));
    let mut env = BTreeMap::new();
    for (key, value) in plain.chain(secret) {
        if env.insert(key.clone(), value).is_some() {
            return Err(Refusal::usage(format!("{key} is given twice; keep one of them")));
        }
    }
    Ok(env)
}
