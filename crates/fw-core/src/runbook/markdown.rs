//! From Markdown to headings, blocks and items, in the order of the document.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The most containers (quotes, list items) that one line may open; people use three.
const DEEPEST: usize = 32;

/// The most bytes of a heading or item that make its text.
const LONGEST_TEXT: usize = 200;

/// The most headings, blocks and items of a document.
pub(super) const MOST_PARTS: usize = 10_000;

/// What a document consists of.
#[derive(Debug)]
pub(super) enum Part {
    /// A heading.
    Heading {
        /// Where it begins.
        at: usize,
        /// 1 to 6.
        level: u8,
        /// What it says.
        text: String,
    },
    /// A block of code.
    Block(Block),
    /// An item with a box to tick and without code.
    Item {
        /// Where it begins.
        at: usize,
        /// What it says.
        text: String,
    },
}

/// A block of code.
#[derive(Debug)]
pub(super) struct Block {
    /// Where it begins.
    pub(super) at: usize,
    /// What stands after the fence, and where; `None` in an indented block.
    pub(super) info: Option<Range<usize>>,
    /// What is in it, without the last line break.
    pub(super) text: String,
    /// Where pieces of the text stand: byte of the text, byte of the document.
    pub(super) pieces: Vec<(usize, usize)>,
    /// What the item says that it stands in.
    pub(super) item: Option<String>,
}

impl Block {
    /// Where a byte of the text stands in the document.
    pub(super) fn place(&self, byte: usize) -> usize {
        let before = self.pieces.partition_point(|(start, _)| *start <= byte);
        let piece = before.checked_sub(1).and_then(|last| self.pieces.get(last));
        piece.map_or(self.at, |(start, at)| at + byte - start)
    }
}

/// Why a document is not read.
#[derive(Debug)]
pub(super) struct TooMuch {
    /// Where.
    pub(super) at: usize,
    /// What, and what to do.
    pub(super) message: String,
}

/// Reads Markdown that begins at byte `begin` of the document.
pub(super) fn read(text: &str, begin: usize) -> Result<Vec<Part>, TooMuch> {
    let body = text.get(begin..).unwrap_or_default();
    if let Some(at) = too_deep(body) {
        let message = format!("more than {DEEPEST} lists and quotes in each other; flatten them");
        return Err(TooMuch { at: begin + at, message });
    }
    let mut walk = Walk { text, ..Walk::default() };
    for (event, range) in Parser::new_ext(body, Options::ENABLE_TASKLISTS).into_offset_iter() {
        walk.event(event, begin + range.start..begin + range.end);
        if walk.parts.len() > MOST_PARTS {
            let message =
                format!("more than {MOST_PARTS} headings, blocks and items; split the document");
            return Err(TooMuch { at: begin + range.start, message });
        }
    }
    Ok(walk.parts.into_iter().flatten().collect())
}

