use proptest::prelude::*;

use super::*;

const START: i64 = 1_800_000_000_000;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(START + secs * 1000)
}

fn name(name: &str) -> JobName {
    name.parse().unwrap()
}

fn job(schedule: &str, overlap: Overlap) -> Job {
    Job { schedule: Schedule::parse(schedule, "").unwrap(), overlap, enabled: true }
}

/// Decisions in one line each: seconds since the start, verdict, reason.
fn said(decisions: &[Decision]) -> Vec<String> {
    let secs = |at: Timestamp| (at.as_millis() - START) / 1000;
    let line = |d: &Decision| {
        let reason = d.reason.map(|reason| format!(" {reason:?}")).unwrap_or_default();
        let times = if d.count == 1 {
            secs(d.from).to_string()
        } else {
            format!("{}..{}*{}", secs(d.from), secs(d.to), d.count)
        };
        format!("{times} {:?}{reason}", d.verdict)
    };
    decisions.iter().map(line).collect()
}

/// A scheduler with one job `a`, due every 60 s from second 60 on.
fn minutely(overlap: Overlap) -> (Scheduler, JobName) {
    let mut scheduler = Scheduler::new(at(0));
    assert_eq!(scheduler.set(&name("a"), job("@every 60s", overlap), at(0)), []);
    (scheduler, name("a"))
}

#[test]
fn skip_lets_fires_pass_while_a_run_goes_on() {
    let (mut fires, a) = minutely(Overlap::Skip);
    assert_eq!(fires.next_due(), Some(at(60)));
    assert_eq!(said(&fires.tick(at(59))), [""; 0]);
    assert_eq!(said(&fires.tick(at(60))), ["60 Ran"]);
    assert_eq!(said(&fires.tick(at(250))), ["120..240*3 Skipped Overlap"]);
    assert_eq!(said(&fires.ended(&a, at(260))), [""; 0]);
    assert_eq!(said(&fires.tick(at(300))), ["300 Ran"]);
}

#[test]
fn queue_holds_the_latest() {
    let (mut fires, a) = minutely(Overlap::Queue);
    assert_eq!(said(&fires.tick(at(60))), ["60 Ran"]);
    assert_eq!(said(&fires.tick(at(120))), ["120 Pending Overlap"]);
    assert_eq!(said(&fires.tick(at(180))), ["120 Coalesced Overlap", "180 Pending Overlap"]);
    assert_eq!(fires.state(&a).unwrap().queued, Some(at(180)));
    assert_eq!(said(&fires.ended(&a, at(190))), ["180 Ran"]);
    assert_eq!(said(&fires.tick(at(240))), ["240 Pending Overlap"]);
    assert_eq!(said(&fires.pause(&a, at(250))), ["240 Skipped Paused"]);
    assert_eq!(said(&fires.tick(at(300))), ["300 Skipped Paused"]);
    assert_eq!(said(&fires.resume(&a, at(310))), [""; 0]);
    assert_eq!(said(&fires.tick(at(360))), ["360 Pending Overlap"]);
    let changed = job("@every 50s", Overlap::Queue);
    assert_eq!(said(&fires.set(&a, changed, at(370))), ["360 Skipped Changed"]);
    assert_eq!(fires.next_due(), Some(at(400)));
}

#[test]
fn allow_runs_side_by_side_and_manual_runs_count() {
    let (mut fires, a) = minutely(Overlap::Allow);
    assert_eq!(said(&fires.tick(at(130))), ["60 Ran", "120 Ran"]);
    assert_eq!(fires.state(&a).unwrap().active, 2);
    let (mut fires, a) = minutely(Overlap::Skip);
    fires.begun(&a);
    assert_eq!(said(&fires.tick(at(60))), ["60 Skipped Overlap"]);
}

#[test]
fn clocks_that_jump() {
    let (mut fires, a) = minutely(Overlap::Skip);
    assert_eq!(said(&fires.tick(at(60))), ["60 Ran"]);
    fires.ended(&a, at(61));
    assert_eq!(fires.tick(at(0)), []);
    assert_eq!(fires.clock_behind(at(0)), Some(Span::from_secs(61)));
    assert_eq!(fires.tick(at(60)), []);
    assert_eq!(said(&fires.tick(at(120))), ["120 Ran"]);
    assert_eq!(fires.tick(at(120 + 3600)), []);
    assert!(fires.owes());
    assert_eq!(said(&fires.account(9)), ["180..3720*60 Missed ClockJump"]);
    assert_eq!(fires.next_due(), Some(at(3780)));
}

