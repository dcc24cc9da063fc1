use proptest::prelude::*;

use super::*;
use fw_proto::Span;
use fw_proto::api::{CatchUp, Command, EnvValue, Hook, OnFull, Overlap};

/// The errors as people read them, and the names of the good jobs.
fn check(text: &str) -> String {
    let parsed = parse_jobs("jobs.yaml", text);
    let mut said: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
    let names: Vec<_> = parsed.jobs.iter().map(|job| job.name.as_str()).collect();
    said.push(format!("good: {names:?}"));
    said.join("\n")
}

#[test]
fn the_example_is_in_order() {
    let parsed = parse_jobs("example.yaml", EXAMPLE);
    assert_eq!(parsed.errors, []);
    assert_eq!(parsed.jobs[0].spec.command, Command::Shell("uptime".to_owned()));
    let all = EXAMPLE.replace("\n  # ", "\n  ");
    let parsed = parse_jobs("example.yaml", &all);
    assert_eq!(parsed.errors, []);
    assert_eq!(parsed.jobs.len(), 2);
}

#[test]
fn every_key_is_read() {
    let text = r#"
x-base: &base {user: bob, timeout: 90}
calendars: {holidays: [2026-12-25, 01-01]}
jobs:
  full:
    <<: *base
    schedule: "0 30 3 * * *"
    timezone: europe/athens
    hosts: db* and not label:stage=canary
    argv: [/bin/backup, 08, yes]
    user: backup
    cwd: /tmp
    env: {N: 08, YES: yes, TEXT: "a b", NONE: , KEY: {secret: aws}}
    kill_after: 1m
    start_within: 5m
    calendar: [holidays]
    skip_on: Sun
    window: [22:00-06:00, "Sat 00:00-24:00"]
    overlap: queue
    catch_up: all
    catch_up_window: 2d
    catch_up_max: 7
    retries: 3
    retry_backoff: 30s
    pick: 9
    max_parallel: 5
    max_failures: 2
    enabled: no
    on_full: drop
    on_failure:
      - webhook: https://example.com/
      - command: [notify, "1"]
    on_recovery: {command: [notify]}
  least: {schedule: "@every 90s", hosts: "*", run: "true"}
"#;
    let parsed = parse_jobs("jobs.yaml", text);
    assert_eq!(parsed.errors, []);
    let [full, least] = parsed.jobs.as_slice() else { panic!("two jobs") };
    let value = |text: &str| EnvValue::Value(text.to_owned());
    let spec = &full.spec;
    assert_eq!((full.line, full.column), (5, 3));
    assert_eq!(spec.timezone, "Europe/Athens");
    assert_eq!(spec.command, Command::Argv(["/bin/backup", "08", "yes"].map(str::to_owned).into()));
    assert_eq!(spec.user.as_deref(), Some("backup"));
    assert_eq!(spec.timeout, Some(Span::from_secs(90)));
    assert_eq!(spec.env["N"], value("08"));
    assert_eq!(spec.env["YES"], value("yes"));
    assert_eq!(spec.env["NONE"], value(""));
    assert_eq!(spec.env["KEY"], EnvValue::Secret("aws".to_owned()));
    assert_eq!((spec.overlap, spec.on_full, spec.enabled), (Overlap::Queue, OnFull::Drop, false));
    assert_eq!((spec.catch_up, spec.catch_up_max), (CatchUp::All, 7));
    assert_eq!(spec.catch_up_window, Span::from_secs(2 * 24 * 3600));
    assert_eq!(spec.skip_on, ["Sun", "2026-12-25", "01-01"]);
    assert_eq!(spec.window, ["22:00-06:00", "Sat 00:00-24:00"]);
    assert!(full.calendar.is_some() && least.calendar.is_none());
    assert_eq!((spec.retries, spec.retry_backoff), (3, Span::from_secs(30)));
    assert_eq!((spec.pick, spec.max_parallel, spec.max_failures), (Some(9), Some(5), Some(2)));
    assert_eq!(spec.on_failure.len(), 2);
    assert_eq!(spec.on_recovery, [Hook::Command(vec!["notify".to_owned()])]);
    assert_eq!(least.spec.kill_after, Span::from_secs(10));
    assert_eq!(least.spec.start_within, Span::from_secs(60));
    assert_eq!((least.spec.enabled, least.spec.overlap), (true, Overlap::Skip));
    assert_eq!((least.spec.catch_up, least.spec.catch_up_max), (CatchUp::None, 100));
    assert_eq!(least.spec.catch_up_window, Span::from_secs(24 * 3600));
    assert_eq!((least.spec.retries, least.spec.retry_backoff), (0, Span::from_secs(10)));
    assert_eq!(JobDef::of(full.name.clone(), spec.clone()).unwrap().schedule, full.schedule);
}

