//! Replaces secrets in a stream of bytes by `***`, wherever the reads happen to cut it.
//!
//! A secret is looked for as it is, line by line when it has several, and in both base64
//! alphabets (RFC 4648 §4 and §5) at each of the three alignments it can have inside a longer
//! encoded text. At each position the longest form wins. Bytes that may be the beginning of a
//! form are held back until the next bytes decide, so what comes out never depends on how the
//! stream was cut.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// What stands in the place of a secret.
pub const STARS: &[u8] = b"***";

/// Shorter secrets are not looked for: they would turn up in innocent text all the time.
pub const SHORTEST: usize = 4;

/// Columns at which `base64(1)`, MIME and PEM break their lines.
const WRAPS: [usize; 2] = [76, 64];

/// The forms in which a set of secrets is looked for.
#[derive(Clone, Default)]
pub struct Needles {
    /// By first byte; of those with the same first byte, the longer first.
    by_first: Vec<Vec<Vec<u8>>>,
}

impl std::fmt::Debug for Needles {
    /// Says how many there are, never what they are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Needles").field("count", &self.by_first.iter().flatten().count()).finish()
    }
}

impl Needles {
    /// The forms of these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let forms: BTreeSet<Vec<u8>> = secrets.into_iter().flat_map(forms).collect();
        if forms.is_empty() {
            return Self::default();
        }
        let mut by_first = vec![Vec::new(); 256];
        for form in forms {
            let first = form.first().copied().map_or(0, usize::from);
            if let Some(slot) = by_first.get_mut(first) {
                slot.push(form);
            }
        }
        for slot in &mut by_first {
            slot.sort_by_key(|form| std::cmp::Reverse(form.len()));
        }
        Self { by_first }
    }

    /// True when there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_first.is_empty()
    }

    fn starting_with(&self, first: u8) -> &[Vec<u8>] {
        self.by_first.get(usize::from(first)).map_or(&[], Vec::as_slice)
    }

    /// What stands at the beginning of `text`. `more` says whether bytes may follow it.
    fn at(&self, text: &[u8], more: bool) -> At {
        let Some(first) = text.first() else { return At::Plain };
        for form in self.starting_with(*first) {
            if text.starts_with(form) {
                return At::Secret(form.len());
            }
            if more && form.starts_with(text) {
                return At::Undecided;
            }
        }
        At::Plain
    }
}

/// What stands at one position.
enum At {
    Plain,
    Secret(usize),
    Undecided,
}

/// All forms of one secret.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    forms.extend(secret.lines().map(|line| line.trim_end_matches('\r').as_bytes().to_vec()));
    if secret.len() >= SHORTEST {
        forms.extend(encoded(secret.as_bytes()));
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

/// The base64 forms of `secret`: whole, wrapped, and as it shows inside a longer encoded text.
fn encoded(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms =
        vec![STANDARD.encode(secret).into_bytes(), URL_SAFE.encode(secret).into_bytes()];
    for before in 0..3 {
        let shifted = [vec![0; before], secret.to_vec()].concat();
        // A character holds 6 bits; those that also hold bits of a neighbour are left out.
        let (from, to) = ((8 * before).div_ceil(6), 8 * shifted.len() / 6);
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            forms.push(text.as_bytes().get(from..to).unwrap_or_default().to_vec());
        }
    }
    let whole = STANDARD.encode(secret);
    for wrap in WRAPS.into_iter().filter(|wrap| whole.len() > *wrap) {
        forms.extend(
            whole.as_bytes().chunks(wrap).filter(|piece| piece.len() >= 8).map(<[u8]>::to_vec),
        );
    }
    forms
}

/// Masks one stream.
#[derive(Debug, Clone)]
pub struct Mask {
    needles: std::rc::Rc<Needles>,
    held: Vec<u8>,
}

