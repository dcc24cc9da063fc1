//! What was decided: rows of the ledger, and what else is to be done.

use fw_proto::api::{self, FireReason, Verdict};
use fw_proto::{JobName, RunId, Timestamp};
use uuid::Uuid;

use crate::schedule;

/// What became of a fire, or of neighbouring fires of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The job.
    pub job: JobName,
    /// What became of it. A fire that is `Pending` gets one more, final decision later.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<FireReason>,
    /// The first instant.
    pub from: Timestamp,
    /// The last instant.
    pub to: Timestamp,
    /// How many fires.
    pub count: u64,
    /// It was `Pending` until now: this takes the place of that row, and shares it with no other.
    pub waited: bool,
}

/// What the caller does beside the ledger, in this order and after what was decided before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// A run that waited to be tried again is given up: it has failed for good.
    GiveUp(JobName, RunId),
    /// Try this run of the job again, as [`retry_id`].
    Retry(JobName, RunId),
    /// Cancel the runs of this job that go on: the fire that waits takes their place.
    Replace(JobName),
}

impl Decision {
    /// Of one fire that had no verdict.
    pub(super) fn new(
        job: &JobName,
        fire: schedule::Fire,
        verdict: Verdict,
        reason: Option<FireReason>,
    ) -> Self {
        let (from, to) = (fire.nominal, fire.nominal);
        Self { job: job.clone(), verdict, reason, from, to, count: 1, waited: false }
    }

    /// Of one fire that was `Pending`.
    pub(super) fn last(
        job: &JobName,
        nominal: Timestamp,
        verdict: Verdict,
        reason: Option<FireReason>,
    ) -> Self {
        let fire = schedule::Fire { nominal, dst_gap: false };
        Self { waited: true, ..Self::new(job, fire, verdict, reason) }
    }

    /// The instant, when the decision is about one fire.
    #[must_use]
    pub fn nominal(&self) -> Option<Timestamp> {
        (self.count == 1).then_some(self.from)
    }

    /// The run to begin, when the verdict says that one does.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        has_run(self.verdict).then(|| run_id(&self.job, self.from))
    }

    /// The ledger row of this decision.
    #[must_use]
    pub fn row(&self) -> api::Fire {
        api::Fire {
            verdict: self.verdict,
            reason: self.reason,
            nominal: self.nominal(),
            from: self.from,
            to: self.to,
            count: self.count,
            run_id: self.run(),
            lag_ms: None,
            hosts: None,
        }
    }
}

/// Whether two ledger rows of one job, with no row between them, become one row: they have the same
/// verdict and reason, the verdict is final, and neither has a run.
#[must_use]
pub fn coalesces(earlier: &api::Fire, later: &api::Fire) -> bool {
    earlier.to < later.from
        && earlier.run_id.is_none()
        && later.run_id.is_none()
        && (earlier.verdict, earlier.reason) == (later.verdict, later.reason)
        && is_countable(earlier.verdict)
}

/// Whether a fire with this verdict has a run.
const fn has_run(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Ran | Verdict::CaughtUp => true,
        Verdict::Pending
        | Verdict::Skipped
        | Verdict::Coalesced
        | Verdict::Missed
        | Verdict::Shadow => false,
    }
}

/// Whether fires with this verdict may share a row.
const fn is_countable(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Skipped | Verdict::Coalesced | Verdict::Missed => true,
        Verdict::Pending | Verdict::Ran | Verdict::CaughtUp | Verdict::Shadow => false,
    }
}

/// The namespace of the runs of fires (RFC 9562 §5.5): drawn once, never changed.
const RUNS_OF_FIRES: Uuid = Uuid::from_u128(0x6d0e_5f3a_41c7_4be2_9a58_d27b_0c93_e1f4);

/// The id of the run of a fire. A server on a restored store names it alike, so that hosts that
/// know it from before refuse to run it again.
#[must_use]
pub fn run_id(job: &JobName, nominal: Timestamp) -> RunId {
    let name = format!("{job}\n{}", nominal.as_millis());
    let at = u64::try_from(nominal.as_millis()).unwrap_or_default();
    named(at, &name)
}

/// The id of the next try of a run; fixed for the same reason.
#[must_use]
pub fn retry_id(of: RunId) -> RunId {
    named(time_of(of), &format!("next try\n{of}"))
}

/// An id with a time in front (milliseconds, 48 bits) and a hash of a name behind it: RFC 9562 §5.8. As those of
/// other runs, which are of its version 7, it comes after those of earlier times, so a store that keeps them in
/// order writes the runs of one second side by side.
fn named(at: u64, name: &str) -> RunId {
    let hash = Uuid::new_v5(&RUNS_OF_FIRES, name.as_bytes()).as_u128();
    let id = u128::from(at) << 80 | hash & (u128::MAX >> 48);
    RunId(uuid::Builder::from_custom_bytes(id.to_be_bytes()).into_uuid())
}

/// The time in front of an id.
fn time_of(run: RunId) -> u64 {
    u64::try_from(run.0.as_u128() >> 80).expect("48 bits")
}

/// Adds a decision, to the one before it where they can share a row: after a stall of minutes, a
/// job that is due each second is one line and not hundreds. One about a fire that waited stays
/// alone, since others that wait may lie between it and the next.
pub(super) fn push(out: &mut Vec<Decision>, next: Decision) {
    match out.last_mut() {
        Some(last)
            if last.job == next.job
                && !last.waited
                && !next.waited
                && coalesces(&last.row(), &next.row()) =>
        {
            last.to = next.to;
            last.count += next.count;
        }
        Some(_) | None => out.push(next),
    }
}
