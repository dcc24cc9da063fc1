//! Words about tasks, for people.

use fw_proto::frame::{Cause, Ended, Refusal, Reported};

use crate::run::fate_text;

/// For people: how a command ended.
pub(super) fn how_it_ended(ended: &Ended) -> String {
    let cause = match ended.cause {
        Cause::Exited => "",
        Cause::TimedOut => " after its timeout",
        Cause::Cancelled => " when it was cancelled",
    };
    let how = match (ended.exit_code, ended.signal) {
        (Some(code), _) => format!("exited with code {code}{cause}"),
        (None, Some(signal)) => format!("was ended by signal {signal}{cause}"),
        (None, None) => format!("ended{cause}"),
    };
    match ended.armed {
        None => how,
        Some(fate) => format!("{how}, and {}", fate_text(fate)),
    }
}

/// The same with no longer a text than `max` bytes.
pub(super) fn with_text(state: Reported, max: usize) -> Reported {
    match state {
        Reported::Refused(Refusal { reason, message }) => {
            Reported::Refused(Refusal { reason, message: cut(&message, max) })
        }
        Reported::Unknown(why) => Reported::Unknown(cut(&why, max)),
        Reported::NotKnown
        | Reported::Queued
        | Reported::Started(_)
        | Reported::Applied(_)
        | Reported::Ended(_) => state,
    }
}

/// The beginning of a text: at most `max` bytes of it, whole characters.
pub(super) fn cut(text: &str, max: usize) -> String {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned()
}
