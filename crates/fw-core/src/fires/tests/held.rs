//! Fires while all is in maintenance.

use super::*;
use crate::maintenance::{Held, Maintenance, Maintenances, Recurring, Scope, Spans, Windows};
use fw_proto::MaintenanceId;

/// All is in maintenance from this second to before that one.
fn held(spans: &[(i64, i64)]) -> Held {
    let spans = spans.iter().map(|(since, until)| (at(*since), Some(at(*until))));
    Held::all(Spans::new(spans.collect()))
}

fn held_from(since: i64) -> Held {
    Held::all(Spans::new(vec![(at(since), None)]))
}

#[test]
fn fires_are_skipped_until_it_is_over() {
    let (mut fires, a) = minutely(Overlap::Skip);
    // What was due before it was switched on is decided as if it were not.
    assert_eq!(said(&fires.hold(held_from(70), at(70))), ["60 Ran"]);
    assert_eq!(said(&fires.tick(at(250))), ["120..240*3 Skipped Maintenance"]);
    assert_eq!(said(&fires.pause(&a, at(310))), ["300 Skipped Maintenance"]);
    assert_eq!(said(&fires.tick(at(360))), ["360 Skipped Paused"]);
    assert_eq!(fires.resume(&a, at(370)), []);
    // Its end may come while nobody looks.
    assert_eq!(said(&fires.hold(held(&[(70, 480)]), at(430))), ["420 Skipped Maintenance"]);
    assert_eq!(said(&fires.tick(at(490))), ["480 Skipped Overlap"]);
    assert_eq!(said(&fires.ended(&a, at(500))), [""; 0]);
    assert_eq!(said(&fires.tick(at(540))), ["540 Ran"]);
}

#[test]
fn a_run_goes_on_and_no_fire_takes_its_place() {
    let (mut fires, a) = minutely(Overlap::Replace);
    assert_eq!(said(&fires.tick(at(60))), ["60 Ran"]);
    assert_eq!(fires.hold(held(&[(70, 180)]), at(70)), []);
    assert_eq!(said(&fires.tick(at(120))), ["120 Skipped Maintenance"]);
    assert_eq!(fires.orders(), []);
    assert_eq!(said(&fires.tick(at(180))), ["180 Pending Overlap"]);
    assert_eq!(fires.orders(), [Order::Replace(a)]);
}

#[test]
fn a_fire_is_not_superseded_by_one_that_is_held() {
    let (mut fires, _) = minutely(Overlap::Replace);
    assert_eq!(fires.hold(held(&[(100, 150)]), at(0)), []);
    let (mut free, _) = minutely(Overlap::Replace);
    assert_eq!(said(&free.tick(at(120))), ["60 Coalesced Overlap", "120 Ran"]);
    assert_eq!(said(&fires.tick(at(120))), ["60 Ran", "120 Skipped Maintenance"]);
}

#[test]
fn a_fire_whose_turn_comes_is_skipped() {
    let (mut fires, a) = minutely(Overlap::Queue);
    assert_eq!(said(&fires.tick(at(120))), ["60 Ran", "120 Pending Overlap"]);
    assert_eq!(fires.hold(held_from(130), at(130)), []);
    assert_eq!(fires.state(&a).unwrap().queued, Some(at(120)), "its turn has not come");
    assert_eq!(said(&fires.ended(&a, at(140))), ["120 Skipped Maintenance"]);
    let mut fires = Scheduler::new(at(300));
    assert_eq!(fires.hold(held_from(250), at(300)), []);
    assert_eq!(fires.restore(&a, catching_up(3, Overlap::Skip), known(0)), []);
    assert_eq!(
        said(&fires.account(9)),
        [
            "60 Missed Downtime",
            "120 Pending Downtime",
            "180 Pending Downtime",
            "240 Pending Downtime",
            "300 Skipped Maintenance",
            "120 Skipped Maintenance",
            "180 Skipped Maintenance",
            "240 Skipped Maintenance",
        ]
    );
}

