//! What is said with the wrapper of one task: a message goes in, what is to be done comes out.
//!
//! The talk outlives connections and, by its [`Mark`], this process: whatever a wrapper sends again,
//! each byte is taken once and in order, and acknowledged only when it is durable. Whoever calls does
//! what comes out in its order, each to its end before the next.

use fw_proto::frame::Cause;
use fw_proto::record::Stream;
use fw_proto::{Span, Timestamp};

use super::message::{Acked, Message, OutOfOrder, Reply, Said};

/// A wrapper that has not spoken by then was not started: Saltpeter's own limit.
pub const STARTUP: Span = Span::from_secs(30);

/// A wrapper without any connection for so long is lost.
///
/// It tries every two seconds, and the documents promise 15 seconds, of which this is four times. One that is connected and silent is not lost:
/// it may be waiting for a child that holds its output.
pub const LOST: Span = Span::from_secs(60);

/// How long a kill is repeated before the task counts as ended.
pub const KILLING: Span = Span::from_secs(30);

/// How often it is repeated.
const KILL_EVERY: Span = Span::from_millis(500);

/// The wrapper keeps the timeout itself; so much later it is told to.
pub const TIMEOUT_GRACE: Span = Span::from_secs(30);

/// How far the start by a wrapper's word may lie from the start itself.
const SLACK: Span = Span::from_secs(1);

/// One connection.
pub type Wire = u64;

/// Two clocks: the time of day, and one that is never set.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The time of day.
    pub at: Timestamp,
    /// For how long something takes.
    pub steady: Timestamp,
}

/// How far the numbered output is durable; kept with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The number of the output that comes next.
    pub next: u64,
    /// So many bytes of that one are durable already.
    pub done: u32,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Say this on this connection.
    Reply(Wire, Reply),
    /// Close this connection.
    Close(Wire),
    /// The command was started, by the wrapper's clock.
    Started(Timestamp),
    /// Make this durable.
    Store(Piece),
    /// The command has ended.
    Ended(End),
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which stream.
    pub stream: Stream,
    /// When.
    pub at: Timestamp,
    /// The bytes.
    pub data: Vec<u8>,
    /// The mark before it.
    pub before: Mark,
    /// The mark after it; the same when it has no number.
    pub after: Mark,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// What ended it.
    pub cause: Cause,
    /// Exit code, when it exited.
    pub exit_code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// Which task, in the words of the wrapper: a kill names it so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Whose {
    job: String,
    instance: String,
    machine: String,
}

/// What is known of a task of an earlier life of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// When it was started, if it was.
    pub started_at: Option<Timestamp>,
    /// Kept with its last output.
    pub mark: Mark,
    /// Bytes of output that are durable.
    pub bytes: u64,
}

/// The talk with the wrapper of one task.
#[derive(Debug)]
pub struct Talk {
    whose: Whose,
    timeout: Option<Span>,
    mark: Mark,
    /// Taken up after a restart, and no output has come since: what was acknowledged may be more than
    /// what is marked, for an empty piece leaves no mark.
    resumed: bool,
    bytes: u64,
    begun_at: Timestamp,
    started_at: Option<Timestamp>,
    stage: Stage,
    /// Open connections, the newest last.
    wires: Vec<Wire>,
    /// Since when there is none, by the steady clock.
    alone_since: Timestamp,
    /// When the timeout is over for us, too, by the steady clock.
    over_at: Option<Timestamp>,
    /// Completions to acknowledge.
    asked: Vec<(Wire, Option<u64>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No wrapper has spoken. Until when that may be, once it is being started.
    Waiting { until: Option<Timestamp> },
    /// The command runs.
    Running,
    /// It is to end.
    Killing { why: Cause, since: Timestamp, next: Timestamp },
    /// It has ended by the wrapper's word, and that is not durable yet.
    Ended,
    /// It is durable.
    Settled,
    /// It was given up.
    GivenUp,
}

impl Talk {
    /// A task that is about to be started.
    #[must_use]
    pub fn begin(timeout: Option<Span>, now: Now) -> Self {
        Self {
            whose: Whose::default(),
            timeout,
            mark: Mark::default(),
            resumed: false,
            bytes: 0,
            begun_at: now.at,
            started_at: None,
            stage: Stage::Waiting { until: None },
            wires: Vec::new(),
            alone_since: now.steady,
            over_at: None,
            asked: Vec::new(),
        }
    }

