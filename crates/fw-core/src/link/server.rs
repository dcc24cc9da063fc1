//! The server's end of one agent's link.
//!
//! A link begins with a greeting: who the host is, or a request to enrol. The shell asks the
//! store, then calls [`Link::admit`] or [`Link::refuse`]. From then on reports pass to the hub
//! in the order in which they came, and none overtakes output: what the host sent before an
//! end is durable before the end counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fw_proto::frame::{
    Ack, Chunk, Denied, DeniedReason, FromAgent, FromServer, Hello, JoinRequest, MAX_TEXT, Report,
    Reported, Welcome,
};
use fw_proto::record::Offsets;
use fw_proto::{HostId, PublicKey, Span, TaskKey, Timestamp};

use super::{GREETING, PING_EVERY, Versions, patience};

/// Pieces of output that may wait for the store on one link: more than an agent's window holds.
pub const MAX_PENDING: usize = 64;

/// The server's end of a link.
#[derive(Debug)]
pub struct Link {
    state: State,
    opened_at: Timestamp,
    heard_at: Timestamp,
    pinged_at: Timestamp,
    /// As the host was told in its welcome.
    ping_every: Span,
    pings: u64,
    waiting: VecDeque<Waiting>,
    durable: BTreeMap<TaskKey, Offsets>,
    /// Tasks of whose output a piece was dropped: how they ended is not to be told as if it was kept.
    dropped: BTreeSet<TaskKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was said yet.
    Greeting,
    /// The shell is asking the store.
    Admitting,
    /// The host is in.
    Live(HostId),
    /// Over.
    Closed,
}

/// Things that keep their order.
#[derive(Debug)]
enum Waiting {
    /// A piece of output that the store has not answered for.
    Chunk(TaskKey),
    /// Reports that came after it.
    Reports(Vec<Report>),
}

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub enum Output<'a> {
    /// Send this.
    Send(FromServer),
    /// Look the host's key up, then admit or refuse it.
    Admit(Hello),
    /// Enrol the host, then admit or refuse it.
    Enrol(JoinRequest),
    /// Make this piece of output durable, then call [`Link::stored`]. In order.
    Store(Chunk<'a>),
    /// Pass these to the hub.
    Reports(Vec<Report>),
    /// Keep these facts (JSON text).
    Facts(String),
    /// Keep this key beside the host's present one, then send [`FromServer::Rekeyed`].
    Rekey(PublicKey),
    /// Send what was said, then close.
    Close,
}

