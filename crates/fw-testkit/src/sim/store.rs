//! The simulated store: what a crash of the server leaves. It keeps the rules that the real one
//! keeps (see `fw-store`): appends fit, a fire has one verdict, output is in order.

use std::collections::BTreeMap;

use fw_core::change;
use fw_core::fires::Decision;
use fw_core::run::{Event, Kind, Run};
use fw_proto::api::{FireReason, Verdict};
use fw_proto::frame::Chunk;
use fw_proto::record::Offsets;
use fw_proto::{ChangeId, Epoch, HostId, Incarnation, JobName, RunId, TaskKey, Timestamp};

/// All that is stored.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) incarnation: Incarnation,
    epoch: u64,
    /// Histories of runs that have not ended.
    pub(super) open: BTreeMap<RunId, Vec<Event>>,
    pub(super) ended: BTreeMap<RunId, Run>,
    pub(super) late: BTreeMap<(RunId, HostId), String>,
    pub(super) output: BTreeMap<(HostId, TaskKey), Output>,
    pub(super) revoked: std::collections::BTreeSet<HostId>,
    pub(super) ledger: BTreeMap<JobName, Vec<Row>>,
    pub(super) paused: bool,
    /// Runs that failed and are tried again then.
    pub(super) retries: BTreeMap<RunId, (JobName, Timestamp)>,
    /// Whether there is the secret that some commands need.
    pub(super) secret: bool,
    pub(super) changes: BTreeMap<ChangeId, StoredChange>,
}

/// A rollout or runbook.
#[derive(Debug, Clone)]
pub(super) struct StoredChange {
    pub(super) events: Vec<change::Event>,
    /// The life of the store in which the last of them was committed.
    pub(super) life: Incarnation,
}

/// A task's output.
#[derive(Debug, Clone, Default)]
pub(super) struct Output {
    pub(super) durable: Offsets,
    pub(super) bytes: Vec<u8>,
}

/// A line of the ledger of fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) job: JobName,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<FireReason>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) count: u64,
    pub(super) run: Option<RunId>,
}

impl Row {
    pub(super) fn of(decision: &Decision) -> Self {
        let Decision { job, verdict, reason, from, to, count, .. } = decision.clone();
        Self { job, verdict, reason, from, to, count, run: None }
    }
}

/// What a commit takes of one run.
#[derive(Debug, Clone)]
pub(super) struct NewEvents {
    pub(super) run: RunId,
    pub(super) expected_seq: u64,
    pub(super) events: Vec<Event>,
    pub(super) finished: Option<Box<Run>>,
    pub(super) fire: Option<Row>,
}

impl NewEvents {
    /// The run that a job tries again with this one.
    fn retry_of(&self) -> Option<RunId> {
        match &self.events.first()?.kind {
            Kind::Planned(plan) => plan.origin.retry_of.filter(|_| plan.origin.job.is_some()),
            Kind::Dispatched { .. }
            | Kind::Asked { .. }
            | Kind::Reported { .. }
            | Kind::Ruled { .. }
            | Kind::CancelRequested
            | Kind::HostsCancelRequested { .. } => None,
        }
    }
}

/// Why the store took nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Error {
    /// The run has other events than expected.
    Conflict(RunId),
    /// The fire has its verdict.
    FireTaken(JobName, Timestamp),
    /// It cannot write now, or says so.
    Broken,
}

