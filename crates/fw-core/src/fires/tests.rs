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
    Job { schedule, calendar: None, overlap, catch_up: CatchUp::NONE, enabled: true, source: None }
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
    assert_eq!(run_id(&name("backup"), at(0)).to_string(), "01a3185c-5000-8043-94b5-d01b9dcbe308");
    assert_ne!(run_id(&name("backup"), at(0)), run_id(&name("report"), at(0)));
}

/// As ids of other runs do: those of one second lie side by side in the store.
#[test]
fn ids_of_runs_follow_their_time() {
    let ids = (0..100).map(|minute| run_id(&name("backup"), at(minute * 60)));
    assert!(ids.clone().is_sorted());
    let tries = ids.clone().map(retry_id);
    assert!(tries.clone().zip(ids.clone().skip(1)).all(|(again, next)| again < next));
    assert!(ids.zip(tries).all(|(run, again)| run != again));
    assert_ne!(retry_id(run_id(&name("backup"), at(0))), retry_id(run_id(&name("report"), at(0))));
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
mod model;
