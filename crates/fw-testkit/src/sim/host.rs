//! A simulated host: its disk and processes outlive its agent.

use std::collections::BTreeMap;

use fw_core::link::agent::{Link, Output};
use fw_core::tasks::{Effect, Extent, Found, Table};
use fw_proto::frame::{Cause, Chunk, Ended, FromAgent, FromServer, Hello, PolicyMode, Report};
use fw_proto::record::{Body, Offsets, Record, Stream};
use fw_proto::{Epoch, HostId, TaskKey, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

/// Most tasks at once: few, so that some wait.
const SLOTS: usize = 2;

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) id: HostId,
    disk: Disk,
    agent: Option<Agent>,
}

/// What a crash of the agent leaves.
#[derive(Debug, Default)]
struct Disk {
    accepted: BTreeMap<TaskKey, Timestamp>,
    settled: BTreeMap<TaskKey, Timestamp>,
    epoch: u64,
    processes: BTreeMap<TaskKey, Process>,
    /// How often each task was started: the rule is once.
    starts: BTreeMap<TaskKey, u32>,
    /// Everything that each process ever wrote.
    written: BTreeMap<TaskKey, Vec<u8>>,
}

/// A command and its supervisor, with its spool.
#[derive(Debug)]
struct Process {
    started_at: Timestamp,
    steps_left: u32,
    exit_code: i32,
    killed: bool,
    ended: Option<Ended>,
    /// Whole records and where each ends.
    spool: Vec<(Offsets, Vec<u8>)>,
    end: Offsets,
}

/// What a crash of the agent takes.
#[derive(Debug)]
struct Agent {
    table: Table,
    link: Option<Link>,
}

impl Host {
    pub(super) fn new(id: HostId) -> Self {
        Self { id, disk: Disk::default(), agent: None }
    }

    /// The agent dies; processes go on.
    pub(super) fn crash(&mut self) {
        self.agent = None;
    }

    pub(super) fn is_up(&self) -> bool {
        self.agent.is_some()
    }

    /// The agent starts and reads what the disk holds.
    pub(super) fn start(&mut self) {
        let mut table = Table::new(SLOTS, Epoch(self.disk.epoch));
        self.disk.settled.iter().for_each(|(key, not_after)| table.remember(*key, *not_after));
        let accepted: Vec<_> = self.disk.accepted.iter().map(|(key, at)| (*key, *at)).collect();
        for (key, not_after) in accepted {
            let found = match self.disk.processes.get(&key) {
                None => Found::NotStarted,
                Some(process) => process
                    .ended
                    .clone()
                    .map_or(Found::Running(Some(process.started_at)), |ended| {
                        Found::Ended(Box::new(ended))
                    }),
            };
            for effect in table.recover(key, not_after, found, true) {
                if let Effect::Forget(key) = effect {
                    self.disk.accepted.remove(&key);
                }
            }
        }
        self.agent = Some(Agent { table, link: None });
    }

