use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// When the recording began and ended, in seconds.
const BEGAN: i64 = 1_795_182_843;
const ENDED: i64 = 1_795_182_912;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(secs * 1000)
}

/// What a real Saltpeter told: a job that is due each ten seconds and takes twelve, and others that
/// someone runs by hand.
fn recorded() -> Heard {
    let mut heard = Heard::default();
    for line in include_str!("../../../../tests/data/saltpeter-beside.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        heard.take(&line["msg"], Timestamp::from_millis(line["at"].as_i64().unwrap()));
    }
    heard
}

fn frame() -> Frame {
    Frame { from: at(BEGAN), to: at(ENDED), tolerance: Span::from_secs(5) }
}

fn row(verdict: Verdict, reason: Option<FireReason>, from: i64, to: i64) -> Fire {
    Fire {
        verdict,
        reason,
        nominal: (from == to).then_some(at(from)),
        from: at(from),
        to: at(to),
        count: 1,
        run_id: None,
        lag_ms: None,
        hosts: None,
    }
}

fn shadow(secs: i64, hosts: &[&str]) -> Fire {
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    Fire { hosts: Some(hosts), ..row(Verdict::Shadow, None, secs, secs) }
}

fn check(name: &str, fires: &[Fire]) -> Compared {
    compare(&Ours { name, fires, pick: None }, &recorded(), frame())
}

fn whats(compared: &Compared) -> Vec<(What, i64, Vec<Why>)> {
    let one = |one: &Difference| (one.what, one.at.as_millis() / 1000, one.why.clone());
    compared.differences.iter().map(one).collect()
}

#[test]
fn a_recorded_saltpeter_agrees_with_the_ledger_of_its_shadow() {
    let fires: Vec<_> = (85..=91).map(|n| shadow(1_795_182_000 + n * 10, &["m2.local"])).collect();
    let compared = check("every10", &fires);
    // Each second one fell into the run before it.
    assert_eq!((compared.same, compared.overlapped, compared.untold), (4, 3, 0), "{compared:?}");
    assert_eq!(whats(&compared), []);
    let compared = check("drop_me", &[shadow(1_795_182_885, &["m1.local"])]);
    assert_eq!((compared.same, compared.same_hosts), (1, 1), "{compared:?}");
}

#[test]
fn what_differs_from_the_recording_is_told_with_its_reason() {
    let hosts = check("drop_me", &[shadow(1_795_182_885, &["m2.local"])]);
    assert_eq!(whats(&hosts), [(What::Hosts, 1_795_182_885, vec![])]);
    assert_eq!(
        (&hosts.differences[0].only_here[0], &hosts.differences[0].only_there[0]),
        (&"m2.local".to_owned(), &"m1.local".to_owned())
    );
    let moved = check("kill_me", &[shadow(1_795_182_887, &["m1.local"])]);
    assert_eq!(whats(&moved), [(What::Time, 1_795_182_887, vec![Why::NoSuchJob])]);
    let fires = [shadow(1_795_182_851, &[]), shadow(1_795_182_881, &[])];
    let compared = check("fail_one", &fires);
    let missing = (What::Missing, 1_795_182_881, vec![Why::NoSuchJob]);
    assert!(whats(&compared).contains(&missing), "{compared:?}");
    let paused = row(Verdict::Skipped, Some(FireReason::Paused), 1_795_182_860, 1_795_182_870);
    let extra = check("timeout_me", &[paused]);
    assert_eq!(whats(&extra), [(What::Extra, 1_795_182_869, vec![Why::Here(FireReason::Paused)])]);
    let early = row(Verdict::Skipped, None, BEGAN, BEGAN);
    assert_eq!(whats(&check("big_out", &[early]))[0].2, [Why::NotDue]);
    let down = row(Verdict::Missed, Some(FireReason::Downtime), BEGAN, ENDED);
    let compared = check("big_out", &[down]);
    assert_eq!((compared.untold, compared.differences.len()), (1, 0));
}

#[test]
fn what_a_look_cannot_show_is_no_difference() {
    let mut heard = Heard::default();
    let state = |last: &str| json!({"running": {}, "last_state": {"a": {"last_run": last}}});
    heard.take(&state("1970-01-01T00:01:40+00:00"), at(100));
    heard.take(&state("1970-01-01T00:01:42.5+00:00"), at(103));
    assert!(!heard.would_tell("a", at(99)), "the last run hides it");
    assert!(!heard.would_tell("a", at(101)), "likewise");
    assert!(heard.would_tell("a", at(103)));
    assert!(!heard.would_tell("a", at(104)), "nothing was heard since");
    assert!(!heard.would_tell("b", at(99)), "it may have been started since");
    heard.take(&json!({"config": {"crons": {"b": {}}, "serial": 98.0}}), at(103));
    assert!(heard.would_tell("b", at(99)));
    heard.told_all(at(0), at(200));
    assert!(heard.would_tell("a", at(101)));
}

