//! Server-sent events, as the HTML Standard (§9.2 "Server-sent events") parses them,
//! from a byte stream that may be split anywhere.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// The `event:` field; empty when the server sent none.
    pub(crate) name: String,
    /// The `id:` that is in force after it; empty before the first.
    pub(crate) id: String,
    /// The `data:` lines, joined by newlines.
    pub(crate) data: String,
}

/// The longest line that is read. A line of log data is at most 64 KiB in base64, a run's
/// summary less; a server that sends more is not one of ours.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// A stream that cannot be one of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of the event stream is longer than {LONGEST_LINE} bytes")]
pub(crate) struct TooLong;

/// Reads events from bytes.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    name: String,
    id: String,
    data: Option<String>,
}

impl Parser {
    /// A parser whose events carry this id until the server sends another one.
    pub(crate) fn resumed(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// Takes more bytes and gives the events that are complete now.
    ///
    /// # Errors
    /// A line is longer than any that our server sends.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let ends_crlf = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            if ends_crlf {
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                events.extend(self.end_line());
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(byte);
            } else {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        // One byte order mark may stand before the stream.
        let first = !std::mem::replace(&mut self.begun, true);
        let line = if first { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.add_data(value),
            // An id with a NUL is ignored (the Standard says so).
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // Comments have an empty field; unknown fields are ignored.
            _ => {}
        }
        None
    }

    fn add_data(&mut self, value: &str) {
        match &mut self.data {
            None => self.data = Some(value.to_owned()),
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
        }
    }

    /// An event without data is none, but its name must not stick to the next one.
    fn dispatch(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = self.data.take()?;
        Some(Event { name, id: self.id.clone(), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &[u8]) -> Vec<Event> {
        Parser::default().push(text).unwrap()
    }

    fn event(name: &str, id: &str, data: &str) -> Event {
        Event { name: name.into(), id: id.into(), data: data.into() }
    }

    #[test]
    fn streams_are_read_as_the_standard_says() {
        let check = |text: &str, expected: &[Event]| assert_eq!(parse(text.as_bytes()), expected);
        check("data: a\n\n", &[event("", "", "a")]);
        check("\u{feff}data:a\n\n", &[event("", "", "a")]);
        check("data: a\r\ndata: b\r\n\r\n", &[event("", "", "a\nb")]);
        check("data\n\n", &[event("", "", "")]);
        check(
            "event: x\nid: 7\ndata: a\n\ndata: b\n\n",
            &[event("x", "7", "a"), event("", "7", "b")],
        );
        check(": keep-alive\n\n", &[]);
        check("event: x\n\ndata: a\n\n", &[event("", "", "a")]);
        check("data: cut off\n", &[]);
        check("unknown: 1\ndata:  two spaces\n\n", &[event("", "", " two spaces")]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let refused = (0..17).any(|_| parser.push(&chunk).is_err());
        assert!(refused);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            lines in prop::collection::vec("(data|event|id|:|x)?(: ?)?[ -~é]{0,8}", 0..20),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r", "\r\n", "\n\n"]), 20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let text: String = lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), end]).collect();
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let mut parser = Parser::default();
            let mut split = Vec::new();
            for pair in at.windows(2) {
                split.extend(parser.push(&bytes[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(split, parse(bytes));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _events = Parser::default().push(&bytes);
        }
    }
}
