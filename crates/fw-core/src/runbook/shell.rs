//! Where a value may stand in a shell text, and how it is quoted there.
//!
//! A value in single quotes is one word wherever the shell begins a word or is inside one. Within
//! quotation marks, comments, here-documents and the like the same quotes would be letters, and the
//! value could say commands of its own; so a value there is refused, never guessed at. What the
//! reader is not sure of counts as a wrong place for all that comes after.

/// Stands for a value in a shell text. No kernel takes it in a command, so no text has one of its own.
pub(super) const MARK: char = '\0';

/// The byte of [`MARK`].
const MARK_BYTE: u8 = b'\0';

/// Why a value may not stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Between quotation marks.
    Quotes,
    /// After a backslash or a dollar sign.
    Escaped,
    /// Between backticks.
    Backticks,
    /// In a comment.
    Comment,
    /// In a here-document.
    HereDocument,
    /// In an expansion: `${…}` or `$((…))`.
    Expansion,
    /// After something whose end cannot be told for sure.
    Unclear,
}

impl Wrong {
    /// What is wrong and what to do.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Quotes => {
                "a value stands between quotation marks; leave them out, for it is quoted already"
            }
            Self::Escaped => "a value stands after a backslash or a dollar sign; take that away",
            Self::Backticks => "a value stands between backticks; write $(…) in their place",
            Self::Comment => "a value stands in a comment; take it out",
            Self::HereDocument => {
                "a value stands in a here-document, where it cannot be quoted; use printf '%s\\n' with the value as a word"
            }
            Self::Expansion => {
                "a value stands in ${…} or ((…)), where it cannot be quoted; give it to a variable first: name={{ … }}"
            }
            Self::Unclear => {
                "it cannot be told for sure how the shell reads the place of this value; give it to a variable at the top: name={{ … }}"
            }
        }
    }
}

/// The text as one word of a shell.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The first [`MARK`] that stands where a value may not, as a byte offset, and why.
pub(super) fn misplaced(text: &str) -> Option<(usize, Wrong)> {
    let mut read = Read {
        text: text.as_bytes(),
        at: 0,
        frames: Vec::new(),
        word_start: true,
        after_parenthesis: false,
        documents: Vec::new(),
    };
    read.all().err()
}

/// What is open around the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// `"`.
    Double,
    /// `$(`, or a parenthesis inside a word.
    Substitution,
    /// `(`.
    Group,
}

/// A here-document that begins at the next line.
struct Document {
    delimiter: Vec<u8>,
    tabs: bool,
}

struct Read<'a> {
    text: &'a [u8],
    at: usize,
    frames: Vec<Frame>,
    /// A word would begin here, so `#` begins a comment.
    word_start: bool,
    after_parenthesis: bool,
    documents: Vec<Document>,
}

type Outcome = Result<(), (usize, Wrong)>;

