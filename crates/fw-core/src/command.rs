//! Commands that people ask for: a request becomes a [`Plan`], or is refused with what to do.
//!
//! The hosts are chosen before (see [`crate::select`]); here the request itself is checked, so
//! that everything after may trust a plan.

use std::collections::BTreeMap;

use fw_proto::api::{Arm, Command, EnvValue, NewRun, Offline};
use fw_proto::{Incarnation, JobName, RunId, Span};
use uuid::Uuid;

use crate::plan::{Armed, Chosen, Exec, KILL_AFTER, Limits, Origin, Plan, Retries, START_WITHIN};

/// The most bytes of command and environment together. With the secrets it fits in one frame of
/// the link ([`fw_proto::frame::MAX_FRAME`]).
pub const MAX_COMMAND: usize = 256 * 1024;

/// The most bytes of one argument, shell text or `NAME=VALUE`: with the NUL at its end a kernel
/// takes 32 pages (`MAX_ARG_STRLEN`, `execve(2)`), and would refuse the start with `E2BIG`.
pub const MAX_ARGUMENT: usize = 131_071;

/// The most secrets that one command may name.
pub const MAX_SECRETS: usize = 16;

/// The most bytes of one secret: [`MAX_SECRETS`] of them and [`MAX_COMMAND`] stay below a frame.
pub const MAX_SECRET: usize = 32 * 1024;

/// The longest user name or other short word; Linux has at most 32 bytes (`useradd(8)`).
const MAX_WORD: usize = 256;

/// The longest path that a kernel takes (`PATH_MAX`, `limits.h`).
const MAX_PATH: usize = 4096;

/// The longest duration that anyone may ask for: beyond a year it is a slip of the keyboard.
pub const LONGEST: Span = Span::from_secs(366 * 24 * 60 * 60);

