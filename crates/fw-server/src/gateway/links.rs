//! The links there are: one a host, the newest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use fw_proto::frame::{Denied, DeniedReason, FromServer, Hello};
use fw_proto::{HostId, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Frames that may wait for one host. When it reads no more, its link is closed: it comes back
/// and is told anew.
pub(crate) const OUTBOX: usize = 1024;

/// How others reach a link.
#[derive(Debug, Clone)]
pub(crate) struct LinkHandle {
    /// Whose.
    pub(crate) host: HostId,
    /// Which of that host's links.
    pub(crate) id: u64,
    /// Frames to send. A channel makes room for 32 at once, so boxes keep an idle link small.
    pub(crate) outbox: mpsc::Sender<Box<FromServer>>,
    /// Ends the link once what waits in the outbox was sent.
    pub(crate) close: CancellationToken,
    /// How the host greeted.
    pub(crate) hello: Arc<Hello>,
    /// When it was last heard, milliseconds since the epoch.
    pub(crate) heard: Arc<AtomicI64>,
    /// The number of the last ping that it answered.
    pub(crate) ponged: Arc<AtomicU64>,
}

impl LinkHandle {
    /// When the host was last heard on this link.
    pub(crate) fn heard_at(&self) -> Timestamp {
        Timestamp::from_millis(self.heard.load(Ordering::Relaxed))
    }
}

/// The links of a server.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_host: BTreeMap<HostId, LinkHandle>,
}

impl Links {
    /// The link of a host.
    pub(crate) fn get(&self, host: HostId) -> Option<&LinkHandle> {
        self.by_host.get(&host)
    }

    /// When each host was last heard.
    pub(crate) fn heard(&self) -> Vec<(HostId, Timestamp)> {
        self.by_host.values().map(|link| (link.host, link.heard_at())).collect()
    }

    /// Puts a newer link in the place of an older one; whether there was one.
    pub(crate) fn insert(&mut self, link: LinkHandle) -> bool {
        let older = self.by_host.insert(link.host, link);
        if let Some(older) = &older {
            refuse(older, DeniedReason::Superseded, "a newer link of this host took over");
        }
        older.is_some()
    }

    /// A link has ended; whether it was the one that counts.
    pub(crate) fn remove(&mut self, host: HostId, id: u64) -> bool {
        let counts = self.by_host.get(&host).is_some_and(|link| link.id == id);
        if counts {
            self.by_host.remove(&host);
        }
        counts
    }

    /// Sends a frame to a host, if it is linked.
    pub(crate) fn send(&mut self, host: HostId, frame: FromServer) {
        let Some(link) = self.by_host.get(&host) else { return };
        if link.outbox.try_send(Box::new(frame)).is_err() {
            warn!(host.id = %host, "host does not read its link; closing it");
            link.close.cancel();
        }
    }

    /// Sends a frame to all; how many there are.
    pub(crate) fn send_all(&mut self, frame: &FromServer) -> u64 {
        let hosts: Vec<_> = self.by_host.keys().copied().collect();
        hosts.iter().for_each(|host| self.send(*host, frame.clone()));
        hosts.len() as u64
    }

    /// Closes a host's link and says why.
    pub(crate) fn deny(&mut self, host: HostId, why: DeniedReason) {
        if let Some(link) = self.by_host.remove(&host) {
            refuse(&link, why, denial(why));
        }
    }

    /// Closes all links; the agents come back by themselves.
    pub(crate) fn close_all(&mut self) {
        self.by_host.values().for_each(|link| link.close.cancel());
        self.by_host.clear();
    }
}

fn refuse(link: &LinkHandle, reason: DeniedReason, message: &str) {
    let denied =
        FromServer::Denied(Denied { reason, message: message.to_owned(), retry_after: None });
    // A full outbox means that the host reads nothing: closing is all that is left.
    drop(link.outbox.try_send(Box::new(denied)));
    link.close.cancel();
}

/// What to tell the people who look after a host that is refused.
pub(crate) fn denial(why: DeniedReason) -> &'static str {
    match why {
        DeniedReason::UnknownKey => {
            "this server does not know the host's key: enrol it with `fleetwright agent join`"
        }
        DeniedReason::Revoked => {
            "the host was revoked: to let it in again, remove it on the server and enrol it anew"
        }
        DeniedReason::Duplicate => {
            "two machines use this host's key, as after cloning a disk: delete the state directory on both, remove the host on the server, and enrol each"
        }
        DeniedReason::Invitation => {
            "the join string is wrong, used up or expired: make a new one with `fleetwright hosts invite`"
        }
        DeniedReason::NameTaken => {
            "another host has this name: join with --name, or remove or rename the other one"
        }
        DeniedReason::NameInvalid => "this cannot be a host's name: join with --name",
        DeniedReason::Protocol => {
            "agent and server have no protocol version in common: upgrade the older of the two"
        }
        DeniedReason::Busy => "the server is admitting many hosts: the agent tries again by itself",
        DeniedReason::Superseded => "a newer link of this host took over",
        DeniedReason::Malformed => "the agent broke the protocol",
    }
}
