use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use serde_json::Value;

use super::super::message::read;
use super::super::stranger;
use super::*;

fn now(ms: i64) -> Now {
    Now { at: Timestamp::from_millis(1_795_182_750_000 + ms), steady: Timestamp::from_millis(ms) }
}

fn says(said: Said) -> Message {
    let text = str::to_owned;
    Message { job: text("j"), instance: text("j_1_x"), machine: text("m"), at: None, said }
}

fn output(data: &str, seq: impl Into<Option<u64>>) -> Message {
    says(Said::Output { stream: Stream::Stdout, data: data.to_owned(), seq: seq.into() })
}

fn complete(code: impl Into<Option<i32>>, seq: impl Into<Option<u64>>) -> Message {
    says(Said::Complete { code: code.into(), seq: seq.into(), output: None })
}

fn acked(seq: impl Into<Option<u64>>) -> Reply {
    Reply::Ack { ack_type: Acked::Output, seq: seq.into() }
}

/// A talk and all that came of it.
struct Table {
    talk: Talk,
    text: String,
    ends: Vec<End>,
    replies: Vec<(Wire, Reply)>,
}

impl Table {
    fn new(timeout: Option<Span>) -> Self {
        let mut talk = Talk::begin(timeout, now(0));
        talk.called(now(0));
        Self { talk, text: String::new(), ends: Vec::new(), replies: Vec::new() }
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Reply(wire, reply) => self.replies.push((wire, reply)),
                Output::Store(piece) => self.text += std::str::from_utf8(&piece.data).unwrap(),
                Output::Ended(end) => self.ends.push(end),
                Output::Started(_) | Output::Close(_) => {}
            }
        }
    }

    /// What is answered to a message.
    fn hear(&mut self, wire: Wire, message: Message, at: i64) -> Vec<Reply> {
        let outputs = self.talk.message(wire, message, now(at));
        self.take(outputs);
        self.replies.drain(..).map(|(_, reply)| reply).collect()
    }

    fn tick(&mut self, at: i64) -> Vec<Reply> {
        let outputs = self.talk.tick(now(at));
        self.take(outputs);
        self.replies.drain(..).map(|(_, reply)| reply).collect()
    }

    fn end(&self) -> (Cause, Option<i32>, Option<i32>) {
        let end = self.ends.first().expect("it has ended");
        (end.cause, end.exit_code, end.signal)
    }
}

#[test]
fn output_is_taken_once_and_in_order() {
    let mut table = Table::new(None);
    table.hear(1, says(Said::Connect), 0);
    assert_eq!(table.hear(1, output("a", 0), 1), [acked(0)]);
    assert_eq!(table.hear(1, output("again", 0), 1), [acked(0)]);
    let nack = |expected_seq, received_seq| Reply::Nack {
        nack_type: OutOfOrder::OutOfOrder,
        expected_seq,
        received_seq,
    };
    assert_eq!(table.hear(1, output("c", 2), 1), [nack(1, 2)]);
    assert_eq!(table.hear(1, complete(0, 3), 1), [nack(1, 3)]);
    // What is known outlives the connection, and a start wipes nothing out.
    table.talk.gone(1, now(2));
    assert_eq!(table.hear(2, says(Said::Start), 3), [Reply::ack(Acked::Start)]);
    assert_eq!(table.hear(2, output("b", 1), 3), [acked(1)]);
    assert_eq!(table.hear(2, output("d", None), 3), [acked(None)]);
    let sync = says(Said::Sync { last_acked: Some(0) });
    assert_eq!(table.hear(2, sync, 3), [Reply::SyncResponse { last_seq: 1 }]);
    // The end is acknowledged when it is durable, and to all who told it.
    assert_eq!(table.hear(2, complete(3, 2), 4), []);
    assert_eq!(table.hear(3, complete(3, 2), 4), []);
    let outputs = table.talk.settled();
    table.take(outputs);
    let done = Reply::Ack { ack_type: Acked::Complete, seq: Some(2) };
    assert_eq!(table.replies, [(2, done.clone()), (3, done.clone())]);
    table.replies.clear();
    assert_eq!(table.hear(3, complete(3, 2), 5), [done]);
    assert_eq!(table.hear(3, output("b", 1), 5), [acked(1)]);
    assert_eq!((table.text.as_str(), table.ends.len()), ("abd", 1));
    assert_eq!(table.end(), (Cause::Exited, Some(3), None));
}

