//! Fuzz targets: what must hold for any bytes at all that a parser is given.
//!
//! Each function takes an input and panics when the rule is broken. The fuzzer in `fuzz/` (which
//! includes this file, so that it builds little else) looks for such inputs; the kept corpus is
//! played to the same functions by `tests/corpus.rs`. None returns early without having tried what
//! it can: an input that is refused has rules of its own, mostly about where the error is said to be.

use std::collections::{BTreeMap, BTreeSet};

use fw_core::change::{Change, Event, Kind, Plan};
use fw_core::host::Host;
use fw_core::job::{self, JobDef, Parsed};
use fw_core::plan::Chosen;
use fw_core::rollout;
use fw_core::run::Actor;
use fw_core::runbook::report::{self, Record};
use fw_core::runbook::{self, compile, plan as shown};
use fw_core::schedule::{self, Schedule, Tally};
use fw_core::select::{LONGEST, Selector};
use fw_proto::api::SourceError;
use fw_proto::frame::{self, Decoded, FromAgent, FromServer};
use fw_proto::record::{self, Body, Offsets};
use fw_proto::{ChangeId, HostId, HostName, Incarnation, Join, Span, Timestamp};

/// What a target is: a function over bytes.
pub type Target = fn(&[u8]);

/// All targets by their names, which are also the names of their directories in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 7] = [
    ("frames", frames),
    ("selectors", selectors),
    ("schedules", schedules),
    ("job_yaml", job_yaml),
    ("rollout_yaml", rollout_yaml),
    ("join", join),
    ("runbooks", runbooks),
];

/// Frames of either side, and output records: what is read can be written and is read the same.
pub fn frames(bytes: &[u8]) {
    if let Ok(Decoded::Frame(read)) = frame::decode::<FromAgent<'_>>(bytes) {
        let written = frame::encode(&read);
        assert_eq!(frame::decode(&written), Ok(Decoded::Frame(read)), "a frame of an agent");
    }
    if let Ok(Decoded::Frame(read)) = frame::decode::<FromServer>(bytes) {
        let written = frame::encode(&read);
        assert_eq!(frame::decode(&written), Ok(Decoded::Frame(read)), "a frame of a server");
    }
    records(bytes);
}

/// Output records: written again they are the bytes that were read, and offsets only grow.
fn records(bytes: &[u8]) {
    let (mut rest, mut written, mut offsets) = (bytes, Vec::new(), Offsets::default());
    for record in record::records(bytes) {
        let Ok(record) = record else {
            assert!(record::read(rest).is_err(), "the iterator alone is offended");
            return;
        };
        let (first, taken) = record::read(rest).expect("read before").expect("whole before");
        assert_eq!(first, record);
        written.clear();
        record.write(&mut written);
        assert_eq!(record::read(&written), Ok(Some((record, taken))));
        // Three bytes after the kind are spare, and times are clamped: all else is as it was.
        let (read, after) = rest.split_at(taken);
        let kept = |bytes: &'_ [u8]| (bytes.first().copied(), bytes.get(4..8) == written.get(4..8));
        assert_eq!(kept(read), kept(&written));
        assert_eq!(read.get(record::HEADER..), written.get(record::HEADER..));
        let grown = offsets.after(&record);
        let empty = matches!(record.body, Body::Bytes([]) | Body::Gap(0));
        let full = offsets.total() == u64::MAX;
        assert!(grown >= offsets && (empty || full || grown.total() > offsets.total()));
        (rest, offsets) = (after, grown);
    }
    assert_eq!(record::read(rest), Ok(None), "the iterator leaves a record behind");
}

/// Selectors: printed they mean the same, and `not` of one means all other hosts.
pub fn selectors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = match Selector::parse(text) {
        Ok(read) => read,
        Err(error) => return check_place(text, error.offset, &error.caret()),
    };
    let printed = read.to_string();
    let again = Selector::parse(&printed);
    // Quotes make it longer, and what was at the limit is then beyond it.
    assert!(printed.len() > LONGEST || again.as_ref() == Ok(&read), "{printed:?}: {again:?}");
    let others = Selector::parse(&format!("not ({printed})"));
    if let Err(error) = &others {
        let too_much = error.message.starts_with("nested deeper") || printed.len() + 6 > LONGEST;
        assert!(too_much, "not ({printed}): {error}");
    }
    for host in hosts() {
        let meant = read.matches(host.seen());
        assert!(again.as_ref().map_or(true, |again| again.matches(host.seen()) == meant));
        // One that takes too many steps is in neither.
        let undecided = read.decide(host.seen()).is_none();
        assert!(undecided || others.as_ref().map_or(true, |o| o.matches(host.seen()) != meant));
    }
}