/// Why a request cannot become a plan. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No program, or an empty shell text.
    #[error("command: it is empty; name a program or give a shell text")]
    NoCommand,
    /// An undo or a probe that is no command.
    #[error("armed: its {what} cannot be run: {why}")]
    Armed {
        /// Which of the two.
        what: &'static str,
        /// What is wrong with it.
        why: Box<Self>,
    },
    /// A change that would be undone at once.
    #[error("armed: within 0 nothing can be confirmed; give at least 1s")]
    NoWait,
    /// A NUL byte, which no kernel takes.
    #[error("{0}: it contains a NUL byte; take it out")]
    Nul(&'static str),
    /// Command and environment are too large.
    #[error(
        "command: with its environment it has {bytes} bytes, at most {MAX_COMMAND} are possible; \
         put long texts into a file on the hosts"
    )]
    TooLarge {
        /// How large.
        bytes: usize,
    },
    /// One argument or variable is too large.
    #[error(
        "{what}: it has {bytes} bytes, and Linux takes at most {MAX_ARGUMENT} in one piece; \
         put long texts into a file on the hosts"
    )]
    LargeArgument {
        /// Which.
        what: String,
        /// How large.
        bytes: usize,
    },
    /// A word or path that is too long.
    #[error("{what}: it is longer than {most} bytes; shorten it")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// A field that is there but empty.
    #[error("{0}: it is empty; leave it out for the default")]
    Empty(&'static str),
    /// A directory that is not absolute.
    #[error("cwd: {0:?} is not an absolute path; begin it with '/'")]
    RelativeCwd(String),
    /// No name of an environment variable (POSIX.1-2024, Base Definitions §8.1).
    #[error(
        "env: {0:?} cannot be a variable's name; use letters, digits and '_', and begin with no digit"
    )]
    EnvName(String),
    /// Too many secrets.
    #[error("env: {0} secrets are named, at most {MAX_SECRETS} are possible")]
    ManySecrets(usize),
    /// A bound of 0, with which nothing could ever start.
    #[error("{0}: with 0 nothing would start; give at least 1, or leave it out for no limit")]
    Zero(&'static str),
    /// A time of 0 within which nothing could start.
    #[error("start_within: with 0 nothing would start; give at least 1s, or leave it out for 60s")]
    NoTime,
    /// A duration beyond a year.
    #[error("{0}: it is longer than 366 days; give less")]
    TooFar(&'static str),
    /// A niceness outside what `nice(2)` knows.
    #[error("nice: {0} is outside -20 to 19")]
    Nice(i8),
    /// A mask with more than permission bits (`umask(2)`).
    #[error("umask: {0:o} is outside 0 to 777 (octal)")]
    Umask(u16),
}

/// Makes the plan of a request. Hosts are those that its selector picked, in the order in which
/// they are to be served.
///
/// # Errors
/// The request breaks a rule.
pub fn compile(
    new: NewRun,
    hosts: Vec<Chosen>,
    incarnation: Incarnation,
    lost_after: Span,
) -> Result<Plan, Invalid> {
    let limits = limits(&new, lost_after)?;
    let exec = Exec {
        command: new.command,
        user: new.user,
        cwd: new.cwd,
        env: new.env,
        timeout: new.timeout.filter(|timeout| *timeout > Span::ZERO),
        kill_after: new.kill_after.unwrap_or(KILL_AFTER),
        on_full: new.on_full,
        nice: new.nice,
        umask: new.umask,
        armed: new.armed.map(|Arm { undo, within, probe }| Armed { undo, within, probe }),
    };
    check(&exec)?;
    let (origin, retries) = (Origin::default(), None);
    Ok(Plan { exec, selector: new.hosts, hosts, limits, origin, retries, incarnation })
}

/// Puts hosts into the order in which a job that is spread serves them: the same at each fire, and
/// another one for each job, so that no host is always first.
pub fn stagger(hosts: &mut [Chosen], job: &JobName) {
    hosts.sort_by_cached_key(|host| Uuid::new_v5(&host.id.0, job.as_str().as_bytes()));
}

/// Makes the plan of a repetition: the same command and limits on these hosts, in this life of the store.
#[must_use]
pub fn again(of: RunId, plan: Plan, hosts: Vec<Chosen>, incarnation: Incarnation) -> Plan {
    // A repetition is begun by a person, not by the job's schedule, so it is no run of the job.
    let origin = Origin { job: None, retry_of: Some(of) };
    Plan { hosts, origin, retries: None, incarnation, ..plan }
}

/// Makes the plan of the next try of a job's run that failed: a run of the job as well.
#[must_use]
pub fn next_try(of: RunId, plan: Plan, hosts: Vec<Chosen>, incarnation: Incarnation) -> Plan {
    let origin = Origin { job: plan.origin.job.clone(), retry_of: Some(of) };
    let retries = plan.retries.and_then(Retries::next);
    Plan { hosts, origin, retries, incarnation, ..plan }
}

fn limits(new: &NewRun, lost_after: Span) -> Result<Limits, Invalid> {
    if new.parallel == Some(0) {
        return Err(Invalid::Zero("parallel"));
    }
    if new.max_failures == Some(0) {
        return Err(Invalid::Zero("max_failures"));
    }
    let start_within = new.start_within.unwrap_or(START_WITHIN);
    if start_within == Span::ZERO {
        return Err(Invalid::NoTime);
    }
    within_a_year("start_within", start_within)?;
    let offline = new.offline.unwrap_or(Offline::Wait(start_within));
    // Who waits for a host an hour wants it to start then, too.
    let start_within = match offline {
        Offline::Wait(wait) => {
            within_a_year("offline", wait)?;
            start_within.max(wait)
        }
        Offline::Fail | Offline::Skip => start_within,
    };
    let spread = new.spread.filter(|spread| *spread > Span::ZERO);
    spread.map_or(Ok(()), |spread| within_a_year("spread", spread))?;
    let (parallel, max_failures) = (new.parallel, new.max_failures);
    Ok(Limits { start_within, offline, parallel, max_failures, spread, lost_after })
}

/// Checks a command and how it is started; jobs use it too.
///
/// # Errors
/// It breaks a rule.
pub fn check(exec: &Exec) -> Result<(), Invalid> {
    let mut bytes = check_command(&exec.command)?;
    bytes += check_env(&exec.env)?;
    bytes += exec.armed.as_ref().map_or(Ok(0), check_armed)?;
    if bytes > MAX_COMMAND {
        return Err(Invalid::TooLarge { bytes });
    }
    if let Some(user) = &exec.user {
        check_user(user)?;
    }
    if let Some(cwd) = &exec.cwd {
        check_word("cwd", cwd, MAX_PATH)?;
        if !cwd.starts_with('/') {
            return Err(Invalid::RelativeCwd(cwd.chars().take(80).collect()));
        }
    }
    within_a_year("timeout", exec.timeout.unwrap_or_default())?;
    within_a_year("kill_after", exec.kill_after)?;
    if let Some(nice) = exec.nice.filter(|nice| !(-20..=19).contains(nice)) {
        return Err(Invalid::Nice(nice));
    }
    exec.umask.filter(|mask| *mask > 0o777).map_or(Ok(()), |mask| Err(Invalid::Umask(mask)))
}

/// Checks the name of a user; runbooks use it too.
///
/// # Errors
/// It breaks a rule.
pub fn check_user(user: &str) -> Result<(), Invalid> {
    check_word("user", user, MAX_WORD)
}

/// Gives the bytes of the command.
fn check_command(command: &Command) -> Result<usize, Invalid> {
    let (empty, nul, bytes) = match command {
        Command::Argv(argv) => (
            argv.first().is_none_or(String::is_empty),
            argv.iter().any(|word| word.contains('\0')),
            argv.iter().map(|word| word.len() + 1).sum(),
        ),
        Command::Shell(text) => (text.trim().is_empty(), text.contains('\0'), text.len()),
    };
    match (empty, nul) {
        (true, _) => return Err(Invalid::NoCommand),
        (_, true) => return Err(Invalid::Nul("command")),
        (false, false) => {}
    }
    match command {
        Command::Argv(argv) => {
            for (at, word) in argv.iter().enumerate() {
                check_piece(word.len(), || format!("command: argument {at}"))?;
            }
        }
        Command::Shell(text) => check_piece(text.len(), || "command: shell text".to_owned())?,
    }
    Ok(bytes)
}

/// Gives the bytes of undo and probe.
fn check_armed(armed: &Armed) -> Result<usize, Invalid> {
    if armed.within == Span::ZERO {
        return Err(Invalid::NoWait);
    }
    within_a_year("armed", armed.within)?;
    let check = |what, command| {
        check_command(command).map_err(|why| Invalid::Armed { what, why: Box::new(why) })
    };
    let probe = armed.probe.as_ref().map_or(Ok(0), |probe| check("probe", probe))?;
    Ok(check("undo", &armed.undo)? + probe)
}

fn check_piece(bytes: usize, what: impl FnOnce() -> String) -> Result<(), Invalid> {
    if bytes > MAX_ARGUMENT { Err(Invalid::LargeArgument { what: what(), bytes }) } else { Ok(()) }
}

/// Gives the bytes of the environment.
fn check_env(env: &BTreeMap<String, EnvValue>) -> Result<usize, Invalid> {
    let mut bytes = 0;
    let mut secrets = 0;
    for (name, value) in env {
        if !is_env_name(name) {
            return Err(Invalid::EnvName(name.chars().take(80).collect()));
        }
        let text = match value {
            EnvValue::Value(text) => text,
            EnvValue::Secret(secret) => {
                secrets += 1;
                secret
            }
        };
        if text.contains('\0') {
            return Err(Invalid::Nul("env"));
        }
        let piece = name.len() + 1 + text.len();
        check_piece(piece, || format!("env: {name} with its value"))?;
        bytes += piece + 1;
    }
    if secrets > MAX_SECRETS { Err(Invalid::ManySecrets(secrets)) } else { Ok(bytes) }
}

fn is_env_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= MAX_WORD
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(fits)
}

