//! The rules, and the witness who knows what they are about: what really happened.
//!
//! The names are those of the design: a fire has one verdict, a task starts at most once, hosts in
//! flight are within the budget, a run ends exactly once, acknowledged output is never lost, output
//! is never reordered or duplicated, a revoked host is never served, every run ends. Two more hold
//! between host and server: a verdict is true, and nobody is given up for a silence that was none.
//! A change that is armed is kept only if the server said so in time, or undone, and never both.
//! And two between the runs of a job: they do not overlap, unless it says so, and each that failed is
//! tried again as often as it says or given up. Two are those of rollouts and runbooks: a wave starts
//! only when the one before is settled, and what is undone is exactly what was done.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::fires::{Decision, Job};
use fw_core::hub::clock::JUMP;
use fw_core::run::{Event, Kind, Ruling, Run, Task};
use fw_proto::api::{Overlap, TaskReason, TaskState, Verdict};
use fw_proto::frame::{Cause, Fate, FromServer};
use fw_proto::record::Offsets;
use fw_proto::{ChangeId, HostId, JobName, RunId, Span, TaskKey, Timestamp};

use super::fates::Fates;
use super::history::{History, Sight};
use super::host::{Host, short};
use super::jobs;
use super::requests::{LOST_AFTER, key};
use super::server::GRACE;
use super::store::{NewEvents, Row, Store};
use super::waves::{Start, Waves};

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A fire has one verdict.
    OneVerdict,
    /// Runs of a job do not overlap, unless it says so.
    OneAtATime,
    /// A job tries again what failed, once for each try that it says, or gives it up.
    TriesAreDue,
    /// A task starts at most once.
    StartsOnce,
    /// Hosts in flight are at most the failures left.
    WithinBudget,
    /// A run ends exactly once, and is the fold of its events.
    EndsOnce,
    /// Acknowledged output is never lost.
    AcknowledgedIsKept,
    /// Output is never reordered or duplicated.
    OutputInOrder,
    /// A revoked host is never served.
    RevokedUnserved,
    /// After the faults have stopped, every run ends and hosts keep no more than ids.
    EveryRunEnds,
    /// A verdict says what happened on the host.
    VerdictIsTrue,
    /// Nobody is given up for a silence that was none.
    SilenceIsReal,
    /// A change is kept only if the server said so and its proof held in time, else undone, and never both.
    DeadMan,
    /// A wave starts only when the one before is settled.
    WavesInOrder,
    /// What is undone was done before, and all of it.
    UndoesTheDone,
    /// What one side writes the other reads, and nothing panics.
    Sound,
}

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// How.
    pub how: String,
}

pub(super) type Judgement = Result<(), Broken>;

pub(super) fn judge(holds: bool, rule: Rule, how: impl FnOnce() -> String) -> Judgement {
    if holds { Ok(()) } else { Err(Broken { rule, how: how() }) }
}

/// Who sees all, and forgets nothing that a rule is about.
#[derive(Debug, Default)]
pub(super) struct Witness {
    starts: BTreeMap<(HostId, TaskKey), u32>,
    /// Starts that were sent to a host again by a fault.
    pub(super) replayed: BTreeSet<(HostId, TaskKey)>,
    /// What the server has acknowledged in this life of the store.
    acked: BTreeMap<(HostId, TaskKey), Offsets>,
    /// Of those, what was acknowledged since they were last compared with the store.
    fresh: Vec<(HostId, TaskKey)>,
    verdicts: BTreeMap<(RunId, HostId), TaskState>,
    ended: BTreeMap<RunId, u32>,
    /// Hosts of whose revocation people were told, and when.
    revoked: BTreeMap<HostId, Timestamp>,
    /// When everybody was last given time to come back.
    grace_from: Option<Timestamp>,
    /// Since when the hub knows anything.
    started_at: Option<Timestamp>,
    /// Since when the hub knows hosts to be away.
    away: BTreeMap<HostId, Timestamp>,
    /// The store was replaced by an older one.
    pub(super) restored: bool,
    /// Armed changes, as they are on their hosts.
    pub(super) fates: Fates,
    waves: Waves,
}

