//! Agent frames: all that is said inside the encrypted link.
//!
//! `docs/protocol.md` shows each with the bytes of an example; the golden files in
//! `tests/data/frames` hold them for every release. A frame is a CBOR array
//! `[number, [fields…]]`. New fields are appended and optional; a frame with an unknown
//! number is skipped. Numbers are never used again.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::record::Offsets;
use crate::{Epoch, HostId, HostName, Incarnation, PublicKey, Span, TaskKey, Timestamp};

/// The longest frame either side sends. A longer one ends the link.
pub const MAX_FRAME: usize = 1024 * 1024;

/// The longest name, reason or other short text in a frame; longer ones are cut.
pub const MAX_TEXT: usize = 1024;

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum FromAgent<'a> {
    /// First frame of a host that is enrolled.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// First frame of a host that is not: asks to be enrolled.
    #[n(1)]
    Join(#[n(0)] JoinRequest),
    /// What the host is like. Sent after [`FromServer::Welcome`], and when it changes.
    #[n(2)]
    Facts(#[n(0)] Facts),
    /// What became of tasks, in the order it came about.
    #[n(3)]
    Reports(#[n(0)] Vec<Report>),
    /// The next piece of a task's output.
    #[n(4)]
    Chunk(#[cbor(n(0), borrow)] Chunk<'a>),
    /// Answers [`FromServer::Ping`] with its number.
    #[n(5)]
    Pong(#[n(0)] u64),
    /// The host asks to be known by a new key from its next link on.
    #[n(6)]
    Rekey(#[n(0)] PublicKey),
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum FromServer {
    /// Answers [`FromAgent::Hello`] and [`FromAgent::Join`]: the host is in.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// The host is refused; the link closes.
    #[n(1)]
    Denied(#[n(0)] Denied),
    /// Start these tasks, each at most once.
    #[n(2)]
    Start(#[n(0)] Vec<Start>),
    /// End these tasks.
    #[n(3)]
    Cancel(#[n(0)] Vec<TaskKey>),
    /// Output up to here is durable on the server.
    #[n(4)]
    Ack(#[n(0)] Ack),
    /// The ends of these tasks are recorded: the host may drop all but their ids.
    #[n(5)]
    Settled(#[n(0)] Vec<TaskKey>),
    /// What does the host know of these tasks? It answers with a report for each.
    #[n(6)]
    Query(#[n(0)] Vec<TaskKey>),
    /// Are you there? Answered by [`FromAgent::Pong`]; silence for three intervals ends the link.
    #[n(7)]
    Ping(#[n(0)] u64),
    /// The server's keys from now on; replaces the set that the host has pinned.
    #[n(8)]
    ServerKeys(#[n(0)] Vec<PublicKey>),
    /// Answers [`FromAgent::Rekey`]: the new key is recorded.
    #[n(9)]
    Rekeyed(#[n(0)] PublicKey),
    /// The word that these armed changes wait for ([`Reported::Applied`]): keep them. Since
    /// [`crate::ARMED`].
    #[n(10)]
    Keep(#[n(0)] Vec<TaskKey>),
}

/// Who a host is and what it remembers.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Hello {
    /// Version of the agent's build.
    #[n(0)]
    pub agent_version: String,
    /// Protocol versions it speaks, first and last.
    #[n(1)]
    pub protocol: (u16, u16),
    /// Stable id of the machine (`machine-id(5)`), hashed; tells clones apart.
    #[n(2)]
    pub machine_id: String,
    /// Id of this boot (`/proc/sys/kernel/random/boot_id`).
    #[n(3)]
    pub boot_id: String,
    /// The digest: each task that the host has not been told is settled.
    #[n(4)]
    pub tasks: Vec<Report>,
    /// What the local policy allows.
    #[n(5)]
    pub policy: PolicyMode,
    /// The highest epoch the host has seen.
    #[n(6)]
    pub epoch: Epoch,
    /// Made up at each start of the agent: tells a copied state directory from a link made anew.
    #[n(7)]
    pub instance: String,
}

/// A request to enrol.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct JoinRequest {
    /// Secret of the invitation.
    #[n(0)]
    pub secret: String,
    /// The name the host would like; checked by the server, hence plain text.
    #[n(1)]
    pub name: String,
    /// As in [`Hello`].
    #[n(2)]
    pub hello: Hello,
}

/// The host's claims about itself, as JSON (an object).
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Facts {
    /// JSON text, at most [`MAX_FACTS`] bytes.
    #[n(0)]
    pub json: String,
}

/// The most bytes of facts that a server stores for a host.
pub const MAX_FACTS: usize = 256 * 1024;

/// What the host's own policy lets the server do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum PolicyMode {
    /// Report only; starts are refused.
    #[n(0)]
    Observe,
    /// Start what the policy allows.
    #[n(1)]
    Operate,
}

/// Welcome to the fleet.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Welcome {
    /// The host's id.
    #[n(0)]
    pub host: HostId,
    /// Its name.
    #[n(1)]
    pub name: HostName,
    /// Protocol version that both will speak.
    #[n(2)]
    pub protocol: u16,
    /// The server's store.
    #[n(3)]
    pub incarnation: Incarnation,
    /// The server's fencing number.
    #[n(4)]
    pub epoch: Epoch,
    /// The server's clock, so that a host whose clock is off can say so.
    #[n(5)]
    pub now: Timestamp,
    /// A ping comes at least this often.
    #[n(6)]
    pub ping_every: Span,
    /// For each task of the digest, how much of its output is durable here.
    #[n(7)]
    pub resume: Vec<Ack>,
}

/// Why a host is refused.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Denied {
    /// For programs.
    #[n(0)]
    pub reason: DeniedReason,
    /// For people: what to do.
    #[n(1)]
    pub message: String,
    /// Come back no sooner.
    #[n(2)]
    pub retry_after: Option<Span>,
}

/// For programs: why a host is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum DeniedReason {
    /// The server does not know the key.
    #[n(0)]
    UnknownKey,
    /// The host was revoked.
    #[n(1)]
    Revoked,
    /// Two machines use this key.
    #[n(2)]
    Duplicate,
    /// The invitation is wrong, used up or expired.
    #[n(3)]
    Invitation,
    /// Another host has this name.
    #[n(4)]
    NameTaken,
    /// This cannot be a host's name.
    #[n(5)]
    NameInvalid,
    /// No protocol version in common.
    #[n(6)]
    Protocol,
    /// The server is busy admitting hosts.
    #[n(7)]
    Busy,
    /// A newer link of the same host took over.
    #[n(8)]
    Superseded,
    /// A frame that breaks the protocol or a bound.
    #[n(9)]
    Malformed,
}

/// Start a task, at most once.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Start {
    /// Which task.
    #[n(0)]
    pub key: TaskKey,
    /// Not to be started later than this.
    #[n(1)]
    pub not_after: Timestamp,
    /// Under which the start was decided.
    #[n(2)]
    pub incarnation: Incarnation,
    /// Of the server that sends it.
    #[n(3)]
    pub epoch: Epoch,
    /// What to start.
    #[n(4)]
    pub spec: Spec,
}

/// What to start and how.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Spec {
    /// The command.
    #[n(0)]
    pub command: Command,
    /// The user to run as; the agent's own when absent.
    #[n(1)]
    pub user: Option<String>,
    /// Working directory; the user's home (or `/`) when absent.
    #[n(2)]
    pub cwd: Option<String>,
    /// Environment added to the clean one.
    #[n(3)]
    pub env: BTreeMap<String, String>,
    /// Environment whose values are secret: masked in output, and on no disk but that of a host whose
    /// change is armed, until that is over.
    #[n(4)]
    pub secrets: BTreeMap<String, String>,
    /// Ended after so long; `None` is no limit.
    #[n(5)]
    pub timeout: Option<Span>,
    /// From TERM to KILL.
    #[n(6)]
    pub kill_after: Span,
    /// What happens when the spool is full.
    #[n(7)]
    pub on_full: OnFull,
    /// The bound of the spool, bytes.
    #[n(8)]
    pub spool_bytes: u64,
    /// Niceness from -20 to 19 (`nice(2)`).
    #[n(9)]
    pub nice: Option<i8>,
    /// File mode creation mask (`umask(2)`).
    #[n(10)]
    pub umask: Option<u16>,
    /// The command is a change that the host undoes by itself unless it is confirmed in time.
    #[n(11)]
    pub armed: Option<Armed>,
}

/// How a host undoes a change, and when. Never sent to an agent older than [`crate::ARMED`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Armed {
    /// Undoes the change, also one that was only half made, and also twice.
    #[n(0)]
    pub undo: Command,
    /// How long the host waits for the word, from the moment at which the change has succeeded.
    #[n(1)]
    pub within: Span,
    /// Proves on the host that the change is good: without exit code 0 it is not kept.
    #[n(2)]
    pub probe: Option<Command>,
}

/// A command as the host starts it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Program and arguments, no shell between.
    #[n(0)]
    Argv(#[n(0)] Vec<String>),
    /// A text for `/bin/sh -c`.
    #[n(1)]
    Shell(#[n(0)] String),
}

/// What happens when a task's spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum OnFull {
    /// The pipe fills and the command waits.
    #[default]
    #[n(0)]
    Block,
    /// New bytes are not kept; a gap is recorded.
    #[n(1)]
    Drop,
}

/// What became of one task.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Report {
    /// Which task.
    #[n(0)]
    pub key: TaskKey,
    /// Its state on the host.
    #[n(1)]
    pub state: Reported,
}

/// The state of a task on its host.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Reported {
    /// Answers a query: the host has never seen this id, and its memory reaches far enough to say so.
    #[n(0)]
    NotKnown,
    /// Received; waits for one of the host's slots.
    #[n(1)]
    Queued,
    /// Its process was started.
    #[n(2)]
    Started(#[n(0)] Timestamp),
    /// Its process ended, and all its output was sent before this.
    #[n(3)]
    Ended(#[n(0)] Ended),
    /// The host did not start it, and will not.
    #[n(4)]
    Refused(#[n(0)] Refusal),
    /// The host cannot tell whether it ran.
    #[n(5)]
    Unknown(#[n(0)] String),
    /// An armed change has succeeded, and its host waits for [`FromServer::Keep`].
    #[n(6)]
    Applied(#[n(0)] Applied),
}

impl Reported {
    /// Cuts texts for people to [`MAX_TEXT`] bytes.
    pub fn cut(&mut self) {
        let text = match self {
            Self::Refused(refusal) => &mut refusal.message,
            Self::Unknown(why) => why,
            Self::NotKnown
            | Self::Queued
            | Self::Started(_)
            | Self::Applied(_)
            | Self::Ended(_) => return,
        };
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }

    /// Whether the host has no more to say of the task.
    #[must_use]
    pub const fn is_last_word(&self) -> bool {
        match self {
            Self::NotKnown | Self::Queued | Self::Started(_) | Self::Applied(_) => false,
            Self::Ended(_) | Self::Refused(_) | Self::Unknown(_) => true,
        }
    }
}

/// An armed change that waits for the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Applied {
    /// When its process was started.
    #[n(0)]
    pub started_at: Timestamp,
    /// When it had succeeded, so that the wait began.
    #[n(1)]
    pub at: Timestamp,
    /// When it is undone unless it is kept before. For people: the host keeps the time by another clock.
    #[n(2)]
    pub until: Timestamp,
}

/// What became of an armed change, as its host knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Fate {
    /// It was confirmed in time, which is on the host's disk.
    #[n(0)]
    Kept,
    /// The undo has succeeded.
    #[n(1)]
    Undone,
    /// The undo did not succeed, however often it was tried: a person must look.
    #[n(2)]
    UndoFailed,
}

/// How a task's main process ended.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Ended {
    /// What ended it.
    #[n(0)]
    pub cause: Cause,
    /// Exit code, when it exited.
    #[n(1)]
    pub exit_code: Option<i32>,
    /// Signal number, when a signal ended it.
    #[n(2)]
    pub signal: Option<i32>,
    /// When it was started.
    #[n(3)]
    pub started_at: Timestamp,
    /// When it ended.
    #[n(4)]
    pub finished_at: Timestamp,
    /// How much it wrote.
    #[n(5)]
    pub output: Offsets,
    /// SHA-256 (FIPS 180-4) of the stored bytes of stdout; absent when the supervisor was killed.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub stdout_sha256: Option<[u8; 32]>,
    /// Likewise of stderr.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub stderr_sha256: Option<[u8; 32]>,
    /// Processes that it left behind.
    #[n(8)]
    pub left_behind: u32,
    /// What became of an armed change. The rest tells of the change itself, but for the time at which it
    /// ended: that is when this was known.
    #[n(9)]
    pub armed: Option<Fate>,
}

/// What ended a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Cause {
    /// Its main process ended by itself.
    #[n(0)]
    Exited,
    /// Its timeout.
    #[n(1)]
    TimedOut,
    /// It was cancelled.
    #[n(2)]
    Cancelled,
}

/// Why a host did not start a task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// For programs.
    #[n(0)]
    pub reason: RefusalReason,
    /// For people.
    #[n(1)]
    pub message: String,
}

/// For programs: why a host did not start a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalReason {
    /// `not_after` had passed.
    #[n(0)]
    Expired,
    /// Sent by a server that another one has replaced.
    #[n(1)]
    Fenced,
    /// The local policy forbids it.
    #[n(2)]
    Policy,
    /// Too many tasks wait on this host already.
    #[n(3)]
    QueueFull,
    /// No such user, or the agent may not become that user.
    #[n(4)]
    User,
    /// The program or directory does not exist or cannot be used.
    #[n(5)]
    Spawn,
    /// Cancelled before it was started.
    #[n(6)]
    Cancelled,
    /// The state directory cannot be written.
    #[n(7)]
    Disk,
}

/// A piece of a task's output: whole records (see [`crate::record`]) in one zstd frame (RFC 8878).
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Chunk<'a> {
    /// Which task.
    #[n(0)]
    pub key: TaskKey,
    /// Where it begins.
    #[n(1)]
    pub from: Offsets,
    /// Where it ends.
    #[n(2)]
    pub to: Offsets,
    /// Bytes before compression.
    #[n(3)]
    pub raw_len: u32,
    /// The compressed records.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub data: &'a [u8],
}

/// How much of a task's output is durable on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// Which task.
    #[n(0)]
    pub key: TaskKey,
    /// All up to here.
    #[n(1)]
    pub durable: Offsets,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame: {0}")]
pub struct Malformed(String);

/// A decoded frame, or the notice that it is one of a later version.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<T> {
    /// A frame.
    Frame(T),
    /// A frame whose number this build does not know: to be skipped.
    Unknown,
}

/// Most frames are shorter: their buffer never grows.
const USUAL: usize = 256;

/// Encodes a frame.
#[must_use]
pub fn encode<T: Encode<()>>(frame: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL);
    minicbor::encode(frame, &mut bytes).expect("writing to memory cannot go wrong");
    bytes
}

/// Decodes a frame.
///
/// # Errors
/// The bytes are no frame, or hold more than one.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<Decoded<T>, Malformed> {
    let mut decoder = minicbor::Decoder::new(bytes);
    match decoder.decode() {
        Ok(frame) if decoder.position() == bytes.len() => Ok(Decoded::Frame(frame)),
        Ok(_) => Err(Malformed("bytes after its end".to_owned())),
        Err(error) if error.is_unknown_variant() => Ok(Decoded::Unknown),
        Err(error) => Err(Malformed(error.to_string())),
    }
}
