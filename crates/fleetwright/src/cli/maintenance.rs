//! `fleetwright maintenance`: when runs are not to begin by themselves.

use std::time::Duration;

use fw_proto::api::{Maintenance, NewMaintenance};
use fw_proto::{MaintenanceId, Span, Timestamp};

use super::{Refusal, Session};
use crate::exit::Code;
use crate::output::{self, Format};
use crate::{client, watch};

/// Who drains hosts hears this soon that they are free, and the server is asked this often.
const LOOK: Duration = Duration::from_millis(500);

/// What to do with maintenances.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Switch a maintenance on; what runs goes on, and you can still run things by hand.
    On(OnArgs),
    /// Wait until nothing runs any more on the hosts of a maintenance, as `on --drain` does.
    Wait(WaitArgs),
    /// Switch maintenances off.
    Off(OffArgs),
    /// List maintenances.
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OnArgs {
    /// The hosts that it covers, such as `db1` or `label:rack=7`; also those that come later.
    #[arg(required_unless_present = "everything")]
    selector: Option<String>,
    /// Cover everything: no job fires.
    #[arg(long, conflicts_with = "selector")]
    everything: bool,
    /// Why.
    #[arg(long)]
    reason: String,
    /// What people are to know.
    #[arg(long)]
    message: Option<String>,
    /// How long; until you switch it off when absent. With --every: how long each window lasts.
    #[arg(long = "for", value_name = "DUR", conflicts_with = "until")]
    lasts: Option<Span>,
    /// Until when, such as `2026-11-26T18:00:00Z`.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Let it recur: when its windows begin, as a job's schedule, such as `0 2 * * sun`. It ends when you switch it off.
    #[arg(long, value_name = "SCHEDULE", requires = "lasts")]
    every: Option<String>,
    /// Time zone of --every, such as `Europe/Athens` [default: UTC].
    #[arg(long, value_name = "TZ", requires = "every")]
    timezone: Option<String>,
    /// End what runs on the hosts that it covers, as `runs cancel` does.
    #[arg(long, conflicts_with = "every")]
    stop_running: bool,
    /// Wait until nothing runs there any more: exits with 0 then, and with 7 when --timeout is over first.
    #[arg(long, conflicts_with = "every")]
    drain: bool,
    /// Wait at most so long; the maintenance stays on.
    #[arg(long, value_name = "DUR", requires = "drain")]
    timeout: Option<Span>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Its id, as `maintenance list` shows it.
    id: MaintenanceId,
    /// Wait at most so long; exits with 7 then.
    #[arg(long, value_name = "DUR")]
    timeout: Option<Span>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OffArgs {
    /// Their ids, as `maintenance list` shows them.
    #[arg(required_unless_present = "everything", value_name = "ID")]
    ids: Vec<MaintenanceId>,
    /// Those of everything; those of some hosts stay on.
    #[arg(long, conflicts_with = "ids")]
    everything: bool,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Those that are over, too.
    #[arg(long)]
    all: bool,
    /// Form of the list.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Does it.
pub(crate) async fn run(session: &Session, verb: Verb) -> anyhow::Result<Code> {
    match verb {
        Verb::On(args) => on(session, args).await,
        Verb::Wait(args) => drain(session, args.id, args.timeout).await,
        Verb::Off(args) => off(session, args).await,
        Verb::List(args) => {
            let maintenances = session.client.maintenances(args.all).await?;
            output::print(&output::list(&maintenances, args.output, session.now())?)?;
            Ok(Code::Success)
        }
    }
}

async fn on(session: &Session, args: OnArgs) -> anyhow::Result<Code> {
    let OnArgs { drain: drains, timeout, output: format, .. } = args;
    let new = NewMaintenance {
        hosts: args.selector,
        everything: args.everything,
        reason: args.reason,
        message: args.message,
        lasts: args.lasts,
        until: args.until,
        every: args.every,
        timezone: args.timezone,
        stop_running: args.stop_running,
    };
    let begun = session.client.begin_maintenance(&new).await?;
    let page = || output::maintenance_begun(&begun, session.now());
    output::print(&output::item(&begun, &begun.id.to_string(), format, page)?)?;
    if drains { drain(session, begun.id, timeout).await } else { Ok(Code::Success) }
}

/// Waits until nothing runs any more on the hosts of a maintenance.
async fn drain(
    session: &Session,
    id: MaintenanceId,
    timeout: Option<Span>,
) -> anyhow::Result<Code> {
    let again =
        format!("maintenance {id} stays on; wait again with `fleetwright maintenance wait {id}`");
    tokio::select! {
        code = drained(session, id) => code,
        () = watch::over(timeout) => {
            output::say(&format!("the time is over; {again}"));
            Ok(Code::TimedOut)
        }
        () = watch::interrupted(&session.tasks) => {
            output::say(&format!("\n{again}"));
            Ok(Code::Interrupted)
        }
    }
}

async fn drained(session: &Session, id: MaintenanceId) -> anyhow::Result<Code> {
    let mut said = String::new();
    loop {
        match session.client.maintenance(id).await {
            Ok(Maintenance { running: Some(running), .. }) if running.tasks > 0 => {
                tell(&mut said, output::maintenance_waits(&running));
            }
            Ok(Maintenance { running: Some(_), .. }) => {
                output::say(&format!("nothing runs there any more; maintenance {id} is on"));
                return Ok(Code::Success);
            }
            Ok(Maintenance { running: None, .. }) => {
                let why = format!("maintenance {id} is not in force, so nothing keeps runs away");
                return Err(Refusal::conflict(why));
            }
            // A server that restarts is back soon.
            Err(client::Error::Unreachable { .. } | client::Error::Silent { .. }) => {
                tell(&mut said, "the server does not answer; trying again".to_owned());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Says what is new.
fn tell(said: &mut String, now: String) {
    if *said != now {
        output::say(&now);
        *said = now;
    }
}

async fn off(session: &Session, args: OffArgs) -> anyhow::Result<Code> {
    let mut ids = args.ids;
    if args.everything {
        let on = session.client.maintenances(false).await?;
        ids.extend(
            on.iter().filter(|one| one.hosts.is_none() && one.source.is_none()).map(|one| one.id),
        );
    }
    if ids.is_empty() {
        return Err(Refusal::not_found(
            "there is no maintenance of everything; `fleetwright maintenance list` shows what is on",
        ));
    }
    for id in ids {
        let ended = session.client.end_maintenance(id).await?;
        let page = || format!("maintenance {id} is off\n");
        output::print(&output::item(&ended, &id.to_string(), args.output, page)?)?;
    }
    Ok(Code::Success)
}
