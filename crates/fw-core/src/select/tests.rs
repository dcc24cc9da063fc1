use proptest::prelude::*;
use serde_json::json;

use super::*;

fn host(name: &str) -> Host {
    let facts = json!({
        "os": "Debian", "cpus": 4, "virtual": false, "roles": ["web", "cache"],
        "ipv6": ["fe80::1", "::1"], "disk": {"sda": {"size": 500}}, "a.b": "dotted",
        "nics": [{"name": "eth0"}, {"name": "eth1"}], "gone": null, "motd": "hi (all)",
    });
    let serde_json::Value::Object(facts) = facts else { panic!("an object") };
    Host {
        id: fw_proto::HostId(uuid::Uuid::nil()),
        name: name.parse().unwrap(),
        labels: [("stage".to_owned(), "canary".to_owned())].into(),
        facts,
    }
}

fn check(selector: &str, expected: bool) {
    let parsed = Selector::parse(selector).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed.matches(host("web1").seen()), expected, "{selector}");
    let again = Selector::parse(&parsed.to_string()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again, parsed, "{selector}");
}

#[test]
fn names_globs_lists_and_regular_expressions() {
    check("*", true);
    check("web1", true);
    check("web", false);
    check("WEB1", false);
    check("web[1-3]", true);
    check("web?", true);
    check("db*,web1", true);
    check("db1,db2", false);
    check(r"~^web\d+$", true);
    check("~eb", true);
    check("~^(web|db)1$", true);
    check("(~^web)", true);
    check(r#"~"^(web|db)\d$""#, true);
    check(r#"~"^web \d$""#, false);
    check(r#"~a\\"b or web1"#, true);
    check("\"web1\"", true);
}

#[test]
fn labels_and_facts() {
    check("label:stage=canary", true);
    check("label:stage=c*", true);
    check("label:stage=", false);
    check("stage:canary", false);
    check("os:Debian", true);
    check("os:debian", false);
    check("fact:os=D*", true);
    check("cpus:4", true);
    check("virtual:false", true);
    check("roles:web", true);
    check("roles:db", false);
    check("ipv6:fe80::1", true);
    check("disk:sda:size:500", true);
    check("fact:disk.sda.size=500", true);
    check("disk:sd*", true);
    check("fact:a.b=dotted", true);
    check("nics:name:eth1", true);
    check("gone:*", false);
    check(r#"motd:"hi (all)""#, true);
    check(r#"label:"stage"=canary"#, true);
}

#[test]
fn networks_and_facts_by_pattern() {
    check("net:fe80::/10", true);
    check("net:::1", true);
    check("net:10.0.0.0/8", false);
    check("fact:os~^Deb", true);
    check("fact:os~^deb", false);
    check("fact:roles~^cac", true);
    check("fact:disk.sda.size~^5", true);
    check("ifact:os:debian", true);
    check("ifact:OS:debian", false);
    check("ifact:roles:WEB", true);
    check("ifact:disk:sda:size:500", true);
    check("ifact:nics:name:eth0", true);
    check("ifact|:ipv6|fe80::1", true);
    check("ifact~os:deb", true);
    check("ifact~os:bian", false);
    check("~^web(?!2)", true);
    check("~^web(?!1)", false);
}

/// Beyond the bound of steps a host is picked neither by the pattern nor by its opposite.
#[test]
fn what_takes_too_many_steps_is_undecided() {
    let name = format!("{}1", "a".repeat(40));
    let host = host(&name);
    let slow = r"~^(a|aa)+\1c";
    for text in [slow.to_owned(), format!("not {slow}"), format!("* and {slow}")] {
        let selector = Selector::parse(&text).unwrap();
        assert_eq!(selector.decide(host.seen()), None, "{text}");
    }
    let either = Selector::parse(&format!("* or {slow}")).unwrap();
    assert_eq!(either.decide(host.seen()), Some(true));
}

#[test]
fn signs_bind_as_usual() {
    check("db1 or web1 and os:Debian", true);
    check("web1 or db1 and os:Arch", true);
    check("(web1 or db1) and os:Arch", false);
    check("not db1 and web1", true);
    check("not not web1", true);
    check("not (web1 or db1)", false);
    check("web* and os:Debian and not label:stage=canary", false);
    check("(web1 and os:Debian) and (web1)", true);
}

#[test]
fn errors_stand_under_the_character() {
    let said = |text: &str| Selector::parse(text).unwrap_err().to_string();
    let all = [
        "",
        "web* os:Debian",
        "web* and",
        "web* and or db*",
        "(web* or db*",
        "web*)",
        "web1, web2",
        "web[1-",
        "stage=canary",
        "label:stage",
        "os: Debian",
        "G@os:Debian",
        "web1 && db1",
        "~^web(",
        "~\"^web",
        "web1,os:Debian",
        "fact:=x",
        "no[3-1]",
    ];
    let all: Vec<_> = all.into_iter().map(said).collect();
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    this selector is empty; write * for all hosts

    ^

    say how this goes with what stands before it: 'and' or 'or'
    web* os:Debian
         ^

    the selector ends where hosts should follow
    web* and
            ^

    hosts should stand before this 'or'
    web* and or db*
             ^

    this '(' is never closed
    (web* or db*
    ^

    this ')' was never opened
    web*)
        ^

    a list has a name on both sides of each ',', and no spaces: web1,web2
    web1, web2
         ^

    this '[' is never closed; write '[[]' for the character itself
    web[1-
       ^

    no host name contains '='; a label is written label:KEY=VALUE
    stage=canary
         ^

    write label:KEY=VALUE
    label:stage
               ^

    a value should follow ':' directly; a glob will do
    os: Debian
       ^

    targets such as G@ are not known here; write os:Debian
    G@os:Debian
     ^

    say how this goes with what stands before it: 'and' or 'or'
    web1 && db1
         ^

    regular expression: unclosed group
    ~^web(
         ^

    this quote is never closed
    ~"^web
     ^

    a list or glob of names cannot hold a fact; join them with 'or'
    web1,os:Debian
        ^

    name the fact before '='
    fact:=x
         ^

    this range ends before it begins
    no[3-1]
       ^
    "#);
}

#[test]
fn what_is_too_much_is_refused() {
    assert!(Selector::parse(&"a".repeat(LONGEST + 1)).is_err());
    assert!(Selector::parse(&format!("{}a{}", "(".repeat(65), ")".repeat(65))).is_err());
    assert!(Selector::parse(&format!("{}a", "not ".repeat(5000))).is_err());
    assert!(Selector::parse("~(a{1000}){1000}").is_err());
    // The compiler of regular expressions goes down a level for each of these; a stack has an end.
    assert!(Selector::parse(&format!("~a{}", "+".repeat(200))).is_err());
    assert!(Selector::parse(&format!("~a{}", "+".repeat(30))).is_ok());
    assert!(Selector::parse("fact:a.b.c.d.e.f.g.h.i=1").is_err());
    let many: Vec<_> = (0..1500).map(|i| format!("web{i}")).collect();
    assert!(Selector::parse(&many.join(",")).unwrap().matches(host("web1499").seen()));
}

#[test]
fn the_chosen_are_sorted_by_name() {
    let hosts = [host("b"), host("c1"), host("a")];
    let chosen = select(&Selector::parse("?").unwrap(), &hosts);
    let names: Vec<_> = chosen.into_iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

/// Expressions that parse.
fn expressions() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "*",
        "web1",
        "web*",
        "db[1-3],web?",
        "~^web",
        "~(web|db)\\d",
        "~\"a b|web\"",
        "os:Debian",
        "os:D*",
        "label:stage=canary",
        "label:stage=x",
        "fact:cpus=4",
        "roles:cache",
        "\"motd:hi (all)\"",
        "disk:sda:size:5*",
        "label:\"a \\\" b\"=1",
        "net:10.0.0.0/8",
        "net:fe80::/10",
        "fact:os~^Deb",
        "ifact:os:debian",
        "ifact~os:^deb",
        "ifact|:disk|sda",
        "~web(?=1)",
    ]);
    words.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} and {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) or {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} and ({b})")),
            inner.clone().prop_map(|a| format!("not ({a})")),
            inner.prop_map(|a| format!("not {a}")),
        ]
    })
}

proptest! {
    #[test]
    fn printed_selectors_parse_to_the_same(text in expressions()) {
        let parsed = Selector::parse(&text).unwrap();
        prop_assert_eq!(Selector::parse(&parsed.to_string()).unwrap(), parsed);
    }

    #[test]
    fn de_morgan_holds(a in expressions(), b in expressions(), name in "(web|db)[0-9]") {
        let host = host(&name);
        let matches = |text: String| Selector::parse(&text).unwrap().matches(host.seen());
        prop_assert_eq!(
            matches(format!("not (({a}) and ({b}))")),
            matches(format!("not ({a}) or not ({b})"))
        );
        prop_assert_eq!(
            matches(format!("not (({a}) or ({b}))")),
            matches(format!("not ({a}) and not ({b})"))
        );
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.offset <= text.chars().count());
            prop_assert!(error.to_string().ends_with('^'));
        }
    }

    #[test]
    fn no_word_soup_panics(words in prop::collection::vec(prop::sample::select(vec![
        "(", ")", "and", "or", "not", "~", "\"", "\\", "label:", "fact:", ":", "=", ",", "[", "]", "web1", "*", " ",
    ]), 0..12)) {
        let text = words.concat();
        match Selector::parse(&text) {
            Err(error) => prop_assert!(error.offset <= text.chars().count()),
            Ok(parsed) => prop_assert_eq!(Selector::parse(&parsed.to_string()).unwrap(), parsed),
        }
    }
}
