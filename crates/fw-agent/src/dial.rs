//! Keeps a connection to the server, and gathers facts beside it: what must not hold up the agent.

use std::path::PathBuf;
use std::time::Duration;

use fw_proto::PublicKey;
use fw_rt::noise::Keypair;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::agent::chain;
use crate::connect::{self, Connection, Route};
use crate::facts::{self, Sources};
use crate::identity::StateDir;

/// Frames that may wait for the socket; what does not fit waits in the spool.
pub(crate) const OUTBOX: usize = 256;

/// How often facts are gathered.
const FACTS_EVERY: Duration = Duration::from_secs(600);

/// What comes to the agent from outside.
pub(crate) enum Event {
    /// A connection stands: greet on it.
    Up(mpsc::Sender<Vec<u8>>),
    /// A frame came in.
    Frame(Vec<u8>),
    /// The connection is gone, and why. To be answered with the least pause before the next.
    Down(String, oneshot::Sender<Duration>),
    /// Facts were gathered: a JSON object.
    Facts(String),
}

/// What the dialer must know from the agent.
#[derive(Debug, Clone)]
pub(crate) struct Redial {
    /// The server's keys, tried in turn.
    pub(crate) keys: Vec<PublicKey>,
    /// Counts the times that the agent has given a connection up.
    pub(crate) dropped: u64,
}

/// Where to dial.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// The server.
    pub(crate) server: String,
    /// Through this proxy.
    pub(crate) proxy: Option<String>,
    /// Where the host's key is.
    pub(crate) state_dir: StateDir,
    /// What the agent says.
    pub(crate) redial: watch::Receiver<Redial>,
}

impl Dialer {
    /// Dials, serves, waits, and begins anew, until the agent is gone.
    pub(crate) async fn run(mut self, events: mpsc::Sender<Event>) {
        let mut backoff = connect::pauses();
        let mut tries = 0;
        loop {
            let (why, lasted) = match self.connect(tries).await {
                Ok(connection) => {
                    let up = tokio::time::Instant::now();
                    let why = self.serve(connection, &events).await;
                    (why, up.elapsed())
                }
                Err(error) => {
                    tries += 1;
                    (chain(&error), Duration::ZERO)
                }
            };
            let (answer, least) = oneshot::channel();
            if events.send(Event::Down(why, answer)).await.is_err() {
                return;
            }
            // By then the agent has read what the server said last.
            let Ok(least) = least.await else { return };
            if lasted > connect::LONGEST_PAUSE {
                backoff.reset();
            }
            // On top of it, so that hosts that were sent away together do not come back so.
            tokio::time::sleep(least + backoff.next_wait()).await;
        }
    }

    async fn connect(&mut self, tries: usize) -> Result<Connection, connect::Error> {
        let keys = self.redial.borrow_and_update().keys.clone();
        let key = keys.get(tries % keys.len().max(1)).ok_or(connect::Error::Closed)?;
        let own = self.own_key().ok_or(connect::Error::Closed)?;
        let route = Route { proxy: self.proxy.as_deref(), source: None };
        connect::connect(&self.server, key, &own, &route).await
    }

    fn own_key(&self) -> Option<Keypair> {
        match self.state_dir.key() {
            Ok(key) => key.map(Keypair::from_private),
            Err(error) => {
                warn!("the host's key cannot be read: {}", chain(&error));
                None
            }
        }
    }

    /// Carries frames between the socket and the agent until either ends; says why it ended.
    async fn serve(&mut self, connection: Connection, events: &mpsc::Sender<Event>) -> String {
        let (outbox, frames) = mpsc::channel(OUTBOX);
        let dropped = self.redial.borrow_and_update().dropped;
        if events.send(Event::Up(outbox)).await.is_err() {
            return "the agent is stopping".to_owned();
        }
        let given_up = self.redial.wait_for(|redial| redial.dropped != dropped);
        tokio::select! {
            _ = given_up => "given up by this agent".to_owned(),
            why = carry(connection, frames, events) => why,
        }
    }
}

async fn carry(
    connection: Connection,
    mut frames: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<Event>,
) -> String {
    let (mut sender, mut receiver) = connection.split();
    let out = async {
        while let Some(frame) = frames.recv().await {
            if let Err(error) = sender.send(&frame).await {
                return chain(&error);
            }
        }
        "given up by this agent".to_owned()
    };
    let back = async {
        loop {
            match receiver.recv().await {
                Ok(frame) => {
                    if events.send(Event::Frame(frame)).await.is_err() {
                        return "the agent is stopping".to_owned();
                    }
                }
                Err(error) => return chain(&error),
            }
        }
    };
    tokio::select! { why = out => why, why = back => why }
}

/// Gathers facts now and then. Executables among them may take seconds.
pub(crate) async fn gather(id: String, dir: Option<PathBuf>, events: mpsc::Sender<Event>) {
    let mut every = tokio::time::interval(FACTS_EVERY);
    let mut told = Vec::new();
    loop {
        every.tick().await;
        let sources = Sources { id: id.clone(), roles: Vec::new(), dir: dir.clone() };
        let Ok(gathered) = tokio::task::spawn_blocking(move || facts::gather(&sources)).await
        else {
            continue;
        };
        if gathered.problems != told {
            gathered.problems.iter().for_each(|problem| warn!("custom fact: {problem}"));
            told = gathered.problems;
        }
        let json = serde_json::Value::Object(gathered.facts).to_string();
        if events.send(Event::Facts(json)).await.is_err() {
            return;
        }
    }
}