#[test]
fn what_a_wrapper_says_of_the_end_is_what_an_agent_would_say() {
    let check = |timeout: Option<u64>, killed: bool, code: Option<i32>, expected| {
        let mut table = Table::new(timeout.map(Span::from_secs));
        table.hear(1, says(Said::Start), 0);
        if killed {
            drop(table.talk.cancel(now(1000)));
        }
        table.hear(1, complete(code, None), 4500);
        assert_eq!(table.end(), expected, "{timeout:?} {killed} {code:?}");
    };
    check(None, false, Some(0), (Cause::Exited, Some(0), None));
    check(None, false, Some(-9), (Cause::Exited, None, Some(9)));
    check(None, false, Some(-1), (Cause::Exited, None, Some(1)));
    check(None, false, None, (Cause::Exited, Some(-1), None));
    check(Some(60), false, Some(124), (Cause::Exited, Some(124), None));
    check(Some(4), false, Some(124), (Cause::TimedOut, Some(124), None));
    check(Some(4), false, Some(-15), (Cause::TimedOut, None, Some(15)));
    check(Some(4), false, Some(0), (Cause::Exited, Some(0), None));
    check(None, true, Some(-15), (Cause::Cancelled, None, Some(15)));
    check(None, true, Some(143), (Cause::Cancelled, Some(143), None));
    // It ended by itself before it was killed.
    check(None, true, Some(7), (Cause::Exited, Some(7), None));
}

#[test]
fn the_oldest_wrappers_say_their_output_at_the_end() {
    let all = Said::Complete { code: Some(0), seq: None, output: Some("all of it".to_owned()) };
    let mut silent = Table::new(None);
    silent.hear(1, says(all.clone()), 1);
    assert_eq!(silent.text, "all of it");
    let mut spoke = Table::new(None);
    spoke.hear(1, output("all ", None), 1);
    spoke.hear(1, output("of it", None), 1);
    spoke.hear(1, says(all), 1);
    assert_eq!(spoke.text, "all of it");
}

#[test]
fn a_wrapper_that_never_comes_is_254_and_an_error_255() {
    let mut table = Table::new(None);
    assert_eq!(table.talk.wakes_at(), Some(Timestamp::from_millis(30_000)));
    table.tick(30_000);
    assert_eq!(table.end(), (Cause::Exited, Some(254), None));
    assert_eq!(
        table.text,
        "Wrapper failed to connect within 30s (no response from Salt or wrapper)"
    );
    // It comes after all: it is not taken, and told so when its command has ended.
    assert_eq!(table.hear(1, says(Said::Connect), 31_000), [Reply::ack(Acked::Connect)]);
    assert_eq!(table.hear(1, output("x", 0), 31_000), []);
    let sync = says(Said::Sync { last_acked: None });
    assert_eq!(table.hear(1, sync, 31_000), [Reply::SyncResponse { last_seq: -1 }]);
    assert_eq!(table.hear(1, complete(0, 1), 31_000), [Reply::NOT_FOUND]);
    assert_eq!(table.ends.len(), 1);

    let mut table = Table::new(None);
    let outputs = table.talk.failed("Wrapper failed to start - Exit code 127", now(5));
    table.take(outputs);
    assert_eq!(table.end(), (Cause::Exited, Some(254), None));

    let mut table = Table::new(None);
    table.hear(1, says(Said::Connect), 0);
    let outputs = table.talk.failed("too late to say so", now(5));
    table.take(outputs);
    table.hear(1, says(Said::Error("boom".to_owned())), 6);
    assert_eq!(
        (table.text.as_str(), table.end()),
        ("Wrapper error: boom", (Cause::Exited, Some(255), None))
    );
}

#[test]
fn a_lost_wrapper_is_253_but_a_silent_one_is_not_lost() {
    let mut table = Table::new(None);
    table.hear(1, says(Said::Connect), 0);
    assert_eq!(table.talk.wakes_at(), None);
    table.tick(10_000_000);
    assert!(table.ends.is_empty());
    table.talk.gone(1, now(10_000_000));
    table.hear(2, says(Said::Heartbeat), 10_030_000);
    table.talk.gone(2, now(10_030_000));
    table.tick(10_089_999);
    assert!(table.ends.is_empty());
    table.tick(10_090_000);
    assert_eq!(table.end(), (Cause::Exited, Some(253), None));
    assert!(table.text.contains("no heartbeat for 60 seconds"), "{}", table.text);
}

