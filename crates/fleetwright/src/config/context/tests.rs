//! Contexts: what decides on server and token, and how they are kept.

use super::super::tests::env;
use super::*;

fn contexts() -> Contexts {
    let mut contexts = Contexts::default();
    let prod = Context {
        server: "https://prod.example".into(),
        token: Some("p".into()),
        token_file: None,
        session: None,
        ca_file: Some("/ca.pem".into()),
    };
    contexts.add("prod", prod);
    let lab = Context {
        server: "http://lab:7400".into(),
        token: None,
        token_file: Some("/t".into()),
        session: None,
        ca_file: None,
    };
    contexts.add("lab", lab);
    contexts
}

/// Server, token and what named them, for flags `--server --token --token-file --context`.
fn check_target(flags: [&str; 4], variables: &[(&str, &str)], contexts: &Contexts) -> String {
    let given = |at: usize| Some(flags[at].to_owned()).filter(|flag| !flag.is_empty());
    let flags = TargetFlags {
        server: given(0),
        token: given(1).map(Secret),
        token_file: given(2).map(PathBuf::from),
        context: given(3),
    };
    match target(&flags, &env(variables), || Ok(contexts.clone())) {
        Err(error) => error.to_string(),
        Ok(target) => {
            let token = match target.token {
                TokenSource::Given(Secret(token)) => token,
                TokenSource::File(path) => format!("in {}", path.display()),
                TokenSource::FileIfReadable(path) => format!("perhaps in {}", path.display()),
                TokenSource::Session(_) => "of a session".to_owned(),
                TokenSource::None => "none".to_owned(),
            };
            format!("{} token {token} ({})", target.server, target.named_by)
        }
    }
}

#[test]
fn flags_then_environment_then_context_then_this_machine() {
    let none = Contexts::default();
    let vars = [("FLEETWRIGHT_SERVER", "http://e"), ("FLEETWRIGHT_TOKEN", "et")];
    let check = check_target;
    insta::assert_snapshot!(check(["", "", "", ""], &[], &none), @"http://127.0.0.1:7400/ token perhaps in ./fleetwright-data/admin.token (the default, a server of this machine)");
    insta::assert_snapshot!(check(["", "", "", ""], &[], &contexts()), @"https://prod.example/ token p (context prod)");
    insta::assert_snapshot!(check(["", "", "", "lab"], &[], &contexts()), @"http://lab:7400/ token in /t (context lab)");
    insta::assert_snapshot!(check(["", "", "", ""], &vars, &contexts()), @"http://e/ token et (FLEETWRIGHT_SERVER)");
    insta::assert_snapshot!(check(["http://f", "ft", "", ""], &vars, &contexts()), @"http://f/ token ft (--server)");
    insta::assert_snapshot!(check(["", "", "/ff", ""], &vars, &contexts()), @"http://e/ token in /ff (FLEETWRIGHT_SERVER)");
    insta::assert_snapshot!(check(["", "", "", "nope"], &[], &contexts()), @r#"there is no context "nope"; known: lab, prod; add one with `fleetwright context add`"#);
    insta::assert_snapshot!(check(["", "a", "b", ""], &[], &none), @"--token and --token-file are both given; keep one of them");
    insta::assert_snapshot!(check(["ftp://x", "", "", ""], &[], &none), @r#"--server: "ftp://x" is not a URL such as https://fleet.example.com"#);
}

#[test]
fn contexts_are_read_only_when_they_decide() {
    let broken = || Err(Error::Readable { path: "/c".into() });
    let named = TargetFlags { server: Some("http://f".to_owned()), ..TargetFlags::default() };
    let by_flag = target(&named, &env(&[]), broken).unwrap();
    let variables = env(&[("FLEETWRIGHT_SERVER", "http://e")]);
    let by_variable = target(&TargetFlags::default(), &variables, broken).unwrap();
    assert_eq!((by_flag.ca_file, by_variable.ca_file), (None, None));
    assert!(target(&TargetFlags::default(), &env(&[]), broken).is_err());
    let by_context = target(&TargetFlags::default(), &env(&[]), || Ok(contexts())).unwrap();
    assert_eq!(by_context.ca_file, Some("/ca.pem".into()));
}

#[test]
fn what_is_no_token_is_refused_before_it_is_sent() {
    let say = |text: &str| match TokenSource::Given(Secret(text.to_owned())).read() {
        Ok(token) => token.map(|token| token.0).unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    assert_eq!(say("fw_abc\n"), "fw_abc");
    insta::assert_snapshot!([say(" "), say("a\nb"), say("a b")].join("\n"), @r"
    the token that is given is empty; leave it out, or give the whole token
    the token that is given has several lines; a token is one line
    the token that is given has characters that no token has
    ");
}

#[test]
fn a_contexts_token_goes_to_no_other_server() {
    for (flags, variables) in [
        (["http://evil", "", "", ""], &[][..]),
        (["", "", "", ""], &[("FLEETWRIGHT_SERVER", "http://evil")][..]),
    ] {
        let answer = check_target(flags, variables, &contexts());
        assert!(answer.starts_with("http://evil/ token none"), "{answer}");
    }
}

#[test]
fn contexts_are_kept_private_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = super::path(&env(&[("XDG_CONFIG_HOME", dir.path().to_str().unwrap())])).unwrap();
    assert_eq!(Contexts::load(&path).unwrap(), Contexts::default());
    let mut all = contexts();
    all.choose("lab").unwrap();
    all.save(&path).unwrap();
    assert_eq!(Contexts::load(&path).unwrap(), all);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "nothing is left beside it"
    );

    all.remove("lab").unwrap();
    assert_eq!(all.current, None);
    assert!(all.remove("lab").is_err() && all.choose("lab").is_err());
    assert!(!format!("{all:?}").contains("\"p\""));

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Contexts::load(&path).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[test]
fn a_token_file_must_be_there_only_when_it_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    assert_eq!(TokenSource::FileIfReadable(path.clone()).read().unwrap(), None);
    assert!(TokenSource::File(path.clone()).read().is_err());
    std::fs::write(&path, "abc\n").unwrap();
    assert_eq!(TokenSource::File(path.clone()).read().unwrap(), Some(Secret("abc".into())));
    std::fs::write(&path, "\n").unwrap();
    assert!(TokenSource::FileIfReadable(path).read().unwrap_err().to_string().contains("is empty"));
}
