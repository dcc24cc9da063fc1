//! The record as one page of HTML: no script, nothing from elsewhere, light or dark, and to be printed.

use std::fmt::Write as _;

use pulldown_cmark::{Event, HeadingLevel, Tag, TagEnd};

use super::place::{Document, Next, normal};
use super::{Piece, Record, head, one_line, steps};

const STYLE: &str = include_str!("report.css");

/// Writes the record of a change as a page of HTML.
#[must_use]
pub fn html(record: &Record<'_>) -> String {
    let steps = steps(record);
    let source = normal(&record.change.plan.source);
    let document = Document::new(&source, steps.iter().map(|(step, _)| step));
    let title = escaped(&one_line(&record.change.plan.title));
    let mut page = Page { text: String::new(), links: Vec::new() };
    let mut told = vec![false; steps.len()];
    for next in document.walk() {
        match next {
            Next::Part(event) => page.part(&event),
            Next::Step(at, _) => {
                let (Some((_, pieces)), Some(told)) = (steps.get(at), told.get_mut(at)) else {
                    continue;
                };
                *told = true;
                page.text.push_str(&aside(pieces));
            }
        }
    }
    for ((step, pieces), _) in steps.iter().zip(&told).filter(|(_, told)| !**told) {
        writeln!(page.text, "<h2>{}</h2>", escaped(&one_line(&step.title)))
            .expect("writing to memory");
        page.text.push_str(&aside(pieces));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src {INLINE}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{}{}</main>\n</body>\n</html>\n",
        aside(&head(record)),
        page.text
    )
}

/// The page carries its own styles, and nothing else.
const INLINE: &str = "'unsafe-inline'";

/// What is told of a step.
fn aside(pieces: &[Piece]) -> String {
    let mut text = String::new();
    let class = pieces.iter().find_map(|piece| match piece {
        Piece::State(word, _) => Some(*word),
        Piece::Line(..) | Piece::Block(..) => None,
    });
    writeln!(text, "<section class=\"record {}\">", class.unwrap_or_default())
        .expect("writing to memory");
    for piece in pieces {
        match piece {
            Piece::State(word, more) => {
                let (word, more) = (word.replace('_', " "), escaped(&one_line(more)));
                writeln!(text, "<p><strong>{word}</strong> {more}</p>")
            }
            Piece::Line(label, said) => {
                let (label, said) = (escaped(&one_line(label)), escaped(&one_line(said)));
                writeln!(text, "<p><span>{label}</span> {said}</p>")
            }
            Piece::Block(caption, block) => {
                let (caption, block) = (escaped(&one_line(caption)), escaped(block));
                writeln!(
                    text,
                    "<figure><figcaption>{caption}</figcaption><pre>{block}</pre></figure>"
                )
            }
        }
        .expect("writing to memory");
    }
    text.push_str("</section>\n");
    text
}

/// A document that is being written. Its own HTML is text here.
struct Page {
    text: String,
    /// Of each link that is open, whether it leads somewhere.
    links: Vec<bool>,
}

impl Page {
    fn part(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(*tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => {
                self.text.push_str(&escaped(text));
            }
            Event::Code(text) => {
                write!(self.text, "<code>{}</code>", escaped(text)).expect("writing to memory");
            }
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => {
                self.text.push_str(&escaped(text));
            }
            Event::SoftBreak => self.text.push('\n'),
            Event::HardBreak => self.text.push_str("<br>\n"),
            Event::Rule => self.text.push_str("<hr>\n"),
            Event::TaskListMarker(done) => self.text.push_str(if *done { "☑ " } else { "☐ " }),
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        let begin = if let Tag::Heading { level, .. } = tag {
            format!("<h{}>", below_title(*level))
        } else if let Tag::List(Some(first)) = tag {
            format!("<ol start=\"{first}\">\n")
        } else if let Tag::Link { dest_url, .. } = tag {
            let leads = leads(dest_url);
            self.links.push(leads);
            let link = || format!("<a href=\"{}\" rel=\"noreferrer\">", escaped(dest_url));
            leads.then(link).unwrap_or_default()
        } else if let Tag::Image { .. } = tag {
            // Nothing is loaded from elsewhere: the text of an image stands for it.
            "[".to_owned()
        } else if let Tag::CodeBlock(_) = tag {
            "<pre><code>".to_owned()
        } else {
            name(tag.to_end()).map_or_else(String::new, |name| format!("<{name}>"))
        };
        self.text.push_str(&begin);
    }

    fn end(&mut self, tag: TagEnd) {
        let end = if let TagEnd::Heading(level) = tag {
            format!("</h{}>\n", below_title(level))
        } else if tag == TagEnd::List(true) {
            "</ol>\n".to_owned()
        } else if tag == TagEnd::Link {
            let leads = self.links.pop() == Some(true);
            if leads { "</a>".to_owned() } else { String::new() }
        } else if tag == TagEnd::Image {
            "]".to_owned()
        } else if tag == TagEnd::CodeBlock {
            "</code></pre>\n".to_owned()
        } else {
            let name = name(tag);
            let within = matches!(name, Some("em" | "strong" | "s" | "sup" | "sub"));
            let break_after = if within { "" } else { "\n" };
            name.map_or_else(String::new, |name| format!("</{name}>{break_after}"))
        };
        self.text.push_str(&end);
    }
}

/// The page has one heading of the first level, its title.
fn below_title(level: HeadingLevel) -> u8 {
    (level as u8 + 1).min(6)
}

/// The element of what needs no more than its name.
fn name(tag: TagEnd) -> Option<&'static str> {
    match tag {
        TagEnd::Paragraph => Some("p"),
        TagEnd::BlockQuote(_) => Some("blockquote"),
        TagEnd::List(false) => Some("ul"),
        TagEnd::Item => Some("li"),
        TagEnd::Emphasis => Some("em"),
        TagEnd::Strong => Some("strong"),
        TagEnd::Strikethrough => Some("s"),
        TagEnd::Superscript => Some("sup"),
        TagEnd::Subscript => Some("sub"),
        TagEnd::Heading(_)
        | TagEnd::List(true)
        | TagEnd::Link
        | TagEnd::Image
        | TagEnd::CodeBlock
        | TagEnd::HtmlBlock
        | TagEnd::FootnoteDefinition
        | TagEnd::DefinitionList
        | TagEnd::DefinitionListTitle
        | TagEnd::DefinitionListDefinition
        | TagEnd::Table
        | TagEnd::TableHead
        | TagEnd::TableRow
        | TagEnd::TableCell
        | TagEnd::MetadataBlock(_) => None,
    }
}

/// Whether a link leads to a page, and not to a script.
fn leads(link: &str) -> bool {
    ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme))
        || link.starts_with('#')
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(super::harmless(c)),
        }
    }
    escaped
}