#[test]
fn a_kill_is_repeated_on_the_newest_connection_until_it_is_heard_or_given_up() {
    let mut table = Table::new(None);
    table.hear(1, says(Said::Connect), 0);
    let kills =
        |replies: &[Reply]| replies.iter().filter(|r| matches!(r, Reply::Kill { .. })).count();
    let outputs = table.talk.cancel(now(0));
    assert_eq!(outputs.len(), 1);
    table.talk.gone(1, now(100));
    assert_eq!(kills(&table.tick(500)), 0, "nobody is there to hear it");
    let replies = table.hear(2, says(Said::Connect), 1200);
    assert_eq!(kills(&replies), 1);
    assert_eq!(kills(&table.tick(1600)), 0);
    assert_eq!(kills(&table.tick(1700)), 1);
    table.tick(30_000);
    assert_eq!(table.end(), (Cause::Cancelled, Some(143), None));
    assert!(table.text.contains("grace period expired"), "{}", table.text);
}

#[test]
fn a_timeout_that_the_wrapper_does_not_keep_is_kept() {
    let mut table = Table::new(Some(Span::from_secs(4)));
    table.hear(1, says(Said::Connect), 0);
    assert_eq!(table.talk.wakes_at(), Some(Timestamp::from_millis(34_000)));
    assert!(matches!(table.tick(34_000).first(), Some(Reply::Kill { .. })));
    table.tick(64_000);
    assert_eq!(table.end(), (Cause::TimedOut, Some(124), None));
    assert_eq!(table.text, "\n[SALTPETER ERROR: Job exceeded timeout]\n");
}

/// The recorded conversations, message for message. The snapshot holds every answer that is not the recorded
/// one: these are what is better here on purpose.
#[test]
fn the_transcript_is_answered_as_it_was_but_for_what_is_better() {
    let lines = include_str!("../../../../../tests/data/saltpeter-wrappers.jsonl").lines();
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut recorded: BTreeMap<(String, u64), VecDeque<String>> = BTreeMap::new();
    let place = |line: &Value| {
        (line["scenario"].as_str().unwrap().to_owned(), line["conn"].as_u64().unwrap())
    };
    for line in lines.iter().filter(|line| line["from"] == "server") {
        if line["msg"]["type"] != "kill" {
            recorded.entry(place(line)).or_default().push_back(bare(&line["msg"].to_string()));
        }
    }
    let mut talks: BTreeMap<(String, String, String), Talk> = BTreeMap::new();
    let mut differ: BTreeMap<String, u32> = BTreeMap::new();
    let mut same = 0;
    for line in lines.iter().filter(|line| line["from"] == "wrapper") {
        let (scenario, conn) = place(line);
        let Some(message) = read(line["msg"].to_string().as_bytes()) else { continue };
        let known = !matches!(scenario.as_str(), "late_after_job_end" | "test_websocket.py");
        let ours: Vec<String> = if known && !message.instance.is_empty() {
            let whose = (scenario.clone(), message.instance.clone(), message.machine.clone());
            let talk = talks.entry(whose).or_insert_with(|| Talk::begin(None, now(0)));
            let mut outputs = talk.message(conn, message, now(0));
            outputs.extend(talk.settled());
            outputs
                .into_iter()
                .filter_map(|output| match output {
                    Output::Reply(_, reply) => Some(bare(&reply.json(now(0).at))),
                    Output::Close(_) | Output::Started(_) | Output::Store(_) | Output::Ended(_) => {
                        None
                    }
                })
                .collect()
        } else {
            stranger(&message, false).iter().map(|reply| bare(&reply.json(now(0).at))).collect()
        };
        let waiting = recorded.entry((scenario.clone(), conn)).or_default();
        let theirs = answer_to(&line["msg"], waiting);
        let ours = ours.first().cloned().unwrap_or_else(|| "nothing".to_owned());
        if ours == theirs {
            same += 1;
        } else {
            let kind = line["msg"]["type"].as_str().unwrap_or_default();
            *differ.entry(format!("{scenario}: {kind}: {theirs} -> {ours}")).or_default() += 1;
        }
    }
    let lines: Vec<_> = differ.iter().map(|(line, times)| format!("{times} x {line}")).collect();
    insta::assert_snapshot!("transcript", format!("{same} the same\n{}", lines.join("\n")));
}

/// A reply without its time, and with its keys in one order.
fn bare(json: &str) -> String {
    let mut reply: BTreeMap<String, Value> = serde_json::from_str(json).unwrap();
    reply.remove("timestamp");
    serde_json::to_string(&reply).unwrap()
}

