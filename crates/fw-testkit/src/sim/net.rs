//! The network: connections, each two ways of frames in order.
//!
//! As with TCP, a way loses nothing in between and reorders nothing: it is late, or from some
//! point on it is silent for good. What is said on different connections has no order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fw_proto::{HostId, Span, Timestamp};

/// Frames that fit between two ends; then the sender waits.
const CAPACITY: usize = 8;

/// Tells connections apart.
pub(super) type ConnId = u64;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    /// Hosts that are cut off, and until when.
    apart: BTreeMap<HostId, Timestamp>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) host: HostId,
    pub(super) up: Way,
    pub(super) down: Way,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Way {
    items: VecDeque<(Timestamp, Item)>,
    /// Nothing arrives any earlier.
    not_before: Timestamp,
    /// What is put in vanishes, the end included.
    pub(super) dead: bool,
    closed: bool,
}

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Frame(Vec<u8>),
    /// The other end has closed.
    End,
}

impl Net {
    /// A host connects to the server; `None` while it is cut off.
    pub(super) fn connect(&mut self, host: HostId, now: Timestamp) -> Option<ConnId> {
        if self.apart.get(&host).is_some_and(|until| *until > now) {
            return None;
        }
        self.next += 1;
        let conn = Conn { host, up: Way::new(), down: Way::new() };
        self.conns.insert(self.next, conn);
        Some(self.next)
    }

    /// Cuts hosts off: what is under way is late, and nobody connects.
    pub(super) fn part(&mut self, hosts: &BTreeSet<HostId>, until: Timestamp) {
        self.apart.extend(hosts.iter().map(|host| (*host, until)));
        for conn in self.conns.values_mut().filter(|conn| hosts.contains(&conn.host)) {
            conn.up.hold(until);
            conn.down.hold(until);
        }
    }

    /// Nobody is cut off any more.
    pub(super) fn heal(&mut self) {
        self.apart.clear();
    }

    /// The host's end is closed.
    pub(super) fn close_host_end(&mut self, id: ConnId, now: Timestamp) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.up.close(now);
            conn.down.gone();
        }
    }

    /// The server's end is closed.
    pub(super) fn close_server_end(&mut self, id: ConnId, now: Timestamp) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.down.close(now);
            conn.up.gone();
        }
    }

    /// Forgets connections that nobody holds.
    pub(super) fn sweep(&mut self, held: impl Fn(ConnId) -> bool) {
        self.conns.retain(|id, _| held(*id));
    }
}

impl Way {
    const fn new() -> Self {
        Self { items: VecDeque::new(), not_before: Timestamp::EPOCH, dead: false, closed: false }
    }

    /// Whether another frame fits.
    pub(super) fn has_room(&self) -> bool {
        self.items.len() < CAPACITY
    }

    /// Puts a frame in; it arrives after `delay`, and after those before it.
    pub(super) fn put(&mut self, frame: Vec<u8>, now: Timestamp, delay: Span) {
        if !self.dead && !self.closed {
            self.not_before = self.not_before.max(now + delay);
            self.items.push_back((self.not_before, Item::Frame(frame)));
        }
    }

    /// What has arrived.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Item> {
        let arrived = self.items.front().is_some_and(|(at, _)| *at <= now);
        if arrived { self.items.pop_front().map(|(_, item)| item) } else { None }
    }

    /// Nothing arrives before.
    pub(super) fn hold(&mut self, until: Timestamp) {
        self.not_before = self.not_before.max(until);
        for (at, _) in &mut self.items {
            *at = (*at).max(until);
        }
    }

    /// From now on it is silent; what is under way is lost.
    pub(super) fn die(&mut self) {
        self.dead = true;
        self.items.clear();
    }

    /// The network resets it: what is under way is lost, and the reader is told.
    pub(super) fn break_off(&mut self, now: Timestamp) {
        self.items.clear();
        self.close(now);
    }

    fn close(&mut self, now: Timestamp) {
        if !self.dead && !self.closed {
            self.not_before = self.not_before.max(now);
            self.items.push_back((self.not_before, Item::End));
        }
        self.closed = true;
    }

    /// Nobody reads here any more.
    fn gone(&mut self) {
        self.closed = true;
        self.items.clear();
    }
}
