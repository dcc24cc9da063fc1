use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The fires after `from`, as UTC times; `~` marks those moved out of a gap.
fn fires(schedule: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(schedule, zone).unwrap_or_else(|error| panic!("{error}"));
    let end = at("9999-12-31T23:59:59Z");
    let name = |fire: Fire| {
        let text = fire.nominal.to_string().replace(":00.000Z", "").replace(".000Z", "");
        if fire.dst_gap { format!("{text}~") } else { text }
    };
    schedule.between(at(from), end).take(count).map(name).collect()
}

#[test]
fn plain_schedules() {
    let from = "2026-11-20T09:30:00Z";
    assert_eq!(fires("*/20 * * * *", "", from, 2), ["2026-11-20T09:40", "2026-11-20T10:00"]);
    assert_eq!(
        fires("15 */30 9 * * *", "UTC", from, 2),
        ["2026-11-20T09:30:15", "2026-11-21T09:00:15"]
    );
    assert_eq!(fires("30 9 * * *", "", from, 1), ["2026-11-21T09:30"]);
    assert_eq!(fires("0 0 * * MON-TUE", "", from, 3)[2], "2026-11-30T00:00");
    assert_eq!(fires("0 0 * * 7", "", from, 1), ["2026-11-22T00:00"]);
    assert_eq!(fires("0 0 L * *", "", from, 1), ["2026-11-30T00:00"]);
    assert_eq!(fires("0 0 13 * FRI", "", from, 2), ["2026-11-27T00:00", "2026-12-04T00:00"]);
    assert_eq!(fires("0 0 0 29 2 * 2028", "", from, 2), ["2028-02-29T00:00"]);
    assert_eq!(fires("@every 90s", "", from, 2), ["2026-11-20T09:31:30", "2026-11-20T09:33"]);
    assert_eq!(fires("@weekly", "Europe/Athens", from, 1), ["2026-11-21T22:00"]);
    assert_eq!(fires("0 0 29 2 +MON", "", from, 1), ["2044-02-29T00:00"]);
}

/// Athens springs from 03:00 to 04:00 on 29 March 2026, at 01:00 UTC.
#[test]
fn in_the_gap_of_athens() {
    let zone = "Europe/Athens";
    let from = "2026-03-28T12:00:00Z";
    let fixed = |schedule: &str| fires(schedule, zone, from, 2);
    assert_eq!(fixed("30 3 * * *"), ["2026-03-29T01:00~", "2026-03-30T00:30"]);
    assert_eq!(fixed("10,30 3 * * *"), ["2026-03-29T01:00~", "2026-03-30T00:10"]);
    assert_eq!(fixed("0 3,4 * * *"), ["2026-03-29T01:00", "2026-03-30T00:00"]);
    assert_eq!(fixed("30 3,15 * * *"), ["2026-03-28T13:30", "2026-03-29T01:00~"]);
    assert_eq!(
        fires("30 * * * *", zone, "2026-03-28T23:45:00Z", 3),
        ["2026-03-29T00:30", "2026-03-29T01:30", "2026-03-29T02:30"]
    );
    assert_eq!(fires("*/30 3 * * *", zone, from, 1), ["2026-03-30T00:00"]);
}

/// Athens falls from 04:00 back to 03:00 on 25 October 2026, at 01:00 UTC.
#[test]
fn in_the_fold_of_athens() {
    let zone = "Europe/Athens";
    let from = "2026-10-24T12:00:00Z";
    assert_eq!(fires("30 3 * * *", zone, from, 2), ["2026-10-25T00:30", "2026-10-26T01:30"]);
    assert_eq!(
        fires("0,30 3 * * *", zone, from, 3),
        ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-26T01:00"]
    );
    assert_eq!(
        fires("*/30 3 * * *", zone, from, 5),
        [
            "2026-10-25T00:00",
            "2026-10-25T00:30",
            "2026-10-25T01:00",
            "2026-10-25T01:30",
            "2026-10-26T01:00"
        ]
    );
    let in_second_half = "2026-10-25T01:10:00Z";
    assert_eq!(fires("30 3 * * *", zone, in_second_half, 1), ["2026-10-26T01:30"]);
    assert_eq!(fires("0 4 * * *", zone, in_second_half, 1), ["2026-10-25T02:00"]);
}