impl Witness {
    /// A task was started on its host.
    pub(super) fn started(&mut self, host: HostId, key: TaskKey) -> Judgement {
        let times = self.starts.entry((host, key)).or_default();
        *times += 1;
        starts_once(host, key, *times)?;
        // A fault may have asked for it again, whatever came after it.
        let asked_again = self.replayed.contains(&(host, key));
        if asked_again { Ok(()) } else { self.waves.started(host, key) }
    }

    fn was_started(&self, host: HostId, run: RunId) -> bool {
        self.starts.contains_key(&(host, key(run)))
    }

    pub(super) fn server_started(&mut self, now: Timestamp) {
        self.grace_from = Some(now);
        self.started_at = Some(now);
        self.away.clear();
    }

    pub(super) fn clock_jumped(&mut self, now: Timestamp) {
        self.grace_from = Some(now);
    }

    pub(super) fn linked(&mut self, host: HostId) {
        self.away.remove(&host);
    }

    pub(super) fn unlinked(&mut self, host: HostId, now: Timestamp) {
        self.away.insert(host, now);
    }

    /// The revocation of a host is committed, and whoever asked for it was told.
    pub(super) fn revoked(&mut self, host: HostId, now: Timestamp) {
        self.revoked.entry(host).or_insert(now);
    }

    /// The store is an older one now: what it does not know was never acknowledged in its life.
    pub(super) fn restored(&mut self, store: &Store) {
        self.restored = true;
        self.waves.restored();
        self.acked.clear();
        self.fresh.clear();
        self.verdicts.clear();
        self.ended.clear();
        self.revoked.retain(|host, _| store.revoked.contains(host));
        for run in store.ended.values() {
            self.ended.insert(run.id, 1);
            for (host, task) in &run.tasks {
                self.verdicts.insert((run.id, *host), task.state);
            }
        }
    }

    pub(super) fn acked(&mut self, host: HostId, key: TaskKey, durable: Offsets) {
        self.acked.insert((host, key), durable);
        self.fresh.push((host, key));
    }

    /// The server puts a frame on a link that was opened then, to an agent that speaks this version.
    pub(super) fn said(
        &mut self,
        host: HostId,
        opened_at: Timestamp,
        protocol: u16,
        frame: &FromServer,
    ) -> Judgement {
        self.fates.said(host, protocol, frame)?;
        let revoked_at = self.revoked.get(&host).copied();
        revoked_at.map_or(Ok(()), |at| revoked_unserved(host, opened_at < at, frame))
    }

    /// Events of a run were committed.
    pub(super) fn committed(
        &mut self,
        history: &mut History,
        store: &Store,
        row: &NewEvents,
        now: Timestamp,
    ) -> Judgement {
        // The hub may have decided more since then, of which a crash leaves nothing.
        let open = store.open.get(&row.run).and_then(|events| Run::fold(row.run, events).ok());
        let Some(run) = row.finished.as_deref().or(open.as_ref()) else { return Ok(()) };
        for event in &row.events {
            if let Kind::Ruled { hosts, ruling } = &event.kind {
                match ruling {
                    Ruling::BudgetSpent => history.sight(Sight::BudgetSpent),
                    Ruling::AgentOld => history.sight(Sight::AgentOld),
                    Ruling::OfflineFailed
                    | Ruling::OfflineSkipped
                    | Ruling::CancelledUnsent
                    | Ruling::Lost
                    | Ruling::RevokedUnsent
                    | Ruling::RevokedSent
                    | Ruling::NoSecret => {}
                }
                for host in hosts {
                    let since = self.away.get(host).copied().max(self.started_at).unwrap_or(now);
                    let grace_from = self.grace_from.unwrap_or(now);
                    silence_is_real(*ruling, *host, since, grace_from, now)?;
                }
            }
        }
        let changed: BTreeSet<HostId> =
            row.events.iter().flat_map(|event| hosts(&event.kind)).collect();
        for host in changed {
            let Some(task) = run.tasks.get(&host) else { continue };
            if !task.state.is_final() {
                continue;
            }
            if let Some(before) = self.verdicts.insert((run.id, host), task.state) {
                verdict_stays(run.id, host, before, task.state)?;
            } else {
                history.verdict(run.id, host, task.state);
                match task.reason {
                    Some(TaskReason::Kept) => history.sight(Sight::Fate(Fate::Kept)),
                    Some(TaskReason::Undone) => history.sight(Sight::Fate(Fate::Undone)),
                    Some(TaskReason::UndoFailed) => history.sight(Sight::Fate(Fate::UndoFailed)),
                    Some(_) | None => {}
                }
                if task.reason == Some(TaskReason::Fenced) {
                    history.sight(Sight::Fenced);
                }
            }
        }
        self.within_budget(run)?;
        if row.expected_seq == 0 {
            one_at_a_time(run, store)?;
            self.waves.begun(run, store, self.restored)?;
        }
        if row.finished.is_some() {
            let times = self.ended.entry(run.id).or_default();
            *times += 1;
            ends_once(run, *times, store, row)?;
        }
        Ok(())
    }

