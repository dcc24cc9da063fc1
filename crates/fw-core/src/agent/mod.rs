//! What an agent decides: a table of tasks, a link, and what holds the two together.
//!
//! Calls in, [`Effect`]s out. What may wait for a disk (journal, supervisors, reads of the spool)
//! is the shell's: it answers with a further call. The same struct drives a real host, the hosts
//! of the simulated world, and thousands of agents in one process, so one that is idle is small.

mod ship;

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::frame::{
    Ack, Applied, Denied, DeniedReason, Ended, Facts, FromAgent, FromServer, Hello, Refusal,
    Report, Reported, Spec, Start, Welcome,
};
use fw_proto::{Epoch, PublicKey, Span, TaskKey, Timestamp};

pub use self::ship::{Look, Ship};
use crate::link::agent::{Link, Output};
use crate::tasks::{self, Found, Table};

/// Reports in one frame: each is at most little more than its text, so they fill a third of it.
const REPORTS: usize = 256;

/// A host that was refused for good asks again this often, should someone have let it in again.
const REFUSED_PAUSE: Span = Span::from_secs(60);

/// No server keeps a host away for longer.
const MOST_PAUSE: Span = Span::from_secs(600);

/// What an agent knows and decides.
#[derive(Debug)]
pub struct Agent {
    table: Table,
    link: Option<Link>,
    /// Counts links: what was begun for one is not sent on the next.
    links: u64,
    /// Changed between greeting and welcome, hence in neither.
    untold: BTreeSet<TaskKey>,
    /// Tasks to be ended whose supervisor has not been told yet.
    kills: BTreeSet<TaskKey>,
    /// Armed changes to be kept whose supervisor has not been told yet.
    keeps: BTreeSet<TaskKey>,
    /// Tasks whose output is to be looked at.
    due: BTreeSet<TaskKey>,
    /// The one of them that was looked at last.
    served: Option<TaskKey>,
    /// How often in a row a task's output could not be read.
    troubles: BTreeMap<TaskKey, u32>,
    /// JSON text; empty while nothing was gathered.
    facts: String,
    /// The key that this link's server was asked to record.
    rekeying: Option<PublicKey>,
    /// The most that one task may leave unsent on the disk.
    spool_bytes: u64,
}

/// What the host's clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The time of day, which anyone may set: whether it is too late to start a task.
    pub wall: Timestamp,
    /// A time that only goes forward, from any beginning: for how long a link was silent.
    pub steady: Timestamp,
}

/// What the shell is to do, in this order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send this. When it cannot be taken, call [`Agent::down`] and link anew.
    Send(FromAgent<'static>),
    /// Write to disk that this task may be started from now on, then call [`Agent::journaled`];
    /// [`Agent::refused`] when it could not be written.
    Journal {
        /// Which task.
        key: TaskKey,
        /// Until when its id matters, but for [`tasks::REMEMBER`].
        not_after: Timestamp,
    },
    /// Write to disk that this is the highest epoch seen.
    Epoch(Epoch),
    /// Write to disk that the task is settled, then delete its spool.
    Forget(TaskKey),
    /// Ask the policy, then start a supervisor; [`Agent::refused`] when that is not to be.
    Spawn {
        /// Which task.
        key: TaskKey,
        /// What to start.
        spec: Box<Spec>,
    },
    /// Tell the supervisor to end the task, then call [`Agent::told_to_end`]. Comes again with
    /// each [`Agent::tick`] until then.
    Kill(TaskKey),
    /// Tell the supervisor that the server's word is there: keep the change, if it proves good in time. Then call
    /// [`Agent::told_to_keep`]. Comes again with each [`Agent::tick`] until then.
    Keep(TaskKey),
    /// Start a supervisor that undoes the change of this task.
    Undo(TaskKey),
    /// So much of a task's output may leave the spool.
    Trim(Ack),
    /// The host is in: note name and clock.
    Welcomed(Welcome),
    /// The host is not in.
    Denied {
        /// Why.
        denied: Denied,
        /// How long the server wants to be left alone.
        pause: Span,
    },
    /// Pin these keys of the server.
    Pin(Vec<PublicKey>),
    /// The server knows the new key: take it up and link anew.
    Rekeyed(PublicKey),
    /// The link is given up: close it and link anew.
    Close,
}

impl Agent {
    /// An agent without tasks or link. `epoch` is the highest that its journal names,
    /// `spool_bytes` the most that one task may leave unsent on the disk.
    #[must_use]
    pub fn new(max_tasks: usize, spool_bytes: u64, epoch: Epoch) -> Self {
        Self {
            table: Table::new(max_tasks, epoch),
            link: None,
            links: 0,
            untold: BTreeSet::new(),
            kills: BTreeSet::new(),
            keeps: BTreeSet::new(),
            due: BTreeSet::new(),
            served: None,
            troubles: BTreeMap::new(),
            facts: String::new(),
            rekeying: None,
            spool_bytes,
        }
    }

