//! Makes agent and server services of the system: a systemd unit, or a launchd plist.
//!
//! A [`Plan`] says all that will be done and does it only when told to, so that `--dry-run`
//! shows exactly what would happen. The texts are made by pure functions.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the agent may do on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Runs commands as any user, hence as root and hardly confined.
    Operator,
    /// Reports only: a user of its own, and nothing it could change.
    Observe,
}

/// How an agent is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitOptions {
    /// The binary, by its absolute path.
    pub binary: PathBuf,
    /// Its arguments, such as `agent run --state-dir /var/lib/fleetwright-agent`.
    pub args: Vec<String>,
    /// What it may do.
    pub profile: Profile,
}

/// How a server is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// The binary, by its absolute path.
    pub binary: PathBuf,
    /// Its arguments; the data directory is to be [`SERVER_DATA`].
    pub args: Vec<String>,
}

/// The agent's state when it is a service.
pub const AGENT_STATE: &str = "/var/lib/fleetwright-agent";

/// The policy of an agent that only observes; apart from the host's usual one, which is left as it is.
pub const OBSERVE_POLICY: &str = "/etc/fleetwright/observe.toml";

/// What it says.
const OBSERVE_POLICY_TEXT: &str = "# Written by `fleetwright agent install --observe`: report, start nothing.\nmode = \"observe\"\n";

/// The server's data when it is a service.
pub const SERVER_DATA: &str = "/var/lib/fleetwright";

/// A service that can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The agent.
    Agent,
    /// The server.
    Server,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "fleetwright-agent",
            Self::Server => "fleetwright",
        }
    }
}

/// What starts services on a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// `systemd(1)`.
    Systemd,
    /// `launchd(8)`.
    Launchd,
}

/// What runs here; `None` when it is neither.
#[must_use]
pub fn init() -> Option<Init> {
    if cfg!(target_os = "macos") {
        return Some(Init::Launchd);
    }
    // The test that sd_booted(3) makes.
    Path::new("/run/systemd/system").is_dir().then_some(Init::Systemd)
}

/// Why a service cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither systemd nor launchd.
    #[error("neither systemd nor launchd runs here; start it by your own means: {command}")]
    NoInit {
        /// What to start.
        command: String,
    },
    /// The unit cannot start a binary from there.
    #[error("{} is in a home directory, where the service cannot read it; copy it to /usr/local/bin and run it from there", .0.display())]
    Unreachable(PathBuf),
    /// Launchd starts agents only.
    #[error("the server cannot be installed as a launchd service; start it with: {command}")]
    NoServer {
        /// What to start.
        command: String,
    },
    /// Not root.
    #[error(
        "installing a service takes root; run it with sudo, or see what it does with --dry-run"
    )]
    NotRoot,
    /// A file cannot be written or removed.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A policy is there that this program did not write.
    #[error(
        "{} is there and says something else; move it away, or install without --observe and with --policy", .0.display()
    )]
    PolicyThere(PathBuf),
    /// A command of the system went wrong.
    #[error("`{command}`: {message}")]
    Command {
        /// Which.
        command: String,
        /// What it said.
        message: String,
    },
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write this file.
    Write(PathBuf, String),
    /// Write this file, readable by all, unless it says the same already. One that says something
    /// else is somebody's and stays.
    Policy(PathBuf, String),
    /// Remove this file, if it is there.
    Remove(PathBuf),
    /// Run this.
    Run(Vec<String>),
    /// Run this, and go on when it fails: the service may not be there.
    Try(Vec<String>),
}

