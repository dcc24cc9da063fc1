//! A simulated server: the shell around the real hub, links and scheduler, without threads.
//!
//! What `fw-server` does in tasks of its own (one a link, one for the hub, one for late reports,
//! one for jobs) is here a queue each, and every hand-over and effect is a place to die at.

use std::collections::{BTreeMap, VecDeque};

use fw_core::hub::clock::Watch;
use fw_core::hub::links::{Came, Links};
use fw_core::hub::{Decisions, Effect, Hub, Outgoing, late_note};
use fw_core::plan::Plan;
use fw_core::run::{Actor, Run};
use fw_proto::api::EnvValue;
use fw_proto::frame::{Denied, DeniedReason, FromServer, Report, Start};
use fw_proto::{Epoch, HostId, RunId, Span, TaskKey, Timestamp};

use super::changes::{Around, Changes};
use super::gateway::{Conn, Owned};
use super::history::{Mark, Sight};
use super::host::short;
use super::jobs::Jobs;
use super::net::{ConnId, Net};
use super::store::{Error, NewEvents, Row, Store};
use super::world::Ctx;

/// How long hosts may take to come back after a start.
pub(super) const GRACE: Span = Span::from_secs(20);

/// The server has died.
pub(super) struct Died;

/// What a crash takes.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) hub: Hub,
    pub(super) epoch: Epoch,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    /// The links that count: one a host, the newest.
    pub(super) current: Links<ConnId>,
    pub(super) inbox: VecDeque<Message>,
    late: VecDeque<(HostId, Report)>,
    noted: Vec<(HostId, Report)>,
    done: Done,
    /// Output of connections that have ended, which the store is still to write.
    pub(super) writing: VecDeque<(Timestamp, HostId, Owned)>,
    jobs: Jobs,
    pub(super) changes: Changes,
    fires: BTreeMap<RunId, Row>,
    answers: Vec<Answer>,
    watch: Watch,
    /// It dies after so many effects.
    pub(super) fuse: Option<u32>,
    /// It dies at the next commit, of which nothing is kept.
    pub(super) lose_commit: bool,
    /// The next commit seems not to succeed.
    pub(super) refuse_commit: bool,
    pub(super) slow_store_until: Timestamp,
}

/// What others tell the hub.
#[derive(Debug)]
pub(super) enum Message {
    Begin { run: RunId, plan: Box<Plan>, by: Actor, fire: Option<Row> },
    Cancel(RunId, Actor),
    CancelHosts(RunId, Vec<HostId>, Actor),
    CancelUnsent(RunId, Actor),
    Linked(HostId, ConnId, u16, Vec<Report>),
    Unlinked(HostId, ConnId),
    Reports(HostId, Vec<Report>),
    Noted(HostId, Report),
    Forget(HostId, DeniedReason),
}

/// Who waits for the next commit.
#[derive(Debug)]
enum Answer {
    Begin(RunId),
    Forget(HostId),
}

/// What a commit has made true and nobody was told of yet: that happens while the store works on the
/// next, when the hub has decided more.
#[derive(Debug, Default)]
struct Done {
    effects: Vec<Effect>,
    /// Runs that have ended, and when what failed in them is tried again.
    ended: Vec<(RunId, Option<Timestamp>)>,
    answers: Vec<Answer>,
}

impl Server {
    pub(super) fn start(ctx: &mut Ctx, store: &mut Store) -> Self {
        let wall = ctx.server_time();
        let epoch = store.begin_epoch(wall);
        ctx.history.note((20_u8, epoch.0), || format!("server starts, epoch {}", epoch.0));
        ctx.witness.server_started(ctx.now);
        let hub = load(ctx, store);
        let jobs = Jobs::load(ctx, store, &hub);
        Self {
            hub,
            epoch,
            conns: BTreeMap::new(),
            current: Links::default(),
            inbox: VecDeque::new(),
            late: VecDeque::new(),
            noted: Vec::new(),
            done: Done::default(),
            writing: VecDeque::new(),
            jobs,
            changes: Changes::load(store),
            fires: BTreeMap::new(),
            answers: Vec::new(),
            watch: Watch::new(wall, ctx.now),
            fuse: None,
            lose_commit: false,
            refuse_commit: false,
            slow_store_until: Timestamp::EPOCH,
        }
    }

    /// No fault lasts any longer.
    pub(super) fn calm(&mut self) {
        (self.fuse, self.lose_commit, self.refuse_commit) = (None, false, false);
        self.slow_store_until = Timestamp::EPOCH;
    }

    pub(super) fn accept(&mut self, id: ConnId, host: HostId, ctx: &Ctx) {
        self.conns.insert(id, Conn::new(host, ctx.now));
    }

