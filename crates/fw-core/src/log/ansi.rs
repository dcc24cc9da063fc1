//! Escape sequences of terminals (ECMA-48 §5.4, §8.3.89), left out of a text.

use std::borrow::Cow;

const ESCAPE: u8 = 0x1b;

/// A text as it reads: without escape sequences, and of what was overwritten (`50%\r100%`) only the last.
#[must_use]
pub fn plain(text: &[u8]) -> Cow<'_, [u8]> {
    let text = overwritten(text);
    if !text.contains(&ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == ESCAPE) {
        kept.extend_from_slice(rest.get(..at).unwrap_or_default());
        rest = after_escape(rest.get(at + 1..).unwrap_or_default());
    }
    kept.extend_from_slice(rest);
    Cow::Owned(kept)
}

/// What follows the last carriage return that is not at the end.
fn overwritten(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b'\r').map_or(0, |at| at + 1);
    let text = text.get(..end).unwrap_or_default();
    let begin = text.iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1);
    text.get(begin..).unwrap_or_default()
}

/// The text behind a sequence whose escape has been read.
fn after_escape(text: &[u8]) -> &[u8] {
    let Some((kind, rest)) = text.split_first() else { return text };
    let taken = match kind {
        // A control sequence ends with a byte from 0x40 to 0x7e.
        b'[' => rest.iter().position(|byte| (0x40..=0x7e).contains(byte)).map(|at| at + 1),
        // Control strings (OSC, DCS, SOS, PM, APC) end with a bell or with `ESC \`.
        b']' | b'P' | b'X' | b'^' | b'_' => string_end(rest),
        // Intermediates, then one byte: the choice of a set of characters and the like.
        0x20..=0x2f => rest.iter().position(|byte| !(0x20..=0x2f).contains(byte)).map(|at| at + 1),
        _ => Some(0),
    };
    // A sequence that does not end takes the rest of its line.
    taken.and_then(|taken| rest.get(taken..)).unwrap_or_default()
}

fn string_end(text: &[u8]) -> Option<usize> {
    let end = text.iter().position(|byte| *byte == 0x07 || *byte == ESCAPE)?;
    match (text.get(end), text.get(end + 1)) {
        (Some(&ESCAPE), Some(b'\\')) => Some(end + 2),
        // Another sequence begins, which ends this one.
        (Some(&ESCAPE), _) => Some(end),
        (_, _) => Some(end + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&plain(text.as_bytes())), expected, "{text:?}");
    }

    #[test]
    fn sequences_are_left_out() {
        check("plain", "plain");
        check("\x1b[1;31mred\x1b[0m and not", "red and not");
        check("\x1b[38;2;1;2;3mtrue\x1b[m", "true");
        check("a\x1b]0;a title\x07b", "ab");
        check("a\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb");
        check("a\x1bP1$r\x1b\\b\x1b^x\x07c", "abc");
        check("a\x1b(Bb\x1b7c\x1b", "abc");
        check("a\x1b[31", "a");
        check("a\x1b]0;never ends", "a");
        check("a\x1b]0;cut\x1b[31mb", "ab");
    }

    #[test]
    fn what_is_overwritten_is_left_out() {
        check("10%\r50%\r100%", "100%");
        check("a line of Windows\r", "a line of Windows");
        check("10%\r100%\r\r", "100%");
        check("\r", "");
    }

    proptest! {
        #[test]
        fn no_escape_is_left(text in prop::collection::vec(prop_oneof![Just(ESCAPE), Just(b']'), Just(b'['), Just(b'\r'), Just(7), any::<u8>()], 0..60)) {
            let plain = plain(&text).into_owned();
            prop_assert!(!plain.contains(&ESCAPE) && !plain.contains(&b'\r'), "{:?}", plain);
        }
    }
}
