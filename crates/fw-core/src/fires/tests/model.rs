//! Histories of three jobs, against a model that counts instants one by one.

use super::*;

/// Something that happens to one of the jobs.
#[derive(Debug, Clone)]
enum Op {
    /// The clock moves by so many milliseconds.
    Move(i64),
    Set(usize, usize, usize, usize, bool),
    Remove(usize),
    Pause(usize),
    Resume(usize),
    Ended(usize),
    /// A run fails, and is to be tried again after so many seconds.
    Failed(usize, i64),
    Account(usize),
    /// The server goes down, and comes up from what the ledger and the store say.
    Restart(i64),
}

const JOBS: [&str; 3] = ["a", "b", "c"];
const SCHEDULES: [&str; 4] = ["@every 7s", "*/2 * * * * *", "* * * * *", "@every 11s"];
const OVERLAPS: [Overlap; 4] = [Overlap::Skip, Overlap::Queue, Overlap::Replace, Overlap::Allow];
/// The hours of a job; histories begin at 08:00.
const CALENDARS: [Option<&str>; 3] = [None, Some("08:05-08:02"), Some("Fri 08:01-08:20")];
/// How many lost fires are made up for, and within how many seconds.
const CATCH_UPS: [(u32, u64); 4] = [(0, 0), (1, 3600), (3, 3600), (5, 40)];

fn op() -> impl Strategy<Value = Op> {
    let job = || 0..JOBS.len();
    prop_oneof![
        8 => (0..40_000_i64).prop_map(Op::Move),
        1 => (-200_000..0_i64).prop_map(Op::Move),
        1 => (300_001..900_000_i64).prop_map(Op::Move),
        3 => (
            job(),
            0..SCHEDULES.len(),
            0..OVERLAPS.len(),
            0..CATCH_UPS.len(),
            prop::bool::weighted(0.8)
        )
            .prop_map(|(j, s, o, c, on)| Op::Set(j, s, o, c, on)),
        1 => job().prop_map(Op::Remove),
        1 => job().prop_map(Op::Pause),
        2 => job().prop_map(Op::Resume),
        5 => job().prop_map(Op::Ended),
        3 => (job(), 0..60_i64).prop_map(|(j, secs)| Op::Failed(j, secs)),
        1 => (0..3_usize).prop_map(Op::Account),
        1 => (0..600_000_i64).prop_map(Op::Restart),
    ]
}

/// What must come of a history: which instants need a verdict, which have one, and what runs.
#[derive(Default)]
struct Model {
    /// Each job, and since when its instants count.
    jobs: BTreeMap<JobName, (Job, Timestamp)>,
    paused: BTreeSet<JobName>,
    seen: Seen,
    expected: BTreeSet<(JobName, Timestamp)>,
    verdicts: BTreeMap<(JobName, Timestamp), (Verdict, Option<FireReason>)>,
    /// Runs that were begun: none twice.
    begun: BTreeSet<RunId>,
    /// Runs that failed and wait.
    retries: BTreeMap<JobName, BTreeMap<RunId, Timestamp>>,
    failures: u128,
    running: BTreeMap<JobName, u32>,
}

/// The highest time seen.
struct Seen(Timestamp);

impl Default for Seen {
    fn default() -> Self {
        Self(at(0))
    }
}

impl Model {
    /// Time has moved to `now`: these instants have come.
    fn advance(&mut self, now: Timestamp) {
        if now <= self.seen.0 {
            return;
        }
        for (name, (job, from)) in self.jobs.iter().filter(|(_, (job, _))| job.enabled) {
            for fire in job.schedule.between(self.seen.0.max(*from), now) {
                self.expected.insert((name.clone(), fire.nominal));
            }
        }
        self.seen.0 = now;
    }

