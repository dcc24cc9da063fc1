//! Layers, and errors as people read them.

use fw_proto::Span;
use proptest::prelude::*;

use super::keys::{KEYS, Key};
use super::setting::Bytes;
use super::*;

fn map<'a>(pairs: &[(&'a str, &str)]) -> BTreeMap<&'a str, String> {
    pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

pub(super) fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn resolved(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, Error> {
    resolve(&Inputs {
        file: Some((Path::new("fw.toml"), file)),
        credentials: BTreeMap::new(),
        env: &env(variables),
        flags: &map(flags),
        root: true,
    })
}

/// One line per key that is not its default.
fn check(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    match resolved(file, variables, flags) {
        Err(error) => error.to_string(),
        Ok(loaded) => {
            let rows = show::rows(&loaded).into_iter().filter(|row| row.origin != "default");
            let line = |row: show::Row| {
                format!("{} = {} ({})", row.key, row.value.unwrap_or_default(), row.origin)
            };
            rows.map(line).chain(loaded.warnings).collect::<Vec<_>>().join("\n")
        }
    }
}

#[test]
fn later_layers_win_and_every_value_says_where_it_came_from() {
    let file = "[server]\nlisten = \"10.0.0.1:1\"\nbackup_keep = 0x0a\nretention_age = \"90d\"\n";
    insta::assert_snapshot!(check(file, &[], &[]), @r"
    server.listen = 10.0.0.1:1 (file fw.toml:2)
    server.retention_age = 90d (file fw.toml:4)
    server.backup_keep = 10 (file fw.toml:3)
    ");
    let variables = [("FLEETWRIGHT_LISTEN", "10.0.0.2:2"), ("FLEETWRIGHT_BACKUP_KEEP", "3")];
    insta::assert_snapshot!(check(file, &variables, &[("server.listen", "10.0.0.3:3")]), @r"
    server.listen = 10.0.0.3:3 (flag --listen)
    server.retention_age = 90d (file fw.toml:4)
    server.backup_keep = 3 (env FLEETWRIGHT_BACKUP_KEEP)
    ");
}

#[test]
fn every_type_is_read_from_each_layer() {
    let file = "\
[log]
filter = \"info,fw_server=debug\"
format = \"json\"
[server]
insecure_http = true
trusted_proxy = [\"10.0.0.0/8\", \"::1\"]
retention_size = 5_000_000_000
backup_every = 0
public_url = \"https://fleet.example.com\"
[agent]
spool_bytes = \"1 GiB\"
";
    insta::assert_snapshot!(check(file, &[], &[]), @r"
    log.filter = info,fw_server=debug (file fw.toml:2)
    log.format = json (file fw.toml:3)
    server.public_url = https://fleet.example.com/ (file fw.toml:9)
    server.trusted_proxy = 10.0.0.0/8, ::1/128 (file fw.toml:6)
    server.insecure_http = true (file fw.toml:5)
    server.retention_size = 5 GB (file fw.toml:7)
    server.backup_every = 0 (file fw.toml:8)
    agent.spool_bytes = 1 GiB (file fw.toml:11)
    ");
    let variables = [
        ("FLEETWRIGHT_LOG", "warn"),
        ("FLEETWRIGHT_LOG_FORMAT", "text"),
        ("FLEETWRIGHT_INSECURE_HTTP", "no"),
        ("FLEETWRIGHT_TRUSTED_PROXY", "192.168.0.0/16, 10.1.1.1"),
        ("FLEETWRIGHT_AGENT_STATE_DIR", "/state"),
    ];
    let loaded = resolved(file, &variables, &[]).unwrap();
    assert_eq!(loaded.config.log.filter.as_str(), "warn");
    assert_eq!(loaded.config.log.format, LogFormat::Text);
    insta::assert_snapshot!(check(file, &variables, &[]), @r"
    log.filter = warn (env FLEETWRIGHT_LOG)
    log.format = text (env FLEETWRIGHT_LOG_FORMAT)
    server.public_url = https://fleet.example.com/ (file fw.toml:9)
    server.trusted_proxy = 192.168.0.0/16, 10.1.1.1/32 (env FLEETWRIGHT_TRUSTED_PROXY)
    server.insecure_http = false (env FLEETWRIGHT_INSECURE_HTTP)
    server.retention_size = 5 GB (file fw.toml:7)
    server.backup_every = 0 (file fw.toml:8)
    agent.state_dir = /state (env FLEETWRIGHT_AGENT_STATE_DIR)
    agent.spool_bytes = 1 GiB (file fw.toml:11)
    ");
}

#[test]
fn a_wrong_file_is_answered_with_the_place_and_what_to_do() {
    let file = "\
[server]
lisen = \"127.0.0.1:7400\"
backup_keep = true
insecure_http = \"yes\"
listen = \"localhost\"
trusted_proxy = [\"10.0.0.0/99\"]
tls_key_file = \"x\"
[sever]
[agent]
max_tasks = -3
listen = \"127.0.0.1:7400\"
spool_bytes = 1.5
";
    insta::assert_snapshot!(check(file, &[], &[]), @r#"
    fw.toml:2:1: unknown key `server.lisen`; did you mean `server.listen`?
      lisen = "127.0.0.1:7400"
      ^
    fw.toml:3:15: `server.backup_keep` takes a number or a string, not true or false
      backup_keep = true
                    ^
    fw.toml:4:17: `server.insecure_http` takes true or false, not a string
      insecure_http = "yes"
                      ^
    fw.toml:5: `server.listen`: "localhost" is not an address and port such as 127.0.0.1:7400 or [::]:7400
    fw.toml:6: `server.trusted_proxy`: "10.0.0.0/99" is not a network such as 10.0.0.0/8
    fw.toml:7:1: unknown key `server.tls_key_file`
      tls_key_file = "x"
      ^
    fw.toml:8:2: unknown key `sever`; did you mean `server`?
      [sever]
       ^
    fw.toml:10: `agent.max_tasks`: "-3" is not a whole number from 1 to 4294967295
    fw.toml:11:1: unknown key `agent.listen`; did you mean `server.listen`?
      listen = "127.0.0.1:7400"
      ^
    fw.toml:12:15: `agent.spool_bytes` takes a number or a string, not a fraction
      spool_bytes = 1.5
                    ^
    "#);
    let dialect = "[dialects]\nsaltpeter = 1\n[dialects.saltpetre]\n";
    insta::assert_snapshot!(check(dialect, &[], &[]), @r#"
    fw.toml:2:13: `dialects.saltpeter` takes a table, not a number
      saltpeter = 1
                  ^
    fw.toml:3:11: unknown key `dialects.saltpetre`; did you mean `dialects.saltpeter`?
      [dialects.saltpetre]
                ^
    "#);
    let dialect = "[dialects.saltpeter]\ndir = '/etc/saltpeter'\ndispatch = 'ssh'\n";
    insta::assert_snapshot!(check(dialect, &[], &[]), @r#"
    fw.toml:3: `dialects.saltpeter.dispatch`: "ssh" is neither "agent" nor "salt"
    "#);
    insta::assert_snapshot!(check("listen = 1\n", &[], &[]), @r"
    fw.toml:1:1: unknown key `listen`; did you mean `server.listen`?
      listen = 1
      ^
    ");
    insta::assert_snapshot!(check("server = 3\n", &[], &[]), @r"
    fw.toml:1:10: `server` takes a table, not a number
      server = 3
               ^
    ");
    insta::assert_snapshot!(check("[server]\n\tlisten = = 1\n", &[], &[]), @r"
    fw.toml:2:11: extra `=`, expected nothing
      	listen = = 1
      	         ^
    ");
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    let variables =
        [("FLEETWRIGHT_LISTEN", "here"), ("FLEETWRIGHT_TOKEN", "t"), ("FLEETWRIGHT_LISTN", "x")];
    insta::assert_snapshot!(check("", &variables, &[("agent.max_tasks", "many")]), @r#"
    env FLEETWRIGHT_LISTEN: `server.listen`: "here" is not an address and port such as 127.0.0.1:7400 or [::]:7400
    flag --max-tasks: `agent.max_tasks`: "many" is not a whole number from 1 to 4294967295
    "#);
    insta::assert_snapshot!(check("", &[("FLEETWRIGHT_LISTN", "x"), ("FLEETWRIGHT_TOKEN", "t")], &[]), @"environment variable FLEETWRIGHT_LISTN means nothing here; did you mean FLEETWRIGHT_LISTEN?");
}

#[test]
fn secrets_come_from_files_too_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("token");
    std::fs::write(&secret, "t0psecret\n").unwrap();
    let variables = env(&[("FLEETWRIGHT_ADMIN_TOKEN_FILE", secret.to_str().unwrap())]);
    let loaded = Config::load(None, &variables, &map(&[("agent.join", "fw1.hidden")])).unwrap();
    assert_eq!(loaded.config.server.admin_token, Some(Secret("t0psecret".into())));
    let shown = show(&loaded) + &format!("{loaded:?}");
    assert!(!shown.contains("t0psecret") && !shown.contains("fw1.hidden"), "{shown}");
    assert!(shown.contains(&format!(
        "file {}, named by env FLEETWRIGHT_ADMIN_TOKEN_FILE",
        secret.display()
    )));

    std::fs::write(&secret, " \n").unwrap();
    let empty = Config::load(None, &variables, &Flags::new()).unwrap_err().to_string();
    assert!(empty.ends_with("`server.admin_token`: an empty secret"), "{empty}");
    std::fs::remove_file(&secret).unwrap();
    let gone = Config::load(None, &variables, &Flags::new()).unwrap_err().to_string();
    assert_eq!(gone, format!("read {}: No such file or directory (os error 2)", secret.display()));
}

#[test]
fn a_secret_is_given_once_a_layer_and_a_later_layer_replaces_its_file() {
    let file = "[server]\nadmin_token = \"a\"\nadmin_token_file = \"b\"\n";
    insta::assert_snapshot!(check(file, &[], &[]), @"fw.toml:3: `server.admin_token` and `server.admin_token_file` are both set; keep one of them");
    let file = "[server]\nadmin_token_file = \"/does/not/exist\"\n";
    let loaded = resolved(file, &[("FLEETWRIGHT_ADMIN_TOKEN", "a")], &[]).unwrap();
    let loaded = loaded.read_secrets(|path| {
        Err(Problem::Unreadable { path: path.into(), why: "gone".to_owned() })
    });
    assert_eq!(loaded.unwrap().config.server.admin_token, Some(Secret("a".into())));
}

#[test]
fn credentials_of_the_service_manager_lie_between_file_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("server.tls_key", "pem"), ("agent.join", "fw1.x"), ("unrelated", "")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let file = dir.path().join("fw.toml");
    std::fs::write(&file, "[server]\ntls_cert = \"/c\"\ntls_key = \"/k\"\n").unwrap();
    let variables = env(&[("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())]);
    let loaded = Config::load(Some(&file), &variables, &Flags::new()).unwrap();
    assert_eq!(loaded.config.server.tls_key, Some(dir.path().join("server.tls_key")));
    assert_eq!(loaded.config.agent.join, Some(Secret("fw1.x".into())));
    assert_eq!(loaded.origin("server.tls_cert"), &Origin::File(file, 2));
}

#[test]
fn tokens_do_not_cross_a_network_in_the_clear_unless_someone_says_so() {
    let start = |text: &str| match resolved(&format!("[server]\n{text}"), &[], &[]) {
        Ok(loaded) => {
            types::ServerConfig::check(&loaded.config.server).err().map(|error| error.to_string())
        }
        Err(error) => Some(error.to_string()),
    };
    let exposed = "listen = \"0.0.0.0:7400\"\n";
    for fine in [
        "listen = \"127.0.0.1:1\"",
        "listen = \"[::1]:1\"",
        "listen = \"[::ffff:127.0.0.1]:1\"",
        &format!("{exposed}tls_cert = \"c\"\ntls_key = \"k\""),
        &format!("{exposed}trusted_proxy = [\"10.0.0.1\"]"),
        &format!("{exposed}insecure_http = true"),
    ] {
        assert_eq!(start(fine), None, "{fine}");
    }
    for open in ["listen = \"0.0.0.0:1\"", "listen = \"[::]:1\"", "listen = \"192.168.1.5:1\""] {
        assert!(start(open).unwrap().contains("--insecure-http"), "{open}");
    }
    insta::assert_snapshot!(start(exposed).unwrap(), @"server.listen: 0.0.0.0:7400 can be reached by others, and tokens would cross the network in the clear; set server.tls_cert and server.tls_key, or server.trusted_proxy when a proxy ends TLS, or listen on 127.0.0.1, or accept it with --insecure-http");
    insta::assert_snapshot!(start("tls_cert = \"c\"\nbackup_keep = 0").unwrap(), @r"
    server.tls_cert and server.tls_key belong together; set server.tls_key too
    server.backup_keep is 0; keep at least 1, or set server.backup_every to 0 to make none
    ");
}

#[test]
fn the_agents_state_is_where_its_user_can_write() {
    let state = |root, variables: &[(&str, &str)]| {
        let (env, flags) = (env(variables), Flags::new());
        let inputs =
            Inputs { file: None, credentials: BTreeMap::new(), env: &env, flags: &flags, root };
        let agent: AgentConfig = resolve(&inputs).unwrap().config.agent;
        agent.state_dir
    };
    assert_eq!(state(true, &[("HOME", "/root")]), Path::new("/var/lib/fleetwright-agent"));
    assert_eq!(
        state(false, &[("HOME", "/home/a")]),
        Path::new("/home/a/.local/state/fleetwright/agent")
    );
    assert_eq!(state(false, &[]), Path::new("/var/lib/fleetwright-agent"));
}

#[test]
fn show_prints_every_key() {
    insta::assert_snapshot!(show(&resolved("", &[], &[("server.admin_token", "x")]).unwrap()), @r"
    log.filter                      info                          default
    log.format                      text                          default
    server.data_dir                 ./fleetwright-data            default
    server.listen                   127.0.0.1:7400                default
    server.public_url               -                             default
    server.jobs                     -                             default
    server.tls_cert                 -                             default
    server.tls_key                  -                             default
    server.trusted_proxy            -                             default
    server.insecure_http            false                         default
    server.admin_token              ***                           flag --admin-token-file
    server.retention_age            30d                           default
    server.retention_size           20 GB                         default
    server.backup_dir               -                             default
    server.backup_every             1d                            default
    server.backup_keep              7                             default
    server.lost_after               10m                           default
    server.reconnect_grace          30s                           default
    server.ping_every               15s                           default
    server.max_agents               25000                         default
    server.handshake_rate           500                           default
    server.session_idle             8h                            default
    server.session_life             7d                            default
    server.proof_life               5m                            default
    server.dangerous_hosts          10                            default
    agent.state_dir                 /var/lib/fleetwright-agent    default
    agent.facts_dir                 /etc/fleetwright/facts.d      default
    agent.policy                    /etc/fleetwright/policy.toml  default
    agent.join                      -                             default
    agent.max_tasks                 64                            default
    agent.spool_bytes               64 MiB                        default
    agent.proxy                     -                             default
    dialects.saltpeter.dir          -                             default
    dialects.saltpeter.shadow       false                         default
    dialects.saltpeter.dispatch     agent                         default
    dialects.saltpeter.salt         salt                          default
    dialects.saltpeter.api          -                             default
    dialects.saltpeter.machines     -                             default
    dialects.saltpeter.token        -                             default
    dialects.saltpeter.key          -                             default
    dialects.saltpeter.queue_bytes  1 GiB                         default
    ");
}

#[test]
fn a_file_is_named_by_flag_then_environment() {
    let variables = env(&[("FLEETWRIGHT_CONFIG", "/b")]);
    assert_eq!(find(Some(Path::new("/a")), &variables), Some(PathBuf::from("/a")));
    assert_eq!(find(None, &variables), Some(PathBuf::from("/b")));
    assert!(environment().contains_key("PATH"), "tests have a PATH");
}

/// The table of `docs/configuration.md`, from [`KEYS`].
fn documented() -> String {
    let defaults = Config::defaults(true, None);
    let row = |key: &Key| {
        let default = (key.get)(&defaults).map(|value| format!("`{value}`")).unwrap_or_default();
        let secret = if key.secret { " Secret." } else { "" };
        format!(
            "| `{}` | {default} | `{}` | `{}` | {}{secret} |\n",
            key.name,
            key.variable(),
            key.flag(),
            key.doc
        )
    };
    KEYS.iter().map(row).collect()
}

#[test]
fn the_guide_has_the_table_of_keys() {
    let guide = include_str!("../../../../docs/configuration.md");
    assert!(
        guide.contains(&documented()),
        "put this table into docs/configuration.md:\n{}",
        documented()
    );
}

#[test]
fn bounds_that_let_nothing_through_are_refused() {
    let file = "[server]\nping_every = 0\nmax_agents = 0\nhandshake_rate = 0\n[agent]\nmax_tasks = 0\nspool_bytes = \"1 KiB\"\n";
    insta::assert_snapshot!(check(file, &[], &[]), @r#"
    fw.toml:2: `server.ping_every`: 0s is not between 1s and 10m
    fw.toml:3: `server.max_agents`: "0" is not a whole number from 1 to 4294967295
    fw.toml:4: `server.handshake_rate`: "0" is not a whole number from 1 to 4294967295
    fw.toml:6: `agent.max_tasks`: "0" is not a whole number from 1 to 4294967295
    fw.toml:7: `agent.spool_bytes`: 1 KiB is too little for any output; give 64 KiB or more
    "#);
}

#[test]
fn a_service_does_the_same_in_another_directory() {
    let flags = map(&[
        ("agent.join_file", "join"),
        ("agent.facts_dir", "facts"),
        ("agent.max_tasks", "3"),
        ("log.filter", "info"),
        ("server.insecure_http", "true"),
        ("server.tls_cert", "/etc/cert.pem"),
    ]);
    let words = service_arguments(&["agent", "run"], Some(Path::new("fw.toml")), &flags).unwrap();
    let here = std::env::current_dir().unwrap().display().to_string();
    insta::assert_snapshot!(words.join(" ").replace(&here, "/here"), @"agent run --config /here/fw.toml --facts-dir /here/facts --join-file /here/join --max-tasks 3 --log info --insecure-http --tls-cert /etc/cert.pem");
}

#[test]
fn a_service_looks_for_salt_where_its_installer_would_have() {
    let here = std::env::current_dir().unwrap().display().to_string();
    let check = |salt: &str| {
        let flags = map(&[("dialects.saltpeter.salt", salt)]);
        let words = service_arguments(&["serve"], None, &flags).unwrap();
        words.join(" ").replace(&here, "/here")
    };
    // A name alone is looked for in `PATH`, and is no file of this directory.
    insta::assert_snapshot!(check("salt"), @"serve --saltpeter-salt salt");
    insta::assert_snapshot!(check("./salt"), @"serve --saltpeter-salt /here/salt");
    insta::assert_snapshot!(check("bin/salt"), @"serve --saltpeter-salt /here/bin/salt");
    insta::assert_snapshot!(check("/opt/salt/bin/salt"), @"serve --saltpeter-salt /opt/salt/bin/salt");
}

#[test]
fn a_host_that_has_joined_needs_no_join_file() {
    let dir = tempfile::tempdir().unwrap();
    let (state, join) = (dir.path().display().to_string(), dir.path().join("join"));
    let join = join.display().to_string();
    let flags = map(&[("agent.state_dir", &state), ("agent.join_file", &join)]);
    let load = || Config::load(None, &env(&[]), &flags);
    assert!(load().unwrap_err().to_string().contains(&join));
    let identity = fw_agent::identity::Identity {
        server: "http://x".to_owned(),
        server_keys: Vec::new(),
        host: fw_proto::HostId(uuid::Uuid::nil()),
        name: "web1".parse().unwrap(),
    };
    let state_dir = fw_agent::identity::StateDir::open(dir.path()).unwrap();
    state_dir.set_identity(&identity).unwrap();
    assert_eq!(load().unwrap().config.agent.join, None);
}

#[test]
fn no_two_keys_share_a_variable() {
    let names: std::collections::BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
    assert_eq!(names.len(), KEYS.len());
}

proptest! {
    #[test]
    fn any_file_is_read_without_panic(text in "[\\[\\]a-z_=\"\n\t0-9.{},é#-]{0,200}") {
        drop(resolved(&text, &[], &[]));
    }

    #[test]
    fn sizes_survive_their_text(bytes in any::<u64>()) {
        prop_assert_eq!(Bytes(bytes).to_string().parse::<Bytes>(), Ok(Bytes(bytes)));
    }

    #[test]
    fn what_is_shown_can_be_set_again(index in 0..KEYS.len(), number in 1..1_000_000_u64) {
        let key = &KEYS[index];
        let mut config = Config::defaults(true, None);
        config.server.retention_age = Span::from_secs(number);
        config.server.retention_size = Bytes(number);
        if let Some(shown) = (key.get)(&config).filter(|_| !key.secret) {
            let mut again = config.clone();
            (key.set)(&mut again, &shown).unwrap();
            prop_assert_eq!(again, config);
        }
    }
}
