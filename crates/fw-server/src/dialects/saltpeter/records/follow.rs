//! Looks at what became of runs and fires, and puts what is to be told of it into the journal.
//!
//! Hints say where to look; what is told follows from the store and from how far it was told, so that a look
//! more or less makes no difference. Of a run the store has all tasks at any time, also once it has ended; of
//! a job its fires in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use fw_core::plan::Plan;
use fw_core::select::Selector;
use fw_proto::api::{Fire, FireReason, RunSummary, Task, Verdict};
use fw_proto::record::{self as output, Body, MAX_CHUNK};
use fw_proto::{HostId, HostName, JobName, RunId, Span, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::journal::{Entry, Journal};
use super::progress::{Open, Progress, Step};
use super::record::{Record, What, shown};
use super::{Known, Named, Parts};
use crate::dialects::saltpeter::names;
use crate::fleet;
use crate::live::RunChange;
use crate::problem::Chain;

/// All is looked at so often, hint or not.
const LOOK: Duration = Duration::from_secs(30);

/// The store or the disk is tried again after this pause.
const RETRY: Duration = Duration::from_secs(1);

/// Runs read at a time.
const RUNS: u32 = 200;

/// Rows of a ledger read at a time.
const FIRES: u32 = 100;

/// Entries are written together up to so many bytes of output: a write costs a sync.
const TOGETHER: usize = 1024 * 1024;

/// And up to so many.
const ENTRIES: usize = 500;

/// A record holds so much of a task's output, and says what was left out: it is one text in memory, and one
/// document, of which search servers take 100 MB.
const OUTPUT: usize = 32 * 1024 * 1024;

/// A row of the ledger may stand for many fires. Of one row so many are told, the last ones.
const FIRES_OF_A_ROW: usize = 1000;

/// How far a job's fires were told is kept so often, when nothing else is.
const NOTE_EVERY: Span = Span::from_secs(10 * 60);

/// A job that is new may have been due before it was seen here.
const UNSEEN: Span = Span::from_secs(10);

/// Tells what happens.
pub(super) struct Follower {
    parts: Parts,
    journal: Journal,
    /// With what is gathered.
    progress: Progress,
    known: watch::Receiver<Arc<Known>>,
    /// To be written.
    gathered: Vec<Entry>,
    /// Bytes of output in it.
    bytes: usize,
    /// How far each job's fires were last kept.
    noted: BTreeMap<JobName, Timestamp>,
    /// The hosts of runs, by the names they were chosen with.
    hosts: BTreeMap<RunId, BTreeMap<HostName, HostId>>,
    blocked: mpsc::Receiver<JobName>,
    token: CancellationToken,
}

type Outcome<T = ()> = Result<T, fw_store::Error>;

impl Follower {
    pub(super) fn new(
        parts: Parts,
        journal: Journal,
        progress: Progress,
        known: watch::Receiver<Arc<Known>>,
        blocked: mpsc::Receiver<JobName>,
        token: CancellationToken,
    ) -> Self {
        let noted = progress.fires_to.clone();
        Self {
            parts,
            journal,
            progress,
            known,
            gathered: Vec::new(),
            bytes: 0,
            noted,
            hosts: BTreeMap::new(),
            blocked,
            token,
        }
    }

    /// Runs until the server stops.
    pub(super) async fn run(mut self) {
        let token = self.token.clone();
        let (mut runs, mut fires) = (self.parts.live.runs(), self.parts.live.fires());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                () = token.cancelled() => return,
                change = runs.recv() => match change {
                    Ok(change) => self.changed(&change).await,
                    Err(RecvError::Lagged(_)) => self.look().await,
                    Err(RecvError::Closed) => return,
                },
                fired = fires.recv() => match fired {
                    Ok(job) => self.fired(&job).await,
                    Err(RecvError::Lagged(_)) => self.look().await,
                    Err(RecvError::Closed) => return,
                },
                Some(job) = self.blocked.recv() => {
                    self.tell_blocked(&job);
                    Ok(())
                }
                changed = self.known.changed() => match changed {
                    Ok(()) => self.look().await,
                    Err(_) => return,
                },
                _ = look.tick() => self.look().await,
            };
            self.flush().await;
            if let Err(error) = done {
                warn!(error = %Chain(&error), "records wait for the store");
                look.reset_after(RETRY);
            }
        }
    }

    /// Somebody wants a run now, which waits until the maintenance is over.
    fn tell_blocked(&mut self, job: &JobName) {
        let Some(named) = self.named(job) else { return };
        let at = self.parts.clock.now();
        let record = Record {
            id: format!("{job}@{}:blocked", at.as_millis()),
            instance: names::instance(&named.name, at),
            job: named.name,
            group: named.group,
            what: What::Maintenance,
            at,
            machine: String::new(),
            code: 0,
            output: GLOBAL.to_owned(),
        };
        self.gather(Step::Told, vec![record]);
    }

    fn named(&self, job: &JobName) -> Option<Named> {
        self.known.borrow().jobs.get(job).cloned()
    }

    /// Looks at everything.
    async fn look(&mut self) -> Outcome {
        self.find_runs().await?;
        let open: Vec<_> = self.progress.open.keys().copied().collect();
        for run in open {
            self.look_at(run).await?;
        }
        let jobs: Vec<_> = self.known.borrow().jobs.keys().cloned().collect();
        for job in jobs {
            self.fired(&job).await?;
        }
        Ok(())
    }

    /// A store that was restored from a backup counts its runs anew.
    async fn restored(&mut self) -> Outcome {
        let incarnation = self.parts.store.incarnation();
        let last = self.parts.store.last_run_place().await?;
        if self.progress.incarnation != incarnation {
            self.gather(Step::Restored { incarnation, runs_to: last }, Vec::new());
        } else if last < self.progress.runs_to {
            // All runs were swept: places count from the begin, and whatever is there is new.
            self.gather(Step::Restored { incarnation, runs_to: 0 }, Vec::new());
        }
        Ok(())
    }

    async fn changed(&mut self, change: &RunChange) -> Outcome {
        let Some(job) = &change.summary.job else { return Ok(()) };
        let run = change.summary.id;
        if !self.progress.open.contains_key(&run) {
            if self.named(job).is_none() {
                return Ok(());
            }
            return self.find_runs().await;
        }
        self.tell(&change.summary, &change.tasks).await
    }

    /// Takes up runs that are new.
    async fn find_runs(&mut self) -> Outcome {
        self.restored().await?;
        loop {
            let found = self.parts.store.job_runs_after(self.progress.runs_to, RUNS).await?;
            let more = found.len() >= RUNS as usize;
            for (place, summary) in found {
                let named = summary.job.clone().and_then(|job| Some((self.named(&job)?, job)));
                if let Some((named, job)) = named {
                    self.open(place, &summary, job, named).await?;
                    self.look_at(summary.id).await?;
                }
                self.progress.runs_to = self.progress.runs_to.max(place);
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn open(
        &mut self,
        place: u64,
        summary: &RunSummary,
        job: JobName,
        named: Named,
    ) -> Outcome {
        let (run, begun) = (summary.id, summary.created_at);
        let plan = self.parts.store.plan(run).await?;
        let instance = names::instance(&named.name, begun);
        let timeout = plan.as_ref().and_then(|plan| plan.exec.timeout);
        let open = Open {
            job,
            name: named.name,
            group: named.group,
            instance,
            begun,
            timeout: timeout.map(|timeout| timeout.as_millis() / 1000),
            begun_on: BTreeSet::new(),
            ended_on: BTreeSet::new(),
        };
        let mut records = vec![open.record(run, What::Start, begun)];
        records.extend(self.held(&open, run, begun, plan.as_ref()));
        self.gather(Step::Opened { run, place, open }, records);
        Ok(())
    }

    /// The machines that the job is for and that are in maintenance.
    fn held(&self, open: &Open, run: RunId, at: Timestamp, plan: Option<&Plan>) -> Vec<Record> {
        let held = self.in_maintenance(&open.job);
        let planned = |host: &HostName| {
            plan.is_some_and(|plan| plan.hosts.iter().any(|chosen| chosen.name == *host))
        };
        let held = held.iter().filter(|host| !planned(host));
        held.map(|host| Record {
            output: "Target under maintenance".to_owned(),
            ..open.record_on(run, What::Maintenance, at, host)
        })
        .collect()
    }

    /// The machines of a job that its files say are in maintenance.
    fn in_maintenance(&self, job: &JobName) -> Vec<HostName> {
        let known = self.known.borrow();
        let machines = &known.maintenance.machines;
        let selector = known.jobs.get(job).and_then(|named| Selector::parse(&named.hosts).ok());
        let Some(selector) = selector.filter(|_| !machines.is_empty()) else { return Vec::new() };
        let hosts = fleet::choose(&self.parts.store.hosts(), &selector);
        let names = hosts.into_iter().map(|host| host.name);
        names.filter(|name| machines.iter().any(|machine| machine == name.as_str())).collect()
    }

    /// Looks at a run as it is in the store.
    async fn look_at(&mut self, run: RunId) -> Outcome {
        match self.parts.store.run(run).await? {
            Some(found) => self.tell(&found.summary, &found.tasks).await,
            None => {
                // Swept, or not in the backup that was restored.
                self.gather(Step::Closed { run }, Vec::new());
                Ok(())
            }
        }
    }

    /// Tells what is new of a run and these tasks of it.
    async fn tell(&mut self, summary: &RunSummary, tasks: &[Task]) -> Outcome {
        let run = summary.id;
        for task in tasks {
            self.tell_task(run, task).await?;
        }
        let Some(open) = self.progress.open.get(&run) else { return Ok(()) };
        if !summary.state.is_final() {
            return Ok(());
        }
        if open.ended_on.len() < summary.report.total as usize
            && tasks.len() < summary.report.total as usize
        {
            // Some were ended in a change that went unheard.
            let whole = self.parts.store.run(run).await?;
            for task in whole.iter().flat_map(|whole| &whole.tasks) {
                self.tell_task(run, task).await?;
            }
        }
        let Some(open) = self.progress.open.get(&run) else { return Ok(()) };
        let records = open.end(summary, self.parts.clock.now());
        self.hosts.remove(&run);
        self.gather(Step::Closed { run }, records);
        Ok(())
    }

    async fn tell_task(&mut self, run: RunId, task: &Task) -> Outcome {
        let Some(open) = self.progress.open.get(&run) else { return Ok(()) };
        let due = open.due(task, self.parts.lost_after, self.parts.clock.now());
        let host = &task.host;
        if let Some(at) = due.began {
            let record = open.record_on(run, What::MachineStart, at, host);
            self.gather(Step::Began { run, host: host.clone() }, vec![record]);
        }
        let Some(ended) = due.ended else { return Ok(()) };
        let mut records = Vec::new();
        if let Some(ending) = ended.told {
            let mut text = self.output(run, task).await?;
            text.push_str(&ending.note);
            let Some(open) = self.progress.open.get(&run) else { return Ok(()) };
            let record = open.record_on(run, What::MachineResult, ended.at, host);
            records.push(Record { code: ending.code, output: shown(&text), ..record });
        }
        self.gather(Step::Ended { run, host: host.clone() }, records);
        if self.bytes >= TOGETHER || self.gathered.len() >= ENTRIES {
            self.flush().await;
        }
        Ok(())
    }

    /// What the task wrote, both streams as they came.
    async fn output(&mut self, run: RunId, task: &Task) -> Outcome<String> {
        let Some(host) = self.host(run, &task.host).await? else { return Ok(String::new()) };
        let (mut bytes, mut after, mut left_out) = (Vec::new(), 0, 0);
        loop {
            let next = self.parts.store.log_chunks(run, host, task.attempt, after, 1).await?.pop();
            let Some(chunk) = next else { break };
            after = chunk.n;
            let raw = match zstd::bulk::decompress(&chunk.data, MAX_CHUNK) {
                Ok(raw) => raw,
                Err(error) => {
                    error!(%error, run.id = %run, "stored output is damaged; restore a backup, and check the disk");
                    continue;
                }
            };
            for record in output::records(&raw).map_while(Result::ok) {
                let Body::Bytes(part) = record.body else { continue };
                let room = OUTPUT.saturating_sub(bytes.len()).min(part.len());
                bytes.extend_from_slice(part.get(..room).unwrap_or_default());
                left_out += part.len() - room;
            }
        }
        let mut text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        if left_out > 0 {
            let rest = format!("fleetwright logs {run} --host {}", task.host);
            writeln!(text, "\n[{left_out} more bytes: {rest}]").expect("writing to memory");
        }
        Ok(text)
    }

    async fn host(&mut self, run: RunId, name: &HostName) -> Outcome<Option<HostId>> {
        if !self.hosts.contains_key(&run) {
            let plan = self.parts.store.plan(run).await?;
            let hosts = plan.into_iter().flat_map(|plan| plan.hosts);
            self.hosts.insert(run, hosts.map(|host| (host.name, host.id)).collect());
        }
        Ok(self.hosts.get(&run).and_then(|hosts| hosts.get(name)).copied())
    }

    /// Tells what became of a job's fires that began no run.
    async fn fired(&mut self, job: &JobName) -> Outcome {
        let Some(named) = self.named(job) else { return Ok(()) };
        let told_to = match self.progress.fires_to.get(job) {
            Some(told_to) => *told_to,
            None => {
                let to = self.parts.clock.now() - UNSEEN;
                self.note_fires(job, to);
                to
            }
        };
        let mut rows = Vec::new();
        let mut cursor = None;
        'pages: loop {
            let page = self.parts.store.ledger(job, cursor, FIRES).await?;
            for row in page.items {
                if row.to <= told_to {
                    break 'pages;
                }
                rows.push(row);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        // One that waits may still become anything, and so nothing after it is told before it.
        for row in rows.into_iter().rev() {
            if row.verdict == Verdict::Pending {
                break;
            }
            self.tell_fires(job, &named, &row).await?;
        }
        let (to, noted) = (self.progress.fires_to.get(job), self.noted.get(job));
        if let Some(to) = to.copied()
            && noted.is_none_or(|noted| to.since(*noted) >= NOTE_EVERY)
        {
            self.note_fires(job, to);
        }
        Ok(())
    }

    /// Keeps how far a job's fires were told, so that a start need not read its whole ledger.
    fn note_fires(&mut self, job: &JobName, to: Timestamp) {
        self.noted.insert(job.clone(), to);
        self.gather(Step::Fires { job: job.clone(), to }, Vec::new());
    }

    async fn tell_fires(&mut self, job: &JobName, named: &Named, row: &Fire) -> Outcome {
        let told_to = self.progress.fires_to.get(job).copied().unwrap_or(Timestamp::EPOCH);
        if row.verdict != Verdict::Skipped {
            // It needs no entry: after a restart it is looked at once more, and nothing is told again.
            self.progress.apply(&Step::Fires { job: job.clone(), to: row.to });
            return Ok(());
        }
        for at in self.instants(job, row, told_to).await {
            let records = self.skipped(job, named, row.reason, at);
            self.gather(Step::Fires { job: job.clone(), to: at }, records);
        }
        self.progress.apply(&Step::Fires { job: job.clone(), to: row.to });
        Ok(())
    }

    /// The fires of a row that were not told.
    async fn instants(&self, job: &JobName, row: &Fire, told_to: Timestamp) -> Vec<Timestamp> {
        if row.count <= 1 {
            return vec![row.to];
        }
        let Some(def) = self.parts.jobs.def(job).await else { return vec![row.to] };
        let after = told_to.max(row.from - Span::from_millis(1));
        let due = def.schedule.between(after, row.to);
        let mut all: Vec<_> = due.map(|fire| fire.nominal).collect();
        // The schedule may be another by now; the last one is sure.
        if all.last() != Some(&row.to) {
            all.push(row.to);
        }
        all.split_off(all.len().saturating_sub(FIRES_OF_A_ROW))
    }

    /// What is told of a fire that began no run.
    fn skipped(
        &self,
        job: &JobName,
        named: &Named,
        reason: Option<FireReason>,
        at: Timestamp,
    ) -> Vec<Record> {
        let record = |what: What, machine: &str, output: &str| Record {
            id: format!("{job}@{}:{}:{machine}", at.as_millis(), what.as_str()),
            job: named.name.clone(),
            group: named.group.clone(),
            instance: names::instance(&named.name, at),
            what,
            at,
            machine: machine.to_owned(),
            code: i32::from(what == What::End),
            output: output.to_owned(),
        };
        let none = |held: Vec<Record>| {
            let begin = [record(What::Start, "", "")];
            let end = [
                record(What::NoMachines, "", ""),
                record(What::End, "", "Completed: 0/0 targets successful"),
            ];
            begin.into_iter().chain(held).chain(end).collect()
        };
        match reason {
            Some(FireReason::Overlap) => {
                let overlap = record(What::Overlap, "", "");
                vec![Record { instance: self.running(job, named, at), ..overlap }]
            }
            Some(FireReason::Maintenance) if self.known.borrow().maintenance.global => {
                vec![record(What::Maintenance, "", GLOBAL)]
            }
            Some(FireReason::NoHosts | FireReason::Maintenance) => {
                let held = self.in_maintenance(job);
                let record = |host: &HostName| {
                    record(What::Maintenance, host.as_str(), "Target under maintenance")
                };
                none(held.iter().map(record).collect())
            }
            Some(
                FireReason::Paused
                | FireReason::Downtime
                | FireReason::ClockJump
                | FireReason::DstGap
                | FireReason::NoSecret
                | FireReason::Changed
                | FireReason::Manual
                | FireReason::Calendar
                | FireReason::Window,
            )
            | None => Vec::new(),
        }
    }

    /// What a job's run that went on then is called.
    fn running(&self, job: &JobName, named: &Named, at: Timestamp) -> String {
        let runs = self.progress.open.values();
        let before = runs.filter(|open| open.job == *job && open.begun <= at);
        let last = before.max_by_key(|open| open.begun);
        last.map_or_else(|| names::instance(&named.name, at), |open| open.instance.clone())
    }

    fn gather(&mut self, step: Step, records: Vec<Record>) {
        self.progress.apply(&step);
        self.bytes += records.iter().map(|record| record.output.len()).sum::<usize>();
        self.gathered.push(Entry { step, records });
    }

    /// Writes what is gathered, whatever it takes.
    async fn flush(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        self.bytes = 0;
        if gathered.is_empty() {
            return;
        }
        let gathered = Arc::new(gathered);
        loop {
            let (journal, entries) = (self.journal.clone(), Arc::clone(&gathered));
            let append = move || journal.append(&entries);
            let why = match tokio::task::spawn_blocking(append).await {
                Ok(Ok(full)) => {
                    self.parts.health.clear(TOPIC);
                    if full {
                        self.turn().await;
                    }
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            warn!(error = why, "records cannot be queued; trying again");
            let reason = format!("records of Saltpeter's jobs cannot be queued: {why}");
            self.parts.health.report(TOPIC, reason);
            tokio::select! {
                // What a stop leaves unwritten is found again by the next start.
                () = self.token.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Begins a new segment. It is only tidiness: when it fails the last one grows.
    async fn turn(&self) {
        let (journal, progress) = (self.journal.clone(), self.progress.clone());
        let turned = tokio::task::spawn_blocking(move || journal.turn(&progress)).await;
        let why = match turned {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        warn!(error = why, "no new segment of records can be begun; the last one grows");
    }
}

/// What is told when everything is in maintenance.
const GLOBAL: &str = "Global maintenance mode active";

/// What health calls the queue.
const TOPIC: &str = "saltpeter-records";
