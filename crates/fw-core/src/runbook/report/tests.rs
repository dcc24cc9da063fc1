//! Records as people read them, and output that would like to be more than output.

use std::fmt::Write as _;

use fw_proto::api::{TaskReason, TaskState};
use fw_proto::{ChangeId, HostId, Incarnation};
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use uuid::Uuid;

use super::*;
use crate::change::{Event as Happened, Kind, Part, Way};
use crate::plan::Chosen;
use crate::run::Actor;
use crate::runbook::compile::{Given, compile};
use crate::runbook::plan;

const DOCUMENT: &str = "---\ntitle: New nginx\nhosts: web*\ninputs:\n  version: text\n  key: secret\n---\n\nWords <b>before</b>.\n\n## Install\n\n- [ ] Tell the *others*\n- [ ] Install it\n  ```sh id=install timeout=5m undo=back approve=admin,1\n  install-nginx {{ inputs.version }} {{ inputs.key }}\n  ```\n  and wait.\n- [ ] Look\n\n```sh id=back\ninstall-nginx --previous\n```\n\n[site](https://example.com) [bad](javascript:alert)\n";

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn task(host: &str, state: TaskState, code: i32) -> Task {
    Task {
        host: host.parse().unwrap(),
        state,
        reason: None,
        message: None,
        attempt: 1,
        exit_code: Some(code),
        signal: None,
        started_at: Some(at(20)),
        finished_at: Some(at(25)),
        stdout_bytes: 3,
        stderr_bytes: 0,
        stdout_sha256: Some("ab".repeat(32)),
        stderr_sha256: None,
        stdout_dropped_bytes: 0,
        stderr_dropped_bytes: 0,
        left_behind: 0,
        armed: None,
        late: None,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

fn planned(document: &str, inputs: &[(&str, &str)]) -> Change {
    let parsed = crate::runbook::parse("x.md", document);
    assert_eq!(parsed.errors, [], "{document}");
    let inputs: Vec<_> = inputs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let values = plan::values(&parsed.runbook.inputs, &inputs).unwrap();
    let hosts = crate::select::Selector::parse("web*").unwrap();
    let given = Given {
        source: document,
        values: &values,
        hosts: Some(&hosts),
        change: ChangeId(id(1)),
        incarnation: Incarnation(id(2)),
    };
    let host = |n: u128| Chosen { id: HostId(id(n)), name: format!("web{n}").parse().unwrap() };
    let plan = compile(&parsed.runbook, &given, |_| Ok(vec![host(1), host(2)])).unwrap();
    let kind = Kind::Planned(Box::new(plan));
    let by = Actor::User("anna".to_owned());
    Change::begin(ChangeId(id(1)), &Happened { at: at(0), by, kind }).unwrap()
}

/// Ticks, approves and runs the whole document, then takes it back.
fn done(document: &str, note: &str, back: bool) -> Change {
    let mut change = planned(document, &[("version", "1.27; x"), ("key", "api")]);
    let mut step = |seconds: i64, by: &str, kind: Kind| {
        let by = match by.strip_prefix("token:") {
            Some(token) => Actor::Token(token.to_owned()),
            None => Actor::User(by.to_owned()),
        };
        change.step(&Happened { at: at(seconds), by, kind });
    };
    let parts = vec![(HostId(id(1)), Part::Done), (HostId(id(2)), Part::Done)];
    let hosts = vec![HostId(id(1)), HostId(id(2))];
    step(1, "server", Kind::Opened { node: 0, until: None });
    step(5, "token:bob", Kind::Passed { node: 0, note: Some(note.to_owned()) });
    step(6, "server", Kind::Opened { node: 1, until: None });
    step(9, "token:carl", Kind::Approved { node: 1 });
    step(
        10,
        "server",
        Kind::Began { node: 2, way: Way::Do, run: RunId(id(7)), hosts: hosts.clone() },
    );
    step(
        30,
        "server",
        Kind::Ended {
            node: 2,
            way: Way::Do,
            run: RunId(id(7)),
            parts: parts.clone(),
            cancelled: false,
        },
    );
    if back {
        step(40, "anna", Kind::UndoRequested);
        step(41, "server", Kind::Began { node: 2, way: Way::Undo, run: RunId(id(8)), hosts });
        step(
            50,
            "server",
            Kind::Ended { node: 2, way: Way::Undo, run: RunId(id(8)), parts, cancelled: false },
        );
    }
    change
}

fn runs(output: &[u8]) -> BTreeMap<RunId, Ran> {
    let one = |host: &str, output: &[u8], left_out| RanTask {
        task: task(host, TaskState::Succeeded, 0),
        output: output.to_vec(),
        left_out,
    };
    let mut failed = one("web2", b"", 7);
    failed.task.state = TaskState::Failed;
    failed.task.reason = Some(TaskReason::Spawn);
    BTreeMap::from([(
        RunId(id(7)),
        Ran { command: None, tasks: vec![one("web1", output, 0), failed] },
    )])
}

#[test]
fn the_record_is_the_document_with_what_was_done() {
    let change = done(DOCUMENT, "told them *all*", true);
    let runs = runs(b"\x1b[31mok\x1b[0m\n```\n# not a heading\n");
    let record = Record { change: &change, runs: &runs, rehearsed: false };
    insta::assert_snapshot!("record_markdown", markdown(&record));
    insta::assert_snapshot!("record_html", html(&record));
}

#[test]
fn a_command_that_was_filled_in_is_told_as_it_ran() {
    let document = "---\ntitle: x\nhosts: web*\n---\n- [ ] A\n  ```sh id=a timeout=1m undo=none\n  date\n  ```\n- [ ] B\n  ```sh id=b timeout=1m undo=none\n  echo {{ steps.a.stdout }}\n  ```\n";
    let mut change = planned(document, &[]);
    for (node, run) in [(0, RunId(id(7))), (1, RunId(id(8)))] {
        let hosts = vec![HostId(id(1)), HostId(id(2))];
        let parts = hosts.iter().map(|host| (*host, Part::Done)).collect();
        let began = Kind::Began { node, way: Way::Do, run, hosts };
        let ended = Kind::Ended { node, way: Way::Do, run, parts, cancelled: false };
        for kind in [began, ended] {
            change.step(&Happened { at: at(1), by: Actor::Server, kind });
        }
    }
    let command = Some(Command::Shell("echo 'Friday'".to_owned()));
    let runs = BTreeMap::from([(RunId(id(8)), Ran { command, tasks: Vec::new() })]);
    let report = markdown(&Record { change: &change, runs: &runs, rehearsed: false });
    assert!(report.contains("> command:\n  > ```text\n  > echo 'Friday'\n"), "{report}");
    assert!(report.contains("- [x] A\n") && report.contains("- [x] B\n"), "{report}");
}

/// What stands in a report outside of blocks of code, and the tags.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser has many events, and each is told")]
fn outline(report: &str) -> String {
    let mut code = 0;
    let mut outline = String::new();
    for event in Parser::new_ext(report, Options::ENABLE_TASKLISTS) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => code += 1,
            Event::End(TagEnd::CodeBlock) => {
                code -= 1;
                outline.push_str("[code]");
            }
            _ if code > 0 => {}
            other => writeln!(outline, "{other:?}").expect("writing to memory"),
        }
    }
    outline
}

