//! What can be followed.

use std::fmt;
use std::str::FromStr;

use fw_proto::{ChangeId, RunId};

/// A topic. Its rows have keys, and the API's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// `hosts`: all hosts by id, without their facts.
    Hosts,
    /// `jobs`: all jobs by name.
    Jobs,
    /// `runs`: runs by id; a snapshot has the last hundred and those that go on.
    Runs,
    /// `touched`: how often `hosts`, `jobs`, `runs`, `changes` and the `audit` have changed. It says that they did, and not how.
    Touched,
    /// `run:ID`: `run` is its summary, `task/HOST` its task on a host.
    Run(RunId),
    /// `changes`: rollouts and runbooks by id, each with its `kind`; a snapshot has the last hundred.
    Changes,
    /// `change:ID`: `change` is a rollout or runbook, with all that the API shows of it.
    Change(ChangeId),
    /// `log:ID`: how many bytes of output each host has stored, by its name in the run. The bytes are asked for apart.
    Log(RunId),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts => f.write_str("hosts"),
            Self::Jobs => f.write_str("jobs"),
            Self::Runs => f.write_str("runs"),
            Self::Touched => f.write_str("touched"),
            Self::Run(id) => write!(f, "run:{id}"),
            Self::Changes => f.write_str("changes"),
            Self::Change(id) => write!(f, "change:{id}"),
            Self::Log(id) => write!(f, "log:{id}"),
        }
    }
}

/// It is no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no topic {0:?}; topics are hosts, jobs, runs, changes, touched, run:ID, change:ID and log:ID"
)]
pub(crate) struct Unknown(String);

impl FromStr for Topic {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown(text.chars().take(80).collect());
        match text.split_once(':') {
            Some(("run", id)) => id.parse().map(Self::Run).map_err(|_| unknown()),
            Some(("change", id)) => id.parse().map(Self::Change).map_err(|_| unknown()),
            Some(("log", id)) => id.parse().map(Self::Log).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
            None => match text {
                "hosts" => Ok(Self::Hosts),
                "jobs" => Ok(Self::Jobs),
                "runs" => Ok(Self::Runs),
                "touched" => Ok(Self::Touched),
                "changes" => Ok(Self::Changes),
                _ => Err(unknown()),
            },
        }
    }
}
