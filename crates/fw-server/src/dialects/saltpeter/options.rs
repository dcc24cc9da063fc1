//! How a server is told to serve a directory of Saltpeter.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// How a directory is served.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the files are.
    pub dir: PathBuf,
    /// Saltpeter itself runs the jobs: here it is only said what would be started. Nothing is served,
    /// written or sent.
    pub shadow: bool,
    /// How commands reach hosts.
    pub dispatch: Dispatch,
    /// The program `salt`.
    pub salt: PathBuf,
    /// Where its API listens; where `saltpeter_config` says when `None`.
    pub api: Option<SocketAddr>,
    /// Where wrappers connect; where `saltpeter_config` says when `None`.
    pub machines: Option<SocketAddr>,
    /// What its API asks for; nothing when `None`.
    pub token: Option<String>,
    /// What wrappers must show; nothing when `None`.
    pub key: Option<String>,
    /// What log files and search servers have not got yet takes at most so many bytes.
    pub queue_bytes: u64,
}

/// How commands reach hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dispatch {
    /// Our own agent starts them.
    #[default]
    Agent,
    /// `salt` starts Saltpeter's wrapper on hosts that have no agent of ours.
    Salt,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, shadow, dispatch, salt, api, machines, token: _, key: _, queue_bytes } =
            self;
        f.debug_struct("Options")
            .field("dir", dir)
            .field("shadow", shadow)
            .field("dispatch", dispatch)
            .field("salt", salt)
            .field("api", api)
            .field("machines", machines)
            .field("queue_bytes", queue_bytes)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Salt => "salt",
        })
    }
}

impl FromStr for Dispatch {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "agent" => Ok(Self::Agent),
            "salt" => Ok(Self::Salt),
            _ => Err(format!("{text:?} is neither \"agent\" nor \"salt\"")),
        }
    }
}
