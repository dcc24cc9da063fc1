//! Runbooks as people write them, and as nobody should.

use std::fmt::Write as _;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// The steps, errors and warnings of a document, as text.
fn told(text: &str) -> String {
    let parsed = parse("x.md", text);
    let mut told = format!("{}\n", parsed.runbook.title);
    for step in &parsed.runbook.steps {
        let phase = step.phase.and_then(|phase| parsed.runbook.phases.get(phase));
        let phase = phase.map_or("-", |phase| phase.title.as_str());
        writeln!(told, "{} {} {} [{phase}] {}", step.line, step.id, step.kind.name(), step.title)
            .expect("writing to memory");
    }
    for error in &parsed.errors {
        writeln!(told, "error: {error}").expect("writing to memory");
    }
    for warning in &parsed.warnings {
        writeln!(told, "warning: {warning}").expect("writing to memory");
    }
    told
}

/// The first error of a document.
fn error(text: &str) -> String {
    parse("x.md", text).errors.first().map(ToString::to_string).unwrap_or_default()
}

/// A document with one command under front matter.
fn with(front: &str, info: &str, command: &str) -> String {
    format!("---\ntitle: T\nhosts: web*\n{front}---\n\n```sh {info}\n{command}\n```\n")
}

#[test]
fn a_plain_checklist_is_a_runbook() {
    insta::assert_snapshot!(told(
        "# Move\n\nWords.\n\n## Before\n\n- [ ] **Back up** (now)\n  ```bash\n  cp -r a b\n  ```\n- [ ] Tell the others\n- [x] Old\n  - no box\n\n## Do it\n\n```sh\nmake {{ it }}\n```\n\n```yaml\na: 1\n```\n\n    indented\n"
    ));
}

#[test]
fn attributes_make_it_run_by_itself() {
    insta::assert_snapshot!(told(
        "---\ntitle: New nginx\nowner: ops\nhosts: web*\ninputs:\n  version: text\n  wait: {type: duration, default: 30s}\n---\n\n## Install\n\n- [ ] Look first\n  ```text manual approve=operator,2,4h id=look\n  the dashboard\n  ```\n- [ ] Install\n  ```sh id=install on=\"web* and not label:stage=canary\" as=root timeout=5m retries=2 expect=0,2 undo=back verify=\"nginx -v\" armed=60s\n  install-nginx {{ inputs.version }}\n  ```\n- [ ] Say so\n  ```bash timeout=5s undo=none\n  echo {{ steps.install.stdout }} {{ inputs.version | raw }}\n  ```\n\n```sh id=back\ninstall-nginx --previous\n```\n"
    ));
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let check = |text: &str, said: &str| {
        let error = error(text);
        assert!(error.contains(said), "{text}\n{error}");
        let caret = error.lines().last().unwrap_or_default();
        assert!(caret.trim() == "^" || error.starts_with("x.md: "), "{error}");
    };
    let block = |info: &str| with("", info, "true");
    check(&block("tiemout=5m"), "did you mean timeout?");
    check(&block("timeout=soon"), "\"soon\" is not a duration");
    check(&block("timeout=0s"), "at least 1s");
    check(&block("retries=1000"), "from 0 to 100");
    check(&block("on=\"web* and\""), "x.md:6:");
    check(&block("id=a id=b"), "id stands twice");
    check(&block("id=\"a b\""), "an id has letters");
    check(&block("undo=\"x"), "never closed");
    check(&block("undo="), "undo is empty");
    check(&block("undo"), "undo needs a value");
    check(&block("manual=yes"), "manual takes no value");
    check(&block("undo=bakc"), "there is no step \"bakc\"");
    check(&block("expect=999"), "0 to 255");
    check(&block("expect=\"~(\""), "no regular expression");
    check(&block("approve=0"), "1 to 20 people");
    check(&block("armed=5s"), "needs its undo");
    check(&block("needs=\"a gate\""), "add manual until it is");
    check(&block("approve=boss"), "\"boss\" is no role");
    check(&block("approve=viewer"), "a viewer may approve nothing");
    check(&block("fresh=24h"), "fresh belongs to a block of backup");
    check(&block("manual undo=\"a b\""), "nothing runs here; add verify=");
    check(&block("manual approve=1 verify=\"a b\""), "an approval has no verify");
    check(&block("expect=0,86 verify=\"a b\""), "86 says that a step is not proved");
    check(
        &format!("{}```sh id=z on=db\ntrue\n```\n", block("undo=z")),
        "z has other hosts, and runs on those of this step",
    );
    check(&format!("{}```sh id=z as=root\ntrue\n```\n", block("verify=z")), "z has another user");
    check("---\ninputs: {Change_ID: secret}\n---\n", "holds the id of the change");
    check("```id=a\ntrue\n```", "begins with its language");
    check("```python id=a\ntrue\n```", "nothing runs \"python\"");
    check("```sh id=a on=x\n```", "the block is empty");
    check("```sh id=a-b on=x\ntrue\n```\n```sh id=a_b on=x\ntrue\n```\n", "already, at line 1");
    check(
        "```sh id=a on=x undo=b\ntrue\n```\n```sh id=b on=x undo=a\ntrue\n```\n",
        "an undo is not undone",
    );
    check("---\ntitel: x\n---\n", "x.md:2:1: unknown key \"titel\"; did you mean title?");
    check("---\ntitle: x\n", "never closed");
    check("---\nhosts: web* and\n---\n", "x.md:2:");
    check("---\ninputs: {x: txt}\n---\n", "did you mean text?");
    check("---\ninputs: {x: {type: number, default: soon}}\n---\n", "is no number");
    check("---\na: [\n---\n", "not YAML");
    check(&"x".repeat(LARGEST + 1), "split it");
    check(&format!("{}x", "> ".repeat(100)), "flatten them");
}

