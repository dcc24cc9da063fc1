//! A simulated command with its supervisor and its spool: what outlives the agent.

use std::collections::VecDeque;

use fw_core::agent::Now;
use fw_proto::Timestamp;
use fw_proto::frame::{Applied, Cause, Ended, Fate, OnFull, Spec};
use fw_proto::record::{Body, Offsets, Record, Stream};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::armed::{Change, Next, Outlook};

/// Records in one piece of output at most.
const PIECE: usize = 4;

/// What a command will do; the world knows it by the task's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Script {
    /// Steps until it ends; for ever when `None`.
    pub(super) steps: Option<u32>,
    pub(super) exit_code: i32,
    /// Writes so much at most in a step.
    pub(super) bytes: usize,
    /// Steps from the wish for its end to its end.
    pub(super) stubborn: u32,
    /// What becomes of it when it is an armed change.
    pub(super) outlook: Outlook,
}

/// A command.
#[derive(Debug)]
pub(super) struct Process {
    script: Script,
    spec: Spec,
    pub(super) phase: Phase,
    pub(super) change: Option<Change>,
    killed: Option<u32>,
    /// By the clock that nobody sets, once the command runs.
    timeout_at: Option<Timestamp>,
    timed_out: bool,
    dropped: u64,
    /// Whole records that are there, oldest first.
    records: VecDeque<Kept>,
    end: Offsets,
    /// What was freed reaches to here.
    base: Offsets,
    damaged: bool,
    /// Every record ever written: what the server must have, or the beginning of it.
    pub(super) truth: Vec<u8>,
    pub(super) blocked: bool,
    pub(super) lossy: bool,
}

#[derive(Debug)]
struct Kept {
    from: Offsets,
    to: Offsets,
    bytes: Vec<u8>,
}

/// How far a supervisor is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// About to start the command.
    Starting(u32),
    Running(Timestamp),
    /// The change has succeeded, and waits for the word.
    Waiting(Applied),
    /// The change is being undone.
    Undoing(Timestamp),
    /// It is kept, and the last word is not written yet.
    Keeping(Timestamp),
    /// Gone, after a change that it neither kept nor undone; or not said so yet.
    Abandoned(Timestamp),
    Ended(Box<Ended>),
    /// Gone before it started the command.
    NotStarted,
    /// Gone after it started the command.
    Dead(Timestamp),
}

/// What a read finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Piece(Offsets, Vec<u8>),
    Nothing,
    Damaged,
}

impl Process {
    pub(super) fn new(script: Script, spec: Spec, delay: u32) -> Self {
        let change = Change::of(&spec, script.outlook);
        Self {
            script,
            change,
            spec,
            phase: Phase::Starting(delay),
            killed: None,
            timeout_at: None,
            timed_out: false,
            dropped: 0,
            records: VecDeque::new(),
            end: Offsets::default(),
            base: Offsets::default(),
            damaged: false,
            truth: Vec::new(),
            blocked: false,
            lossy: false,
        }
    }

    pub(super) const fn is_alive(&self) -> bool {
        match self.phase {
            Phase::Starting(_)
            | Phase::Running(_)
            | Phase::Waiting(_)
            | Phase::Undoing(_)
            | Phase::Keeping(_) => true,
            Phase::Abandoned(_) | Phase::Ended(_) | Phase::NotStarted | Phase::Dead(_) => false,
        }
    }

    /// Asks the supervisor to end the command; false when there is none any more.
    pub(super) fn cancel(&mut self) -> bool {
        let alive = self.is_alive();
        if alive {
            self.killed = self.killed.or(Some(self.script.stubborn));
        }
        alive
    }

    /// Whether its spool may not be removed: its supervisor lives, or its change is neither kept nor undone.
    pub(super) const fn is_held(&self) -> bool {
        self.is_alive() || matches!(self.phase, Phase::Abandoned(_))
    }

