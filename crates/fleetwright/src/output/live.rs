//! The output of a run as it comes: lines with the host's name before them, or the bytes alone.
//!
//! Bytes that arrive twice, because a stream was resumed, are shown once: every piece carries
//! its offset. The colours of commands are kept; only the prefix has one of ours. Lines on a
//! terminal are tamed; lines in pipes and files have all bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fw_proto::api::LogEvent;
use fw_proto::record::Stream;
use fw_proto::{HostName, Timestamp};

use super::lines::{Lines, Piece};
use super::tame::Tame;

/// What stands before a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Nothing: there is one host, and the reader knows which.
    None,
    /// The host's name, padded to so many columns.
    Host(usize),
}

/// In which form output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Line by line.
    Lines {
        /// What stands before a line.
        prefix: Prefix,
        /// Whether the time of its first byte does too.
        timestamps: bool,
    },
    /// The bytes as they are.
    Raw,
    /// The events of the API, one JSON value a line.
    Events,
}

/// One of the two places to write to.
pub(crate) struct Sink {
    to: Box<dyn Write + Send>,
    colour: bool,
    terminal: bool,
}

/// Shows output.
pub(crate) struct Live {
    view: View,
    out: Sink,
    err: Sink,
    lines: Lines<Source>,
    began: BTreeMap<Source, Timestamp>,
    /// Where lines are that did not end.
    tame: BTreeMap<Source, Tame>,
    reached: BTreeMap<Source, Reached>,
    /// A piece of this source's line stands last on the screen, without its end.
    open: Option<Source>,
    gaps: u64,
}

type Source = (HostName, Stream);

/// How far a source's output was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reached {
    /// Stored bytes.
    pub(crate) bytes: u64,
    /// Bytes that were not kept.
    pub(crate) dropped: u64,
}

/// Prefix colours: the ANSI ones that can be read on light and on dark.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// The widest column of host names; longer ones stand out of it.
const WIDEST: usize = 32;

impl Prefix {
    /// A column that fits these hosts.
    pub(crate) fn fitting<'a>(hosts: impl Iterator<Item = &'a HostName>) -> Self {
        Self::Host(hosts.map(|host| host.as_str().len()).max().unwrap_or(0).min(WIDEST))
    }
}

impl Sink {
    fn new<S>(stream: S) -> Self
    where
        S: anstream::stream::RawStream + io::IsTerminal + Write + Send + 'static,
    {
        let colour = anstream::AutoStream::choice(&stream) != anstream::ColorChoice::Never;
        let terminal = io::IsTerminal::is_terminal(&stream);
        Self { to: Box::new(io::BufWriter::new(stream)), colour, terminal }
    }
}

impl Live {
    /// Shows output on stdout and stderr.
    pub(crate) fn new(view: View) -> Self {
        Self::to(view, Sink::new(io::stdout()), Sink::new(io::stderr()))
    }

    fn to(view: View, out: Sink, err: Sink) -> Self {
        Self {
            view,
            out,
            err,
            lines: Lines::new(),
            began: BTreeMap::new(),
            tame: BTreeMap::new(),
            reached: BTreeMap::new(),
            open: None,
            gaps: 0,
        }
    }

    /// Shows output to nobody.
    #[cfg(test)]
    pub(crate) fn to_nowhere(view: View) -> Self {
        let nowhere = || Sink { to: Box::new(io::sink()), colour: false, terminal: false };
        Self::to(view, nowhere(), nowhere())
    }

    /// How far the output of a host was shown.
    pub(crate) fn reached(&self, host: &HostName, stream: Stream) -> Reached {
        self.reached.get(&(host.clone(), stream)).copied().unwrap_or_default()
    }

    /// How many gaps were shown.
    pub(crate) const fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Shows a piece of output.
    ///
    /// # Errors
    /// The event's data is not base64, or the output cannot be written.
    pub(crate) fn take(&mut self, event: &LogEvent) -> anyhow::Result<()> {
        let source = (event.host.clone(), event.stream);
        let bytes = STANDARD.decode(&event.data)?;
        let reached = self.reached.entry(source.clone()).or_default();
        if event.gap > 0 {
            if event.offset >= reached.bytes {
                reached.dropped += event.gap;
                self.gap(&source, event)?;
            }
            return Ok(());
        }
        let known = reached.bytes.saturating_sub(event.offset);
        let new = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        if new.is_empty() {
            return Ok(());
        }
        reached.bytes = event.offset.max(reached.bytes) + new.len() as u64;
        match self.view {
            View::Lines { .. } => self.show(&source, event.at, new)?,
            View::Raw => self.sink(event.stream).to.write_all(new)?,
            View::Events => self.event(event)?,
        }
        Ok(self.sink(event.stream).to.flush()?)
    }

