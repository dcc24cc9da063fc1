//! Closed enums as words. A word is never used again for something else.

use fw_core::run::Ruling;
use fw_proto::api::{FireReason, OnFull, Role, RunState, Scope, TaskReason, TaskState, Verdict};
use fw_proto::frame::{Cause, Fate, PolicyMode, RefusalReason};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::host::Standing;

/// A closed enum that is stored as a word.
pub(crate) trait Stored: Copy {
    /// Its word.
    fn text(self) -> &'static str;
    /// What the word means.
    fn parse(text: &str) -> Option<Self>;
}

macro_rules! stored {
    ($($type:ty { $($variant:ident = $text:literal),* $(,)? })*) => {$(
        impl Stored for $type {
            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
            fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    )*};
}

stored! {
    RunState {
        Planned = "planned", Running = "running", Cancelling = "cancelling",
        Succeeded = "succeeded", Failed = "failed", Cancelled = "cancelled",
    }
    TaskState {
        Queued = "queued", Starting = "starting", Running = "running", Succeeded = "succeeded",
        Failed = "failed", TimedOut = "timed_out", Cancelled = "cancelled", Skipped = "skipped",
        Refused = "refused", Lost = "lost", Unknown = "unknown",
    }
    TaskReason {
        Offline = "offline", Budget = "budget", Revoked = "revoked", Expired = "expired",
        Fenced = "fenced", Policy = "policy", QueueFull = "queue_full", User = "user",
        Spawn = "spawn", Disk = "disk", NoSecret = "no_secret", Overlap = "overlap",
        Replaced = "replaced", AgentOld = "agent_old", Kept = "kept", Undone = "undone",
        UndoFailed = "undo_failed",
    }
    Verdict {
        Pending = "pending", Ran = "ran", Skipped = "skipped", Coalesced = "coalesced",
        CaughtUp = "caught_up", Missed = "missed", Shadow = "shadow",
    }
    FireReason {
        Overlap = "overlap", Paused = "paused", NoHosts = "no_hosts", Downtime = "downtime",
        ClockJump = "clock_jump", DstGap = "dst_gap", NoSecret = "no_secret",
        Changed = "changed", Manual = "manual", Calendar = "calendar", Window = "window",
        Maintenance = "maintenance",
    }
    Ruling {
        OfflineFailed = "offline_failed", OfflineSkipped = "offline_skipped",
        BudgetSpent = "budget_spent", CancelledUnsent = "cancelled_unsent", Lost = "lost",
        RevokedUnsent = "revoked_unsent", RevokedSent = "revoked_sent", NoSecret = "no_secret",
        AgentOld = "agent_old",
    }
    Fate { Kept = "kept", Undone = "undone", UndoFailed = "undo_failed" }
    Cause { Exited = "exited", TimedOut = "timed_out", Cancelled = "cancelled" }
    RefusalReason {
        Expired = "expired", Fenced = "fenced", Policy = "policy", QueueFull = "queue_full",
        User = "user", Spawn = "spawn", Cancelled = "cancelled", Disk = "disk",
    }
    OnFull { Block = "block", Drop = "drop" }
    Role { Viewer = "viewer", Operator = "operator", Admin = "admin" }
    Scope { Read = "read", Run = "run", Admin = "admin", Dangerous = "dangerous" }
    PolicyMode { Observe = "observe", Operate = "operate" }
    Standing { Active = "active", Revoked = "revoked", Duplicate = "duplicate" }
}

/// A word inside JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: Stored> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.text())
    }
}

impl<'de, T: Stored> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let unknown = || <D::Error as serde::de::Error>::custom(format!("unknown word {text:?}"));
        T::parse(&text).map(Self).ok_or_else(unknown)
    }
}
