//! Units as they are written, and whether systemd takes them.

use super::*;

fn options(profile: Profile) -> UnitOptions {
    let args = ["agent", "run", "--state-dir", AGENT_STATE].map(str::to_owned).to_vec();
    UnitOptions { binary: "/usr/local/bin/fleetwright".into(), args, profile }
}

fn server() -> ServerOptions {
    let args = ["serve", "--data-dir", SERVER_DATA].map(str::to_owned).to_vec();
    ServerOptions { binary: "/usr/local/bin/fleetwright".into(), args }
}

#[test]
fn the_operator_unit() {
    insta::assert_snapshot!(Plan::install_agent(Some(Init::Systemd), &options(Profile::Operator)).unwrap(), @r"
    write /etc/systemd/system/fleetwright-agent.service:

    [Unit]
    Description=Fleetwright agent
    Wants=network-online.target
    After=network-online.target

    [Service]
    Type=exec
    ExecStart=/usr/local/bin/fleetwright agent run --state-dir /var/lib/fleetwright-agent
    Restart=always
    RestartSec=2
    StateDirectory=fleetwright-agent
    StateDirectoryMode=0700
    Delegate=yes
    KillMode=process
    OOMPolicy=continue
    TasksMax=infinity
    # Runs commands as any user: this unit is root and is meant to be, and what it limited would
    # limit every command.

    [Install]
    WantedBy=multi-user.target

    run systemctl daemon-reload
    run systemctl enable --now fleetwright-agent
    ");
}

#[test]
fn one_that_observes_has_a_policy_that_says_so() {
    let plan = Plan::install_agent(Some(Init::Systemd), &options(Profile::Observe)).unwrap();
    let shown = plan.to_string();
    let (policy, unit) = shown.split_at(shown.find("write /etc/systemd").unwrap());
    insta::assert_snapshot!(policy, @r#"
    write /etc/fleetwright/observe.toml:

    # Written by `fleetwright agent install --observe`: report, start nothing.
    mode = "observe"
    "#);
    assert!(unit.contains("DynamicUser=yes"));
    let Some(Step::Policy(_, text)) = plan.0.first() else { panic!("{plan}") };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etc/observe.toml");
    for _ in 0..2 {
        Step::Policy(path.clone(), text.clone()).perform().unwrap();
    }
    let loaded = crate::policy::load(Some(&path));
    assert_eq!((loaded.describe().as_str(), loaded.problem), ("observe", None));
    std::fs::write(&path, "mode = \"operate\"").unwrap();
    let refused = Step::Policy(path.clone(), text.clone()).perform();
    assert!(matches!(refused, Err(Error::PolicyThere(_))), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mode = \"operate\"");
}

#[test]
fn what_uninstalling_does() {
    insta::assert_snapshot!(Plan::uninstall(Some(Init::Systemd), Service::Agent).unwrap(), @r"
    run systemctl disable --now fleetwright-agent
    remove /etc/systemd/system/fleetwright-agent.service
    run systemctl daemon-reload
    ");
}

#[test]
fn the_property_list() {
    let mut options = options(Profile::Operator);
    options.args.push("a<b>&c".to_owned());
    insta::assert_snapshot!(agent_plist(&options), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
    <plist version="1.0">
    <dict>
      <key>Label</key>
      <string>org.fleetwright.agent</string>
      <key>ProgramArguments</key>
      <array>
        <string>/usr/local/bin/fleetwright</string>
        <string>agent</string>
        <string>run</string>
        <string>--state-dir</string>
        <string>/var/lib/fleetwright-agent</string>
        <string>a&lt;b&gt;&amp;c</string>
      </array>
      <key>RunAtLoad</key>
      <true/>
      <key>KeepAlive</key>
      <true/>
      <key>AbandonProcessGroup</key>
      <true/>
      <key>StandardErrorPath</key>
      <string>/var/log/fleetwright-agent.log</string>
    </dict>
    </plist>
    "#);
}

#[test]
fn where_it_cannot_be_installed_it_says_what_to_do() {
    let mut home = options(Profile::Observe);
    home.binary = "/home/me/fleetwright".into();
    home.args.push("it's".to_owned());
    let say = |plan: Result<Plan, Error>| plan.unwrap_err().to_string();
    insta::assert_snapshot!([
        say(Plan::install_agent(None, &home)),
        say(Plan::install_agent(Some(Init::Systemd), &home)),
        say(Plan::install_server(Some(Init::Launchd), &server())),
    ].join("\n"), @r"
    neither systemd nor launchd runs here; start it by your own means: /home/me/fleetwright agent run --state-dir /var/lib/fleetwright-agent 'it'\''s'
    /home/me/fleetwright is in a home directory, where the service cannot read it; copy it to /usr/local/bin and run it from there
    the server cannot be installed as a launchd service; start it with: /usr/local/bin/fleetwright serve --data-dir /var/lib/fleetwright
    ");
}

#[test]
fn words_reach_the_command_as_they_are() {
    let args = ["50%", "$HOME", "a b", "say \"x\"", ""].map(str::to_owned);
    assert_eq!(
        exec_start(Path::new("/bin/x"), &args),
        r#"/bin/x 50%% $$HOME "a b" "say \"x\"" """#
    );
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let dir = tempfile::tempdir().unwrap();
    // An executable that is there, since that is checked too.
    let binary = PathBuf::from("/bin/true");
    let agent = |profile| agent_unit(&UnitOptions { binary: binary.clone(), ..options(profile) });
    let units = [
        ("operator", agent(Profile::Operator)),
        ("observe", agent(Profile::Observe)),
        ("server", server_unit(&ServerOptions { binary: binary.clone(), ..server() })),
    ];
    for (name, unit) in units {
        let path = dir.path().join(format!("fw-{name}.service"));
        std::fs::write(&path, unit).unwrap();
        let Ok(verify) =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output()
        else {
            return;
        };
        let said = String::from_utf8_lossy(&verify.stderr);
        let about_us: Vec<&str> =
            said.lines().filter(|line| line.contains(&format!("fw-{name}"))).collect();
        assert!(about_us.is_empty(), "{said}");
    }
}
