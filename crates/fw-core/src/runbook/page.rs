//! A runbook as a page shows it: its prose as HTML, with places left for its steps.
//!
//! A document comes from a person and is shown to others, so nothing in it is code of the page: HTML in it is shown
//! as text, pictures as what they stand for, and only addresses of the web can be followed.

use std::collections::BTreeSet;

use pulldown_cmark::{
    CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html,
};

use super::front;

/// A piece of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// HTML that may be shown as it is.
    Html(String),
    /// Here belongs the step that begins at this line of the document.
    Step(u32),
}

/// Who shows the code of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The document; the step comes behind it.
    Kept,
    /// The step, in its place.
    LeftToSteps,
}

/// The pieces of a document in their order.
///
/// `steps` are the lines, counted from 1, at which those steps begin that have their turn; each comes once. Headings
/// are one level lower than in the document, for a page has a title of its own.
#[must_use]
pub fn pieces(source: &str, steps: &BTreeSet<u32>, code: Code) -> Vec<Piece> {
    let text = normal(source);
    let begin = front::split(&text).map_or(0, |(_, begin)| begin);
    let mut walk = Walk {
        lines: Lines::new(&text),
        steps: steps.clone(),
        code,
        pieces: Vec::new(),
        events: Vec::new(),
        inside: Vec::new(),
    };
    let body = text.get(begin..).unwrap_or_default();
    let options = Options::ENABLE_TASKLISTS | Options::ENABLE_TABLES;
    for (event, range) in Parser::new_ext(body, options).into_offset_iter() {
        walk.event(event, begin + range.start);
    }
    walk.flush();
    walk.pieces
}

struct Walk<'a> {
    lines: Lines<'a>,
    /// Those that were not told yet.
    steps: BTreeSet<u32>,
    code: Code,
    pieces: Vec<Piece>,
    /// What was not written yet.
    events: Vec<Event<'a>>,
    /// What stands open: what becomes of it, and of all in it.
    inside: Vec<Inside>,
}

/// Something that has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// A block of code that its step shows.
    Left,
    /// A block or item that is a step of its own, and where it begins.
    Step(u32),
    /// A picture, of which only the words are shown.
    Picture,
    /// A link that leads nowhere we know.
    Dead,
    /// Anything else.
    Plain,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser has many events, and what is not named here is shown as it is"
)]
impl<'a> Walk<'a> {
    fn event(&mut self, event: Event<'a>, at: usize) {
        match event {
            Event::Start(tag) => self.start(tag, at),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => {
                self.push(Event::Text(harmless_text(text)));
            }
            Event::Code(text) => self.push(Event::Code(harmless_text(text))),
            // The step says whether it is ticked.
            Event::TaskListMarker(_) => {}
            other => self.push(other),
        }
    }

    fn push(&mut self, event: Event<'a>) {
        if !self.inside.contains(&Inside::Left) {
            self.events.push(event);
        }
    }

    fn start(&mut self, tag: Tag<'a>, at: usize) {
        let line = self.lines.line(at);
        let step = if self.steps.contains(&line) { Inside::Step(line) } else { Inside::Plain };
        let (inside, tag) = match tag {
            Tag::CodeBlock(_) if step != Inside::Plain && self.code == Code::LeftToSteps => {
                self.tell(line);
                (Inside::Left, None)
            }
            Tag::CodeBlock(kind) => (step, Some(Tag::CodeBlock(quiet(&kind)))),
            Tag::Item => (step, Some(Tag::Item)),
            Tag::Image { .. } => (Inside::Picture, None),
            Tag::Link { dest_url, .. } if !may_be_followed(&dest_url) => (Inside::Dead, None),
            Tag::Heading { level, id, classes, attrs } => {
                (Inside::Plain, Some(Tag::Heading { level: lower(level), id, classes, attrs }))
            }
            Tag::HtmlBlock => (Inside::Plain, Some(Tag::Paragraph)),
            other => (Inside::Plain, Some(other)),
        };
        if let Some(tag) = tag {
            self.push(Event::Start(tag));
        }
        self.inside.push(inside);
    }

    fn end(&mut self, tag: TagEnd) {
        let inside = self.inside.pop().unwrap_or(Inside::Plain);
        let tag = match tag {
            TagEnd::Heading(level) => TagEnd::Heading(lower(level)),
            TagEnd::HtmlBlock => TagEnd::Paragraph,
            other => other,
        };
        match inside {
            Inside::Left | Inside::Picture | Inside::Dead => {}
            Inside::Plain => self.push(Event::End(tag)),
            // The step of an item stands in it, that of a block behind it.
            Inside::Step(line) if tag == TagEnd::Item => {
                self.tell(line);
                self.push(Event::End(tag));
            }
            Inside::Step(line) => {
                self.push(Event::End(tag));
                self.tell(line);
            }
        }
    }

    /// Leaves a place for a step, unless it has one.
    fn tell(&mut self, line: u32) {
        if self.steps.remove(&line) {
            self.flush();
            self.pieces.push(Piece::Step(line));
        }
    }

    fn flush(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut text = String::new();
        html::push_html(&mut text, std::mem::take(&mut self.events).into_iter());
        // What can be scrolled has to be reached by keys.
        self.pieces.push(Piece::Html(text.replace("<pre>", "<pre tabindex=\"0\">")));
    }
}