/// Hosts that differ in all that a selector can ask for.
fn hosts() -> Vec<Host> {
    let facts = [
        r#"{"os": "Debian", "mem": 8192, "disk": {"sda": {"size": 1.5}}, "ipv6": ["fe80::1", "::1"]}"#,
        r#"{"os": "NixOS", "a:b": {"c.d": null}, "": "", "roles": [true, {"web": "x"}]}"#,
        "{}",
    ];
    let id = "018f3c5e-7b1a-7000-8000-000000000001".parse::<HostId>().expect("an id");
    let host = |(name, facts): (&str, &str)| Host {
        id,
        name: name.parse::<HostName>().expect("a name"),
        labels: BTreeMap::from([("stage".into(), "canary".into()), (name.into(), "".into())]),
        facts: serde_json::from_str(facts).expect("an object"),
    };
    ["web1", "db-2.example.com", "x"].into_iter().zip(facts).map(host).collect()
}

/// Schedules, each with a zone and an instant.
///
/// The input is `SCHEDULE`, `ZONE` and milliseconds since the Unix epoch, each on a line; the last
/// two may be absent. Fires rise, do not depend on where one begins to
/// look, and are counted as they are found.
pub fn schedules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(3, '\n');
    let (text, zone) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let start = lines.next().and_then(|ms| ms.trim().parse().ok()).unwrap_or(1_700_000_000_000);
    let schedule = match Schedule::parse(text, zone) {
        Ok(schedule) => schedule,
        Err(schedule::Error::Text(error) | schedule::Error::Never(error)) => {
            return check_place(text, error.offset, &error.caret());
        }
        Err(schedule::Error::Zone { name, .. }) => return assert!(zone.contains(&name)),
    };
    let again = Schedule::parse(schedule.as_str(), schedule.timezone());
    assert_eq!(again, Ok(schedule.clone()), "its own text reads differently");
    let mut after = Timestamp::from_millis(start);
    for _ in 0..STEPS {
        let Some(fire) = schedule.next_after(after) else { return };
        check_step(&schedule, after, fire);
        check_stretch(&schedule, after, fire.nominal + Span::from_secs(90));
        after = fire.nominal;
    }
    check_stretch(&schedule, after, after + Span::from_secs(2 * 24 * 3600));
}

/// Fires that are followed: a day of changing clocks has fewer surprises than these.
const STEPS: usize = 5;

/// Between two fires there is no third, whoever looks from where.
fn check_step(schedule: &Schedule, after: Timestamp, fire: schedule::Fire) {
    assert!(fire.nominal > after, "{after:?} {fire:?}");
    let gap = fire.nominal.since(after).as_millis();
    for before in [1, gap / 2, gap.saturating_sub(1)].map(|ms| ms.clamp(1, gap)) {
        let from = fire.nominal - Span::from_millis(before);
        assert_eq!(schedule.next_after(from), Some(fire), "from {from:?}, after {after:?}");
        assert_eq!(schedule.count(after, from), 0, "between {after:?} and {from:?}");
    }
    assert_eq!(schedule.count(after, fire.nominal), 1, "{after:?} {fire:?}");
}

/// The sum of a stretch is that of its fires, told one by one.
fn check_stretch(schedule: &Schedule, after: Timestamp, until: Timestamp) {
    let mut fires = schedule.between(after, until).take(MOST_FIRES + 1);
    let Some(first) = fires.next() else {
        assert_eq!(schedule.tally(after, until), None);
        return;
    };
    let (count, last) =
        fires.fold((1, first.nominal), |(count, _), fire| (count + 1, fire.nominal));
    if count > MOST_FIRES as u64 {
        return assert!(schedule.count(after, until) >= count);
    }
    let told = Some(Tally { from: first.nominal, to: last, count });
    assert_eq!(schedule.tally(after, until), told, "{after:?} to {until:?}");
}

/// Fires of a stretch that are told one by one; two days of a schedule of every second have 172,800.
const MOST_FIRES: usize = 60;