impl Link {
    /// A link whose handshake is done.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let (waiting, durable) = (VecDeque::new(), BTreeMap::new());
        Self {
            state: State::Greeting,
            opened_at: now,
            heard_at: now,
            pinged_at: now,
            ping_every: PING_EVERY,
            pings: 0,
            waiting,
            durable,
            dropped: BTreeSet::new(),
        }
    }

    /// The host, once it is in.
    #[must_use]
    pub const fn host(&self) -> Option<HostId> {
        match self.state {
            State::Live(host) => Some(host),
            State::Greeting | State::Admitting | State::Closed => None,
        }
    }

    /// Whether the shell should read on: false while much waits for the store.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.waiting.len() < MAX_PENDING
    }

    /// A frame came in.
    pub fn frame<'a>(&mut self, frame: FromAgent<'a>, now: Timestamp) -> Vec<Output<'a>> {
        self.heard_at = now;
        match (self.state, frame) {
            (State::Closed, _) => Vec::new(),
            (State::Greeting, FromAgent::Hello(hello)) if !fits(&hello) => {
                self.refuse(DeniedReason::Malformed, "a greeting with too long a text")
            }
            (State::Greeting, FromAgent::Join(join)) if !fits(&join.hello) => {
                self.refuse(DeniedReason::Malformed, "a greeting with too long a text")
            }
            (State::Greeting, FromAgent::Hello(hello)) => {
                self.greet(hello.protocol, Output::Admit(hello))
            }
            (State::Greeting, FromAgent::Join(join)) => {
                self.greet(join.hello.protocol, Output::Enrol(join))
            }
            (State::Live(_), FromAgent::Reports(reports)) if !reports.iter().all(plausible) => {
                self.refuse(DeniedReason::Malformed, "an end with more output than there can be")
            }
            (State::Live(_), FromAgent::Chunk(chunk))
                if !(chunk.from.is_plausible() && chunk.to.is_plausible()) =>
            {
                self.refuse(DeniedReason::Malformed, "more output than there can be")
            }
            (State::Live(_), FromAgent::Reports(reports)) => {
                self.waiting.push_back(Waiting::Reports(reports));
                self.release()
            }
            (State::Live(_), FromAgent::Chunk(chunk)) => {
                self.waiting.push_back(Waiting::Chunk(chunk.key));
                vec![Output::Store(chunk)]
            }
            (State::Live(_), FromAgent::Facts(facts))
                if facts.json.len() <= fw_proto::frame::MAX_FACTS =>
            {
                vec![Output::Facts(facts.json)]
            }
            (State::Live(_), FromAgent::Facts(_)) => {
                self.refuse(DeniedReason::Malformed, "more than 256 KiB of facts")
            }
            (State::Live(_), FromAgent::Rekey(key)) => vec![Output::Rekey(key)],
            (State::Live(_), FromAgent::Pong(_)) => Vec::new(),
            (State::Greeting | State::Admitting | State::Live(_), _) => {
                self.refuse(DeniedReason::Malformed, "a frame out of its turn")
            }
        }
    }

    /// Lets the host in.
    pub fn admit<'a>(&mut self, welcome: Welcome) -> Vec<Output<'a>> {
        if self.state != State::Admitting {
            return Vec::new();
        }
        self.state = State::Live(welcome.host);
        self.ping_every = welcome.ping_every;
        self.durable = welcome.resume.iter().map(|ack| (ack.key, ack.durable)).collect();
        vec![Output::Send(FromServer::Welcome(welcome))]
    }

    /// Sends the host away.
    pub fn refuse<'a>(
        &mut self,
        reason: DeniedReason,
        message: impl Into<String>,
    ) -> Vec<Output<'a>> {
        self.deny(Denied { reason, message: message.into(), retry_after: None })
    }

    /// Sends the host away, with more to say.
    pub fn deny<'a>(&mut self, denied: Denied) -> Vec<Output<'a>> {
        if self.state == State::Closed {
            return Vec::new();
        }
        self.state = State::Closed;
        vec![Output::Send(FromServer::Denied(denied)), Output::Close]
    }

    /// The store has answered for the first piece of output that waits: so much of the task is durable.
    pub fn stored<'a>(&mut self, durable: Offsets) -> Vec<Output<'a>> {
        let Some(Waiting::Chunk(key)) = self.waiting.pop_front() else { return Vec::new() };
        self.durable.insert(key, durable);
        let mut outputs = vec![Output::Send(FromServer::Ack(Ack { key, durable }))];
        outputs.extend(self.release());
        outputs
    }

    /// The first piece of output that waits is of a run that the store does not know, as after a
    /// restore: it was dropped, and the host may drop it too.
    pub fn dropped<'a>(&mut self, to: Offsets) -> Vec<Output<'a>> {
        if let Some(Waiting::Chunk(key)) = self.waiting.front() {
            self.dropped.insert(*key);
        }
        self.stored(to)
    }

    /// Time has passed.
    pub fn tick<'a>(&mut self, now: Timestamp) -> Vec<Output<'a>> {
        let silent = now.since(self.heard_at);
        match self.state {
            State::Closed => Vec::new(),
            State::Greeting | State::Admitting if now.since(self.opened_at) > GREETING => {
                self.close()
            }
            State::Live(_) if silent > patience(self.ping_every) => self.close(),
            State::Live(_) if now.since(self.pinged_at) >= self.ping_every => self.ping(now),
            State::Greeting | State::Admitting | State::Live(_) => Vec::new(),
        }
    }

    /// Asks at once whether the host is there.
    pub fn ping<'a>(&mut self, now: Timestamp) -> Vec<Output<'a>> {
        self.pinged_at = now;
        self.pings += 1;
        vec![Output::Send(FromServer::Ping(self.pings))]
    }

    /// When the host was last heard.
    #[must_use]
    pub const fn heard_at(&self) -> Timestamp {
        self.heard_at
    }

    fn greet<'a>(&mut self, protocol: (u16, u16), next: Output<'a>) -> Vec<Output<'a>> {
        let (first, last) = protocol;
        if let Err(message) = (Versions { first, last }).common() {
            return self.refuse(DeniedReason::Protocol, message);
        }
        self.state = State::Admitting;
        vec![next]
    }

    /// Reports that no output stands before.
    fn release<'a>(&mut self) -> Vec<Output<'a>> {
        let mut outputs = Vec::new();
        while matches!(self.waiting.front(), Some(Waiting::Reports(_))) {
            if let Some(Waiting::Reports(mut reports)) = self.waiting.pop_front() {
                reports.retain(|report| self.counts(report));
                reports.iter_mut().for_each(|report| self.without_output(report));
                outputs.push(Output::Reports(reports));
            }
        }
        outputs
    }

    /// An end counts only when all the output before it is durable; the host tells it again.
    fn counts(&mut self, report: &Report) -> bool {
        let ended = match &report.state {
            Reported::Ended(ended) => ended,
            Reported::Refused(_) | Reported::Unknown(_) => {
                self.durable.remove(&report.key);
                return true;
            }
            Reported::NotKnown | Reported::Queued | Reported::Started(_) | Reported::Applied(_) => {
                return true;
            }
        };
        let durable = self.durable.get(&report.key).copied().unwrap_or_default();
        let whole = durable.total() >= ended.output.total();
        if whole {
            self.durable.remove(&report.key);
        }
        whole
    }

    /// The run may have begun anew since a piece of the output was dropped: a fire of a restored
    /// store has the id that it had before.
    fn without_output(&mut self, report: &mut Report) {
        if matches!(report.state, Reported::Ended(_)) && self.dropped.contains(&report.key) {
            let why = "it ran for a server whose store was replaced, and its output is not whole";
            report.state = Reported::Unknown(why.to_owned());
        }
    }

    fn close<'a>(&mut self) -> Vec<Output<'a>> {
        self.state = State::Closed;
        vec![Output::Close]
    }
}