impl Mask {
    /// A mask with nothing held back.
    #[must_use]
    pub fn new(needles: std::rc::Rc<Needles>) -> Self {
        Self { needles, held: Vec::new() }
    }

    /// True when all bytes pass as they are.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        self.needles.is_empty()
    }

    /// Takes the next bytes of the stream and appends what is decided to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.is_transparent() {
            return out.extend_from_slice(bytes);
        }
        if self.held.is_empty() {
            let decided = self.scan(bytes, true, out);
            self.held = bytes.get(decided..).unwrap_or_default().to_vec();
            return;
        }
        self.held.extend_from_slice(bytes);
        let text = std::mem::take(&mut self.held);
        let decided = self.scan(&text, true, out);
        self.held = text.get(decided..).unwrap_or_default().to_vec();
    }

    /// The stream is over: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        self.scan(&text, false, out);
    }

    /// Masks `text` as far as it is decided, and says how far that is.
    fn scan(&self, text: &[u8], more: bool, out: &mut Vec<u8>) -> usize {
        let (mut at, mut plain) = (0, 0);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let skip = rest.iter().position(|byte| !self.needles.starting_with(*byte).is_empty());
            at += skip.unwrap_or(rest.len());
            match self.needles.at(text.get(at..).unwrap_or_default(), more) {
                At::Plain => at = text.len().min(at + 1),
                At::Undecided => break,
                At::Secret(len) => {
                    out.extend_from_slice(text.get(plain..at).unwrap_or_default());
                    out.extend_from_slice(STARS);
                    at += len;
                    plain = at;
                }
            }
        }
        out.extend_from_slice(text.get(plain..at).unwrap_or_default());
        at
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> Vec<u8> {
        let mut mask = Mask::new(Rc::new(Needles::new(secrets.iter().copied())));
        let mut out = Vec::new();
        for piece in pieces {
            mask.push(piece, &mut out);
        }
        mask.finish(&mut out);
        out
    }

    #[test]
    fn secrets_are_masked_in_every_form() {
        let check = |secret: &str, text: &str, expected: &str| {
            let out = masked(&[secret], &[text.as_bytes()]);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{secret:?} in {text:?}");
        };
        check("hunter22", "password=hunter22;", "password=***;");
        check("abc", "abc is too short", "abc is too short");
        check("hunter22", &STANDARD.encode("hunter22"), "***");
        check("abcd", "abcabcdabcd", "abc******");
        check("line one\r\nline two", "x line two y", "x *** y");
        check("hunter22", "hunter2", "hunter2");
    }

    #[test]
    fn the_longer_secret_wins_wherever_the_cut_is() {
        for cut in 0..12 {
            let text = b"ab-secret-pl";
            let (a, b) = text.split_at(cut);
            assert_eq!(masked(&["secret", "secret-p"], &[a, b]), b"ab-***l", "cut at {cut}");
        }
    }

    #[test]
    fn a_secret_inside_a_longer_encoded_text_does_not_show() {
        let secret = "correct horse battery";
        for before in 0..6 {
            let text = format!("{}{secret}and more", "u".repeat(before));
            for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                let out = masked(&[secret], &[encoded.as_bytes()]);
                let shown = String::from_utf8(out).unwrap();
                assert!(shown.contains("***"), "{shown}");
                assert!(shown.len() + 20 < encoded.len(), "{shown} hides too little of {encoded}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_comes_out_does_not_depend_on_the_cuts(
            secrets in prop::collection::vec("[ab]{4,7}", 1..4),
            text in "[abc]{0,60}",
            cuts in prop::collection::vec(0..60_usize, 0..8),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let whole = masked(&secrets, &[text.as_bytes()]);
            prop_assert_eq!(&masked(&secrets, &pieces), &whole);
            let shown = String::from_utf8(whole).unwrap();
            for secret in secrets {
                prop_assert!(!shown.contains(secret), "{} shows {}", shown, secret);
            }
        }
    }
}