    /// A new link: the greeting to send.
    pub(super) fn open(&mut self, now: Timestamp) -> Option<FromAgent<'static>> {
        let agent = self.agent.as_mut()?;
        let hello = Hello {
            agent_version: "sim".into(),
            protocol: (1, 1),
            machine_id: self.id.to_string(),
            boot_id: "boot".into(),
            tasks: agent.table.digest(),
            policy: PolicyMode::Operate,
            epoch: agent.table.epoch(),
            instance: "sim".into(),
        };
        let (link, greeting) = Link::open(hello, None, now);
        agent.link = Some(link);
        Some(greeting)
    }

    pub(super) fn cut(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.link = None;
        }
    }

    /// A frame from the server; what to send back.
    pub(super) fn frame(&mut self, frame: FromServer, now: Timestamp) -> Vec<FromAgent<'static>> {
        let Some(link) = self.agent.as_mut().and_then(|agent| agent.link.as_mut()) else {
            return Vec::new();
        };
        let outputs = link.frame(frame, now);
        outputs.into_iter().flat_map(|output| self.output(output, now)).collect()
    }

    fn output(&mut self, output: Output, now: Timestamp) -> Vec<FromAgent<'static>> {
        let Some(table) = self.agent.as_mut().map(|agent| &mut agent.table) else {
            return Vec::new();
        };
        let effects = match output {
            Output::Send(frame) => return vec![frame],
            Output::Start(starts) => {
                starts.into_iter().flat_map(|start| table.start(start, now)).collect()
            }
            Output::Cancel(keys) => {
                keys.into_iter().flat_map(|key| table.cancel(key, now)).collect()
            }
            Output::Query(keys) => {
                keys.into_iter().map(|key| Effect::Report(table.query(key))).collect()
            }
            Output::Settled(keys) => {
                keys.into_iter().filter_map(|key| table.settled(key)).collect()
            }
            Output::Welcomed(_) | Output::Durable(_) | Output::Pin(_) | Output::Rekeyed(_) => {
                Vec::new()
            }
            Output::Denied(_) | Output::Close => {
                self.cut();
                Vec::new()
            }
        };
        self.perform(effects, now)
    }

    fn perform(&mut self, effects: Vec<Effect>, now: Timestamp) -> Vec<FromAgent<'static>> {
        let mut reports: Vec<Report> = Vec::new();
        let mut todo = std::collections::VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            let Some(agent) = &mut self.agent else { break };
            match effect {
                Effect::Journal { key, not_after } => {
                    self.disk.accepted.insert(key, not_after);
                    todo.extend(agent.table.journaled(key));
                }
                Effect::Epoch(epoch) => self.disk.epoch = epoch.0,
                Effect::Spawn { key, .. } => {
                    self.disk.spawn(key, now);
                    todo.extend(agent.table.started(key, now));
                }
                Effect::Kill(key) => {
                    if let Some(process) = self.disk.processes.get_mut(&key) {
                        process.killed = true;
                    }
                }
                Effect::Report(report) => reports.push(report),
                Effect::Ship(_) => {}
                Effect::Forget(key) => {
                    let not_after = self.disk.accepted.remove(&key).unwrap_or(now);
                    self.disk.settled.insert(key, not_after);
                    self.disk.processes.remove(&key);
                }
            }
        }
        let live =
            self.agent.as_ref().is_some_and(|agent| agent.link.as_ref().is_some_and(Link::is_live));
        if reports.is_empty() || !live { Vec::new() } else { vec![FromAgent::Reports(reports)] }
    }

    /// Time passes: processes write and end, output is shipped.
    pub(super) fn tick(
        &mut self,
        now: Timestamp,
        rng: &mut StdRng,
        send: &mut dyn FnMut(FromAgent<'_>),
    ) {
        for (key, process) in &mut self.disk.processes {
            process.step(now, rng, self.disk.written.entry(*key).or_default());
        }
        let Some(agent) = &mut self.agent else { return };
        let ended: Vec<_> = agent
            .table
            .supervised()
            .filter_map(|key| Some((key, self.disk.processes.get(&key)?.ended.clone()?)))
            .collect();
        let mut effects: Vec<Effect> =
            ended.into_iter().flat_map(|(key, ended)| agent.table.ended(key, ended, now)).collect();
        effects.extend(agent.table.expire(now));
        if let Some(link) = &mut agent.link {
            link.tick(now);
        }
        self.perform(effects, now).into_iter().for_each(&mut *send);
        self.ship(send);
    }

    fn ship(&mut self, send: &mut dyn FnMut(FromAgent<'_>)) {
        let Some(Agent { table, link: Some(link) }) = &mut self.agent else { return };
        for (key, extent) in table.with_output() {
            let Some(process) = self.disk.processes.get(&key) else { continue };
            while let Some(from) = link.send_from(key) {
                let Some((to, data)) =
                    process.spool.iter().find(|(to, _)| to.total() > from.total())
                else {
                    break;
                };
                let raw_len =
                    u32::try_from(data.len()).expect("records of the simulation are small");
                send(FromAgent::Chunk(Chunk { key, from, to: *to, raw_len, data }));
                link.sent(key, *to, data.len() as u64);
            }
            if let Extent::Whole(end) = extent
                && link.tell_end(key, end)
                && let Some(report) = table.shipped(key)
            {
                send(FromAgent::Reports(vec![report]));
            }
        }
    }

    pub(super) fn most_starts(&self) -> u32 {
        self.disk.starts.values().copied().max().unwrap_or(0)
    }

    pub(super) fn written(&self, key: &TaskKey) -> &[u8] {
        self.disk.written.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Disk {
    fn spawn(&mut self, key: TaskKey, now: Timestamp) {
        *self.starts.entry(key).or_default() += 1;
        let seed = key.run.0.as_u128() as u32;
        let process = Process {
            started_at: now,
            steps_left: seed % 40,
            exit_code: i32::from(seed.is_multiple_of(7)),
            killed: false,
            ended: None,
            spool: Vec::new(),
            end: Offsets::default(),
        };
        self.processes.insert(key, process);
    }
}

impl Process {
    fn step(&mut self, now: Timestamp, rng: &mut StdRng, written: &mut Vec<u8>) {
        if self.ended.is_some() {
            return;
        }
        if self.steps_left > 0 && !self.killed {
            self.steps_left -= 1;
            let mut bytes = vec![0; rng.random_range(1..40)];
            rng.fill_bytes(&mut bytes);
            written.extend_from_slice(&bytes);
            let record = Record { stream: Stream::Stdout, at: now, body: Body::Bytes(&bytes) };
            self.end = self.end.after(&record);
            let mut spooled = Vec::new();
            record.write(&mut spooled);
            self.spool.push((self.end, spooled));
            return;
        }
        self.ended = Some(Ended {
            cause: if self.killed { Cause::Cancelled } else { Cause::Exited },
            exit_code: (!self.killed).then_some(self.exit_code),
            signal: self.killed.then_some(15),
            started_at: self.started_at,
            finished_at: now,
            output: self.end,
            stdout_sha256: None,
            stderr_sha256: None,
            left_behind: 0,
        });
    }
}
