//! Words on the wire: agent frames, API types and the few values both are made of.
//!
//! Nothing here decides or acts. Frames are CBOR arrays with positional fields
//! (RFC 8949, by `minicbor`): a reader skips what a newer writer added at the end,
//! and reads an absent last field as `None`, so neighbours one minor version apart
//! keep talking. API types are JSON.

pub mod api;
pub mod frame;
mod id;
mod join;
mod key;
pub mod record;
mod time;

pub use id::{
    Epoch, HostId, HostName, Incarnation, InvalidName, JobName, MaintenanceId, NodeId, RunId,
    TaskKey,
};
pub use join::{InvalidJoin, Join};
pub use key::{InvalidKey, PublicKey};
pub use time::{InvalidTime, Span, Timestamp};

/// The first and last version of the agent protocol that this build speaks.
pub const PROTOCOL: std::ops::RangeInclusive<u16> = 1..=2;

/// The first version of the agent protocol in which a change can be armed. An older agent would skip the
/// undo and never undo anything, so it is never sent such a start.
pub const ARMED: u16 = 2;