/// Lord Howe moves by half an hour: back from 02:00 to 01:30 on 5 April 2026 at 15:00 UTC of the
/// day before, forward from 02:00 to 02:30 on 4 October at 15:30 UTC of the day before.
#[test]
fn on_lord_howe() {
    let zone = "Australia/Lord_Howe";
    assert_eq!(
        fires("0 * * * *", zone, "2026-04-04T13:30:00Z", 3),
        ["2026-04-04T14:00", "2026-04-04T15:30", "2026-04-04T16:30"]
    );
    assert_eq!(
        fires("*/15 * * * *", zone, "2026-04-04T14:40:00Z", 5),
        [
            "2026-04-04T14:45",
            "2026-04-04T15:00",
            "2026-04-04T15:15",
            "2026-04-04T15:30",
            "2026-04-04T15:45"
        ]
    );
    assert_eq!(
        fires("45 1 * * *", zone, "2026-04-04T12:00:00Z", 2),
        ["2026-04-04T14:45", "2026-04-05T15:15"]
    );
    assert_eq!(
        fires("15 2 * * *", zone, "2026-10-03T12:00:00Z", 2),
        ["2026-10-03T15:30~", "2026-10-04T15:15"]
    );
}

#[test]
fn days_from_the_end_of_the_month() {
    let from = "2027-01-20T09:30:00Z";
    assert_eq!(
        fires("0 0 L-3 * *", "", from, 4),
        ["2027-01-28T00:00", "2027-02-25T00:00", "2027-03-28T00:00", "2027-04-27T00:00"]
    );
    assert_eq!(fires("0 0 l-1,L * *", "", from, 3)[1..], ["2027-01-31T00:00", "2027-02-27T00:00"]);
    assert_eq!(fires("0 0 L-28 2 *", "", from, 2), ["2028-02-01T00:00", "2032-02-01T00:00"]);
    assert_eq!(fires("0 0 L-30 * *", "", from, 2), ["2027-03-01T00:00", "2027-05-01T00:00"]);
    assert_eq!(fires("0 0 L-3 * +SUN", "", from, 2), ["2027-03-28T00:00", "2027-06-27T00:00"]);
    assert_eq!(fires("0 0 L-3 * SUN", "", from, 2), ["2027-01-24T00:00", "2027-01-28T00:00"]);
    assert_eq!(fires("0 0 L * +5L", "", from, 2), ["2027-04-30T00:00", "2027-12-31T00:00"]);
    let listed = fires("0 0 12 1 1 * 2029,2031", "", from, 3);
    assert_eq!(listed, ["2029-01-01T12:00", "2031-01-01T12:00"]);
}

#[test]
fn what_is_never_due_is_told_apart() {
    for text in ["0 0 30 2 *", "0 0 L-29 2 *", "0 0 0 1 1 * 1969", "0 0 31 * +2#1"] {
        let error = Schedule::parse(text, "").unwrap_err();
        assert!(matches!(error, Error::Never(_)), "{text}: {error}");
    }
}

/// On Samoa 30 December 2011 did not exist: the clock went from 29 to 31 December, at 10:00 UTC.
#[test]
fn where_a_whole_day_is_skipped() {
    let zone = "Pacific/Apia";
    let from = "2011-12-29T12:00:00Z";
    assert_eq!(
        fires("0 12 * * *", zone, from, 3),
        ["2011-12-29T22:00", "2011-12-30T10:00~", "2011-12-30T22:00"]
    );
    assert_eq!(fires("0 0 * * *", zone, from, 2), ["2011-12-30T10:00", "2011-12-31T10:00"]);
    assert_eq!(fires("0 6,12 30 12 *", zone, from, 2), ["2011-12-30T10:00~", "2012-12-29T16:00"]);
    assert_eq!(
        fires("0 */8 * * *", zone, from, 3),
        ["2011-12-29T18:00", "2011-12-30T02:00", "2011-12-30T10:00"]
    );
    assert_eq!(fires("*/20 * 30 * *", zone, from, 1), ["2012-01-29T10:00"]);
}

/// In Dublin winter is the exception of the law (its saving is negative); the clock is what counts.
#[test]
fn where_saving_is_negative() {
    let zone = "Europe/Dublin";
    let spring = "2026-03-28T12:00:00Z";
    assert_eq!(fires("30 1 * * *", zone, spring, 2), ["2026-03-29T01:00~", "2026-03-30T00:30"]);
    let autumn = "2026-10-24T12:00:00Z";
    assert_eq!(fires("30 1 * * *", zone, autumn, 2), ["2026-10-25T00:30", "2026-10-26T01:30"]);
    assert_eq!(
        fires("*/30 1 * * *", zone, autumn, 4),
        ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30"]
    );
    // Casablanca goes back for Ramadan, from 03:00 to 02:00 on 15 February 2026, and forward after it.
    let zone = "Africa/Casablanca";
    let before = "2026-02-14T12:00:00Z";
    assert_eq!(fires("30 2 * * *", zone, before, 2), ["2026-02-15T01:30", "2026-02-16T02:30"]);
    let after = "2026-03-21T12:00:00Z";
    assert_eq!(fires("30 2 * * *", zone, after, 2), ["2026-03-22T02:00~", "2026-03-23T01:30"]);
}