    /// A task of an earlier life of this server.
    #[must_use]
    pub fn resume(timeout: Option<Span>, known: Known, now: Now) -> Self {
        let mut talk = Self::begin(timeout, now);
        (talk.mark, talk.bytes, talk.resumed) = (known.mark, known.bytes, true);
        talk.called(now);
        if let Some(at) = known.started_at {
            talk.start(at, now);
        }
        talk
    }

    /// The wrapper is being started now.
    pub fn called(&mut self, now: Now) {
        if let Stage::Waiting { until } = &mut self.stage {
            *until = Some(now.steady + STARTUP);
        }
    }

    /// When its command was started.
    #[must_use]
    pub const fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    /// A wrapper said something.
    pub fn message(&mut self, wire: Wire, message: Message, now: Now) -> Vec<Output> {
        self.wires.retain(|known| *known != wire);
        self.wires.push(wire);
        let Message { job, instance, machine, at, said } = message;
        self.whose = Whose { job, instance, machine };
        let at = at.unwrap_or(now.at);
        let mut outputs = Vec::new();
        if self.started_at.is_none() && self.takes() {
            self.start(at, now);
            outputs.push(Output::Started(at));
        }
        match said {
            Said::Connect => outputs.push(Output::Reply(wire, Reply::ack(Acked::Connect))),
            Said::Start => outputs.push(Output::Reply(wire, Reply::ack(Acked::Start))),
            Said::Heartbeat | Said::Other => {}
            Said::Output { stream, data, seq } => {
                self.output(wire, stream, data, seq, at, &mut outputs);
            }
            Said::Sync { last_acked } => outputs.extend(self.sync(wire, last_acked)),
            Said::Complete { code, seq, output } => {
                self.complete(wire, code, seq, output, at, &mut outputs);
            }
            Said::Error(why) if self.takes() => {
                self.write(Stream::Stderr, format!("Wrapper error: {why}"), at, &mut outputs);
                outputs.push(self.end(Cause::Exited, Some(255), at));
            }
            Said::Error(_) => {}
        }
        outputs.extend(self.tick(now));
        outputs
    }

    /// A connection is gone.
    pub fn gone(&mut self, wire: Wire, now: Now) {
        self.wires.retain(|known| *known != wire);
        self.asked.retain(|(asked, _)| *asked != wire);
        if self.wires.is_empty() {
            self.alone_since = now.steady;
        }
    }

    /// The task is to end.
    pub fn cancel(&mut self, now: Now) -> Vec<Output> {
        match self.stage {
            Stage::Waiting { .. } | Stage::Running => self.kill(Cause::Cancelled, now),
            Stage::Killing { .. } | Stage::Ended | Stage::Settled | Stage::GivenUp => {}
        }
        self.tick(now)
    }

    /// The wrapper could not be started, and why; nothing when it has spoken.
    pub fn failed(&mut self, why: &str, now: Now) -> Vec<Output> {
        if self.started_at.is_some() || !self.takes() {
            return Vec::new();
        }
        self.give_up(why, Cause::Exited, 254, now)
    }

