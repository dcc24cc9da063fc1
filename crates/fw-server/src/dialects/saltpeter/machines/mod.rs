//! Wrappers: the programs that Saltpeter leaves on machines, and what is said with them.
//!
//! `message` is the words, `talk` decides what is said in one task, `piece` is output with the mark of how
//! far it reaches, `instance` the names that nobody can make up. `door` is the port where wrappers
//! connect; whose task they are of is the business of `salt`.

pub(crate) mod door;
pub(crate) mod instance;
pub mod message;
pub(crate) mod piece;
pub mod talk;

use self::message::{Acked, Message, Reply, Said};

/// What a wrapper hears whose run is over or was never begun here: `recorded` when its end is what was
/// recorded. The first two are acknowledged whatever they are, for a wrapper that hears nothing
/// connects anew every two seconds for as long as its command runs.
pub(crate) fn stranger(message: &Message, recorded: bool) -> Vec<Reply> {
    match &message.said {
        Said::Connect => vec![Reply::ack(Acked::Connect)],
        Said::Start => vec![Reply::ack(Acked::Start)],
        Said::Sync { .. } => vec![Reply::SyncResponse { last_seq: -1 }],
        Said::Complete { seq, .. } if recorded => {
            vec![Reply::Ack { ack_type: Acked::Complete, seq: *seq }]
        }
        Said::Complete { .. } => vec![Reply::NOT_FOUND],
        Said::Heartbeat | Said::Output { .. } | Said::Error(_) | Said::Other => Vec::new(),
    }
}
