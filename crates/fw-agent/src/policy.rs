//! Finds the host's policy. What it means is decided in [`fw_core::policy`].

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fw_core::policy::{AllowedCommand, Policy};
use fw_proto::frame::PolicyMode;
use serde::Deserialize;
use toml::Spanned;

/// Where the policy is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/fleetwright/policy.toml";

/// The largest policy file that is read.
const LARGEST: u64 = 1024 * 1024;

/// A policy, and why it is not the one that was meant.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What applies.
    pub policy: Policy,
    /// Set when the file is not in order and the host only observes therefore: what to repair.
    pub problem: Option<String>,
}

impl Loaded {
    /// What applies and why, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match (&self.problem, self.policy.mode) {
            (Some(problem), _) => format!("observe ({problem})"),
            (None, PolicyMode::Observe) => "observe".to_owned(),
            (None, PolicyMode::Operate) => "operate".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    mode: Mode,
    users: Option<BTreeSet<String>>,
    commands: Option<Vec<Spanned<CommandFile>>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Observe,
    #[default]
    Operate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandFile {
    program: String,
    #[serde(default)]
    args: Vec<String>,
}

/// Loads the policy at `path`, or at [`DEFAULT_PATH`] when none is given. Only the default may be
/// missing: then everything is allowed. A file that is not in order means observe-only.
#[must_use]
pub fn load(path: Option<&Path>) -> Loaded {
    load_from(path.unwrap_or_else(|| Path::new(DEFAULT_PATH)), path.is_none())
}

fn load_from(path: &Path, may_be_missing: bool) -> Loaded {
    let text = match read(path) {
        Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {
            return Loaded { policy: Policy::open(), problem: None };
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(text) => Ok(text),
    };
    match text.and_then(|text| parse(path, &text)) {
        Ok(policy) => Loaded { policy, problem: None },
        Err(problem) => Loaded { policy: Policy::observe(), problem: Some(problem) },
    }
}

/// Reads the file, and from the open file that nobody else could have written it.
fn read(path: &Path) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    let about = file.metadata()?;
    check_owner(about.uid(), about.mode())?;
    for folder in path.canonicalize()?.ancestors().skip(1) {
        let about = folder.metadata()?;
        // In a sticky directory such as /tmp, only owners replace files.
        let sticky = about.mode() & 0o1000 != 0;
        check_owner(about.uid(), if sticky { 0 } else { about.mode() }).map_err(|error| {
            io::Error::other(format!("directory {}: {error}", folder.display()))
        })?;
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn check_owner(uid: u32, mode: u32) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if uid != 0 && uid != own {
        return Err(io::Error::other("it belongs to another user; make root its owner"));
    }
    if mode & 0o022 != 0 {
        return Err(io::Error::other("others may write it; run chmod go-w on it"));
    }
    Ok(())
}

fn parse(path: &Path, text: &str) -> Result<Policy, String> {
    let at = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", path.display())
    };
    let file: PolicyFile = toml::from_str(text).map_err(|error| {
        format!("{}: {}", at(error.span().map_or(0, |span| span.start)), error.message())
    })?;
    let allowed = |command: Spanned<CommandFile>| {
        let begins = command.span().start;
        let CommandFile { program, args } = command.into_inner();
        AllowedCommand::new(&program, &args).map_err(|error| format!("{}: {error}", at(begins)))
    };
    let commands = file.commands.map(|commands| commands.into_iter().map(allowed).collect());
    Ok(Policy {
        mode: match file.mode {
            Mode::Observe => PolicyMode::Observe,
            Mode::Operate => PolicyMode::Operate,
        },
        users: file.users,
        commands: commands.transpose()?,
    })
}

/// Where the policy is looked for: what `agent status` shows.
#[must_use]
pub fn path(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn load_text(text: &str) -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let loaded = load_from(&path, true);
        let folder = format!("{}/", dir.path().display());
        Loaded { problem: loaded.problem.map(|problem| problem.replace(&folder, "")), ..loaded }
    }

    #[test]
    fn a_policy_file_that_is_not_in_order_means_observe_and_says_where() {
        let say = |text: &str| {
            let loaded = load_text(text);
            let observes = loaded.policy.mode == PolicyMode::Observe;
            assert_eq!(observes, loaded.problem.is_some() || text.contains("observe"), "{text}");
            loaded.problem.unwrap_or_default()
        };
        assert_eq!(say(""), "");
        assert_eq!(say("mode = \"observe\""), "");
        assert_eq!(
            say("users = [\"web\"]\n[[commands]]\nprogram = \"/bin/true\"\nargs = [\"a|b\"]\n"),
            ""
        );
        insta::assert_snapshot!([
            say("\nmood = \"observe\"\n"),
            say("mode = \"rule\""),
            say("users = \"web\""),
            say("[[commands]]\nprogram = \"true\"\n"),
            say("[[commands]]\nprogram = \"/bin/true\"\nargs = [\"(\"]\n"),
            say("mode = "),
        ].join("\n"), @r#"
            policy.toml:2:1: unknown field `mood`, expected one of `mode`, `users`, `commands`
            policy.toml:1:8: unknown variant `rule`, expected `observe` or `operate`
            policy.toml:1:9: invalid type: string "web", expected a sequence
            policy.toml:1:1: "true" is not an absolute path: name the program by its place, such as /usr/bin/systemctl
            policy.toml:1:1: "(" is not a pattern: regex parse error:
                (
                ^
            error: unclosed group
            policy.toml:1:8: string values must be quoted, expected literal string
            "#);
    }

    #[test]
    fn a_policy_that_others_may_write_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        assert!(load_from(&path, true).problem.is_none(), "missing at the default place");
        assert!(load_from(&path, false).problem.is_some(), "missing where it was said to be");
        std::fs::write(&path, "").unwrap();
        for (mode, believed) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(load_from(&path, true).problem.is_none(), believed, "{mode:o}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let loaded = load_from(&path, true);
        assert_eq!(loaded.policy.mode, PolicyMode::Observe);
        assert!(loaded.problem.unwrap().contains("directory"));
    }
}
