use std::collections::BTreeMap;

use fw_proto::{HostName, Span};
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::schedule::Schedule;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn of(selector: Option<&str>, since: i64, until: Option<i64>) -> Maintenance {
    let hosts = |text: &str| Scope::Hosts(Selector::parse(text).unwrap());
    let scope = selector.map_or(Scope::Everything, hosts);
    let (source, windows) = (None, None);
    Maintenance { scope, source, since: at(since), until: until.map(at), windows }
}

fn in_maintenance(all: &Maintenances, host: &str, now: i64) -> Option<u32> {
    let name: HostName = host.parse().unwrap();
    let seen = Seen { name: &name, labels: &BTreeMap::new(), facts: &Map::new() };
    all.of(seen, at(now)).map(|id| id.0)
}

#[test]
fn a_host_is_in_maintenance_while_one_covers_it() {
    let mut all = Maintenances::default();
    all.put(MaintenanceId(1), of(Some("web*"), 10, Some(20)));
    all.put(MaintenanceId(2), of(Some("web1"), 10, None));
    all.put(MaintenanceId(3), of(None, 30, None));
    let seen = |all: &Maintenances, now| {
        ["web1", "web2", "db1"].map(|host| in_maintenance(all, host, now))
    };
    assert_eq!(seen(&all, 9), [None, None, None]);
    assert_eq!(seen(&all, 10), [Some(1), Some(1), None]);
    assert_eq!(seen(&all, 19), [Some(1), Some(1), None]);
    assert_eq!(seen(&all, 20), [Some(2), None, None]);
    assert_eq!(seen(&all, 30), [Some(2), Some(3), Some(3)]);
    assert_eq!((all.everything(at(29)), all.everything(at(30))), (None, Some(MaintenanceId(3))));
    all.end(MaintenanceId(3), at(40));
    all.end(MaintenanceId(3), at(50));
    all.end(MaintenanceId(1), at(50));
    assert_eq!(seen(&all, 40), [Some(2), None, None]);
    assert_eq!(*all.held().of(None), Spans::new(vec![(at(30), Some(at(40)))]));
    assert_eq!((all.is_any_over(at(19)), all.is_any_over(at(20))), (false, true));
    assert_eq!(all.forget(at(39)), [MaintenanceId(1)]);
    assert_eq!((all.is_any_over(at(39)), all.get(MaintenanceId(1))), (false, None));
    assert_eq!(all.forget(at(40)), [MaintenanceId(3)]);
    assert_eq!(all.in_force(at(40)).map(|(id, _)| id.0).collect::<Vec<_>>(), [2]);
}

/// Windows of the files of a source and of everybody: who holds whom.
#[test]
fn a_source_holds_its_own_jobs_and_no_others() {
    let mut all = Maintenances::default();
    let of_pepper = |one| Maintenance { source: Some("pepper".into()), ..one };
    all.put(MaintenanceId(1), of_pepper(of(None, 10, Some(20))));
    all.put(MaintenanceId(2), of_pepper(of(Some("web1"), 30, None)));
    all.put(MaintenanceId(3), of(Some("web*"), 40, None));
    let name: HostName = "web1".parse().unwrap();
    let host = Seen { name: &name, labels: &BTreeMap::new(), facts: &Map::new() };
    let holding = |source, by_hand, now| {
        all.holding(host, Asking { source, by_hand }, at(now)).map(|id| id.0)
    };
    let pepper = Some("pepper");
    assert_eq!((holding(pepper, false, 10), holding(None, false, 10)), (Some(1), None));
    assert_eq!((holding(pepper, true, 10), holding(Some("mint"), false, 10)), (Some(1), None));
    assert_eq!((holding(pepper, true, 30), holding(pepper, false, 25)), (Some(2), None));
    assert_eq!((holding(None, false, 40), holding(None, true, 40)), (Some(3), None));
    assert_eq!(
        (in_maintenance(&all, "web1", 30), in_maintenance(&all, "web1", 40)),
        (None, Some(3))
    );
    assert_eq!(all.everything(at(10)), None, "other jobs fire");
    let held = all.held();
    let covers = |source: Option<&str>| held.of(source).covers(at(10));
    assert_eq!((covers(pepper), covers(None), covers(Some("mint"))), (true, false, false));
}

fn recurring(every: &str, timezone: &str, mins: u64) -> Windows {
    let every = Schedule::parse(every, timezone).unwrap();
    Windows { every, lasts: Span::from_secs(mins * 60) }
}

/// From and until, in UTC, of the window that this lies in or the next.
fn window(windows: &Windows, now: &str) -> String {
    let found = windows.next(now.parse().unwrap()).unwrap();
    format!("{} {}", found.from, found.until).replace(":00.000Z", "")
}