    /// A place to die at.
    pub(super) fn boundary(&mut self) -> Result<(), Died> {
        match self.fuse.as_mut() {
            None => Ok(()),
            Some(0) => Err(Died),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// A step of the server's life.
    pub(super) fn step(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        net: &mut Net,
    ) -> Result<(), Died> {
        self.serve_links(ctx, store, net)?;
        self.note_late(ctx, store)?;
        self.step_jobs(ctx, store)?;
        self.step_changes(ctx, store)?;
        if !ctx.one_in(4) {
            self.decide(ctx, store)?;
        }
        self.serve_outboxes(ctx, net)
    }

    /// Takes what has come in, decides, commits; performs what the commit before has made true.
    fn decide(&mut self, ctx: &mut Ctx, store: &mut Store) -> Result<(), Died> {
        if self.inbox.is_empty() {
            self.follow(ctx, store)?;
        }
        let now = ctx.server_time();
        if let Some(ahead) = self.watch.look(now, ctx.now) {
            ctx.history.note((21_u8, ahead.as_millis()), || format!("clock set ahead by {ahead}"));
            ctx.witness.clock_jumped(ctx.now);
            self.hub.clock_jumped(ahead, now, GRACE);
        }
        for message in std::mem::take(&mut self.inbox) {
            self.take(ctx, message, now);
        }
        let decisions = self.hub.decide(now);
        self.commit(ctx, store, decisions)
    }

    fn take(&mut self, ctx: &mut Ctx, message: Message, now: Timestamp) {
        match message {
            Message::Begin { run, plan, by, fire } => {
                if self.hub.begin(run, *plan, by, now) {
                    self.fires.extend(fire.map(|fire| (run, fire)));
                }
                self.answers.push(Answer::Begin(run));
            }
            Message::Cancel(run, by) => {
                let known = self.hub.cancel(run, by, now);
                ctx.history.note((22_u8, run.0), || format!("cancel of {run}: active {known}"));
            }
            Message::CancelHosts(run, hosts, by) => {
                let open = self.hub.cancel_hosts(run, &hosts, by, now);
                let goes_on = self.hub.run(run).is_some_and(|run| run.open > 0);
                if open.is_some_and(|open| open > 0) && goes_on {
                    ctx.history.sight(Sight::CancelledOnHost);
                }
                ctx.history
                    .note((122_u8, run.0), || format!("cancel of {run} on {hosts:?}: {open:?}"));
            }
            Message::CancelUnsent(run, by) => {
                let unsent = self.hub.run(run).map(|run| run.undispatched.iter());
                let unsent: Vec<_> = unsent.into_iter().flatten().map(|(_, host)| *host).collect();
                self.hub.cancel_hosts(run, &unsent, by, now);
            }
            Message::Linked(host, id, protocol, digest) => {
                self.linked(ctx, host, id, (protocol, digest), now);
            }
            Message::Unlinked(host, id) => {
                if self.current.remove(host, |current| *current == id) {
                    self.hub.unlinked(host, now);
                    ctx.witness.unlinked(host, ctx.now);
                }
            }
            Message::Reports(host, reports) => {
                reports.into_iter().for_each(|report| self.hub.reported(host, report));
            }
            Message::Noted(host, report) => self.noted.push((host, report)),
            Message::Forget(host, why) => {
                if let Some(id) = self.current.send_away(host, why) {
                    self.deny(id, why);
                }
                self.hub.gone(host, now);
                self.answers.push(Answer::Forget(host));
            }
        }
    }

    fn linked(
        &mut self,
        ctx: &mut Ctx,
        host: HostId,
        id: ConnId,
        (protocol, digest): (u16, Vec<Report>),
        now: Timestamp,
    ) {
        ctx.history.note((23_u8, host.0, id), || format!("{} is in, link {id}", short(host)));
        match self.current.insert(host, id, id) {
            Came::First => {}
            Came::Instead(older) => {
                ctx.history.sight(Sight::Superseded);
                self.deny(older, DeniedReason::Superseded);
                self.hub.unlinked(host, now);
            }
            Came::Refused(id, why) => {
                ctx.history.sight(if why == DeniedReason::Superseded {
                    Sight::GreetedLate
                } else {
                    Sight::RevokedWhileLinking
                });
                return self.deny(id, why);
            }
        }
        if protocol >= fw_proto::ARMED {
            self.hub.can_arm(host);
        }
        self.hub.linked(host, digest, now);
        ctx.witness.linked(host);
    }

    fn deny(&mut self, id: ConnId, reason: DeniedReason) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.deny(Denied { reason, message: String::new(), retry_after: None });
        }
    }

    pub(super) fn send(&mut self, ctx: &mut Ctx, host: HostId, frame: FromServer) {
        let Some(conn) = self.current.get(host).and_then(|id| self.conns.get_mut(id)) else {
            return;
        };
        if !conn.offer(frame) {
            ctx.history.sight(Sight::OutboxFull);
        }
    }

