//! The agent's side of its link: what the server says, and what is said to it.

use std::sync::OnceLock;
use std::time::Duration;

use fw_core::link::agent::{Link, Output};
use fw_core::tasks::{Effect, Table};
use fw_proto::frame::{
    self, Decoded, Denied, DeniedReason, Facts, FromAgent, FromServer, Hello, PolicyMode, Report,
    Start, Welcome,
};
use fw_proto::{PublicKey, Span, Timestamp};
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

/// Reports in one frame: each is at most little more than its text, so they fill a third of it.
const REPORTS: usize = 256;

/// A host that was refused for good asks again this often, should someone have let it in again.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// No server keeps a host away for longer.
const MOST_PAUSE: Duration = Duration::from_secs(600);

impl Agent {
    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Up(outbox) => self.greet(outbox),
            Event::Frame(bytes) => self.frame(&bytes),
            Event::Facts(json) => self.tell_facts(json),
            Event::Down(why, pause) => {
                let why = self.refused.take().unwrap_or(why);
                if self.link.take().is_some() {
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
        let hello = hello(&self.state_dir, &self.table, policy.policy.mode);
        let (link, greeting) = Link::open(hello, None, self.clock.now());
        self.links += 1;
        self.readers.clear();
        self.troubles.clear();
        self.due.clear();
        self.untold.clear();
        self.rekeying = None;
        self.link = Some((link, outbox));
        self.send(&greeting);
    }

    pub(super) fn frame(&mut self, bytes: &[u8]) {
        let frame = match frame::decode::<FromServer>(bytes) {
            Ok(Decoded::Frame(frame)) => frame,
            Ok(Decoded::Unknown) => return debug!("a frame of a later version was skipped"),
            Err(error) => {
                warn!("the server broke the protocol: {error}");
                return self.drop_link();
            }
        };
        let now = self.clock.now();
        let Some((link, _)) = &mut self.link else { return };
        for output in link.frame(frame, now) {
            self.output(output, now);
        }
    }

    pub(super) fn output(&mut self, output: Output, now: Timestamp) {
        let effects: Vec<Effect> = match output {
            Output::Send(frame) => return self.send(&frame),
            Output::Welcomed(welcome) => return self.welcomed(&welcome, now),
            Output::Denied(denied) => return self.denied(&denied),
            Output::Start(starts) => starts
                .into_iter()
                .flat_map(|start| self.table.start(bounded(start, self.options.spool_bytes), now))
                .collect(),
            Output::Cancel(keys) => {
                keys.into_iter().flat_map(|key| self.table.cancel(key, now)).collect()
            }
            Output::Query(keys) => {
                keys.into_iter().map(|key| Effect::Report(self.table.query(key))).collect()
            }
            Output::Settled(keys) => {
                keys.into_iter().filter_map(|key| self.table.settled(key)).collect()
            }
            Output::Durable(ack) => {
                if let Err(error) = self.spool.trim(ack.key, ack.durable) {
                    debug!(task.key = %ack.key, "spool was not trimmed: {error}");
                }
                // The server may have gone back, and the end must be told again.
                self.due.insert(ack.key);
                return;
            }
            Output::Pin(keys) => return self.pin(keys),
            Output::Rekeyed(key) => return self.rekeyed(key),
            Output::Close => return self.drop_link(),
        };
        self.perform(effects);
    }

    fn welcomed(&mut self, welcome: &Welcome, now: Timestamp) {
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
        if !self.facts.is_empty() {
            self.send(&FromAgent::Facts(Facts { json: self.facts.clone() }));
        }
        let untold = std::mem::take(&mut self.untold);
        self.tell(untold.into_iter().map(|key| self.table.query(key)).collect());
        self.due.extend(self.table.with_output().map(|(key, _)| key));
        self.write_status();
    }

    fn denied(&mut self, denied: &Denied) {
        warn!("the server refuses this host: {}", denied.message);
        self.status.down(denied.message.clone());
        self.refused = Some(denied.message.clone());
        // The server may have recorded the next key just before the link was lost.
        let retry = denied.reason == DeniedReason::UnknownKey && self.next_key().is_some();
        if retry {
            self.promote_next_key();
        }
        self.pause = if retry { Duration::ZERO } else { pause(denied) };
    }

    fn pin(&mut self, keys: Vec<PublicKey>) {
        if keys.is_empty() || keys == self.identity.server_keys {
            return;
        }
        info!("the server has {} keys now", keys.len());
        self.identity.server_keys.clone_from(&keys);
        self.keep_identity();
        self.redial.send_modify(|redial| redial.keys = keys);
    }

    /// Asks for the next key to be recorded, once a link.
    pub(super) fn rekey(&mut self) {
        let live = self.link.as_ref().is_some_and(|(link, _)| link.is_live());
        if let (true, None, Some(next)) = (live, self.rekeying, self.next_key()) {
            self.rekeying = Some(next);
            self.send(&FromAgent::Rekey(next));
        }
    }

    fn next_key(&self) -> Option<PublicKey> {
        let next = self.state_dir.next_key().inspect_err(|error| warn!("{}", chain(error)));
        next.ok().flatten().map(|private| Keypair::from_private(private).public)
    }

    fn rekeyed(&mut self, key: PublicKey) {
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

    /// Keeps facts that have changed, and tells them.
    fn tell_facts(&mut self, json: String) {
        if json != self.facts {
            self.facts = json;
            self.send(&FromAgent::Facts(Facts { json: self.facts.clone() }));
        }
    }

    /// Tells reports in few frames. On a link that is not live yet they wait for that; where there
    /// is none, the next greeting tells.
    pub(super) fn tell(&mut self, reports: Vec<Report>) {
        match &self.link {
            None => {}
            Some((link, _)) if !link.is_live() => {
                self.untold.extend(reports.into_iter().map(|report| report.key));
            }
            Some(_) => reports
                .chunks(REPORTS)
                .for_each(|some| self.send(&FromAgent::Reports(some.to_vec()))),
        }
    }

    pub(super) fn send(&mut self, frame: &FromAgent<'_>) {
        let Some((link, outbox)) = &self.link else { return };
        let greeting = matches!(frame, FromAgent::Hello(_) | FromAgent::Pong(_));
        if !link.is_live() && !greeting {
            return;
        }
        if outbox.try_send(frame::encode(frame)).is_err() {
            warn!("the server takes no frames; linking anew");
            self.drop_link();
        }
    }

    pub(super) fn drop_link(&mut self) {
        self.link = None;
        self.redial.send_modify(|redial| redial.dropped += 1);
    }
}

fn bounded(mut start: Start, spool_bytes: u64) -> Start {
    start.spec.spool_bytes = start.spec.spool_bytes.min(spool_bytes);
    start
}

/// Tells this process from another one that holds the same key.
fn instance() -> &'static str {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    INSTANCE.get_or_init(|| Uuid::now_v7().to_string())
}

pub(crate) fn hello(state_dir: &StateDir, table: &Table, policy: PolicyMode) -> Hello {
    Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: (*fw_proto::PROTOCOL.start(), *fw_proto::PROTOCOL.end()),
        machine_id: state_dir.machine_id().unwrap_or_default(),
        boot_id: boot_id(),
        tasks: table.digest(),
        policy,
        epoch: table.epoch(),
        instance: instance().to_owned(),
    }
}

/// How long a server that says this wants to be left alone.
fn pause(denied: &Denied) -> Duration {
    let asked = denied.retry_after.map_or(Duration::ZERO, Span::duration).min(MOST_PAUSE);
    match denied.reason {
        DeniedReason::Busy | DeniedReason::Superseded => asked,
        DeniedReason::UnknownKey
        | DeniedReason::Revoked
        | DeniedReason::Duplicate
        | DeniedReason::Invitation
        | DeniedReason::NameTaken
        | DeniedReason::NameInvalid
        | DeniedReason::Protocol
        | DeniedReason::Malformed => asked.max(REFUSED_PAUSE),
    }
}
