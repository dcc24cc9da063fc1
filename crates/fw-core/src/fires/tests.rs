use proptest::prelude::*;

use fw_proto::RunId;
use fw_proto::api::Verdict;

use super::*;

const START: i64 = 1_800_000_000_000;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(START + secs * 1000)
}

fn name(name: &str) -> JobName {
    name.parse().unwrap()
}

fn job(schedule: &str, overlap: Overlap) -> Job {
    let schedule = Schedule::parse(schedule, "").unwrap();
    Job { schedule, calendar: None, overlap, catch_up: CatchUp::NONE, enabled: true }
}

/// A job that was last decided at this second, and of which nothing goes on.
fn known(decided_to: i64) -> Known {
    let decided_to = at(decided_to);
    let (behind, retries) = (BTreeMap::new(), BTreeMap::new());
    Known { decided_to, paused: false, active: 0, queued: None, behind, retries }
}

/// A job that is due every 60 s and makes up for so many lost fires.
fn catching_up(most: u32, overlap: Overlap) -> Job {
    let within = Span::from_secs(24 * 3600);
    Job { catch_up: CatchUp { most, within }, ..job("@every 60s", overlap) }
}

/// A calendar of only these hours.
fn hours(window: &str) -> Option<Arc<Calendar>> {
    Calendar::parse(&[], &[window.to_owned()], "").unwrap().map(Arc::new)
}