/// Job files: each error stands inside the text, and a job that is read is the same once stored.
pub fn job_yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = job::parse_jobs("jobs.yaml", text);
    assert_eq!(job::parse_jobs("jobs.yaml", text), parsed, "read twice, it differs");
    assert!(parsed.readable || parsed.jobs.is_empty());
    assert!(!parsed.errors.is_empty() || parsed.readable, "refused without a reason");
    check_errors(text, &parsed);
    for job in &parsed.jobs {
        check_job(text, job);
    }
}

/// Rollout files: each error stands inside the text, and what is read serves every host once and
/// compiles, or says why not.
pub fn rollout_yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = rollout::parse("rollout.yaml", text);
    assert_eq!(rollout::parse("rollout.yaml", text), read, "read twice, it differs");
    let rollout = match read {
        Ok(rollout) => rollout,
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            return check_places(text, &errors);
        }
    };
    let hosts: BTreeMap<HostName, HostId> = (1..=HOSTS).map(|n| (host_name(n), id(n))).collect();
    let names: BTreeSet<HostName> = hosts.keys().cloned().collect();
    let picks = rollout.selectors().into_iter().map(|one| (one.text.clone(), names.clone()));
    let Ok(waves) = rollout.waves(&picks.collect()) else { return };
    let served: Vec<_> = waves.waves.iter().flat_map(|wave| wave.hosts.clone()).collect();
    assert_eq!(served, names.into_iter().collect::<Vec<_>>(), "each host once, by name");
    assert!(waves.max_in_flight >= 1 && waves.max_in_flight <= waves.budget);
    let now = Timestamp::from_millis(1_800_000_000_000);
    let life = "018f3c5e-7b1a-7000-8000-000000000000".parse::<Incarnation>().expect("a life");
    if let Ok(plan) = rollout::compile(&rollout, text, &waves, &hosts, now, life) {
        assert!(rollout.undo.is_some() || plan.nodes.iter().all(|node| node.undo.is_none()));
        let acts = plan.nodes.iter().filter(|node| node.work().is_some()).count();
        assert!(acts >= waves.waves.len());
    }
    let plan = rollout::foresee(&rollout, &waves, &rollout::Facts::default(), now);
    assert_eq!(plan.waves.len(), waves.waves.len());
}

/// Hosts of a fleet: not divisible by much.
const HOSTS: u128 = 17;

fn id(n: u128) -> HostId {
    format!("018f3c5e-7b1a-7000-8000-{n:012}").parse().expect("an id")
}

fn host_name(n: u128) -> HostName {
    format!("h{n:02}").parse().expect("a name")
}

fn check_errors(text: &str, parsed: &Parsed) {
    for error in &parsed.errors {
        assert!(error.job.as_ref().is_none_or(|job| parsed.wrong.contains(job)), "{error:?}");
    }
    check_places(text, &parsed.errors);
}

fn check_places(text: &str, errors: &[SourceError]) {
    assert!(errors.len() <= job::MOST_ERRORS + 1);
    errors.iter().for_each(|error| check_error(text, error));
}

/// An error stands inside its text, and is one line.
fn check_error(text: &str, error: &SourceError) {
    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
    let Some(width) = width(text, error.line) else {
        return assert_eq!((error.line, &error.snippet), (0, &None), "no such line: {error:?}");
    };
    // One past the last character means the end of the line.
    assert!((1..=width + 1).contains(&error.column), "no such column: {error:?}");
    let shown = error.snippet.as_ref().is_none_or(|shown| shown.ends_with('^'));
    assert!(shown, "{error:?}");
}

fn check_job(text: &str, job: &JobDef) {
    let width = width(text, job.line).unwrap_or_default();
    assert!((1..=width).contains(&job.column), "{} stands at {}", job.name, job.column);
    let stored = serde_json::to_string(&job.spec).expect("a job can be written");
    let spec = serde_json::from_str(&stored).expect("a stored job can be read");
    let again = JobDef::of(job.name.clone(), spec).expect("a stored job can be used");
    assert_eq!(JobDef { line: job.line, column: job.column, ..again }, *job);
}

/// Characters in a line, counted from 1; `None` when there is no such line. YAML has three line breaks.
fn width(text: &str, line: u32) -> Option<u32> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let line = text.split('\n').nth(index)?;
    u32::try_from(line.chars().count()).ok()
}

