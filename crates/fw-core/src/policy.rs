//! The host's own say on what it starts, whoever asks.
//!
//! A policy is checked immediately before each start. It is the host's last line against a
//! server that is not what it was, so it compares what will be executed, letter by letter, and
//! refuses all that it does not know.

use std::collections::BTreeSet;

use fw_proto::frame::{Command, PolicyMode, Refusal, RefusalReason, Spec};
use regex::Regex;

/// What a host lets servers do.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Whether anything is started at all.
    pub mode: PolicyMode,
    /// The users that commands may run as; `None` is any.
    pub users: Option<BTreeSet<String>>,
    /// The commands that may be run; `None` is any.
    pub commands: Option<Vec<AllowedCommand>>,
}

/// A command that a policy allows.
#[derive(Debug, Clone)]
pub struct AllowedCommand {
    program: String,
    arguments: Vec<Regex>,
}

/// Why this cannot be an allowed command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    /// The program is not named by its place.
    #[error(
        "{0:?} is not an absolute path: name the program by its place, such as /usr/bin/systemctl"
    )]
    NotAbsolute(String),
    /// A pattern is no regular expression.
    #[error("{pattern:?} is not a pattern: {why}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

impl AllowedCommand {
    /// A program by its absolute path, and a pattern for each argument, which must match all of it.
    ///
    /// # Errors
    /// The path is relative, or a pattern is none.
    pub fn new(program: &str, arguments: &[String]) -> Result<Self, InvalidCommand> {
        if !program.starts_with('/') || program.split('/').any(|part| part == "..") {
            return Err(InvalidCommand::NotAbsolute(program.to_owned()));
        }
        let arguments = arguments.iter().map(|pattern| whole(pattern));
        Ok(Self { program: program.to_owned(), arguments: arguments.collect::<Result<_, _>>()? })
    }

    fn allows(&self, argv: &[String]) -> bool {
        let Some((program, arguments)) = argv.split_first() else { return false };
        *program == self.program
            && arguments.len() == self.arguments.len()
            && self
                .arguments
                .iter()
                .zip(arguments)
                .all(|(pattern, argument)| pattern.is_match(argument))
    }
}

/// A pattern that must match the whole argument: `a|b` does not match `ab`, and a line break in
/// an argument is no end of it.
fn whole(pattern: &str) -> Result<Regex, InvalidCommand> {
    let invalid = |error: regex::Error| InvalidCommand::Pattern {
        pattern: pattern.to_owned(),
        why: error.to_string(),
    };
    // On its own first: a pattern such as `a)|(b` must not get out of the parentheses around it.
    Regex::new(pattern).map_err(invalid)?;
    Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(invalid)
}

impl Policy {
    /// Everything goes: the policy of a host without one.
    #[must_use]
    pub const fn open() -> Self {
        Self { mode: PolicyMode::Operate, users: None, commands: None }
    }

    /// Nothing is started: the policy of a host that only reports.
    #[must_use]
    pub const fn observe() -> Self {
        Self { mode: PolicyMode::Observe, users: None, commands: None }
    }

    /// Whether this may be started by an agent that runs as `own_user`.
    ///
    /// # Errors
    /// The refusal, with what to change.
    pub fn check(&self, spec: &Spec, own_user: &str) -> Result<(), Refusal> {
        match self.mode {
            PolicyMode::Observe => {
                return refuse(
                    "this host only observes; its policy file says mode = \"observe\" or is not in order",
                );
            }
            PolicyMode::Operate => {}
        }
        self.check_user(spec.user.as_deref().unwrap_or(own_user))?;
        let Some(commands) = &self.commands else { return Ok(()) };
        check_environment(spec)?;
        check_command(commands, &spec.command)?;
        // A change that its host would not undo is not made.
        let armed = spec.armed.as_ref();
        let beside = armed.into_iter().flat_map(|armed| [Some(&armed.undo), armed.probe.as_ref()]);
        beside.flatten().try_for_each(|command| check_command(commands, command))
    }

