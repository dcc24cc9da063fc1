//! The server's side of each connection: what `fw-server`'s gateway does around the real link.

use std::collections::{BTreeSet, VecDeque};

use fw_core::link::server::{Link, Output, resume};
use fw_core::link::{PING_EVERY, Versions, WINDOW};
use fw_proto::frame::{
    self, Ack, Chunk, Decoded, Denied, DeniedReason, FromAgent, FromServer, Hello, Welcome,
};
use fw_proto::record::Offsets;
use fw_proto::{HostId, Span, TaskKey, Timestamp};
use rand::RngExt as _;

use super::history::Sight;
use super::host::short;
use super::net::{ConnId, Item, Net};
use super::server::{Died, Message, Server};
use super::store::Store;
use super::world::Ctx;

/// Frames that may wait for one host.
const OUTBOX: usize = 5;

/// A frame that the socket does not take for so long ends the link.
const SEND: Span = Span::from_secs(30);

/// How often a link looks at the time.
const TICK: Span = Span::from_secs(5);

/// The server's side of a connection.
#[derive(Debug)]
pub(super) struct Conn {
    host: HostId,
    opened_at: Timestamp,
    link: Link,
    outbox: VecDeque<FromServer>,
    /// What the link itself has to say, before all else.
    own: VecDeque<FromServer>,
    storing: VecDeque<(Timestamp, Owned)>,
    /// Tasks of whose output a piece was dropped: their acknowledgements promise nothing.
    dropped: BTreeSet<TaskKey>,
    /// Being let in, as far as that has come.
    admission: Admission,
    /// Let in: the hub was told.
    admitted: bool,
    /// The newest version of the protocol that the agent at its other end speaks.
    protocol: u16,
    closing: bool,
    /// What waits is not to be sent.
    cut: bool,
    denied: Option<Denied>,
    blocked_since: Option<Timestamp>,
    tick_at: Timestamp,
}

/// How far a host is let in: each is a question to the store.
#[derive(Debug)]
enum Admission {
    No,
    Known(Box<Hello>),
    Welcome(Box<Hello>),
    StillWelcome,
}

/// A piece of output that waits for the store.
#[derive(Debug)]
pub(super) struct Owned {
    key: TaskKey,
    from: Offsets,
    to: Offsets,
    data: Vec<u8>,
    /// Of a run that the store does not know: taken off the host and dropped.
    unknown: bool,
}

impl Conn {
    pub(super) fn new(host: HostId, now: Timestamp) -> Self {
        Self {
            host,
            opened_at: now,
            link: Link::new(now),
            outbox: VecDeque::new(),
            own: VecDeque::new(),
            storing: VecDeque::new(),
            dropped: BTreeSet::new(),
            admission: Admission::No,
            admitted: false,
            protocol: 0,
            closing: false,
            cut: false,
            denied: None,
            blocked_since: None,
            tick_at: now + TICK,
        }
    }

    /// Puts a frame of the hub in; false when the host does not read, and is cut off.
    pub(super) fn offer(&mut self, frame: FromServer) -> bool {
        let fits = self.outbox.len() < OUTBOX;
        if fits {
            self.outbox.push_back(frame);
        } else {
            self.close();
        }
        fits
    }

    /// Sends the host away.
    pub(super) fn deny(&mut self, denied: Denied) {
        self.denied = Some(denied);
        self.close();
    }

    /// Ends it; what waits is not sent any more.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.cut = true;
    }
}

impl Server {
    /// Reads, stores and admits, on each connection a little.
    pub(super) fn serve_links(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        net: &mut Net,
    ) -> Result<(), Died> {
        self.write_orphans(ctx, store);
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        let first = ctx.rng.random_range(0..ids.len().max(1));
        let (later, sooner) = ids.split_at(first.min(ids.len()));
        for id in sooner.iter().chain(later).copied() {
            self.serve(ctx, store, net, id)?;
        }
        Ok(())
    }

    fn serve(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        net: &mut Net,
        id: ConnId,
    ) -> Result<(), Died> {
        self.write(ctx, net, id)?;
        for _ in 0..ctx.rng.random_range(1..8) {
            let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
            if conn.closing || conn.blocked_since.is_some() {
                break;
            }
            let goes_on = match conn.admission {
                Admission::No => self.store_or_read(ctx, store, net, id)?,
                Admission::Known(_) | Admission::Welcome(_) | Admission::StillWelcome => {
                    self.admit(ctx, store, id)?;
                    ctx.one_in(2)
                }
            };
            if !goes_on {
                break;
            }
        }
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        if conn.tick_at <= ctx.now && conn.blocked_since.is_none() {
            conn.tick_at = ctx.now + TICK;
            let live = conn.link.host().is_some();
            let outputs = conn.link.tick(ctx.now);
            if live && outputs.contains(&Output::Close) {
                ctx.history.sight(Sight::Silence);
            }
            self.outputs(ctx, store, id, outputs)?;
        }
        self.write(ctx, net, id)
    }