#[test]
fn a_calendar_that_is_none_is_said_where_it_stands() {
    let text = r#"calendars:
  holidays: [2026-12-25, Xmas]
  closed: 12-24
jobs:
  a: {schedule: "@daily", hosts: "*", run: a, calendar: close}
  b: {schedule: "@daily", hosts: "*", run: a, window: "Mon-Fry 10:00-12:00"}
  c: {schedule: "@daily", hosts: "*", run: a, skip_on: [Sat, 2026-13-01]}
"#;
    insta::assert_snapshot!(check(text), @r#"
    jobs.yaml:2:26: write a day such as 2026-12-25, 12-25 (of every year) or Sat
      holidays: [2026-12-25, Xmas]
                             ^
    jobs.yaml:5:57: this file has no calendar "close"; did you mean closed?
      a: {schedule: "@daily", hosts: "*", run: a, calendar: close}
                                                            ^
    jobs.yaml:6:56: write days such as Mon-Fri or Sat,Sun
      b: {schedule: "@daily", hosts: "*", run: a, window: "Mon-Fry 10:00-12:00"}
                                                           ^
    jobs.yaml:7:62: write a day such as 2026-12-25, 12-25 (of every year) or Sat
    … c: {schedule: "@daily", hosts: "*", run: a, skip_on: [Sat, 2026-13-01]}
                                                                 ^
    good: []
    "#);
}

/// One good job, then one mistake of each kind.
const MISTAKES: &str = r#"jobs:
  good: {schedule: "@daily", hosts: "*", run: uptime}
  caret:
    schedule: "*/5 25 * * *"
    hosts: web* andd db*
    run: uptime
  keys:
    shedule: "@daily"
    hosts: "*"
    run: a
    argv: [b]
  good: {schedule: "@daily", hosts: "*", run: again}
  values:
    schedule: '@every 5m'
    timezone: Athens
    hosts: [web1]
    run: ""
    timeout: soon
    overlap: skipp
    max_failures: 0
    enabled: perhaps
    env: {A: {secrets: x}, B: [1]}
    on_failure: {webhook: ftp://x}
    on_recovery: mail
  bad name!: {schedule: "@daily", hosts: "*", run: uptime}
  empty:
  also-good: {schedule: "@daily", hosts: "*", run: uptime}
extra: 1
"#;

#[test]
fn a_bad_job_harms_no_other() {
    insta::assert_snapshot!(check(MISTAKES), @r#"
    jobs.yaml:4:20: hour "25": write 0-23, a range 1-5, a list 1,3 or a step */2
        schedule: "*/5 25 * * *"
                       ^
    jobs.yaml:5:17: say how this goes with what stands before it: 'and' or 'or'
        hosts: web* andd db*
                    ^
    jobs.yaml:7:3: 'schedule' is missing: say when it is due, such as "*/5 * * * *"
      keys:
      ^
    jobs.yaml:8:5: "shedule" is no key of a job; did you mean schedule?
        shedule: "@daily"
        ^
    jobs.yaml:11:5: write 'run' or 'argv', not both
        argv: [b]
        ^
    jobs.yaml:12:3: a job good stands on line 2 already; rename one
      good: {schedule: "@daily", hosts: "*", run: again}
      ^
    jobs.yaml:15:15: there is no time zone "Athens"; did you mean Europe/Athens?
        timezone: Athens
                  ^
    jobs.yaml:16:12: a single value should stand here; put it in quotes
        hosts: [web1]
               ^
    jobs.yaml:17:10: this is empty
        run: ""
             ^
    jobs.yaml:18:14: "soon" is not a duration such as 90s, 5m or 1h30m
        timeout: soon
                 ^
    jobs.yaml:19:14: "skipp" is none of skip, queue, replace, allow
        overlap: skipp
                 ^
    jobs.yaml:20:19: a whole number of at least 1 should stand here
        max_failures: 0
                      ^
    jobs.yaml:21:14: true or false should stand here
        enabled: perhaps
                 ^
    jobs.yaml:22:14: 'secret' is missing: say the name of a secret
        env: {A: {secrets: x}, B: [1]}
                 ^
    jobs.yaml:22:15: "secrets" is no kind of value; did you mean secret?
        env: {A: {secrets: x}, B: [1]}
                  ^
    jobs.yaml:22:31: a single value should stand here; put it in quotes
        env: {A: {secrets: x}, B: [1]}
                                  ^
    jobs.yaml:23:27: a URL begins with https:// or http://
        on_failure: {webhook: ftp://x}
                              ^
    jobs.yaml:24:18: keys should stand here, such as webhook, command
        on_recovery: mail
                     ^
    jobs.yaml:25:3: "bad name!" cannot be a name: use only letters, digits, '.', '_' and '-'
      bad name!: {schedule: "@daily", hosts: "*", run: uptime}
      ^
    jobs.yaml:26:8: keys should stand here, such as schedule, timezone, hosts, run
      empty:
           ^
    jobs.yaml:28:1: only 'jobs', 'calendars' and keys that begin with 'x-' may stand here
    extra: 1
    ^
    good: ["good", "also-good"]
    "#);
}

#[test]
fn what_is_no_job_file_is_one_error() {
    let texts = [
        "jobs:\n  a: [1, 2\n  b: 3\n",
        "jobs:\n\ta: 1\n",
        "",
        "- a\n",
        "job:\n  a: {}\n",
        "jobs: 5\n",
        "jobs: {}\n---\njobs: {}\n",
        "jobs: {a: *nobody}\n",
    ];
    let all: Vec<_> = texts.into_iter().map(check).collect();
    insta::assert_snapshot!(all.join("\n\n"), @r"
    jobs.yaml:3:4: not YAML: illegal placement of ':' indicator
      b: 3
       ^
    good: []

    jobs.yaml:2:2: not YAML: tabs disallowed within this context (block indentation)
     a: 1
     ^
    good: []

    jobs.yaml:1:1: a job file begins with 'jobs:' and has a name and a map for each job below it
    good: []

    jobs.yaml:1:1: a job file begins with 'jobs:' and has a name and a map for each job below it
    good: []

    jobs.yaml:1:1: only 'jobs', 'calendars' and keys that begin with 'x-' may stand here
    jobs.yaml:1:1: a job file begins with 'jobs:' and has a name and a map for each job below it
    good: []

    jobs.yaml:1:7: 'jobs' should hold a name and a map for each job
    jobs: 5
          ^
    good: []

    jobs.yaml:3:1: a second document begins here; a file holds one
    jobs: {}
    ^
    good: []

    jobs.yaml:1:11: not YAML: alias references unknown anchor
    jobs: {a: *nobody}
              ^
    good: []
    ");
}

#[test]
fn a_text_that_is_no_job_file_is_not_shown() {
    for secret in ["root:$6$hunter2:0::\n", "[hunter2", "- hunter2\n", "key: [hunter2\n"] {
        let parsed = parse_jobs("f", secret);
        assert!(!parsed.errors.is_empty() && !parsed.readable);
        for error in parsed.errors {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}

#[test]
fn errors_beyond_fifty_are_counted_and_no_job_is_forgotten() {
    let jobs: String = (0..300).map(|n| format!("  j{n:03}: {{hosts: '*', run: a}}\n")).collect();
    let parsed = parse_jobs("f", &format!("jobs:\n{jobs}"));
    assert_eq!(parsed.errors.len(), MOST_ERRORS + 1);
    assert_eq!(parsed.errors[MOST_ERRORS].message, "and 250 more; mend those before first");
    assert_eq!(parsed.wrong.len(), 300);
}

#[test]
fn aliases_do_not_make_a_small_text_large() {
    let list = |n: usize, item: &str| format!("[{}]", vec![item; n].join(", "));
    let (a, b, c) = (list(20, "x"), list(20, "*a"), list(20, "*b"));
    let text = format!("x-a: &a {a}\nx-b: &b {b}\nx-c: {c}\njobs: {{}}\n");
    let parsed = parse_jobs("f", &text);
    assert!(!parsed.readable && parsed.errors.len() == 1, "{:?}", parsed.errors);
}

#[track_caller]
fn check_webhook(url: &str, word: &str) {
    let hook = format!("on_failure: {{webhook: '{url}'}}");
    let text = format!("jobs:\n  a: {{schedule: '@daily', hosts: '*', run: a, {hook}}}\n");
    let errors = parse_jobs("f", &text).errors;
    let said = errors.first().map(|error| error.message.as_str()).unwrap_or_default();
    assert!(said.contains(word) && said.is_empty() == word.is_empty(), "{url}: {said}");
}

#[test]
fn a_webhook_is_a_url_without_credentials() {
    for good in ["https://example.com", "http://[::1]:8080/a?b=c@d", "https://a.b:1/x/@y"] {
        check_webhook(good, "");
    }
    check_webhook("https://bob:pw@example.com/", "name or password");
    check_webhook("https://", "names no host");
    check_webhook("https:///x", "names no host");
    check_webhook("https://[nope]/", "names no host");
    check_webhook("https://a:99999/", "port");
    check_webhook("https://a/b c", "spaces");
}

#[test]
fn no_duplicate_escapes() {
    let job = "{schedule: '@daily', hosts: '*', run: a}";
    let parsed = parse_jobs("f", &format!("jobs:\n  5: {job}\n  a: {job}\n  a: {job}\n"));
    assert_eq!(parsed.errors.len(), 1, "{:?}", parsed.errors);
    assert_eq!(parsed.errors[0].line, 4);
    let merged = "  b: {<<: *base, user: eve, schedule: '@daily', hosts: '*', run: a}";
    let text = format!("x-base: &base {{user: bob}}\njobs:\n{merged}\n  a: {job}\n  a: {job}\n");
    let parsed = parse_jobs("f", &text);
    assert_eq!(parsed.errors.len(), 1, "{:?}", parsed.errors);
    assert_eq!(parsed.jobs[0].spec.user.as_deref(), Some("eve"));
}

#[test]
fn what_is_too_much_is_refused() {
    assert!(!parse_jobs("f", &"#".repeat(LARGEST_FILE + 1)).readable);
    let many: String = (0..=MOST_JOBS).map(|i| format!("  a{i}: 1\n")).collect();
    let parsed = parse_jobs("f", &format!("jobs:\n{many}"));
    assert!(!parsed.readable && parsed.errors.len() == 1, "{:?}", parsed.errors.first());
    let deep = format!("jobs: {}{}", "[".repeat(1000), "]".repeat(1000));
    assert!(!parse_jobs("f", &deep).readable);
    let line = |i: usize| {
        let again = vec![format!("*a{}", i - 1); 9].join(",");
        format!("x-{i}: &a{i} [{again}]\n")
    };
    let bomb: String = (1..9).map(line).collect();
    assert!(!parse_jobs("f", &format!("x-0: &a0 [x,x,x,x,x,x,x,x,x]\n{bomb}")).readable);
}

#[test]
fn a_name_in_two_files_stays_with_its_owner() {
    let file = |name: &str, run: &str| {
        let text = format!("jobs:\n  a: {{schedule: '@daily', hosts: '*', run: {run}}}\n");
        (name.to_owned(), parse_jobs(name, &text))
    };
    let files = [file("b.yaml", "two"), file("a.yaml", "one")];
    let name: JobName = "a".parse().unwrap();
    let (jobs, errors) = merge(&files, &BTreeMap::new());
    assert_eq!(jobs[&name].0, "a.yaml");
    let said: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "a.yaml:2:3: job a is also at b.yaml:2; this one stays in force",
            "b.yaml:2:3: job a is also at a.yaml:2, which stays in force; rename one",
        ]
    );
    let current = BTreeMap::from([(name.clone(), "b.yaml".to_owned())]);
    assert_eq!(merge(&files, &current).0[&name].0, "b.yaml");
}

/// A quoted text may begin on the line after its quote; an error in it is then shown at the quote.
#[test]
fn an_error_in_a_folded_text_stands_inside_its_line() {
    let text = "jobs:\n  a: {schedule: \"@daily\", run: x, hosts: \"\n  a: {b c\"}\n";
    let parsed = parse_jobs("jobs.yaml", text);
    let error = &parsed.errors[0];
    assert_eq!((error.line, error.column), (2, 42), "{error}");
}

/// Carriage returns alone end lines too: the line shown is the one that is meant.
#[test]
fn the_line_shown_is_the_one_that_is_meant() {
    for end in ["\n", "\r\n", "\r"] {
        let text = ["jobs:", "  a:", "    schdule: x", ""].join(end);
        let parsed = parse_jobs("jobs.yaml", &text);
        let error = parsed.errors.last().unwrap();
        assert_eq!((error.line, error.column), (3, 5), "{end:?}");
        assert_eq!(error.snippet.as_deref(), Some("    schdule: x\n    ^"), "{end:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = parse_jobs("f", &text).readable;
        let _ = parse_jobs("f", &format!("jobs:\n  a:\n    schedule: {text}\n")).readable;
    }

    #[test]
    fn no_yaml_soup_panics(parts in prop::collection::vec(prop::sample::select(vec![
        "jobs:", "\n", "  ", "a:", " ", "- ", "{", "}", "[", "]", "'", "\"", "&x ", "*x", "<<: ", "|", ">", "hosts: ", "run: x", "ü", "?", "!t ", "#", ",",
    ]), 0..30)) {
        for error in parse_jobs("f", &parts.concat()).errors {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