/// The first line that opens too many containers: for each of them every later line costs time.
fn too_deep(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive(['\n', '\r']) {
        if opened(line) > DEEPEST {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// How many containers a line opens at most: markers with a blank after them, and what its
/// indentation leaves room for if a list goes on there (a level takes two columns, people use up to eight).
fn opened(line: &str) -> usize {
    let head = line.chars().zip(line.chars().skip(1));
    let filler = |c: char| matches!(c, ' ' | '\t') || c.is_ascii_digit();
    let marker = |c: char| matches!(c, '>' | '-' | '*' | '+' | '.' | ')');
    let head = head.take_while(|(c, _)| marker(*c) || filler(*c));
    let markers =
        head.filter(|(c, next)| marker(*c) && matches!(next, ' ' | '\t' | '\n' | '\r')).count();
    let text = line.trim_start_matches([' ', '\t']);
    let indent = line.len() - text.len();
    let listed =
        text.starts_with(['-', '*', '+', '>']) || text.starts_with(|c: char| c.is_ascii_digit());
    if listed { markers + indent / 8 } else { markers }
}

/// An item that is open.
#[derive(Debug, Default)]
struct Open {
    text: Text,
    /// Its place in the parts, when it has a box.
    part: Option<usize>,
    has_code: bool,
}

/// A text that grows until it is closed.
#[derive(Debug, Default)]
struct Text {
    text: String,
    closed: bool,
}

impl Text {
    fn push(&mut self, more: &str) {
        let room = LONGEST_TEXT.saturating_sub(self.text.len());
        if !self.closed && room > 0 {
            self.text.extend(more.chars().map(|c| if c.is_control() { ' ' } else { c }).take(room));
        }
    }

    fn shown(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug, Default)]
struct Walk<'a> {
    text: &'a str,
    parts: Vec<Option<Part>>,
    items: Vec<Open>,
    heading: Option<(usize, u8, Text)>,
    block: Option<Block>,
}

impl Walk<'_> {
    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        match event {
            Event::Start(tag) => self.start(&tag, range),
            Event::End(end) => self.end(end),
            Event::Text(text) => match &mut self.block {
                Some(block) => {
                    block.pieces.push((block.text.len(), range.start));
                    block.text.push_str(&text);
                }
                None => self.say(&text),
            },
            Event::Code(text) => self.say(&text),
            Event::SoftBreak | Event::HardBreak => self.say(" "),
            Event::TaskListMarker(_) => {
                self.parts.push(Some(Part::Item { at: range.start, text: String::new() }));
                let part = self.parts.len() - 1;
                if let Some(open) = self.items.last_mut() {
                    open.part = Some(part);
                }
            }
            // HTML is never shown nor run.
            Event::Html(_) | Event::InlineHtml(_) | Event::Rule => {}
            Event::InlineMath(_) | Event::DisplayMath(_) | Event::FootnoteReference(_) => {}
        }
    }

    fn say(&mut self, text: &str) {
        if let Some((_, _, heading)) = &mut self.heading {
            heading.push(text);
        } else if let Some(open) = self.items.last_mut() {
            open.text.push(text);
        }
    }

    fn start(&mut self, tag: &Tag<'_>, range: Range<usize>) {
        match tag {
            Tag::Heading { level, .. } => {
                self.heading = Some((range.start, *level as u8, Text::default()));
            }
            Tag::Item => self.items.push(Open::default()),
            Tag::CodeBlock(kind) => {
                let item = self.items.iter().rev().find(|open| open.part.is_some());
                let item = item.or_else(|| self.items.last());
                let item = item.map(|open| open.text.shown()).filter(|text| !text.is_empty());
                let info = match kind {
                    CodeBlockKind::Fenced(_) => Some(self.info(&range)),
                    CodeBlockKind::Indented => None,
                };
                self.block = Some(Block {
                    at: range.start,
                    info,
                    text: String::new(),
                    pieces: Vec::new(),
                    item,
                });
            }
            // What comes after the first paragraph of an item is no part of its text.
            Tag::List(_) | Tag::BlockQuote(_) | Tag::HtmlBlock => self.close_text(),
            Tag::Paragraph
            | Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Table(_)
            | Tag::TableHead
            | Tag::TableRow
            | Tag::TableCell
            | Tag::Emphasis
            | Tag::Strong
            | Tag::Strikethrough
            | Tag::Superscript
            | Tag::Subscript
            | Tag::Link { .. }
            | Tag::Image { .. }
            | Tag::MetadataBlock(_) => {}
        }
    }

    fn close_text(&mut self) {
        if let Some(open) = self.items.last_mut() {
            open.text.closed = true;
        }
    }

    /// What stands after the fence, as it is written: Markdown itself takes backslashes away.
    fn info(&self, block: &Range<usize>) -> Range<usize> {
        let source = self.text.get(block.clone()).unwrap_or_default();
        let line = source.split(['\n', '\r']).next().unwrap_or_default();
        let fence = line.chars().next().filter(|c| matches!(c, '`' | '~')).unwrap_or('`');
        let info = line.trim_start_matches(fence);
        let start = block.start + line.len() - info.len();
        start..start + info.len()
    }

    fn end(&mut self, end: TagEnd) {
        match end {
            TagEnd::Heading(_) => {
                if let Some((at, level, text)) = self.heading.take() {
                    self.parts.push(Some(Part::Heading { at, level, text: text.shown() }));
                }
            }
            TagEnd::CodeBlock => {
                if let Some(mut block) = self.block.take() {
                    if block.text.ends_with('\n') {
                        block.text.pop();
                    }
                    self.parts.push(Some(Part::Block(block)));
                }
                if let Some(open) = self.items.last_mut() {
                    open.has_code = true;
                    open.text.closed = true;
                }
            }
            TagEnd::Item => self.end_item(),
            TagEnd::Paragraph => self.close_text(),
            TagEnd::BlockQuote(_)
            | TagEnd::HtmlBlock
            | TagEnd::List(_)
            | TagEnd::FootnoteDefinition
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::Table
            | TagEnd::TableHead
            | TagEnd::TableRow
            | TagEnd::TableCell
            | TagEnd::Emphasis
            | TagEnd::Strong
            | TagEnd::Strikethrough
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::Link
            | TagEnd::Image
            | TagEnd::MetadataBlock(_) => {}
        }
    }

    /// An item in which there is code is no step of its own: the code is.
    fn end_item(&mut self) {
        let Some(open) = self.items.pop() else { return };
        if let Some(around) = self.items.last_mut() {
            around.has_code |= open.has_code;
        }
        let Some(part) = open.part.and_then(|part| self.parts.get_mut(part)) else { return };
        match part {
            Some(Part::Item { text, .. }) if !open.has_code => *text = open.text.shown(),
            Some(Part::Item { .. } | Part::Heading { .. } | Part::Block(_)) | None => *part = None,
        }
    }
}
