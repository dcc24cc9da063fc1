//! Which minions there are: asked of Salt every minute, and their grains now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fw_proto::frame::MAX_FACTS;
use fw_proto::{HostId, HostName, Span};
use fw_rt::Tasks;
use fw_rt::noise::Keypair;
use fw_store::{Enrolled, Enrolment, HostRow, Invite};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::call;
use super::minion::{self, Event, Left, Minion, Minions, Shared};
use super::{LABEL, RETIRING, SALT, is_minion};
use crate::problem::Chain;

/// How often minions are asked whether they are there.
const EVERY: Duration = Duration::from_secs(60);

/// Of so many looks one asks for grains, too; so does one that finds a new minion.
const GRAINS_EVERY: u32 = 10;

/// Seconds that Salt waits for minions to answer.
const WAIT: &str = "20";

/// Its own invitation is used at once.
const INVITED_FOR: Span = Span::from_secs(60);

/// Under which `/readyz` says that Salt cannot be asked.
const TOPIC: &str = "salt";

/// What a wrapper may call its machine beside the minion's id.
const NAMES: [&str; 3] = ["fqdn", "nodename", "host"];

/// Looks for minions.
pub(super) struct Discovery {
    shared: Shared,
    salt: PathBuf,
    minions: watch::Sender<Arc<Minions>>,
    tasks: Tasks,
    looks: u32,
    trouble: Option<String>,
    /// Minions that cannot be hosts, as that was told.
    told: BTreeSet<String>,
}

impl Discovery {
    pub(super) fn new(
        shared: Shared,
        salt: PathBuf,
        minions: watch::Sender<Arc<Minions>>,
        tasks: Tasks,
    ) -> Self {
        Self { shared, salt, minions, tasks, looks: 0, trouble: None, told: BTreeSet::new() }
    }

    pub(super) async fn run(mut self, mut left: BTreeMap<HostId, Vec<Left>>) {
        for row in self.known() {
            let left = left.remove(&row.id).unwrap_or_default();
            self.take_in(&row, left);
        }
        self.name_machines();
        loop {
            let begun = Instant::now();
            self.look().await;
            if self.wait(begun + EVERY).await.is_none() {
                return;
            }
        }
    }

    /// Waits for the next look; meanwhile tells minions to make room. `None` when the server is stopping.
    async fn wait(&self, until: Instant) -> Option<()> {
        let mut changes = self.shared.app.live.hosts();
        let mut changed = self.known();
        loop {
            for row in changed {
                if row.labels.get(LABEL).is_some_and(|label| label == RETIRING) {
                    self.tell(row.id, Event::Retire).await;
                }
            }
            changed = tokio::select! {
                () = tokio::time::sleep_until(until) => return Some(()),
                change = changes.recv() => match change {
                    Ok(host) => self.shared.app.store.host(host).into_iter().collect(),
                    Err(RecvError::Lagged(_)) => self.known(),
                    Err(RecvError::Closed) => return None,
                },
            };
        }
    }

    async fn look(&mut self) {
        let answers = self.ask("test.ping").await;
        let Some(answers) = self.heard(answers) else { return };
        let up =
            |(minion, answer): (String, Value)| (answer == Value::Bool(true)).then_some(minion);
        let up: BTreeSet<String> = answers.into_iter().filter_map(up).collect();
        let mut new = false;
        for minion in &up {
            new |= self.enrol(minion).await;
        }
        if new || self.looks.is_multiple_of(GRAINS_EVERY) {
            let grains = self.ask("grains.items").await;
            for (minion, grains) in self.heard(grains).unwrap_or_default() {
                self.keep_grains(&minion, grains).await;
            }
        }
        self.looks = self.looks.wrapping_add(1);
        self.name_machines();
        for row in self.known() {
            let event = match up.contains(row.name.as_str()) {
                true => Event::Here(version(&row)),
                false => Event::Away,
            };
            self.tell(row.id, event).await;
        }
    }

    async fn ask(&self, function: &str) -> Result<BTreeMap<String, Value>, call::Error> {
        let mut answers = BTreeMap::new();
        let arguments = ["--static", "-t", WAIT, "*", function].map(OsString::from).into();
        call::salt(&self.salt, arguments, |minion, answer| {
            answers.insert(minion, answer);
        })
        .await?;
        Ok(answers)
    }

    /// Reports once that Salt cannot be asked, and takes that back.
    fn heard(
        &mut self,
        answers: Result<BTreeMap<String, Value>, call::Error>,
    ) -> Option<BTreeMap<String, Value>> {
        let health = &self.shared.app.health;
        match answers {
            Ok(answers) => {
                if self.trouble.take().is_some() {
                    health.clear(TOPIC);
                    info!("salt answers again");
                }
                Some(answers)
            }
            Err(error) => {
                let trouble = format!("salt cannot be asked for its minions: {}", Chain(&error));
                if self.trouble.as_ref() != Some(&trouble) {
                    warn!("{trouble}");
                    health.report(TOPIC, trouble.as_str());
                    self.trouble = Some(trouble);
                }
                None
            }
        }
    }