    /// An event of a change was committed.
    pub(super) fn change_committed(
        &mut self,
        history: &mut History,
        store: &Store,
        id: ChangeId,
    ) -> Judgement {
        self.waves.committed(history, store, id)
    }

    /// Hosts that are dispatched without a verdict, and those that failed, are at most the failures
    /// that the run may have; counted anew, whatever the run says of itself.
    fn within_budget(&self, run: &Run) -> Judgement {
        let tasks = run.tasks.iter();
        let at_risk = tasks.filter(|(host, task)| {
            let in_flight =
                !task.state.is_final() && !run.undispatched.contains(&(task.place, **host));
            // A host that was revoked before its turn failed by no doing of the run.
            let failed =
                task.state.is_failure() && (sent(task) || task.reason != Some(TaskReason::Revoked));
            in_flight || failed
        });
        // What a restored store has forgotten may run besides.
        let count = if self.restored { 0 } else { at_risk.count() };
        let most = run.plan.limits.max_failures.unwrap_or(u32::MAX) as usize;
        within_budget(run.id, count, most)
    }

    /// What the scheduler decides; `waiting` was decided before and is not stored yet.
    pub(super) fn decided(
        &self,
        store: &Store,
        decision: &Decision,
        waiting: &[&Row],
    ) -> Judgement {
        let rows = store.ledger.get(&decision.job).map(Vec::as_slice).unwrap_or_default();
        let waiting = waiting.iter().copied().filter(|row| row.job == decision.job);
        one_verdict(decision, rows.iter().chain(waiting))
    }

    /// What was acknowledged since the last look is in the store.
    pub(super) fn compare_acks(&mut self, store: &Store) -> Judgement {
        for (host, key) in std::mem::take(&mut self.fresh) {
            self.acknowledged_is_kept(store, host, key)?;
        }
        Ok(())
    }

    /// All that was ever acknowledged is in the store.
    pub(super) fn compare_all_acks(&self, store: &Store) -> Judgement {
        self.acked.keys().try_for_each(|(host, key)| self.acknowledged_is_kept(store, *host, *key))
    }

    fn acknowledged_is_kept(&self, store: &Store, host: HostId, key: TaskKey) -> Judgement {
        let Some(acked) = self.acked.get(&(host, key)).copied() else { return Ok(()) };
        let kept = store.output.get(&(host, key)).map(|output| output.durable).unwrap_or_default();
        acknowledged_is_kept(host, key, acked, kept)
    }