    fn commit(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        decisions: Decisions,
    ) -> Result<(), Died> {
        let Decisions { appends, mut effects } = decisions;
        let mut rows: Vec<_> = appends
            .into_iter()
            .map(|(run, append)| NewEvents {
                run,
                expected_seq: append.expected_seq,
                events: append.events,
                finished: append.finished,
                fire: self.fires.remove(&run),
            })
            .collect();
        if !rows.is_empty() && std::mem::take(&mut self.lose_commit) {
            return Err(Died);
        }
        // While the store works, what is before may be performed early or late.
        let early = rows.is_empty() || ctx.one_in(2);
        if early {
            self.follow(ctx, store)?;
        }
        // The end may come before or after the disk has it.
        if self.boundary().is_err() {
            if ctx.one_in(2) && store.commit(&rows).is_ok() {
                self.committed(ctx, store, &rows);
            }
            return Err(Died);
        }
        let outcome = self.store(ctx, store, &mut rows, &mut effects);
        if !early {
            ctx.history.sight(Sight::PerformedLate);
            self.follow(ctx, store)?;
        }
        match outcome {
            Ok(()) => {
                let noted = std::mem::take(&mut self.noted).into_iter();
                effects.extend(noted.filter_map(|(host, report)| self.hub.recorded(host, report)));
                let ended = rows
                    .iter()
                    .filter_map(|row| Some((row.run, row.finished.as_ref()?.retry_at())));
                let answers = std::mem::take(&mut self.answers);
                self.done = Done { effects, ended: ended.collect(), answers };
            }
            Err(error) => self.reload(ctx, store, &error),
        }
        self.boundary()
    }

    /// Commits the rows. A fire that was decided before takes only its own run out.
    fn store(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        rows: &mut Vec<NewEvents>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        loop {
            let Err(error) = self.try_commit(ctx, store, rows) else { return Ok(()) };
            let Error::FireTaken(job, nominal) = &error else { return Err(error) };
            let taken = |row: &NewEvents| {
                row.fire.as_ref().is_some_and(|fire| (&fire.job, fire.from) == (job, *nominal))
            };
            let Some(at) = rows.iter().position(taken) else { return Ok(()) };
            let run = rows.remove(at).run;
            effects.retain(|effect| effect.run() != run);
            self.hub.abandon(run);
            self.answers.retain(|answer| !matches!(answer, Answer::Begin(id) if *id == run));
            self.begun(run, &Err(error));
        }
    }

    /// Answers whoever wanted a run.
    fn begun(&mut self, run: RunId, outcome: &Result<(), Error>) {
        self.jobs.begun(run, outcome);
        self.changes.begun(run);
    }

    /// Performs what is committed, and answers those who asked.
    fn follow(&mut self, ctx: &mut Ctx, store: &Store) -> Result<(), Died> {
        let Done { effects, ended, answers } = std::mem::take(&mut self.done);
        self.perform(ctx, store, effects)?;
        ended.into_iter().for_each(|(run, retry_at)| self.jobs.over(run, retry_at));
        for answer in answers {
            match answer {
                Answer::Begin(run) => self.begun(run, &Ok(())),
                Answer::Forget(host) => ctx.witness.revoked(host, ctx.now),
            }
        }
        Ok(())
    }

    fn try_commit(
        &mut self,
        ctx: &mut Ctx,
        store: &mut Store,
        rows: &[NewEvents],
    ) -> Result<(), Error> {
        let refuse = !rows.is_empty() && std::mem::take(&mut self.refuse_commit);
        if refuse && ctx.one_in(2) {
            return Err(Error::Broken);
        }
        store.commit(rows)?;
        self.committed(ctx, store, rows);
        if refuse { Err(Error::Broken) } else { Ok(()) }
    }

    fn committed(&self, ctx: &mut Ctx, store: &Store, rows: &[NewEvents]) {
        for row in rows {
            if let Some(fire) = &row.fire {
                ctx.history.mark(Mark::Fire(fire.verdict));
            }
            ctx.history.note((24_u8, row.run.0, row.expected_seq, row.events.len()), || {
                let kinds: Vec<_> = row.events.iter().map(|event| &event.kind).collect();
                format!("commit of {} after {}: {kinds:?}", row.run, row.expected_seq)
            });
            let outcome = ctx.witness.committed(&mut ctx.history, store, row, ctx.now);
            ctx.judge(outcome);
        }
    }