#[test]
fn what_was_lost_in_it_is_not_made_up_for() {
    let mut fires = Scheduler::new(at(600));
    assert_eq!(fires.hold(held(&[(200, 301), (420, 480)]), at(600)), []);
    assert_eq!(fires.restore(&name("a"), catching_up(2, Overlap::Skip), known(0)), []);
    assert_eq!(
        said(&fires.account(9)),
        [
            "60 Missed Downtime",
            "120 Pending Downtime",
            "180 Pending Downtime",
            "240..300*2 Skipped Maintenance",
            "120 Missed Downtime",
            "360 Pending Downtime",
            "420 Skipped Maintenance",
            "180 Missed Downtime",
            "360 Missed Downtime",
            "480 Missed Downtime",
            "540 Pending Downtime",
            "600 Pending Downtime",
            "540 CaughtUp Downtime",
        ]
    );
}

#[test]
fn jobs_of_other_sources_go_on() {
    let (mut fires, a) = minutely(Overlap::Skip);
    let pepper = Job { source: Some("pepper".into()), ..job("@every 60s", Overlap::Skip) };
    assert_eq!(fires.set(&name("b"), pepper, at(0)), []);
    let mut all = Maintenances::default();
    let maintenance = |source: Option<&str>, since, until| Maintenance {
        scope: Scope::Everything,
        source: source.map(Into::into),
        since: at(since),
        until: Some(at(until)),
        windows: None,
    };
    all.put(MaintenanceId(1), maintenance(Some("pepper"), 50, 100));
    all.put(MaintenanceId(2), maintenance(None, 110, 130));
    assert_eq!(fires.hold(all.held(), at(10)), []);
    assert_eq!(said(&fires.tick(at(60))), ["60 Ran", "60 Skipped Maintenance"]);
    assert_eq!(fires.ended(&a, at(70)), []);
    assert_eq!(said(&fires.tick(at(120))), ["120 Skipped Maintenance", "120 Skipped Maintenance"]);
    assert_eq!(said(&fires.tick(at(180))), ["180 Ran", "180 Ran"]);
}

#[test]
fn a_window_that_recurs_holds_what_is_due_in_it_also_while_nobody_was_there() {
    let every = Schedule::parse("@every 3m", "").unwrap();
    let windows = Windows { every, lasts: secs_of(60) };
    let recurring = Recurring { since: at(200), until: Some(at(600)), windows };
    let held = Held::all(Spans::default().with(vec![recurring]));
    let mut fires = Scheduler::new(at(480));
    assert_eq!(fires.hold(held, at(480)), []);
    assert_eq!(fires.restore(&name("a"), job("@every 60s", Overlap::Allow), known(0)), []);
    let lost = fires.account(9);
    // The clock shows whole multiples of three minutes at 0, 180, 360, 540 and 720.
    assert_eq!(
        said(&lost),
        ["60..300*5 Missed Downtime", "360 Skipped Maintenance", "420..480*2 Missed Downtime",]
    );
    assert_eq!(said(&fires.tick(at(540))), ["540 Skipped Maintenance"]);
    assert_eq!(said(&fires.tick(at(720))), ["600 Ran", "660 Ran", "720 Ran"]);
}

proptest! {
    /// Every instant has one verdict, whatever is held and however time passes; it is `Maintenance`
    /// if and only if it lies in one, be the server up, down or its clock set.
    #[test]
    fn each_instant_is_held_or_not(
        given in proptest::collection::vec((0_i64..3600, 0_i64..900), 0..5),
        steps in proptest::collection::vec(1_i64..900, 1..20),
        down in 0_i64..1200,
    ) {
        let spans: Vec<_> = given.iter().map(|(from, long)| (*from, from + long)).collect();
        let spans = held(&spans);
        let mut fires = Scheduler::new(at(down));
        fires.hold(spans.clone(), at(down));
        let mut out = fires.restore(&name("a"), job("@every 60s", Overlap::Allow), known(0));
        let mut now = down;
        for step in steps {
            now += step;
            out.extend(fires.tick(at(now)));
        }
        while fires.owes() {
            out.extend(fires.account(1));
        }
        let due = (1..=now).filter(|secs| (START / 1000 + secs) % 60 == 0).map(at);
        for instant in due {
            let of = |d: &&Decision| d.from <= instant && instant <= d.to;
            let found: Vec<_> = out.iter().filter(of).collect();
            prop_assert_eq!(found.len(), 1, "{:?}: {:?}", instant, said(&out));
            let maintenance = found[0].reason == Some(FireReason::Maintenance);
            prop_assert_eq!(maintenance, spans.of(None).covers(instant));
        }
    }
}