    fn take(&mut self, decisions: &[Decision]) -> Result<(), TestCaseError> {
        for decision in decisions {
            let range = (decision.job.clone(), decision.from)..=(decision.job.clone(), decision.to);
            let instants: Vec<_> = self.expected.range(range).cloned().collect();
            prop_assert_eq!(instants.len() as u64, decision.count, "{:?}", decision);
            for instant in instants {
                let verdict = (decision.verdict, decision.reason);
                let before = self.verdicts.insert(instant, verdict).map(|(verdict, _)| verdict);
                let pending =
                    before == Some(Verdict::Pending) && decision.verdict != Verdict::Pending;
                prop_assert!(before.is_none() || pending, "{before:?} then {decision:?}");
                prop_assert_eq!(decision.waited, pending, "{:?}", decision);
            }
            if let Some(run) = decision.run() {
                prop_assert!(self.begun.insert(run), "{decision:?} begins twice");
                let running = self.running.entry(decision.job.clone()).or_default();
                let allows = self
                    .jobs
                    .get(&decision.job)
                    .is_some_and(|(job, _)| job.overlap == Overlap::Allow);
                let waits = self.retries.get(&decision.job).is_some_and(|runs| !runs.is_empty());
                let free = *running == 0 && !waits;
                prop_assert!(free || allows, "two runs at once: {decision:?}");
                *running += 1;
            }
        }
        Ok(())
    }

    /// What is ordered is done: a run that waits is tried again or given up, once.
    fn obey(&mut self, orders: Vec<Order>) -> Result<(), TestCaseError> {
        for order in orders {
            let (name, run, begins) = match order {
                Order::GiveUp(name, run) => (name, run, false),
                Order::Retry(name, run) => (name, run, true),
                Order::Replace(name) => {
                    let replaces = self
                        .jobs
                        .get(&name)
                        .is_some_and(|(job, _)| job.overlap == Overlap::Replace);
                    prop_assert!(replaces, "{name}");
                    continue;
                }
            };
            let waited = self.retries.entry(name.clone()).or_default().remove(&run);
            prop_assert!(waited.is_some(), "{run} of {name} does not wait");
            *self.running.entry(name).or_default() += u32::from(begins);
        }
        Ok(())
    }

    /// The last instant of a job that has a verdict.
    fn last(&self, name: &JobName) -> Option<Timestamp> {
        let of_job = self.verdicts.keys().filter(|(job, _)| job == name);
        of_job.map(|(_, at)| *at).max()
    }

    /// What a store would know of a job.
    fn known(&self, name: &JobName, set_at: Timestamp) -> Known {
        let of_job = self.verdicts.iter().filter(|((job, _), _)| job == name);
        let pending = of_job.filter(|(_, (verdict, _))| *verdict == Verdict::Pending);
        let (mut queued, mut behind) = (None, BTreeMap::new());
        for ((_, at), (_, reason)) in pending {
            match reason {
                Some(FireReason::Overlap) => queued = Some(*at),
                Some(reason) => drop(behind.insert(*at, *reason)),
                None => panic!("a fire waits for nothing"),
            }
        }
        Known {
            decided_to: self.last(name).unwrap_or(set_at).max(set_at),
            paused: self.paused.contains(name),
            active: self.running.get(name).copied().unwrap_or_default(),
            queued,
            behind,
            retries: self.retries.get(name).cloned().unwrap_or_default(),
        }
    }
}

impl Model {
    /// A job comes or changes.
    fn set(
        &mut self,
        fires: &mut Scheduler,
        name: &JobName,
        job: Job,
        now: Timestamp,
    ) -> Vec<Decision> {
        let mut from = self.seen.0;
        if let Some((_, since)) = self.jobs.get(name) {
            from = from.max(*since);
        } else if let Some(last) = self.last(name) {
            fires.decided(name, last);
            from = from.max(last);
        }
        self.jobs.insert(name.clone(), (job.clone(), from));
        fires.set(name, job, now)
    }

    /// Whether a run of the job goes on, which has ended now.
    fn ends(&mut self, name: &JobName) -> bool {
        let running = self.running.entry(name.clone()).or_default();
        let goes_on = *running > 0;
        *running = running.saturating_sub(1);
        goes_on
    }

    /// A run of the job that goes on fails, and is to be tried again.
    fn fails(
        &mut self,
        fires: &mut Scheduler,
        name: &JobName,
        secs: i64,
        now: Timestamp,
    ) -> Vec<Decision> {
        if !self.ends(name) {
            return Vec::new();
        }
        self.failures += 1;
        let (run, at) = (RunId(uuid::Uuid::from_u128(self.failures)), now + secs_of(secs));
        self.retries.entry(name.clone()).or_default().insert(run, at);
        fires.failed(name, run, at, now)
    }