/// The tags of a page in their order.
fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).filter_map(|part| part.split('>').next()).collect()
}

fn hostile() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            Just("```"),
            Just("````"),
            Just("~~~"),
            Just("\n"),
            Just("\r"),
            Just("\r\n"),
            Just("> "),
            Just("- "),
            Just("# x"),
            Just("</pre>"),
            Just("<script>alert(1)</script>"),
            Just("\t"),
            Just("    "),
            Just("---"),
            Just("\u{2028}"),
            Just("\u{0}"),
            Just("x"),
            Just("&lt;"),
            Just("[a](javascript:b)"),
            Just("*b*"),
            Just("\\"),
            Just("1. "),
            Just("\u{1b}[2J"),
            Just("\u{202e}"),
            Just("<!--"),
            Just("|"),
            Just("`"),
            Just("\u{85}"),
            Just("\u{b}"),
            Just("\u{c}"),
        ],
        0..24,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever commands print and people write, the rest of the report stays as it is.
    #[test]
    fn nothing_leaves_its_place(output in hostile(), note in hostile()) {
        let harmless = done(DOCUMENT, "note", true);
        let change = done(DOCUMENT, &format!("x{note}"), true);
        let (expected, runs) = (runs(b"harmless"), runs(format!("x{output}\nx").as_bytes()));
        let expected = Record { change: &harmless, runs: &expected, rehearsed: true };
        let record = Record { change: &change, runs: &runs, rehearsed: true };
        // A note is text within a line, so tags are counted and its text is left out.
        let shape = |record: &Record<'_>| {
            let outline = outline(&markdown(record));
            outline.lines().filter(|line| !line.starts_with("Text(")).collect::<Vec<_>>().join("\n")
        };
        prop_assert_eq!(shape(&record), shape(&expected));
        let (page, plain) = (html(&record), html(&expected));
        prop_assert_eq!(tags(&page), tags(&plain));
        let steers = page.contains("<script") || page.contains(['\u{202e}', '\u{1b}']);
        prop_assert!(!steers);
    }

    /// Every step has its record at its place, or at the end; and the document is whole.
    #[test]
    fn any_document_has_its_record(parts in proptest::collection::vec(
        prop_oneof![
            Just("# H\n"), Just("- [ ] item\n"), Just("  "), Just("```sh\n"), Just("```\n"), Just("~~~\n"), Just("> "), Just("\t"), Just("\r\n"),
            Just("text\n"), Just("1. "), Just("    code\n"), Just("- "), Just("\n"), Just("<div>\n"), Just("* [ ] x\n"), Just("x"), Just("````\n"),
        ], 0..24)) {
        let document = parts.concat();
        let parsed = crate::runbook::parse("x.md", &document);
        prop_assume!(parsed.errors.is_empty() && parsed.runbook.steps.iter().any(|step| step.kind.has_its_turn()));
        let change = planned_if_possible(&document);
        prop_assume!(change.is_some());
        let change = change.unwrap();
        let runs = BTreeMap::new();
        let record = Record { change: &change, runs: &runs, rehearsed: false };
        let report = markdown(&record);
        let steps = steps(&record).len();
        // One quote for the whole, and one for each step, none of them inside of code.
        let said = outline(&report).matches("Text(Borrowed(\"planned\"))").count();
        prop_assert_eq!(said, steps + 1, "{}", report);
        let page = html(&record);
        prop_assert_eq!(page.matches("<section class=\"record").count(), steps + 1);
        let opened = page.matches("<pre").count();
        prop_assert_eq!(opened, page.matches("</pre>").count());
    }
}

/// The change of a plain document, unless a block of it cannot be run.
fn planned_if_possible(document: &str) -> Option<Change> {
    let parsed = crate::runbook::parse("x.md", document);
    let values = BTreeMap::new();
    let hosts = crate::select::Selector::parse("web*").ok()?;
    let given = Given {
        source: document,
        values: &values,
        hosts: Some(&hosts),
        change: ChangeId(id(1)),
        incarnation: Incarnation(id(2)),
    };
    let host = Chosen { id: HostId(id(1)), name: "web1".parse().ok()? };
    let plan = compile(&parsed.runbook, &given, |_| Ok(vec![host.clone()])).ok()?;
    let kind = Kind::Planned(Box::new(plan));
    Change::begin(ChangeId(id(1)), &Happened { at: at(0), by: Actor::Server, kind }).ok()
}
