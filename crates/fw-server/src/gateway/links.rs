//! The links there are: one a host, the newest.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use fw_core::hub::links;
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
    /// Tells links apart, and which is newer: a later one is higher.
    pub(crate) id: u64,
    /// Frames to send. A channel makes room for 32 at once, so boxes keep an idle link small.
    pub(crate) outbox: mpsc::Sender<Box<FromServer>>,
    /// Ends the link. What waits in the outbox is not sent any more: a host that reads slowly
    /// would be served after its revocation.
    pub(crate) close: CancellationToken,
    /// Why the host is sent away, when it is: that is still said.
    pub(crate) denied: Arc<OnceLock<Denied>>,
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
    by_host: links::Links<LinkHandle>,
}

/// What became of a new link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The host had none.
    First,
    /// The older one is closed.
    Instead,
    /// The host was sent away meanwhile or has a newer link, and this one is closed.
    Refused,
}

impl Links {
    /// The link of a host.
    pub(crate) fn get(&self, host: HostId) -> Option<&LinkHandle> {
        self.by_host.get(host)
    }

    /// When each host was last heard.
    pub(crate) fn heard(&self) -> Vec<(HostId, Timestamp)> {
        self.by_host.iter().map(|(host, link)| (host, link.heard_at())).collect()
    }

    /// Puts a newer link in the place of an older one.
    pub(crate) fn insert(&mut self, link: LinkHandle) -> Came {
        match self.by_host.insert(link.host, link.id, link) {
            links::Came::First => Came::First,
            links::Came::Instead(older) => {
                let why = DeniedReason::Superseded;
                refuse(&older, why, denial(why));
                Came::Instead
            }
            links::Came::Refused(link, why) => {
                refuse(&link, why, denial(why));
                Came::Refused
            }
        }
    }

    /// A link has ended; whether it was the one that counts.
    pub(crate) fn remove(&mut self, host: HostId, id: u64) -> bool {
        self.by_host.remove(host, |link| link.id == id)
    }

    /// Sends a frame to a host, if it is linked.
    pub(crate) fn send(&mut self, host: HostId, frame: FromServer) {
        let Some(link) = self.by_host.get(host) else { return };
        if link.outbox.try_send(Box::new(frame)).is_err() {
            warn!(host.id = %host, "host does not read its link; closing it");
            link.close.cancel();
        }
    }

    /// Sends a frame to all; how many there are.
    pub(crate) fn send_all(&mut self, frame: &FromServer) -> u64 {
        let hosts: Vec<_> = self.by_host.iter().map(|(host, _)| host).collect();
        hosts.iter().for_each(|host| self.send(*host, frame.clone()));
        hosts.len() as u64
    }

    /// Sends a host away for good, and says why.
    pub(crate) fn deny(&mut self, host: HostId, why: DeniedReason) {
        if let Some(link) = self.by_host.send_away(host, why) {
            refuse(&link, why, denial(why));
        }
    }

    /// Closes all links; the agents come back by themselves.
    pub(crate) fn close_all(&mut self) {
        self.by_host.take_all().for_each(|link| link.close.cancel());
    }
}

fn refuse(link: &LinkHandle, reason: DeniedReason, message: &str) {
    let denied = Denied { reason, message: message.to_owned(), retry_after: None };
    // The first reason is the one that counts.
    drop(link.denied.set(denied));
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