/// Takes the recorded answer to a message out of those of its connection.
fn answer_to(message: &Value, waiting: &mut VecDeque<String>) -> String {
    let seq = &message["seq"];
    let answers = |reply: &String| {
        let reply: Value = serde_json::from_str(reply).unwrap();
        match message["type"].as_str().unwrap() {
            kind @ ("connect" | "start") => reply["ack_type"] == kind,
            "output" if reply["type"] == "nack" => reply["received_seq"] == *seq,
            "output" => reply["ack_type"] == "output" && reply["seq"] == *seq,
            "sync_request" => reply["type"] == "sync_response",
            "complete" => {
                reply["type"] == "error" || reply["ack_type"] == "complete" && reply["seq"] == *seq
            }
            _ => false,
        }
    };
    let found = waiting.iter().position(answers);
    found.and_then(|at| waiting.remove(at)).unwrap_or_else(|| "nothing".to_owned())
}

/// What may happen to a wrapper and its server.
#[derive(Debug, Clone, Copy)]
enum Luck {
    /// The wrapper has another piece of output.
    Writes,
    /// It opens another connection, and sends again what it does not know to have arrived. The old one stays
    /// open.
    Reconnects,
    /// The server takes the next message of a connection.
    Takes(usize),
    /// And takes it twice.
    TakesTwice(usize),
    /// The wrapper hears the next reply.
    Hears,
    /// A connection breaks, with all that was under way on it.
    Breaks(usize),
    /// The server dies, having made so much of the next thing durable, and comes back.
    Dies(usize),
    /// The wrapper asks what has arrived.
    Asks,
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Writes),
        2 => Just(Luck::Reconnects),
        8 => (0..3_usize).prop_map(Luck::Takes),
        1 => (0..3_usize).prop_map(Luck::TakesTwice),
        6 => Just(Luck::Hears),
        1 => (0..3_usize).prop_map(Luck::Breaks),
        1 => (0..4_usize).prop_map(Luck::Dies),
        1 => Just(Luck::Asks),
    ]
}

