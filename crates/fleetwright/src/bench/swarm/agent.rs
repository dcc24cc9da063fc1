//! One simulated agent: links, takes starts, and says that commands have run. Its disk is memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use fw_agent::connect::{self, Connection, Receiver, Route, Sender};
use fw_core::agent::{self, Effect, Now, Ship};
use fw_proto::frame::{
    self, Cause, Decoded, Ended, FromAgent, FromServer, Hello, JoinRequest, PolicyMode, Spec,
    Welcome,
};
use fw_proto::{Epoch, TaskKey};
use fw_rt::noise::Keypair;
use tokio::sync::SemaphorePermit;

use super::spool::Output;
use super::{Swarm, address};

/// Tasks at once: they end as soon as they begin.
const MAX_TASKS: usize = 64;

/// How often an agent looks at the time. A real one does so every second, for its supervisors.
const TICK: Duration = Duration::from_secs(10);

/// A simulated agent.
pub(super) struct Agent {
    swarm: Arc<Swarm>,
    number: u32,
    key: Keypair,
    core: agent::Agent,
    /// The output of tasks that are not settled.
    spool: BTreeMap<TaskKey, Arc<Output>>,
    joined: bool,
    /// How long a server that refuses wants to be left alone.
    pause: Duration,
}

/// A link has ended.
struct Gone;

impl Agent {
    /// A host that nobody knows yet.
    pub(super) fn new(swarm: Arc<Swarm>, number: u32) -> anyhow::Result<Self> {
        let key = Keypair::generate().context("make a key")?;
        let core = agent::Agent::new(MAX_TASKS, u64::MAX, Epoch(0));
        Ok(Self {
            swarm,
            number,
            key,
            core,
            spool: BTreeMap::new(),
            joined: false,
            pause: Duration::ZERO,
        })
    }

    fn now(&self) -> Now {
        Now { wall: self.swarm.clock.now(), steady: self.swarm.clock.steady() }
    }

    /// Dials, serves, waits, and begins anew.
    pub(super) async fn run(mut self) {
        let mut backoff = connect::pauses();
        let swarm = Arc::clone(&self.swarm);
        loop {
            // Held until the host is in.
            let turn = if self.joined { None } else { swarm.first_time.acquire().await.ok() };
            let begun = tokio::time::Instant::now();
            if let Some(connection) = self.connect().await {
                // The link's end is why this goes on.
                self.serve(connection, turn).await.ok();
                if self.core.is_live() {
                    self.swarm.down();
                }
                self.core.down();
            }
            if begun.elapsed() > connect::LONGEST_PAUSE {
                backoff.reset();
            }
            tokio::time::sleep(self.pause + backoff.next_wait()).await;
        }
    }

    async fn connect(&mut self) -> Option<Connection> {
        self.swarm.dials();
        let (url, key) = (&self.swarm.join.url, &self.swarm.join.server_key);
        let route = Route { proxy: None, source: Some(address(self.number)) };
        connect::connect(url, key, &self.key, &route).await.ok()
    }

