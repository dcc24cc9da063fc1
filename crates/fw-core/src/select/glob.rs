//! Globs as shells know them (`fnmatch(3)`): `*`, `?`, `[a-z]`, `[!a-z]`; case counts.
//!
//! There is no escape character: `[*]` is a star. Our own, and not a crate's, because every job
//! holds some: a compiled automaton each would cost kilobytes, this costs what the text does.

/// A compiled glob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob {
    text: String,
    /// Bytes of the text before its first sign: they stand for themselves, and most hosts are
    /// told apart by them alone.
    fixed: usize,
    /// From the first sign on.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// This character.
    Char(char),
    /// Any one character.
    One,
    /// Any characters, also none.
    Many,
    /// One character that lies in one of the ranges; or in none of them.
    Class { not: bool, ranges: Vec<(char, char)> },
}

/// What is wrong with a glob, and at which character.
pub(super) type Malformed = (usize, &'static str);

impl Glob {
    /// Reads a glob.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let first_sign = text.find(['*', '?', '[']).unwrap_or(text.len());
        let chars: Vec<char> = text.chars().collect();
        let mut parts = Vec::new();
        let mut at = text.get(..first_sign).map_or(0, |fixed| fixed.chars().count());
        while let Some(&c) = chars.get(at) {
            let part = match c {
                '*' => Part::Many,
                '?' => Part::One,
                '[' => {
                    let (class, next) = class(&chars, at)?;
                    at = next;
                    class
                }
                c => Part::Char(c),
            };
            at += 1;
            if part != Part::Many || parts.last() != Some(&Part::Many) {
                parts.push(part);
            }
        }
        Ok(Self { text: text.to_owned(), fixed: first_sign, parts })
    }

    /// Reads a glob over names that are not hosts', as those of files.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        Self::parse(text).map_err(|(_, what)| what)
    }

    /// The text it was read from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for nothing but its own text.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether the whole of `text` fits. At most (length of glob × length of text) steps: only
    /// the last star ever needs another try.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let fixed = self.text.get(..self.fixed).unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(fixed) else { return false };
        let mut parts = self.parts.as_slice();
        let mut retry: Option<(&[Part], &str)> = None;
        loop {
            let mut chars = rest.chars();
            match (parts.split_first(), chars.next()) {
                (None, None) | (Some((Part::Many, [])), _) => return true,
                (Some((Part::Many, after)), _) => {
                    retry = Some((after, rest));
                    parts = after;
                    continue;
                }
                (Some((part, after)), Some(c)) if part.fits(c) => {
                    parts = after;
                    rest = chars.as_str();
                    continue;
                }
                (_, None) => return false,
                (None | Some(_), Some(_)) => {}
            }
            let Some((after, from)) = retry else { return false };
            let mut chars = from.chars();
            if chars.next().is_none() {
                return false;
            }
            retry = Some((after, chars.as_str()));
            parts = after;
            rest = chars.as_str();
        }
    }
}

impl Part {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One => true,
            Self::Many => false,
            Self::Class { not, ranges } => {
                ranges.iter().any(|(low, high)| (low..=high).contains(&&c)) != *not
            }
        }
    }
}

/// Reads `[…]` that opens at `open`; gives the place of its closing bracket. A `]` directly after
/// the opening stands for itself.
fn class(chars: &[char], open: usize) -> Result<(Part, usize), Malformed> {
    let not = matches!(chars.get(open + 1), Some('!' | '^'));
    let first = open + 1 + usize::from(not);
    let mut ranges = Vec::new();
    let mut at = first;
    loop {
        let Some(&low) = chars.get(at) else {
            return Err((open, "this '[' is never closed; write '[[]' for the character itself"));
        };
        if low == ']' && at > first {
            return Ok((Part::Class { not, ranges }, at));
        }
        match (chars.get(at + 1), chars.get(at + 2)) {
            (Some('-'), Some(&high)) if high != ']' => {
                if high < low {
                    return Err((at, "this range ends before it begins"));
                }
                ranges.push((low, high));
                at += 3;
            }
            (_, _) => {
                ranges.push((low, low));
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_shell() {
        for (glob, text, fits) in [
            ("*", "", true),
            ("web*", "web1", true),
            ("web*", "Web1", false),
            ("web[1-3]", "web2", true),
            ("web[1-3]", "web4", false),
            ("web[!1-3]", "web4", true),
            ("web?", "web", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("*a*b*c", "xaybzc", true),
            ("*a*b*c", "xaybz", false),
            ("*.example.com", "db.example.com", true),
            ("a[*]b", "a*b", true),
            ("ü?", "üé", true),
        ] {
            assert_eq!(Glob::parse(glob).unwrap().matches(text), fits, "{glob} {text}");
        }
    }

    #[test]
    fn a_hostile_glob_stays_cheap() {
        let glob = Glob::parse(&"*a".repeat(100)).unwrap();
        assert!(!glob.matches(&"ab".repeat(90)));
    }

    #[test]
    fn malformed_globs_say_where() {
        assert_eq!(Glob::parse("web[1-").unwrap_err().0, 3);
        assert_eq!(Glob::parse("web[3-1]").unwrap_err().0, 4);
    }
}
