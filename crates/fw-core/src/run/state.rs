//! The state that events add up to.

use std::collections::{BTreeMap, BTreeSet};

use fw_proto::api::{Armed, TaskReason, TaskState};
use fw_proto::frame::Cause;
use fw_proto::record::Offsets;
use fw_proto::{HostId, HostName, RunId, Timestamp};

use super::event::Actor;
use crate::plan::Plan;

/// A run: the fold of its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// What it does.
    pub plan: Plan,
    /// Who began it.
    pub by: Actor,
    /// When it was planned.
    pub created_at: Timestamp,
    /// How many events it is the fold of.
    pub seq: u64,
    /// Its part on each host.
    pub tasks: BTreeMap<HostId, Task>,
    /// How many tasks are in which state; kept up by `step`.
    pub counts: BTreeMap<TaskState, u32>,
    /// Hosts not dispatched yet, by their place in the plan.
    pub undispatched: BTreeSet<(u32, HostId)>,
    /// How many hosts are dispatched and not settled: what they will amount to is not known.
    pub in_flight: u32,
    /// How many tasks are not settled.
    pub open: u32,
    /// How many tasks count against the failure budget.
    pub failures: u32,
    /// When a host was last dispatched or settled.
    pub moved_at: Timestamp,
    /// When someone asked for its end.
    pub cancel_requested_at: Option<Timestamp>,
    /// Who that was.
    pub cancelled_by: Option<Actor>,
    /// When its last task was settled.
    pub finished_at: Option<Timestamp>,
}

/// A run's part on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The host's name when it was chosen.
    pub name: HostName,
    /// Its place in the plan.
    pub place: u32,
    /// Where it stands.
    pub state: TaskState,
    /// Why, when the state alone does not say.
    pub reason: Option<TaskReason>,
    /// More, for people.
    pub message: Option<String>,
    /// Counted from 1.
    pub attempt: u16,
    /// When it was dispatched, by the server's clock.
    pub dispatched_at: Option<Timestamp>,
    /// It must not start later than this; decided when it was dispatched.
    pub not_after: Option<Timestamp>,
    /// When the host confirmed the start, by the server's clock.
    pub confirmed_at: Option<Timestamp>,
    /// In a run of an older incarnation: the host was asked and does not know it.
    pub asked: bool,
    /// When someone asked for its end on this host alone.
    pub cancel_requested_at: Option<Timestamp>,
    /// When its process was started, by the host's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the host's clock.
    pub finished_at: Option<Timestamp>,
    /// What ended it.
    pub cause: Option<Cause>,
    /// Exit code, when it exited.
    pub exit_code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// How much it wrote; final when it has ended.
    pub output: Offsets,
    /// SHA-256 of stdout.
    pub stdout_sha256: Option<[u8; 32]>,
    /// SHA-256 of stderr.
    pub stderr_sha256: Option<[u8; 32]>,
    /// Processes left behind.
    pub left_behind: u32,
    /// What the host said after the verdict.
    pub late: Option<String>,
    /// What the host said of its armed change.
    pub armed: Option<Armed>,
}
