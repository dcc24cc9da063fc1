//! What a command prints, for a terminal: its colours stay, and nothing else that steers it.
//!
//! Many hosts share one screen here. A sequence that moves the cursor, sets the title or fills the
//! clipboard (ECMA-48; xterm's "Control Sequences") would let one host forge what another says,
//! or do worse. Pipes, files and `--raw` get all bytes.

/// The longest colour sequence that is let through: two colours of 24 bits and some styles fit.
const LONGEST: usize = 64;

/// Where one source is within a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tame {
    state: State,
    /// Bytes that the character at hand still lacks.
    lacks: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    #[default]
    Text,
    /// `C2`, the first byte of the C1 control characters and of others.
    Latin,
    /// After `ESC`; also after the intermediate bytes of a short sequence.
    Escape,
    /// After `ESC [`, with its parameters.
    Control(Vec<u8>),
    /// In a string (OSC, DCS, SOS, PM, APC); the end is BEL or `ESC \`.
    Words,
    /// After `ESC` in a string.
    WordsEscape,
}

impl Tame {
    /// The part of `bytes` that a terminal may see. Call it for the pieces of a line in order,
    /// and begin anew with each line: a string without end swallows no other line.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.step(*byte, &mut shown);
        }
        shown
    }

    fn step(&mut self, byte: u8, shown: &mut Vec<u8>) {
        self.state = match (std::mem::take(&mut self.state), byte) {
            (State::Words, 0x07) => State::Text,
            (State::Words, 0x1b) => State::WordsEscape,
            (State::Words, _) => State::Words,
            (State::WordsEscape, b'\\') => State::Text,
            (State::WordsEscape, _) => self.escape(byte, shown),
            (State::Escape, _) => self.escape(byte, shown),
            (State::Control(parameters), _) => self.control(parameters, byte, shown),
            (State::Latin, 0x80..=0x9f) => State::Text,
            (State::Latin, 0xa0..=0xbf) => {
                shown.extend([0xc2, byte]);
                State::Text
            }
            (State::Latin, _) => {
                shown.push(0xc2);
                self.text(byte, shown)
            }
            (State::Text, _) => self.text(byte, shown),
        };
    }

    fn text(&mut self, byte: u8, shown: &mut Vec<u8>) -> State {
        let lacked = std::mem::take(&mut self.lacks);
        match byte {
            0x1b => return State::Escape,
            0xc2 => return State::Latin,
            b'\t' => {}
            0x00..=0x1f | 0x7f => return State::Text,
            0x80..=0xbf if lacked > 0 => self.lacks = lacked - 1,
            // Alone, it is a control character to terminals that know 8 bits only.
            0x80..=0x9f => return State::Text,
            0xc3..=0xdf => self.lacks = 1,
            0xe0..=0xef => self.lacks = 2,
            0xf0..=0xf4 => self.lacks = 3,
            0x20..=0x7e | 0xa0..=0xbf | 0xc0 | 0xc1 | 0xf5..=0xff => {}
        }
        shown.push(byte);
        State::Text
    }

    fn escape(&mut self, byte: u8, shown: &mut Vec<u8>) -> State {
        match byte {
            b'[' => State::Control(Vec::new()),
            b']' | b'P' | b'X' | b'^' | b'_' => State::Words,
            0x1b | 0x20..=0x2f => State::Escape,
            0x30..=0x7e => State::Text,
            0x00..=0x1a | 0x1c..=0x1f | 0x7f..=0xff => self.text(byte, shown),
        }
    }

    fn control(&mut self, mut parameters: Vec<u8>, byte: u8, shown: &mut Vec<u8>) -> State {
        match byte {
            0x20..=0x3f => {
                // One more than is let through is remembered, and no more.
                if parameters.len() <= LONGEST {
                    parameters.push(byte);
                }
                State::Control(parameters)
            }
            b'm' if is_colour(&parameters) => {
                shown.extend(b"\x1b[");
                shown.append(&mut parameters);
                shown.push(b'm');
                State::Text
            }
            0x40..=0x7e => State::Text,
            0x00..=0x1f | 0x7f..=0xff => self.text(byte, shown),
        }
    }
}

/// Select Graphic Rendition takes numbers only; with a private mark, `m` means something else.
fn is_colour(parameters: &[u8]) -> bool {
    parameters.len() <= LONGEST
        && parameters.iter().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(bytes: &[u8]) -> Vec<u8> {
        Tame::default().pass(bytes)
    }

    #[test]
    fn colours_stay_and_the_rest_goes() {
        let check = |from: &[u8], to: &str| {
            assert_eq!(String::from_utf8_lossy(&pass(from)), to, "{}", from.escape_ascii());
        };
        check(b"\x1b[1;31mred\x1b[m \x1b[38:2::1:2:3mx", "\x1b[1;31mred\x1b[m \x1b[38:2::1:2:3mx");
        check(b"a\x1b[2Jb\x1b[10;3Hc\x1b[?1049hd\x1b[>4;2me", "abcde");
        check(b"a\x1b]0;title\x07b\x1b]52;c;aGk=\x1b\\c\x1bPq~\x1b\\d", "abcd");
        check(b"a\x1bcb\x1b(0c\x1b7d", "abcd");
        check(b"50%\r100%\x08\x07\x0e\r", "50%100%");
        check("größe\t漢 \u{9b}31m£".as_bytes(), "größe\t漢 31m£");
        check(b"a\x9b2Jb\x1b[3\x1b[4mc", "a2Jb\x1b[4mc");
        check(b"swallowed \x1b]0;no end", "swallowed ");
    }

    /// Whether a terminal sees text and colours only.
    fn is_tame(mut bytes: &[u8]) -> bool {
        while let Some((first, rest)) = bytes.split_first() {
            bytes = match *first {
                0x1b => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'm') else {
                        return false;
                    };
                    let (sequence, after) = rest.split_at(end);
                    let inner = sequence.strip_prefix(b"[");
                    if !inner.is_some_and(is_colour) {
                        return false;
                    }
                    after
                }
                0x00..=0x08 | 0x0a..=0x1f | 0x7f => return false,
                _ => rest,
            };
        }
        true
    }

    fn wild() -> impl Strategy<Value = Vec<u8>> {
        let tricky = b"\x1b[]m;1:?>P\\\x07\r\t\x9b\xc2\xc3\xe2\x80 aJ".to_vec();
        prop_oneof![
            prop::collection::vec(prop::sample::select(tricky), 0..40),
            prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #[test]
        fn nothing_but_colour_steers_the_terminal(bytes in wild()) {
            let shown = pass(&bytes);
            prop_assert!(is_tame(&shown), "{}", shown.escape_ascii());
            let controls = String::from_utf8_lossy(&shown).chars()
                .any(|c| c.is_control() && !matches!(c, '\t' | '\u{1b}'));
            prop_assert!(!controls, "{}", shown.escape_ascii());
        }

        #[test]
        fn any_split_shows_the_same(bytes in wild(), at in any::<prop::sample::Index>()) {
            let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
            let mut tame = Tame::default();
            let mut parts = tame.pass(first);
            parts.extend(tame.pass(second));
            prop_assert_eq!(parts, pass(&bytes));
        }

        #[test]
        fn text_stays_as_it_is(text in "\\PC*") {
            prop_assert_eq!(pass(text.as_bytes()), text.as_bytes());
        }
    }
}
