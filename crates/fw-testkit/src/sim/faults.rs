//! What goes wrong. Each seed has a climate: some faults are frequent in it, others do not occur.

use std::collections::BTreeSet;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The agent's process is killed between two of its effects; commands go on.
    AgentCrash,
    /// The host loses power: commands die, and what was not synced is lost.
    PowerCut,
    /// A connection is closed by the network.
    Cut,
    /// A connection is silent from now on, one way or both, and nobody is told.
    HalfOpen,
    /// Frames of a connection are late.
    Delay,
    /// A group of hosts is cut off for a while.
    Partition,
    /// A host's agent does nothing for a while: it does not read, either.
    Stall,
    /// A host's time of day is set.
    HostClock,
    /// A host's journal takes nothing for a while.
    DiskFull,
    /// A host's policy refuses everything for a while.
    Policy,
    /// A supervisor is killed.
    SupervisorKill,
    /// A spool loses what it held.
    SpoolDamage,
    /// The server is killed between two of its effects.
    ServerCrash,
    /// The server is killed while it commits; nothing of it is kept.
    LostCommit,
    /// The store takes a decision and says that it did not, or really does not.
    CommitError,
    /// The store is slow to make output durable.
    SlowStore,
    /// The server's time of day is set ahead or back.
    ServerClock,
    /// The store is replaced by an older copy, which begins a new life.
    Restore,
    /// A frame that was sent to a host before is sent again.
    Replay,
    /// A host is revoked.
    Revoke,
    /// The secret that some commands need is removed.
    SecretGone,
}

/// All kinds.
pub const ALL: [Fault; 21] = [
    Fault::AgentCrash,
    Fault::PowerCut,
    Fault::Cut,
    Fault::HalfOpen,
    Fault::Delay,
    Fault::Partition,
    Fault::Stall,
    Fault::HostClock,
    Fault::DiskFull,
    Fault::Policy,
    Fault::SupervisorKill,
    Fault::SpoolDamage,
    Fault::ServerCrash,
    Fault::LostCommit,
    Fault::CommitError,
    Fault::SlowStore,
    Fault::ServerClock,
    Fault::Restore,
    Fault::Replay,
    Fault::Revoke,
    Fault::SecretGone,
];

impl Fault {
    /// Whether it comes to one host, or to server and network.
    pub(super) const fn is_of_host(self) -> bool {
        match self {
            Self::AgentCrash
            | Self::PowerCut
            | Self::Cut
            | Self::HalfOpen
            | Self::Delay
            | Self::Stall
            | Self::HostClock
            | Self::DiskFull
            | Self::Policy
            | Self::SupervisorKill
            | Self::SpoolDamage
            | Self::Replay
            | Self::Revoke => true,
            Self::Partition
            | Self::ServerCrash
            | Self::LostCommit
            | Self::CommitError
            | Self::SlowStore
            | Self::ServerClock
            | Self::Restore
            | Self::SecretGone => false,
        }
    }

    /// Once in so many steps, in a climate in which it occurs: for one host, or for all.
    const fn once_in(self) -> u32 {
        match self {
            Self::Replay => 12,
            Self::AgentCrash | Self::Cut => 60,
            Self::HalfOpen | Self::Delay | Self::Stall => 120,
            Self::PowerCut | Self::HostClock | Self::DiskFull | Self::Policy => 200,
            Self::SupervisorKill | Self::SpoolDamage => 150,
            Self::Revoke => 500,
            Self::ServerCrash => 50,
            Self::LostCommit | Self::CommitError | Self::SlowStore | Self::Partition => 90,
            Self::ServerClock | Self::SecretGone => 120,
            Self::Restore => 250,
        }
    }
}

/// Which faults occur in a world.
#[derive(Debug)]
pub(super) struct Climate {
    allowed: BTreeSet<Fault>,
}

impl Climate {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        Self { allowed: ALL.into_iter().filter(|_| rng.random_range(0..2) == 0).collect() }
    }

    /// The faults that come now; `of_host`: to one host, or to server and network.
    pub(super) fn strikes(&self, rng: &mut StdRng, of_host: bool) -> Vec<Fault> {
        let of_this = self.allowed.iter().filter(|fault| fault.is_of_host() == of_host);
        of_this.copied().filter(|fault| rng.random_range(0..fault.once_in()) == 0).collect()
    }
}
