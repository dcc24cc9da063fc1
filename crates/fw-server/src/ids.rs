//! New ids.

use fw_proto::Timestamp;
use uuid::Uuid;

/// An id that sorts by time (RFC 9562, version 7).
pub(crate) fn v7(now: Timestamp) -> Uuid {
    let ms = u64::try_from(now.as_millis()).unwrap_or(0);
    let (seconds, nanoseconds) = (ms / 1000, u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds))
}
