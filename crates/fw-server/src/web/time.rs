//! Instants and durations as pages show them. Scripts keep them true while a page is open.

use fw_proto::{Span, Timestamp};

/// An instant with what is said of it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct When {
    /// RFC 3339, for scripts and for who points at it.
    pub(super) iso: String,
    /// Such as `5 min ago` or `in 2 h`.
    pub(super) text: String,
}

impl When {
    pub(super) fn new(now: Timestamp, at: Timestamp) -> Self {
        let text = match at > now {
            true => format!("in {}", about(at.since(now))),
            false if now.since(at) < Span::from_secs(1) => "just now".to_owned(),
            false => format!("{} ago", about(now.since(at))),
        };
        Self { iso: at.to_string(), text }
    }
}

/// A duration in its largest unit, as far as people care.
pub(super) fn about(span: Span) -> String {
    let secs = span.as_millis() / 1000;
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// How long something took: two units at most.
pub(super) fn took(span: Span) -> String {
    let (ms, secs) = (span.as_millis(), span.as_millis() / 1000);
    match secs {
        0 => format!("{ms} ms"),
        1..10 => format!("{}.{} s", secs, ms % 1000 / 100),
        10..60 => format!("{secs} s"),
        60..3600 => format!("{} m {:02} s", secs / 60, secs % 60),
        _ => format!("{} h {:02} m", secs / 3600, secs % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_their_largest_unit() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        let ago = |secs| When::new(now, now - Span::from_secs(secs)).text;
        assert_eq!(ago(0), "just now");
        assert_eq!(ago(7), "7 s ago");
        assert_eq!(ago(14 * 60 + 59), "14 min ago");
        assert_eq!(ago(47 * 3600), "47 h ago");
        assert_eq!(ago(48 * 3600), "2 d ago");
        assert_eq!(When::new(now, now + Span::from_secs(120)).text, "in 2 min");
    }

    #[test]
    fn what_took_long_is_said_in_two_units() {
        let took = |ms| took(Span::from_millis(ms));
        assert_eq!(took(38), "38 ms");
        assert_eq!(took(1_840), "1.8 s");
        assert_eq!(took(59_900), "59 s");
        assert_eq!(took(92_000), "1 m 32 s");
        assert_eq!(took(3_600_000), "1 h 00 m");
    }
}