    /// Passes the server's word on; false when there is no supervisor any more.
    pub(super) fn keep(&mut self) -> bool {
        let alive = self.is_alive();
        if let Some(change) = self.change.as_mut().filter(|_| alive) {
            change.hear();
        }
        alive
    }

    /// Another supervisor takes up a change whose first is gone.
    pub(super) fn take_up(&mut self) {
        if let Phase::Abandoned(at) = self.phase {
            let kept = self.change.as_ref().is_some_and(|change| change.kept);
            self.phase = if kept { Phase::Keeping(at) } else { Phase::Undoing(at) };
        }
    }

    /// The supervisor is killed, or the host loses power and with it what was not synced.
    pub(super) fn die(&mut self, unsynced: usize) {
        self.phase = match &self.phase {
            Phase::Starting(_) => Phase::NotStarted,
            Phase::Running(at) | Phase::Undoing(at) | Phase::Keeping(at)
                if self.change.is_some() =>
            {
                Phase::Abandoned(*at)
            }
            Phase::Waiting(applied) => Phase::Abandoned(applied.started_at),
            Phase::Running(at) | Phase::Undoing(at) | Phase::Keeping(at) => Phase::Dead(*at),
            Phase::Ended(_) | Phase::NotStarted | Phase::Dead(_) | Phase::Abandoned(_) => {
                self.phase.clone()
            }
        };
        // The output of an armed change is on the disk before anybody sees it.
        let unsynced = if self.change.is_some() { 0 } else { unsynced };
        if let Some(change) = &mut self.change {
            change.die();
        }
        for _ in 0..unsynced {
            if let Some(lost) = self.records.pop_back() {
                self.end = lost.from;
            }
        }
    }

    /// What it held is gone.
    pub(super) fn damage(&mut self) {
        self.damaged = true;
    }

    /// A step of the command's life; whether it is the one in which it was started.
    pub(super) fn step(&mut self, clocks: Now, rng: &mut StdRng) -> bool {
        let now = clocks.wall;
        match self.phase {
            Phase::Starting(0) => {
                self.phase = Phase::Running(now);
                self.timeout_at = self.spec.timeout.map(|timeout| clocks.steady + timeout);
                return true;
            }
            Phase::Starting(left) => self.phase = Phase::Starting(left - 1),
            Phase::Running(started_at) => self.run(started_at, clocks, rng),
            Phase::Waiting(applied) => self.wait(applied.started_at, clocks.steady),
            Phase::Undoing(started_at) => self.undo(started_at, now, rng),
            Phase::Keeping(started_at) => self.conclude(started_at, now, Some(Fate::Kept)),
            Phase::Ended(_) | Phase::NotStarted | Phase::Dead(_) | Phase::Abandoned(_) => {}
        }
        false
    }

    fn wait(&mut self, started_at: Timestamp, steady: Timestamp) {
        let cancelled = self.killed.is_some();
        let Some(change) = &mut self.change else { return };
        match change.wait(steady, cancelled) {
            Next::GoesOn => {}
            Next::Keep => self.phase = Phase::Keeping(started_at),
            Next::Undo | Next::Over(_) => self.phase = Phase::Undoing(started_at),
        }
    }

    fn undo(&mut self, started_at: Timestamp, now: Timestamp, rng: &mut StdRng) {
        let Some(change) = &mut self.change else { return };
        match change.undo() {
            Next::GoesOn | Next::Keep | Next::Undo => {
                let room = self.end.total() - self.base.total() < self.spec.spool_bytes;
                self.write(room, now, rng);
            }
            Next::Over(fate) => self.conclude(started_at, now, Some(fate)),
        }
    }

    /// The command is over, and with it the task, unless it was an armed change.
    fn end(&mut self, started_at: Timestamp, clocks: Now) {
        let good = self.killed.is_none() && self.script.exit_code == 0;
        match &mut self.change {
            None => self.conclude(started_at, clocks.wall, None),
            Some(_) if !good => self.phase = Phase::Undoing(started_at),
            Some(change) => {
                let applied = change.applied(started_at, clocks.wall, clocks.steady);
                self.phase = Phase::Waiting(applied);
            }
        }
    }

