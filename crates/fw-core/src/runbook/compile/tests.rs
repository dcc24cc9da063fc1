//! Runbooks as plans.

use std::process::Command as Process;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::runbook::{Expect, Output, parse};
use fw_proto::api::Command;

const LIFE: Incarnation = Incarnation(Uuid::from_u128(1));
const CHANGE: ChangeId = ChangeId(Uuid::from_u128(2));

/// A fleet of two.
fn choose(selector: &Selector) -> Result<Vec<Chosen>, String> {
    let text = selector.to_string();
    let hosts = [("web1", 1), ("web2", 2)].into_iter();
    let picked = hosts.filter(|(name, _)| *name == text || text == "web*");
    Ok(picked
        .map(|(name, n)| Chosen {
            id: fw_proto::HostId(Uuid::from_u128(n)),
            name: name.parse().unwrap(),
        })
        .collect())
}

fn compiled(text: &str, inputs: &[(&str, &str)], hosts: Option<&str>) -> Result<Plan, Vec<String>> {
    let parsed = parse("x.md", text);
    assert_eq!(parsed.errors, [], "{text}");
    let inputs: Vec<_> = inputs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let values = plan::values(&parsed.runbook.inputs, &inputs).unwrap();
    let hosts = hosts.map(|text| Selector::parse(text).unwrap());
    let given = Given {
        source: text,
        values: &values,
        hosts: hosts.as_ref(),
        change: CHANGE,
        incarnation: LIFE,
    };
    compile(&parsed.runbook, &given, choose)
}

fn acts(plan: &Plan) -> Vec<(&str, &'static str)> {
    plan.nodes.iter().map(|node| (node.id.as_str(), word(&node.act))).collect()
}

fn word(act: &Act) -> &'static str {
    match act {
        Act::Exec(_) => "exec",
        Act::Wait(_) => "wait",
        Act::Approve(_) => "approve",
        Act::Window(_) => "window",
        Act::Tick => "tick",
        Act::Confirm => "confirm",
    }
}

/// A document of one command.
fn with(front: &str, info: &str, command: &str) -> String {
    format!("---\ntitle: T\nhosts: web*\n{front}---\n\n```{info}\n{command}\n```\n")
}

fn work(plan: &Plan) -> &Work {
    plan.nodes.iter().find_map(Node::work).expect("a command")
}

