//! The loop, the faults and the rules.

use std::collections::{BTreeMap, VecDeque};

use fw_core::plan::{Chosen, Exec, Limits, Origin, Plan};
use fw_core::run::Run;
use fw_proto::api::{self, Offline, TaskState};
use fw_proto::frame::{self, Decoded, FromAgent, FromServer};
use fw_proto::{HostId, Incarnation, NodeId, RunId, Span, TaskKey, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::host::Host;
use super::server::{Outbox, Server, Store};

/// Steps with faults, then steps without, in which everything must end.
const STORMY: u32 = 400;
const CALM: u32 = 4000;

/// What one seed's world came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Runs that ended.
    pub runs: usize,
    /// Tasks by final state.
    pub tasks: BTreeMap<TaskState, usize>,
    /// Faults that were injected.
    pub faults: u32,
}

/// A server, some hosts, and the network between them.
#[derive(Debug)]
pub struct World {
    now: Timestamp,
    rng: StdRng,
    store: Store,
    server: Option<Server>,
    hosts: BTreeMap<HostId, Host>,
    links: BTreeMap<HostId, Pipe>,
    next_run: u128,
    faults: u32,
    /// Starts that were sent once: an old one may turn up again.
    old_starts: Vec<(HostId, Vec<u8>)>,
}

/// Bytes under way on one link: in order, until it is cut.
#[derive(Debug, Default)]
struct Pipe {
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
}

impl World {
    /// Runs the world of this seed to its end.
    ///
    /// # Panics
    /// A rule is broken; the message names it.
    #[must_use]
    pub fn run(seed: u64) -> Outcome {
        let mut world = Self::new(seed);
        for _ in 0..STORMY {
            world.faults();
            world.requests();
            world.step();
        }
        let calm = (0..CALM).find(|_| {
            world.recover();
            world.step();
            world.store.open.is_empty()
        });
        assert!(calm.is_some(), "every run ends: {:?}", world.store.open.keys());
        world.outcome()
    }

    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Timestamp::from_millis(1_800_000_000_000);
        let count = rng.random_range(1..=5);
        let hosts =
            (1..=count).map(|n| HostId(Uuid::from_u128(n))).map(|id| (id, Host::new(id))).collect();
        let store = Store::new(Incarnation(Uuid::from_u128(u128::from(seed))));
        Self {
            now,
            rng,
            store,
            server: None,
            hosts,
            links: BTreeMap::new(),
            next_run: 0,
            faults: 0,
            old_starts: Vec::new(),
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    fn faults(&mut self) {
        if self.chance(60) {
            self.server = None;
            self.links.clear();
            self.faults += 1;
        }
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            if self.chance(50) {
                self.cut(id);
                self.faults += 1;
            }
            if self.chance(80) {
                self.hosts.get_mut(&id).expect("a host of this world").crash();
                self.cut(id);
                self.faults += 1;
            }
        }
        if self.chance(3) {
            self.recover();
        }
    }

    /// Whatever is down comes up; whoever is apart links.
    fn recover(&mut self) {
        if self.server.is_none() {
            self.server = Some(Server::start(&mut self.store, self.now));
        }
        for (id, host) in &mut self.hosts {
            if !host.is_up() {
                host.start();
            }
            if self.links.contains_key(id) {
                continue;
            }
            if let (Some(server), Some(greeting)) = (&mut self.server, host.open(self.now)) {
                server.open(*id, self.now);
                self.links.entry(*id).or_default().up.push_back(frame::encode(&greeting));
            }
        }
    }

    fn cut(&mut self, id: HostId) {
        self.links.remove(&id);
        if let Some(host) = self.hosts.get_mut(&id) {
            host.cut();
        }
        if let Some(server) = &mut self.server {
            server.cut(id, self.now);
        }
    }

    fn requests(&mut self) {
        if self.chance(12) {
            let plan = self.plan();
            self.next_run += 1;
            // Spread the low bits: they decide how long the command runs and how it exits.
            let id =
                RunId(Uuid::from_u128(self.next_run << 64 | u128::from(self.rng.random::<u32>())));
            if let Some(server) = &mut self.server {
                server.begin(id, plan, self.now);
            }
        }
        if self.chance(60) {
            let runs: Vec<_> = self.store.open.keys().copied().collect();
            if let (Some(server), Some(id)) = (&mut self.server, runs.first()) {
                server.cancel(*id, self.now);
            }
        }
    }

    fn plan(&mut self) -> Plan {
        let hosts = self
            .hosts
            .keys()
            .map(|id| Chosen { id: *id, name: "sim".parse().expect("a name") })
            .collect();
        let offline = match self.rng.random_range(0..3) {
            0 => Offline::Fail,
            1 => Offline::Skip,
            _ => Offline::Wait(Span::from_secs(20)),
        };
        Plan {
            exec: Exec {
                command: api::Command::Shell("true".into()),
                user: None,
                cwd: None,
                env: BTreeMap::new(),
                timeout: None,
                kill_after: Span::from_secs(1),
                on_full: api::OnFull::Block,
                nice: None,
                umask: None,
            },
            selector: "*".into(),
            hosts,
            limits: Limits {
                start_within: Span::from_secs(60),
                offline,
                parallel: self.chance(2).then(|| self.rng.random_range(1..4)),
                max_failures: self.chance(2).then(|| self.rng.random_range(1..4)),
                lost_after: Span::from_secs(120),
            },
            origin: Origin::default(),
            incarnation: self.store.incarnation,
        }
    }