#[test]
fn downtime_is_one_range() {
    let mut fires = Scheduler::new(at(3600));
    let known = Known { decided_to: at(60), paused: false, active: 1, queued: Some(at(60)) };
    assert_eq!(fires.restore(&name("a"), job("@every 60s", Overlap::Queue), &known), []);
    let ended = Known { active: 0, ..known.clone() };
    let again = fires.restore(&name("b"), job("@every 60s", Overlap::Queue), &ended);
    assert_eq!(said(&again), ["60 Ran"]);
    let paused = Known { paused: true, queued: None, ..known };
    assert_eq!(fires.restore(&name("c"), job("@every 60s", Overlap::Skip), &paused), []);
    assert_eq!(said(&fires.account(1)), ["120..3600*59 Missed Downtime"]);
    assert_eq!(
        said(&fires.account(5)),
        ["120..3600*59 Missed Downtime", "120..3600*59 Skipped Paused"]
    );
    assert!(!fires.owes());
    assert_eq!(said(&fires.ended(&name("a"), at(3601))), ["60 Ran"]);
    assert_eq!(fires.next_due(), Some(at(3660)));
}

#[test]
fn a_removed_job_that_comes_back_still_sees_its_run() {
    let (mut fires, a) = minutely(Overlap::Skip);
    fires.tick(at(60));
    assert_eq!(fires.remove(&a, at(61)), []);
    assert_eq!((fires.state(&a), fires.next_due()), (None, None));
    fires.set(&a, job("@every 60s", Overlap::Skip), at(62));
    assert_eq!(said(&fires.tick(at(120))), ["120 Skipped Overlap"]);
    fires.remove(&a, at(121));
    fires.ended(&a, at(122));
    assert!(fires.jobs.is_empty());
}

#[test]
fn disabled_jobs_have_no_fires() {
    let (mut fires, a) = minutely(Overlap::Skip);
    let off = Job { enabled: false, ..job("@every 60s", Overlap::Skip) };
    assert_eq!(said(&fires.set(&a, off, at(70))), ["60 Ran"]);
    assert_eq!(fires.tick(at(200)), []);
    assert_eq!(fires.next_due(), None);
}

#[test]
fn ten_thousand_jobs_in_one_second() {
    let mut fires = Scheduler::new(at(0));
    let job = job("* * * * *", Overlap::Skip);
    for i in 0..10_000 {
        fires.set(&name(&format!("job{i}")), job.clone(), at(0));
    }
    let decisions = fires.tick(at(60));
    assert_eq!(decisions.len(), 10_000);
    assert!(decisions.iter().all(|d| d.verdict == Verdict::Ran));
}

/// The id is on hosts' disks: it never changes.
#[test]
fn the_run_of_a_fire_has_one_id() {
    assert_eq!(run_id(&name("backup"), at(0)).to_string(), "ba5a7756-eede-5043-94b5-d01b9dcbe308");
    assert_ne!(run_id(&name("backup"), at(0)), run_id(&name("backup"), at(1)));
}

/// Something that happens to one of the jobs.
#[derive(Debug, Clone)]
enum Op {
    /// The clock moves by so many milliseconds.
    Move(i64),
    Set(usize, usize, usize, bool),
    Remove(usize),
    Pause(usize),
    Resume(usize),
    Ended(usize),
    Account(usize),
    /// The server goes down, and comes up from what the ledger and the store say.
    Restart(i64),
}

const JOBS: [&str; 3] = ["a", "b", "c"];
const SCHEDULES: [&str; 4] = ["@every 7s", "*/2 * * * * *", "* * * * *", "@every 11s"];
const OVERLAPS: [Overlap; 3] = [Overlap::Skip, Overlap::Queue, Overlap::Allow];

