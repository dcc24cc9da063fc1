//! The environment that a wrapper is started with, and how it goes through Salt unharmed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fw_proto::Span;
use fw_proto::frame::{Command, Spec};

/// What the wrapper is told of its run, beside the command.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Where it connects.
    pub(super) url: String,
    /// The job's own name.
    pub(super) job: String,
    /// The instance.
    pub(super) instance: String,
    /// How much it logs.
    pub(super) loglevel: String,
    /// And where.
    pub(super) logdir: String,
    /// Whether it may run beside another of the job.
    pub(super) allow_overlap: bool,
    /// Where it keeps that.
    pub(super) lockfile: Option<String>,
}

/// These a job's own environment cannot change: by them we know the wrapper again.
const OURS: [&str; 3] = ["SP_JOB_NAME", "SP_JOB_INSTANCE", "SP_JOB_INSTANCE_NAME"];

/// The environment of a wrapper that runs this.
pub(super) fn environment(told: &Told, spec: &Spec) -> BTreeMap<String, String> {
    let overlap = if told.allow_overlap { "true" } else { "false" };
    let mut env: BTreeMap<String, String> = [
        ("SP_WEBSOCKET_URL", told.url.as_str()),
        ("SP_JOB_NAME", &told.job),
        ("SP_JOB_INSTANCE_NAME", &told.instance),
        ("SP_JOB_INSTANCE", &told.instance),
        ("SP_WRAPPER_LOGLEVEL", &told.loglevel),
        ("SP_WRAPPER_LOGDIR", &told.logdir),
        ("SP_ALLOW_OVERLAP", overlap),
        ("PYTHONUNBUFFERED", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    env.insert("SP_COMMAND".to_owned(), command(&spec.command));
    // A wrapper takes 0 as a limit that is over at once, and none at all as none.
    let seconds = |timeout: Span| timeout.as_millis().div_ceil(1000).max(1).to_string();
    let optional = [
        ("SP_TIMEOUT", spec.timeout.map(seconds)),
        ("SP_LOCKFILE", told.lockfile.clone()),
        ("SP_CWD", spec.cwd.clone()),
        ("SP_USER", spec.user.clone()),
    ];
    env.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let own = spec.env.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
    env.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    env
}

/// The command as a text for `/bin/sh -c`.
fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.clone(),
        Command::Argv(argv) => argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The environment as Salt takes it: JSON that YAML reads as the same. YAML refuses some characters
/// that JSON leaves as they are, and breaks lines at others; those are escaped.
pub(super) fn argument(env: &BTreeMap<String, String>) -> String {
    let json = serde_json::to_string(env).expect("a map of texts");
    let mut text = String::with_capacity(json.len() + 4);
    text.push_str("env=");
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                write!(text, "\\u{:04x}", u32::from(c)).expect("writing to memory");
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use fw_proto::frame::OnFull;
    use proptest::prelude::*;

    use super::*;

    fn spec(command: Command) -> Spec {
        Spec {
            command,
            user: Some("backup".to_owned()),
            cwd: None,
            env: [
                ("A".to_owned(), "it's \"x\"\n\ty\\".to_owned()),
                ("SP_JOB_NAME".to_owned(), "no".to_owned()),
            ]
            .into(),
            secrets: BTreeMap::new(),
            timeout: Some(Span::from_millis(1500)),
            kill_after: Span::from_secs(10),
            on_full: OnFull::Block,
            spool_bytes: 1,
            nice: None,
            umask: None,
            armed: None,
        }
    }

    fn told() -> Told {
        Told {
            url: "ws://master:8889".to_owned(),
            job: "nightly".to_owned(),
            instance: "nightly_5_ab".to_owned(),
            loglevel: "normal".to_owned(),
            logdir: "/var/log/sp_wrapper".to_owned(),
            allow_overlap: false,
            lockfile: None,
        }
    }

    #[test]
    fn the_environment_is_that_of_the_original() {
        let argv = ["echo", "a b", "it's"].map(str::to_owned).into();
        let argument = argument(&environment(&told(), &spec(Command::Argv(argv))));
        insta::assert_snapshot!(argument, @r#"env={"A":"it's \"x\"\n\ty\\","PYTHONUNBUFFERED":"1","SP_ALLOW_OVERLAP":"false","SP_COMMAND":"echo 'a b' 'it'\\''s'","SP_JOB_INSTANCE":"nightly_5_ab","SP_JOB_INSTANCE_NAME":"nightly_5_ab","SP_JOB_NAME":"nightly","SP_TIMEOUT":"2","SP_USER":"backup","SP_WEBSOCKET_URL":"ws://master:8889","SP_WRAPPER_LOGDIR":"/var/log/sp_wrapper","SP_WRAPPER_LOGLEVEL":"normal"}"#);
    }

    #[test]
    fn no_limit_is_left_unsaid() {
        let spec = Spec { timeout: None, ..spec(Command::Shell("x".to_owned())) };
        assert!(!environment(&told(), &spec).contains_key("SP_TIMEOUT"));
    }

    proptest! {
        #[test]
        fn any_text_survives_json_and_has_nothing_that_salt_takes_for_plain_text(text in any::<String>()) {
            let env = BTreeMap::from([("X".to_owned(), text)]);
            let argument = argument(&env);
            let json = argument.strip_prefix("env=").unwrap();
            prop_assert_eq!(serde_json::from_str::<BTreeMap<String, String>>(json).unwrap(), env);
            // Salt leaves an argument with one of these as it is.
            prop_assert!(!json.contains(['\n', '\r', '\t']));
        }
    }
}