    /// A server comes up from what the ledger and the store say.
    fn restart(&mut self, fires: &mut Scheduler, now: Timestamp) -> Vec<Decision> {
        *fires = Scheduler::new(now);
        self.seen.0 = now;
        // What lies ahead again and has no verdict is as if it had never come.
        let Self { expected, verdicts, .. } = self;
        expected.retain(|instant| instant.1 <= now || verdicts.contains_key(instant));
        let mut out = Vec::new();
        for (name, (job, from)) in self.jobs.clone() {
            let known = self.known(&name, from);
            self.jobs.insert(name.clone(), (job.clone(), known.decided_to));
            out.extend(fires.restore(&name, job, known));
        }
        for (name, running) in &self.running {
            if !self.jobs.contains_key(name) {
                (0..*running).for_each(|_| fires.begun(name));
            }
        }
        out
    }

    /// Every instant has its verdict, or waits for a run that goes on.
    fn is_whole(&self, fires: &Scheduler) -> Result<(), TestCaseError> {
        let undecided: Vec<_> =
            self.expected.iter().filter(|instant| !self.verdicts.contains_key(*instant)).collect();
        prop_assert!(undecided.is_empty(), "{undecided:?}");
        for ((job, at), (verdict, _)) in &self.verdicts {
            let state = fires.state(job);
            let waits = state.is_some_and(|state| {
                let waits = state.queued == Some(*at) || state.behind.contains(at);
                waits && state.active > 0
            });
            prop_assert!(*verdict != Verdict::Pending || waits, "{job} {at} is stuck");
        }
        Ok(())
    }
}

/// The job that an operation sets.
fn job_of(s: usize, o: usize, c: usize, enabled: bool) -> Job {
    let (most, secs) = CATCH_UPS[c];
    let catch_up = CatchUp { most, within: Span::from_secs(secs) };
    let calendar = CALENDARS[(s + o) % 3].and_then(hours);
    Job { catch_up, enabled, calendar, ..job(SCHEDULES[s], OVERLAPS[o]) }
}

/// Piece by piece the same is decided as at once, and no piece has a job of one before.
fn tick(fires: &mut Scheduler, now: Timestamp) -> Result<Vec<Decision>, TestCaseError> {
    let mut at_once = fires.clone();
    let expected = at_once.tick(now);
    let mut out = fires.tick_some(now, 1);
    while fires.has_due() {
        let more = fires.tick_some(now, 1);
        let again = more.iter().find(|one| out.iter().any(|before| before.job == one.job));
        prop_assert_eq!(again, None);
        out.extend(more);
    }
    prop_assert_eq!(&out, &expected);
    prop_assert_eq!(fires.clone().orders(), at_once.orders());
    Ok(out)
}

fn play(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut fires = Scheduler::new(at(0));
    let mut model = Model::default();
    let mut now = at(0);
    for op in ops {
        let out = match op {
            Op::Move(ms) => {
                now = Timestamp::from_millis(now.as_millis() + ms);
                model.advance(now);
                tick(&mut fires, now)?
            }
            Op::Set(j, s, o, c, enabled) => {
                model.set(&mut fires, &name(JOBS[j]), job_of(s, o, c, enabled), now)
            }
            Op::Remove(j) => {
                model.jobs.remove(&name(JOBS[j]));
                model.paused.remove(&name(JOBS[j]));
                fires.remove(&name(JOBS[j]), now)
            }
            Op::Pause(j) => {
                if model.jobs.contains_key(&name(JOBS[j])) {
                    model.paused.insert(name(JOBS[j]));
                }
                fires.pause(&name(JOBS[j]), now)
            }
            Op::Resume(j) => {
                model.paused.remove(&name(JOBS[j]));
                fires.resume(&name(JOBS[j]), now)
            }
            Op::Ended(j) if model.ends(&name(JOBS[j])) => fires.ended(&name(JOBS[j]), now),
            Op::Ended(_) => continue,
            Op::Failed(j, secs) => model.fails(&mut fires, &name(JOBS[j]), secs, now),
            Op::Account(most) => fires.account(most),
            Op::Restart(ms) => {
                now = Timestamp::from_millis(now.as_millis() + ms);
                model.advance(now);
                model.restart(&mut fires, now)
            }
        };
        model.obey(fires.orders())?;
        model.take(&out)?;
    }
    let out = fires.account(usize::MAX);
    model.obey(fires.orders())?;
    model.take(&out)?;
    model.is_whole(&fires)
}

proptest! {
    #[test]
    fn every_instant_gets_one_verdict(ops in prop::collection::vec(op(), 1..80)) {
        play(ops)?;
    }
}