    /// Shows what is left of lines that did not end.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        for source in self.lines.unfinished() {
            if let Some(piece) = self.lines.end(&source) {
                let at = self.began.remove(&source).unwrap_or(Timestamp::EPOCH);
                self.piece(&source, at, &piece)?;
            }
        }
        self.close()?;
        self.out.to.flush()?;
        self.err.to.flush()
    }

    fn event(&mut self, event: &LogEvent) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out.to, event)?;
        self.out.to.write_all(b"\n")?;
        Ok(self.out.to.flush()?)
    }

    fn sink(&mut self, stream: Stream) -> &mut Sink {
        match stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        }
    }

    fn show(&mut self, source: &Source, at: Timestamp, bytes: &[u8]) -> io::Result<()> {
        let mut began = self.began.remove(source).unwrap_or(at);
        for piece in self.lines.push(source, bytes) {
            self.piece(source, began, &piece)?;
            if piece.ends {
                began = at;
            }
        }
        if !bytes.ends_with(b"\n") {
            self.began.insert(source.clone(), began);
        }
        Ok(())
    }

    fn piece(&mut self, source: &Source, began: Timestamp, piece: &Piece) -> io::Result<()> {
        let goes_on = !piece.begins && self.open.as_ref() == Some(source);
        if !goes_on {
            self.close()?;
            let view = self.view;
            let sink = self.sink(source.1);
            prefix(sink, view, &source.0, began)?;
        }
        let tamed = match self.sink(source.1).terminal {
            true => Some(self.tamed(source, piece)),
            false => None,
        };
        let sink = self.sink(source.1);
        sink.to.write_all(tamed.as_deref().unwrap_or(&piece.bytes))?;
        if piece.ends {
            sink.to.write_all(b"\n")?;
        }
        self.open = (!piece.ends).then(|| source.clone());
        Ok(())
    }

    /// What a terminal may see of a piece.
    fn tamed(&mut self, source: &Source, piece: &Piece) -> Vec<u8> {
        let mut tame = self.tame.remove(source).filter(|_| !piece.begins).unwrap_or_default();
        let bytes = tame.pass(&piece.bytes);
        if !piece.ends {
            self.tame.insert(source.clone(), tame);
        }
        bytes
    }

    /// Ends the line that stands open on the screen.
    fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            None => Ok(()),
            Some((_, stream)) => {
                let sink = self.sink(stream);
                sink.to.write_all(b"\n")?;
                sink.to.flush()
            }
        }
    }

    fn gap(&mut self, source: &Source, event: &LogEvent) -> anyhow::Result<()> {
        self.gaps += 1;
        if self.view == View::Events {
            return self.event(event);
        }
        // What comes after a gap is not the rest of the line before it.
        if let Some(piece) = self.lines.end(source) {
            let at = self.began.remove(source).unwrap_or(event.at);
            self.piece(source, at, &piece)?;
        }
        self.close()?;
        self.sink(source.1).to.flush()?;
        let (host, stream) = source;
        writeln!(self.err.to, "{}", gap_text(host, *stream, event.offset, event.gap))?;
        Ok(self.err.to.flush()?)
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("view", &self.view).finish_non_exhaustive()
    }
}

/// Says that bytes are missing.
pub(crate) fn gap_text(host: &HostName, stream: Stream, offset: u64, length: u64) -> String {
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    format!("gap: {length} bytes of {stream} on {host} were not kept after byte {offset}")
}

fn prefix(sink: &mut Sink, view: View, host: &HostName, at: Timestamp) -> io::Result<()> {
    let View::Lines { prefix, timestamps } = view else { return Ok(()) };
    // A command may leave its colour on; it must not run into the next host's line.
    if let Prefix::Host(width) = prefix {
        match sink.colour {
            true => write!(sink.to, "\u{1b}[0;{}m{host:width$} |\u{1b}[0m ", colour(host))?,
            false => write!(sink.to, "{host:width$} | ")?,
        }
    }
    if timestamps {
        write!(sink.to, "{at} ")?;
    }
    Ok(())
}

/// A host has the same colour in every run.
fn colour(host: &HostName) -> u8 {
    let sum = host
        .as_str()
        .bytes()
        .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    COLOURS.get(sum % COLOURS.len()).copied().unwrap_or(36)
}