    /// The end is durable.
    pub fn settled(&mut self) -> Vec<Output> {
        if self.stage == Stage::Ended {
            self.stage = Stage::Settled;
        }
        let ack = |(wire, seq)| Output::Reply(wire, Reply::Ack { ack_type: Acked::Complete, seq });
        self.asked.drain(..).map(ack).collect()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) -> Vec<Output> {
        match self.stage {
            Stage::Waiting { until: Some(until) } if now.steady >= until => {
                let why = "Wrapper failed to connect within 30s (no response from Salt or wrapper)";
                self.give_up(why, Cause::Exited, 254, now)
            }
            Stage::Running if self.over_at.is_some_and(|at| now.steady >= at) => {
                self.kill(Cause::TimedOut, now);
                self.tick(now)
            }
            Stage::Running if self.lost_at().is_some_and(|at| now.steady >= at) => {
                let silent = now.steady.since(self.alone_since).as_millis() / 1000;
                let why = format!(
                    "\n[SALTPETER ERROR: Job lost connection - no heartbeat for {silent} seconds]\n"
                );
                self.give_up(&why, Cause::Exited, 253, now)
            }
            Stage::Killing { why, since, .. } if now.steady >= since + KILLING => {
                let (text, code) = match why {
                    Cause::TimedOut => ("\n[SALTPETER ERROR: Job exceeded timeout]\n", 124),
                    Cause::Cancelled | Cause::Exited => (
                        "\n[Job terminated by user request - grace period expired after 30s]\n",
                        143,
                    ),
                };
                self.give_up(text, why, code, now)
            }
            Stage::Killing { why, since, next } if now.steady >= next => {
                let next = now.steady + KILL_EVERY;
                self.stage = Stage::Killing { why, since, next };
                let wire = self.wires.last();
                wire.map(|wire| Output::Reply(*wire, self.kill_frame())).into_iter().collect()
            }
            Stage::Waiting { .. }
            | Stage::Running
            | Stage::Killing { .. }
            | Stage::Ended
            | Stage::Settled
            | Stage::GivenUp => Vec::new(),
        }
    }

