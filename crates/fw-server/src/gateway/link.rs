//! One agent's link: moves bytes between the socket, the pure [`Link`], the store and the hub.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use fw_core::link::Versions;
use fw_core::link::server::{Link, Output};
use fw_proto::frame::{
    self, Chunk, Decoded, Denied, DeniedReason, FromAgent, FromServer, Hello, JoinRequest,
    MAX_FRAME,
};
use fw_proto::record::Offsets;
use fw_proto::{HostId, PublicKey, RunId};
use fw_rt::noise::{self, Keypair, Session};
use fw_store::{Changed, HostRow, NewChunk, Standing};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::admit;
use super::links::{LinkHandle, OUTBOX};
use crate::live::LogChange;
use crate::metrics::CHUNK_BYTES;
use crate::serve::Peer;
use crate::state::App;

/// The handshake's first message must be here by then.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A frame that the socket does not take for so long ends the link.
const SEND: Duration = Duration::from_secs(30);

/// A goodbye that takes longer is left unsaid.
const GOODBYE: Duration = Duration::from_secs(1);

/// How often the link looks at the time, unless it is to ping more often.
const TICK: Duration = Duration::from_secs(5);

/// Runs that a link knows to have a task on its host; more than any host has at once.
const KNOWN_RUNS: usize = 256;