    fn known(&self) -> Vec<Arc<HostRow>> {
        let rows = self.shared.app.store.hosts();
        rows.iter().filter(|row| is_minion(row)).cloned().collect()
    }

    async fn tell(&self, host: HostId, event: Event) {
        let inbox = self.minions.borrow().with(host).cloned();
        if let Some(inbox) = inbox {
            // One that has just retired hears it no more.
            drop(inbox.send(event).await);
        }
    }

    /// Makes a host of a minion that is none yet; whether it did.
    async fn enrol(&mut self, minion: &str) -> bool {
        let store = &self.shared.app.store;
        let name: HostName = match minion.parse() {
            Ok(name) => name,
            Err(error) => {
                if self.told.insert(minion.to_owned()) {
                    warn!(minion, "a minion cannot be a host: {error}");
                }
                return false;
            }
        };
        if let Some(row) = store.host_named(&name) {
            let new = is_minion(&row) && self.minions.borrow().with(row.id).is_none();
            if new {
                self.take_in(&row, Vec::new());
            }
            return new;
        }
        match self.add(name).await {
            Ok(Some(row)) => {
                info!(host.id = %row.id, host.name = %row.name, "minion of Salt is a host now");
                self.take_in(&row, Vec::new());
                self.shared.app.live.host_changed(row.id);
                true
            }
            Ok(None) => false,
            Err(error) => {
                warn!(minion, error = &error as &dyn std::error::Error, "a minion is no host yet");
                false
            }
        }
    }

    /// Enrols it with a key whose private half nobody keeps, so that no agent can be it.
    async fn add(&self, name: HostName) -> Result<Option<HostRow>, fw_store::Error> {
        let app = &self.shared.app;
        let (secret, at): ([u8; 32], _) = (rand::random(), app.clock.now());
        let secret_sha256 = Sha256::digest(secret).into();
        let Ok(pair) = Keypair::generate() else { return Ok(None) };
        let invite = Invite {
            secret_sha256,
            uses: 1,
            expires_at: at + INVITED_FOR,
            labels: [(LABEL.to_owned(), SALT.to_owned())].into(),
            by: "salt".to_owned(),
        };
        app.store.invite(invite).await?;
        let id = HostId(Uuid::now_v7());
        let enrolment = Enrolment { secret_sha256, name, key: pair.public, id, at };
        Ok(match app.store.enrol(enrolment).await? {
            Enrolled::Done(row) => Some(row),
            Enrolled::NameTaken | Enrolled::BadInvitation | Enrolled::KeyRefused(_) => None,
        })
    }

    fn take_in(&self, row: &HostRow, left: Vec<Left>) {
        let (own, inbox) = mpsc::channel(minion::INBOX);
        let shared = self.shared.clone();
        let minion = Minion::new(shared, row.id, row.name.clone(), own.clone(), inbox);
        self.minions.send_modify(|minions| Arc::make_mut(minions).add(row.id, own));
        self.tasks.spawn("salt minion", minion.run(left));
    }

    async fn keep_grains(&self, minion: &str, grains: Value) {
        let app = &self.shared.app;
        let (Ok(name), Value::Object(grains)) = (minion.parse::<HostName>(), grains) else {
            return;
        };
        let Some(row) = app.store.host_named(&name).filter(|row| is_minion(row)) else { return };
        if row.facts == grains {
            return;
        }
        let length = serde_json::to_string(&grains).map_or(0, |json| json.len());
        if length > MAX_FACTS {
            warn!(host.name = minion, "grains of {length} bytes are more than a host may have");
            return;
        }
        match app.store.set_facts(row.id, grains).await {
            Ok(_) => app.live.host_changed(row.id),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "grains were not kept");
            }
        }
    }

    /// Wrappers call their machine by its full name, which need not be the minion's id.
    fn name_machines(&self) {
        let rows = self.known();
        let mut names: BTreeMap<String, HostId> = BTreeMap::new();
        let mut twice = BTreeSet::new();
        for row in &rows {
            let said = NAMES.iter().filter_map(|name| row.facts.get(*name)?.as_str());
            for name in said.collect::<BTreeSet<_>>() {
                if names.insert(name.to_owned(), row.id).is_some() {
                    twice.insert(name.to_owned());
                }
            }
        }
        names.retain(|name, _| !twice.contains(name));
        names.extend(rows.iter().map(|row| (row.name.to_string(), row.id)));
        self.minions.send_modify(|minions| Arc::make_mut(minions).name(names));
    }
}

fn version(row: &HostRow) -> Arc<str> {
    let version = row.facts.get("saltversion").and_then(Value::as_str);
    version.map_or_else(|| "salt".into(), |version| format!("salt {version}").into())
}