    /// The rules about runs that have ended, once all is at rest.
    pub(super) fn at_rest(&self, store: &Store, hosts: &BTreeMap<HostId, Host>) -> Judgement {
        self.compare_all_acks(store)?;
        for ((id, key), output) in &store.output {
            let Some(host) = hosts.get(id) else { continue };
            output_in_order(*id, *key, &output.bytes, host.disk.truth(*key))?;
        }
        for run in store.ended.values() {
            for (id, task) in &run.tasks {
                let Some(host) = hosts.get(id) else { continue };
                let key = key(run.id);
                let started = self.was_started(*id, run.id);
                let replayed = self.replayed.contains(&(*id, key)) || self.restored;
                verdict_is_true(*id, run, task, started, replayed)?;
                self.fates.verdict_is_true(*id, key, task)?;
                let kept = store.output.get(&(*id, key));
                let kept_all = kept.map(|kept| kept.durable).unwrap_or_default() == task.output;
                let bytes = kept.map(|kept| kept.bytes.as_slice()).unwrap_or_default();
                if task.cause.is_some() {
                    whole_output(*id, key, kept_all, bytes == host.disk.truth(key))?;
                }
            }
        }
        let served = |host: &HostId| !store.revoked.contains(host);
        self.fates.at_rest(served, |host, key| self.starts.contains_key(&(host, key)))?;
        for (name, job) in jobs::all() {
            let rows = store.ledger.get(&name).map(Vec::as_slice).unwrap_or_default();
            fires_are_complete(&name, &job.schedule, rows)?;
            fires_have_their_runs(&name, rows, store)?;
        }
        tries_are_due(store)?;
        Waves::at_rest(store, self.restored, |host, run| Start {
            was: self.was_started(host, run),
            asked_again: self.replayed.contains(&(host, key(run))),
        })
    }
}

fn sent(task: &Task) -> bool {
    task.dispatched_at.is_some()
}

fn hosts(kind: &Kind) -> Vec<HostId> {
    match kind {
        Kind::Planned(_) | Kind::Dispatched { .. } | Kind::Asked { .. } => Vec::new(),
        Kind::Ruled { hosts, .. } | Kind::HostsCancelRequested { hosts } => hosts.clone(),
        Kind::Reported { reports } => reports.iter().map(|(host, _)| *host).collect(),
        Kind::CancelRequested => Vec::new(),
    }
}

/// A fire has one verdict: no instant is decided that is decided already.
fn one_verdict<'a>(decision: &Decision, rows: impl Iterator<Item = &'a Row>) -> Judgement {
    for row in rows {
        let overlap = row.from <= decision.to && row.to >= decision.from;
        let waited = row.verdict == Verdict::Pending && row.from == decision.from;
        judge(!overlap || waited, Rule::OneVerdict, || {
            format!("{decision:?} though there is {row:?}")
        })?;
    }
    Ok(())
}

/// A fire has one verdict: none is left out, and none counts twice.
fn fires_are_complete(
    job: &JobName,
    schedule: &fw_core::schedule::Schedule,
    rows: &[Row],
) -> Judgement {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let counted: u64 = rows.iter().map(|row| row.count).sum();
    let after = first.from - Span::from_millis(1);
    let waits = rows.iter().find(|row| row.verdict == Verdict::Pending);
    judge(waits.is_none(), Rule::OneVerdict, || format!("{waits:?} waits for ever"))?;
    let due = schedule.tally(after, last.to).map_or(0, |tally| tally.count);
    judge(counted == due, Rule::OneVerdict, || {
        format!("{job} was due {due} times up to {}, and {counted} have a verdict", last.to)
    })
}

/// A fire has one verdict: those that ran have their run, and no other run is theirs.
fn fires_have_their_runs(job: &JobName, rows: &[Row], store: &Store) -> Judgement {
    let ran: BTreeSet<_> = rows.iter().filter_map(|row| row.run).collect();
    let theirs = |run: &&Run| {
        run.plan.origin.job.as_ref() == Some(job) && run.plan.origin.retry_of.is_none()
    };
    let runs: BTreeSet<_> = store.ended.values().filter(theirs).map(|run| run.id).collect();
    judge(ran == runs, Rule::OneVerdict, || {
        format!("{job}: fires that ran and runs differ: {:?}", ran.symmetric_difference(&runs))
    })
}

