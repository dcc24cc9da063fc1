//! What a run amounts to: where it stands, and why it does not go on.

use std::fmt::Write as _;

use fw_proto::api::{self, Offline, RunReport, RunState, TaskState, WaitingOn};
use fw_proto::{Span, Timestamp};

use super::state::{Run, Task};

impl Run {
    /// Where the run stands.
    #[must_use]
    pub fn state(&self) -> RunState {
        if self.open > 0 {
            return match (self.cancel_requested_at, self.nothing_sent()) {
                (Some(_), _) => RunState::Cancelling,
                (None, true) => RunState::Planned,
                (None, false) => RunState::Running,
            };
        }
        let cancelled = self.count(TaskState::Cancelled);
        let good = self.count(TaskState::Succeeded) + self.count(TaskState::Skipped);
        if self.cancel_requested_at.is_some() && cancelled > 0 {
            return RunState::Cancelled;
        }
        // Hosts whose part somebody ended have not failed; nor is it a success when there are such.
        match ((good + cancelled) as usize == self.tasks.len(), cancelled) {
            (true, 0) => RunState::Succeeded,
            (true, _) => RunState::Cancelled,
            (false, _) => RunState::Failed,
        }
    }

    /// When the run is tried again: only one that failed by itself is, and not one whose end
    /// somebody asked for.
    #[must_use]
    pub fn retry_at(&self) -> Option<Timestamp> {
        let failed = self.state() == RunState::Failed && self.cancel_requested_at.is_none();
        let retries = self.plan.retries.filter(|_| failed)?;
        Some(self.finished_at? + retries.pause)
    }

    fn nothing_sent(&self) -> bool {
        self.undispatched.len() == self.tasks.len()
    }

    fn count(&self, state: TaskState) -> u32 {
        self.counts.get(&state).copied().unwrap_or(0)
    }

    /// How many more hosts may be in flight: bounded by `parallel`, and never more than failures left.
    #[must_use]
    pub fn room(&self) -> u32 {
        let limits = &self.plan.limits;
        let parallel = limits.parallel.map_or(u32::MAX, |most| most.saturating_sub(self.in_flight));
        parallel.min(self.budget_room())
    }

    fn budget_room(&self) -> u32 {
        let left = |most: u32| most.saturating_sub(self.failures).saturating_sub(self.in_flight);
        self.plan.limits.max_failures.map_or(u32::MAX, left)
    }

    /// Whether the run has used up its failures: no further host is begun.
    #[must_use]
    pub fn budget_spent(&self) -> bool {
        self.plan.limits.max_failures.is_some_and(|most| self.failures >= most)
    }

    /// Until when a host that is offline is waited for, by its place in the plan; never earlier for a
    /// later place.
    #[must_use]
    pub fn offline_until(&self, place: u32) -> Timestamp {
        let from = if self.plan.limits.takes_turns() { self.moved_at } else { self.created_at };
        let from = from.max(self.turn_at(place));
        match self.plan.limits.offline {
            Offline::Wait(wait) => from + wait,
            Offline::Fail | Offline::Skip => from,
        }
    }

    /// The host's task is lost if its host stays silent from `silent_since` to this instant.
    #[must_use]
    pub fn lost_at(&self, task: &Task, silent_since: Timestamp) -> Timestamp {
        let latest_start = task.confirmed_at.or(task.not_after).unwrap_or(self.created_at);
        let ends = self
            .plan
            .exec
            .timeout
            .map_or(latest_start, |timeout| latest_start + timeout + self.plan.exec.kill_after);
        // What its host does by itself after the change takes its time, too.
        let armed = self.plan.exec.armed.as_ref();
        let alone = armed.map_or(Span::ZERO, |armed| armed.longest(self.plan.exec.kill_after));
        silent_since.max(ends + alone) + self.plan.limits.lost_after
    }

    /// What the run is waiting on. `here` is how many undispatched hosts are linked; `asking` says
    /// whether those must first say what they remember. Does not look at the hosts themselves: the
    /// server asks with each commit.
    #[must_use]
    pub fn waiting_on(&self, here: usize, asking: bool) -> Vec<WaitingOn> {
        let mut waiting = Vec::new();
        let running = self.count(TaskState::Running);
        if running > 0 {
            waiting.push(WaitingOn::Running { hosts: running });
        }
        if self.in_flight > running {
            waiting.push(WaitingOn::Starting { hosts: self.in_flight - running });
        }
        let away = as_u32(self.undispatched.len().saturating_sub(here));
        if here > 0 {
            let hosts = as_u32(here);
            waiting.push(match (asking, self.budget_room(), self.room()) {
                (true, _, _) => WaitingOn::Restored { hosts },
                (false, 0, _) => WaitingOn::Budget { hosts },
                (false, _, 0) => WaitingOn::Parallel { hosts },
                (false, _, _) => {
                    WaitingOn::Spread { hosts, until: self.turn_at(self.last_place()) }
                }
            });
        }
        if away > 0 {
            let until = self.offline_until(self.last_place());
            waiting.push(WaitingOn::Offline { hosts: away, until });
        }
        waiting
    }

    /// The place of the last host that is not dispatched.
    fn last_place(&self) -> u32 {
        self.undispatched.last().map_or(0, |(place, _)| *place)
    }

    /// The run as a list shows it.
    #[must_use]
    pub fn summary(&self, waiting_on: Vec<WaitingOn>) -> api::RunSummary {
        api::RunSummary {
            id: self.id,
            state: self.state(),
            report: RunReport {
                tasks: self.counts.clone(),
                total: as_u32(self.tasks.len()),
                waiting_on,
            },
            by: self.by.to_string(),
            by_kind: Some(self.by.kind()),
            job: self.plan.origin.job.clone(),
            retry_of: self.plan.origin.retry_of,
            change: self.plan.origin.change,
            hosts: self.plan.selector.clone(),
            command: self.plan.exec.command.clone(),
            created_at: self.created_at,
            finished_at: self.finished_at,
        }
    }

    /// The run and its tasks, in the order of the plan.
    #[must_use]
    pub fn view(&self, waiting_on: Vec<WaitingOn>) -> api::Run {
        let mut tasks: Vec<_> = self.tasks.values().collect();
        tasks.sort_by_key(|task| task.place);
        api::Run {
            summary: self.summary(waiting_on),
            tasks: tasks.into_iter().map(Task::view).collect(),
        }
    }
}

impl Task {
    /// The task as the API shows it.
    #[must_use]
    pub fn view(&self) -> api::Task {
        api::Task {
            host: self.name.clone(),
            state: self.state,
            reason: self.reason,
            message: self.message.clone(),
            attempt: self.attempt,
            exit_code: self.exit_code,
            signal: self.signal,
            started_at: self.started_at,
            finished_at: self.finished_at,
            stdout_bytes: self.output.stdout,
            stderr_bytes: self.output.stderr,
            stdout_sha256: self.stdout_sha256.map(|hash| hex(&hash)),
            stderr_sha256: self.stderr_sha256.map(|hash| hex(&hash)),
            stdout_dropped_bytes: self.output.stdout_dropped,
            stderr_dropped_bytes: self.output.stderr_dropped,
            left_behind: self.left_behind,
            late: self.late.clone(),
            // A wait that is over is none, whoever ended it.
            armed: self.armed.filter(|of| *of != api::Armed::Waiting || !self.state.is_final()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot go wrong");
        text
    })
}

fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