/// A piece of output at the start of a stream, or a gap after it.
#[cfg(test)]
pub(crate) fn sample_event(host: &str, stream: Stream, bytes: &[u8], gap: u64) -> LogEvent {
    LogEvent {
        host: host.parse().expect("a host name"),
        stream,
        at: Timestamp::from_millis(1000),
        offset: if gap > 0 { u64::MAX } else { 0 },
        data: STANDARD.encode(bytes),
        gap,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn sink(&self, colour: bool) -> Sink {
            Sink { to: Box::new(self.clone()), colour, terminal: colour }
        }
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
        }
    }

    fn event(host: &str, stream: Stream, offset: u64, bytes: &[u8]) -> LogEvent {
        LogEvent {
            host: host.parse().unwrap(),
            stream,
            at: Timestamp::from_millis(1000),
            offset,
            data: STANDARD.encode(bytes),
            gap: 0,
        }
    }

    const LINES: View = View::Lines { prefix: Prefix::Host(4), timestamps: false };

    /// What one screen shows that has both streams.
    fn screen(view: View, colour: bool, events: &[LogEvent]) -> String {
        let screen = Screen::default();
        let mut live = Live::to(view, screen.sink(colour), screen.sink(colour));
        for event in events {
            live.take(event).unwrap();
        }
        live.finish().unwrap();
        screen.text()
    }

    #[test]
    fn lines_of_several_hosts_stand_in_columns() {
        let shown = screen(
            LINES,
            false,
            &[
                event("web1", Stream::Stdout, 0, b"hello\nwor"),
                event("db", Stream::Stderr, 0, b"oh no\n"),
                event("web1", Stream::Stdout, 9, b"ld\nlast"),
            ],
        );
        insta::assert_snapshot!(shown, @"
            web1 | hello
            db   | oh no
            web1 | world
            web1 | last
            ");
    }

    #[test]
    fn prefixes_have_a_colour_and_commands_keep_theirs() {
        let red = event("web1", Stream::Stdout, 0, b"\x1b[31mred\x1b[0m\n");
        insta::assert_snapshot!(screen(LINES, true, &[red]).escape_debug().to_string(), @r"\u{1b}[0;33mweb1 |\u{1b}[0m \u{1b}[31mred\u{1b}[0m\n");
    }

    #[test]
    fn only_a_terminal_is_spared_what_steers_it() {
        let wild = [event("web1", Stream::Stdout, 0, b"\x1b]0;x\nok\x1b[2J\r\n")];
        let tamed = "web1 | \nweb1 | ok\n";
        let on_terminal = screen(LINES, true, &wild);
        assert_eq!(on_terminal.replace("\u{1b}[0;33m", "").replace("\u{1b}[0m", ""), tamed);
        let in_pipe = "web1 | \u{1b}]0;x\nweb1 | ok\u{1b}[2J\r\n";
        assert_eq!(screen(LINES, false, &wild), in_pipe);
    }

    #[test]
    fn a_line_says_when_it_began() {
        let view = View::Lines { prefix: Prefix::None, timestamps: true };
        let mut second = event("a", Stream::Stdout, 2, b"b\nc\n");
        second.at = Timestamp::from_millis(2000);
        let shown = screen(view, false, &[event("a", Stream::Stdout, 0, b"aa"), second]);
        insta::assert_snapshot!(shown, @"
            1970-01-01T00:00:01.000Z aab
            1970-01-01T00:00:02.000Z c
            ");
    }

    #[test]
    fn a_long_line_is_continued_after_another_host_spoke() {
        let long = vec![b'x'; super::super::lines::HELD + 1];
        let shown = screen(
            LINES,
            false,
            &[event("web1", Stream::Stdout, 0, &long), event("db", Stream::Stdout, 0, b"me too\n")],
        );
        let lines: Vec<usize> = shown.lines().map(str::len).collect();
        assert_eq!(lines, [long.len() - 1 + 7, 13, 8]);
    }

    #[test]
    fn gaps_are_said_once() {
        let mut gap = event("web1", Stream::Stdout, 3, b"");
        gap.gap = 77;
        let events = [
            event("web1", Stream::Stdout, 0, b"abc"),
            gap.clone(),
            event("web1", Stream::Stdout, 3, b"d\n"),
            gap,
        ];
        insta::assert_snapshot!(screen(LINES, false, &events), @"
            web1 | abc
            gap: 77 bytes of stdout on web1 were not kept after byte 3
            web1 | d
            ");
    }

    proptest! {
        #[test]
        fn what_is_sent_again_is_shown_once(
            bytes in prop::collection::vec(any::<u8>(), 1..40),
            pieces in prop::collection::vec((any::<prop::sample::Index>(), 1..20_usize), 0..20),
        ) {
            let screen = Screen::default();
            let mut live = Live::to(View::Raw, screen.sink(false), screen.sink(false));
            let mut reached = 0;
            for (from, length) in pieces {
                // Any piece that begins at or before what was reached: what a resumed stream may send.
                let from = from.index(reached + 1);
                let to = (from + length).min(bytes.len());
                live.take(&event("a", Stream::Stdout, from as u64, &bytes[from..to])).unwrap();
                reached = reached.max(to);
            }
            let shown = screen.0.lock().unwrap().clone();
            prop_assert_eq!(shown, &bytes[..reached]);
        }
    }
}
