//! The agent's end of its link.
//!
//! It says who the host is, follows the server's pings, and keeps for each task how much of its
//! output was sent on this link and how much is durable on the server. A new link starts from
//! what the server says is durable: nothing is lost, and what is sent twice is recognised by its
//! offsets.

use std::collections::{BTreeMap, VecDeque};

use fw_proto::frame::{Ack, Denied, FromAgent, FromServer, Hello, JoinRequest, Start, Welcome};
use fw_proto::record::Offsets;
use fw_proto::{PublicKey, Span, TaskKey, Timestamp};

use super::{GREETING, WINDOW, patience};

/// The agent's end of a link.
#[derive(Debug)]
pub struct Link {
    opened_at: Timestamp,
    heard_at: Timestamp,
    /// How often the server pings; once the host is in.
    ping_every: Option<Span>,
    /// The version that both ends speak; once the host is in.
    protocol: u16,
    cursors: BTreeMap<TaskKey, Cursor>,
    in_flight: u64,
    closed: bool,
}

/// How far a task's output has come on this link.
#[derive(Debug, Clone, Default)]
struct Cursor {
    sent: Offsets,
    durable: Offsets,
    /// Ends and compressed sizes of the pieces that are not acknowledged.
    unacknowledged: VecDeque<(Offsets, u64)>,
    end_told: bool,
}

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send this.
    Send(FromAgent<'static>),
    /// The host is in: note name, keys and clock; send facts and refusals; ship output.
    Welcomed(Welcome),
    /// The host is not in.
    Denied(Denied),
    /// Start these.
    Start(Vec<Start>),
    /// End these.
    Cancel(Vec<TaskKey>),
    /// Keep the armed changes of these.
    Keep(Vec<TaskKey>),
    /// Say what is known of these.
    Query(Vec<TaskKey>),
    /// These are settled.
    Settled(Vec<TaskKey>),
    /// So much of a task's output may leave the spool.
    Durable(Ack),
    /// Pin these keys of the server.
    Pin(Vec<PublicKey>),
    /// The server knows the new key.
    Rekeyed(PublicKey),
    /// Close the link.
    Close,
}

impl Link {
    /// Greets the server on a link whose handshake is done.
    #[must_use]
    pub fn open(
        hello: Hello,
        join: Option<(String, String)>,
        now: Timestamp,
    ) -> (Self, FromAgent<'static>) {
        let greeting = match join {
            None => FromAgent::Hello(hello),
            Some((secret, name)) => FromAgent::Join(JoinRequest { secret, name, hello }),
        };
        let link = Self {
            opened_at: now,
            heard_at: now,
            ping_every: None,
            protocol: 0,
            cursors: BTreeMap::new(),
            in_flight: 0,
            closed: false,
        };
        (link, greeting)
    }

    /// A frame came in.
    pub fn frame(&mut self, frame: FromServer, now: Timestamp) -> Vec<Output> {
        self.heard_at = now;
        match frame {
            FromServer::Denied(denied) => {
                self.closed = true;
                vec![Output::Denied(denied), Output::Close]
            }
            FromServer::Welcome(welcome) if self.ping_every.is_none() => {
                for ack in &welcome.resume {
                    let cursor =
                        Cursor { sent: ack.durable, durable: ack.durable, ..Cursor::default() };
                    self.cursors.insert(ack.key, cursor);
                }
                self.ping_every = Some(welcome.ping_every);
                self.protocol = welcome.protocol;
                vec![Output::Welcomed(welcome)]
            }
            FromServer::Ping(number) => vec![Output::Send(FromAgent::Pong(number))],
            _ if self.ping_every.is_none() || self.closed => self.close(),
            FromServer::Welcome(_) => self.close(),
            FromServer::Start(starts) => vec![Output::Start(starts)],
            FromServer::Cancel(keys) => vec![Output::Cancel(keys)],
            FromServer::Keep(keys) => vec![Output::Keep(keys)],
            FromServer::Query(keys) => vec![Output::Query(keys)],
            FromServer::Settled(keys) => {
                keys.iter().for_each(|key| self.forget(*key));
                vec![Output::Settled(keys)]
            }
            FromServer::Ack(ack) => self.acknowledged(ack),
            FromServer::ServerKeys(keys) => vec![Output::Pin(keys)],
            FromServer::Rekeyed(key) => vec![Output::Rekeyed(key)],
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Output> {
        let silent = now.since(self.heard_at);
        let dead = match self.ping_every {
            None => now.since(self.opened_at) > GREETING,
            Some(every) => silent > patience(every),
        };
        if dead && !self.closed { self.close() } else { Vec::new() }
    }

    /// Whether the host is in.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.ping_every.is_some() && !self.closed
    }

    /// Whether the server can hear that an armed change waits for its word.
    #[must_use]
    pub const fn knows_armed(&self) -> bool {
        self.protocol >= fw_proto::ARMED
    }

    /// From where a task's output is to be sent; `None` while the window is full or the host is not in.
    #[must_use]
    pub fn send_from(&self, key: TaskKey) -> Option<Offsets> {
        let open = self.is_live() && self.in_flight < WINDOW;
        open.then(|| self.cursors.get(&key).map(|cursor| cursor.sent).unwrap_or_default())
    }

    /// A piece of output was sent.
    pub fn sent(&mut self, key: TaskKey, to: Offsets, bytes: u64) {
        let cursor = self.cursors.entry(key).or_default();
        cursor.sent = to;
        cursor.unacknowledged.push_back((to, bytes));
        self.in_flight += bytes;
    }

    /// Whether the end of a task is to be told now: all its output was sent on this link, and
    /// its end was not told since. Counts it as told.
    #[must_use]
    pub fn tell_end(&mut self, key: TaskKey, end: Offsets) -> bool {
        if !self.is_live() {
            return false;
        }
        let cursor = self.cursors.entry(key).or_default();
        let now = !cursor.end_told && cursor.sent.total() >= end.total();
        cursor.end_told |= now;
        now
    }

    fn acknowledged(&mut self, ack: Ack) -> Vec<Output> {
        let Some(cursor) = self.cursors.get_mut(&ack.key) else { return Vec::new() };
        let Some((expected, bytes)) = cursor.unacknowledged.pop_front() else {
            return Vec::new();
        };
        self.in_flight -= bytes;
        if ack.durable.total() < expected.total() {
            // The server does not have what stood before: go back to what it has.
            cursor.sent = ack.durable;
            cursor.end_told = false;
        }
        cursor.durable = ack.durable;
        vec![Output::Durable(ack)]
    }

    fn forget(&mut self, key: TaskKey) {
        if let Some(cursor) = self.cursors.remove(&key) {
            self.in_flight -= cursor.unacknowledged.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
    }

    fn close(&mut self) -> Vec<Output> {
        self.closed = true;
        vec![Output::Close]
    }
}
