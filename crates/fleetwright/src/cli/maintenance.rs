//! `fleetwright maintenance`: when runs are not to begin by themselves.

use fw_proto::api::NewMaintenance;
use fw_proto::{MaintenanceId, Span, Timestamp};

use super::{Refusal, Session};
use crate::exit::Code;
use crate::output::{self, Format};

/// What to do with maintenances.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Switch a maintenance on; what runs goes on, and you can still run things by hand.
    On(OnArgs),
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
    /// How long; until you switch it off when absent.
    #[arg(long = "for", value_name = "DUR", conflicts_with = "until")]
    lasts: Option<Span>,
    /// Until when, such as `2026-11-26T18:00:00Z`.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Form of the answer.
    #[arg(long, short = 'o', value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
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
        Verb::Off(args) => off(session, args).await,
        Verb::List(args) => {
            let maintenances = session.client.maintenances(args.all).await?;
            output::print(&output::list(&maintenances, args.output, session.now())?)?;
            Ok(Code::Success)
        }
    }
}

async fn on(session: &Session, args: OnArgs) -> anyhow::Result<Code> {
    let OnArgs { selector: hosts, everything, reason, message, lasts, until, output: format } =
        args;
    let new = NewMaintenance { hosts, everything, reason, message, lasts, until };
    let begun = session.client.begin_maintenance(&new).await?;
    let page = || output::maintenance_begun(&begun, session.now());
    output::print(&output::item(&begun, &begun.id.to_string(), format, page)?)?;
    Ok(Code::Success)
}

async fn off(session: &Session, args: OffArgs) -> anyhow::Result<Code> {
    let mut ids = args.ids;
    if args.everything {
        let on = session.client.maintenances(false).await?;
        ids.extend(on.iter().filter(|one| one.hosts.is_none()).map(|one| one.id));
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