    /// When [`Talk::tick`] has something to do by time alone, by the steady clock.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        match self.stage {
            Stage::Waiting { until } => until,
            Stage::Running => self.over_at.into_iter().chain(self.lost_at()).min(),
            Stage::Killing { since, next, .. } => Some(next.min(since + KILLING)),
            Stage::Ended | Stage::Settled | Stage::GivenUp => None,
        }
    }

    /// Whether what the wrapper says still counts.
    fn takes(&self) -> bool {
        match self.stage {
            Stage::Waiting { .. } | Stage::Running | Stage::Killing { .. } => true,
            Stage::Ended | Stage::Settled | Stage::GivenUp => false,
        }
    }

    fn start(&mut self, at: Timestamp, now: Now) {
        self.started_at = Some(at);
        let ran = now.at.since(at);
        self.over_at = self.timeout.map(|timeout| {
            let left = (timeout + TIMEOUT_GRACE).as_millis().saturating_sub(ran.as_millis());
            now.steady + Span::from_millis(left)
        });
        if matches!(self.stage, Stage::Waiting { .. }) {
            self.stage = Stage::Running;
        }
    }

    fn lost_at(&self) -> Option<Timestamp> {
        self.wires.is_empty().then(|| self.alone_since + LOST)
    }

    fn kill(&mut self, why: Cause, now: Now) {
        self.stage = Stage::Killing { why, since: now.steady, next: now.steady };
    }

    fn kill_frame(&self) -> Reply {
        Reply::Kill {
            job_name: self.whose.job.clone(),
            job_instance: self.whose.instance.clone(),
            machine: self.whose.machine.clone(),
        }
    }

    fn output(
        &mut self,
        wire: Wire,
        stream: Stream,
        data: String,
        seq: Option<u64>,
        at: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        let ack = Output::Reply(wire, Reply::Ack { ack_type: Acked::Output, seq });
        match seq {
            Some(seq) if self.stage != Stage::GivenUp && seq < self.mark.next => {}
            _ if !self.takes() => return,
            None => self.write(stream, data, at, outputs),
            Some(seq) if seq > self.mark.next && !self.may_jump() => {
                return outputs.push(self.nack(wire, seq));
            }
            Some(seq) => self.take(stream, data, seq, at, outputs),
        }
        outputs.push(ack);
    }

    /// Whether a gap before the next number may be: the wrapper no longer holds what it was told is here.
    fn may_jump(&self) -> bool {
        self.resumed && self.mark.done == 0
    }

    fn nack(&self, wire: Wire, received_seq: u64) -> Output {
        let nack_type = OutOfOrder::OutOfOrder;
        Output::Reply(wire, Reply::Nack { nack_type, expected_seq: self.mark.next, received_seq })
    }

    /// Takes output that has its turn.
    fn take(
        &mut self,
        stream: Stream,
        data: String,
        seq: u64,
        at: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        let before = if seq == self.mark.next { self.mark } else { Mark { next: seq, done: 0 } };
        let after = Mark { next: seq.saturating_add(1), done: 0 };
        let mut data = data.into_bytes();
        data.drain(..data.len().min(before.done as usize));
        (self.mark, self.resumed) = (after, false);
        self.bytes += data.len() as u64;
        if !data.is_empty() {
            outputs.push(Output::Store(Piece { stream, at, data, before, after }));
        }
    }

    /// Takes output that has no number.
    fn write(&mut self, stream: Stream, data: String, at: Timestamp, outputs: &mut Vec<Output>) {
        if data.is_empty() {
            return;
        }
        self.bytes += data.len() as u64;
        let (before, after) = (self.mark, self.mark);
        outputs.push(Output::Store(Piece { stream, at, data: data.into_bytes(), before, after }));
    }

    /// Says what is here. A wrapper never sends again what it knows to have arrived, so that is not waited for.
    ///
    /// While nothing is here nothing is said: at -1 a wrapper throws away all that it has not sent.
    fn sync(&mut self, wire: Wire, last_acked: Option<u64>) -> Option<Output> {
        if let Some(last) = last_acked.filter(|last| *last >= self.mark.next) {
            self.mark = Mark { next: last.saturating_add(1), done: 0 };
        }
        let last_seq = match self.stage {
            Stage::GivenUp => -1,
            Stage::Waiting { .. }
            | Stage::Running
            | Stage::Killing { .. }
            | Stage::Ended
            | Stage::Settled => i64::try_from(self.mark.next.checked_sub(1)?).unwrap_or(i64::MAX),
        };
        Some(Output::Reply(wire, Reply::SyncResponse { last_seq }))
    }

    fn complete(
        &mut self,
        wire: Wire,
        code: Option<i32>,
        seq: Option<u64>,
        output: Option<String>,
        at: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        match self.stage {
            Stage::Settled => {
                let ack = Reply::Ack { ack_type: Acked::Complete, seq };
                return outputs.push(Output::Reply(wire, ack));
            }
            Stage::Ended => return self.asked.push((wire, seq)),
            Stage::GivenUp => {
                return outputs
                    .extend([Output::Reply(wire, Reply::NOT_FOUND), Output::Close(wire)]);
            }
            Stage::Waiting { .. } | Stage::Running | Stage::Killing { .. } => {}
        }
        if let Some(seq) = seq
            && seq > self.mark.next
            && !self.may_jump()
        {
            // Output before it is on another connection, or lost with one: the wrapper sends all again.
            return outputs.push(self.nack(wire, seq));
        }
        // The oldest wrappers say all of it at the end, and some of them nothing else.
        if let (0, Some(output)) = (self.bytes, output) {
            self.write(Stream::Stdout, output, at, outputs);
        }
        self.asked.push((wire, seq));
        let cause = self.cause(code.unwrap_or(0), at);
        let end = self.end(cause, code, at);
        outputs.push(end);
    }

    /// What ended a command that ended so. Wrappers say 124 and 143 only when no signal is to be told.
    fn cause(&self, code: i32, at: Timestamp) -> Cause {
        let ran = self.started_at.map_or(Span::ZERO, |started_at| at.since(started_at));
        let overran = self.timeout.is_some_and(|timeout| ran + SLACK >= timeout);
        let by_us = code < 0 || code == 143 || code == 124;
        if let Stage::Killing { why, .. } = self.stage
            && by_us
        {
            return why;
        }
        if overran && (code < 0 || code == 124) { Cause::TimedOut } else { Cause::Exited }
    }

    fn give_up(&mut self, why: &str, cause: Cause, code: i32, now: Now) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.write(Stream::Stderr, why.to_owned(), now.at, &mut outputs);
        outputs.push(self.end(cause, Some(code), now.at));
        self.stage = Stage::GivenUp;
        outputs
    }

    fn end(&mut self, cause: Cause, code: Option<i32>, at: Timestamp) -> Output {
        self.stage = Stage::Ended;
        let signal = code.filter(|code| (-64..0).contains(code)).map(|code| -code);
        Output::Ended(End {
            cause,
            // What did not say how it ended is -1 for Saltpeter, too.
            exit_code: if signal.is_some() { None } else { Some(code.unwrap_or(-1)) },
            signal,
            started_at: self.started_at.unwrap_or(self.begun_at),
            finished_at: at,
        })
    }
}

#[cfg(test)]
mod tests;
