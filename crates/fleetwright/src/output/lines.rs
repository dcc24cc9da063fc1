//! Cuts the output of many hosts into lines, so that they can be shown one below the other.
//!
//! Bytes are passed through as they are, valid UTF-8 or not. A line is held until its end
//! has come; a line that is longer than [`HELD`] is given out in pieces, so that a command that
//! never ends its line costs no more memory than that.

use std::collections::BTreeMap;

/// Bytes of an unfinished line that are held back, for each source.
pub(crate) const HELD: usize = 64 * 1024;

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The bytes, without the newline.
    pub(crate) bytes: Vec<u8>,
    /// Whether the line begins here.
    pub(crate) begins: bool,
    /// Whether the line ends here.
    pub(crate) ends: bool,
}

/// Lines that have not ended, by where they come from.
#[derive(Debug)]
pub(crate) struct Lines<K> {
    open: BTreeMap<K, Open>,
}

#[derive(Debug, Default)]
struct Open {
    held: Vec<u8>,
    /// Part of the line was given out already.
    begun: bool,
}

impl<K: Ord + Clone> Lines<K> {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self { open: BTreeMap::new() }
    }

    /// Takes the next bytes of a source and gives the pieces that are to be shown now.
    pub(crate) fn push(&mut self, from: &K, mut bytes: &[u8]) -> Vec<Piece> {
        let mut open = self.open.remove(from).unwrap_or_default();
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            // At most one byte more than fits, so that a newline right after HELD bytes ends the line.
            let room = HELD + 1 - open.held.len();
            let (window, _) = bytes.split_at(room.min(bytes.len()));
            let (part, rest, ended) = match window.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    let (part, rest) = bytes.split_at(at);
                    (part, rest.get(1..).unwrap_or_default(), true)
                }
                None => {
                    let (part, rest) = bytes.split_at(window.len().min(HELD - open.held.len()));
                    (part, rest, false)
                }
            };
            open.held.extend_from_slice(part);
            let full = !ended && open.held.len() == HELD && !rest.is_empty();
            bytes = rest;
            if ended || full {
                let held = std::mem::take(&mut open.held);
                let begun = std::mem::replace(&mut open.begun, full);
                pieces.push(Piece { bytes: held, begins: !begun, ends: ended });
            }
        }
        if !open.held.is_empty() || open.begun {
            self.open.insert(from.clone(), open);
        }
        pieces
    }

    /// Gives what is left of a source that has ended; `None` when its last line was whole.
    pub(crate) fn end(&mut self, from: &K) -> Option<Piece> {
        let open = self.open.remove(from)?;
        Some(Piece { bytes: open.held, begins: !open.begun, ends: true })
    }

    /// The sources whose last line has not ended.
    pub(crate) fn unfinished(&self) -> Vec<K> {
        self.open.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lines as they come out when all has been pushed in these parts.
    fn shown(parts: &[&[u8]]) -> Vec<Piece> {
        let mut lines = Lines::new();
        let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| lines.push(&(), part)).collect();
        pieces.extend(lines.end(&()));
        assert!(lines.unfinished().is_empty());
        pieces
    }

    fn text_of(pieces: &[Piece]) -> Vec<u8> {
        let with_end = |piece: &Piece| {
            let mut bytes = piece.bytes.clone();
            if piece.ends {
                bytes.push(b'\n');
            }
            bytes
        };
        pieces.iter().flat_map(with_end).collect()
    }

    fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            bytes in prop::collection::vec(prop::sample::select(vec![b'a', b'\n', 0xff, b'\r']), 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            prop_assert_eq!(shown(&split(&bytes, &cuts)), shown(&[&bytes]));
        }

        #[test]
        fn nothing_is_lost_and_memory_is_bounded(
            lengths in prop::collection::vec(prop::sample::select(vec![0, 1, HELD - 1, HELD, HELD + 1, 2 * HELD, 3 * HELD + 7]), 1..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|n| vec![b'x'; *n].into_iter().chain([b'\n'])).collect();
            let pieces = shown(&split(&bytes, &cuts));
            prop_assert!(pieces.iter().all(|piece| piece.bytes.len() <= HELD));
            prop_assert_eq!(pieces.iter().filter(|piece| piece.begins).count(), lengths.len());
            prop_assert_eq!(pieces.iter().filter(|piece| piece.ends).count(), lengths.len());
            prop_assert_eq!(&shown(&[&bytes]), &pieces);
            prop_assert_eq!(text_of(&pieces), bytes);
        }
    }

    #[test]
    fn a_last_line_without_end_is_shown_whole() {
        let piece = |text: &str| Piece { bytes: text.into(), begins: true, ends: true };
        assert_eq!(shown(&[b"a\nb"]), [piece("a"), piece("b")]);
        assert_eq!(shown(&[b"a\n"]), [piece("a")]);
        assert_eq!(shown(&[b"\n\n"]), [piece(""), piece("")]);
    }
}
