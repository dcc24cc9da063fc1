//! The port where wrappers connect: plain WebSocket on any path.
//!
//! Each connection is a task that reads messages and hands each to whoever owns the task that it
//! names. Dead machines are noticed by TCP itself (`tcp(7)`: keepalive), for a living wrapper may be
//! silent for as long as a child holds its output.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message as Frame, WebSocket};
use axum::extract::{RawQuery, State, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use fw_proto::{HostId, RunId};
use fw_rt::{Clock, Tasks};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use super::instance::Key;
use super::message::{self, Message, Reply};
use super::stranger;
use super::talk::Wire;
use crate::dialects::saltpeter::salt::minion::{Event, Minions, Word};
use crate::problem::Failure;
use crate::serve::{self, Peer};

/// The longest message: a wrapper sends at most 512,000 characters, each up to twelve bytes of JSON; the
/// oldest say all their output at once in the end.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// Read buffer of an idle connection; it grows for a message.
const READ_BUFFER: usize = 1024;

/// As the library of the original does.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Replies that may wait for one wrapper, which has few messages under way. More, and it does not read.
const OUTBOX: usize = 256;

/// A frame that the socket does not take for so long ends the connection.
const SEND: Duration = Duration::from_secs(30);

/// Tasks that one connection may speak of; a wrapper has one.
const TASKS: usize = 16;

static NEXT_WIRE: AtomicU64 = AtomicU64::new(1);

/// How others reach a connection.
pub(crate) type ToWire = mpsc::Sender<Say>;

/// What a connection is told to do.
#[derive(Debug)]
pub(crate) enum Say {
    /// Send this. A channel makes room for 32 at once, so boxes keep an idle connection small.
    Reply(Box<Reply>),
    /// Send what was said, then close.
    Close,
}

/// What connections need.
#[derive(Clone)]
pub(crate) struct Door {
    /// Tells whose an instance is.
    pub(crate) names: Key,
    /// Who owns the tasks of a machine.
    pub(crate) minions: watch::Receiver<Arc<Minions>>,
    /// SHA-256 of what wrappers must show in the query of their URL.
    pub(crate) key: Option<[u8; 32]>,
    /// The time of day.
    pub(crate) clock: Clock,
}

/// Listens for wrappers; gives the address, with the port that the system chose.
///
/// # Errors
/// The address cannot be had.
pub(crate) async fn open(
    door: Door,
    address: SocketAddr,
    most: usize,
    tasks: &Tasks,
) -> Result<SocketAddr, serve::Error> {
    let bound = serve::bind(address, None, most).await?.watchful();
    let address = bound.address().map_err(|source| serve::Error::Bind { address, source })?;
    let routes = Router::new().fallback(upgrade).with_state(door);
    bound.serve(routes, tasks);
    info!(machines.addr = %address, "waits for wrappers of Saltpeter on ws://{address}");
    Ok(address)
}

async fn upgrade(
    State(door): State<Door>,
    RawQuery(query): RawQuery,
    peer: Peer,
    ws: WebSocketUpgrade,
) -> Response {
    if !door.admits(query.as_deref().unwrap_or_default()) {
        debug!(peer.address = %peer.address, "a wrapper without the key was turned away");
        let problem = fw_proto::api::Problem::new(
            fw_proto::api::Code::Forbidden,
            "wrappers must show the key of this server",
        );
        return Failure::from(problem).into_response();
    }
    ws.read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(move |socket| serve_one(door, Box::new(socket), peer))
}

impl Door {
    fn admits(&self, query: &str) -> bool {
        let Some(key) = &self.key else { return true };
        let shown = query.split('&').find_map(|pair| pair.strip_prefix("key="));
        // Hashes are compared, so that the time taken tells nothing of the key.
        shown.is_some_and(|shown| <[u8; 32]>::from(Sha256::digest(shown)) == *key)
    }
}

struct Connection {
    door: Door,
    socket: Box<WebSocket>,
    wire: Wire,
    say: ToWire,
    /// Whose task it spoke of last: nearly always the same one.
    last: Option<Owned>,
    /// Tasks that it spoke of.
    spoke: BTreeSet<(HostId, RunId)>,
}

/// A task by the words of its wrapper, and who owns it.
struct Owned {
    instance: String,
    machine: String,
    run: RunId,
    host: HostId,
    minion: mpsc::Sender<Event>,
}

impl Owned {
    fn is_of(&self, message: &Message) -> bool {
        self.instance == message.instance
            && self.machine == message.machine
            && !self.minion.is_closed()
    }
}

/// Serves one connection until it ends.
///
/// There are thousands of these futures, nearly all of them idle. Whatever one does is boxed, so that an
/// idle one is not as large as the longest way through it.
async fn serve_one(door: Door, socket: Box<WebSocket>, peer: Peer) {
    let wire = NEXT_WIRE.fetch_add(1, Ordering::Relaxed);
    let (say, said) = mpsc::channel(OUTBOX);
    let mut connection =
        Box::new(Connection { door, socket, wire, say, last: None, spoke: BTreeSet::new() });
    if let Err(error) = connection.run(said).await {
        debug!(peer.address = %peer.address, %error, "connection of a wrapper ended");
    }
    Box::pin(connection.forget()).await;
}

impl Connection {
    async fn run(&mut self, mut said: mpsc::Receiver<Say>) -> Result<(), axum::Error> {
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.reset();
        loop {
            tokio::select! {
                Some(say) = said.recv() => match say {
                    Say::Reply(reply) => Box::pin(self.reply(&reply)).await?,
                    Say::Close => return Box::pin(self.send(Frame::Close(None))).await,
                },
                frame = self.socket.recv() => match frame.transpose()? {
                    Some(Frame::Text(text)) => Box::pin(self.hear(text.as_bytes())).await?,
                    Some(Frame::Binary(bytes)) => Box::pin(self.hear(&bytes)).await?,
                    Some(Frame::Ping(_) | Frame::Pong(_)) => {}
                    Some(Frame::Close(_)) | None => return Ok(()),
                },
                _ = ping.tick() => {
                    Box::pin(self.send(Frame::Ping(axum::body::Bytes::new()))).await?;
                }
            }
        }
    }

    /// Passes a message on. Whoever owns its task answers, unless nobody does.
    async fn hear(&mut self, json: &[u8]) -> Result<(), axum::Error> {
        let Some(message) = message::read(json) else { return Ok(()) };
        if !self.last.as_ref().is_some_and(|last| last.is_of(&message)) {
            self.last = self.whose(&message);
        }
        let Some(Owned { run, host, minion, .. }) = &self.last else {
            return self.answer_stranger(&message).await;
        };
        if self.spoke.len() < TASKS {
            self.spoke.insert((*host, *run));
        }
        let word = Word { wire: self.wire, say: self.say.clone(), run: *run, message };
        // When the owner has gone, the wrapper comes again.
        drop(minion.send(Event::Said(Box::new(word))).await);
        Ok(())
    }

    fn whose(&self, message: &Message) -> Option<Owned> {
        let run = self.door.names.run(&message.instance)?;
        let minions = self.door.minions.borrow();
        let (host, minion) = minions.of(&message.machine)?;
        let (instance, machine) = (message.instance.clone(), message.machine.clone());
        Some(Owned { instance, machine, run, host, minion: minion.clone() })
    }

    async fn answer_stranger(&mut self, message: &Message) -> Result<(), axum::Error> {
        for reply in stranger(message, false) {
            self.reply(&reply).await?;
            if reply == Reply::NOT_FOUND {
                self.send(Frame::Close(None)).await?;
            }
        }
        Ok(())
    }

    async fn reply(&mut self, reply: &Reply) -> Result<(), axum::Error> {
        let text = reply.json(self.door.clock.now());
        self.send(Frame::Text(text.into())).await
    }

    async fn send(&mut self, frame: Frame) -> Result<(), axum::Error> {
        let sent = tokio::time::timeout(SEND, self.socket.send(frame)).await;
        sent.unwrap_or_else(|late| Err(axum::Error::new(late)))
    }

    /// Tells the owners of its tasks that it is gone.
    async fn forget(self) {
        for (host, run) in self.spoke {
            let minion = self.door.minions.borrow().with(host).cloned();
            if let Some(minion) = minion {
                drop(minion.send(Event::Gone { wire: self.wire, run }).await);
            }
        }
    }
}