/// All that is done to install or remove a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<Step>);

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match step {
                Step::Write(path, text) | Step::Policy(path, text) => {
                    write!(f, "write {}:\n\n{text}\n", path.display())?;
                }
                Step::Remove(path) => writeln!(f, "remove {}", path.display())?,
                Step::Run(command) | Step::Try(command) => {
                    writeln!(f, "run {}", command.join(" "))?;
                }
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The plan to install an agent. One that only observes gets [`OBSERVE_POLICY`]; its
    /// arguments are to name that.
    ///
    /// # Errors
    /// It cannot be installed here.
    pub fn install_agent(init: Option<Init>, options: &UnitOptions) -> Result<Self, Error> {
        let mut plan = Self::agent_service(init, options)?;
        if options.profile == Profile::Observe {
            let policy = Step::Policy(OBSERVE_POLICY.into(), OBSERVE_POLICY_TEXT.to_owned());
            plan.0.insert(0, policy);
        }
        Ok(plan)
    }

    fn agent_service(init: Option<Init>, options: &UnitOptions) -> Result<Self, Error> {
        match init {
            Some(Init::Systemd) => {
                if options.profile == Profile::Observe {
                    reachable(&options.binary)?;
                }
                Ok(Self::systemd(Service::Agent, agent_unit(options)))
            }
            Some(Init::Launchd) => {
                let path = launchd_path();
                let load = ["launchctl", "bootstrap", "system", &path.display().to_string()]
                    .map(str::to_owned);
                Ok(Self(vec![Step::Write(path, agent_plist(options)), Step::Run(load.to_vec())]))
            }
            None => Err(Error::NoInit { command: command_line(&options.binary, &options.args) }),
        }
    }

    /// The plan to install a server.
    ///
    /// # Errors
    /// It cannot be installed here.
    pub fn install_server(init: Option<Init>, options: &ServerOptions) -> Result<Self, Error> {
        let command = || command_line(&options.binary, &options.args);
        match init {
            Some(Init::Systemd) => {
                reachable(&options.binary)?;
                Ok(Self::systemd(Service::Server, server_unit(options)))
            }
            Some(Init::Launchd) => Err(Error::NoServer { command: command() }),
            None => Err(Error::NoInit { command: command() }),
        }
    }

    fn systemd(service: Service, unit: String) -> Self {
        let name = service.name();
        Self(vec![
            Step::Write(systemd_path(service), unit),
            Step::Run(["systemctl", "daemon-reload"].map(str::to_owned).to_vec()),
            Step::Run(["systemctl", "enable", "--now", name].map(str::to_owned).to_vec()),
        ])
    }

    /// The plan to remove a service. Its state stays, and commands that run go on.
    ///
    /// # Errors
    /// There is nothing here that runs services.
    pub fn uninstall(init: Option<Init>, service: Service) -> Result<Self, Error> {
        match init {
            Some(Init::Systemd) => Ok(Self(vec![
                Step::Try(
                    ["systemctl", "disable", "--now", service.name()].map(str::to_owned).to_vec(),
                ),
                Step::Remove(systemd_path(service)),
                Step::Run(["systemctl", "daemon-reload"].map(str::to_owned).to_vec()),
            ])),
            Some(Init::Launchd) => {
                let target = format!("system/{LAUNCHD_LABEL}");
                let unload = vec!["launchctl".to_owned(), "bootout".to_owned(), target];
                Ok(Self(vec![Step::Try(unload), Step::Remove(launchd_path())]))
            }
            None => Err(Error::NoInit { command: "nothing is installed".to_owned() }),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// The step that went wrong; those before it are done.
    pub fn perform(&self) -> Result<(), Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        self.0.iter().try_for_each(Step::perform)
    }
}

impl Step {
    fn perform(&self) -> Result<(), Error> {
        match self {
            Self::Write(path, text) => std::fs::write(path, text).map_err(|source| Error::File {
                what: "write",
                path: path.clone(),
                source,
            }),
            Self::Policy(path, text) => write_policy(path, text),
            Self::Remove(path) => match std::fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(Error::File { what: "remove", path: path.clone(), source })
                }
                Ok(()) | Err(_) => Ok(()),
            },
            Self::Run(command) => run(command),
            Self::Try(command) => {
                drop(run(command));
                Ok(())
            }
        }
    }
}

/// Writes a policy so that an agent believes it (`policy::load`) and that any user can read it: the
/// one that the service runs as is made up at its start.
fn write_policy(path: &Path, text: &str) -> Result<(), Error> {
    let fail = |what| move |source| Error::File { what, path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        let mut dir = std::fs::DirBuilder::new();
        dir.recursive(true).mode(0o755).create(parent).map_err(fail("make the directory of"))?;
    }
    let mut open = std::fs::File::options();
    match open.write(true).create_new(true).mode(0o644).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).map_err(fail("write"))?;
            // Whatever the umask took away.
            let readable = std::fs::Permissions::from_mode(0o644);
            file.set_permissions(readable).map_err(fail("change the mode of"))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match std::fs::read(path).map_err(fail("read"))? == text.as_bytes() {
                true => Ok(()),
                false => Err(Error::PolicyThere(path.to_owned())),
            }
        }
        Err(source) => Err(fail("write")(source)),
    }
}