#[test]
fn a_window_begins_at_its_wall_time_and_lasts_as_long_as_ever() {
    let sundays = recurring("0 2 * * sun", "Europe/Athens", 120);
    assert_eq!(window(&sundays, "2026-01-01T00:00:00Z"), "2026-01-04T00:00 2026-01-04T02:00");
    assert_eq!(window(&sundays, "2026-01-04T01:59:59Z"), "2026-01-04T00:00 2026-01-04T02:00");
    assert_eq!(window(&sundays, "2026-01-04T02:00:00Z"), "2026-01-11T00:00 2026-01-11T02:00");
    // Summer time begins at 03:00 on 29 March: from 02:00 on it is two hours all the same.
    assert_eq!(window(&sundays, "2026-03-25T00:00:00Z"), "2026-03-29T00:00 2026-03-29T02:00");
    assert_eq!(window(&sundays, "2026-04-01T00:00:00Z"), "2026-04-04T23:00 2026-04-05T01:00");
    // 03:30 is skipped that night: the window begins when the gap is over.
    let in_gap = recurring("30 3 * * *", "Europe/Athens", 60);
    assert_eq!(window(&in_gap, "2026-03-28T12:00:00Z"), "2026-03-29T01:00 2026-03-29T02:00");
    // And in autumn 03:30 comes twice: there is one window.
    assert_eq!(window(&in_gap, "2026-10-24T12:00:00Z"), "2026-10-25T00:30 2026-10-25T01:30");
    assert_eq!(window(&in_gap, "2026-10-25T01:30:00Z"), "2026-10-26T01:30 2026-10-26T02:30");
}

#[test]
fn windows_that_touch_are_one_and_those_that_never_end_are_known() {
    let touching = recurring("0 2,3 * * *", "", 60);
    assert_eq!(window(&touching, "2026-01-01T00:00:00Z"), "2026-01-01T02:00 2026-01-01T04:00");
    assert!(touching.run_together("2026-01-01T00:00:00Z".parse().unwrap()));
    assert!(recurring("@every 1h", "", 60).run_together(at(0)));
    assert!(!recurring("@every 1h", "", 59).run_together(at(0)));
}

#[test]
fn one_that_recurs_is_on_between_its_windows_too() {
    let mut all = Maintenances::default();
    // Minutes of the second day.
    let minute = |minute: i64| at((24 * 60 + minute) * 60_000);
    let hourly = Maintenance {
        windows: Some(recurring("@every 1h", "", 10)),
        since: minute(5),
        until: Some(minute(122)),
        ..of(None, 0, None)
    };
    all.put(MaintenanceId(1), hourly.clone());
    let shown = |now| hourly.window(minute(now)).map(|window| (window.from, window.until));
    let window = |from, until| Some((minute(from), minute(until)));
    assert_eq!((shown(0), shown(9)), (window(5, 10), window(5, 10)), "not before it is on");
    assert_eq!((shown(10), shown(70)), (window(60, 70), window(120, 122)));
    let on = |now| (all.on(minute(now)).count(), all.in_force(minute(now)).count());
    assert_eq!((on(4), on(5), on(10)), ((1, 0), (1, 1), (1, 0)));
    assert_eq!((on(121), on(122)), ((1, 1), (0, 0)));
    assert_eq!(shown(122), None);
}

/// A downtime may be as long as it likes: so many windows are looked at, the last.
#[test]
fn of_windows_in_a_long_downtime_the_last_thousand_are_known() {
    let hourly = Recurring { since: at(0), until: None, windows: recurring("@every 1h", "", 10) };
    let spans = Spans::default().with(vec![hourly]);
    let year = Span::from_secs(366 * 24 * 3600);
    let pieces = spans.cut(at(0), at(0) + year);
    let held: Vec<_> = pieces.iter().filter(|piece| piece.held).collect();
    assert_eq!((pieces.len(), held.len()), (2000, 1000));
    assert!(held.iter().all(|piece| spans.covers(piece.until)));
}

fn all_windows() -> impl Strategy<Value = Windows> {
    let every = prop::sample::select(vec![
        ("@every 7s", ""),
        ("@every 40s", ""),
        ("*/2 * * * *", ""),
        ("0 3 * * *", "Europe/Athens"),
        ("30 2 * * *", "America/New_York"),
        ("0 */6 * * *", "Australia/Lord_Howe"),
    ]);
    let lasts = prop_oneof![1_u64..100, 3600_u64..8000];
    (every, lasts).prop_map(|((every, timezone), secs)| {
        let every = Schedule::parse(every, timezone).unwrap();
        Windows { every, lasts: Span::from_secs(secs) }
    })
}

