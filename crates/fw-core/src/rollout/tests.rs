//! Rollouts as people write them, and as nobody should; what is foreseen of them, and seen on their way.

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::{
    ActorKind, Command, ConflictKind, EnvValue, Offline, OnFull, Proof, Role, RolloutHostState,
    WaveState,
};
use fw_proto::{ChangeId, HostId, HostName, Incarnation, RunId, Span, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::change::{Act, Change, Event, Kind, Part, Way};
use crate::run::Actor;

/// The file of the issue that asked for rollouts; scripts rely on its form.
const EXAMPLE: &str = r#"rollout: nginx-1.27
hosts: "web*"
waves: [1, 10%, 50%, 100%]
max_parallel: 20
max_failures: 2
do: { run: "install-nginx 1.27", timeout: 5m, armed: 60s }
verify: [ { http: "http://localhost/healthz", expect: 200, within: 30s } ]
soak: 2m
approve: { before_wave: 2, by: operator, people: 1, expires: 4h }
undo: { run: "install-nginx 1.26" }
on_failure: undo
"#;

const LIFE: Incarnation = Incarnation(Uuid::from_u128(1));

fn read(text: &str) -> Rollout {
    parse("r.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// The errors as people read them.
fn wrong(text: &str) -> String {
    let errors = parse("r.yaml", text).expect_err(text);
    errors.iter().map(|error| format!("{error}\n")).collect()
}

fn names(count: usize) -> BTreeSet<HostName> {
    (1..=count).map(|n| format!("web{n:03}").parse().expect("a name")).collect()
}

fn picks(count: usize) -> Picks {
    Picks::from([("web*".to_owned(), names(count))])
}

fn ids(count: usize) -> BTreeMap<HostName, HostId> {
    names(count).into_iter().zip((1..).map(|n| HostId(Uuid::from_u128(n)))).collect()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
}

fn plan(rollout: &Rollout, text: &str, hosts: usize) -> Result<crate::change::Plan, Error> {
    compile(rollout, text, &rollout.waves(&picks(hosts))?, &ids(hosts), at(0), LIFE)
}

#[test]
fn the_example_is_read() {
    let rollout = read(EXAMPLE);
    assert_eq!(rollout.name.as_str(), "nginx-1.27");
    assert_eq!((rollout.line, rollout.hosts.text.as_str()), (1, "web*"));
    let shares = [Share::Count(1), Share::Percent(10), Share::Percent(50), Share::Percent(100)];
    assert_eq!(rollout.waves, shares);
    assert_eq!(rollout.max_failures, Amount::Count(2));
    assert_eq!(rollout.act.command, Command::Shell("install-nginx 1.27".into()));
    assert_eq!(rollout.act.timeout, Some(Span::from_secs(300)));
    assert_eq!(rollout.on_failure, OnFailure::Undo);
    let approve = rollout.approve.expect("an approval");
    assert_eq!((approve.by, approve.people), (Role::Operator, 1));
    assert_eq!(approve.before, Before::Waves(BTreeSet::from([2])));
    let undo = rollout.undo.expect("an undo");
    assert_eq!(undo.timeout, Some(Span::from_secs(300)), "as that of do");
}

#[test]
fn every_key_is_read() {
    let rollout = read(
        r#"
rollout: all
hosts: web* and not label:stage=old
waves: ["label:stage=canary", 5, 100%]
max_parallel: 3
max_failures: 10%
do:
  argv: [install, "1.27"]
  timeout: 5m
  armed: 60s
  user: root
  cwd: /srv
  env: {A: b, KEY: {secret: key}}
  retries: 2
  kill_after: 5s
  on_full: drop
  nice: 5
  umask: 027
verify:
  - {run: "nginx -t"}
  - {run: "nginx -v", expect: ~1\.27, within: 10s}
  - {run: "check", expect: [0, 3]}
  - {argv: [cat, /etc/motd], expect: "welcome, all"}
  - {http: "https://localhost/", expect: 204, body: ok, within: 30s}
  - {tcp: "localhost:80"}
  - {file: /etc/x, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
  - {metric: "errors < 1%"}
soak: 90
approve: {before_wave: each, by: admin, people: 2, expires: 1h}
window: [Mon-Fri 22:00-06:00, "Sat 00:00-24:00"]
timezone: europe/athens
undo: {run: back, timeout: 0, user: root}
on_failure: stop
offline: 10m
start_within: 2m
rehearse: yes
state: {files: [/etc/nginx], commands: nginx -V}
"#,
    );
    assert_eq!(rollout.selectors().len(), 2);
    assert_eq!(rollout.max_failures, Amount::Percent(10));
    assert_eq!(rollout.act.env["KEY"], EnvValue::Secret("key".into()));
    assert_eq!((rollout.act.on_full, rollout.act.umask), (OnFull::Drop, Some(0o27)));
    assert_eq!((rollout.retries, rollout.armed), (2, Some(Span::from_secs(60))));
    assert_eq!(rollout.verify.len(), 8);
    let expected = |at: usize| match &rollout.verify[at].what {
        What::Run(_, expect) => expect.clone(),
        other @ (What::Http { .. } | What::Tcp(_) | What::File { .. } | What::Metric(_)) => {
            panic!("{other:?}")
        }
    };
    assert_eq!(expected(0), Expect::Exit(vec![0]));
    assert_eq!(expected(1), Expect::Pattern("1\\.27".into()));
    assert_eq!(expected(2), Expect::Exit(vec![0, 3]));
    assert_eq!(expected(3), Expect::Text("welcome, all".into()));
    assert_eq!(rollout.windows.expect("hours").timezone, "Europe/Athens");
    let undo = rollout.undo.expect("an undo");
    assert_eq!((undo.timeout, undo.cwd.as_deref()), (None, Some("/srv")));
    assert_eq!(rollout.offline, Offline::Wait(Span::from_secs(600)));
    assert_eq!(rollout.start_within, Span::from_secs(600), "who waits wants it to start then");
    assert!(rollout.rehearse && rollout.state.is_some());
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    let least = "rollout: x\nhosts: web*\nwaves: [100%]\ndo: {run: x}\n";
    let with = |more: &str| wrong(&format!("{least}{more}\n"));
    let texts = [
        wrong(""),
        wrong("5"),
        wrong("hosts: x"),
        wrong("rollout: -x\nhosts: web* und db\nwaves: [0, 20%, 10%]\ndo: {ru: x}\nverfy: []"),
        wrong("rollout: x\nrollout: y\nhosts: a\nwaves: []\ndo: {run: x, timeout: soon}"),
        wrong("rollout: x\nhosts: a\nwaves: 100%\ndo: {run: x, armed: 60s}"),
        with("on_failure: undo"),
        with("undo:\non_failure: undo"),
        with("rehearse: true"),
        with("rehearse: true\nundo: {run: y}"),
        with("state: {}\nundo: {run: y}"),
        with("state: {files: etc}\nundo: {run: y}"),
        with("state: {files: /etc}\nundo: {run: y, user: bob}"),
        with("approve: {before_wave: 2}"),
        with("approve: {before_wave: [], by: viewer, people: 21}"),
        with("timezone: Europe/Athens"),
        with("window: 25:00-26:00\ntimezone: Europe/Athen"),
        with("verify: [{run: x, http: y}, {tcp: x, body: y}, {tcp: x}, {http: localhost}]"),
        with("verify: {run: x, expect: 256}"),
        with("verify: {run: x, expect: '~a\\d'}"),
        with("verify: {run: x, expect: '~a('}"),
        with("verify: {file: /x, sha256: 12}"),
        with("max_failures: 0\nmax_parallel: 0\nsoak: 0\noffline: perhaps\nstart_within: 400d"),
        with("verify: [{}]\nretries: 2"),
    ];
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn nothing_is_shown_of_another_file() {
    let errors = parse("r.yaml", "root:x:0:0:root:/root:/bin/sh\n").expect_err("no rollout");
    assert!(errors.iter().all(|error| error.snippet.is_none()), "{errors:?}");
    let large = "#".repeat(LARGEST_FILE + 1);
    assert_eq!(parse("r.yaml", &large).expect_err("too large").len(), 1);
}

/// How many hosts each wave has.
#[track_caller]
fn check_waves(waves: &str, hosts: usize, expected: &[usize]) {
    let text =
        EXAMPLE.replace("[1, 10%, 50%, 100%]", waves).replace("before_wave: 2", "before_wave: 1");
    let waves = read(&text).waves(&picks(hosts)).unwrap_or_else(|error| panic!("{error}"));
    let sizes: Vec<_> = waves.waves.iter().map(|wave| wave.hosts.len()).collect();
    assert_eq!(sizes, expected);
}

#[test]
fn hosts_are_counted_as_people_mean_it() {
    check_waves("[1, 10%, 50%, 100%]", 100, &[1, 9, 40, 50]);
    check_waves("[10%, 50%, 100%]", 10, &[1, 4, 5]);
    check_waves("[1, 10%, 50%, 100%]", 10, &[1, 1, 3, 5]);
    check_waves("[1, 10%, 50%, 100%]", 42, &[1, 4, 16, 21]);
    check_waves("[1, 10%, 50%, 100%]", 2, &[1, 1]);
    check_waves("[1, 10%, 50%, 100%]", 1, &[1]);
    check_waves("[1, 5, 20, 100%]", 100, &[1, 5, 20, 74]);
    check_waves("[33%, 34%, 100%]", 3, &[1, 1, 1]);
    check_waves("7", 5, &[5]);
}

#[test]
fn what_does_not_come_out_even_is_refused() {
    let refused = |waves: &str, picks: &Picks| {
        let text = EXAMPLE.replace("[1, 10%, 50%, 100%]", waves);
        read(&text).waves(picks).expect_err(waves).to_string()
    };
    let canary = |hosts: BTreeSet<HostName>| {
        let mut picks = picks(10);
        picks.insert("label:stage=canary".to_owned(), hosts);
        picks
    };
    let texts = [
        refused("[1, 20%]", &picks(10)),
        refused("[1, 100%]", &Picks::new()),
        refused("['label:stage=canary', 100%]", &canary(BTreeSet::new())),
        refused("[100%, 'label:stage=canary']", &canary(names(1))),
        refused("[8, 1]", &picks(10)),
    ];
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn a_selector_picks_among_what_is_left() {
    let text = EXAMPLE.replace("[1, 10%,", "[1, 'label:a=b', 20%,");
    let mut picks = picks(10);
    // Also one that the rollout does not mean, and one that has had it.
    let canaries = ["web001", "web004", "web005", "db1"];
    let canaries = canaries.iter().map(|name| name.parse().expect("a name")).collect();
    picks.insert("label:a=b".to_owned(), canaries);
    let waves = read(&text).waves(&picks).expect("waves");
    let shown: Vec<Vec<&str>> =
        waves.waves.iter().map(|wave| wave.hosts.iter().map(HostName::as_str).collect()).collect();
    assert_eq!(shown[..3], [vec!["web001"], vec!["web004", "web005"], vec!["web002"]]);
    let words: Vec<_> = waves.waves.iter().map(|wave| wave.words.as_str()).collect();
    insta::assert_snapshot!(words.join("\n"));
}

fn shares() -> impl Strategy<Value = Vec<String>> {
    let counts = prop::collection::vec(1..40_u32, 0..4);
    let percents = prop::collection::btree_set(1..100_u32, 0..5);
    (counts, percents).prop_map(|(counts, percents)| {
        let percents = percents.into_iter().chain([100]).map(|percent| format!("{percent}%"));
        counts.iter().map(ToString::to_string).chain(percents).collect()
    })
}

proptest! {
    /// Every host is in exactly one wave, in the order of names; a percentage is reached, by no
    /// more than rounding up or one host; no wave is empty; the budget is what is said.
    #[test]
    fn waves_share_out_all_hosts(shares in shares(), hosts in 1..300_usize, failures in 1..101_u32) {
        let text = EXAMPLE
            .replace("[1, 10%, 50%, 100%]", &format!("[{}]", shares.join(", ")))
            .replace("before_wave: 2", "before_wave: each")
            .replace("max_failures: 2", &format!("max_failures: {failures}%"));
        let rollout = read(&text);
        let waves = rollout.waves(&picks(hosts)).expect("waves");
        let served: Vec<_> = waves.waves.iter().flat_map(|wave| wave.hosts.clone()).collect();
        prop_assert_eq!(&served, &names(hosts).into_iter().collect::<Vec<_>>());
        prop_assert_eq!(rollout.waves(&picks(hosts)), Ok(waves.clone()), "it is the same again");
        let mut before = 0;
        for wave in &waves.waves {
            let share = shares[wave.number as usize - 1].as_str();
            let after = before + wave.hosts.len();
            prop_assert!(after > before);
            if let Some(percent) = share.strip_suffix('%') {
                let percent: usize = percent.parse().expect("a number");
                prop_assert!(after * 100 >= hosts * percent, "{} of {}", after, hosts);
                let one_less = (after - 1) * 100 < hosts * percent;
                prop_assert!(one_less || after == before + 1);
            } else {
                let count: usize = share.parse().expect("a number");
                prop_assert_eq!(wave.hosts.len(), count.min(hosts - before));
            }
            before = after;
        }
        let most = (hosts * failures as usize / 100).max(1);
        prop_assert_eq!(waves.budget as usize, most);
        prop_assert!(waves.max_in_flight <= waves.budget && waves.max_in_flight >= 1);
        let plan = plan(&rollout, &text, hosts).expect("a plan");
        let gates = plan.nodes.iter().filter(|node| matches!(node.act, Act::Approve(_))).count();
        prop_assert_eq!(gates, waves.waves.len());
    }
}

#[test]
fn a_rollout_is_a_sequence_of_nodes() {
    let text = format!("{}window: 22:00-06:00\n", EXAMPLE.replace(", armed: 60s", ""));
    let plan = plan(&read(&text), &text, 42).expect("a plan");
    let ids: Vec<_> = plan.nodes.iter().map(|node| node.id.as_str()).collect();
    let wave = |n: u32| ["-window", "", "-soak", "-verify"].map(|part| format!("wave-{n}{part}"));
    let mut expected: Vec<String> = (1..=4).flat_map(wave).collect();
    expected.insert(4, "wave-2-approve".to_owned());
    assert_eq!(ids, expected);
    assert_eq!((plan.max_failures, plan.title.as_str()), (Some(2), "nginx-1.27"));
    let work = plan.nodes[1].work().expect("a command");
    assert_eq!(work.exec.timeout, Some(Span::from_secs(300 + 30 + 10)));
    let undo = plan.nodes[1].undo.as_ref().expect("an undo");
    assert_eq!(undo.work.exec.command, Command::Shell("install-nginx 1.26".into()));
    let groups: BTreeSet<_> = plan.nodes.iter().map(|node| node.group).collect();
    assert_eq!(groups, (0..4).map(Some).collect());
}

#[test]
fn waves_for_which_no_host_is_left_are_left_out() {
    let text = EXAMPLE.replace("[1, 10%, 50%, 100%]", "[3, 20, 100%]");
    let rollout = read(&text);
    let waves = rollout.waves(&picks(3)).expect("waves");
    assert_eq!((waves.waves.len(), waves.left_out), (1, vec![2, 3]));
    let plan = plan(&rollout, &text, 3).expect("a plan");
    assert!(plan.nodes.iter().all(|node| !matches!(node.act, Act::Approve(_))));
}

#[test]
fn an_armed_change_is_proved_and_undone_by_its_host() {
    let plan = plan(&read(EXAMPLE), EXAMPLE, 3).expect("a plan");
    let work = plan.nodes.iter().find_map(crate::change::Node::work).expect("a command");
    let armed = work.exec.armed.as_ref().expect("it is armed");
    assert_eq!(armed.within, Span::from_secs(60));
    let text = |command: &fw_proto::api::Command| format!("{command:?}");
    assert!(text(armed.probe.as_ref().expect("a proof")).contains("probe http"));
    assert!(!text(&work.exec.command).contains("probe http"), "the host proves it once");
    assert!(text(&armed.undo).contains("install-nginx 1.26"));
}

#[test]
fn what_is_not_there_yet_is_refused() {
    let refused = |from: &str, to: &str| {
        let text = EXAMPLE.replace(from, to);
        plan(&read(&text), &text, 3).expect_err("not there yet").to_string()
    };
    let texts = [refused("verify: [ {", "verify: [ { metric: 'errors < 1%' }, {")];
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn what_is_too_large_for_a_host_is_refused_before_anything_begins() {
    // Without a timer of its own what proves it is part of the command.
    let text = EXAMPLE.replace(", armed: 60s", "");
    let text = text.replace("install-nginx 1.27", &"x".repeat(crate::command::MAX_ARGUMENT - 10));
    let error = plan(&read(&text), &text, 3).expect_err("too large");
    assert!(error.to_string().starts_with("do: "), "{error}");
}

// What is foreseen, and what is seen on the way.

#[test]
fn it_is_foreseen_what_comes() {
    let text = format!("{EXAMPLE}window: Mon-Fri 22:00-06:00\ntimezone: Europe/Athens\n");
    let rollout = read(&text);
    let waves = rollout.waves(&picks(42)).expect("waves");
    let some = |names: &[&str]| names.iter().map(|name| name.parse().expect("a name")).collect();
    let mut facts = Facts {
        offline: some(&["web001", "web002", "db1"]),
        undecided: some(&["web999"]),
        maintenances: vec![
            Held { hosts: None, reason: "new switch".into(), until: Some(at(3600)) },
            Held { hosts: Some(some(&["web003"])), reason: "disk".into(), until: None },
            Held { hosts: Some(some(&["db1"])), reason: "elsewhere".into(), until: None },
        ],
        others: vec![Other {
            id: ChangeId(Uuid::from_u128(5)),
            title: "openssl".into(),
            state: fw_proto::api::ChangeState::Paused,
            hosts: some(&["web004", "db1"]),
        }],
        took: Vec::new(),
    };
    // A Friday, 10:00 in Athens.
    let plan = foresee(&rollout, &waves, &facts, at(0));
    let shown: Vec<_> = plan
        .conflicts
        .iter()
        .map(|one| {
            format!("{} {:?} {:?}: {}", one.kind.as_str(), one.hosts.len(), one.until, one.message)
        })
        .collect();
    let waves_shown: Vec<_> = plan
        .waves
        .iter()
        .map(|wave| {
            format!(
                "{} {}: {} [{}]",
                wave.name,
                wave.hosts.len(),
                wave.words,
                wave.gates.join("; ")
            )
        })
        .collect();
    insta::assert_snapshot!(format!(
        "{}\n{}\nbudget {}: {}\nat once {}: {}\ntakes {:?}: {}",
        waves_shown.join("\n"),
        shown.join("\n"),
        plan.budget,
        plan.budget_words,
        plan.max_in_flight,
        plan.max_in_flight_words,
        plan.predicted_s,
        plan.predicted_words
    ));
    facts.took = vec![Span::from_secs(10); 20];
    let plan = foresee(&rollout, &waves, &facts, at(0));
    // Two at once: 1, 2, 8 and 11 rounds of 10 s, and 4 soaks of 2 minutes.
    assert_eq!(plan.predicted_s, Some(22 * 10 + 480));
    let open = foresee(&rollout, &waves, &facts, at(14 * 3600));
    assert!(open.conflicts.iter().all(|one| one.kind != ConflictKind::Window));
}

/// A rollout of which something happened.
struct Told {
    change: Change,
    runs: u128,
}

impl Told {
    fn new(text: &str, hosts: usize) -> Self {
        let plan = plan(&read(text), text, hosts).expect("a plan");
        let first =
            Event { at: at(0), by: Actor::User("ada".into()), kind: Kind::Planned(Box::new(plan)) };
        let change = Change::begin(ChangeId(Uuid::from_u128(1)), &first).expect("planned");
        Self { change, runs: 0 }
    }

    fn step(&mut self, kind: Kind) {
        self.change.step(&Event { at: at(1), by: Actor::Server, kind });
    }

    /// Everything goes well, but for what `bad` says, until a person is waited for.
    fn go(&mut self, bad: &dyn Fn(u32, Way, HostId) -> Part) {
        let mut now = at(1);
        for _ in 0..100 {
            match self.change.next(now) {
                crate::change::Next::Begin(begin) => {
                    self.runs += 1;
                    let run = RunId(Uuid::from_u128(self.runs));
                    let (node, way, hosts) = (begin.node, begin.way, begin.hosts);
                    self.step(Kind::Began { node, way, run, hosts: hosts.clone() });
                    let parts = hosts.iter().map(|host| (*host, bad(node, way, *host))).collect();
                    self.step(Kind::Ended { node, way, run, parts, cancelled: false });
                }
                crate::change::Next::Record(kind) => self.step(kind),
                crate::change::Next::Until(until) => now = until,
                crate::change::Next::Person(_) | crate::change::Next::Ended => return,
                other @ crate::change::Next::Watch { .. } => panic!("{other:?}"),
            }
        }
        panic!("it goes on for ever");
    }

    fn view(&self) -> fw_proto::api::Rollout {
        view(&self.change, &BTreeSet::new())
    }

    fn waves(&self) -> Vec<WaveState> {
        self.view().waves.iter().map(|wave| wave.state).collect()
    }
}

fn good(_: u32, _: Way, _: HostId) -> Part {
    Part::Done
}

#[test]
fn a_rollout_is_seen_on_its_way() {
    use WaveState::{AwaitingApproval, Done, Undone, Waiting};
    let mut way = Told::new(EXAMPLE, 10);
    assert_eq!(way.waves(), [Waiting; 4]);
    assert_eq!(way.view().hosts.len(), 10);
    way.go(&good);
    let view = way.view();
    assert_eq!(way.waves(), [Done, AwaitingApproval, Waiting, Waiting]);
    assert_eq!(view.summary.wave, Some(2));
    let gate = view.gate.expect("it waits");
    assert_eq!((gate.people, gate.expires_at), (1, Some(at(121) + Span::from_secs(4 * 3600))));
    let states: Vec<_> = view.hosts.iter().map(|host| (host.state, host.proof)).collect();
    assert_eq!(states[0], (RolloutHostState::Done, Some(Proof::VerifiedAfterSoak)));
    assert_eq!(states[1], (RolloutHostState::Waiting, None));
    way.step(Kind::Approved { node: 4 - 1 });
    // Two of the third wave fail, which ends it, and all is taken back.
    let third = way.change.plan.nodes.iter().position(|node| node.id == "wave-3");
    let third = u32::try_from(third.expect("a third wave")).expect("few");
    let two = |node: u32, way: Way, host: HostId| {
        let bad = node == third && way == Way::Do && host.0.as_u128() <= 4;
        if bad { Part::Failed } else { Part::Done }
    };
    way.go(&two);
    let view = way.view();
    assert_eq!(view.summary.state, fw_proto::api::ChangeState::Undone);
    assert_eq!(way.waves(), [Undone, Undone, Undone, Waiting]);
    assert_eq!((view.budget.max, view.budget.failed), (2, 2));
    let undone = |host: &&fw_proto::api::RolloutHost| {
        (host.state, host.proof) == (RolloutHostState::Undone, Some(Proof::UndoExitCode))
    };
    assert_eq!(view.hosts.iter().filter(undone).count(), 5);
    assert_eq!(view.runs.iter().filter(|run| run.undo).count(), 3);
    assert!(view.runs.iter().all(|run| run.ended));
}

#[test]
fn a_wave_that_went_well_nowhere_ends_it_whatever_is_left() {
    let mut way = Told::new(EXAMPLE, 10);
    way.go(&|node, way, _| if (node, way) == (0, Way::Do) { Part::Failed } else { Part::Done });
    let view = way.view();
    assert_eq!((view.budget.max, view.budget.failed), (2, 1));
    assert_eq!(view.summary.state, fw_proto::api::ChangeState::Undone);
    assert_eq!(way.waves()[1..], [WaveState::Waiting; 3]);
}

#[test]
fn a_host_under_way_is_seen_and_counted() {
    let mut way = Told::new(EXAMPLE, 10);
    let host = HostId(Uuid::from_u128(1));
    let run = RunId(Uuid::from_u128(9));
    way.step(Kind::Began { node: 0, way: Way::Do, run, hosts: vec![host] });
    let view = view(&way.change, &BTreeSet::from([host]));
    assert_eq!((view.budget.in_flight, view.hosts[0].state), (1, RolloutHostState::Running));
    assert_eq!(view.waves[0].state, WaveState::Running);
    assert_eq!(way.view().hosts[0].state, RolloutHostState::Waiting, "it was not told to begin");
}

#[test]
fn a_rehearsal_is_seen_and_a_bad_one_ends_it() {
    let text = format!("{EXAMPLE}rehearse: true\nstate: {{files: /etc/nginx}}\n");
    let mut way = Told::new(&text, 10);
    let ids: Vec<_> = way.change.plan.nodes.iter().take(2).map(|node| node.id.clone()).collect();
    assert_eq!(ids, ["rehearsal", "wave-1"]);
    assert_eq!(way.view().rehearsal.expect("one").state, WaveState::Waiting);
    let mut bad = Told::new(&text, 10);
    bad.go(&|node, way, _| if (node, way) == (0, Way::Do) { Part::Failed } else { Part::Done });
    assert_eq!(bad.view().rehearsal.expect("one").state, WaveState::Undone);
    assert_eq!(bad.waves(), [WaveState::Waiting; 4]);
    way.go(&good);
    assert_eq!(way.view().rehearsal.expect("one").state, WaveState::Done);
    way.step(Kind::UndoRequested);
    way.go(&good);
    let view = way.view();
    assert_eq!(view.hosts[0].proof, Some(Proof::StateCompared));
    assert_eq!(view.rehearsal.expect("one").state, WaveState::Done, "it took itself back");
}

#[test]
fn a_token_is_told_from_a_person_of_the_same_name() {
    let mut way = Told::new(EXAMPLE, 10);
    way.go(&good);
    for kind in [Kind::Approved { node: 4 - 1 }, Kind::PauseRequested] {
        way.change.step(&Event { at: at(1), by: Actor::Token("ada".into()), kind });
    }
    let view = way.view();
    assert_eq!((view.summary.by.as_str(), view.summary.by_kind), ("ada", Some(ActorKind::User)));
    assert_eq!(view.summary.begun_by(), "ada");
    assert_eq!(view.summary.why.as_deref(), Some("paused by token:ada"));
    let gate = view.waves[1].approval.as_ref().expect("it was asked");
    assert_eq!((gate.approvals.len(), gate.approvals[0].given_by().as_str()), (1, "token:ada"));
}