fn op() -> impl Strategy<Value = Op> {
    let job = || 0..JOBS.len();
    prop_oneof![
        8 => (0..40_000_i64).prop_map(Op::Move),
        1 => (-200_000..0_i64).prop_map(Op::Move),
        1 => (300_001..900_000_i64).prop_map(Op::Move),
        3 => (job(), 0..SCHEDULES.len(), 0..OVERLAPS.len(), prop::bool::weighted(0.8))
            .prop_map(|(j, s, o, on)| Op::Set(j, s, o, on)),
        1 => job().prop_map(Op::Remove),
        1 => job().prop_map(Op::Pause),
        2 => job().prop_map(Op::Resume),
        5 => job().prop_map(Op::Ended),
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
    verdicts: BTreeMap<(JobName, Timestamp), Verdict>,
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
                let before = self.verdicts.insert(instant, decision.verdict);
                let pending =
                    before == Some(Verdict::Pending) && decision.verdict != Verdict::Pending;
                prop_assert!(before.is_none() || pending, "{before:?} then {decision:?}");
            }
            if decision.verdict == Verdict::Ran {
                let running = self.running.entry(decision.job.clone()).or_default();
                let allows = self
                    .jobs
                    .get(&decision.job)
                    .is_some_and(|(job, _)| job.overlap == Overlap::Allow);
                prop_assert!(*running == 0 || allows, "two runs at once: {decision:?}");
                *running += 1;
            }
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
        let of_job = || self.verdicts.iter().filter(|((job, _), _)| job == name);
        let pending = of_job().filter(|(_, verdict)| **verdict == Verdict::Pending);
        Known {
            decided_to: self.last(name).unwrap_or(set_at).max(set_at),
            paused: self.paused.contains(name),
            active: self.running.get(name).copied().unwrap_or_default(),
            queued: pending.map(|((_, at), _)| *at).next(),
        }
    }
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
                fires.tick(now)
            }
            Op::Set(j, s, o, enabled) => {
                let (name, job) =
                    (name(JOBS[j]), Job { enabled, ..job(SCHEDULES[s], OVERLAPS[o]) });
                let mut from = model.seen.0;
                if let Some((_, since)) = model.jobs.get(&name) {
                    from = from.max(*since);
                } else if let Some(last) = model.last(&name) {
                    fires.decided(&name, last);
                    from = from.max(last);
                }
                model.jobs.insert(name.clone(), (job.clone(), from));
                fires.set(&name, job, now)
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
            Op::Ended(j) => {
                let running = model.running.entry(name(JOBS[j])).or_default();
                if *running == 0 {
                    continue;
                }
                *running -= 1;
                fires.ended(&name(JOBS[j]), now)
            }
            Op::Account(most) => fires.account(most),
            Op::Restart(ms) => {
                now = Timestamp::from_millis(now.as_millis() + ms);
                model.advance(now);
                fires = Scheduler::new(now);
                model.seen.0 = now;
                // What lies ahead again and has no verdict is as if it had never come.
                let Model { expected, verdicts, .. } = &mut model;
                expected.retain(|instant| instant.1 <= now || verdicts.contains_key(instant));
                let mut out = Vec::new();
                for (name, (job, from)) in model.jobs.clone() {
                    let known = model.known(&name, from);
                    model.jobs.insert(name.clone(), (job.clone(), known.decided_to));
                    out.extend(fires.restore(&name, job, &known));
                }
                for (name, running) in &model.running {
                    if !model.jobs.contains_key(name) {
                        (0..*running).for_each(|_| fires.begun(name));
                    }
                }
                out
            }
        };
        model.take(&out)?;
    }
    model.take(&fires.account(usize::MAX))?;
    let undecided: Vec<_> =
        model.expected.iter().filter(|instant| !model.verdicts.contains_key(*instant)).collect();
    prop_assert!(undecided.is_empty(), "{undecided:?}");
    for ((job, at), verdict) in &model.verdicts {
        let queued = fires.state(job).and_then(|state| state.queued);
        prop_assert!(*verdict != Verdict::Pending || queued == Some(*at), "{job} {at} is stuck");
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_instant_gets_one_verdict(ops in prop::collection::vec(op(), 1..80)) {
        play(ops)?;
    }
}

#[test]
fn rows_without_runs_coalesce() {
    let row = |verdict, reason, from, to| {
        Decision { job: name("a"), verdict, reason, from: at(from), to: at(to), count: 1 }.row()
    };
    let skipped = row(Verdict::Skipped, Some(FireReason::Overlap), 1, 1);
    assert!(coalesces(&skipped, &row(Verdict::Skipped, Some(FireReason::Overlap), 2, 2)));
    assert!(!coalesces(&skipped, &skipped));
    assert!(!coalesces(&skipped, &row(Verdict::Skipped, Some(FireReason::Paused), 2, 2)));
    assert!(!coalesces(&skipped, &row(Verdict::Missed, Some(FireReason::Overlap), 2, 2)));
    let ran = |from| row(Verdict::Ran, None, from, from);
    assert!(!coalesces(&ran(1), &ran(2)));
    let pending = |from| row(Verdict::Pending, Some(FireReason::Overlap), from, from);
    assert!(!coalesces(&pending(1), &pending(2)));
}