fn secs_of(secs: i64) -> Span {
    Span::from_secs(secs.unsigned_abs())
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
    let known = Known { active: 1, queued: Some(at(60)), ..known(60) };
    assert_eq!(fires.restore(&name("a"), job("@every 60s", Overlap::Queue), known.clone()), []);
    let ended = Known { active: 0, ..known.clone() };
    let again = fires.restore(&name("b"), job("@every 60s", Overlap::Queue), ended);
    assert_eq!(said(&again), ["60 Ran"]);
    let paused = Known { paused: true, queued: None, ..known };
    assert_eq!(fires.restore(&name("c"), job("@every 60s", Overlap::Skip), paused), []);
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
fn replace_waits_for_the_end_of_what_it_cancels() {
    let (mut fires, a) = minutely(Overlap::Replace);
    assert_eq!(said(&fires.tick(at(60))), ["60 Ran"]);
    assert_eq!(fires.orders(), []);
    assert_eq!(said(&fires.tick(at(120))), ["120 Pending Overlap"]);
    assert_eq!(fires.orders(), [Order::Replace(a.clone())]);
    assert_eq!(said(&fires.tick(at(180))), ["120 Coalesced Overlap", "180 Pending Overlap"]);
    assert_eq!(said(&fires.ended(&a, at(181))), ["180 Ran"]);
    fires.ended(&a, at(182));
    // Of several that are due at once only the last begins.
    assert_eq!(said(&fires.tick(at(400))), ["240..300*2 Coalesced Overlap", "360 Ran"]);
    // A server that died before it could cancel does so now.
    let known = Known { active: 1, queued: Some(at(60)), ..known(60) };
    let mut fires = Scheduler::new(at(61));
    assert_eq!(fires.restore(&a, job("@every 60s", Overlap::Replace), known), []);
    assert_eq!(fires.orders(), [Order::Replace(a.clone())]);
    assert_eq!(said(&fires.ended(&a, at(62))), ["60 Ran"]);
}

#[test]
fn a_run_that_is_tried_again_goes_on_meanwhile() {
    let (mut fires, a) = minutely(Overlap::Queue);
    let run = fires.tick(at(60))[0].run().unwrap();
    assert_eq!(fires.failed(&a, run, at(90), at(70)), []);
    let state = fires.state(&a).unwrap();
    assert_eq!((state.active, state.retries), (1, [(run, at(90))].into()));
    assert_eq!(fires.next_due(), Some(at(90)));
    assert_eq!((said(&fires.tick(at(89))), fires.orders()), (vec![], vec![]));
    assert_eq!(said(&fires.tick(at(91))), [""; 0]);
    assert_eq!(fires.orders(), [Order::Retry(a.clone(), run)]);
    assert_eq!(said(&fires.tick(at(120))), ["120 Pending Overlap"]);
    assert_eq!(said(&fires.ended(&a, at(130))), ["120 Ran"]);
    // A new server goes on where this one was.
    let known = Known { retries: [(run, at(150))].into(), ..known(120) };
    let mut fires = Scheduler::new(at(140));
    fires.restore(&a, job("@every 60s", Overlap::Skip), known);
    fires.account(9);
    assert_eq!(said(&fires.tick(at(180))), ["180 Skipped Overlap"]);
    assert_eq!(fires.orders(), [Order::Retry(a, run)]);
}

#[test]
fn what_waits_to_be_tried_again_is_given_up_with_its_job() {
    let waiting = |overlap| {
        let (mut fires, a) = minutely(overlap);
        let run = fires.tick(at(60))[0].run().unwrap();
        fires.failed(&a, run, at(1000), at(70));
        (fires, a.clone(), [Order::GiveUp(a, run)])
    };
    let (mut fires, a, given_up) = waiting(Overlap::Skip);
    fires.pause(&a, at(71));
    assert_eq!(fires.orders(), given_up);
    let (mut fires, a, given_up) = waiting(Overlap::Skip);
    fires.remove(&a, at(71));
    assert_eq!((fires.orders(), fires.jobs.len()), (given_up.to_vec(), 0));
    let (mut fires, a, given_up) = waiting(Overlap::Skip);
    fires.set(&a, job("@every 60s", Overlap::Skip), at(71));
    assert_eq!(fires.orders(), given_up);
    assert_eq!(said(&fires.tick(at(120))), ["120 Ran"]);
    let (mut fires, _, given_up) = waiting(Overlap::Replace);
    assert_eq!(said(&fires.tick(at(120))), ["120 Ran"]);
    assert_eq!(fires.orders(), given_up);
    // What fails once the next fire waits for its place is not tried again either.
    let (mut fires, a) = minutely(Overlap::Replace);
    let run = fires.tick(at(60))[0].run().unwrap();
    fires.tick(at(120));
    assert_eq!(said(&fires.failed(&a, run, at(1000), at(121))), ["120 Ran"]);
    assert_eq!(fires.orders(), [Order::Replace(a.clone()), Order::GiveUp(a, run)]);
}

#[test]
fn the_last_lost_fire_is_caught_up() {
    let (mut fires, a) = (Scheduler::new(at(3601)), name("a"));
    assert_eq!(fires.restore(&a, catching_up(1, Overlap::Skip), known(60)), []);
    let done = fires.account(9);
    assert_eq!(
        said(&done),
        ["120..3540*58 Missed Downtime", "3600 Pending Downtime", "3600 CaughtUp Downtime"]
    );
    assert_eq!(done[2].run(), Some(run_id(&a, at(3600))));
    assert_eq!(said(&fires.tick(at(3660))), ["3660 Skipped Overlap"]);
    fires.ended(&a, at(3661));
    // A clock that jumps is downtime as well.
    assert_eq!(fires.tick(at(7261)), []);
    assert_eq!(
        said(&fires.account(9)),
        ["3720..7200*59 Missed ClockJump", "7260 Pending ClockJump", "7260 CaughtUp ClockJump"]
    );
}

#[test]
fn all_are_caught_up_in_order_and_a_new_server_goes_on() {
    let (mut fires, a) = (Scheduler::new(at(241)), name("a"));
    fires.restore(&a, catching_up(3, Overlap::Queue), known(0));
    assert_eq!(
        said(&fires.account(9)),
        [
            "60 Missed Downtime",
            "120 Pending Downtime",
            "180 Pending Downtime",
            "240 Pending Downtime",
            "120 CaughtUp Downtime"
        ]
    );
    assert_eq!(said(&fires.tick(at(300))), ["300 Pending Overlap"]);
    let state = fires.state(&a).unwrap();
    assert_eq!((state.queued, state.behind), (Some(at(300)), [at(180), at(240)].into()));
    // The server dies, and its store knows all of that. While it is down the run ends.
    let behind = [(at(180), FireReason::Downtime), (at(240), FireReason::Downtime)].into();
    let stored = Known { queued: Some(at(300)), behind, ..known(300) };
    let mut fires = Scheduler::new(at(421));
    assert_eq!(fires.restore(&a, catching_up(3, Overlap::Queue), stored), []);
    assert_eq!(
        said(&fires.account(9)),
        [
            "180 Missed Downtime",
            "360 Pending Downtime",
            "420 Pending Downtime",
            "240 CaughtUp Downtime"
        ]
    );
    assert_eq!(said(&fires.ended(&a, at(422))), ["300 Ran"]);
    assert_eq!(said(&fires.ended(&a, at(423))), ["360 CaughtUp Downtime"]);
    assert_eq!(said(&fires.ended(&a, at(424))), ["420 CaughtUp Downtime"]);
    assert_eq!(said(&fires.ended(&a, at(425))), [""; 0]);
}

#[test]
fn what_waits_to_be_caught_up_follows_its_job() {
    let a = name("a");
    let waiting = |overlap| {
        let mut fires = Scheduler::new(at(181));
        fires.restore(&a, catching_up(9, overlap), Known { active: 1, ..known(0) });
        assert_eq!(fires.account(9).len(), 3);
        fires
    };
    let dropped = |reason: &str| [60, 120, 180].map(|at| format!("{at} Skipped {reason}"));
    assert_eq!(said(&waiting(Overlap::Skip).pause(&a, at(182))), dropped("Paused"));
    assert_eq!(said(&waiting(Overlap::Skip).remove(&a, at(182))), dropped("Changed"));
    let mut fires = waiting(Overlap::Skip);
    assert_eq!(said(&fires.set(&a, job("@every 60s", Overlap::Skip), at(182))), dropped("Changed"));
    let mut fires = waiting(Overlap::Skip);
    let fewer = fires.set(&a, catching_up(2, Overlap::Skip), at(182));
    assert_eq!(said(&fewer), ["60 Skipped Changed"]);
    assert_eq!(said(&fires.ended(&a, at(183))), ["120 CaughtUp Downtime"]);
    let mut fires = waiting(Overlap::Replace);
    let replaced = fires.tick(at(240));
    assert_eq!(
        said(&replaced),
        [
            "60 Coalesced Overlap",
            "120 Coalesced Overlap",
            "180 Coalesced Overlap",
            "240 Pending Overlap"
        ]
    );
    // What could not begin within the window is lost.
    let mut fires = waiting(Overlap::Allow);
    fires.tick(at(240));
    fires.ended(&a, at(24 * 3600 + 130));
    assert_eq!(fires.state(&a).unwrap().behind, [at(180)].into());
}

#[test]
fn a_calendar_skips_also_what_was_lost() {
    // From 08:00 on 15 January 2027 every 60 s, but not from 08:02 to 08:05.
    let (mut fires, a) = (Scheduler::new(at(0)), name("a"));
    let limited = |most| {
        let job = catching_up(most, Overlap::Queue);
        Job { calendar: hours("08:05-08:02"), ..job }
    };
    fires.set(&a, limited(0), at(0));
    assert_eq!(said(&fires.tick(at(60))), ["60 Ran"]);
    assert_eq!(said(&fires.tick(at(250))), ["120..240*3 Skipped Window"]);
    assert_eq!(fires.state(&a).unwrap().next, Some(at(300)));
    assert_eq!(said(&fires.tick(at(300))), ["300 Pending Overlap"]);
    let mut fires = Scheduler::new(at(401));
    fires.restore(&a, limited(3), known(0));
    assert_eq!(
        said(&fires.account(9)),
        [
            "60 Pending Downtime",
            "120..240*3 Skipped Window",
            "300 Pending Downtime",
            "360 Pending Downtime",
            "60 CaughtUp Downtime"
        ]
    );
    let mut fires = Scheduler::new(at(401));
    fires.restore(&a, limited(1), known(0));
    assert_eq!(
        said(&fires.account(9)),
        [
            "60 Missed Downtime",
            "120..240*3 Skipped Window",
            "300 Missed Downtime",
            "360 Pending Downtime",
            "360 CaughtUp Downtime"
        ]
    );
    // Of ten years the last three are looked at day by day.
    let years = 10 * 365 * 86_400;
    let mut fires = Scheduler::new(at(years));
    fires.restore(&a, limited(0), known(0));
    let decided = fires.account(1);
    assert_eq!(decided.iter().map(|decision| decision.count).sum::<u64>(), 10 * 365 * 1440);
    assert!(decided.len() < 2 * 3 * 367, "{}", decided.len());
}

#[test]
fn a_year_of_seconds_is_counted_at_once() {
    let year = 365 * 24 * 3600;
    let mut fires = Scheduler::new(at(year));
    let within = Span::from_secs(24 * 3600);
    let catch_up = CatchUp { most: 100, within };
    let each_second = Job { catch_up, ..job("* * * * * *", Overlap::Skip) };
    fires.restore(&name("a"), each_second, known(0));
    let decisions = fires.account(1);
    assert_eq!(decisions.len(), 1 + 100 + 1);
    assert_eq!(said(&decisions)[0], format!("1..{}*{} Missed Downtime", year - 100, year - 100));
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

#[test]
fn rows_without_runs_coalesce() {
    let row = |verdict, reason, from, to| {
        let (job, from, to) = (name("a"), at(from), at(to));
        Decision { job, verdict, reason, from, to, count: 1, waited: false }.row()
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

mod held;
