//! The tasks that a minion holds: what the hub wants of them, and what their talks want done.

use std::time::Duration;

use fw_proto::frame::{Ended, Refusal, RefusalReason, Report, Reported, Start};
use fw_proto::record::Offsets;
use fw_proto::{RunId, Span, TaskKey};
use tracing::warn;

use super::super::starter::{self, Claim};
use super::{Left, Minion, Stop, Task};
use crate::dialects::saltpeter::machines::door::Say;
use crate::dialects::saltpeter::machines::piece;
use crate::dialects::saltpeter::machines::talk::{End, Known, Output, Piece, Talk, Wire};
use crate::live::LogChange;
use crate::metrics::CHUNK_BYTES;

/// A wrapper tries for at most three and a half minutes to say that its command has ended.
const REMEMBERED: Span = Span::from_secs(10 * 60);

/// After an error of the store, so long until the next try.
const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Minion {
    pub(super) fn task(&self, key: TaskKey) -> Option<&Task> {
        self.tasks.get(&key.run).filter(|task| task.key == key)
    }

    pub(super) async fn start(&mut self, start: Start) -> Result<(), Stop> {
        let (key, now) = (start.key, self.shared.now());
        if let Some(task) = self.task(key) {
            let state = task.said.clone();
            return self.report(key, state).await;
        }
        if now.at > start.not_after {
            return self.refuse(key, RefusalReason::Expired, "it came too late").await;
        }
        if !start.spec.secrets.is_empty() {
            let why = "a host behind Salt cannot keep a secret: install the agent on it";
            return self.refuse(key, RefusalReason::Policy, why).await;
        }
        let claim = Claim::default();
        let wanted = starter::Wanted {
            key,
            minion: self.name.to_string(),
            spec: start.spec,
            claim: claim.clone(),
            inbox: self.own.clone(),
        };
        let timeout = wanted.spec.timeout;
        let talk = Talk::begin(timeout, now);
        let said = Reported::Queued;
        let task =
            Task { key, talk, durable: Offsets::default(), said: said.clone(), claim, until: None };
        self.tasks.insert(key.run, task);
        self.report(key, said).await?;
        // It is told before it is wanted: only what the store has as queued is started.
        self.shared.starter.send(wanted).await.map_err(|_| Stop::Stopping)
    }

    pub(super) async fn cancel(&mut self, key: TaskKey) -> Result<(), Stop> {
        let now = self.shared.now();
        let Some(task) = self.tasks.get_mut(&key.run).filter(|task| task.key == key) else {
            return Ok(());
        };
        if task.talk.started_at().is_none() && task.claim.forbid() {
            self.tasks.remove(&key.run);
            return self
                .refuse(key, RefusalReason::Cancelled, "cancelled before it was started")
                .await;
        }
        let outputs = task.talk.cancel(now);
        self.perform(key.run, outputs).await
    }

    pub(super) async fn settled(&mut self, key: TaskKey) -> Result<(), Stop> {
        let steady = self.shared.app.clock.steady();
        let Some(task) = self.tasks.get_mut(&key.run).filter(|task| task.key == key) else {
            return Ok(());
        };
        task.until.get_or_insert(steady + REMEMBERED);
        let outputs = task.talk.settled();
        self.perform(key.run, outputs).await
    }

    async fn refuse(&self, key: TaskKey, reason: RefusalReason, why: &str) -> Result<(), Stop> {
        let refusal = Refusal { reason, message: why.to_owned() };
        self.report(key, Reported::Refused(refusal)).await
    }

    pub(super) async fn report(&self, key: TaskKey, state: Reported) -> Result<(), Stop> {
        Ok(self.shared.app.hub.reports(self.host, vec![Report { key, state }]).await?)
    }

    /// Does what a talk wants done, each to its end before the next.
    pub(super) async fn perform(&mut self, run: RunId, outputs: Vec<Output>) -> Result<(), Stop> {
        for output in outputs {
            match output {
                Output::Reply(wire, reply) => self.say(wire, Say::Reply(Box::new(reply))),
                Output::Close(wire) => self.say(wire, Say::Close),
                Output::Store(piece) => self.store(run, &piece).await,
                Output::Started(at) => self.tell(run, |_| Reported::Started(at)).await?,
                Output::Ended(end) => {
                    self.tell(run, |task| Reported::Ended(ended(end, task.durable))).await?;
                }
            }
        }
        Ok(())
    }

    async fn tell(&mut self, run: RunId, said: impl FnOnce(&Task) -> Reported) -> Result<(), Stop> {
        let Some(task) = self.tasks.get_mut(&run) else { return Ok(()) };
        task.said = said(task);
        let (key, state) = (task.key, task.said.clone());
        self.report(key, state).await
    }

    /// A connection that does not take it has gone, or will come again.
    fn say(&mut self, wire: Wire, say: Say) {
        if self.wires.get(&wire).is_some_and(|to| to.try_send(say).is_err()) {
            self.wires.remove(&wire);
        }
    }

    /// Makes a piece durable, however long the store takes: until then the wrapper keeps it.
    async fn store(&mut self, run: RunId, piece: &Piece) {
        let Some(task) = self.tasks.get_mut(&run) else { return };
        let app = &self.shared.app;
        for chunk in piece::chunks(self.host, task.key, task.durable, piece) {
            let bytes = chunk.data.len() as u64;
            task.durable = loop {
                match app.store.append_chunk(chunk.clone()).await {
                    Ok(durable) => break durable,
                    Err(error @ fw_store::Error::OutOfOrder { durable }) => {
                        warn!(run.id = %run, "output of a wrapper was dropped: {error}");
                        break durable;
                    }
                    Err(error) => {
                        warn!(run.id = %run, error = &error as &dyn std::error::Error, "output of a wrapper is not stored yet");
                        tokio::time::sleep(STORE_PAUSE).await;
                    }
                }
            };
            metrics::counter!(CHUNK_BYTES).increment(bytes);
        }
        let grew = LogChange { run, host: self.host, attempt: task.key.attempt };
        app.live.log_grew(grew);
    }

    pub(super) async fn take_up(&mut self, left: Left) {
        let store = &self.shared.app.store;
        let last = loop {
            match store.last_chunk(self.host, left.key).await {
                Ok(last) => break last,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "output of a wrapper is not read yet"
                    );
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        };
        let durable = last.as_ref().map(|chunk| chunk.to).unwrap_or_default();
        let known = Known {
            started_at: left.started_at,
            mark: last.and_then(|chunk| piece::mark(&chunk.data)).unwrap_or_default(),
            bytes: durable.total(),
        };
        let now = self.shared.now();
        let mut talk = Talk::resume(left.timeout, known, now);
        if left.cancelled {
            // No wrapper is connected yet, so that there is nothing to say.
            drop(talk.cancel(now));
        }
        let said = left.started_at.map_or(Reported::Queued, Reported::Started);
        let (key, claim) = (left.key, Claim::made());
        self.tasks.insert(key.run, Task { key, talk, durable, said, claim, until: None });
    }
}

fn ended(end: End, output: Offsets) -> Ended {
    let End { cause, exit_code, signal, started_at, finished_at } = end;
    Ended {
        cause,
        exit_code,
        signal,
        started_at,
        finished_at,
        output,
        stdout_sha256: None,
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}