/// Milliseconds near changes of the clocks, and long ago.
fn near() -> impl Strategy<Value = i64> {
    let places = ["1970-01-02T00:00:00Z", "2026-03-28T22:00:00Z", "2026-11-01T00:00:00Z"];
    let places = places.map(|text| text.parse::<Timestamp>().unwrap().as_millis());
    (prop::sample::select(places.to_vec()), 0_i64..200_000_000).prop_map(|(place, ms)| place + ms)
}

fn spans() -> impl Strategy<Value = Vec<(Timestamp, Option<Timestamp>)>> {
    let span = (0_i64..60, proptest::option::weighted(0.9, 0_i64..60));
    proptest::collection::vec(span.prop_map(|(from, to)| (at(from), to.map(at))), 0..6)
}

proptest! {
    /// An instant lies in a window when one began not longer ago than windows last; and until the next
    /// edge nothing changes.
    #[test]
    fn a_window_covers_what_its_schedule_and_length_say(
        windows in all_windows(), begin in near(), step in 0_i64..8_000_000,
    ) {
        let now = at(begin);
        let began = windows.every.between(now - windows.lasts, now).next();
        prop_assert_eq!(windows.cover(now), began.is_some());
        let next = windows.next(now).unwrap();
        prop_assert!(now < next.until && windows.cover(next.from));
        prop_assert_eq!(windows.cover(now), next.from <= now);
        prop_assert!(windows.cover(next.until - Span::from_millis(1)));
        let one = Maintenance { windows: Some(windows), ..of(None, 0, None) };
        let mut all = Maintenances::default();
        all.put(MaintenanceId(1), one);
        let edge = all.same_until(now).unwrap();
        prop_assert!(now < edge);
        let between = at(begin + step).min(edge - Span::from_millis(1));
        prop_assert_eq!(all.everything(between), all.everything(now));
    }

    /// Fires that were lost are cut as those that are due now are asked for: what recurs and what does
    /// not together.
    #[test]
    fn what_recurs_is_cut_as_it_covers(
        windows in all_windows(), whole in spans(), begin in near(), length in 1_i64..4_000_000,
        since in -2_000_000_i64..2_000_000, lasted in proptest::option::of(0_i64..4_000_000),
        looks in proptest::collection::vec(0_i64..4_000_000, 1..20),
    ) {
        let since = at(begin + since);
        let until = lasted.map(|ms| since + Span::from_millis(ms.unsigned_abs()));
        let moved = whole.into_iter().map(|(from, to)| {
            let move_it = |at: Timestamp| Timestamp::from_millis(begin + at.as_millis() * 60_000);
            (move_it(from), to.map(move_it))
        });
        let spans = Spans::new(moved.collect()).with(vec![Recurring { since, until, windows }]);
        let pieces = spans.cut(at(begin), at(begin + length));
        for now in looks.into_iter().map(|look| at(begin + 1 + look % length)) {
            let piece = pieces.iter().find(|piece| piece.after < now && now <= piece.until);
            prop_assert_eq!(piece.map(|piece| piece.held), Some(spans.covers(now)));
        }
        let alternate = pieces.windows(2).all(|two| two[0].held != two[1].held);
        prop_assert!(alternate, "{:?}", pieces);
    }

    /// Joined or not, an instant lies in the spans when it lies in one of those that were given.
    #[test]
    fn spans_cover_what_one_of_them_covers(given in spans(), now in -5_i64..70) {
        let one = given.iter().any(|(since, until)| {
            *since <= at(now) && until.is_none_or(|until| at(now) < until)
        });
        prop_assert_eq!(Spans::new(given).covers(at(now)), one);
    }

    /// A cut loses no instant and has none twice, and says of each whether it is held.
    #[test]
    fn a_cut_is_the_whole_in_pieces(given in spans(), after in 0_i64..60, length in 1_i64..60) {
        let spans = Spans::new(given);
        let until = after + length;
        let pieces = spans.cut(at(after), at(until));
        let mut end = at(after);
        for piece in &pieces {
            prop_assert!(piece.after == end && piece.after < piece.until, "{:?}", pieces);
            end = piece.until;
        }
        prop_assert_eq!(end, at(until));
        for now in (after + 1..=until).map(at) {
            let piece = pieces.iter().find(|piece| piece.after < now && now <= piece.until);
            prop_assert_eq!(piece.map(|piece| piece.held), Some(spans.covers(now)));
        }
        let alternate = pieces.windows(2).all(|two| two[0].held != two[1].held);
        prop_assert!(alternate, "{:?}", pieces);
    }
}
