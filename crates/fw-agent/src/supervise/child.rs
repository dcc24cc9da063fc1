//! From a spec to a running command: whose it is, where it starts, what it is given.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::Path;

use fw_proto::frame::{Command, Refusal, RefusalReason, Spec};

use super::os::{self, Account, Become, Entry, Image, Spawned, Step, Who};

/// `PATH` of a command whose spec sets none: what `login.defs(5)` gives root.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The mask of a command whose spec sets none; the agent's own may be stricter (`umask(2)`).
const DEFAULT_UMASK: u16 = 0o022;

/// A command, checked as far as it can be without starting it.
#[derive(Debug)]
pub(super) struct Prepared {
    image: Image,
    program: String,
    account: Account,
    user: Option<Become>,
    cwd: Option<CString>,
    home: CString,
    nice: Option<i32>,
    umask: u16,
    tied: bool,
}

/// Why a prepared command did not start.
pub(super) enum NotStarted {
    /// It could not join its control group; another containment may do.
    Join(io::Error),
    /// It will not start at all.
    Refused(Refusal),
}

fn refuse<T>(reason: RefusalReason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason, message: message.into() })
}

/// Checks a spec against this host.
///
/// # Errors
/// There is no such user, the agent may not become it, or the command cannot be a command.
pub(super) fn prepare(spec: &Spec) -> Result<Prepared, Refusal> {
    let argv = match &spec.command {
        Command::Argv(argv) => argv.clone(),
        Command::Shell(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
    };
    if argv.first().is_none_or(String::is_empty) {
        return refuse(RefusalReason::Spawn, "the command is empty");
    }
    let (account, user) = resolve_user(spec.user.as_deref())?;
    let env = environment(spec, &account)?;
    let program = argv.first().cloned().unwrap_or_default();
    Ok(Prepared {
        image: image(&argv, &env)?,
        program,
        cwd: spec.cwd.as_deref().map(directory).transpose()?,
        home: directory(&account.home)?,
        account,
        user,
        nice: spec.nice.map(i32::from),
        umask: spec.umask.unwrap_or(DEFAULT_UMASK) & 0o777,
        tied: spec.armed.is_some(),
    })
}

fn directory(path: &str) -> Result<CString, Refusal> {
    c_text(path.to_owned())
}

fn c_text(text: String) -> Result<CString, Refusal> {
    CString::new(text).or_else(|_| {
        refuse(RefusalReason::Spawn, "an argument, variable or directory holds a NUL character")
    })
}

/// What is executed. A program without a slash is looked for in the command's own `PATH`, as a
/// shell would (POSIX.1-2024, XBD 8.3): an empty part of it means the working directory.
fn image(argv: &[String], env: &BTreeMap<String, String>) -> Result<Image, Refusal> {
    let program = argv.first().cloned().unwrap_or_default();
    let candidates: Vec<String> = if program.contains('/') {
        vec![program]
    } else {
        let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let within = |dir: &str| format!("{}/{program}", if dir.is_empty() { "." } else { dir });
        path.split(':').map(within).collect()
    };
    let all = |texts: Vec<String>| texts.into_iter().map(c_text).collect::<Result<Vec<_>, _>>();
    Ok(Image {
        candidates: all(candidates)?,
        argv: all(argv.to_vec())?,
        env: all(env.iter().map(|(name, value)| format!("{name}={value}")).collect())?,
    })
}

/// The account that the command runs under, and what it takes to become it when that is another.
fn resolve_user(wanted: Option<&str>) -> Result<(Account, Option<Become>), Refusal> {
    let own = own_account();
    let Some(name) = wanted.filter(|name| *name != own.name) else { return Ok((own, None)) };
    let account = match os::account(Who::Name(name)) {
        Ok(Some(account)) => account,
        Ok(None) => {
            return refuse(RefusalReason::User, format!("there is no user {name:?} on this host"));
        }
        Err(error) => {
            return refuse(RefusalReason::User, format!("look up user {name:?}: {error}"));
        }
    };
    if account.uid == own.uid {
        return Ok((account, None));
    }
    if own.uid != 0 {
        let message = format!(
            "the agent runs as {:?} and so cannot run a command as {name:?}; leave the user out, or run the agent as root",
            own.name
        );
        return refuse(RefusalReason::User, message);
    }
    match os::groups(&account) {
        Ok(groups) => {
            let user = Become { uid: account.uid, gid: account.gid, groups };
            Ok((account, Some(user)))
        }
        Err(error) => {
            refuse(RefusalReason::User, format!("look up the groups of {name:?}: {error}"))
        }
    }
}

/// Our own account. A process may run under a number that no user has.
fn own_account() -> Account {
    let uid = rustix::process::geteuid().as_raw();
    os::account(Who::Uid(uid)).ok().flatten().unwrap_or_else(|| Account {
        name: uid.to_string(),
        uid,
        gid: rustix::process::getegid().as_raw(),
        home: "/".to_owned(),
        shell: "/bin/sh".to_owned(),
    })
}

/// The clean environment, and on it what the spec adds.
fn environment(spec: &Spec, account: &Account) -> Result<BTreeMap<String, String>, Refusal> {
    let or =
        |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), or(&account.home, "/")),
        ("USER".to_owned(), account.name.clone()),
        ("LOGNAME".to_owned(), account.name.clone()),
        ("SHELL".to_owned(), or(&account.shell, "/bin/sh")),
    ]);
    // The host's language is the one thing a command gets from the agent's own surroundings.
    if let Some(lang) = std::env::var_os("LANG").and_then(|lang| lang.into_string().ok()) {
        env.insert("LANG".to_owned(), lang);
    }
    for (name, value) in spec.env.iter().chain(&spec.secrets) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return refuse(
                RefusalReason::Spawn,
                format!("{name:?} cannot be the name of a variable"),
            );
        }
        env.insert(name.clone(), value.clone());
    }
    Ok(env)
}

impl Prepared {
    /// Starts the command, in this control group if any.
    pub(super) fn start(&self, cgroup: Option<&Path>) -> Result<Spawned, NotStarted> {
        let entry = Entry {
            cgroup: cgroup.map(Path::to_owned),
            nice: self.nice,
            umask: self.umask,
            user: self.user.clone(),
            cwd: self.cwd.clone().unwrap_or_else(|| self.home.clone()),
            or_root: self.cwd.is_none(),
            tied: self.tied,
        };
        os::spawn(&self.image, &entry).map_err(|(step, error)| match step {
            Step::Join => NotStarted::Join(error),
            Step::Fork | Step::Nice | Step::Become | Step::Directory | Step::Exec => {
                NotStarted::Refused(self.explain(step, &error))
            }
        })
    }

    fn explain(&self, step: Step, error: &io::Error) -> Refusal {
        let name = &self.account.name;
        let (reason, message) = match step {
            Step::Fork | Step::Join => (RefusalReason::Spawn, format!("start a process: {error}")),
            Step::Nice => (
                RefusalReason::Spawn,
                format!("set niceness {}: {error}", self.nice.unwrap_or_default()),
            ),
            Step::Become => (RefusalReason::User, format!("become user {name:?}: {error}")),
            Step::Directory => {
                let cwd = self.cwd.as_deref().unwrap_or(c"/").to_string_lossy().into_owned();
                (RefusalReason::Spawn, format!("enter directory {cwd:?} as {name}: {error}"))
            }
            Step::Exec => {
                (RefusalReason::Spawn, format!("start {:?} as {name}: {error}", self.program))
            }
        };
        Refusal { reason, message }
    }
}