/// Laws change offsets too, by any amount and for good.
#[test]
fn where_the_offset_changes_for_good() {
    // Pyongyang put its clock back half an hour on 15 August 2015, at midnight, and forward again on
    // 4 May 2018, at 23:30.
    let zone = "Asia/Pyongyang";
    let back = "2015-08-14T12:00:00Z";
    assert_eq!(fires("45 23 * * *", zone, back, 2), ["2015-08-14T14:45", "2015-08-15T15:15"]);
    assert_eq!(
        fires("*/15 23 * * *", zone, back, 7)[3..6],
        ["2015-08-14T14:45", "2015-08-14T15:00", "2015-08-14T15:15"]
    );
    let forward = "2018-05-04T12:00:00Z";
    assert_eq!(fires("45 23 * * *", zone, forward, 2), ["2018-05-04T15:00~", "2018-05-05T14:45"]);
    // Istanbul did not go back in the autumn of 2016: a day like any other.
    let from = "2016-10-29T12:00:00Z";
    assert_eq!(
        fires("30 3 * * *", "Europe/Istanbul", from, 2),
        ["2016-10-30T00:30", "2016-10-31T00:30"]
    );
}

/// In Cairo the day of the change has no midnight: 00:00 to 01:00 on 24 April 2026.
#[test]
fn where_midnight_is_in_the_gap() {
    let zone = "Africa/Cairo";
    let from = "2026-04-23T12:00:00Z";
    assert_eq!(fires("@daily", zone, from, 2), ["2026-04-23T22:00~", "2026-04-24T21:00"]);
    assert_eq!(fires("30 0 * * FRI", zone, from, 1), ["2026-04-23T22:00~"]);
}

#[test]
fn errors_name_the_field() {
    let said = |(text, zone): (&str, &str)| Schedule::parse(text, zone).unwrap_err().to_string();
    let all = [
        ("*/5 * * *", ""),
        ("*/5 25 * * *", ""),
        ("0 1,2,99 * * *", ""),
        ("0 22-2 * * *", ""),
        ("0/5 * * * *", ""),
        ("MON * * * *", ""),
        ("0 0 * * MOON", ""),
        ("0 0 L-31 * *", ""),
        ("0 0 30 2 *", ""),
        ("1,,2 * * * *", ""),
        ("* * * * * * * *", ""),
        ("", ""),
        ("@noon", ""),
        ("@every soon", ""),
        ("@every 10ms", ""),
        ("@every 99999999999999999999h", ""),
        ("@daily", "Athens"),
        ("@daily", "Europe/Athen"),
        ("@daily", "Mars/Olympus"),
    ];
    let all: Vec<_> = all.into_iter().map(said).collect();
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    a schedule has 5 fields (minute hour day month weekday), or 6 with seconds first; this one has 4
    */5 * * *
             ^

    hour "25": write 0-23, a range 1-5, a list 1,3 or a step */2
    */5 25 * * *
        ^

    hour "99": write 0-23, a range 1-5, a list 1,3 or a step */2
    0 1,2,99 * * *
          ^

    hour "22-2": write 0-23; a range goes up, so split it in two with ','
    0 22-2 * * *
      ^

    minute "0/5": write 0-59; a step follows '*' or a range: */5 or 10-50/5
    0/5 * * * *
    ^

    minute "MON": write 0-59, a range 1-5, a list 1,3 or a step */2
    MON * * * *
    ^

    weekday "MOON": write 0-7 (0 and 7 are Sunday) or SUN-SAT, a range 1-5, a list 1,3 or a step */2
    0 0 * * MOON
            ^

    day of month "L-31": write 1-31, L for the last or L-3 for the third before it, a range 1-5, a list 1,3 or a step */2
    0 0 L-31 * *
        ^

    this is never due: no such day is in the calendar
    0 0 30 2 *
    ^

    minute "": write 0-59; a list has a value on both sides of each ','
    1,,2 * * * *
      ^

    a schedule has at most 7 fields
    * * * * * * * *
                  ^

    a schedule has 5 fields (minute hour day month weekday), or 6 with seconds first; this one has 0

    ^

    use @every 90s, @hourly, @daily, @weekly, @monthly, @yearly or five fields
    @noon
    ^

    write a period such as 90s or 1h30m
    @every soon
           ^

    the shortest period is 1s
    @every 10ms
           ^

    this period is too long
    @every 99999999999999999999h
           ^

    there is no time zone "Athens"; did you mean Europe/Athens?

    there is no time zone "Europe/Athen"; did you mean Europe/Athens?

    there is no time zone "Mars/Olympus"; write its IANA name, such as Europe/Athens
    "#);
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let texts = prop::sample::select(vec![
        "*/7 * * * *",
        "0 * * * *",
        "30 3 * * *",
        "0,30 2-4 * * *",
        "15 2 * * *",
        "0 0 * * *",
        "*/30 1-3 * * *",
        "@every 97s",
        "@every 5h",
        "0 3,4 1 * *",
        "45 1 L * *",
        "0 2 L-5 * +SUN-TUE",
        "10 0 0 * * 0",
        "0 4 * * 1-5",
        "*/40 30 3 * * *",
    ]);
    let zones = prop::sample::select(vec![
        "UTC",
        "Europe/Athens",
        "Australia/Lord_Howe",
        "America/New_York",
        "Asia/Kolkata",
        "Africa/Casablanca",
        "Pacific/Apia",
        "Asia/Pyongyang",
        "Africa/Cairo",
    ]);
    (texts, zones).prop_map(|(text, zone)| Schedule::parse(text, zone).unwrap())
}