    fn check_user(&self, user: &str) -> Result<(), Refusal> {
        match &self.users {
            Some(users) if !users.contains(user) => {
                refuse(format!("the host's policy does not list the user {user:?}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn check_command(allowed: &[AllowedCommand], command: &Command) -> Result<(), Refusal> {
    match command {
        Command::Shell(_) => refuse(
            "the host's policy lists commands, so shell text is not run; give program and arguments",
        ),
        Command::Argv(argv) if allowed.iter().any(|command| command.allows(argv)) => Ok(()),
        Command::Argv(argv) => {
            let program = argv.first().map_or("", String::as_str);
            refuse(format!("the host's policy does not list {program:?} with these arguments"))
        }
    }
}

/// Variables that change what the same words execute: for the loader and for any shell.
const EXACTLY: [&str; 3] = ["PATH", "ENV", "IFS"];

/// Likewise, by how they begin: loaders, and interpreters that load code named by a variable.
const BEGINNINGS: [&str; 7] = ["LD_", "DYLD_", "BASH_", "PYTHON", "PERL5", "RUBY", "NODE_"];

/// With a list of commands, nothing may change what the same words execute.
fn check_environment(spec: &Spec) -> Result<(), Refusal> {
    let mut names = spec.env.keys().chain(spec.secrets.keys());
    let changes_what_runs = |name: &&String| {
        EXACTLY.contains(&name.as_str()) || BEGINNINGS.iter().any(|begins| name.starts_with(begins))
    };
    match names.find(changes_what_runs) {
        Some(name) => {
            refuse(format!("the host's policy lists commands, so {name} cannot be changed"))
        }
        None => Ok(()),
    }
}

fn refuse(message: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal { reason: RefusalReason::Policy, message: message.into() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_proto::Span;
    use fw_proto::frame::{Armed, OnFull};
    use proptest::prelude::*;

    use super::*;

    fn spec(argv: &[&str]) -> Spec {
        Spec {
            command: Command::Argv(argv.iter().map(ToString::to_string).collect()),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            timeout: None,
            kill_after: Span::ZERO,
            on_full: OnFull::Block,
            spool_bytes: 0,
            nice: None,
            umask: None,
            armed: None,
        }
    }

    fn allowing(program: &str, arguments: &[&str]) -> Policy {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let command = AllowedCommand::new(program, &arguments).unwrap();
        Policy { commands: Some(vec![command]), ..Policy::open() }
    }

    #[test]
    fn only_what_is_listed_letter_by_letter_is_allowed() {
        let policy = allowing("/usr/bin/systemctl", &["restart|status", "[a-z]+\\.service"]);
        let check = |argv: &[&str], allowed: bool| {
            assert_eq!(policy.check(&spec(argv), "root").is_ok(), allowed, "{argv:?}");
        };
        check(&["/usr/bin/systemctl", "restart", "web.service"], true);
        check(&["/usr/bin/systemctl", "status", "web.service"], true);
        check(&["systemctl", "restart", "web.service"], false);
        check(&["/usr/bin/../bin/systemctl", "restart", "web.service"], false);
        check(&["/usr/bin/systemctl", "restart"], false);
        check(&["/usr/bin/systemctl", "restart", "web.service", "--now"], false);
        check(&["/usr/bin/systemctl", "restart", "web.service\n"], false);
        check(&["/usr/bin/systemctl", "restart", "x --force web.service"], false);
        check(&["/usr/bin/systemctl", "restartx", "web.service"], false);
        check(&[], false);
    }

    #[test]
    fn a_change_is_refused_with_its_undo_or_its_probe() {
        let policy = allowing("/bin/true", &[]);
        let argv = |program: &str| Command::Argv(vec![program.to_owned()]);
        let check = |undo: &str, probe: Option<&str>| {
            let armed = Armed { undo: argv(undo), within: Span::ZERO, probe: probe.map(argv) };
            let spec = Spec { armed: Some(armed), ..spec(&["/bin/true"]) };
            policy.check(&spec, "root").map_err(|refusal| refusal.message)
        };
        let no = |program: &str| {
            Err(format!("the host's policy does not list {program:?} with these arguments"))
        };
        assert_eq!(check("/bin/true", None), Ok(()));
        assert_eq!(check("/bin/true", Some("/bin/true")), Ok(()));
        assert_eq!(check("/bin/rm", None), no("/bin/rm"));
        assert_eq!(check("/bin/true", Some("/bin/cat")), no("/bin/cat"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let say = |policy: &Policy, change: fn(&mut Spec)| {
            let mut spec = spec(&["/bin/true"]);
            change(&mut spec);
            policy
                .check(&spec, "root")
                .map_or_else(|refusal| refusal.message, |()| "allowed".to_owned())
        };
        let listed = allowing("/bin/true", &[]);
        let users = Policy { users: Some(BTreeSet::from(["web".to_owned()])), ..Policy::open() };
        insta::assert_snapshot!([
            say(&Policy::open(), |_| {}),
            say(&Policy::observe(), |_| {}),
            say(&users, |_| {}),
            say(&users, |spec| spec.user = Some("web".into())),
            say(&listed, |spec| spec.command = Command::Shell("true".into())),
            say(&listed, |spec| drop(spec.env.insert("PATH".into(), "/tmp".into()))),
            say(&listed, |spec| drop(spec.secrets.insert("LD_PRELOAD".into(), "x".into()))),
            say(&listed, |spec| drop(spec.env.insert("LANG".into(), "C".into()))),
            say(&listed, |spec| spec.command = Command::Argv(vec!["/bin/sh".into()])),
        ].join("\n"), @r#"
        allowed
        this host only observes; its policy file says mode = "observe" or is not in order
        the host's policy does not list the user "root"
        allowed
        the host's policy lists commands, so shell text is not run; give program and arguments
        the host's policy lists commands, so PATH cannot be changed
        the host's policy lists commands, so LD_PRELOAD cannot be changed
        allowed
        the host's policy does not list "/bin/sh" with these arguments
        "#);
    }

    #[test]
    fn a_pattern_stays_inside_its_argument() {
        assert!(AllowedCommand::new("bin/x", &[]).is_err());
        assert!(AllowedCommand::new("/bin/../x", &[]).is_err());
        for bad in ["(", "a)|(b", "(?P<n", "*"] {
            assert!(AllowedCommand::new("/bin/x", &[bad.to_owned()]).is_err(), "{bad}");
        }
        let policy = allowing("/bin/x", &["(?m)^a$|b"]);
        assert!(policy.check(&spec(&["/bin/x", "evil\na\nevil"]), "root").is_err());
    }

    proptest! {
        #[test]
        fn observe_refuses_everything(argv in prop::collection::vec(".{0,5}", 0..4)) {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            prop_assert!(Policy::observe().check(&spec(&argv), "root").is_err());
        }

        #[test]
        fn an_argument_that_is_not_the_literal_is_refused(argument in ".{0,12}") {
            let policy = allowing("/bin/x", &["safe"]);
            prop_assert_eq!(policy.check(&spec(&["/bin/x", &argument]), "root").is_ok(), argument == "safe");
        }
    }
}
