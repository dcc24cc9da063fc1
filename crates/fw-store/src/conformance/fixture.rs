//! Values for checks and tests.

use std::collections::BTreeMap;

use fw_core::plan::{
    Chosen, Exec, KILL_AFTER, LOST_AFTER, Limits, ONLY_NODE, Origin, Plan, START_WITHIN,
};
use fw_core::run::{Actor, Event, Kind, Run};
use fw_proto::api::{Command, FireReason, Offline, OnFull, Verdict};
use fw_proto::frame::{Cause, Ended, Reported};
use fw_proto::record::{Body, Offsets, Record, Stream};
use fw_proto::{HostId, Incarnation, JobName, PublicKey, RunId, TaskKey, Timestamp};
use uuid::Uuid;

use crate::{Append, Enrolment, Invite, NewChunk, NewFire};

/// The instant `secs` seconds after the beginning of all checks.
#[must_use]
pub fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000 + secs * 1000)
}

/// A run's id.
#[must_use]
pub fn run_id(n: u128) -> RunId {
    RunId(Uuid::from_u128(n))
}

/// A host's id.
#[must_use]
pub fn host_id(n: u128) -> HostId {
    HostId(Uuid::from_u128(0xff00 + n))
}

/// A job's name.
#[must_use]
pub fn job(name: &str) -> JobName {
    name.parse().expect("a name of a check")
}

/// A plan on `h0`, `h1`, ….
#[must_use]
pub fn plan(hosts: u32, of: Option<&str>) -> Plan {
    let chosen = |n: u32| Chosen {
        id: host_id(n.into()),
        name: format!("h{n}").parse().expect("a name of a check"),
    };
    Plan {
        exec: Exec {
            command: Command::Shell("uptime".to_owned()),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: None,
            kill_after: KILL_AFTER,
            on_full: OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        },
        selector: "h*".to_owned(),
        hosts: (0..hosts).map(chosen).collect(),
        limits: Limits {
            start_within: START_WITHIN,
            offline: Offline::Fail,
            parallel: None,
            max_failures: None,
            spread: None,
            lost_after: LOST_AFTER,
        },
        origin: Origin { job: of.map(job), retry_of: None },
        retries: None,
        incarnation: Incarnation(Uuid::from_u128(1)),
    }
}

/// A run and the events that it was not appended with yet.
#[derive(Debug, Clone)]
pub struct Story {
    /// The run as it is after all events.
    pub run: Run,
    appended: u64,
    events: Vec<Event>,
}

impl Story {
    /// A planned run on so many hosts.
    #[must_use]
    pub fn begin(n: u128, hosts: u32, of: Option<&str>, now: Timestamp) -> Self {
        let by = of.map_or_else(|| Actor::Token("admin".to_owned()), |name| Actor::Job(job(name)));
        let event = Event { at: now, by, kind: Kind::Planned(Box::new(plan(hosts, of))) };
        let run = Run::begin(run_id(n), &event).expect("the first event is the plan");
        Self { run, appended: 0, events: vec![event] }
    }

    /// Something happens.
    #[must_use]
    pub fn then(mut self, now: Timestamp, kind: Kind) -> Self {
        let event = Event { at: now, by: Actor::Server, kind };
        self.run.step(&event);
        self.events.push(event);
        self
    }

    /// Every host ends its task with this exit code.
    #[must_use]
    pub fn ended(self, now: Timestamp, exit_code: i32) -> Self {
        let hosts: Vec<_> = self.run.plan.hosts.iter().map(|host| host.id).collect();
        let said = |host: &HostId| (*host, Reported::Ended(ended(now, exit_code)));
        let reports = hosts.iter().map(said).collect();
        self.then(now, Kind::Dispatched { hosts, not_after: now })
            .then(now, Kind::Reported { reports })
    }

    /// What is to be appended for the events since the last call.
    #[must_use]
    pub fn append(&mut self) -> Append {
        let events = std::mem::take(&mut self.events);
        let expected_seq = std::mem::replace(&mut self.appended, self.run.seq);
        let view = self.run.view(Vec::new());
        let finished = self.run.finished_at.map(|_| Box::new(view.clone()));
        Append {
            run: self.run.id,
            expected_seq,
            events,
            summary: view.summary,
            finished,
            fire: None,
            retry_at: self.run.retry_at(),
        }
    }
}

/// A process that has ended.
#[must_use]
pub fn ended(now: Timestamp, exit_code: i32) -> Ended {
    Ended {
        cause: Cause::Exited,
        exit_code: Some(exit_code),
        signal: None,
        started_at: now,
        finished_at: now,
        output: Offsets { stdout: 5, ..Offsets::default() },
        stdout_sha256: Some([7; 32]),
        stderr_sha256: None,
        left_behind: 0,
        armed: None,
    }
}

/// The only task of run `n` on a host.
#[must_use]
pub fn task(n: u128) -> TaskKey {
    TaskKey { run: run_id(n), node: ONLY_NODE, attempt: 1 }
}

/// A chunk of stdout of host 0 that begins at `from`.
#[must_use]
pub fn chunk(key: TaskKey, from: u64, text: &[u8]) -> NewChunk {
    let mut raw = Vec::new();
    let record = Record { stream: Stream::Stdout, at: at(0), body: Body::Bytes(text) };
    record.write(&mut raw);
    let offsets = |stdout| Offsets { stdout, ..Offsets::default() };
    NewChunk {
        host: host_id(0),
        key,
        from: offsets(from),
        to: offsets(from + text.len() as u64),
        raw_len: u32::try_from(raw.len()).expect("small"),
        data: zstd::bulk::compress(&raw, 1).expect("memory suffices"),
    }
}

/// One fire without a run.
#[must_use]
pub fn fire(of: &str, secs: i64, verdict: Verdict, reason: Option<FireReason>) -> NewFire {
    let nominal = at(secs);
    NewFire {
        job: job(of),
        verdict,
        reason,
        from: nominal,
        to: nominal,
        count: 1,
        run: None,
        lag_ms: None,
        hosts: None,
    }
}

/// An invitation with this secret.
#[must_use]
pub fn invite(secret: u8, uses: u32) -> Invite {
    Invite {
        secret_sha256: [secret; 32],
        uses,
        expires_at: at(3600),
        labels: BTreeMap::from([("stage".to_owned(), "canary".to_owned())]),
        by: "admin".to_owned(),
    }
}

/// Host `n` asks to come in under `name`.
#[must_use]
pub fn enrolment(secret: u8, n: u8, name: &str) -> Enrolment {
    Enrolment {
        secret_sha256: [secret; 32],
        name: name.parse().expect("a name of a check"),
        key: PublicKey([n; 32]),
        id: host_id(n.into()),
        at: at(0),
    }
}

/// Bytes that do not compress.
#[must_use]
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    (0..len).map(|_| next()).collect()
}