    fn store_or_read(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        net: &mut Net,
        id: ConnId,
    ) -> Result<bool, Died> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(false) };
        let slow = self.slow_store_until > ctx.now;
        let stored = conn.storing.front().is_some_and(|(at, _)| !slow && *at <= ctx.now);
        if stored && let Some((_, chunk)) = conn.storing.pop_front() {
            self.append(ctx, store, id, &chunk)?;
            return Ok(true);
        }
        if !conn.link.wants_more() {
            return Ok(false);
        }
        match net.conns.get_mut(&id).and_then(|conn| conn.up.take(ctx.now)) {
            None => Ok(false),
            Some(Item::End) => {
                self.drop_conn(ctx, net, id);
                Ok(false)
            }
            Some(Item::Frame(bytes)) => {
                self.frame(ctx, store, id, &bytes)?;
                Ok(true)
            }
        }
    }

    fn frame(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        id: ConnId,
        bytes: &[u8],
    ) -> Result<(), Died> {
        self.boundary()?;
        let Ok(Decoded::Frame(frame)) = frame::decode::<FromAgent<'_>>(bytes) else {
            ctx.fail_wire("the server cannot read what a host wrote");
            return Ok(());
        };
        let Some(host) = self.conns.get(&id).map(|conn| conn.host) else { return Ok(()) };
        if self.conns.range(id + 1..).any(|(_, newer)| newer.host == host && newer.admitted) {
            ctx.history.sight(Sight::OldLinkHeard);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        ctx.history.note((30_u8, id, bytes), || {
            let said = if let FromAgent::Chunk(chunk) = &frame {
                let (from, to) = (chunk.from.total(), chunk.to.total());
                format!("output of {}, {from}..{to}", chunk.key)
            } else {
                format!("{frame:?}")
            };
            format!("server hears {} on {id}: {said}", short(host))
        });
        let outputs = conn.link.frame(frame, ctx.now);
        self.outputs(ctx, store, id, outputs)
    }

    fn outputs(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        id: ConnId,
        outputs: Vec<Output<'_>>,
    ) -> Result<(), Died> {
        for output in outputs {
            self.boundary()?;
            let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
            match output {
                Output::Send(frame) => conn.own.push_back(frame),
                Output::Admit(hello) => conn.admission = Admission::Known(Box::new(hello)),
                Output::Store(chunk) => {
                    let owns = |run| {
                        self.hub.run(run).is_some_and(|run| run.tasks.contains_key(&conn.host))
                    };
                    let run = chunk.key.run;
                    let unknown = !owns(run) && !store.owns(conn.host, run);
                    let at = ctx.now + Span::from_millis(ctx.rng.random_range(0..1500));
                    let at = conn.storing.back().map_or(at, |(before, _)| at.max(*before));
                    let Chunk { key, from, to, data, .. } = chunk;
                    let data = data.to_vec();
                    conn.dropped.extend(unknown.then_some(key));
                    conn.storing.push_back((at, Owned { key, from, to, data, unknown }));
                    let bytes: usize = conn.storing.iter().map(|(_, of)| of.data.len()).sum();
                    if bytes as u64 >= WINDOW {
                        ctx.history.sight(Sight::WindowFull);
                    }
                }
                Output::Reports(reports) => {
                    if conn.link.host().is_some() {
                        self.inbox.push_back(Message::Reports(conn.host, reports));
                    }
                }
                Output::Enrol(_) | Output::Facts(_) | Output::Rekey(_) => {}
                Output::Close => conn.closing = true,
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        id: ConnId,
        piece: &Owned,
    ) -> Result<(), Died> {
        self.boundary()?;
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let Owned { key, from, to, data, unknown } = piece;
        let outputs = if *unknown {
            conn.link.dropped(*to)
        } else {
            let raw_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let chunk = Chunk { key: *key, from: *from, to: *to, raw_len, data };
            conn.link.stored(store.append(conn.host, &chunk))
        };
        self.outputs(ctx, store, id, outputs)
    }

    /// What the store was handed before its connection ended is written all the same.
    fn write_orphans(&mut self, ctx: &Ctx, store: &mut Store) {
        if self.slow_store_until > ctx.now {
            return;
        }
        let due = |(at, ..): &(Timestamp, HostId, Owned)| *at <= ctx.now;
        while self.writing.front().is_some_and(due)
            && let Some((_, host, piece)) = self.writing.pop_front()
            && !piece.unknown
        {
            let Owned { key, from, to, data, .. } = &piece;
            let raw_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
            store.append(host, &Chunk { key: *key, from: *from, to: *to, raw_len, data });
        }
    }

    /// Lets a host in, a question to the store at a time.
    fn admit(&mut self, ctx: &mut Ctx, store: &mut Store, id: ConnId) -> Result<(), Died> {
        self.boundary()?;
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let host = conn.host;
        let revoked = store.revoked.contains(&host);
        match std::mem::replace(&mut conn.admission, Admission::No) {
            Admission::No => Ok(()),
            Admission::Known(_) if revoked => {
                ctx.history.sight(Sight::RevokedRefused);
                let outputs = conn.link.refuse(DeniedReason::Revoked, "revoked");
                self.outputs(ctx, store, id, outputs)
            }
            Admission::Known(hello) => {
                conn.admission = Admission::Welcome(hello);
                Ok(())
            }
            Admission::Welcome(hello) => {
                let known = store.output.iter().filter(|((of, _), _)| *of == host);
                let durable = known.map(|((_, key), output)| (*key, output.durable)).collect();
                let outputs = conn.link.admit(Welcome {
                    host,
                    name: "sim".parse().expect("a name"),
                    protocol: hello.protocol.1.min(Versions::OURS.last),
                    incarnation: store.incarnation,
                    epoch: self.epoch,
                    now: ctx.server_time(),
                    ping_every: PING_EVERY,
                    resume: resume(&hello.tasks, &durable),
                });
                conn.admission = Admission::StillWelcome;
                conn.admitted = true;
                conn.protocol = hello.protocol.1;
                self.inbox.push_back(Message::Linked(host, id, hello.protocol.1, hello.tasks));
                self.outputs(ctx, store, id, outputs)
            }
            Admission::StillWelcome => {
                if revoked {
                    self.inbox.push_back(Message::Forget(host, DeniedReason::Revoked));
                }
                Ok(())
            }
        }
    }

    /// Sends what waits, on all connections.
    pub(super) fn serve_outboxes(&mut self, ctx: &mut Ctx, net: &mut Net) -> Result<(), Died> {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.write(ctx, net, id))
    }

    fn write(&mut self, ctx: &mut Ctx, net: &mut Net, id: ConnId) -> Result<(), Died> {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
            // Who is sent away hears why, and nothing else of what waits.
            if conn.cut {
                conn.outbox.clear();
                let denied = conn.denied.take().map(FromServer::Denied);
                conn.own = denied.into_iter().collect();
                conn.cut = false;
            }
            let next = conn.own.front().or_else(|| conn.outbox.front());
            let Some(frame) = next.cloned() else { break };
            let Some(way) = net.conns.get_mut(&id).map(|conn| &mut conn.down) else { break };
            if !way.has_room() {
                let since = *conn.blocked_since.get_or_insert(ctx.now);
                if ctx.now > since + SEND {
                    self.drop_conn(ctx, net, id);
                }
                return Ok(());
            }
            conn.blocked_since = None;
            if conn.own.pop_front().is_none() {
                conn.outbox.pop_front();
            }
            self.say(ctx, net, id, &frame);
            self.boundary()?;
        }
        let over = self.conns.get(&id).is_some_and(|conn| conn.closing);
        if over {
            self.drop_conn(ctx, net, id);
        }
        Ok(())
    }

    fn say(&mut self, ctx: &mut Ctx, net: &mut Net, id: ConnId, frame: &FromServer) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (host, dropped) = (conn.host, &conn.dropped);
        let bytes = frame::encode(frame);
        let outcome = ctx.witness.said(host, conn.opened_at, conn.protocol, frame);
        ctx.judge(outcome);
        if let FromServer::Ack(Ack { key, durable }) = frame
            && !dropped.contains(key)
        {
            ctx.witness.acked(host, *key, *durable);
        }
        ctx.keep_for_replay(host, frame, &bytes);
        let delay = Span::from_millis(ctx.rng.random_range(0..800));
        if let Some(conn) = net.conns.get_mut(&id) {
            conn.down.put(bytes, ctx.now, delay);
        }
    }

    /// A connection is over: the hub must learn of it.
    pub(super) fn drop_conn(&mut self, ctx: &mut Ctx, net: &mut Net, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        net.close_server_end(id, ctx.now);
        let host = conn.host;
        self.writing.extend(conn.storing.into_iter().map(|(at, piece)| (at, host, piece)));
        if conn.admitted {
            self.inbox.push_back(Message::Unlinked(conn.host, id));
        }
    }
}