fn run(command: &[String]) -> Result<(), Error> {
    let fail = |message: String| Error::Command { command: command.join(" "), message };
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let output =
        Command::new(program).args(args).output().map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(fail(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

fn reachable(binary: &Path) -> Result<(), Error> {
    let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
    match hidden.iter().any(|home| binary.starts_with(home)) {
        true => Err(Error::Unreachable(binary.to_owned())),
        false => Ok(()),
    }
}

fn systemd_path(service: Service) -> PathBuf {
    Path::new("/etc/systemd/system").join(format!("{}.service", service.name()))
}

const LAUNCHD_LABEL: &str = "org.fleetwright.agent";

fn launchd_path() -> PathBuf {
    Path::new("/Library/LaunchDaemons").join(format!("{LAUNCHD_LABEL}.plist"))
}

/// The command as one types it in a shell.
fn command_line(binary: &Path, args: &[String]) -> String {
    let quoted = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.to_owned(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    };
    let words = std::iter::once(quoted(&binary.to_string_lossy()))
        .chain(args.iter().map(|arg| quoted(arg)));
    words.collect::<Vec<_>>().join(" ")
}

/// The command as `ExecStart=` takes it (`systemd.service(5)`, "Command lines"): in quotes, with
/// the characters doubled that begin specifiers and variables.
fn exec_start(binary: &Path, args: &[String]) -> String {
    let quoted = |word: &str| {
        let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let word = word.replace('%', "%%").replace('$', "$$");
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%$".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("\"{word}\"") }
    };
    let words = std::iter::once(quoted(&binary.to_string_lossy()))
        .chain(args.iter().map(|arg| quoted(arg)));
    words.collect::<Vec<_>>().join(" ")
}

/// The agent's unit.
///
/// Commands must outlive the agent: hence `KillMode=process`, a delegated control group for the
/// tasks' own, and an out-of-memory kill of one command that does not stop the rest.
#[must_use]
pub fn agent_unit(options: &UnitOptions) -> String {
    let start = exec_start(&options.binary, &options.args);
    let profile = match options.profile {
        Profile::Operator => OPERATOR,
        Profile::Observe => OBSERVE,
    };
    format!(
        "[Unit]
Description=Fleetwright agent
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={start}
Restart=always
RestartSec=2
StateDirectory=fleetwright-agent
StateDirectoryMode=0700
Delegate=yes
KillMode=process
OOMPolicy=continue
TasksMax=infinity
{profile}
[Install]
WantedBy=multi-user.target
"
    )
}

/// Commands run as any user and change anything, and they inherit what the agent is: whatever
/// were limited or protected here would be so for each of them.
const OPERATOR: &str = "\
# Runs commands as any user: this unit is root and is meant to be, and what it limited would
# limit every command.
";

/// For a host that only reports.
const OBSERVE: &str = "\
# Only reports: nothing here may change the host.
DynamicUser=yes
UMask=0077
MemoryMax=128M
CPUQuota=20%
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
PrivateTmp=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
";

/// The server's unit: it needs the network and its data, and gets nothing else.
#[must_use]
pub fn server_unit(options: &ServerOptions) -> String {
    let start = exec_start(&options.binary, &options.args);
    format!(
        "[Unit]
Description=Fleetwright server
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={start}
Restart=always
RestartSec=2
LimitNOFILE=65536
StateDirectory=fleetwright
StateDirectoryMode=0700
DynamicUser=yes
UMask=0077
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"
    )
}

/// The agent's property list (`launchd.plist(5)`). `AbandonProcessGroup` leaves running commands
/// alone when the agent ends.
#[must_use]
pub fn agent_plist(options: &UnitOptions) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let words = std::iter::once(options.binary.to_string_lossy().into_owned())
        .chain(options.args.iter().cloned());
    let words: Vec<String> =
        words.map(|word| format!("    <string>{}</string>", escaped(&word))).collect();
    let user = match options.profile {
        Profile::Operator => "",
        Profile::Observe => "  <key>UserName</key>\n  <string>nobody</string>\n",
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>{LAUNCHD_LABEL}</string>
  <key>ProgramArguments</key>
  <array>
{}
  </array>
{user}  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <true/>
  <key>AbandonProcessGroup</key>
  <true/>
  <key>StandardErrorPath</key>
  <string>/var/log/fleetwright-agent.log</string>
</dict>
</plist>
"#,
        words.join("\n")
    )
}

#[cfg(test)]
mod tests;