/// Whether the texts of a greeting are as short as they should be.
fn fits(hello: &Hello) -> bool {
    let texts = [&hello.agent_version, &hello.machine_id, &hello.boot_id, &hello.instance];
    texts.iter().all(|text| text.len() <= MAX_TEXT)
}

/// Whether a report could be true.
fn plausible(report: &Report) -> bool {
    match &report.state {
        Reported::Ended(ended) => ended.output.is_plausible(),
        Reported::NotKnown
        | Reported::Queued
        | Reported::Started(_)
        | Reported::Applied(_)
        | Reported::Refused(_)
        | Reported::Unknown(_) => true,
    }
}

/// How two links that use one key relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// The same agent, linking anew: the newer link takes over.
    Supersedes,
    /// Another machine, another boot, or another agent with a copy of the state directory: a clone,
    /// if the older link still answers.
    CloneIfAlive,
}

/// Compares a new greeting with that of the link that a host already has.
#[must_use]
pub fn rival(older: &Hello, newer: &Hello) -> Rival {
    let same = older.machine_id == newer.machine_id
        && older.boot_id == newer.boot_id
        && older.instance == newer.instance;
    if same { Rival::Supersedes } else { Rival::CloneIfAlive }
}

/// What the tasks of a digest may resume from.
#[must_use]
pub fn resume(digest: &[Report], durable: &BTreeMap<TaskKey, Offsets>) -> Vec<Ack> {
    let ack =
        |key: &TaskKey| Ack { key: *key, durable: durable.get(key).copied().unwrap_or_default() };
    digest.iter().map(|report| ack(&report.key)).collect()
}