    async fn serve(
        &mut self,
        connection: Connection,
        turn: Option<SemaphorePermit<'_>>,
    ) -> Result<(), Gone> {
        let (mut sender, mut receiver) = connection.split();
        let greeting = self.greeting();
        send(&mut sender, &greeting).await?;
        self.welcomed(&mut sender, &mut receiver).await?;
        drop(turn);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                frame = receiver.recv() => self.frame(&frame.map_err(|_| Gone)?, &mut sender).await?,
                _ = tick.tick() => {
                    let effects = self.core.tick(self.now());
                    self.perform(effects, &mut sender).await?;
                }
            }
        }
    }

    /// Waits until the host is in.
    async fn welcomed(&mut self, sender: &mut Sender, receiver: &mut Receiver) -> Result<(), Gone> {
        while !self.core.is_live() {
            let frame = receiver.recv().await.map_err(|_| Gone)?;
            self.frame(&frame, sender).await?;
        }
        Ok(())
    }

    fn greeting(&mut self) -> FromAgent<'static> {
        let name = format!("{}{:05}", self.swarm.prefix, self.number);
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: (*fw_proto::PROTOCOL.start(), *fw_proto::PROTOCOL.end()),
            machine_id: name.clone(),
            boot_id: "simulated".to_owned(),
            tasks: Vec::new(),
            policy: PolicyMode::Operate,
            epoch: Epoch(0),
            instance: name.clone(),
        };
        let greeting = self.core.greet(hello, self.now());
        if let (false, FromAgent::Hello(hello)) = (self.joined, &greeting) {
            let (secret, hello) = (self.swarm.join.secret.clone(), hello.clone());
            return FromAgent::Join(JoinRequest { secret, name, hello });
        }
        greeting
    }

    async fn frame(&mut self, bytes: &[u8], sender: &mut Sender) -> Result<(), Gone> {
        let Ok(Decoded::Frame(frame)) = frame::decode::<FromServer>(bytes) else { return Ok(()) };
        let effects = self.core.frame(frame, self.now());
        self.perform(effects, sender).await?;
        self.ship(sender).await
    }

    async fn perform(&mut self, effects: Vec<Effect>, sender: &mut Sender) -> Result<(), Gone> {
        let mut todo = VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Send(frame) => send(sender, &frame).await?,
                Effect::Journal { key, .. } => todo.extend(self.core.journaled(key)),
                Effect::Spawn { key, spec } => todo.extend(self.spawn(key, &spec)),
                Effect::Kill(key) => self.core.told_to_end(key),
                Effect::Forget(key) => drop(self.spool.remove(&key)),
                Effect::Welcomed(welcome) => {
                    self.joined = true;
                    todo.extend(self.core.facts(self.facts(&welcome)));
                    self.pause = Duration::ZERO;
                    self.swarm.up();
                }
                Effect::Denied { denied, pause } => {
                    self.pause = pause.duration();
                    if !matches!(
                        denied.reason,
                        frame::DeniedReason::Busy | frame::DeniedReason::Superseded
                    ) {
                        self.swarm.refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Effect::Close => return Err(Gone),
                // Nothing here is ever armed, and an agent that lives in one process has nobody to tell.
                Effect::Keep(_) | Effect::Undo(_) => {}
                Effect::Epoch(_) | Effect::Trim(_) | Effect::Pin(_) | Effect::Rekeyed(_) => {}
            }
        }
        Ok(())
    }

    fn facts(&self, welcome: &Welcome) -> String {
        let mut facts = self.swarm.facts.clone();
        facts.insert("id".to_owned(), welcome.host.to_string().into());
        for name in ["host", "fqdn"] {
            facts.insert(name.to_owned(), welcome.name.as_str().into());
        }
        serde_json::Value::Object(facts).to_string()
    }

    /// The command begins and has ended.
    fn spawn(&mut self, key: TaskKey, spec: &Spec) -> Vec<Effect> {
        let output = self.swarm.outputs.of(&spec.command);
        let now = self.now();
        let ended = Ended {
            cause: Cause::Exited,
            exit_code: Some(0),
            signal: None,
            started_at: now.wall,
            finished_at: now.wall,
            output: output.end(),
            stdout_sha256: None,
            stderr_sha256: None,
            left_behind: 0,
            armed: None,
        };
        self.spool.insert(key, output);
        let mut effects = self.core.started(key, now.wall);
        effects.extend(self.core.ended(key, ended, now));
        effects
    }

    async fn ship(&mut self, sender: &mut Sender) -> Result<(), Gone> {
        while let Some(ship) = self.core.ship() {
            let look = match ship {
                Ship::Sent(_, effects) => {
                    self.perform(effects, sender).await?;
                    continue;
                }
                Ship::Read(look) => look,
            };
            let output = self.spool.get(&look.key).cloned().unwrap_or_default();
            let Some(piece) = output.piece(look.from) else {
                let effects = self.core.nothing_more(&look, output.end());
                self.perform(effects, sender).await?;
                continue;
            };
            if let Some(chunk) = self.core.piece(&look, piece.to, piece.raw_len, &piece.data) {
                send(sender, &FromAgent::Chunk(chunk)).await?;
            }
        }
        Ok(())
    }
}

async fn send(sender: &mut Sender, frame: &FromAgent<'_>) -> Result<(), Gone> {
    sender.send(&frame::encode(frame)).await.map_err(|_| Gone)
}
