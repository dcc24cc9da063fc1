//! What hosts say of runs that have ended: noted beside the hub's loop, which it must not hold up.

use fw_core::hub::late_note;
use fw_proto::HostId;
use fw_proto::frame::Report;
use fw_rt::Tasks;
use fw_store::Store;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Handle, Message};

/// Late reports that may wait. What does not fit is told again on the host's next link.
const WAITING: usize = 4096;

/// Takes late reports.
#[derive(Debug, Clone)]
pub(super) struct Late {
    inbox: mpsc::Sender<(HostId, Report)>,
}

impl Late {
    /// Starts to note late reports; says to the hub which are noted.
    pub(super) fn start(store: Store, hub: Handle, tasks: &Tasks) -> Self {
        let (inbox, mut reports) = mpsc::channel::<(HostId, Report)>(WAITING);
        tasks.spawn("late-reports", async move {
            while let Some((host, report)) = reports.recv().await {
                let key = report.key;
                match note(&store, host, &report).await {
                    Ok(()) => drop(hub.tell(Message::Noted(host, report)).await),
                    Err(error) => {
                        warn!(run.id = %key.run, host.id = %host, error = &error as &dyn std::error::Error, "late report was not noted; the host will tell it again");
                    }
                }
            }
        });
        Self { inbox }
    }

    /// Notes a last word.
    pub(super) fn note(&self, host: HostId, report: Report) {
        if self.inbox.try_send((host, report)).is_err() {
            debug!(host.id = %host, "too many late reports; the host will tell this one again");
        }
    }
}

async fn note(store: &Store, host: HostId, report: &Report) -> Result<(), fw_store::Error> {
    let run = report.key.run;
    let Some(task) = store.task(run, host).await? else {
        debug!(run.id = %run, host.id = %host, "a host reported on a run that this store does not know");
        return Ok(());
    };
    match late_note(&task, &report.state) {
        Some(note) => store.note_late(run, host, note).await.map(drop),
        None => Ok(()),
    }
}