/// Line ends as Markdown knows them, all as `\n`, and no byte order mark.
pub(super) fn normal(source: &str) -> String {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A character that is a letter to whoever reads it, and steers nothing.
pub(super) fn harmless(c: char) -> char {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if (c.is_control() && !matches!(c, '\t' | '\n')) || turns { '\u{fffd}' } else { c }
}

fn harmless_text(text: CowStr<'_>) -> CowStr<'_> {
    if text.chars().all(|c| harmless(c) == c) {
        return text;
    }
    text.chars().map(harmless).collect::<String>().into()
}

/// A class made of what somebody wrote is of no use.
const fn quiet<'a>(kind: &CodeBlockKind<'a>) -> CodeBlockKind<'a> {
    match kind {
        CodeBlockKind::Indented => CodeBlockKind::Indented,
        CodeBlockKind::Fenced(_) => CodeBlockKind::Fenced(CowStr::Borrowed("")),
    }
}

const fn lower(level: HeadingLevel) -> HeadingLevel {
    match level {
        HeadingLevel::H1 => HeadingLevel::H2,
        HeadingLevel::H2 => HeadingLevel::H3,
        HeadingLevel::H3 => HeadingLevel::H4,
        HeadingLevel::H4 => HeadingLevel::H5,
        HeadingLevel::H5 | HeadingLevel::H6 => HeadingLevel::H6,
    }
}

/// Whether an address is one of the web, of mail, or a place in the document.
fn may_be_followed(address: &str) -> bool {
    ["https://", "http://", "mailto:", "#"].iter().any(|begin| address.starts_with(begin))
}

/// From bytes to lines, forwards.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lines<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line of a byte, counted from 1.
    fn line(&mut self, at: usize) -> u32 {
        if at < self.at {
            (self.at, self.line) = (0, 1);
        }
        let passed = self.text.get(self.at..at).unwrap_or_default();
        let breaks = passed.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
        self.at = at;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(source: &str) -> Vec<Piece> {
        let runbook = super::super::parse("test", source).runbook;
        let steps = runbook.steps.iter().filter(|step| step.kind.has_its_turn());
        pieces(source, &steps.map(|step| step.line).collect(), Code::LeftToSteps)
    }

    fn html(pieces: &[Piece]) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Html(text) => text.clone(),
            Piece::Step(line) => format!("[step {line}]"),
        };
        pieces.iter().map(text).collect()
    }

    #[test]
    fn steps_stand_where_they_stand_in_the_document() {
        let source = "---\ntitle: Move\n---\n# Before\n\nSome *words*.\n\n- [ ] Look at it\n- [ ] Do it\n  ```sh\n  true\n  ```\n";
        let shown = html(&of(source));
        assert!(shown.contains("<h2>Before</h2>"), "{shown}");
        assert!(shown.contains("<em>words</em>"), "{shown}");
        assert!(shown.contains("Look at it[step 8]"), "{shown}");
        assert!(shown.contains("[step 10]") && !shown.contains("true"), "{shown}");
    }

    #[test]
    fn nothing_in_a_document_is_code_of_the_page() {
        let source = "# A <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[go](javascript:alert(1)) ![see](https://x.example/a.png)\n\n```<b>\n<i>\n```\n";
        let shown = html(&of(source));
        for bad in ["<script", "<img", "javascript:", "<i>", "<b>"] {
            assert!(!shown.contains(bad), "{bad} in {shown}");
        }
        assert!(shown.contains("see"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_document_has_only_tags_of_ours(text in "([#>*` \\-\\[\\]()!<>&a-z\"'=:/\n]|```|- \\[ \\] |<script>|javascript:){0,60}") {
            let shown = html(&of(&text));
            for (at, _) in shown.match_indices('<') {
                let rest = shown[at + 1..].trim_start_matches('/');
                let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
                let ours = ["h2", "h3", "h4", "h5", "h6", "p", "ul", "ol", "li", "em", "strong", "code", "pre", "a", "br", "hr", "blockquote", "table", "thead", "tbody", "tr", "th", "td"];
                prop_assert!(ours.contains(&name.as_str()), "{} in {}", name, shown);
            }
            prop_assert!(!shown.contains("href=\"javascript:"));
        }

        #[test]
        fn every_step_with_its_turn_is_shown_once(text in "(# [a-z]{1,5}\n\n|- \\[ \\] [a-z]{1,8}\n|- \\[ \\] [a-z]{1,5}\n  ```sh\n  true\n  ```\n|```sh\ntrue\n```\n\n|[a-z ]{1,20}\n\n){0,12}") {
            let runbook = super::super::parse("test", &text).runbook;
            let mut steps: Vec<_> = runbook.steps.iter().filter(|step| step.kind.has_its_turn()).map(|step| step.line).collect();
            let mut shown: Vec<_> = of(&text).into_iter().filter_map(|piece| match piece { Piece::Step(line) => Some(line), Piece::Html(_) => None }).collect();
            steps.sort_unstable();
            shown.sort_unstable();
            prop_assert_eq!(steps, shown);
        }
    }
}
