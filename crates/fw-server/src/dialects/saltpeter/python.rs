//! What Python writes, where others read it.

use fw_proto::Timestamp;

/// As `str` writes a time in UTC: `2026-11-20 13:54:46.143000+00:00`, without the fraction when there is none.
#[must_use]
pub fn time(at: Timestamp) -> String {
    written(at, ' ')
}

/// As `isoformat` writes it: with a `T` instead of the blank.
#[must_use]
pub fn iso_time(at: Timestamp) -> String {
    written(at, 'T')
}

fn written(at: Timestamp, between: char) -> String {
    let rfc = at.to_string();
    let (date, clock) = rfc.split_once('T').expect("RFC 3339 has a T");
    let (seconds, ms) = (clock.get(..8).unwrap_or(clock), at.as_millis() % 1000);
    match ms {
        0 => format!("{date}{between}{seconds}+00:00"),
        ms => format!("{date}{between}{seconds}.{ms:03}000+00:00"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_does() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(time(at("2026-11-20T13:54:46.143Z")), "2026-11-20 13:54:46.143000+00:00");
        assert_eq!(time(at("2026-11-20T13:54:46Z")), "2026-11-20 13:54:46+00:00");
        assert_eq!(iso_time(at("2026-11-20T00:00:00.007Z")), "2026-11-20T00:00:00.007000+00:00");
        assert_eq!(time(Timestamp::EPOCH), "1970-01-01 00:00:00+00:00");
    }
}
