//! What happens to a run. Events record decisions, so no later version decides them again.

use fw_proto::api::ActorKind;
use fw_proto::frame::Reported;
use fw_proto::{HostId, JobName, Timestamp};

use crate::plan::Plan;

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Who made it happen.
    pub by: Actor,
    /// What happened.
    pub kind: Kind,
}

/// Who makes things happen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// The holder of the API token of this name.
    Token(String),
    /// The person of this name.
    User(String),
    /// A job's schedule.
    Job(JobName),
    /// The server's own rules.
    Server,
}

impl Actor {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> ActorKind {
        match self {
            Self::Token(_) => ActorKind::Token,
            Self::User(_) => ActorKind::User,
            Self::Job(_) => ActorKind::Job,
            Self::Server => ActorKind::Server,
        }
    }

    /// Who it is, as people read it: a token is told from a person of the same name.
    #[must_use]
    pub fn shown(&self) -> String {
        ActorKind::shown(Some(self.kind()), &self.to_string())
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(name) | Self::User(name) => f.write_str(name),
            Self::Job(name) => write!(f, "job:{name}"),
            Self::Server => f.write_str("server"),
        }
    }
}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// It was planned. Always the first event, and never another.
    Planned(Box<Plan>),
    /// These hosts are sent the start.
    Dispatched {
        /// Which hosts.
        hosts: Vec<HostId>,
        /// No later than this. Decided here, once: no later server can move it.
        not_after: Timestamp,
    },
    /// These hosts of a restored store said that they do not know the task: it may be dispatched.
    Asked {
        /// Which hosts.
        hosts: Vec<HostId>,
    },
    /// Hosts said what became of their task.
    Reported {
        /// Host and what it said, in the order heard.
        reports: Vec<(HostId, Reported)>,
    },
    /// The server gave up on these hosts.
    Ruled {
        /// Which hosts.
        hosts: Vec<HostId>,
        /// Why.
        ruling: Ruling,
    },
    /// Someone asked for its end.
    CancelRequested,
    /// Someone asked for its end on these hosts; on the others it goes on.
    HostsCancelRequested {
        /// Which hosts.
        hosts: Vec<HostId>,
    },
}

/// Why the server ends a task by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ruling {
    /// Offline for as long as it was waited for: failed.
    OfflineFailed,
    /// Offline, and the run says to skip such hosts.
    OfflineSkipped,
    /// Not begun, because the run had used up its failures: skipped.
    BudgetSpent,
    /// Not begun, because the run was cancelled.
    CancelledUnsent,
    /// Dispatched or started, and unheard of for too long: lost.
    Lost,
    /// The host was revoked or removed before it was sent the start: failed.
    RevokedUnsent,
    /// The host was revoked or removed after: lost.
    RevokedSent,
    /// A secret that the command needs is gone: failed.
    NoSecret,
    /// The host's agent is too old to undo a change by itself, so it was not sent the start: failed.
    AgentOld,
}
