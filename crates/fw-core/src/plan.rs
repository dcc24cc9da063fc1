//! Plans: what is to be done, decided once and never again.

use std::collections::BTreeMap;

use fw_proto::api::{Command, EnvValue, Offline, OnFull};
use fw_proto::frame;
use fw_proto::{HostId, HostName, Incarnation, JobName, NodeId, RunId, Span};

/// The node of a plan that has only one.
pub const ONLY_NODE: NodeId = NodeId(0);

/// Beyond its timeout, so long may a started task's host be unheard of before the task counts as lost.
pub const LOST_AFTER: Span = Span::from_secs(10 * 60);

/// How long a run waits for its hosts when nobody says.
pub const START_WITHIN: Span = Span::from_secs(60);

/// From TERM to KILL when nobody says.
pub const KILL_AFTER: Span = Span::from_secs(10);

/// How often an undo that does not succeed is tried, crashes counted: what has not helped five times needs
/// a person.
pub const UNDO_TRIES: u32 = 5;

/// Each try of an undo is ended after so long: enough to install a package again over a slow line. All
/// five stay below half an hour, in which nobody knows the host's state.
pub const UNDO_TIMEOUT: Span = Span::from_secs(5 * 60);

/// Between two tries of an undo: what was in the way (a lock, a service that stops) may be gone then.
pub const UNDO_PAUSE: Span = Span::from_secs(1);

/// What a run does: one command on hosts that are chosen already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The command.
    pub exec: Exec,
    /// The selector as it was written; for people.
    pub selector: String,
    /// The hosts it picked, in the order in which they are served.
    pub hosts: Vec<Chosen>,
    /// What bounds the run.
    pub limits: Limits,
    /// Where the plan comes from.
    pub origin: Origin,
    /// What happens when the run fails; nothing when `None`.
    pub retries: Option<Retries>,
    /// The store's life in which it was decided.
    pub incarnation: Incarnation,
}

/// A host as it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Which host.
    pub id: HostId,
    /// Its name at that time.
    pub name: HostName,
}

/// A command and how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// What to start.
    pub command: Command,
    /// As which user; the agent's own when `None`.
    pub user: Option<String>,
    /// Where; the user's home when `None`.
    pub cwd: Option<String>,
    /// Environment added to the clean one.
    pub env: BTreeMap<String, EnvValue>,
    /// No limit when `None`.
    pub timeout: Option<Span>,
    /// From TERM to KILL.
    pub kill_after: Span,
    /// What happens when output comes too fast.
    pub on_full: OnFull,
    /// Niceness.
    pub nice: Option<i8>,
    /// File mode creation mask.
    pub umask: Option<u16>,
    /// The command is a change that the host undoes by itself unless it is confirmed in time.
    pub armed: Option<Armed>,
}

/// How a host undoes a change, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Armed {
    /// Undoes the change. It must do no harm when it is repeated, nor when the change was only half made.
    pub undo: Command,
    /// How long the host waits for the server's word and its own proof, from the moment at which the change
    /// has succeeded. By the host's boot-time clock, which also counts while the host sleeps.
    pub within: Span,
    /// Proves on the host, once the server's word is there, that the change is good: it is tried until it
    /// exits with code 0 or the time is over.
    pub probe: Option<Command>,
}

impl Armed {
    /// The longest time from the change's end to the last word on it.
    #[must_use]
    pub fn longest(&self, kill_after: Span) -> Span {
        let each = (UNDO_TIMEOUT + kill_after + UNDO_PAUSE).as_millis();
        self.within + Span::from_millis(each.saturating_mul(u64::from(UNDO_TRIES)))
    }

    fn spec(&self) -> frame::Armed {
        frame::Armed {
            undo: spoken(&self.undo),
            within: self.within,
            probe: self.probe.as_ref().map(spoken),
        }
    }
}

fn spoken(command: &Command) -> frame::Command {
    match command {
        Command::Argv(argv) => frame::Command::Argv(argv.clone()),
        Command::Shell(text) => frame::Command::Shell(text.clone()),
    }
}

impl Exec {
    /// What a host starts. `secrets` holds the values of those variables that the plan only names;
    /// `spool_bytes` bounds what may lie unsent on the host.
    #[must_use]
    pub fn spec(&self, secrets: BTreeMap<String, String>, spool_bytes: u64) -> frame::Spec {
        let plain = |(name, value): (&String, &EnvValue)| match value {
            EnvValue::Value(text) => Some((name.clone(), text.clone())),
            EnvValue::Secret(_) => None,
        };
        frame::Spec {
            command: spoken(&self.command),
            user: self.user.clone(),
            cwd: self.cwd.clone(),
            env: self.env.iter().filter_map(plain).collect(),
            secrets,
            timeout: self.timeout,
            kill_after: self.kill_after,
            on_full: match self.on_full {
                OnFull::Block => frame::OnFull::Block,
                OnFull::Drop => frame::OnFull::Drop,
            },
            spool_bytes,
            nice: self.nice,
            umask: self.umask,
            armed: self.armed.as_ref().map(Armed::spec),
        }
    }
}

/// What bounds a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// No task starts later than this after its turn has come. See [`crate::run::Run::not_after`].
    pub start_within: Span,
    /// About hosts that are offline when their turn comes.
    pub offline: Offline,
    /// At most so many hosts at once.
    pub parallel: Option<u32>,
    /// At most so many failures; at least 1.
    pub max_failures: Option<u32>,
    /// Hosts begin one after the other over this time. See [`crate::run::Run::turn_at`].
    pub spread: Option<Span>,
    /// Silence of a host beyond its task's timeout after which the task is lost.
    pub lost_after: Span,
}

impl Limits {
    /// Whether hosts take turns, so that some begin long after the run did.
    #[must_use]
    pub const fn takes_turns(&self) -> bool {
        self.parallel.is_some() || self.max_failures.is_some()
    }
}

/// That a run which fails is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often; at least once.
    pub left: u32,
    /// After which pause.
    pub pause: Span,
}

/// The longest pause, unless the first is longer: what does not mend in an hour is looked at as often.
const LONGEST_PAUSE: Span = Span::from_secs(60 * 60);

impl Retries {
    /// So many, the first after this pause; `None` when there are none.
    #[must_use]
    pub fn new(left: u32, pause: Span) -> Option<Self> {
        (left > 0).then_some(Self { left, pause })
    }

    /// What is left for the next try: each pause is twice the one before.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let doubled = Span::from_millis(self.pause.as_millis().saturating_mul(2));
        Self::new(self.left - 1, doubled.min(LONGEST_PAUSE.max(self.pause)))
    }
}

/// Where a plan comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The job it is a fire of.
    pub job: Option<JobName>,
    /// The run it repeats.
    pub retry_of: Option<RunId>,
}