/// Tells apart the links of one host, in the order in which its connections came in.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The id of a link that begins now.
pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Why a link has ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("socket: {0}")]
    Socket(#[from] axum::Error),
    #[error("{0}")]
    Noise(#[from] noise::Error),
    #[error("{0}")]
    Malformed(#[from] frame::Malformed),
    #[error("closed by the agent")]
    ByAgent,
    #[error("a fault of this server; its log says more")]
    Panicked,
    #[error("closed")]
    Closed,
    #[error("no handshake in time")]
    NoHandshake,
    #[error("the agent took no frame for {} s", SEND.as_secs())]
    Stuck,
    #[error("store: {0}")]
    Store(#[from] fw_store::Error),
    #[error("{0}")]
    Hub(#[from] crate::hub::Error),
}

/// Serves one link until it ends.
///
/// A server has thousands of these futures, nearly all of them idle. Whatever one does is boxed, so
/// that an idle one is not as large as the longest way through it. The link takes `_place`, one
/// of the places that the server has for connections, until it ends.
pub(super) async fn serve(
    app: App,
    mut socket: Box<WebSocket>,
    peer: SocketAddr,
    versions: Versions,
    _place: Peer,
) {
    let id = next_id();
    let shaking = Box::pin(handshake(&app, &mut socket, versions));
    let greeted = tokio::time::timeout(HANDSHAKE, shaking).await.unwrap_or(Err(End::NoHandshake));
    let (session, key) = match greeted {
        Ok(greeted) => greeted,
        Err(end) => return Box::pin(turn_away(socket, peer, &end)).await,
    };
    let now = app.clock.now();
    let (outbox, frames) = mpsc::channel(OUTBOX);
    let close = app.tasks.token().child_token();
    let heard = Arc::new(AtomicI64::new(now.as_millis()));
    let mut agent = Box::new(Agent {
        link: Link::new(app.clock.steady()),
        app,
        socket,
        session,
        key,
        peer: peer.ip(),
        id,
        outbox,
        close,
        denied: Arc::new(OnceLock::new()),
        heard,
        ponged: Arc::new(AtomicU64::new(0)),
        storing: FuturesOrdered::new(),
        owned: BTreeSet::new(),
        name: None,
        admitted: None,
    });
    // Whatever happens to a link, the hub must learn that it is gone.
    let ran = AssertUnwindSafe(agent.run(frames)).catch_unwind().await;
    let end = ran.map_or(End::Panicked, |ran| ran.err().unwrap_or(End::Closed));
    Box::pin(agent.finish(&end)).await;
}

/// Ends a socket without a session. Whoever does not hold our key should know that this is why.
async fn turn_away(mut socket: Box<WebSocket>, peer: SocketAddr, end: &End) {
    debug!(peer.address = %peer, "no link: {end}");
    let close = matches!(end, End::Noise(_)).then(|| CloseFrame {
        code: close_code::POLICY,
        reason: "handshake with another key".into(),
    });
    // Who does not take it has gone.
    drop(tokio::time::timeout(GOODBYE, socket.send(Message::Close(close))).await);
}

async fn handshake(
    app: &App,
    socket: &mut WebSocket,
    versions: Versions,
) -> Result<(Session, PublicKey), End> {
    let first = loop {
        match socket.recv().await.ok_or(End::ByAgent)?? {
            Message::Binary(bytes) => break bytes,
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Text(_) | Message::Close(_) => return Err(End::ByAgent),
        }
    };
    let (keys, prologue) = (app.keys.all(), versions.prologue());
    let answered = app.admission.shake_hands(move || respond(&keys, &prologue, &first)).await;
    let (answer, session, key) = answered.ok_or(End::Closed)??;
    socket.send(Message::Binary(answer.into())).await?;
    Ok((session, key))
}

/// Answers with the one of our keys that the message is for.
fn respond(
    keys: &[Keypair],
    prologue: &[u8],
    first: &[u8],
) -> Result<(Vec<u8>, Session, PublicKey), End> {
    let mut refused = None;
    for own in keys {
        match noise::respond(own, prologue, first) {
            Ok(answered) => return Ok(answered),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or(End::Closed, End::Noise))
}

/// What became of a piece of output.
enum Stored {
    /// So much of the task's output is durable.
    Durable(Offsets),
    /// It reached to here, and nobody wants it.
    Dropped(Offsets),
}

struct Agent {
    app: App,
    socket: Box<WebSocket>,
    session: Session,
    link: Link,
    key: PublicKey,
    peer: IpAddr,
    id: u64,
    outbox: mpsc::Sender<Box<FromServer>>,
    close: CancellationToken,
    denied: Arc<OnceLock<Denied>>,
    heard: Arc<AtomicI64>,
    ponged: Arc<AtomicU64>,
    storing: FuturesOrdered<BoxFuture<'static, Result<Stored, fw_store::Error>>>,
    /// Runs that are known to have a task on this host.
    owned: BTreeSet<RunId>,
    name: Option<String>,
    /// The host that the hub was told of. The link itself forgets it when it closes.
    admitted: Option<HostId>,
}

impl Agent {
    async fn run(&mut self, mut frames: mpsc::Receiver<Box<FromServer>>) -> Result<(), End> {
        let mut tick = tokio::time::interval(TICK.min(self.app.config.ping_every.duration()));
        loop {
            tokio::select! {
                biased;
                () = self.close.cancelled() => return Box::pin(self.say_why()).await,
                Some(frame) = frames.recv() => Box::pin(self.send(&frame)).await?,
                Some(stored) = self.storing.next() => Box::pin(self.stored(stored)).await?,
                message = self.socket.recv(), if self.link.wants_more() => {
                    match message.ok_or(End::ByAgent)?? {
                        Message::Binary(bytes) => Box::pin(self.message(&bytes)).await?,
                        Message::Ping(_) | Message::Pong(_) => {}
                        Message::Text(_) | Message::Close(_) => return Err(End::ByAgent),
                    }
                }
                _ = tick.tick() => {
                    let outputs = self.link.tick(self.app.clock.steady());
                    Box::pin(self.perform(outputs)).await?;
                }
            }
        }
    }

    /// Tells a host that is sent away why. What waits besides is left unsaid: it is told anew when
    /// it comes back, if it may come back.
    async fn say_why(&mut self) -> Result<(), End> {
        match self.denied.get().cloned() {
            Some(denied) => self.send(&FromServer::Denied(denied)).await,
            None => Ok(()),
        }
    }

    async fn message(&mut self, bytes: &[u8]) -> Result<(), End> {
        let Some(plain) = self.session.open(bytes, MAX_FRAME)? else { return Ok(()) };
        let now = self.app.clock.now();
        self.heard.store(now.as_millis(), Ordering::Relaxed);
        match frame::decode::<FromAgent<'_>>(&plain)? {
            Decoded::Frame(frame) => {
                if let FromAgent::Pong(number) = &frame {
                    self.ponged.store(*number, Ordering::Relaxed);
                }
                let outputs = self.link.frame(frame, self.app.clock.steady());
                self.perform(outputs).await
            }
            Decoded::Unknown => {
                debug!("a frame of a later version was skipped");
                Ok(())
            }
        }
    }

    async fn perform(&mut self, outputs: Vec<Output<'_>>) -> Result<(), End> {
        let mut todo = std::collections::VecDeque::from(outputs);
        while let Some(output) = todo.pop_front() {
            match output {
                Output::Send(frame) => self.send(&frame).await?,
                Output::Admit(hello) => todo.extend(Box::pin(self.admit(hello)).await?),
                Output::Enrol(join) => todo.extend(Box::pin(self.enrol(join)).await?),
                Output::Store(chunk) => self.store(&chunk).await?,
                Output::Reports(reports) => {
                    if let Some(host) = self.link.host() {
                        self.app.hub.reports(host, reports).await?;
                    }
                }
                Output::Facts(json) => Box::pin(self.facts(&json)).await?,
                Output::Rekey(key) => Box::pin(self.rekey(key)).await?,
                Output::Close => return Err(End::Closed),
            }
        }
        Ok(())
    }

    async fn admit(&mut self, hello: Hello) -> Result<Vec<Output<'static>>, End> {
        let place = self.app.admission.place().await;
        let found = match &place {
            Some(_) => admit::known(&self.app, self.key),
            None => Err(admit::busy()),
        };
        let outputs = self.let_in(found, hello).await;
        drop(place);
        outputs
    }

    async fn enrol(&mut self, join: JoinRequest) -> Result<Vec<Output<'static>>, End> {
        let enrolled = admit::enrol(&self.app, self.key, &join, self.peer).await;
        self.let_in(enrolled, join.hello).await
    }

    async fn let_in(
        &mut self,
        found: Result<Arc<HostRow>, Denied>,
        hello: Hello,
    ) -> Result<Vec<Output<'static>>, End> {
        match self.check(found, &hello).await {
            Err(denied) => Ok(self.link.deny(denied)),
            Ok((row, welcome)) => {
                info!(host.id = %row.id, host.name = %row.name, peer.address = %self.peer, agent.version = hello.agent_version, "host linked");
                self.name = Some(row.name.to_string());
                // The welcome goes out before any frame of the hub can.
                for output in self.link.admit(welcome) {
                    if let Output::Send(frame) = output {
                        self.send(&frame).await?;
                    }
                }
                self.send(&FromServer::ServerKeys(self.app.keys.public())).await?;
                self.app
                    .store
                    .greeted(
                        row.id,
                        hello.agent_version.clone(),
                        hello.policy,
                        self.app.clock.now(),
                    )
                    .await?;
                let digest = hello.tasks.clone();
                let handle = LinkHandle {
                    host: row.id,
                    id: self.id,
                    outbox: self.outbox.clone(),
                    close: self.close.clone(),
                    denied: Arc::clone(&self.denied),
                    hello: Arc::new(Hello { tasks: Vec::new(), ..hello }),
                    heard: Arc::clone(&self.heard),
                    ponged: Arc::clone(&self.ponged),
                };
                self.admitted = Some(row.id);
                self.app.hub.linked(handle, digest).await?;
                self.still_welcome(row.id).await?;
                Ok(Vec::new())
            }
        }
    }

    /// Someone may have revoked or removed the host while it was let in, and found no link to close.
    async fn still_welcome(&mut self, host: HostId) -> Result<(), End> {
        let why = match self.app.store.host(host).map(|row| row.standing) {
            Some(Standing::Active) => return Ok(()),
            Some(Standing::Revoked) => DeniedReason::Revoked,
            Some(Standing::Duplicate) => DeniedReason::Duplicate,
            None => DeniedReason::UnknownKey,
        };
        Ok(self.app.hub.forget_host(host, why).await?)
    }

    async fn check(
        &mut self,
        found: Result<Arc<HostRow>, Denied>,
        hello: &Hello,
    ) -> Result<(Arc<HostRow>, frame::Welcome), Denied> {
        let row = found?;
        admit::no_clone(&self.app, row.id, self.id, hello).await?;
        let welcome = admit::welcome(&self.app, &row, hello).await?;
        Ok((row, welcome))
    }

    /// Hands a piece of output to the store. One of a run that this store does not know, as after
    /// a restore, is taken off the host and dropped.
    async fn store(&mut self, chunk: &Chunk<'_>) -> Result<(), End> {
        let Some(host) = self.link.host() else { return Ok(()) };
        if !Box::pin(self.owns(host, chunk.key.run)).await? {
            debug!(run.id = %chunk.key.run, "output of an unknown run was dropped");
            let to = chunk.to;
            self.storing.push_back(Box::pin(async move { Ok(Stored::Dropped(to)) }));
            return Ok(());
        }
        let new = NewChunk {
            host,
            key: chunk.key,
            from: chunk.from,
            to: chunk.to,
            raw_len: chunk.raw_len,
            data: chunk.data.to_vec(),
        };
        let (store, live) = (self.app.store.clone(), self.app.live.clone());
        let grew = LogChange { run: chunk.key.run, host, attempt: chunk.key.attempt };
        self.storing.push_back(Box::pin(async move {
            let bytes = new.data.len() as u64;
            let durable = store.append_chunk(new).await;
            if durable.is_ok() {
                metrics::counter!(CHUNK_BYTES).increment(bytes);
            }
            live.log_grew(grew);
            durable.map(Stored::Durable)
        }));
        Ok(())
    }

    async fn owns(&mut self, host: HostId, run: RunId) -> Result<bool, End> {
        if self.owned.contains(&run) {
            return Ok(true);
        }
        let owns =
            self.app.hub.owns(host, run).await? || self.app.store.task(run, host).await?.is_some();
        if owns {
            // A cache: what was forgotten is asked again.
            if self.owned.len() >= KNOWN_RUNS {
                self.owned.clear();
            }
            self.owned.insert(run);
        }
        Ok(owns)
    }

    async fn stored(&mut self, stored: Result<Stored, fw_store::Error>) -> Result<(), End> {
        let outputs = match stored {
            Ok(Stored::Durable(durable)) | Err(fw_store::Error::OutOfOrder { durable }) => {
                self.link.stored(durable)
            }
            Ok(Stored::Dropped(to)) => self.link.dropped(to),
            Err(fw_store::Error::MalformedChunk(_)) => {
                self.link.refuse(DeniedReason::Malformed, "output that is not what it says it is")
            }
            Err(error) => return Err(error.into()),
        };
        self.perform(outputs).await
    }

    async fn facts(&mut self, json: &str) -> Result<(), End> {
        let Some(host) = self.link.host() else { return Ok(()) };
        let Ok(serde_json::Value::Object(facts)) = serde_json::from_str(json) else {
            let outputs =
                self.link.refuse(DeniedReason::Malformed, "facts that are no JSON object");
            return Box::pin(self.perform(outputs)).await;
        };
        self.app.store.set_facts(host, facts).await?;
        self.app.live.host_changed(host);
        Ok(())
    }

    async fn rekey(&mut self, key: PublicKey) -> Result<(), End> {
        let Some(host) = self.link.host() else { return Ok(()) };
        if key.0 == [0; 32] || self.app.keys.public().contains(&key) {
            let outputs =
                self.link.refuse(DeniedReason::Malformed, "this key cannot be the host's");
            return Box::pin(self.perform(outputs)).await;
        }
        match self.app.store.rekey_host(host, key).await? {
            Changed::Done => {}
            Changed::Taken | Changed::Unknown => {
                let outputs =
                    self.link.refuse(DeniedReason::Malformed, "this key cannot be the host's");
                return Box::pin(self.perform(outputs)).await;
            }
        }
        info!(host.id = %host, "host has a new key");
        self.send(&FromServer::Rekeyed(key)).await
    }

    async fn send(&mut self, frame: &FromServer) -> Result<(), End> {
        for message in self.session.seal(&frame::encode(frame))? {
            let sent = self.socket.send(Message::Binary(message.into()));
            tokio::time::timeout(SEND, sent).await.map_err(|_| End::Stuck)??;
        }
        Ok(())
    }

    async fn finish(&mut self, end: &End) {
        let Some(host) = self.admitted else {
            return debug!(peer.address = %self.peer, "link ended before its greeting: {end}");
        };
        let name = self.name.as_deref().unwrap_or_default();
        match end {
            End::Panicked => error!(host.id = %host, host.name = name, "link ended: {end}"),
            End::Store(_) | End::Malformed(_) | End::Noise(_) => {
                warn!(host.id = %host, host.name = name, "link ended: {end}");
            }
            End::Socket(_)
            | End::ByAgent
            | End::Closed
            | End::NoHandshake
            | End::Stuck
            | End::Hub(_) => {
                info!(host.id = %host, host.name = name, "link ended: {end}");
            }
        }
        // Another link may have taken over: then the host is not offline.
        if self.app.hub.unlinked(host, self.id).await
            && let Err(error) = self.app.store.gone(vec![(host, self.app.clock.now())]).await
        {
            debug!(host.id = %host, error = &error as &dyn std::error::Error, "the end of the link was not noted");
        }
        // The socket may be gone already.
        drop(tokio::time::timeout(GOODBYE, self.socket.send(Message::Close(None))).await);
    }
}