/// A wrapper as the original is, and a server that may die between any two steps.
struct World {
    talk: Talk,
    // What survives the server.
    durable: Vec<u8>,
    mark: Mark,
    ended: Option<End>,
    started: Option<Timestamp>,
    // The wrapper.
    next: u64,
    pending: BTreeMap<u64, String>,
    acked: Option<u64>,
    done: bool,
    written: String,
    // The network.
    wires: Vec<(Wire, VecDeque<Message>)>,
    replies: VecDeque<Reply>,
    newest: Wire,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            talk: Talk::begin(None, now(0)),
            durable: Vec::new(),
            mark: Mark::default(),
            ended: None,
            started: None,
            next: 0,
            pending: BTreeMap::new(),
            acked: None,
            done: false,
            written: String::new(),
            wires: Vec::new(),
            replies: VecDeque::new(),
            newest: 0,
        };
        world.reconnect();
        world
    }

    fn send(&mut self, message: Message) {
        if let Some((_, under_way)) = self.wires.last_mut() {
            under_way.push_back(message);
        }
    }

    fn write(&mut self) {
        // Of different lengths, and more than one piece of the store when that is long.
        let data = format!("<{}{}>", self.next, "é".repeat((self.next % 5) as usize));
        self.written += &data;
        self.send(output(&data, self.next));
        self.pending.insert(self.next, data);
        self.next += 1;
    }

    fn reconnect(&mut self) {
        self.newest += 1;
        self.wires.push((self.newest, VecDeque::from([says(Said::Connect), says(Said::Start)])));
        self.replies.clear();
        for (seq, data) in self.pending.clone() {
            self.send(output(&data, seq));
        }
    }

    fn take(&mut self, which: usize, times: usize) {
        let count = self.wires.len();
        let Some((wire, under_way)) = self.wires.get_mut(which.min(count.saturating_sub(1))) else {
            return;
        };
        let (wire, message) = (*wire, under_way.pop_front());
        for message in message.into_iter().flat_map(|message| std::iter::repeat_n(message, times)) {
            let outputs = self.talk.message(wire, message, now(0));
            self.perform(outputs, usize::MAX);
        }
    }

    /// Does so many steps of what is to be done; then the server dies.
    fn perform(&mut self, outputs: Vec<Output>, mut steps: usize) {
        for output in outputs {
            let Some(left) = steps.checked_sub(1) else { return };
            steps = left;
            match output {
                Output::Reply(wire, reply) if wire == self.newest => self.replies.push_back(reply),
                Output::Reply(..) | Output::Close(_) => {}
                Output::Started(at) => self.started = Some(at),
                Output::Ended(end) => {
                    self.ended = Some(end);
                    let outputs = self.talk.settled();
                    self.perform(outputs, usize::MAX);
                }
                Output::Store(piece) => self.store(&piece, &mut steps),
            }
        }
    }

    /// Bytes become durable one after the other, each with its mark.
    fn store(&mut self, piece: &Piece, steps: &mut usize) {
        for (at, byte) in piece.data.iter().enumerate() {
            let Some(left) = steps.checked_sub(1) else { return };
            *steps = left;
            self.durable.push(*byte);
            self.mark = match at + 1 == piece.data.len() {
                true => piece.after,
                false => Mark { done: piece.before.done + at as u32 + 1, ..piece.before },
            };
        }
    }

    fn die(&mut self, steps: usize) {
        let message = self
            .wires
            .last_mut()
            .and_then(|(wire, under_way)| Some((*wire, under_way.pop_front()?)));
        if let Some((wire, message)) = message {
            let outputs = self.talk.message(wire, message, now(0));
            self.perform(outputs, steps);
        }
        self.wires.clear();
        self.replies.clear();
        let known =
            Known { started_at: self.started, mark: self.mark, bytes: self.durable.len() as u64 };
        self.talk = Talk::resume(None, known, now(0));
        if self.ended.is_some() {
            // The hub has it: nothing is taken any more.
            self.talk.stage = Stage::Settled;
            self.talk.mark.next = self.talk.mark.next.max(self.next);
        }
        self.reconnect();
    }

    fn hear(&mut self) {
        match self.replies.pop_front() {
            Some(Reply::Ack { ack_type: Acked::Output, seq: Some(seq) }) => self.drop_up_to(seq),
            Some(Reply::SyncResponse { last_seq: -1 }) => self.pending.clear(),
            Some(Reply::SyncResponse { last_seq }) => {
                let last = u64::try_from(last_seq).unwrap();
                if self.acked.is_none_or(|acked| last >= acked) {
                    self.drop_up_to(last);
                }
            }
            Some(Reply::Ack { ack_type: Acked::Complete, .. }) => self.done = true,
            Some(
                Reply::Ack { .. } | Reply::Nack { .. } | Reply::Kill { .. } | Reply::Error { .. },
            )
            | None => {}
        }
    }

    fn drop_up_to(&mut self, seq: u64) {
        self.acked = self.acked.max(Some(seq));
        self.pending.retain(|pending, _| *pending > seq);
    }

    fn happens(&mut self, luck: Luck) {
        match luck {
            Luck::Writes => self.write(),
            Luck::Reconnects => self.reconnect(),
            Luck::Takes(which) => self.take(which, 1),
            Luck::TakesTwice(which) => self.take(which, 2),
            Luck::Hears => self.hear(),
            Luck::Breaks(which) if which < self.wires.len() => {
                let (wire, _) = self.wires.remove(which);
                self.talk.gone(wire, now(0));
                if wire == self.newest {
                    self.reconnect();
                }
            }
            Luck::Breaks(_) => {}
            Luck::Dies(steps) => self.die(steps),
            Luck::Asks => self.send(says(Said::Sync { last_acked: self.acked })),
        }
    }

    /// The end of the original: connect, send all, wait for all, or do it again.
    fn finish(&mut self) {
        for _ in 0..30 {
            self.reconnect();
            self.send(complete(3, self.next));
            while self.wires.last().is_some_and(|(_, under_way)| !under_way.is_empty()) {
                let last = self.wires.len() - 1;
                self.take(last, 1);
            }
            while !self.replies.is_empty() {
                self.hear();
            }
            if self.done {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_happens_every_byte_comes_once_and_in_order(lucks in prop::collection::vec(luck(), 0..80)) {
        let mut world = World::new();
        lucks.into_iter().for_each(|luck| world.happens(luck));
        world.finish();
        prop_assert!(world.done, "the wrapper was told that its end is recorded");
        prop_assert_eq!(String::from_utf8(world.durable).unwrap(), world.written);
        prop_assert_eq!(world.ended.and_then(|end| end.exit_code), Some(3));
    }
}