    fn run(&mut self, started_at: Timestamp, clocks: Now, rng: &mut StdRng) {
        let now = clocks.wall;
        let late = self.timeout_at.is_some_and(|at| clocks.steady > at);
        if late && self.killed.is_none() {
            self.timed_out = true;
            self.killed = Some(self.script.stubborn);
        }
        match self.killed.as_mut() {
            Some(0) => return self.end(started_at, clocks),
            Some(left) => *left -= 1,
            None => {}
        }
        if self.script.steps == Some(0) {
            return self.end(started_at, clocks);
        }
        let room = self.end.total() - self.base.total() < self.spec.spool_bytes;
        let may_write = room || self.spec.on_full == OnFull::Drop;
        self.blocked = !may_write;
        if !may_write {
            return;
        }
        self.script.steps = self.script.steps.map(|left| left - 1);
        if self.script.bytes > 0 && rng.random_range(0..3) > 0 {
            self.write(room, now, rng);
        }
    }

    fn write(&mut self, room: bool, now: Timestamp, rng: &mut StdRng) {
        let stream = if rng.random_range(0..4) == 0 { Stream::Stderr } else { Stream::Stdout };
        let mut bytes = vec![0; rng.random_range(1..=self.script.bytes.max(1))];
        let head = bytes.len().min(32);
        rng.fill_bytes(bytes.get_mut(..head).unwrap_or_default());
        if !room {
            self.dropped += bytes.len() as u64;
            self.lossy = true;
            return;
        }
        if self.dropped > 0 {
            let gap = std::mem::take(&mut self.dropped);
            self.put(&Record { stream: Stream::Stdout, at: now, body: Body::Gap(gap) });
        }
        self.put(&Record { stream, at: now, body: Body::Bytes(&bytes) });
    }

    fn put(&mut self, record: &Record<'_>) {
        let from = self.end;
        self.end = from.after(record);
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        self.truth.extend_from_slice(&bytes);
        self.records.push_back(Kept { from, to: self.end, bytes });
    }

    fn conclude(&mut self, started_at: Timestamp, now: Timestamp, fate: Option<Fate>) {
        if self.dropped > 0 {
            let gap = std::mem::take(&mut self.dropped);
            self.put(&Record { stream: Stream::Stdout, at: now, body: Body::Gap(gap) });
        }
        let killed = self.killed.is_some();
        let cause = match (self.timed_out, killed) {
            (true, _) => Cause::TimedOut,
            (false, true) => Cause::Cancelled,
            (false, false) => Cause::Exited,
        };
        self.phase = Phase::Ended(Box::new(Ended {
            cause,
            exit_code: (!killed).then_some(self.script.exit_code),
            signal: killed.then_some(15),
            started_at,
            finished_at: now,
            output: self.end,
            stdout_sha256: None,
            stderr_sha256: None,
            left_behind: 0,
            armed: fate,
        }));
    }

    /// Reads on from here, whole records.
    pub(super) fn read(&self, from: Offsets) -> Read {
        if self.damaged || from.total() < self.base.total() {
            return Read::Damaged;
        }
        let next = self.records.iter().skip_while(|kept| kept.to.total() <= from.total());
        let (mut to, mut bytes) = (from, Vec::new());
        for kept in next.take(PIECE) {
            if kept.from != to {
                return Read::Damaged;
            }
            to = kept.to;
            bytes.extend_from_slice(&kept.bytes);
        }
        if bytes.is_empty() { Read::Nothing } else { Read::Piece(to, bytes) }
    }

    /// Frees what the server has.
    pub(super) fn trim(&mut self, durable: Offsets) {
        while self.records.front().is_some_and(|kept| kept.to.total() <= durable.total()) {
            if let Some(kept) = self.records.pop_front() {
                self.base = kept.to;
            }
        }
    }
}
