//! The agent's side of its link: what the server says, and what is said to it.

use std::sync::OnceLock;
use std::time::Duration;

use fw_proto::frame::{
    self, Decoded, Denied, DeniedReason, FromAgent, FromServer, Hello, PolicyMode, Welcome,
};
use fw_proto::{Epoch, PublicKey, Span};
use fw_rt::noise::Keypair;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Agent, chain};
use crate::dial::Event;
use crate::identity::{StateDir, boot_id};
use crate::policy;

/// A clock that is off by more is worth a warning.
const SKEW: Span = Span::from_secs(60);

impl Agent {
    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Up(outbox) => self.greet(outbox),
            Event::Frame(bytes) => self.frame(&bytes),
            Event::Facts(json) => {
                let told = self.core.facts(json);
                self.perform(told);
            }
            Event::Down(why, pause) => {
                let why = self.refused.take().unwrap_or(why);
                self.outbox = None;
                if self.core.down() {
                    warn!("link to the server is down: {why}");
                } else if self.status.last_error.as_ref() == Some(&why) {
                    debug!("still no link to the server: {why}");
                } else {
                    warn!("no link to the server: {why}");
                }
                self.status.down(why);
                self.write_status();
                // A dialer that is gone needs no answer.
                let _ = pause.send(self.pause);
            }
        }
    }

    pub(super) fn greet(&mut self, outbox: mpsc::Sender<Vec<u8>>) {
        let policy = policy::load(self.options.policy.as_deref());
        let hello = hello(&self.state_dir, policy.policy.mode);
        let greeting = self.core.greet(hello, self.now());
        self.readers.clear();
        self.outbox = Some(outbox);
        self.send(&greeting);
    }

    fn frame(&mut self, bytes: &[u8]) {
        let frame = match frame::decode::<FromServer>(bytes) {
            Ok(Decoded::Frame(frame)) => frame,
            Ok(Decoded::Unknown) => return debug!("a frame of a later version was skipped"),
            Err(error) => {
                warn!("the server broke the protocol: {error}");
                return self.drop_link();
            }
        };
        let effects = self.core.frame(frame, self.now());
        self.perform(effects);
    }

    pub(super) fn welcomed(&mut self, welcome: &Welcome) {
        let now = self.clock.now();
        let skew = now.since(welcome.now).as_millis().max(welcome.now.since(now).as_millis());
        if skew > SKEW.as_millis() {
            warn!(
                "this host's clock and the server's are {} apart: starts may be refused as late",
                Span::from_millis(skew)
            );
        }
        info!(host.name = %welcome.name, "linked to {}", self.identity.server);
        self.status.up(now, skew);
        self.pause = Duration::ZERO;
        if welcome.name != self.identity.name || welcome.host != self.identity.host {
            self.identity.name = welcome.name.clone();
            self.identity.host = welcome.host;
            self.keep_identity();
        }
        self.write_status();
    }

    pub(super) fn denied(&mut self, denied: &Denied, pause: Span) {
        warn!("the server refuses this host: {}", denied.message);
        self.status.down(denied.message.clone());
        self.refused = Some(denied.message.clone());
        // The server may have recorded the next key just before the link was lost.
        let retry = denied.reason == DeniedReason::UnknownKey && self.next_key().is_some();
        if retry {
            self.promote_next_key();
        }
        self.pause = if retry { Duration::ZERO } else { pause.duration() };
    }

    pub(super) fn pin(&mut self, keys: Vec<PublicKey>) {
        if keys.is_empty() || keys == self.identity.server_keys {
            return;
        }
        info!("the server has {} keys now", keys.len());
        self.identity.server_keys.clone_from(&keys);
        self.keep_identity();
        self.redial.send_modify(|redial| redial.keys = keys);
    }

    /// Asks for the next key to be recorded, when there is one.
    pub(super) fn rekey(&mut self) {
        if self.core.is_live()
            && let Some(next) = self.next_key()
        {
            let asked = self.core.rekey(next);
            self.perform(asked);
        }
    }

    fn next_key(&self) -> Option<PublicKey> {
        let next = self.state_dir.next_key().inspect_err(|error| warn!("{}", chain(error)));
        next.ok().flatten().map(|private| Keypair::from_private(private).public)
    }

    pub(super) fn rekeyed(&mut self, key: PublicKey) {
        if self.next_key() == Some(key) {
            self.promote_next_key();
            self.drop_link();
        }
    }

    fn promote_next_key(&self) {
        match self.state_dir.promote_next_key() {
            Ok(()) => info!("this host has a new key"),
            Err(error) => warn!("the new key could not be taken up: {}", chain(&error)),
        }
    }

    fn keep_identity(&self) {
        if let Err(error) = self.state_dir.set_identity(&self.identity) {
            warn!("identity could not be kept: {error}");
        }
    }

    pub(super) fn send(&mut self, frame: &FromAgent<'_>) {
        let Some(outbox) = &self.outbox else { return };
        if outbox.try_send(frame::encode(frame)).is_err() {
            warn!("the server takes no frames; linking anew");
            self.drop_link();
        }
    }

    pub(super) fn drop_link(&mut self) {
        self.core.down();
        self.outbox = None;
        self.redial.send_modify(|redial| redial.dropped += 1);
    }
}

/// Tells this process from another one that holds the same key.
fn instance() -> &'static str {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    INSTANCE.get_or_init(|| Uuid::now_v7().to_string())
}

/// How this host greets; what it remembers of tasks is filled in by who decides.
pub(crate) fn hello(state_dir: &StateDir, policy: PolicyMode) -> Hello {
    Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: (*fw_proto::PROTOCOL.start(), *fw_proto::PROTOCOL.end()),
        machine_id: state_dir.machine_id().unwrap_or_default(),
        boot_id: boot_id(),
        tasks: Vec::new(),
        policy,
        epoch: Epoch(0),
        instance: instance().to_owned(),
    }
}