impl Read<'_> {
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn all(&mut self) -> Outcome {
        while let Some(byte) = self.byte(0) {
            if self.frames.last() == Some(&Frame::Double) {
                self.in_double(byte)?;
            } else {
                self.in_command(byte)?;
            }
        }
        Ok(())
    }

    fn in_double(&mut self, byte: u8) -> Outcome {
        match byte {
            MARK_BYTE => return Err((self.at, Wrong::Quotes)),
            b'\\' => self.backslash()?,
            b'"' => self.close(),
            b'$' => self.dollar()?,
            b'`' => self.backticks()?,
            _ => self.at += 1,
        }
        Ok(())
    }

    fn in_command(&mut self, byte: u8) -> Outcome {
        let start = std::mem::take(&mut self.word_start);
        let closed = std::mem::take(&mut self.after_parenthesis);
        match byte {
            b'\\' => {
                // A continued line goes on with the same word.
                self.word_start = start && self.byte(1) == Some(b'\n');
                self.backslash()?;
            }
            b'\'' => self.single()?,
            b'"' => self.open(Frame::Double, 1)?,
            b'`' => self.backticks()?,
            b'$' => self.dollar()?,
            b'#' if closed => self.unclear()?,
            b'#' if start => self.until(b'\n', Wrong::Comment)?,
            b'<' => self.less()?,
            b'(' if self.byte(1) == Some(b'(') => self.unclear()?,
            b'(' => {
                self.open(if start { Frame::Group } else { Frame::Substitution }, 1)?;
                self.word_start = true;
            }
            b')' if !self.frames.is_empty() => {
                self.word_start = self.frames.last() == Some(&Frame::Group);
                self.after_parenthesis = true;
                if self.documents.is_empty() { self.close() } else { self.unclear()? }
            }
            b'\n' => {
                self.at += 1;
                self.word_start = true;
                self.here_documents()?;
            }
            b' ' | b'\t' | b'\r' | b';' | b'&' | b'|' | b'>' | b')' => {
                self.at += 1;
                self.word_start = true;
                self.after_parenthesis = byte == b')';
            }
            b'c' if start && !self.frames.is_empty() && self.rest().starts_with(b"case") => {
                self.unclear()?;
            }
            _ => self.at += 1,
        }
        Ok(())
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn open(&mut self, frame: Frame, length: usize) -> Outcome {
        if !self.documents.is_empty() && frame != Frame::Double {
            return self.unclear();
        }
        self.frames.push(frame);
        self.at += length;
        Ok(())
    }

    fn close(&mut self) {
        self.frames.pop();
        self.at += 1;
    }

    /// Nothing after this is sure.
    fn unclear(&mut self) -> Outcome {
        self.skip(self.text.len(), Wrong::Unclear)
    }

    /// Goes to `end`; no value may stand before it.
    fn skip(&mut self, end: usize, wrong: Wrong) -> Outcome {
        let passed = self.text.get(self.at..end).unwrap_or_default();
        if let Some(mark) = passed.iter().position(|byte| *byte == MARK_BYTE) {
            return Err((self.at + mark, wrong));
        }
        self.at = end;
        Ok(())
    }

    /// Goes to the next `byte`, or to the end.
    fn until(&mut self, byte: u8, wrong: Wrong) -> Outcome {
        let end = self.rest().iter().position(|here| *here == byte);
        self.skip(end.map_or(self.text.len(), |end| self.at + end), wrong)
    }

    fn backslash(&mut self) -> Outcome {
        self.skip((self.at + 2).min(self.text.len()), Wrong::Escaped)
    }

    fn single(&mut self) -> Outcome {
        // `$'…'` has escapes in some shells only.
        let dollar = self.at.checked_sub(1).and_then(|at| self.text.get(at)) == Some(&b'$');
        let begin = self.at;
        self.at += 1;
        self.until(b'\'', Wrong::Quotes)?;
        let inside = self.text.get(begin..self.at).unwrap_or_default();
        if dollar && inside.contains(&b'\\') {
            return self.unclear();
        }
        self.at = (self.at + 1).min(self.text.len());
        Ok(())
    }

    fn backticks(&mut self) -> Outcome {
        let mut end = self.at + 1;
        while let Some(byte) = self.text.get(end) {
            match byte {
                b'`' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        self.skip((end + 1).min(self.text.len()), Wrong::Backticks)
    }

    fn dollar(&mut self) -> Outcome {
        match (self.byte(1), self.byte(2)) {
            (Some(MARK_BYTE), _) => Err((self.at + 1, Wrong::Escaped)),
            (Some(b'('), Some(b'(')) => self.expansion(1, b'(', b')'),
            (Some(b'('), _) => {
                self.open(Frame::Substitution, 2)?;
                self.word_start = true;
                Ok(())
            }
            (Some(b'{'), _) => self.expansion(1, b'{', b'}'),
            (Some(b'#' | b'$'), _) => {
                self.at += 2;
                Ok(())
            }
            (_, _) => {
                self.at += 1;
                Ok(())
            }
        }
    }

    /// `${…}` or `$((…))`: to its end, if nothing in it makes that doubtful.
    fn expansion(&mut self, begin: usize, open: u8, close: u8) -> Outcome {
        let mut depth = 0_usize;
        let mut end = self.at + begin;
        while let Some(byte) = self.text.get(end).copied() {
            match byte {
                b'\'' | b'"' | b'\\' | b'`' => return self.unclear(),
                _ if byte == open => depth += 1,
                _ if byte == close => depth -= 1,
                _ => {}
            }
            end += 1;
            if depth == 0 {
                return self.skip(end, Wrong::Expansion);
            }
        }
        self.skip(self.text.len(), Wrong::Expansion)
    }

    /// `<`, `<<<`, or the begin of a here-document.
    fn less(&mut self) -> Outcome {
        self.word_start = true;
        if self.rest().starts_with(b"<<<") {
            self.at += 3;
            return Ok(());
        }
        if !self.rest().starts_with(b"<<") {
            self.at += 1;
            return Ok(());
        }
        if !self.frames.is_empty() {
            return self.unclear();
        }
        self.at += 2;
        let tabs = self.byte(0) == Some(b'-');
        self.at += usize::from(tabs);
        while matches!(self.byte(0), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        let word: Vec<u8> = self
            .rest()
            .iter()
            .copied()
            .take_while(|byte| {
                !matches!(
                    byte,
                    b' ' | b'\t' | b'\n' | b'\r' | b';' | b'&' | b'|' | b'>' | b'<' | b')'
                )
            })
            .collect();
        let quoted =
            |quote: u8| word.strip_prefix(&[quote]).and_then(|word| word.strip_suffix(&[quote]));
        let name = quoted(b'\'').or_else(|| quoted(b'"')).unwrap_or(&word);
        let sure =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'!');
        if name.is_empty() || !name.iter().all(sure) {
            return self.unclear();
        }
        let delimiter = name.to_vec();
        self.at += word.len();
        self.word_start = false;
        self.documents.push(Document { delimiter, tabs });
        Ok(())
    }

    /// Passes the here-documents that begin at this line.
    fn here_documents(&mut self) -> Outcome {
        for document in std::mem::take(&mut self.documents) {
            loop {
                if self.at >= self.text.len() {
                    return Ok(());
                }
                let begin = self.at;
                self.until(b'\n', Wrong::HereDocument)?;
                let mut line = self.text.get(begin..self.at).unwrap_or_default();
                while let Some(rest) = line.strip_prefix(b"\t").filter(|_| document.tabs) {
                    line = rest;
                }
                self.at = (self.at + 1).min(self.text.len());
                if line == document.delimiter {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `@` stands for a value.
    fn check(text: &str, wrong: Option<Wrong>) {
        let text = text.replace('@', "\0");
        assert_eq!(misplaced(&text).map(|(_, wrong)| wrong), wrong, "{text}");
    }

    #[test]
    fn a_value_may_be_a_word_or_a_part_of_one() {
        for text in [
            "echo @",
            "echo --name=@/x",
            "x=@; echo \"$x\" 'y' @",
            "echo \"$(cat @)\" @",
            "(cd @ && ls) | wc -l > @",
            "echo `date` @",
            "cat <<'E' | tee @\nit's\nE\necho @",
            "cat <<-E\n\tit's\n\tE\necho @",
            "echo $# a#b @ # it's a comment\necho @",
            "for i in @; do echo $((1 + 2)) ${i#x} @; done",
            "case $x in a) echo @;; esac",
            "grep x <<< @",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_value_may_stand_nowhere_else() {
        check("echo '@'", Some(Wrong::Quotes));
        check("echo \"a @\"", Some(Wrong::Quotes));
        check("echo \"$(x)@\"", Some(Wrong::Quotes));
        check("echo \\@", Some(Wrong::Escaped));
        check("echo $@", Some(Wrong::Escaped));
        check("echo `cat @`", Some(Wrong::Backticks));
        check("true # @", Some(Wrong::Comment));
        check("a \\\n# it's @", Some(Wrong::Comment));
        check("cat <<E\n@\nE", Some(Wrong::HereDocument));
        check("cat <<E", None);
        check("echo ${x:-@}", Some(Wrong::Expansion));
        check("echo $((@ + 1))", Some(Wrong::Expansion));
        check("echo $(case x in a) echo;; esac) @", Some(Wrong::Unclear));
        check("((x = @))", Some(Wrong::Unclear));
        check("echo $'\\'' @", Some(Wrong::Unclear));
        check("f()# it's\necho '@'", Some(Wrong::Unclear));
        check("a\\\n#'b' '@'", Some(Wrong::Quotes));
    }
}
