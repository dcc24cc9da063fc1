//! A simulated server: its store outlives it.

use std::collections::BTreeMap;

use fw_core::hub::{Decisions, Effect, Hub};
use fw_core::link::server::{self, Output};
use fw_core::plan::Plan;
use fw_core::run::{Actor, Event, Run};
use fw_proto::frame::{
    Chunk, Command, FromAgent, FromServer, Hello, OnFull, Reported, Spec, Start, Welcome,
};
use fw_proto::record::{self, Body, Offsets};
use fw_proto::{Epoch, HostId, Incarnation, RunId, Span, TaskKey, Timestamp};

/// What a crash of the server leaves.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) incarnation: Incarnation,
    epoch: u64,
    /// Histories of runs that have not ended.
    pub(super) open: BTreeMap<RunId, Vec<Event>>,
    /// Runs that have ended, and how often each was ended: the rule is once.
    pub(super) ended: BTreeMap<RunId, (Run, u32)>,
    /// Output, by host and task.
    pub(super) output: BTreeMap<(HostId, TaskKey), (Offsets, Vec<u8>)>,
}

/// What a crash takes.
#[derive(Debug)]
pub(super) struct Server {
    hub: Hub,
    epoch: Epoch,
    links: BTreeMap<HostId, server::Link>,
}

/// Where the server puts frames.
pub(super) type Outbox = Vec<(HostId, FromServer)>;

impl Store {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            epoch: 0,
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            output: BTreeMap::new(),
        }
    }

    fn commit(&mut self, decisions: &Decisions) {
        for (id, append) in &decisions.appends {
            let history = self.open.entry(*id).or_default();
            assert_eq!(history.len() as u64, append.expected_seq, "an append fits the history");
            history.extend(append.events.iter().cloned());
            if let Some(run) = &append.finished {
                let folded = Run::fold(*id, &*history).expect("a history begins with its plan");
                assert_eq!(&folded, &**run, "a run is the fold of its events");
                self.open.remove(id);
                self.ended.entry(*id).or_insert_with(|| (Run::clone(run), 0)).1 += 1;
            }
        }
    }

    fn store(&mut self, host: HostId, chunk: &Chunk<'_>) -> Offsets {
        let (durable, bytes) = self.output.entry((host, chunk.key)).or_default();
        if *durable == chunk.from {
            for record in record::records(chunk.data) {
                if let Body::Bytes(new) = record.expect("the simulation writes whole records").body
                {
                    bytes.extend_from_slice(new);
                }
            }
            *durable = chunk.to;
        }
        *durable
    }
}

impl Server {
    pub(super) fn start(store: &mut Store, now: Timestamp) -> Self {
        store.epoch += 1;
        let mut hub = Hub::new(store.incarnation, now, Span::from_secs(5));
        for (id, history) in &store.open {
            hub.resume(Run::fold(*id, history).expect("a history begins with its plan"));
        }
        Self { hub, epoch: Epoch(store.epoch), links: BTreeMap::new() }
    }

    pub(super) fn begin(&mut self, id: RunId, plan: Plan, now: Timestamp) {
        self.hub.begin(id, plan, Actor::Token("sim".into()), now);
    }

    pub(super) fn cancel(&mut self, id: RunId, now: Timestamp) {
        self.hub.cancel(id, Actor::Token("sim".into()), now);
    }

    pub(super) fn open(&mut self, host: HostId, now: Timestamp) {
        self.cut(host, now);
        self.links.insert(host, server::Link::new(now));
    }

    pub(super) fn cut(&mut self, host: HostId, now: Timestamp) {
        if self.links.remove(&host).is_some() {
            self.hub.unlinked(host, now);
        }
    }

    pub(super) fn frame(
        &mut self,
        store: &mut Store,
        host: HostId,
        frame: FromAgent<'_>,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let Some(link) = self.links.get_mut(&host) else { return };
        let mut todo = std::collections::VecDeque::from(link.frame(frame, now));
        while let Some(output) = todo.pop_front() {
            let Some(link) = self.links.get_mut(&host) else { return };
            match output {
                Output::Send(frame) => out.push((host, frame)),
                Output::Admit(hello) => {
                    todo.extend(link.admit(welcome(store, self.epoch, host, &hello, now)));
                    self.hub.linked(host, hello.tasks);
                }
                Output::Store(chunk) => {
                    let durable = store.store(host, &chunk);
                    todo.extend(link.stored(durable));
                }
                Output::Reports(reports) => {
                    reports.into_iter().for_each(|report| self.hub.reported(host, report));
                }
                Output::Enrol(_) | Output::Facts(_) | Output::Rekey(_) => {}
                Output::Close => self.cut(host, now),
            }
        }
    }

    /// Decides, commits, performs. `None` when the crash came before the commit; with
    /// `mute` it came after the commit and before the effects.
    pub(super) fn decide(
        &mut self,
        store: &mut Store,
        now: Timestamp,
        lose: bool,
        mute: bool,
        out: &mut Outbox,
    ) {
        let decisions = self.hub.decide(now);
        if lose {
            return;
        }
        store.commit(&decisions);
        if mute {
            return;
        }
        for effect in decisions.effects {
            out.extend(self.perform(store, effect));
        }
    }

    fn perform(&self, store: &Store, effect: Effect) -> Option<(HostId, FromServer)> {
        match effect {
            Effect::Start { host, key, not_after } => {
                let (incarnation, epoch) = (store.incarnation, self.epoch);
                Some((
                    host,
                    FromServer::Start(vec![Start {
                        key,
                        not_after,
                        incarnation,
                        epoch,
                        spec: spec(),
                    }]),
                ))
            }
            Effect::Cancel { host, key } => Some((host, FromServer::Cancel(vec![key]))),
            Effect::Settle { host, key } => Some((host, FromServer::Settled(vec![key]))),
            Effect::Query { host, key } => Some((host, FromServer::Query(vec![key]))),
            Effect::Late { host, report } => match report.state {
                Reported::NotKnown | Reported::Queued | Reported::Started(_) => None,
                Reported::Ended(_) | Reported::Refused(_) | Reported::Unknown(_) => {
                    Some((host, FromServer::Settled(vec![report.key])))
                }
            },
            Effect::Ended { .. } => None,
        }
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.hub.runs()
    }
}

fn welcome(store: &Store, epoch: Epoch, host: HostId, hello: &Hello, now: Timestamp) -> Welcome {
    let durable = store
        .output
        .iter()
        .filter(|((of, _), _)| *of == host)
        .map(|((_, key), (durable, _))| (*key, *durable))
        .collect();
    Welcome {
        host,
        name: "sim".parse().expect("a name"),
        protocol: 1,
        incarnation: store.incarnation,
        epoch,
        now,
        ping_every: Span::from_secs(3600),
        resume: server::resume(&hello.tasks, &durable),
    }
}

fn spec() -> Spec {
    Spec {
        command: Command::Shell("true".into()),
        user: None,
        cwd: None,
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        timeout: None,
        kill_after: Span::from_secs(10),
        on_full: OnFull::Block,
        spool_bytes: 1 << 20,
        nice: None,
        umask: None,
    }
}