/// Runs of a job do not overlap, unless it says so: when one begins no other goes on.
fn one_at_a_time(new: &Run, store: &Store) -> Judgement {
    let Some(name) = &new.plan.origin.job else { return Ok(()) };
    let allows = |(of, job): (JobName, Job)| of == *name && job.overlap == Overlap::Allow;
    if jobs::all().any(allows) {
        return Ok(());
    }
    let of_job = |run: &RunId, events: &Vec<Event>| {
        let first = events.first().and_then(|event| Run::begin(*run, event).ok());
        first.is_some_and(|run| run.plan.origin.job.as_ref() == Some(name))
    };
    let open = store.open.iter().find(|(run, events)| **run != new.id && of_job(run, events));
    let waits = store.retries.iter().find(|(run, (job, _))| **run != new.id && job == name);
    let other = open.map(|(run, _)| run).or_else(|| waits.map(|(run, _)| run));
    judge(other.is_none(), Rule::OneAtATime, || {
        format!("{} of {name} begins while {other:?} goes on or is to be tried again", new.id)
    })
}

/// What a job tries again has failed by itself, is tried once, and only where it did not succeed;
/// and nothing waits for ever.
fn tries_are_due(store: &Store) -> Judgement {
    let waits = store.retries.keys().next();
    judge(waits.is_none(), Rule::TriesAreDue, || format!("{waits:?} still waits"))?;
    let mut tried = BTreeSet::new();
    for run in store.ended.values().filter(|run| run.plan.origin.job.is_some()) {
        let Some(of) = run.plan.origin.retry_of else { continue };
        judge(tried.insert(of), Rule::TriesAreDue, || format!("{of} is tried again twice"))?;
        let Some(first) = store.ended.get(&of) else { continue };
        let left = |run: &Run| run.plan.retries.map_or(0, |retries| retries.left);
        let fits = first.retry_at().is_some() && left(run) < left(first);
        let failed = |host: &HostId| {
            first.tasks.get(host).is_some_and(|task| task.state != TaskState::Succeeded)
        };
        judge(fits && run.tasks.keys().all(failed), Rule::TriesAreDue, || {
            format!("{} should not have been tried again as {}", first.id, run.id)
        })?;
    }
    Ok(())
}

/// A task starts at most once.
fn starts_once(host: HostId, key: TaskKey, times: u32) -> Judgement {
    judge(times <= 1, Rule::StartsOnce, || format!("{} started {key} {times} times", short(host)))
}

/// In flight are at most as many as failures are left.
fn within_budget(run: RunId, at_risk: usize, most: usize) -> Judgement {
    judge(at_risk <= most, Rule::WithinBudget, || {
        format!("{run}: {at_risk} hosts failed or in flight, and {most} may fail")
    })
}

/// A run ends exactly once, and is the fold of its events.
fn ends_once(run: &Run, times: u32, store: &Store, row: &NewEvents) -> Judgement {
    judge(times == 1, Rule::EndsOnce, || format!("{} ended {times} times", run.id))?;
    let open = store.open.contains_key(&run.id);
    let settled = run.tasks.values().all(|task| task.state.is_final());
    let counted = row.expected_seq + row.events.len() as u64 == run.seq;
    judge(!open && settled && counted, Rule::EndsOnce, || {
        format!("{} has ended: open {open}, all settled {settled}, seq {}", run.id, run.seq)
    })
}

/// A verdict stays.
fn verdict_stays(run: RunId, host: HostId, before: TaskState, now: TaskState) -> Judgement {
    judge(before == now, Rule::EndsOnce, || {
        format!("{run} on {}: {before:?} became {now:?}", short(host))
    })
}

/// Acknowledged output is never lost.
fn acknowledged_is_kept(host: HostId, key: TaskKey, acked: Offsets, kept: Offsets) -> Judgement {
    judge(kept.total() >= acked.total(), Rule::AcknowledgedIsKept, || {
        let (acked, kept) = (acked.total(), kept.total());
        format!("{key} of {}: {acked} acknowledged, {kept} kept", short(host))
    })
}

/// What is kept of an ended task is all it wrote.
fn whole_output(host: HostId, key: TaskKey, kept_all: bool, same: bool) -> Judgement {
    judge(kept_all && same, Rule::AcknowledgedIsKept, || {
        format!("{key} of {} ended, and its output is not whole", short(host))
    })
}