impl Store {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            epoch: 0,
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            late: BTreeMap::new(),
            output: BTreeMap::new(),
            revoked: std::collections::BTreeSet::new(),
            ledger: BTreeMap::new(),
            paused: false,
            retries: BTreeMap::new(),
            secret: true,
            changes: BTreeMap::new(),
        }
    }

    /// A server opens it.
    pub(super) fn begin_epoch(&mut self, now: Timestamp) -> Epoch {
        let seconds = u64::try_from(now.as_millis() / 1000).unwrap_or(0);
        self.epoch = (self.epoch + 1).max(seconds);
        Epoch(self.epoch)
    }

    /// All or nothing.
    pub(super) fn commit(&mut self, rows: &[NewEvents]) -> Result<(), Error> {
        for row in rows {
            let there = self.open.get(&row.run).map_or(0, Vec::len) as u64;
            if there != row.expected_seq || self.ended.contains_key(&row.run) {
                return Err(Error::Conflict(row.run));
            }
            row.fire.as_ref().map_or(Ok(()), |fire| self.may_record(fire))?;
        }
        for row in rows {
            self.open.entry(row.run).or_default().extend(row.events.iter().cloned());
            if let (0, Some(of)) = (row.expected_seq, row.retry_of()) {
                self.retries.remove(&of);
            }
            if let Some(run) = &row.finished {
                self.open.remove(&row.run);
                self.ended.insert(row.run, Run::clone(run));
                if let Some((job, at)) = run.plan.origin.job.clone().zip(run.retry_at()) {
                    self.retries.insert(row.run, (job, at));
                }
            }
            row.fire.iter().for_each(|fire| self.put(fire));
        }
        Ok(())
    }

    pub(super) fn commit_change(&mut self, id: ChangeId, event: change::Event) {
        let life = self.incarnation;
        let new = || StoredChange { events: Vec::new(), life };
        let stored = self.changes.entry(id).or_insert_with(new);
        stored.events.push(event);
        stored.life = life;
    }

    /// A rollout or runbook as it is, if it has not ended.
    pub(super) fn open_changes(&self) -> impl Iterator<Item = change::Change> {
        let changes = self.changes.iter();
        let folded =
            changes.filter_map(|(id, stored)| change::Change::fold(*id, &stored.events).ok());
        folded.filter(|change| change.finished_at.is_none())
    }

    pub(super) fn record(&mut self, row: &Row) -> Result<(), Error> {
        self.may_record(row)?;
        self.put(row);
        Ok(())
    }

    fn may_record(&self, new: &Row) -> Result<(), Error> {
        let rows = self.ledger.get(&new.job).map(Vec::as_slice).unwrap_or_default();
        let taken = rows.iter().any(|row| {
            let waited = row.verdict == Verdict::Pending && row.from == new.from;
            !waited && row.from <= new.to && row.to >= new.from
        });
        if taken { Err(Error::FireTaken(new.job.clone(), new.from)) } else { Ok(()) }
    }

    fn put(&mut self, new: &Row) {
        let rows = self.ledger.entry(new.job.clone()).or_default();
        rows.retain(|row| row.verdict != Verdict::Pending || row.from != new.from);
        rows.push(new.clone());
        rows.sort_by_key(|row| row.from);
    }

    /// Every instant of the job up to here has its verdict.
    pub(super) fn decided_to(&self, job: &JobName) -> Option<Timestamp> {
        self.ledger.get(job)?.iter().map(|row| row.to).max()
    }

    /// The fire that waits for a run.
    pub(super) fn queued(&self, job: &JobName) -> Option<Timestamp> {
        let mut waiting = self.pending(job);
        waiting.find(|row| row.reason == Some(FireReason::Overlap)).map(|row| row.from)
    }

    /// The fires that are to be caught up.
    pub(super) fn behind(&self, job: &JobName) -> BTreeMap<Timestamp, FireReason> {
        let waiting = self.pending(job).filter_map(|row| Some((row.from, row.reason?)));
        waiting.filter(|(_, reason)| *reason != FireReason::Overlap).collect()
    }

    /// The runs of a job that are tried again.
    pub(super) fn retries_of(&self, job: &JobName) -> BTreeMap<RunId, Timestamp> {
        let of_job = self.retries.iter().filter(|(_, (of, _))| of == job);
        of_job.map(|(run, (_, at))| (*run, *at)).collect()
    }

    fn pending(&self, job: &JobName) -> impl Iterator<Item = &Row> {
        let rows = self.ledger.get(job).into_iter().flatten();
        rows.filter(|row| row.verdict == Verdict::Pending)
    }

    /// Whether a run that it knows has a task on this host.
    pub(super) fn owns(&self, host: HostId, run: RunId) -> bool {
        let ended = self.ended.get(&run).is_some_and(|run| run.tasks.contains_key(&host));
        let planned = |events: &Vec<Event>| {
            let first = events.first().and_then(|event| Run::begin(run, event).ok());
            first.is_some_and(|run| run.tasks.contains_key(&host))
        };
        ended || self.open.get(&run).is_some_and(planned)
    }

    /// Takes a piece of output; how much is durable. Out of order it takes nothing.
    pub(super) fn append(&mut self, host: HostId, chunk: &Chunk<'_>) -> Offsets {
        let output = self.output.entry((host, chunk.key)).or_default();
        if output.durable == chunk.from {
            output.bytes.extend_from_slice(chunk.data);
            output.durable = chunk.to;
        }
        output.durable
    }
}
