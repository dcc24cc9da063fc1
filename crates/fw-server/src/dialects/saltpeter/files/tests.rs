use std::collections::BTreeMap;

use super::scalar::{self, Scalar};
use super::{Directory, Timeout, of_texts};

fn check(files: &[(&str, &str)]) -> Directory {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), Ok((*text).to_owned())));
    of_texts(&files.collect::<BTreeMap<_, _>>())
}

fn notes(directory: &Directory) -> String {
    let line = |note: &super::Note| format!("{:?}: {}", note.level, note.what);
    directory.notes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A good job of a name.
fn job(name: &str, more: &str) -> String {
    format!(
        "{name}:\n  {{min: 0, hour: '2', dom: '*', mon: '*', dow: '*', command: 'true', targets: 'web*', target_type: glob{more}}}\n"
    )
}

#[test]
fn a_bad_file_harms_no_other() {
    let read = check(&[("a.yaml", "x: [\n"), ("b.yaml", &job("good", ""))]);
    assert_eq!(read.jobs.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(read.jobs["good"].group, "b");
    assert_eq!(read.notes.len(), 1, "{}", notes(&read));
}

#[test]
fn a_bad_job_harms_no_other() {
    let read = check(&[("a.yaml", &format!("bad: 5\n{}", job("good", "")))]);
    assert_eq!(read.jobs.keys().collect::<Vec<_>>(), ["good"]);
}

#[test]
fn the_first_file_by_name_keeps_a_name() {
    let read = check(&[("z.yaml", &job("x", "")), ("b.yaml", &job("x", ""))]);
    assert_eq!(read.jobs["x"].file, "b.yaml");
    let said = notes(&read);
    assert!(said.contains("z.yaml:1; this one stays"), "{said}");
    assert!(said.contains("b.yaml:1, which stays"), "{said}");
}

#[test]
fn timeouts_are_told_apart() {
    let of = |more: &str| check(&[("a.yaml", &job("x", more))]).jobs["x"].timeout;
    assert_eq!(of(""), Timeout::Seconds(3600));
    assert_eq!(of(", timeout: 0"), Timeout::Unlimited);
    assert_eq!(of(", timeout: "), Timeout::Unlimited);
    assert_eq!(of(", timeout: 1:30"), Timeout::Seconds(90));
    assert_eq!(of(", timeout: 5m"), Timeout::Seconds(3600));
}

#[test]
fn scalars_are_those_of_yaml_1_1() {
    for (text, want) in [
        ("yes", Scalar::Bool(true)),
        ("'yes'", Scalar::Text("yes".to_owned())),
        ("010", Scalar::Number(8)),
        ("08", Scalar::Text("08".to_owned())),
        ("'10'", Scalar::Text("10".to_owned())),
        ("2026-11-20", Scalar::Date("2026-11-20".to_owned())),
        ("~", Scalar::Null),
    ] {
        let document = fw_core::job::yaml::document(text).expect("YAML");
        assert_eq!(scalar::of(&document.root), Some(want), "{text}");
    }
}

#[test]
fn settings_and_maintenance_are_read() {
    let text = "saltpeter_config: {api_ws: on, bogus: 1}\nsaltpeter_maintenance: {global: 'yes', machines: [db1]}\n";
    let read = check(&[("m.yaml", text)]);
    assert_eq!(read.config["api_ws"], "True");
    assert!(!read.maintenance.global);
    assert_eq!(read.maintenance.machines, ["db1"]);
    assert_eq!(read.notes.len(), 2, "{}", notes(&read));
}

#[test]
fn what_is_ignored_or_dangerous_is_said() {
    let bad = "a/b: {min: 0, hour: '', dom: 30, mon: 2, dow: '*', utc: true, hard_timeout: 0, comand: x, allow_overlap: yes, command: \"it's \\\"x\\\"\", targets: [a], target_type: glob}\n5: {}\n";
    insta::assert_snapshot!(notes(&check(&[("bad.yaml", bad)])));
}

#[test]
fn what_was_known_goes_on_where_a_file_is_wrong() {
    let read = |text: &str| super::part("a.yaml", &Ok(text.to_owned()));
    let before =
        read(&format!("{}{}saltpeter_maintenance: {{global: true}}\n", job("x", ""), job("y", "")));
    let after = |text: &str| {
        let part = read(text).over(&before);
        super::merge([("a.yaml", &part)].into_iter())
    };
    let names = |read: &Directory| read.jobs.keys().cloned().collect::<Vec<_>>();
    let unreadable = after("x: [\n");
    assert_eq!(
        (names(&unreadable), unreadable.maintenance.global),
        (vec!["x".into(), "y".into()], true)
    );
    assert!(unreadable.doubtful_files.contains("a.yaml") && unreadable.notes.len() == 1);
    let misspelt = after("x: {min: often}\n");
    assert_eq!((names(&misspelt), misspelt.maintenance.global), (vec!["x".to_owned()], false));
    assert!(misspelt.doubtful_jobs.contains("x"));
    assert_eq!(names(&after("z: 5\n")), Vec::<String>::new());
}

#[test]
fn targets_that_only_salt_knows_are_refused_at_their_place() {
    let read = check(&[(
        "a.yaml",
        "x:\n  min: 0\n  hour: 2\n  dom: '*'\n  mon: '*'\n  dow: '*'\n  command: 'true'\n  targets: 'a:b'\n  target_type: pillar\n",
    )]);
    assert!(read.jobs.is_empty());
    let note = &read.notes[0].what;
    assert_eq!((note.line, note.job.as_deref()), (9, Some("x")), "{}", notes(&read));
}
