//! The loop: time passes, faults come, people ask, hosts and server take their steps.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::change::{Change, Request};
use fw_core::run::Actor;
use fw_proto::frame::FromServer;
use fw_proto::{ChangeId, HostId, Incarnation, RunId, Span, TaskKey, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::changes;
use super::faults::{Climate, Fault};
use super::history::{History, Mark, Sight};
use super::host::{Host, short};
use super::net::{Net, Way};
use super::requests;
use super::rules::{Broken, Judgement, Rule, Witness, every_run_ends};
use super::server::{Message, Server};
use super::spool::{Phase, Process, Script};
use super::store::Store;

/// Steps without faults in which everything must end: with steps of a second, most of an hour.
const CALM: u32 = 3000;

/// What the clocks are ahead of the true time, milliseconds: a date in 2027.
const BEGIN: i64 = 1_800_000_000_000;

/// What a world is made of beside its nodes; handed to each of them.
#[derive(Debug)]
pub(super) struct Ctx {
    pub(super) rng: StdRng,
    /// The true time.
    pub(super) now: Timestamp,
    /// How far the server's time of day is off, milliseconds.
    server_clock: i64,
    pub(super) history: History,
    pub(super) witness: Witness,
    pub(super) hosts: Vec<HostId>,
    /// The most that one task may leave unsent on its host.
    pub(super) spool_bytes: u64,
    /// When the jobs came to be, by the server's clock.
    pub(super) jobs_set_at: Timestamp,
    broken: Option<Broken>,
    /// Frames that were sent once and do no harm when they come again.
    old_frames: Vec<OldFrame>,
}

/// A frame that was sent once.
#[derive(Debug, Clone)]
struct OldFrame {
    host: HostId,
    /// What it starts.
    starts: Vec<TaskKey>,
    /// Whether it says that ends are recorded.
    settles: bool,
    bytes: Vec<u8>,
}

impl Ctx {
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    /// The server's time of day.
    pub(super) fn server_time(&self) -> Timestamp {
        Timestamp::from_millis(self.now.as_millis() + self.server_clock)
    }

    /// Keeps the first rule that was broken.
    pub(super) fn judge(&mut self, judgement: Judgement) {
        if let (Err(broken), None) = (judgement, &self.broken) {
            self.history
                .note((1_u8, broken.rule), || format!("BROKEN {:?}: {}", broken.rule, broken.how));
            self.broken = Some(broken);
        }
    }

    pub(super) fn fail_wire(&mut self, how: &str) {
        self.judge(Err(Broken { rule: Rule::Sound, how: how.to_owned() }));
    }

    pub(super) fn script(&self, key: TaskKey, host: HostId) -> Script {
        requests::script(key.run, host)
    }

    pub(super) fn started(&mut self, host: HostId, key: TaskKey) {
        let judgement = self.witness.started(host, key);
        self.judge(judgement);
    }

    /// A command took a step: what became of an armed change by it.
    pub(super) fn saw(&mut self, host: HostId, key: TaskKey, before: &Phase, now: &Process) {
        let Some(change) = &now.change else { return };
        let judgement = self.witness.fates.changed(host, key, before, &now.phase, change, self.now);
        self.judge(judgement);
    }

    pub(super) fn keep_for_replay(&mut self, host: HostId, frame: &FromServer, bytes: &[u8]) {
        let starts = match frame {
            FromServer::Start(starts) => starts.iter().map(|start| start.key).collect(),
            FromServer::Cancel(_)
            | FromServer::Keep(_)
            | FromServer::Settled(_)
            | FromServer::Query(_) => Vec::new(),
            FromServer::Welcome(_)
            | FromServer::Denied(_)
            | FromServer::Ack(_)
            | FromServer::Ping(_)
            | FromServer::ServerKeys(_)
            | FromServer::Rekeyed(_) => return,
        };
        let settles = matches!(frame, FromServer::Settled(_));
        self.old_frames.push(OldFrame { host, starts, settles, bytes: bytes.to_vec() });
    }
}

/// A server, some hosts, and the network between them.
#[derive(Debug)]
pub(super) struct World {
    ctx: Ctx,
    climate: Climate,
    store: Store,
    backup: Store,
    server: Option<Server>,
    server_back_at: Timestamp,
    hosts: BTreeMap<HostId, Host>,
    back_at: BTreeMap<HostId, Timestamp>,
    net: Net,
    next_run: u128,
    next_change: u128,
    stormy: u32,
}

impl World {
    pub(super) fn new(seed: u64, lines: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (count, stormy) = match rng.random_range(0..40) {
            0 => (rng.random_range(60..=200_u32), 60),
            1..8 => (rng.random_range(8..=30), 150),
            _ => (rng.random_range(1..=6), 350),
        };
        let ids: Vec<_> = (1..=count).map(|n| HostId(Uuid::from_u128(u128::from(n)))).collect();
        let hosts = ids.iter().map(|id| (*id, Host::new(*id))).collect();
        let climate = Climate::new(&mut rng);
        let store = Store::new(Incarnation(Uuid::from_u128(u128::from(seed) + 1)));
        let now = Timestamp::from_millis(1_000_000);
        // Mostly little, so that it gets full; else more than an agent's window.
        let spool_bytes = if rng.random_range(0..8) == 0 { 4 << 20 } else { 400 };
        let mut ctx = Ctx {
            rng,
            now,
            server_clock: BEGIN,
            history: History::new(lines),
            witness: Witness::default(),
            hosts: ids,
            spool_bytes,
            jobs_set_at: now,
            broken: None,
            old_frames: Vec::new(),
        };
        ctx.jobs_set_at = ctx.server_time();
        ctx.history
            .note((2_u8, seed, count), || format!("seed {seed}: {count} hosts, {climate:?}"));
        let mut world = Self {
            ctx,
            climate,
            backup: store.clone(),
            store,
            server: None,
            server_back_at: Timestamp::EPOCH,
            hosts,
            back_at: BTreeMap::new(),
            net: Net::default(),
            next_run: 0,
            next_change: 0,
            stormy,
        };
        world.hosts.values_mut().for_each(|host| host.clock = BEGIN);
        world
    }

    /// Runs the world to its end: a storm, then a calm in which all must come to rest.
    pub(super) fn run(&mut self) -> Result<(), Broken> {
        for _ in 0..self.stormy {
            self.strike();
            self.ask();
            self.step(false);
            self.ctx.broken.take().map_or(Ok(()), Err)?;
        }
        self.calm_down();
        for step in 0..CALM {
            if step % 100 == 0 {
                self.cancel_all();
            }
            if step % 20 == 0 {
                self.settle_changes(step < CALM / 10);
            }
            self.step(true);
            self.ctx.broken.take().map_or(Ok(()), Err)?;
            if self.is_at_rest() {
                break;
            }
            // Commands that no store knows any more may be in the way of what changes wait for.
            if self.store.open.values().all(|events| requests::is_of_change(events)) {
                let open = &self.store.open;
                self.hosts
                    .values_mut()
                    .for_each(|host| host.end_orphans(|run| !open.contains_key(&run)));
            }
        }
        every_run_ends(&self.store, &self.hosts)?;
        self.ctx.witness.at_rest(&self.store, &self.hosts)
    }

    pub(super) fn into_history(self) -> History {
        self.ctx.history
    }

    fn is_at_rest(&self) -> bool {
        self.store.open.is_empty()
            && self.server.as_ref().is_some_and(Server::jobs_are_idle)
            && self.store.open_changes().next().is_none()
            && every_run_ends(&self.store, &self.hosts).is_ok()
    }

    fn step(&mut self, calm: bool) {
        let ms = self.ctx.rng.random_range(50..1500);
        self.ctx.now = self.ctx.now + Span::from_millis(ms);
        self.ctx.history.at(self.ctx.now);
        self.come_back(calm);
        self.dial();
        for host in self.hosts.values_mut() {
            host.step(&mut self.ctx, &mut self.net);
        }
        self.serve();
        let (hosts, server) = (&self.hosts, &self.server);
        self.net.sweep(|id| {
            server.as_ref().is_some_and(|server| server.conns.contains_key(&id))
                || hosts.values().any(|host| host.conn() == Some(id))
        });
        let judgement = self.ctx.witness.compare_acks(&self.store);
        self.ctx.judge(judgement);
    }

    /// Whatever is down comes up in its time.
    fn come_back(&mut self, calm: bool) {
        if self.server.is_none() && (calm || self.server_back_at <= self.ctx.now) {
            self.server = Some(Server::start(&mut self.ctx, &mut self.store));
        }
        for (id, host) in &mut self.hosts {
            if calm || self.back_at.get(id).is_none_or(|at| *at <= self.ctx.now) {
                host.start(&mut self.ctx);
            }
        }
    }

    fn dial(&mut self) {
        for (id, host) in &mut self.hosts {
            let may = self.server.is_some();
            if let Some(conn) = host.dial(&mut self.ctx, &mut self.net, may)
                && let Some(server) = &mut self.server
            {
                server.accept(conn, *id, &self.ctx);
            }
        }
    }

    fn serve(&mut self) {
        let Some(server) = &mut self.server else { return };
        if server.step(&mut self.ctx, &mut self.store, &mut self.net).is_err() {
            self.server_dies();
        }
    }

    fn server_dies(&mut self) {
        let Some(server) = self.server.take() else { return };
        self.ctx.history.note(3_u8, || "server dies".to_owned());
        for id in server.conns.keys() {
            self.net.close_server_end(*id, self.ctx.now);
        }
        let away = Span::from_millis(self.ctx.rng.random_range(0..20_000));
        self.server_back_at = self.ctx.now + away;
        let fresh = self.ctx.witness.compare_acks(&self.store);
        let judgement = fresh.and_then(|()| self.ctx.witness.compare_all_acks(&self.store));
        self.ctx.judge(judgement);
    }

    fn calm_down(&mut self) {
        self.ctx.history.note(4_u8, || "calm".to_owned());
        self.net.heal();
        self.hosts.values_mut().for_each(Host::calm);
        self.back_at.clear();
        if let Some(server) = &mut self.server {
            server.calm();
        }
        self.come_back(true);
        if let Some(server) = &mut self.server {
            server.pause_jobs(&mut self.ctx, &mut self.store, true);
        }
    }

    /// Some commands end only when they are told to. A run is told once, however often it is asked.
    fn cancel_all(&mut self) {
        // What a change does comes to its end by itself.
        let open = self.store.open.iter().filter(|(_, events)| !requests::is_of_change(events));
        if let Some(server) = &mut self.server {
            server.inbox.extend(open.map(|(run, _)| Message::Cancel(*run, person())));
        }
    }

    /// People let changes go on, and end them when that leads nowhere.
    fn settle_changes(&mut self, patient: bool) {
        for change in self.store.open_changes().collect::<Vec<_>>() {
            let wish = requests::wish(&mut self.ctx, &change, true);
            let (request, by) = if patient { wish } else { (Request::Abort, wish.1) };
            self.tell(changes::Message::Ask(change.id, request, by));
        }
    }

    fn tell(&mut self, message: changes::Message) {
        if let Some(server) = &mut self.server {
            server.changes.inbox.push_back(message);
        }
    }

    /// People begin a change, or want something of one.
    fn ask_of_changes(&mut self) {
        if self.ctx.one_in(50)
            && let Some(plan) = requests::change(&mut self.ctx, &self.store)
        {
            self.next_change += 1;
            let low = self.ctx.rng.random::<u32>();
            let id = ChangeId(Uuid::from_u128(self.next_change << 64 | u128::from(low)));
            let by = Actor::User("ada".to_owned());
            self.tell(changes::Message::Start(id, Box::new(plan), by));
        }
        if self.ctx.one_in(6) {
            let all: Vec<_> = self.store.changes.keys().copied().collect();
            let open: Vec<_> = self.store.open_changes().map(|change| change.id).collect();
            // Mostly of one that goes on.
            let of = if open.is_empty() || self.ctx.one_in(20) { all } else { open };
            let at = self.ctx.rng.random_range(0..of.len().max(1));
            let id = of.get(at).copied();
            let Some((id, stored)) = id.and_then(|id| Some((id, self.store.changes.get(&id)?)))
            else {
                return;
            };
            let change = Change::fold(id, &stored.events).expect("a history begins with its plan");
            let (request, by) = requests::wish(&mut self.ctx, &change, false);
            self.tell(changes::Message::Ask(id, request, by));
        }
    }

    /// People ask for something.
    fn ask(&mut self) {
        let crowd = if self.hosts.len() > 30 { 3 } else { 1 };
        if self.ctx.one_in(9 * crowd) {
            let plan = requests::plan(&mut self.ctx, &self.store);
            self.begin(plan);
        }
        if self.ctx.one_in(60)
            && let Some(plan) = requests::again(&self.store)
        {
            self.ctx.history.sight(Sight::Retried);
            self.begin(plan);
        }
        if self.ctx.one_in(40) {
            let runs: Vec<_> = self.store.open.keys().copied().collect();
            let at = self.ctx.rng.random_range(0..runs.len().max(1));
            if let (Some(server), Some(run)) = (&mut self.server, runs.get(at)) {
                server.inbox.push_back(requests::cancel(*run, &self.store));
            }
        }
        if self.ctx.one_in(100) {
            let paused = self.ctx.one_in(2);
            if let Some(server) = &mut self.server {
                server.pause_jobs(&mut self.ctx, &mut self.store, paused);
            }
        }
        self.ask_of_changes();
        if self.ctx.one_in(40) {
            self.backup = self.store.clone();
        }
        if self.ctx.one_in(80) {
            self.store.secret = true;
        }
    }

    fn begin(&mut self, plan: fw_core::plan::Plan) {
        self.next_run += 1;
        let low = self.ctx.rng.random::<u32>();
        let run = RunId(Uuid::from_u128(self.next_run << 64 | u128::from(low)));
        if let Some(server) = &mut self.server {
            server.inbox.push_back(Message::Begin {
                run,
                plan: Box::new(plan),
                by: person(),
                fire: None,
            });
        }
    }

    fn strike(&mut self) {
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for fault in self.climate.strikes(&mut self.ctx.rng, false) {
            self.noted(fault, None);
            self.suffer(fault, HostId(Uuid::nil()));
        }
        // In a large fleet as many hosts suffer as in a middling one, not one in each step.
        let most = ids.len().min(8);
        let first = self.ctx.rng.random_range(0..ids.len());
        for id in ids.iter().cycle().skip(first).take(most) {
            for fault in self.climate.strikes(&mut self.ctx.rng, true) {
                if fault != Fault::Replay || self.ctx.old_frames.iter().any(|old| old.host == *id) {
                    self.noted(fault, Some(*id));
                    self.suffer(fault, *id);
                }
            }
        }
    }

    /// Notes a fault with the tasks that it comes to.
    fn noted(&mut self, fault: Fault, host: Option<HostId>) {
        self.ctx.history.mark(Mark::Fault(fault));
        self.ctx.history.note((5_u8, fault, host.map(|host| host.0)), || {
            format!("{fault:?} {}", host.map(short).unwrap_or_default())
        });
        for run in self.server.iter().flat_map(|server| server.hub.runs()) {
            let tasks = run.tasks.iter().filter(|(id, _)| host.is_none_or(|host| host == **id));
            for (id, task) in tasks {
                if !task.state.is_final() {
                    self.ctx.history.touch(run.id, *id, fault);
                }
            }
        }
    }

    /// A fault comes: to this host, or to all.
    fn suffer(&mut self, fault: Fault, id: HostId) {
        let until = self.later(2_000..60_000);
        let away = self.later(0..20_000);
        match fault {
            Fault::ServerCrash => {
                let after = self.ctx.rng.random_range(0..60);
                self.with_server(|server| server.fuse = Some(after));
            }
            Fault::LostCommit => self.with_server(|server| server.lose_commit = true),
            Fault::CommitError => self.with_server(|server| server.refuse_commit = true),
            Fault::SlowStore => self.with_server(|server| server.slow_store_until = until),
            Fault::ServerClock => self.set_server_clock(),
            Fault::Restore => self.restore(),
            Fault::SecretGone => self.store.secret = false,
            Fault::Partition => self.part(),
            Fault::AgentCrash => {
                let after = self.ctx.rng.random_range(0..12);
                self.with_host(id, |host| host.fuse = Some(after));
                self.back_at.insert(id, away);
            }
            Fault::PowerCut => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.power_cut(&mut self.ctx, &mut self.net);
                }
                self.back_at.insert(id, until);
            }
            Fault::Cut => self.with_ways(id, |way, now| way.break_off(now)),
            Fault::HalfOpen => self.with_ways(id, |way, _| way.die()),
            Fault::Delay => self.with_ways(id, |way, _| way.hold(until)),
            Fault::Stall => self.with_host(id, |host| host.stalled_until = until),
            Fault::HostClock => self.set_host_clock(id),
            Fault::DiskFull => self.with_host(id, |host| host.disk_full_until = until),
            Fault::Policy => self.with_host(id, |host| host.policy_until = until),
            Fault::SupervisorKill => self.with_host(id, Host::kill_a_supervisor),
            Fault::SpoolDamage => self.with_host(id, Host::damage_a_spool),
            Fault::Replay => self.replay(id),
            Fault::Revoke => self.revoke(id),
        }
    }

    fn part(&mut self) {
        let until = self.later(5_000..120_000);
        let share = self.ctx.rng.random_range(1..4);
        let rng = &mut self.ctx.rng;
        let group: BTreeSet<_> =
            self.hosts.keys().copied().filter(|_| rng.random_range(0..4) < share).collect();
        self.net.part(&group, until);
    }

    /// Both ways of a host's connection, or one of them: a reset, too, may reach only one end.
    fn with_ways(&mut self, id: HostId, strike: impl Fn(&mut Way, Timestamp)) {
        let which = self.ctx.rng.random_range(0..3);
        let conn = self.hosts.get(&id).and_then(Host::conn);
        let Some(conn) = conn.and_then(|conn| self.net.conns.get_mut(&conn)) else { return };
        if which != 0 {
            strike(&mut conn.up, self.ctx.now);
        }
        if which != 1 {
            strike(&mut conn.down, self.ctx.now);
        }
    }

    fn set_host_clock(&mut self, id: HostId) {
        // Ids are remembered for a day longer than they matter: clocks may be off so far.
        let hours = 3_600_000 * self.ctx.rng.random_range(-10..=10);
        let near = self.ctx.rng.random_range(-30_000..=30_000);
        let off = if self.ctx.one_in(2) { hours } else { near };
        self.with_host(id, |host| host.clock = BEGIN + off);
    }

    fn set_server_clock(&mut self) {
        let ms = match self.ctx.rng.random_range(0..4) {
            // A jump that is noticed.
            0 | 1 => self.ctx.rng.random_range(301_000..200_000_000),
            // One that is not.
            2 => self.ctx.rng.random_range(1_000..200_000),
            _ => -self.ctx.rng.random_range(1_000..300_000),
        };
        self.ctx.server_clock += ms;
    }

    /// The store is replaced by an older one, which begins a new life.
    fn restore(&mut self) {
        self.server_dies();
        let life = u128::from(self.ctx.rng.random::<u64>()) << 64;
        self.store = self.backup.clone();
        self.store.incarnation = Incarnation(Uuid::from_u128(life));
        self.ctx.witness.restored(&self.store);
        // What it has lost no server says is recorded: a link's frames cannot come again on another.
        self.ctx.old_frames.retain(|old| !old.settles);
    }

    /// An effect that was performed is performed again.
    fn replay(&mut self, id: HostId) {
        let revoked = self.store.revoked.contains(&id);
        let mine: Vec<_> = self.ctx.old_frames.iter().filter(|old| old.host == id).collect();
        let at = self.ctx.rng.random_range(0..mine.len().max(1));
        let Some(OldFrame { starts, bytes, .. }) = mine.get(at).copied().cloned() else { return };
        let live = self.server.as_ref().and_then(|server| server.current.get(id));
        let Some(conn) = live.and_then(|conn| self.net.conns.get_mut(conn)) else { return };
        if !revoked {
            self.ctx.witness.replayed.extend(starts.into_iter().map(|key| (id, key)));
            conn.down.put(bytes, self.ctx.now, Span::ZERO);
        }
    }

    fn revoke(&mut self, id: HostId) {
        let Some(server) = &mut self.server else { return };
        if self.store.revoked.len() * 3 < self.hosts.len() && self.store.revoked.insert(id) {
            server.inbox.push_back(Message::Forget(id, fw_proto::frame::DeniedReason::Revoked));
        }
    }

    fn with_server(&mut self, strike: impl FnOnce(&mut Server)) {
        if let Some(server) = &mut self.server {
            strike(server);
        }
    }

    fn with_host(&mut self, id: HostId, strike: impl FnOnce(&mut Host)) {
        if let Some(host) = self.hosts.get_mut(&id) {
            strike(host);
        }
    }

    fn later(&mut self, ms: std::ops::Range<u64>) -> Timestamp {
        self.ctx.now + Span::from_millis(self.ctx.rng.random_range(ms))
    }
}

/// Whoever asks for something that no job wants.
fn person() -> Actor {
    Actor::Token("sim".into())
}