/// Instants of some years, often near the clock changes of spring and autumn.
fn instants() -> impl Strategy<Value = Timestamp> {
    let near = prop::sample::select(vec![
        "2026-03-29T00:00:00Z",
        "2026-10-25T00:00:00Z",
        "2026-04-04T14:00:00Z",
        "2026-10-03T15:00:00Z",
        "2026-03-08T06:00:00Z",
        "2026-11-01T05:00:00Z",
        "2011-12-30T09:00:00Z",
        "2015-08-14T14:00:00Z",
        "2026-04-23T21:00:00Z",
    ]);
    prop_oneof![
        (near, 0..7_200_000_u64).prop_map(|(near, ms)| at(near) + Span::from_millis(ms)),
        (0..2_000_000_000_000_i64).prop_map(Timestamp::from_millis),
    ]
}

proptest! {
    #[test]
    fn fires_rise_and_counts_agree(schedule in schedules(), after in instants(), hours in 0..60_u64) {
        let until = after + Span::from_secs(hours * 3600 + 17);
        let found: Vec<_> = schedule.between(after, until).collect();
        prop_assert!(found.windows(2).all(|pair| pair[0].nominal < pair[1].nominal));
        prop_assert!(found.iter().all(|fire| fire.nominal > after && fire.nominal <= until));
        prop_assert_eq!(schedule.count(after, until), found.len() as u64);
        let tally = found.first().zip(found.last()).map(|(first, last)| Tally {
            from: first.nominal,
            to: last.nominal,
            count: found.len() as u64,
        });
        prop_assert_eq!(schedule.tally(after, until), tally);
    }

    #[test]
    fn where_one_starts_to_look_does_not_matter(schedule in schedules(), after in instants(), ms in 0..100_000_000_u64) {
        let next = schedule.next_after(after).unwrap();
        let between = (after + Span::from_millis(ms)).min(next.nominal - Span::from_millis(1));
        prop_assert_eq!(schedule.next_after(between), Some(next));
    }

    #[test]
    fn away_from_clock_changes_croner_agrees(
        text in prop::sample::select(vec!["*/7 * * * *", "0,30 2-4 * * 1-5", "0 0 L * *", "5 4 15W * *", "0 0 * 2 1#2", "0 12 29 2 *", "0 0 13 * 5"]),
        after in (0..2_000_000_000_i64).prop_map(|s| Timestamp::from_millis(s * 1000)),
    ) {
        let theirs = text.parse::<croner::Cron>().unwrap();
        let from = jiff::Timestamp::from_millisecond(after.as_millis()).unwrap();
        let theirs = theirs.find_next_occurrence(&from.to_zoned(jiff::tz::TimeZone::UTC), false).unwrap();
        let ours = Schedule::parse(text, "UTC").unwrap().next_after(after).unwrap();
        prop_assert_eq!(ours.nominal.as_millis(), theirs.timestamp().as_millisecond());
    }

    #[test]
    fn no_text_panics(text in "\\PC*", zone in "\\PC{0,12}") {
        let _ = Schedule::parse(&text, &zone).is_ok();
        let _ = Schedule::parse(&format!("@every {text}"), "").is_ok();
    }

    #[test]
    fn no_field_soup_panics(fields in prop::collection::vec("[0-9*/,\\-LW#?A-Z]{1,5}", 5..8)) {
        if let Err(Error::Text(error)) = Schedule::parse(&fields.join(" "), "UTC") {
            prop_assert!(error.offset <= error.text.chars().count());
        }
    }
}

#[test]
fn the_end_of_the_calendar_is_no_panic() {
    for text in ["* * * * *", "30 3 * * *", "@every 90s", "@every 9999999h"] {
        let schedule = Schedule::parse(text, "Europe/Athens").unwrap();
        let end = Timestamp::from_millis(i64::MAX);
        assert!(schedule.next_after(end).is_none_or(|fire| fire.nominal >= end), "{text}");
        let _ = schedule.tally(end - Span::from_secs(86_400), end);
    }
}
