//! The record as one page of HTML: no script, nothing from elsewhere, light or dark, and to be printed. The document in
//! it is written as on the page of the runbook.

use std::fmt::Write as _;

use super::{Piece, Record, head, one_line, steps};
use crate::runbook::page::{self, Code, harmless, pieces};

const STYLE: &str = include_str!("report.css");

/// Writes the record of a change as a page of HTML.
#[must_use]
pub fn html(record: &Record<'_>) -> String {
    let steps = steps(record);
    let title = escaped(&one_line(&record.change.plan.title));
    let lines = steps.iter().filter_map(|(step, _)| step.line).collect();
    let mut text = String::new();
    let mut told = vec![false; steps.len()];
    for piece in pieces(&record.change.plan.source, &lines, Code::Kept) {
        match piece {
            page::Piece::Html(html) => text.push_str(&html),
            page::Piece::Step(line) => {
                for ((step, pieces), told) in steps.iter().zip(&mut told) {
                    if step.line == Some(line) {
                        *told = true;
                        text.push_str(&aside(pieces));
                    }
                }
            }
        }
    }
    for ((step, pieces), _) in steps.iter().zip(&told).filter(|(_, told)| !**told) {
        writeln!(text, "<h2>{}</h2>", escaped(&one_line(&step.title))).expect("writing to memory");
        text.push_str(&aside(pieces));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src {INLINE}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{}{}</main>\n</body>\n</html>\n",
        aside(&head(record)),
        text
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

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(harmless(c)),
        }
    }
    escaped
}