fn check_word(what: &'static str, text: &str, most: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::Empty(what));
    }
    if text.contains('\0') {
        return Err(Invalid::Nul(what));
    }
    if text.len() > most { Err(Invalid::TooLong { what, most }) } else { Ok(()) }
}

fn within_a_year(what: &'static str, span: Span) -> Result<(), Invalid> {
    if span > LONGEST { Err(Invalid::TooFar(what)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fw_proto::api::OnFull;
    use proptest::prelude::*;
    use uuid::Uuid;

    const LIFE: Incarnation = Incarnation(Uuid::from_u128(1));

    fn new_run() -> NewRun {
        NewRun {
            hosts: "web*".to_owned(),
            command: Command::Argv(vec!["uptime".to_owned()]),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: None,
            kill_after: None,
            start_within: None,
            offline: None,
            parallel: None,
            max_failures: None,
            spread: None,
            on_full: OnFull::Block,
            nice: None,
            umask: None,
            armed: None,
        }
    }

    fn arm() -> Arm {
        Arm { undo: Command::Shell("true".into()), within: Span::from_secs(60), probe: None }
    }

    fn plan(new: NewRun) -> Result<Plan, Invalid> {
        compile(new, Vec::new(), LIFE, Span::from_secs(600))
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut NewRun)) -> String {
        let mut new = new_run();
        change(&mut new);
        plan(new).unwrap_err().to_string()
    }

    #[test]
    fn what_nobody_says_has_its_default() {
        let plan = plan(new_run()).unwrap();
        assert_eq!(plan.limits.start_within, Span::from_secs(60));
        assert_eq!(plan.limits.offline, Offline::Wait(Span::from_secs(60)));
        assert_eq!(plan.exec.kill_after, Span::from_secs(10));
        assert_eq!(plan.exec.timeout, None);
        assert_eq!(plan.selector, "web*");
        assert_eq!(plan.origin, Origin::default());
    }

    #[test]
    fn what_linux_takes_in_one_piece_is_taken() {
        let command = Command::Shell("x".repeat(MAX_ARGUMENT));
        let longest = EnvValue::Value("x".repeat(MAX_ARGUMENT - 2));
        let env = BTreeMap::from([("A".to_owned(), longest)]);
        assert!(plan(NewRun { command, env, ..new_run() }).is_ok());
    }

    #[test]
    fn a_timeout_of_zero_is_none() {
        let plan = plan(NewRun { timeout: Some(Span::ZERO), ..new_run() }).unwrap();
        assert_eq!(plan.exec.timeout, None);
    }

    proptest! {
        #[test]
        fn a_host_that_is_waited_for_can_still_start(start in proptest::option::of(1..10_000_u64), wait in proptest::option::of(0..10_000_u64)) {
            let plan = plan(NewRun {
                start_within: start.map(Span::from_secs),
                offline: wait.map(|secs| Offline::Wait(Span::from_secs(secs))),
                ..new_run()
            }).unwrap();
            let Offline::Wait(waits) = plan.limits.offline else { panic!("it waits") };
            prop_assert!(plan.limits.start_within >= waits);
            prop_assert!(plan.limits.start_within >= Span::from_secs(start.unwrap_or(60)));
        }

        #[test]
        fn names_of_variables_are_those_of_posix(name in "[a-zA-Z0-9_=. é-]{0,6}") {
            let env = BTreeMap::from([(name.clone(), EnvValue::Value(String::new()))]);
            let good = !name.is_empty()
                && !name.as_bytes()[0].is_ascii_digit()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            prop_assert_eq!(plan(NewRun { env, ..new_run() }).is_ok(), good);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        let value = |text: &str| EnvValue::Value(text.to_owned());
        let texts = [
            refused(|new| new.command = Command::Argv(vec![])),
            refused(|new| new.command = Command::Shell("  ".to_owned())),
            refused(|new| new.command = Command::Shell("a\0".to_owned())),
            refused(|new| new.command = Command::Shell("x".repeat(MAX_ARGUMENT + 1))),
            refused(|new| {
                new.command = Command::Argv(vec!["a".into(), "x".repeat(MAX_ARGUMENT + 1)]);
            }),
            refused(|new| new.command = Command::Argv(vec!["x".repeat(MAX_ARGUMENT); 3])),
            refused(|new| {
                new.env = BTreeMap::from([("A".to_owned(), value(&"x".repeat(MAX_ARGUMENT - 1)))]);
            }),
            refused(|new| new.parallel = Some(0)),
            refused(|new| new.max_failures = Some(0)),
            refused(|new| new.start_within = Some(Span::ZERO)),
            refused(|new| new.timeout = Some(LONGEST + Span::from_millis(1))),
            refused(|new| new.offline = Some(Offline::Wait(LONGEST + Span::from_millis(1)))),
            refused(|new| new.user = Some(String::new())),
            refused(|new| new.cwd = Some("tmp".to_owned())),
            refused(|new| new.cwd = Some(format!("/{}", "x".repeat(MAX_PATH)))),
            refused(|new| new.env = BTreeMap::from([("A=B".to_owned(), value("x"))])),
            refused(|new| new.env = BTreeMap::from([("A".to_owned(), value("\0"))])),
            refused(|new| {
                new.env =
                    (0..17).map(|n| (format!("A{n}"), EnvValue::Secret("s".into()))).collect();
            }),
            refused(|new| new.nice = Some(20)),
            refused(|new| new.umask = Some(0o1000)),
            refused(|new| new.armed = Some(Arm { within: Span::ZERO, ..arm() })),
            refused(|new| new.armed = Some(Arm { undo: Command::Shell(" ".into()), ..arm() })),
            refused(|new| new.armed = Some(Arm { probe: Some(Command::Argv(vec![])), ..arm() })),
        ];
        insta::assert_snapshot!(texts.join("\n"), @r#"
        command: it is empty; name a program or give a shell text
        command: it is empty; name a program or give a shell text
        command: it contains a NUL byte; take it out
        command: shell text: it has 131072 bytes, and Linux takes at most 131071 in one piece; put long texts into a file on the hosts
        command: argument 1: it has 131072 bytes, and Linux takes at most 131071 in one piece; put long texts into a file on the hosts
        command: with its environment it has 393216 bytes, at most 262144 are possible; put long texts into a file on the hosts
        env: A with its value: it has 131072 bytes, and Linux takes at most 131071 in one piece; put long texts into a file on the hosts
        parallel: with 0 nothing would start; give at least 1, or leave it out for no limit
        max_failures: with 0 nothing would start; give at least 1, or leave it out for no limit
        start_within: with 0 nothing would start; give at least 1s, or leave it out for 60s
        timeout: it is longer than 366 days; give less
        offline: it is longer than 366 days; give less
        user: it is empty; leave it out for the default
        cwd: "tmp" is not an absolute path; begin it with '/'
        cwd: it is longer than 4096 bytes; shorten it
        env: "A=B" cannot be a variable's name; use letters, digits and '_', and begin with no digit
        env: it contains a NUL byte; take it out
        env: 17 secrets are named, at most 16 are possible
        nice: 20 is outside -20 to 19
        umask: 1000 is outside 0 to 777 (octal)
        armed: within 0 nothing can be confirmed; give at least 1s
        armed: its undo cannot be run: command: it is empty; name a program or give a shell text
        armed: its probe cannot be run: command: it is empty; name a program or give a shell text
        "#);
    }

    #[test]
    fn a_next_try_belongs_to_the_job_until_none_is_left() {
        let mut first = plan(new_run()).unwrap();
        first.origin.job = Some("nightly".parse().unwrap());
        first.retries = Retries::new(4, Span::from_secs(20 * 60));
        let mut pauses = Vec::new();
        let of = RunId(Uuid::from_u128(9));
        let mut last = first.clone();
        while let Some(retries) = last.retries {
            pauses.push(retries.pause.to_string());
            last = next_try(of, last, Vec::new(), LIFE);
            assert_eq!((&last.exec, &last.origin.job), (&first.exec, &first.origin.job));
            assert_eq!(last.origin.retry_of, Some(of));
        }
        assert_eq!(pauses, ["20m", "40m", "1h", "1h"]);
    }

    #[test]
    fn a_repetition_keeps_the_command_and_belongs_to_no_job() {
        let mut first = plan(new_run()).unwrap();
        first.origin.job = Some("nightly".parse().unwrap());
        let of = RunId(Uuid::from_u128(9));
        let second = again(of, first.clone(), Vec::new(), Incarnation(Uuid::from_u128(2)));
        assert_eq!(second.origin, Origin { job: None, retry_of: Some(of) });
        assert_eq!((second.exec, second.limits), (first.exec, first.limits));
        assert_eq!(second.incarnation, Incarnation(Uuid::from_u128(2)));
    }

    #[test]
    fn each_job_has_an_order_of_its_own_that_stays() {
        let chosen = |n: u128| Chosen {
            id: fw_proto::HostId(Uuid::from_u128(n)),
            name: format!("h{n}").parse().unwrap(),
        };
        let order = |job: &str, hosts: std::ops::Range<u128>| {
            let mut hosts: Vec<_> = hosts.map(chosen).collect();
            stagger(&mut hosts, &job.parse().unwrap());
            hosts
        };
        assert_eq!(order("backup", 0..50), order("backup", 0..50));
        assert_ne!(order("backup", 0..50), order("trim", 0..50));
        let mut fewer = order("backup", 0..50);
        fewer.retain(|host| host.id.0.as_u128() < 40);
        assert_eq!(fewer, order("backup", 0..40), "who comes or goes moves no other");
    }
}