/// Output is never reordered or duplicated: what is kept is how it began.
fn output_in_order(host: HostId, key: TaskKey, kept: &[u8], truth: &[u8]) -> Judgement {
    judge(truth.starts_with(kept), Rule::OutputInOrder, || {
        format!("{key} of {}: {} bytes kept are not its first", short(host), kept.len())
    })
}

/// A revoked host is never served: it hears why, and nothing else. One that was being let in
/// meanwhile (`older`: its link is older than the revocation) may still hear what the link itself
/// says until the hub sends it away, but nothing of any run.
fn revoked_unserved(host: HostId, older: bool, frame: &FromServer) -> Judgement {
    let may = match frame {
        FromServer::Denied(_) => true,
        FromServer::Welcome(_) | FromServer::Ack(_) | FromServer::Ping(_) => older,
        FromServer::Start(_)
        | FromServer::Cancel(_)
        | FromServer::Keep(_)
        | FromServer::Settled(_)
        | FromServer::Query(_)
        | FromServer::ServerKeys(_)
        | FromServer::Rekeyed(_) => false,
    };
    judge(may, Rule::RevokedUnserved, || {
        format!("{} is revoked and is sent {frame:?}", short(host))
    })
}

/// Nobody is given up before everyone had time to come back, nor as lost without that silence.
fn silence_is_real(
    ruling: Ruling,
    host: HostId,
    since: Timestamp,
    grace_from: Timestamp,
    now: Timestamp,
) -> Judgement {
    let not_before = match ruling {
        Ruling::OfflineFailed | Ruling::OfflineSkipped => grace_from + GRACE,
        Ruling::Lost => since + LOST_AFTER,
        Ruling::BudgetSpent
        | Ruling::CancelledUnsent
        | Ruling::RevokedUnsent
        | Ruling::RevokedSent
        | Ruling::AgentOld
        | Ruling::NoSecret => return Ok(()),
    };
    // A clock that is set ahead by less is not noticed.
    judge(now + JUMP >= not_before, Rule::SilenceIsReal, || {
        let early = not_before.since(now);
        format!("{} is given up ({ruling:?}) {early} too early", short(host))
    })
}

/// A verdict says what happened. `replayed`: the host may have been asked again after it.
fn verdict_is_true(
    host: HostId,
    run: &Run,
    task: &Task,
    started: bool,
    replayed: bool,
) -> Judgement {
    let sent = sent(task);
    let good = match task.state {
        TaskState::Succeeded | TaskState::TimedOut => started,
        TaskState::Failed => match task.reason {
            None => started,
            Some(TaskReason::Offline | TaskReason::NoSecret | TaskReason::AgentOld) => {
                !started || replayed
            }
            Some(TaskReason::Undone | TaskReason::UndoFailed) => started,
            Some(TaskReason::Revoked) => !started || replayed,
            Some(_) => true,
        },
        TaskState::Skipped | TaskState::Refused => !started || replayed,
        TaskState::Cancelled if !run.is_cancelled(host) => replayed,
        TaskState::Cancelled if task.cause == Some(Cause::Cancelled) => started,
        TaskState::Cancelled => !started || replayed,
        TaskState::Lost | TaskState::Unknown => sent || started || replayed,
        TaskState::Queued | TaskState::Starting | TaskState::Running => false,
    };
    judge(good, Rule::VerdictIsTrue, || {
        let (state, reason) = (task.state, task.reason);
        format!("{} on {}: {state:?} {reason:?}, and started: {started}", run.id, short(host))
    })
}

/// Every run ends after the faults have stopped.
pub(super) fn every_run_ends(store: &Store, hosts: &BTreeMap<HostId, Host>) -> Judgement {
    let open: Vec<_> = store.open.keys().map(ToString::to_string).collect();
    judge(open.is_empty(), Rule::EveryRunEnds, || format!("{open:?} go on"))?;
    for host in hosts.values().filter(|host| !store.revoked.contains(&host.id)) {
        judge(host.is_clean(), Rule::EveryRunEnds, || {
            format!("{} still holds {}", short(host.id), host.holds())
        })?;
    }
    Ok(())
}