#[test]
fn hosts_may_be_said_when_it_is_begun() {
    let block = |id: usize| format!("```sh id=s{id} timeout=1s undo=none\ntrue\n```\n\n");
    let warned = |text: &str| {
        let parsed = parse("x.md", text);
        assert_eq!(parsed.errors, [], "{text}");
        parsed.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let said = warned(&(1..8).map(block).collect::<String>());
    assert!(
        said.starts_with("x.md:1:1: no hosts are named for s1, s2, s3, s4, s5, 2 more: begin"),
        "{said}"
    );
    let proved = "```text id=a manual verify=\"test -e /\"\nx\n```\n";
    assert!(warned(proved).contains("no hosts are named for a:"), "{}", warned(proved));
    for none in ["```\ntrue\n```\n", "- [ ] x\n", "```text manual\nx\n```\n"] {
        assert_eq!(warned(none), "", "{none}");
    }
    let named = format!("---\nhosts: web*\n---\n{}", block(1));
    let text = named.clone()
        + "```sh id=b on=x timeout=1s undo=none\ntrue\n```\n"
        + &block(2).replace("s2", "c");
    assert_eq!((warned(&named), warned(&text)), (String::new(), String::new()));
    let parsed = parse("x.md", &text.replace("hosts: web*", "owner: me"));
    let unnamed: Vec<_> = plan::unnamed(&parsed.runbook).map(|step| step.id.as_str()).collect();
    assert_eq!(unnamed, ["s1", "c"]);
}

#[test]
fn a_backup_is_a_command_and_its_undo() {
    let front = "inputs: {save: text, x: {type: text, default: a}}\n";
    let block = "paths: [/etc/nginx, \"/srv/{{ inputs.x }}/my files\"]\nsqlite: /var/lib/a.db\npostgres: [app]\nexclude: [/etc/nginx/tmp*]\nto: \"{{ inputs.save }}\"\nkeep: 5\nkeep_for: 30d";
    let text = with(front, "id=x", "true")
        + "\n- [ ] Save\n  ```backup id=save timeout=5m\n  "
        + &block.replace('\n', "\n  ")
        + "\n  ```\n\n```backup id=gate fresh=24h timeout=1m\npaths: [/etc/nginx]\nto: /var/backups\n```\n";
    let parsed = parse("x.md", &text);
    assert_eq!(parsed.errors, []);
    let mut told = String::new();
    for step in parsed.runbook.steps.iter().skip(1) {
        let block = step.block.as_ref().expect("a block");
        writeln!(told, "{} {} {}\n{}", step.line, step.id, step.kind.name(), block.text)
            .expect("writing to memory");
        if let Some(Action::Command(undo)) = &step.undo {
            writeln!(told, "undo\n{}", undo.text).expect("writing to memory");
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn mistakes_in_a_backup_are_shown_where_they_are() {
    let check = |block: &str, info: &str, place: &str, said: &str| {
        let text = format!(
            "---\nhosts: web*\ninputs: {{a: text}}\n---\n\n- [ ] Save\n  ```backup timeout=1m {info}\n  {}\n  ```\n",
            block.replace('\n', "\n  ")
        );
        let error = error(&text);
        assert!(error.starts_with(&format!("x.md:{place}: ")) && error.contains(said), "{error}");
    };
    check("paths: [/a]\nto: b", "", "9:7", "is not an absolute path");
    check("paths: [/a]\ntoo: /b", "", "8:3", "say in which directory");
    check("paths: [/a]\nto: /b\nexcluded: /x", "", "10:3", "did you mean exclude?");
    check("to: /b", "", "8:3", "it saves nothing");
    check("paths: [/a]\nto: /b\nkeep: 0", "", "10:9", "at least 1");
    check("paths: [/a]\nto: /b\nkeep_for: soon", "", "10:13", "is not a duration");
    check("paths: [/a]\nto: /b\nkeep: 2", "fresh=1d", "10:3", "makes none; take keep away");
    check("paths: [/a]\nto: {{ inputs.a }}/x", "", "9:21", "a value stands in quotation marks");
    check("paths: [/a]\nto: \"/b/{{ inputs.b }}\"", "", "9:14", "there is no input \"b\"");
    check("paths: [/a]\nto: \"/b/{% if inputs.a %}\"", "", "9:11", "only values stand in a backup");
    check("paths: [/a]\nto: /b", "undo=\"rm x\"", "7:30", "say undo=none");
    check("- /a", "", "8:3", "a backup says what is saved");
}

#[test]
fn names_in_templates_are_known() {
    let check = |command: &str, said: &str| {
        let text = with("inputs: {version: text}\n", "id=a timeout=1s undo=none", command);
        let error = error(&text);
        assert!(
            error.contains(said) && (said.is_empty() == error.is_empty()),
            "{command}: {error}"
        );
    };
    check("echo {{ inputs.version }}", "");
    check("echo '{% raw %}{{.Names}}{% endraw %}'", "");
    check("{% if inputs.version == 'x' %}a{% else %}b{% endif %}", "");
    check("for x in 1; do echo {{ inputs.version | upper }}; done", "");
    check(
        "true\necho {{ inputs.versoin }}",
        "x.md:9:9: there is no input \"versoin\"; did you mean version?",
    );
    check("echo {{ steps.a.stdout }}", "has printed nothing yet");
    check("echo {{ steps.b.stdout }}", "there is no step");
    check("echo {{ inputs.version.x }}", "unknown name");
    check("echo {{ range(9) }}", "unknown name \"range\"");
    check("echo {{ version }}", "unknown name \"version\"");
    check("echo '{{ inputs.version }}'", "x.md:8:7: a value stands between quotation marks");
    check("echo {{ inputs.version", "never closed");
    check("echo {{ inputs..version }}", "not a template");
    check("{% set x = 1 %}", "no statement \"set\"");
    check("docker ps --format '{{.Names}}'", "raw");
}

#[test]
fn what_takes_back_may_use_what_was_printed() {
    let text = with("", "id=a timeout=1s undo=\"restore {{ steps.a.stdout }}\"", "save");
    assert_eq!(error(&text), "");
    let block = "```sh id=b timeout=1s\nrestore {{ steps.a.stdout }} {{ steps.z.stdout }}\n```\n\n";
    let first = "---\nhosts: web*\n---\n```sh id=z undo=none\nx\n```\n\n".to_owned() + block;
    let step = |role: &str| format!("{first}```sh id=a {role}=b\nx\n```\n");
    assert_eq!(error(&step("undo")), "");
    assert!(
        error(&step("verify")).contains("x.md:9:12: step \"a\" has printed nothing yet"),
        "{}",
        error(&step("verify"))
    );
    let own = with("", "id=a verify=\"test {{ steps.a.stdout }}\"", "save");
    assert!(error(&own).contains("has printed nothing yet"), "{}", error(&own));
    let later = step("undo") + "\n```sh id=y undo=none\necho {{ steps.b.stdout }}\n```\n";
    assert!(error(&later).contains("has printed nothing yet"), "{}", error(&later));
}

#[test]
fn values_are_read_all_at_once() {
    let text = "---\ninputs:\n  a: number\n  b: {type: choice, choices: [small, large]}\n  c: {type: hosts, about: where}\n  d: {default: x}\n  e: secret\n  f: flag\n---\n";
    let parsed = parse("x.md", text);
    let inputs = &parsed.runbook.inputs;
    assert_eq!(parsed.errors, []);
    let given = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        plan::values(inputs, &pairs)
    };
    let wrong = given(&[("a", "x"), ("b", "lagre"), ("z", ""), ("e", "pass word")]).unwrap_err();
    insta::assert_snapshot!(wrong.join("\n"));
    let good =
        given(&[("a", "3"), ("b", "small"), ("c", "web*"), ("e", "db-password"), ("f", "yes")]);
    let good: Vec<String> = good.unwrap().values().map(ToString::to_string).collect();
    assert_eq!(good, ["3", "small", "web*", "x", "secret db-password", "yes"]);
}

/// Fills one value into a command.
fn filled(command: &str, value: Value) -> Result<Filled, String> {
    let template = Template { text: command.to_owned(), filled: true };
    template.fill(&[("x".to_owned(), value)].into(), &[].into())
}

#[test]
fn a_secret_is_a_variable_and_never_a_text() {
    let filled = filled("login --token {{ inputs.x }}", Value::Secret("api".into())).unwrap();
    assert_eq!(filled.text, "login --token \"$FLEETWRIGHT_X\"");
    assert_eq!(filled.secrets, [("FLEETWRIGHT_X".to_owned(), "api".to_owned())].into());
}

#[test]
fn what_is_raw_does_not_hide_where_values_stand() {
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(filled("ls {{ inputs.x | raw }}", text("-l a")).unwrap().text, "ls -l a");
    assert!(filled("ls {{ inputs.x | raw }} {{ inputs.x }}", text("'")).is_err());
    assert!(
        filled(
            "{% for x in [1] %}{% for y in [1] %}{{ y }}{% endfor %}'{% endfor %}{{ inputs.x }}'",
            text("a")
        )
        .is_err()
    );
}

#[test]
fn loops_end() {
    let long = "{% for a in inputs.x %}{% for b in inputs.x %}{% for c in inputs.x %}{{ c }}{% endfor %}{% endfor %}{% endfor %}";
    let error = filled(long, Value::Text("x".repeat(1000))).unwrap_err();
    assert!(error.contains("too many steps") || error.contains("template"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the value, a real shell gives it back as one word.
    #[test]
    fn no_value_leaves_its_word(value in r#"[^\x00]{0,40}|[ '"$`\\;&|<>(){}*?~#!\n\t-]{0,12}"#, bash in any::<bool>()) {
        let filled = filled("printf '%s|' a{{ inputs.x }} {{ inputs.x }}", Value::Text(value.clone())).unwrap();
        let shell = if bash { "bash" } else { "sh" };
        let output = Command::new(shell).arg("-c").arg(&filled.text).output();
        let Ok(output) = output else { return Ok(()) };
        prop_assert_eq!(String::from_utf8_lossy(&output.stdout), format!("a{value}|{value}|"));
        prop_assert_eq!(output.stderr.as_slice(), b"");
    }

    /// Wherever a value may stand, a hostile one says no command of its own.
    #[test]
    fn no_place_lets_a_value_say_commands(parts in proptest::collection::vec(
        prop_oneof![
            Just("'"), Just("\""), Just("\\"), Just("$"), Just("`"), Just("("), Just(")"), Just("$("), Just("#"),
            Just("\n"), Just(" "), Just("<<E\n"), Just("E\n"), Just("${y:-"), Just("}"), Just(";"), Just(": "), Just("x"),
            Just("\u{1}"), Just("\u{1}"), Just("case "), Just("((") , Just("<<<"), Just("|"),
        ], 0..12), bash in any::<bool>()) {
        let command = parts.concat().replace('\u{1}', "{{ inputs.x }}");
        // Each of these would print the word in one kind of place.
        for value in ["$(echo BROKEN >&3)", "'; echo BROKEN >&3; '", "\necho BROKEN >&3\n", "\"; echo BROKEN >&3; \"", "`echo BROKEN >&3`", "\\'; echo BROKEN >&3 #"] {
            let Ok(filled) = filled(&format!(": {command}"), Value::Text(value.to_owned())) else { continue };
            let script = format!("exec 3>&1 >/dev/null 2>&1 </dev/null\n{}", filled.text);
            let shell = if bash { "bash" } else { "sh" };
            let Ok(output) = Command::new(shell).arg("-c").arg(&script).current_dir("/").output() else { continue };
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            prop_assert!(!said.contains("BROKEN"), "{:?}", filled.text);
        }
    }

    /// No text harms the reader, and each error stands in it.
    #[test]
    fn any_text_is_read(text in proptest::collection::vec(
        prop_oneof![
            Just("---\n"), Just("title: x\n"), Just("inputs: {a: text}\n"), Just("# H\n"), Just("- [ ] item\n"), Just("  "),
            Just("```sh id=a undo=b timeout=5m\n"), Just("```\n"), Just("~~~ x=y\n"), Just("> "), Just("\t"), Just("\r\n"), Just("\r"),
            Just("{{ inputs.a }}"), Just("{% if x %}"), Just("{{ steps.a.stdout }}"), Just("ü\n"), Just("<!-- "), Just("1. "), Just("    code\n"),
            Just("[a]: b\n"), Just("***"), Just("id=a"), Just("\"'"), Just("\0"),
        ], 0..40).prop_map(|parts| parts.concat())) {
        let parsed = parse("x.md", &text);
        prop_assert_eq!(&parse("x.md", &text), &parsed);
        let lines = crate::job::yaml::lines(&text).len();
        for one in parsed.errors.iter().chain(&parsed.warnings) {
            prop_assert!(usize::try_from(one.line).unwrap() <= lines && !one.message.contains('\n'), "{one}");
        }
        let mut ids: Vec<_> = parsed.runbook.steps.iter().map(|step| step.id.in_templates()).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), count);
    }
}

/// Texts that cost a careless reader minutes or its stack.
#[test]
fn hostile_texts_are_bounded() {
    let big = |piece: &str| piece.repeat(LARGEST / piece.len());
    for text in [
        big("```\n"),
        big("> "),
        big("- "),
        big("*"),
        big("["),
        big("[a](b"),
        big("`"),
        big("\t"),
        big("<!--"),
        big("{{"),
        big("#\n"),
        big("- [ ] x\n"),
        big("```sh id=a\nx\n```\n"),
        big("\r"),
        big("a: *b\n"),
        big("&"),
        big("\0"),
        format!("---\na: &a [{}]\n---\n", "x,".repeat(9000)),
        format!("---\na: {}\n---\n", "[".repeat(60_000)),
        (0..1000).map(|depth| format!("{}- x\n", "  ".repeat(depth))).collect(),
        format!("```sh id=a on=x\n{}\n```\n", "{{ inputs.x }}".repeat(9000)),
        format!("---\ntitle: x\n---\n```sh id=a on=x\n{}\n```\n", "{{ inputs.x }}".repeat(9000)),
        format!("{}\n{}", "- ".repeat(30), "\n".repeat(LARGEST - 100)),
        format!("```sh {}\nx\n```\n", "id=a ".repeat(200_000)),
        "```sh on=x undo=zz\nx\n```\n".repeat(9000),
        format!("---\ntitle: x\n---\n{}", "```sh on=x\n{{ steps.z.stdout }}\n```\n".repeat(9000)),
        "```backup\na: b\n```\n".repeat(9000),
    ] {
        let parsed = parse("x.md", &text);
        assert!(parsed.errors.len() <= MOST_TOLD + 1 && parsed.warnings.len() <= MOST_TOLD + 1);
    }
}
