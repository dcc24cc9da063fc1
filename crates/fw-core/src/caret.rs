//! "Here": a text, and a caret under the character that is wrong. Shared by all small languages.

use std::fmt;

/// The most characters shown before and after the caret; job files have long lines.
const AROUND: usize = 60;

/// What is wrong with a text, and at which character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong and what to do: a lower-case fragment on one line.
    pub message: String,
    /// Counted in characters from 0; the length of the text means "at its end".
    pub offset: usize,
    /// The text.
    pub text: String,
}

impl Error {
    /// An error in `text` at the character `offset`.
    #[must_use]
    pub fn new(text: &str, offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), offset, text: text.to_owned() }
    }

    /// The line of the text that is wrong, and a caret under the place.
    #[must_use]
    pub fn caret(&self) -> String {
        caret(&self.text, self.offset)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    /// The message, then the text with the caret, each on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.message, self.caret())
    }
}

/// Two lines: the line of `text` that holds the character `offset`, and a caret under it.
///
/// Control characters are shown as spaces, so that the caret stays in place; what lies far
/// from the caret is left out.
#[must_use]
pub fn caret(text: &str, offset: usize) -> String {
    let (line, column) = line_of(text, offset);
    let length = line.chars().count();
    let column = column.min(length);
    let first = column.saturating_sub(AROUND);
    let shown: String = line.chars().skip(first).take(2 * AROUND).map(visible).collect();
    let before = if first > 0 { "…" } else { "" };
    let after = if length > first + 2 * AROUND { "…" } else { "" };
    let indent = " ".repeat(column - first + before.chars().count());
    format!("{before}{shown}{after}\n{indent}^")
}

/// The line around a character, and the character's place in it.
fn line_of(text: &str, offset: usize) -> (&str, usize) {
    let mut start = 0;
    for line in text.split('\n') {
        let length = line.chars().count();
        if offset <= start + length {
            return (line, offset - start);
        }
        start += length + 1;
    }
    (text.rsplit('\n').next().unwrap_or_default(), usize::MAX)
}

/// The character, or a space in place of one that would move the cursor.
fn visible(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// The word of `known` that someone most likely meant by `word`: at most a third of its letters
/// (but at least one) differ.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let length = word.chars().take(LONGEST_WORD).count();
    // Each letter more or less is one that differs: most of 600 time zones need no closer look.
    let near = known.iter().filter(|known| known.chars().count().abs_diff(length) <= allowed);
    let closest = near.map(|candidate| (distance(word, candidate), *candidate)).min()?;
    (closest.0 <= allowed).then_some(closest.1)
}

/// Letters of a word that are looked at.
const LONGEST_WORD: usize = 64;

/// How many letters to insert, remove, replace or swap with a neighbour to get from `a` to `b`
/// (Damerau's restricted edit distance). Only for short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, from) in a.chars().take(LONGEST_WORD).enumerate() {
        let mut next = vec![i + 1];
        let mut left = None;
        for (j, &to) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&row, j) + usize::from(from != to);
            let mut best = replaced.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            if last == Some(to) && left == Some(from) && j > 0 {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
            left = Some(to);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(from);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_character() {
        assert_eq!(caret("web* und db1", 5), "web* und db1\n     ^");
        assert_eq!(caret("one\ntwo", 5), "two\n ^");
        assert_eq!(caret("a\tb", 9), "a b\n   ^");
        assert_eq!(caret("", 0), "\n^");
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let shown = caret(&"x".repeat(1000), 500);
        let (line, below) = shown.split_once('\n').unwrap();
        assert!(line.starts_with('…') && line.ends_with('…') && line.chars().count() == 122);
        assert_eq!(below.chars().count(), 62);
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let keys = ["schedule", "timezone", "hosts", "run"];
        assert_eq!(nearest("shedule", &keys), Some("schedule"));
        assert_eq!(nearest("host", &keys), Some("hosts"));
        assert_eq!(nearest("rnu", &keys), Some("run"));
        assert_eq!(nearest("colour", &keys), None);
    }
}