    /// Remembers a settled task of the journal.
    pub fn remember(&mut self, key: TaskKey, not_after: Timestamp) {
        self.table.remember(key, not_after);
    }

    /// Takes up a task of the journal that is not settled, before the first link; whether its
    /// spool is kept. What was never started is not: the server asks again, and then it may start.
    /// `same_boot`: the machine has not been down since.
    pub fn recover(
        &mut self,
        key: TaskKey,
        not_after: Timestamp,
        found: Found,
        same_boot: bool,
    ) -> bool {
        self.table.recover(key, not_after, found, same_boot) != [tasks::Effect::Forget(key)]
    }

    /// A connection stands: what to say first. The greeting's tasks and epoch are filled in here.
    #[must_use]
    pub fn greet(&mut self, hello: Hello, now: Now) -> FromAgent<'static> {
        let hello = Hello { tasks: self.table.digest(), epoch: self.table.epoch(), ..hello };
        let (link, greeting) = Link::open(hello, None, now.steady);
        self.link = Some(link);
        self.links += 1;
        self.untold.clear();
        self.due.clear();
        self.troubles.clear();
        self.rekeying = None;
        greeting
    }

    /// A frame of the server.
    pub fn frame(&mut self, frame: FromServer, now: Now) -> Vec<Effect> {
        let Some(link) = &mut self.link else { return Vec::new() };
        let outputs = link.frame(frame, now.steady);
        outputs.into_iter().flat_map(|output| self.output(output, now)).collect()
    }

    /// The connection is gone; whether there was one.
    pub fn down(&mut self) -> bool {
        self.link.take().is_some()
    }

    /// Time has passed: to be called about once a second.
    pub fn tick(&mut self, now: Now) -> Vec<Effect> {
        self.look_for_output();
        let late = self.table.expire(now.wall);
        // Who has ended needs no end.
        self.kills.retain(|key| self.table.extent(*key) == Some(tasks::Extent::Open));
        let mut effects: Vec<_> = self.kills.iter().copied().map(Effect::Kill).collect();
        self.keeps.retain(|key| self.table.awaits_word(*key));
        effects.extend(self.keeps.iter().copied().map(Effect::Keep));
        effects.extend(self.carry(late));
        let outputs = self.link.as_mut().map(|link| link.tick(now.steady));
        for output in outputs.into_iter().flatten() {
            effects.extend(self.output(output, now));
        }
        effects
    }

    /// The task's id is on the disk.
    pub fn journaled(&mut self, key: TaskKey) -> Vec<Effect> {
        let effect = self.table.journaled(key);
        self.carry(effect)
    }

    /// The task was not started, for this reason.
    pub fn refused(&mut self, key: TaskKey, refusal: Refusal, now: Now) -> Vec<Effect> {
        let effects = self.table.refused(key, refusal, now.wall);
        self.carry(effects)
    }

    /// The task's process runs.
    pub fn started(&mut self, key: TaskKey, at: Timestamp) -> Vec<Effect> {
        let effect = self.table.started(key, at);
        self.carry(effect)
    }

    /// The task's change has succeeded, and waits for the word.
    pub fn applied(&mut self, key: TaskKey, applied: Applied) -> Vec<Effect> {
        let effect = self.table.applied(key, applied);
        self.carry(effect)
    }

    /// The task's supervisor is gone, and its change is neither kept nor undone.
    pub fn abandoned(&mut self, key: TaskKey, started_at: Timestamp) -> Vec<Effect> {
        let effect = self.table.abandoned(key, started_at);
        self.carry(effect)
    }

    /// The task's process has ended.
    pub fn ended(&mut self, key: TaskKey, ended: Ended, now: Now) -> Vec<Effect> {
        let effects = self.table.ended(key, ended, now.wall);
        self.carry(effects)
    }

    /// The task's supervisor is gone without a word; its process was started then.
    pub fn died(&mut self, key: TaskKey, started_at: Timestamp, now: Now) -> Vec<Effect> {
        let effects = self.table.died(key, started_at, now.wall);
        self.carry(effects)
    }

    /// The task's supervisor knows that it is to end.
    pub fn told_to_end(&mut self, key: TaskKey) {
        self.kills.remove(&key);
    }

    /// The task's supervisor has the word.
    pub fn told_to_keep(&mut self, key: TaskKey) {
        self.keeps.remove(&key);
    }

    /// Keeps facts that have changed (JSON text), and tells them.
    pub fn facts(&mut self, json: String) -> Option<Effect> {
        if json == self.facts {
            return None;
        }
        self.facts = json;
        self.is_live().then(|| self.tell_facts())
    }

    /// Asks for a new key of the host to be recorded, once a link.
    pub fn rekey(&mut self, next: PublicKey) -> Option<Effect> {
        if !self.is_live() || self.rekeying.is_some() {
            return None;
        }
        self.rekeying = Some(next);
        Some(Effect::Send(FromAgent::Rekey(next)))
    }

    /// Whether the server has let the host in.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_live)
    }

    /// Tasks whose supervisor should be alive.
    pub fn supervised(&self) -> impl Iterator<Item = TaskKey> {
        self.table.supervised()
    }

    /// How many tasks hold a slot, and how many wait for one.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        self.table.load()
    }

    fn output(&mut self, output: Output, now: Now) -> Vec<Effect> {
        let effects: Vec<tasks::Effect> = match output {
            Output::Send(frame) => return vec![Effect::Send(frame)],
            Output::Welcomed(welcome) => return self.welcomed(welcome),
            Output::Denied(denied) => {
                let pause = pause(&denied);
                return vec![Effect::Denied { denied, pause }];
            }
            Output::Start(starts) => {
                starts.into_iter().flat_map(|start| self.start(start, now)).collect()
            }
            Output::Cancel(keys) => {
                keys.into_iter().flat_map(|key| self.table.cancel(key, now.wall)).collect()
            }
            Output::Keep(keys) => keys.into_iter().filter_map(|key| self.table.keep(key)).collect(),
            Output::Query(keys) => {
                keys.into_iter().map(|key| tasks::Effect::Report(self.table.query(key))).collect()
            }
            Output::Settled(keys) => {
                keys.into_iter().filter_map(|key| self.table.settled(key)).collect()
            }
            Output::Durable(ack) => {
                // The server may have gone back, and the end must be told again.
                self.due.insert(ack.key);
                return vec![Effect::Trim(ack)];
            }
            Output::Pin(keys) => return vec![Effect::Pin(keys)],
            Output::Rekeyed(key) => return vec![Effect::Rekeyed(key)],
            Output::Close => {
                self.link = None;
                return vec![Effect::Close];
            }
        };
        self.carry(effects)
    }

    fn start(&mut self, mut start: Start, now: Now) -> Vec<tasks::Effect> {
        start.spec.spool_bytes = start.spec.spool_bytes.min(self.spool_bytes);
        self.table.start(start, now.wall)
    }

    fn welcomed(&mut self, welcome: Welcome) -> Vec<Effect> {
        let mut effects = vec![Effect::Welcomed(welcome)];
        if !self.facts.is_empty() {
            effects.push(self.tell_facts());
        }
        let untold = std::mem::take(&mut self.untold);
        // A greeting does not say who waits for the word: an older server could not read it.
        let untold: BTreeSet<_> = untold.into_iter().chain(self.table.waiting()).collect();
        let reports = untold.into_iter().map(|key| self.table.query(key)).collect();
        effects.extend(self.tell(reports));
        self.due.extend(self.table.with_output().map(|(key, _)| key));
        effects
    }

    fn tell_facts(&self) -> Effect {
        Effect::Send(FromAgent::Facts(Facts { json: self.facts.clone() }))
    }

    /// Says what the table wants done. Words to the server come last, as few frames.
    fn carry(&mut self, effects: impl IntoIterator<Item = tasks::Effect>) -> Vec<Effect> {
        let (mut out, mut reports) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                tasks::Effect::Journal { key, not_after } => {
                    out.push(Effect::Journal { key, not_after });
                }
                tasks::Effect::Epoch(epoch) => out.push(Effect::Epoch(epoch)),
                tasks::Effect::Forget(key) => {
                    self.due.remove(&key);
                    self.troubles.remove(&key);
                    out.push(Effect::Forget(key));
                }
                tasks::Effect::Spawn { key, spec } => out.push(Effect::Spawn { key, spec }),
                tasks::Effect::Kill(key) => {
                    self.kills.insert(key);
                    self.keeps.remove(&key);
                    out.push(Effect::Kill(key));
                }
                tasks::Effect::Keep(key) if self.kills.contains(&key) => {}
                tasks::Effect::Keep(key) => {
                    self.keeps.insert(key);
                    out.push(Effect::Keep(key));
                }
                tasks::Effect::Undo(key) => out.push(Effect::Undo(key)),
                tasks::Effect::Report(report) => reports.push(report),
                tasks::Effect::Ship(key) => {
                    self.due.insert(key);
                }
            }
        }
        out.extend(self.tell(reports));
        out
    }

    /// Tells reports in few frames. On a link that is not live yet they wait for that; where there
    /// is none, the next greeting tells.
    fn tell(&mut self, mut reports: Vec<Report>) -> Vec<Effect> {
        match &self.link {
            None => Vec::new(),
            Some(link) if !link.is_live() => {
                self.untold.extend(reports.into_iter().map(|report| report.key));
                Vec::new()
            }
            Some(link) => {
                let armed = link.knows_armed();
                reports.retain(|of| armed || !matches!(of.state, Reported::Applied(_)));
                let mut frames = Vec::new();
                while !reports.is_empty() {
                    let rest = reports.split_off(reports.len().min(REPORTS));
                    frames.push(Effect::Send(FromAgent::Reports(reports)));
                    reports = rest;
                }
                frames
            }
        }
    }
}

/// How long a server that says this wants to be left alone.
fn pause(denied: &Denied) -> Span {
    let asked = denied.retry_after.unwrap_or(Span::ZERO).min(MOST_PAUSE);
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

#[cfg(test)]
mod tests;