    fn step(&mut self) {
        self.now = self.now + Span::from_millis(self.rng.random_range(50..1500));
        self.deliver();
        for (id, host) in &mut self.hosts {
            let pipe = self.links.get_mut(id);
            let mut up = pipe.map(|pipe| &mut pipe.up);
            host.tick(self.now, &mut self.rng, &mut |frame| {
                if let Some(up) = &mut up {
                    up.push_back(frame::encode(&frame));
                }
            });
        }
        self.check();
    }

    /// Carries some of what is under way, then lets the server decide.
    fn deliver(&mut self) {
        let mut out = Outbox::new();
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.carry(id, &mut out);
        }
        let (lose, mute) = (self.chance(150), self.chance(150));
        if let Some(server) = &mut self.server {
            server.decide(&mut self.store, self.now, lose, mute, &mut out);
        }
        if lose || mute {
            self.server = None;
            self.links.clear();
            self.faults += 1;
        }
        for (id, frame) in out {
            let bytes = frame::encode(&frame);
            if matches!(frame, FromServer::Start(_)) {
                self.old_starts.push((id, bytes.clone()));
            }
            if let Some(pipe) = self.links.get_mut(&id) {
                pipe.down.push_back(bytes);
            }
        }
        self.repeat_a_start();
    }

    /// A start comes a second time, as after a restore or from a confused server.
    fn repeat_a_start(&mut self) {
        if !self.old_starts.is_empty() && self.chance(4) {
            let at = self.rng.random_range(0..self.old_starts.len());
            let (id, bytes) = &self.old_starts[at];
            if let Some(pipe) = self.links.get_mut(id) {
                pipe.down.push_back(bytes.clone());
                self.faults += 1;
            }
        }
    }

    fn carry(&mut self, id: HostId, out: &mut Outbox) {
        let (ups, downs) = (self.rng.random_range(0..6), self.rng.random_range(0..6));
        for _ in 0..ups {
            let Some(bytes) = self.links.get_mut(&id).and_then(|pipe| pipe.up.pop_front()) else {
                break;
            };
            let Ok(Decoded::Frame(frame)) = frame::decode::<FromAgent<'_>>(&bytes) else {
                panic!("a frame survives the wire")
            };
            if let Some(server) = &mut self.server {
                server.frame(&mut self.store, id, frame, self.now, out);
            }
        }
        for _ in 0..downs {
            let Some(bytes) = self.links.get_mut(&id).and_then(|pipe| pipe.down.pop_front()) else {
                break;
            };
            let Ok(Decoded::Frame(frame)) = frame::decode::<FromServer>(&bytes) else {
                panic!("a frame survives the wire")
            };
            let host = self.hosts.get_mut(&id).expect("a host of this world");
            let answers = host.frame(frame, self.now);
            if let Some(pipe) = self.links.get_mut(&id) {
                pipe.up.extend(answers.iter().map(frame::encode));
            }
        }
    }

    /// The rules that hold at every step.
    fn check(&self) {
        for host in self.hosts.values() {
            assert!(host.most_starts() <= 1, "a task starts at most once");
        }
        for run in self.server.iter().flat_map(Server::runs) {
            check_budget(run);
        }
        for (run, times) in self.store.ended.values() {
            assert_eq!(*times, 1, "a run ends exactly once");
            check_budget(run);
        }
    }

    /// The rules at the end: what hosts confirmed is whole.
    fn outcome(&self) -> Outcome {
        let mut tasks = BTreeMap::new();
        for (run, _) in self.store.ended.values() {
            for (id, task) in &run.tasks {
                *tasks.entry(task.state).or_default() += 1;
                if task.cause.is_none() {
                    continue;
                }
                let key = TaskKey { run: run.id, node: NodeId(0), attempt: 1 };
                let stored = self
                    .store
                    .output
                    .get(&(*id, key))
                    .map(|(_, bytes)| bytes.as_slice())
                    .unwrap_or_default();
                assert_eq!(
                    stored,
                    self.hosts[id].written(&key),
                    "output is never lost, reordered or duplicated"
                );
            }
        }
        Outcome { runs: self.store.ended.len(), tasks, faults: self.faults }
    }
}

fn check_budget(run: &Run) {
    if let Some(most) = run.plan.limits.max_failures {
        assert!(
            run.failures + run.in_flight <= most.max(run.failures),
            "in-flight is at most the failures left"
        );
        assert!(run.failures <= most, "no more failures than allowed");
    }
}