/// Join strings: what is read is written so that it reads the same, and debug output hides the secret.
pub fn join(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(read) = text.parse::<Join>() else { return };
    let written = read.to_string();
    assert_eq!(written.parse::<Join>().as_ref(), Ok(&read), "{written}");
    let hidden = Join { secret: String::new(), ..read.clone() };
    assert_eq!(format!("{read:?}"), format!("{hidden:?}"), "the secret shows");
}

/// Runbooks: each error stands in the text, each step has its nodes in its place, and each its record.
pub fn runbooks(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = runbook::parse("x.md", text);
    assert_eq!(runbook::parse("x.md", text), parsed, "read twice, it differs");
    for told in [&parsed.errors, &parsed.warnings] {
        assert!(told.len() <= runbook::MOST_TOLD + 1);
        told.iter()
            .for_each(|error| check_error(text.strip_prefix('\u{feff}').unwrap_or(text), error));
    }
    let steps = &parsed.runbook.steps;
    let mut ids: Vec<_> = steps.iter().map(|step| step.id.in_templates()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), steps.len(), "two steps have one name");
    if parsed.errors.is_empty()
        && let Some(plan) = compiled(&parsed.runbook, text)
    {
        check_plan(&parsed.runbook, &plan);
        check_record(&plan);
    }
}

/// The plan with a hostile value for each input.
fn compiled(runbook: &runbook::Runbook, text: &str) -> Option<Plan> {
    let hosts = Selector::parse("*").expect("a selector");
    let value = |input: &runbook::Input| {
        let texts = ["'; x \"$(y)`z` {{ a }}\n", "3", "yes", "5m", "web*", "secret-name"];
        let fits = texts.iter().find_map(|text| input.kind.read(text).ok());
        fits.or_else(|| input.default.clone()).map(|value| (input.name.clone(), value))
    };
    let values: shown::Values = runbook.inputs.iter().filter_map(value).collect();
    let id = "018f3c5e-7b1a-7000-8000-000000000001";
    let (change, life): (ChangeId, Incarnation) = (id.parse().ok()?, id.parse().ok()?);
    let given = compile::Given {
        source: text,
        values: &values,
        hosts: Some(&hosts),
        change,
        incarnation: life,
    };
    let host = || Some(Chosen { id: id.parse().ok()?, name: "web1".parse().ok()? });
    compile::compile(runbook, &given, |_| Ok(host().into_iter().collect())).ok()
}

/// Steps come in their order, and are taken back in the order that is shown.
fn check_plan(runbook: &runbook::Runbook, plan: &Plan) {
    let turns = runbook.steps.iter().filter(|step| step.kind.has_its_turn());
    let mut ids: Vec<_> = plan.nodes.iter().map(|node| node.id.as_str()).collect();
    ids.dedup();
    assert_eq!(ids, turns.map(|step| step.id.as_str()).collect::<Vec<_>>());
    let undone = plan.nodes.iter().rev().filter(|node| node.undo.is_some());
    let undone: Vec<_> = undone.map(|node| node.id.as_str()).collect();
    let shown = shown::undo_order(runbook);
    assert_eq!(undone, shown.iter().map(|id| id.as_str()).collect::<Vec<_>>());
}

/// The record of a change that has not begun has each step once.
fn check_record(plan: &Plan) {
    let id = "018f3c5e-7b1a-7000-8000-000000000001".parse().expect("an id");
    let kind = Kind::Planned(Box::new(plan.clone()));
    let first = Event { at: Timestamp::from_millis(1), by: Actor::Server, kind };
    let change = Change::begin(id, &first).expect("a plan");
    let record = Record { change: &change, runs: &BTreeMap::new(), rehearsed: false };
    let steps = runbook::view(&change, false).steps.len();
    let page = report::html(&record);
    assert_eq!(page.matches("<section class=\"record ").count(), steps + 1, "{page}");
    assert!(!page.contains("<script"), "{page}");
    assert!(report::markdown(&record).matches("> **planned**").count() > steps);
}

/// An error stands in its text, and is shown by two lines of which the second ends with the caret.
fn check_place(text: &str, offset: usize, caret: &str) {
    assert!(offset <= text.chars().count(), "at {offset} of {text:?}");
    assert!(caret.ends_with('^') && caret.lines().count() == 2, "{caret}");
}
