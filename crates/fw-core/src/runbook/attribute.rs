//! What stands after the language of a block: `bash id=stop timeout=30s undo="systemctl start x"`.

use super::source::Source;
use crate::caret::nearest;

/// The attributes there are.
pub const KNOWN: [&str; 13] = [
    "id", "on", "as", "timeout", "retries", "expect", "undo", "verify", "approve", "armed",
    "fresh", "manual", "needs",
];

/// The one without a value.
const FLAG: &str = "manual";

/// An attribute with its places, in bytes of the document.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    /// One of [`KNOWN`].
    pub(super) key: &'static str,
    /// Where it begins.
    pub(super) at: usize,
    /// Its value, without quotes; empty for `manual`.
    pub(super) value: String,
    /// Where the value begins, if it stands there as it is.
    pub(super) value_at: usize,
    /// Whether each byte of the value stands in the document as it is.
    pub(super) verbatim: bool,
}

/// The language and the attributes of a block's first line, which begins at byte `at`.
pub(super) fn read(source: &mut Source<'_>, info: &str, at: usize) -> (String, Vec<Attribute>) {
    let trimmed = info.trim_start();
    let begin = at + info.len() - trimmed.len();
    let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
    let (language, rest) = trimmed.split_at(end);
    if language.contains('=') {
        source.error(
            begin,
            "a block begins with its language; write sh or bash before the first attribute",
        );
        return (String::new(), Vec::new());
    }
    let mut found: Vec<Attribute> = Vec::new();
    let mut words = Words { text: rest, at: 0 };
    while let Some((word_at, word)) = words.next_word() {
        let place = begin + end + word_at;
        match one(&word, place) {
            Ok(attribute) if found.iter().any(|other| other.key == attribute.key) => {
                source.error(place, format!("{} stands twice; remove one", attribute.key));
            }
            Ok(attribute) => found.push(attribute),
            Err((wrong, message)) => source.error(wrong, message),
        }
    }
    (language.to_ascii_lowercase(), found)
}

/// A word, and where in it the value begins and how it is written.
struct Word {
    key: String,
    value: Option<(usize, String, bool)>,
    closed: bool,
}

struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl Words<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next_word(&mut self) -> Option<(usize, Word)> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let begin = self.at;
        let rest = self.rest();
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = rest.get(..end)?.to_owned();
        if rest.is_empty() {
            return None;
        }
        let has_value = rest.get(end..).is_some_and(|after| after.starts_with('='));
        self.at += end;
        let mut word = Word { key, value: None, closed: true };
        if has_value {
            self.at += 1;
            self.value(&mut word, begin);
        }
        Some((begin, word))
    }

    fn value(&mut self, word: &mut Word, begin: usize) {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            word.value =
                Some((self.at - begin, rest.get(..end).unwrap_or_default().to_owned(), true));
            self.at += end;
            return;
        };
        let (mut value, mut verbatim, mut escaped) = (String::new(), true, false);
        let value_at = self.at + 1 - begin;
        word.closed = false;
        let mut length = rest.len();
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => {
                    if !matches!(c, '"' | '\\') {
                        value.push('\\');
                    }
                    value.push(c);
                    escaped = false;
                }
                '\\' if quote == '"' => (escaped, verbatim) = (true, false),
                _ if c == quote => {
                    word.closed = true;
                    length = at + 1;
                    break;
                }
                _ => value.push(c),
            }
        }
        self.at += length;
        word.value = Some((value_at, value, verbatim));
    }
}

fn one(word: &Word, at: usize) -> Result<Attribute, (usize, String)> {
    let Some(key) = KNOWN.into_iter().find(|known| *known == word.key) else {
        let shown: String = word.key.chars().take(40).collect();
        let hint = match nearest(&shown, &KNOWN) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", KNOWN.join(", ")),
        };
        return Err((at, format!("unknown attribute {shown:?}; {hint}")));
    };
    match &word.value {
        _ if !word.closed => Err((at, format!("the quotation mark of {key} is never closed"))),
        None if key == FLAG => {
            Ok(Attribute { key, at, value: String::new(), value_at: at, verbatim: true })
        }
        None => Err((at, format!("{key} needs a value: {key}=…"))),
        Some(_) if key == FLAG => Err((at, format!("{key} takes no value; write only {key}"))),
        Some((_, value, _)) if value.trim().is_empty() => {
            Err((at, format!("{key} is empty; leave it out")))
        }
        Some((value_at, value, verbatim)) => Ok(Attribute {
            key,
            at,
            value: value.clone(),
            value_at: at + value_at,
            verbatim: *verbatim,
        }),
    }
}