    /// Begins anew from what is committed. The agents link again and say what they know.
    fn reload(&mut self, ctx: &mut Ctx, store: &Store, error: &Error) {
        ctx.history.note(25_u8, || format!("commit failed ({error:?}); the hub is built anew"));
        self.fires.clear();
        self.noted.clear();
        for id in self.current.take_all() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.close();
            }
        }
        self.hub = load(ctx, store);
        ctx.witness.server_started(ctx.now);
        for answer in std::mem::take(&mut self.answers) {
            match answer {
                Answer::Begin(run) => self.begun(run, &Err(error.clone())),
                Answer::Forget(_) => {}
            }
        }
    }

    fn perform(&mut self, ctx: &mut Ctx, store: &Store, effects: Vec<Effect>) -> Result<(), Died> {
        let mut outgoing = Outgoing::default();
        for effect in effects {
            match effect {
                Effect::Start { host, key, .. } if !self.hub.wants(host, key) => {
                    ctx.history.sight(Sight::StartOverruled);
                }
                Effect::Start { host, key, not_after } => {
                    self.prepare(ctx, store, &mut outgoing, host, key, not_after);
                }
                Effect::Cancel { host, key } => outgoing.cancel(host, key),
                Effect::Query { host, key } => {
                    ctx.history.sight(Sight::Asked);
                    outgoing.query(host, key);
                }
                Effect::Keep { host, key } if self.hub.is_cancelled(key.run, host) => {
                    outgoing.cancel(host, key);
                }
                Effect::Keep { host, key } => outgoing.keep(host, key),
                Effect::Settle { host, key } => outgoing.settle(host, key),
                Effect::Late { host, report } => self.late.push_back((host, report)),
                Effect::Ended { .. } => {}
            }
        }
        for (host, frame) in outgoing.frames() {
            self.boundary()?;
            self.send(ctx, host, frame);
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        ctx: &mut Ctx,
        store: &Store,
        outgoing: &mut Outgoing,
        host: HostId,
        key: TaskKey,
        not_after: Timestamp,
    ) {
        let Some(exec) = self.hub.run(key.run).map(|run| run.plan.exec.clone()) else { return };
        let mut secrets = BTreeMap::new();
        for (name, value) in &exec.env {
            let EnvValue::Secret(_) = value else { continue };
            if !store.secret {
                ctx.history.sight(Sight::NoSecret);
                return self.hub.no_secret(host, key.run, ctx.server_time());
            }
            secrets.insert(name.clone(), "hidden".to_owned());
        }
        let spec = exec.spec(secrets, ctx.spool_bytes);
        if !spec.secrets.is_empty() {
            self.hub.sent_secrets(host, key.run);
        }
        let (incarnation, epoch) = (store.incarnation, self.epoch);
        outgoing.start(host, Start { key, not_after, incarnation, epoch, spec });
        if self.hub.is_cancelled(key.run, host) {
            outgoing.cancel(host, key);
        }
    }

    /// Notes what hosts say of runs that have ended.
    fn note_late(&mut self, ctx: &mut Ctx, store: &mut Store) -> Result<(), Died> {
        for _ in 0..8 {
            let Some((host, report)) = self.late.pop_front() else { return Ok(()) };
            self.boundary()?;
            ctx.history.sight(Sight::Late);
            let run = report.key.run;
            // A run that has not ended has no tasks in the store yet.
            let task = store.ended.get(&run).and_then(|run| run.tasks.get(&host));
            if let Some(note) = task.and_then(|task| late_note(&task.view(), &report.state)) {
                store.late.entry((run, host)).or_insert(note);
            }
            self.boundary()?;
            self.inbox.push_back(Message::Noted(host, report));
        }
        Ok(())
    }

    fn step_jobs(&mut self, ctx: &mut Ctx, store: &mut Store) -> Result<(), Died> {
        self.boundary()?;
        let asked = |run: &Run| (run.id, run.cancel_requested_at.is_some());
        let going_on: BTreeMap<RunId, bool> = self.hub.runs().map(asked).collect();
        let begin = self.jobs.step(ctx, store, &going_on);
        self.inbox.extend(begin);
        self.boundary()
    }

    fn step_changes(&mut self, ctx: &mut Ctx, store: &mut Store) -> Result<(), Died> {
        let mut changes = std::mem::take(&mut self.changes);
        let outcome = changes.step(&mut Around { server: self, ctx, store });
        self.changes = changes;
        outcome
    }

    /// Pauses all jobs.
    pub(super) fn pause_jobs(&mut self, ctx: &mut Ctx, store: &mut Store, paused: bool) {
        self.jobs.pause(ctx, store, paused);
    }

    pub(super) fn jobs_are_idle(&self) -> bool {
        self.jobs.is_idle()
    }
}

/// A hub with the runs of the store that have not ended.
fn load(ctx: &Ctx, store: &Store) -> Hub {
    let mut hub = Hub::new(store.incarnation, ctx.server_time(), GRACE);
    for (id, history) in &store.open {
        hub.resume(Run::fold(*id, history).expect("a history begins with its plan"));
    }
    hub
}
