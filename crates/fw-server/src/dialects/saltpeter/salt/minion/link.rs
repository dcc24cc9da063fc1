//! The link of a minion to the hub, inside this process.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, OnceLock};

use fw_proto::Epoch;
use fw_proto::frame::{Denied, FromServer, Hello, PolicyMode, Report};
use fw_store::{Changed, Standing};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Minion, Stop};
use crate::gateway::link;
use crate::gateway::links::{LinkHandle, OUTBOX};

/// The in-process link to the hub.
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) frames: mpsc::Receiver<Box<FromServer>>,
    pub(super) close: CancellationToken,
    pub(super) heard: Arc<AtomicI64>,
    pub(super) ponged: Arc<AtomicU64>,
    denied: Arc<OnceLock<Denied>>,
}

impl Link {
    /// Whether the hub will not have the host any more: it was revoked, or removed.
    pub(super) fn is_sent_away(&self) -> bool {
        self.denied.get().is_some()
    }

    /// The next frame; `None` when the hub has closed the link.
    pub(super) async fn next(&mut self) -> Option<Box<FromServer>> {
        tokio::select! {
            biased;
            () = self.close.cancelled() => None,
            frame = self.frames.recv() => frame,
        }
    }
}

impl Minion {
    /// Links to the hub: the host is online, and these are the tasks that it knows.
    pub(super) async fn link(&mut self) -> Result<(), Stop> {
        let app = &self.shared.app;
        match app.store.host(self.host).map(|row| row.standing) {
            Some(Standing::Active) => {}
            Some(Standing::Revoked | Standing::Duplicate) => return Ok(()),
            None => return Err(Stop::Retired),
        }
        let (outbox, frames) = mpsc::channel(OUTBOX);
        let now = app.clock.now();
        let link = Link {
            id: link::next_id(),
            frames,
            // The hub alone closes it. A token of the server's tasks would close it again and again while it stops.
            close: CancellationToken::new(),
            heard: Arc::new(AtomicI64::new(now.as_millis())),
            ponged: Arc::new(AtomicU64::new(0)),
            denied: Arc::default(),
        };
        let greeted =
            app.store.greeted(self.host, self.version.to_string(), PolicyMode::Operate, now).await;
        match greeted {
            Ok(Changed::Done | Changed::Taken) => {}
            Ok(Changed::Unknown) => return Err(Stop::Retired),
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "a minion's link was not noted");
            }
        }
        let handle = LinkHandle {
            host: self.host,
            id: link.id,
            outbox,
            close: link.close.clone(),
            denied: Arc::clone(&link.denied),
            hello: Arc::new(hello(&self.version)),
            heard: Arc::clone(&link.heard),
            ponged: Arc::clone(&link.ponged),
        };
        let open = self.tasks.values().filter(|task| task.until.is_none());
        let digest = open.map(|task| Report { key: task.key, state: task.said.clone() }).collect();
        self.link = Some(link);
        Ok(app.hub.linked(handle, digest).await?)
    }

    pub(super) async fn unlink(&mut self) {
        let Some(link) = self.link.take() else { return };
        let app = &self.shared.app;
        if app.hub.unlinked(self.host, link.id).await
            && let Err(error) = app.store.gone(vec![(self.host, app.clock.now())]).await
        {
            debug!(error = &error as &dyn std::error::Error, "a minion's going was not noted");
        }
    }
}

fn hello(version: &str) -> Hello {
    let same = "salt".to_owned();
    Hello {
        agent_version: version.to_owned(),
        protocol: (1, 1),
        machine_id: same.clone(),
        boot_id: same.clone(),
        tasks: Vec::new(),
        policy: PolicyMode::Operate,
        epoch: Epoch(0),
        instance: same,
    }
}
