//! The words of a selector: split at spaces and parentheses, quotes taken off.

use super::Error;

/// A piece of an expression and where it begins, in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Close,
    And,
    Or,
    Not,
    /// The text of a regular expression, after its `~`.
    Regex(Text),
    /// Anything else.
    Word(Text),
}

/// A text without its quotes, and where each of its characters stands in the expression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Text {
    pub(super) chars: Vec<char>,
    places: Vec<usize>,
    end: usize,
}

impl Text {
    fn push(&mut self, c: char, place: usize) {
        self.chars.push(c);
        self.places.push(place);
    }

    /// Where the character `index` of this text stands in the expression.
    pub(super) fn place(&self, index: usize) -> usize {
        self.places.get(index).copied().unwrap_or(self.end)
    }

    pub(super) fn text(&self) -> String {
        self.chars.iter().collect()
    }
}

/// Splits an expression into its tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let chars: Vec<char> = text.chars().collect();
    let mut scan = Scan { text, chars: &chars, at: 0 };
    let mut found = Vec::new();
    while let Some(c) = scan.peek() {
        let at = scan.at;
        let kind = match c {
            c if c.is_whitespace() => {
                scan.at += 1;
                continue;
            }
            '(' => scan.sign(Kind::Open),
            ')' => scan.sign(Kind::Close),
            '~' => scan.regex()?,
            _ => scan.word()?,
        };
        found.push(Token { kind, at });
    }
    Ok(found)
}

struct Scan<'a> {
    text: &'a str,
    chars: &'a [char],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn sign(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    /// A word up to a space or parenthesis; parts of it may be in double quotes.
    fn word(&mut self) -> Result<Kind, Error> {
        let mut word = Text::default();
        let mut quoted = false;
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    quoted = true;
                    self.quoted(&mut word, false)?;
                }
                c if c.is_whitespace() || c == '(' || c == ')' => break,
                c => {
                    word.push(c, self.at);
                    self.at += 1;
                }
            }
        }
        word.end = self.at;
        Ok(match word.text().as_str() {
            "and" if !quoted => Kind::And,
            "or" if !quoted => Kind::Or,
            "not" if !quoted => Kind::Not,
            _ => Kind::Word(word),
        })
    }

    /// A regular expression: quoted, or up to a space or a parenthesis that it did not open.
    fn regex(&mut self) -> Result<Kind, Error> {
        self.at += 1;
        let mut regex = Text::default();
        if self.peek() == Some('"') {
            self.quoted(&mut regex, true)?;
            regex.end = self.at;
            let over = |c: char| c.is_whitespace() || c == '(' || c == ')';
            if self.peek().is_some_and(|c| !over(c)) {
                return Err(self.error(self.at, "put the whole regular expression in the quotes"));
            }
            return Ok(Kind::Regex(regex));
        }
        let mut open = 0_u32;
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.escape(&mut regex);
                    continue;
                }
                '(' => open += 1,
                ')' if open == 0 => break,
                ')' => open -= 1,
                c if c.is_whitespace() => break,
                _ => {}
            }
            regex.push(c, self.at);
            self.at += 1;
        }
        regex.end = self.at;
        Ok(Kind::Regex(regex))
    }

    /// The inside of double quotes. In a regular expression every backslash but that of `\"`
    /// belongs to the pattern; elsewhere `\"` and `\\` are the two escapes.
    fn quoted(&mut self, into: &mut Text, regex: bool) -> Result<(), Error> {
        let open = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.error(open, "this quote is never closed")),
                Some('"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some('\\') if regex => self.escape(into),
                Some('\\') => {
                    let next = self.chars.get(self.at + 1).copied();
                    let escaped = next.filter(|c| matches!(c, '"' | '\\'));
                    into.push(escaped.unwrap_or('\\'), self.at);
                    self.at += 1 + usize::from(escaped.is_some());
                }
                Some(c) => {
                    into.push(c, self.at);
                    self.at += 1;
                }
            }
        }
    }

    /// A backslash of a regular expression and what it escapes; `\"` is a quote.
    fn escape(&mut self, into: &mut Text) {
        let next = self.chars.get(self.at + 1).copied();
        if next != Some('"') {
            into.push('\\', self.at);
        }
        self.at += 1;
        if let Some(c) = next {
            into.push(c, self.at);
            self.at += 1;
        }
    }

    fn error(&self, at: usize, message: &str) -> Error {
        Error::new(self.text, at, message)
    }
}

/// A word as it is written: in quotes where it would else be read as something else.
pub(super) fn written(word: &str) -> String {
    let splits = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
    let is_sign = matches!(word, "and" | "or" | "not" | "") || word.starts_with('~');
    if is_sign || word.contains(splits) {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        word.to_owned()
    }
}

/// A regular expression as it is written.
pub(super) fn written_regex(pattern: &str) -> String {
    let splits = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
    if pattern.contains(splits) {
        format!("~\"{}\"", pattern.replace('"', "\\\""))
    } else {
        format!("~{pattern}")
    }
}