/// Performs a command as a host does, in a directory of its own.
fn perform(exec: &Exec, env: &[(&str, &str)]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut process = match &exec.command {
        Command::Shell(text) => {
            let mut process = Process::new("/bin/sh");
            process.arg("-c").arg(text);
            process
        }
        Command::Argv(argv) => {
            let mut process = Process::new(argv.first().unwrap());
            process.args(argv.iter().skip(1));
            process
        }
    };
    let output = process.current_dir(dir.path()).envs(env.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_plain_checklist_asks_and_is_ticked() {
    let text = "# Move\n\n- [ ] Save\n  ```\n  cp a b\n  ```\n- [ ] Tell all\n\n## Do\n\n```yaml\na: 1\n```\n";
    let plan = compiled(text, &[], Some("web*")).unwrap();
    let expected = [("save", "confirm"), ("save", "exec"), ("tell-all", "tick"), ("do", "tick")];
    assert_eq!(acts(&plan), expected);
    assert_eq!(work(&plan).exec.command, Command::Shell("cp a b".to_owned()));
    let groups: Vec<_> = plan.nodes.iter().map(|node| node.group).collect();
    assert_eq!(groups, [None, None, None, Some(0)]);
}

#[test]
fn what_cannot_be_compiled_is_told_all_at_once() {
    let wrong = |text: &str, hosts| compiled(text, &[], hosts).unwrap_err().join("\n");
    let two = "```\na\n```\n\n```sh id=b on=mail*\nb\n```\n";
    assert_eq!(
        wrong(two, None),
        "step step at line 1: it names no hosts; say with --hosts on which hosts such steps run\nstep b at line 5: no host matches mail*"
    );
    assert!(wrong("# Words\n", None).contains("there is no step in it"));
}

#[test]
fn steps_that_name_no_hosts_run_on_those_that_it_is_begun_with() {
    let text = "```sh id=a undo=\"rm x\"\nx\n```\n\n```sh id=b on=web1 undo=none\nx\n```\n";
    let plan = compiled(text, &[], Some("web*")).unwrap();
    let hosts: Vec<_> =
        plan.nodes.iter().filter_map(Node::work).map(|work| work.hosts.len()).collect();
    assert_eq!(hosts, [2, 1]);
    assert_eq!(plan.nodes[0].undo.as_ref().unwrap().work.hosts.len(), 2);
    let wrong = compiled(text, &[], None).unwrap_err();
    assert!(
        wrong[0].starts_with("step a at line 1: it names no hosts; say with --hosts"),
        "{wrong:?}"
    );
}

#[test]
fn a_plan_has_a_bound() {
    let front = "---\nhosts: web*\ninputs: {v: text}\n---\n";
    let document = |steps: usize| {
        front.to_owned() + &"```sh undo=none\necho {{ inputs.v }}\n```\n".repeat(steps)
    };
    let value = "x".repeat(60_000);
    assert!(compiled(&document(200), &[("v", &value)], None).is_ok());
    let wrong = compiled(&document(300), &[("v", &value)], None).unwrap_err();
    assert!(wrong[0].contains("the plan is larger than 16 MiB"), "{wrong:?}");
}

#[test]
fn a_step_is_asked_for_and_then_done() {
    let text = with(
        "inputs: {v: text}\n",
        "bash id=a as=root timeout=5m retries=2 expect=0,3 approve=admin,2,4h on=web1 undo=back verify=proof",
        "install {{ inputs.v }}",
    ) + "\n```sh id=back timeout=1m\nback {{ steps.a.stdout }}\n```\n\n```sh id=proof timeout=10s\nprove {{ inputs.v }}\n```\n\n```text manual approve=operator\nx\n```\n";
    let plan = compiled(&text, &[("v", "1 2")], None).unwrap();
    assert_eq!(acts(&plan), [("a", "approve"), ("a", "exec"), ("step", "approve")]);
    let Act::Approve(gate) = &plan.nodes[0].act else { panic!("a gate") };
    let four = Some(Span::from_secs(4 * 3600));
    assert_eq!(*gate, Approve { by: Role::Admin, people: 2, expires: four });
    let work = work(&plan);
    assert_eq!((work.retries, &work.expect), (2, &Some(Expect::Exit(vec![0, 3]))));
    assert_eq!((work.exec.user.as_deref(), work.hosts.len()), (Some("root"), 1));
    assert_eq!(work.exec.timeout, Some(Span::from_secs(310)), "the proof has its time too");
    let Command::Argv(argv) = &work.exec.command else { panic!("arguments") };
    assert_eq!(argv[4..], ["bash", "install '1 2'", "/bin/sh", "prove '1 2'", " 0 3 "]);
    let undo = &plan.nodes[1].undo.as_ref().unwrap().work;
    assert_eq!(undo.fill.as_ref().unwrap().template, "back {{ steps.a.stdout }}");
    assert_eq!(
        (undo.exec.user.as_deref(), undo.exec.timeout),
        (Some("root"), Some(Span::from_secs(60)))
    );
    let output = Output { stdout: "x; y".to_owned(), exit_code: 0 };
    let filled = undo.filled(&[("a".to_owned(), output)].into()).unwrap();
    assert_eq!(filled.command, Command::Shell("back 'x; y'".to_owned()));
    assert!(undo.filled(&[].into()).unwrap_err().contains("undefined"));
}

#[test]
fn what_a_person_does_can_be_proved() {
    let text = "```text id=a on=web* manual verify=\"test -e /\" undo=\"rm x\"\nmake x\n```\n";
    let plan = compiled(text, &[], None).unwrap();
    assert_eq!(acts(&plan), [("a", "tick"), ("a", "exec")]);
    assert!(plan.nodes[1].undo.is_some());
}

#[test]
fn a_secret_is_a_variable_of_the_command() {
    let text = with(
        "inputs: {key: secret}\n",
        "sh id=a verify=\"test {{ inputs.key }}\"",
        "login {{ inputs.key }}",
    );
    let plan = compiled(&text, &[("key", "api")], None).unwrap();
    let env = &work(&plan).exec.env;
    assert_eq!(env.get("FLEETWRIGHT_KEY"), Some(&EnvValue::Secret("api".to_owned())));
    assert_eq!(env.get(CHANGE_ID), Some(&EnvValue::Value(CHANGE.to_string())));
}

#[test]
fn a_step_is_done_and_then_proved() {
    let check = |info: &str, command: &str, proof: &str, expected: (i32, &str, &str)| {
        let info = format!("{info} undo=none timeout=5s verify=proof");
        let text = with("", &info, command) + "\n```sh id=proof\n" + proof + "\n```\n";
        let (code, stdout, stderr) = perform(&work(&compiled(&text, &[], None).unwrap()).exec, &[]);
        assert_eq!((code, stdout.as_str()), (expected.0, expected.1), "{command}: {stderr}");
        assert!(stderr.contains(expected.2), "{stderr}");
    };
    check("sh id=a", "echo x; touch y", "echo seen; test -e y", (0, "x\n", "verify: echo seen"));
    check("sh id=a", "echo x", "false", (86, "x\n", "it does not hold, exit code 1"));
    check("sh id=a", "set -e\nfalse\necho x", "true", (1, "", ""));
    check("sh id=a", "exit 3", "touch z", (3, "", ""));
    check("sh id=a expect=3", "exit 3", "true", (3, "", "verify: true"));
    check("sh id=a expect=3", "true", "false", (0, "", ""));
    check("sh id=a", "cat <<E >/dev/null\nnever ended", "true", (0, "", "verify"));
    check("bash id=a", "x=(1 2); echo ${x[1]}", "true", (0, "2\n", "verify"));
    check("sh id=a", "echo 'it is # odd' # it's", "echo \"$0\"", (0, "it is # odd\n", "verify"));
}

#[test]
fn a_backup_finds_its_own_again() {
    let text = "---\nhosts: web*\ninputs: {to: text}\n---\n```backup id=save timeout=1m\npaths: [/etc/nginx]\nto: \"{{ inputs.to }}\"\n```\n";
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("it's here");
    std::fs::create_dir(&to).unwrap();
    let plan = compiled(text, &[("to", to.to_str().unwrap())], None).unwrap();
    let binary = dir.path().join("fleetwright");
    std::fs::write(&binary, "#!/bin/sh\necho \"$@\" >&2\necho \"/made/$CALL\"\n").unwrap();
    std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let env = [("FLEETWRIGHT", binary.to_str().unwrap()), (CHANGE_ID, "c1"), ("CALL", "first")];
    let undo = &plan.nodes[0].undo.as_ref().unwrap().work.exec;
    let nothing = perform(undo, &env);
    assert_eq!((nothing.0, nothing.1.as_str()), (0, ""), "{}", nothing.2);
    let made = perform(&work(&plan).exec, &env);
    let expected = format!("host-backup create --path=/etc/nginx --to={}\n", to.display());
    assert_eq!(made, (0, "/made/first\n".to_owned(), expected));
    // Another run of the same document.
    let other = [env[0], (CHANGE_ID, "c2"), ("CALL", "second")];
    assert_eq!(perform(&work(&plan).exec, &other).0, 0);
    let restored = perform(undo, &env);
    assert_eq!((restored.0, restored.2.as_str()), (0, "host-backup restore -- /made/first\n"));
    let old = perform(&work(&plan).exec, &[]);
    assert!(old.0 != 0 && old.2.contains("too old for backups"), "{}", old.2);
}

#[test]
fn it_is_taken_back_in_the_order_that_the_plan_shows() {
    let text = "---\nhosts: web*\n---\n```sh id=a undo=\"b c\"\nx\n```\n```sh id=d undo=none\nx\n```\n```sh id=e undo=f\nx\n```\n```sh id=f\nx\n```\n```backup id=g\npaths: [/a]\nto: /b\n```\n";
    let parsed = parse("x.md", text);
    let shown: Vec<_> =
        plan::undo_order(&parsed.runbook).into_iter().map(ToString::to_string).collect();
    let plan = compiled(text, &[], None).unwrap();
    let undone = plan.nodes.iter().rev().filter(|node| node.undo.is_some());
    assert_eq!(undone.map(|node| node.id.clone()).collect::<Vec<_>>(), shown);
    assert_eq!(shown, ["g", "e", "a"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the value and wherever it comes from, what is compiled gives it back as one word.
    #[test]
    fn a_hostile_value_stays_one_word(value in r#"[^\x00]{0,40}|[ '"$`\\;&|<>(){}*?~#!\n\t-]{0,12}"#, later in any::<bool>()) {
        let name = if later { "{{ steps.s.stdout }}" } else { "{{ inputs.x }}" };
        let text = with("inputs: {x: text}\n", "sh id=s", "true")
            + &format!("\n```sh id=a verify=proof\nprintf '%s|' {name} a{name}\n```\n\n```sh id=proof\nprintf '%s|' {name}\n```\n");
        let plan = compiled(&text, &[("x", &value)], None).unwrap();
        let work = plan.nodes.iter().rev().find_map(Node::work).unwrap();
        prop_assert_eq!(work.fill.is_some(), later);
        let output = Output { stdout: value.clone(), exit_code: 0 };
        let exec = work.filled(&[("s".to_owned(), output)].into()).unwrap();
        let (code, stdout, stderr) = perform(&exec, &[]);
        prop_assert_eq!((code, stdout), (0, format!("{value}|a{value}|")));
        prop_assert!(stderr.ends_with(&format!("{value}|")), "{}", stderr);
    }

    /// Steps come in the order of the document, each as a whole.
    #[test]
    fn steps_keep_their_order(kinds in proptest::collection::vec(0..5_usize, 1..20)) {
        let blocks = ["- [ ] x\n\n", "```\nx\n```\n", "```sh on=web* undo=none\nx\n```\n", "```text manual approve=1\nx\n```\n", "```sh on=web* approve=2 undo=\"a b\"\nx\n```\n"];
        let words: [&[&str]; 5] = [&["tick"], &["confirm", "exec"], &["exec"], &["approve"], &["approve", "exec"]];
        let text: String = kinds.iter().filter_map(|kind| blocks.get(*kind)).copied().collect();
        let plan = compiled(&text, &[], Some("web*")).unwrap();
        let expected: Vec<_> = kinds.iter().filter_map(|kind| words.get(*kind)).flat_map(|words| words.iter().copied()).collect();
        prop_assert_eq!(acts(&plan).into_iter().map(|(_, word)| word).collect::<Vec<_>>(), expected);
        let lines: Vec<_> = plan.nodes.iter().map(|node| node.line).collect();
        prop_assert!(lines.is_sorted(), "{:?}", lines);
    }
}