#[test]
fn maintenance_and_changed_files_are_named_as_reasons() {
    let mut heard = Heard::default();
    let maintenance = json!({"global": true, "machines": ["m2"]});
    let config = json!({"crons": {"a": {}}, "maintenance": maintenance, "serial": 1050.5});
    heard.take(&json!({"config": config}), at(1100));
    heard.told_all(at(1000), at(1100));
    let frame = Frame { from: at(1000), to: at(1100), tolerance: Span::from_secs(5) };
    let fires = [shadow(1040, &["m1", "m2"]), shadow(1080, &["m1", "m2"])];
    let ours = Ours { name: "a", fires: &fires, pick: None };
    let compared = compare(&ours, &heard, frame);
    let wanted = [
        (What::Missing, 1040, vec![Why::Maintenance, Why::Changed]),
        (What::Missing, 1080, vec![Why::Maintenance]),
    ];
    assert_eq!(whats(&compared), wanted);

    let run = |hosts: &[&str]| {
        let result = json!({"starttime": "1970-01-01 00:17:21+00:00", "endtime": "1970-01-01 00:17:22+00:00", "retcode": 0});
        let results: serde_json::Map<_, _> =
            hosts.iter().map(|host| ((*host).to_owned(), result.clone())).collect();
        json!({"cron": "a", "data": {"last_run": "1970-01-01T00:17:20.2+00:00", "results": results}})
    };
    heard.take(&run(&["m1"]), at(1100));
    let compared = compare(&Ours { fires: &fires[..1], ..ours }, &heard, frame);
    assert_eq!(whats(&compared), [(What::Hosts, 1040, vec![Why::HostsInMaintenance])]);
    heard.take(&run(&["m3"]), at(1100));
    let one = [shadow(1040, &["m1"])];
    let drawn = compare(&Ours { name: "a", fires: &one, pick: Some(1) }, &heard, frame);
    assert_eq!((drawn.same_hosts, drawn.differences.len()), (1, 0), "each draws its own");
}

/// A search server that knows these runs.
fn told(began: &[i64]) -> Heard {
    let mark = |ms: &i64| {
        let at = Timestamp::from_millis(*ms).to_string();
        // The last number is no second, so that the time counts.
        json!({"cron": "a", "timestamp": at, "msg_type": "machine_start", "job_instance": format!("a_{ms}x")})
    };
    let content: Vec<_> = began.iter().map(mark).collect();
    let mut heard = Heard::default();
    heard.take(&json!({"timeline": {"content": content, "id": "1", "serial": 1.0}}), at(0));
    heard.told_all(Timestamp::EPOCH, at(10_000_000));
    heard
}

proptest! {
    #[test]
    fn every_fire_and_every_run_is_told_of_once(
        fires in prop::collection::btree_set(1_i64..5000, 0..30),
        runs in prop::collection::btree_set(1_i64..5000, 0..30),
    ) {
        let ours: Vec<_> = fires.iter().map(|secs| shadow(*secs, &["m1"])).collect();
        let began: Vec<_> = runs.iter().map(|secs| secs * 1000).collect();
        let frame = Frame { from: Timestamp::EPOCH, to: at(9000), tolerance: Span::from_secs(5) };
        let compared = compare(&Ours { name: "a", fires: &ours, pick: None }, &told(&began), frame);
        let count = |what| compared.differences.iter().filter(|one| one.what == what).count() as u64;
        let (time, hosts) = (count(What::Time), count(What::Hosts));
        let both = compared.same + time + hosts;
        prop_assert_eq!(both + count(What::Missing) + compared.overlapped, fires.len() as u64);
        prop_assert_eq!(both + count(What::Extra) + compared.untold, runs.len() as u64);
    }

    #[test]
    fn a_late_scheduler_agrees_and_what_it_leaves_out_is_missing(
        late in prop::collection::vec((0_i64..4000, any::<bool>()), 1..40),
    ) {
        let ours: Vec<_> = (1..).zip(&late).map(|(n, _)| shadow(n * 60, &["m1"])).collect();
        let came = (1..).zip(&late).filter(|(_, (_, came))| *came);
        let began: Vec<_> = came.map(|(n, (late, _))| n * 60_000 + late).collect();
        let frame = Frame { from: Timestamp::EPOCH, to: at(9000), tolerance: Span::from_secs(5) };
        let compared = compare(&Ours { name: "a", fires: &ours, pick: None }, &told(&began), frame);
        prop_assert_eq!(compared.same, began.len() as u64);
        let missing = compared.differences.iter().filter(|one| one.what == What::Missing).count();
        prop_assert_eq!((missing, compared.differences.len()), (late.len() - began.len(), missing));
    }

    #[test]
    fn whatever_is_told_harms_nothing(text in "[{}\\[\\]\":,a-z0-9_.+ -]{0,60}", key in "cron|data|running|last_state|timeline|config") {
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let mut heard = Heard::default();
        heard.take(&json!({ key: value, "cron": "a", "data": {"last_run": value, "results": {"m": value}} }), at(1));
        let frame = Frame { from: Timestamp::EPOCH, to: at(9), tolerance: Span::from_secs(5) };
        drop(compare(&Ours { name: "a", fires: &[], pick: None }, &heard, frame));
    }
}
